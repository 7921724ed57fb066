//! The event log: five topics of JSON records and the topic `rejected`, behind one port with one conformance suite.
//!
//! ```text
//! API, import ──append (durable before it returns)──▶ EventLog ──EventReader (one thread, polls)──▶ pipeline source
//! ```
//!
//! Implementations: [`embedded`] (a fjall database of its own, fsynced) and [`kafka`]. [`mod@file`] reads import files; it is a
//! source of appends, not a log. [`broadcast`] is the change feed between processes, beside the log.

pub mod broadcast;
pub mod conformance;
pub mod embedded;
pub mod file;
pub mod kafka;

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use kindred_model::records::RECORD_BYTES_MAX;
use kindred_model::{Position, Topic};
use serde::{Deserialize, Serialize};

/// Errors of the log. A variant exists because callers act differently on it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// It may or may not have happened; retry, appends are merged by natural key.
    #[error("the log did not answer: {0}")]
    Unavailable(String),
    /// It did not happen: the disk is full. Free space, then retry. Nothing acknowledged is lost.
    #[error("the log has no room left: {0}")]
    Full(String),
    /// It did not happen, and repeating will not help.
    #[error("the log refused: {0}")]
    Refused(String),
    /// A person must look.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// The coordinates of one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// Its partition; the embedded log has one, 0.
    pub partition: u32,
    /// Its number within the partition, from 0.
    pub offset: u64,
}

impl Place {
    /// The position just after it.
    pub fn position(self) -> Position {
        let mut position = Position::beginning();
        position.passed(self.topic, self.partition, self.offset);
        position
    }
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Where.
    pub place: Place,
    /// The JSON as written; empty after a purge, which readers skip but count.
    pub payload: Vec<u8>,
    /// The key of a tombstone of a compacted topic; `None` for other records.
    pub tombstone: Option<Vec<u8>>,
}

/// An invalid record, kept with its reason until somebody corrects or drops it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// Its source: a topic of the log, or `import:FILE` for a line of a file.
    pub source: String,
    /// The topic it was meant for.
    pub topic: Topic,
    /// Its partition; 0 for a file.
    pub partition: u32,
    /// Its offset in the partition, or the line of the file.
    pub offset: u64,
    /// What is wrong, for a person to read.
    pub reason: String,
    /// The record as received; lossy where it is not UTF-8, cut at 64 KiB.
    pub payload: String,
}

impl Rejected {
    /// (source, partition, offset): rejecting the same record twice changes nothing.
    pub fn id(&self) -> String {
        format!("{}:{}:{}", self.source, self.partition, self.offset)
    }

    /// Whether a text has the form of an id.
    pub fn is_id(text: &str) -> bool {
        let mut parts = text.rsplitn(3, ':');
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
        is_number(parts.next()) && is_number(parts.next()) && parts.next().is_some_and(|source| !source.is_empty())
    }

    /// With its payload cut to the limit.
    fn cut(mut self) -> Self {
        self.payload.truncate(self.payload.floor_char_boundary(REJECTED_BYTES_MAX));
        self
    }

    /// Without payload and reason, which may quote it.
    fn emptied(self) -> Self {
        Self { payload: String::new(), reason: "purged".into(), ..self }
    }
}

/// Payload kept of a rejected record.
const REJECTED_BYTES_MAX: usize = 64 << 10;

/// Checks that records may be appended.
fn check_records(records: &[Vec<u8>]) -> Result<(), LogError> {
    for record in records {
        if record.is_empty() {
            return Err(LogError::Refused("a record must not be empty: an empty payload marks a purged record".into()));
        }
        if record.len() > RECORD_BYTES_MAX {
            let bytes = record.len();
            return Err(LogError::Refused(format!("a record has {bytes} bytes; at most {RECORD_BYTES_MAX} are accepted")));
        }
    }
    Ok(())
}

/// Counts records appended since `began`.
fn tell_appended(topic: Topic, count: u64, began: Instant) {
    metrics::counter!("log_appended_records_total", "topic" => topic.name()).increment(count);
    metrics::histogram!("log_append_duration_seconds").record(began.elapsed().as_secs_f64());
}

/// Progress of an import: written as one unit with its records, so that it can be resumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Which import: a digest of its file and options.
    pub name: String,
    /// How many of its records are in the log, including these.
    pub done: u64,
}

/// The state of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The oldest offset that can still be read.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
}

/// Whether the payload of a record is to be purged.
pub type Predicate<'f> = dyn for<'a> Fn(&'a [u8]) -> bool + Sync + 'f;

/// The log. Every method may be called concurrently.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Identifies the log, created with it: a recreated topic is another log, and positions of one mean nothing in the other.
    fn identity(&self) -> &str;

    /// Appends records of one topic in order and returns their places once they are durable (fsynced, or acknowledged by all
    /// replicas). Repeatable: a record merges into itself. Concurrent calls share one fsync.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Refused`]: none was appended, except that Kafka may refuse a part of a call; the
    /// message says how many were appended, and repeating them is harmless.
    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError>;

    /// The progress of an import by name.
    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError>;

    /// A reader of the share's partitions of all topics, at the beginning.
    fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError>;

    /// The position after the last durable record of every topic.
    async fn end(&self) -> Result<Position, LogError>;

    /// The state of each partition.
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError>;

    /// Whether `orders`, `catalog`, `members` and `ledger` are compacted. If so, a merged record that differs from the last one
    /// of its key has to be appended again (schemas/README.md).
    fn compacts(&self) -> bool;

    /// Bytes on disk, if known.
    fn disk_bytes(&self) -> Option<u64>;

    /// Writes records to the topic `rejected`; durable when it returns; repeatable.
    async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError>;

    /// Rejected records in the order of their ids, after `after`, at most `limit`.
    async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError>;

    /// One rejected record by its id.
    async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError>;

    /// Drops rejected records that were corrected, or are to be erased. Unknown ids change nothing.
    async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError>;

    /// Empties the payload of every record of a topic before `end`, and of every rejected record meant for it, for which
    /// `condemned` is true; offsets stay. This removes an erased member's raw records. Durable when it returns; returns how many.
    /// On Kafka, whose records are immutable, only rejected ones; the others leave by retention and compaction ([`kafka`],
    /// Forgetting).
    async fn purge(&self, topic: Topic, end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError>;
}

/// A reader's part of the partitions, which are dealt out to `of` readers. Together the readers read each partition once, new
/// partitions included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    index: u32,
    of: u32,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// The share of reader `index` (from 0) of `of`.
    ///
    /// # Panics
    /// When there is no such reader.
    pub fn new(index: u32, of: u32) -> Self {
        assert!(index < of, "there is no reader {index} of {of}");
        Self { index, of }
    }

    /// The number of readers.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether a partition belongs to it. Consecutive partitions go to consecutive readers, with an offset per topic, so that no
    /// reader gets all partitions of one topic or all with number 0.
    pub fn holds(self, topic: Topic, partition: u32) -> bool {
        (u64::from(topic.code()) + u64::from(partition)) % u64::from(self.of) == u64::from(self.index)
    }
}

/// Reads its share of all topics from a position. Blocking; use it from one thread.
pub trait EventReader: Send {
    /// Seeks to `position`: the next record of a partition is the one at its offset; a partition that the position does not name
    /// is read from its oldest record.
    ///
    /// # Errors
    /// [`LogError::Refused`] when retention has removed that record (the message says from where it can be read), or the position
    /// is of another log.
    fn seek(&mut self, position: &Position) -> Result<(), LogError>;

    /// Appends up to `limit` records to `into`, in partition order. Waits up to `timeout` for the first, then returns what is
    /// there. Returning nothing is neither an error nor the end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing was consumed, poll again. [`LogError::Refused`]: the next record is unreadable (removed
    /// by retention, or the topic was recreated); the message has the command that helps.
    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError>;

    /// The position in its share: after every polled record, and after offsets without one (removed by compaction or retention,
    /// or transaction markers). It reaches [`EventReader::end`] once everything is read, even if the last offsets hold no record.
    fn position(&self) -> &Position;

    /// When the oldest record of the last `poll` was appended, if the log records that.
    fn oldest_polled(&self) -> Option<SystemTime> {
        None
    }

    /// The position after the last readable record of its share.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn end(&mut self) -> Result<Position, LogError>;
}
