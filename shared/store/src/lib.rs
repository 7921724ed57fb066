//! The store: merged inputs, the rows of the views, and how far they reach, behind one port with one conformance suite.
//!
//! ```text
//! pipeline sink ──apply(one epoch, one unit)──▶ ViewStore ──snapshot, get──▶ API, export, verify
//!                                                  └──listener (what changed)──▶ the API's memory
//! ```
//!
//! Implementations: [`embedded`] (fjall); CQL comes later. Each table has one writer: views, the pipeline's sink; keys, the API.

pub mod conformance;
pub mod embedded;
pub mod keys;

use std::sync::Arc;

use async_trait::async_trait;
use kindred_model::Position;
use kindred_model::views::Rows;

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
    /// The encoded key.
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
    /// At most one a (table, key).
    pub changes: Vec<Change>,
}

/// How far the store reaches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    /// The last epoch applied. Epochs count up over restarts.
    pub epoch: u64,
    /// How far the log is taken in.
    pub position: Position,
    /// A unit too large for one batch was not finished: every row has to be derived anew from the inputs.
    pub unfinished: bool,
}

/// Hears of every unit right after it became readable, in order, on the writer's thread: it must be quick.
pub type Listener = Arc<dyn Fn(&EpochChanges) + Send + Sync>;

/// A reading of the store as of one applied unit.
pub struct Snapshot {
    /// How far it reaches.
    pub frontier: Frontier,
    /// The tables.
    pub rows: Box<dyn Rows + Send + Sync>,
}

/// What the pipeline maintains and the API reads.
#[async_trait]
pub trait ViewStore: Send + Sync {
    /// The row under a key, as last applied.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: reads have no effect, so asking again is safe.
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The whole store as of the last applied unit; later writes do not show in it.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Registers a listener and returns the snapshot that its first unit follows, with nothing between.
    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError>;

    /// How far the store reaches.
    fn frontier(&self) -> Frontier;

    /// Writes one unit, all or nothing for every reader and after a kill at any moment. Applying it again changes nothing. One
    /// too large for one batch is written in pieces under a mark: a crash within leaves [`Frontier::unfinished`].
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing of it is readable; apply it again when there is room.
    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError>;

    /// Empties tables, under the mark of an unfinished unit that the next [`ViewStore::apply`] lifts. For rebuilding.
    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError>;

    /// Sets how far the store reaches without rows: `--from beginning` starts over at nothing.
    async fn reset_position(&self, position: Position) -> Result<(), StoreError>;

    /// Makes what was applied survive a loss of power (fsync).
    async fn sync(&self) -> Result<(), StoreError>;

    /// A small named value beside the rows: fingerprint, marks of erasures.
    async fn get_meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a named value, durable when it returns.
    async fn put_meta(&self, name: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Names and values that start with `prefix`, in order.
    async fn scan_meta(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Deletes a named value, durable when it returns.
    async fn delete_meta(&self, name: &str) -> Result<(), StoreError>;

    /// Rows of a table, approximately where exactly is dear.
    fn row_count(&self, table: &str) -> Result<u64, StoreError>;

    /// Bytes on disk, where that is known.
    fn disk_bytes(&self) -> Option<u64>;
}
