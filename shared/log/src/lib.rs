//! The event log: five topics of JSON records and the topic `rejected`, behind one port with one conformance suite.
//!
//! ```text
//! API, import ──append (durable before it returns)──▶ EventLog ──EventReader (one thread, polls)──▶ pipeline source
//! ```
//!
//! Implementations: [`embedded`] (fjall, a database of its own, fsynced) and [`kafka`]. [`mod@file`] reads files
//! for imports; it is a source of appends, not a log. [`broadcast`] is beside the log: how processes tell each other what changed.

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

/// Why a call on the log did not do its work. A variant exists because callers act differently on it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// It may or may not have happened; repeat it, appends are merged by natural key.
    #[error("the log did not answer: {0}")]
    Unavailable(String),
    /// It did not happen, and there is no room: free some, then repeat. Nothing that was acknowledged is lost.
    #[error("the log has no room left: {0}")]
    Full(String),
    /// It did not happen, and repeating will not help.
    #[error("the log refused: {0}")]
    Refused(String),
    /// A person must look.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
}

/// The place of one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// Its partition; the embedded log has one, 0.
    pub partition: u32,
    /// The number of the record within the partition, from 0.
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

/// One record as it lies in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Where.
    pub place: Place,
    /// The JSON as it was written; empty where it was purged, which readers skip but count.
    pub payload: Vec<u8>,
    /// The key of a record without a value, a tombstone of a compacted topic; the others need none.
    pub tombstone: Option<Vec<u8>>,
}

/// A record that could not be accepted, kept with its reason until somebody mends or drops it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// Where it came from: a topic of the log, or `import:FILE` for a line of a file.
    pub source: String,
    /// The topic it was meant for.
    pub topic: Topic,
    /// Its partition; 0 for a file.
    pub partition: u32,
    /// Its offset in the partition, or the line of the file.
    pub offset: u64,
    /// What is wrong, for a person to read.
    pub reason: String,
    /// The record as it came; lossy where it is no UTF-8, cut at 64 KiB.
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

    /// With its payload cut to what is kept.
    fn cut(mut self) -> Self {
        self.payload.truncate(self.payload.floor_char_boundary(REJECTED_BYTES_MAX));
        self
    }

    /// Without what it held; the reason may quote it.
    fn emptied(self) -> Self {
        Self { payload: String::new(), reason: "purged".into(), ..self }
    }
}

/// Payload kept of a rejected record.
const REJECTED_BYTES_MAX: usize = 64 << 10;

/// Checks that records can be appended.
fn check_records(records: &[Vec<u8>]) -> Result<(), LogError> {
    for record in records {
        if record.is_empty() {
            return Err(LogError::Refused("a record must not be empty: that is how a purged one looks".into()));
        }
        if record.len() > RECORD_BYTES_MAX {
            let bytes = record.len();
            return Err(LogError::Refused(format!("a record has {bytes} bytes; at most {RECORD_BYTES_MAX} are accepted")));
        }
    }
    Ok(())
}

/// Counts records that were appended since `began`.
fn tell_appended(topic: Topic, count: u64, began: Instant) {
    metrics::counter!("log_appended_records_total", "topic" => topic.name()).increment(count);
    metrics::histogram!("log_append_duration_seconds").record(began.elapsed().as_secs_f64());
}

/// How far an import has come: written in one unit with the records, so that it can be resumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Which import: a digest of its file and options.
    pub name: String,
    /// How many of its records are in the log, these included.
    pub done: u64,
}

/// What lies in one partition.
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

/// The log. Every method may be called from many tasks at once.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Which log this is, made once with it: a topic created anew is another log, and positions of the one mean nothing in the other.
    fn identity(&self) -> &str;

    /// Appends records of one topic, in this order, and returns their places when they are durable (fsynced, or acknowledged by
    /// all replicas). Appending a record twice is harmless: it merges into itself. Calls from many tasks share one fsync.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Refused`]: none of them was appended (where Kafka refuses some of a call only, the message
    /// says how many are there all the same: repeating them is harmless).
    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError>;

    /// How far an import of that name has come.
    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError>;

    /// A reader of the partitions of all topics that fall to `share`, standing at the beginning.
    fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError>;

    /// The position after the last durable record of every topic.
    async fn end(&self) -> Result<Position, LogError>;

    /// What lies in each partition.
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError>;

    /// Whether `orders`, `catalog` and `members` keep the last record of a key and lose those before it. Where they do, a merged
    /// record that differs from the last one has to be appended again (DESIGN, Events).
    fn compacts(&self) -> bool;

    /// Bytes on disk, where that is known.
    fn disk_bytes(&self) -> Option<u64>;

    /// Puts records into the topic `rejected`; durable when it returns; the same again changes nothing.
    async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError>;

    /// Rejected records in the order of their ids, after `after`, at most `limit`.
    async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError>;

    /// One rejected record by its id.
    async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError>;

    /// Drops rejected records that were mended, or are to be forgotten. Ids that are not there change nothing.
    async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError>;

    /// Empties the payload of every record of a topic before `end` (and every rejected record meant for it) for which `condemned` says
    /// so; their offsets stay. How the raw records of an erased member leave. Durable when it returns; returns how many. On Kafka, where
    /// no record can be changed, the rejected ones alone; the others leave by retention and compaction ([`kafka`], Forgetting).
    async fn purge(&self, topic: Topic, end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError>;
}

/// Which partitions a reader reads: those that fall to `index` when they are dealt out to `of` readers. Between them all readers
/// of one `of` read each partition once, whatever partitions there are or come to be.
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

    /// How many readers share.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether a partition falls to it. Consecutive partitions go to consecutive readers, and topics start one after the other, so
    /// that neither the partitions of one topic nor those numbered 0 fall to one reader.
    pub fn holds(self, topic: Topic, partition: u32) -> bool {
        (u64::from(topic.code()) + u64::from(partition)) % u64::from(self.of) == u64::from(self.index)
    }
}

/// Reads its share of all topics from a position on. Blocking, for one thread of its own.
pub trait EventReader: Send {
    /// Stands at `position`: the next record read of a partition is the one at its offset; one that the position does not name is
    /// read from its beginning, wherever retention has moved that.
    ///
    /// # Errors
    /// [`LogError::Refused`] when retention has removed what lies there (the message says from where it can be read), or the
    /// position is not of this log.
    fn seek(&mut self, position: &Position) -> Result<(), LogError>;

    /// Appends up to `limit` records to `into`, in the order of each partition. Waits up to `timeout` for the first; returns at
    /// once with what is there. Returning nothing is no error and not the end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing was consumed, poll again; it goes on by itself when the log does. [`LogError::Refused`]: what
    /// comes next cannot be read any more (removed by retention, the topic created anew); the message has the command that helps.
    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError>;

    /// Where it stands in its share: after everything that `poll` has given, and after offsets that hold no record (removed by
    /// compaction or retention, or markers of transactions). Once everything is read it reaches [`EventReader::end`], which the
    /// records alone do not where the last offsets of a partition hold none.
    fn position(&self) -> &Position;

    /// When the oldest of the records that the last `poll` gave was appended, where the log keeps that.
    fn oldest_polled(&self) -> Option<SystemTime> {
        None
    }

    /// The position after the last record of its share that can be read now.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn end(&mut self) -> Result<Position, LogError>;
}
