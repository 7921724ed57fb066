//! The oracle against a small shop worked out by hand, in numbers that a reader can check on paper.

use kindred_model::loyalty::Lot;
use kindred_model::records::{Record, Rules};
use kindred_model::similarity::PairWeight;
use kindred_model::views::points::{Difference, Earned};
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, Owner, Semantics, SessionId, Topic};
use kindred_oracle::{Inputs, also_bought, histories, inputs, points, popularity};

/// Records as they stand in the log, by topic.
fn records(of: &[(Topic, &str)]) -> Vec<Record> {
    of.iter().map(|(topic, json)| Record::decode(*topic, json.as_bytes(), &Rules::default()).unwrap()).collect()
}

fn shop() -> Vec<Record> {
    use Topic::{Interactions as I, Members as M, Orders as O};
    records(&[
        // ann bought tea and milk (one of two pieces came back: it still counts), and honey in an order that was cancelled.
        (
            O,
            r#"{"order":"1","version":1,"status":"paid","member":"ann","placed_at":"2026-01-05T10:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"tea","quantity":3,"unit_price_minor":500},{"line":2,"item":"milk","quantity":2,"unit_price_minor":90}],
               "refunds":[{"refund":"r","at":"2026-01-06T10:00:00Z","line":2,"quantity":1,"amount_minor":90}]}"#,
        ),
        (
            O,
            r#"{"order":"2","version":1,"status":"paid","member":"ann","placed_at":"2026-01-05T11:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"honey","quantity":1,"unit_price_minor":700}]}"#,
        ),
        (
            O,
            r#"{"order":"2","version":2,"status":"cancelled","member":"ann","placed_at":"2026-01-05T11:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"honey","quantity":1,"unit_price_minor":700}]}"#,
        ),
        // ben is SVIP (150 percent) and received his tea and milk.
        (
            O,
            r#"{"order":"3","version":1,"status":"completed","member":"ben","tier":"svip","placed_at":"2026-01-06T09:00:00Z",
               "paid_at":"2026-01-07T09:00:00Z","completed_at":"2026-01-09T09:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"milk","quantity":1,"unit_price_minor":90},{"line":2,"item":"tea","quantity":1,"unit_price_minor":500}]}"#,
        ),
        // A guest's order is an owner of its own: a basket, and one that bought on a day; it earns nothing.
        (
            O,
            r#"{"order":"4","version":1,"status":"paid","placed_at":"2026-01-06T09:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"tea","quantity":1,"unit_price_minor":500},{"line":2,"item":"honey","quantity":1,"unit_price_minor":700}]}"#,
        ),
        // A session that became cid's bought tea; cid himself bought jam, and took back a purchase of milk.
        (I, r#"{"session":"s","kind":"purchase","item":"tea","at":"2026-01-05T12:00:00Z"}"#),
        (M, r#"{"session":"s","version":1,"merged_into":"cid"}"#),
        (I, r#"{"member":"cid","kind":"purchase","item":"jam","at":"2026-01-05T13:00:00Z"}"#),
        (I, r#"{"member":"cid","kind":"purchase","item":"tea","at":"2026-01-05T08:00:00Z"}"#),
        (I, r#"{"member":"cid","kind":"purchase","item":"milk","at":"2026-01-05T13:00:00Z"}"#),
        (I, r#"{"member":"cid","kind":"purchase","item":"milk","at":"2026-01-06T13:00:00Z","retract":true}"#),
        (I, r#"{"member":"cid","kind":"search","query":"Tea","item":"tea","at":"2026-01-05T08:00:00Z"}"#),
        // dot was forgotten, with her session; she was activated on ben's invite, and invited cid.
        (
            O,
            r#"{"order":"5","version":1,"status":"paid","member":"dot","placed_at":"2026-01-05T10:00:00Z","currency":"EUR",
               "lines":[{"line":1,"item":"tea","quantity":1,"unit_price_minor":500},{"line":2,"item":"jam","quantity":1,"unit_price_minor":300}]}"#,
        ),
        (I, r#"{"session":"t","kind":"view","item":"jam","at":"2026-01-05T12:00:00Z"}"#),
        (M, r#"{"session":"t","version":1,"merged_into":"dot"}"#),
        (M, r#"{"member":"dot","version":9,"state":"activated","invited_by":"ann","activated_at":"2026-01-02T00:00:00Z"}"#),
        (M, r#"{"member":"dot","version":2,"state":"erased","invited_by":"ben","activated_at":"2026-01-01T00:00:00Z"}"#),
        (M, r#"{"member":"cid","version":1,"state":"suspended","invited_by":"dot","activated_at":"2026-01-04T00:00:00Z"}"#),
        (M, r#"{"member":"eve","version":1,"state":"activated","invited_by":"eve","activated_at":"2026-01-04T00:00:00Z"}"#),
    ])
}

fn merged(semantics: &Semantics) -> Inputs {
    inputs(shop(), semantics)
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

fn item(text: &'static str) -> ItemId {
    ItemId::trusted(text)
}

/// Baskets: ann {tea, milk}, ben {milk, tea}, cid {jam, tea}, the guest {tea, honey}. A wrong reader of "bought" changes a number
/// here.
#[test]
fn also_bought_counts_baskets_of_owners() {
    let semantics = Semantics::default();
    let rows = also_bought(&merged(&semantics), &semantics.views.also_bought);
    let supports: Vec<(&str, u64)> = rows.supports.iter().map(|(item, n)| (item.as_str(), *n)).collect();
    assert_eq!(supports, [("", 4), ("honey", 1), ("jam", 1), ("milk", 2), ("tea", 4)]);
    // c²/n of tea's list: milk 2²/2 = 2, honey and jam 1²/1 = 1.
    assert_eq!(rows.lists[&item("tea")], [(item("milk"), 2), (item("honey"), 1), (item("jam"), 1)]);
    assert_eq!(rows.lists[&item("milk")], [(item("tea"), 2)]);
    assert_eq!(rows.lists[&item("jam")], [(item("tea"), 1)]);
    assert_eq!(rows.lists.len(), 4);
    // Members alone, where the setting says so.
    let mut semantics = Semantics::default();
    semantics.views.also_bought.owners = kindred_model::settings::Owners::Members;
    let rows = also_bought(&merged(&semantics), &semantics.views.also_bought);
    let supports: Vec<(&str, u64)> = rows.supports.iter().map(|(item, n)| (item.as_str(), *n)).collect();
    assert_eq!(supports, [("", 3), ("jam", 1), ("milk", 2), ("tea", 3)]);
}

/// With a window of 1 nothing is bought with anything; of two items at one time the one of smaller bytes stays.
#[test]
fn the_window_keeps_the_most_recent() {
    let mut semantics = Semantics::default();
    semantics.views.also_bought.window = 1;
    let rows = also_bought(&merged(&semantics), &semantics.views.also_bought);
    let supports: Vec<(&str, u64)> = rows.supports.iter().map(|(item, n)| (item.as_str(), *n)).collect();
    assert_eq!(supports, [("", 4), ("honey", 1), ("jam", 1), ("milk", 2)]);
    assert!(rows.lists.is_empty());
}

/// Neighbours in the sequence weigh 2520; `min_support` is in baskets.
#[test]
fn distance_weighs_pairs() {
    let mut semantics = Semantics::default();
    semantics.views.also_bought.pair_weight = PairWeight::Distance;
    semantics.views.also_bought.min_support = 2;
    let rows = also_bought(&merged(&semantics), &semantics.views.also_bought);
    assert_eq!(rows.lists[&item("tea")], [(item("milk"), 5_040)]);
    assert_eq!(rows.lists.len(), 2);
}

/// An owner counts once a day, by whichever of its sessions, interactions and orders, a guest's order as an owner of its own; the
/// hidden and the erased never.
#[test]
fn popularity_counts_owners() {
    let rows = popularity(&merged(&Semantics::default()));
    let rows: Vec<(&str, Kind, String, u64)> = rows.iter().map(|((i, k, d), n)| (i.as_str(), *k, d.to_string(), *n)).collect();
    let (fifth, sixth) = ("2026-01-05".to_owned(), "2026-01-06".to_owned());
    assert_eq!(
        rows,
        [
            ("honey", Kind::Purchase, sixth.clone(), 1),
            ("jam", Kind::Purchase, fifth.clone(), 1),
            ("milk", Kind::Purchase, fifth.clone(), 1),
            ("milk", Kind::Purchase, sixth.clone(), 1),
            ("tea", Kind::Purchase, fifth, 2),
            ("tea", Kind::Purchase, sixth, 2),
        ]
    );
}

/// ann: 3 tea and 2 milk at 10, held 7 days from the 5th, of which a milk came back on the 6th. ben: floor(10 · 1.5) twice, known
/// from the 7th, received on the 9th, before the hold ends on the 14th; and 100 for dot, who counts though she is erased. dot's
/// invite of cid earns nothing: she has no row.
#[test]
fn points_are_earned_by_lines_and_invites() {
    let semantics = Semantics::default();
    let rows = points(&merged(&semantics), &semantics.program);
    let of = |known_from, available_from, points, level_points, from_invites| {
        let lot = Lot { known_from: day(known_from), available_from: day(available_from), expires_on: None };
        Difference { lot, points, level_points, from_invites }
    };
    let ann =
        Earned { differences: vec![of("2026-01-05", "2026-01-12", 50, 50, 0), of("2026-01-06", "2026-01-12", -10, -10, 0)] };
    let ben =
        Earned { differences: vec![of("2026-01-01", "2026-01-01", 100, 0, 100), of("2026-01-07", "2026-01-09", 30, 30, 0)] };
    let expected = [(MemberId::trusted("ann"), ann), (MemberId::trusted("ben"), ben)];
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), expected);
}

/// A history is the owner's own identities and its sessions', the greatest time of each day.
#[test]
fn histories_are_by_effective_owner() {
    let rows = histories(&merged(&Semantics::default()));
    assert_eq!(rows.keys().collect::<Vec<_>>(), [&Owner::Member(MemberId::trusted("cid"))]);
    let entries: Vec<(&str, Kind, EventTime)> =
        rows[&Owner::Member(MemberId::trusted("cid"))].iter().map(|entry| (entry.item.as_str(), entry.kind, entry.at)).collect();
    let at = |text: &str| EventTime::parse("at", text).unwrap();
    let expected = [("jam", Kind::Purchase, at("2026-01-05T13:00:00Z")), ("tea", Kind::Purchase, at("2026-01-05T12:00:00Z"))];
    assert_eq!(entries, expected);
}

/// The cap keeps the latest by (`at`, identity), retracts among them, and a retract outlives what it hides.
#[test]
fn the_cap_keeps_the_latest_identities() {
    let mut semantics = Semantics::default();
    semantics.inputs.identities_per_owner = 2;
    let session = Owner::Session(SessionId::trusted("x"));
    let view = |item: &str, at: &str, retract: bool| {
        let json =
            format!(r#"{{"session":"x","kind":"view","item":"{item}","at":"2026-01-05T0{at}:00:00Z","retract":{retract}}}"#);
        Record::decode(Topic::Interactions, json.as_bytes(), &Rules::default()).unwrap()
    };
    let held = |records: Vec<Record>| -> Vec<(String, bool)> {
        let inputs = inputs(records, &semantics);
        let identities = inputs.interactions[&session].keys();
        identities
            .map(|key| match &key.subject {
                kindred_model::records::Subject::Item(item) => (item.to_string(), key.day.is_none()),
                kindred_model::records::Subject::Query(query) => (query.to_string(), false),
            })
            .collect()
    };
    let is = |of: &[(&str, bool)]| -> Vec<(String, bool)> { of.iter().map(|(item, r)| ((*item).to_owned(), *r)).collect() };
    // At one time the lesser identity falls out first.
    assert_eq!(
        held(vec![view("a", "1", false), view("b", "1", false), view("c", "1", false)]),
        is(&[("b", false), ("c", false)])
    );
    // A repeat makes an identity recent again.
    assert_eq!(
        held(vec![view("a", "1", false), view("b", "2", false), view("c", "3", false), view("a", "4", false)]),
        is(&[("a", false), ("c", false)])
    );
    // The hidden one falls out before its retract of the same time.
    assert_eq!(held(vec![view("a", "1", true), view("a", "1", false), view("b", "2", false)]), is(&[("a", true), ("b", false)]));
}
