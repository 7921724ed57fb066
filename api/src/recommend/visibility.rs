//! Visibility: what a caller may see (R7, R19).
//!
//! ```text
//! publishable key, service key ──▶ public      access token, or ?member= with a service key ──tier of the member──▶ their level
//! ```

use kindred_model::records::Visibility;
use kindred_model::{EventTime, Tier};

use super::state::{Card, Entry};

/// The number of levels.
pub(crate) const LEVELS: usize = Visibility::Svip as usize + 1;

/// The facts that decide what a member may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemberFacts {
    /// The tier.
    pub tier: Tier,
    /// When the account was created.
    pub registered_at: Option<EventTime>,
}

/// What a caller may see: items up to a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The level.
    pub(crate) level: Visibility,
    /// Under `catalog.strict_listed_after`: items for registered members only if listed since.
    pub(crate) since: Option<EventTime>,
}

impl Sight {
    /// Of an anonymous caller.
    pub const PUBLIC: Self = Self { level: Visibility::Public, since: None };

    /// Of a signed-in member. `strict` is `catalog.strict_listed_after`.
    pub(crate) fn of_member(facts: Option<MemberFacts>, strict: bool) -> Self {
        let level = match facts.map_or(Tier::Normal, |facts| facts.tier) {
            Tier::Normal => Visibility::Registered,
            Tier::Vip => Visibility::Vip,
            Tier::Svip => Visibility::Svip,
        };
        // An unknown member has seen no listing.
        let since = || facts.and_then(|facts| facts.registered_at).unwrap_or(EventTime(i64::MAX));
        Self { level, since: (strict && level == Visibility::Registered).then(since) }
    }

    /// Whether an item of this visibility and listing time is visible.
    pub(crate) fn sees(self, visibility: Visibility, listed_at: Option<EventTime>) -> bool {
        let listed_since = || self.since.is_none_or(|since| listed_at.is_some_and(|listed| listed >= since));
        visibility <= self.level && (visibility != Visibility::Registered || listed_since())
    }

    /// Whether an item with this card is visible. An item without one is public.
    pub(crate) fn sees_card(self, card: Option<&Card>) -> bool {
        card.is_none_or(|card| self.sees(card.visibility, card.listed_at))
    }

    /// Whether an answer may offer an item.
    pub(crate) fn is_shown(self, entry: &Entry) -> bool {
        entry.is_offered() && self.sees_card(entry.card.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a level would see too much or too little.
    #[test]
    fn r7_each_level_sees_what_the_ones_before_it_see() {
        let facts = |tier, registered_at: i64| Some(MemberFacts { tier, registered_at: Some(EventTime(registered_at)) });
        let seen = |sight: Sight, listed_at: Option<i64>| {
            let all = [Visibility::Public, Visibility::Registered, Visibility::Vip, Visibility::Svip];
            all.map(|visibility| sight.sees(visibility, listed_at.map(EventTime)))
        };
        for strict in [false, true] {
            assert_eq!(seen(Sight::PUBLIC, Some(9)), [true, false, false, false]);
            assert_eq!(seen(Sight::of_member(facts(Tier::Normal, 5), strict), Some(5)), [true, true, false, false]);
            assert_eq!(seen(Sight::of_member(facts(Tier::Normal, 5), strict), Some(4)), [true, !strict, false, false]);
            assert_eq!(seen(Sight::of_member(facts(Tier::Normal, 5), strict), None), [true, !strict, false, false]);
            assert_eq!(seen(Sight::of_member(None, strict), Some(9)), [true, !strict, false, false]);
            assert_eq!(seen(Sight::of_member(facts(Tier::Vip, 5), strict), Some(4)), [true, true, true, false]);
            assert_eq!(seen(Sight::of_member(facts(Tier::Svip, 5), strict), None), [true, true, true, true]);
        }
    }
}
