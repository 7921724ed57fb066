//! Transactions that are written together, and the keys and values under which fjall holds records.
//!
//! ```text
//! records    (table length, table, partition length, partition, sort) ──▶ (version, when it expires, value)
//! expiries   (when it expires, the key above)                         ──▶ nothing
//! ```

use std::collections::BTreeMap;

use kindred_embedded::fjall::{OwnedWriteBatch, Readable, Slice, Snapshot};
use kindred_embedded::{Engine, Failure};
use kindred_model::units::EventTime;

use super::{EXPIRIES, RECORDS};
use crate::records::{Effect, Expect, NEVER, Outcome, Record, SWEPT_AFTER_MS, Step, Version};

const VERSION_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
/// Expired records that leave with one batch: a burst of them is spread over several.
const SWEEP_MAX: usize = 256;

/// What all keys of a table start with.
fn table_prefix(table: &str) -> Vec<u8> {
    let length = u8::try_from(table.len()).expect("the name of a table was checked");
    [&[length], table.as_bytes()].concat()
}

/// What all keys of a partition start with, and none of another.
pub(super) fn partition_prefix(table: &str, partition: &[u8]) -> Vec<u8> {
    let length = u16::try_from(partition.len()).expect("the length of a partition was checked");
    [table_prefix(table).as_slice(), &length.to_be_bytes(), partition].concat()
}

fn encode(record: &Record) -> Vec<u8> {
    let expires_at = record.expires_at.map_or(NEVER, |at| at.0);
    [record.version.0.to_be_bytes().as_slice(), &expires_at.to_be_bytes(), &record.value].concat()
}

fn decode(bytes: &[u8]) -> Result<Record, Failure> {
    let parts = bytes.split_first_chunk::<VERSION_BYTES>().and_then(|(version, rest)| {
        let (expires_at, value) = rest.split_first_chunk::<TIME_BYTES>()?;
        Some((version, expires_at, value))
    });
    let (version, expires_at, value) = parts.ok_or_else(|| Failure::Corrupt("a record does not read".into()))?;
    let expires_at = Some(i64::from_be_bytes(*expires_at)).filter(|&at| at != NEVER).map(EventTime);
    Ok(Record { value: value.to_vec(), version: Version(u128::from_be_bytes(*version)), expires_at })
}

/// The key of what expires then; they order as the times do.
fn expiry(at: EventTime, key: &[u8]) -> Vec<u8> {
    [(at.0.cast_unsigned() ^ (1 << 63)).to_be_bytes().as_slice(), key].concat()
}

/// What was committed at one moment.
pub(super) struct Reading {
    engine: Engine,
    instant: Snapshot,
}

impl Reading {
    pub fn of(engine: &Engine) -> Self {
        Self { engine: engine.clone(), instant: engine.snapshot() }
    }

    /// The record under a key, expired or not.
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, Failure> {
        self.instant.get(self.engine.space(RECORDS), key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Records from one key up to another, which is not among them.
    pub fn range(&self, from: &[u8], to: &[u8], descending: bool) -> impl Iterator<Item = Result<(Slice, Record), Failure>> {
        let mut entries = self.instant.range(self.engine.space(RECORDS), from..to);
        std::iter::from_fn(move || if descending { entries.next_back() } else { entries.next() }).map(|guard| {
            let (key, bytes) = guard.into_inner()?;
            Ok((key, decode(&bytes)?))
        })
    }

    /// The keys of what expires from one key of `expiries` up to another, at most `limit`.
    fn expiries(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Slice>, Failure> {
        let entries = self.instant.range(self.engine.space(EXPIRIES), from..to);
        entries.take(limit).map(|guard| guard.key().map_err(Failure::from)).collect()
    }
}

/// Whether a record was committed, when that one expires, and what becomes of it.
struct Touched {
    there: bool,
    expires_before: Option<EventTime>,
    after: Option<Record>,
}

/// Transactions that are decided one after the other, and written at once.
pub(super) struct Group {
    reading: Reading,
    touched: BTreeMap<Vec<u8>, Touched>,
}

impl Group {
    pub fn new(reading: Reading) -> Self {
        Self { reading, touched: BTreeMap::new() }
    }

    /// What becomes of a transaction after those before it.
    pub fn decide(&mut self, place: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, Failure> {
        let mut keys = Vec::with_capacity(steps.len());
        for step in steps {
            let key = [place, &step.sort].concat();
            let committed;
            let there = match self.touched.get(&key) {
                Some(touched) => touched.after.as_ref(),
                None => {
                    committed = self.reading.get(&key)?;
                    committed.as_ref()
                }
            };
            let there = there.filter(|record| !record.expired(now)).map(|record| Expect::Version(record.version));
            if there.unwrap_or(Expect::Absent) != step.expect {
                return Ok(Outcome::Conflict);
            }
            keys.push(key);
        }
        let version = Version::new();
        for (key, step) in keys.into_iter().zip(steps) {
            let after = match &step.effect {
                Effect::Put { value, expires_at } => Some(Record { value: value.clone(), version, expires_at: *expires_at }),
                Effect::Delete => None,
                Effect::Check => continue,
            };
            self.touch(key, after)?;
        }
        Ok(Outcome::Done(version))
    }

    fn touch(&mut self, key: Vec<u8>, after: Option<Record>) -> Result<(), Failure> {
        if let Some(touched) = self.touched.get_mut(&key) {
            touched.after = after;
            return Ok(());
        }
        let committed = self.reading.get(&key)?;
        let expires_before = committed.as_ref().and_then(|record| record.expires_at);
        self.touched.insert(key, Touched { there: committed.is_some(), expires_before, after });
        Ok(())
    }

    /// Deletes some of what has expired long enough before `now`, and returns the key of `expiries` to go on from.
    pub fn sweep(&mut self, from: &[u8], now: EventTime) -> Result<Vec<u8>, Failure> {
        let end = expiry(EventTime(now.0.saturating_sub(SWEPT_AFTER_MS - 1)), b"");
        if from >= end.as_slice() {
            return Ok(from.to_vec());
        }
        let due = self.reading.expiries(from, &end, SWEEP_MAX)?;
        let next = match due.last() {
            Some(last) if due.len() == SWEEP_MAX => [last.as_ref(), b"\0"].concat(),
            _ => end,
        };
        for entry in due {
            let key = entry.get(TIME_BYTES..).ok_or_else(|| Failure::Corrupt("a time of expiry does not read".into()))?;
            // What a transaction of this group has written anew stays.
            if !self.touched.contains_key(key) && self.reading.get(key)?.is_some_and(|record| record.expired(now)) {
                self.touch(key.to_vec(), None)?;
            }
        }
        Ok(next)
    }

    pub fn into_changes(self) -> Vec<Change> {
        let changed = self.touched.into_iter().filter(|(_, touched)| touched.there || touched.after.is_some());
        changed
            .map(|(key, touched)| {
                let (before, after) = (touched.expires_before, touched.after.as_ref().and_then(|record| record.expires_at));
                Change {
                    ends: before.filter(|_| before != after).map(|at| expiry(at, &key)),
                    expires: after.map(|at| expiry(at, &key)),
                    record: touched.after.as_ref().map(encode),
                    key,
                }
            })
            .collect()
    }
}

/// What is written for one record.
pub(super) struct Change {
    key: Vec<u8>,
    /// None deletes it.
    record: Option<Vec<u8>>,
    /// The entry of `expiries` that does not hold any more.
    ends: Option<Vec<u8>>,
    /// The one that holds now.
    expires: Option<Vec<u8>>,
}

impl Change {
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        self.key.len() + length(&self.record) + length(&self.ends) + length(&self.expires)
    }

    /// Where `expiries` has to be swept from to come across it.
    pub fn expiry(&self) -> Option<&[u8]> {
        self.expires.as_deref()
    }

    pub fn write(&self, engine: &Engine, batch: &mut OwnedWriteBatch) {
        match &self.record {
            Some(record) => batch.insert(engine.space(RECORDS), self.key.as_slice(), record.as_slice()),
            None => batch.remove(engine.space(RECORDS), self.key.as_slice()),
        }
        if let Some(ends) = &self.ends {
            batch.remove(engine.space(EXPIRIES), ends.as_slice());
        }
        if let Some(expires) = &self.expires {
            batch.insert(engine.space(EXPIRIES), expires.as_slice(), b"".as_slice());
        }
    }
}
