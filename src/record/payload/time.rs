//! Moments as text.

/// The seconds since the epoch of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z, between which RFC 3339 has names.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// RFC 3339 in UTC, in whole seconds and without a zone; `None` for a moment that it has no name for.
fn date_and_time(seconds: i64) -> Option<String> {
    if !(FIRST..=LAST).contains(&seconds) {
        return None;
    }
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    ))
}

/// RFC 3339 in UTC, in whole seconds.
pub(crate) fn whole_seconds(seconds: i64) -> Option<String> {
    date_and_time(seconds).map(|text| text + "Z")
}

/// RFC 3339 in UTC as proto3's JSON has it: with 0, 3, 6 or 9 digits of the second.
pub(crate) fn with_nanos(seconds: i64, nanos: i32) -> Option<String> {
    let text = date_and_time(seconds)?;
    match u32::try_from(nanos).ok()? {
        0 => Some(text + "Z"),
        nanos @ 1..=999_999_999 if nanos % 1_000_000 == 0 => Some(format!("{text}.{:03}Z", nanos / 1_000_000)),
        nanos @ 1..=999_999_999 if nanos % 1_000 == 0 => Some(format!("{text}.{:06}Z", nanos / 1_000)),
        nanos @ 1..=999_999_999 => Some(format!("{text}.{nanos:09}Z")),
        _ => None,
    }
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar. Years are counted from March, so that a
/// leap day is the last of its year, in eras of 400 years, which all have as many days.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_OF_ERA: i64 = 146_097;
    // Days since 0000-03-01.
    let day = day + 719_468;
    let era = day.div_euclid(DAYS_OF_ERA);
    let day_of_era = day.rem_euclid(DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (year_of_era + era * 400 + next_year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_names_that_prost_types_gives_them() {
        for seconds in [
            FIRST,
            -1,
            0,
            951_782_399,
            951_782_400,
            1_709_164_800,
            1_700_000_000,
            LAST,
        ]
        .into_iter()
        .chain((FIRST..LAST).step_by(1_410_934_744))
        {
            for nanos in [0, 1, 120_000_000, 123_456_000, 999_999_999] {
                let theirs = prost_types::Timestamp { seconds, nanos }.to_string();
                assert_eq!(with_nanos(seconds, nanos), Some(theirs));
            }
        }
        assert_eq!(whole_seconds(1_700_000_000).as_deref(), Some("2023-11-14T22:13:20Z"));
    }

    #[test]
    fn moments_outside_of_the_calendar_have_no_name() {
        for seconds in [i64::MIN, FIRST - 1, LAST + 1, i64::MAX] {
            assert_eq!(whole_seconds(seconds), None);
        }
        assert_eq!(with_nanos(0, -1), None);
        assert_eq!(with_nanos(0, 1_000_000_000), None);
    }
}
