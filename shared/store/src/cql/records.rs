//! Records on CQL: a row each; a transaction is one conditional batch.
//!
//! ```text
//! transact ──▶ BEGIN BATCH, each step IF the row is as expected, APPLY BATCH ──▶ applied, or not, or no answer ──▶ judge
//! read ──▶ one row, SERIAL          scan ──▶ pages of one partition, QUORUM
//! ```
//!
//! A read is SERIAL: it completes a half-done transaction, so after a transaction without an answer a reader either sees it or it
//! never happens. A scan reads at QUORUM: acknowledged transactions are on a majority, and a SERIAL read of a partition would
//! block its writers.

mod judge;
#[cfg(test)]
mod tests;
mod transact;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kindred_model::units::EventTime;
use scylla::client::session::Session;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::prepared::PreparedStatement;

use super::config::CqlConfig;
use super::connection::Connection;
use super::generations::CqlGenerations;
use super::runtime::StoreRuntime;
use super::session::{answered, prepare, unreadable};
use super::{CqlStore, describe_metrics};
use crate::StoreError;
use crate::records::bounds::bounds;
use crate::records::{NEVER, OFTEN_LISTED_SUFFIX, Outcome, Page, Range, Record, RecordStore, Step, Version, check};

/// On the request path; the caller may retry.
const READ_ATTEMPTS: u32 = 2;
/// Records per page: 25 MB with the largest values, usually some kilobytes.
const PAGE_ROWS: i32 = 100;

/// The statements of one of the two tables.
struct Statements {
    read: PreparedStatement,
    /// Rows of a partition with what [`judge`] needs.
    look: PreparedStatement,
    scan: PreparedStatement,
    scan_back: PreparedStatement,
    /// Write a row that must have a version and be unexpired; and one that must have a version, or be absent.
    write_live: PreparedStatement,
    write: PreparedStatement,
    append: PreparedStatement,
    check_live: PreparedStatement,
    check: PreparedStatement,
}

impl Statements {
    async fn prepare(session: &Session, config: &CqlConfig, table: &str) -> Result<Self, StoreError> {
        let table = format!("{}.{table}", config.keyspace);
        let partition = "table_name = ? AND partition = ?";
        let reading = async |text: String, level| {
            let mut prepared = prepare(session, text, true).await?;
            prepared.set_consistency(level);
            Ok::<_, StoreError>(prepared)
        };
        let serial = config.consistency.serial_read();
        let majority = config.consistency.majority();
        let paged = async |text: String, rows| {
            let mut prepared = reading(text, majority).await?;
            prepared.set_page_size(rows);
            Ok::<_, StoreError>(prepared)
        };
        // Not retried by the driver: an outcome without an answer is looked up first.
        let condition = async |text: String| prepare(session, text, false).await;
        let select = format!("SELECT sort, value, version, expires_at FROM {table} WHERE {partition}");
        let write = format!(
            "UPDATE {table} USING TTL ? SET value = ?, version = ?, previous = ?, expires_at = ? WHERE {partition} AND sort = ?"
        );
        let check = format!("DELETE checked FROM {table} WHERE {partition} AND sort = ?");
        let live = "IF version = ? AND expires_at > ?";
        let mut read = reading(format!("{select} AND sort = ?"), serial).await?;
        read.set_request_timeout(Some(Duration::from_millis(config.read_timeout_ms)));
        Ok(Self {
            read,
            look: reading(
                format!("SELECT sort, version, previous, expires_at FROM {table} WHERE {partition} AND sort IN ?"),
                serial,
            )
            .await?,
            scan: paged(format!("{select} AND sort >= ? AND sort < ? ORDER BY sort ASC"), PAGE_ROWS).await?,
            scan_back: paged(format!("{select} AND sort >= ? AND sort < ? ORDER BY sort DESC"), PAGE_ROWS).await?,
            write_live: condition(format!("{write} {live}")).await?,
            write: condition(format!("{write} IF version = ?")).await?,
            append: {
                let mut append = prepare(session, write.clone(), true).await?;
                append.set_consistency(majority);
                append
            },
            check_live: condition(format!("{check} {live}")).await?,
            check: condition(format!("{check} IF version = ?")).await?,
        })
    }
}

/// The records of a keyspace. Any number of processes may open and write them.
#[derive(Clone)]
pub struct CqlRecords {
    shared: Arc<Shared>,
    runtime: Arc<StoreRuntime>,
}

struct Shared {
    connection: Arc<Connection>,
    records: Statements,
    outboxes: Statements,
}

impl CqlRecords {
    /// Opens the records of a keyspace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: no answer. [`StoreError::Refused`]: the schema is of another version; the message names
    /// `kindred migrate`.
    pub async fn open(config: CqlConfig) -> Result<Self, StoreError> {
        Self::open_in(&CqlStore::generations_of(config).await?).await
    }

    /// Opens the records over the connections of the generations.
    ///
    /// # Errors
    /// As [`CqlRecords::open`].
    pub async fn open_in(generations: &CqlGenerations) -> Result<Self, StoreError> {
        describe_metrics();
        let CqlGenerations { connection, runtime } = generations.clone();
        let opening = async move {
            let records = Statements::prepare(&connection.session, &connection.config, "records").await?;
            let outboxes = Statements::prepare(&connection.session, &connection.config, "outbox_records").await?;
            Ok(Arc::new(Shared { connection, records, outboxes }))
        };
        Ok(Self { shared: runtime.run(opening).await?, runtime })
    }

    /// Runs to its end even if the caller is cancelled.
    async fn run<T: Send + 'static, F>(&self, task: impl FnOnce(Arc<Shared>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.run(task(Arc::clone(&self.shared))).await
    }
}

fn version_bytes(version: Version) -> [u8; 16] {
    version.0.to_be_bytes()
}

fn version_of(bytes: &[u8]) -> Result<Version, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt("corrupt version of a record".into()))?;
    Ok(Version(u128::from_be_bytes(bytes)))
}

/// The selected columns; a record has all of them.
type Columns<'a> = (&'a [u8], Option<&'a [u8]>, Option<&'a [u8]>, Option<i64>);

/// A record and its sort key, unless deleted or expired.
fn living((sort, value, version, expires_at): Columns<'_>, now: EventTime) -> Result<Option<(Vec<u8>, Record)>, StoreError> {
    let (Some(version), Some(expires_at)) = (version, expires_at) else { return Ok(None) };
    if expires_at <= now.0 {
        return Ok(None);
    }
    let expires_at = Some(expires_at).filter(|&at| at != NEVER).map(EventTime);
    let record = Record { value: value.unwrap_or_default().to_vec(), version: version_of(version)?, expires_at };
    Ok(Some((sort.to_vec(), record)))
}

impl Shared {
    fn statements(&self, table: &str) -> &Statements {
        if table.ends_with(OFTEN_LISTED_SUFFIX) { &self.outboxes } else { &self.records }
    }

    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
        let read = &self.statements(table).read;
        let values = (table, partition, sort);
        let result = answered(READ_ATTEMPTS, "read_record", || self.connection.session.execute_unpaged(read, values)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let row = rows.maybe_first_row::<Columns<'_>>().map_err(|error| unreadable(&error))?;
        Ok(row.map(|row| living(row, now)).transpose()?.flatten().map(|(_, record)| record))
    }

    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError> {
        let mut found = Vec::new();
        let Some((from, to)) = bounds(range).filter(|_| limit > 0) else { return Ok(found) };
        let statements = self.statements(table);
        let mut scan = if range.descending { &statements.scan_back } else { &statements.scan }.clone();
        // Not more than wanted, plus a few for rows that are deleted.
        scan.set_page_size(PAGE_ROWS.min(i32::try_from(limit).unwrap_or(PAGE_ROWS).saturating_add(8)));
        let values = (table, partition, &from, &to);
        let mut state = PagingState::start();
        loop {
            let session = &self.connection.session;
            let page = || session.execute_single_page(&scan, values, state.clone());
            let (result, next) = answered(self.connection.config.attempts, "scan_records", page).await?;
            let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
            for row in rows.rows::<Columns<'_>>().map_err(|error| unreadable(&error))? {
                found.extend(living(row.map_err(|error| unreadable(&error))?, now)?);
                if found.len() == limit {
                    return Ok(found);
                }
            }
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(found),
            }
        }
    }
}

#[async_trait]
impl RecordStore for CqlRecords {
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
        check::place(table, partition, Some(sort))?;
        let (table, partition, sort) = (table.to_owned(), partition.to_vec(), sort.to_vec());
        self.run(async move |shared| shared.read(&table, &partition, &sort, now).await).await
    }

    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError> {
        check::scan(table, partition, range, limit)?;
        let (table, partition, range) = (table.to_owned(), partition.to_vec(), range.clone());
        self.run(async move |shared| shared.scan(&table, &partition, &range, limit, now).await).await
    }

    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
        check::place(table, partition, None)?;
        check::steps(steps)?;
        let (table, partition, steps) = (table.to_owned(), partition.to_vec(), steps.to_vec());
        self.run(async move |shared| shared.transact(&table, &partition, &steps, now).await).await
    }

    async fn append(&self, table: &str, partition: &[u8], insert: Step, now: EventTime) -> Result<(), StoreError> {
        check::place(table, partition, None)?;
        check::steps(std::slice::from_ref(&insert))?;
        let (table, partition) = (table.to_owned(), partition.to_vec());
        self.run(async move |shared| shared.append(&table, &partition, &insert, now).await).await
    }
}
