//! Records as values: JSON in, JSON out, and the tables there are.
//!
//! ```text
//! accounts     member          account, session/SID, token/KIND, known/DIGEST, outbox/OP/N
//! requests     op              outbox/OP/N                 what is answered before it is looked into
//! codes        phone           code
//! claims       kind/canonical  claim
//! invitees     digest          invited                     whose invitation has paid, beyond their erasure
//! outbox       0..f            op → where its items lie
//! throttle     digest          counter                     spent   id → used up
//! idempotency  digest          answer
//! secrets, roles, revocations, audit, member_index, mailbox, setup
//! ```

use std::sync::Arc;

use kindred_clock::Clock;
use kindred_model::units::EventTime;
use kindred_store::StoreError;
use kindred_store::records::{
    Effect, Expect, KEY_BYTES_MAX, Outcome, PAGE_MAX, Range, Record, RecordStore, STEPS_MAX, Step, Version,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{MemberError, Result};

pub(crate) const ACCOUNTS: &str = "accounts";
pub(crate) const REQUESTS: &str = "requests";
pub(crate) const CODES: &str = "codes";
pub(crate) const CLAIMS: &str = "claims";
pub(crate) const INVITEES: &str = "invitees";
pub(crate) const OUTBOX: &str = "outbox";
pub(crate) const THROTTLE: &str = "throttle";
pub(crate) const SPENT: &str = "spent";
pub(crate) const IDEMPOTENCY: &str = "idempotency";
pub(crate) const SECRETS: &str = "secrets";
pub(crate) const ROLES: &str = "roles";
pub(crate) const REVOCATIONS: &str = "revocations";
pub(crate) const AUDIT: &str = "audit";
pub(crate) const INDEX: &str = "member_index";
pub(crate) const MAILBOX: &str = "mailbox";
pub(crate) const SETUP: &str = "setup";

/// Tries of a change that others get in the way of. 64 who race for one record need fewer: each round one of them is done.
const TRIES_MAX: u32 = 200;

/// A value as it was read.
#[derive(Clone, Debug)]
pub struct Held<T> {
    /// The value.
    pub value: T,
    /// Of the record: a change by compare-and-set names it.
    pub version: Version,
    /// When the record is gone.
    pub expires_at: Option<EventTime>,
}

/// Records of a partition, by sort key.
pub type Listed<T> = Vec<(String, Held<T>)>;

/// The records with a clock. A transaction is of one partition.
#[derive(Clone)]
pub struct Db {
    store: Arc<dyn RecordStore>,
    clock: Clock,
    /// What names of tables start with.
    prefix: &'static str,
}

impl Db {
    pub(crate) fn new(store: Arc<dyn RecordStore>, clock: Clock) -> Self {
        Self { store, clock, prefix: "" }
    }

    /// The records of resources: no name of theirs is a table of accounts.
    pub(crate) fn of_resources(&self) -> Self {
        Self { prefix: "resource_", ..self.clone() }
    }

    pub(crate) fn table(&self, name: &str) -> String {
        [self.prefix, name].concat()
    }

    /// The time.
    pub fn now(&self) -> EventTime {
        self.clock.now()
    }

    /// Now plus so many seconds.
    pub fn in_s(&self, seconds: u64) -> EventTime {
        after(self.now(), seconds)
    }

    /// One record.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read<T: DeserializeOwned>(&self, table: &str, partition: &str, sort: &str) -> Result<Option<Held<T>>> {
        if partition.len().max(sort.len()) > KEY_BYTES_MAX {
            return Ok(None); // Nothing lies under a key that cannot be.
        }
        let record = self.store.read(&self.table(table), partition.as_bytes(), sort.as_bytes(), self.now()).await?;
        record.map(|record| held(table, record)).transpose()
    }

    /// All records of a partition under a prefix, with their sort keys.
    ///
    /// # Errors
    /// What the store says.
    pub async fn all<T: DeserializeOwned>(&self, table: &str, partition: &str, prefix: &str) -> Result<Listed<T>> {
        self.all_in(table, partition, Range { prefix: prefix.into(), ..Range::default() }).await
    }

    pub(crate) async fn all_in<T: DeserializeOwned>(&self, table: &str, partition: &str, mut range: Range) -> Result<Listed<T>> {
        let mut found = Vec::new();
        loop {
            let page = self.page(table, partition, &range, PAGE_MAX).await?;
            let last = page.len() < PAGE_MAX;
            range.after = page.last().map(|(sort, _)| sort.clone().into_bytes());
            found.extend(page);
            if last {
                return Ok(found);
            }
        }
    }

    /// One page.
    ///
    /// # Errors
    /// What the store says.
    pub async fn page<T: DeserializeOwned>(
        &self,
        table: &str,
        partition: &str,
        range: &Range,
        limit: usize,
    ) -> Result<Listed<T>> {
        if partition.len() > KEY_BYTES_MAX {
            return Ok(Vec::new());
        }
        let page = self.store.scan(&self.table(table), partition.as_bytes(), range, limit, self.now()).await?;
        page.into_iter().map(|(sort, record)| Ok((text_of(table, sort)?, held(table, record)?))).collect()
    }

    /// Deletes what was read, in as many transactions as it takes; false where some of it has changed since.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete_all(&self, table: &str, partition: &str, gone: &[(String, Version)]) -> Result<bool> {
        let mut all = true;
        for piece in gone.chunks(STEPS_MAX) {
            let steps: Vec<Step> = piece.iter().map(|(sort, version)| Step::delete(sort.as_str(), *version)).collect();
            all &= self.transact(table, partition, &steps).await?;
        }
        Ok(all)
    }

    /// Deletes a whole partition, with what comes into it meanwhile.
    ///
    /// # Errors
    /// What the store says.
    pub async fn clear(&self, table: &str, partition: &str) -> Result<()> {
        for tried in tries() {
            let held = self.all::<serde_json::Value>(table, partition, "").await?;
            let gone: Vec<_> = held.into_iter().map(|(sort, held)| (sort, held.version)).collect();
            if self.delete_all(table, partition, &gone).await? {
                return Ok(());
            }
            pause(tried).await;
        }
        Err(contended(table))
    }

    /// Whether the steps were taken.
    ///
    /// # Errors
    /// What the store says.
    pub async fn transact(&self, table: &str, partition: &str, steps: &[Step]) -> Result<bool> {
        let outcome = self.store.transact(&self.table(table), partition.as_bytes(), steps, self.now()).await?;
        if cfg!(debug_assertions) {
            kindred_telemetry::fail_point(&format!("records: {table}"));
        }
        Ok(matches!(outcome, Outcome::Done(_)))
    }

    /// Writes what is not there; whether it was not.
    ///
    /// # Errors
    /// What the store says.
    pub async fn insert<T: Serialize>(
        &self,
        table: &str,
        partition: &str,
        sort: &str,
        value: &T,
        expires_at: Option<EventTime>,
    ) -> Result<bool> {
        self.transact(table, partition, &[Step::insert(sort, encode(value), expires_at)]).await
    }

    /// Writes what has a sort key of its own and never changes.
    ///
    /// # Errors
    /// What the store says.
    pub async fn append<T: Serialize>(
        &self,
        table: &str,
        partition: &str,
        sort: &str,
        value: &T,
        expires_at: Option<EventTime>,
    ) -> Result<()> {
        let insert = Step::insert(sort, encode(value), expires_at);
        Ok(self.store.append(&self.table(table), partition.as_bytes(), insert, self.now()).await?)
    }

    /// Deletes whatever is there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn remove(&self, table: &str, partition: &str, sort: &str) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let Some(record) = self.store.read(&self.table(table), partition.as_bytes(), sort.as_bytes(), self.now()).await?
            else {
                return Ok(());
            };
            if self.transact(table, partition, &[Step::delete(sort, record.version)]).await? {
                return Ok(());
            }
        }
        Err(contended(table))
    }

    /// Deletes what is there if it is `such`.
    pub(crate) async fn remove_if<T: DeserializeOwned>(
        &self,
        table: &str,
        partition: &str,
        sort: &str,
        such: impl Fn(&T) -> bool,
    ) -> Result<()> {
        for tried in tries() {
            let held = self.read::<T>(table, partition, sort).await?.filter(|held| such(&held.value));
            let Some(held) = held else { return Ok(()) };
            if self.transact(table, partition, &[Step::delete(sort, held.version)]).await? {
                return Ok(());
            }
            pause(tried).await;
        }
        Err(contended(table))
    }

    /// Changes one record by what `next` makes of it: `Some((value, expiry))` is written, `None` leaves it. Gives what `next` said.
    ///
    /// # Errors
    /// What the store says.
    pub async fn update<T: DeserializeOwned, N: Serialize, R>(
        &self,
        table: &str,
        partition: &str,
        sort: &str,
        mut next: impl FnMut(Option<T>) -> (Option<(N, Option<EventTime>)>, R),
    ) -> Result<R> {
        for tried in 0..TRIES_MAX {
            let held = self.read::<T>(table, partition, sort).await?;
            let expect = held.as_ref().map_or(Expect::Absent, |held| Expect::Version(held.version));
            let (write, said) = next(held.map(|held| held.value));
            let Some((value, expires_at)) = write else { return Ok(said) };
            let effect = Effect::Put { value: encode(&value), expires_at };
            if self.transact(table, partition, &[Step { sort: sort.into(), expect, effect }]).await? {
                return Ok(said);
            }
            pause(tried).await;
        }
        Err(contended(table))
    }
}

/// Lets others finish before the next try: a random part of a time that grows.
pub(crate) async fn pause(tried: u32) {
    if tried == 0 {
        return tokio::task::yield_now().await;
    }
    let most_us = 200_u64 << tried.min(7);
    let part = u64::from(u16::from_be_bytes(crate::random::bytes())) * most_us / u64::from(u16::MAX);
    tokio::time::sleep(std::time::Duration::from_micros(part)).await;
}

/// The numbers of tries that a change takes at most.
pub(crate) fn tries() -> std::ops::Range<u32> {
    0..TRIES_MAX
}

/// Too many were at it at once. Nothing happened.
pub(crate) fn contended(table: &str) -> MemberError {
    StoreError::Unavailable(format!("too many changes of one record of {table} at once; try again")).into()
}

pub(crate) fn after(time: EventTime, seconds: u64) -> EventTime {
    EventTime(time.0.saturating_add_unsigned(seconds.saturating_mul(1_000)))
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our values serialise")
}

/// A version as callers see it, in an `ETag` for one.
pub(crate) fn shown(version: Version) -> String {
    format!("{:032x}", version.0)
}

fn held<T: DeserializeOwned>(table: &str, record: Record) -> Result<Held<T>> {
    let value = serde_json::from_slice(&record.value)
        .map_err(|error| StoreError::Corrupt(format!("a record of {table} does not decode: {error}")))?;
    Ok(Held { value, version: record.version, expires_at: record.expires_at })
}

fn text_of(table: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| StoreError::Corrupt(format!("a key of {table} is no text")).into())
}

/// An [`EventTime`] as its milliseconds: the form of stored records, shorter than the model's text.
pub(crate) mod ms {
    use kindred_model::units::EventTime;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &EventTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventTime, D::Error> {
        i64::deserialize(deserializer).map(EventTime)
    }

    /// The same of a time that may be missing.
    pub mod option {
        use super::{Deserialize, Deserializer, EventTime, Serializer};
        use serde::Serialize;

        pub fn serialize<S: Serializer>(time: &Option<EventTime>, serializer: S) -> Result<S::Ok, S::Error> {
            time.map(|time| time.0).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventTime>, D::Error> {
            Ok(Option::<i64>::deserialize(deserializer)?.map(EventTime))
        }
    }
}
