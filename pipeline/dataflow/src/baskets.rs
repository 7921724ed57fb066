//! Baskets: the K most recent items of each owner, and how they change.
//!
//! ```text
//! (owner, (item, at)) ±1 ──Exchange(owner)──▶ [Baskets] ──▶ one delta (old basket, new basket) per owner and epoch, to every
//!                                                            worker that has an item of it; net changes of n(item) to all
//! ```
//!
//! A change travels as one delta, not as pairs: a new item beside 49 others would be 196 pair updates.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use differential_dataflow::VecCollection;
use kindred_model::intern::{Item, Party};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::invariant::violated;

/// Entries above which an owner's multiset gets indexes. Below, one sorted array is smaller and faster.
const LARGE: usize = 256;

/// Whether readers depend on the order of a basket's items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// A set; its order means nothing.
    Set,
    /// A sequence: latest first, then item bytes ascending.
    Sequence,
}

/// A basket's change over an epoch. The two differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// Before.
    pub old: Arc<[Item]>,
    /// After.
    pub new: Arc<[Item]>,
}

/// A change of an epoch, sent to a worker of the similarity operators.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A changed basket that holds an item of the receiver.
    Basket(Delta),
    /// n(item) changed by this much among the sender's baskets. Sent to every worker.
    Support(Item, i64),
    /// The number of baskets changed by this much. Sent to worker 0.
    Baskets(i64),
}

/// A message with its destination worker.
pub type Addressed<T> = (u64, T);

/// The worker, of `peers`, that owns an item's row and list.
pub fn worker_of(item: Item, peers: usize) -> usize {
    (item.shard_hash() % peers as u64) as usize
}

/// Changes of the baskets of each owner's `window` most recent items. `held` is a multiset of (owner, (item, at)): an item is in
/// the basket at the greatest `at` with a positive count, and leaves it with the last. An epoch's diffs are applied in any order.
/// Keeps the multiset and the basket: about 16 bytes per entry and 4 per item.
pub fn baskets<'s>(
    held: VecCollection<'s, u64, (Party, (Item, i64)), isize>,
    window: usize,
    order: Order,
) -> StreamVec<'s, u64, Addressed<Change>> {
    let peers = held.scope().peers();
    let by_owner = Exchange::new(|((owner, _), _, _): &((Party, (Item, i64)), u64, isize)| owner.shard_hash());
    held.inner.unary_frontier(by_owner, "Baskets", move |_capability, _info| {
        let mut owners = Owners::new(window, order, peers);
        let mut open: BTreeMap<u64, (Capability<u64>, Vec<Difference>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|capability, data| {
                // A message's diffs may have later epochs than the message.
                for ((owner, (item, at)), epoch, diff) in data.drain(..) {
                    let opened = open.entry(epoch).or_insert_with(|| (capability.delayed(&epoch, 0), Vec::new()));
                    opened.1.push((owner, item, at, diff));
                }
            });
            while let Some(mut first) = open.first_entry() {
                let epoch = *first.key();
                if frontier.less_than(&epoch) {
                    break;
                }
                // No earlier epoch can come, so apply at once and keep the buffer small.
                for (owner, item, at, diff) in first.get_mut().1.drain(..) {
                    owners.apply(owner, item, at, diff);
                }
                if frontier.less_equal(&epoch) {
                    break;
                }
                let (capability, _) = first.remove();
                let mut session = output.session(&capability);
                owners.close(|worker, change| session.give((worker, change)));
            }
        }
    })
}

type Difference = (Party, Item, i64, isize);

/// The baskets of a worker's owners.
struct Owners {
    window: usize,
    order: Order,
    peers: usize,
    holdings: FxHashMap<Party, Holding>,
    /// Owners with diffs in the open epoch.
    touched: Vec<Party>,
    /// Changes of n in the epoch.
    supports: FxHashMap<Item, i64>,
    /// Scratch: an owner's items with their times.
    times: Vec<(i64, Item)>,
    /// The worker of each item number, cached: it takes a hash of the item's text.
    workers: Vec<Option<u32>>,
}

#[derive(Default)]
struct Holding {
    entries: Entries,
    basket: Arc<[Item]>,
    touched: bool,
}

impl Owners {
    fn new(window: usize, order: Order, peers: usize) -> Self {
        let (holdings, touched, supports, times, workers) = Default::default();
        Self { window, order, peers, holdings, touched, supports, times, workers }
    }

    fn apply(&mut self, owner: Party, item: Item, at: i64, diff: isize) {
        let holding = self.holdings.entry(owner).or_default();
        if !holding.touched {
            holding.touched = true;
            self.touched.push(owner);
        }
        let count = i32::try_from(diff).expect("fewer than 2^31 equal facts");
        match &mut holding.entries {
            Entries::Small(small) => small.push(Entry { item, at, count }),
            Entries::Large(large) => large.apply(Entry { item, at, count }),
        }
    }

    /// Closes the epoch: compares each touched owner's basket with the one before.
    fn close(&mut self, mut give: impl FnMut(u64, Change)) {
        let mut count_change = 0;
        let mut told = vec![false; self.peers];
        for owner in std::mem::take(&mut self.touched) {
            let Some(holding) = self.holdings.get_mut(&owner) else { continue };
            holding.touched = false;
            holding.entries.settle();
            holding.entries.latest(self.window, self.order, &mut self.times);
            let same = self.times.len() == holding.basket.len()
                && self.times.iter().zip(&*holding.basket).all(|((_, item), other)| item == other);
            if !same {
                let new: Arc<[Item]> = self.times.iter().map(|&(_, item)| item).collect();
                let old = std::mem::replace(&mut holding.basket, Arc::clone(&new));
                count_change += i64::from(!new.is_empty()) - i64::from(!old.is_empty());
                count_items(&mut self.supports, self.order, &old, &new);
                address(Delta { old, new }, &mut self.workers, &mut told, &mut give);
            }
            if holding.entries.is_empty() {
                self.holdings.remove(&owner);
            }
        }
        for (item, change) in self.supports.drain().filter(|&(_, change)| change != 0) {
            for worker in 0..self.peers as u64 {
                give(worker, Change::Support(item, change));
            }
        }
        if count_change != 0 {
            give(0, Change::Baskets(count_change));
        }
    }
}

/// Counts the items that left and entered the basket.
fn count_items(supports: &mut FxHashMap<Item, i64>, order: Order, old: &[Item], new: &[Item]) {
    let (mut old_sorted, mut new_sorted) = (Vec::new(), Vec::new());
    let (old, new) = match order {
        Order::Set => (old, new),
        Order::Sequence => {
            old_sorted.extend_from_slice(old);
            new_sorted.extend_from_slice(new);
            old_sorted.sort_unstable();
            new_sorted.sort_unstable();
            (&*old_sorted, &*new_sorted)
        }
    };
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(left), Some(came)) if left == came => {
                old.next();
                new.next();
            }
            (Some(&&left), came) if came.is_none_or(|&&came| left < came) => {
                *supports.entry(left).or_default() -= 1;
                old.next();
            }
            (_, Some(&&came)) => {
                *supports.entry(came).or_default() += 1;
                new.next();
            }
            (_, None) => return,
        }
    }
}

/// Sends one copy to each worker that has an item of the delta.
fn address(delta: Delta, workers: &mut Vec<Option<u32>>, told: &mut [bool], mut give: impl FnMut(u64, Change)) {
    if let [_] = told {
        return give(0, Change::Basket(delta));
    }
    told.fill(false);
    for &item in delta.old.iter().chain(&*delta.new) {
        let place = item.number() as usize;
        if place >= workers.len() {
            workers.resize((place + 1).max(workers.len() * 5 / 4), None);
        }
        told[*workers[place].get_or_insert_with(|| worker_of(item, told.len()) as u32) as usize] = true;
    }
    for (worker, _) in (0..).zip(&*told).filter(|&(_, &told)| told) {
        give(worker, Change::Basket(delta.clone()));
    }
}

#[derive(Clone, Copy)]
struct Entry {
    at: i64,
    item: Item,
    count: i32,
}

/// One owner's multiset.
enum Entries {
    /// Sorted by (item number, at) when settled; an open epoch's entries follow at the end.
    Small(Vec<Entry>),
    /// With a recency index: a bot with 10,000 items costs O(log) per diff and O(window) per epoch.
    Large(Box<Large>),
}

impl Default for Entries {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Entries {
    fn is_empty(&self) -> bool {
        match self {
            Self::Small(small) => small.is_empty(),
            Self::Large(large) => large.counts.is_empty(),
        }
    }

    /// Adds up equal facts and drops those with count 0.
    fn settle(&mut self) {
        match self {
            Self::Small(small) => {
                small.sort_unstable_by_key(|entry| (entry.item, entry.at));
                small.dedup_by(|later, earlier| {
                    let same = (later.item, later.at) == (earlier.item, earlier.at);
                    if same {
                        earlier.count += later.count;
                    }
                    same
                });
                small.retain(|entry| entry.count != 0);
                if small.len() > LARGE {
                    let mut large = Box::<Large>::default();
                    small.drain(..).for_each(|entry| large.apply(entry));
                    large.settle();
                    *self = Self::Large(large);
                }
            }
            Self::Large(large) => large.settle(),
        }
    }

    /// The basket: the `window` most recent items with their times.
    fn latest(&self, window: usize, order: Order, into: &mut Vec<(i64, Item)>) {
        into.clear();
        match self {
            Self::Small(small) => {
                for item in small.chunk_by(|a, b| a.item == b.item) {
                    into.extend(item.iter().rev().find(|entry| is_held(entry)).map(|entry| (entry.at, entry.item)));
                }
                if into.len() > window {
                    into.select_nth_unstable_by(window - 1, by_recency);
                    into.truncate(window);
                }
                if order == Order::Sequence {
                    into.sort_unstable_by(by_recency);
                }
            }
            Self::Large(large) => {
                into.extend(large.recency.iter().take(window).map(|&(Reverse(at), _, item)| (at, item)));
            }
        }
        if order == Order::Set {
            into.sort_unstable_by_key(|&(_, item)| item);
        }
    }
}

/// Rule 4: latest first, then item bytes.
fn by_recency(a: &(i64, Item), b: &(i64, Item)) -> Ordering {
    b.0.cmp(&a.0).then_with(|| a.1.as_str().cmp(b.1.as_str()))
}

fn is_held(entry: &Entry) -> bool {
    if entry.count <= 0 {
        violated(format_args!("negative multiplicity {} of item {} in a basket", entry.count, entry.item.as_str()));
    }
    entry.count > 0
}

#[derive(Default)]
struct Large {
    counts: BTreeMap<(Item, i64), i32>,
    times: FxHashMap<Item, i64>,
    recency: BTreeSet<(Reverse<i64>, &'static str, Item)>,
    touched: Vec<Item>,
}

impl Large {
    fn apply(&mut self, Entry { item, at, count }: Entry) {
        let held = self.counts.entry((item, at)).or_default();
        *held += count;
        if *held == 0 {
            self.counts.remove(&(item, at));
        }
        self.touched.push(item);
    }

    fn settle(&mut self) {
        self.touched.sort_unstable();
        self.touched.dedup();
        for item in self.touched.drain(..) {
            let facts = self.counts.range((item, i64::MIN)..=(item, i64::MAX));
            let mut facts = facts.rev().map(|(&(item, at), &count)| Entry { at, item, count });
            let time = facts.find(is_held).map(|entry| entry.at);
            let before = match time {
                Some(at) => self.times.insert(item, at),
                None => self.times.remove(&item),
            };
            if time != before {
                if let Some(at) = before {
                    self.recency.remove(&(Reverse(at), item.as_str(), item));
                }
                if let Some(at) = time {
                    self.recency.insert((Reverse(at), item.as_str(), item));
                }
            }
        }
    }
}
