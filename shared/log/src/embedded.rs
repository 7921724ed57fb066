//! The embedded log: one fjall database in its own directory, fsynced before an append is acknowledged.
//!
//! ```text
//! append (many tasks) ──▶ queue ──▶ writer thread: one batch and one fsync for all that wait ──▶ places
//!                                        └──▶ durable ends ──▶ readers
//! ```
//!
//! A topic is a keyspace of offset (big-endian) → payload with one partition, 0. Offsets are contiguous: the next one follows the
//! last key when the log is opened. Readers see nothing beyond the durable ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_embedded::fjall::{Readable, Snapshot};
use kindred_embedded::{Asked, Database, Engine, Failure, Options, RESERVE_BYTES, Writer, blocking};
use kindred_model::{Position, Topic};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use crate::{EventLog, EventReader, LogError, LogRecord, Mark, PartitionStatus, Place, Predicate, Rejected, Share};

/// The format this version reads and writes; a directory with another is refused.
const FORMAT: &str = "1";
/// Capacity of the writer's queue; beyond it `append` waits, which is the API's backpressure.
const QUEUE_MAX: usize = 4_096;
/// Maximum payload bytes of a batch, so that a commit takes tens of milliseconds. A larger request is a batch of its own.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Memtable of one topic, and the size of one flush.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// One thread flushes, one compacts.
const WORKERS: usize = 2;
/// Records a purge checks before it yields.
const PURGE_STEP: usize = 10_000;

const REJECTED: &str = "rejected";
const MARKS: &str = "marks";
const META: &str = "meta";

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(text) => Self::Full(text),
            Failure::Unavailable(text) => Self::Unavailable(text),
            Failure::Refused(text) => Self::Refused(text),
            Failure::Corrupt(text) => Self::Corrupt(text),
        }
    }
}

/// The embedded log of one directory, locked until it is dropped.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Writer<Work, Vec<Place>, LogError>,
}

struct Shared {
    database: Database,
    identity: String,
    /// The next durable offset of each topic, by code.
    ends: [AtomicU64; Topic::ALL.len()],
    /// Readers wait here for new records.
    gate: Mutex<()>,
    moved: Condvar,
}

enum Work {
    Append { topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark> },
    Reject(Vec<Rejected>),
    Remove(Vec<String>),
    Empty { topic: Topic, offsets: Vec<u64>, rejected: Vec<Rejected> },
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Append { records, .. } => records.iter().map(|record| record.len() + 48).sum(),
            Work::Reject(records) | Work::Empty { rejected: records, .. } => records.iter().map(|r| r.payload.len() + 256).sum(),
            Work::Remove(ids) => ids.len() * 64,
        }
    }
}

impl EmbeddedLog {
    /// Opens or creates the log in `dir`.
    ///
    /// # Errors
    /// [`LogError::Refused`] when another process uses the directory or it was written in another format.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        Self::open_with(dir, RESERVE_BYTES)
    }

    /// As [`EmbeddedLog::open`], with a reserve other than [`RESERVE_BYTES`].
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`].
    pub fn open_with(dir: &Path, reserve_bytes: u64) -> Result<Self, LogError> {
        let spaces = Topic::ALL.iter().map(|topic| topic.name()).chain([REJECTED, MARKS, META]).map(str::to_owned).collect();
        let options = Options { spaces, memtable_bytes: MEMTABLE_BYTES, reserve_bytes, workers: WORKERS, random_reads: false };
        let database = Database::open(dir, options)?;
        let identity = identity(&database)?;
        let ends = ends(&database.get()?)?.map(AtomicU64::new);
        let shared = Arc::new(Shared { database, identity, ends, gate: Mutex::new(()), moved: Condvar::new() });
        let writer = Writer::start("log-writer", QUEUE_MAX, {
            let shared = shared.clone();
            move |queue| write_all(&shared, queue)
        })?;
        Ok(Self { shared, writer })
    }

    /// Compacts, so that purged bytes leave the disk. The purge is done already: after a failure they leave with later
    /// compactions.
    async fn shed(&self, topic: Topic) {
        let shared = self.shared.clone();
        let shedding = move || shared.database.shed(&[topic.name(), REJECTED], || ());
        if let Err(failure) = blocking(shedding).await {
            tracing::warn!(reason = %failure, "could not compact after a purge, purged bytes stay on disk for now");
        }
    }

    /// Runs a read on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = self.shared.clone();
        blocking(move || shared.read(read)).await
    }

    async fn ask(&self, work: Work) -> Result<Vec<Place>, LogError> {
        self.writer.ask(work).await
    }
}

/// Checks the format and returns the identity; creates both in a new directory.
fn identity(database: &Database) -> Result<String, LogError> {
    let read = |name: &str| -> Result<Option<String>, LogError> {
        let value = database.get()?.space(META).get(name).map_err(Failure::from)?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    };
    match read("format")? {
        Some(format) if format == FORMAT => {
            read("identity")?.ok_or_else(|| LogError::Corrupt("the log has a format but no identity".into()))
        }
        Some(format) => Err(LogError::Refused(format!(
            "the log has format {format}, this version reads format {FORMAT}: use the version that wrote it"
        ))),
        None => {
            let identity = uuid::Uuid::now_v7().to_string();
            database.commit(128, true, |engine, batch| {
                batch.insert(engine.space(META), "format", FORMAT);
                batch.insert(engine.space(META), "identity", identity.as_str());
            })?;
            Ok(identity)
        }
    }
}

fn offset_of(key: &[u8]) -> Result<u64, LogError> {
    let bytes = key.try_into().map_err(|_| LogError::Corrupt("an offset has not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A request of the writer.
type Command = Asked<Work, Vec<Place>, LogError>;

/// The writer thread: commits queued requests as one batch, then answers them.
fn write_all(shared: &Shared, mut queue: mpsc::Receiver<Command>) {
    let mut ahead = None;
    while let Some(first) = ahead.take().or_else(|| queue.blocking_recv()) {
        let mut bytes = first.0.bytes();
        let mut group = vec![first];
        while let Ok(command) = queue.try_recv() {
            if bytes + command.0.bytes() > GROUP_BYTES_MAX {
                ahead = Some(command);
                break;
            }
            bytes += command.0.bytes();
            group.push(command);
        }
        commit(shared, group, bytes);
    }
}

fn commit(shared: &Shared, group: Vec<Command>, bytes: usize) {
    let start: [u64; Topic::ALL.len()] = std::array::from_fn(|code| shared.ends[code].load(Ordering::Relaxed));
    let outcome = shared.database.commit(bytes as u64, true, |engine, batch| {
        let mut next = start;
        for (work, _) in &group {
            match work {
                Work::Append { topic, records, mark } => {
                    let (space, next) = (engine.space(topic.name()), &mut next[usize::from(topic.code())]);
                    for record in records {
                        batch.insert(space, next.to_be_bytes(), record.as_slice());
                        *next += 1;
                    }
                    if let Some(mark) = mark {
                        batch.insert(engine.space(MARKS), mark.name.as_str(), mark.done.to_be_bytes());
                    }
                }
                Work::Reject(records) => {
                    for record in records {
                        batch.insert(engine.space(REJECTED), record.id(), json(record));
                    }
                }
                Work::Remove(ids) => {
                    for id in ids {
                        batch.remove(engine.space(REJECTED), id.as_str());
                    }
                }
                Work::Empty { topic, offsets, rejected } => {
                    for offset in offsets {
                        batch.insert(engine.space(topic.name()), offset.to_be_bytes(), []);
                    }
                    for record in rejected {
                        batch.insert(engine.space(REJECTED), record.id(), json(record));
                    }
                }
            }
        }
    });
    let mut next = start;
    let mut answers = Vec::with_capacity(group.len());
    for (work, reply) in group {
        let places = match work {
            Work::Append { topic, records, .. } => {
                let next = &mut next[usize::from(topic.code())];
                let places = (*next..).take(records.len()).map(|offset| Place { topic, partition: 0, offset }).collect();
                *next += records.len() as u64;
                places
            }
            _ => Vec::new(),
        };
        answers.push((reply, places));
    }
    match &outcome {
        Ok(()) => shared.publish(next),
        // A batch in doubt may have been written; then it is readable, and its offsets are taken.
        Err(Failure::Unavailable(_)) => match shared.read(ends) {
            Ok(ends) => shared.publish(ends),
            Err(error) => tracing::warn!(reason = %error, "could not read the end of the log after a failed batch"),
        },
        Err(_) => (),
    }
    for (reply, places) in answers {
        // The caller may be gone; its request is done all the same.
        let _ = reply.send(outcome.clone().map(|()| places).map_err(LogError::from));
    }
}

/// The offset after the last record of each topic, by its code.
fn ends(engine: &Engine) -> Result<[u64; Topic::ALL.len()], LogError> {
    let mut ends = [0; Topic::ALL.len()];
    for topic in Topic::ALL {
        let last = engine.space(topic.name()).last_key_value().map(|guard| guard.key()).transpose().map_err(Failure::from)?;
        ends[usize::from(topic.code())] = last.map(|key| offset_of(&key)).transpose()?.map_or(0, |last| last + 1);
    }
    Ok(ends)
}

fn json(record: &Rejected) -> Vec<u8> {
    serde_json::to_vec(record).expect("a rejected record is plain data")
}

fn rejected_from(bytes: &[u8]) -> Result<Rejected, LogError> {
    serde_json::from_slice(bytes).map_err(|error| LogError::Corrupt(format!("a rejected record does not decode: {error}")))
}

/// The position before the offsets `next`, by code, of the topics in `held`.
fn position(next: &[u64; Topic::ALL.len()], held: &[bool; Topic::ALL.len()]) -> Position {
    let mut position = Position::beginning();
    for topic in Topic::ALL {
        let code = usize::from(topic.code());
        if let (true, Some(last)) = (held[code], next[code].checked_sub(1)) {
            position.passed(*topic, 0, last);
        }
    }
    position
}

const EVERYTHING: [bool; Topic::ALL.len()] = [true; Topic::ALL.len()];

impl Shared {
    /// Makes records up to `next` visible to readers.
    fn publish(&self, next: [u64; Topic::ALL.len()]) {
        for (end, next) in self.ends.iter().zip(next) {
            end.store(next, Ordering::Release);
        }
        let _gate = self.gate.lock();
        self.moved.notify_all();
    }

    fn end(&self, held: &[bool; Topic::ALL.len()]) -> Position {
        position(&self.ends.each_ref().map(|end| end.load(Ordering::Acquire)), held)
    }

    fn read<R>(&self, read: impl FnOnce(&Engine) -> Result<R, LogError>) -> Result<R, LogError> {
        read(&self.database.get()?)
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn identity(&self) -> &str {
        &self.shared.identity
    }

    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
        crate::check_records(&records)?;
        if records.is_empty() && mark.is_none() {
            return Ok(Vec::new());
        }
        let (began, count) = (Instant::now(), records.len() as u64);
        let places = self.ask(Work::Append { topic, records, mark }).await?;
        crate::tell_appended(topic, count, began);
        Ok(places)
    }

    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError> {
        let name = name.to_owned();
        self.read(move |engine| {
            let value = engine.space(MARKS).get(name).map_err(Failure::from)?;
            value.map(|value| offset_of(&value)).transpose()
        })
        .await
    }

    fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError> {
        let held = std::array::from_fn(|code| share.holds(Topic::ALL[code], 0));
        let position = Position::beginning();
        Ok(Box::new(Reader { shared: self.shared.clone(), held, next: [0; Topic::ALL.len()], position, first: 0 }))
    }

    async fn end(&self) -> Result<Position, LogError> {
        Ok(self.shared.end(&EVERYTHING))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
        let next = |topic: Topic| self.shared.ends[usize::from(topic.code())].load(Ordering::Acquire);
        Ok(Topic::ALL.iter().map(|&topic| PartitionStatus { topic, partition: 0, first: 0, next: next(topic) }).collect())
    }

    fn compacts(&self) -> bool {
        false
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.shared.database.disk_bytes()
    }

    async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError> {
        self.ask(Work::Reject(records.into_iter().map(Rejected::cut).collect())).await.map(|_| ())
    }

    async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = after.map(str::to_owned);
        self.read(move |engine| {
            let from = after.as_ref().map_or(Unbounded, |id| Excluded(id.as_bytes()));
            let range = engine.space(REJECTED).range::<&[u8], _>((from, Unbounded));
            range.take(limit).map(|guard| rejected_from(&guard.value().map_err(Failure::from)?)).collect()
        })
        .await
    }

    async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError> {
        let id = id.to_owned();
        self.read(move |engine| {
            let value = engine.space(REJECTED).get(id).map_err(Failure::from)?;
            value.map(|value| rejected_from(&value)).transpose()
        })
        .await
    }

    async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError> {
        self.ask(Work::Remove(ids.to_vec())).await.map(|_| ())
    }

    async fn purge(&self, topic: Topic, end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError> {
        let mut purged = 0;
        let end = self.shared.ends[usize::from(topic.code())].load(Ordering::Acquire).min(end.next_offset(topic, 0));
        let mut next = 0;
        while next < end {
            let mut offsets = Vec::new();
            self.shared.read(|engine| {
                let snapshot = engine.snapshot();
                let upto = end.min(next + PURGE_STEP as u64);
                for guard in snapshot.range(engine.space(topic.name()), next.to_be_bytes()..upto.to_be_bytes()) {
                    let (key, payload) = guard.into_inner().map_err(Failure::from)?;
                    if !payload.is_empty() && condemned(&payload) {
                        offsets.push(offset_of(&key)?);
                    }
                }
                next = upto;
                Ok(())
            })?;
            purged += offsets.len() as u64;
            if !offsets.is_empty() {
                self.ask(Work::Empty { topic, offsets, rejected: Vec::new() }).await?;
            }
            tokio::task::yield_now().await;
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.rejected(after.as_deref(), 1_000).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id());
            let matching = |r: &Rejected| r.topic == topic && !r.payload.is_empty() && condemned(r.payload.as_bytes());
            let rejected: Vec<Rejected> = page.into_iter().filter(matching).map(Rejected::emptied).collect();
            purged += rejected.len() as u64;
            if !rejected.is_empty() {
                self.ask(Work::Empty { topic, offsets: Vec::new(), rejected }).await?;
            }
        }
        if purged > 0 {
            self.shed(topic).await;
        }
        Ok(purged)
    }
}

/// Reads all topics of its share.
struct Reader {
    shared: Arc<Shared>,
    /// Whether each topic, by code, belongs to the share: topics have one partition, so shares consist of whole topics.
    held: [bool; Topic::ALL.len()],
    /// The next offset of each topic, by code.
    next: [u64; Topic::ALL.len()],
    /// The same as a position.
    position: Position,
    /// The topic to read first; rotates, so that none starves.
    first: usize,
}

impl Reader {
    /// Unread records of each topic.
    fn waiting(&self) -> [u64; Topic::ALL.len()] {
        std::array::from_fn(|code| match self.held[code] {
            true => self.shared.ends[code].load(Ordering::Acquire).saturating_sub(self.next[code]),
            false => 0,
        })
    }

    /// Updates the position.
    fn stand(&mut self) {
        self.position = position(&self.next, &self.held);
    }

    fn take(
        &mut self,
        engine: &Engine,
        snapshot: &Snapshot,
        code: usize,
        count: u64,
        into: &mut Vec<LogRecord>,
    ) -> Result<(), LogError> {
        let topic = Topic::ALL[code];
        let (from, upto) = (self.next[code], self.next[code] + count);
        for guard in snapshot.range(engine.space(topic.name()), from.to_be_bytes()..upto.to_be_bytes()) {
            let (key, payload) = guard.into_inner().map_err(Failure::from)?;
            let offset = offset_of(&key)?;
            if offset != self.next[code] {
                return Err(LogError::Corrupt(format!("{topic} has no record {} though it has {offset}", self.next[code])));
            }
            into.push(LogRecord { place: Place { topic, partition: 0, offset }, payload: payload.to_vec(), tombstone: None });
            self.next[code] = offset + 1;
        }
        if self.next[code] != upto {
            return Err(LogError::Corrupt(format!("{topic} has no record {}", self.next[code])));
        }
        Ok(())
    }
}

impl EventReader for Reader {
    fn seek(&mut self, position: &Position) -> Result<(), LogError> {
        let end = self.shared.end(&EVERYTHING);
        if !end.reaches(position) {
            return Err(LogError::Refused(format!(
                "position {position} lies after the end of this log, {end}: was it restored from an older copy?"
            )));
        }
        self.next = std::array::from_fn(|code| position.next_offset(Topic::ALL[code], 0));
        self.stand();
        Ok(())
    }

    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError> {
        // Capped at a day: adding more could overflow the clock.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(86_400));
        let mut waiting = self.waiting();
        if waiting == [0; Topic::ALL.len()] {
            let mut gate = self.shared.gate.lock();
            loop {
                waiting = self.waiting();
                if waiting != [0; Topic::ALL.len()] {
                    break;
                }
                if self.shared.moved.wait_until(&mut gate, deadline).timed_out() {
                    return Ok(());
                }
            }
        }
        let engine = self.shared.database.get()?;
        let snapshot = engine.snapshot();
        let before = (into.len(), self.next);
        let mut left = limit as u64;
        let topics = Topic::ALL.len();
        let mut open = waiting.iter().filter(|count| **count > 0).count() as u64;
        // Topics with few records first, so that what they leave of the limit goes to the others.
        let mut order: Vec<usize> = (0..topics).map(|n| (self.first + n) % topics).filter(|&code| waiting[code] > 0).collect();
        order.sort_by_key(|&code| waiting[code].min(limit.div_ceil(topics) as u64));
        for code in order {
            let count = waiting[code].min(left.div_ceil(open.max(1)));
            open -= 1;
            left -= count;
            if let Err(error) = self.take(&engine, &snapshot, code, count, into) {
                into.truncate(before.0);
                self.next = before.1;
                return Err(error);
            }
        }
        self.first = (self.first + 1) % topics;
        self.stand();
        Ok(())
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn end(&mut self) -> Result<Position, LogError> {
        Ok(self.shared.end(&self.held))
    }
}

#[cfg(test)]
mod tests {
    use kindred_embedded::small_disk::SmallDisk;

    use super::*;
    use crate::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let open = async |name: &str| Arc::new(EmbeddedLog::open(&dir.path().join(name)).unwrap()) as Arc<dyn EventLog>;
        conformance::run(open, conformance::Purging::InPlace).await;
    }

    /// If this failed, two processes would write one log.
    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let _log = EmbeddedLog::open(dir.path()).unwrap();
        assert!(matches!(EmbeddedLog::open(dir.path()), Err(LogError::Refused(_))));
    }

    /// Appends until the disk is full, frees space, continues; returns what was acknowledged.
    async fn through_a_full_disk(log: &EmbeddedLog, disk: &SmallDisk, left: u64) -> Vec<(Place, Vec<u8>)> {
        let record = |n: usize| {
            let mut record = n.to_string().into_bytes();
            // Incompressible: a page of zeros fills no disk.
            record.extend(rand::random_iter::<u8>().take(30_000));
            record
        };
        let mut acknowledged = Vec::new();
        for round in 0..2 {
            let ballast = disk.fill(left);
            let mut full = 0;
            for n in 0..10_000 {
                let records: Vec<Vec<u8>> = (0..3).map(|m| record(round * 100_000 + n * 3 + m)).collect();
                match log.append(Topic::Orders, records.clone(), None).await {
                    // Also after a refusal: the part of a failed batch is cut off, which frees space.
                    Ok(places) => acknowledged.extend(places.into_iter().zip(records)),
                    Err(LogError::Full(reason)) => {
                        assert!(!reason.is_empty());
                        full += 1;
                        if full == 3 {
                            break;
                        }
                    }
                    Err(other) => panic!("round {round}, call {n}: {other}"),
                }
            }
            assert_eq!(full, 3, "the disk was never full");
            // Reads still work.
            assert_eq!(read_back(log), acknowledged);
            drop(ballast);
            let places = log.append(Topic::Orders, vec![record(round)], None).await.expect("there is room again");
            assert_eq!(read_back(log).last().unwrap().0, places[0]);
            let (_, last) = read_back(log).pop().unwrap();
            acknowledged.push((places[0], last));
        }
        acknowledged
    }

    fn read_back(log: &EmbeddedLog) -> Vec<(Place, Vec<u8>)> {
        let mut into = Vec::new();
        log.reader(Share::ALL).unwrap().poll(usize::MAX, Duration::ZERO, &mut into).unwrap();
        into.into_iter().map(|record| (record.place, record.payload)).collect()
    }

    /// If this failed, a full disk would lose acknowledged records, or keep the log closed after space is freed. Here fjall
    /// itself hits the full disk.
    #[tokio::test]
    async fn a_full_disk_loses_nothing_and_the_log_goes_on() {
        let Some(disk) = SmallDisk::mount(24) else { return };
        let dir = disk.path().join("log");
        let log = EmbeddedLog::open_with(&dir, 0).unwrap();
        let acknowledged = through_a_full_disk(&log, &disk, 2 << 20).await;
        assert!(log.shared.database.reopened() > 0, "the database was never poisoned");
        drop(log);
        assert!(read_back(&EmbeddedLog::open_with(&dir, 0).unwrap()) == acknowledged, "opened again, the log is another");
    }

    /// If this failed, a disk filled by others would not be noticed before fjall hits it, the common case.
    #[tokio::test]
    async fn a_nearly_full_disk_is_refused_before_it_is_full() {
        let Some(disk) = SmallDisk::mount(100) else { return };
        let log = EmbeddedLog::open(&disk.path().join("log")).unwrap();
        through_a_full_disk(&log, &disk, RESERVE_BYTES + (2 << 20)).await;
        assert_eq!(log.shared.database.reopened(), 0, "the reserve did not hold");
    }

    /// If this failed, an erased member's records would stay readable in the files.
    #[tokio::test]
    async fn purged_bytes_leave_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        let marker = b"Zq7xK2vR9mWt4LbN";
        let record = |n: u32| [format!("{n} ").as_bytes(), marker].concat();
        log.append(Topic::Orders, (0..100).map(record).collect(), None).await.unwrap();
        let rejected = Rejected {
            source: "orders".into(),
            topic: Topic::Orders,
            partition: 0,
            offset: 1_000,
            reason: format!("order: {} is no order", String::from_utf8_lossy(marker)),
            payload: String::from_utf8_lossy(marker).into_owned(),
        };
        log.reject(vec![rejected]).await.unwrap();
        let found = || kindred_embedded::files_with(dir.path(), marker);
        assert!(!found().is_empty(), "the search finds nothing");
        let purged = log.purge(Topic::Orders, &log.end().await.unwrap(), &|payload| payload.ends_with(marker)).await.unwrap();
        assert_eq!((purged, found()), (101, Vec::new()));
        assert_eq!(read_back(&log).len(), 100);
    }
}
