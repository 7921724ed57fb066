//! Co-occurrence: for every two items, the summed weights of the baskets that hold both.

use differential_dataflow::VecCollection;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::ValSpine;
use kindred_model::intern::{Item, Party};
use kindred_model::similarity::PairWeight;

type Baskets<'s> = Arranged<'s, TraceAgent<ValSpine<Party, (Item, u64), u64, isize>>>;

/// (j, i) with c(i, j) as its multiplicity, in both directions. A removed basket retracts its weights; the work is quadratic in
/// the window.
pub(super) fn cooccurrences<'s>(baskets: Baskets<'s>, weight: PairWeight) -> VecCollection<'s, u64, (Item, Item), isize> {
    baskets.clone().join_core(baskets, |_owner, &(j, at), &(i, other)| (i != j).then_some((j, i, at, other))).explode(
        move |(j, i, at, other)| {
            let c = match weight {
                PairWeight::Count => 1,
                // Two items share a position only across a change of the basket; such meetings cancel out.
                PairWeight::Distance if at == other => 0,
                PairWeight::Distance => weight.of(at as usize, other as usize) as isize,
            };
            (c != 0).then_some(((j, i), c))
        },
    )
}
