//! The merge of `interactions`: each raw owner's identities below its cap, and the facts they yield.
//!
//! ```text
//! InteractionInput ──by raw owner──▶ ┌──────────────┐ ─▶ rows of the table
//! effective owners ──by raw owner──▶ │ Interactions │ ─▶ (effective owner, Fact) ±1
//!                                    └──────────────┘
//! ```
//!
//! Records of the earliest open epoch are merged when it closes, or earlier when many are buffered. An epoch's net changes are
//! emitted once its effective owners are known, too. Keeps about 30 bytes per identity (see [`super::owner`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::intern::Party;
use kindred_model::settings::LIST_IDENTITIES_PER_OWNER;
use kindred_model::views::inputs::StoredInteraction;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::owner::{ChangeLog, FEW_MAX, Held, Identities, compare};
use super::subject::Identity;
use crate::facts::Fact;
use crate::invariant::violated;
use crate::links::EffectiveOwner;
use crate::update::{InteractionUpdate, Stats};

/// Owners settled before the operator yields, so that a large epoch's facts do not pile up in queues.
const OWNERS_A_TURN: usize = 4_096;

/// Inputs of an open epoch buffered before they are merged, at most 48 MiB. A bulk load has many per owner, and merging an owner's
/// together, in order, costs a third of visiting it again and again.
const BUFFERED_MAX: usize = 1 << 20;

/// An input of the merge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum InteractionInput {
    /// A record.
    Update(InteractionUpdate),
    /// Removes all identities of the raw owner.
    Purge(Party),
}

impl InteractionInput {
    fn party(&self) -> Party {
        match self {
            Self::Update(update) => update.party,
            Self::Purge(party) => *party,
        }
    }
}

/// A changed row of the table, still interned.
#[derive(Clone, Debug)]
pub struct InteractionRow {
    party: Party,
    identity: Identity,
    held: Option<Held>,
}

impl InteractionRow {
    /// Appends the key of the row.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        self.party.owner().encode(out);
        self.identity.key().encode(out);
    }

    /// Appends the row; false if it is deleted.
    pub fn encode_row(&self, out: &mut Vec<u8>) -> bool {
        let Some(held) = &self.held else { return false };
        StoredInteraction { at: held.at, payload: held.payload.bytes().into() }.encode(out);
        true
    }
}

/// A fact of an effective owner added (+1) or retracted (-1).
pub type FactChange = ((Party, Fact), u64, isize);

/// Merges interactions. `effective_owners` lists raw owners that are not their own ([`crate::links`]). `cap` is
/// `inputs.identities_per_owner`; impressions and clicks have a cap of their own.
///
/// A retract removes the facts of its (owner, item or query, kind) at or before its time. When an effective owner changes, all of
/// the raw owner's facts move, or leave with an erased member. An erased member's own identities are dropped at once, and later
/// ones are ignored; those of its sessions stay without facts until they are purged, because the link may change.
pub fn merged_interactions<'s>(
    inputs: StreamVec<'s, u64, InteractionInput>,
    effective_owners: StreamVec<'s, u64, (EffectiveOwner, u64, isize)>,
    cap: usize,
    stats: &Arc<Stats>,
) -> (StreamVec<'s, u64, InteractionRow>, StreamVec<'s, u64, FactChange>) {
    let scope = inputs.scope();
    let mut builder = OperatorBuilder::new("Interactions".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let mut inputs = builder.new_input(inputs, Exchange::new(|input: &InteractionInput| input.party().shard_hash()));
    let mut effective_owners =
        builder.new_input(effective_owners, Exchange::new(|(change, ..): &(EffectiveOwner, u64, isize)| change.raw.shard_hash()));
    let (rows_output, rows) = builder.new_output();
    let (facts_output, facts) = builder.new_output();
    let mut rows_output = OutputBuilder::from(rows_output);
    let mut facts_output = OutputBuilder::from(facts_output);

    let mut merge = Merge { owners: HashMap::default(), effective_owners: HashMap::default(), cap, stats: Arc::clone(stats) };
    builder.build(move |_capabilities| {
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        let mut closing: Option<Closing> = None;
        move |frontiers| {
            let is_open = |epoch: &u64| frontiers[0].less_equal(epoch) || frontiers[1].less_equal(epoch);
            inputs.for_each(|capability, data| {
                // All messages of an operator call carry one time.
                let (Some(rows), Some(facts)) = (capability.retain_least(0), capability.retain_least(1)) else { return };
                open.entry(*rows.time()).or_insert_with(|| Open::at(rows, facts)).inputs.append(data);
            });
            effective_owners.for_each(|capability, data| {
                // A message's diffs may have later epochs than the message.
                for (change, epoch, diff) in data.drain(..) {
                    let at = || Open::at(capability.delayed(&epoch, 0), capability.delayed(&epoch, 1));
                    open.entry(epoch).or_insert_with(at).effective_owners.push((change, diff));
                }
            });
            loop {
                if let Some(closed) = &mut closing {
                    let mut rows_output = rows_output.activate();
                    let mut facts_output = facts_output.activate();
                    let mut rows = rows_output.session(&closed.capabilities.0);
                    let mut facts = facts_output.session(&closed.capabilities.1);
                    let epoch = *closed.capabilities.1.time();
                    for _ in 0..OWNERS_A_TURN {
                        let Some(settling) = closed.owners.pop() else { break };
                        merge.settle(settling, |row| rows.give(row), |fact, diff| facts.give((fact, epoch, diff)));
                    }
                    if !closed.owners.is_empty() {
                        activator.activate();
                        return;
                    }
                }
                closing = None;
                let Some(mut entry) = open.first_entry() else { return };
                // Earlier epochs are settled, so buffered inputs of this one can be merged.
                let is_open = is_open(entry.key());
                let epoch = entry.get_mut();
                if !is_open || epoch.inputs.len() >= BUFFERED_MAX {
                    merge.take_all(&mut epoch.inputs, &mut epoch.touched);
                }
                if is_open {
                    return;
                }
                let epoch = entry.remove();
                closing = Some(Closing {
                    owners: merge.close(epoch.touched, epoch.effective_owners),
                    capabilities: epoch.capabilities,
                });
            }
        }
    });
    (rows, facts)
}

/// An epoch that may still get records.
struct Open {
    capabilities: (Capability<u64>, Capability<u64>),
    inputs: Vec<InteractionInput>,
    effective_owners: Vec<(EffectiveOwner, isize)>,
    touched: FxHashMap<Part, ChangeLog>,
}

impl Open {
    fn at(rows: Capability<u64>, facts: Capability<u64>) -> Self {
        Self { capabilities: (rows, facts), inputs: Vec::new(), effective_owners: Vec::new(), touched: HashMap::default() }
    }
}

/// An epoch whose changes are being emitted.
struct Closing {
    capabilities: (Capability<u64>, Capability<u64>),
    owners: Vec<Settling>,
}

/// The part of a raw owner below one cap: its impressions and clicks, or the rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Part {
    party: Party,
    is_of_lists: bool,
}

impl Part {
    fn both(party: Party) -> [Self; 2] {
        [false, true].map(|is_of_lists| Self { party, is_of_lists })
    }

    fn other(self) -> Self {
        Self { is_of_lists: !self.is_of_lists, ..self }
    }
}

/// A part of a raw owner and its changes in an epoch.
struct Settling {
    part: Part,
    log: ChangeLog,
    /// The effective owner before the epoch.
    effective_before: Option<Party>,
}

/// The state of one worker.
struct Merge {
    owners: FxHashMap<Part, Identities>,
    /// Raw owners that are not their own.
    effective_owners: FxHashMap<Party, Option<Party>>,
    cap: usize,
    stats: Arc<Stats>,
}

impl Merge {
    /// The effective owner of a raw owner's facts; `None` if there is none.
    fn effective(&self, raw: Party) -> Option<Party> {
        self.effective_owners.get(&raw).copied().unwrap_or(Some(raw))
    }

    /// Whether this is an erased member, whose identities are never kept. A session without an effective owner is not erased.
    fn is_erased(&self, raw: Party) -> bool {
        self.effective_owners.get(&raw).is_some_and(Option::is_none) && raw.is_member()
    }

    /// Merges inputs, owner by owner; those of one owner in arrival order, because a purge may stand between records.
    fn take_all(&mut self, inputs: &mut Vec<InteractionInput>, touched: &mut FxHashMap<Part, ChangeLog>) {
        let mut order: Vec<(Party, u32)> = inputs.iter().zip(0..).map(|(input, place)| (input.party(), place)).collect();
        order.sort_unstable_by_key(|&(party, place)| (party.number(), place));
        let mut records: [Vec<(Identity, Held)>; 2] = Default::default();
        for of_owner in order.chunk_by(|a, b| a.0 == b.0) {
            let party = of_owner[0].0;
            for &(_, place) in of_owner {
                match &mut inputs[place as usize] {
                    InteractionInput::Update(update) => {
                        let held = Held { at: update.at(), payload: std::mem::take(&mut update.payload).into() };
                        records[usize::from(update.kind().is_of_a_list())].push((Identity::of(update), held));
                    }
                    InteractionInput::Purge(_) => {
                        for part in Part::both(party) {
                            self.take(part, &mut records[usize::from(part.is_of_lists)], touched);
                            self.drop_identities(part, touched.entry(part).or_default());
                        }
                    }
                }
            }
            for part in Part::both(party) {
                self.take(part, &mut records[usize::from(part.is_of_lists)], touched);
            }
        }
        inputs.clear();
    }

    /// Merges records of one part of an owner; drains them.
    fn take(&mut self, part: Part, records: &mut Vec<(Identity, Held)>, touched: &mut FxHashMap<Part, ChangeLog>) {
        if records.is_empty() {
            return;
        }
        if self.is_erased(part.party) {
            let log = touched.entry(part).or_default();
            return records.drain(..).for_each(|(identity, _)| log.note_dropped(identity));
        }
        let is_known = self.owners.contains_key(&part.other());
        let (owner, log) = match self.owners.entry(part) {
            Entry::Occupied(owner) => (owner.into_mut(), touched.entry(part).or_default()),
            Entry::Vacant(vacant) => {
                Stats::add(&self.stats.owners, u64::from(!is_known));
                // An owner purged in this epoch has a change log already.
                let log = touched.entry(part).or_insert_with(ChangeLog::of_new_owner);
                (vacant.insert(Identities::default()), log)
            }
        };
        let cap = if part.is_of_lists { LIST_IDENTITIES_PER_OWNER } else { self.cap };
        let evicted = owner.merge_all(records, cap, FEW_MAX, log);
        if evicted > 0 {
            Stats::add(&self.stats.evicted, evicted);
        }
    }

    fn drop_identities(&mut self, part: Part, log: &mut ChangeLog) {
        if let Some(mut identities) = self.owners.remove(&part) {
            Stats::sub(&self.stats.owners, u64::from(!self.owners.contains_key(&part.other())));
            for (identity, held) in identities.drain() {
                log.note(identity, Some(held));
                log.note_dropped(identity);
            }
        }
    }

    /// Applies an epoch's changes of effective owners; returns every part of an owner that has something to settle.
    fn close(&mut self, touched: FxHashMap<Part, ChangeLog>, effective_owners: Vec<(EffectiveOwner, isize)>) -> Vec<Settling> {
        let mut owners: FxHashMap<Part, Settling> = touched
            .into_iter()
            .map(|(part, log)| (part, Settling { part, log, effective_before: self.effective(part.party) }))
            .collect();
        // Changes that cancel within the epoch.
        let mut changes: FxHashMap<EffectiveOwner, isize> = HashMap::default();
        for (change, diff) in effective_owners {
            *changes.entry(change).or_default() += diff;
        }
        for change in changes.iter().filter(|(_, diff)| **diff != 0).map(|(change, _)| change) {
            let effective_before = self.effective(change.raw);
            for part in Part::both(change.raw) {
                owners.entry(part).or_insert_with(|| Settling { part, log: ChangeLog::default(), effective_before });
            }
        }
        for change in changes.iter().filter(|(_, diff)| **diff < 0).map(|(change, _)| change) {
            self.effective_owners.remove(&change.raw);
        }
        for change in changes.iter().filter(|(_, diff)| **diff > 0).map(|(change, _)| change) {
            let known = self.effective_owners.insert(change.raw, change.effective);
            if known.is_some() {
                violated(format_args!("two effective owners of {:?}", change.raw));
            }
        }
        let mut owners: Vec<Settling> = owners.into_values().collect();
        for owner in &mut owners {
            if self.is_erased(owner.part.party) {
                self.drop_identities(owner.part, &mut owner.log);
            }
        }
        owners
    }

    /// Emits the changes of one owner.
    fn settle(&self, mut owner: Settling, mut row: impl FnMut(InteractionRow), mut fact: impl FnMut((Party, Fact), isize)) {
        let nothing = Identities::default();
        let now = self.owners.get(&owner.part).unwrap_or(&nothing);
        let party = owner.part.party;
        let (before, after) = (owner.effective_before, self.effective(party));
        for identity in owner.log.take_dropped() {
            if now.get(identity).is_none() {
                row(InteractionRow { party, identity, held: None });
            }
        }
        let (mut came, mut went) = (0, 0);
        compare(now, &mut owner.log, before != after, |changed| {
            if changed.before != changed.after {
                came += u64::from(changed.before.is_none());
                went += u64::from(changed.after.is_none());
                row(InteractionRow { party, identity: changed.identity, held: changed.after.cloned() });
            }
            let Some(item) = changed.identity.fact_item() else { return };
            let kind = changed.identity.kind();
            let shown_before = before.zip(changed.shown_before);
            let shown_after = after.zip(changed.shown_after);
            if shown_before != shown_after {
                for (shown, diff) in [(shown_before, -1), (shown_after, 1)] {
                    if let Some((effective, at)) = shown {
                        fact((effective, Fact { item, kind, at: at.0 }), diff);
                    }
                }
            }
        });
        Stats::add(&self.stats.identities, came);
        Stats::sub(&self.stats.identities, went);
    }
}

#[cfg(test)]
mod tests {
    use kindred_model::intern::Item;
    use kindred_model::{EventTime, Kind, MemberId, Owner};

    use super::*;
    use crate::update::{InteractionUpdate, SubjectKey};

    fn view(party: Party, item: &str, day: i64) -> InteractionInput {
        InteractionInput::Update(InteractionUpdate {
            party,
            subject: SubjectKey::Item(Item::intern(item)),
            kind: Kind::View.code(),
            retract: false,
            at: EventTime::MIN.0 + day * 86_400_000,
            scenario: Box::default(),
            payload: Box::default(),
        })
    }

    /// The identities whose rows are written and deleted in an epoch.
    fn rows(
        merge: &mut Merge,
        mut inputs: Vec<InteractionInput>,
        effective_owners: Vec<(EffectiveOwner, isize)>,
    ) -> (Vec<Identity>, Vec<Identity>) {
        let mut touched = FxHashMap::default();
        merge.take_all(&mut inputs, &mut touched);
        let (mut written, mut deleted) = (Vec::new(), Vec::new());
        for settling in merge.close(touched, effective_owners) {
            let row =
                |row: InteractionRow| if row.held.is_some() { written.push(row.identity) } else { deleted.push(row.identity) };
            merge.settle(settling, row, |_, _| {});
        }
        (written, deleted)
    }

    /// A store that writes rows one by one may hold a row that a new identity evicted, or a row of an erased member, after a
    /// crash within an epoch or from a replaced process that still writes. If this failed, such rows would never be deleted.
    #[test]
    fn what_was_given_and_is_not_kept_is_deleted() {
        let party = |name: &str| Party::intern(&Owner::Member(MemberId::parse(name).unwrap()));
        let (ann, bob) = (party("restored-ann"), party("restored-bob"));
        let stats = Arc::new(Stats::default());
        let mut merge = Merge { owners: HashMap::default(), effective_owners: HashMap::default(), cap: 2, stats: stats.clone() };
        let read_back = || {
            let of_ann = (0..4).map(|day| view(ann, &format!("restored-{day}"), day));
            of_ann.chain([view(bob, "restored-0", 0)]).collect::<Vec<_>>()
        };
        let erased = || vec![(EffectiveOwner { raw: bob, effective: None }, 1)];
        let (written, deleted) = rows(&mut merge, read_back(), erased());
        assert_eq!((written.len(), deleted.len()), (2, 3));
        assert!(written.iter().all(|identity| !deleted.contains(identity)));
        // The same again: nothing changes, but rows that are not kept may have been written meanwhile.
        let (written, deleted) = rows(&mut merge, read_back(), Vec::new());
        assert_eq!((written.len(), deleted.len()), (0, 3));
    }
}
