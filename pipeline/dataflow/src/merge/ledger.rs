//! The merge of `ledger`: the greatest record of each entry, and none of members that are erased.
//!
//! ```text
//! LedgerInput ──by member──▶ [ entries of each member, or erased ] ─▶ rows of the table
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kindred_model::codec::KeyCodec;
use kindred_model::merge::{Rank, merge_versioned};
use kindred_model::records::{LedgerKey, LedgerRecord};
use kindred_model::{EntryId, MemberId, Topic};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use super::by_epoch;
use super::versioned::stable_hash;
use crate::restore::RESTORED;
use crate::update::{Conflict, Output, OutputFn, Stats};

/// What enters: something about one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerInput {
    member: Bytes,
    /// The key of the row; that of the record that erases, where it says that the member is.
    key: Bytes,
    /// None of a tombstone, and where something else than the ledger says that the member is erased.
    canonical: Option<Bytes>,
    erases: bool,
}

impl LedgerInput {
    /// A record.
    pub fn record(record: &LedgerRecord) -> Self {
        let (member, key) = (record.member().to_bytes().into(), record.key().to_bytes().into());
        Self { member, key, canonical: Some(record.canonical().into()), erases: record.is_erased() }
    }

    /// The member is erased, as `members` says.
    pub fn erased(member: &MemberId) -> Self {
        let key = (member.clone(), EntryId::NONE).to_bytes().into();
        Self { member: member.to_bytes().into(), key, canonical: None, erases: true }
    }

    /// A key without a record: what is merged under it stays, and has to be appended again.
    pub fn tombstone(key: Bytes) -> Self {
        let member = LedgerKey::from_bytes(&key).map(|(member, _)| member.to_bytes().into()).unwrap_or_default();
        Self { member, key, canonical: None, erases: false }
    }
}

/// Encoded: a member, a key, or a record.
type Bytes = Arc<[u8]>;
/// The member, and the key of the row.
type Place = (Bytes, Bytes);

/// A changed row: its key, and the canonical bytes of the record.
pub type LedgerRow = (Bytes, Option<Bytes>);

/// What is known of one member.
#[derive(Default)]
struct Account {
    erased: bool,
    /// By key; of one that is erased none but the record that says so.
    entries: BTreeMap<Bytes, Bytes>,
}

/// What the records of each entry merge to. An entry of an erased member leaves at once, and none is taken any more. `superseded` hears
/// of keys of which a record came that is not what they merge to.
pub fn merged_ledger<'s>(
    inputs: StreamVec<'s, u64, LedgerInput>,
    stats: &Arc<Stats>,
    superseded: &OutputFn,
) -> StreamVec<'s, u64, LedgerRow> {
    let (stats, superseded) = (Arc::clone(stats), Arc::clone(superseded));
    let mut accounts: FxHashMap<Bytes, Account> = FxHashMap::default();
    let by_member = |input: &LedgerInput| stable_hash(&input.member);
    by_epoch(inputs, by_member, Topic::Ledger.name(), move |epoch, inputs: Vec<LedgerInput>, give| {
        // What each touched key held before the epoch. What was read back is in the store, whatever becomes of it.
        let mut touched: BTreeMap<Place, Option<Bytes>> = BTreeMap::new();
        let mut lesser: BTreeSet<Place> = BTreeSet::new();
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
            let place = (member, key);
            let known = account.entries.get(&place.1).cloned();
            let Some(canonical) = canonical.filter(|_| erases || !account.erased) else {
                if !erases {
                    if known.is_some() && epoch != RESTORED {
                        lesser.insert(place.clone());
                    }
                    touched.entry(place).or_insert(known);
                }
                continue;
            };
            let rank = Rank::default();
            let merged = merge_versioned(Topic::Ledger, known.as_deref().map(|known| (rank, known)), rank, &canonical);
            if merged.conflict {
                let id = LedgerKey::from_bytes(&place.1).map(|(_, entry)| entry.to_string()).unwrap_or_default();
                stats.conflict(Conflict { topic: Topic::Ledger, id });
                lesser.insert(place.clone());
            }
            if merged.new.is_some() {
                account.entries.insert(Arc::clone(&place.1), canonical);
                touched.entry(place).or_insert(known);
            }
        }
        let held = |(member, key): &Place| accounts.get(member)?.entries.get(key).cloned();
        let merged: Vec<Bytes> = lesser.iter().filter_map(held).collect();
        if !merged.is_empty() {
            superseded(Output::Superseded { epoch, topic: Topic::Ledger, merged });
        }
        for (place, before) in touched {
            let now = held(&place);
            // What is not kept is deleted, held before or not: another process may have written it (design note 0004).
            if now != before || now.is_none() {
                give((place.1, now));
            }
        }
    })
}
