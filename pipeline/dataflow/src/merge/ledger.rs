//! The merge of `ledger`: the greatest record of each entry, and none of erased members.
//!
//! ```text
//! LedgerInput ──by member──▶ [ entries of each member, or erased ] ─▶ rows of the table
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kindred_model::codec::KeyCodec;
use kindred_model::intern::stable_hash;
use kindred_model::merge::{Rank, merge_versioned};
use kindred_model::records::{LedgerKey, LedgerRecord};
use kindred_model::{EntryId, MemberId, Topic};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use super::by_epoch;
use crate::restore::RESTORED;
use crate::update::{Conflict, Output, OutputFn, Stats};

/// An input about one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerInput {
    member: Bytes,
    /// The key of the row; for an erasure known from `members`, that of the record that erases.
    key: Bytes,
    /// `None` for a tombstone, and for an erasure known from `members`.
    canonical: Option<Bytes>,
    erases: bool,
}

impl LedgerInput {
    /// A record.
    pub fn record(record: &LedgerRecord) -> Self {
        let (member, key) = (record.member().to_bytes().into(), record.key().to_bytes().into());
        Self { member, key, canonical: Some(record.canonical().into()), erases: record.is_erased() }
    }

    /// The member is erased according to `members`.
    pub fn erased(member: &MemberId) -> Self {
        let key = (member.clone(), EntryId::NONE).to_bytes().into();
        Self { member: member.to_bytes().into(), key, canonical: None, erases: true }
    }

    /// A key without a record: the merged record stays and has to be appended again.
    pub fn tombstone(key: Bytes) -> Self {
        let member = LedgerKey::from_bytes(&key).map(|(member, _)| member.to_bytes().into()).unwrap_or_default();
        Self { member, key, canonical: None, erases: false }
    }
}

/// An encoded member, key or record.
type Bytes = Arc<[u8]>;
/// The member, and the key of the row.
type EntryKey = (Bytes, Bytes);

/// A changed row: its key, and the canonical bytes of the record.
pub type LedgerRow = (Bytes, Option<Bytes>);

/// The state of one member.
#[derive(Default)]
struct Account {
    erased: bool,
    /// By key. An erased member has only the record that erases it.
    entries: BTreeMap<Bytes, Bytes>,
}

/// The merged record of each entry. An erased member's entries are deleted at once, and later ones ignored. `superseded` receives
/// keys of which a record arrived that differs from the merged one.
pub fn merged_ledger<'s>(
    inputs: StreamVec<'s, u64, LedgerInput>,
    stats: &Arc<Stats>,
    superseded: &OutputFn,
) -> StreamVec<'s, u64, LedgerRow> {
    let (stats, superseded) = (Arc::clone(stats), Arc::clone(superseded));
    let mut accounts: FxHashMap<Bytes, Account> = FxHashMap::default();
    let by_member = |input: &LedgerInput| stable_hash(&input.member);
    by_epoch(inputs, by_member, Topic::Ledger.name(), move |epoch, inputs: Vec<LedgerInput>, give| {
        // The value of each touched key before the epoch. Restored entries are in the store either way.
        let mut touched: BTreeMap<EntryKey, Option<Bytes>> = BTreeMap::new();
        let mut lesser: BTreeSet<EntryKey> = BTreeSet::new();
        for LedgerInput { member, key, canonical, erases } in inputs {
            let account = accounts.entry(Arc::clone(&member)).or_default();
            if erases && !account.erased {
                account.erased = true;
                let known = account.entries.remove(&key);
                for (key, old) in std::mem::take(&mut account.entries) {
                    touched.entry((Arc::clone(&member), key)).or_insert(Some(old));
                }
                account.entries.extend(known.map(|known| (Arc::clone(&key), known)));
            }
            let entry = (member, key);
            let known = account.entries.get(&entry.1).cloned();
            let Some(canonical) = canonical.filter(|_| erases || !account.erased) else {
                if !erases {
                    if known.is_some() && epoch != RESTORED {
                        lesser.insert(entry.clone());
                    }
                    touched.entry(entry).or_insert(known);
                }
                continue;
            };
            let rank = Rank::default();
            let merged = merge_versioned(Topic::Ledger, known.as_deref().map(|known| (rank, known)), rank, &canonical);
            if merged.conflict {
                let id = LedgerKey::from_bytes(&entry.1).map(|(_, entry)| entry.to_string()).unwrap_or_default();
                stats.conflict(Conflict { topic: Topic::Ledger, id });
                lesser.insert(entry.clone());
            }
            if merged.new.is_some() {
                account.entries.insert(Arc::clone(&entry.1), canonical);
                touched.entry(entry).or_insert(known);
            }
        }
        let held = |(member, key): &EntryKey| accounts.get(member)?.entries.get(key).cloned();
        let merged: Vec<Bytes> = lesser.iter().filter_map(held).collect();
        if !merged.is_empty() {
            superseded(Output::Superseded { epoch, topic: Topic::Ledger, merged });
        }
        for (entry, before) in touched {
            let now = held(&entry);
            // Deletes what is not kept even if it was never held: another process may have written it (design note 0004).
            if now != before || now.is_none() {
                give((entry.1, now));
            }
        }
    })
}
