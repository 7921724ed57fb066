//! The options of an import: topic, format, columns and words.

use std::collections::BTreeMap;

use clap::builder::TypedValueParser;
use encoding_rs::Encoding;
use jiff::tz::TimeZone;
use kindred_model::Topic;
use kindred_model::records::{Invalid, OrderStatus};
use serde::{Serialize, Serializer};

use super::values::{shown, time_format};

/// Longest word that an example of `--map-status` repeats.
const WORD_CHARS_MAX: usize = 40;
/// The default version.
pub const VERSION_ABSENT: u64 = 1;

/// The layout of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// A header, then one record a row (of orders: one line a row).
    Csv,
}

/// A time zone by name, like `Europe/Berlin`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(pub TimeZone);

impl std::str::FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let zone =
            TimeZone::get(name).map_err(|_| "there is no zone of this name; they are like Europe/Berlin or UTC".to_owned());
        zone.map(Self)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.iana_name().serialize(serializer)
    }
}

/// The encoding of a WHATWG label, like `windows-1252` or `gbk`.
///
/// # Errors
/// What is accepted.
pub fn encoding(label: &str) -> Result<&'static Encoding, String> {
    let known = "there is no encoding of this name; they are like utf-8, utf-16le, windows-1252, iso-8859-15, gbk, shift_jis";
    Encoding::for_label(label.as_bytes()).ok_or_else(|| known.to_owned())
}

/// Everything besides the files that decides which records an import makes. Its digest is part of the import's name: other
/// options make another import.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ImportOptions {
    /// What the files hold
    #[arg(value_name = "TOPIC", value_parser = clap::builder::PossibleValuesParser::new(Topic::OF_SHOPS.map(Topic::name))
        .map(|topic| topic.parse::<Topic>().expect("a topic's name")))]
    pub topic: Topic,
    /// How the records stand in the files; without it by the name, then by the first byte
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// `--map field=column`.
    #[arg(skip)]
    pub map: BTreeMap<String, String>,
    /// `--map-status word=status`.
    #[arg(skip)]
    pub map_status: BTreeMap<String, OrderStatus>,
    /// Orders: turn credit notes (status cancelled, an order id of their own) into refunds of the same member's earlier lines of
    /// that item, latest first
    #[arg(long)]
    pub link_cancellations: bool,
    /// The version of records that name none: a greater one for a newer export of the same
    #[arg(long, value_name = "N", default_value_t = VERSION_ABSENT)]
    pub version: u64,
    /// The column that says a record's version, a whole number or a time that grows with each change, as updated_at does; where it is
    /// empty, --version holds
    #[arg(long, value_name = "COLUMN")]
    pub version_from: Option<String>,
    /// `shop.currency`: the default.
    #[arg(skip)]
    pub currency: String,
    /// CSV: what stands between the columns, like ; or tab; without it what the header shows
    #[arg(long, value_name = "CHAR", value_parser = super::delimiter)]
    pub delimiter: Option<char>,
    /// How the files are encoded, like windows-1252 or gbk; without it UTF-8, or UTF-16 where the file says so
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    #[serde(serialize_with = "encoding_name")]
    pub encoding: Option<&'static Encoding>,
    /// The zone of times without an offset, like Europe/Berlin or UTC
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<Zone>,
    /// How times are written, as in '%d/%m/%Y %H:%M'; without it RFC 3339 and what is near to it, or seconds or their fractions since 1970
    #[arg(long, value_name = "FORMAT", value_parser = time_format)]
    pub time_format: Option<String>,
    /// Prices are written with decimals: 12.99 (or 12,99) is 1299, 3 is 300, in a currency of hundredths
    #[arg(long)]
    pub decimal_money: bool,
}

fn encoding_name<S: Serializer>(encoding: &Option<&'static Encoding>, serializer: S) -> Result<S::Ok, S::Error> {
    encoding.map(Encoding::name).serialize(serializer)
}

impl ImportOptions {
    /// The defaults for a topic.
    pub fn new(topic: Topic, currency: impl Into<String>) -> Self {
        Self {
            topic,
            format: None,
            map: BTreeMap::new(),
            map_status: BTreeMap::new(),
            link_cancellations: false,
            version: VERSION_ABSENT,
            version_from: None,
            currency: currency.into(),
            delimiter: None,
            encoding: None,
            time_zone: None,
            time_format: None,
            decimal_money: false,
        }
    }

    /// The status that a word of the file means.
    ///
    /// # Errors
    /// [`Invalid`] with what helps, if it means none.
    pub fn status_of(&self, word: &str) -> Result<OrderStatus, Invalid> {
        if let Some(status) = self.map_status.get(word).copied().or_else(|| word.parse().ok()) {
            return Ok(status);
        }
        // Such a long word is no status: the column is a wrong one.
        let named = if word.chars().count() <= WORD_CHARS_MAX { shell_word(word) } else { "WORD".to_owned() };
        let help = "is none of placed, paid, shipped, completed, cancelled, refunded; say what it means with --map-status";
        Err(Invalid::new("status", format!("{} {help} {named}=STATUS", shown(word))))
    }
}

/// A word for a command line, quoted where necessary.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,/:=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
