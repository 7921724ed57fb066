//! Rate limit on reading the log, for a pipeline that runs beside a live one.
//!
//! ```text
//! rate ──▶ batches of a tenth of a second ──▶ source ──▶ epochs of ten seconds
//! ```

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Batches per second.
const PORTIONS: f64 = 10.0;
/// Epoch length in seconds: a list that changes in many small epochs is written in each, in one large epoch once.
const EPOCH_S: usize = 10;
/// How long an epoch waits for the next batch: several times the batch interval.
pub(crate) const PORTION_WAIT: Duration = Duration::from_secs(1);

/// Records per epoch at a rate.
pub(crate) fn epoch_records(rate: NonZeroU32) -> usize {
    usize::try_from(rate.get()).unwrap_or(usize::MAX).saturating_mul(EPOCH_S)
}

/// Limits one reader to its share of the rate.
pub(crate) struct RateLimit {
    rate: f64,
    began: Instant,
    read: f64,
}

impl RateLimit {
    /// The share of one of `readers` readers.
    pub fn new(rate: NonZeroU32, readers: u32) -> Self {
        Self { rate: f64::from(rate.get()) / f64::from(readers), began: Instant::now(), read: 0.0 }
    }

    /// Records per batch.
    pub fn portion(&self) -> usize {
        (self.rate / PORTIONS).ceil() as usize
    }

    /// Time until the next batch may be read.
    pub fn due_in(&mut self) -> Duration {
        // Idle time earns no burst.
        if self.began.elapsed().as_secs_f64() - self.read / self.rate > 1.0 {
            (self.began, self.read) = (Instant::now(), 0.0);
        }
        Duration::from_secs_f64(self.read / self.rate).saturating_sub(self.began.elapsed())
    }

    /// Counts records that were read.
    pub fn has_read(&mut self, records: usize) {
        self.read += records as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_comes_when_it_is_due() {
        let mut limit = RateLimit::new(NonZeroU32::new(1_000).unwrap(), 2);
        assert_eq!((limit.portion(), limit.due_in()), (50, Duration::ZERO));
        limit.has_read(50);
        let due = limit.due_in();
        assert!(due > Duration::from_millis(50) && due <= Duration::from_millis(100), "{due:?}");
        // A slow reader must not catch up in a burst.
        limit.began -= Duration::from_secs(5);
        assert_eq!(limit.due_in(), Duration::ZERO);
        limit.has_read(50);
        assert!(limit.due_in() > Duration::ZERO);
        assert_eq!(RateLimit::new(NonZeroU32::MIN, 4).portion(), 1);
    }
}
