//! Parses values as shops' files write them: times, money, integers, booleans.
//!
//! Only unambiguous values are read: seconds, milliseconds and finer have ranges of their own. Ambiguous ones (a time without an
//! offset, a price of `3`) are refused unless an option decides.

use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime;
use jiff::fmt::temporal::{DateTimeParser, PiecesOffset};
use jiff::tz::{Offset, TimeZone};
use kindred_model::EventTime;
use kindred_model::records::Invalid;

use super::options::ImportOptions;

/// Longest value that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// A value in a message: quoted and truncated.
pub fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}…", &value[..end]),
    }
}

/// Whether a text is a number with decimals, like `12.99` or `12,9`.
pub fn has_decimals(text: &str) -> bool {
    Decimal::read(text).is_some_and(|number| number.mark.is_some())
}

/// A parsed decimal number.
struct Decimal<'t> {
    negative: bool,
    whole: &'t str,
    mark: Option<char>,
    decimals: &'t str,
}

impl<'t> Decimal<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let mark = digits.chars().find(|c| !c.is_ascii_digit());
        let (whole, decimals) = match mark {
            None => (digits, ""),
            Some(mark @ ('.' | ',')) => digits.split_once(mark)?,
            Some(_) => return None,
        };
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_number =
            !whole.is_empty() && all_digits(whole) && all_digits(decimals) && (mark.is_none() || !decimals.is_empty());
        is_number.then_some(Self { negative, whole, mark, decimals })
    }

    /// `1,000`: one, or a thousand.
    fn is_ambiguous(&self) -> bool {
        self.mark == Some(',') && self.decimals.len() == 3
    }

    /// The number times ten to the power of `digits`, if that is whole.
    fn scaled(&self, digits: usize) -> Option<i64> {
        let (kept, rest) = self.decimals.split_at(digits.min(self.decimals.len()));
        if rest.bytes().any(|byte| byte != b'0') {
            return None;
        }
        let text = format!("{}{}{kept:0<digits$}", if self.negative { "-" } else { "" }, self.whole);
        text.parse().ok()
    }
}

/// An integer, also written as `1.0000`.
///
/// # Errors
/// [`Invalid`] naming the field.
pub fn whole_number(field: &str, text: &str) -> Result<i64, Invalid> {
    let exact = || text.parse().ok();
    let written_with_decimals = || Decimal::read(text).filter(|number| !number.is_ambiguous())?.scaled(0);
    exact().or_else(written_with_decimals).ok_or_else(|| Invalid::new(field, format!("{} is not a whole number", shown(text))))
}

/// A boolean, in the words of spreadsheets and databases.
///
/// # Errors
/// [`Invalid`] naming the field.
pub fn flag(field: &str, text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "t" | "y" | "1" | "1.0" => Ok(true),
        "false" | "no" | "f" | "n" | "0" | "0.0" => Ok(false),
        _ => Err(Invalid::new(field, format!("{} is neither true nor false (nor yes, no, 1, 0)", shown(text)))),
    }
}

/// Decimals of the minor unit of a currency (ISO 4217).
const fn minor_digits(currency: &[u8]) -> usize {
    match currency {
        b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX" | b"VND" | b"VUV"
        | b"XAF" | b"XOF" | b"XPF" => 0,
        b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
        _ => 2,
    }
}

impl ImportOptions {
    /// Money in minor units: an integer, or with `--decimal-money` a decimal price.
    ///
    /// # Errors
    /// [`Invalid`] naming the field.
    pub fn money(&self, field: &str, text: &str) -> Result<i64, Invalid> {
        if !self.decimal_money {
            return text.parse().map_err(|_| {
                let hint = "; money counts in minor units, like 255 for 2.55; --decimal-money reads 2.55";
                Invalid::new(
                    field,
                    format!("{} is not a whole number{}", shown(text), if has_decimals(text) { hint } else { "" }),
                )
            });
        }
        let digits = minor_digits(self.currency.as_bytes());
        let bad = |why: String| Invalid::new(field, format!("{} {why}", shown(text)));
        let number = Decimal::read(text).ok_or_else(|| {
            bad("is no price; digits with a point or a comma before the decimals are read, as in 1234.50".to_owned())
        })?;
        if number.is_ambiguous() {
            return Err(bad("may have decimals or thousands behind its comma; write it with a point".to_owned()));
        }
        number.scaled(digits).ok_or_else(|| bad(format!("has more than the {digits} decimals of {}", self.currency)))
    }

    /// A time: by `--time-format`, or near RFC 3339, or seconds or fractions of them since 1970.
    ///
    /// # Errors
    /// [`Invalid`] naming the field and the option that helps.
    pub fn time(&self, field: &str, text: &str) -> Result<EventTime, Invalid> {
        if let Some(format) = &self.time_format {
            return self.time_as(field, format, text);
        }
        if let Ok(at) = EventTime::parse(field, text) {
            return Ok(at);
        }
        if let Some(number) = Decimal::read(text).filter(|number| number.mark != Some(',')) {
            return since_1970(field, text, &number);
        }
        let mantissa = text.split_once(['E', 'e']).map(|(mantissa, _)| mantissa);
        if mantissa.is_some_and(|mantissa| Decimal::read(mantissa).is_some()) {
            let why = "was shortened by a spreadsheet, which lost digits; export the column as text";
            return Err(Invalid::new(field, format!("{} {why}", shown(text))));
        }
        let Some((civil, offset)) = near_rfc_3339(text) else {
            let help = "is no time that is read by itself, like 2026-01-05T10:11:12Z, 2026-01-05 10:11:12 +0200 or a number of seconds; \
                        say how it is written with --time-format, as in --time-format '%d/%m/%Y %H:%M'";
            return Err(Invalid::new(field, format!("{} {help}", shown(text))));
        };
        self.at(field, text, civil, offset)
    }

    fn time_as(&self, field: &str, format: &str, text: &str) -> Result<EventTime, Invalid> {
        let bad = || Invalid::new(field, format!("{} is not written as --time-format {format} says", shown(text)));
        let read = strtime::parse(format, text).map_err(|_| bad())?;
        if let Ok(timestamp) = read.to_timestamp() {
            return EventTime::from_ms(field, timestamp.as_millisecond());
        }
        let civil = match (read.to_datetime(), read.to_date()) {
            (Ok(civil), _) => civil,
            // A format without a time of day means its beginning.
            (Err(_), Ok(date)) if read.hour().is_none() => date.to_datetime(Time::midnight()),
            _ => return Err(bad()),
        };
        self.at(field, text, civil, read.offset())
    }

    /// The moment at which clocks of an offset, or of `--time-zone`, show this.
    fn at(&self, field: &str, text: &str, civil: DateTime, offset: Option<Offset>) -> Result<EventTime, Invalid> {
        let zone = match (offset, &self.time_zone) {
            (Some(offset), _) => TimeZone::fixed(offset),
            (None, Some(zone)) => zone.0.clone(),
            (None, None) => {
                let help =
                    "has no offset; say of which zone it is with --time-zone, as in --time-zone Europe/Berlin or --time-zone UTC";
                return Err(Invalid::new(field, format!("{} {help}", shown(text))));
            }
        };
        // An hour that daylight saving leaves out is the one after it; of one that comes twice it is the first.
        let timestamp = zone.to_ambiguous_timestamp(civil).compatible();
        let timestamp = timestamp.map_err(|_| Invalid::new(field, format!("{} is no time", shown(text))))?;
        EventTime::from_ms(field, timestamp.as_millisecond())
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970: of the accepted years, each has numbers of its own.
fn since_1970(field: &str, text: &str, number: &Decimal<'_>) -> Result<EventTime, Invalid> {
    let accepted = |ms: &i128| (i128::from(EventTime::MIN.0)..i128::from(EventTime::END.0)).contains(ms);
    let outside = || {
        let what =
            "as a number of seconds, milliseconds, microseconds or nanoseconds since 1970 lies outside of the accepted years";
        Invalid::new(field, format!("{} {what}", shown(text)))
    };
    let whole: i128 = number.whole.parse().map_err(|_| outside())?;
    let whole = if number.negative { -whole } else { whole };
    let fraction: i128 = format!("{:0<3.3}", number.decimals).parse().unwrap_or(0);
    let ms = [whole.saturating_mul(1_000).saturating_add(fraction), whole, whole.div_euclid(1_000), whole.div_euclid(1_000_000)];
    let ms = ms.into_iter().find(accepted).ok_or_else(outside)?;
    EventTime::from_ms(field, ms)
}

/// RFC 3339 with what programs make of it: a blank or nothing for the `T`, no seconds, a comma before their decimals, an offset without a
/// colon or minutes, `UTC`, or none at all; a day alone is its beginning.
fn near_rfc_3339(text: &str) -> Option<(DateTime, Option<Offset>)> {
    let (day, rest) = text.split_at_checked(10)?;
    let day = if day.as_bytes()[4] == b'/' { day.replace('/', "-") } else { day.to_owned() };
    let rest = rest.trim_start().replace("UTC", "Z").replace("GMT", "Z");
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, offset) = rest.split_at(zone);
    let clock = clock.strip_prefix(['T', 't']).unwrap_or(clock).trim_end();
    let is_clock = clock.is_empty() && offset.is_empty() || clock.contains(':');
    // Neither a day of other digits nor an annotation of a zone.
    if day.matches('-').count() != 2 || !is_clock || offset.contains(['[', ' ']) {
        return None;
    }
    let text = if clock.is_empty() { day } else { format!("{day}T{clock}{offset}") };
    let read = DateTimeParser::new().parse_pieces(&text).ok()?;
    let offset = read.offset().map(|offset| match offset {
        PiecesOffset::Numeric(offset) => offset.offset(),
        _ => Offset::UTC,
    });
    Some((read.date().to_datetime(read.time().unwrap_or(Time::midnight())), offset))
}

/// A `--time-format`: what is written by it must read as a day at least.
///
/// # Errors
/// What is wrong with it.
pub fn time_format(format: &str) -> Result<String, String> {
    let any = TimeZone::UTC.to_timestamp(Date::constant(2026, 11, 30).at(21, 32, 43, 0)).map_err(|error| error.to_string())?;
    let written = strtime::format(format, any).map_err(|error| error.to_string())?;
    let reads = |read: &strtime::BrokenDownTime| read.to_timestamp().is_ok() || read.to_date().is_ok();
    match strtime::parse(format, &written) {
        Ok(read) if reads(&read) => Ok(format.to_owned()),
        Ok(_) => Err("it names no day: %Y, %m and %d are year, month and day, as in '%d/%m/%Y %H:%M'".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use kindred_model::Topic;

    use super::super::options::Zone;
    use super::*;

    fn options() -> ImportOptions {
        ImportOptions::new(Topic::Orders, "EUR")
    }

    fn time(options: &ImportOptions, text: &str) -> Result<String, String> {
        options.time("at", text).map(|at| at.to_string()).map_err(|error| error.reason)
    }

    /// If it failed, the export of a common shop would be rejected, or its times be wrong.
    #[test]
    fn usual_forms_of_a_time_are_one_time() {
        let options = options();
        for text in [
            "2022-06-24T19:20:11Z",
            "2022-06-24 19:20:11Z",
            "2022-06-24 21:20:11 +0200",
            "2022-06-24 21:20:11+02:00",
            "2022-06-24T21:20:11+0200",
            "2022-06-24T21:20:11+02",
            "2022-06-24 19:20:11 UTC",
            "2022/06/24 19:20:11 GMT",
            "2022-06-24T19:20:11.000000000Z",
            "2022-06-24 19:20:11,000 Z",
            "1656098411",
            "1656098411.0",
            "1656098411000",
            "1656098411000.0",
            "1656098411000000",
            "1656098411000000000",
        ] {
            assert_eq!(time(&options, text).as_deref(), Ok("2022-06-24T19:20:11.000Z"), "{text}");
        }
        assert_eq!(time(&options, "1656098411.25").as_deref(), Ok("2022-06-24T19:20:11.250Z"));
        for (text, word) in [
            ("2022-06-24 21:20:11", "--time-zone"),
            ("2022-06-24T21:20", "--time-zone"),
            ("2022-06-24", "--time-zone"),
            ("24/06/2022 21:20", "--time-format"),
            ("yesterday", "--time-format"),
            ("2022-06-24T21:20:11+2", "--time-format"),
            ("2022-06-24T25:20:11Z", "--time-format"),
            ("2022-02-30 10:00:00", "--time-format"),
            ("1.6561E+12", "spreadsheet"),
            ("17", "accepted years"),
            ("-1656098411", "accepted years"),
            ("99999999999999999999999999999999999999999999", "accepted years"),
        ] {
            assert!(time(&options, text).unwrap_err().contains(word), "{text}: {:?}", time(&options, text));
        }
    }

    #[test]
    fn a_zone_and_a_format_say_what_a_time_means() {
        let berlin = ImportOptions { time_zone: Some("Europe/Berlin".parse::<Zone>().unwrap()), ..options() };
        for (text, expected) in [
            ("2022-06-24 21:20:11", "2022-06-24T19:20:11.000Z"),
            ("2022-12-24 21:20", "2022-12-24T20:20:00.000Z"),
            ("2022-06-24", "2022-06-23T22:00:00.000Z"),
            ("2022-06-24 21:20:11 +0000", "2022-06-24T21:20:11.000Z"),
        ] {
            assert_eq!(time(&berlin, text).as_deref(), Ok(expected), "{text}");
        }
        let us = ImportOptions { time_format: Some("%m/%d/%Y %H:%M".to_owned()), ..berlin.clone() };
        assert_eq!(time(&us, "06/24/2022 21:20").as_deref(), Ok("2022-06-24T19:20:00.000Z"));
        assert!(time(&us, "24/06/2022 21:20").unwrap_err().contains("--time-format"));
        let day = ImportOptions { time_format: Some("%d.%m.%Y".to_owned()), ..berlin };
        assert_eq!(time(&day, "24.06.2022").as_deref(), Ok("2022-06-23T22:00:00.000Z"));
        let own = ImportOptions { time_format: Some("%d/%b/%Y:%H:%M:%S %z".to_owned()), ..options() };
        assert_eq!(time(&own, "24/Jun/2022:21:20:11 +0200").as_deref(), Ok("2022-06-24T19:20:11.000Z"));
        let bare = ImportOptions { time_format: Some("%d.%m.%Y".to_owned()), ..options() };
        assert!(time(&bare, "24.06.2022").unwrap_err().contains("--time-zone"));
        assert!("Europe/Nowhere".parse::<Zone>().is_err());
    }

    /// If it failed, prices would be a hundredth or a hundredfold of what they are.
    #[test]
    fn money_is_read_as_told() {
        let minor = options();
        assert_eq!(minor.money("price_minor", "1299"), Ok(1_299));
        assert!(minor.money("price_minor", "12.99").unwrap_err().reason.contains("--decimal-money"));
        let read = |currency: &str, text: &str| {
            let options = ImportOptions { decimal_money: true, ..ImportOptions::new(Topic::Orders, currency) };
            options.money("price_minor", text).ok()
        };
        for (currency, text, expected) in [
            ("EUR", "12.99", Some(1_299)),
            ("EUR", "12,99", Some(1_299)),
            ("EUR", "12,9", Some(1_290)),
            ("EUR", "3", Some(300)),
            ("EUR", "12.9900", Some(1_299)),
            ("EUR", "-2.50", Some(-250)),
            ("EUR", "12.999", None),
            ("EUR", "1,299", None),
            ("EUR", "1,234.50", None),
            ("EUR", "12.", None),
            ("EUR", "€ 12", None),
            ("JPY", "1300", Some(1_300)),
            ("JPY", "1300.00", Some(1_300)),
            ("JPY", "12.5", None),
            ("KWD", "1.250", Some(1_250)),
            ("EUR", "99999999999999999999", None),
        ] {
            assert_eq!(read(currency, text), expected, "{currency} {text}");
        }
    }

    #[test]
    fn numbers_and_flags_are_read_as_programs_write_them() {
        for (text, expected) in
            [("1.0000", Some(1)), ("2,0", Some(2)), ("-1.0", Some(-1)), ("1.5", None), ("1,000", None), ("x", None)]
        {
            assert_eq!(whole_number("quantity", text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("TRUE", true), ("True", true), ("yes", true), ("1", true), ("FALSE", false), ("No", false), ("0", false)]
        {
            assert_eq!(flag("available", text), Ok(expected), "{text}");
        }
        assert!(flag("available", "maybe").is_err());
        assert_eq!(shown(&"x".repeat(200)).chars().filter(|c| *c == 'x').count(), SHOWN_CHARS);
    }

    /// A format by which no time can be read would refuse every row of a file, one by one.
    #[test]
    fn formats_of_times_are_checked_before_a_file_is_read() {
        for good in ["%d/%m/%Y %H:%M", "%d.%m.%Y", "%d/%b/%Y:%H:%M:%S %z", "%s", "%m/%d/%y %I:%M %p", "%F %T", "%Y%m%d"] {
            assert_eq!(time_format(good).as_deref(), Ok(good));
        }
        for bad in ["%Q", "%H:%M", "", "dd/mm/yyyy", "%d/%m/%Y %"] {
            assert!(time_format(bad).is_err(), "{bad}");
        }
    }
}
