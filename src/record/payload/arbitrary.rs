//! Payloads for property tests: bytes that are protobuf now and then, with what the rules are about in them.

use proptest::prelude::*;

use super::wire::{put_bytes, put_double, put_number};

/// Bytes that look like protobuf now and then, nested as deeply as records are.
pub(crate) fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select(vec!["(1.5 N, 2.5 W)", "1.5e3", "-0.0E-2", "VIN", "text"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let number = prop_oneof![8 => 1_u32..5, 1 => 1_u32..60];
        let field = (number, inner, any::<u64>(), 0_u8..12).prop_map(|(number, inner, value, what)| {
            let mut out = Vec::new();
            match what {
                0 => put_number(&mut out, number, value),
                1 => put_number(&mut out, number, 315_575_999_990 + value % 20),
                2 => put_number(&mut out, number, 21),
                3 => put_double(&mut out, number, f64::from_bits(value)),
                4 => {
                    out.push((number << 3 | 5) as u8 & 0x7f);
                    out.extend((value as u32).to_le_bytes());
                }
                _ => put_bytes(&mut out, number, &inner),
            }
            out
        });
        prop::collection::vec(field, 0..5).prop_map(|fields| fields.concat())
    })
}
