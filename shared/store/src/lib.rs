//! The store: merged inputs, the rows of the views, and how far they reach, behind one port with one conformance suite.
//!
//! ```text
//! pipeline ──begin──▶ sink ──apply(one epoch, one unit)──▶ ViewStore ──snapshot, get──▶ API, export, verify
//!                       └──────write, then commit──────▶      └──listener (what changed)──▶ the API's memory
//! ```
//!
//! Implementations: [`embedded`] (fjall, a directory of one process) and [`cql`] (Cassandra, `ScyllaDB`; many processes). Each table
//! has one writer: views, the pipeline's sink; keys, the API.

pub mod conformance;
pub mod cql;
pub mod embedded;
pub mod embedded_generations;
pub mod generations;
pub mod keys;
mod prefix;
pub mod records;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use kindred_model::Position;
use kindred_model::views::{ReadError, Rows};

/// Why a call on the store did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It may or may not have happened; repeat it, every write is an upsert of an absolute value.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// It did not happen, and there is no room: free some, then repeat.
    #[error("the store has no room left: {0}")]
    Full(String),
    /// It did not happen, and repeating will not help.
    #[error("the store refused: {0}")]
    Refused(String),
    /// A person must look: `kindred verify --repair` mends rows.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// One upsert or delete of an absolute value under a natural key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The table ([`kindred_model::views::Table::NAME`]).
    pub table: &'static str,
    /// The encoded key; never empty.
    pub key: Vec<u8>,
    /// The encoded row; `None` deletes it.
    pub row: Option<Vec<u8>>,
}

/// Everything that one epoch (or several, coalesced) changed: the merged inputs, the rows of the views, the positions.
#[derive(Clone, Debug, Default)]
pub struct EpochChanges {
    /// The last epoch within.
    pub epoch: u64,
    /// How far the log is taken in once this is applied.
    pub position: Position,
    /// At most one a (table, key). Shared: a write that is tried again, and whoever hears of it, copies none of them.
    pub changes: Arc<Vec<Change>>,
}

/// How far the store reaches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    /// The last epoch applied. Epochs count up over restarts.
    pub epoch: u64,
    /// How far the log is taken in.
    pub position: Position,
    /// A unit too large for one batch was not finished, or the last pipeline did not end cleanly where that matters: every row
    /// has to be derived anew from the inputs.
    pub unfinished: bool,
}

/// The right to write as the pipeline of a store, from one [`ViewStore::begin`] until the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incarnation {
    /// Its number; each begin of a store that several processes can reach takes a higher one.
    pub number: u64,
    /// The epoch that the store had reached then: the pipeline's epochs count on from it.
    pub first_epoch: u64,
    /// How far the store reached then; [`Frontier::unfinished`] where the pipeline before did not end cleanly.
    pub frontier: Frontier,
}

/// Hears what became readable, in order, on the writer's thread: it must be quick. A closure hears units alone, and is for stores
/// that never tell it to read anew.
pub trait Listen: Send + Sync {
    /// A unit that became readable just now.
    fn unit(&self, unit: &EpochChanges);

    /// What was told so far does not lead on to what follows: some of it was lost on the way, or was too much to tell. Everything is
    /// to be read from this snapshot, which the next unit follows.
    ///
    /// # Errors
    /// What reading says; then it is told again.
    fn anew(&self, snapshot: Snapshot) -> Result<(), ReadError>;
}

impl<F: Fn(&EpochChanges) + Send + Sync> Listen for F {
    fn unit(&self, unit: &EpochChanges) {
        self(unit);
    }

    fn anew(&self, _: Snapshot) -> Result<(), ReadError> {
        unreachable!("a closure listens to a store of its own process, which loses nothing")
    }
}

/// Who listens.
pub type Listener = Arc<dyn Listen>;

/// A reading of the store. Embedded, it is of one applied unit and does not move. On CQL, which has no such thing, every read sees
/// the rows of that moment: at least as new as `frontier`.
pub struct Snapshot {
    /// How far it reaches.
    pub frontier: Frontier,
    /// The tables.
    pub rows: Box<dyn Rows + Send + Sync>,
}

/// Small named values beside the rows: fingerprint, marks of erasures. Each generation has its own. What is written is durable when the call returns.
#[async_trait]
pub trait NamedValues: Send + Sync {
    /// The value under a name.
    ///
    /// # Errors
    /// As [`ViewStore::get`]; so of every call here.
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a value.
    async fn put(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Names and values that start with `prefix`, in order.
    async fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Deletes a value.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// What the pipeline maintains and the API reads.
#[async_trait]
pub trait ViewStore: Send + Sync {
    /// The row under a key, as last applied.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: reads have no effect, so asking again is safe.
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The whole store ([`Snapshot`] says as of when). Reading from it blocks; never do so on a thread of an async runtime.
    ///
    /// # Errors
    /// What the store says.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Registers a listener and returns the snapshot that its first unit follows, with nothing between. It hears of what this
    /// process writes, after it is readable; what others write comes to it as [`EpochChanges::decode`] reads it.
    ///
    /// # Errors
    /// What the store says.
    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError>;

    /// How far the store reaches: the last commit of this process, or what it heard of another's.
    fn frontier(&self) -> Frontier;

    /// Takes over as the pipeline of the store: what it writes wins over whatever an earlier one still sends, and an earlier one
    /// commits no more. Call it before anything is written, in one process of a cluster.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; begin again.
    async fn begin(&self) -> Result<Incarnation, StoreError>;

    /// Writes under the incarnation that another process of the cluster has begun.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: it was replaced, or the store is of one process.
    async fn join(&self, number: u64) -> Result<Incarnation, StoreError>;

    /// Writes rows of an epoch, a (table, key) at most once, without moving the frontier: [`ViewStore::commit`] does, once
    /// every process has written. Embedded, they are kept until then; on CQL they are readable when this returns. Writing them
    /// again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: some of it may have happened; write it again. [`StoreError::Refused`]: nothing was begun.
    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError>;

    /// Moves the frontier over everything that was written. Lifts the mark of an unfinished unit.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: another pipeline has taken over; end this one. Or this process only joined.
    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError>;

    /// Writes and commits one unit. Embedded it is all or nothing for every reader and after a kill at any moment; one too large
    /// for one batch is written in pieces under a mark, and a crash within leaves [`Frontier::unfinished`]. On CQL rows are
    /// readable one by one, the frontier follows, and a crash within is noticed by the next [`ViewStore::begin`]. Applying a unit
    /// again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing of it is readable; apply it again when there is room. Otherwise as [`ViewStore::write`] and
    /// [`ViewStore::commit`].
    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError>;

    /// Notes that everything that was begun is written and committed, so that the next [`ViewStore::begin`] finds the rows whole.
    /// The last call of a pipeline that stops.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: rows were written and not committed, or another pipeline has taken over. The next start will
    /// derive the rows anew; nothing else is wrong.
    async fn end_clean(&self) -> Result<(), StoreError>;

    /// Empties tables, under the mark of an unfinished unit that the next [`ViewStore::commit`] lifts. For rebuilding. On CQL the
    /// rows of views are served until then; the ones not written since are deleted with it.
    ///
    /// # Errors
    /// As [`ViewStore::write`].
    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError>;

    /// Sets how far the store reaches without rows: `--from beginning` starts over at nothing.
    async fn reset_position(&self, position: Position) -> Result<(), StoreError>;

    /// Makes what was applied survive a loss of power (fsync).
    async fn sync(&self) -> Result<(), StoreError>;

    /// Makes the bytes of replaced and deleted rows leave the disk, where this process owns it: what was erased must not be found in a
    /// file. Seconds, and some room. On CQL they leave with the compactions of its nodes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`]: the bytes leave later.
    async fn shed(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The small named values beside the rows.
    fn named(&self) -> &dyn NamedValues;

    /// Rows of a table, approximately where exactly is dear; there the answer is the last count, and asking starts the next. It
    /// does not wait.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is no such table.
    fn row_count(&self, table: &str) -> Result<u64, StoreError>;

    /// Bytes on disk, where that is known.
    fn disk_bytes(&self) -> Option<u64>;
}
