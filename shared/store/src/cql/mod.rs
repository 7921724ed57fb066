//! The store on a CQL database: Apache Cassandra or `ScyllaDB`, within what both speak.
//!
//! ```text
//! apply ──▶ write: batches by partition, USING the epoch's TIMESTAMP ──▶ commit: the frontier, IF the incarnation stands ──▶ listeners
//! get, scan ◀── (generation, table, bucket) → key → row        begin: a new incarnation, and whether the last ended cleanly
//! ```
//!
//! There is no atomic unit over partitions, so a unit is written first and the frontier follows; what a crash leaves half is noticed by
//! the next [`ViewStore::begin`], and the pipeline derives every row anew. `frontier` has the timestamps that make late writes of a
//! replaced process lose, `bucket` the partitions, `write` the batches, `migrate` the schema.

mod bridge;
mod bucket;
mod config;
mod connection;
mod count;
mod frontier;
mod generations;
mod migrate;
mod named;
mod records;
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

use self::bridge::Bridge;
use self::connection::Connection;
use self::count::Counts;
use self::frontier::{Held, before};
use self::scan::Reading;
use crate::{Change, EpochChanges, Frontier, Incarnation, Listener, NamedValues, Snapshot, StoreError, ViewStore};

/// One generation of the store in a keyspace. Any number of processes may open it; one cluster of them writes.
pub struct CqlStore {
    shared: Arc<Shared>,
    bridge: Arc<Bridge>,
}

struct Shared {
    connection: Arc<Connection>,
    generation: String,
    counts: Counts,
    state: Mutex<State>,
    /// Units are written and heard of one after the other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    frontier: Frontier,
    held: Option<Held>,
    /// Rows were written and not committed.
    uncommitted: bool,
    /// The highest timestamp written under.
    last_written: Option<i64>,
    /// Tables of views that are cleared with the next commit: what is up to the timestamp goes.
    stale: BTreeMap<&'static str, i64>,
    listeners: Vec<Listener>,
}

impl CqlStore {
    /// Makes the keyspace and the tables, or brings them up to this version. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: the keyspace was made by a later version, or a migration was edited.
    pub async fn migrate(config: CqlConfig) -> Result<Migrated, StoreError> {
        let bridge = Bridge::new()?;
        bridge.run(async move { migrate::migrate(&config).await }).await
    }

    /// The generations of a keyspace.
    ///
    /// # Errors
    /// As [`CqlStore::open`].
    pub async fn generations_of(config: CqlConfig) -> Result<CqlGenerations, StoreError> {
        let bridge = Arc::new(Bridge::new()?);
        let connection = Arc::new(bridge.run(Connection::open(config)).await?);
        Ok(CqlGenerations { connection, bridge })
    }

    /// Opens a generation for reading; [`ViewStore::begin`] or [`ViewStore::join`] is for writing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the database does not answer. [`StoreError::Refused`]: there is no such generation, or the schema
    /// is not that of this version: the message names `kindred migrate`.
    pub async fn open(config: CqlConfig, generation: &str) -> Result<Self, StoreError> {
        Self::open_in(&Self::generations_of(config).await?, generation).await
    }

    /// Opens one of the generations over the same connections.
    ///
    /// # Errors
    /// As [`CqlStore::open`].
    pub async fn open_in(generations: &CqlGenerations, generation: &str) -> Result<Self, StoreError> {
        describe_metrics();
        let CqlGenerations { connection, bridge } = generations.clone();
        let (opened, name) = (Arc::clone(&connection), generation.to_owned());
        let frontier = bridge.run(async move { opened.kept_generation(&name).await?.frontier() }).await?;
        let poll = Duration::from_millis(connection.config.frontier_poll_ms);
        let shared = Arc::new(Shared {
            connection,
            generation: generation.to_owned(),
            counts: Counts::default(),
            state: Mutex::new(State { frontier, ..State::default() }),
            turn: tokio::sync::Mutex::new(()),
        });
        bridge.spawn(follow(Arc::downgrade(&shared), poll));
        Ok(Self { shared, bridge })
    }

    /// The generations beside this one, over the same connections.
    pub fn generations(&self) -> CqlGenerations {
        CqlGenerations { connection: Arc::clone(&self.shared.connection), bridge: Arc::clone(&self.bridge) }
    }

    /// Counts the rows of a table now, however long it takes; [`ViewStore::row_count`] tells the last count.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is no such table.
    pub async fn count(&self, table: &str) -> Result<u64, StoreError> {
        let place = self.shared.connection.place(table)?;
        let began = Instant::now();
        let rows = self.run(async move |shared| shared.connection.count(&shared.generation, place).await).await?;
        self.shared.counts.counted(place.name, began, Some(rows));
        Ok(rows)
    }

    async fn run<T: Send + 'static, F>(&self, task: impl FnOnce(Arc<Shared>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.bridge.run(task(Arc::clone(&self.shared))).await
    }

    fn snapshot_at(&self, frontier: Frontier) -> Snapshot {
        let (connection, bridge) = (Arc::clone(&self.shared.connection), Arc::clone(&self.bridge));
        Snapshot { frontier, rows: Box::new(Reading { connection, bridge, generation: self.shared.generation.clone() }) }
    }
}

/// Asks how far the store reaches while this process does not write.
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
                // Told once, not four times a second.
                if std::mem::replace(&mut answered, false) {
                    tracing::warn!(reason = %error, "could not ask how far the store reaches: {error}");
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
    // There from the start, so that an alert finds them.
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

    /// As [`Shared::held`], for what only the process does that began.
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
            self.connection.place(change.table)?;
        }
        {
            let mut state = self.state.lock();
            state.uncommitted = true;
            state.last_written = state.last_written.max(Some(timestamp));
        }
        self.connection.write(&self.generation, timestamp, changes).await
    }

    /// Returns who listened when the frontier moved: who comes later has the unit in its snapshot.
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
        let places = tables.iter().map(|table| self.connection.place(table)).collect::<Result<Vec<_>, _>>()?;
        let older = before(held.number)?;
        let timestamp = self.state.lock().last_written.map_or(older, |last| last.max(older));
        for place in places {
            if place.input {
                self.connection.clear(&self.generation, place.name, timestamp).await?;
            }
            // Inputs too, for the mark: nothing is finished until the next commit.
            self.state.lock().stale.insert(place.name, timestamp);
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
                return Err(StoreError::Refused(
                    "rows were written that no commit covers; the next start derives all anew".into(),
                ));
            }
            state.frontier.unfinished || !state.stale.is_empty()
        };
        self.connection.end_clean(&self.generation, held, unfinished).await?;
        self.state.lock().held = None;
        Ok(())
    }
}

/// Tells the listeners, who may read.
fn tell(listeners: &[Listener], unit: &EpochChanges) {
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
            tell(&listeners, &EpochChanges { epoch, position, changes });
            Ok(())
        })
        .await
    }

    async fn commit(&self, epoch: u64, position: Position) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            let listeners = shared.commit(epoch, position.clone()).await?;
            tell(&listeners, &EpochChanges { epoch, position, ..EpochChanges::default() });
            Ok(())
        })
        .await
    }

    async fn apply(&self, changes: EpochChanges) -> Result<(), StoreError> {
        self.run(async move |shared| {
            let _turn = shared.turn.lock().await;
            shared.write(changes.epoch, &changes.changes).await?;
            let listeners = shared.commit(changes.epoch, changes.position.clone()).await?;
            tell(&listeners, &changes);
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

    /// What was acknowledged is in the commit logs of as many nodes as the consistency says; when those are synced is their setting.
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn named(&self) -> &dyn NamedValues {
        self
    }

    fn row_count(&self, table: &str) -> Result<u64, StoreError> {
        let place = self.shared.connection.place(table)?;
        let (rows, due) = self.shared.counts.last(place.name);
        if due {
            let shared = Arc::clone(&self.shared);
            self.bridge.spawn(async move {
                let began = Instant::now();
                let counted = shared.connection.count(&shared.generation, place).await;
                if let Err(error) = &counted {
                    tracing::warn!(table = place.name, reason = %error, "could not count the rows of {}: {error}", place.name);
                }
                shared.counts.counted(place.name, began, counted.ok());
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
