//! The change feed: the units of a store in order, for whoever keeps a copy of its rows in memory.
//!
//! ```text
//! writer ──push──▶ FeedQueue (bounded) ──next──▶ Unit, Unit, …
//!                      └──gap, or too far behind──▶ Reset (a snapshot), which the next unit continues
//! ```
//!
//! The consumer has a thread of its own. A writer waits for a consumer that is behind, but not for long: after that the consumer
//! gets a snapshot instead of the units it did not take.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::{EpochChanges, Snapshot, StoreError};

/// Changes that wait for a consumer; bounds the memory of the queue, except for a single larger unit.
const CHANGES_MAX: usize = 200_000;
/// How long a writer waits for a consumer. Longer than applying the largest units takes, and reloading most shops.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// Back-off before a snapshot that failed is taken again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Where a change feed is to be had.
pub trait ChangeSource: Send + Sync {
    /// A snapshot, and the feed that continues it without a gap. May block: not for threads of an async runtime.
    ///
    /// # Errors
    /// Those of the store.
    fn changes(&self) -> Result<(Snapshot, ChangeFeed), StoreError>;
}

/// What a feed brings.
pub enum ChangeEvent {
    /// A unit that is now readable.
    Unit(EpochChanges),
    /// A gap: units were lost, too large, or not taken in time. Reload from this snapshot, which the next unit continues.
    Reset(Snapshot),
    /// Nothing within the time, or [`FeedQueue::wake`] was called.
    Idle,
    /// The store is closed, or [`FeedQueue::close`] was called.
    Ended,
}

/// Takes a snapshot that the queue continues: it calls [`FeedQueue::restart`] while no unit is pushed.
type TakeSnapshot = Box<dyn Fn() -> Result<Snapshot, StoreError> + Send>;

/// The consuming end.
pub struct ChangeFeed {
    queue: Arc<FeedQueue>,
    take_snapshot: TakeSnapshot,
}

impl ChangeFeed {
    /// A feed of a queue.
    pub fn new(queue: Arc<FeedQueue>, take_snapshot: TakeSnapshot) -> Self {
        Self { queue, take_snapshot }
    }

    /// The queue, to close or wake it from another thread.
    pub fn queue(&self) -> Arc<FeedQueue> {
        Arc::clone(&self.queue)
    }

    /// Waits for the next event. A call says that the event before has been processed.
    pub fn next(&self, wait: Duration) -> ChangeEvent {
        let until = Instant::now() + wait;
        let mut state = self.queue.state.lock();
        loop {
            if state.closed {
                return ChangeEvent::Ended;
            }
            if state.gap {
                if state.trouble.is_some() {
                    let again = Instant::now() + RETRY_DELAY;
                    while !state.closed && !self.queue.changed.wait_until(&mut state, again).timed_out() {}
                }
                if state.closed {
                    return ChangeEvent::Ended;
                }
                drop(state);
                match (self.take_snapshot)() {
                    Ok(snapshot) => return ChangeEvent::Reset(snapshot),
                    Err(error) => self.failed(&error),
                }
                state = self.queue.state.lock();
                continue;
            }
            state.trouble = None;
            if let Some(unit) = state.units.pop_front() {
                state.rows -= unit.changes.len();
                self.queue.room.notify_all();
                return ChangeEvent::Unit(unit);
            }
            if std::mem::take(&mut state.woken) || Instant::now() >= until {
                return ChangeEvent::Idle;
            }
            state.idle = true;
            self.queue.changed.wait_until(&mut state, until);
            state.idle = false;
        }
    }

    /// The snapshot of a [`ChangeEvent::Reset`] could not be read: the feed brings another, after a back-off.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        let mut state = self.queue.state.lock();
        if state.trouble.is_none() {
            tracing::warn!("change feed: could not load a snapshot: {error}");
        }
        state.lose();
        state.trouble = Some(error.to_string());
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Between a writer and one consumer.
#[derive(Default)]
pub struct FeedQueue {
    state: Mutex<QueueState>,
    /// A unit, a gap or a call has come.
    changed: Condvar,
    /// A unit was taken.
    room: Condvar,
}

#[derive(Default)]
struct QueueState {
    units: VecDeque<EpochChanges>,
    /// Changes in `units`.
    rows: usize,
    /// The next event is a snapshot; units before it need not be queued.
    gap: bool,
    closed: bool,
    woken: bool,
    /// The consumer has processed everything and waits.
    idle: bool,
    /// Why the last snapshot could not be loaded.
    trouble: Option<String>,
}

impl QueueState {
    fn lose(&mut self) {
        self.gap = true;
        self.units.clear();
        self.rows = 0;
    }

    fn is_full(&self, unit: &EpochChanges) -> bool {
        let behind = self.rows + self.units.len();
        behind > 0 && behind + unit.changes.len() > CHANGES_MAX
    }
}

impl FeedQueue {
    /// Queues a unit. A consumer that is too far behind gets a snapshot in its place. Does not block.
    pub fn push(&self, unit: &EpochChanges) {
        let mut state = self.state.lock();
        if state.gap || state.closed {
            return;
        }
        if state.is_full(unit) {
            tracing::info!("change feed: the consumer is too far behind; it reloads from a snapshot");
            state.lose();
        } else {
            state.rows += unit.changes.len();
            state.units.push_back(unit.clone());
        }
        self.changed.notify_all();
    }

    /// Waits until there is room for a unit, a few seconds at most. Blocks.
    pub fn wait_for_room(&self, unit: &EpochChanges) {
        let until = Instant::now() + ROOM_WAIT;
        let mut state = self.state.lock();
        while !state.closed && !state.gap && state.is_full(unit) {
            if self.room.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    /// Units were lost: the next event is a snapshot.
    pub fn lose(&self) {
        self.state.lock().lose();
        self.changed.notify_all();
    }

    /// Empties the queue; the units that are pushed from here on continue the snapshot that is being taken.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        state.lose();
        state.gap = false;
        self.room.notify_all();
    }

    /// Ends the feed.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.lose();
        state.closed = true;
        drop(state);
        self.changed.notify_all();
        self.room.notify_all();
    }

    /// Makes [`ChangeFeed::next`] return.
    pub fn wake(&self) {
        // Requests call it until the consumer has come.
        if !std::mem::replace(&mut self.state.lock().woken, true) {
            self.changed.notify_all();
        }
    }

    /// Whether the consumer is behind: a producer that can wait should.
    pub fn is_filling(&self) -> bool {
        let state = self.state.lock();
        !state.gap && state.rows + state.units.len() > CHANGES_MAX / 2
    }

    /// Whether the feed has ended.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether the consumer has processed everything that was pushed.
    pub fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.closed || (state.idle && !state.gap && !state.woken && state.units.is_empty())
    }

    /// Why the last snapshot could not be loaded, until one is.
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Frontier};

    struct NoRows;

    impl kindred_model::views::Rows for NoRows {
        fn get(&self, _: &str, _: &[u8]) -> Result<Option<Vec<u8>>, kindred_model::views::ReadError> {
            Ok(None)
        }
        fn scan(&self, _: &str, _: &[u8], _: kindred_model::views::Visit<'_>) -> Result<(), kindred_model::views::ReadError> {
            Ok(())
        }
    }

    fn feed() -> (Arc<FeedQueue>, ChangeFeed) {
        let queue = Arc::new(FeedQueue::default());
        let restarted = Arc::clone(&queue);
        let take_snapshot = move || {
            restarted.restart();
            Ok(Snapshot { frontier: Frontier::default(), rows: Box::new(NoRows) })
        };
        (Arc::clone(&queue), ChangeFeed::new(queue, Box::new(take_snapshot)))
    }

    fn unit(epoch: u64, rows: usize) -> EpochChanges {
        let change = Change { table: "t", key: vec![1], row: None };
        EpochChanges { epoch, changes: vec![change; rows].into(), ..EpochChanges::default() }
    }

    fn next(feed: &ChangeFeed) -> String {
        match feed.next(Duration::ZERO) {
            ChangeEvent::Unit(unit) => unit.epoch.to_string(),
            ChangeEvent::Reset(_) => "reset".to_owned(),
            ChangeEvent::Idle => "idle".to_owned(),
            ChangeEvent::Ended => "ended".to_owned(),
        }
    }

    /// If this failed, a slow API would take all memory, miss units without noticing, or see one twice.
    #[test]
    fn a_consumer_that_is_too_far_behind_gets_a_snapshot() {
        let (queue, feed) = feed();
        queue.push(&unit(1, CHANGES_MAX * 2));
        assert_eq!(next(&feed), "1", "a single unit may be larger");
        assert_eq!(next(&feed), "idle");
        for epoch in 2..=4 {
            queue.push(&unit(epoch, CHANGES_MAX / 2 - 1));
        }
        queue.wait_for_room(&unit(4, 1));
        queue.push(&unit(5, 1));
        assert_eq!([next(&feed), next(&feed)], ["reset", "idle"], "units before the snapshot are in it");
        queue.push(&unit(6, 0));
        assert_eq!([next(&feed), next(&feed)], ["6", "idle"]);
        queue.lose();
        assert_eq!(next(&feed), "reset");
    }

    /// If this failed, a store would not close, or a snapshot that fails would be given up.
    #[test]
    fn a_feed_retries_a_snapshot_and_ends_when_it_is_closed() {
        let (queue, feed) = feed();
        feed.failed(&"the disk does not answer");
        assert_eq!(queue.trouble().as_deref(), Some("the disk does not answer"));
        assert_eq!([next(&feed), next(&feed)], ["reset", "idle"]);
        assert_eq!(queue.trouble(), None);
        queue.wake();
        assert!(!queue.is_drained());
        let waiting = std::thread::spawn(move || (next(&feed), feed.next(Duration::from_secs(60)), feed));
        while !queue.is_drained() {
            std::thread::yield_now();
        }
        queue.close();
        let (woken, ended, _feed) = waiting.join().unwrap();
        assert_eq!(woken, "idle");
        assert!(matches!(ended, ChangeEvent::Ended));
    }
}
