//! Tells producers at once when a record has the version of a stored one and different content.
//!
//! ```text
//! record ──▶ recently accepted versions, and the merged row ──▶ same version, different content: a conflict
//! ```
//!
//! Which content counts is decided by the merge alone. The merged row lags the log by some milliseconds, so recently accepted
//! versions are remembered here.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kindred_model::Topic;
use kindred_model::records::{Record, Rules};
use kindred_store::ViewReader;

/// Remembered records and for how long: longer than the normal lag of the views.
const REMEMBERED_MAX: u64 = 100_000;
const REMEMBERED: Duration = Duration::from_secs(600);
/// Concurrent row reads.
const CONCURRENT_READS: usize = 32;
/// Timeout of the row reads; records are accepted without them.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Key = (&'static str, Vec<u8>);

/// (version, content hash) of records that this process accepted recently.
pub(crate) struct RecentVersions(moka::sync::Cache<Key, (u64, u64)>);

fn content(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.to_json().hash(&mut hasher);
    hasher.finish()
}

impl RecentVersions {
    pub fn new() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build())
    }

    /// Remembers a record; whether it conflicts with a remembered one.
    fn remember(&self, key: &Key, version: u64, record: &Record) -> bool {
        let content = content(record);
        let mut conflicts = false;
        self.0.entry_by_ref(key).and_upsert_with(|known| match known.map(moka::Entry::into_value) {
            Some((of, known)) if of > version => (of, known),
            Some((of, known)) => {
                conflicts = of == version && known != content;
                (version, content)
            }
            None => (version, content),
        });
        conflicts
    }

    /// Remembers records: whether each conflicts, and (index, row key) of those that have a versioned row.
    pub fn note(&self, records: &[&Record]) -> (Vec<bool>, Vec<(usize, Key)>) {
        let mut conflicts = vec![false; records.len()];
        let mut keys = Vec::with_capacity(records.len());
        for (n, record) in records.iter().enumerate() {
            let (Some(key), Some(version)) = (record.versioned_row(), record.version()) else { continue };
            conflicts[n] = self.remember(&key, version, record);
            keys.push((n, key));
        }
        (conflicts, keys)
    }
}

/// The merged rows that can be read in time.
pub(crate) async fn rows(store: Arc<dyn ViewReader>, keys: Vec<(usize, Key)>) -> Vec<(usize, Vec<u8>)> {
    let mut reads = Vec::with_capacity(keys.len());
    for (n, key) in keys {
        reads.push(row(Arc::clone(&store), n, key));
    }
    let read = futures_util::stream::iter(reads).buffer_unordered(CONCURRENT_READS).collect::<Vec<_>>();
    tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_default().into_iter().flatten().collect()
}

async fn row(store: Arc<dyn ViewReader>, n: usize, (table, key): Key) -> Option<(usize, Vec<u8>)> {
    Some((n, store.get(table, &key).await.ok()??))
}

/// Marks records that conflict with their merged row.
pub(crate) fn compare(conflicts: &mut [bool], rows: &[(usize, Vec<u8>)], records: &[&Record], topic: Topic, rules: &Rules) {
    for (n, row) in rows {
        let known = Record::decode(topic, row, rules).ok();
        conflicts[*n] |= known.is_some_and(|known| known.conflicts_with(records[*n]));
    }
}
