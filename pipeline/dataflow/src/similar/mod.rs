//! Similar items, live: co-counts and ranked lists, as two custom operators, sharded by item.
//!
//! ```text
//! basket deltas ──Exchange(worker)──▶ [Rows]  stage 1: own rows and lists under the old q; whose q changed?
//! net n(item)         to all            │ (worker, (j, lists that may hold j)) and "settle" to oneself
//!                                       ▼ Exchange(worker)
//!                                     [Lists] stage 2: the new q; each touched list settles once ──▶ lists, supports
//! ```
//!
//! Differential's `reduce` reads a whole group again at each change, here a row of hundreds of pairs for one; these operators
//! edit it in place. [`reference`](crate::reference) has the same view in plain differential.
//!
//! The two stages of a worker share its state. An epoch is complete at stage 2 when its frontier has passed it: then every
//! worker's stage 1 is done with it. A worker's stage 1 starts the next epoch only when its own stage 2 has settled this one.
//! That is no cycle, for stage 1 waits for nothing of its own epoch.

mod epoch;
mod labels;
mod list;
mod prefetch;
mod row;
mod state;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kindred_model::intern::Item;
use kindred_model::settings::Similarity;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};
use timely::scheduling::Activator;

use crate::baskets::{Addressed, Change};
use crate::update::Stats;
use state::{Figures, Shard};

/// A list: (neighbour, c), best first.
pub type Neighbours = Box<[(Item, u64)]>;

/// The changed rows of a similarity view.
pub struct SimilarityRows<'s> {
    /// (item, its N best neighbours (neighbour, c) in list order, or `None` when its list is deleted); at most one per item and
    /// epoch.
    pub lists: StreamVec<'s, u64, (Item, Option<Neighbours>)>,
    /// (item, n(item), or `None` for zero); the key `None` holds B, the number of baskets.
    pub supports: StreamVec<'s, u64, (Option<Item>, Option<u64>)>,
}

/// Parameters that trade time for space and reach no result.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Candidates kept beyond N when a list is filled from its row. More make refills rarer and each settling dearer; between 10
    /// and 15 both are small.
    pub slack: usize,
    /// An epoch of more pair updates than this, and than half the pairs held, rebuilds all lists instead of editing them: some
    /// thirty times faster in a bulk load.
    pub rebuild_from: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { slack: 12, rebuild_from: 100_000 }
    }
}

/// A message from stage 1 to stage 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Notice {
    /// To the sender's own stage 2: there is an epoch to settle.
    Settle,
    /// q(n(item)) changed; these lists of the receiver may hold the item.
    Crossed { item: Item, holders: Box<[Item]> },
}

/// Shared by the two stages of a worker.
struct Stages {
    shard: RefCell<Shard>,
    /// Stage 1 has processed an epoch that stage 2 has not settled.
    settling: Cell<bool>,
    /// Wakes stage 1.
    resume: OnceCell<Activator>,
}

/// The lists and supports of a similarity view. Keeps c of every directed pair of items in a basket, at 9 to 12 bytes a pair, and
/// some N + 12 candidates per item. A removed basket lowers its pairs; a pair at zero is deleted.
pub fn similar<'s>(
    changes: StreamVec<'s, u64, Addressed<Change>>,
    settings: &Similarity,
    tuning: Tuning,
    stats: &Arc<Stats>,
) -> SimilarityRows<'s> {
    let scope = changes.scope();
    let shard = Shard::new(settings, tuning, scope.index(), scope.peers());
    let stages = Rc::new(Stages { shard: RefCell::new(shard), settling: Cell::new(false), resume: OnceCell::new() });
    let notices = rows(changes, Rc::clone(&stages));
    lists(notices, stages, Arc::clone(stats))
}

/// Stage 1.
fn rows<'s>(changes: StreamVec<'s, u64, Addressed<Change>>, stages: Rc<Stages>) -> StreamVec<'s, u64, Addressed<Notice>> {
    let scope = changes.scope();
    let worker = scope.index() as u64;
    let by_worker = Exchange::new(|(worker, _): &Addressed<Change>| *worker);
    changes.unary_frontier(by_worker, "Rows", move |_capability, info| {
        stages.resume.get_or_init(|| scope.activator_for(info.address));
        let mut open: BTreeMap<u64, (Capability<u64>, Vec<Addressed<Change>>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, data| {
                // All messages of an operator call carry one time.
                let Some(capability) = capability.retain_least(0) else { return };
                open.entry(*capability.time()).or_insert_with(|| (capability, Vec::new())).1.append(data);
            });
            while !stages.settling.get()
                && let Some(first) = open.first_entry()
                && !frontier.less_equal(first.key())
            {
                let (capability, changes) = first.remove();
                let mut session = output.session(&capability);
                stages.shard.borrow_mut().take_in(&changes, |notice| session.give(notice));
                session.give((worker, Notice::Settle));
                stages.settling.set(true);
            }
        }
    })
}

/// The notices of an epoch so far.
struct Notices {
    lists: Capability<u64>,
    supports: Capability<u64>,
    crossed: Vec<(Item, Box<[Item]>)>,
}

/// Stage 2.
fn lists<'s>(notices: StreamVec<'s, u64, Addressed<Notice>>, stages: Rc<Stages>, stats: Arc<Stats>) -> SimilarityRows<'s> {
    let mut builder = OperatorBuilder::new("Lists".to_owned(), notices.scope());
    let mut input = builder.new_input(notices, Exchange::new(|(worker, _): &Addressed<Notice>| *worker));
    let (lists_output, lists) = builder.new_output();
    let (supports_output, supports) = builder.new_output();
    builder.build(move |_capabilities| {
        let mut lists_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(lists_output);
        let mut supports_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(supports_output);
        let mut open: BTreeMap<u64, Notices> = BTreeMap::new();
        let mut published = Figures::default();
        move |frontiers| {
            input.for_each(|capability, data| {
                let Some(&epoch) = capability.least() else { return };
                let notices = open.entry(epoch).or_insert_with(|| Notices {
                    lists: capability.delayed(&epoch, 0),
                    supports: capability.delayed(&epoch, 1),
                    crossed: Vec::new(),
                });
                notices.crossed.extend(data.drain(..).filter_map(|(_, notice)| match notice {
                    Notice::Settle => None,
                    Notice::Crossed { item, holders } => Some((item, holders)),
                }));
            });
            let (mut lists_output, mut supports_output) = (lists_output.activate(), supports_output.activate());
            while let Some(first) = open.first_entry()
                && !frontiers[0].less_equal(first.key())
            {
                let notices = first.remove();
                let mut shard = stages.shard.borrow_mut();
                for (item, holders) in &notices.crossed {
                    shard.hear(*item, holders);
                }
                let mut lists = lists_output.session(&notices.lists);
                let mut supports = supports_output.session(&notices.supports);
                shard.settle(|item, list| lists.give((item, list)), |item, support| supports.give((item, support)));
                publish(&stats, &mut published, shard.figures());
                stages.settling.set(false);
                if let Some(resume) = stages.resume.get() {
                    resume.activate();
                }
            }
        }
    });
    SimilarityRows { lists, supports }
}

/// Updates the shared counters with a worker's.
fn publish(stats: &Stats, published: &mut Figures, now: Figures) {
    let set = |figure, before: u64, now: u64| {
        Stats::add(figure, now.saturating_sub(before));
        Stats::sub(figure, before.saturating_sub(now));
    };
    set(&stats.pairs, published.pairs, now.pairs);
    set(&stats.similarity_bytes, published.bytes, now.bytes);
    set(&stats.pair_updates, published.updates, now.updates);
    set(&stats.lists_changed, published.lists_changed, now.lists_changed);
    *published = now;
}
