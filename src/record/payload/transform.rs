//! What consumers receive of a payload: the VIN is set, and what vehicles send in other forms than consumers expect is put right.
//!
//! Invariant: only the bytes that a rule is about change; every other field, known or not, at every level, is copied as it came.

use std::ops::Range;

use super::{
    Kind, PayloadError, datum,
    number::{put_five_decimals, scientific},
    schema::{Message, Shape},
    wire::{Field, Fields, Wire, length_bytes, put_bytes, put_double, put_length, put_number},
};

/// Field numbers of `Payload`, `Datum`, `Value` and `LocationValue`.
mod v {
    pub(super) const DATA: u32 = 1;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) use super::super::datum::STRING;
    pub(super) const LOCATION: u32 = 7;
    pub(super) const LATITUDE: u32 = 1;
    pub(super) const LONGITUDE: u32 = 2;
    /// `Field.Location`.
    pub(super) const LOCATION_KEY: i32 = 21;
}

/// Field numbers of `VehicleAlerts`, `VehicleAlert` and `Timestamp`.
mod alert {
    pub(super) const ALERTS: u32 = 1;
    pub(super) const TIMES: [u32; 2] = [3, 4];
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
    /// From here on (about the year 12000) the seconds of an alert's time are really milliseconds.
    pub(super) const MILLISECONDS_FROM: i64 = 315_576_000_000;
}

/// The payload as consumers receive it: made in `room`, whatever that held, unless it is the same as it came. A record type
/// that the gateway does not know is handed on as it came.
pub fn transform<'a>(
    record_type: &str,
    vin: &str,
    payload: &'a [u8],
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], PayloadError> {
    let Some(kind) = Kind::of(record_type) else {
        return Ok(payload);
    };
    let vin_field = match kind {
        Kind::Connectivity => 1,
        Kind::Vehicle | Kind::Alerts | Kind::Errors => 3,
    };
    let mut rewrite = Rewrite::of(payload, room);
    let mut vin_is_set = vin.is_empty();
    let mut location_is_past = false;
    // What a text is put right to: made once for all of a record's.
    let mut member = Vec::new();
    let value = value_message();
    let mut fields = Fields::of(payload);
    while let Some(field) = fields.next()? {
        let Wire::Bytes(body) = field.wire else {
            continue;
        };
        let range = field.start..field.end;
        if field.number == vin_field {
            if !vin_is_set && body == vin.as_bytes() {
                vin_is_set = true;
            } else {
                rewrite.replace(range);
            }
            continue;
        }
        match (kind, field.number) {
            (Kind::Vehicle, v::DATA) => {
                let plain = datum::read_text(body);
                if is_put_right(plain, body, value, &mut location_is_past, &mut member)? {
                    let out = rewrite.replace(range);
                    match plain {
                        Some(_) => {
                            let before = &body[..datum::before_value(body)];
                            put_length(
                                out,
                                v::DATA,
                                before.len() + 1 + length_bytes(member.len()) + member.len(),
                            );
                            out.extend_from_slice(before);
                            put_bytes(out, v::VALUE, &member);
                        }
                        None => put_bytes(out, v::DATA, &replace_value(body, value, &member)?),
                    }
                }
            }
            (Kind::Alerts, alert::ALERTS) => {
                if let Some(changed) = alert_times(body)? {
                    put_bytes(rewrite.replace(range), alert::ALERTS, &changed);
                }
            }
            _ => {}
        }
    }
    if !vin_is_set {
        put_bytes(rewrite.replace(payload.len()..payload.len()), vin_field, vin.as_bytes());
    }
    Ok(rewrite.finish())
}

/// A copy of a payload with parts of it replaced; no copy where nothing is.
struct Rewrite<'a> {
    source: &'a [u8],
    copied: usize,
    out: &'a mut Vec<u8>,
    is_changed: bool,
}

impl<'a> Rewrite<'a> {
    fn of(source: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self {
            source,
            copied: 0,
            out,
            is_changed: false,
        }
    }

    /// Where to write what is to be there instead.
    fn replace(&mut self, range: Range<usize>) -> &mut Vec<u8> {
        self.out.extend_from_slice(&self.source[self.copied..range.start]);
        self.copied = range.end;
        self.is_changed = true;
        self.out
    }

    fn finish(self) -> &'a [u8] {
        if !self.is_changed {
            return self.source;
        }
        self.out.extend_from_slice(&self.source[self.copied..]);
        self.out
    }
}

/// Whether a datum is to have another value: then `member` is what that holds.
#[inline(always)]
fn is_put_right(
    plain: Option<(i32, &[u8])>,
    body: &[u8],
    of_value: &Message,
    location_is_past: &mut bool,
    member: &mut Vec<u8>,
) -> Result<bool, PayloadError> {
    let (key, text) = match plain {
        Some(plain) => plain,
        None => key_and_text(body, of_value)?,
    };
    let is_first_location = key == v::LOCATION_KEY && !*location_is_past;
    *location_is_past |= is_first_location;
    // Nothing else can be a place or a number, and most texts are neither.
    match text {
        [b'(' | b'+' | b'-' | b'.' | b'0'..=b'9', ..] => Ok(put_right(text, is_first_location, member)),
        _ => Ok(false),
    }
}

/// Two bytes, and the longest 32-bit float with five decimals.
const LONGEST_MEMBER: usize = 2 + 46;

/// Makes the member of a value that a text should be instead, if it should.
#[inline(never)]
fn put_right(text: &[u8], is_first_location: bool, member: &mut Vec<u8>) -> bool {
    member.clear();
    if is_first_location && let Some((latitude, longitude)) = location(text) {
        member.reserve(LONGEST_MEMBER);
        put_length(member, v::LOCATION, 2 * (1 + size_of::<f64>()));
        put_double(member, v::LATITUDE, latitude);
        put_double(member, v::LONGITUDE, longitude);
        return true;
    }
    let Some(number) = scientific(text) else {
        return false;
    };
    member.reserve(LONGEST_MEMBER);
    // How long it is shows when it is there: of a 32-bit float less than a byte can say.
    put_length(member, v::STRING, 0);
    let before = member.len();
    put_five_decimals(number, member);
    member[before - 1] = (member.len() - before) as u8;
    true
}

/// Of a datum that is written in any way: its key, and the text that it has for a value, if that is what it has.
#[inline(never)]
fn key_and_text<'a>(body: &'a [u8], of_value: &Message) -> Result<(i32, &'a [u8]), PayloadError> {
    let mut key = 0;
    let mut text: &[u8] = &[];
    let mut fields = Fields::of(body);
    while let Some(field) = fields.next()? {
        match (field.number, field.wire) {
            (v::KEY, Wire::Varint(number)) => key = number as i32,
            (v::VALUE, Wire::Bytes(value)) => {
                // Values that repeat merge, so that their members come one after the other.
                let mut members = Fields::of(value);
                while let Some(member) = members.next()? {
                    if is_member(of_value, &member) {
                        text = match (member.number, member.wire) {
                            (v::STRING, Wire::Bytes(text)) => text,
                            _ => &[],
                        };
                    }
                }
            }
            _ => {}
        }
    }
    Ok((key, text))
}

/// The datum with one value instead of all that it had: what they had besides members of the oneof, and the new member.
fn replace_value(body: &[u8], of_value: &Message, member: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let mut out = Vec::with_capacity(body.len() + 48);
    let mut value = Vec::with_capacity(64);
    let mut fields = Fields::of(body);
    while let Some(field) = fields.next()? {
        match (field.number, field.wire) {
            (v::VALUE, Wire::Bytes(old)) => {
                let mut members = Fields::of(old);
                while let Some(member) = members.next()? {
                    if !is_member(of_value, &member) {
                        value.extend(&old[member.start..member.end]);
                    }
                }
            }
            _ => out.extend(&body[field.start..field.end]),
        }
    }
    value.extend(member);
    put_bytes(&mut out, v::VALUE, &value);
    Ok(out)
}

/// Whether a field of a `Value` is one of the members of its oneof that this build knows.
fn is_member(of_value: &Message, field: &Field<'_>) -> bool {
    of_value
        .field(field.number)
        .is_some_and(|known| known.accepts(&field.wire))
}

fn value_message() -> &'static Message {
    let inner = |message: &'static Message, number| match message.field(number).map(|f| f.shape) {
        Some(Shape::Message(place)) => Message::at(place),
        // Not so with these protos.
        _ => message,
    };
    inner(inner(Message::root(Kind::Vehicle), v::DATA), v::VALUE)
}

/// Reads `(37.412374 N, 122.145867 W)`: south and west are negative.
fn location(text: &[u8]) -> Option<(f64, f64)> {
    let inside = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let comma = memchr::memchr(b',', inside)?;
    let (latitude, longitude) = (&inside[..comma], &inside[comma + 1..]);
    Some((coordinate(latitude, b'N', b'S')?, coordinate(longitude, b'E', b'W')?))
}

fn coordinate(text: &[u8], positive: u8, negative: u8) -> Option<f64> {
    let (&direction, number) = without_spaces(text).split_last()?;
    let number = without_spaces_behind(number);
    // `parse` knows words for infinities and such, which are no coordinates.
    if !number
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
    {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?.parse::<f64>().ok();
    let number = number.filter(|number| number.is_finite())?;
    if direction == positive {
        Some(number)
    } else if direction == negative {
        Some(-number)
    } else {
        None
    }
}

fn without_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    without_spaces_behind(text)
}

fn without_spaces_behind(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// An alert with its times put right, if one of them is in milliseconds.
fn alert_times(body: &[u8]) -> Result<Option<Vec<u8>>, PayloadError> {
    let mut seconds = [0_i64; 2];
    for_each_time(body, |time, part| {
        if let (alert::SECONDS, Wire::Varint(number)) = (part.number, part.wire) {
            seconds[time] = number as i64;
        }
    })?;
    let is_milliseconds = seconds.map(|seconds| seconds >= alert::MILLISECONDS_FROM);
    if is_milliseconds == [false; 2] {
        return Ok(None);
    }

    let mut out = Vec::with_capacity(body.len() + 16);
    let mut fields = Fields::of(body);
    while let Some(field) = fields.next()? {
        let replaced =
            matches!(field.wire, Wire::Bytes(_)) && time_of(field.number).is_some_and(|time| is_milliseconds[time]);
        if !replaced {
            out.extend(&body[field.start..field.end]);
        }
    }
    for time in (0..2).filter(|time| is_milliseconds[*time]) {
        let mut timestamp = Vec::with_capacity(16);
        put_number(&mut timestamp, alert::SECONDS, (seconds[time] / 1_000) as u64);
        let nanos = (seconds[time] % 1_000) as u64 * 1_000_000;
        if nanos != 0 {
            put_number(&mut timestamp, alert::NANOS, nanos);
        }
        for_each_time(body, |of, part| {
            let known = matches!(part.number, alert::SECONDS | alert::NANOS) && matches!(part.wire, Wire::Varint(_));
            if of == time && !known {
                timestamp.extend(part.raw);
            }
        })?;
        put_bytes(&mut out, alert::TIMES[time], &timestamp);
    }
    Ok(Some(out))
}

/// A field of a timestamp.
struct TimePart<'a> {
    number: u32,
    wire: Wire<'a>,
    raw: &'a [u8],
}

fn time_of(number: u32) -> Option<usize> {
    alert::TIMES.iter().position(|time| *time == number)
}

/// Every field of every timestamp of an alert, with which of its two times it is of.
fn for_each_time<'a>(alert: &'a [u8], mut visit: impl FnMut(usize, TimePart<'a>)) -> Result<(), PayloadError> {
    let mut fields = Fields::of(alert);
    while let Some(field) = fields.next()? {
        let (Some(time), Wire::Bytes(timestamp)) = (time_of(field.number), field.wire) else {
            continue;
        };
        let mut parts = Fields::of(timestamp);
        while let Some(part) = parts.next()? {
            visit(
                time,
                TimePart {
                    number: part.number,
                    wire: part.wire,
                    raw: &timestamp[part.start..part.end],
                },
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "transform_tests.rs"]
mod tests;
