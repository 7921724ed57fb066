//! `kindred import`: a shop's files become records in its log, in time order.
//!
//! ```text
//! FILE… ──convert──▶ records in time order ──append under a mark──▶ log ──pipeline──▶ views, durable
//! ```

mod columns;
mod conflicts;
mod convert;
mod credit_notes;
mod input;
mod options;
mod orders;
mod quotes;
mod rejects;
mod run;
#[cfg(test)]
mod tests;
mod text;
mod time_order;
mod values;

use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;
use kindred_model::Topic;
use kindred_model::records::OrderStatus;

pub use convert::{Converted, Input, convert};
pub use credit_notes::CreditNoteReport;
pub use options::{Format, ImportOptions, VERSION_ABSENT, Zone, encoding, shell_word};
pub use rejects::{Origin, Reason, RejectReport, Rejects};
pub use run::run;
pub use time_order::{InOrder, MEMORY_BYTES};
pub use values::time_format;

use crate::cli::TargetArgs;

/// `kindred import`
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// What the files hold
    #[arg(value_name = "TOPIC", value_parser = clap::builder::PossibleValuesParser::new(Topic::OF_SHOPS.map(Topic::name))
        .map(|topic| topic.parse::<Topic>().expect("a topic's name")))]
    pub topic: Topic,
    /// The files, together one import; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How the records stand in the files; without it by the name, then by the first byte
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// A field that stands under another name, as in item=StockCode; may be repeated
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = pair)]
    pub map: Vec<(String, String)>,
    /// Orders: a word of the files that means a status, as in placed=paid (placed=completed skips the hold of points); may be
    /// repeated
    #[arg(long, value_name = "WORD=STATUS", value_parser = status_pair)]
    pub map_status: Vec<(String, OrderStatus)>,
    /// Orders: turn credit notes (status cancelled, an order id of their own) into refunds of the same member's earlier lines of
    /// that item, latest first
    #[arg(long)]
    pub link_cancellations: bool,
    /// The version of records that name none: a greater one for a newer export of the same
    #[arg(long, value_name = "N", default_value_t = crate::import::VERSION_ABSENT)]
    pub version: u64,
    /// The column that says a record's version, a whole number or a time that grows with each change, as updated_at does; where it is
    /// empty, --version holds
    #[arg(long, value_name = "COLUMN")]
    pub version_from: Option<String>,
    /// CSV: what stands between the columns, like ; or tab; without it what the header shows
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    pub delimiter: Option<char>,
    /// How the files are encoded, like windows-1252 or gbk; without it UTF-8, or UTF-16 where the file says so
    #[arg(long, value_name = "NAME", value_parser = crate::import::encoding)]
    pub encoding: Option<&'static encoding_rs::Encoding>,
    /// The zone of times without an offset, like Europe/Berlin or UTC
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<Zone>,
    /// How times are written, as in '%d/%m/%Y %H:%M'; without it RFC 3339 and what is near to it, or seconds or their fractions since 1970
    #[arg(long, value_name = "FORMAT", value_parser = crate::import::time_format)]
    pub time_format: Option<String>,
    /// Prices are written with decimals: 12.99 (or 12,99) is 1299, 3 is 300, in a currency of hundredths
    #[arg(long)]
    pub decimal_money: bool,
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("field=column is accepted, as in item=StockCode".to_owned()),
    }
}

/// One character of ASCII, or its name.
fn delimiter(text: &str) -> Result<char, String> {
    let named = match text {
        "tab" | "\\t" => "\t",
        "comma" => ",",
        "semicolon" => ";",
        other => other,
    };
    let mut chars = named.chars();
    match (chars.next(), chars.next()) {
        (Some(delimiter), None) if delimiter.is_ascii() && !"\"\r\n".contains(delimiter) => Ok(delimiter),
        _ => Err("one character is accepted, like ; or | or tab".to_owned()),
    }
}

fn status_pair(text: &str) -> Result<(String, OrderStatus), String> {
    // The word is the shop's and may hold anything; a status holds no sign.
    let (word, status) = text.rsplit_once('=').ok_or("word=status is accepted, as in placed=paid")?;
    if word.trim().is_empty() {
        return Err("a word of the files stands before the sign, as in placed=paid".to_owned());
    }
    Ok((word.to_owned(), status.parse().map_err(|error: kindred_model::records::Invalid| error.reason)?))
}
