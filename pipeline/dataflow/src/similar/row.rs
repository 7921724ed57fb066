//! The co-counts of one item: neighbour → c, in 8 bytes a slot.
//!
//! An open-addressing table with linear probing. A slot holds (neighbour + 1) in its upper half and c in its lower; 0 is free.
//! The table is filled to 7/8 and grows by 1.2, so that a pair costs 9 to 11 bytes; powers of two would cost up to 18. Removal
//! shifts entries back, so there are no tombstones, and a row is scanned as one array.

use super::prefetch::soon;

/// Capacity for a row's first pairs.
const FIRST: usize = 4;

/// One row. Neighbours are the worker's own item numbers; a pair with c = 0 is not in it.
#[derive(Default)]
pub(crate) struct Row {
    slots: Box<[u64]>,
    len: u32,
}

fn tag(neighbour: u32) -> u64 {
    (u64::from(neighbour) + 1) << 32
}

fn neighbour_of(slot: u64) -> u32 {
    (slot >> 32) as u32 - 1
}

/// Where the probe for a neighbour starts: the upper bits of a multiplicative hash, scaled to the capacity.
fn home(neighbour: u32, capacity: usize) -> usize {
    let hash = neighbour.wrapping_add(1).wrapping_mul(0x9e37_79b1);
    ((u64::from(hash) * capacity as u64) >> 32) as usize
}

impl Row {
    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Prefetches the slot of a neighbour.
    #[inline]
    pub(crate) fn prefetch(&self, neighbour: u32) {
        if let Some(slot) = self.slots.get(home(neighbour, self.slots.len())) {
            soon(slot);
        }
    }

    /// c of a neighbour, 0 if there is none.
    pub(crate) fn get(&self, neighbour: u32) -> u32 {
        if self.slots.is_empty() {
            return 0;
        }
        let slot = self.slots[self.find(neighbour)];
        slot as u32
    }

    /// Adds to c of a neighbour; returns c before and after.
    ///
    /// # Panics
    /// If c leaves `u32`: 4 billion, or below zero, which is a bug of ours. Wrapping would serve wrong lists silently.
    pub(crate) fn add(&mut self, neighbour: u32, change: i64) -> (u32, u32) {
        if (self.len() + 1) * 8 > self.slots.len() * 7 {
            self.resize((self.slots.len() * 6 / 5).max(capacity_for(self.len() + 1)));
        }
        let place = self.find(neighbour);
        let before = self.slots[place] as u32;
        let after = u32::try_from(i64::from(before) + change).expect("a co-count lies between 0 and 2^32");
        match (before, after) {
            (0, 0) => {}
            (_, 0) => self.remove(place),
            _ => {
                self.len += u32::from(before == 0);
                self.slots[place] = tag(neighbour) | u64::from(after);
            }
        }
        (before, after)
    }

    /// Grows to hold `pairs` pairs.
    pub(crate) fn reserve(&mut self, pairs: usize) {
        if pairs * 8 > self.slots.len() * 7 {
            self.resize(capacity_for(pairs));
        }
    }

    /// Shrinks when less than half is used.
    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            self.slots = Box::default();
        } else if self.len() * 2 < self.slots.len() && self.slots.len() > 2 * FIRST {
            self.resize(capacity_for(self.len()));
        }
    }

    /// Every (neighbour, c), unordered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.slots.iter().filter(|&&slot| slot != 0).map(|&slot| (neighbour_of(slot), slot as u32))
    }

    /// The slot of a neighbour, or the free slot where it belongs. NB: the table has a free slot.
    #[inline]
    fn find(&self, neighbour: u32) -> usize {
        let tag = tag(neighbour) >> 32;
        let mut place = home(neighbour, self.slots.len());
        loop {
            let slot = self.slots[place];
            if slot == 0 || slot >> 32 == tag {
                return place;
            }
            place = self.next(place);
        }
    }

    #[inline]
    fn next(&self, place: usize) -> usize {
        if place + 1 == self.slots.len() { 0 } else { place + 1 }
    }

    /// Frees a slot and shifts back the entries displaced past it.
    fn remove(&mut self, mut free: usize) {
        let capacity = self.slots.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + capacity - from };
        let mut place = free;
        loop {
            place = self.next(place);
            let slot = self.slots[place];
            if slot == 0 {
                break;
            }
            if distance(home(neighbour_of(slot), capacity), place) >= distance(free, place) {
                self.slots[free] = slot;
                free = place;
            }
        }
        self.slots[free] = 0;
        self.len -= 1;
    }

    fn resize(&mut self, capacity: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; capacity].into_boxed_slice());
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let place = self.find(neighbour_of(slot));
            self.slots[place] = slot;
        }
    }
}

/// Slots for `pairs` pairs at a load of 4/5, one of them always free.
fn capacity_for(pairs: usize) -> usize {
    (pairs * 5).div_ceil(4).max(FIRST) + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// If this failed, random additions and removals, shrinking or refilling would lose or invent co-counts.
    #[test]
    fn a_row_is_a_map_without_zeros() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut row, mut map) = (Row::default(), HashMap::<u32, u32>::new());
            let spread = rng.random_range(1..400u32);
            for step in 0..6_000 {
                let neighbour = rng.random_range(0..spread) * 7_919;
                let before = map.get(&neighbour).copied().unwrap_or(0);
                let growing = (step / 1_000) % 2 == 0;
                let change = if before > 0 && rng.random_bool(if growing { 0.3 } else { 0.9 }) {
                    -i64::from(rng.random_range(1..=before))
                } else {
                    rng.random_range(0..4)
                };
                let after = (i64::from(before) + change) as u32;
                assert_eq!(row.add(neighbour, change), (before, after));
                map.insert(neighbour, after);
                if after == 0 {
                    map.remove(&neighbour);
                }
                if step % 97 == 0 {
                    row.shrink();
                }
                assert_eq!(row.len(), map.len());
                assert_eq!(row.get(neighbour), after);
            }
            assert!(map.iter().all(|(&neighbour, &c)| row.get(neighbour) == c));
            let listed: HashMap<u32, u32> = row.iter().collect();
            assert_eq!(listed, map);
        }
    }

    /// Bounds memory as designed: at most 12 bytes a pair once a row has some hundred pairs.
    #[test]
    fn a_pair_costs_at_most_12_bytes() {
        let mut row = Row::default();
        for neighbour in 0..100_000u32 {
            row.add(neighbour * 31, 1);
            assert!(row.len() < 100 || row.bytes() <= 12 * row.len(), "{} bytes for {} pairs", row.bytes(), row.len());
        }
    }

    #[test]
    #[should_panic(expected = "a co-count lies between 0 and 2^32")]
    fn a_count_does_not_wrap() {
        let mut row = Row::default();
        row.add(1, i64::from(u32::MAX));
        row.add(1, 1);
    }
}
