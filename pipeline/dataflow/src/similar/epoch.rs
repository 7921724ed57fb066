//! The deltas of an epoch by item: which rows change, and by how much.
//!
//! Co-counts are summed densely over all deltas of an epoch before a row is touched: changes that cancel cost no table operation,
//! and a bulk load touches each pair once.

use kindred_model::similarity::{DISTANCE_MAX, PairWeight};

/// The items of an epoch's deltas, as the worker's item numbers.
#[derive(Default)]
pub(crate) struct Epoch {
    /// The items of all deltas, concatenated.
    items: Vec<u32>,
    spans: Vec<Span>,
    ops: Vec<Op>,
    /// Scratch: 1 for an item of the old basket, 2 for one of both.
    seen: Vec<u8>,
    added: Vec<u32>,
    /// Scratch: the net changes of one row by neighbour, and the neighbours touched.
    net: Vec<i64>,
    bumped: Vec<u32>,
    /// Pair updates in the ops.
    pub(crate) updates: u64,
}

/// One delta within `items`. For sets: kept, added, removed items, in this order; for sequences: the old one and the new.
struct Span {
    start: u32,
    /// Start of the added items, or of the new sequence.
    second: u32,
    /// Start of the removed items; unused for sequences.
    third: u32,
    end: u32,
}

/// An item of this worker at a position of a delta.
#[derive(Clone, Copy)]
struct Op {
    row: u32,
    delta: u32,
    place: u32,
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 2^32 items in the deltas of an epoch")
}

impl Epoch {
    /// Clears the last epoch's deltas.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.spans.clear();
        self.ops.clear();
        self.updates = 0;
    }

    /// Grows the scratch space to `items` item numbers.
    pub(crate) fn make_room(&mut self, items: usize) {
        self.seen.resize(items, 0);
        self.net.resize(items, 0);
    }

    /// Adds one delta; `row_of` gives the row of an item that this worker owns.
    pub(crate) fn push(&mut self, weight: PairWeight, old: &[u32], new: &[u32], row_of: impl Fn(u32) -> Option<u32>) {
        let start = self.items.len();
        let delta = index(self.spans.len());
        match weight {
            PairWeight::Count => {
                for &item in old {
                    self.seen[item as usize] = 1;
                }
                self.added.clear();
                for &item in new {
                    if self.seen[item as usize] == 1 {
                        self.seen[item as usize] = 2;
                        self.items.push(item);
                    } else {
                        self.added.push(item);
                    }
                }
                let second = self.items.len();
                self.items.extend_from_slice(&self.added);
                let third = self.items.len();
                for &item in old {
                    if std::mem::take(&mut self.seen[item as usize]) == 1 {
                        self.items.push(item);
                    }
                }
                let end = self.items.len();
                let (kept, added, removed) = (second - start, third - second, end - third);
                for place in start..end {
                    if let Some(row) = row_of(self.items[place]) {
                        self.ops.push(Op { row, delta, place: index(place) });
                        self.updates += match place {
                            _ if place < second => added + removed,
                            _ if place < third => kept + added - 1,
                            _ => kept + removed - 1,
                        } as u64;
                    }
                }
                self.spans.push(Span { start: index(start), second: index(second), third: index(third), end: index(end) });
            }
            PairWeight::Distance => {
                self.items.extend_from_slice(old);
                let second = self.items.len();
                self.items.extend_from_slice(new);
                let end = self.items.len();
                for place in start..end {
                    if let Some(row) = row_of(self.items[place]) {
                        self.ops.push(Op { row, delta, place: index(place) });
                        let side = if place < second { second - start } else { end - second };
                        self.updates += (side - 1).min(2 * DISTANCE_MAX) as u64;
                    }
                }
                self.spans.push(Span { start: index(start), second: index(second), third: index(end), end: index(end) });
            }
        }
    }

    /// Calls `edit` with every changed row and its net changes (neighbour, change), none of them zero.
    pub(crate) fn for_each_row(&mut self, weight: PairWeight, rows: usize, mut edit: impl FnMut(u32, &[(u32, i64)])) {
        self.group(rows);
        let mut nets = Vec::new();
        for ops in self.ops.chunk_by(|a, b| a.row == b.row) {
            for op in ops {
                let span = &self.spans[op.delta as usize];
                match weight {
                    PairWeight::Count => bump_set(&self.items, span, op.place, &mut self.net, &mut self.bumped),
                    PairWeight::Distance => bump_sequence(&self.items, span, op.place, &mut self.net, &mut self.bumped),
                }
            }
            nets.clear();
            // A neighbour that was back at zero in between is listed twice; the second time its change is 0.
            for neighbour in self.bumped.drain(..) {
                let change = std::mem::take(&mut self.net[neighbour as usize]);
                if change != 0 {
                    nets.push((neighbour, change));
                }
            }
            if !nets.is_empty() {
                edit(ops[0].row, &nets);
            }
        }
    }

    /// Groups the ops by row, with a counting sort when there are many.
    fn group(&mut self, rows: usize) {
        if self.ops.len() < rows {
            return self.ops.sort_unstable_by_key(|op| op.row);
        }
        let mut starts = vec![0u32; rows + 1];
        for op in &self.ops {
            starts[op.row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut grouped = vec![Op { row: 0, delta: 0, place: 0 }; self.ops.len()];
        for &op in &self.ops {
            let place = &mut starts[op.row as usize];
            grouped[*place as usize] = op;
            *place += 1;
        }
        self.ops = grouped;
    }
}

#[inline]
fn bump(net: &mut [i64], bumped: &mut Vec<u32>, neighbour: u32, change: i64) {
    let sum = &mut net[neighbour as usize];
    if *sum == 0 {
        bumped.push(neighbour);
    }
    *sum += change;
}

/// A kept item gains the added and loses the removed; an added one gains all of the new set; a removed one loses all of the old.
fn bump_set(items: &[u32], span: &Span, place: u32, net: &mut [i64], bumped: &mut Vec<u32>) {
    let part = |from: u32, to: u32| &items[from as usize..to as usize];
    let own = items[place as usize];
    let (kept, removed) = (part(span.start, span.second), part(span.third, span.end));
    if place < span.second {
        part(span.second, span.third).iter().for_each(|&other| bump(net, bumped, other, 1));
        removed.iter().for_each(|&other| bump(net, bumped, other, -1));
    } else if place < span.third {
        let new = part(span.start, span.third).iter().filter(|&&other| other != own);
        new.for_each(|&other| bump(net, bumped, other, 1));
    } else {
        let old = kept.iter().chain(removed).filter(|&&other| other != own);
        old.for_each(|&other| bump(net, bumped, other, -1));
    }
}

/// An item loses the weights of its neighbours in the old sequence, and gains those in the new.
fn bump_sequence(items: &[u32], span: &Span, place: u32, net: &mut [i64], bumped: &mut Vec<u32>) {
    let (side, sign) = if place < span.second { (span.start..span.second, -1) } else { (span.second..span.end, 1) };
    let place = place as usize;
    let from = place.saturating_sub(DISTANCE_MAX).max(side.start as usize);
    let to = (place + DISTANCE_MAX + 1).min(side.end as usize);
    for other in (from..to).filter(|&other| other != place) {
        bump(net, bumped, items[other], sign * PairWeight::Distance.of(place, other) as i64);
    }
}
