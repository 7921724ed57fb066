//! Labels: a `u64` per item that orders as the item's bytes do.
//!
//! Lists break ties by item bytes. Comparing strings would cost two cache misses; a label is one array look-up. New items get
//! labels between those of their neighbours; when a gap is full, all labels are respaced. Labels are private to a worker and
//! change over time, so they must not be stored.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The widest step, so that appending ascending ids does not halve the remaining range each time.
const STEP: u64 = 1 << 40;

/// The labels of a worker's items, by item number.
#[derive(Default)]
pub(crate) struct Labels {
    order: BTreeMap<&'static str, u32>,
    of: Vec<u64>,
}

impl Labels {
    /// The label of an item.
    #[inline]
    pub(crate) fn of(&self, item: u32) -> u64 {
        self.of[item as usize]
    }

    /// Labels the new items of an epoch. Drains `fresh`.
    pub(crate) fn insert(&mut self, fresh: &mut Vec<(&'static str, u32)>) {
        fresh.sort_unstable();
        self.of.resize(self.order.len() + fresh.len(), 0);
        let mut rest = &fresh[..];
        let mut room = true;
        while let Some(&(first, _)) = rest.first() {
            let above = self.order.range(first..).next().map(|(&text, &item)| (text, self.of(item)));
            let below = self.order.range::<str, _>((Bound::Unbounded, Bound::Excluded(first))).next_back();
            let below = below.map(|(_, &item)| self.of(item));
            let run = above.map_or(rest.len(), |(text, _)| rest.partition_point(|&(other, _)| other < text));
            let (run, after) = rest.split_at(run);
            room = room && self.fill(run, below, above.map(|(_, label)| label));
            self.order.extend(run.iter().copied());
            rest = after;
        }
        if !room {
            self.spread();
        }
        fresh.clear();
    }

    /// Labels a run of new items between two labels; false if the gap is too small.
    fn fill(&mut self, run: &[(&'static str, u32)], below: Option<u64>, above: Option<u64>) -> bool {
        let count = run.len() as u64;
        let (low, high) = (below.unwrap_or(0), above.unwrap_or(u64::MAX));
        let step = ((high - low) / (count + 1)).min(STEP);
        let start = match (below, above) {
            (Some(_), None) => low,
            (None, Some(_)) => high - step * (count + 1),
            _ => low + ((high - low) - step * (count + 1)) / 2,
        };
        for (place, &(_, item)) in (1..).zip(run) {
            self.of[item as usize] = start + step * place;
        }
        step > 0
    }

    /// Spaces all labels evenly.
    fn spread(&mut self) {
        let step = u64::MAX / (self.order.len() as u64 + 1);
        for (place, &item) in (1..).zip(self.order.values()) {
            self.of[item as usize] = step * place;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check(labels: &Labels) {
        let in_order: Vec<u64> = labels.order.values().map(|&item| labels.of(item)).collect();
        assert!(in_order.windows(2).all(|pair| pair[0] < pair[1]));
    }

    fn insert(labels: &mut Labels, texts: impl IntoIterator<Item = String>) {
        let mut fresh: Vec<(&'static str, u32)> = Vec::new();
        for text in texts {
            let known = labels.order.contains_key(text.as_str()) || fresh.iter().any(|&(other, _)| other == text);
            if !known {
                let number = (labels.order.len() + fresh.len()) as u32;
                fresh.push((text.leak(), number));
            }
        }
        labels.insert(&mut fresh);
        assert!(fresh.is_empty());
        check(labels);
    }

    /// If this failed, ties in lists would be broken differently from the item bytes.
    #[test]
    fn labels_order_as_bytes_do() {
        for seed in 0..10 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut labels = Labels::default();
            for _ in 0..60 {
                let batch = rng.random_range(0..20);
                insert(&mut labels, (0..batch).map(|_| format!("{:x}", rng.random_range(0..100_000u32))).collect::<Vec<_>>());
            }
        }
    }

    /// If this failed, inserting into one gap, at the end or at the front would run out of labels.
    #[test]
    fn a_full_gap_is_respaced() {
        let mut labels = Labels::default();
        insert(&mut labels, ["a".to_owned(), "z".to_owned()]);
        for n in 0..500 {
            insert(&mut labels, [format!("m{n:04}")]);
        }
        for n in 0..500 {
            insert(&mut labels, [format!("f{:04}", 999 - n)]);
        }
        for n in 0..2_000 {
            insert(&mut labels, [format!("zz{n:05}")]);
        }
        for n in 0..2_000 {
            insert(&mut labels, [format!("A{:05}", 9_999 - n)]);
        }
    }
}
