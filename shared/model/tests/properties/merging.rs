//! Merging is a join-semilattice. If one of these fails, the order of the log, duplicates or a replay change results.

use kindred_model::merge::{Merged, Rank, Versioned, merge_versioned};
use kindred_model::records::{CatalogRecord, Interaction, MemberRecord, OrderRecord, OrderStatus, Record, Rules};
use kindred_model::{ItemId, MemberId, OrderId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generators::{catalog, interaction, ledger, member_record, order};

/// A merged record as kept by the pipeline.
type Known = (Rank, Vec<u8>);

fn of<R: Versioned>(record: &R) -> Known {
    (record.rank(), record.canonical())
}

/// The join as done by the pipeline.
fn join<R: Versioned>(known: Option<&Known>, record: &Known) -> Known {
    let known_parts = known.map(|(rank, canonical)| (*rank, &canonical[..]));
    let merged = merge_versioned(R::TOPIC, known_parts, record.0, &record.1);
    merged.new.unwrap_or_else(|| known.expect("nothing known is replaced").clone())
}

fn all<R: Versioned>(records: &[R]) -> Known {
    records.iter().fold(None, |known, record| Some(join::<R>(known.as_ref(), &of(record)))).unwrap()
}

/// Checks idempotence, commutativity and associativity; merged records merge like records and decode to the same.
fn is_a_semilattice<R: Versioned + Clone + PartialEq + std::fmt::Debug>(records: &[R], shuffled: &[R]) {
    let [a, b, c] = [of(&records[0]), of(&records[1]), of(&records[2])];
    let join = |a: &Known, b: &Known| join::<R>(Some(a), b);
    assert_eq!(join(&a, &a), a);
    assert_eq!(join(&a, &b), join(&b, &a));
    assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
    let merged = all(records);
    assert_eq!(merged, all(shuffled), "another order of the same set");
    let twice: Vec<_> = records.iter().chain(shuffled).cloned().collect();
    assert_eq!(merged, all(&twice), "duplicates");
    let again = Record::decode(R::TOPIC, &merged.1, &Rules::default()).expect("a merged record reads back");
    let rank = match &again {
        Record::Order(record) => record.rank(),
        Record::Catalog(record) => record.rank(),
        Record::Member(record) => record.rank(),
        Record::Ledger(record) => record.rank(),
        Record::Interaction(_) => unreachable!("none of these"),
    };
    assert_eq!((rank, again.to_json()), merged, "what was read back merges as what was merged");
    assert_eq!(merge_versioned(R::TOPIC, None, a.0, &a.1), Merged { new: Some(a.clone()), conflict: false });
    assert_eq!(
        merge_versioned(R::TOPIC, Some((a.0, &a.1)), b.0, &b.1).conflict,
        merge_versioned(R::TOPIC, Some((b.0, &b.1)), a.0, &a.1).conflict,
        "two contents are in conflict whichever comes first"
    );
}

/// Records of one natural key, and a permutation of them.
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
    fn entries_of_a_ledger_merge_as_a_semilattice((records, shuffled) in of_one_key(ledger(), |record| record)) {
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

    /// If this failed, a later version would restore an erased member, or the member of an erased order; other fields are the
    /// greatest record's.
    #[test]
    fn what_is_erased_stays_erased(orders in vec(order().prop_map(one_order), 1..6), members in vec(records_of(true), 1..6)) {
        let merged = OrderRecord::decode(&all(&orders).1, &Rules::default()).unwrap();
        prop_assert_eq!(merged.erased, orders.iter().any(|order| order.erased));
        prop_assert!(!merged.erased || merged.member.is_none());
        let key = |order: &OrderRecord| {
            let bare = OrderRecord { member: None, erased: false, ..order.clone() };
            (order.version, order.status, order.refunded_units(), order.refunded_minor(), bare.canonical())
        };
        prop_assert_eq!(key(&merged), orders.iter().map(key).max().unwrap());
        let members: Vec<_> = members.into_iter().map(one_member).collect();
        let merged = MemberRecord::decode(&all(&members).1).unwrap();
        prop_assert_eq!(merged.is_erased(), members.iter().any(MemberRecord::is_erased));
    }

    /// If this failed, a session could be moved away from its first member.
    #[test]
    fn a_session_keeps_its_first_member(sessions in vec(records_of(false).prop_map(one_member), 1..6)) {
        let first = |record: &MemberRecord| match record {
            MemberRecord::Session { version, merged_into, .. } => (*version, merged_into.to_string()),
            MemberRecord::Member(_) => unreachable!("sessions alone"),
        };
        let merged = MemberRecord::decode(&all(&sessions).1).unwrap();
        prop_assert_eq!(first(&merged), sessions.iter().map(first).min().unwrap());
    }

    /// If this failed, two records with equal key and `at` could tie: they differ in the payload's bytes if at all.
    #[test]
    fn a_tie_of_interactions_is_broken_by_the_payload((records, _) in interactions_of_one_key()) {
        for (a, b) in records.iter().zip(&records[1..]) {
            let tied = a.at == b.at && a.payload.canonical() == b.payload.canonical();
            prop_assert_eq!(tied, a == b, "{:?} {:?}", a, b);
            prop_assert_eq!(tied, a.to_json() == b.to_json());
        }
    }
}

/// If this failed, a cancellation or refund under an existing version could lose by its bytes.
#[test]
fn of_one_version_the_later_meaning_stays() {
    let of_status = |status: &str, more: &str| {
        let json = format!(
            r#"{{"order":"o","version":1,"status":"{status}","member":"m","placed_at":"2026-01-05T10:00:00Z","currency":"EUR",
                "lines":[{{"line":1,"item":"i","quantity":2,"unit_price_minor":100}}]{more}}}"#
        );
        OrderRecord::decode(json.as_bytes(), &Rules::default()).unwrap()
    };
    let refund = r#","refunds":[{"refund":"r","at":"2026-01-06T10:00:00Z","line":1,"quantity":1,"amount_minor":100}]"#;
    let statuses = ["placed", "paid", "shipped", "completed", "cancelled", "refunded"];
    for (n, earlier) in statuses.iter().enumerate() {
        let refunded = all(&[of_status(earlier, refund), of_status(earlier, "")]);
        assert!(String::from_utf8(refunded.1).unwrap().contains("refunds"), "{earlier}");
        for later in &statuses[n + 1..] {
            let records = [of_status(earlier, refund), of_status(later, "")];
            let merged = OrderRecord::decode(&all(&records).1, &Rules::default()).unwrap();
            assert_eq!(merged.status, later.parse::<OrderStatus>().unwrap(), "{earlier} and {later}");
            let [a, b] = [of(&records[0]), of(&records[1])];
            assert!(merge_versioned(OrderRecord::TOPIC, Some((a.0, &a.1)), b.0, &b.1).conflict);
        }
    }
    // The sweep's own record does not conflict with the record whose member it removes.
    let paid = of_status("paid", "");
    let erased = OrderRecord { member: None, erased: true, ..paid.clone() };
    let [a, b] = [of(&paid), of(&erased)];
    assert_eq!(
        merge_versioned(OrderRecord::TOPIC, Some((a.0, &a.1)), b.0, &b.1),
        Merged { new: Some(b.clone()), conflict: false }
    );
    assert_eq!(merge_versioned(OrderRecord::TOPIC, Some((b.0, &b.1)), a.0, &a.1), Merged { new: None, conflict: false });
    let later = OrderRecord { version: 2, ..of_status("completed", "") };
    let merged = OrderRecord::decode(&all(&[erased, later]).1, &Rules::default()).unwrap();
    assert_eq!((merged.version, merged.status, merged.erased, merged.member), (2, OrderStatus::Completed, true, None));

    let item = |more: &str| {
        CatalogRecord::decode(format!(r#"{{"item":"i","version":1,"kind":"good","title":"t"{more}}}"#).as_bytes()).unwrap()
    };
    for (lesser, greater) in [
        ("", r#","available":false"#),
        (r#","available":true"#, r#","available":false"#),
        (r#","available":false"#, r#","deleted":true"#),
    ] {
        assert_eq!(all(&[item(greater), item(lesser)]), of(&item(greater)), "{lesser} and {greater}");
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
                // For an impression and a click it is in the key.
                record.payload.scenario = first.payload.scenario.clone();
                record.at.0 = i64::from(noon.0) * 86_400_000 + 43_200_000 + ms;
                record
            })
            .collect();
        (Just(records.clone()), Just(records).prop_shuffle())
    })
}
