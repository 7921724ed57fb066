//! Ranked lists: the N best neighbours of each item.

use differential_dataflow::VecCollection;
use kindred_model::intern::Item;
use kindred_model::settings::Similarity;
use kindred_model::similarity::rank_key;

use super::Neighbours;

/// The N best j of each i with enough support, by the rank key of c and q(n(j)), then item bytes. An item that loses its last
/// neighbour loses its row.
///
/// Ranks a whole group again when one member of it changes, which the operators of the hot path avoid; this is their
/// specification.
pub(super) fn top_n<'s>(
    cooccurrences: VecCollection<'s, u64, (Item, Item), isize>,
    rounded: VecCollection<'s, u64, (Item, u64), isize>,
    settings: &Similarity,
) -> VecCollection<'s, u64, (Item, Neighbours), isize> {
    let (damping, top) = (settings.popularity_damping, settings.top);
    let least = u64::from(settings.min_support) * settings.pair_weight.unit();
    let cooccurrences = cooccurrences.arrange_by_key_named("Co-counts by j");
    let rounded = rounded.arrange_by_key_named("Rounded supports");
    cooccurrences.join_core(rounded, |&j, &i, &q| Some((i, (j, q)))).reduce_named("TopN", move |_item, row, output| {
        let supported = row.iter().map(|&(&(j, q), c)| (j, q, c as u64)).filter(|&(_, _, c)| c >= least);
        let mut ranked: Vec<(f64, Item, u64)> = supported.map(|(j, q, c)| (rank_key(damping, c, q), j, c)).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.as_str().cmp(b.1.as_str())));
        ranked.truncate(top);
        if !ranked.is_empty() {
            output.push((ranked.into_iter().map(|(_, j, c)| (j, c)).collect(), 1));
        }
    })
}
