//! The rules of points against hand-computed values (REQUIREMENTS A.5 and A.9, rules 22, 23 and 26; LOYALTY 2). If one fails,
//! members have wrong balances.

use kindred_model::loyalty::{Multipliers, Program, Revision};
use kindred_model::records::{OrderRecord, OrderStatus};
use kindred_model::views::points::{AsOf, Difference, Earned};
use kindred_model::{Day, EventTime, Tier};
use proptest::prelude::*;

use crate::generators::{order, time};

fn at(text: &str) -> EventTime {
    EventTime::parse("at", &format!("{text}Z")).unwrap()
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

/// An order of one line placed on 2026-03-01, of 5 units with 2 refunded on the day after.
fn sample(status: OrderStatus, tier: Option<Tier>) -> OrderRecord {
    let json = r#"{"order":"o","version":1,"status":"paid","member":"m","placed_at":"2026-03-01T23:59:59.999Z","currency":"EUR",
        "lines":[{"line":1,"item":"i","quantity":5,"unit_price_minor":100}],
        "refunds":[{"refund":"r","at":"2026-03-02T00:00:00Z","line":1,"quantity":2,"amount_minor":200}]}"#;
    let order = OrderRecord::decode(json.as_bytes(), &kindred_model::records::Rules::default()).unwrap();
    OrderRecord { status, tier, ..order }
}

/// Known from, available from, points, points for levels.
type Told = (&'static str, &'static str, i64, i64);

fn differences(program: &Program, order: &OrderRecord) -> Vec<(String, String, i64, i64)> {
    let differences = program.rulebook().order_points(order).into_iter();
    let told = differences
        .map(|(lot, amounts)| (lot.known_from.to_string(), lot.available_from.to_string(), amounts.points, amounts.level_points));
    told.collect()
}

#[track_caller]
fn assert_told(program: &Program, order: &OrderRecord, expected: &[Told]) {
    let expected: Vec<_> = expected.iter().map(|(known, from, p, l)| ((*known).to_owned(), (*from).to_owned(), *p, *l)).collect();
    assert_eq!(differences(program, order), expected);
}

#[test]
fn a_unit_earns_ten_points_and_svip_half_as_much_again() {
    let book = Program::default().rulebook();
    let rules = book.in_force(at("2026-03-01T00:00:00"));
    for (tier, units, expected) in
        [(Tier::Normal, 3, 30), (Tier::Vip, 3, 30), (Tier::Svip, 1, 15), (Tier::Svip, 3, 45), (Tier::Svip, 1_000_000, 15_000_000)]
    {
        assert_eq!(rules.of_units(units, tier), expected, "{tier:?} {units}");
    }
    assert_eq!(book.invite_points(at("2026-03-01T00:00:00")).1, 100);
    // Refunded units earn nothing: 3 of 5 are left from the day of the refund on.
    let completed = sample(OrderStatus::Completed, Some(Tier::Svip));
    assert_told(&Program::default(), &completed, &[("2026-03-01", "2026-03-01", 75, 75), ("2026-03-02", "2026-03-01", -30, -30)]);
}

/// Points are rounded down per line, after the multiplier: two lines of one unit earn less than a line of two.
#[test]
fn fractions_are_cut_a_line() {
    let program = Program { earn_item: 1, ..Program::default() };
    let book = program.rulebook();
    let rules = book.in_force(at("2026-03-01T00:00:00"));
    let of = |units| rules.of_units(units, Tier::Svip);
    assert_eq!((of(1), of(2), of(3), of(7)), (1, 3, 4, 10));
    let mut two_lines = sample(OrderStatus::Paid, Some(Tier::Svip));
    let (mut first, mut second) = (two_lines.lines[0].clone(), two_lines.lines[0].clone());
    (first.quantity, second.quantity, second.line) = (1, 1, 2);
    (two_lines.lines, two_lines.refunds) = (vec![first, second], Vec::new());
    // 1 and 1 by line; the points for levels are of the order: 3.
    assert_told(&program, &two_lines, &[("2026-03-01", "2026-03-08", 2, 3)]);
    let nothing = Program { earn_item: 0, ..Program::default() };
    assert_told(&nothing, &sample(OrderStatus::Paid, None), &[]);
}

/// Unpaid orders never count; what is taken back counts until its day.
#[test]
fn only_orders_that_count_earn() {
    use OrderStatus::{Cancelled, Completed, Paid, Placed, Refunded, Shipped};
    let program = Program::default();
    let hold = "2026-03-08";
    let kept = [("2026-03-01", hold, 50, 50), ("2026-03-02", hold, -20, -20)];
    assert_told(&program, &sample(Placed, None), &[]);
    for status in [Paid, Shipped] {
        assert_told(&program, &sample(status, None), &kept);
    }
    assert_told(
        &program,
        &sample(Completed, None),
        &[("2026-03-01", "2026-03-01", 50, 50), ("2026-03-02", "2026-03-01", -20, -20)],
    );
    let paid_at = Some(at("2026-03-01T23:59:59.999"));
    let cancelled_at = Some(at("2026-03-05T10:00:00"));
    for status in [Cancelled, Refunded] {
        assert_told(&program, &sample(status, None), &[]);
        assert_told(&program, &OrderRecord { cancelled_at, ..sample(status, None) }, &[]);
        let ended = OrderRecord { paid_at, cancelled_at, ..sample(status, None) };
        assert_told(&program, &ended, &[kept[0], kept[1], ("2026-03-05", hold, -30, -30)]);
        // A cancellation without a date applies from the beginning.
        let undated = OrderRecord { paid_at, refunds: Vec::new(), ..sample(status, None) };
        assert_told(&program, &undated, &[]);
    }
    // A refunded order without `cancelled_at` was refunded on the day of its latest refund.
    assert_told(&program, &OrderRecord { paid_at, ..sample(Refunded, None) }, &[kept[0], ("2026-03-02", hold, -50, -50)]);
    assert_told(&program, &OrderRecord { paid_at, ..sample(Cancelled, None) }, &[]);
    // Units returned before payment were never earned; refunded money alone takes no points.
    let late = OrderRecord { paid_at: Some(at("2026-03-04T00:00:00")), ..sample(Paid, None) };
    assert_told(&program, &late, &[("2026-03-04", "2026-03-11", 30, 30)]);
    let mut money = sample(Paid, None);
    money.refunds[0].quantity = None;
    assert_told(&program, &money, &kept[..1]);
    // At most 20 units of an order count for levels.
    let mut many = sample(Paid, None);
    many.lines[0].quantity = 30;
    assert_told(&program, &many, &[("2026-03-01", hold, 300, 200), ("2026-03-02", hold, -20, 0)]);
}

/// Points are available from the day of completion, or of payment plus the hold, whichever comes first.
#[test]
fn points_become_available_on_their_day() {
    use OrderStatus::{Completed, Paid, Shipped};
    let available = |program: &Program, order: &OrderRecord| program.rulebook().available_from(order);
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
        assert_eq!(available(&program, &order), day(expected), "{status:?} {paid_at:?} {completed_at:?}");
    }
    let at_once = Program { hold_days: 0, ..Program::default() };
    assert_eq!(available(&at_once, &sample(Paid, None)), day("2026-03-01"));
    // Expiry is the same day of a later month.
    let expiring = Program { expiry_months: 12, ..Program::default() };
    let (lot, _) = expiring.rulebook().order_points(&sample(Paid, None))[0];
    assert_eq!(lot.expires_on, Some(day("2027-03-08")));
}

/// Days are those of the program's zone: half past midnight in Shanghai is the day before in UTC.
#[test]
fn days_are_of_the_programs_zone() {
    let revision = Revision {
        effective_from: "2026-11-11".to_owned(),
        earn_item: 20,
        earn_invite: 200,
        multiplier_pct: Multipliers::default(),
        hold_days: 7,
        expiry_months: 0,
    };
    let of = |tz: &str| Program { tz: tz.to_owned(), revisions: vec![revision.clone()], ..Program::default() };
    let mut order = sample(OrderStatus::Paid, None);
    order.refunds.clear();
    for (tz, placed_at, told) in [
        // 00:30 on the 11th in Shanghai, then 07:30 on the 12th.
        ("Asia/Shanghai", "2026-11-10T16:30:00", ("2026-11-11", "2026-11-18", 100, 100)),
        ("Asia/Shanghai", "2026-11-10T15:59:59.999", ("2026-11-10", "2026-11-17", 50, 50)),
        ("UTC", "2026-11-10T16:30:00", ("2026-11-10", "2026-11-17", 50, 50)),
        // Days of 23 and 25 hours.
        ("Europe/Berlin", "2026-03-28T23:00:00", ("2026-03-29", "2026-04-05", 50, 50)),
        ("Europe/Berlin", "2026-03-29T21:59:59.999", ("2026-03-29", "2026-04-05", 50, 50)),
        ("Europe/Berlin", "2026-03-29T22:00:00", ("2026-03-30", "2026-04-06", 50, 50)),
        ("Europe/Berlin", "2026-10-25T22:59:59.999", ("2026-10-25", "2026-11-01", 50, 50)),
    ] {
        assert_told(&of(tz), &OrderRecord { placed_at: at(placed_at), ..order.clone() }, &[told]);
    }
    assert_eq!(of("Asia/Shanghai").rulebook().invite_points(at("2026-11-10T16:00:00")).1, 200);
    assert!(of("Mars/Olympus").check().unwrap_err().starts_with("program.tz is \"Mars/Olympus\""));
    assert!(of("Europe/Berlin").check().is_ok());
}

#[test]
fn an_event_obeys_the_rules_in_force_at_its_own_time() {
    let revision = |from: &str, earn_item| Revision {
        effective_from: from.to_owned(),
        earn_item,
        earn_invite: earn_item * 2,
        multiplier_pct: Multipliers { normal: 100, vip: 110, svip: 200 },
        hold_days: 1,
        expiry_months: 0,
    };
    let program = Program { revisions: vec![revision("2026-03-02", 20), revision("2026-05-01", 30)], ..Program::default() };
    program.check().unwrap();
    // Placed in the last millisecond of the 1st: the old rules, however late it is paid.
    let one = |order: OrderRecord| {
        let mut order = OrderRecord { refunds: Vec::new(), ..order };
        order.lines[0].quantity = 1;
        order
    };
    let old = one(OrderRecord { paid_at: Some(at("2026-06-01T00:00:00")), ..sample(OrderStatus::Paid, Some(Tier::Svip)) });
    assert_told(&program, &old, &[("2026-06-01", "2026-06-08", 15, 15)]);
    let new = OrderRecord { placed_at: at("2026-03-02T00:00:00"), paid_at: None, ..old };
    assert_told(&program, &new, &[("2026-03-02", "2026-03-03", 40, 40)]);
    let invites =
        ["2026-03-01T23:59:59.999", "2026-03-02T00:00:00", "2026-04-30T23:59:59", "2026-05-01T00:00:00", "2099-01-01T00:00:00"];
    assert_eq!(invites.map(|time| program.rulebook().invite_points(at(time)).1), [100, 40, 40, 60, 60]);
}

#[test]
fn a_program_that_makes_no_sense_is_refused_by_name() {
    let revision = |from: &str| Revision {
        effective_from: from.to_owned(),
        earn_item: 1,
        earn_invite: 1,
        multiplier_pct: Multipliers::default(),
        hold_days: 1,
        expiry_months: 0,
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
    assert!(Program { expiry_months: 1_201, ..Program::default() }.check().unwrap_err().contains("expiry_months"));
    let negative = Multipliers { svip: -1, ..Multipliers::default() };
    assert!(Program { multiplier_pct: negative, ..Program::default() }.check().unwrap_err().contains("multiplier_pct"));
}

fn earned(of: &[(&str, &str, Option<&str>, i64, i64)]) -> Earned {
    let difference = |(known_from, available_from, expires_on, points, from_invites): &(&str, &str, Option<&str>, i64, i64)| {
        let lot = kindred_model::loyalty::Lot {
            known_from: day(known_from),
            available_from: day(available_from),
            expires_on: expires_on.map(day),
        };
        Difference { lot, points: *points, level_points: 0, from_invites: *from_invites }
    };
    Earned { differences: of.iter().map(difference).collect() }
}

/// As of a day, later dates are unknown; known points are pending, available or expired.
#[test]
fn a_balance_is_what_is_known_on_its_day() {
    let earned = earned(&[
        ("2026-03-01", "2026-03-08", Some("2027-03-08"), 30, 0),
        ("2026-03-04", "2026-03-11", None, 45, 0),
        ("2026-03-05", "2026-03-05", None, 200, 200),
        ("2026-03-10", "2026-03-11", None, -15, 0),
    ]);
    for (as_of, (pending, available, from_items, from_invites)) in [
        ("2026-02-28", (0, 0, 0, 0)),
        ("2026-03-01", (30, 0, 30, 0)),
        ("2026-03-04", (75, 0, 75, 0)),
        ("2026-03-05", (75, 200, 75, 200)),
        ("2026-03-08", (45, 230, 75, 200)),
        ("2026-03-10", (30, 230, 60, 200)),
        ("2026-03-11", (0, 260, 60, 200)),
        ("2027-03-07", (0, 260, 60, 200)),
        ("2027-03-08", (0, 230, 60, 200)),
    ] {
        let expected = AsOf { pending, available, from_items, from_invites };
        assert_eq!(earned.as_of(day(as_of)), expected, "{as_of}");
    }
    assert_eq!(earned.items_as_of(day("2026-03-04")), [(day("2026-03-08"), 30), (day("2026-03-11"), 45)]);
    assert!(Earned::default().is_nothing() && !earned.is_nothing());
    assert_eq!(Earned::default().as_of(day("2026-03-01")), AsOf::default());
}

/// Sums beyond 64 bits saturate, in the row and when read.
#[test]
fn sums_saturate() {
    use kindred_model::views::points::saturated;
    let (most, least) = (i128::from(i64::MAX), i128::from(i64::MIN));
    assert_eq!([most + 1, least - 1, most, -5].map(saturated), [i64::MAX, i64::MIN, i64::MAX, -5]);
    let day = "2026-03-01";
    let too_much = earned(&[(day, day, None, i64::MAX, 0), (day, day, None, i64::MAX, 0)]);
    assert_eq!(too_much.as_of(self::day(day)).available, i64::MAX);
    // The greatest order under the greatest settings fits a row by itself.
    let program = Program {
        earn_item: 1_000_000,
        multiplier_pct: Multipliers { svip: 100_000, ..Multipliers::default() },
        ..Program::default()
    };
    program.check().unwrap();
    let mut order = sample(OrderStatus::Paid, Some(Tier::Svip));
    order.refunds.clear();
    order.lines =
        (1..=5_000).map(|line| kindred_model::records::Line { line, quantity: 1_000_000, ..order.lines[0].clone() }).collect();
    assert_eq!(differences(&program, &order)[0].2, 5_000_000_000_000_000_000);
}

proptest! {
    /// For any order: as of the end of time it has the points of its net quantities if it counts, else none; on no day are they
    /// negative, and pending and available add up.
    #[test]
    fn points_of_any_order_add_up(order in order(), as_of in time()) {
        let differences = Program::default().rulebook().order_points(&order);
        let net: i64 = order.counting_lines().map(|(_, net)| net).sum();
        let percent = if order.tier == Some(Tier::Svip) { 150 } else { 100 };
        let lots = differences.iter().map(|(lot, amounts)| Difference {
            lot: *lot,
            points: amounts.points,
            level_points: amounts.level_points,
            from_invites: 0,
        });
        let earned = Earned { differences: lots.collect() };
        prop_assert_eq!(earned.as_of(Day(i32::MAX)), AsOf { available: net * 10 * percent / 100, from_items: net * 10 * percent / 100, ..AsOf::default() });
        let known = earned.as_of(as_of.day());
        prop_assert!(known.pending >= 0 && known.available >= 0);
        prop_assert_eq!(known.pending + known.available, known.from_items);
        prop_assert!(differences.is_sorted_by_key(|(lot, _)| lot.known_from));
        let level: i64 = differences.iter().map(|(_, amounts)| amounts.level_points).sum();
        prop_assert_eq!(level, net.min(20) * 10 * percent / 100);
    }
}
