//! The similarity views in plain differential: the executable specification, and the baseline that the bench compares with.
//!
//! ```text
//! held ──reduce──▶ baskets (owner, (item, place)) ──self-join──▶ co-counts ((j, i), c in the diff)
//!                    │                                              │ join on j
//!                    └── count ──▶ supports n(j) ──▶ q(n(j)) ───────┴──▶ (i, (j, q)) ──reduce──▶ lists
//! ```

mod baskets;
mod cooccurrences;
mod top_n;

use differential_dataflow::VecCollection;
use kindred_model::intern::{Item, Party};
use kindred_model::settings::{Owners, Similarity};
use kindred_model::similarity::SupportGrid;

/// A list: (neighbour, c), best first.
pub type Neighbours = Vec<(Item, u64)>;

/// What [`also_bought`](crate::also_bought::also_bought) maintains, as collections.
pub struct Reference<'s> {
    /// (item, its N best neighbours (neighbour, c) in list order).
    pub lists: VecCollection<'s, u64, (Item, Neighbours), isize>,
    /// (item, n(item)).
    pub supports: VecCollection<'s, u64, (Item, u64), isize>,
    /// B; no row for zero.
    pub baskets: VecCollection<'s, u64, u64, isize>,
}

/// The same view from the same multiset. Arranges `held` and the baskets by owner, the co-counts by j and by i, and the supports.
/// NB: in one process only, because differential's own exchange hashes interned numbers, which differ between processes.
pub fn also_bought<'s>(held: VecCollection<'s, u64, (Party, (Item, i64)), isize>, settings: &Similarity) -> Reference<'s> {
    let held = match settings.owners {
        Owners::All => held,
        Owners::Members => held.filter(|(owner, _)| owner.is_member()),
    };
    let baskets = baskets::baskets(held, settings.window, settings.pair_weight);
    let by_owner = baskets.clone().arrange_by_key_named("Baskets by owner");
    let cooccurrences = cooccurrences::cooccurrences(by_owner, settings.pair_weight);
    let supports = baskets.clone().map(|(_owner, (item, _place))| item).count().map(|(item, n)| (item, n as u64));
    let grid = SupportGrid::new(settings.support_rounding);
    let rounded = supports.clone().map(move |(item, n)| (item, grid.round(n)));
    Reference {
        lists: top_n::top_n(cooccurrences, rounded, settings),
        supports,
        baskets: baskets.map(|(owner, _)| owner).distinct().map(|_owner| ()).count().map(|((), owners)| owners as u64),
    }
}
