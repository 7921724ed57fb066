//! The store on a CQL database: Apache Cassandra or `ScyllaDB`, within what both support.
//!
//! ```text
//! apply ──▶ write: batches by partition, USING the epoch's TIMESTAMP ──▶ commit: the frontier, IF the incarnation stands ──▶ listeners
//! get, scan ◀── (generation, table, bucket) → key → row        begin: a new incarnation, and whether the last ended cleanly
//! ```
//!
//! Nothing is atomic over partitions, so a unit is written first and the frontier follows. The next [`ViewStore::begin`] notices
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
use crate::{Change, EpochChanges, Frontier, Incarnation, Listener, NamedValues, Snapshot, StoreError, ViewStore};

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
    /// Serializes writes and notifications.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    frontier: Frontier,
    held: Option<Held>,
    /// Rows were written and not committed.
    uncommitted: bool,
    /// The highest timestamp written.
    last_written: Option<i64>,
    /// View tables that the next commit clears up to a timestamp.
    stale: BTreeMap<&'static str, i64>,
    listeners: Vec<Listener>,
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

    /// Opens a generation for reading; [`ViewStore::begin`] or [`ViewStore::join`] is for writing.
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
            turn: tokio::sync::Mutex::new(()),
        });
        runtime.spawn(follow(Arc::downgrade(&shared), poll));
        Ok(Self { shared, runtime })
    }

    /// The generations, over the same connections.
    pub fn generations(&self) -> CqlGenerations {
        CqlGenerations { connection: Arc::clone(&self.shared.connection), runtime: Arc::clone(&self.runtime) }
    }

    /// Counts the rows of a table now, which is slow; [`ViewStore::row_count`] returns the last count.
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
        if shared.state.lock().held.is_some() {
            continue;
        }
        match shared.connection.kept_generation(&shared.generation).await.and_then(|row| row.frontier()) {
            Ok(frontier) => {
                answered = true;
                let mut state = shared.state.lock();
                if state.held.is_none() {
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

impl Shared {
    fn held(&self) -> Result<Held, StoreError> {
        self.state.lock().held.ok_or_else(|| {
            StoreError::Refused(format!(
                "nothing was begun on generation {}: begin or join an incarnation first",
                self.generation
            ))
        })
    }

    /// As [`Shared::held`], for the process that began the incarnation.
    fn held_first(&self) -> Result<Held, StoreError> {
        let held = self.held()?;
        if held.joined {
            return Err(StoreError::Refused(
                "this process joined an incarnation: the one that began it commits, and ends it cleanly".into(),
            ));
        }
        Ok(held)
    }

    fn hold(&self, incarnation: &Incarnation, joined: bool) {
        let mut state = self.state.lock();
        state.held = Some(Held { number: incarnation.number, first_epoch: incarnation.first_epoch, joined });
        state.frontier = incarnation.frontier.clone();
        state.uncommitted = false;
        state.last_written = None;
        state.stale.clear();
    }

    async fn write(&self, epoch: u64, changes: &[Change]) -> Result<(), StoreError> {
        let timestamp = self.held()?.timestamp(epoch)?;
        for change in changes {
            self.connection.layout(change.table)?;
        }
        {
            let mut state = self.state.lock();
            state.uncommitted = true;
            state.last_written = state.last_written.max(Some(timestamp));
        }
        self.connection.write(&self.generation, timestamp, changes).await
    }

    /// Returns the listeners of that moment: later ones have the unit in their snapshot.
    async fn commit(&self, epoch: u64, position: Position) -> Result<Vec<Listener>, StoreError> {
        let held = self.held_first()?;
        let stale = self.state.lock().stale.clone();
        for (table, timestamp) in stale {
            self.connection.clear(&self.generation, table, timestamp).await?;
            self.state.lock().stale.remove(table);
        }
        self.connection.commit(&self.generation, held, epoch, &position).await?;
        let mut state = self.state.lock();
        state.uncommitted = false;
        state.frontier = Frontier { epoch, position, unfinished: false };
        Ok(state.listeners.clone())
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        let held = self.held()?;
        let layouts = tables.iter().map(|table| self.connection.layout(table)).collect::<Result<Vec<_>, _>>()?;
        let older = before(held.number)?;
        let timestamp = self.state.lock().last_written.map_or(older, |last| last.max(older));
        for layout in layouts {
            if layout.input {
                self.connection.clear(&self.generation, layout.name, timestamp).await?;
            }
            // Inputs too, for the mark: the rewrite lasts until the next commit.
            self.state.lock().stale.insert(layout.name, timestamp);
        }
        Ok(())
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.connection.reset_position(&self.generation, self.held_first()?, &position).await?;
        let mut state = self.state.lock();
        state.frontier.position = position;
        state.frontier.unfinished |= !state.stale.is_empty();
        Ok(())
    }

    async fn end_clean(&self) -> Result<(), StoreError> {
        let held = self.held_first()?;
        let unfinished = {
            let state = self.state.lock();
            if state.uncommitted {
                return Err(StoreError::Refused("rows are uncommitted; the next start derives every row again".into()));
            }
            state.frontier.unfinished || !state.stale.is_empty()
        };
        self.connection.end_clean(&self.generation, held, unfinished).await?;
        self.state.lock().held = None;
        Ok(())
    }
}

/// Notifies the listeners, which may read.
fn notify(listeners: &[Listener], unit: &EpochChanges) {
    if !listeners.is_empty() {
        tokio::task::block_in_place(|| listeners.iter().for_each(|listener| listener.unit(unit)));
    }
}

#[async_trait]
impl ViewStore for CqlStore {
    async fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (table, key) = (table.to_owned(), key.to_vec());
        self.run(async move |shared| shared.connection.get(&shared.generation, &table, &key).await).await
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(self.snapshot_at(self.frontier()))
    }

    fn listen(&self, listener: Listener) -> Result<Snapshot, StoreError> {
        let mut state = self.shared.state.lock();
        state.listeners.push(listener);
        let frontier = state.frontier.clone();
        drop(state);
        Ok(self.snapshot_at(frontier))
    }

    fn frontier(&self) -> Frontier {
        self.shared.state.lock().frontier.clone()
    }

    async fn begin(&self) -> Result<Incarnation, StoreError> {
        self.run(async |shared| {
            let _turn = shared.turn.lock().await;
            let incarnation = shared.connection.begin(&shared.generation).await?;
            shared.hold(&incarnation, false);
            Ok(incarnation)
        })
        .await
    }

    async fn join(&self, number: u64) -> Result<Incarnation, StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            let incarnation = shared.connection.join(&shared.generation, number).await?;
            shared.hold(&incarnation, true);
            Ok(incarnation)
        })
        .await
    }

    async fn write(&self, epoch: u64, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            shared.write(epoch, &changes).await?;
            let (listeners, position) = {
                let state = shared.state.lock();
                (state.listeners.clone(), state.frontier.position.clone())
            };
            notify(&listeners, &EpochChanges { epoch, position, changes });
            Ok(())
        })
        .await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            let listeners = shared.commit(epoch, position.clone()).await?;
            notify(&listeners, &EpochChanges { epoch, position, ..EpochChanges::default() });
            Ok(())
        })
        .await
    }

    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            shared.write(changes.epoch, &changes.changes).await?;
            let listeners = shared.commit(changes.epoch, changes.position.clone()).await?;
            notify(&listeners, &changes);
            Ok(())
        })
        .await
    }

    async fn end_clean(&self) -> Result<(), StoreError> {
        self.run(async |shared| {
            let _turn = shared.turn.lock().await;
            shared.end_clean().await
        })
        .await
    }

    async fn clear(&self, tables: &[&'static str]) -> Result<(), StoreError> {
        let tables = tables.to_vec();
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            shared.clear(&tables).await
        })
        .await
    }

    async fn reset_position(&self, position: Position) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            shared.reset_position(position).await
        })
        .await
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
