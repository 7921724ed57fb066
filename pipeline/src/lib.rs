//! The pipeline: log → merge → views → store, one thread a stage (a source and a worker for each worker), bounded channels
//! between them.
//!
//! ```text
//!  EventLog ──source──▶ Batch ──worker──▶ timely dataflow (all workers of all processes) ──Output──▶ sink ──▶ WriteSession
//!   (reads its share, decodes, rejects)  (keep in step, epochs clock themselves)          (encodes, coalesces, one unit)
//! ```
//!
//! The views are a function of the set of events and the settings; epochs only batch the work. A start restores the merged inputs
//! as one epoch and resumes the log at the positions stored with them.

mod error;
mod forget;
mod gauges;
mod lockstep;
mod migrate;
mod progress;
mod rate_limit;
mod sink;
mod source;
mod verify;
mod worker;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
pub use error::PipelineError;
pub use forget::swept_members;
use kindred_clock::Clock;
use kindred_dataflow::update::Update;
pub use kindred_dataflow::update::{Conflict, Stats};
use kindred_log::{EventLog, Share};
use kindred_model::calendar::Zone;
use kindred_model::loyalty::Program;
use kindred_model::views::{input_tables, view_tables};
use kindred_model::{Position, Semantics};
use kindred_store::{Incarnation, ViewReader, ViewStore, ViewWriter, WriteSession};
use kindred_telemetry::fail_point;
pub use migrate::migrate_from_format_1;
use progress::Waiter;
pub use progress::{PipelineState, PipelineStatus, Progress};
use source::Feed;
use tracing::info;
pub use verify::{DifferenceReport, InputsReport, VerifyReport, repair, verify, verify_inputs};

/// Batches queued between source and worker: enough to decode ahead, few enough to bound memory when a worker is slow.
const BATCHES_AHEAD: usize = 64;

/// How long an epoch waits for more records while catching up.
const CATCH_UP_WAIT: Duration = Duration::from_millis(50);

/// How long the threads of a failed pipeline may take to write what they hold.
const END_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The processes that run one pipeline. Each starts with the same hosts and its own index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// The index of this process. Process 0 commits.
    pub process: usize,
    /// The addresses the processes listen on for each other, `host:port`.
    pub hosts: Vec<String>,
}

/// How a pipeline runs. Only `semantics` affects results.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// The pinned settings.
    pub semantics: Semantics,
    /// Timely workers, at least 1. Results do not depend on it.
    pub workers: usize,
    /// Minimum epoch duration: the fixed cost of an epoch dominates below it.
    pub epoch_min: Duration,
    /// Maximum records per epoch while catching up; bounded by memory.
    pub epoch_records_max: usize,
    /// Rate limit in records per second over all workers, for a pipeline that runs beside a live one; its epochs last ten
    /// seconds.
    pub rate: Option<NonZeroU32>,
    /// Interval between syncs of the store.
    pub sync_interval: Duration,
    /// `erasure.raw_days`: raw records of an erased member are removed within that many days; 0 means as soon as possible.
    pub raw_days: u32,
    /// Clear the store and rebuild it from the log. In a cluster process 0 does.
    pub from_beginning: bool,
    /// Append merged records again where compaction would lose them. One pipeline per log does.
    pub mends_log: bool,
    /// The generation of the views, a metrics label.
    pub generation: String,
    /// The processes, if there are several. `workers` is per process.
    pub cluster: Option<Cluster>,
}

impl PipelineConfig {
    /// The defaults with these semantics.
    pub fn new(semantics: Semantics) -> Self {
        Self {
            semantics,
            workers: 1,
            epoch_min: Duration::from_millis(1),
            epoch_records_max: 2_000_000,
            rate: None,
            sync_interval: Duration::from_secs(1),
            raw_days: 30,
            from_beginning: false,
            mends_log: true,
            generation: "g1".to_owned(),
            cluster: None,
        }
    }

    fn check(&self) -> Result<(), PipelineError> {
        self.semantics.check().map_err(PipelineError::Settings)?;
        let problem = match &self.cluster {
            _ if self.workers == 0 => "pipeline.workers must be at least 1".to_owned(),
            Some(Cluster { process, hosts }) if *process >= hosts.len() => {
                format!("cluster.process is {process}, but cluster.hosts names {} processes, counted from 0", hosts.len())
            }
            _ => return Ok(()),
        };
        Err(PipelineError::Settings(problem))
    }

    /// Maximum records of an epoch while catching up, and how long it waits for more.
    fn catch_up(&self) -> (usize, Duration) {
        match self.rate {
            Some(rate) => (self.epoch_records_max.min(rate_limit::epoch_records(rate)), rate_limit::PORTION_WAIT),
            None => (self.epoch_records_max, CATCH_UP_WAIT),
        }
    }

    /// The shares of the log that this process's workers read.
    fn shares(&self) -> Vec<Share> {
        let (process, processes) = self.cluster.as_ref().map_or((0, 1), |cluster| (cluster.process, cluster.hosts.len()));
        let number = |number: usize| u32::try_from(number).expect("workers are few");
        let first = process * self.workers;
        (first..first + self.workers).map(|worker| Share::new(number(worker), number(self.workers * processes))).collect()
    }

    fn role(&self) -> sink::Role {
        match &self.cluster {
            None => sink::Role::Alone,
            Some(cluster) if cluster.process == 0 => sink::Role::Leader,
            Some(_) => sink::Role::Follower,
        }
    }
}

/// A running pipeline. Dropping it without [`Pipeline::stop`] stops it too, without waiting.
pub struct Pipeline {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    store: Arc<dyn ViewReader>,
    log: Arc<dyn EventLog>,
    inject: Feed,
    is_cluster: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the threads: they restore the state from the store's merged inputs, then follow the log. Returns once they run;
    /// [`Pipeline::status`] reports when the state is restored.
    ///
    /// # Errors
    /// When log or store do not answer, or a setting cannot be used.
    pub async fn start(
        config: PipelineConfig,
        log: Arc<dyn EventLog>,
        store: Arc<dyn ViewStore>,
        clock: Clock,
    ) -> Result<Self, PipelineError> {
        Self::start_with(config, log, Arc::clone(&store) as _, store, clock).await
    }

    /// As [`Pipeline::start`], with the sessions of another writer, such as one that publishes what is written to `store`.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub async fn start_with(
        config: PipelineConfig,
        log: Arc<dyn EventLog>,
        store: Arc<dyn ViewReader>,
        writer: Arc<dyn ViewWriter>,
        clock: Clock,
    ) -> Result<Self, PipelineError> {
        config.check()?;
        let role = config.role();
        let (begun, session) = match role {
            sink::Role::Follower => (None, sink::Session::Join(writer)),
            sink::Role::Alone | sink::Role::Leader => {
                let session = writer.begin().await?;
                let begun = begin(&*store, &*session, config.from_beginning, &config.semantics).await?;
                (Some(begun), sink::Session::Begun(session))
            }
        };
        let stats = Arc::new(Stats::default());
        let progress = Arc::new(Progress::new(&store.frontier(), Arc::clone(&stats)));
        if let Some(cluster) = &config.cluster {
            progress.waits(Waiter::Cluster, format!("waits for the other processes: {}", cluster.hosts.join(", ")));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let feeds: Vec<_> = (0..config.workers).map(|_| Feed::new(BATCHES_AHEAD)).collect();
        let inject = feeds[0].0.clone();
        let (outgoing, messages) = unbounded();
        let context = Context { stop: Arc::clone(&stop), progress: Arc::clone(&progress) };
        let is_cluster = config.cluster.is_some();

        let mut threads = Vec::new();
        let mended = config.mends_log.then(|| Arc::clone(&log));
        let sink = sink::Sink::new(Arc::clone(&store), mended, context.clone(), role, config.sync_interval);
        threads.push(sink::spawn(sink, session, messages)?);
        if role != sink::Role::Follower {
            threads.push(forget::spawn(forget::Sweeper {
                log: Arc::clone(&log),
                store: Arc::clone(&store),
                context: context.clone(),
                inject: inject.clone(),
                rules: config.semantics.rules(),
                raw_days: config.raw_days,
                clock,
            })?);
        }
        threads.push(gauges::spawn(gauges::Gauges {
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            context: context.clone(),
            stats: Arc::clone(&stats),
            generation: config.generation.clone(),
            shares: config.shares(),
        })?);
        threads.push(worker::spawn(worker::Workers {
            config,
            begun,
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            context,
            feeds,
            outgoing,
            stats,
        })?);
        Ok(Self { stop, progress, store, log, inject, is_cluster, threads })
    }

    /// The position the store has reached: everything before it is readable and survives a kill.
    pub fn applied(&self) -> Position {
        self.progress.applied()
    }

    /// Waits until the store reaches `position`.
    ///
    /// # Errors
    /// [`PipelineError::Late`] after `timeout`; [`PipelineError::Failed`] when the pipeline has ended.
    pub async fn wait_for(&self, position: &Position, timeout: Duration) -> Result<(), PipelineError> {
        self.progress.wait_for(position, timeout).await
    }

    /// Waits until the store reaches the present end of the log and survives a loss of power.
    ///
    /// # Errors
    /// As [`Pipeline::wait_for`].
    pub async fn settle(&self, timeout: Duration) -> Result<Position, PipelineError> {
        let end = self.log.end().await?;
        self.wait_for(&end, timeout).await?;
        self.store.sync().await?;
        Ok(end)
    }

    /// State and progress.
    pub fn status(&self) -> PipelineStatus {
        self.progress.status()
    }

    /// A handle on progress that outlives the pipeline, for the API and readiness.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Feeds an administrative action between records of the log.
    ///
    /// # Errors
    /// [`PipelineError::Failed`] when the pipeline has ended.
    pub fn inject(&self, updates: Vec<Update>) -> Result<(), PipelineError> {
        if self.inject.act(0, updates) { Ok(()) } else { Err(self.progress.failure()) }
    }

    /// Stops: finishes and writes what was read, syncs the store, and joins every thread. In a cluster it stops every process's
    /// pipeline.
    ///
    /// # Errors
    /// [`PipelineError::Failed`] when the pipeline had failed before. Some of its threads may then wait for a dead worker or
    /// process: end the process.
    pub fn stop(mut self) -> Result<(), PipelineError> {
        self.stop.store(true, Ordering::Release);
        for thread in std::mem::take(&mut self.threads) {
            if self.has_ended(&thread) {
                // A panic has failed the pipeline already.
                drop(thread.join());
            }
        }
        match self.progress.status().state {
            PipelineState::Failed => Err(self.progress.failure()),
            _ => Ok(()),
        }
    }

    /// Waits for a thread. False after a timeout: it may wait for a dead worker or process.
    fn has_ended(&self, thread: &JoinHandle<()>) -> bool {
        let mut failed = None;
        while !thread.is_finished() {
            if self.progress.failed().is_some() && failed.get_or_insert_with(Instant::now).elapsed() > END_AFTER_FAILURE {
                return false;
            }
            if self.is_cluster && !self.progress.has_begun() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Shared by all threads of a pipeline.
#[derive(Clone)]
struct Context {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Context {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends the pipeline because another worker ended, normally or with a failure.
    fn follow(&self, failure: Option<String>) {
        match failure {
            Some(reason) => self.fail(format!("another worker of the cluster failed: {reason}")),
            None => self.stop.store(true, Ordering::Release),
        }
    }

    /// Starts a thread of the pipeline. A panic in it fails the pipeline, since the others would wait for it.
    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PipelineError> {
        let context = self.clone();
        let told = name.to_owned();
        let work = move || context.guard(&told, work);
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(PipelineError::Thread)
    }

    /// Runs a thread's work. A panic fails the pipeline and resumes.
    fn guard(&self, name: &str, work: impl FnOnce()) {
        // Unwind-safe: a failed pipeline does not use the shared state again.
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            self.fail(format!("{name} panicked"));
            // NB: a worker must not step on: it would output rows of a half-applied epoch.
            std::panic::resume_unwind(panic);
        }
    }

    /// Fails the pipeline: repeating would not help.
    fn fail(&self, reason: String) {
        tracing::error!("pipeline failed: {reason}");
        self.progress.fail(reason);
        self.stop.store(true, Ordering::Release);
    }
}

/// Key in the store: the names of the view tables it holds.
const TABLES: &str = "tables";

/// Key in the store: it is being cleared for a rebuild from the log.
const REBUILDING: &str = "rebuilding";

/// Prepares the store, clearing it first if it is to be rebuilt, and returns what the pipeline begins from. A store without some
/// view of this version has all rows derived from the merged inputs, as after an unfinished epoch.
async fn begin(
    store: &dyn ViewReader,
    session: &dyn WriteSession,
    from_beginning: bool,
    semantics: &Semantics,
) -> Result<Incarnation, PipelineError> {
    let mut begun = session.incarnation().clone();
    fail_point("start: begun");
    let unfinished_rebuild = store.named().get(REBUILDING).await?.is_some();
    if unfinished_rebuild && !from_beginning {
        info!("an earlier rebuild was interrupted; continuing to clear the store");
    }
    if from_beginning || unfinished_rebuild {
        store.named().put(REBUILDING, b"").await?;
        fail_point("start: rebuild noted");
        // The position is reset, and the store marked unfinished, before the first row is deleted: after a crash the log is read
        // again from its beginning, and a partly cleared table is not taken for the merged inputs at the old position.
        session.clear(&[]).await?;
        fail_point("start: marked unfinished");
        session.reset_position(Position::beginning()).await?;
        fail_point("start: position reset");
        for table in input_tables().iter().chain(&view_tables()) {
            session.clear(&[table.name]).await?;
            fail_point("start: table emptied");
        }
        store.named().delete(REBUILDING).await?;
        fail_point("start: emptied");
        begun.frontier = store.frontier();
        info!("cleared the store; rebuilding from the log");
    }
    let mut tables = view_tables().iter().map(|table| table.name).collect::<Vec<_>>().join(" ");
    if semantics.program.tz != Program::default().tz {
        // Rows depend on the zone's days.
        tables = format!("{tables} tzdb:{}", Zone::database_version());
    }
    if store.named().get(TABLES).await?.as_deref() != Some(tables.as_bytes()) {
        if begun.frontier.epoch > 0 {
            // Mark before name: a crash between the two is detected by either.
            session.clear(&[]).await?;
            begun.frontier.unfinished = true;
            info!("the store is of another version of views or time zones; rewriting all rows");
        }
        fail_point("start: views marked");
        store.named().put(TABLES, tables.as_bytes()).await?;
        fail_point("start: views noted");
    }
    Ok(begun)
}

/// The ports are async for remote stores; the pipeline's threads block on one call at a time.
fn block_on_runtime() -> Result<tokio::runtime::Runtime, PipelineError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PipelineError::Thread)
}
