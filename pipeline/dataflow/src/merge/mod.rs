//! Merging: records in any order and multiplicity become the merged inputs (docs/ARCHITECTURE.md, rule 1).
//!
//! Custom operators, keyed by natural key. Each emits an epoch's net changes: the rows of its table, and the facts added and
//! retracted.

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

/// Buffers inputs by epoch, routing equal `route`s to one worker, and passes each complete epoch to `close`, in epoch order.
/// `close` emits at that epoch.
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
