//! Merging: records in any order, as often as they come, become the merged inputs (DESIGN, rule 1).
//!
//! Operators of our own, keyed by natural key. Each gives the rows of its table that changed, and the facts that came and went,
//! net of the epoch.

pub mod interactions;
pub mod ledger;
pub(crate) mod owner;
pub(crate) mod subject;
pub mod versioned;

use std::collections::BTreeMap;

use timely::ExchangeData;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

/// Gathers inputs by epoch, all of one `route` on one worker, and gives those of each epoch to `close` once no more of it can come, in the
/// order of the epochs. What `close` gives leaves at that epoch.
fn by_epoch<'s, D: ExchangeData, O: Clone + 'static>(
    inputs: StreamVec<'s, u64, D>,
    route: impl Fn(&D) -> u64 + 'static,
    name: &str,
    mut close: impl FnMut(u64, Vec<D>, &mut dyn FnMut(O)) + 'static,
) -> StreamVec<'s, u64, O> {
    inputs.unary_frontier(Exchange::new(route), name, move |_capability, _info| {
        let mut open: BTreeMap<u64, (Capability<u64>, Vec<D>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, data| {
                let Some(capability) = capability.retain_least(0) else { return };
                open.entry(*capability.time()).or_insert_with(|| (capability, Vec::new())).1.append(data);
            });
            while let Some(entry) = open.first_entry() {
                if frontier.less_equal(entry.key()) {
                    return;
                }
                let (capability, inputs) = entry.remove();
                let mut session = output.session(&capability);
                close(*capability.time(), inputs, &mut |given| session.give(given));
            }
        }
    })
}
