//! A log that is held back: so many records a second, for a pipeline that others must not notice.
//!
//! ```text
//! rate ──▶ portions of a tenth of a second ──▶ source ──▶ epochs of ten seconds
//! ```

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Portions of a second.
const PORTIONS: f64 = 10.0;
/// Seconds of records that make an epoch: a list that changes in each of many small ones is written as often, in a large one once.
const EPOCH_S: usize = 10;
/// How long an epoch waits for the next portion: several times as long as one takes to come.
pub(crate) const PORTION_WAIT: Duration = Duration::from_secs(1);

/// Records of an epoch at a rate.
pub(crate) fn epoch_records(rate: NonZeroU32) -> usize {
    usize::try_from(rate.get()).unwrap_or(usize::MAX).saturating_mul(EPOCH_S)
}

/// Holds one reader back to its share of a rate.
pub(crate) struct Pace {
    rate: f64,
    began: Instant,
    read: f64,
}

impl Pace {
    /// Of a rate that `readers` share.
    pub fn new(rate: NonZeroU32, readers: u32) -> Self {
        Self { rate: f64::from(rate.get()) / f64::from(readers), began: Instant::now(), read: 0.0 }
    }

    /// Records of a portion.
    pub fn portion(&self) -> usize {
        (self.rate / PORTIONS).ceil() as usize
    }

    /// How long until the next portion may be read.
    pub fn due_in(&mut self) -> Duration {
        // Time in which nothing was read is not caught up on.
        if self.began.elapsed().as_secs_f64() - self.read / self.rate > 1.0 {
            (self.began, self.read) = (Instant::now(), 0.0);
        }
        Duration::from_secs_f64(self.read / self.rate).saturating_sub(self.began.elapsed())
    }

    /// So many were read.
    pub fn has_read(&mut self, records: usize) {
        self.read += records as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_comes_when_it_is_due() {
        let mut pace = Pace::new(NonZeroU32::new(1_000).unwrap(), 2);
        assert_eq!((pace.portion(), pace.due_in()), (50, Duration::ZERO));
        pace.has_read(50);
        let due = pace.due_in();
        assert!(due > Duration::from_millis(50) && due <= Duration::from_millis(100), "{due:?}");
        // A slow reader does not make up for it in a burst.
        pace.began -= Duration::from_secs(5);
        assert_eq!(pace.due_in(), Duration::ZERO);
        pace.has_read(50);
        assert!(pace.due_in() > Duration::ZERO);
        assert_eq!(Pace::new(NonZeroU32::MIN, 4).portion(), 1);
    }
}
