//! `points` by brute force: what each order has earned as of each day, and how that changed from day to day.

use std::collections::{BTreeMap, BTreeSet};

use kindred_model::loyalty::{Lot, Program, Rulebook};
use kindred_model::records::{MemberRecord, OrderRecord, OrderStatus};
use kindred_model::views::points::{Difference, Earned, Points};
use kindred_model::{Day, MemberId, Semantics, Tier};

use crate::inputs::Sort;
use crate::tables::Tables;
use crate::{Inputs, Recomputed};

/// Points, points for levels, and points from invites, by member and lot.
type Sums<'a> = BTreeMap<(&'a str, Lot), [i128; 3]>;

/// (points, points for levels) of an order as of a day; later dates are unknown.
fn as_of(order: &OrderRecord, rules: &Rulebook, day: Day) -> (i128, i128) {
    let earned_on = rules.day(order.paid_at.unwrap_or(order.placed_at));
    if earned_on > day {
        return (0, 0);
    }
    let (cancelled_on, was_paid) = (order.cancelled_at.map(|at| rules.day(at)), order.paid_at.is_some());
    let is_over = match order.status {
        OrderStatus::Placed => true,
        OrderStatus::Paid | OrderStatus::Shipped | OrderStatus::Completed => false,
        OrderStatus::Cancelled => !was_paid || cancelled_on.is_none_or(|on| on <= day),
        OrderStatus::Refunded => {
            let last = order.refunds.iter().map(|refund| rules.day(refund.at)).max();
            !was_paid || cancelled_on.or(last).is_none_or(|on| on <= day)
        }
    };
    if is_over {
        return (0, 0);
    }
    let numbers = rules.in_force(order.placed_at);
    let percent = match order.tier {
        Some(Tier::Svip) => numbers.multiplier_pct.svip,
        Some(Tier::Vip) => numbers.multiplier_pct.vip,
        Some(Tier::Normal) | None => numbers.multiplier_pct.normal,
    };
    let points_of = |units: i64| i128::from(units) * i128::from(numbers.earn_item) * i128::from(percent) / 100;
    let (mut points, mut units) = (0, 0);
    for line in &order.lines {
        let back = order.refunds.iter().filter(|refund| refund.line == Some(line.line) && rules.day(refund.at) <= day);
        let net = line.quantity - back.filter_map(|refund| refund.quantity).sum::<i64>();
        points += points_of(net);
        units += net;
    }
    (points, points_of(units.min(20)))
}

/// What each member has earned.
pub fn points(inputs: &Inputs, program: &Program) -> BTreeMap<MemberId, Earned> {
    let rules = program.rulebook();
    let mut sums: Sums<'_> = BTreeMap::new();
    for (who, order) in inputs.owned_orders().filter(|(who, _)| who.0 == Sort::Member) {
        let paid_on = rules.day(order.paid_at.unwrap_or(order.placed_at));
        let numbers = rules.in_force(order.placed_at);
        let held_to = Day(paid_on.0 + numbers.hold_days as i32);
        let completed_on = match order.completed_at {
            Some(at) => rules.day(at),
            None if order.status == OrderStatus::Completed => paid_on,
            None => held_to,
        };
        let available_from = completed_on.min(held_to);
        let expires_on = numbers.expires_on(available_from);
        let mut days = BTreeSet::from([paid_on]);
        days.extend(order.cancelled_at.map(|at| rules.day(at)));
        days.extend(order.refunds.iter().map(|refund| rules.day(refund.at)));
        let mut before = (0, 0);
        for known_from in days {
            let now = as_of(order, &rules, known_from);
            let sum = sums.entry((who.1, Lot { known_from, available_from, expires_on })).or_default();
            sum[0] += now.0 - before.0;
            sum[1] += now.1 - before.1;
            before = now;
        }
    }
    let erased = inputs.erased_members();
    for record in inputs.members.values() {
        let MemberRecord::Member(invitee) = record else { continue };
        let (Some(inviter), Some(activated_at)) = (&invitee.invited_by, invitee.activated_at) else { continue };
        if *inviter != invitee.member && !erased.contains(inviter.as_str()) {
            let day = rules.day(activated_at);
            let numbers = rules.in_force(activated_at);
            let lot = Lot { known_from: day, available_from: day, expires_on: numbers.expires_on(day) };
            let sum = sums.entry((inviter.as_str(), lot)).or_default();
            sum[0] += i128::from(numbers.earn_invite);
            sum[2] += i128::from(numbers.earn_invite);
        }
    }
    let mut rows: BTreeMap<MemberId, Earned> = BTreeMap::new();
    for ((member, lot), sums) in sums {
        if let Some(difference) = Difference::of_sums(lot, sums) {
            rows.entry(MemberId::trusted(member.to_owned())).or_default().differences.push(difference);
        }
    }
    rows
}

impl Recomputed for Points {
    /// The view's table.
    fn recompute(inputs: &Inputs, semantics: &Semantics) -> Tables {
        Tables::of::<Points>(points(inputs, &semantics.program))
    }
}
