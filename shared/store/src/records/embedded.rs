//! The embedded records: one fjall database in a directory of its own, beside the stores of the generations.
//!
//! ```text
//! transact ──▶ queue ──▶ writer thread: all that wait, one after the other ──▶ one atomic batch, one fsync ──▶ answers
//! read, scan ──▶ a snapshot of the last batch, on a thread that may wait          └── and what has expired leaves with it
//! ```
//!
//! Transactions that wait for the same fsync share it. Each is decided on what those before it left, and they are written in one batch,
//! so a kill at any moment leaves each whole or absent, in the order in which they were decided.

mod group;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use kindred_embedded::{Asked, Database, Engine, Failure, Options, RESERVE_BYTES, Writer, blocking};
use kindred_model::units::EventTime;
use tokio::sync::mpsc;

use self::group::{Change, Group, Reading, partition_prefix};
use super::bounds::bounds;
use super::{Outcome, Page, Range, Record, RecordStore, Step, check};
use crate::StoreError;
use crate::embedded::{STATE, check_format};
use crate::embedded_generations::open_whole;

/// What this code writes and reads; another number in a directory is refused.
const FORMAT: &str = "1";
/// Transactions that wait for the writer; more wait for their turn to wait.
const QUEUE_MAX: usize = 1_024;
/// Transactions and bytes that share one fsync: so many that the fsync costs each little, so few that none waits long for others.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Memtable of a keyspace. Records are small and few beside rows of views, and a flush holds readers up.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// One flushes, or compacts.
const WORKERS: usize = 1;

/// The records under (table, partition, sort).
const RECORDS: &str = "records";
/// When which of them expires.
const EXPIRIES: &str = "expiries";

/// The records of one directory, which it owns until it is dropped.
pub struct EmbeddedRecords {
    database: Arc<Database>,
    writer: Writer<Transaction, Outcome, StoreError>,
}

/// A transaction that waits.
struct Transaction {
    place: Vec<u8>,
    steps: Vec<Step>,
    bytes: usize,
    now: EventTime,
}

type Command = Asked<Transaction, Outcome, StoreError>;

impl EmbeddedRecords {
    /// Opens or creates the records in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when another process uses the directory or it was written in another format.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, RESERVE_BYTES)
    }

    /// As [`EmbeddedRecords::open`]; writes are refused while fewer bytes are free than `reserve_bytes`.
    ///
    /// # Errors
    /// As [`EmbeddedRecords::open`].
    pub fn open_with(dir: &Path, reserve_bytes: u64) -> Result<Self, StoreError> {
        let spaces = [RECORDS, EXPIRIES, STATE].map(str::to_owned).to_vec();
        // Of a million members any may be the next: `kindred-bench members` measures it.
        let options = Options { spaces, memtable_bytes: MEMTABLE_BYTES, reserve_bytes, workers: WORKERS, random_reads: true };
        let database = open_whole(dir, |dir| {
            let database = Database::open(dir, options.clone())?;
            check_format(&database, FORMAT)?;
            Ok(database)
        })?;
        let database = Arc::new(database);
        let writer = Writer::start("records-writer", QUEUE_MAX, {
            let database = Arc::clone(&database);
            move |queue| write_all(&database, queue)
        })?;
        Ok(Self { database, writer })
    }

    /// Reads what is committed now, where waiting for the disk holds up nobody else.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        Ok(blocking(move || read(&Reading::of(&database.get()?))).await?)
    }
}

/// The writer thread.
fn write_all(database: &Database, mut queue: mpsc::Receiver<Command>) {
    // Everything that expires before this key has been swept since the directory was opened.
    let mut swept_to = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut commands = vec![first];
        let mut bytes = commands[0].0.bytes;
        while commands.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(command) = queue.try_recv() else { break };
            bytes += command.0.bytes;
            commands.push(command);
        }
        let outcomes = opened(database).and_then(|engine| write(database, engine, &commands, &mut swept_to));
        let mut outcomes = outcomes.map(Vec::into_iter);
        for (_, reply) in commands {
            let outcome = match &mut outcomes {
                Ok(outcomes) => Ok(outcomes.next().expect("one for each command")),
                Err(failure) => Err(StoreError::from(failure.clone())),
            };
            // The asker may have gone away; what it asked for is done all the same.
            let _ = reply.send(outcome);
        }
    }
}

/// The open database; one that could not be opened again after the disk was full is tried once more.
fn opened(database: &Database) -> Result<Engine, Failure> {
    database.get().or_else(|_| {
        database.commit(0, false, |_, _| ())?;
        database.get()
    })
}

/// Decides the transactions one after the other, and writes what they do.
fn write(database: &Database, engine: Engine, commands: &[Command], swept_to: &mut Vec<u8>) -> Result<Vec<Outcome>, Failure> {
    let reading = Reading::of(&engine);
    // It would hold the directory, if the database has to be opened again.
    drop(engine);
    let mut group = Group::new(reading);
    let mut outcomes = Vec::with_capacity(commands.len());
    for (transaction, _) in commands {
        outcomes.push(group.decide(&transaction.place, &transaction.steps, transaction.now)?);
    }
    let latest = commands.iter().map(|(transaction, _)| transaction.now).max().expect("at least one");
    let swept = group.sweep(swept_to, latest)?;
    let changes = group.into_changes();
    if !changes.is_empty() {
        let bytes: usize = changes.iter().map(|change| change.bytes()).sum();
        database.commit(bytes as u64, true, |engine, batch| {
            for change in &changes {
                change.write(engine, batch);
            }
        })?;
    }
    *swept_to = swept;
    // What was written now may expire before what has been swept.
    if let Some(earliest) = changes.iter().filter_map(Change::expiry).min()
        && earliest < swept_to.as_slice()
    {
        *swept_to = earliest.to_vec();
    }
    Ok(outcomes)
}

#[async_trait]
impl RecordStore for EmbeddedRecords {
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
        check::place(table, partition, Some(sort))?;
        let mut key = partition_prefix(table, partition);
        key.extend_from_slice(sort);
        let record = self.reading(move |reading| reading.get(&key)).await?;
        Ok(record.filter(|record| !record.expired(now)))
    }

    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError> {
        check::scan(table, partition, range, limit)?;
        let Some((from, to)) = bounds(range) else { return Ok(Vec::new()) };
        let prefix = partition_prefix(table, partition);
        let (from, to) = ([prefix.as_slice(), &from].concat(), [prefix.as_slice(), &to].concat());
        let descending = range.descending;
        self.reading(move |reading| {
            let mut found = Vec::new();
            for entry in reading.range(&from, &to, descending) {
                if found.len() == limit {
                    break;
                }
                let (key, record) = entry?;
                if !record.expired(now) {
                    found.push((key[prefix.len()..].to_vec(), record));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn shed(&self) -> Result<(), StoreError> {
        let database = Arc::clone(&self.database);
        Ok(blocking(move || database.shed(&[RECORDS, EXPIRIES, STATE], || ())).await?)
    }

    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
        check::place(table, partition, None)?;
        let bytes = check::steps(steps)?;
        self.writer.ask(Transaction { place: partition_prefix(table, partition), steps: steps.to_vec(), bytes, now }).await
    }
}
