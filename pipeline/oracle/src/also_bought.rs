//! `also_bought` by brute force: every basket, every pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kindred_model::settings::{Owners, Similarity};
use kindred_model::similarity::{SupportGrid, rank_key};
use kindred_model::views::also_bought::{AlsoBought, Lists, Neighbors, Supports, baskets_key};
use kindred_model::{EventTime, ItemId, Kind, Semantics};

use crate::inputs::{Sort, Who};
use crate::tables::Tables;
use crate::{Inputs, Recomputed};

/// The rows of both tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AlsoBoughtRows {
    /// The N best neighbours of each item that has any.
    pub lists: BTreeMap<ItemId, Vec<(ItemId, u64)>>,
    /// In how many baskets each item is; under the empty item the number of baskets.
    pub supports: BTreeMap<ItemId, u64>,
}

/// Lists and supports of what owners bought. An item's time is the latest of its counting lines' `placed_at` and its unhidden
/// purchases' `at`; a basket is an owner's `window` most recent items, and a guest's order an owner of its own.
pub fn also_bought(inputs: &Inputs, settings: &Similarity) -> AlsoBoughtRows {
    let mut held: HashMap<Who<'_>, HashMap<&str, EventTime>> = HashMap::new();
    let counts = |who: Who<'_>| settings.owners == Owners::All || who.0 == Sort::Member;
    let mut hold = |who, item, at| {
        let latest = held.entry(who).or_default().entry(item).or_insert(at);
        *latest = at.max(*latest);
    };
    inputs.unhidden(|who, item, kind, _day, at| {
        if kind == Kind::Purchase && counts(who) {
            hold(who, item.as_str(), at);
        }
    });
    inputs.bought(|who, order, item| {
        if counts(who) {
            hold(who, item.as_str(), order.placed_at);
        }
    });

    // Numbers that order as the items' bytes do.
    let items: Vec<&str> = held.values().flat_map(|basket| basket.keys().copied()).collect::<BTreeSet<_>>().into_iter().collect();
    let number: HashMap<&str, usize> = items.iter().enumerate().map(|(number, item)| (*item, number)).collect();
    let baskets: Vec<Vec<usize>> = held
        .into_values()
        .map(|basket| {
            let mut sequence: Vec<(EventTime, usize)> = basket.into_iter().map(|(item, at)| (at, number[item])).collect();
            sequence.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            sequence.truncate(settings.window);
            sequence.into_iter().map(|(_, item)| item).collect()
        })
        .collect();

    // Each item's positions: (basket, position). Their number is n(i).
    let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); items.len()];
    for (basket, sequence) in baskets.iter().enumerate() {
        for (place, &item) in sequence.iter().enumerate() {
            places[item].push((basket, place));
        }
    }

    let id = |item: usize| ItemId::trusted(items[item].to_owned());
    let mut rows = AlsoBoughtRows::default();
    if !baskets.is_empty() {
        rows.supports.insert(baskets_key(), baskets.len() as u64);
    }
    let grid = SupportGrid::new(settings.support_rounding);
    let least = u64::from(settings.min_support) * settings.pair_weight.unit();
    let mut c = vec![0u64; items.len()];
    for i in 0..items.len() {
        if places[i].is_empty() {
            continue;
        }
        rows.supports.insert(id(i), places[i].len() as u64);
        let mut met = BTreeSet::new();
        for &(basket, place) in &places[i] {
            for (other, &j) in baskets[basket].iter().enumerate().filter(|(_, j)| **j != i) {
                c[j] += settings.pair_weight.of(place, other);
                met.insert(j);
            }
        }
        let mut list: Vec<(f64, usize, u64)> = met
            .iter()
            .filter(|j| c[**j] >= least)
            .map(|&j| (rank_key(settings.popularity_damping, c[j], grid.round(places[j].len() as u64)), j, c[j]))
            .collect();
        list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        list.truncate(settings.top);
        if !list.is_empty() {
            rows.lists.insert(id(i), list.into_iter().map(|(_, j, c)| (id(j), c)).collect());
        }
        for j in met {
            c[j] = 0;
        }
    }
    rows
}

impl Recomputed for AlsoBought {
    /// The view's tables.
    fn recompute(inputs: &Inputs, semantics: &Semantics) -> Tables {
        let rows = also_bought(inputs, &semantics.views.also_bought);
        let mut tables = Tables::of::<Lists>(rows.lists.into_iter().map(|(item, list)| (item, Neighbors(list))));
        tables.extend(Tables::of::<Supports>(rows.supports));
        tables
    }
}
