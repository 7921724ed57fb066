//! What an import turns away: kept in the topic `rejected`, and told by reason with the first lines.

use std::collections::BTreeMap;
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

/// One reason and the lines that it met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reason {
    /// How many rows.
    pub rows: u64,
    /// The first of them.
    pub first: Vec<Origin>,
}

/// Takes rejected records in portions; where they go may fail.
pub type RejectSink<'a> = Box<dyn FnMut(Vec<Rejected>) -> anyhow::Result<()> + 'a>;

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
        self.add_under(reason, origin, reason, payload)
    }

    /// Turns one row away, counted in the report under a reason shorter than its own.
    ///
    /// # Errors
    /// As [`Rejects::add`].
    pub fn add_under(&mut self, group: &str, origin: &Origin, reason: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.rows += 1;
        if self.reasons.len() < REASONS_KEPT || self.reasons.contains_key(group) {
            let entry = self.reasons.entry(group.to_owned()).or_default();
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
