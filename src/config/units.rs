//! Durations and sizes as they are written in the configuration: a whole number and a unit, `"50ms"`, `"4 GiB"`.
//!
//! Nothing without a unit is accepted, and nothing that does not fit is rounded.

use std::time::Duration;

/// The text is not a number and a unit, or stands for more than fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAQuantity;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

pub(super) fn duration(text: &str) -> Result<Duration, NotAQuantity> {
    quantity(text, &DURATIONS).map(Duration::from_millis)
}

pub(super) fn size(text: &str) -> Result<u64, NotAQuantity> {
    quantity(text, &SIZES)
}

/// Minutes after midnight of `HH:MM`, up to `24:00`.
pub(super) fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = 60 * hours + minutes;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

/// A duration in the largest unit that gives it exactly.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = largest(millis, &DURATIONS, "s");
    format!("{}{unit}", millis / factor)
}

/// A size in the largest binary unit that gives it exactly.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, factor) = largest(bytes, &[SIZES[0], SIZES[2], SIZES[4], SIZES[6]], "B");
    format!("{} {unit}", bytes / factor)
}

fn largest<'u>(amount: u64, units: &[(&'u str, u64)], zero: &'u str) -> (&'u str, u64) {
    if amount == 0 {
        return (zero, 1);
    }
    units
        .iter()
        .rev()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .copied()
        .unwrap_or((zero, 1))
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, NotAQuantity> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotAQuantity)?;
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(NotAQuantity)?;
    number.checked_mul(*factor).ok_or(NotAQuantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let cases = [
            ("0ms", 0),
            ("50ms", 50),
            ("10 s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10S",
            "10 sec",
            "1s 5ms",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(text), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        let cases = [
            ("0B", 0),
            ("7 B", 7),
            ("1KB", 1_000),
            ("1 KiB", 1_024),
            ("4 GiB", 4 << 30),
            ("2MB", 2_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["4", "4 gib", "4G", "4 GiB!", "1e3 B", "17179869184 GiB"] {
            assert_eq!(size(text), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn times_of_day_are_hours_and_minutes() {
        let cases = [("00:00", 0), ("06:30", 390), ("23:59", 1_439), ("24:00", 1_440)];
        for (text, minutes) in cases {
            assert_eq!(time_of_day(text), Some(minutes), "{text}");
        }
        for text in ["", "6:30", "06:60", "24:01", "25:00", "+1:00", "06:3", "0630"] {
            assert_eq!(time_of_day(text), None, "{text}");
        }
    }

    #[test]
    fn quantities_are_shown_in_the_largest_unit_that_is_exact() {
        assert_eq!(show_size(32 << 20), "32 MiB");
        assert_eq!(show_size(1_000_000), "1000000 B");
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(7_200)), "2h");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }
}
