//! The similarity measure: the rank key that orders a list, the grid that rounds supports, the score served.
//!
//! `score(j | i) = c / (n_i^(1-a) n_j^a)` is the asymmetric cosine (Aiolli, RecSys 2013), with `a` the popularity damping.
//! Within the list of `i` the factor of `n_i` is constant, so the list is ordered by a key of `c` and `n_j` alone.

use serde::{Deserialize, Serialize};

/// Weight of a pair at distance 1 under [`PairWeight::Distance`]: the least common multiple of 1 to 10.
pub const DISTANCE_UNIT: u64 = 2_520;
/// Maximum distance of a pair in the sequence under [`PairWeight::Distance`]; beyond it the weight is 0.
pub const DISTANCE_MAX: usize = 10;

/// `popularity_damping`: 0, 1/4, 1/2, 3/4 or 1. 0 is confidence, 1/2 cosine, 1 lift up to the number of baskets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Damping {
    quarters: u8,
}

impl Damping {
    /// The cosine.
    pub const HALF: Self = Self { quarters: 2 };

    /// In quarters, 0 to 4.
    pub const fn quarters(self) -> u8 {
        self.quarters
    }
}

impl TryFrom<f64> for Damping {
    type Error = String;
    fn try_from(value: f64) -> Result<Self, String> {
        for quarters in 0..=4u8 {
            if value == f64::from(quarters) / 4.0 {
                return Ok(Self { quarters });
            }
        }
        Err(format!("popularity_damping is {value}; 0, 0.25, 0.5, 0.75 or 1 is accepted"))
    }
}

impl From<Damping> for f64 {
    fn from(damping: Damping) -> f64 {
        f64::from(damping.quarters) / 4.0
    }
}

/// The weight of a pair in a basket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PairWeight {
    /// 1.
    #[default]
    Count,
    /// [`DISTANCE_UNIT`] / d at distance d in the sequence; 0 beyond [`DISTANCE_MAX`].
    Distance,
}

impl PairWeight {
    /// The weight of items at positions `a` and `b` of the sequence, `a != b`.
    pub fn of(self, a: usize, b: usize) -> u64 {
        match self {
            Self::Count => 1,
            Self::Distance => {
                let distance = a.abs_diff(b);
                if distance > DISTANCE_MAX { 0 } else { DISTANCE_UNIT / distance as u64 }
            }
        }
    }

    /// The weight of a pair at distance 1, by which c is divided for score and `min_support`.
    pub const fn unit(self) -> u64 {
        match self {
            Self::Count => 1,
            Self::Distance => DISTANCE_UNIT,
        }
    }
}

/// The key that orders the list of i: c, c^4/n_j, c^2/n_j, c^4/n_j^3, c/n_j for the five dampings. Products first, then one
/// division of IEEE doubles, so that implementations agree bit by bit.
#[inline]
pub fn rank_key(damping: Damping, c: u64, n_j: u64) -> f64 {
    let (c, n) = (c as f64, n_j as f64);
    match damping.quarters {
        0 => c,
        1 => (c * c * c * c) / n,
        2 => (c * c) / n,
        3 => (c * c * c * c) / (n * n * n),
        _ => c / n,
    }
}

/// The score of j in the list of i, with powers as repeated square roots. 0 without baskets.
pub fn score(damping: Damping, weight: PairWeight, c: u64, n_i: u64, n_j: u64) -> f64 {
    let power = |n: u64, quarters: u8| {
        let n = n as f64;
        match quarters {
            0 => 1.0,
            1 => n.sqrt().sqrt(),
            2 => n.sqrt(),
            3 => n.sqrt() * n.sqrt().sqrt(),
            _ => n,
        }
    };
    let divisor = power(n_i, 4 - damping.quarters) * power(n_j, damping.quarters);
    if divisor == 0.0 { 0.0 } else { c as f64 / weight.unit() as f64 / divisor }
}

/// A score as served and exported: 6 decimals.
pub fn format_score(score: f64) -> String {
    format!("{score:.6}")
}

/// The grid that `q` rounds supports down to: g0 = 1, g' = max(g + 1, floor(g · rounding)), in doubles.
///
/// Without it, a new buyer of a popular item would change a score in every list that holds it; with it that is rare.
#[derive(Clone, Debug)]
pub struct SupportGrid {
    /// Grid values, ascending, past `u32::MAX`; empty when every integer is on the grid.
    values: Vec<u64>,
}

impl SupportGrid {
    /// The grid of `support_rounding` (1 gives every integer).
    pub fn new(support_rounding: f64) -> Self {
        if support_rounding <= 1.0 {
            return Self { values: Vec::new() };
        }
        let mut values = vec![1u64];
        while let Some(&last) = values.last().filter(|&&last| last <= u64::from(u32::MAX)) {
            values.push((last + 1).max((last as f64 * support_rounding).floor() as u64));
        }
        Self { values }
    }

    /// q(n): the largest grid value not above `n`; 0 for 0.
    pub fn round(&self, n: u64) -> u64 {
        if self.values.is_empty() || n == 0 {
            return n;
        }
        let above = self.values.partition_point(|&value| value <= n);
        self.values[above - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_starts_with_every_integer_and_then_thins_out() {
        let grid = SupportGrid::new(1.05);
        for n in 1..=40 {
            assert_eq!(grid.round(n), n);
        }
        assert_eq!(grid.round(0), 0);
        assert_eq!(grid.values[39..44], [40, 42, 44, 46, 48]);
        assert_eq!((grid.round(41), grid.round(42), grid.round(43)), (40, 42, 42));
        assert_eq!(SupportGrid::new(1.0).round(12_345), 12_345);
        assert!(grid.round(u64::from(u32::MAX)) > 4_000_000_000);
    }

    #[test]
    fn scores_follow_the_definition() {
        let quarter = |quarters| Damping { quarters };
        for quarters in 0..=4 {
            let a = f64::from(quarters) / 4.0;
            let expected = 6.0 / (9f64.powf(1.0 - a) * 16f64.powf(a));
            assert!((score(quarter(quarters), PairWeight::Count, 6, 9, 16) - expected).abs() < 1e-12);
        }
        assert_eq!(format_score(score(Damping::HALF, PairWeight::Count, 6, 9, 16)), "0.500000");
        assert_eq!(score(Damping::HALF, PairWeight::Distance, 2_520, 1, 1), 1.0);
        assert_eq!((PairWeight::Distance.of(3, 6), PairWeight::Distance.of(14, 3)), (840, 0));
        assert!(Damping::try_from(0.3).is_err());
    }
}
