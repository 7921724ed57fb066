//! The store on a CQL database: Apache Cassandra or `ScyllaDB`, within what both support.
//!
//! ```text
//! apply ──▶ write: batches by partition, USING the epoch's TIMESTAMP ──▶ commit: the frontier, IF the incarnation stands
//! get, scan ◀── (generation, table, bucket) → key → row        begin: a new incarnation, and whether the last ended cleanly
//! ```
//!
//! Nothing is atomic over partitions, so a unit is written first and the frontier follows. The next [`ViewWriter::begin`] notices
//! half a unit, and the pipeline derives every row again. `frontier` explains the timestamps that make a replaced process lose.

mod bucket;
mod config;
mod connection;
mod count;
mod frontier;
mod generations;
mod migrate;
mod named;
mod records;
mod runtime;
mod scan;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_model::Position;
use parking_lot::Mutex;

pub use self::config::{Consistency, CqlConfig, Replication};
pub use self::generations::CqlGenerations;
pub use self::migrate::{Buckets, Migrated};
pub use self::records::CqlRecords;

use self::connection::Connection;
use self::count::Counts;
use self::frontier::{Held, before};
use self::runtime::StoreRuntime;
use self::scan::CqlRows;
use crate::{
    Change, EpochChanges, Frontier, Incarnation, NamedValues, Snapshot, StoreError, ViewReader, ViewWriter, WriteSession,
};

/// One generation of the store in a keyspace. Any process may open it; one cluster of processes writes.
pub struct CqlStore {
    shared: Arc<Shared>,
    runtime: Arc<StoreRuntime>,
}

struct Shared {
    connection: Arc<Connection>,
    generation: String,
    counts: Counts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frontier: Frontier,
    /// Sessions of this process: their commits are seen at once.
    sessions: usize,
}

/// A session of this process.
struct CqlSession {
    session: Arc<Session>,
    runtime: Arc<StoreRuntime>,
}

struct Session {
    shared: Arc<Shared>,
    incarnation: Incarnation,
    held: Held,
    written: Mutex<Written>,
    /// Serializes writes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Written {
    /// Rows were written and not committed.
    uncommitted: bool,
    /// The highest timestamp written.
    last: Option<i64>,
    /// View tables that the next commit clears up to a timestamp.
    stale: BTreeMap<&'static str, i64>,
}

impl CqlStore {
    /// Creates the keyspace and the tables, or upgrades them. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: the keyspace is of a later version, or a migration was edited.
    pub async fn migrate(config: CqlConfig) -> Result<Migrated, StoreError> {
        let runtime = StoreRuntime::new()?;
        runtime.run(async move { migrate::migrate(&config).await }).await
    }

    /// The generations of a keyspace.
    ///
    /// # Errors
    /// As [`CqlStore::open`].
    pub async fn generations_of(config: CqlConfig) -> Result<CqlGenerations, StoreError> {
        let runtime = Arc::new(StoreRuntime::new()?);
        let connection = Arc::new(runtime.run(Connection::open(config)).await?);
        Ok(CqlGenerations { connection, runtime })
    }

    /// Opens a generation for reading; [`ViewWriter::begin`] or [`ViewWriter::join`] is for writing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: no answer. [`StoreError::Refused`]: there is no such generation, or the schema is of another
    /// version: the message names `kindred migrate`.
    pub async fn open(config: CqlConfig, generation: &str) -> Result<Self, StoreError> {
        Self::open_in(&Self::generations_of(config).await?, generation).await
    }

    /// Opens another generation over the same connections.
    ///
    /// # Errors
    /// As [`CqlStore::open`].
    pub async fn open_in(generations: &CqlGenerations, generation: &str) -> Result<Self, StoreError> {
        describe_metrics();
        let CqlGenerations { connection, runtime } = generations.clone();
        let (opened, name) = (Arc::clone(&connection), generation.to_owned());
        let frontier = runtime.run(async move { opened.kept_generation(&name).await?.frontier() }).await?;
        let poll = Duration::from_millis(connection.config.frontier_poll_ms);
        let shared = Arc::new(Shared {
            connection,
            generation: generation.to_owned(),
            counts: Counts::default(),
            state: Mutex::new(State { frontier, ..State::default() }),
        });
        runtime.spawn(follow(Arc::downgrade(&shared), poll));
        Ok(Self { shared, runtime })
    }

    /// The generations, over the same connections.
    pub fn generations(&self) -> CqlGenerations {
        CqlGenerations { connection: Arc::clone(&self.shared.connection), runtime: Arc::clone(&self.runtime) }
    }

    /// Counts the rows of a table now, which is slow; [`ViewReader::row_count`] returns the last count.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is no such table.
    pub async fn count(&self, table: &str) -> Result<u64, StoreError> {
        let layout = self.shared.connection.layout(table)?;
        let began = Instant::now();
        let rows = self.run(async move |shared| shared.connection.count(&shared.generation, layout).await).await?;
        self.shared.counts.counted(layout.name, began, Some(rows));
        Ok(rows)
    }

    async fn run<T: Send + 'static, F>(&self, task: impl FnOnce(Arc<Shared>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.run(task(Arc::clone(&self.shared))).await
    }

    fn snapshot_at(&self, frontier: Frontier) -> Snapshot {
        let (connection, runtime) = (Arc::clone(&self.shared.connection), Arc::clone(&self.runtime));
        Snapshot { frontier, rows: Box::new(CqlRows { connection, runtime, generation: self.shared.generation.clone() }) }
    }
}

/// Polls the frontier while this process does not write.
async fn follow(shared: Weak<Shared>, every: Duration) {
    let mut answered = true;
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.state.lock().sessions > 0 {
            continue;
        }
        match shared.connection.kept_generation(&shared.generation).await.and_then(|row| row.frontier()) {
            Ok(frontier) => {
                answered = true;
                let mut state = shared.state.lock();
                if state.sessions == 0 {
                    state.frontier = frontier;
                }
            }
            Err(error) => {
                // Logged once per outage.
                if std::mem::replace(&mut answered, false) {
                    tracing::warn!(reason = %error, "could not poll the frontier of the store: {error}");
                }
            }
        }
    }
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_histogram};
    describe_histogram!("store_request_duration_seconds", Unit::Seconds, "how long requests to the database took, by statement");
    describe_histogram!("store_batch_rows", "rows of one batch");
    describe_counter!("store_retries_total", "requests sent again, by statement");
    describe_counter!("store_request_failures_total", "requests given up, by statement");
    // Registered at the start, so that alerts find them.
    metrics::counter!("store_retries_total", "statement" => "write").increment(0);
    metrics::counter!("store_request_failures_total", "statement" => "write").increment(0);
}

impl Session {
    fn new(shared: Arc<Shared>, incarnation: Incarnation, joined: bool) -> Arc<Self> {
        let held = Held { number: incarnation.number, first_epoch: incarnation.first_epoch, joined };
        {
            let mut state = shared.state.lock();
            state.sessions += 1;
            state.frontier = incarnation.frontier.clone();
        }
        Arc::new(Self { shared, incarnation, held, written: Mutex::default(), turn: tokio::sync::Mutex::new(()) })
    }

    /// Refuses what only the process that began the incarnation may do.
    fn first(&self) -> Result<(&Connection, &str, Held), StoreError> {
        if self.held.joined {
            return Err(StoreError::Refused(
                "this process joined an incarnation: the one that began it commits, and ends it cleanly".into(),
            ));
        }
        Ok((&self.shared.connection, &self.shared.generation, self.held))
    }

    async fn write(&self, epoch: u64, changes: &[Change]) -> Result<(), StoreError> {
        let Shared { connection, generation, .. } = &*self.shared;
        let timestamp = self.held.timestamp(epoch)?;
        for change in changes {
            connection.layout(change.table)?;
        }
        {
            let mut written = self.written.lock();
            written.uncommitted = true;
            written.last = written.last.max(Some(timestamp));
        }
        connection.write(generation, timestamp, changes).await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        let (connection, generation, held) = self.first()?;
        let stale = self.written.lock().stale.clone();
        for (table, timestamp) in stale {
            connection.clear(generation, table, timestamp).await?;
            self.written.lock().stale.remove(table);
        }
        connection.commit(generation, held, epoch, &position).await?;
        self.written.lock().uncommitted = false;
        self.shared.state.lock().frontier = Frontier { epoch, position, unfinished: false };
        Ok(())
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        let Shared { connection, generation, .. } = &*self.shared;
        let layouts = tables.iter().map(|table| connection.layout(table)).collect::<Result<Vec<_>, _>>()?;
        let older = before(self.held.number)?;
        let timestamp = self.written.lock().last.map_or(older, |last| last.max(older));
        for layout in layouts {
            if layout.input {
                connection.clear(generation, layout.name, timestamp).await?;
            }
            // Inputs too, for the mark: the rewrite lasts until the next commit.
            self.written.lock().stale.insert(layout.name, timestamp);
        }
        Ok(())
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        let (connection, generation, held) = self.first()?;
        connection.reset_position(generation, held, &position).await?;
        let stale = !self.written.lock().stale.is_empty();
        let mut state = self.shared.state.lock();
        state.frontier.position = position;
        state.frontier.unfinished |= stale;
        Ok(())
    }

    async fn end(&self) -> Result<(), StoreError> {
        let (connection, generation, held) = self.first()?;
        let unfinished = {
            let written = self.written.lock();
            if written.uncommitted {
                return Err(StoreError::Refused("rows are uncommitted; the next start derives every row again".into()));
            }
            !written.stale.is_empty() || self.shared.state.lock().frontier.unfinished
        };
        connection.end_clean(generation, held, unfinished).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.state.lock().sessions -= 1;
    }
}

impl CqlSession {
    /// Runs one call after the other, each to its end.
    async fn run<F>(&self, task: impl FnOnce(Arc<Session>) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let task = task(Arc::clone(&self.session));
        let session = Arc::clone(&self.session);
        self.runtime
            .run(async move {
                let _turn = session.turn.lock().await;
                task.await
            })
            .await
    }
}

#[async_trait]
impl ViewReader for CqlStore {
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (table, key) = (table.to_owned(), key.to_vec());
        self.run(async move |shared| shared.connection.get(&shared.generation, &table, &key).await).await
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(self.snapshot_at(self.frontier()))
    }

    fn frontier(&self) -> Frontier {
        self.shared.state.lock().frontier.clone()
    }

    /// Acknowledged writes are in the commit logs of as many nodes as the consistency says; the nodes decide when to sync them.
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn named(&self) -> &dyn NamedValues {
        self
    }

    fn row_count(&self, table: &str) -> Result<u64, StoreError> {
        let layout = self.shared.connection.layout(table)?;
        let (rows, due) = self.shared.counts.last(layout.name);
        if due {
            let shared = Arc::clone(&self.shared);
            self.runtime.spawn(async move {
                let began = Instant::now();
                let counted = shared.connection.count(&shared.generation, layout).await;
                if let Err(error) = &counted {
                    tracing::warn!(table = layout.name, reason = %error, "could not count the rows of {}: {error}", layout.name);
                }
                shared.counts.counted(layout.name, began, counted.ok());
            });
        }
        Ok(rows)
    }

    fn disk_bytes(&self) -> Option<u64> {
        None
    }
}

#[async_trait]
impl ViewWriter for CqlStore {
    async fn begin(&self) -> Result<Box<dyn WriteSession>, StoreError> {
        let begun = self.run(async |shared| {
            let incarnation = shared.connection.begin(&shared.generation).await?;
            Ok(Session::new(shared, incarnation, false))
        });
        Ok(Box::new(CqlSession { session: begun.await?, runtime: Arc::clone(&self.runtime) }))
    }

    async fn join(&self, number: u64) -> Result<Box<dyn WriteSession>, StoreError> {
        let joined = self.run(async move |shared| {
            let incarnation = shared.connection.join(&shared.generation, number).await?;
            Ok(Session::new(shared, incarnation, true))
        });
        Ok(Box::new(CqlSession { session: joined.await?, runtime: Arc::clone(&self.runtime) }))
    }
}

#[async_trait]
impl WriteSession for CqlSession {
    fn incarnation(&self) -> &Incarnation {
        &self.session.incarnation
    }

    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        self.run(async move |session| session.write(epoch, &changes).await).await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.run(async move |session| session.commit(epoch, position).await).await
    }

    async fn apply(&self, unit: EpochChanges) -> Result<(), StoreError> {
        self.run(async move |session| {
            session.write(unit.epoch, &unit.changes).await?;
            session.commit(unit.epoch, unit.position).await
        })
        .await
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        let tables = tables.to_vec();
        self.run(async move |session| session.clear(&tables).await).await
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.run(async move |session| session.reset_position(position).await).await
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        self.run(async |session| session.end().await).await
    }
}

#[async_trait]
impl NamedValues for CqlStore {
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.run(async move |shared| shared.connection.get_named(&shared.generation, &name).await).await
    }

    async fn put(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.run(async move |shared| shared.connection.put_named(&shared.generation, &name, Some(&value)).await).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let prefix = prefix.to_owned();
        self.run(async move |shared| shared.connection.scan_named(&shared.generation, &prefix).await).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.run(async move |shared| shared.connection.put_named(&shared.generation, &name, None).await).await
    }
}
