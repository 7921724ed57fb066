//! The wall clock, and the only place that reads it. Everything that needs to know what time it is holds a [`Clock`]: a running
//! server the system's, a test or a replay one that stands still until it is moved.
//!
//! Views never see a clock: time enters them as data, as an event's `at` and as the as-of day of a reader (DESIGN, The one law).
//! For how long something took, `std::time::Instant` is right: it is monotonic and says nothing about today.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kindred_model::{Day, EventTime};

/// What time it is. Cheap to clone; the clones of a virtual clock move together.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    /// Milliseconds since 1970 UTC.
    Virtual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until [`Clock::set`] or [`Clock::advance`] moves it.
    pub fn fixed(now: EventTime) -> Self {
        Self(Source::Virtual(Arc::new(AtomicI64::new(now.0))))
    }

    /// Now, in milliseconds since 1970 UTC. It may step back when the machine's clock is set back, and lies outside of the
    /// accepted years of events when the machine's clock does: nobody but the API's edge compares events with it.
    pub fn now(&self) -> EventTime {
        match &self.0 {
            Source::System => EventTime(system_ms()),
            Source::Virtual(now) => EventTime(now.load(Ordering::Relaxed)),
        }
    }

    /// The UTC day it is: the as-of day of whoever names none.
    pub fn today(&self) -> Day {
        self.now().day()
    }

    /// Moves a virtual clock to `now`, forwards or back.
    ///
    /// # Panics
    /// On the system's clock: no program of ours sets the machine's time.
    pub fn set(&self, now: EventTime) {
        self.moved_by_hand().store(now.0, Ordering::Relaxed);
    }

    /// Moves a virtual clock forwards.
    ///
    /// # Panics
    /// As [`Clock::set`].
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.moved_by_hand().fetch_add(ms, Ordering::Relaxed);
    }

    fn moved_by_hand(&self) -> &AtomicI64 {
        match &self.0 {
            Source::Virtual(now) => now,
            Source::System => panic!("the system's clock is not set from here; make a Clock::fixed"),
        }
    }
}

fn system_ms() -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_moves_by_hand_and_with_its_clones() {
        let clock = Clock::fixed(EventTime::parse("now", "2026-01-05T23:59:59.999Z").unwrap());
        let clone = clock.clone();
        assert_eq!(clone.today().to_string(), "2026-01-05");
        clock.advance(Duration::from_millis(1));
        assert_eq!(clone.now().to_string(), "2026-01-06T00:00:00.000Z");
        assert_eq!(clone.today().to_string(), "2026-01-06");
        clock.set(EventTime::MIN);
        assert_eq!(clone.now(), EventTime::MIN);
    }

    #[test]
    fn the_system_clock_agrees_with_the_standard_library() {
        let before = system_ms();
        let now = Clock::system().now().0;
        assert!((before..=before + 60_000).contains(&now));
        assert!(now > EventTime::MIN.0, "the clock of this machine stands before 2000");
    }
}
