//! What every kind of destination may be told about its records: which of them, in which form, how fast and when.
//!
//! Invariant: what is filtered out here never leaves the gateway, so a list that cannot be understood is a mistake and
//! never an empty list.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::or;
use super::nearest::nearest;
use super::paths::Base;
use super::reader::{Field, Table};
use super::units;
use crate::record::payload::{self, FieldFilter};

/// What a destination is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// The form of a record's payload.
    pub format: RecordFormat,
    /// Whose records.
    pub vins: VinFilter,
    /// Which fields of `V` records.
    pub fields: FieldFilter,
    /// How fast, and when.
    pub flow: Flow,
    /// Where one begins that has had nothing yet.
    pub start: Start,
    /// Bytes on the disk that may be kept for it. Only for one that is not required: its oldest go beyond that.
    pub max_backlog: Option<u64>,
}

/// The form of a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordFormat {
    /// As the vehicle encoded it, transformed.
    #[default]
    Protobuf,
    /// Proto3's canonical JSON.
    Json,
}

/// Whose records a destination is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VinFilter {
    /// Only these; `None`: all.
    pub allow: Option<VinList>,
    /// But none of these.
    pub deny: VinList,
}

/// Device ids, as they are written in the configuration and in a file beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VinList {
    /// From the configuration.
    pub vins: BTreeSet<String>,
    /// A file with one in each line, read when the gateway starts and whenever it changes.
    pub file: Option<PathBuf>,
}

/// How fast a destination is sent records, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flow {
    /// Records a second.
    pub max_records_per_second: Option<u32>,
    /// Bytes of payloads a second.
    pub max_bytes_per_second: Option<u64>,
    /// The only times of day, in the machine's time zone, at which anything is sent; empty: at all times.
    pub schedule: Vec<Window>,
    /// Nothing is sent.
    pub pause: bool,
}

/// A part of each day, in minutes after midnight; over midnight when it ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first minute.
    pub from: u16,
    /// The minute after its last.
    pub to: u16,
}

/// Where a destination begins that has had nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record that the queue holds.
    #[default]
    Oldest,
    /// With what comes from now on.
    Now,
}

const DAY: u16 = 24 * 60;

impl Window {
    /// How long, at a time of day, until it opens; nothing while it is open.
    pub fn opens_in(&self, since_midnight: Duration) -> Duration {
        let (from, to) = (minutes(self.from), minutes(self.to));
        let open = match from < to {
            true => (from..to).contains(&since_midnight),
            false => since_midnight >= from || since_midnight < to,
        };
        match open {
            true => Duration::ZERO,
            false if since_midnight < from => from - since_midnight,
            false => minutes(DAY) + from - since_midnight,
        }
    }
}

fn minutes(minutes: u16) -> Duration {
    Duration::from_secs(60 * u64::from(minutes))
}

/// Reads the keys that every kind of destination has. `formats`: why this one's form is not the user's to choose, if so.
pub(super) fn read(
    table: &Table<'_>,
    base: Base<'_>,
    required: Option<bool>,
    fixed_format: Option<&str>,
    segment_size: Option<u64>,
    warnings: &mut Vec<String>,
) -> Option<Delivery> {
    let format = match (table.field("format"), fixed_format) {
        (None, _) => Some(RecordFormat::Protobuf),
        (Some(field), Some(why)) => {
            field.mistake(why);
            None
        }
        (Some(field), None) => field.choice(&[("protobuf", RecordFormat::Protobuf), ("json", RecordFormat::Json)]),
    };
    let vins = vins(&table.table("vins"), base, warnings);
    let fields = fields(&table.table("fields"));
    let flow = flow(table);
    let start = or(table, "start", Some(Start::Oldest), |field| {
        field.choice(&[("oldest", Start::Oldest), ("now", Start::Now)])
    });
    let max_backlog = or(table, "max_backlog", Some(None), |field| match required {
        Some(true) => {
            field.mistake(
                "would lose records of a destination that is required; write required = false too, or remove it",
            );
            None
        }
        // What is dropped is dropped a segment at a time, and the one that is written to never is.
        _ => match (field.size(0..=u64::MAX)?, segment_size) {
            (bytes, Some(segment)) if bytes < 2 * segment => {
                field.refuse(format_args!(
                    "is less than two segments of {}; write at least \"{}\", or make queue.segment_size smaller",
                    units::show_size(segment),
                    units::show_size(2 * segment)
                ));
                None
            }
            (bytes, _) => Some(Some(bytes)),
        },
    });
    Some(Delivery {
        format: format?,
        vins: vins?,
        fields: fields?,
        flow: flow?,
        start: start?,
        max_backlog: max_backlog?,
    })
}

fn vins(table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<VinFilter> {
    let [allow, allow_file, deny, deny_file] =
        ["allow", "allow_file", "deny", "deny_file"].map(|name| table.field(name));
    let is_limited = allow.is_some() || allow_file.is_some();
    let mut list = |inline: Option<Field<'_>>, file: Option<Field<'_>>| {
        Some(VinList {
            vins: inline.map(|field| device_ids(&field, warnings)).unwrap_or_default(),
            file: match file {
                Some(field) => Some(base.path(&field)?),
                None => None,
            },
        })
    };
    let nobody = allow
        .as_ref()
        .filter(|field| allow_file.is_none() && field.is_empty_list());
    if let Some(field) = nobody {
        field.mistake("names no VIN, so that nothing would ever be sent; name some, or write pause = true");
    }
    let (allow, deny) = (list(allow, allow_file), list(deny, deny_file));
    table.finish();
    let allow = allow?;
    Some(VinFilter {
        allow: is_limited.then_some(allow),
        deny: deny?,
    })
}

/// Device ids as the listener knows vehicles by them.
pub(super) fn device_ids(field: &Field<'_>, warnings: &mut Vec<String>) -> BTreeSet<String> {
    let vins = field.strings();
    for (vin, element) in &vins {
        if let Some(why) = no_device_id(vin) {
            element.refuse(why);
        } else if let Some(meant) = vin_meant(vin) {
            warnings.push(format!(
                "{}: {vin:?} is in lower case, and certificates have VINs in upper case; write {meant:?}",
                element.key()
            ));
        }
    }
    vins.into_iter().map(|(vin, _)| vin.to_owned()).collect()
}

/// The VIN that was meant by one with lower case in it, which no vehicle has.
pub fn vin_meant(text: &str) -> Option<String> {
    let is_vin = text.len() == 17 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_low = text.bytes().any(|byte| byte.is_ascii_lowercase());
    (is_vin && is_low).then(|| text.to_ascii_uppercase())
}

/// Why no vehicle can have this device id.
pub fn no_device_id(text: &str) -> Option<&'static str> {
    let stray = |character: char| {
        character.is_whitespace() || character.is_control() || matches!(character, ',' | ';' | '"' | '\'' | '\u{feff}')
    };
    if text.contains('.') {
        Some("is not a device id; write it with \"-\" for every \".\" of the certificate's common name")
    } else if text.is_empty() || text.contains(stray) {
        Some("is not one device id; write one in each line, and nothing else")
    } else {
        None
    }
}

fn fields(table: &Table<'_>) -> Option<FieldFilter> {
    let (keep, drop) = (table.field("keep"), table.field("drop"));
    table.finish();
    let numbers = |field: &Field<'_>| {
        let named = field.strings();
        if named.is_empty() {
            field.mistake("names no field; name some, or remove the key");
        }
        let numbers = named.iter().map(|(name, element)| number(name, element));
        numbers.collect::<Option<BTreeSet<i32>>>()
    };
    match (&keep, &drop) {
        (None, None) => Some(FieldFilter::All),
        (Some(keep), None) => numbers(keep).map(FieldFilter::Keep),
        (None, Some(drop)) => numbers(drop).map(FieldFilter::Drop),
        (Some(keep), Some(_)) => {
            keep.mistake("drop is there too; leave one of the two");
            None
        }
    }
}

/// A field's number, by its name or, where this build knows none, as it is.
fn number(name: &str, element: &Field<'_>) -> Option<i32> {
    if let Some(number) = payload::v_field(name) {
        return Some(number);
    }
    if let Some(number) = name.parse().ok().filter(|number| *number >= 0) {
        return Some(number);
    }
    match nearest(name, payload::v_fields()) {
        Some(near) => element.refuse(format_args!("is not a field of V records; did you mean \"{near}\"?")),
        None => {
            element.refuse("is not a field of V records; write a name such as \"VehicleSpeed\", or a field's number")
        }
    }
    None
}

fn flow(table: &Table<'_>) -> Option<Flow> {
    let records = or(table, "max_records_per_second", Some(None), |field| {
        field.integer(1..=1_000_000).map(Some)
    });
    let bytes = or(table, "max_bytes_per_second", Some(None), |field| {
        field.size(1_000..=1 << 40).map(Some)
    });
    let schedule = or(table, "schedule", Some(Vec::new()), |field| {
        let windows = field.strings();
        if windows.is_empty() {
            field.mistake("names no time of day; write for example [\"22:00-06:00\"], or remove the key");
        }
        windows.iter().map(|(text, element)| window(text, element)).collect()
    });
    let pause = or(table, "pause", Some(false), |field| field.boolean());
    Some(Flow {
        max_records_per_second: match records? {
            Some(records) => Some(u32::try_from(records).ok()?),
            None => None,
        },
        max_bytes_per_second: bytes?,
        schedule: schedule?,
        pause: pause?,
    })
}

fn window(text: &str, element: &Field<'_>) -> Option<Window> {
    let window = text.split_once('-').and_then(|(from, to)| {
        Some(Window {
            from: units::time_of_day(from)?,
            to: units::time_of_day(to)?,
        })
    });
    match window {
        Some(Window { from, to }) if from % DAY == to % DAY => {
            element.refuse("is all of the day or none of it; remove it");
            None
        }
        Some(window) if window.from < DAY => Some(window),
        _ => {
            element.refuse("is not a part of the day; write for example \"22:00-06:00\"");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens_in(from: u16, to: u16, minute: u16) -> u64 {
        Window { from, to }.opens_in(minutes(minute)).as_secs() / 60
    }

    #[test]
    fn a_part_of_the_day_is_open_from_its_first_minute_to_its_last() {
        assert_eq!(opens_in(600, 660, 599), 1);
        assert_eq!(opens_in(600, 660, 600), 0);
        assert_eq!(opens_in(600, 660, 659), 0);
        assert_eq!(opens_in(600, 660, 660), u64::from(DAY - 60));
        assert_eq!(opens_in(0, DAY, 1_439), 0);
    }

    #[test]
    fn it_can_go_over_midnight() {
        assert_eq!(opens_in(1_320, 360, 1_320), 0);
        assert_eq!(opens_in(1_320, 360, 0), 0);
        assert_eq!(opens_in(1_320, 360, 360), 960);
        assert_eq!(opens_in(1_320, 0, 30), 1_290);
    }
}
