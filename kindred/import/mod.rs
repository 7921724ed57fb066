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
use kindred_model::records::OrderStatus;

pub use convert::{Converted, Input, convert};
pub use credit_notes::CreditNoteReport;
pub use options::{Format, ImportOptions, Zone, shell_word};
pub use rejects::{Origin, Reason, RejectReport, Rejects};
pub use run::run;
pub use time_order::{InOrder, MEMORY_BYTES};

use crate::cli::TargetArgs;

/// `kindred import`
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// What and how.
    #[command(flatten)]
    pub options: ImportOptions,
    /// The files, together one import; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A field that stands under another name, as in item=StockCode; may be repeated
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = pair)]
    pub map: Vec<(String, String)>,
    /// Orders: a word of the files that means a status, as in placed=paid (placed=completed skips the hold of points); may be
    /// repeated
    #[arg(long, value_name = "WORD=STATUS", value_parser = status_pair)]
    pub map_status: Vec<(String, OrderStatus)>,
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
