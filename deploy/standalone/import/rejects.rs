//! What an import turns away: kept in the topic `rejected`, and told by reason with the first lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::sync::Arc;

use kindred_log::Rejected;
use kindred_model::Topic;

/// Lines named for each reason in the report.
const LINES_NAMED: usize = 8;
/// Distinct reasons kept for the report; what comes after them is counted together.
const REASONS_KEPT: usize = 1_000;
/// Rejected records handed on at once.
const BATCH: usize = 1_000;
/// A rejected record is kept up to here.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Where a record stands: the file and its line, from 1 (the line on which it begins).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The file as it was named; `-` is standard input.
    pub file: Arc<str>,
    /// The file's place on the command line, from 0.
    pub index: usize,
    /// The line.
    pub line: u64,
}

impl Origin {
    /// Orders the rows of an import: files as they were named, then lines.
    pub fn row(&self) -> (usize, u64) {
        (self.index, self.line)
    }
}

/// A reason without the values in it: one mistake of a file is one reason, however many values it spoils.
pub fn without_values(reason: &str) -> String {
    let mut group = String::with_capacity(reason.len());
    let (mut quoted, mut escaped, mut in_number) = (false, false, false);
    for c in reason.chars() {
        let ends = c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        if ends {
            quoted = !quoted;
            if quoted {
                group.push('…');
            }
        } else if !quoted {
            // "is 12; from 1 to 10 is accepted", "has 3 fields": the number is a value.
            let is_value = c.is_ascii_digit() || c == '-';
            if !in_number && is_value && (group.ends_with(" is ") || group.ends_with(" has ") || group.ends_with(" back ")) {
                in_number = true;
                group.push('…');
            }
            in_number &= is_value;
            if !in_number {
                group.push(c);
            }
        }
    }
    group
}

/// One reason and the lines that it met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reason {
    /// How many rows.
    pub rows: u64,
    /// The reason of the first of them, where all have it word for word.
    pub same: Option<String>,
    /// The first of them.
    pub first: Vec<Origin>,
}

/// Takes rejected records in portions; where they go may fail.
pub type RejectSink<'a> = Box<dyn FnMut(Vec<Rejected>) -> anyhow::Result<()> + 'a>;

/// Rejected records in a temporary file, until it is sure that the import is one: what fails leaves nothing behind.
pub struct Spool(BufWriter<File>);

impl Spool {
    /// An empty one.
    ///
    /// # Errors
    /// When there is no place for temporary files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::new(tempfile::tempfile()?)))
    }

    /// Keeps a portion.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&mut self, batch: &[Rejected]) -> io::Result<()> {
        for rejected in batch {
            serde_json::to_writer(&mut self.0, rejected)?;
            self.0.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Hands everything on.
    ///
    /// # Errors
    /// When the file cannot be read, or where they go fails.
    pub fn empty(self, mut sink: impl FnMut(Vec<Rejected>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let mut batch = Vec::new();
        for line in BufReader::new(file).lines() {
            batch.push(serde_json::from_str(&line?)?);
            if batch.len() == BATCH {
                sink(std::mem::take(&mut batch))?;
            }
        }
        if batch.is_empty() { Ok(()) } else { sink(batch) }
    }
}

/// Collects what is turned away.
pub struct Rejects<'a> {
    topic: Topic,
    sink: RejectSink<'a>,
    waiting: Vec<Rejected>,
    rows: u64,
    reasons: BTreeMap<String, Reason>,
    other_reasons: u64,
}

impl<'a> Rejects<'a> {
    /// Nothing yet; `sink` is given every record in portions.
    pub fn new(topic: Topic, sink: RejectSink<'a>) -> Self {
        Self { topic, sink, waiting: Vec::new(), rows: 0, reasons: BTreeMap::new(), other_reasons: 0 }
    }

    /// Turns one row away.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn add(&mut self, origin: &Origin, reason: &str, payload: &[u8]) -> anyhow::Result<()> {
        // A word of the status is named: what to do about it is another thing for each.
        let group = if reason.starts_with("status: ") { reason.to_owned() } else { without_values(reason) };
        self.add_under(&group, origin, reason, payload)
    }

    /// Turns one row away, counted in the report under a reason shorter than its own.
    ///
    /// # Errors
    /// As [`Rejects::add`].
    pub fn add_under(&mut self, group: &str, origin: &Origin, reason: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.rows += 1;
        if self.reasons.len() < REASONS_KEPT || self.reasons.contains_key(group) {
            let entry = self.reasons.entry(group.to_owned()).or_default();
            if entry.rows == 0 {
                entry.same = Some(reason.to_owned());
            } else if entry.same.as_deref() != Some(reason) {
                entry.same = None;
            }
            entry.rows += 1;
            if entry.first.len() < LINES_NAMED {
                entry.first.push(origin.clone());
            }
        } else {
            self.other_reasons += 1;
        }
        let cut = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
        self.waiting.push(Rejected {
            source: format!("import:{}", origin.file),
            topic: self.topic,
            partition: 0,
            offset: origin.line,
            reason: reason.to_owned(),
            payload: String::from_utf8_lossy(cut).into_owned(),
        });
        if self.waiting.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands on what still waits.
    ///
    /// # Errors
    /// As [`Rejects::add`].
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if !self.waiting.is_empty() {
            (self.sink)(std::mem::take(&mut self.waiting))?;
        }
        Ok(())
    }

    /// The end: rows by reason, the most frequent first, and how many rows had reasons beyond those kept.
    ///
    /// # Errors
    /// As [`Rejects::add`].
    pub fn finish(mut self) -> anyhow::Result<RejectReport> {
        self.flush()?;
        let mut reasons: Vec<(String, Reason)> = self.reasons.into_iter().collect();
        for (reason, met) in &mut reasons {
            if let Some(same) = met.same.take() {
                *reason = same;
            }
        }
        reasons.sort_by(|a, b| b.1.rows.cmp(&a.1.rows).then_with(|| a.1.first[0].row().cmp(&b.1.first[0].row())));
        Ok(RejectReport { rows: self.rows, reasons, other_reasons: self.other_reasons })
    }
}

/// What was turned away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RejectReport {
    /// Rows in all.
    pub rows: u64,
    /// By reason, the most frequent first.
    pub reasons: Vec<(String, Reason)>,
    /// Rows of reasons that are not listed.
    pub other_reasons: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, one mistake of a file would be told as a thousand.
    #[test]
    fn one_mistake_is_one_reason() {
        for (reason, group) in [
            (r#"price_minor: "2.55" is not a whole number"#, "price_minor: … is not a whole number"),
            (r#"at: "a \"b\" c" is no time; as in "x""#, "at: … is no time; as in …"),
            ("quantity: is -3; from 1 to 1000000 is accepted", "quantity: is …; from 1 to 1000000 is accepted"),
            ("row: has 5 fields where the header has 7", "row: has … fields where the header has …"),
            ("title: is required", "title: is required"),
        ] {
            assert_eq!(without_values(reason), group);
        }
    }
}
