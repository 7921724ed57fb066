//! `also_bought`: the items most often bought by the owners who bought an item.
//!
//! ```text
//! unhidden purchases, counting order lines ──▶ baskets (K most recent items an owner) ──▶ similar ──▶ lists, supports
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use kindred_model::Kind;
use kindred_model::intern::{Item, Party};
use kindred_model::settings::{Owners, Similarity};
use kindred_model::similarity::PairWeight;
use kindred_model::views::also_bought::{AlsoBought, Lists, Neighbors, Supports, baskets_key};

use crate::baskets::{Order, baskets};
use crate::collections::{Collections, Maintained};
use crate::output::Sink;
pub use crate::similar::SimilarityRows;
use crate::similar::{Tuning, similar};
use crate::update::Stats;

impl Maintained for AlsoBought {
    fn maintain(from: &Collections<'_>, settings: &Similarity, sink: &Sink) {
        let ordered = from.order_lines().map(|(owner, line)| (owner, (line.item, line.placed_at)));
        let purchases =
            from.interactions().flat_map(|(owner, fact)| (fact.kind == Kind::Purchase).then_some((owner, (fact.item, fact.at))));
        let SimilarityRows { lists, supports } = also_bought(purchases.concat(ordered), settings, from.stats());
        sink.rows::<Lists, _>(lists, |(item, list)| {
            let neighbors = list.as_ref().map(|list| Neighbors(list.iter().map(|(item, c)| (item.id(), *c)).collect()));
            (item.id(), neighbors)
        });
        sink.rows::<Supports, _>(supports, |(item, support)| (item.map_or_else(baskets_key, Item::id), *support));
    }
}

/// Similarity lists over baskets. `held` is a multiset of (owner, (item, at ms)): every unhidden purchase and every counting
/// order line; a guest's order is an owner of its own. An item's time in a basket is the greatest `at` with a positive count. An
/// item without one leaves the basket, and its pairs are retracted.
pub fn also_bought<'s>(
    held: VecCollection<'s, u64, (Party, (Item, i64)), isize>,
    settings: &Similarity,
    stats: &Arc<Stats>,
) -> SimilarityRows<'s> {
    also_bought_tuned(held, settings, Tuning::default(), stats)
}

/// [`also_bought`] with tuning parameters that reach no result, for tests.
pub fn also_bought_tuned<'s>(
    held: VecCollection<'s, u64, (Party, (Item, i64)), isize>,
    settings: &Similarity,
    tuning: Tuning,
    stats: &Arc<Stats>,
) -> SimilarityRows<'s> {
    let held = match settings.owners {
        Owners::All => held,
        Owners::Members => held.filter(|(owner, _)| owner.is_member()),
    };
    let order = match settings.pair_weight {
        PairWeight::Count => Order::Set,
        PairWeight::Distance => Order::Sequence,
    };
    similar(baskets(held, settings.window, order), settings, tuning, stats)
}
