//! The first rule: every record merges by a join-semilattice. If one of these fails, the order of the log, a duplicate or a replay
//! changes what is served.

use kindred_model::merge::{Merged, Versioned, interaction_replaces, merge_versioned};
use kindred_model::records::{CatalogRecord, Interaction, MemberRecord, OrderRecord};
use kindred_model::{ItemId, MemberId, OrderId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generators::{catalog, interaction, member_record, order};

/// The join, as the pipeline does it: the greater record replaces the known one.
fn join<R: Versioned + Clone>(known: Option<R>, record: &R) -> R {
    let Some(known) = known else { return record.clone() };
    let canonical = known.canonical();
    if merge_versioned(Some((known.rank(), &canonical)), record.rank(), &record.canonical()).replaces() {
        record.clone()
    } else {
        known
    }
}

fn all<R: Versioned + Clone>(records: &[R]) -> R {
    records.iter().fold(None, |known, record| Some(join(known, record))).unwrap()
}

/// Idempotent, commutative, associative; the result is the greatest by (rank, bytes); ties of rank are conflicts.
fn is_a_semilattice<R: Versioned + Clone + PartialEq + std::fmt::Debug>(records: &[R], shuffled: &[R]) {
    let [a, b, c] = [&records[0], &records[1], &records[2]];
    assert_eq!(join(Some(a.clone()), a), *a);
    assert_eq!(join(Some(a.clone()), b), join(Some(b.clone()), a));
    assert_eq!(join(Some(join(Some(a.clone()), b)), c), join(Some(a.clone()), &join(Some(b.clone()), c)));
    let merged = all(records);
    assert_eq!(merged, all(shuffled), "another order of the same set");
    let twice: Vec<_> = records.iter().chain(shuffled).cloned().collect();
    assert_eq!(merged, all(&twice), "duplicates");
    let greatest = records.iter().max_by_key(|record| (record.rank(), record.canonical())).unwrap();
    assert_eq!(merged, *greatest);

    let outcome = merge_versioned(Some((a.rank(), &a.canonical())), b.rank(), &b.canonical());
    let conflicting = a.rank() == b.rank() && a.canonical() != b.canonical();
    assert_eq!(matches!(outcome, Merged::Conflict { .. }), conflicting);
    assert_eq!(outcome.replaces(), (b.rank(), b.canonical()) > (a.rank(), a.canonical()));
    assert_eq!(merge_versioned(None, a.rank(), &a.canonical()), Merged::Replaces);
}

/// Some records of one natural key, and the same in another order.
fn of_one_key<R: Clone + std::fmt::Debug>(
    record: impl Strategy<Value = R>,
    same_key: impl Fn(R) -> R + Clone,
) -> impl Strategy<Value = (Vec<R>, Vec<R>)> {
    vec(record.prop_map(same_key), 3..8).prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle()))
}

fn one_order(mut order: OrderRecord) -> OrderRecord {
    order.order = OrderId::parse("o").unwrap();
    order
}

fn one_item(mut catalog: CatalogRecord) -> CatalogRecord {
    catalog.item = ItemId::parse("i").unwrap();
    catalog
}

fn one_member(mut record: MemberRecord) -> MemberRecord {
    match &mut record {
        MemberRecord::Member(membership) => membership.member = MemberId::parse("m").unwrap(),
        MemberRecord::Session { session, .. } => *session = "m".parse().unwrap(),
    }
    record
}

/// Records of members, or of sessions.
fn records_of(members: bool) -> impl Strategy<Value = MemberRecord> {
    member_record().prop_filter("the other of the two", move |record| record.key().member().is_some() == members)
}

proptest! {
    #[test]
    fn orders_merge_as_a_semilattice((records, shuffled) in of_one_key(order(), one_order)) {
        is_a_semilattice(&records, &shuffled);
    }

    #[test]
    fn catalog_items_merge_as_a_semilattice((records, shuffled) in of_one_key(catalog(), one_item)) {
        is_a_semilattice(&records, &shuffled);
    }

    #[test]
    fn members_merge_as_a_semilattice((records, shuffled) in of_one_key(records_of(true), one_member)) {
        is_a_semilattice(&records, &shuffled);
    }

    #[test]
    fn sessions_merge_as_a_semilattice((records, shuffled) in of_one_key(records_of(false), one_member)) {
        is_a_semilattice(&records, &shuffled);
    }

    /// Erasure is for good: no version, however great, brings a member or the member of an order back.
    #[test]
    fn what_is_erased_stays_erased(orders in vec(order().prop_map(one_order), 1..6), members in vec(records_of(true), 1..6)) {
        let merged = all(&orders);
        prop_assert_eq!(merged.erased, orders.iter().any(|order| order.erased));
        prop_assert!(!merged.erased || merged.member.is_none());
        let members: Vec<_> = members.into_iter().map(one_member).collect();
        prop_assert_eq!(all(&members).is_erased(), members.iter().any(MemberRecord::is_erased));
    }

    #[test]
    fn interactions_merge_as_a_semilattice((records, shuffled) in interactions_of_one_key()) {
        let join = |known: Interaction, record: &Interaction| if interaction_replaces(&known, record) { record.clone() } else { known };
        let all = |records: &[Interaction]| records.iter().fold(records[0].clone(), join);
        let [a, b, c] = [&records[0], &records[1], &records[2]];
        prop_assert!(!interaction_replaces(a, a));
        prop_assert_eq!(join(a.clone(), b), join(b.clone(), a));
        prop_assert_eq!(join(join(a.clone(), b), c), join(a.clone(), &join(b.clone(), c)));
        prop_assert_eq!(all(&records), all(&shuffled));
        let greatest = records.iter().max_by_key(|record| (record.at, record.payload.canonical())).unwrap();
        prop_assert_eq!(&all(&records), greatest);
    }

    /// Two records with one key and one `at` that differ at all differ in the payload's bytes: a tie is always broken.
    #[test]
    fn a_tie_of_interactions_is_broken_by_the_payload((records, _) in interactions_of_one_key()) {
        for (a, b) in records.iter().zip(&records[1..]) {
            let tied = a.at == b.at && a.payload.canonical() == b.payload.canonical();
            prop_assert_eq!(tied, a == b, "{:?} {:?}", a, b);
            prop_assert_eq!(tied, a.to_json() == b.to_json());
        }
    }
}

/// Interactions of one owner, subject and kind on one day (or retracts), with times and payloads that collide.
fn interactions_of_one_key() -> impl Strategy<Value = (Vec<Interaction>, Vec<Interaction>)> {
    (interaction(), vec((interaction(), 0..3i64), 3..8)).prop_flat_map(|(first, others)| {
        let noon = first.at.day();
        let records: Vec<_> = others
            .into_iter()
            .map(|(other, ms)| {
                let mut record = Interaction { payload: other.payload, ..first.clone() };
                record.payload.query = first.payload.query.clone();
                record.payload.item = first.payload.item.clone();
                record.at.0 = i64::from(noon.0) * 86_400_000 + 43_200_000 + ms;
                record
            })
            .collect();
        (Just(records.clone()), Just(records).prop_shuffle())
    })
}
