//! Baskets: the K most recent items of each owner.

use differential_dataflow::VecCollection;
use kindred_model::intern::{Item, Party};
use kindred_model::similarity::PairWeight;

/// (owner, (item, position in the window)), latest first, then item bytes. Where only sets count every position is 0, so that an
/// item that moves within the window changes nothing.
pub(super) fn baskets<'s>(
    held: VecCollection<'s, u64, (Party, (Item, i64)), isize>,
    window: usize,
    weight: PairWeight,
) -> VecCollection<'s, u64, (Party, (Item, u64)), isize> {
    held.reduce_named("Baskets", move |_owner, facts, output| {
        // Facts arrive by item and time, so the last of an item is its latest.
        let latest = facts
            .chunk_by(|(a, _), (b, _)| a.0 == b.0)
            .filter_map(|of_item| of_item.iter().rev().find(|(_, count)| *count > 0).map(|(fact, _)| **fact));
        let mut latest: Vec<(Item, i64)> = latest.collect();
        latest.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_str().cmp(b.0.as_str())));
        output.extend((0u64..).zip(latest.iter().take(window)).map(|(place, &(item, _))| {
            let place = if weight == PairWeight::Count { 0 } else { place };
            ((item, place), 1)
        }));
    })
}
