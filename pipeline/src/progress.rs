//! Progress of the pipeline: written by its threads, read by status, readiness and waiting readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kindred_dataflow::update::{Conflict, Stats};
use kindred_model::Position;
use kindred_store::Frontier;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tracing::warn;

use crate::PipelineError;

/// Conflicts listed in the status.
const CONFLICTS_SHOWN: usize = 20;

/// How often a continuing outage is logged.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a pipeline is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineState {
    /// Restoring the state from the merged inputs; stored rows are served meanwhile.
    Restoring,
    /// Following the log.
    Running,
    /// The store or the log does not answer; resumes by itself.
    Waiting,
    /// Ended by [`crate::Pipeline::stop`].
    Stopped,
    /// Failed: a person must look.
    Failed,
}

/// What `kindred status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    /// The state.
    pub state: PipelineState,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// The last epoch applied.
    pub epoch: u64,
    /// The position the store has reached.
    pub applied: String,
    /// Records read since the start.
    pub records: u64,
    /// Records rejected since the start.
    pub rejected: u64,
    /// Conflicts since the start: two contents under one version.
    pub conflicts: u64,
    /// The last conflicts, newest first, like `orders 4711`.
    pub conflicting: Vec<String>,
    /// Rows written since the start.
    pub rows_written: u64,
    /// Duration of the restore, in milliseconds.
    pub restore_ms: u64,
    /// From reading a record to its rows being readable, for the last epoch, in microseconds.
    pub last_epoch_us: u64,
    /// Age of the oldest record in the log that is not served yet, in milliseconds; 0 when there is none.
    pub frontier_age_ms: u64,
    /// How long the frontier has not moved while the log holds records beyond it, in milliseconds. Stays 0 while a pipeline
    /// catches up.
    pub stalled_ms: u64,
    /// Owners with identities.
    pub owners: u64,
    /// Identities held.
    pub identities: u64,
    /// Identities evicted by an owner's cap.
    pub evicted: u64,
    /// Orders held.
    pub orders: u64,
    /// Directed pairs held.
    pub pairs: u64,
    /// Bytes of rows and lists of the similarity views.
    pub similarity_bytes: u64,
}

/// Shared by the pipeline's threads and its observers.
pub struct Progress {
    applied: watch::Sender<Applied>,
    /// The position the sources of this process have read up to.
    read: Mutex<Position>,
    state: Mutex<States>,
    /// When an outage was last logged.
    told: Mutex<Option<Instant>>,
    /// See [`PipelineStatus::frontier_age_ms`]; set by the gauges' thread.
    pub(crate) frontier_age_ms: AtomicU64,
    /// See [`PipelineStatus::stalled_ms`].
    pub(crate) stalled_ms: AtomicU64,
    started: Instant,
    restore_ms: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) rows_written: AtomicU64,
    pub(crate) last_epoch_us: AtomicU64,
    /// All dataflow epochs before this one are written.
    written: AtomicU64,
    /// The thread that waits for it.
    waiting: OnceLock<Thread>,
    stats: Arc<Stats>,
}

/// The threads that may wait for another system, each tracked separately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiter {
    /// A source, for the log.
    Source,
    /// A source, for the topic of rejected records.
    Rejected,
    /// The sink, for the store, or for the log when it appends merged records again.
    Sink,
    /// The workers, for other processes.
    Cluster,
}

/// The state and who waits.
#[derive(Debug)]
struct States {
    /// Never [`PipelineState::Waiting`].
    phase: PipelineState,
    /// Why it failed.
    failure: Option<String>,
    /// By [`Waiter`].
    waiting: [Option<String>; 4],
}

impl States {
    fn has_ended(&self) -> bool {
        matches!(self.phase, PipelineState::Failed | PipelineState::Stopped)
    }

    /// The state to show: waiting while any thread waits.
    fn shown(&self) -> (PipelineState, Option<String>) {
        match self.waiting.iter().flatten().next() {
            Some(reason) if !self.has_ended() => (PipelineState::Waiting, Some(reason.clone())),
            _ => (self.phase, self.failure.clone()),
        }
    }
}

#[derive(Clone, Debug)]
struct Applied {
    epoch: u64,
    position: Position,
    /// The last administrative action applied.
    act: u64,
    ended: bool,
}

impl Progress {
    pub(crate) fn new(frontier: &Frontier, stats: Arc<Stats>) -> Self {
        let applied = Applied { epoch: frontier.epoch, position: frontier.position.clone(), act: 0, ended: false };
        Self {
            read: Mutex::new(applied.position.clone()),
            applied: watch::Sender::new(applied),
            state: Mutex::new(States { phase: PipelineState::Restoring, failure: None, waiting: Default::default() }),
            frontier_age_ms: AtomicU64::new(0),
            stalled_ms: AtomicU64::new(0),
            told: Mutex::new(None),
            started: Instant::now(),
            restore_ms: AtomicU64::new(0),
            records: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            rows_written: AtomicU64::new(0),
            last_epoch_us: AtomicU64::new(0),
            written: AtomicU64::new(0),
            waiting: OnceLock::new(),
            stats,
        }
    }

    /// The position the store has reached.
    pub fn applied(&self) -> Position {
        self.applied.borrow().position.clone()
    }

    /// The state.
    pub fn state(&self) -> PipelineState {
        self.state.lock().shown().0
    }

    /// The position the sources of this process have read up to.
    pub(crate) fn read(&self) -> Position {
        self.read.lock().clone()
    }

    /// A source has read up to `position`.
    pub(crate) fn has_read(&self, position: &Position) {
        self.read.lock().join(position);
    }

    pub(crate) fn advance(&self, epoch: u64, position: &Position, act: u64) {
        self.applied.send_modify(|applied| {
            applied.epoch = epoch;
            applied.position = position.clone();
            applied.act = applied.act.max(act);
        });
    }

    /// All dataflow epochs up to this one are written.
    pub(crate) fn wrote(&self, epoch: u64) {
        self.written.store(epoch + 1, Ordering::Release);
        if let Some(thread) = self.waiting.get() {
            thread.unpark();
        }
    }

    /// Every epoch before this one is written.
    pub(crate) fn written_before(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Wakes the calling thread whenever an epoch is written.
    pub(crate) fn wake_me(&self) {
        // Set once: one thread of a process waits for its sink.
        let _ = self.waiting.set(std::thread::current());
    }

    pub(crate) fn restored(&self) {
        self.restore_ms.store(millis(self.started.elapsed()), Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.phase == PipelineState::Restoring {
            state.phase = PipelineState::Running;
        }
    }

    /// A call failed and will be retried several times a second; logs it at most every [`TELL_EVERY`].
    pub(crate) fn tries_again(&self, waiter: Waiter, what: &str, reason: String) {
        let mut told = self.told.lock();
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            warn!("{what}, retrying: {reason}");
        }
        drop(told);
        self.waits(waiter, reason);
    }

    /// Another system does not answer; `resumed` clears it.
    pub(crate) fn waits(&self, waiter: Waiter, reason: String) {
        self.state.lock().waiting[waiter as usize] = Some(reason);
    }

    pub(crate) fn resumed(&self, waiter: Waiter) {
        self.state.lock().waiting[waiter as usize] = None;
    }

    pub(crate) fn stopped(&self) {
        let mut state = self.state.lock();
        if state.phase != PipelineState::Failed {
            state.phase = PipelineState::Stopped;
        }
        drop(state);
        self.applied.send_modify(|applied| applied.ended = true);
    }

    /// Keeps the first reason.
    pub(crate) fn fail(&self, reason: String) {
        let mut state = self.state.lock();
        if state.phase != PipelineState::Failed {
            (state.phase, state.failure) = (PipelineState::Failed, Some(reason));
        }
        drop(state);
        self.applied.send_modify(|applied| applied.ended = true);
    }

    pub(crate) fn failure(&self) -> PipelineError {
        let failure = self.state.lock().failure.clone();
        PipelineError::Failed(failure.unwrap_or_else(|| "it was stopped".to_owned()))
    }

    /// Whether all processes have connected.
    pub(crate) fn has_begun(&self) -> bool {
        self.waiting.get().is_some()
    }

    /// The failure, if any.
    pub(crate) fn failed(&self) -> Option<String> {
        let state = self.state.lock();
        (state.phase == PipelineState::Failed).then(|| state.failure.clone().unwrap_or_default())
    }

    /// Waits until the store reaches `position`.
    ///
    /// # Errors
    /// [`PipelineError::Late`] after `timeout`; [`PipelineError::Failed`] when the pipeline has ended.
    pub async fn wait_for(&self, position: &Position, timeout: Duration) -> Result<(), PipelineError> {
        self.wait_until(timeout, |applied| applied.position.reaches(position)).await
    }

    pub(crate) async fn wait_for_act(&self, act: u64, timeout: Duration) -> Result<(), PipelineError> {
        self.wait_until(timeout, |applied| applied.act >= act).await
    }

    async fn wait_until(&self, timeout: Duration, reached: impl Fn(&Applied) -> bool) -> Result<(), PipelineError> {
        let mut receiver = self.applied.subscribe();
        let waiting = receiver.wait_for(|applied| applied.ended || reached(applied));
        match tokio::time::timeout(timeout, waiting).await {
            Err(_) => Err(PipelineError::Late(timeout)),
            Ok(Ok(applied)) if reached(&applied) => Ok(()),
            Ok(_) => Err(self.failure()),
        }
    }

    /// Waits until the pipeline has ended, for whatever reason.
    pub async fn ended(&self) {
        let mut receiver = self.applied.subscribe();
        // The sender lives in `self`: the wait cannot fail while it is borrowed.
        let _ = receiver.wait_for(|applied| applied.ended).await;
    }

    /// A snapshot of all values.
    pub fn status(&self) -> PipelineStatus {
        let (state, reason) = self.state.lock().shown();
        let applied = self.applied.borrow().clone();
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let stats = &self.stats;
        PipelineStatus {
            state,
            reason,
            epoch: applied.epoch,
            applied: applied.position.to_string(),
            records: load(&self.records),
            rejected: load(&self.rejected),
            conflicts: load(&stats.conflicts),
            conflicting: stats.latest_conflicts.lock().iter().rev().take(CONFLICTS_SHOWN).map(Conflict::to_string).collect(),
            rows_written: load(&self.rows_written),
            restore_ms: load(&self.restore_ms),
            last_epoch_us: load(&self.last_epoch_us),
            frontier_age_ms: load(&self.frontier_age_ms),
            stalled_ms: load(&self.stalled_ms),
            owners: load(&stats.owners),
            identities: load(&stats.identities),
            evicted: load(&stats.evicted),
            orders: load(&stats.orders),
            pairs: load(&stats.pairs),
            similarity_bytes: load(&stats.similarity_bytes),
        }
    }
}

/// At least 1, because 0 means "not yet".
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
