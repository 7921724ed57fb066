//! What the API promises to a person at once: accounts, claims on identifiers, sessions, codes. A second port of the store, beside the
//! views: small records, changed by compare-and-set.
//!
//! ```text
//! (table, partition) ──▶ sort ──▶ record (value, version, expires_at)       transact: all steps of one partition, or none
//! ```
//!
//! A partition is what one transaction can span: on CQL the partition of a lightweight batch, embedded a key prefix. Everything that
//! has to change together lies in one partition; what spans several is done in steps that can be repeated.
//!
//! Every write gives a record a new version, a random one, so that a caller who got no answer can read whether it happened. A record
//! that has expired is as good as absent everywhere, whether or not it has been swept yet; `now` is the caller's, so that a test
//! moves it.

use async_trait::async_trait;
use kindred_model::units::EventTime;

use crate::StoreError;

/// Longest partition and sort key, in bytes: Cassandra takes 64 KiB, people's identifiers are far below this.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest value, in bytes: what a person is told fits into a fraction of it.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Most records of a page.
pub const PAGE_MAX: usize = 1_000;

/// Which write a record is of. Two writes never give the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u128);

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What was written.
    pub value: Vec<u8>,
    /// By which write.
    pub version: Version,
    /// From then on it is as good as absent.
    pub expires_at: Option<EventTime>,
}

/// What a step demands of the record that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// There is none, or it has expired.
    Absent,
    /// It is of this write, and has not expired.
    Version(Version),
}

/// What becomes of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It is written.
    Put {
        /// What is written.
        value: Vec<u8>,
        /// When it expires, if it does.
        expires_at: Option<EventTime>,
    },
    /// It is deleted.
    Delete,
    /// It is only looked at: the transaction depends on it.
    Check,
}

/// One step of a transaction. A transaction has at most one for each sort key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The record within the partition.
    pub sort: Vec<u8>,
    /// What has to hold.
    pub expect: Expect,
    /// What is done if everything holds.
    pub effect: Effect,
}

impl Step {
    /// Writes a record that is not there.
    pub fn insert(sort: impl Into<Vec<u8>>, value: Vec<u8>, expires_at: Option<EventTime>) -> Self {
        Self { sort: sort.into(), expect: Expect::Absent, effect: Effect::Put { value, expires_at } }
    }

    /// Writes over the record that was read.
    pub fn replace(sort: impl Into<Vec<u8>>, read: Version, value: Vec<u8>, expires_at: Option<EventTime>) -> Self {
        Self { sort: sort.into(), expect: Expect::Version(read), effect: Effect::Put { value, expires_at } }
    }

    /// Deletes the record that was read.
    pub fn delete(sort: impl Into<Vec<u8>>, read: Version) -> Self {
        Self { sort: sort.into(), expect: Expect::Version(read), effect: Effect::Delete }
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All of it happened; what it wrote has this version.
    Done(Version),
    /// Something was not as expected, and nothing happened. Read again.
    Conflict,
}

/// Which records of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// Those whose sort key starts with this.
    pub prefix: Vec<u8>,
    /// Those behind this sort key, in the order of the reading.
    pub after: Option<Vec<u8>>,
    /// The greatest first.
    pub descending: bool,
}

/// Records under (table, partition, sort), changed by transactions on one partition.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// One record, as last written: a read sees every transaction that ended before it began, whoever made it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; asking again is safe.
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError>;

    /// Records of one partition, by sort key, at most `limit` (≤ [`PAGE_MAX`]). Fewer come back only where there are no more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; asking again is safe.
    async fn scan(
        &self,
        table: &str,
        partition: &[u8],
        range: &Range,
        limit: usize,
        now: EventTime,
    ) -> Result<Vec<(Vec<u8>, Record)>, StoreError>;

    /// The partitions that a table has records in, in no order that means anything, at most `limit` behind `after`: for sweeps and
    /// for the operator, not for requests. One whose records have all expired may be among them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; asking again is safe.
    async fn partitions(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// All steps, or none. Durable when it returns. An answer that got lost on the way is looked for, not guessed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may or may not have happened; read what is there. [`StoreError::Refused`]: a key or a value is
    /// too long, two steps name one record, or there is no step.
    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError>;
}
