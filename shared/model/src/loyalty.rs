//! The rules of points (REQUIREMENTS A.5, A.9 and the defaults at its end; LOYALTY 2).
//!
//! A rule set carries `effective_from`; an event obeys the rules in force at its own time (an order: `placed_at`; an invite: the
//! invitee's `activated_at`), so that a replay gives the same balances. Days are days of the program's zone.

use serde::{Deserialize, Serialize};

use crate::calendar::{self, Zone};
use crate::records::{Invalid, OrderRecord, OrderStatus, Refund};
use crate::units::{Day, EventTime, Tier};

/// Units of one order that count for levels (`tiers.units_per_order`).
const LEVEL_UNITS_PER_ORDER: i64 = 20;

/// `program.*`: the loyalty program. Pinned when a directory is created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Program {
    /// Points a unit of net quantity earns before the multiplier (R22).
    pub earn_item: i64,
    /// Points an activated invitee earns its inviter (R22).
    pub earn_invite: i64,
    /// Percent of the item points by tier (R23).
    pub multiplier_pct: Multipliers,
    /// Days after `paid_at` until the points of an order that is not completed become available (R26).
    pub hold_days: u32,
    /// Months from becoming available until points expire; 0 means never.
    pub expiry_months: u32,
    /// The zone of the program's days, an IANA name like `Asia/Shanghai`.
    pub tz: String,
    /// Later rule sets, each complete, in force from a day on.
    pub revisions: Vec<Revision>,
}

/// Percent of the item points, by tier at purchase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Multipliers {
    /// Of the free level.
    pub normal: i64,
    /// Of VIP.
    pub vip: i64,
    /// Of SVIP.
    pub svip: i64,
}

/// A rule set in force from the start of a day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Its first day, `2026-11-01`.
    pub effective_from: String,
    /// As [`Program::earn_item`].
    pub earn_item: i64,
    /// As [`Program::earn_invite`].
    pub earn_invite: i64,
    /// As [`Program::multiplier_pct`].
    pub multiplier_pct: Multipliers,
    /// As [`Program::hold_days`].
    pub hold_days: u32,
    /// As [`Program::expiry_months`].
    #[serde(default)]
    pub expiry_months: u32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { normal: 100, vip: 100, svip: 150 }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self {
            earn_item: 10,
            earn_invite: 100,
            multiplier_pct: Multipliers::default(),
            hold_days: 7,
            expiry_months: 0,
            tz: "UTC".to_owned(),
            revisions: Vec::new(),
        }
    }
}

impl Revision {
    /// Points of `units` units at a tier: floor(units · earn · multiplier / 100).
    pub fn of_units(&self, units: i64, tier: Tier) -> i64 {
        let percent = match tier {
            Tier::Normal => self.multiplier_pct.normal,
            Tier::Vip => self.multiplier_pct.vip,
            Tier::Svip => self.multiplier_pct.svip,
        };
        let points = (i128::from(units) * i128::from(self.earn_item) * i128::from(percent)).div_euclid(100);
        i64::try_from(points).expect("units, rate and percent are bounded")
    }

    /// The expiry of points that become available on a day: the same day of a later month, or its last.
    pub fn expires_on(&self, available_from: Day) -> Option<Day> {
        (self.expiry_months > 0).then(|| calendar::months_later(available_from, self.expiry_months))
    }
}

/// A lot of points, earned or taken back: known from a day on, available from a day on, until it expires.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lot {
    /// Unknown as of earlier days.
    pub known_from: Day,
    /// Pending as of earlier days.
    pub available_from: Day,
    /// The first day on which they no longer count; `None` means never.
    pub expires_on: Option<Day>,
}

/// The points of a lot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Amounts {
    /// Points.
    pub points: i64,
    /// Points that count for levels.
    pub level_points: i64,
}

impl Program {
    /// Validates the values.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(&self) -> Result<(), String> {
        let mut last: Option<Day> = None;
        for revision in &self.revisions {
            let day: Day = revision.effective_from.parse().map_err(|_| {
                format!("program.revisions: effective_from {:?} is not a day like 2026-11-01", revision.effective_from)
            })?;
            if last.is_some_and(|last| last >= day) {
                return Err("program.revisions must be ordered by effective_from, each day once".to_owned());
            }
            last = Some(day);
        }
        for rules in self.rule_sets() {
            let percents = [rules.multiplier_pct.normal, rules.multiplier_pct.vip, rules.multiplier_pct.svip];
            if !(0..=1_000_000).contains(&rules.earn_item) || !(0..=1_000_000).contains(&rules.earn_invite) {
                return Err("program: earn_item and earn_invite lie from 0 to 1000000".to_owned());
            }
            if percents.iter().any(|percent| !(0..=100_000).contains(percent)) {
                return Err("program.multiplier_pct lies from 0 to 100000".to_owned());
            }
            if rules.hold_days > 36_500 {
                return Err("program.hold_days is at most 36500".to_owned());
            }
            if rules.expiry_months > 1_200 {
                return Err("program.expiry_months is at most 1200".to_owned());
            }
        }
        Zone::named(&self.tz).map(drop).map_err(|Invalid { reason, .. }| format!("program.tz {reason}"))
    }

    /// The first rule set, which is in force from the beginning, and the later ones.
    fn rule_sets(&self) -> impl Iterator<Item = Revision> + '_ {
        let base = Revision {
            effective_from: String::new(),
            earn_item: self.earn_item,
            earn_invite: self.earn_invite,
            multiplier_pct: self.multiplier_pct,
            hold_days: self.hold_days,
            expiry_months: self.expiry_months,
        };
        std::iter::once(base).chain(self.revisions.iter().cloned())
    }

    /// The program in applicable form, parsed once. For settings that [`Program::check`] accepts.
    pub fn rulebook(&self) -> Rulebook {
        let from = self.revisions.iter().map(|revision| revision.effective_from.parse().unwrap_or(Day(i32::MAX)));
        let from = std::iter::once(Day(i32::MIN)).chain(from);
        Rulebook { zone: self.zone(), rule_sets: from.zip(self.rule_sets()).collect() }
    }

    /// The zone of its days. For settings that [`Program::check`] accepts.
    pub fn zone(&self) -> Zone {
        Zone::named(&self.tz).unwrap_or_default()
    }
}

/// The program in applicable form.
#[derive(Clone, Debug)]
pub struct Rulebook {
    zone: Zone,
    /// Each with its first day, ascending.
    rule_sets: Vec<(Day, Revision)>,
}

impl Rulebook {
    /// The program's day at a time.
    pub fn day(&self, time: EventTime) -> Day {
        self.zone.day(time)
    }

    /// The rules in force at a time.
    pub fn in_force(&self, time: EventTime) -> &Revision {
        let day = self.day(time);
        let later = self.rule_sets.partition_point(|(from, _)| *from <= day);
        &self.rule_sets[later.max(1) - 1].1
    }

    /// The day from which an order's points are available: that of `completed_at`, or of `paid_at` plus the hold, whichever comes
    /// first. A missing `paid_at` defaults to `placed_at`; a completed order's missing `completed_at` to its `paid_at`.
    pub fn available_from(&self, order: &OrderRecord) -> Day {
        let paid_on = self.day(order.paid_at.unwrap_or(order.placed_at));
        let held = paid_on.plus(self.in_force(order.placed_at).hold_days);
        let completed = match (order.completed_at, order.status) {
            (Some(time), _) => Some(self.day(time)),
            (None, OrderStatus::Completed) => Some(paid_on),
            (None, _) => None,
        };
        completed.map_or(held, |day| day.min(held))
    }

    /// The points an order earned and lost, as differences by the day from which each is known, ascending, without zeros.
    ///
    /// The earning is known from the day of `paid_at`. Refunded units take their points back on the day of the refund's `at`. A
    /// cancelled or refunded order takes back the rest: on the day of `cancelled_at`; a refunded one without it on the day of its
    /// latest refund; otherwise on the day it was earned. An order that was never paid never counted.
    pub fn order_points(&self, order: &OrderRecord) -> Vec<(Lot, Amounts)> {
        let counts = order.status.counts();
        let ended = matches!(order.status, OrderStatus::Cancelled | OrderStatus::Refunded);
        if !(counts || ended && order.paid_at.is_some()) {
            return Vec::new();
        }
        let rules = self.in_force(order.placed_at);
        let tier = order.tier.unwrap_or(Tier::Normal);
        let earned_on = self.day(order.paid_at.unwrap_or(order.placed_at));
        let available_from = self.available_from(order);
        let expires_on = rules.expires_on(available_from);
        let on = |time: EventTime| self.day(time).max(earned_on);

        let mut net: std::collections::HashMap<u32, i64> = order.lines.iter().map(|line| (line.line, line.quantity)).collect();
        let (mut units, mut points): (i64, i64) = (net.values().sum(), 0);
        for line in &order.lines {
            points += rules.of_units(line.quantity, tier);
        }
        let mut refunds: Vec<(Day, &Refund)> = order.refunds.iter().map(|refund| (on(refund.at), refund)).collect();
        refunds.sort_by_key(|(day, _)| *day);
        let ends_on = ended.then(|| {
            let last_refund = refunds.last().filter(|_| order.status == OrderStatus::Refunded).map(|(day, _)| *day);
            order.cancelled_at.map(on).or(last_refund).unwrap_or(earned_on)
        });

        let mut differences = Vec::new();
        let mut told = Amounts::default();
        let mut tell = |known_from: Day, units: i64, points: i64| {
            let now = Amounts { points, level_points: rules.of_units(units.min(LEVEL_UNITS_PER_ORDER), tier) };
            if now != told {
                let change = Amounts { points: now.points - told.points, level_points: now.level_points - told.level_points };
                differences.push((Lot { known_from, available_from, expires_on }, change));
                told = now;
            }
        };
        let mut day = earned_on;
        for (next, refund) in refunds {
            if ends_on.is_some_and(|ends_on| next >= ends_on) {
                break;
            }
            if next > day {
                tell(day, units, points);
                day = next;
            }
            if let (Some(line), Some(quantity)) = (refund.line, refund.quantity)
                && let Some(left) = net.get_mut(&line)
            {
                points -= rules.of_units(*left, tier) - rules.of_units(*left - quantity, tier);
                (*left, units) = (*left - quantity, units - quantity);
            }
        }
        match ends_on {
            Some(ends_on) if ends_on > day => {
                tell(day, units, points);
                tell(ends_on, 0, 0);
            }
            Some(ends_on) => tell(ends_on, 0, 0),
            None => tell(day, units, points),
        }
        differences
    }

    /// The points of an invite whose invitee was activated at `activated_at`. They do not count for levels.
    pub fn invite_points(&self, activated_at: EventTime) -> (Lot, i64) {
        let day = self.day(activated_at);
        let rules = self.in_force(activated_at);
        (Lot { known_from: day, available_from: day, expires_on: rules.expires_on(day) }, rules.earn_invite)
    }
}
