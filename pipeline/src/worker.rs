//! The workers: timely threads that step the dataflow, each fed by a source of its own. Epochs clock themselves.
//!
//! The next epoch opens when the last has passed the views and somebody has records, after `epoch_min` at least, so epochs grow
//! with the load. While the log is far ahead, an epoch is as many records as fit in memory, because few large epochs cost a tenth
//! of many small ones. Workers keep in step ([`crate::lockstep`]); the first worker of a process tells its sink what has passed,
//! and the first of all, the leader, when to commit.
//!
//! Threads that step timely never wait on I/O: an unbounded channel takes the outputs, and no epoch is opened while the sink has
//! [`EPOCHS_IN_FLIGHT`] to write, which bounds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use kindred_dataflow::update::{Output, OutputFn, Stats};
use kindred_dataflow::{Dataflow, build, restore};
use kindred_log::{EventLog, Share};
use kindred_model::Position;
use kindred_store::{Incarnation, ViewStore};
use kindred_telemetry::fail_point;
use parking_lot::Mutex;
use timely::CommunicationConfig;
use timely::worker::{Config as WorkerConfig, Worker};
use tracing::info;

use crate::lockstep::{Lockstep, Signal};
use crate::pace::Pace;
use crate::progress::Waiter;
use crate::sink::{EpochEnd, SinkMessage};
use crate::source::{Batch, Came, Feed, Source};
use crate::{Context, PipelineConfig, PipelineError, source};

/// Epochs handed to the sink and not yet written. The sink writes what is waiting as one unit, so a slow store gets fewer,
/// larger writes, freshness degrades smoothly, and memory stays bounded.
const EPOCHS_IN_FLIGHT: u64 = 8;
/// Below this lag an epoch takes what is there: rebuilding all lists costs more than updating them.
const CATCH_UP_RECORDS: u64 = 100_000;
/// Records of one epoch when not catching up.
const LIVE_RECORDS_MAX: usize = 20_000;
/// How long a worker sleeps when there is nothing to do before it looks whether to stop. Whoever has work for it wakes it.
const IDLE: Duration = Duration::from_millis(50);
/// Updates between two steps of the dataflow while much is fed, so that its queues stay short.
const STEP_EVERY: usize = 16_384;

/// What the workers of this process are made of.
pub(crate) struct Workers {
    pub config: PipelineConfig,
    /// The incarnation that was begun; only the leader's process has one.
    pub begun: Option<Incarnation>,
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
    pub context: Context,
    /// One a worker.
    pub feeds: Vec<(Feed, Receiver<Batch>)>,
    pub outgoing: Sender<SinkMessage>,
    pub stats: Arc<Stats>,
}

/// Starts the workers; the returned thread ends when all of this process have.
pub(crate) fn spawn(workers: Workers) -> Result<JoinHandle<()>, PipelineError> {
    let Workers { config, begun, log, store, context, feeds, outgoing, stats } = workers;
    let timely = timely::Config { communication: communication(&config), worker: WorkerConfig::default() };
    let starts = context.clone();
    starts.spawn("kindred-workers", move || {
        let shared = Arc::new(Shared {
            config,
            begun,
            log,
            store,
            context: context.clone(),
            outgoing,
            writes_restored: AtomicBool::new(false),
            came: Mutex::new(None),
        });
        let output = shared.output();
        let feeds: Vec<_> = feeds.into_iter().map(|feed| Mutex::new(Some(feed))).collect();
        let workers = timely::execute(timely, move |worker| {
            let local = worker.index() % feeds.len();
            let (feed, incoming) = feeds[local].lock().take().expect("each worker runs once");
            feed.is_mine();
            let shared = Arc::clone(&shared);
            let dataflow = build(worker, &shared.config.semantics, &stats, &output);
            let leads_process = local == 0;
            let lockstep = Lockstep::build(worker, leads_process && shared.config.cluster.is_some());
            let context = shared.context.clone();
            let driver =
                Driver { shared, dataflow, lockstep, feed, incoming, leads_process, is_done: false, act: 0, committed_before: 0 };
            // Not only where it is joined: the others wait for this one, and are joined first.
            context.guard("a worker of the dataflow", || driver.run(worker));
        });
        match workers {
            // timely steps on after `run`: operators can panic there, too.
            Ok(guards) => {
                if guards.join().into_iter().any(|result| result.is_err()) {
                    context.fail("a worker of the dataflow panicked".to_owned());
                }
            }
            Err(reason) => context.fail(reason),
        }
    })
}

fn communication(config: &PipelineConfig) -> CommunicationConfig {
    match &config.cluster {
        None => CommunicationConfig::Process(config.workers),
        Some(cluster) => CommunicationConfig::Cluster {
            threads: config.workers,
            process: cluster.process,
            addresses: cluster.hosts.clone(),
            report: false,
            zerocopy: false,
        },
    }
}

/// What the workers of a process share.
struct Shared {
    config: PipelineConfig,
    begun: Option<Incarnation>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn ViewStore>,
    context: Context,
    outgoing: Sender<SinkMessage>,
    /// The rows of epoch 0, the restored state, are written too: the store does not hold them whole.
    writes_restored: AtomicBool,
    /// When the first record of the open epoch came.
    came: Mutex<Option<Came>>,
}

impl Shared {
    fn output(self: &Arc<Self>) -> OutputFn {
        let shared = Arc::clone(self);
        Arc::new(move |output: Output| {
            if output.epoch() > 0 || shared.writes_restored.load(Ordering::Acquire) {
                shared.tell_sink(SinkMessage::Output(output));
            }
        })
    }

    fn tell_sink(&self, message: SinkMessage) {
        // The sink outlives the workers; if it is gone, the pipeline has failed and messages go nowhere.
        drop(self.outgoing.send(message));
    }
}

/// One worker.
struct Driver {
    shared: Arc<Shared>,
    dataflow: Dataflow,
    lockstep: Lockstep,
    feed: Feed,
    incoming: Receiver<Batch>,
    /// The first worker of its process speaks with the sink.
    leads_process: bool,
    /// It opens no epoch any more, and has told so: once, because all count it.
    is_done: bool,
    /// The last administrative act that was taken in.
    act: u64,
    committed_before: u64,
}

impl Driver {
    /// One of several workers, or the one.
    fn fail_point(&self, worker: &Worker) {
        if cfg!(debug_assertions) {
            fail_point(&format!("thread: worker {}", worker.index()));
        }
    }

    fn run(mut self, worker: &mut Worker) {
        if self.leads_process {
            self.shared.context.progress.wake_me();
        }
        let begun = self.begin(worker);
        self.restore(worker, &begun);
        let mut epoch = 1;
        // A state that was not restored takes nothing in.
        let restored = self.shared.context.progress.failed().is_none();
        let source = restored.then(|| self.start_source(worker, begun.frontier.position)).flatten();
        while let Some(first) = self.next_epoch(worker, epoch) {
            let read_to = self.take_in(first, worker);
            if let Some(position) = &read_to {
                self.lockstep.send(Signal::reached(position));
            }
            self.pass(epoch, worker);
            epoch += 1;
            self.wait_for_sink(epoch, worker);
        }
        let context = self.shared.context.clone();
        self.end(epoch, worker);
        if source.is_some_and(|source| source.join().is_err()) {
            context.fail("a source ended by a panic".to_owned());
        }
        // timely goes on stepping until the dataflow has ended on every worker.
    }

    /// Waits for the incarnation, which the leader tells.
    fn begin(&mut self, worker: &mut Worker) -> Incarnation {
        self.shared.context.progress.resumed(Waiter::Cluster);
        if worker.index() == 0 {
            let begun = self.shared.begun.as_ref().expect("the process of worker 0 has begun");
            self.lockstep.send(Signal::begun(begun));
        }
        loop {
            if let Some(begun) = self.lockstep.heard(|heard| heard.begun.clone()) {
                if begun.frontier.unfinished {
                    self.shared.writes_restored.store(true, Ordering::Release);
                }
                if self.leads_process {
                    self.shared.tell_sink(SinkMessage::Begun(begun.clone()));
                }
                return begun;
            }
            worker.step_or_park(Some(IDLE));
        }
    }

    /// Reads the merged inputs back as epoch 0, each process its part.
    fn restore(&mut self, worker: &mut Worker, begun: &Incarnation) {
        let read = if self.leads_process { self.read_inputs(worker) } else { Ok(()) };
        self.step_past(0, worker);
        if let Err(error) = read {
            // What is restored in part must not be written for the whole: the sink hears of no epoch.
            return self.shared.context.fail(format!("could not read the merged inputs: {error}"));
        }
        if self.leads_process {
            self.tell_passed(0);
            self.shared.context.progress.restored();
            info!(incarnation = begun.number, workers = worker.peers(), "the state is restored");
        }
    }

    fn read_inputs(&mut self, worker: &mut Worker) -> Result<(), PipelineError> {
        let snapshot = self.shared.store.snapshot()?;
        let part = self.shared.config.cluster.as_ref().map_or((0, 1), |cluster| (cluster.process, cluster.hosts.len()));
        let mut records = 0usize;
        let dataflow = &mut self.dataflow;
        restore(&*snapshot.rows, part, &self.shared.config.semantics, &mut |update| {
            dataflow.send(update);
            records += 1;
            if records.is_multiple_of(STEP_EVERY) {
                worker.step();
            }
        })?;
        info!(records, "read {records} merged inputs back");
        Ok(())
    }

    fn start_source(&self, worker: &Worker, from: Position) -> Option<JoinHandle<()>> {
        let number = |number: usize| u32::try_from(number).expect("workers are few");
        let source = Source {
            log: Arc::clone(&self.shared.log),
            rules: self.shared.config.semantics.rules(),
            context: self.shared.context.clone(),
            feed: self.feed.clone(),
            share: Share::new(number(worker.index()), number(worker.peers())),
            pace: self.shared.config.rate.map(|rate| Pace::new(rate, number(worker.peers()))),
        };
        source::spawn(source, from).inspect_err(|error| self.shared.context.fail(error.to_string())).ok()
    }

    /// Waits until there are records here or somebody else has opened the epoch: the answer is the first batch, if there is one
    /// here. Nothing when no worker will open one any more.
    fn next_epoch(&mut self, worker: &mut Worker, epoch: u64) -> Option<Option<Batch>> {
        loop {
            if !self.is_done {
                if let Ok(batch) = self.incoming.try_recv() {
                    self.lockstep.send(Signal::Open(epoch));
                    return Some(Some(batch));
                }
                if self.shared.context.stopping() {
                    self.is_done = true;
                    let failure = self.shared.context.progress.failed();
                    self.lockstep.send(Signal::Done(failure));
                }
            }
            let (opened, done) = self.lockstep.heard(|heard| (heard.opened, heard.done));
            if opened >= Some(epoch) {
                return Some(None);
            }
            if done == worker.peers() {
                return None;
            }
            if done > 0 && !self.shared.context.stopping() {
                let failure = self.lockstep.heard(|heard| heard.failure.clone());
                self.shared.context.follow(failure);
            }
            self.tend();
            worker.step_or_park(Some(IDLE));
        }
    }

    /// Feeds an epoch: what is there within `epoch_min`, or, far behind the log, as much as fits. Returns how far that was read.
    fn take_in(&mut self, first: Option<Batch>, worker: &mut Worker) -> Option<Position> {
        let opened = Instant::now();
        let (catch_up_records, catch_up_wait) = self.shared.config.catch_up();
        let (mut records, mut read_to) = (0, None::<Position>);
        let opens = first.is_some();
        let mut next = first.or_else(|| self.incoming.try_recv().ok());
        while let Some(batch) = next.take() {
            let before = records;
            records += batch.updates.len();
            self.shared.began_with(batch.came);
            self.act = self.act.max(batch.act);
            self.fail_point(worker);
            for update in batch.updates {
                self.dataflow.send(update);
            }
            if let Some(reached) = &batch.position {
                read_to.get_or_insert_default().join(reached);
            }
            if before / STEP_EVERY != records / STEP_EVERY {
                worker.step();
            }
            let catching_up = batch.behind > 0 && (records as u64 + batch.behind) > CATCH_UP_RECORDS;
            let all = if catching_up { catch_up_records } else { LIVE_RECORDS_MAX };
            if records >= all / self.shared.config.workers || self.shared.context.stopping() {
                break;
            }
            next = match (catching_up, opens) {
                (true, _) => self.incoming.recv_timeout(catch_up_wait).ok(),
                (false, true) => self.incoming.recv_deadline(opened + self.shared.config.epoch_min).ok(),
                // Others wait for this worker.
                (false, false) => self.incoming.try_recv().ok(),
            };
        }
        metrics::histogram!("pipeline_epoch_records").record(records as f64);
        read_to
    }

    /// Closes the epoch and steps until every output of it has been handed to the sinks.
    fn pass(&mut self, epoch: u64, worker: &mut Worker) {
        self.step_past(epoch, worker);
        if self.leads_process {
            self.tell_passed(epoch);
        }
    }

    fn step_past(&mut self, epoch: u64, worker: &mut Worker) {
        self.dataflow.advance_to(epoch + 1);
        self.lockstep.advance_to(epoch + 1);
        while !(self.dataflow.has_passed(epoch) && self.lockstep.has_passed(epoch)) {
            self.tend();
            worker.step_or_park(Some(IDLE));
        }
    }

    fn tell_passed(&self, epoch: u64) {
        let position = self.lockstep.heard(|heard| heard.position.clone());
        let came = self.shared.came.lock().take();
        self.shared.tell_sink(SinkMessage::EpochEnd(EpochEnd { epoch, position, came, act: self.act }));
    }

    /// Tells others what the sink has written, and the sink what all have.
    fn tend(&mut self) {
        if !self.leads_process || self.shared.config.cluster.is_none() {
            return;
        }
        self.lockstep.wrote_before(self.shared.context.progress.written_before());
        if self.shared.begun.is_some() {
            let durable_before = self.lockstep.durable_before().unwrap_or(u64::MAX);
            if durable_before > self.committed_before {
                self.committed_before = durable_before;
                self.shared.tell_sink(SinkMessage::Commit { before: durable_before });
            }
        }
    }

    fn wait_for_sink(&mut self, next: u64, worker: &mut Worker) {
        let progress = Arc::clone(&self.shared.context.progress);
        while progress.written_before() + EPOCHS_IN_FLIGHT <= next && !self.shared.context.stopping() {
            self.tend();
            worker.step_or_park(Some(IDLE));
        }
    }

    /// Ends: what the sink has is written, and the leader has committed what all have written.
    fn end(mut self, epoch: u64, worker: &mut Worker) {
        if self.leads_process && self.shared.config.cluster.is_some() {
            let progress = Arc::clone(&self.shared.context.progress);
            while progress.failed().is_none() && progress.written_before() < epoch {
                self.tend();
                worker.step_or_park(Some(IDLE));
            }
            if progress.failed().is_some() {
                // To say that all is written would make the leader commit what is not. Nothing is said: the process has to end.
                return self.lockstep.keep_silent();
            }
            self.lockstep.wrote_all();
            while progress.failed().is_none() && self.shared.begun.is_some() && self.lockstep.durable_before().is_some() {
                self.tend();
                worker.step_or_park(Some(IDLE));
            }
            self.tend();
        }
        self.dataflow.close();
    }
}

impl Shared {
    fn began_with(&self, came: Came) {
        let mut first = self.came.lock();
        *first = Some(first.map_or(came, |first| first.min(came)));
    }
}
