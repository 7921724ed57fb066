//! The merged inputs from a plain set of records: the greatest of everything under one natural key, then cap and erasure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use kindred_model::codec::Corrupt;
use kindred_model::merge::Versioned;
use kindred_model::records::{CatalogRecord, InteractionKey, MemberRecord, OrderRecord, Record, Subject};
use kindred_model::views::inputs::{Canonical, Catalog, Interactions, Members, Orders, StoredInteraction};
use kindred_model::views::{ReadError, Rows, scan};
use kindred_model::{Day, EventTime, ItemId, Kind, OrderId, Owner, Semantics};

use crate::tables::Tables;

/// The identities of one raw owner.
pub type Identities = BTreeMap<InteractionKey, StoredInteraction>;

/// The merged inputs of an installation.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// By raw owner, what its cap keeps; none of erased members.
    pub interactions: BTreeMap<Owner, Identities>,
    /// The greatest record of each order.
    pub orders: BTreeMap<OrderId, OrderRecord>,
    /// The greatest record of each item.
    pub catalog: BTreeMap<ItemId, CatalogRecord>,
    /// The greatest record of each member and session.
    pub members: BTreeMap<Owner, MemberRecord>,
}

/// An effective owner: whether it is a member, and its identity.
pub(crate) type Who<'a> = (bool, &'a str);

/// The inputs that a set of records merges to, in whatever order and however often they are given.
pub fn inputs(records: impl IntoIterator<Item = Record>, semantics: &Semantics) -> Inputs {
    Inputs::default().with(records, semantics)
}

fn keep_greatest<K: Ord, R: Versioned>(records: &mut BTreeMap<K, R>, key: K, record: R) {
    let rank = |record: &R| (record.rank(), record.canonical());
    match records.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(record);
        }
        Entry::Occupied(mut entry) => {
            if rank(&record) > rank(entry.get()) {
                entry.insert(record);
            }
        }
    }
}

impl Inputs {
    /// The inputs as the store holds them: what `verify` starts from, since the log may not reach back to all of it.
    ///
    /// # Errors
    /// What reading says; [`ReadError::Corrupt`] when a record does not decode.
    pub fn read(rows: &dyn Rows, semantics: &Semantics) -> Result<Self, ReadError> {
        let mut inputs = Self::default();
        scan::<Interactions>(rows, &[], |(owner, key), held| inputs.add(owner, key, held))?;
        let mut invalid = false;
        let rules = semantics.rules();
        scan::<Orders>(rows, &[], |order, Canonical(bytes)| match OrderRecord::decode(&bytes, &rules) {
            Ok(record) => drop(inputs.orders.insert(order, record)),
            Err(_) => invalid = true,
        })?;
        scan::<Catalog>(rows, &[], |item, Canonical(bytes)| match CatalogRecord::decode(&bytes) {
            Ok(record) => drop(inputs.catalog.insert(item, record)),
            Err(_) => invalid = true,
        })?;
        scan::<Members>(rows, &[], |key, Canonical(bytes)| match MemberRecord::decode(&bytes) {
            Ok(record) => drop(inputs.members.insert(key, record)),
            Err(_) => invalid = true,
        })?;
        if invalid {
            return Err(Corrupt("a merged record that is not valid").into());
        }
        Ok(inputs.bounded(semantics))
    }

    /// These, and what a set of records merges into them.
    #[must_use]
    pub fn with(mut self, records: impl IntoIterator<Item = Record>, semantics: &Semantics) -> Self {
        for record in records {
            match record {
                Record::Interaction(record) => {
                    let key = record.key();
                    let held = StoredInteraction { at: record.at, payload: record.payload.canonical().into() };
                    self.add(record.owner, key, held);
                }
                Record::Order(record) => keep_greatest(&mut self.orders, record.order.clone(), record),
                Record::Catalog(record) => keep_greatest(&mut self.catalog, record.item.clone(), record),
                Record::Member(record) => keep_greatest(&mut self.members, record.key(), record),
            }
        }
        self.bounded(semantics)
    }

    fn add(&mut self, owner: Owner, key: InteractionKey, held: StoredInteraction) {
        match self.interactions.entry(owner).or_default().entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(held);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                if (held.at, &held.payload) > (known.at, &known.payload) {
                    *known = held;
                }
            }
        }
    }

    /// Applies what holds of the merged inputs as a whole: an erased member has no identities, and a raw owner has its latest
    /// `inputs.identities_per_owner` by (`at`, identity).
    fn bounded(mut self, semantics: &Semantics) -> Self {
        let cap = semantics.inputs.identities_per_owner;
        let members = &self.members;
        self.interactions.retain(|owner, _| !members.get(owner).is_some_and(MemberRecord::is_erased));
        for identities in self.interactions.values_mut().filter(|identities| identities.len() > cap) {
            let mut by_recency: Vec<(EventTime, InteractionKey)> =
                identities.iter().map(|(key, held)| (held.at, key.clone())).collect();
            by_recency.sort();
            for (_, key) in &by_recency[..by_recency.len() - cap] {
                identities.remove(key);
            }
        }
        self
    }

    /// The tables of the inputs, byte for byte.
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for (owner, identities) in &self.interactions {
            for (key, held) in identities {
                tables.put::<Interactions>(&(owner.clone(), key.clone()), held);
            }
        }
        for (order, record) in &self.orders {
            tables.put::<Orders>(order, &Canonical(record.canonical().into()));
        }
        for (item, record) in &self.catalog {
            tables.put::<Catalog>(item, &Canonical(record.canonical().into()));
        }
        for (key, record) in &self.members {
            tables.put::<Members>(key, &Canonical(record.canonical().into()));
        }
        tables
    }

    pub(crate) fn erased_members(&self) -> HashSet<&str> {
        self.members.iter().filter(|(_, record)| record.is_erased()).map(|(key, _)| key.id()).collect()
    }

    /// The identities without those that a retract of their (owner, subject, kind) hides, searches and retracts, each under its
    /// effective owner; none of the erased. One effective owner may have a key several times, by its sessions.
    pub(crate) fn unhidden<'a>(&'a self, mut visit: impl FnMut(Who<'a>, &'a ItemId, Kind, Day, EventTime)) {
        let erased = self.erased_members();
        for (owner, identities) in &self.interactions {
            let who = match (owner, self.members.get(owner)) {
                (Owner::Session(_), Some(MemberRecord::Session { merged_into, .. })) => (true, merged_into.as_str()),
                (Owner::Session(session), _) => (false, session.as_str()),
                (Owner::Member(member), _) => (true, member.as_str()),
            };
            if who.0 && erased.contains(who.1) {
                continue;
            }
            let retracts: HashMap<(&Subject, Kind), EventTime> = identities
                .iter()
                .filter(|(key, _)| key.day.is_none())
                .map(|(key, held)| ((&key.subject, key.kind), held.at))
                .collect();
            for (key, held) in identities {
                let (Subject::Item(item), Some(day)) = (&key.subject, key.day) else { continue };
                let hidden = retracts.get(&(&key.subject, key.kind)).is_some_and(|up_to| held.at <= *up_to);
                if !hidden && key.kind != Kind::Search {
                    visit(who, item, key.kind, day, held.at);
                }
            }
        }
    }

    /// The counting lines of members that are not erased: member, order, item, net quantity.
    pub(crate) fn bought<'a>(&'a self, mut visit: impl FnMut(&'a str, &'a OrderRecord, &'a ItemId, i64)) {
        let erased = self.erased_members();
        for order in self.orders.values() {
            let Some(member) = &order.member else { continue };
            if erased.contains(member.as_str()) {
                continue;
            }
            for (line, net) in order.counting_lines() {
                visit(member.as_str(), order, &line.item, net);
            }
        }
    }
}
