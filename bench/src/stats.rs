//! Compares two samples of times: two rank tests, free of assumptions on the distributions, and the difference of medians with an
//! interval.
//!
//! Mann and Whitney's U (Ann. Math. Stat. 18, 1947; normal approximation with ties and continuity, as in Hollander and Wolfe,
//! Nonparametric Statistical Methods, ch. 4) detects a shift. Kolmogorov and Smirnov's D (p after Stephens, J. R. Stat. Soc. B
//! 32, 1970, as in Numerical Recipes, ch. 14.3) detects other differences too: of the spread, or of the fastest tenth. The
//! interval is Efron's percentile bootstrap.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Bootstrap samples: the ends of a 95 % interval are the 50th and the 1,950th.
const RESAMPLES: usize = 2_000;
/// Fixed, so that the interval is reproducible.
const SEED: u64 = 1_979;

/// The comparison of two samples.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Medians of the first and the second, in the unit of the samples.
    pub medians: (f64, f64),
    /// The first median minus the second.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub interval: (f64, f64),
    /// p of Mann and Whitney's U, two-sided.
    pub mann_whitney_p: f64,
    /// p of Kolmogorov and Smirnov's D.
    pub kolmogorov_smirnov_p: f64,
}

/// Compares two samples; `None` if one is empty or not finite.
pub fn compare(first: &[f64], second: &[f64]) -> Option<Comparison> {
    let usable = |sample: &[f64]| !sample.is_empty() && sample.iter().all(|value| value.is_finite());
    if !usable(first) || !usable(second) {
        return None;
    }
    let (mut first, mut second) = (first.to_vec(), second.to_vec());
    first.sort_by(f64::total_cmp);
    second.sort_by(f64::total_cmp);
    let medians = (median_of_sorted(&first), median_of_sorted(&second));
    Some(Comparison {
        medians,
        difference: medians.0 - medians.1,
        interval: bootstrap(&first, &second),
        mann_whitney_p: mann_whitney(&first, &second),
        kolmogorov_smirnov_p: kolmogorov_smirnov(&first, &second),
    })
}

/// The median; 0 if empty.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Two-sided p of U. Both are sorted.
fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let n = n1 + n2;
    let mut all: Vec<(f64, bool)> = first.iter().map(|&value| (value, true)).collect();
    all.extend(second.iter().map(|&value| (value, false)));
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    // Equal values share the mean of their ranks, and reduce the variance.
    let (mut rank_sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|one, other| one.0 == other.0) {
        let count = equal.len() as f64;
        rank_sum += (before + (count + 1.0) / 2.0) * equal.iter().filter(|(_, is_first)| *is_first).count() as f64;
        ties += count.powi(3) - count;
        before += count;
    }
    let u = rank_sum - n1 * (n1 + 1.0) / 2.0;
    let variance = n1 * n2 / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance <= 0.0 {
        return 1.0; // All values are equal.
    }
    let z = ((u - n1 * n2 / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    libm::erfc(z / std::f64::consts::SQRT_2)
}

/// p of D. Both are sorted.
fn kolmogorov_smirnov(first: &[f64], second: &[f64]) -> f64 {
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let (mut at1, mut at2, mut d) = (0, 0, 0.0_f64);
    while at1 < first.len() && at2 < second.len() {
        let value = first[at1].min(second[at2]);
        at1 += first[at1..].iter().take_while(|&&other| other == value).count();
        at2 += second[at2..].iter().take_while(|&&other| other == value).count();
        d = d.max((at1 as f64 / n1 - at2 as f64 / n2).abs());
    }
    let root = (n1 * n2 / (n1 + n2)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    if lambda < 0.2 {
        return 1.0; // To fifteen digits; the sum below converges slowly there.
    }
    let term = |j: i32| (if j % 2 == 1 { 2.0 } else { -2.0 }) * (-2.0 * f64::from(j * j) * lambda * lambda).exp();
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

fn bootstrap(first: &[f64], second: &[f64]) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut again = |sample: &[f64]| {
        // By rank, which is faster to select from.
        let mut drawn: Vec<usize> = (0..sample.len()).map(|_| random.random_range(0..sample.len())).collect();
        let half = drawn.len() / 2;
        let (below, &mut upper, _) = drawn.select_nth_unstable(half);
        let lower = if sample.len() % 2 == 1 { upper } else { below.iter().copied().max().unwrap_or(upper) };
        f64::midpoint(sample[lower], sample[upper])
    };
    let mut differences: Vec<f64> = (0..RESAMPLES).map(|_| again(first) - again(second)).collect();
    differences.sort_by(f64::total_cmp);
    (differences[RESAMPLES / 40], differences[RESAMPLES - 1 - RESAMPLES / 40])
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, LogNormal};

    use super::*;

    fn close(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < 1e-9
    }

    /// The example of scipy's documentation of `mannwhitneyu` (asymptotic, with continuity); with ties by hand: the ranks of 1, 2
    /// and 2 are 1.5, 4 and 4 of six, so U is 3.5 and its variance 9/12 · (7 − 30/30).
    #[test]
    fn u_is_as_elsewhere() {
        let sorted = |mut sample: Vec<f64>| {
            sample.sort_by(f64::total_cmp);
            sample
        };
        let (males, females) = (sorted(vec![19.0, 22.0, 16.0, 29.0, 24.0]), sorted(vec![20.0, 11.0, 17.0, 12.0]));
        assert!(close(mann_whitney(&males, &females), 0.111_346_886_533_140_41), "{}", mann_whitney(&males, &females));
        assert!(close(mann_whitney(&females, &males), mann_whitney(&males, &females)));
        let z = (1.0 - 0.5) / (9.0 / 12.0 * 6.0_f64).sqrt();
        assert!(close(mann_whitney(&[1.0, 2.0, 2.0], &[1.0, 2.0, 3.0]), libm::erfc(z / std::f64::consts::SQRT_2)));
        assert!(close(mann_whitney(&[1.0; 5], &[1.0; 7]), 1.0));
    }

    /// The table of the limiting distribution: 5 % lie beyond 1.358, 1 % beyond 1.628.
    #[test]
    fn d_is_as_in_the_tables() {
        let evenly = |from: f64, count: u32| (0..count).map(|n| from + f64::from(n)).collect::<Vec<_>>();
        let count = 20_000;
        for (lambda, wanted) in [(1.358, 0.05), (1.628, 0.01)] {
            // Two ladders that start apart differ by exactly that many steps.
            let steps = lambda / f64::from(count / 2).sqrt() * f64::from(count);
            let p = kolmogorov_smirnov(&evenly(0.0, count), &evenly(steps.round() - 0.5, count));
            assert!((p - wanted).abs() < wanted * 0.03, "{p} and not {wanted}");
        }
        assert!(close(kolmogorov_smirnov(&evenly(0.0, 50), &evenly(0.0, 50)), 1.0));
    }

    /// The test must detect a shift of a thirtieth of a hash among a thousand attempts, and a difference of spread alone, without
    /// more false alarms than stated.
    #[test]
    fn what_differs_is_found_and_what_does_not_is_not() {
        let mut random = StdRng::seed_from_u64(5);
        let noise = LogNormal::new(0.0, 0.8).unwrap();
        let mut sample = |shift: f64, scale: f64| -> Vec<f64> {
            (0..1_000).map(|_| 30.0 + shift + scale * (noise.sample(&mut random) - 1.0)).collect()
        };
        let shifted = compare(&sample(1.0, 1.0), &sample(0.0, 1.0)).unwrap();
        assert!(shifted.mann_whitney_p < 1e-6 && shifted.interval.0 > 0.5 && shifted.interval.1 < 1.5, "{shifted:?}");
        let wider = compare(&sample(0.0, 1.5), &sample(0.0, 1.0)).unwrap();
        assert!(wider.kolmogorov_smirnov_p < 1e-3, "{wider:?}");
        let mut cried = [0, 0, 0];
        for _ in 0..100 {
            let mut sorted = |count: usize| {
                let mut sorted = sample(0.0, 1.0);
                sorted.truncate(count);
                sorted.sort_by(f64::total_cmp);
                sorted
            };
            let (one, other) = (sorted(1_000), sorted(1_000));
            cried[0] += u32::from(mann_whitney(&one, &other) < 0.05);
            cried[1] += u32::from(kolmogorov_smirnov(&one, &other) < 0.05);
            let (low, high) = bootstrap(&sorted(50), &sorted(50)); // Fewer: it takes its time.
            cried[2] += u32::from(low > 0.0 || high < 0.0);
        }
        assert!(cried.iter().all(|&count| count <= 12), "{cried:?} of 100, of which 5 are due");
    }

    #[test]
    fn no_sample_compares_with_nothing() {
        assert!(compare(&[], &[1.0]).is_none() && compare(&[f64::NAN], &[1.0]).is_none());
        assert!(close(median(&[3.0, 1.0, 2.0, 10.0]), 2.5) && close(median(&[]), 0.0));
    }
}
