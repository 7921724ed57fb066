//! What an import is told: which topic, which format, which columns and words mean what.

use std::collections::BTreeMap;

use kindred_model::Topic;
use kindred_model::records::OrderStatus;
use serde::Serialize;

/// The version of a record that names none.
pub const VERSION_ABSENT: u64 = 1;

/// How the records stand in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// A header, then a row a record (of orders: a row an order line).
    Csv,
}

/// Everything besides the files that decides which records an import makes. Its digest is part of the import's name, so that one
/// with other options is another import.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ImportOptions {
    /// The topic.
    pub topic: Topic,
    /// `--format`; `None` goes by the file's name.
    pub format: Option<Format>,
    /// `--map field=column`: where a field stands under another name.
    pub map: BTreeMap<String, String>,
    /// `--map-status word=status`.
    pub map_status: BTreeMap<String, OrderStatus>,
    /// `--link-cancellations`.
    pub link_cancellations: bool,
    /// `--version`: of a record that names none.
    pub version: u64,
    /// `shop.currency`: of an order that names none.
    pub currency: String,
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
            currency: currency.into(),
        }
    }

    /// The status that a word of the file means, if it means one.
    pub fn status(&self, word: &str) -> Option<OrderStatus> {
        self.map_status.get(word).copied().or_else(|| word.parse().ok())
    }

    /// Why a word of the file means no status, and what helps.
    pub fn unknown_status(word: &str) -> String {
        format!(
            "{word:?} is none of placed, paid, shipped, completed, cancelled, refunded; say what it means with \
             --map-status {}=STATUS",
            shell_word(word)
        )
    }
}

/// A word as it may stand in a command line: quoted where a shell would take it apart.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,/:=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
