//! Popularity in memory: the owners of each item by kind and day, and the rankings that fill short lists.
//!
//! ```text
//! rows (item, kind, day) -> owners ──▶ Days of an item ──sum over the window──▶ Rankings: overall, and by category,
//!                                                                             separate by visibility
//! ```
//!
//! The rankings are always exact: a changed row moves its item by the difference, a new day sums again.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kindred_model::records::Visibility;
use kindred_model::{Day, Kind};

use super::visibility::LEVELS;

/// The default window: short enough to follow a season, long enough for a small shop.
pub const DAYS_DEFAULT: u32 = 30;
/// The default kind, also used for filling: purchases.
pub const KIND_DEFAULT: Kind = Kind::Purchase;

/// The owners of one item by kind and day, sorted. 12 bytes a row of the view. A clone shares them until they change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Days(Arc<Vec<(Kind, Day, u32)>>);

impl Days {
    /// Sets a row (0 removes it) and returns its old value.
    pub fn set(&mut self, kind: Kind, day: Day, owners: u64) -> u64 {
        // More than there are people.
        let owners = u32::try_from(owners).unwrap_or(u32::MAX);
        match self.0.binary_search_by_key(&(kind, day), |&(kind, day, _)| (kind, day)) {
            Ok(at) if owners == 0 => u64::from(Arc::make_mut(&mut self.0).remove(at).2),
            Ok(at) => u64::from(std::mem::replace(&mut Arc::make_mut(&mut self.0)[at].2, owners)),
            Err(_) if owners == 0 => 0,
            Err(at) => {
                Arc::make_mut(&mut self.0).insert(at, (kind, day, owners));
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
type RankKey = (Reverse<u64>, Arc<str>, u32);

/// Items by the owners of the window, most first.
#[derive(Debug, Default)]
struct Ranking {
    entries: BTreeSet<RankKey>,
    /// The version that last changed it.
    changed: u64,
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
}

/// The rankings of items of one visibility.
#[derive(Debug, Default)]
struct Group {
    /// Of all its items.
    overall: Ranking,
    /// By category: an item counts in each prefix of its path, joined by `/`.
    by_category: HashMap<Arc<str>, Ranking>,
    /// The greatest version of the categories that are empty again.
    emptied: u64,
}

impl Group {
    fn ranking(&self, category: Option<&str>) -> Option<&Ranking> {
        category.map_or(Some(&self.overall), |category| self.by_category.get(category))
    }
}

/// An item in the rankings.
pub(crate) struct Ranked<'a> {
    /// Its id.
    pub id: &'a Arc<str>,
    /// Its index in this memory.
    pub index: u32,
    /// Who may see it.
    pub visibility: Visibility,
    /// Every prefix of its category path.
    pub categories: &'a [Arc<str>],
}

/// The rankings of [`KIND_DEFAULT`] over the [`DAYS_DEFAULT`] days that end with a day, of offered items with owners. Each
/// visibility has its own, and a reader merges those up to its level: SVIP items cost other readers nothing.
#[derive(Debug, Default)]
pub(crate) struct Rankings {
    groups: [Group; LEVELS],
}

impl Rankings {
    /// Empty, as of a version.
    pub fn emptied(version: u64) -> Self {
        let mut rankings = Self::default();
        for group in &mut rankings.groups {
            group.overall.changed = version;
            group.emptied = version;
        }
        rankings
    }

    /// Moves an item from one sum to another, overall and in its categories.
    pub fn moved(&mut self, item: &Ranked<'_>, from: u64, to: u64, version: u64) {
        if from == to {
            return;
        }
        let group = &mut self.groups[item.visibility as usize];
        group.overall.moved(item.id, item.index, from, to, version);
        for category in item.categories {
            let ranking = group.by_category.entry(category.clone()).or_default();
            ranking.moved(item.id, item.index, from, to, version);
            if ranking.entries.is_empty() {
                group.by_category.remove(category);
                group.emptied = version;
            }
        }
    }

    /// (item's index, owners) of a category, or of all, up to a level; most owners first.
    pub fn best_first(&self, level: Visibility, category: Option<&str>) -> impl Iterator<Item = (u32, u64)> + '_ {
        let rankings = self.groups[..=level as usize].iter().filter_map(|group| group.ranking(category));
        let mut sources: Vec<_> = rankings.map(|ranking| ranking.entries.iter().peekable()).collect();
        std::iter::from_fn(move || {
            let heads = sources.iter_mut().enumerate().filter_map(|(at, source)| source.peek().map(|entry| (*entry, at)));
            let (_, at) = heads.min()?;
            sources[at].next().map(|(Reverse(owners), _, index)| (*index, *owners))
        })
    }

    /// The last version that changed a ranking, as visible to a level: of a category, or of all items.
    pub fn changed(&self, level: Visibility, category: Option<&str>) -> u64 {
        let groups = self.groups[..=level as usize].iter();
        let changed = groups.map(|group| group.ranking(category).map_or(group.emptied, |ranking| ranking.changed));
        changed.max().unwrap_or_default()
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
        let ids: Vec<Arc<str>> = ["y", "x", "z", "v"].into_iter().map(Into::into).collect();
        let item = |index: usize, visibility, depth: usize| Ranked {
            id: &ids[index],
            index: u32::try_from(index).unwrap(),
            visibility,
            categories: &categories[..depth],
        };
        rankings.moved(&item(0, Visibility::Public, 2), 0, 5, 1);
        rankings.moved(&item(1, Visibility::Public, 1), 0, 5, 2);
        rankings.moved(&item(2, Visibility::Public, 0), 0, 9, 3);
        rankings.moved(&item(3, Visibility::Vip, 1), 0, 7, 4);
        let best = |rankings: &Rankings, level, category| {
            rankings.best_first(level, category).map(|(index, _)| index).collect::<Vec<_>>()
        };
        assert_eq!(best(&rankings, Visibility::Public, None), [2, 1, 0]);
        assert_eq!(best(&rankings, Visibility::Registered, None), [2, 1, 0]);
        assert_eq!(best(&rankings, Visibility::Vip, None), [2, 3, 1, 0], "levels are merged");
        assert_eq!(best(&rankings, Visibility::Svip, Some("a")), [3, 1, 0]);
        assert_eq!((rankings.changed(Visibility::Public, None), rankings.changed(Visibility::Vip, None)), (3, 4));
        rankings.moved(&item(0, Visibility::Public, 2), 5, 0, 5);
        assert!(best(&rankings, Visibility::Svip, Some("a/b")).is_empty());
        let changed = |category| rankings.changed(Visibility::Public, Some(category));
        assert_eq!((changed("a/b"), changed("a"), changed("never")), (5, 5, 5));
    }
}
