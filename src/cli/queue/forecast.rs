//! When a queue will be full.
//!
//! Invariant: a few seconds say nothing about days. Without an hour or a whole segment to go by nothing is foretold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config;
use crate::queue::Inspection;

const JOURNAL: &str = "journal";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// How fast a queue has grown of late, and how long that can go on.
#[derive(Debug, PartialEq)]
pub(super) struct Forecast {
    pub(super) bytes_an_hour: u64,
    pub(super) full_in: Duration,
}

/// By the segments that were begun in the last day. The journal does not grow, nor count towards the limit.
pub(super) fn forecast(found: &Inspection, limits: &config::Queue) -> Option<Forecast> {
    let segments = found.segments.iter().filter(|segment| !segment.path.ends_with(JOURNAL));
    let begun: Vec<_> = segments
        .clone()
        .filter_map(|segment| Some((segment.oldest?, segment.disk_bytes)))
        .collect();
    let day = DAY.as_millis() as u64;
    let newest = begun.iter().map(|(oldest, _)| *oldest).max()?;
    let recent = begun.iter().filter(|(oldest, _)| *oldest + day >= newest);
    let bytes: u64 = recent.clone().map(|(_, bytes)| bytes).sum();
    let since = since(recent.map(|(oldest, _)| *oldest).min()?).min(DAY);
    if bytes == 0 || since.is_zero() || since < HOUR && bytes < limits.segment_size {
        return None;
    }
    let rate = bytes as f64 / since.as_secs_f64();
    let used: u64 = segments.map(|segment| segment.disk_bytes).sum();
    let left = limits
        .max_bytes
        .saturating_sub(used)
        .min(found.free.saturating_sub(limits.keep_free));
    Some(Forecast {
        bytes_an_hour: (rate * HOUR.as_secs_f64()) as u64,
        full_in: Duration::from_secs_f64(left as f64 / rate),
    })
}

pub(super) fn since(milliseconds: u64) -> Duration {
    let then = UNIX_EPOCH + Duration::from_millis(milliseconds);
    SystemTime::now().duration_since(then).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::queue::SegmentReport;

    const MIB: u64 = 1 << 20;

    /// What is foretold of files of these ages in minutes, and of these sizes.
    fn of(files: &[(&str, u64, u64)]) -> Option<Forecast> {
        let text = "[listener]\ncertificate = \"a\"\nprivate_key = \"b\"\nvehicle_ca = \"c\"\n[queue]\nmax_bytes = \"1 GiB\"\n\
            segment_size = \"32 MiB\"\n[records]\n\"*\" = \"home\"\n[destinations.home]\ntype = \"log\"";
        let config = config::parse(text, Path::new("config.toml")).expect("it is a good one");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let segment = |(name, minutes, disk_bytes): &(&str, u64, u64)| SegmentReport {
            path: Path::new("segments").join(name),
            first: 0,
            disk_bytes: *disk_bytes,
            oldest: Some((now - Duration::from_secs(60 * minutes)).as_millis() as u64),
            fault: None,
        };
        let found = Inspection {
            queue: None,
            in_use: true,
            segments: files.iter().map(segment).collect(),
            end: 0,
            free: 1 << 40,
            destinations: Default::default(),
            records: 0,
            missing: Vec::new(),
        };
        forecast(&found, &config.queue)
    }

    #[test]
    fn what_has_just_begun_foretells_nothing() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(JOURNAL, 1, 4 * MIB)]), None);
        assert_eq!(of(&[("1.redb", 10, MIB), (JOURNAL, 1, 4 * MIB)]), None);
        assert!(of(&[("1.redb", 10, 32 * MIB)]).is_some(), "a whole segment");
    }

    #[test]
    fn a_day_foretells_how_long_the_rest_lasts_and_the_journal_is_no_part_of_its_growth() {
        let told = of(&[("1.redb", 60, 8 * MIB), ("2.redb", 30, 8 * MIB), (JOURNAL, 1, 4 * MIB)]).expect("an hour");
        assert!((15 * MIB..=16 * MIB).contains(&told.bytes_an_hour), "{told:?}");
        assert_eq!(told.full_in.as_secs() / 3600, 63, "{told:?}");
        let long_ago = of(&[("1.redb", 3 * 24 * 60, 900 * MIB), ("2.redb", 60, 8 * MIB)]).expect("an hour");
        assert!((7 * MIB..=8 * MIB).contains(&long_ago.bytes_an_hour), "{long_ago:?}");
    }
}
