//! Numbers that vehicles write in scientific notation, as consumers expect them.
//!
//! Invariant: what is written is what the standard library writes, of the 32-bit float that it reads.

use std::io::Write;

/// A number in scientific notation, as a 32-bit float has it.
///
/// `^[+-]?(\d*\.\d+|\d+\.\d*)([eE][+-]?\d+)$`: there is a point, a digit beside it, and an exponent.
pub(super) fn scientific(text: &[u8]) -> Option<f32> {
    // Most numbers are not.
    if !text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return None;
    }
    // From the front, so that a long text that is no number is left at its first letter.
    let (whole, rest) = digits(without_sign(text));
    let (fraction, rest) = digits(rest.strip_prefix(b".")?);
    let (b'e' | b'E', exponent) = rest.split_first()? else {
        return None;
    };
    let (exponent, rest) = digits(without_sign(exponent));
    if whole.is_empty() && fraction.is_empty() || exponent.is_empty() || !rest.is_empty() {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse::<f32>().ok();
    number.filter(|number| number.is_finite())
}

/// Writes it as `{:.5}` does, without all that any number of decimals takes.
pub(super) fn put_five_decimals(number: f32, out: &mut Vec<u8>) {
    // 24 bits and the 12 of 3,125 have room in the 53 of a double: nothing is lost here, and what is half is exactly half.
    let scaled = (f64::from(number) * 1e5).round_ties_even();
    if scaled.abs() >= 1e19 {
        return write!(out, "{number:.5}").unwrap_or_default();
    }
    if number.is_sign_negative() {
        out.push(b'-');
    }
    // From the last digit on.
    let mut digits = [b'0'; 20];
    let (mut at, mut left) = (digits.len(), scaled.abs() as u64);
    while left > 0 || at > digits.len() - 6 {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    let (whole, decimals) = digits[at..].split_at(digits.len() - 5 - at);
    out.extend_from_slice(whole);
    out.push(b'.');
    out.extend_from_slice(decimals);
}

fn without_sign(number: &[u8]) -> &[u8] {
    match number {
        [b'+' | b'-', rest @ ..] => rest,
        _ => number,
    }
}

/// The digits at the beginning, and the rest.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_five_decimals(text: &str) -> Option<String> {
        scientific(text.as_bytes()).map(five_decimals)
    }

    fn five_decimals(number: f32) -> String {
        let mut out = Vec::new();
        put_five_decimals(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scientific_notation_becomes_five_decimals_of_a_32_bit_float() {
        for (from, to) in [
            ("1.5e3", "1500.00000"),
            ("+1.5E+03", "1500.00000"),
            ("-1.5e-3", "-0.00150"),
            ("5.e0", "5.00000"),
            (".5e3", "500.00000"),
            ("-0.0e0", "-0.00000"),
            ("1.0e-50", "0.00000"),
            ("1.23456789e8", "123456792.00000"),
            ("1.1e0", "1.10000"),
            // Halves go to the even digit.
            ("1.5625e-2", "0.01562"),
            ("4.6875e-2", "0.04688"),
            ("3.4028235e38", "340282346638528859811704183484516925440.00000"),
        ] {
            assert_eq!(with_five_decimals(from).as_deref(), Some(to), "{from}");
        }
    }

    #[test]
    fn what_is_not_quite_scientific_notation_stays() {
        for from in [
            "",
            "1e5",
            "1.5",
            "5.",
            ".e5",
            "e5",
            "1.5e",
            "1.5e+",
            "1.5e5 ",
            " 1.5e5",
            "1.5e5\n",
            "--1.5e5",
            "1.5e5.0",
            "1.5e5e5",
            "1,5e5",
            "inf",
            "NaN",
            "0x1.8e3",
            "١.٥e٣",
            "1.0e39",
            "-1.0e39",
            "1.0e99999999999999999999",
        ] {
            assert_eq!(with_five_decimals(from), None, "{from}");
        }
    }

    proptest! {
        #[test]
        fn five_decimals_are_those_of_the_standard_library(bits: u32, small in -40_000_000_i32..40_000_000) {
            // Any float, and those that lie in the middle between two of five decimals: halves of powers of two.
            for number in [f32::from_bits(bits), small as f32 / 64.0, small as f32 / 4096.0, small as f32 / 1e5] {
                if number.is_finite() {
                    prop_assert_eq!(five_decimals(number), format!("{number:.5}"));
                }
            }
        }
    }
}
