//! Protobuf's wire format: the fields of one message, one after the other, and how to write them.
//!
//! Invariant: a field that is returned lies wholly inside the message, and so do the groups in it; nothing is allocated. What
//! is an error here is one for Go's protobuf too, only groups may not be nested as deeply.

use super::PayloadError;

/// How deep unknown groups may be nested.
pub(crate) const MAX_GROUP_DEPTH: usize = 100;

const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Group,
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) wire: Wire<'a>,
    /// Where the field, with its tag, starts in the message.
    pub(crate) start: usize,
    /// Where the next one starts.
    pub(crate) end: usize,
}

/// The fields of one message, in the order in which they lie there.
pub(crate) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The next field; `None` at the end of the message.
    ///
    /// Always inlined, like what it calls: every record goes through here twice, a hundred times each, and a result that
    /// is handed over in memory costs more than the reading.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, PayloadError> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let start = self.at;
        let (number, wire_type) = self.tag()?;
        // Most are bytes; a table to jump by costs more than all of the reading.
        let wire = if wire_type == 2 {
            let len = self.varint()?;
            Wire::Bytes(self.take(len)?)
        } else {
            self.rare(number, wire_type)?
        };
        Ok(Some(Field {
            number,
            wire,
            start,
            end: self.at,
        }))
    }

    /// What a field holds that is not bytes.
    #[inline(always)]
    fn rare(&mut self, number: u32, wire_type: u8) -> Result<Wire<'a>, PayloadError> {
        Ok(match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            3 => {
                self.skip_group(number)?;
                Wire::Group
            }
            4 => return Err(PayloadError::Group(number)),
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(PayloadError::WireType(wire_type)),
        })
    }

    #[inline(always)]
    fn tag(&mut self) -> Result<(u32, u8), PayloadError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > MAX_FIELD_NUMBER {
            return Err(PayloadError::FieldNumber(number));
        }
        Ok((number as u32, (tag & 7) as u8))
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, PayloadError> {
        // Most are of one byte.
        match self.message.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, PayloadError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(PayloadError::Truncated)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(PayloadError::Varint)
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8], PayloadError> {
        let rest = &self.message[self.at..];
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(PayloadError::Truncated)?;
        self.at += taken.len();
        Ok(taken)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let bytes = *self.message[self.at..].first_chunk().ok_or(PayloadError::Truncated)?;
        self.at += N;
        Ok(bytes)
    }

    /// Skips to behind the end of the group that was just opened. Without recursion, so that depth costs no stack.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), PayloadError> {
        let mut open = [0; MAX_GROUP_DEPTH];
        open[0] = number;
        let mut depth = 1;
        while depth > 0 {
            let (number, wire_type) = self.tag()?;
            match wire_type {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let len = self.varint()?;
                    self.take(len)?;
                }
                3 => {
                    *open.get_mut(depth).ok_or(PayloadError::GroupDepth)? = number;
                    depth += 1;
                }
                4 => {
                    depth -= 1;
                    if open[depth] != number {
                        return Err(PayloadError::Group(number));
                    }
                }
                5 => {
                    self.take(4)?;
                }
                _ => return Err(PayloadError::WireType(wire_type)),
            }
        }
        Ok(())
    }
}

/// The numbers of a packed repeated field.
pub(crate) fn packed(bytes: &[u8]) -> impl Iterator<Item = Result<u64, PayloadError>> {
    let mut cursor = Fields::of(bytes);
    std::iter::from_fn(move || {
        if cursor.at >= bytes.len() {
            return None;
        }
        let number = cursor.varint();
        if number.is_err() {
            cursor.at = bytes.len();
        }
        Some(number)
    })
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub(crate) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend(value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_length(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// What stands before so many bytes of a field.
pub(crate) fn put_length(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// Bytes of a length as a varint.
pub(crate) fn length_bytes(length: usize) -> usize {
    (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn count(message: &[u8]) -> Result<usize, PayloadError> {
        let mut fields = Fields::of(message);
        let mut count = 0;
        while fields.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn a_varint_may_be_padded_to_ten_bytes_but_not_hold_more_than_64_bits() {
        assert_eq!(count(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(1));
        assert_eq!(count(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), Ok(1));
        for bad in [
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02".as_slice(),
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        ] {
            assert_eq!(count(bad), Err(PayloadError::Varint));
        }
        assert_eq!(count(b"\x08\x80"), Err(PayloadError::Truncated));
        assert_eq!(count(b"\x08"), Err(PayloadError::Truncated));
    }

    #[test]
    fn field_numbers_are_between_1_and_the_largest() {
        assert_eq!(count(b"\x00\x00"), Err(PayloadError::FieldNumber(0)));
        assert_eq!(count(b"\xf8\xff\xff\xff\x0f\x00"), Ok(1));
        assert_eq!(
            count(b"\x80\x80\x80\x80\x10\x00"),
            Err(PayloadError::FieldNumber(1 << 29))
        );
    }

    #[test]
    fn wire_types_6_and_7_do_not_exist() {
        assert_eq!(count(b"\x0e"), Err(PayloadError::WireType(6)));
        assert_eq!(count(b"\x0f"), Err(PayloadError::WireType(7)));
        assert_eq!(count(b"\x0b\x0e"), Err(PayloadError::WireType(6)));
    }

    #[test]
    fn lengths_beyond_the_end_are_truncation() {
        for bad in [
            b"\x0a\x01".as_slice(),
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\0\0\0\0\0\0\0",
            b"\x0d\0\0\0",
        ] {
            assert_eq!(count(bad), Err(PayloadError::Truncated));
        }
    }

    #[test]
    fn groups_are_skipped_whole() {
        // A group 1 with a number, a string, a group 2, a double and a float in it, and a number behind it.
        let group = b"\x0b\x08\x01\x12\x01x\x13\x14\x09\0\0\0\0\0\0\0\0\x0d\0\0\0\0\x0c\x08\x05";
        assert_eq!(count(group), Ok(2));
        assert_eq!(count(b"\x0b\x14"), Err(PayloadError::Group(2)));
        assert_eq!(count(b"\x0c"), Err(PayloadError::Group(1)));
        assert_eq!(count(b"\x0b\x08\x01"), Err(PayloadError::Truncated));
    }

    #[test]
    fn groups_are_nested_a_hundred_deep_and_no_deeper() {
        let nested = |depth| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert_eq!(count(&nested(MAX_GROUP_DEPTH)), Ok(1));
        assert_eq!(count(&nested(MAX_GROUP_DEPTH + 1)), Err(PayloadError::GroupDepth));
    }
}
