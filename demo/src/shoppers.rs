//! The shoppers: members with a name, a tier, a taste, and perhaps an inviter.

use kindred_model::records::{MemberRecord, MemberState, Membership};
use kindred_model::{EventTime, MemberId, Tier};

use crate::catalog::{Catalog, DEPARTMENTS, WORDS};
use crate::random::Random;

/// Members of the history, with some five orders each: lists are full, and a single purchase still shows.
pub const SHOPPERS_LEN: usize = 620;

/// One member of the shop.
#[derive(Clone, Debug)]
pub struct Shopper {
    /// The id in the log.
    pub member: MemberId,
    /// The name, which only the shop has.
    pub name: String,
    /// The tier.
    pub tier: Tier,
    /// The inviter.
    pub invited_by: Option<MemberId>,
    /// When the account was created.
    pub registered_at: EventTime,
    /// When it was verified, if ever.
    pub activated_at: Option<EventTime>,
    /// Weight of each department.
    tastes: [f64; DEPARTMENTS.len()],
    /// Relative frequency of visits.
    pub activity: f64,
}

const HOUR_MS: i64 = 3_600_000;

impl Shopper {
    /// Draws a member with a given pseudonym, registered at a time.
    pub fn draw(random: &mut Random, member: MemberId, registered_at: EventTime, inviters: &[Self]) -> Self {
        let mut tastes = [0.15; DEPARTMENTS.len()];
        // Most shoppers have one main interest.
        tastes[random.index(DEPARTMENTS.len())] += 6.0;
        tastes[random.index(DEPARTMENTS.len())] += 2.0;
        let tier = [Tier::Normal, Tier::Vip, Tier::Svip][random.weighted(&[0.8, 0.15, 0.05])];
        let name = format!("{} {}", random.pick(&WORDS.first_names), random.pick(&WORDS.last_names));
        let invited_by = (!inviters.is_empty() && random.chance(0.22)).then(|| random.pick(inviters).member.clone());
        let activated_at = random.chance(0.93).then(|| EventTime(registered_at.0 + random.between(1, 20) * HOUR_MS / 4));
        // Some visit daily, most rarely.
        let activity = 1.0 / (0.08 + random.unit());
        Self { member, name, tier, invited_by, registered_at, activated_at, tastes, activity }
    }

    /// The members of a history of `days` from `start`: two thirds registered before it.
    pub fn population(random: &mut Random, start: EventTime, days: i64) -> Vec<Self> {
        let day_ms = 24 * HOUR_MS;
        let mut times: Vec<i64> = (0..SHOPPERS_LEN)
            .map(|n| {
                let span = if n % 3 == 0 { (start.0, start.0 + (days - 1) * day_ms) } else { (start.0 - 90 * day_ms, start.0) };
                random.between(span.0, span.1)
            })
            .collect();
        times.sort_unstable();
        let mut shoppers: Vec<Self> = Vec::with_capacity(SHOPPERS_LEN);
        for (n, time) in times.into_iter().enumerate() {
            let member = MemberId::trusted(format!("m{:04}", n + 1));
            let shopper = Self::draw(random, member, EventTime(time), &shoppers);
            shoppers.push(shopper);
        }
        shoppers
    }

    /// A product by this member's taste.
    pub fn draw_product(&self, catalog: &Catalog, random: &mut Random) -> usize {
        let department = DEPARTMENTS[random.weighted(&self.tastes)].clone();
        let shelf = department.start + random.index(department.len());
        catalog.draw(random, shelf)
    }

    /// The account's records up to `now`: registered, then activated.
    pub fn records(&self, now: EventTime) -> Vec<MemberRecord> {
        let registered = Membership {
            tier: Some(self.tier),
            invited_by: self.invited_by.clone(),
            registered_at: Some(self.registered_at),
            ..Membership::new(self.member.clone(), 1, MemberState::Registered)
        };
        let activated = self.activated_at.filter(|&at| at <= now).map(|at| Membership {
            version: 2,
            state: MemberState::Activated,
            activated_at: Some(at),
            ..registered.clone()
        });
        std::iter::once(registered).chain(activated).map(MemberRecord::Member).collect()
    }
}
