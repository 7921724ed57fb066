//! The workers: timely threads that step the dataflow, each fed by its own source.
//!
//! The next epoch opens when the last has passed the views and some worker has records, after at least `epoch_min`, so epochs
//! grow with the load. Far behind the log, an epoch holds as many records as fit in memory: few large epochs cost a tenth of many
//! small ones. Workers run in lockstep ([`crate::lockstep`]); the first worker of a process tells its sink which epochs have
//! passed, and the leader when to commit.
//!
//! Threads that step timely never wait on I/O: outputs go to an unbounded channel. No epoch opens while the sink has
//! [`EPOCHS_IN_FLIGHT`] to write, which bounds the channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use kindred_dataflow::update::{Output, OutputFn, Stats};
use kindred_dataflow::{Dataflow, build, restore};
use kindred_log::{EventLog, Share};
use kindred_model::Position;
use kindred_store::{Incarnation, ViewReader};
use kindred_telemetry::fail_point;
use parking_lot::Mutex;
use timely::CommunicationConfig;
use timely::worker::{Config as WorkerConfig, Worker};
use tracing::info;

use crate::lockstep::{Lockstep, Signal};
use crate::progress::Waiter;
use crate::rate_limit::RateLimit;
use crate::sink::{EpochEnd, SinkMessage};
use crate::source::{Batch, Came, Feed, Source};
use crate::{Context, PipelineConfig, PipelineError, source};

/// Epochs handed to the sink and not yet written. The sink writes queued epochs as one unit, so a slow store gets fewer, larger
/// writes: lists get older, memory stays bounded.
const EPOCHS_IN_FLIGHT: u64 = 8;
/// Below this lag an epoch is not enlarged: rebuilding all lists costs more than updating them.
const CATCH_UP_RECORDS: u64 = 100_000;
/// Maximum records per epoch when not catching up.
const LIVE_RECORDS_MAX: usize = 20_000;
/// How often an idle worker checks for a stop. New work wakes it.
const IDLE: Duration = Duration::from_millis(50);
/// Updates fed between two steps of the dataflow, so that its queues stay short.
const STEP_EVERY: usize = 16_384;

/// What this process's workers are built from.
pub(crate) struct Workers {
    pub config: PipelineConfig,
    /// The incarnation; only the leader's process has one.
    pub begun: Option<Incarnation>,
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewReader>,
    pub context: Context,
    /// One per worker.
    pub feeds: Vec<(Feed, Receiver<Batch>)>,
    pub outgoing: Sender<SinkMessage>,
    pub stats: Arc<Stats>,
}

/// Starts the workers; the returned thread ends after all workers of this process.
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
            // Guarded here, not only at the join: the other workers wait for this one and are joined first.
            context.guard("a worker of the dataflow", || driver.run(worker));
        });
        match workers {
            // timely keeps stepping after `run`, and operators can panic there, too.
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

/// Shared by the workers of a process.
struct Shared {
    config: PipelineConfig,
    begun: Option<Incarnation>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn ViewReader>,
    context: Context,
    outgoing: Sender<SinkMessage>,
    /// Also write the rows of epoch 0, the restored state: the store's last unit was unfinished.
    writes_restored: AtomicBool,
    /// When the first record of the open epoch arrived.
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
        // The sink outlives the workers unless the pipeline failed; messages are dropped then.
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
    /// The first worker of its process talks to the sink.
    leads_process: bool,
    /// This worker opens no more epochs and has signalled it, exactly once, because the signals are counted.
    is_done: bool,
    /// The last administrative action that was fed.
    act: u64,
    committed_before: u64,
}

impl Driver {
    /// Fail point "thread: worker N".
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
        // A state that was not restored must not be fed.
        let restored = self.shared.context.progress.failed().is_none();
        let source = restored.then(|| self.start_source(worker, begun.frontier.position)).flatten();
        while let Some(first) = self.next_epoch(worker, epoch) {
            let read_to = self.take_in(first, worker);
            if let Some(position) = &read_to {
                self.lockstep.send(Signal::reached(epoch, position));
            }
            self.pass(epoch, worker);
            epoch += 1;
            self.wait_for_sink(epoch, worker);
        }
        let context = self.shared.context.clone();
        self.end(epoch, worker);
        if source.is_some_and(|source| source.join().is_err()) {
            context.fail("a source panicked".to_owned());
        }
        // timely keeps stepping until the dataflow has ended on every worker.
    }

    /// Waits for the leader's incarnation.
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

    /// Restores the merged inputs as epoch 0; each process reads its part.
    fn restore(&mut self, worker: &mut Worker, begun: &Incarnation) {
        let read = if self.leads_process { self.read_inputs(worker) } else { Ok(()) };
        self.step_past(0, worker);
        if let Err(error) = read {
            // A partly restored state must not be written: the sink gets no epoch.
            return self.shared.context.fail(format!("could not read the merged inputs: {error}"));
        }
        if self.leads_process {
            self.tell_passed(0, self.lockstep.read_to(0));
            self.shared.context.progress.restored();
            info!(incarnation = begun.number, workers = worker.peers(), "restored the state");
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
        info!(records, "restored {records} merged inputs");
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
            rate_limit: self.shared.config.rate.map(|rate| RateLimit::new(rate, number(worker.peers()))),
        };
        source::spawn(source, from).inspect_err(|error| self.shared.context.fail(error.to_string())).ok()
    }

    /// Waits until this worker has records or another worker has opened the epoch; returns this worker's first batch, if any.
    /// `None` when no worker will open another epoch.
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

    /// Feeds an epoch: what arrives within `epoch_min`, or, far behind the log, as much as fits. Returns the position read up to.
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
                // Other workers wait for this one.
                (false, false) => self.incoming.try_recv().ok(),
            };
        }
        metrics::histogram!("pipeline_epoch_records").record(records as f64);
        read_to
    }

    /// Closes the epoch and steps until all of its outputs have been sent to the sinks.
    fn pass(&mut self, epoch: u64, worker: &mut Worker) {
        self.step_past(epoch, worker);
        let read_to = self.lockstep.read_to(epoch);
        if self.leads_process {
            self.tell_passed(epoch, read_to);
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

    fn tell_passed(&self, epoch: u64, position: Position) {
        let came = self.shared.came.lock().take();
        self.shared.tell_sink(SinkMessage::EpochEnd(EpochEnd { epoch, position, came, act: self.act }));
    }

    /// Reports to other processes what the sink has written, and to the sink what all have.
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

    /// Ends once the sink has written everything and the leader has committed what all processes have written.
    fn end(mut self, epoch: u64, worker: &mut Worker) {
        if self.leads_process && self.shared.config.cluster.is_some() {
            let progress = Arc::clone(&self.shared.context.progress);
            while progress.failed().is_none() && progress.written_before() < epoch {
                self.tend();
                worker.step_or_park(Some(IDLE));
            }
            if progress.failed().is_some() {
                // Reporting all as written would make the leader commit unwritten epochs; the process has to end instead.
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
