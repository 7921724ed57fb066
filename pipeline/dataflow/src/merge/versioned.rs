//! The merge of `orders`, `catalog` and `members`: the greatest record under each key.
//!
//! ```text
//! VersionedUpdate ──by key──▶ [ kindred_model::merge: by version, then meaning ] ─▶ MergedRecord (old, new), net of the epoch
//!                                                                                 ├─▶ row of the table
//!                                                                                 └─▶ facts of new, less those of old
//!                                        └─▶ Output::Superseded: the merged record, where another record or a tombstone arrived
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use differential_dataflow::AsCollection;
use kindred_model::codec::KeyCodec;
use kindred_model::intern::stable_hash;
use kindred_model::merge::{Rank, Versioned, merge_versioned};
use kindred_model::records::LedgerKey;
use kindred_model::{ItemId, OrderId, Owner, Topic};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::by_epoch;
use crate::facts::Facts;
use crate::update::{Conflict, Output, OutputFn, Stats};

/// A record of any of the three topics, as merging needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionedUpdate {
    key: Arc<[u8]>,
    rank: Rank,
    /// `None` for a tombstone.
    canonical: Option<Arc<[u8]>>,
}

impl VersionedUpdate {
    /// From a record and the key of its row.
    pub fn new(key: &impl KeyCodec, record: &impl Versioned) -> Self {
        Self { key: key.to_bytes().into(), rank: record.rank(), canonical: Some(record.canonical().into()) }
    }

    /// A key without a record: the merged record stays and has to be appended again.
    pub fn tombstone(key: Arc<[u8]>) -> Self {
        Self { key, rank: Rank::default(), canonical: None }
    }
}

/// The identity in the key of a row.
fn id_of(topic: Topic, key: &[u8]) -> String {
    match topic {
        Topic::Orders => OrderId::from_bytes(key).map(|id| id.to_string()),
        Topic::Catalog => ItemId::from_bytes(key).map(|id| id.to_string()),
        Topic::Ledger => LedgerKey::from_bytes(key).map(|(_, entry)| entry.to_string()),
        Topic::Members | Topic::Interactions => Owner::from_bytes(key).map(|owner| owner.id().to_owned()),
    }
    .unwrap_or_default()
}

/// A merged record changed by an epoch.
#[derive(Clone, Debug)]
pub struct MergedRecord {
    /// The key of its row.
    pub key: Arc<[u8]>,
    /// Its canonical bytes after the epoch.
    pub old: Option<Arc<[u8]>>,
    /// Its canonical bytes from the epoch on.
    pub new: Arc<[u8]>,
}

struct Known {
    rank: Rank,
    canonical: Arc<[u8]>,
}

/// The merged record of each key. Conflicts, two contents under one version, are counted in `stats` whenever they meet; the count
/// depends on arrival, the merged record does not. `held` counts keys. `superseded` receives keys of which a record arrived that
/// differs from the merged one. Keeps the canonical bytes.
pub fn merged_records<'s>(
    updates: StreamVec<'s, u64, VersionedUpdate>,
    topic: Topic,
    stats: &Arc<Stats>,
    held: fn(&Stats),
    superseded: &OutputFn,
) -> StreamVec<'s, u64, MergedRecord> {
    let (stats, superseded) = (Arc::clone(stats), Arc::clone(superseded));
    let mut known: FxHashMap<Arc<[u8]>, Known> = HashMap::default();
    let by_key = |update: &VersionedUpdate| stable_hash(&update.key);
    by_epoch(updates, by_key, topic.name(), move |epoch, updates: Vec<VersionedUpdate>, give| {
        let mut before: FxHashMap<Arc<[u8]>, Option<Arc<[u8]>>> = HashMap::default();
        let mut lesser: BTreeSet<Arc<[u8]>> = BTreeSet::new();
        for VersionedUpdate { key, rank, canonical } in updates {
            let found = known.get(&key);
            let Some(canonical) = canonical else {
                lesser.extend(found.is_some().then_some(key));
                continue;
            };
            let merged = merge_versioned(topic, found.map(|known| (known.rank, &*known.canonical)), rank, &canonical);
            if merged.conflict {
                stats.conflict(Conflict { topic, id: id_of(topic, &key) });
            }
            if let Some((rank, bytes)) = merged.new {
                if *bytes != *canonical {
                    lesser.insert(Arc::clone(&key));
                }
                let canonical = if *bytes == *canonical { canonical } else { bytes.into() };
                let old = known.insert(Arc::clone(&key), Known { rank, canonical });
                if old.is_none() {
                    held(&stats);
                }
                before.entry(key).or_insert(old.map(|old| old.canonical));
            } else if found.is_some_and(|known| known.canonical != canonical) {
                lesser.insert(key);
            }
        }
        if !lesser.is_empty() {
            let merged = lesser.iter().map(|key| Arc::clone(&known[key].canonical)).collect();
            superseded(Output::Superseded { epoch, topic, merged });
        }
        for (key, old) in before {
            let new = Arc::clone(&known[&key].canonical);
            give(MergedRecord { key, old, new });
        }
    })
}

/// Facts of merged records; `derive` computes those of one record from its canonical bytes. Facts that a change leaves alone are
/// not touched. Keeps nothing.
pub fn derived<'s, D: differential_dataflow::Data>(
    records: StreamVec<'s, u64, MergedRecord>,
    name: &str,
    derive: impl Fn(&[u8]) -> Vec<D> + 'static,
) -> Facts<'s, D> {
    records
        .unary(Pipeline, name, move |_capability, _info| {
            move |input, output| {
                input.for_each(|capability, records| {
                    let Some(&epoch) = capability.least() else { return };
                    let mut session = output.session(&capability);
                    for record in records.drain(..) {
                        let mut changes: Vec<(D, isize)> = derive(&record.new).into_iter().map(|fact| (fact, 1)).collect();
                        if let Some(old) = &record.old {
                            changes.extend(derive(old).into_iter().map(|fact| (fact, -1)));
                        }
                        differential_dataflow::consolidation::consolidate(&mut changes);
                        session.give_iterator(changes.into_iter().map(|(fact, diff)| (fact, epoch, diff)));
                    }
                });
            }
        })
        .as_collection()
}
