//! The embedded store: one fjall database in a directory of its own, a keyspace a table.
//!
//! ```text
//! apply ──▶ queue ──▶ writer thread: one atomic batch (rows, frontier) ──▶ the readers' view moves on ──▶ feeds
//! ```
//!
//! A unit goes to the operating system without fsync: a kill of the process loses nothing, a loss of power cuts back to an
//! earlier whole unit, and the log is read again from there. Readers hold a fjall snapshot of the last whole unit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kindred_embedded::fjall::{self, Keyspace, Readable, Snapshot as Instant};
use kindred_embedded::{Asked, Database, Engine, Failure, Options, RESERVE_BYTES, Writer, blocking};
use kindred_model::views::{ReadError, Rows, Visit, input_tables, view_tables};
use kindred_model::{Position, Topic};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::feed::{ChangeFeed, ChangeSource, FeedQueue};
use crate::{
    Change, EpochChanges, Frontier, Incarnation, NamedValues, Snapshot, StoreError, ViewReader, ViewWriter, WriteSession,
};

/// What this code writes and reads; another number in a directory is refused.
const FORMAT: &str = "1";
/// Commands that wait for the writer.
const QUEUE_MAX: usize = 64;
/// Changes of one batch; a larger unit is written in pieces under the unfinished mark. Bounds the memory of a batch.
pub const PIECE_CHANGES_MAX: usize = 200_000;
/// Memtable of one table, and what one flush writes at once; batches are slowest around a flush ([`kindred_embedded`]). A hint and
/// no more, one run each of `examples/measure_store.rs` (500,000 rows) on two busy cores: 16 MiB 160,000 lists/s in bulk, p99 of
/// a live unit 19 ms; 32 MiB 320,000 and 9 ms; 64 MiB 240,000 and 8 ms, but it took more than a second to open.
const MEMTABLE_BYTES: u64 = 32 << 20;
/// One thread flushes, one compacts.
const WORKERS: usize = 2;

/// How long opening again waits for a running scan; then the write fails and the next one tries again.
const SCAN_WAIT: Duration = Duration::from_secs(2);

/// Rows up to which a count is exact: it reads them, some 3 million a second. Beyond, every version of a row that is not compacted
/// away yet counts.
const COUNT_EXACTLY_MAX: usize = 300_000;

const META: &str = "meta";
/// The store's own state: its format and frontier.
pub(crate) const STATE: &str = "state";

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(text) => Self::Full(text),
            Failure::Unavailable(text) => Self::Unavailable(text),
            Failure::Refused(text) => Self::Refused(text),
            Failure::Corrupt(text) => Self::Corrupt(text),
        }
    }
}

/// The frontier as it is stored. The text of a position is no promise, so its parts are written.
#[derive(Serialize, Deserialize)]
struct Stored {
    epoch: u64,
    position: Vec<(Topic, u32, u64)>,
    unfinished: bool,
}

fn encode(frontier: &Frontier) -> Vec<u8> {
    let position = frontier.position.partitions().collect();
    let stored = Stored { epoch: frontier.epoch, position, unfinished: frontier.unfinished };
    serde_json::to_vec(&stored).expect("a frontier is plain data")
}

fn decode(bytes: &[u8]) -> Result<Frontier, StoreError> {
    let stored: Stored =
        serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("the frontier does not read: {error}")))?;
    let mut position = Position::beginning();
    for (topic, partition, next) in stored.position {
        if let Some(last) = next.checked_sub(1) {
            position.passed(topic, partition, last);
        }
    }
    Ok(Frontier { epoch: stored.epoch, position, unfinished: stored.unfinished })
}

/// What a test may set smaller.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Free bytes below which writes are refused.
    pub reserve_bytes: u64,
    /// Changes of one batch.
    pub piece_changes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reserve_bytes: RESERVE_BYTES, piece_changes: PIECE_CHANGES_MAX }
    }
}

/// The embedded store of one directory, which it owns until it is dropped.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    writer: Arc<Writer<Command, (), StoreError>>,
}

/// A session. The directory has one process, so sessions need no protection from each other.
struct EmbeddedSession {
    incarnation: Incarnation,
    shared: Arc<Shared>,
    writer: Arc<Writer<Command, (), StoreError>>,
    /// What was written and waits for its commit, by table and key.
    waiting: Mutex<Waiting>,
}

type Waiting = BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>;

struct Shared {
    database: Database,
    piece_changes: usize,
    /// Whether the stored frontier is marked unfinished; the one that is served may be from before.
    marked: AtomicBool,
    /// The last whole unit, and the feeds of the next. One lock, so that a feed misses nothing.
    served: Mutex<Served>,
    /// Readings that were handed out, to be closed when the database has to be opened again.
    handed_out: Mutex<Vec<std::sync::Weak<Reading>>>,
}

struct Served {
    reading: Arc<Reading>,
    feeds: Vec<Arc<FeedQueue>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.served.get_mut().feeds.iter().for_each(|feed| feed.close());
    }
}

enum Command {
    Apply(EpochChanges),
    Clear(Vec<&'static str>),
    ResetPosition(Position),
    PutNamed(String, Option<Vec<u8>>),
}

/// The store as of one unit.
struct Reading {
    frontier: Frontier,
    /// `None` after the database was opened again.
    open: RwLock<Option<(Engine, Instant)>>,
}

impl Reading {
    fn read<R>(&self, table: &str, read: impl FnOnce(&Instant, &Keyspace) -> Result<R, ReadError>) -> Result<R, ReadError> {
        let open = self.open.read();
        let (engine, instant) = open.as_ref().ok_or_else(|| {
            ReadError::Unavailable("the store was opened again since this reading was taken; take a new one".into())
        })?;
        let space = engine.try_space(table).ok_or_else(|| ReadError::Unavailable(format!("there is no table {table}")))?;
        read(instant, space)
    }
}

fn unreadable(error: fjall::Error) -> ReadError {
    ReadError::Unavailable(Failure::from(error).to_string())
}

impl Rows for Reading {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(table, |instant, space| Ok(instant.get(space, key).map_err(unreadable)?.map(|row| row.to_vec())))
    }

    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        self.read(table, |instant, space| {
            for guard in instant.prefix(space, prefix) {
                let (key, row) = guard.into_inner().map_err(unreadable)?;
                if let ControlFlow::Break(ended) = visit(&key, &row) {
                    return ended;
                }
            }
            Ok(())
        })
    }
}

/// Shares one reading among those who asked for it.
struct Handed(Arc<Reading>);

impl Rows for Handed {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: &str, prefix: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        self.0.scan(table, prefix, visit)
    }
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when another process uses the directory or it was written in another format.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Limits::default())
    }

    /// As [`EmbeddedStore::open`], within other limits.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let Limits { reserve_bytes, piece_changes } = limits;
        let tables = input_tables().into_iter().chain(view_tables()).map(|table| table.name);
        let spaces = tables.chain([META, STATE]).map(str::to_owned).collect();
        let options = Options { spaces, memtable_bytes: MEMTABLE_BYTES, reserve_bytes, workers: WORKERS, random_reads: false };
        let database = Database::open(dir, options)?;
        check_format(&database, FORMAT)?;
        let reading = Arc::new(reading(&database)?);
        let marked = AtomicBool::new(reading.frontier.unfinished);
        let served = Mutex::new(Served { reading, feeds: Vec::new() });
        let shared = Arc::new(Shared { database, piece_changes, marked, served, handed_out: Mutex::new(Vec::new()) });
        let weak = Arc::downgrade(&shared);
        shared.database.on_reopen(move || {
            if let Some(shared) = weak.upgrade() {
                shared.close_readings();
            }
        });
        let writer = Writer::start("store-writer", QUEUE_MAX, {
            let shared = shared.clone();
            move |queue| write_all(&shared, queue)
        })?;
        Ok(Self { shared, writer: Arc::new(writer) })
    }

    /// Whether the consumers of all feeds have processed everything that was applied.
    pub fn feeds_are_drained(&self) -> bool {
        self.shared.served.lock().feeds.iter().all(|feed| feed.is_drained())
    }
}

/// Refuses a database of another format, and notes ours in a new one.
pub(crate) fn check_format(database: &Database, ours: &'static str) -> Result<(), StoreError> {
    let format = database.get()?.space(STATE).get("format").map_err(Failure::from)?;
    match format.map(|format| String::from_utf8_lossy(&format).into_owned()) {
        Some(format) if format == ours => Ok(()),
        Some(format) => Err(StoreError::Refused(format!(
            "the store has format {format}, this version reads format {ours}: use the version that wrote it"
        ))),
        None => Ok(database.commit(128, true, |engine, batch| batch.insert(engine.space(STATE), "format", ours))?),
    }
}

/// The store as it is now, which is a whole unit unless its frontier says otherwise.
fn reading(database: &Database) -> Result<Reading, StoreError> {
    let engine = database.get()?;
    let instant = engine.snapshot();
    let stored = instant.get(engine.space(STATE), "frontier").map_err(Failure::from)?;
    let frontier = stored.map(|bytes| decode(&bytes)).transpose()?.unwrap_or_default();
    Ok(Reading { frontier, open: RwLock::new(Some((engine, instant))) })
}

/// The writer thread.
fn write_all(shared: &Shared, mut queue: mpsc::Receiver<Asked<Command, (), StoreError>>) {
    while let Some((command, reply)) = queue.blocking_recv() {
        let outcome = match command {
            Command::Apply(changes) => {
                let feeds = shared.served.lock().feeds.clone();
                feeds.iter().for_each(|feed| feed.wait_for_room(&changes));
                shared.apply(&changes)
            }
            Command::Clear(tables) => shared.clear(&tables),
            Command::ResetPosition(position) => shared.reset_position(position),
            Command::PutNamed(name, value) => shared.put_named(&name, value.as_deref()),
        };
        if let Err(error) = shared.mend() {
            tracing::warn!(reason = %error, "the store cannot be read until the next write");
        }
        // The asker may have gone away; what it asked for is done all the same.
        let _ = reply.send(outcome);
    }
}

impl Shared {
    /// Serves again after the database was opened again.
    fn mend(&self) -> Result<(), StoreError> {
        let closed = self.served.lock().reading.open.read().is_none();
        if closed { self.serve(None) } else { Ok(()) }
    }

    fn frontier(&self) -> Frontier {
        self.served.lock().reading.frontier.clone()
    }

    fn apply(&self, unit: &EpochChanges) -> Result<(), StoreError> {
        self.known(unit.changes.iter().map(|change| change.table))?;
        let done = Frontier { epoch: unit.epoch, position: unit.position.clone(), unfinished: false };
        let mut rest = unit.changes.as_slice();
        if rest.len() > self.piece_changes {
            // The mark stands beside the position from before: nothing of the unit counts as taken in until its last piece.
            let marked = Frontier { unfinished: true, ..self.frontier() };
            while let Some((piece, after)) = rest.split_at_checked(self.piece_changes).filter(|(_, after)| !after.is_empty()) {
                self.write(piece, &marked)?;
                rest = after;
            }
        }
        self.write(rest, &done)?;
        self.serve(Some(unit))
    }

    fn write(&self, changes: &[Change], frontier: &Frontier) -> Result<(), StoreError> {
        let bytes: usize = changes.iter().map(|c| c.key.len() + c.row.as_ref().map_or(0, Vec::len) + 48).sum();
        if frontier.unfinished {
            // Also where the write fails: it may have happened.
            self.marked.store(true, Ordering::Relaxed);
        }
        let unfinished = frontier.unfinished;
        let frontier = encode(frontier);
        self.database.commit(bytes as u64, false, |engine, batch| {
            for change in changes {
                match &change.row {
                    Some(row) => batch.insert(engine.space(change.table), change.key.as_slice(), row.as_slice()),
                    None => batch.remove(engine.space(change.table), change.key.as_slice()),
                }
            }
            batch.insert(engine.space(STATE), "frontier", frontier.as_slice());
        })?;
        self.marked.store(unfinished, Ordering::Relaxed);
        Ok(())
    }

    /// Moves readers on to what is written now, and the feeds with them.
    fn serve(&self, unit: Option<&EpochChanges>) -> Result<(), StoreError> {
        let reading = Arc::new(reading(&self.database)?);
        let mut served = self.served.lock();
        let is_older = reading.frontier.epoch < served.reading.frontier.epoch;
        if unit.is_none() && is_older && served.reading.open.read().is_some() {
            // The writer has served a newer one meanwhile.
            return Ok(());
        }
        served.reading = reading;
        served.feeds.retain(|feed| !feed.is_closed());
        if let Some(unit) = unit {
            served.feeds.iter().for_each(|feed| feed.push(unit));
        }
        Ok(())
    }

    /// Checks the tables of changes before anything is written.
    fn known(&self, mut tables: impl Iterator<Item = &'static str>) -> Result<(), StoreError> {
        let engine = self.database.get()?;
        match tables.find(|table| engine.try_space(table).is_none()) {
            Some(table) => Err(StoreError::Refused(format!("there is no table {table}"))),
            None => Ok(()),
        }
    }

    fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        self.known(tables.iter().copied())?;
        self.write(&[], &Frontier { unfinished: true, ..self.frontier() })?;
        // The mark must not be lost where the emptying is not.
        self.database.sync()?;
        for table in tables {
            self.database.renew(table)?;
        }
        Ok(())
    }

    /// Readers see the store as it is from here on, tables that were cleared before included.
    fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        let unfinished = self.marked.load(Ordering::Relaxed);
        self.write(&[], &Frontier { position, unfinished, epoch: self.frontier().epoch })?;
        self.serve(None)
    }

    fn put_named(&self, name: &str, value: Option<&[u8]>) -> Result<(), StoreError> {
        let bytes = (name.len() + value.map_or(0, <[u8]>::len)) as u64;
        Ok(self.database.commit(bytes, true, |engine, batch| match value {
            Some(value) => batch.insert(engine.space(META), name, value),
            None => batch.remove(engine.space(META), name),
        })?)
    }

    fn hand_out(&self, reading: &Arc<Reading>) -> Snapshot {
        let mut handed_out = self.handed_out.lock();
        handed_out.retain(|reading| reading.strong_count() > 0);
        handed_out.push(Arc::downgrade(reading));
        Snapshot { frontier: reading.frontier.clone(), rows: Box::new(Handed(reading.clone())) }
    }

    /// Takes the engine out of every reading, once running reads of it are through.
    fn close_readings(&self) {
        let served = self.served.lock().reading.clone();
        let handed_out = std::mem::take(&mut *self.handed_out.lock());
        for reading in handed_out.iter().filter_map(std::sync::Weak::upgrade).chain([served]) {
            match reading.open.try_write_for(SCAN_WAIT) {
                Some(mut open) => *open = None,
                None => tracing::warn!("a scan of the store goes on while the store has to be opened again"),
            }
        }
    }
}

#[async_trait]
impl ViewReader for EmbeddedStore {
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let reading = self.shared.served.lock().reading.clone();
        let (table, key) = (table.to_owned(), key.to_vec());
        blocking(move || reading.get(&table, &key).map_err(|error| StoreError::Unavailable(error.to_string()))).await
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let reading = self.shared.served.lock().reading.clone();
        Ok(self.shared.hand_out(&reading))
    }

    fn frontier(&self) -> Frontier {
        self.shared.frontier()
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        // Beside the writer, which goes on meanwhile.
        Ok(blocking(move || shared.database.sync()).await?)
    }

    async fn shed(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let tables: Vec<_> =
            input_tables().into_iter().chain(view_tables()).map(|table| table.name).chain([META, STATE]).collect();
        let readers_move_on = |shared: &Shared| {
            // The reading that is served keeps what was there when it was taken.
            if let Err(error) = shared.serve(None) {
                tracing::warn!("the store cannot be read until the next write: {error}");
            }
        };
        Ok(blocking(move || shared.database.shed(&tables, || readers_move_on(&shared))).await?)
    }

    fn named(&self) -> &dyn NamedValues {
        self
    }

    fn row_count(&self, table: &str) -> Result<u64, StoreError> {
        let engine = self.shared.database.get()?;
        let space = engine.try_space(table).ok_or_else(|| StoreError::Refused(format!("there is no table {table}")))?;
        let about = space.approximate_len();
        if about > COUNT_EXACTLY_MAX {
            return Ok(about as u64);
        }
        Ok(space.len().map_err(Failure::from)? as u64)
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.shared.database.disk_bytes()
    }
}

#[async_trait]
impl ViewWriter for EmbeddedStore {
    /// There is nothing to take over: the directory has one process, and a unit left half is marked.
    async fn begin(&self) -> Result<Box<dyn WriteSession>, StoreError> {
        let frontier = self.frontier();
        let incarnation = Incarnation { number: 0, first_epoch: frontier.epoch, frontier };
        let (shared, writer) = (self.shared.clone(), self.writer.clone());
        Ok(Box::new(EmbeddedSession { incarnation, shared, writer, waiting: Mutex::default() }))
    }

    async fn join(&self, number: u64) -> Result<Box<dyn WriteSession>, StoreError> {
        Err(StoreError::Refused(format!("an embedded store has one process, so there is no incarnation {number} to join")))
    }
}

impl ChangeSource for EmbeddedStore {
    fn changes(&self) -> Result<(Snapshot, ChangeFeed), StoreError> {
        let queue = Arc::new(FeedQueue::default());
        let (restarted, shared) = (queue.clone(), Arc::downgrade(&self.shared));
        // Weak: a feed does not keep the store open.
        let take_snapshot = move || {
            let shared = shared.upgrade().ok_or_else(|| StoreError::Unavailable("the store is closed".into()))?;
            let served = shared.served.lock();
            restarted.restart();
            Ok(shared.hand_out(&served.reading))
        };
        let mut served = self.shared.served.lock();
        served.feeds.push(queue.clone());
        Ok((self.shared.hand_out(&served.reading), ChangeFeed::new(queue, Box::new(take_snapshot))))
    }
}

#[async_trait]
impl WriteSession for EmbeddedSession {
    fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    async fn write(&self, _epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        self.shared.known(changes.iter().map(|change| change.table))?;
        let changes = Arc::unwrap_or_clone(changes);
        self.waiting.lock().extend(changes.into_iter().map(|change| ((change.table, change.key), change.row)));
        Ok(())
    }

    /// Everything that waits and the frontier, as one unit.
    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        // Kept until it is done: a commit that found no room is repeated.
        let waiting = self.waiting.lock().clone();
        let changes = waiting.into_iter().map(|((table, key), row)| Change { table, key, row }).collect::<Vec<_>>();
        self.apply(EpochChanges { epoch, position, changes: changes.into() }).await?;
        self.waiting.lock().clear();
        Ok(())
    }

    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError> {
        self.writer.ask(Command::Apply(changes)).await
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        self.writer.ask(Command::Clear(tables.to_vec())).await
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.writer.ask(Command::ResetPosition(position)).await
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        if self.waiting.lock().is_empty() {
            return Ok(());
        }
        Err(StoreError::Refused("rows were written that no commit covers; they are dropped".into()))
    }
}

#[async_trait]
impl NamedValues for EmbeddedStore {
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (shared, name) = (self.shared.clone(), name.to_owned());
        blocking(move || {
            let value = shared.database.get()?.space(META).get(name).map_err(Failure::from)?;
            Ok(value.map(|value| value.to_vec()))
        })
        .await
    }

    async fn put(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.writer.ask(Command::PutNamed(name.to_owned(), Some(value.to_vec()))).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let (shared, prefix) = (self.shared.clone(), prefix.to_owned());
        blocking(move || {
            let engine = shared.database.get()?;
            let rows = engine.space(META).prefix(prefix).map(|guard| {
                let (name, value) = guard.into_inner().map_err(Failure::from)?;
                Ok((String::from_utf8_lossy(&name).into_owned(), value.to_vec()))
            });
            rows.collect()
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.writer.ask(Command::PutNamed(name.to_owned(), None)).await
    }
}

#[cfg(test)]
mod tests {
    use kindred_embedded::small_disk::SmallDisk;

    use super::*;
    use crate::{ViewStore, conformance};

    #[tokio::test(flavor = "multi_thread")]
    async fn it_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let open = async |name: &str| Arc::new(EmbeddedStore::open(&dir.path().join(name)).unwrap()) as Arc<dyn ViewStore>;
        conformance::run(&open).await;
        conformance::run_atomic(&open).await;
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("feed")).unwrap());
        conformance::run_feed(&*store, &*store).await;
    }

    /// If it failed, a unit in pieces would be seen half, or a crash within it go unnoticed.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_conforms_when_every_unit_is_written_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { piece_changes: 2, ..Limits::default() };
        let open =
            async |name: &str| Arc::new(EmbeddedStore::open_with(&dir.path().join(name), limits).unwrap()) as Arc<dyn ViewStore>;
        conformance::run(&open).await;
        conformance::run_atomic(&open).await;
    }

    /// If it failed, two processes would write one store.
    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let _store = EmbeddedStore::open(dir.path()).unwrap();
        assert!(matches!(EmbeddedStore::open(dir.path()), Err(StoreError::Refused(_))));
    }

    /// If it failed, a disk that runs full would lose or halve a unit, or keep the store shut when there is room again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_takes_no_half_unit_and_the_store_goes_on() {
        let Some(disk) = SmallDisk::mount(24) else { return };
        let dir = disk.path().join("store");
        let limits = Limits { reserve_bytes: 0, piece_changes: 2 };
        let table = input_tables()[0].name;
        // Four rows, two pieces; not to be compressed.
        let unit = |epoch: u64| {
            let rows = (0..4_u8).map(|n| {
                let mut row = epoch.to_be_bytes().to_vec();
                row.extend(rand::random_iter::<u8>().take(20_000));
                Change { table, key: vec![n], row: Some(row) }
            });
            EpochChanges { epoch, position: Position::beginning(), changes: Arc::new(rows.collect()) }
        };
        let epochs = |snapshot: &Snapshot| {
            let mut epochs = Vec::new();
            let visit = &mut |_: &[u8], row: &[u8]| {
                epochs.push(u64::from_be_bytes(row[..8].try_into().unwrap()));
                ControlFlow::Continue(())
            };
            snapshot.rows.scan(table, b"", visit).unwrap();
            epochs
        };
        let store = EmbeddedStore::open_with(&dir, limits).unwrap();
        let session = store.begin().await.unwrap();
        let mut epoch = 0;
        for _ in 0..3 {
            let ballast = disk.fill(2 << 20);
            let reason = loop {
                epoch += 1;
                assert!(epoch < 10_000, "the disk was never full");
                match session.apply(unit(epoch)).await {
                    Ok(()) => (),
                    Err(StoreError::Full(reason)) => break reason,
                    Err(other) => panic!("{other}"),
                }
            };
            assert!(!reason.is_empty());
            let snapshot = store.snapshot().unwrap();
            if snapshot.frontier.unfinished {
                // The database had to be opened again within the unit: its mark tells.
                assert_eq!(snapshot.frontier.epoch, epoch - 1);
            } else {
                assert_eq!((snapshot.frontier.epoch, epochs(&snapshot)), (epoch - 1, vec![epoch - 1; 4]));
            }
            drop((snapshot, ballast));
            session.apply(unit(epoch)).await.expect("there is room again");
            let snapshot = store.snapshot().unwrap();
            assert_eq!(
                (snapshot.frontier.epoch, snapshot.frontier.unfinished, epochs(&snapshot)),
                (epoch, false, vec![epoch; 4])
            );
        }
        assert!(store.shared.database.reopened() > 0, "the database was never poisoned");
        drop((session, store));
        let store = EmbeddedStore::open_with(&dir, limits).unwrap();
        assert_eq!((store.frontier().epoch, epochs(&store.snapshot().unwrap())), (epoch, vec![epoch; 4]));
    }

    /// A snapshot that somebody holds must not keep the store shut; it says that it has to be taken anew.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_held_over_a_full_disk_asks_to_be_taken_anew() {
        let Some(disk) = SmallDisk::mount(24) else { return };
        let store =
            EmbeddedStore::open_with(&disk.path().join("store"), Limits { reserve_bytes: 0, ..Limits::default() }).unwrap();
        let session = store.begin().await.unwrap();
        let table = input_tables()[0].name;
        let put = |n: u64| {
            let row = Some(rand::random_iter::<u8>().take(50_000).collect());
            EpochChanges {
                epoch: n,
                changes: vec![Change { table, key: n.to_be_bytes().to_vec(), row }].into(),
                ..EpochChanges::default()
            }
        };
        session.apply(put(0)).await.unwrap();
        let held = store.snapshot().unwrap();
        assert!(held.rows.get(table, &0_u64.to_be_bytes()).unwrap().is_some());
        let ballast = disk.fill(1 << 20);
        let mut n = 0;
        while session.apply(put(n)).await.is_ok() {
            n += 1;
        }
        drop(ballast);
        session.apply(put(n)).await.expect("there is room again");
        assert!(matches!(held.rows.get(table, &0_u64.to_be_bytes()), Err(ReadError::Unavailable(_))));
        assert!(store.snapshot().unwrap().rows.get(table, &n.to_be_bytes()).unwrap().is_some());
    }

    /// If it failed, rows of erased people would be found in the files of a store long after they were deleted.
    #[tokio::test]
    async fn deleted_rows_leave_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path()).unwrap();
        let session = store.begin().await.unwrap();
        let marker = b"Zq7xK2vR9mWt4LbN";
        let tables: Vec<&'static str> = view_tables().iter().map(|table| table.name).take(2).collect();
        let unit = |epoch: u64, row: Option<&[u8]>| {
            // In keys as in rows: what was searched for is part of a key.
            let key = |n: usize| [marker.as_slice(), &[n as u8]].concat();
            let change = |n: usize| Change { table: tables[n % 2], key: key(n), row: row.map(<[u8]>::to_vec) };
            EpochChanges { epoch, position: Position::beginning(), changes: Arc::new((0..50).map(change).collect()) }
        };
        session.apply(unit(1, Some(marker))).await.unwrap();
        // A reader that is there all the while, and one that goes.
        let early = store.snapshot().unwrap();
        session.apply(unit(2, None)).await.unwrap();
        drop(early);
        assert!(!kindred_embedded::files_with(dir.path(), marker).is_empty(), "the search finds nothing");
        store.shed().await.unwrap();
        assert_eq!(kindred_embedded::files_with(dir.path(), marker), Vec::<std::path::PathBuf>::new());
    }
}
