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
//!
//! Implementations: [`embedded`] and [`crate::cql::CqlRecords`], behind one suite, [`conformance`]. Why they are as they are:
//! `docs/design/0007-records.md`.

mod around;
pub(crate) mod bounds;
pub(crate) mod check;
pub mod conformance;
pub mod embedded;

use async_trait::async_trait;
use kindred_model::units::EventTime;

use crate::StoreError;

pub use around::{Around, Call, Surrounded, Write};

/// Longest name of a table, in bytes of small letters, digits and `_`.
pub const TABLE_BYTES_MAX: usize = 48;
/// Longest partition and sort key, in bytes: Cassandra takes 64 KiB, people's identifiers are far below this. Either may be empty.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest value, in bytes: what a person is told fits into a fraction of it.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Most steps of one transaction.
pub const STEPS_MAX: usize = 64;
/// Keys and values of one transaction together, in bytes: CQL keeps all of it in one proposal, and writes it three times.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 20;
/// Most records of a page.
pub const PAGE_MAX: usize = 1_000;
/// How long after it has expired a record leaves the disk, at the earliest: clocks of different machines differ by less. A delete on
/// CQL is remembered for as long, so that a transaction whose answer got lost is told from another's.
pub const SWEPT_AFTER_MS: i64 = 86_400_000;
/// What a record that never expires has as its time, where it is stored.
pub(crate) const NEVER: i64 = i64::MAX;
/// How the names of tables end that lie apart on CQL: what is written and deleted all the time is not among what stays.
pub const OFTEN_LISTED_SUFFIX: &str = "outbox";

/// Which write a record is of. Two writes never give the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u128);

impl Version {
    /// One that no write has had. Of 128 random bits, two are never the same.
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }
}

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

impl Record {
    pub(crate) fn expired(&self, now: EventTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
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
    /// It is deleted. Only what was read can be: with [`Expect::Absent`] the step is refused.
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

    /// Depends on a record, and leaves it as it is.
    pub fn check(sort: impl Into<Vec<u8>>, expect: Expect) -> Self {
        Self { sort: sort.into(), expect, effect: Effect::Check }
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

/// Records of one partition, with their sort keys.
pub type Page = Vec<(Vec<u8>, Record)>;

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
    /// [`StoreError::Unavailable`]; asking again is safe. [`StoreError::Refused`]: no key can be so long, or no table have that name.
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError>;

    /// Records of one partition, by sort key, at most `limit` (≤ [`PAGE_MAX`]). Fewer come back only where there are no more. It sees
    /// every transaction that ended before it began; of one that ends meanwhile, embedded all or nothing, on CQL perhaps a part.
    ///
    /// # Errors
    /// As [`RecordStore::read`]; [`StoreError::Refused`] also where `limit` is too great.
    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError>;

    /// All steps, or none. Durable when it returns, also when the caller does not wait for it. An answer that got lost on the way is
    /// looked for, not guessed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may or may not have happened, or may yet; read what is there, and transact on that: of two
    /// transactions that expect the same version at most one happens. [`StoreError::Full`]: it did not happen. [`StoreError::Refused`]: a
    /// key, a value or the whole is too long, two steps name one record, there is no step or there are too many.
    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError>;

    /// Makes the bytes of replaced and deleted records leave the disk, as [`crate::ViewReader::shed`] does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`]: the bytes leave later.
    async fn shed(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes a record under a sort key that is never given to another, and is never changed: nothing has to hold for it, so that on
    /// CQL no agreement is needed, and many may be written into one partition at once. Writing it again changes nothing. Durable when it
    /// returns.
    ///
    /// # Errors
    /// As [`RecordStore::transact`]; after [`StoreError::Unavailable`] it may be written again.
    async fn append(&self, table: &str, partition: &[u8], insert: Step, now: EventTime) -> Result<(), StoreError> {
        self.transact(table, partition, &[insert], now).await.map(drop)
    }
}
