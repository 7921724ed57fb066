//! Shared by the embedded log and store: a fjall database in one directory, opened with bounds, written in numbered batches, and
//! reopened automatically after the disk was full.
//!
//! ```text
//! commit(batch) ──free space?──▶ fjall ──failed?──▶ close, reopen, check for the batch ──▶ done, or did not happen
//! ```
//!
//! # How fjall 3.1 behaves, and the workarounds
//! - A failed write, or a flush or compaction that finds the disk full, *poisons* the database: reads go on, writes fail until it
//!   is reopened, which [`Database::commit`] does.
//! - A batch whose write failed is in doubt: its bytes may be in a buffer that is written when the database closes. Every batch
//!   therefore carries a number, which shows after reopening whether it happened.
//! - The directory stays locked while any handle lives. Handles stay inside of [`Engine`]; code that keeps an engine for longer
//!   than a call drops it in the hook of [`Database::on_reopen`].
//! - With four memtables waiting to be flushed a writer sleeps in steps of 100 ms, and forever if the flusher died.
//!   [`Database::commit`] waits before that, in steps of a millisecond, and checks the flusher.
//! - Every flush and compaction writes and fsyncs the table's manifest *while holding that table's lock* (lsm-tree's
//!   `upgrade_version`), which blocks the table's reads and writes. Most batches above 30 ms in `examples/measure_store.rs`
//!   waited for that lock, and no memtable was full. With all cores busy they are as slow on a tmpfs, where fsync is free: the
//!   lock's holder waits for a core. There is no workaround; it comes with every flush, so memtables are not small.
//! - A flush also fsyncs the journal while it blocks the writer. [`Database::sync`], called once a second through a handle of its
//!   own, leaves little to sync.

#[cfg(feature = "testing")]
pub mod small_disk;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::config::{PartitioningPolicy, PinningPolicy};
use fjall::{AbstractTree, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

pub use fjall;

pub use writer::{Asked, Writer};

/// The keyspace of the last batch's number.
const COMMITS: &str = "commits";
/// Block cache in bytes; hot rows are served from the API's memory.
const CACHE_BYTES: u64 = 16 << 20;
/// Block cache in bytes where single keys are read at random.
const RANDOM_CACHE_BYTES: u64 = 96 << 20;
/// Free space reserved for flushing and compaction; below it writes are refused while that is still clean.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Maximum size of all journals, which are read when the database is opened. A full journal forces flushes, and a flush blocks
/// writers: twice fjall's minimum halves how often.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// Disk bytes a batch needs per byte until it is compacted.
const ROOM_PER_BYTE: u64 = 3;
/// Journal size from which fjall seals a journal when it flushes.
const JOURNAL_SEALED_BYTES: usize = 64_000_000;
const FILLER_BYTES: usize = 1 << 20;
/// How long [`Database::shed`] waits for flushes.
const SHED_WAIT: Duration = Duration::from_secs(60);
/// How long reopening waits for readers to drop their handles.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// The files in a directory tree that contain some bytes: for tests of erasure.
#[cfg(feature = "testing")]
pub fn files_with(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        // A file may be deleted during the search.
        let holds = |path: &Path| memchr::memmem::find(&std::fs::read(path).unwrap_or_default(), bytes).is_some();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if holds(&path) {
            found.push(path);
        }
    }
    found
}

/// Errors of the database.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It did not happen: not enough free space.
    #[error("{0}")]
    Full(String),
    /// It may or may not have happened.
    #[error("{0}")]
    Unavailable(String),
    /// It did not happen and will not: the directory is in use, or its format unknown.
    #[error("{0}")]
    Refused(String),
    /// The files are damaged.
    #[error("{0}")]
    Corrupt(String),
}

/// Runs work that blocks on the disk or on a table's lock on a blocking thread, not on one that serves requests. Outside of a
/// runtime it runs inline.
///
/// # Errors
/// Those of `work`; [`Failure::Unavailable`] where it panicked or the runtime ends.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Failure> + Send + 'static,
{
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => Err(Failure::Unavailable(format!("the blocking task failed: {error}")).into()),
        },
        Err(_) => work(),
    }
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Self {
        use fjall::Error as E;
        let text = error.to_string();
        match &error {
            E::Io(io) | E::Storage(fjall::LsmError::Io(io)) => match io.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                    Self::Full(io.to_string())
                }
                _ => Self::Unavailable(io.to_string()),
            },
            E::Locked => Self::Refused("another process uses the directory".into()),
            E::InvalidVersion(_) => Self::Refused(format!("the directory was written in another format: {text}")),
            E::Poisoned => Self::Unavailable("an earlier write failed and the database is not reopened yet".into()),
            E::KeyspaceDeleted => Self::Unavailable("the table was emptied meanwhile".into()),
            _ => Self::Corrupt(text),
        }
    }
}

/// An open database. Cheap to clone; a kept engine keeps the directory locked.
#[derive(Clone)]
pub struct Engine {
    db: fjall::Database,
    spaces: Arc<FxHashMap<String, fjall::Keyspace>>,
    /// Counts live engines, to know when the directory is unlocked.
    _alive: Arc<()>,
}

impl Engine {
    /// A keyspace by its name.
    ///
    /// # Panics
    /// If the database was not opened with this keyspace.
    pub fn space(&self, name: &str) -> &fjall::Keyspace {
        self.spaces.get(name).unwrap_or_else(|| panic!("no keyspace {name}"))
    }

    /// A keyspace by its name, if there is one.
    pub fn try_space(&self, name: &str) -> Option<&fjall::Keyspace> {
        self.spaces.get(name)
    }

    /// A consistent snapshot of all keyspaces.
    pub fn snapshot(&self) -> fjall::Snapshot {
        self.db.snapshot()
    }

    fn poisoned(&self) -> bool {
        matches!(self.db.persist(PersistMode::Buffer), Err(fjall::Error::Poisoned))
    }

    /// Waits until the keyspaces can take a batch without fjall blocking the writer; false if the database is poisoned.
    fn calm(&self) -> bool {
        let busy = |space: &fjall::Keyspace| space.sealed_memtable_count() >= 3 || space.tree.l0_run_count() >= 18;
        while self.spaces.values().any(busy) {
            if self.poisoned() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The keyspaces, created where they are missing.
    pub spaces: Vec<String>,
    /// Memtable of a keyspace in bytes: memory, and the size of a flush.
    pub memtable_bytes: u64,
    /// Free bytes below which writes are refused; [`RESERVE_BYTES`] except in tests.
    pub reserve_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// Whether single keys are read at random from much more data than the cache holds. If so the cache is larger, and indexes
    /// and filters of new keyspaces are pinned in memory, where they do not compete with data blocks for the cache.
    pub random_reads: bool,
}

/// A fjall database in a directory of its own. Concurrent reads; [`Database::commit`] is serialized.
pub struct Database {
    dir: PathBuf,
    options: Options,
    alive: Arc<()>,
    /// `None` only between a failed reopening and the next attempt.
    slot: RwLock<Option<Engine>>,
    /// The number of the last committed batch.
    number: Mutex<u64>,
    release: Mutex<Box<dyn Fn() + Send + Sync>>,
    reopened: std::sync::atomic::AtomicU64,
}

impl Database {
    /// Opens or creates the database.
    ///
    /// # Errors
    /// [`Failure::Refused`] when another process uses the directory or its format is unknown.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| Failure::from(fjall::Error::Io(error)))?;
        let alive = Arc::new(());
        let engine = Self::engine(dir, &options, &alive)?;
        let number = last_number(&engine)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            options,
            alive,
            slot: RwLock::new(Some(engine)),
            number: Mutex::new(number),
            release: Mutex::new(Box::new(|| ())),
            reopened: std::sync::atomic::AtomicU64::new(0),
        })
    }

    fn engine(dir: &Path, options: &Options, alive: &Arc<()>) -> Result<Engine, Failure> {
        let db = fjall::Database::builder(dir)
            .cache_size(if options.random_reads { RANDOM_CACHE_BYTES } else { CACHE_BYTES })
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(options.workers)
            .open()?;
        let mut spaces = FxHashMap::default();
        for name in options.spaces.iter().map(String::as_str).chain([COMMITS]) {
            spaces.insert(name.to_owned(), Self::create(&db, options, name)?);
        }
        Ok(Engine { db, spaces: Arc::new(spaces), _alive: alive.clone() })
    }

    fn create(db: &fjall::Database, options: &Options, name: &str) -> Result<fjall::Keyspace, Failure> {
        let created = || {
            let usual = KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
            if !options.random_reads {
                return usual;
            }
            usual
                .index_block_partitioning_policy(PartitioningPolicy::all(false))
                .filter_block_partitioning_policy(PartitioningPolicy::all(false))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .filter_block_pinning_policy(PinningPolicy::all(true))
        };
        Ok(db.keyspace(name, created)?)
    }

    /// Registers a hook called before the database is reopened: holders of an [`Engine`] must drop it then.
    pub fn on_reopen(&self, release: impl Fn() + Send + Sync + 'static) {
        *self.release.lock() = Box::new(release);
    }

    /// How often the database was reopened.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The open database; waits while it is being reopened.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when reopening failed; the next write tries again.
    pub fn get(&self) -> Result<Engine, Failure> {
        self.slot.read().clone().ok_or_else(|| Failure::Unavailable("the database could not be reopened yet".into()))
    }

    /// Checks that `bytes` more can be written with the reserve left free.
    ///
    /// # Errors
    /// [`Failure::Full`] with free and required space.
    pub fn room(&self, bytes: u64) -> Result<(), Failure> {
        let free = match rustix::fs::statvfs(&self.dir) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            // Free space unknown: let the write find out.
            Err(_) => return Ok(()),
        };
        let need =
            self.options.reserve_bytes.saturating_add(if self.options.reserve_bytes == 0 { 0 } else { bytes * ROOM_PER_BYTE });
        if free < need {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Failure::Full(format!(
                "{} MiB are free at {}, {} MiB are needed",
                mib(free),
                self.dir.display(),
                mib(need)
            )));
        }
        Ok(())
    }

    /// Writes one atomic batch of about `bytes`, fsynced if `durable`, else handed to the operating system, which survives a kill
    /// of the process. `fill` may be called twice.
    ///
    /// # Errors
    /// After [`Failure::Full`] and [`Failure::Refused`] it did not happen; after [`Failure::Unavailable`] it may have.
    pub fn commit(&self, bytes: u64, durable: bool, fill: impl Fn(&Engine, &mut OwnedWriteBatch)) -> Result<(), Failure> {
        if cfg!(debug_assertions) {
            kindred_telemetry::fail_point(&format!("thread: {}", std::thread::current().name().unwrap_or_default()));
        }
        let mut number = self.number.lock();
        self.room(bytes)?;
        let this = *number + 1;
        for attempt in 0.. {
            let engine = match self.get() {
                Ok(engine) => engine,
                Err(_) => {
                    self.reopen()?;
                    self.get()?
                }
            };
            let mode = if durable { PersistMode::SyncAll } else { PersistMode::Buffer };
            let outcome = if engine.calm() {
                let mut batch = OwnedWriteBatch::with_capacity(engine.db.clone(), 64).durability(Some(mode));
                fill(&engine, &mut batch);
                batch.insert(engine.space(COMMITS), *b"last", this.to_be_bytes());
                batch.commit()
            } else {
                Err(fjall::Error::Poisoned)
            };
            let Err(error) = outcome else {
                *number = this;
                return Ok(());
            };
            drop(engine);
            // A poisoned database refuses before it writes, so nothing is in doubt.
            let in_doubt = !matches!(error, fjall::Error::Poisoned);
            let failure = Failure::from(error);
            tracing::warn!(reason = %failure, "a batch failed; reopening the database");
            self.reopen()
                .map_err(|again| if in_doubt { Failure::Unavailable(format!("{failure}; then {again}")) } else { again })?;
            if in_doubt {
                *number = last_number(&self.get()?)?;
                // A later fsync does not repair a failed one, so only a full disk is retried.
                return if *number == this && matches!(failure, Failure::Full(_)) { Ok(()) } else { Err(failure) };
            }
            if attempt > 0 {
                return Err(failure);
            }
            self.room(bytes)?;
        }
        unreachable!("the loop ends with its second attempt")
    }

    /// Fsyncs everything written so far without blocking the writer, as fjall's own fsync would.
    ///
    /// Every batch has been handed to the operating system, and a journal is fsynced before the next begins, so fsyncing the
    /// newest suffices.
    ///
    /// # Errors
    /// [`Failure::Unavailable`], [`Failure::Full`].
    pub fn sync(&self) -> Result<(), Failure> {
        sync_newest_journal(&self.dir)
    }

    /// Replaces a keyspace by an empty one. Engines taken before still see the old rows. Not atomic with any batch.
    ///
    /// # Errors
    /// [`Failure::Full`], [`Failure::Unavailable`].
    pub fn renew(&self, name: &str) -> Result<(), Failure> {
        let mut slot = self.slot.write();
        let engine = slot.as_mut().ok_or_else(|| Failure::Unavailable("the database is not open".into()))?;
        engine.db.delete_keyspace(engine.space(name).clone())?;
        let mut spaces = (*engine.spaces).clone();
        spaces.insert(name.to_owned(), Self::create(&engine.db, &self.options, name)?);
        engine.spaces = Arc::new(spaces);
        Ok(())
    }

    /// Removes replaced and deleted rows of some keyspaces from the disk, unless a snapshot needs them: takes seconds and some 64
    /// MiB of free space. Otherwise they leave with later compactions and journals.
    ///
    /// fjall seals a journal only from 64 MB, so this fills it up, flushes everything in it, which deletes it, and compacts the
    /// keyspaces fully. `readers_move_on` must replace kept snapshots by newer ones.
    ///
    /// # Errors
    /// [`Failure::Full`] and [`Failure::Unavailable`]: the bytes leave later.
    pub fn shed(&self, names: &[&str], readers_move_on: impl Fn()) -> Result<(), Failure> {
        let mut filler = vec![0; FILLER_BYTES];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..=JOURNAL_SEALED_BYTES / FILLER_BYTES {
            // Random bytes, because the journal is compressed.
            for chunk in filler.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_ne_bytes());
            }
            self.commit(FILLER_BYTES as u64, false, |engine, batch| {
                batch.insert(engine.space(COMMITS), "filler", filler.as_slice());
            })?;
        }
        self.commit(0, false, |engine, batch| batch.remove(engine.space(COMMITS), "filler"))?;
        let engine = self.get()?;
        // This one first: its flush finds the journal full and seals it.
        for space in std::iter::once(engine.space(COMMITS)).chain(engine.spaces.values()) {
            space.rotate_memtable()?;
        }
        let patience = Instant::now() + SHED_WAIT;
        while engine.spaces.values().any(|space| space.sealed_memtable_count() > 0) {
            if engine.poisoned() || Instant::now() > patience {
                return Err(Failure::Unavailable("what was written is not flushed yet".into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        readers_move_on();
        self.move_watermark(&engine)?;
        for name in names.iter().chain([&COMMITS]) {
            engine.space(name).major_compact()?;
        }
        // Compacted tables are deleted with the last version of the tree that references them.
        readers_move_on();
        self.move_watermark(&engine)
    }

    /// Makes fjall drop versions that nobody reads any more, and their files, which it does when it seals a memtable.
    fn move_watermark(&self, engine: &Engine) -> Result<(), Failure> {
        self.commit(0, false, |_, _| ())?;
        engine.space(COMMITS).rotate_memtable()?;
        Ok(())
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> Option<u64> {
        self.get().ok()?.db.disk_space().ok()
    }

    /// Closes and reopens the database.
    fn reopen(&self) -> Result<(), Failure> {
        (self.release.lock())();
        let mut slot = self.slot.write();
        // Two handles are ours and the slot's; the others belong to calls about to end.
        let patience = Instant::now() + RELEASE_WAIT;
        let held = if slot.is_some() { 2 } else { 1 };
        while Arc::strong_count(&self.alive) > held {
            if Instant::now() > patience {
                return Err(Failure::Unavailable("could not reopen the database: a reader still holds it".into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        *slot = None;
        let engine = Self::engine(&self.dir, &self.options, &self.alive)?;
        *slot = Some(engine);
        self.reopened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

/// Fsyncs the active journal.
fn sync_newest_journal(dir: &Path) -> Result<(), Failure> {
    let newest = || -> std::io::Result<Option<PathBuf>> {
        let mut newest = None;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                let number: Option<u64> = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                newest = newest.max(number.map(|number| (number, path)));
            }
        }
        Ok(newest.map(|(_, path)| path))
    };
    loop {
        let path = newest().map_err(fjall::Error::Io)?.ok_or_else(|| Failure::Unavailable("there is no journal".into()))?;
        match std::fs::File::open(path).and_then(|journal| journal.sync_data()) {
            Ok(()) => return Ok(()),
            // Replaced by a newer one after everything in it was flushed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
            Err(error) => return Err(fjall::Error::Io(error).into()),
        }
    }
}

fn last_number(engine: &Engine) -> Result<u64, Failure> {
    let Some(bytes) = engine.snapshot().get(engine.space(COMMITS), b"last")? else { return Ok(0) };
    let bytes = bytes.as_ref().try_into().map_err(|_| Failure::Corrupt("the number of the last batch has not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(memtable_bytes: u64) -> Options {
        Options { spaces: vec!["a".into(), "b".into()], memtable_bytes, reserve_bytes: 0, workers: 2, random_reads: false }
    }

    fn rows(database: &Database, space: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = database.get().unwrap().space(space).iter().map(|guard| {
            let (key, value) = guard.into_inner().unwrap();
            (key.to_vec(), value.to_vec())
        });
        rows.collect()
    }

    /// If this failed, a flush or compaction that hits a full disk would stop all writes until a restart.
    #[cfg(feature = "testing")]
    #[test]
    fn a_flush_that_finds_no_room_is_recovered_from() {
        let Some(disk) = small_disk::SmallDisk::mount(24) else { return };
        let database = Database::open(&disk.path().join("db"), options(256 << 10)).unwrap();
        let mut written = Vec::new();
        let mut write = |n: u32| {
            let value: Vec<u8> = rand::random_iter().take(20_000).collect();
            let outcome =
                database.commit(20_000, false, |engine, batch| batch.insert(engine.space("a"), n.to_be_bytes(), &*value));
            if outcome.is_ok() {
                written.push((n.to_be_bytes().to_vec(), value));
            }
            outcome
        };
        let mut n = 0;
        for _ in 0..2 {
            let ballast = disk.fill(2 << 20);
            let mut full = 0;
            while full < 3 {
                n += 1;
                assert!(n < 10_000, "the disk was never full");
                match write(n) {
                    Ok(()) => (),
                    Err(Failure::Full(_) | Failure::Unavailable(_)) => full += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            drop(ballast);
            n += 1;
            write(n).expect("there is room again");
        }
        assert!(database.reopened() > 0, "the database was never poisoned");
        assert!(rows(&database, "a") == written, "what is there is not what was written");
    }

    #[test]
    fn a_renewed_keyspace_is_empty_for_those_who_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let put = |database: &Database, space: &'static str, key: &'static str| {
            database.commit(10, false, |engine, batch| batch.insert(engine.space(space), key, "1")).unwrap();
        };
        {
            let database = Database::open(dir.path(), options(1 << 20)).unwrap();
            put(&database, "a", "old");
            put(&database, "b", "kept");
            let before = database.get().unwrap();
            let instant = before.snapshot();
            database.renew("a").unwrap();
            assert_eq!(rows(&database, "a"), []);
            put(&database, "a", "new");
            assert!(instant.get(before.space("a"), "old").unwrap().is_some(), "an engine from before sees the old rows");
            assert!(instant.get(before.space("a"), "new").unwrap().is_none());
        }
        let database = Database::open(dir.path(), options(1 << 20)).unwrap();
        assert_eq!(rows(&database, "a"), [(b"new".to_vec(), b"1".to_vec())]);
        assert_eq!(rows(&database, "b"), [(b"kept".to_vec(), b"1".to_vec())]);
        database.sync().unwrap();
    }

    /// If this failed, fjall would hit a disk that others fill, which is dearer to recover from.
    #[test]
    fn writes_that_would_touch_the_reserve_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path(), Options { reserve_bytes: u64::MAX / 2, ..options(1 << 20) }).unwrap();
        let outcome = database.commit(10, false, |engine, batch| batch.insert(engine.space("a"), "k", "v"));
        assert!(matches!(outcome, Err(Failure::Full(reason)) if reason.contains("MiB are free")));
        assert_eq!(rows(&database, "a"), []);
    }

    /// If this failed, a kill could lose readable rows: a batch must be in the files once commit returns.
    #[test]
    fn a_batch_is_in_the_files_without_closing() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("live"), options(1 << 20)).unwrap();
        for n in 0..100_u32 {
            database.commit(10, false, |engine, batch| batch.insert(engine.space("a"), n.to_be_bytes(), "v")).unwrap();
        }
        let copied =
            std::process::Command::new("cp").arg("-r").arg(dir.path().join("live")).arg(dir.path().join("copy")).status();
        assert!(copied.unwrap().success());
        let copy = Database::open(&dir.path().join("copy"), options(1 << 20)).unwrap();
        assert_eq!(rows(&copy, "a"), rows(&database, "a"));
        assert_eq!(rows(&copy, "a").len(), 100);
    }
}
