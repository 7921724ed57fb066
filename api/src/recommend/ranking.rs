//! Popularity in memory: the owners of each item by kind and day, and the rankings of the last days that fill short lists.
//!
//! ```text
//! rows (item, kind, day) -> owners ──▶ Days of an item ──sum over the window──▶ Rankings: overall, and by category
//! ```
//!
//! The rankings are exact at every moment: a changed row moves its item by the difference, the turn of a day sums anew.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kindred_model::{Day, Kind};

/// How many days popularity covers unless asked otherwise: short enough to follow a season, long enough for a small shop.
pub const DAYS_DEFAULT: u32 = 30;
/// The kind that popularity counts unless asked otherwise, and the one that fills: what was bought.
pub const KIND_DEFAULT: Kind = Kind::Purchase;

/// The owners of one item by kind and day, sorted. 12 bytes a row of the view.
#[derive(Debug, Default)]
pub(crate) struct Days(Vec<(Kind, Day, u32)>);

impl Days {
    /// Sets what a row holds (0 removes it) and returns what it held.
    pub fn set(&mut self, kind: Kind, day: Day, owners: u64) -> u64 {
        // More owners than fit are more than there are people.
        let owners = u32::try_from(owners).unwrap_or(u32::MAX);
        match self.0.binary_search_by_key(&(kind, day), |&(kind, day, _)| (kind, day)) {
            Ok(at) if owners == 0 => u64::from(self.0.remove(at).2),
            Ok(at) => u64::from(std::mem::replace(&mut self.0[at].2, owners)),
            Err(_) if owners == 0 => 0,
            Err(at) => {
                self.0.insert(at, (kind, day, owners));
                0
            }
        }
    }

    /// The owners of `kind` summed over the `days` that end with `as_of`.
    pub fn sum(&self, kind: Kind, as_of: Day, days: u32) -> u64 {
        let first = Day(as_of.0.saturating_sub_unsigned(days.saturating_sub(1)));
        let from = self.0.partition_point(|&(k, day, _)| (k, day) < (kind, first));
        self.0[from..].iter().take_while(|&&(k, day, _)| k == kind && day <= as_of).map(|&(_, _, owners)| u64::from(owners)).sum()
    }
}

/// Whether a day is in the window that ends with `as_of`.
pub(crate) fn in_window(day: Day, as_of: Day) -> bool {
    day <= as_of && day > Day(as_of.0.saturating_sub_unsigned(DAYS_DEFAULT))
}

/// Most owners first, a tie by item bytes.
type Entry = (Reverse<u64>, Arc<str>, u32);

/// Items by the owners of the window, most first.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    entries: BTreeSet<Entry>,
    /// The version of the memory that changed it last.
    pub changed: u64,
}

impl Ranking {
    fn moved(&mut self, id: &Arc<str>, index: u32, from: u64, to: u64, version: u64) {
        if from > 0 {
            self.entries.remove(&(Reverse(from), id.clone(), index));
        }
        if to > 0 {
            self.entries.insert((Reverse(to), id.clone(), index));
        }
        self.changed = version;
    }

    /// (item's index, owners), most first.
    pub fn best_first(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.entries.iter().map(|(Reverse(owners), _, index)| (*index, *owners))
    }
}

/// The rankings of [`KIND_DEFAULT`] over the [`DAYS_DEFAULT`] days that end with a day. They hold what may be shown, and no
/// item without owners.
#[derive(Debug, Default)]
pub(crate) struct Rankings {
    /// Of all items.
    pub overall: Ranking,
    /// By category: an item stands under each prefix of its path, joined by `/`.
    by_category: HashMap<Arc<str>, Ranking>,
    /// Versions of categories that emptied again stand here as one: the greatest.
    pub emptied: u64,
}

impl Rankings {
    /// Moves an item from one sum to another, overall and in its categories.
    pub fn moved(&mut self, id: &Arc<str>, index: u32, categories: &[Arc<str>], from: u64, to: u64, version: u64) {
        if from == to {
            return;
        }
        self.overall.moved(id, index, from, to, version);
        for category in categories {
            let ranking = self.by_category.entry(category.clone()).or_default();
            ranking.moved(id, index, from, to, version);
            if ranking.entries.is_empty() {
                self.by_category.remove(category);
                self.emptied = version;
            }
        }
    }

    /// The ranking of one category, if anything in it has owners.
    pub fn category(&self, category: &str) -> Option<&Ranking> {
        self.by_category.get(category)
    }

    /// The version that changed the ranking of a category last.
    pub fn category_changed(&self, category: &str) -> u64 {
        self.category(category).map_or(self.emptied, |ranking| ranking.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_sum_over_the_window_and_forget_what_is_removed() {
        let mut days = Days::default();
        assert_eq!(days.set(Kind::Purchase, Day(10), 3), 0);
        days.set(Kind::Purchase, Day(12), 4);
        days.set(Kind::View, Day(11), 100);
        assert_eq!(days.sum(Kind::Purchase, Day(12), 3), 7);
        assert_eq!(days.sum(Kind::Purchase, Day(12), 2), 4);
        assert_eq!(days.sum(Kind::Purchase, Day(11), 30), 3);
        assert_eq!(days.set(Kind::Purchase, Day(10), 0), 3);
        assert_eq!(days.sum(Kind::Purchase, Day(12), 30), 4);
        assert!(in_window(Day(1), Day(30)) && !in_window(Day(0), Day(30)) && !in_window(Day(31), Day(30)));
    }

    #[test]
    fn rankings_order_by_owners_then_item_and_drop_what_has_none() {
        let mut rankings = Rankings::default();
        let categories: Vec<Arc<str>> = vec!["a".into(), "a/b".into()];
        rankings.moved(&"y".into(), 0, &categories, 0, 5, 1);
        rankings.moved(&"x".into(), 1, &categories[..1], 0, 5, 2);
        rankings.moved(&"z".into(), 2, &[], 0, 9, 3);
        assert_eq!(rankings.overall.best_first().collect::<Vec<_>>(), [(2, 9), (1, 5), (0, 5)]);
        assert_eq!(rankings.category("a").unwrap().best_first().collect::<Vec<_>>(), [(1, 5), (0, 5)]);
        rankings.moved(&"y".into(), 0, &categories, 5, 0, 4);
        assert!(rankings.category("a/b").is_none());
        assert_eq!((rankings.category_changed("a/b"), rankings.category_changed("a")), (4, 4));
    }
}
