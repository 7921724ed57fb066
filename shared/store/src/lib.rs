//! The store: merged inputs, the rows of the views, and the frontier, behind one port with one conformance suite.
//!
//! ```text
//! ViewWriter ──begin──▶ WriteSession ──apply, or write and commit──▶ rows ──▶ ViewReader ──▶ API, export, verify
//!                                                                      └────▶ ChangeSource ──ChangeFeed──▶ API memory
//! ```
//!
//! Implementations: [`embedded`] (fjall, a directory of one process) and [`cql`] (Cassandra, `ScyllaDB`; many processes). Each table
//! has one writer: views, the pipeline's sink; keys, the API.

pub mod conformance;
pub mod cql;
pub mod embedded;
pub mod embedded_generations;
pub mod feed;
pub mod generations;
pub mod keys;
mod prefix;
pub mod records;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use kindred_model::Position;
use kindred_model::views::Rows;

pub use feed::{ChangeFeed, ChangeSource};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It may or may not have happened; retry, every write is idempotent.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// It did not happen for lack of disk space; retry when there is some.
    #[error("the store has no room left: {0}")]
    Full(String),
    /// It did not happen, and a retry will not help.
    #[error("the store refused: {0}")]
    Refused(String),
    /// A person must look: `kindred verify --repair` repairs rows.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// An upsert or delete of an absolute value under a natural key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The table ([`kindred_model::views::Table::NAME`]).
    pub table: &'static str,
    /// The encoded key; never empty.
    pub key: Vec<u8>,
    /// The encoded row; `None` deletes it.
    pub row: Option<Vec<u8>>,
}

/// The changes of one epoch, or several coalesced: merged inputs, rows of the views, positions.
#[derive(Clone, Debug, Default)]
pub struct EpochChanges {
    /// The last epoch included.
    pub epoch: u64,
    /// The position of the log once this is applied.
    pub position: Position,
    /// At most one per (table, key). Shared: retries and feeds do not copy them.
    pub changes: Arc<Vec<Change>>,
}

/// The progress of the store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    /// The last epoch applied. Epochs continue over restarts.
    pub epoch: u64,
    /// The position of the log.
    pub position: Position,
    /// A unit larger than a batch did not finish, or the last pipeline did not end cleanly where that matters: every row must be
    /// derived again from the inputs.
    pub unfinished: bool,
}

/// The right to write to a store as its pipeline, from one [`ViewWriter::begin`] until the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incarnation {
    /// Its number; on a store of several processes each begin takes a higher one.
    pub number: u64,
    /// The store's epoch at the begin: the pipeline's epochs continue from it.
    pub first_epoch: u64,
    /// The frontier at the begin; [`Frontier::unfinished`] where the previous pipeline did not end cleanly.
    pub frontier: Frontier,
}

/// A read view of the store. Embedded, it is the state after one applied unit. On CQL, which has no snapshots, every read sees
/// the current rows: at least as new as `frontier`.
pub struct Snapshot {
    /// The progress of the store.
    pub frontier: Frontier,
    /// The tables.
    pub rows: Box<dyn Rows + Send + Sync>,
}

/// Small named values beside the rows: fingerprint, erasure marks. Each generation has its own. A write is durable when the call
/// returns.
#[async_trait]
pub trait NamedValues: Send + Sync {
    /// The value under a name.
    ///
    /// # Errors
    /// As [`ViewReader::get`]; so of every call here.
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a value.
    async fn put(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Names and values that start with `prefix`, in order.
    async fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Deletes a value.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// The reading side: what the pipeline maintains and the API serves.
#[async_trait]
pub trait ViewReader: Send + Sync {
    /// The row under a key, as last applied.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: reads have no effect, so asking again is safe.
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// A [`Snapshot`] of the whole store. Reading from it blocks; never do so on a thread of an async runtime.
    ///
    /// # Errors
    /// Those of the store.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// The frontier: the last commit of this process, or the last seen of another's.
    fn frontier(&self) -> Frontier;

    /// Makes what was applied durable (fsync).
    async fn sync(&self) -> Result<(), StoreError>;

    /// Removes replaced and deleted rows from disk, where this process owns it: erased data must not be found in a file. Takes
    /// seconds and some space. On CQL the compactions of the nodes do it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`]: the bytes stay until a later call.
    async fn shed(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The small named values beside the rows.
    fn named(&self) -> &dyn NamedValues;

    /// Rows of a table. Embedded, it reads the disk, so call it where blocking is allowed; where an exact count is expensive, it
    /// returns the last one and starts the next.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is no such table.
    fn row_count(&self, table: &str) -> Result<u64, StoreError>;

    /// Bytes on disk, if known.
    fn disk_bytes(&self) -> Option<u64>;
}

/// The writing side of a store.
#[async_trait]
pub trait ViewWriter: Send + Sync {
    /// Takes over as the pipeline of the store: writes of an earlier one lose, and it can no longer commit. In one process of a
    /// cluster.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; retry.
    async fn begin(&self) -> Result<Box<dyn WriteSession>, StoreError>;

    /// Joins the incarnation that another process of the cluster has begun.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: it was replaced, or the store belongs to one process.
    async fn join(&self, number: u64) -> Result<Box<dyn WriteSession>, StoreError>;
}

/// A store that can be read and written.
pub trait ViewStore: ViewReader + ViewWriter {}

impl<S: ViewReader + ViewWriter> ViewStore for S {}

/// Writes under one incarnation.
#[async_trait]
pub trait WriteSession: Send + Sync {
    /// The incarnation, as it was at the begin.
    fn incarnation(&self) -> &Incarnation;

    /// Writes rows of an epoch, each (table, key) at most once, without moving the frontier: [`WriteSession::commit`] does, once
    /// every process has written. Embedded, they are buffered until then; on CQL they are readable at once. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: some may be written; retry. [`StoreError::Refused`]: there is no such table.
    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError>;

    /// Moves the frontier past everything written, and clears [`Frontier::unfinished`].
    ///
    /// # Errors
    /// [`StoreError::Refused`]: another pipeline has taken over, so end this one; or this process only joined.
    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError>;

    /// Writes and commits one unit. Embedded it is atomic for readers and crashes; one larger than a batch is written in parts,
    /// and a crash in between leaves [`Frontier::unfinished`]. On CQL rows are readable one by one, the frontier follows, and the
    /// next [`ViewWriter::begin`] notices a crash. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing is readable; retry when there is space. Otherwise those of [`WriteSession::write`] and
    /// [`WriteSession::commit`].
    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError>;

    /// Empties tables for a rebuild; [`Frontier::unfinished`] until the next [`WriteSession::commit`]. On CQL the rows of views are
    /// served until then, and deleted with it unless written since.
    ///
    /// # Errors
    /// As [`WriteSession::write`].
    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError>;

    /// Sets the position without rows: `--from beginning` restarts at zero.
    async fn reset_position(&self, position: Position) -> Result<(), StoreError>;

    /// Ends the session and marks everything as written and committed, so that the next [`ViewWriter::begin`] finds complete rows.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: rows are uncommitted, or another pipeline has taken over. The next start derives the rows again.
    async fn end(self: Box<Self>) -> Result<(), StoreError>;
}
