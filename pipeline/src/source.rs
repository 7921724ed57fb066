//! The source: reads the log, decodes and validates, interns, and hands batches to worker 0. What cannot be accepted is in
//! `rejected`, durably, before the position that passes it can become durable.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use kindred_dataflow::update::Update;
use kindred_log::{EventLog, EventReader, LogError, LogRecord, Rejected, Share};
use kindred_model::Position;
use kindred_model::records::{Record, Rules};
use tracing::{debug, warn};

use crate::{Context, PipelineError, block_on_runtime};

/// Records read at once. Small enough that the worker can begin while the next are decoded.
const BATCH_RECORDS: usize = 4_096;
/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(50);
/// How long to wait before asking a log again that did not answer.
const RETRY: Duration = Duration::from_millis(200);
/// What of a rejected record is kept.
const REJECTED_BYTES: usize = 64 * 1_024;

/// Decoded records of the log on their way to the dataflow.
pub(crate) struct Batch {
    pub updates: Vec<Update>,
    /// How far the log is read once these are taken in; `None` for an administrative act.
    pub position: Option<Position>,
    /// Records that can be read already beyond these: tells the worker how large to make an epoch.
    pub behind: u64,
    /// When the first of them was read.
    pub read_at: Instant,
    /// The number of an administrative act, to wait for; 0 for records.
    pub act: u64,
}

/// Where a worker is fed: it sleeps while there is nothing to do, and whoever feeds it wakes it.
#[derive(Clone)]
pub(crate) struct Feed {
    batches: Sender<Batch>,
    worker: Arc<OnceLock<Thread>>,
}

impl Feed {
    /// A feed and what the worker takes from. Bounded, so that a slow worker holds its source back.
    pub fn new(ahead: usize) -> (Self, Receiver<Batch>) {
        let (batches, incoming) = bounded(ahead);
        (Self { batches, worker: Arc::default() }, incoming)
    }

    /// The calling thread is the worker.
    pub fn is_mine(&self) {
        // Set once: a feed has one worker.
        let _ = self.worker.set(std::thread::current());
    }

    /// Feeds an administrative act. False when the worker has ended.
    pub fn act(&self, act: u64, updates: Vec<Update>) -> bool {
        let batch = Batch { updates, position: None, behind: 0, read_at: Instant::now(), act };
        self.batches.send(batch).is_ok_and(|()| self.wake())
    }

    fn wake(&self) -> bool {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
        true
    }
}

pub(crate) struct Source {
    pub log: Arc<dyn EventLog>,
    pub rules: Rules,
    pub context: Context,
    pub feed: Feed,
    /// Which partitions are this worker's.
    pub share: Share,
}

/// Starts reading after `from`.
pub(crate) fn spawn(source: Source, from: Position) -> Result<JoinHandle<()>, PipelineError> {
    let mut reader = source.log.reader(source.share)?;
    reader.seek(&from)?;
    let runtime = block_on_runtime()?;
    std::thread::Builder::new()
        .name("kindred-source".to_owned())
        .spawn(move || source.run(&mut *reader, from, &runtime))
        .map_err(PipelineError::Thread)
}

impl Source {
    fn run(&self, reader: &mut dyn EventReader, mut position: Position, runtime: &tokio::runtime::Runtime) {
        let mut records = Vec::with_capacity(BATCH_RECORDS);
        while !self.context.stopping() {
            records.clear();
            let behind = match self.read(reader, &mut records) {
                // A position that moved without a record passed offsets that hold none: the frontier has to pass them, too.
                Ok(_) if records.is_empty() && position.reaches(reader.position()) => {
                    self.context.progress.resumed();
                    continue;
                }
                Ok(behind) => behind,
                Err(LogError::Unavailable(reason)) => {
                    warn!("the log does not answer, trying again: {reason}");
                    self.context.progress.waits(reason);
                    std::thread::sleep(RETRY);
                    continue;
                }
                Err(error) => return self.context.fail(error.to_string()),
            };
            self.context.progress.resumed();
            let read_at = Instant::now();
            let mut updates = Vec::with_capacity(records.len());
            let mut rejected = Vec::new();
            position.join(reader.position());
            for record in &records {
                self.decode(record, &mut updates, &mut rejected);
            }
            if !rejected.is_empty() && !self.reject(rejected, runtime) {
                return;
            }
            self.context.progress.records.fetch_add(records.len() as u64, Ordering::Relaxed);
            metrics::counter!("pipeline_records_total").increment(records.len() as u64);
            let batch = Batch { updates, position: Some(position.clone()), behind, read_at, act: 0 };
            if !self.hand_over(batch) {
                return;
            }
        }
    }

    /// Reads a batch; returns how many records wait behind it.
    fn read(&self, reader: &mut dyn EventReader, into: &mut Vec<LogRecord>) -> Result<u64, LogError> {
        reader.poll(BATCH_RECORDS, POLL, into)?;
        if into.len() < BATCH_RECORDS {
            return Ok(0);
        }
        // What was read is read: that the end is not known must not lose it. Whatever is wrong, the next poll tells.
        Ok(reader.end().map_or(0, |end| reader.position().lag_behind(&end)))
    }

    fn decode(&self, record: &LogRecord, updates: &mut Vec<Update>, rejected: &mut Vec<Rejected>) {
        let payload = &record.payload;
        // Null values are ignored (DESIGN, Events): a tombstone of compaction, or a purged record.
        if payload.is_empty() || payload.as_slice() == b"null" {
            return;
        }
        match Record::decode(record.place.topic, payload, &self.rules) {
            Ok(decoded) => updates.push(decoded.into()),
            Err(invalid) => {
                debug!(place = ?record.place, "rejected a record: {invalid}");
                let kept = &payload[..payload.len().min(REJECTED_BYTES)];
                rejected.push(Rejected {
                    source: record.place.topic.name().to_owned(),
                    topic: record.place.topic,
                    partition: record.place.partition,
                    offset: record.place.offset,
                    reason: invalid.to_string(),
                    payload: String::from_utf8_lossy(kept).into_owned(),
                });
            }
        }
    }

    /// Puts records into `rejected`, however long that takes. False when the pipeline ends instead.
    fn reject(&self, rejected: Vec<Rejected>, runtime: &tokio::runtime::Runtime) -> bool {
        let count = rejected.len() as u64;
        loop {
            match runtime.block_on(self.log.reject(rejected.clone())) {
                Ok(()) => break,
                Err(LogError::Unavailable(reason) | LogError::Full(reason)) if !self.context.stopping() => {
                    warn!("could not keep rejected records, trying again: {reason}");
                    self.context.progress.waits(reason);
                    std::thread::sleep(RETRY);
                }
                Err(error) => {
                    self.context.fail(error.to_string());
                    return false;
                }
            }
        }
        self.context.progress.resumed();
        self.context.progress.rejected.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("pipeline_rejected_total").increment(count);
        true
    }

    /// Waits for room between here and the worker. False when the pipeline ends instead.
    fn hand_over(&self, mut batch: Batch) -> bool {
        loop {
            match self.feed.batches.send_timeout(batch, POLL) {
                Ok(()) => return self.feed.wake(),
                Err(SendTimeoutError::Timeout(_)) if self.context.stopping() => return false,
                Err(SendTimeoutError::Timeout(back)) => batch = back,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
        }
    }
}
