//! The sink: collects an epoch's outputs from all workers, encodes them, and writes them with the positions as one unit.
//!
//! In a cluster each process writes its workers' rows, and the leader commits once all have written.
//!
//! Epochs that queue while the store is busy are written together, keeping only the newest value of each row. Writes are upserts
//! of absolute values, so repeating a unit changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use kindred_dataflow::update::{Changes, Output};
use kindred_log::{EventLog, LogError};
use kindred_model::views::view_tables;
use kindred_model::{Position, Topic};
use kindred_store::{Change, EpochChanges, Incarnation, StoreError, ViewReader, ViewWriter, WriteSession};
use kindred_telemetry::fail_point;
use tracing::{info, warn};

use crate::gauges::double;
use crate::progress::Waiter;
use crate::source::Came;
use crate::{Context, PipelineError, block_on_runtime};

/// Back-off before a call to the store is retried.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) enum SinkMessage {
    /// The incarnation to write under; the first message.
    Begun(Incarnation),
    /// Changed rows.
    Output(Output),
    /// All outputs up to this epoch have been sent.
    EpochEnd(EpochEnd),
    /// Every process has written every epoch before this one.
    Commit { before: u64 },
}

pub(crate) struct EpochEnd {
    /// The dataflow's epoch number; the store's number continues over restarts.
    pub epoch: u64,
    /// The position the epoch has read up to.
    pub position: Position,
    /// When the first of its records arrived.
    pub came: Option<Came>,
    /// The last administrative action of the epoch.
    pub act: u64,
}

/// Merged records of a topic to append again, with the epoch in which older ones arrived.
type Superseded = (u64, Topic, Vec<Arc<[u8]>>);

/// What this process writes of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Everything, in one unit.
    Alone,
    /// Its rows, then the commit once all processes have written theirs.
    Leader,
    /// Its rows.
    Follower,
}

/// Where a sink gets its session.
pub(crate) enum Session {
    /// The one that this process began.
    Begun(Box<dyn WriteSession>),
    /// Joins what the leader began.
    Join(Arc<dyn ViewWriter>),
}

pub(crate) struct Sink {
    store: Arc<dyn ViewReader>,
    /// Where merged records are appended again; `None` where another pipeline of the same log does it.
    log: Option<Arc<dyn EventLog>>,
    context: Context,
    role: Role,
    /// The store's epoch number of the dataflow's epoch 0.
    base: u64,
    /// Also write the rows of epoch 0, the restored state, because the store's last unit was unfinished.
    rewrite: bool,
    sync_interval: Duration,
    /// Outputs of open epochs.
    open: BTreeMap<u64, Vec<Box<dyn Changes>>>,
    /// Merged records to append again.
    superseded: Vec<Superseded>,
    /// Unwritten changes of closed epochs, in epoch order.
    pending: Vec<Change>,
    end: Option<EpochEnd>,
    /// Leader only: epochs written here and not yet by all processes.
    uncommitted: VecDeque<EpochEnd>,
    /// All processes have written every epoch before this one.
    committable_before: u64,
}

pub(crate) fn spawn(sink: Sink, session: Session, messages: Receiver<SinkMessage>) -> Result<JoinHandle<()>, PipelineError> {
    let runtime = block_on_runtime()?;
    let context = sink.context.clone();
    context.spawn("kindred-sink", move || sink.run(session, &messages, &runtime))
}

impl Sink {
    pub fn new(
        store: Arc<dyn ViewReader>,
        log: Option<Arc<dyn EventLog>>,
        context: Context,
        role: Role,
        sync_interval: Duration,
    ) -> Self {
        Self {
            store,
            log,
            context,
            role,
            base: 0,
            rewrite: false,
            sync_interval,
            open: BTreeMap::new(),
            superseded: Vec::new(),
            pending: Vec::new(),
            end: None,
            uncommitted: VecDeque::new(),
            committable_before: 0,
        }
    }

    fn run(mut self, session: Session, messages: &Receiver<SinkMessage>, runtime: &tokio::runtime::Runtime) {
        // Otherwise the workers ended before they began.
        let Ok(SinkMessage::Begun(begun)) = messages.recv() else { return self.context.progress.stopped() };
        let session = match session {
            Session::Begun(session) => Ok(session),
            Session::Join(store) => retry(&self.context, || runtime.block_on(store.join(begun.number))),
        };
        let session = match session {
            Ok(session) => session,
            Err(error) => return self.context.fail(error.to_string()),
        };
        (self.base, self.rewrite) = (begun.first_epoch, begun.frontier.unfinished);
        let mut synced = Instant::now();
        let mut dirty = false;
        loop {
            let mut disconnected = false;
            match messages.recv_timeout(self.sync_interval) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => disconnected = true,
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            dirty |= self.end.is_some() || !self.uncommitted.is_empty();
            let ended = self.end.take();
            let written = ended.map_or(Ok(()), |end| self.write(end, &*session, runtime));
            let written = written.and_then(|()| self.commit(&*session, runtime));
            if let Err(error) = written {
                return self.context.fail(error.to_string());
            }
            if dirty && (disconnected || synced.elapsed() >= self.sync_interval) {
                // A failed sync loses nothing: the log is durable and is read again from the last synced position.
                let began = Instant::now();
                let synced_now = runtime.block_on(self.store.sync());
                metrics::histogram!("store_sync_duration_seconds").record(began.elapsed().as_secs_f64());
                match synced_now {
                    Ok(()) => dirty = false,
                    Err(error) => warn!("could not sync the store: {error}"),
                }
                synced = Instant::now();
            }
            if disconnected {
                return self.finish(session, runtime);
            }
        }
    }

    fn finish(self, session: Box<dyn WriteSession>, runtime: &tokio::runtime::Runtime) {
        // Failing here only costs the next start a rewrite. An unfinished store that was not rewritten stays marked.
        if self.role != Role::Follower
            && !self.rewrite
            && let Err(error) = runtime.block_on(session.end())
        {
            warn!("could not mark a clean shutdown, the next start rewrites all rows: {error}");
        }
        self.context.progress.stopped();
    }

    fn take(&mut self, message: SinkMessage) {
        match message {
            SinkMessage::Output(Output::Rows { epoch, changes }) => self.open.entry(epoch).or_default().push(changes),
            SinkMessage::Output(Output::Superseded { epoch, topic, merged }) => {
                if self.log.as_ref().is_some_and(|log| log.compacts()) {
                    self.superseded.push((epoch, topic, merged));
                }
            }
            SinkMessage::EpochEnd(end) => {
                let mut later = self.open.split_off(&(end.epoch + 1));
                std::mem::swap(&mut later, &mut self.open);
                for changes in later.into_values().flatten() {
                    changes.encode(&mut |table, key, row| {
                        self.pending.push(Change { table, key: key.to_vec(), row: row.map(<[u8]>::to_vec) });
                    });
                }
                let earlier = self.end.take();
                let came = earlier.as_ref().and_then(|earlier| earlier.came).or(end.came);
                let act = earlier.map_or(end.act, |earlier| earlier.act.max(end.act));
                self.end = Some(EpochEnd { came, act, ..end });
            }
            SinkMessage::Commit { before } => self.committable_before = before,
            SinkMessage::Begun(_) => tracing::error!("a pipeline begins once"),
        }
    }

    fn write(
        &mut self,
        end: EpochEnd,
        session: &dyn WriteSession,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(), PipelineError> {
        if end.epoch == 0 && !self.rewrite {
            // The store already holds the restored rows.
            self.context.progress.wrote(0);
            return Ok(());
        }
        if self.rewrite {
            info!(rows = self.pending.len(), "the store is unfinished; rewriting all rows");
            if self.role != Role::Follower {
                let tables: Vec<&'static str> = view_tables().iter().map(|table| table.name).collect();
                retry(&self.context, || runtime.block_on(session.clear(&tables)))?;
            }
            self.rewrite = false;
        }
        fail_point("thread: sink");
        self.append_again(end.epoch, runtime)?;
        let epoch = self.base + end.epoch;
        let changes = Arc::new(newest(std::mem::take(&mut self.pending)));
        let rows = changes.len() as u64;
        let bytes: usize = changes.iter().map(|change| change.key.len() + change.row.as_ref().map_or(0, Vec::len)).sum();
        let began = Instant::now();
        if self.role == Role::Alone {
            let unit = EpochChanges { epoch, position: end.position.clone(), changes };
            retry(&self.context, || runtime.block_on(session.apply(unit.clone())))?;
        } else if rows > 0 {
            retry(&self.context, || runtime.block_on(session.write(epoch, Arc::clone(&changes))))?;
        }
        metrics::histogram!("store_apply_duration_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("store_unit_rows").record(double(rows));
        metrics::counter!("store_rows_written_total").increment(rows);
        metrics::counter!("store_bytes_written_total").increment(bytes as u64);
        let progress = &self.context.progress;
        progress.rows_written.fetch_add(rows, Ordering::Relaxed);
        progress.wrote(end.epoch);
        if self.role == Role::Leader {
            self.uncommitted.push_back(end);
        } else {
            self.reached(&end);
        }
        Ok(())
    }

    /// Appends again the merged records superseded up to this epoch, before the positions past the older ones become durable.
    /// Repeatable: a merged record merges into itself and supersedes nothing.
    fn append_again(&mut self, epoch: u64, runtime: &tokio::runtime::Runtime) -> Result<(), PipelineError> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let (due, later) = std::mem::take(&mut self.superseded).into_iter().partition(|(of, ..)| *of <= epoch);
        self.superseded = later;
        for (_, topic, merged) in due {
            let records: Vec<Vec<u8>> = merged.iter().map(|record| record.to_vec()).collect();
            metrics::counter!("pipeline_superseded_records_total").increment(records.len() as u64);
            retry(&self.context, || runtime.block_on(log.append(topic, records.clone(), None)))?;
        }
        Ok(())
    }

    /// Commits what all processes have written.
    fn commit(&mut self, session: &dyn WriteSession, runtime: &tokio::runtime::Runtime) -> Result<(), PipelineError> {
        let ready = self.uncommitted.partition_point(|end| end.epoch < self.committable_before);
        let ready: Vec<EpochEnd> = self.uncommitted.drain(..ready).collect();
        if let Some(last) = ready.last() {
            let epoch = self.base + last.epoch;
            retry(&self.context, || runtime.block_on(session.commit(epoch, last.position.clone())))?;
        }
        ready.iter().for_each(|end| self.reached(end));
        Ok(())
    }

    /// An epoch is durable, as far as this process knows.
    fn reached(&self, end: &EpochEnd) {
        let progress = &self.context.progress;
        if let Some(came) = end.came {
            let took = came.read.elapsed();
            progress.last_epoch_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            metrics::histogram!("pipeline_read_to_applied_seconds").record(took.as_secs_f64());
            metrics::histogram!("pipeline_event_to_durable_seconds").record(came.appended.elapsed().as_secs_f64());
        }
        progress.advance(self.base + end.epoch, &end.position, end.act);
    }
}

/// The newest row of each key, sorted by key, which the store writes faster.
fn newest(mut changes: Vec<Change>) -> Vec<Change> {
    // Stable: rows of one key stay in epoch order, and the last wins.
    changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    changes.dedup_by(|later, kept| {
        let same = (later.table, &later.key) == (kept.table, &kept.key);
        if same {
            kept.row = later.row.take();
        }
        same
    });
    changes
}

/// A transient error: no answer, or no free space.
trait Passing: std::fmt::Display {
    fn passes(&self) -> bool;
}

impl Passing for StoreError {
    fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

impl Passing for LogError {
    fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

/// Retries a call while the error is transient. Safe, because writes are absolute values.
fn retry<T, E: Passing>(context: &Context, mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    loop {
        match call() {
            Ok(value) => {
                context.progress.resumed(Waiter::Sink);
                return Ok(value);
            }
            Err(error) if error.passes() && !context.stopping() => {
                metrics::counter!("pipeline_retries_total").increment(1);
                context.progress.tries_again(Waiter::Sink, "could not write an epoch", error.to_string());
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}
