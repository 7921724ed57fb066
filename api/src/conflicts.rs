//! Whether a record that comes in is another content under a version that is there: its producer is told at once.
//!
//! ```text
//! record ──▶ what was posted lately, and the merged row ──▶ same version, other content: a conflict
//! ```
//!
//! Which of the two counts is the merge's to say, and does not depend on this. The merged row is behind the log by some milliseconds, so
//! what this process took in lately is remembered beside it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kindred_model::Topic;
use kindred_model::records::{Record, Rules};
use kindred_store::ViewReader;

/// Records remembered, and for how long: longer than the views are ever behind while all is well.
const REMEMBERED_MAX: u64 = 100_000;
const REMEMBERED: Duration = Duration::from_secs(600);
/// Rows asked for at once.
const ASKED_AT_ONCE: usize = 32;
/// How long the rows may take: the records are taken in without an answer, too.
const WITHIN: Duration = Duration::from_secs(2);

pub(crate) type Key = (&'static str, Vec<u8>);

/// The versions that this process took in lately.
pub(crate) struct RecentVersions(moka::sync::Cache<Key, (u64, u64)>);

fn content(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.to_json().hash(&mut hasher);
    hasher.finish()
}

impl RecentVersions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build())
    }

    /// Takes note of a record; whether another content of its version was noted before.
    fn meets(&self, key: &Key, version: u64, record: &Record) -> bool {
        let content = content(record);
        let mut meets = false;
        self.0.entry_by_ref(key).and_upsert_with(|known| match known.map(moka::Entry::into_value) {
            Some((of, known)) if of > version => (of, known),
            Some((of, known)) => {
                meets = of == version && known != content;
                (version, content)
            }
            None => (version, content),
        });
        meets
    }

    /// Of each record, whether it meets another content of its version among what was noted; and the place of its row.
    pub fn note(&self, records: &[&Record]) -> (Vec<bool>, Vec<(usize, Key)>) {
        let mut conflicts = vec![false; records.len()];
        let mut keys = Vec::with_capacity(records.len());
        for (n, record) in records.iter().enumerate() {
            let (Some(key), Some(version)) = (record.versioned_row(), record.version()) else { continue };
            conflicts[n] = self.meets(&key, version, record);
            keys.push((n, key));
        }
        (conflicts, keys)
    }
}

/// The merged rows, as far as they can be read in time: what is not told here the pipeline tells.
pub(crate) async fn rows(store: Arc<dyn ViewReader>, keys: Vec<(usize, Key)>) -> Vec<(usize, Vec<u8>)> {
    let mut asked = Vec::with_capacity(keys.len());
    for (n, key) in keys {
        asked.push(row(Arc::clone(&store), n, key));
    }
    let read = futures_util::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect::<Vec<_>>();
    tokio::time::timeout(WITHIN, read).await.unwrap_or_default().into_iter().flatten().collect()
}

async fn row(store: Arc<dyn ViewReader>, n: usize, (table, key): Key) -> Option<(usize, Vec<u8>)> {
    Some((n, store.get(table, &key).await.ok()??))
}

/// Adds what the rows show.
pub(crate) fn compare(conflicts: &mut [bool], rows: &[(usize, Vec<u8>)], records: &[&Record], topic: Topic, rules: &Rules) {
    for (n, row) in rows {
        let known = Record::decode(topic, row, rules).ok();
        conflicts[*n] |= known.is_some_and(|known| known.conflicts_with(records[*n]));
    }
}
