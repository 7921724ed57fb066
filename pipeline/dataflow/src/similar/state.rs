//! The state of a worker: n, q and a label of every item, rows and lists of its own items; and how an epoch changes it.
//!
//! Stage 1 ([`Shard::take_in`]) edits rows and lists under the q of the last epoch, then walks the row of each item whose q
//! changed. Stage 2 ([`Shard::hear`], [`Shard::settle`]) receives the items of other workers, switches q, and settles each
//! touched list once.

use kindred_model::intern::Item;
use kindred_model::settings::Similarity;
use kindred_model::similarity::{PairWeight, SupportGrid};

use super::epoch::Epoch;
use super::labels::Labels;
use super::list::{Candidate, List, Ranking, Threshold};
use super::prefetch::soon;
use super::row::Row;
use super::{Neighbours, Notice, Tuning};
use crate::baskets::{Addressed, Change, Delta, worker_of};
use crate::invariant::violated;

/// No number, or no edit.
const NONE: u32 = u32::MAX;
/// Pair updates prefetched before the first is applied; their lines take half of a first-level cache.
const PAIRS_AHEAD: usize = 256;
/// Lists that hold a crossing item, whose thresholds are prefetched.
const HOLDERS_AHEAD: usize = 16;
/// Lists prefetched before they are read; each is some eight lines.
const LISTS_AHEAD: usize = 8;
/// Bytes of an item of this worker without pairs.
const ITEM_BYTES: usize = size_of::<Row>() + size_of::<List>() + size_of::<Threshold>();

/// Where an item's row and list are.
#[derive(Clone, Copy)]
enum Home {
    /// On this worker, under this number.
    Row(u32),
    /// On another worker, by index.
    Worker(u32),
}

impl Home {
    fn row(self) -> Option<u32> {
        match self {
            Self::Row(row) => Some(row),
            Self::Worker(_) => None,
        }
    }
}

/// Prefetched rows with their net changes, not yet edited.
#[derive(Default)]
struct Ahead {
    /// (row, how many of `nets`).
    rows: Vec<(u32, usize)>,
    nets: Vec<(u32, i64)>,
}

impl Ahead {
    fn push(&mut self, row: u32, nets: &[(u32, i64)]) {
        self.rows.push((row, nets.len()));
        self.nets.extend_from_slice(nets);
    }

    fn drain(&mut self, mut edit: impl FnMut(u32, &[(u32, i64)])) {
        let mut nets = self.nets.as_slice();
        for (row, length) in self.rows.drain(..) {
            let (of_row, rest) = nets.split_at(length);
            edit(row, of_row);
            nets = rest;
        }
        self.nets.clear();
    }
}

/// The state of one worker.
pub(crate) struct Shard {
    weight: PairWeight,
    tuning: Tuning,
    grid: SupportGrid,
    worker: usize,
    peers: usize,
    ranking: Ranking,

    // By interned item number.
    numbers: Vec<u32>,
    // By the number of an item here.
    items: Vec<Item>,
    supports: Vec<u32>,
    homes: Vec<Home>,
    // By row: the items of this worker.
    owned: Vec<u32>,
    rows: Vec<Row>,
    lists: Vec<List>,
    thresholds: Vec<Threshold>,
    /// Offset in `before` of a list edited in the open epoch; NONE for a settled one.
    edits: Vec<u32>,
    baskets: u64,

    // The open epoch.
    fresh: Vec<(&'static str, u32)>,
    epoch: Epoch,
    ahead: Ahead,
    rebuilding: bool,
    /// Items whose n changed.
    counted: Vec<u32>,
    baskets_before: u64,
    /// Rows whose lists were edited.
    edited: Vec<u32>,
    /// (row, neighbour) where a candidate's key changed.
    rekeyed: Vec<(u32, u32)>,
    /// The edited lists before their edits: each one's length and bytes, then its entries.
    before: Vec<(u32, u32)>,
    room: Vec<Candidate>,
    figures: Figures,
}

/// Counters of the worker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Figures {
    /// Directed pairs.
    pub(crate) pairs: u64,
    /// Bytes of rows and lists.
    pub(crate) bytes: u64,
    /// Pair updates, in total.
    pub(crate) updates: u64,
    /// Changed lists, in total.
    pub(crate) lists_changed: u64,
}

/// A counter after a part of it went from `before` to `after`. It wraps, because a metric must not stop the dataflow.
fn moved(figure: u64, before: usize, after: usize) -> u64 {
    figure.wrapping_add(after as u64).wrapping_sub(before as u64)
}

impl Shard {
    pub(crate) fn new(settings: &Similarity, tuning: Tuning, worker: usize, peers: usize) -> Self {
        let ranking = Ranking {
            damping: settings.popularity_damping,
            top: settings.top,
            slack: tuning.slack,
            least: u64::from(settings.min_support) * settings.pair_weight.unit(),
            q: Vec::new(),
            labels: Labels::default(),
        };
        Self {
            weight: settings.pair_weight,
            tuning,
            grid: SupportGrid::new(settings.support_rounding),
            worker,
            peers,
            ranking,
            numbers: Vec::new(),
            items: Vec::new(),
            supports: Vec::new(),
            homes: Vec::new(),
            owned: Vec::new(),
            rows: Vec::new(),
            lists: Vec::new(),
            thresholds: Vec::new(),
            edits: Vec::new(),
            baskets: 0,
            fresh: Vec::new(),
            epoch: Epoch::default(),
            ahead: Ahead::default(),
            rebuilding: false,
            counted: Vec::new(),
            baskets_before: 0,
            edited: Vec::new(),
            rekeyed: Vec::new(),
            before: Vec::new(),
            room: Vec::new(),
            figures: Figures::default(),
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        self.figures
    }

    /// The counters recomputed from the state, which the running ones must equal.
    #[cfg(test)]
    pub(crate) fn recounted(&self) -> Figures {
        let bytes = self.rows.iter().map(Row::bytes).sum::<usize>() + self.lists.iter().map(List::bytes).sum::<usize>();
        let pairs = self.rows.iter().map(Row::len).sum::<usize>();
        Figures { pairs: pairs as u64, bytes: (bytes + self.rows.len() * ITEM_BYTES) as u64, ..self.figures }
    }

    /// Stage 1. `tell` receives the notices for other workers' lists.
    pub(crate) fn take_in(&mut self, changes: &[Addressed<Change>], tell: impl FnMut(Addressed<Notice>)) {
        self.count(changes);
        let deltas = changes.iter().filter_map(|(_, change)| if let Change::Basket(delta) = change { Some(delta) } else { None });
        self.lay_out(deltas);
        self.ranking.labels.insert(&mut self.fresh);
        self.edit_rows();
        self.cross(tell);
    }

    /// Sums up the changes of n and of the number of baskets.
    fn count(&mut self, changes: &[Addressed<Change>]) {
        self.baskets_before = self.baskets;
        let mut net: Vec<(u32, i64)> = Vec::new();
        for (_, change) in changes {
            match *change {
                Change::Support(item, change) => net.push((self.number(item), change)),
                Change::Baskets(change) => self.baskets = self.baskets.checked_add_signed(change).expect("baskets are counted"),
                Change::Basket(_) => {}
            }
        }
        net.sort_unstable_by_key(|&(item, _)| item);
        for changes in net.chunk_by(|a, b| a.0 == b.0) {
            let item = changes[0].0;
            let support = &mut self.supports[item as usize];
            let before = *support;
            let after = i64::from(before) + changes.iter().map(|&(_, change)| change).sum::<i64>();
            *support = u32::try_from(after).expect("a support lies between 0 and 2^32");
            if *support != before {
                self.counted.push(item);
            }
        }
    }

    fn lay_out<'a>(&mut self, deltas: impl Iterator<Item = &'a Delta>) {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        self.epoch.clear();
        for delta in deltas {
            old.clear();
            new.clear();
            for (numbers, items) in [(&mut old, &delta.old), (&mut new, &delta.new)] {
                numbers.extend(items.iter().map(|&item| self.number(item)));
            }
            self.epoch.make_room(self.items.len());
            let homes = &self.homes;
            self.epoch.push(self.weight, &old, &new, |item| homes[item as usize].row());
        }
        self.rebuilding = self.epoch.updates > self.tuning.rebuild_from.saturating_add(self.figures.pairs / 2);
        self.figures.updates = self.figures.updates.wrapping_add(self.epoch.updates);
    }

    /// This worker's number of an item, assigned if it is new.
    fn number(&mut self, item: Item) -> u32 {
        let place = item.number() as usize;
        if place >= self.numbers.len() {
            self.numbers.resize((place + 1).max(self.numbers.len() * 5 / 4), NONE);
        }
        if self.numbers[place] == NONE {
            let number = u32::try_from(self.items.len()).expect("items are numbered by u32");
            self.numbers[place] = number;
            self.items.push(item);
            self.supports.push(0);
            self.ranking.q.push(0);
            self.fresh.push((item.as_str(), number));
            let worker = if self.peers == 1 { 0 } else { worker_of(item, self.peers) };
            if worker != self.worker {
                self.homes.push(Home::Worker(worker as u32));
            } else {
                self.homes.push(Home::Row(self.rows.len() as u32));
                self.owned.push(number);
                self.rows.push(Row::default());
                self.lists.push(List::default());
                self.thresholds.push(Threshold::OPEN);
                self.edits.push(NONE);
                self.figures.bytes = moved(self.figures.bytes, 0, ITEM_BYTES);
            }
        }
        self.numbers[place]
    }

    /// Edits the rows and their lists, whose keys still use the old q and so stay consistent.
    fn edit_rows(&mut self) {
        let mut epoch = std::mem::take(&mut self.epoch);
        let mut ahead = std::mem::take(&mut self.ahead);
        epoch.for_each_row(self.weight, self.rows.len(), |row, nets| {
            let pairs = &self.rows[row as usize];
            nets.iter().for_each(|&(neighbour, _)| pairs.prefetch(neighbour));
            soon(&self.thresholds[row as usize]);
            ahead.push(row, nets);
            if ahead.nets.len() >= PAIRS_AHEAD {
                ahead.drain(|row, nets| self.edit_row(row, nets));
            }
        });
        ahead.drain(|row, nets| self.edit_row(row, nets));
        (self.epoch, self.ahead) = (epoch, ahead);
    }

    fn edit_row(&mut self, row: u32, nets: &[(u32, i64)]) {
        let bytes = self.rows[row as usize].bytes();
        let pairs = self.rows[row as usize].len();
        if self.rebuilding && pairs == 0 {
            self.rows[row as usize].reserve(nets.len());
        }
        for &(neighbour, change) in nets {
            let (before, after) = self.rows[row as usize].add(neighbour, change);
            if !self.rebuilding {
                self.edit_list(row, neighbour, before, after);
            }
        }
        let row = &mut self.rows[row as usize];
        row.shrink();
        self.figures.bytes = moved(self.figures.bytes, bytes, row.bytes());
        self.figures.pairs = moved(self.figures.pairs, pairs, row.len());
    }

    /// c of a pair changed: restores that the candidates are those at or before the threshold.
    #[inline]
    fn edit_list(&mut self, row: u32, neighbour: u32, before: u32, after: u32) {
        let ranking = &self.ranking;
        let threshold = self.thresholds[row as usize];
        let q = ranking.q[neighbour as usize];
        let takes = |c| ranking.supported(c) && threshold.takes(ranking, ranking.key(c, q), neighbour);
        match (takes(before), takes(after)) {
            (false, false) => {}
            (false, true) => self.edit(row).push(neighbour, after),
            (true, false) => self.edit(row).remove(neighbour),
            (true, true) => self.edit(row).update(neighbour, after),
        }
    }

    /// The list to edit; saves it as it was before its first edit.
    fn edit(&mut self, row: u32) -> &mut List {
        let list = &mut self.lists[row as usize];
        if self.edits[row as usize] == NONE {
            self.edits[row as usize] =
                u32::try_from(self.before.len()).expect("fewer than 2^32 entries in the lists of an epoch");
            self.edited.push(row);
            let top = list.top(self.ranking.top);
            // A list is shorter than its row, whose neighbours are numbered by u32; `bytes` saturates, as it is a metric only.
            self.before.push((top.len() as u32, u32::try_from(list.bytes()).unwrap_or(u32::MAX)));
            self.before.extend_from_slice(top);
        }
        list
    }

    /// For each item j whose q changed: row j is also column j, so it names the lists that may hold j.
    fn cross(&mut self, mut tell: impl FnMut(Addressed<Notice>)) {
        if self.ranking.damping.quarters() == 0 {
            return;
        }
        let mut holders: Vec<Vec<Item>> = vec![Vec::new(); self.peers];
        for place in 0..self.counted.len() {
            let item = self.counted[place];
            let (old, new) = self.q_of(item);
            let Home::Row(row) = self.homes[item as usize] else { continue };
            // While rebuilding on a single worker no list needs a notice.
            if old == new || (self.rebuilding && self.peers == 1) {
                continue;
            }
            let column = std::mem::take(&mut self.rows[row as usize]);
            let mut later = column.iter().skip(HOLDERS_AHEAD);
            for (holder, c) in column.iter() {
                if let Some(row) = later.next().and_then(|(holder, _)| self.homes[holder as usize].row()) {
                    soon(&self.thresholds[row as usize]);
                }
                match self.homes[holder as usize] {
                    Home::Row(row) => self.rank(row, item, c, old, new),
                    Home::Worker(worker) if self.ranking.supported(c) => {
                        holders[worker as usize].push(self.items[holder as usize]);
                    }
                    Home::Worker(_) => {}
                }
            }
            drop(later);
            self.rows[row as usize] = column;
            for (worker, holders) in (0..).zip(&mut holders).filter(|(_, holders)| !holders.is_empty()) {
                let holders = std::mem::take(holders).into_boxed_slice();
                tell((worker, Notice::Crossed { item: self.items[item as usize], holders }));
            }
        }
    }

    /// q of an item before and after the epoch.
    fn q_of(&self, item: u32) -> (u32, u32) {
        let new = self.grid.round(u64::from(self.supports[item as usize]));
        (self.ranking.q[item as usize], u32::try_from(new).expect("q(n) is at most n"))
    }

    /// q of a neighbour changed: adds it if it moved to or before the threshold; settling drops it if it left.
    #[inline]
    fn rank(&mut self, row: u32, neighbour: u32, c: u32, old: u32, new: u32) {
        if self.rebuilding {
            return;
        }
        let ranking = &self.ranking;
        let threshold = self.thresholds[row as usize];
        let (key_old, key_new) = (ranking.key(c, old), ranking.key(c, new));
        if (key_old < threshold.key && key_new < threshold.key) || !ranking.supported(c) {
            return;
        }
        let (was, is) = (threshold.takes(ranking, key_old, neighbour), threshold.takes(ranking, key_new, neighbour));
        if !was && is {
            self.edit(row).push(neighbour, c);
        } else if was {
            soon(&self.lists[row as usize]);
            self.rekeyed.push((row, neighbour));
        }
    }

    /// Stage 2: q of another worker's item changed; these lists of ours may hold it.
    pub(crate) fn hear(&mut self, item: Item, holders: &[Item]) {
        if self.rebuilding {
            return;
        }
        let item = self.number(item);
        let (old, new) = self.q_of(item);
        for &holder in holders {
            let holder = self.number(holder);
            let Home::Row(row) = self.homes[holder as usize] else {
                violated(format_args!(
                    "a notice reached a worker that does not have the list of {}",
                    self.items[holder as usize].as_str()
                ));
                continue;
            };
            let c = self.rows[row as usize].get(item);
            self.rank(row, item, c, old, new);
        }
    }

    /// Stage 2: switches q, settles the lists and closes the epoch. `changed` receives each item with its new list; `counted`
    /// each item with its new n, and `None` with the new number of baskets.
    pub(crate) fn settle(
        &mut self,
        mut changed: impl FnMut(Item, Option<Neighbours>),
        mut counted: impl FnMut(Option<Item>, Option<u64>),
    ) {
        for item in std::mem::take(&mut self.counted) {
            self.ranking.q[item as usize] = self.q_of(item).1;
            let support = self.supports[item as usize];
            if self.homes[item as usize].row().is_some() {
                counted(Some(self.items[item as usize]), (support > 0).then_some(u64::from(support)));
            }
        }
        if self.baskets != self.baskets_before {
            counted(None, (self.baskets > 0).then_some(self.baskets));
            self.baskets_before = self.baskets;
        }
        if self.rebuilding {
            for row in 0..self.rows.len() as u32 {
                if self.rows[row as usize].len() > 0 || self.lists[row as usize].bytes() > 0 {
                    self.edit(row);
                }
            }
        }
        let rekeyed = std::mem::take(&mut self.rekeyed);
        for (at, &(row, neighbour)) in rekeyed.iter().enumerate() {
            if let Some(&(later, _)) = rekeyed.get(at + LISTS_AHEAD) {
                self.lists[later as usize].prefetch();
            }
            let place = row as usize;
            if self.edits[place] == NONE && !self.lists[place].stands(neighbour, self.thresholds[place], &self.ranking) {
                self.edit(row);
            }
        }
        let edited = std::mem::take(&mut self.edited);
        for (at, &row) in edited.iter().enumerate() {
            if let Some(&later) = edited.get(at + LISTS_AHEAD) {
                self.lists[later as usize].prefetch();
            }
            if self.settle_list(row) {
                let list = self.lists[row as usize].top(self.ranking.top);
                let named = list.iter().map(|&(item, c)| (self.items[item as usize], u64::from(c)));
                let named: Option<Neighbours> = (!list.is_empty()).then(|| named.collect());
                changed(self.items[self.owned[row as usize] as usize], named);
                self.figures.lists_changed = self.figures.lists_changed.wrapping_add(1);
            }
        }
        self.before.clear();
        if std::mem::take(&mut self.rebuilding) {
            // Free what a bulk load allocated.
            self.epoch = Epoch::default();
            (self.before, self.edited, self.rekeyed) = Default::default();
        }
    }

    /// Settles an edited list; returns whether its first N changed.
    fn settle_list(&mut self, row: u32) -> bool {
        let place = row as usize;
        let (list, threshold) = (&mut self.lists[place], &mut self.thresholds[place]);
        if self.rebuilding || !list.settle(threshold, &self.ranking, &mut self.room) {
            list.fill(threshold, &self.rows[place], &self.ranking, &mut self.room);
        }
        let before = std::mem::replace(&mut self.edits[place], NONE) as usize;
        // Bytes before the first edit: edits grow the list, and settling shrinks it.
        let (length, bytes) = self.before[before];
        self.figures.bytes = moved(self.figures.bytes, bytes as usize, list.bytes());
        let length = length as usize;
        self.before[before + 1..before + 1 + length] != *list.top(self.ranking.top)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// One worker's shard, fed with owners' baskets as the baskets' operator would.
    struct Shop {
        shard: Shard,
        baskets: BTreeMap<u32, Arc<[Item]>>,
    }

    impl Shop {
        fn new(tuning: Tuning) -> Self {
            Self { shard: Shard::new(&Similarity::default(), tuning, 0, 1), baskets: BTreeMap::new() }
        }

        /// An epoch in which these owners' baskets become these.
        fn epoch(&mut self, baskets: Vec<(u32, Vec<Item>)>) {
            let mut changes = Vec::new();
            for (owner, items) in baskets {
                let old = self.baskets.remove(&owner).unwrap_or_default();
                let new: Arc<[Item]> = items.into();
                changes.extend(old.iter().map(|&item| (0, Change::Support(item, -1))));
                changes.extend(new.iter().map(|&item| (0, Change::Support(item, 1))));
                changes.push((0, Change::Baskets(i64::from(!new.is_empty()) - i64::from(!old.is_empty()))));
                if !new.is_empty() {
                    self.baskets.insert(owner, Arc::clone(&new));
                }
                changes.push((0, Change::Basket(Delta { old, new })));
            }
            self.shard.take_in(&changes, |_| {});
            self.shard.settle(|_, _| {}, |_, _| {});
        }
    }

    fn item(number: u32) -> Item {
        Item::intern(&format!("figures-{number}"))
    }

    /// If this failed, the memory counters would drift with every change. They once did, downwards, until the worker panicked:
    /// the growth of a list was not counted, its shrinking was (#12; it took ten versions of two alternating orders).
    #[test]
    fn figures_are_what_a_recount_gives_after_any_churn() {
        let small = Tuning { slack: 2, ..Tuning::default() };
        let rebuilds = Tuning { rebuild_from: 40, ..Tuning::default() };
        // (owners, items, largest basket, percent of baskets emptied)
        for (seed, (tuning, owners, items, most, emptied)) in [
            (Tuning::default(), 12, 120, 40, 50),
            (small, 30, 300, 30, 10),
            (rebuilds, 200, 60, 6, 30),
            (small, 300, 1_000, 12, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let mut rng = StdRng::seed_from_u64(seed as u64);
            let mut shop = Shop::new(tuning);
            for epoch in 0..600 {
                let changed: BTreeMap<u32, Vec<Item>> = (0..rng.random_range(1..4))
                    .map(|_| {
                        let owner = rng.random_range(0..owners);
                        let mut numbers: Vec<u32> = (0..rng.random_range(1..=most)).map(|_| rng.random_range(0..items)).collect();
                        numbers.sort_unstable();
                        numbers.dedup();
                        let gone = rng.random_range(0..100) < emptied;
                        (owner, if gone { Vec::new() } else { numbers.into_iter().map(item).collect() })
                    })
                    .collect();
                shop.epoch(changed.into_iter().collect());
                assert_eq!(shop.shard.figures(), shop.shard.recounted(), "seed {seed}, epoch {epoch}");
            }
        }
    }

    /// The shortest log that once stopped the pipeline: one order of 40 items stands, another is paid and cancelled in turns.
    #[test]
    fn an_order_that_is_paid_and_cancelled_in_turns_stops_nothing() {
        let mut shop = Shop::new(Tuning::default());
        let order = |from: u32| (0..20).chain(from..from + 20).map(item).collect::<Vec<_>>();
        shop.epoch(vec![(0, order(100))]);
        for version in 0..200 {
            shop.epoch(vec![(1, if version % 2 == 0 { order(200) } else { Vec::new() })]);
            assert_eq!(shop.shard.figures(), shop.shard.recounted(), "version {version}");
        }
    }
}
