//! A small pseudo-random generator with a frozen sequence: SplitMix64 (Steele, Lea and Flood, 2014).
//!
//! The history must be reproducible byte for byte (an interrupted start continues it), also after an upgrade of the crates, which
//! `rand` does not promise for its generators.

/// The generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a purpose: the same seed and purpose give the same sequence.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a over the purpose, so that sequences under one seed are independent.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(seed ^ hash)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform over `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "a draw from nothing");
        // The bias of the multiplication is below 2^-40 for the small ranges of a shop.
        u64::try_from((u128::from(self.bits()) * u128::from(end)) >> 64).expect("below 2^64")
    }

    /// An index into something of `len` entries.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Uniform, both ends included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(u64::try_from(high - low + 1).expect("low to high"))).expect("within the range")
    }

    /// Uniform over [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with a probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// An index with probability in proportion to its weight.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (n, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return n;
            }
        }
        weights.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sequence is frozen: otherwise another version would continue a history differently.
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random(1_234_567);
        let first: Vec<u64> = std::iter::repeat_with(|| random.bits()).take(3).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn draws_stay_within_their_range() {
        let mut random = Random::new(1, "test");
        for _ in 0..1_000 {
            assert!(random.below(3) < 3);
            assert!((-2..=2).contains(&random.between(-2, 2)));
            assert!((0.0..1.0).contains(&random.unit()));
            assert_ne!(random.weighted(&[0.5, 0.0, 0.5]), 1);
        }
    }
}
