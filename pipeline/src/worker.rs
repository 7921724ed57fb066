//! The workers: timely threads that step the dataflow. Worker 0 feeds it, and clocks the epochs by itself.
//!
//! The next epoch opens when the last has passed the views, after `epoch_min` at least, so epochs grow with the load. While the
//! log is far ahead, an epoch is as many records as fit in memory, because few large epochs cost a tenth of many small ones.
//! Threads that step timely never wait on I/O: an unbounded channel takes the outputs, and worker 0 opens no epoch while the
//! sink has [`EPOCHS_IN_FLIGHT`] to write, which bounds it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use kindred_dataflow::update::{Output, OutputFn, Stats};
use kindred_dataflow::{Dataflow, build, restore};
use kindred_model::Position;
use kindred_store::ViewStore;
use parking_lot::Mutex;
use timely::worker::Worker;
use tracing::info;

use crate::sink::{EpochEnd, SinkMessage};
use crate::source::Batch;
use crate::{Context, PipelineConfig, PipelineError};

/// Epochs handed to the sink and not yet applied. The sink writes what is waiting as one unit, so a slow store gets fewer,
/// larger writes, freshness degrades smoothly, and memory stays bounded.
const EPOCHS_IN_FLIGHT: u64 = 8;
/// Below this lag an epoch takes what is there: rebuilding all lists costs more than updating them.
const CATCH_UP_RECORDS: u64 = 100_000;
/// Records of one epoch when not catching up.
const LIVE_RECORDS_MAX: usize = 20_000;
/// How long worker 0 sleeps when there is nothing to do before it looks whether to stop.
const IDLE: Duration = Duration::from_millis(50);
/// Updates between two steps of the dataflow while much is fed, so that its queues stay short.
const STEP_EVERY: usize = 16_384;

/// Starts the workers; the returned thread ends when all of them have.
pub(crate) fn spawn(
    config: &PipelineConfig,
    store: Arc<dyn ViewStore>,
    context: Context,
    incoming: Receiver<Batch>,
    outgoing: Sender<SinkMessage>,
    stats: Arc<Stats>,
) -> Result<JoinHandle<()>, PipelineError> {
    let config = config.clone();
    let rewrite = store.frontier().unfinished;
    std::thread::Builder::new()
        .name("kindred-workers".to_owned())
        .spawn(move || {
            let output: OutputFn = {
                let outgoing = outgoing.clone();
                // The rows of epoch 0, the restored state, are what the store holds, unless a unit was left unfinished.
                let first = if rewrite { 0 } else { 1 };
                Arc::new(move |output: Output| {
                    if output.epoch >= first {
                        // The sink outlives the workers; if it is gone, the pipeline has failed and outputs go nowhere.
                        drop(outgoing.send(SinkMessage::Output(output)));
                    }
                })
            };
            let driver = Driver { config: config.clone(), store, context: context.clone(), incoming, outgoing };
            let driver = Mutex::new(Some(driver));
            let semantics = config.semantics;
            let workers = timely::execute(timely::Config::process(config.workers), move |worker| {
                let dataflow = build(worker, &semantics, &stats, &output);
                if worker.index() == 0 {
                    let driver = driver.lock().take().expect("there is one worker 0");
                    driver.run(worker, dataflow);
                } else {
                    dataflow.close();
                    // What remains of the dataflow ends with the inputs of worker 0.
                    while worker.step_or_park(None) {}
                }
            });
            let failed = match workers {
                Ok(guards) => guards.join().into_iter().any(|result| result.is_err()),
                Err(reason) => {
                    context.fail(reason);
                    false
                }
            };
            if failed {
                context.fail("a worker of the dataflow ended by a panic".to_owned());
            }
        })
        .map_err(PipelineError::Thread)
}

struct Driver {
    config: PipelineConfig,
    store: Arc<dyn ViewStore>,
    context: Context,
    incoming: Receiver<Batch>,
    outgoing: Sender<SinkMessage>,
}

/// What one epoch takes in.
struct Epoch {
    number: u64,
    records: usize,
    read_at: Option<Instant>,
    act: u64,
}

impl Driver {
    fn run(self, worker: &mut Worker, mut dataflow: Dataflow) {
        if let Err(error) = self.restore(worker, &mut dataflow) {
            self.context.fail(error.to_string());
        }
        let mut position = self.store.frontier().position;
        let mut number = 1;
        while let Some(first) = self.next_batch() {
            let opened = Instant::now();
            let mut epoch = Epoch { number, records: 0, read_at: None, act: 0 };
            self.take_in(first, &mut epoch, &mut position, worker, &mut dataflow, opened);
            self.pass(&epoch, worker, &mut dataflow);
            self.end(&epoch, &position);
            number += 1;
            self.wait_for_sink(number);
        }
        dataflow.close();
        while worker.step() {}
    }

    /// Reads the merged inputs back as epoch 0.
    fn restore(&self, worker: &mut Worker, dataflow: &mut Dataflow) -> Result<(), PipelineError> {
        let snapshot = self.store.snapshot()?;
        let mut records = 0usize;
        restore(&*snapshot.rows, &self.config.semantics, &mut |update| {
            dataflow.send(update);
            records += 1;
            if records.is_multiple_of(STEP_EVERY) {
                worker.step();
            }
        })?;
        let position = snapshot.frontier.position;
        let epoch = Epoch { number: 0, records, read_at: None, act: 0 };
        self.pass(&epoch, worker, dataflow);
        self.end(&epoch, &position);
        self.context.progress.restored();
        info!(records, "restored the state from {records} merged inputs");
        Ok(())
    }

    /// The next batch; `None` when the pipeline stops.
    fn next_batch(&self) -> Option<Batch> {
        loop {
            match self.incoming.recv_timeout(IDLE) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Timeout) if !self.context.stopping() => {}
                Err(_) => return None,
            }
        }
    }

    /// Feeds an epoch: what is there within `epoch_min`, or, far behind the log, as much as fits.
    fn take_in(
        &self,
        first: Batch,
        epoch: &mut Epoch,
        position: &mut Position,
        worker: &mut Worker,
        dataflow: &mut Dataflow,
        opened: Instant,
    ) {
        let mut batch = first;
        loop {
            let behind = batch.behind;
            let before = epoch.records;
            epoch.records += batch.updates.len();
            epoch.read_at.get_or_insert(batch.read_at);
            epoch.act = epoch.act.max(batch.act);
            for update in batch.updates {
                dataflow.send(update);
            }
            if let Some(reached) = &batch.position {
                position.join(reached);
            }
            if before / STEP_EVERY != epoch.records / STEP_EVERY {
                worker.step();
            }
            let catching_up = behind > 0 && (epoch.records as u64 + behind) > CATCH_UP_RECORDS;
            let full = if catching_up { self.config.epoch_records_max } else { LIVE_RECORDS_MAX };
            if epoch.records >= full || self.context.stopping() {
                return;
            }
            let next = if catching_up {
                self.incoming.recv_timeout(IDLE)
            } else {
                self.incoming.recv_deadline(opened + self.config.epoch_min)
            };
            match next {
                Ok(next) => batch = next,
                Err(_) => return,
            }
        }
    }

    /// Closes the epoch and steps until every output of it has been handed to the sink.
    fn pass(&self, epoch: &Epoch, worker: &mut Worker, dataflow: &mut Dataflow) {
        dataflow.advance_to(epoch.number + 1);
        while !dataflow.has_passed(epoch.number) {
            worker.step_or_park(Some(IDLE));
        }
    }

    fn end(&self, epoch: &Epoch, position: &Position) {
        metrics::histogram!("pipeline_epoch_records").record(epoch.records as f64);
        let end = EpochEnd { epoch: epoch.number, position: position.clone(), read_at: epoch.read_at, act: epoch.act };
        // As above: a sink that is gone means a pipeline that has failed.
        drop(self.outgoing.send(SinkMessage::EpochEnd(end)));
    }

    fn wait_for_sink(&self, next: u64) {
        while self.context.progress.written() + EPOCHS_IN_FLIGHT < next && !self.context.stopping() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
