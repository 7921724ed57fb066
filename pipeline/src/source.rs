//! The source: reads the log, decodes, validates and interns records, and sends batches to its worker. Invalid records are
//! durable in `rejected` before the position that passes them is.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use kindred_dataflow::update::Update;
use kindred_log::{EventLog, EventReader, LogError, LogRecord, Rejected, Share};
use kindred_model::codec::KeyCodec;
use kindred_model::records::{Record, Rules};
use kindred_model::{EntryId, ItemId, MemberId, OrderId, Owner, Position, SessionId, Topic};
use kindred_telemetry::fail_point;
use parking_lot::Mutex;
use tracing::debug;

use crate::progress::Waiter;
use crate::rate_limit::RateLimit;
use crate::{Context, PipelineError, block_on_runtime};

/// Records per batch: small enough that the worker starts while the next batch is decoded.
pub(crate) const BATCH_RECORDS: usize = 4_096;
/// Poll timeout, after which the thread checks for a stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// Back-off before a call to the log is retried.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes kept of a rejected record.
const REJECTED_BYTES: usize = 64 * 1_024;

/// Decoded records on their way to the dataflow.
pub(crate) struct Batch {
    pub updates: Vec<Update>,
    /// The log position after these records; `None` for an administrative action.
    pub position: Option<Position>,
    /// Records that are already readable beyond these; sizes the epoch.
    pub behind: u64,
    /// When the first of them arrived.
    pub came: Came,
    /// The number of an administrative action, to wait for; 0 for records.
    pub act: u64,
}

/// When the first of some records arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Came {
    /// In the log, if it records that; otherwise as `read`.
    pub appended: Instant,
    /// In this process.
    pub read: Instant,
}

impl Came {
    /// Read now, appended `age` ago.
    fn now(age: Duration) -> Self {
        let read = Instant::now();
        // `checked_sub`: a monotonic clock may have started less than `age` ago.
        Self { appended: read.checked_sub(age).unwrap_or(read), read }
    }

    /// The earlier of two.
    pub fn min(self, other: Self) -> Self {
        Self { appended: self.appended.min(other.appended), read: self.read.min(other.read) }
    }
}

/// A worker's input queue. Sending wakes the worker, which sleeps when idle.
#[derive(Clone)]
pub(crate) struct Feed {
    batches: Sender<Batch>,
    worker: Arc<OnceLock<Thread>>,
}

impl Feed {
    /// A feed and its receiving end. Bounded, for backpressure on the source.
    pub fn new(ahead: usize) -> (Self, Receiver<Batch>) {
        let (batches, incoming) = bounded(ahead);
        (Self { batches, worker: Arc::default() }, incoming)
    }

    /// The calling thread is the worker to wake.
    pub fn is_mine(&self) {
        // Set once: a feed has one worker.
        let _ = self.worker.set(std::thread::current());
    }

    /// Feeds an administrative action. False when the worker has ended.
    pub fn act(&self, act: u64, updates: Vec<Update>) -> bool {
        let batch = Batch { updates, position: None, behind: 0, came: Came::now(Duration::ZERO), act };
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
    /// The partitions this worker reads.
    pub share: Share,
    /// The rate limit, if any.
    pub rate_limit: Option<RateLimit>,
}

/// Starts reading after `from`.
pub(crate) fn spawn(source: Source, from: Position) -> Result<JoinHandle<()>, PipelineError> {
    let mut reader = source.log.reader(source.share)?;
    reader.seek(&from)?;
    let runtime = block_on_runtime()?;
    let context = source.context.clone();
    context.spawn("kindred-source", move || source.run(&mut *reader, from, &runtime))
}

impl Source {
    fn run(mut self, reader: &mut dyn EventReader, mut position: Position, runtime: &tokio::runtime::Runtime) {
        let mut records = Vec::with_capacity(BATCH_RECORDS);
        while !self.context.stopping() {
            records.clear();
            let behind = match self.read(reader, &mut records) {
                // A position that moved without a record passed offsets without records: the frontier must pass them, too.
                Ok(_) if records.is_empty() && position.reaches(reader.position()) => {
                    self.context.progress.resumed(Waiter::Source);
                    continue;
                }
                Ok(behind) => behind,
                Err(LogError::Unavailable(reason)) => {
                    self.context.progress.tries_again(Waiter::Source, "the log does not answer", reason);
                    std::thread::sleep(RETRY);
                    continue;
                }
                Err(error) => return self.context.fail(error.to_string()),
            };
            self.context.progress.resumed(Waiter::Source);
            fail_point("thread: source");
            let came = Came::now(reader.oldest_polled().and_then(|at| at.elapsed().ok()).unwrap_or_default());
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
            let batch = Batch { updates, position: Some(position.clone()), behind, came, act: 0 };
            self.context.progress.has_read(&position);
            if !self.hand_over(batch) {
                return;
            }
        }
    }

    /// Reads a batch; returns how many records are readable beyond it.
    fn read(&mut self, reader: &mut dyn EventReader, into: &mut Vec<LogRecord>) -> Result<u64, LogError> {
        let mut most = BATCH_RECORDS;
        if let Some(limit) = &mut self.rate_limit {
            most = most.min(limit.portion());
            loop {
                let due_in = limit.due_in();
                if due_in.is_zero() || self.context.stopping() {
                    break;
                }
                std::thread::sleep(due_in.min(POLL));
            }
        }
        reader.poll(most, POLL, into)?;
        if let Some(limit) = &mut self.rate_limit {
            limit.has_read(into.len());
        }
        if into.len() < most {
            return Ok(0);
        }
        // Records were read; if the end is unknown, the next poll reports the error.
        Ok(reader.end().map_or(0, |end| reader.position().lag_behind(&end)))
    }

    fn decode(&self, record: &LogRecord, updates: &mut Vec<Update>, rejected: &mut Vec<Rejected>) {
        let payload = &record.payload;
        // A record without a value deletes nothing: it was purged, or is a tombstone of a compacted topic.
        if is_tombstone(payload) {
            if let Some(key) = &record.tombstone {
                let topic = record.place.topic;
                metrics::counter!("pipeline_tombstones_total", "topic" => topic.name()).increment(1);
                let merged = row_key(topic, key);
                updates.extend(merged.map(|key| Update::Tombstone(topic, key.into())));
            }
            return;
        }
        match Record::decode(record.place.topic, payload, &self.rules) {
            Ok(decoded) => updates.push(decoded.into()),
            Err(invalid) => {
                debug!(place = ?record.place, "rejected a record: {invalid}");
                let labels = [("topic", record.place.topic.to_string()), ("field", field_label(&invalid.field))];
                metrics::counter!("pipeline_rejected_total", &labels).increment(1);
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

    /// Writes records to `rejected`, retrying as long as it takes. False when the pipeline ends first.
    fn reject(&self, rejected: Vec<Rejected>, runtime: &tokio::runtime::Runtime) -> bool {
        let count = rejected.len() as u64;
        loop {
            match runtime.block_on(self.log.reject(rejected.clone())) {
                Ok(()) => break,
                Err(LogError::Unavailable(reason) | LogError::Full(reason)) if !self.context.stopping() => {
                    self.context.progress.tries_again(Waiter::Rejected, "could not write to the topic rejected", reason);
                    std::thread::sleep(RETRY);
                }
                Err(error) => {
                    self.context.fail(error.to_string());
                    return false;
                }
            }
        }
        self.context.progress.resumed(Waiter::Rejected);
        self.context.progress.rejected.fetch_add(count, Ordering::Relaxed);
        true
    }

    /// Sends to the worker, waiting for capacity. False when the pipeline ends first.
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

/// Null values are ignored: a tombstone of a compacted topic, or a purged record.
pub(crate) fn is_tombstone(payload: &[u8]) -> bool {
    payload.is_empty() || payload == b"null"
}

/// The key of the merged record for a key of the log. `None` for keys of another producer, and for interactions, which are never
/// compacted.
fn row_key(topic: Topic, key: &[u8]) -> Option<Vec<u8>> {
    let key = std::str::from_utf8(key).ok()?;
    Some(match topic {
        Topic::Orders => OrderId::parse(key).ok()?.to_bytes(),
        Topic::Catalog => ItemId::parse(key).ok()?.to_bytes(),
        Topic::Members => match key.split_once(':')? {
            ("member", id) => Owner::Member(MemberId::parse(id).ok()?).to_bytes(),
            ("session", id) => Owner::Session(SessionId::parse(id).ok()?).to_bytes(),
            _ => return None,
        },
        Topic::Ledger => {
            let (member, entry) = key.split_once('\t')?;
            let entry = if entry.is_empty() { EntryId::NONE } else { EntryId::parse(entry).ok()? };
            (MemberId::parse(member).ok()?, entry).to_bytes()
        }
        Topic::Interactions => return None,
    })
}

/// Limit on distinct field labels, since a record may name any field; the rest count as `other`.
const FIELDS_MAX: usize = 64;

/// The field a rejection is about, as a metrics label: `lines` for `lines[2].quantity`, `record` for the whole record.
fn field_label(field: &str) -> String {
    static FIELDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let field = field.split(['.', '[']).next().filter(|field| !field.is_empty()).unwrap_or("record");
    let mut known = FIELDS.lock();
    if known.contains(field) {
        field.to_owned()
    } else if known.len() < FIELDS_MAX {
        known.insert(field.to_owned());
        field.to_owned()
    } else {
        "other".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a producer of invented field names could fill the memory with metrics labels.
    #[test]
    fn fields_of_rejections_are_few() {
        assert_eq!(field_label("lines[2].quantity"), "lines");
        assert_eq!(field_label(""), "record");
        for n in 0..FIELDS_MAX {
            field_label(&format!("invented_{n}"));
        }
        assert_eq!(field_label("one_more"), "other");
        assert_eq!(field_label("lines"), "lines");
    }

    /// If this failed, the next rebuild would lose a merged record whose key got a tombstone.
    #[test]
    fn keys_of_tombstones_are_those_of_merged_records() {
        assert_eq!(row_key(Topic::Orders, b"o1"), Some(OrderId::trusted("o1").to_bytes()));
        assert_eq!(row_key(Topic::Catalog, b"i:1"), Some(ItemId::trusted("i:1").to_bytes()));
        assert_eq!(row_key(Topic::Members, b"session:a:b"), Some(Owner::Session(SessionId::trusted("a:b")).to_bytes()));
        assert_eq!(row_key(Topic::Members, b"member:a"), Some(Owner::Member(MemberId::trusted("a")).to_bytes()));
        let of_ann = |entry| Some((MemberId::trusted("ann"), entry).to_bytes());
        assert_eq!(row_key(Topic::Ledger, b"ann\te1"), of_ann(EntryId::trusted("e1")));
        assert_eq!(row_key(Topic::Ledger, b"ann\t"), of_ann(EntryId::NONE));
        assert_eq!(
            [row_key(Topic::Members, b"a"), row_key(Topic::Interactions, b"member:a"), row_key(Topic::Orders, b"\xff")],
            [None, None, None]
        );
    }
}
