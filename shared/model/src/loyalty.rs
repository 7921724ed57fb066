//! The rules of points, each number in one place (REQUIREMENTS A.5, A.9 and the defaults at its end).
//!
//! A rule set carries `effective_from`; an event obeys the rules in force at its own time (an order: `placed_at`; an invite:
//! the invitee's `activated_at`), so that a replay gives the same balances.

use serde::{Deserialize, Serialize};

use crate::records::OrderRecord;
use crate::units::{Day, EventTime, Tier};

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
    /// Later rule sets, each whole, in force from a day on.
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

/// A rule set in force from the start of a UTC day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The first day it is in force, `2026-11-01`.
    pub effective_from: String,
    /// As [`Program::earn_item`].
    pub earn_item: i64,
    /// As [`Program::earn_invite`].
    pub earn_invite: i64,
    /// As [`Program::multiplier_pct`].
    pub multiplier_pct: Multipliers,
    /// As [`Program::hold_days`].
    pub hold_days: u32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { normal: 100, vip: 100, svip: 150 }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self { earn_item: 10, earn_invite: 100, multiplier_pct: Multipliers::default(), hold_days: 7, revisions: Vec::new() }
    }
}

/// The numbers in force at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InForce {
    earn_item: i64,
    earn_invite: i64,
    multiplier_pct: Multipliers,
    hold_days: u32,
}

/// Points that one line of an order earned, and the as-of day from which they are available; pending before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinePoints {
    /// How many; 0 or more.
    pub points: i64,
    /// From which as-of day.
    pub available_from: Day,
}

impl Program {
    /// What must hold for the numbers; `Err` says which setting breaks it.
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
        }
        Ok(())
    }

    fn rule_sets(&self) -> impl Iterator<Item = InForce> + '_ {
        let base = InForce {
            earn_item: self.earn_item,
            earn_invite: self.earn_invite,
            multiplier_pct: self.multiplier_pct,
            hold_days: self.hold_days,
        };
        std::iter::once(base).chain(self.revisions.iter().map(|revision| InForce {
            earn_item: revision.earn_item,
            earn_invite: revision.earn_invite,
            multiplier_pct: revision.multiplier_pct,
            hold_days: revision.hold_days,
        }))
    }

    fn at(&self, time: EventTime) -> InForce {
        let day = time.day();
        let later =
            self.revisions.iter().take_while(|revision| revision.effective_from.parse::<Day>().is_ok_and(|from| from <= day));
        self.rule_sets().nth(later.count()).expect("the base and each revision are rule sets")
    }

    /// The points of a counting line with net quantity `net` of `order`: floor(net · earn · multiplier / 100), available from the
    /// day of `completed_at`, or of `paid_at` plus the hold. A missing `paid_at` is `placed_at`; a missing `completed_at` of a
    /// completed order its `paid_at`.
    pub fn line_points(&self, order: &OrderRecord, net: i64) -> LinePoints {
        let rules = self.at(order.placed_at);
        let percent = match order.tier.unwrap_or(Tier::Normal) {
            Tier::Normal => rules.multiplier_pct.normal,
            Tier::Vip => rules.multiplier_pct.vip,
            Tier::Svip => rules.multiplier_pct.svip,
        };
        let points = (i128::from(net) * i128::from(rules.earn_item) * i128::from(percent)).div_euclid(100);
        let paid_at = order.paid_at.unwrap_or(order.placed_at);
        let held = paid_at.day().plus(rules.hold_days);
        let completed = match (order.completed_at, order.status) {
            (Some(time), _) => Some(time.day()),
            (None, crate::records::OrderStatus::Completed) => Some(paid_at.day()),
            (None, _) => None,
        };
        // Whichever of the two days comes first moves them.
        let available_from = completed.map_or(held, |day| day.min(held));
        LinePoints { points: i64::try_from(points).expect("net quantity, rate and percent are bounded"), available_from }
    }

    /// The points of an invite whose invitee was activated at `activated_at`.
    pub fn invite_points(&self, activated_at: EventTime) -> i64 {
        self.at(activated_at).earn_invite
    }
}
