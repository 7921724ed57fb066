//! The merged inputs of a plain set of records: the winner under each natural key, then caps and erasure.
//!
//! Independent of the model's merge, which works record by record and by ranks: here all records of a key are compared at once.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use kindred_model::codec::Corrupt;
use kindred_model::merge::Versioned;
use kindred_model::records::{
    CatalogRecord, InteractionKey, Invalid, LedgerKey, LedgerRecord, MemberRecord, MemberState, OrderRecord, OrderStatus, Record,
    Subject,
};
use kindred_model::settings::LIST_IDENTITIES_PER_OWNER;
use kindred_model::views::inputs::{Canonical, Catalog, Interactions, Ledger, Members, Orders, StoredInteraction};
use kindred_model::views::{ReadError, Rows, Table, scan};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, OrderId, Owner, Semantics};

use crate::tables::Tables;

/// The identities of one raw owner.
pub type Identities = BTreeMap<InteractionKey, StoredInteraction>;

/// The merged inputs of an installation.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// By raw owner, below its cap; none of erased members.
    pub interactions: BTreeMap<Owner, Identities>,
    /// The merged record of each order.
    pub orders: BTreeMap<OrderId, OrderRecord>,
    /// The greatest record of each item.
    pub catalog: BTreeMap<ItemId, CatalogRecord>,
    /// The greatest record of each member and session.
    pub members: BTreeMap<Owner, MemberRecord>,
    /// The greatest record of each ledger entry; of an erased member only the record that erases it.
    pub ledger: BTreeMap<LedgerKey, LedgerRecord>,
}

/// The kind of an effective owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Sort {
    Session,
    Member,
    /// A guest's order.
    Guest,
}

/// An effective owner: its name space and its identity.
pub(crate) type Who<'a> = (Sort, &'a str);

/// The inputs that a set of records merges to, whatever their order and duplicates.
pub fn inputs(records: impl IntoIterator<Item = Record>, semantics: &Semantics) -> Inputs {
    Inputs::default().with(records, semantics)
}

/// Wraps each value in a list, to collect further records of the key.
fn beside<K: Ord, R>(held: BTreeMap<K, R>) -> BTreeMap<K, Vec<R>> {
    held.into_iter().map(|(key, record)| (key, vec![record])).collect()
}

fn greatest<R, K: Ord>(records: Vec<R>, order: impl Fn(&R) -> K) -> R {
    records.into_iter().max_by_key(|record| order(record)).expect("a key has a record")
}

/// The records of a table of merged inputs.
fn records<T: Table<Row = Canonical>, R>(
    rows: &dyn Rows,
    decode: impl Fn(&[u8]) -> Result<R, Invalid>,
) -> Result<BTreeMap<T::Key, R>, ReadError> {
    let mut records = BTreeMap::new();
    scan::<T, _>(rows, &[], |key, Canonical(bytes)| {
        let record = decode(&bytes).map_err(|_| Corrupt("a merged record that is not valid"))?;
        records.insert(key, record);
        Ok::<_, ReadError>(())
    })?;
    Ok(records)
}

fn put_records<T: Table<Row = Canonical>, R: Versioned>(tables: &mut Tables, records: &BTreeMap<T::Key, R>) {
    for (key, record) in records {
        tables.put::<T>(key, &Canonical(record.canonical().into()));
    }
}

/// The greatest by (version, rank of status, refunded units, refunded amount, bytes without the member, the member's); without
/// the member and erased if any of them is erased.
fn merged_order(records: Vec<OrderRecord>) -> OrderRecord {
    let is_erased = records.iter().any(|record| record.erased);
    let mut merged = greatest(records, |record| {
        let status = match record.status {
            OrderStatus::Placed => 0,
            OrderStatus::Paid => 1,
            OrderStatus::Shipped => 2,
            OrderStatus::Completed => 3,
            OrderStatus::Cancelled => 4,
            OrderStatus::Refunded => 5,
        };
        let units: i64 = record.refunds.iter().filter_map(|refund| refund.quantity).sum();
        let amount: i64 = record.refunds.iter().map(|refund| refund.amount_minor).sum();
        let content = OrderRecord { member: None, erased: false, ..record.clone() }.canonical();
        (record.version, status, units, amount, content, record.member.clone())
    });
    if is_erased {
        (merged.member, merged.erased) = (None, true);
    }
    merged
}

fn catalog_order(record: &CatalogRecord) -> (u64, bool, bool, Vec<u8>) {
    (record.version, record.deleted, record.available == Some(false), record.canonical())
}

/// Members: the greatest wins. Sessions: the first, which is the least.
fn member_order(record: &MemberRecord) -> impl Ord + use<> {
    match record {
        MemberRecord::Member(membership) => {
            let state = match membership.state {
                MemberState::Registered | MemberState::Erased => 0,
                MemberState::Activated => 1,
                MemberState::Suspended => 2,
            };
            (membership.state == MemberState::Erased, membership.version, state, record.canonical(), None)
        }
        MemberRecord::Session { version, merged_into, .. } => {
            (false, 0, 0, Vec::new(), Some(Reverse((*version, merged_into.to_string()))))
        }
    }
}

impl Inputs {
    /// The inputs in the store, from which `verify` starts, because the log may no longer hold all their records.
    ///
    /// # Errors
    /// Those of reading; [`ReadError::Corrupt`] when a record does not decode.
    pub fn read(rows: &dyn Rows, semantics: &Semantics) -> Result<Self, ReadError> {
        let mut inputs = Self::default();
        scan::<Interactions, _>(rows, &[], |(owner, key), held| inputs.add(owner, key, held))?;
        let rules = semantics.rules();
        inputs.orders = records::<Orders, _>(rows, |bytes| OrderRecord::decode(bytes, &rules))?;
        inputs.catalog = records::<Catalog, _>(rows, CatalogRecord::decode)?;
        inputs.members = records::<Members, _>(rows, MemberRecord::decode)?;
        inputs.ledger = records::<Ledger, _>(rows, LedgerRecord::decode)?;
        Ok(inputs.bounded(semantics))
    }

    /// Merges a set of records into these inputs.
    #[must_use]
    pub fn with(mut self, records: impl IntoIterator<Item = Record>, semantics: &Semantics) -> Self {
        let mut orders: BTreeMap<OrderId, Vec<OrderRecord>> = beside(mem::take(&mut self.orders));
        let mut catalog: BTreeMap<ItemId, Vec<CatalogRecord>> = beside(mem::take(&mut self.catalog));
        let mut members: BTreeMap<Owner, Vec<MemberRecord>> = beside(mem::take(&mut self.members));
        let mut ledger: BTreeMap<LedgerKey, Vec<LedgerRecord>> = beside(mem::take(&mut self.ledger));
        for record in records {
            match record {
                Record::Interaction(record) => {
                    let key = record.key();
                    let held = StoredInteraction { at: record.at, payload: record.payload.canonical().into() };
                    self.add(record.owner, key, held);
                }
                Record::Order(record) => orders.entry(record.order.clone()).or_default().push(record),
                Record::Catalog(record) => catalog.entry(record.item.clone()).or_default().push(record),
                Record::Member(record) => members.entry(record.key()).or_default().push(record),
                Record::Ledger(record) => ledger.entry(record.key()).or_default().push(record),
            }
        }
        self.orders = orders.into_iter().map(|(key, records)| (key, merged_order(records))).collect();
        self.catalog = catalog.into_iter().map(|(key, records)| (key, greatest(records, catalog_order))).collect();
        self.members = members.into_iter().map(|(key, records)| (key, greatest(records, member_order))).collect();
        self.ledger = ledger.into_iter().map(|(key, records)| (key, greatest(records, LedgerRecord::canonical))).collect();
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

    /// Applies erasure and caps: an erased member has no identities, and a raw owner keeps its latest
    /// `inputs.identities_per_owner` by (`at`, identity), and its latest 2,000 impressions and clicks.
    fn bounded(mut self, semantics: &Semantics) -> Self {
        let cap = semantics.inputs.identities_per_owner;
        let members = &self.members;
        self.interactions.retain(|owner, _| !members.get(owner).is_some_and(MemberRecord::is_erased));
        let erased: HashSet<MemberId> =
            self.ledger.values().filter(|record| record.is_erased()).map(|record| record.member().clone()).collect();
        self.ledger.retain(|(member, _), record| {
            let of_members = members.get(&Owner::Member(member.clone()));
            record.is_erased() || !(erased.contains(member) || of_members.is_some_and(MemberRecord::is_erased))
        });
        for identities in self.interactions.values_mut() {
            for (of_lists, cap) in [(false, cap), (true, LIST_IDENTITIES_PER_OWNER)] {
                let mut by_recency: Vec<(EventTime, InteractionKey)> = identities
                    .iter()
                    .filter(|(key, _)| matches!(key.kind, Kind::Impression | Kind::Click) == of_lists)
                    .map(|(key, held)| (held.at, key.clone()))
                    .collect();
                by_recency.sort();
                for (_, key) in &by_recency[..by_recency.len().saturating_sub(cap)] {
                    identities.remove(key);
                }
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
        put_records::<Orders, _>(&mut tables, &self.orders);
        put_records::<Catalog, _>(&mut tables, &self.catalog);
        put_records::<Members, _>(&mut tables, &self.members);
        put_records::<Ledger, _>(&mut tables, &self.ledger);
        tables
    }

    pub(crate) fn erased_members(&self) -> HashSet<&str> {
        self.members.iter().filter(|(_, record)| record.is_erased()).map(|(key, _)| key.id()).collect()
    }

    /// Identities under their effective owner, without searches, retracts, erased members', and those hidden by a retract of
    /// their (owner, subject, kind). An effective owner may have a key several times, by its sessions.
    pub(crate) fn unhidden<'a>(&'a self, mut visit: impl FnMut(Who<'a>, &'a ItemId, Kind, Day, EventTime)) {
        self.unhidden_by_key(|who, item, key, day, at| visit(who, item, key.kind, day, at));
    }

    /// [`Inputs::unhidden`] with the whole key.
    pub(crate) fn unhidden_by_key<'a>(&'a self, mut visit: impl FnMut(Who<'a>, &'a ItemId, &'a InteractionKey, Day, EventTime)) {
        let erased = self.erased_members();
        for (owner, identities) in &self.interactions {
            let who = match (owner, self.members.get(owner)) {
                (Owner::Session(_), Some(MemberRecord::Session { merged_into, .. })) => (Sort::Member, merged_into.as_str()),
                (Owner::Session(session), _) => (Sort::Session, session.as_str()),
                (Owner::Member(member), _) => (Sort::Member, member.as_str()),
                (Owner::Guest(_), _) => continue,
            };
            if who.0 == Sort::Member && erased.contains(who.1) {
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
                    visit(who, item, key, day, held.at);
                }
            }
        }
    }

    /// Orders with an owner: of members that are not erased, and of guests.
    pub(crate) fn owned_orders<'a>(&'a self) -> impl Iterator<Item = (Who<'a>, &'a OrderRecord)> {
        let erased = self.erased_members();
        self.orders.values().filter(|order| !order.erased).filter_map(move |order| match &order.member {
            Some(member) if erased.contains(member.as_str()) => None,
            Some(member) => Some(((Sort::Member, member.as_str()), order)),
            None => Some(((Sort::Guest, order.order.as_str()), order)),
        })
    }

    /// The counting lines of orders with an owner: owner, order, item.
    pub(crate) fn bought<'a>(&'a self, mut visit: impl FnMut(Who<'a>, &'a OrderRecord, &'a ItemId)) {
        for (who, order) in self.owned_orders() {
            if !matches!(order.status, OrderStatus::Paid | OrderStatus::Shipped | OrderStatus::Completed) {
                continue;
            }
            for line in &order.lines {
                let refunds = order.refunds.iter().filter(|refund| refund.line == Some(line.line));
                if line.quantity > refunds.filter_map(|refund| refund.quantity).sum::<i64>() {
                    visit(who, order, &line.item);
                }
            }
        }
    }
}
