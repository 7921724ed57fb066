//! The event log: four topics of JSON records and the topic `rejected`, behind one port with one conformance suite.
//!
//! ```text
//! API, import ──append (durable before it returns)──▶ EventLog ──EventReader (one thread, polls)──▶ pipeline source
//! ```
//!
//! Implementations: [`embedded`] (fjall, a database of its own, fsynced); Kafka comes later. [`mod@file`] reads files
//! for imports; it is a source of appends, not a log.

pub mod conformance;
pub mod embedded;
pub mod file;

use std::time::Duration;

use async_trait::async_trait;
use kindred_model::{Position, Topic};
use serde::{Deserialize, Serialize};

/// Why a call on the log did not do its work. A variant exists because callers act differently on it.
#[derive(Debug, thiserror::Error)]
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

/// The log. Every method may be called from many tasks at once.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Which log this is, made once with it: a topic created anew is another log, and positions of the one mean nothing in the other.
    fn identity(&self) -> &str;

    /// Appends records of one topic, in this order, and returns their places when they are durable (fsynced, or acknowledged by
    /// all replicas). Appending a record twice is harmless: it merges into itself. Calls from many tasks share one fsync.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Refused`]: none of them was appended.
    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError>;

    /// How far an import of that name has come.
    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError>;

    /// A reader of all topics, standing at the beginning.
    fn reader(&self) -> Result<Box<dyn EventReader>, LogError>;

    /// The position after the last durable record of every topic.
    async fn end(&self) -> Result<Position, LogError>;

    /// What lies in each partition.
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError>;

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

    /// Empties the payload of every record of a topic (and every rejected record meant for it) for which `condemned` says so;
    /// their offsets stay. How the raw records of an erased member leave. Durable when it returns; returns how many.
    async fn purge(&self, topic: Topic, condemned: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, LogError>;
}

/// Reads all topics from a position on. Blocking, for one thread of its own.
pub trait EventReader: Send {
    /// Stands at `position`: the next record read of a partition is the one at its offset.
    ///
    /// # Errors
    /// [`LogError::Refused`] when retention has removed what lies there; the message says from where it can be read.
    fn seek(&mut self, position: &Position) -> Result<(), LogError>;

    /// Appends up to `limit` records to `into`, in the order of each partition. Waits up to `timeout` for the first; returns at
    /// once with what is there. Returning nothing is no error and not the end.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing was consumed, poll again.
    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError>;

    /// The position after the last record that can be read now.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn end(&mut self) -> Result<Position, LogError>;
}
