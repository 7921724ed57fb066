//! The candidates of one item's list: the best neighbours of its row, some more than the list needs.
//!
//! Between epochs a list holds *exactly* the neighbours with enough support that rank at or before its threshold, in order. So
//! its first N are the N best of the row, and most changes touch the list alone. With fewer than N left it is refilled from the
//! row; the slack makes that rare.

use kindred_model::similarity::{Damping, rank_key};

use super::labels::Labels;
use super::prefetch::all_soon;
use super::row::Row;

/// The ranking of neighbours: everything the order of a list depends on except the co-counts.
pub(crate) struct Ranking {
    pub(crate) damping: Damping,
    /// N.
    pub(crate) top: usize,
    /// Candidates kept beyond N after a refill; at twice as many the list is cut.
    pub(crate) slack: usize,
    /// The least co-count in a list, in the unit of the pair weight.
    pub(crate) least: u64,
    /// q(n) by item number, as of the last settled epoch.
    pub(crate) q: Vec<u32>,
    pub(crate) labels: Labels,
}

impl Ranking {
    /// The rank key of a neighbour. Infinite while q is 0, for an item that is new in the open epoch; its true rank is known when
    /// the epoch settles. NB: c > 0, so it is never NaN.
    #[inline]
    pub(crate) fn key(&self, c: u32, q: u32) -> f64 {
        rank_key(self.damping, u64::from(c), u64::from(q))
    }

    /// Whether c is enough to be in a list.
    #[inline]
    pub(crate) fn supported(&self, c: u32) -> bool {
        u64::from(c) >= self.least
    }

    #[inline]
    fn candidate(&self, (item, c): (u32, u32)) -> Candidate {
        Candidate { key: self.key(c, self.q[item as usize]), item, c }
    }

    /// Whether `a` ranks after `b`.
    #[inline]
    fn after(&self, a: &Candidate, b: &Candidate) -> bool {
        a.key < b.key || (a.key == b.key && self.labels.of(a.item) > self.labels.of(b.item))
    }

    fn compare(&self, a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
        b.key.total_cmp(&a.key).then_with(|| self.labels.of(a.item).cmp(&self.labels.of(b.item)))
    }
}

/// A neighbour with its key.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    key: f64,
    item: u32,
    c: u32,
}

/// The end of a list: the last candidate's key and item; [`Threshold::OPEN`] admits every neighbour.
#[derive(Clone, Copy)]
pub(crate) struct Threshold {
    pub(crate) key: f64,
    item: u32,
}

impl Threshold {
    /// Below every key.
    pub(crate) const OPEN: Self = Self { key: -1.0, item: u32::MAX };

    fn is_open(self) -> bool {
        self.key < 0.0
    }

    /// Whether a neighbour with this key ranks at or before the threshold.
    #[inline]
    pub(crate) fn takes(self, ranking: &Ranking, key: f64, item: u32) -> bool {
        key > self.key || (key == self.key && ranking.labels.of(item) <= ranking.labels.of(self.item))
    }
}

/// The candidates: (neighbour, c), best first when settled.
#[derive(Default)]
pub(crate) struct List {
    candidates: Vec<(u32, u32)>,
}

impl List {
    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.candidates.capacity() * size_of::<(u32, u32)>()
    }

    /// Prefetches the list.
    #[inline]
    pub(crate) fn prefetch(&self) {
        all_soon(&self.candidates);
    }

    /// The first N. NB: only of a settled list.
    pub(crate) fn top(&self, top: usize) -> &[(u32, u32)] {
        &self.candidates[..self.candidates.len().min(top)]
    }

    /// Adds a neighbour that moved to or before the threshold. The list is unordered until it settles.
    pub(crate) fn push(&mut self, item: u32, c: u32) {
        if self.candidates.len() == self.candidates.capacity() {
            // Doubling would leave twice the slack in most lists.
            self.candidates.reserve_exact((self.candidates.len() / 4).max(4));
        }
        self.candidates.push((item, c));
    }

    /// Changes c of a candidate.
    pub(crate) fn update(&mut self, item: u32, c: u32) {
        let place = self.place(item);
        self.candidates[place].1 = c;
    }

    /// Removes a candidate.
    pub(crate) fn remove(&mut self, item: u32) {
        let place = self.place(item);
        self.candidates.remove(place);
    }

    fn place(&self, item: u32) -> usize {
        self.candidates
            .iter()
            .position(|&(other, _)| other == item)
            .expect("a neighbour at or before the threshold is a candidate")
    }

    /// Whether a candidate whose key changed is still in its place in an otherwise settled list. If all such candidates are, the
    /// list is settled.
    pub(crate) fn stands(&self, item: u32, threshold: Threshold, ranking: &Ranking) -> bool {
        let place = self.place(item);
        let moved = ranking.candidate(self.candidates[place]);
        let before = place.checked_sub(1).map(|place| ranking.candidate(self.candidates[place]));
        let after = self.candidates.get(place + 1).map(|&entry| ranking.candidate(entry));
        before.is_none_or(|before| !ranking.after(&before, &moved))
            && match after {
                Some(after) => !ranking.after(&moved, &after),
                None => threshold.takes(ranking, moved.key, moved.item),
            }
    }

    /// Sorts the candidates under the current ranking and restores the invariant; false if the list has to be refilled, because
    /// fewer than N are left and the row has more.
    pub(crate) fn settle(&mut self, threshold: &mut Threshold, ranking: &Ranking, room: &mut Vec<Candidate>) -> bool {
        room.clear();
        room.extend(self.candidates.iter().map(|&entry| ranking.candidate(entry)));
        sort(room, ranking);
        while room.last().is_some_and(|last| !threshold.takes(ranking, last.key, last.item)) {
            room.pop();
        }
        if room.len() < ranking.top && !threshold.is_open() {
            return false;
        }
        if room.len() > ranking.top + 2 * ranking.slack {
            room.truncate(ranking.top + ranking.slack);
            let last = room[room.len() - 1];
            *threshold = Threshold { key: last.key, item: last.item };
        }
        self.replace(room, ranking.top + 2 * ranking.slack + 2);
        true
    }

    /// Replaces the candidates, reallocating for `capacity` if the buffer is too small or far too large.
    fn replace(&mut self, candidates: &[Candidate], capacity: usize) {
        let now = self.candidates.capacity();
        if now < candidates.len() || now > capacity + capacity / 4 + 4 {
            self.candidates = Vec::with_capacity(capacity.max(candidates.len()));
        }
        self.candidates.clear();
        self.candidates.extend(candidates.iter().map(|candidate| (candidate.item, candidate.c)));
    }

    /// Refills the list from its row.
    pub(crate) fn fill(&mut self, threshold: &mut Threshold, row: &Row, ranking: &Ranking, room: &mut Vec<Candidate>) {
        room.clear();
        room.extend(row.iter().filter(|&(_, c)| ranking.supported(c)).map(|entry| ranking.candidate(entry)));
        let keep = ranking.top + ranking.slack;
        *threshold = Threshold::OPEN;
        if room.len() > keep {
            let (_, &mut last, _) = room.select_nth_unstable_by(keep - 1, |a, b| ranking.compare(a, b));
            *threshold = Threshold { key: last.key, item: last.item };
            room.truncate(keep);
        }
        room.sort_unstable_by(|a, b| ranking.compare(a, b));
        self.replace(room, if threshold.is_open() { room.len() } else { keep + ranking.slack + 2 });
    }
}

/// Insertion sort while the list is nearly sorted, as after a few small key changes; else the library's sort.
fn sort(candidates: &mut [Candidate], ranking: &Ranking) {
    let mut budget = 8 * candidates.len();
    for sorted in 1..candidates.len() {
        let moving = candidates[sorted];
        let mut place = sorted;
        while place > 0 && ranking.after(&candidates[place - 1], &moving) {
            candidates[place] = candidates[place - 1];
            place -= 1;
        }
        candidates[place] = moving;
        let moved = sorted - place;
        if moved > budget {
            return candidates.sort_unstable_by(|a, b| ranking.compare(a, b));
        }
        budget -= moved;
    }
}
