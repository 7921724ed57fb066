//! Compares two samples of times: two rank tests, free of assumptions on the distributions, and the difference of medians with an
//! interval.
//!
//! Mann and Whitney's U (normal approximation with ties and continuity) detects a shift. Kolmogorov and Smirnov's D (asymptotic)
//! detects other differences too: of the spread, or of the fastest tenth. The interval is Efron's percentile bootstrap.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use statrs::stats_tests::ks_test::{KSTwoSampleAlternativeMethod, ks_twosample};
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};
use statrs::stats_tests::{Alternative, NaNPolicy};

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

/// Two-sided p of U.
fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
    mannwhitneyu(first, second, method, Alternative::TwoSided).expect("two samples of numbers").1
}

/// p of D.
fn kolmogorov_smirnov(first: &[f64], second: &[f64]) -> f64 {
    let method = KSTwoSampleAlternativeMethod::TwoSidedAsymptotic;
    ks_twosample(first.to_vec(), second.to_vec(), method, NaNPolicy::Error).expect("two samples of numbers").1
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
