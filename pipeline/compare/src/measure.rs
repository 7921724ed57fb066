//! Similarity of two ranked lists.

use std::collections::HashSet;
use std::hash::Hash;

/// Persistence of rank-biased overlap: the weight of a rank relative to the one before. At 0.9 the first ten ranks carry 86 %,
/// about what a widget shows.
pub const PERSISTENCE: f64 = 0.9;

/// The share of the first `depth` that both lists have, relative to the longer one where both are shorter. Two empty lists
/// overlap fully.
pub fn overlap<T: Eq + Hash>(a: &[T], b: &[T], depth: usize) -> f64 {
    let (a, b) = (&a[..a.len().min(depth)], &b[..b.len().min(depth)]);
    let of = a.len().max(b.len());
    if of == 0 {
        return 1.0;
    }
    let held: HashSet<&T> = a.iter().collect();
    b.iter().filter(|item| held.contains(item)).count() as f64 / of as f64
}

/// Rank-biased overlap, extrapolated, of two lists that may differ in length (`RBO_EXT`): Webber, Moffat, Zobel, "A Similarity
/// Measure for Indefinite Rankings", ACM TOIS 28(4), 2010, equation 32. 1 for equal lists, 0 for disjoint ones; each rank weighs
/// [`PERSISTENCE`] of the one before. Items within a list are distinct. Unlike Kendall's tau it is defined without common items.
pub fn rank_biased_overlap<T: Eq + Hash>(a: &[T], b: &[T]) -> f64 {
    let p = PERSISTENCE;
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let (s, l) = (short.len(), long.len());
    if s == 0 {
        return if l == 0 { 1.0 } else { 0.0 };
    }
    // X_d, the items in both down to depth d; beyond its end the short list stays as it is.
    let (mut seen_short, mut seen_long) = (HashSet::new(), HashSet::new());
    let (mut x, mut x_s) = (0_usize, 0_usize);
    let (mut sum, mut weight) = (0.0, 1.0);
    for d in 1..=l {
        weight *= p;
        let from_long = &long[d - 1];
        if d <= s {
            let from_short = &short[d - 1];
            x += if from_short == from_long {
                1
            } else {
                usize::from(seen_long.contains(from_short)) + usize::from(seen_short.contains(from_long))
            };
            seen_short.insert(from_short);
        } else {
            x += usize::from(seen_short.contains(from_long));
        }
        seen_long.insert(from_long);
        if d == s {
            x_s = x;
        }
        let agreement = x as f64 / d as f64;
        let assumed = if d > s { x_s as f64 * (d - s) as f64 / (s as f64 * d as f64) } else { 0.0 };
        sum += (agreement + assumed) * weight;
    }
    let tail = ((x as f64 - x_s as f64) / l as f64 + x_s as f64 / s as f64) * weight;
    ((1.0 - p) / p * sum + tail).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: agreement at each depth from sets, extrapolated to a great depth.
    fn by_definition(a: &[u32], b: &[u32]) -> f64 {
        let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        let (s, l) = (short.len(), long.len());
        let common = |d: usize| {
            let of: HashSet<_> = short[..d.min(s)].iter().collect();
            long[..d.min(l)].iter().filter(|item| of.contains(item)).count() as f64
        };
        let agreement = |d: usize| -> f64 {
            let assumed = |d: usize| common(s) / s as f64 * (d - s) as f64;
            match d {
                _ if d <= s => common(d) / d as f64,
                // The short list is assumed to keep the agreement of its end.
                _ if d <= l => (common(d) + assumed(d)) / d as f64,
                _ => (common(l) + assumed(l)) / l as f64,
            }
        };
        (1..2_000).map(|d| (1.0 - PERSISTENCE) * PERSISTENCE.powi(d as i32 - 1) * agreement(d)).sum()
    }

    /// If this failed, the metric would not be that of the paper.
    #[test]
    fn rank_biased_overlap_is_what_its_definition_says() {
        let mut rng = kindred_oracle::testing::Rng::new(7);
        for _ in 0..400 {
            let mut list = || {
                let mut items: Vec<u32> = (0..12).collect();
                rng.shuffle(&mut items);
                items.truncate(1 + usize::try_from(rng.below(12)).unwrap());
                items
            };
            let (a, b) = (list(), list());
            let (fast, slow) = (rank_biased_overlap(&a, &b), by_definition(&a, &b));
            assert!((fast - slow).abs() < 1e-9, "{a:?} {b:?}: {fast} is not {slow}");
            assert!((fast - rank_biased_overlap(&b, &a)).abs() < 1e-12, "it has no direction");
        }
    }

    #[test]
    fn equal_lists_are_one_and_disjoint_lists_zero() {
        assert!((rank_biased_overlap(&[1, 2, 3], &[1, 2, 3]) - 1.0).abs() < 1e-12);
        assert_eq!(rank_biased_overlap(&[1, 2], &[3, 4, 5]), 0.0);
        assert_eq!(rank_biased_overlap::<u32>(&[], &[]), 1.0);
        assert_eq!(rank_biased_overlap(&[1], &[]), 0.0);
        // The top counts more than the end.
        let (top, end) = (rank_biased_overlap(&[9, 2, 3, 4], &[1, 2, 3, 4]), rank_biased_overlap(&[1, 2, 3, 9], &[1, 2, 3, 4]));
        assert!(top < end, "{top} {end}");
    }

    #[test]
    fn overlap_counts_what_both_show() {
        assert_eq!(overlap(&[1, 2, 3], &[3, 1, 9], 2), 0.5);
        assert_eq!(overlap(&[1, 2, 3], &[1, 2], 10), 2.0 / 3.0);
        assert_eq!(overlap::<u32>(&[], &[1], 5), 0.0);
        assert_eq!(overlap::<u32>(&[], &[], 5), 1.0);
    }
}
