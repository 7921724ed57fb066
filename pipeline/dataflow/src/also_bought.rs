//! `also_bought` in plain differential: stands in until the operators of the hot path are merged.

use std::cmp::Reverse;
use std::sync::Arc;

use differential_dataflow::VecCollection;
use kindred_model::intern::{Item, Party};
use kindred_model::settings::Similarity;
use kindred_model::similarity::{SupportGrid, rank_key};
use timely::dataflow::StreamVec;

use crate::output::upserts;
use crate::update::Stats;

/// Rows of the view's tables that changed, one a key and epoch.
pub struct SimilarityRows<'s> {
    /// Lists.
    pub lists: StreamVec<'s, u64, (Item, Option<Box<[(Item, u64)]>>)>,
    /// Supports; under `None` the number of baskets.
    pub supports: StreamVec<'s, u64, (Option<Item>, Option<u64>)>,
}

/// See the model.
pub fn also_bought<'s>(
    held: VecCollection<'s, u64, (Party, (Item, i64)), isize>,
    settings: &Similarity,
    _stats: &Arc<Stats>,
) -> SimilarityRows<'s> {
    let (window, weight, top) = (settings.window, settings.pair_weight, settings.top);
    let least = u64::from(settings.min_support) * weight.unit();
    let damping = settings.popularity_damping;
    let grid = SupportGrid::new(settings.support_rounding);
    let recent = held.reduce_named("Recent", move |_owner, input, output| {
        let mut latest: Vec<(Reverse<i64>, &'static str, Item)> = Vec::new();
        for group in input.chunk_by(|a, b| a.0.0 == b.0.0) {
            if let Some((held, _)) = group.iter().rev().find(|(_, diff)| *diff > 0) {
                latest.push((Reverse(held.1), held.0.as_str(), held.0));
            }
        }
        latest.sort_unstable();
        for (place, (_, _, item)) in latest.into_iter().take(window).enumerate() {
            output.push(((item, place as u64), 1isize));
        }
    });
    let by_owner = recent.clone().arrange_by_key_named("Recent by owner");
    let pairs = by_owner.clone().join_core(by_owner, |_owner, &(i, a), &(j, b)| (i != j).then_some((i, j, a, b)));
    let pairs = pairs.explode(move |(i, j, a, b)| Some(((i, j), weight.of(a as usize, b as usize) as isize)));
    let n = recent.clone().explode(|(_, (item, _))| Some((item, 1isize))).count();
    let counts = pairs.count().map(|((i, j), c)| (j, (i, c)));
    let lists = counts.join_map(n.clone(), |&j, &(i, c), &n| (i, (j, c, n))).reduce_named("Lists", move |_i, input, output| {
        let mut keyed: Vec<(Reverse<u64>, &'static str, Item, u64)> = input
            .iter()
            .filter(|((_, c, _), _)| *c as u64 >= least)
            .map(|((j, c, n), _)| {
                (Reverse(rank_key(damping, *c as u64, grid.round(*n as u64)).to_bits()), j.as_str(), *j, *c as u64)
            })
            .collect();
        keyed.sort_unstable();
        let list: Vec<(Item, u64)> = keyed.into_iter().take(top).map(|(_, _, j, c)| (j, c)).collect();
        if !list.is_empty() {
            output.push((list.into_boxed_slice(), 1isize));
        }
    });
    let baskets = recent.map(|(owner, _)| owner).distinct().map(|_| None::<Item>).count();
    let supports = n.map(|(item, n)| (Some(item), n as u64)).concat(baskets.map(|(none, n)| (none, n as u64)));
    SimilarityRows { lists: upserts(lists, "Lists"), supports: upserts(supports, "Supports") }
}
