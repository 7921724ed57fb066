//! The rejects of an import: kept in the topic `rejected`, and reported by reason with their first lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::sync::Arc;

use kindred_log::Rejected;
use kindred_model::Topic;

/// Lines listed for each reason.
const LINES_NAMED: usize = 8;
/// Distinct reasons counted one by one; further ones are counted together.
const REASONS_KEPT: usize = 1_000;
/// Rejected records per batch.
const BATCH: usize = 1_000;
/// Longer payloads are truncated.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// The file and the first line of a record, from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The file name given; `-` is standard input.
    pub file: Arc<str>,
    /// The index of the file on the command line.
    pub index: usize,
    /// The line.
    pub line: u64,
}

impl Origin {
    /// Sort key: file, then line.
    pub fn row(&self) -> (usize, u64) {
        (self.index, self.line)
    }
}

/// A reason without its values, so that one mistake is one reason.
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
            // Numbers are values: "is 12; from 1 to 10 is accepted", "has 3 fields".
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

/// One reason and its lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reason {
    /// How many rows.
    pub rows: u64,
    /// The reason with its values, if all lines share it.
    pub same: Option<String>,
    /// The first lines.
    pub first: Vec<Origin>,
}

/// Receives rejected records in batches.
pub type RejectSink<'a> = Box<dyn FnMut(Vec<Rejected>) -> anyhow::Result<()> + 'a>;

/// Rejected records in a temporary file until the import succeeds.
pub struct Spool(BufWriter<File>);

impl Spool {
    /// An empty one.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::new(tempfile::tempfile()?)))
    }

    /// Appends a batch.
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

    /// Sends everything to `sink`.
    ///
    /// # Errors
    /// When the file cannot be read, or the sink fails.
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

/// Collects rejected rows.
pub struct Rejects<'a> {
    topic: Topic,
    sink: RejectSink<'a>,
    waiting: Vec<Rejected>,
    rows: u64,
    reasons: BTreeMap<String, Reason>,
    other_reasons: u64,
}

impl<'a> Rejects<'a> {
    /// `sink` receives every record, in batches.
    pub fn new(topic: Topic, sink: RejectSink<'a>) -> Self {
        Self { topic, sink, waiting: Vec::new(), rows: 0, reasons: BTreeMap::new(), other_reasons: 0 }
    }

    /// Rejects one row.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn add(&mut self, origin: &Origin, reason: &str, payload: &[u8]) -> anyhow::Result<()> {
        // The word of a status is kept: each needs its own `--map-status`.
        let group = if reason.starts_with("status: ") { reason.to_owned() } else { without_values(reason) };
        self.add_under(&group, origin, reason, payload)
    }

    /// Rejects one row, counted under another reason than its own.
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

    /// Sends what is buffered.
    ///
    /// # Errors
    /// As [`Rejects::add`].
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if !self.waiting.is_empty() {
            (self.sink)(std::mem::take(&mut self.waiting))?;
        }
        Ok(())
    }

    /// Rows by reason, the most frequent first, and the rows of reasons beyond those kept.
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

/// The rejected rows.
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

    /// If this failed, one mistake would be reported a thousand times.
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
