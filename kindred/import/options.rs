//! The options of an import: topic, format, columns and words.

use std::collections::BTreeMap;

use encoding_rs::Encoding;
use jiff::tz::TimeZone;
use kindred_model::Topic;
use kindred_model::records::OrderStatus;
use serde::{Serialize, Serializer};

use super::values::shown;

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
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ImportOptions {
    /// The topic.
    pub topic: Topic,
    /// `--format`; `None` detects it by the file name.
    pub format: Option<Format>,
    /// `--map field=column`.
    pub map: BTreeMap<String, String>,
    /// `--map-status word=status`.
    pub map_status: BTreeMap<String, OrderStatus>,
    /// `--link-cancellations`.
    pub link_cancellations: bool,
    /// `--version`: the default.
    pub version: u64,
    /// `--version-from`: the column with the version, an integer or a time.
    pub version_from: Option<String>,
    /// `shop.currency`: the default.
    pub currency: String,
    /// `--delimiter` of CSV; `None` detects it by the header.
    pub delimiter: Option<char>,
    /// `--encoding`; `None` is UTF-8, or UTF-16 with a byte order mark.
    #[serde(serialize_with = "encoding_name")]
    pub encoding: Option<&'static Encoding>,
    /// `--time-zone`: of times without an offset.
    pub time_zone: Option<Zone>,
    /// `--time-format`.
    pub time_format: Option<String>,
    /// `--decimal-money`: prices have decimals.
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

    /// The status that a word of the file means, if any.
    pub fn status(&self, word: &str) -> Option<OrderStatus> {
        self.map_status.get(word).copied().or_else(|| word.parse().ok())
    }

    /// The error for an unknown status.
    pub fn unknown_status(word: &str) -> String {
        // Such a long word is no status: the column is a wrong one.
        let named = if word.chars().count() <= WORD_CHARS_MAX { shell_word(word) } else { "WORD".to_owned() };
        format!(
            "{} is none of placed, paid, shipped, completed, cancelled, refunded; say what it means with --map-status {named}=STATUS",
            shown(word)
        )
    }
}

/// A word for a command line, quoted where necessary.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,/:=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
