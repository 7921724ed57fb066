//! The wall clock, read only here. Code that needs the time holds a [`Clock`]: the system's in a server, a virtual one in tests
//! and replays.
//!
//! Views never see a clock: time is data, an event's `at` and a reader's as-of day (docs/ARCHITECTURE.md, The one law). For durations use the
//! monotonic `std::time::Instant`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kindred_model::{Day, EventTime};

/// The current time. Cheap to clone; clones of a virtual clock move together.
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

    /// A clock fixed at `now` until [`Clock::set`] or [`Clock::advance`] moves it.
    pub fn fixed(now: EventTime) -> Self {
        Self(Source::Virtual(Arc::new(AtomicI64::new(now.0))))
    }

    /// Now, in milliseconds since 1970 UTC. May step back, or lie outside of the accepted years of events, with the machine's
    /// clock: only the API's edge compares events with it.
    pub fn now(&self) -> EventTime {
        match &self.0 {
            Source::System => EventTime(system_ms()),
            Source::Virtual(now) => EventTime(now.load(Ordering::Relaxed)),
        }
    }

    /// The current UTC day: the default as-of day.
    pub fn today(&self) -> Day {
        self.now().day()
    }

    /// Sets a virtual clock to `now`, forwards or back.
    ///
    /// # Panics
    /// On the system clock, which no program of ours sets.
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
