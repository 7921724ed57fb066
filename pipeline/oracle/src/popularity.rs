//! `popularity` by brute force: the set of (owner, key), counted.

use std::collections::{BTreeMap, HashSet};

use kindred_model::views::popularity::Popularity;
use kindred_model::{Day, ItemId, Kind, Semantics};

use crate::inputs::Who;
use crate::tables::Tables;
use crate::{Inputs, Recomputed};

/// The number of owners by (item, kind, day).
pub fn popularity(inputs: &Inputs) -> BTreeMap<(ItemId, Kind, Day), u64> {
    let mut deeds: HashSet<(Who<'_>, &ItemId, Kind, Day)> = HashSet::new();
    inputs.unhidden(|who, item, kind, day, _at| {
        deeds.insert((who, item, kind, day));
    });
    inputs.bought(|who, order, item| {
        deeds.insert((who, item, Kind::Purchase, order.placed_at.day()));
    });
    let mut counts = BTreeMap::new();
    for (_who, item, kind, day) in deeds {
        *counts.entry((item.clone(), kind, day)).or_default() += 1;
    }
    counts
}

impl Recomputed for Popularity {
    /// The view's table.
    fn recompute(inputs: &Inputs, _semantics: &Semantics) -> Tables {
        Tables::of::<Popularity>(popularity(inputs))
    }
}
