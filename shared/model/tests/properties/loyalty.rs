//! The rules of points against figures worked out by hand (REQUIREMENTS A.5 and A.9, rules 22, 23 and 26). If one fails, members
//! have other balances.

use kindred_model::loyalty::{LinePoints, Multipliers, Program, Revision};
use kindred_model::records::{OrderRecord, OrderStatus};
use kindred_model::views::points::Earned;
use kindred_model::{Day, EventTime, Tier};
use proptest::prelude::*;

use crate::generators::{order, time};

fn at(text: &str) -> EventTime {
    EventTime::parse("at", &format!("{text}Z")).unwrap()
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

/// An order of one line placed on 2026-03-01, of 5 units with 2 refunded.
fn sample(status: OrderStatus, tier: Option<Tier>) -> OrderRecord {
    let json = r#"{"order":"o","version":1,"status":"paid","member":"m","placed_at":"2026-03-01T23:59:59.999Z","currency":"EUR",
        "lines":[{"line":1,"item":"i","quantity":5,"unit_price_minor":100}],
        "refunds":[{"refund":"r","at":"2026-03-02T00:00:00Z","line":1,"quantity":2,"amount_minor":200}]}"#;
    let order = OrderRecord::decode(json.as_bytes(), &kindred_model::records::Rules::default()).unwrap();
    OrderRecord { status, tier, ..order }
}

fn points(program: &Program, order: &OrderRecord) -> Vec<LinePoints> {
    order.counting_lines().map(|(_, net)| program.line_points(order, net)).collect()
}

#[test]
fn a_unit_earns_ten_points_and_svip_half_as_much_again() {
    let program = Program::default();
    for (tier, net, expected) in [
        (None, 1, 10),
        (Some(Tier::Normal), 3, 30),
        (Some(Tier::Vip), 3, 30),
        (Some(Tier::Svip), 1, 15),
        (Some(Tier::Svip), 3, 45),
        (Some(Tier::Svip), 1_000_000, 15_000_000),
    ] {
        assert_eq!(program.line_points(&sample(OrderStatus::Paid, tier), net).points, expected, "{tier:?} {net}");
    }
    assert_eq!(program.invite_points(at("2026-03-01T00:00:00")), 100);
    // What was refunded earns nothing: 3 of 5 are left.
    assert_eq!(points(&program, &sample(OrderStatus::Completed, Some(Tier::Svip)))[0].points, 45);
}

/// Floor a line, after the multiplier: two lines of one unit earn less than a line of two.
#[test]
fn fractions_are_cut_a_line() {
    let program = Program { earn_item: 1, ..Program::default() };
    let svip = sample(OrderStatus::Paid, Some(Tier::Svip));
    let of = |net| program.line_points(&svip, net).points;
    assert_eq!((of(1), of(2), of(3), of(7)), (1, 3, 4, 10));
    let nothing = Program { earn_item: 0, ..Program::default() };
    assert_eq!(nothing.line_points(&svip, 5).points, 0);
}

#[test]
fn only_orders_that_count_earn() {
    use OrderStatus::{Cancelled, Completed, Paid, Placed, Refunded, Shipped};
    let program = Program::default();
    for (status, lines) in [(Placed, 0), (Paid, 1), (Shipped, 1), (Completed, 1), (Cancelled, 0), (Refunded, 0)] {
        assert_eq!(points(&program, &sample(status, None)).len(), lines, "{status:?}");
    }
}

/// Available from the day of completion or of payment plus the hold, whichever comes first.
#[test]
fn points_become_available_on_their_day() {
    use OrderStatus::{Completed, Paid, Shipped};
    let program = Program::default();
    let (paid, early, late) = (Some(at("2026-03-04T12:00:00")), Some(at("2026-03-06T00:00:00")), Some(at("2026-04-01T00:00:00")));
    for (status, paid_at, completed_at, expected) in [
        // A missing paid_at is placed_at: the 1st and 7 days.
        (Paid, None, None, "2026-03-08"),
        (Paid, paid, None, "2026-03-11"),
        (Shipped, paid, None, "2026-03-11"),
        (Completed, paid, early, "2026-03-06"),
        (Completed, paid, late, "2026-03-11"),
        // A missing completed_at of a completed order is its paid_at, or placed_at.
        (Completed, paid, None, "2026-03-04"),
        (Completed, None, None, "2026-03-01"),
    ] {
        let order = OrderRecord { paid_at, completed_at, ..sample(status, None) };
        assert_eq!(points(&program, &order)[0].available_from, day(expected), "{status:?} {paid_at:?} {completed_at:?}");
    }
    let at_once = Program { hold_days: 0, ..Program::default() };
    assert_eq!(points(&at_once, &sample(Paid, None))[0].available_from, day("2026-03-01"));
}

#[test]
fn an_event_obeys_the_rules_in_force_at_its_own_time() {
    let revision = |from: &str, earn_item| Revision {
        effective_from: from.to_owned(),
        earn_item,
        earn_invite: earn_item * 2,
        multiplier_pct: Multipliers { normal: 100, vip: 110, svip: 200 },
        hold_days: 1,
    };
    let program = Program { revisions: vec![revision("2026-03-02", 20), revision("2026-05-01", 30)], ..Program::default() };
    program.check().unwrap();
    // Placed in the last millisecond of the 1st: the old rules, however late it is paid.
    let old = OrderRecord { paid_at: Some(at("2026-06-01T00:00:00")), ..sample(OrderStatus::Paid, Some(Tier::Svip)) };
    assert_eq!(program.line_points(&old, 1), LinePoints { points: 15, available_from: day("2026-06-08") });
    let new = OrderRecord { placed_at: at("2026-03-02T00:00:00"), paid_at: None, ..old };
    assert_eq!(program.line_points(&new, 1), LinePoints { points: 40, available_from: day("2026-03-03") });
    let invites =
        ["2026-03-01T23:59:59.999", "2026-03-02T00:00:00", "2026-04-30T23:59:59", "2026-05-01T00:00:00", "2099-01-01T00:00:00"];
    assert_eq!(invites.map(|time| program.invite_points(at(time))), [100, 40, 40, 60, 60]);
}

#[test]
fn a_program_that_makes_no_sense_is_refused_by_name() {
    let revision = |from: &str| Revision {
        effective_from: from.to_owned(),
        earn_item: 1,
        earn_invite: 1,
        multiplier_pct: Multipliers::default(),
        hold_days: 1,
    };
    let with =
        |revisions: &[&str]| Program { revisions: revisions.iter().map(|from| revision(from)).collect(), ..Program::default() };
    assert!(with(&["2026-03-02", "2026-03-03"]).check().is_ok());
    for wrong in
        [&["2026-03-03", "2026-03-02"][..], &["2026-03-02", "2026-03-02"], &["soon"], &["20260302"], &["2026-03-02T00:00:00"]]
    {
        assert!(with(wrong).check().unwrap_err().contains("program.revisions"), "{wrong:?}");
    }
    assert!(Program { earn_item: -1, ..Program::default() }.check().unwrap_err().contains("earn_item"));
    assert!(Program { hold_days: 36_501, ..Program::default() }.check().unwrap_err().contains("hold_days"));
    let negative = Multipliers { svip: -1, ..Multipliers::default() };
    assert!(Program { multiplier_pct: negative, ..Program::default() }.check().unwrap_err().contains("multiplier_pct"));
}

#[test]
fn a_balance_moves_from_pending_to_available_and_leaves_nothing_out() {
    let earned =
        Earned { from_invites: 200, from_items: vec![(day("2026-03-08"), 30), (day("2026-03-11"), 45), (day("2099-01-01"), 7)] };
    for (as_of, expected) in [
        ("2000-01-01", (82, 200)),
        ("2026-03-07", (82, 200)),
        ("2026-03-08", (52, 230)),
        ("2026-03-10", (52, 230)),
        ("2026-03-11", (7, 275)),
        ("2099-01-01", (0, 282)),
    ] {
        assert_eq!(earned.as_of(day(as_of)), expected, "{as_of}");
    }
    assert!(Earned::default().is_nothing() && !earned.is_nothing());
}

proptest! {
    /// Whatever the order, points are not negative, are not available before the order was placed unless it says so, and pending
    /// and available add up.
    #[test]
    fn points_of_any_order_add_up(order in order(), as_of in time()) {
        let program = Program::default();
        let lines = points(&program, &order);
        let total: i64 = lines.iter().map(|line| line.points).sum();
        let net: i64 = order.counting_lines().map(|(_, net)| net).sum();
        let percent = if order.tier == Some(Tier::Svip) { 150 } else { 100 };
        prop_assert_eq!(total, net * 10 * percent / 100);
        let mut from_items: std::collections::BTreeMap<Day, i64> = Default::default();
        for line in &lines {
            prop_assert!(line.points > 0);
            *from_items.entry(line.available_from).or_default() += line.points;
        }
        let earned = Earned { from_invites: 100, from_items: from_items.into_iter().collect() };
        let (pending, available) = earned.as_of(as_of.day());
        prop_assert_eq!(pending + available, total + 100);
        prop_assert_eq!(earned.as_of(Day(i32::MAX)), (0, total + 100));
    }
}
