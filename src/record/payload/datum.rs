//! A datum as vehicles write it, read in one go: a key, then a value with one member or none, and nothing else.
//!
//! Invariant: what is read here is what `wire` reads of the same bytes. Whatever looks any other way is left to that.

use super::wire::Wire;

/// A `Datum` with one `Value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datum<'a> {
    pub(super) key: i32,
    /// The field of the value that is set: its number and what it holds.
    pub(super) member: Option<(u32, Wire<'a>)>,
}

/// The member of a value that is a string.
pub(super) const STRING: u32 = 1;
const KEY: u8 = 0x08;
const VALUE: u8 = 0x12;

/// `None`: it is not written like that, or not at all.
///
/// Always inlined, like what it calls: it is called for each datum of each record, twice.
#[inline(always)]
pub(super) fn read(body: &[u8]) -> Option<Datum<'_>> {
    let (key, value) = key_and_value(body)?;
    if value.is_empty() {
        return Some(Datum { key, member: None });
    }
    let (tag, rest) = short(value)?;
    // Not by a `match`: that becomes a table to jump by, which costs more than all of the reading.
    let wire = if is_fixed(tag) {
        match rest.len() {
            4 if tag & 7 == 5 => Wire::Fixed32(u32::from_le_bytes(rest.try_into().ok()?)),
            8 if tag & 7 == 1 => Wire::Fixed64(u64::from_le_bytes(rest.try_into().ok()?)),
            _ => return None,
        }
    } else if tag & 7 == 2 {
        Wire::Bytes(rest_of(rest)?)
    } else if tag & 7 == 0 {
        Wire::Varint(last_varint(rest)?)
    } else {
        return None;
    };
    (tag >= 8).then_some(Datum {
        key,
        member: Some((tag >> 3, wire)),
    })
}

/// The key, and the text that is the value's member; an empty one where that is something else. Of what [`read`] reads, and
/// of nothing else, without what any other member holds.
#[inline(always)]
pub(super) fn read_text(body: &[u8]) -> Option<(i32, &[u8])> {
    let (key, value) = key_and_value(body)?;
    if value.is_empty() {
        return Some((key, value));
    }
    let (tag, rest) = short(value)?;
    if tag == STRING << 3 | 2 {
        return Some((key, rest_of(rest)?));
    }
    let is_whole = if is_fixed(tag) {
        rest.len() == 4 && tag & 7 == 5 || rest.len() == 8 && tag & 7 == 1
    } else if tag & 7 == 0 {
        is_last_varint(rest)
    } else {
        tag & 7 == 2 && rest_of(rest).is_some()
    };
    (tag >= 8 && is_whole).then_some((key, &[]))
}

/// The key, and all of the value.
#[inline(always)]
fn key_and_value(body: &[u8]) -> Option<(i32, &[u8])> {
    let (&KEY, rest) = body.split_first()? else {
        return None;
    };
    let (key, rest) = short(rest)?;
    let (&VALUE, rest) = rest.split_first()? else {
        return None;
    };
    let value = rest_of(rest)?;
    Some((key as i32, value))
}

/// Whether its wire type is an odd one: 32 or 64 bits, the end of a group, or none.
#[inline(always)]
fn is_fixed(tag: u32) -> bool {
    tag & 1 == 1
}

/// Where the value begins, with its tag, in a datum that was read here: behind a key of one or two bytes.
pub(super) fn before_value(body: &[u8]) -> usize {
    match body.get(1) {
        Some(0..0x80) => 2,
        _ => 3,
    }
}

/// A varint of one or two bytes.
#[inline(always)]
fn short(bytes: &[u8]) -> Option<(u32, &[u8])> {
    match bytes {
        [low @ 0..0x80, rest @ ..] => Some((u32::from(*low), rest)),
        [low, high @ 0..0x80, rest @ ..] => Some((u32::from(*low & 0x7f) | u32::from(*high) << 7, rest)),
        _ => None,
    }
}

/// What a length of one or two bytes is before, if it is all that is left.
#[inline(always)]
fn rest_of(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = short(bytes)?;
    (length as usize == rest.len()).then_some(rest)
}

/// Whether a varint is all that is left. One of ten bytes may be too large.
#[inline(always)]
fn is_last_varint(bytes: &[u8]) -> bool {
    let Some((last, before)) = bytes.split_last() else {
        return false;
    };
    *last < 0x80 && before.len() <= 8 && before.iter().all(|byte| *byte >= 0x80)
}

/// A varint, if it is all that is left.
#[inline(always)]
fn last_varint(bytes: &[u8]) -> Option<u64> {
    if !is_last_varint(bytes) {
        return None;
    }
    let add = |value: u64, byte: &u8| value << 7 | u64::from(*byte & 0x7f);
    Some(bytes.iter().rev().fold(0, add))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::Fields;
    use super::*;

    /// The same by the fields one after the other, of any datum with one value with one member at most.
    fn slowly(body: &[u8]) -> Option<Datum<'_>> {
        let mut fields = Fields::of(body);
        let (key, value) = (fields.next().ok()??, fields.next().ok()??);
        let (1, Wire::Varint(key), 2, Wire::Bytes(value)) = (key.number, key.wire, value.number, value.wire) else {
            return None;
        };
        let mut members = Fields::of(value);
        let member = members.next().ok()?.map(|field| (field.number, field.wire));
        let alone = fields.next().ok()?.is_none() && members.next().ok()?.is_none();
        alone.then_some(Datum {
            key: key as i32,
            member,
        })
    }

    fn text(datum: Datum<'_>) -> (i32, &[u8]) {
        match datum.member {
            Some((STRING, Wire::Bytes(text))) => (datum.key, text),
            _ => (datum.key, &[]),
        }
    }

    #[test]
    fn what_vehicles_write_is_read() {
        let written = |bytes: &'static [u8]| read(bytes).map(|datum| (datum.key, datum.member));
        assert_eq!(written(b"\x08\x04\x12\x00"), Some((4, None)));
        assert_eq!(
            written(b"\x08\x04\x12\x04\x0a\x02ab"),
            Some((4, Some((1, Wire::Bytes(b"ab")))))
        );
        assert_eq!(
            written(b"\x08\x81\x01\x12\x05\x25\x01\x00\x00\x00"),
            Some((129, Some((4, Wire::Fixed32(1)))))
        );
        assert_eq!(
            written(b"\x08\x04\x12\x03\x80\x01\x05"),
            Some((4, Some((16, Wire::Varint(5)))))
        );
        assert_eq!(
            written(b"\x08\x04\x12\x03\x10\xff\x01"),
            Some((4, Some((2, Wire::Varint(255)))))
        );
        let long = [b"\x08\x81\x01\x12\xcb\x01\x0a\xc8\x01".as_slice(), &[b'x'; 200]].concat();
        let text = Wire::Bytes(&long[9..]);
        assert_eq!(
            read(&long).map(|datum| (datum.key, datum.member)),
            Some((129, Some((1, text))))
        );
        assert_eq!(before_value(&long), 3);
    }

    proptest! {
        #[test]
        fn it_is_what_the_fields_say(
            key in 0_u16..20_000,
            tag in 0_u16..500,
            value in prop_oneof![proptest::collection::vec(any::<u8>(), 0..12), proptest::collection::vec(any::<u8>(), 100..300)],
            bytes in proptest::collection::vec(any::<u8>(), 0..4),
            at in 0_usize..24,
        ) {
            let varint = |number: u16| match number < 128 {
                true => vec![number as u8],
                false => vec![number as u8 | 0x80, (number >> 7) as u8],
            };
            let value = [varint(tag), value].concat();
            let mut body = [vec![KEY], varint(key), vec![VALUE], varint(value.len() as u16), value].concat();
            prop_assert!(read(&body).is_none_or(|datum| slowly(&body) == Some(datum)));
            prop_assert_eq!(read_text(&body), read(&body).map(text));
            if read(&body).is_some() {
                prop_assert_eq!(body[before_value(&body)], VALUE);
            }
            // And with something else in it.
            let at = at.min(body.len());
            body.splice(at..at, bytes);
            prop_assert!(read(&body).is_none_or(|datum| slowly(&body) == Some(datum)));
            prop_assert_eq!(read_text(&body), read(&body).map(text));
        }
    }
}
