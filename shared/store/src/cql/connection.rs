//! An open database: session, prepared statements, and the partitions of each table.

use std::time::Duration;

use kindred_model::views::{input_tables, view_tables};
use rustc_hash::FxHashMap;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;

use super::config::CqlConfig;
use super::migrate::{self, Buckets};
use super::session::{connect, prepare};
use crate::StoreError;

/// Rows requested or buffered by a scan, over all partitions: some 40 MB of lists.
const SCAN_ROWS_WAITING: u32 = 65_536;
/// Rows of a page: a request has a fixed cost, an answer of megabytes another.
const PAGE_ROWS_MIN: u32 = 100;
const PAGE_ROWS_MAX: u32 = 5_000;

/// The statements of one of the two tables of rows.
pub(super) struct RowStatements {
    pub get: PreparedStatement,
    pub scan_from: PreparedStatement,
    pub scan_between: PreparedStatement,
    pub put: PreparedStatement,
    pub delete: PreparedStatement,
    pub clear: PreparedStatement,
    pub count: PreparedStatement,
}

/// The statements of generations, installation and named values.
pub(super) struct StateStatements {
    pub generation: PreparedStatement,
    pub generations: PreparedStatement,
    pub begin: PreparedStatement,
    pub commit: PreparedStatement,
    pub reset_position: PreparedStatement,
    pub end_clean: PreparedStatement,
    pub insert_generation: PreparedStatement,
    pub revive_generation: PreparedStatement,
    pub turn_state: PreparedStatement,
    pub live: PreparedStatement,
    pub insert_live: PreparedStatement,
    pub turn_live: PreparedStatement,
    pub get_named: PreparedStatement,
    pub named_written: PreparedStatement,
    pub put_named: PreparedStatement,
    pub scan_named: PreparedStatement,
    pub delete_named: PreparedStatement,
    pub clear_named: PreparedStatement,
}

/// The layout of a table of the model.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub name: &'static str,
    pub input: bool,
    pub buckets: u32,
}

pub(super) struct Connection {
    pub session: Session,
    pub config: CqlConfig,
    pub state: StateStatements,
    /// Limits the partitions read concurrently.
    pub scans: Semaphore,
    views: RowStatements,
    inputs: RowStatements,
    layouts: FxHashMap<&'static str, Layout>,
}

impl Connection {
    pub async fn open(config: CqlConfig) -> Result<Self, StoreError> {
        let session = connect(&config).await?;
        let buckets = migrate::check(&session, &config).await?;
        let views = rows(&session, &config, "view_rows", buckets.views).await?;
        let inputs = rows(&session, &config, "input_rows", buckets.inputs).await?;
        let state = state(&session, &config).await?;
        let scans = Semaphore::new(config.scans_in_flight);
        Ok(Self { session, state, scans, views, inputs, layouts: layouts(buckets), config })
    }

    pub fn layout(&self, table: &str) -> Result<Layout, StoreError> {
        self.layouts.get(table).copied().ok_or_else(|| StoreError::Refused(format!("there is no table {table}")))
    }

    /// The layouts of all tables.
    pub fn layouts(&self) -> impl Iterator<Item = Layout> + '_ {
        self.layouts.values().copied()
    }

    pub fn rows(&self, layout: Layout) -> &RowStatements {
        if layout.input { &self.inputs } else { &self.views }
    }
}

fn layouts(buckets: Buckets) -> FxHashMap<&'static str, Layout> {
    let inputs = input_tables().into_iter().map(|table| Layout { name: table.name, input: true, buckets: buckets.inputs });
    let views = view_tables().into_iter().map(|table| Layout { name: table.name, input: false, buckets: buckets.views });
    inputs.chain(views).map(|layout| (layout.name, layout)).collect()
}

async fn rows(session: &Session, config: &CqlConfig, table: &str, buckets: u32) -> Result<RowStatements, StoreError> {
    let table = format!("{}.{table}", config.keyspace);
    let partition = "generation = ? AND table_name = ? AND bucket = ?";
    let read = async |text: String| prepare(session, text, true).await;
    let page = i32::try_from((SCAN_ROWS_WAITING / buckets).clamp(PAGE_ROWS_MIN, PAGE_ROWS_MAX)).expect("within bounds");
    let mut scan_from = read(format!("SELECT key, value FROM {table} WHERE {partition} AND key >= ?")).await?;
    let mut scan_between = read(format!("SELECT key, value FROM {table} WHERE {partition} AND key >= ? AND key < ?")).await?;
    let mut get = read(format!("SELECT value FROM {table} WHERE {partition} AND key = ?")).await?;
    get.set_request_timeout(Some(Duration::from_millis(config.read_timeout_ms)));
    scan_from.set_page_size(page);
    scan_between.set_page_size(page);
    Ok(RowStatements {
        get,
        scan_from,
        scan_between,
        put: read(format!("INSERT INTO {table} (generation, table_name, bucket, key, value) VALUES (?, ?, ?, ?, ?)")).await?,
        delete: read(format!("DELETE FROM {table} WHERE {partition} AND key = ?")).await?,
        clear: read(format!("DELETE FROM {table} USING TIMESTAMP ? WHERE {partition}")).await?,
        count: read(format!("SELECT COUNT(*) FROM {table} WHERE {partition}")).await?,
    })
}

/// The columns of a generation, in the order of `frontier::Row`.
const GENERATION: &str =
    "name, state, settings, created_at_ms, incarnation, owner, first_epoch, epoch, position, clean, rewriting";

async fn state(session: &Session, config: &CqlConfig) -> Result<StateStatements, StoreError> {
    let keyspace = &config.keyspace;
    let read = async |text: String| prepare(session, text, true).await;
    // Not retried by the driver: the caller checks the outcome first.
    let transaction = async |text: String| prepare(session, text, false).await;
    // Sees every acknowledged transaction.
    let serial = async |text: String| {
        let mut prepared = prepare(session, text, true).await?;
        prepared.set_consistency(config.consistency.serial_read());
        Ok::<_, StoreError>(prepared)
    };
    let update = format!("UPDATE {keyspace}.generations SET");
    let named = format!("{keyspace}.named_values");
    let installation = format!("{keyspace}.installation");
    Ok(StateStatements {
        generation: serial(format!("SELECT {GENERATION} FROM {keyspace}.generations WHERE name = ?")).await?,
        generations: read(format!("SELECT {GENERATION} FROM {keyspace}.generations")).await?,
        begin: transaction(format!(
            "{update} incarnation = ?, owner = ?, first_epoch = ?, clean = false, rewriting = ? WHERE name = ? \
             IF incarnation = ? AND state = 'kept'"
        ))
        .await?,
        commit: transaction(format!("{update} epoch = ?, position = ?, rewriting = false WHERE name = ? IF incarnation = ?")).await?,
        reset_position: transaction(format!("{update} position = ? WHERE name = ? IF incarnation = ?")).await?,
        end_clean: transaction(format!("{update} clean = true, rewriting = ? WHERE name = ? IF incarnation = ?")).await?,
        insert_generation: transaction(format!(
            "INSERT INTO {keyspace}.generations ({GENERATION}) VALUES (?, 'kept', ?, ?, 0, '', 0, 0, ?, true, false) IF NOT EXISTS"
        ))
        .await?,
        revive_generation: transaction(format!(
            "{update} state = 'kept', settings = ?, created_at_ms = ?, owner = '', first_epoch = 0, epoch = 0, position = ?, \
             clean = true, rewriting = false WHERE name = ? IF state = 'dropped'"
        ))
        .await?,
        turn_state: transaction(format!("{update} state = ?, incarnation = ? WHERE name = ? IF state = ? AND incarnation = ?"))
            .await?,
        live: serial(format!("SELECT value FROM {installation} WHERE name = 'live'")).await?,
        insert_live: transaction(format!("INSERT INTO {installation} (name, value) VALUES ('live', ?) IF NOT EXISTS")).await?,
        turn_live: transaction(format!("UPDATE {installation} SET value = ? WHERE name = 'live' IF value = ?")).await?,
        get_named: read(format!("SELECT value FROM {named} WHERE scope = ? AND name = ?")).await?,
        named_written: read(format!("SELECT WRITETIME(value) FROM {named} WHERE scope = ? AND name = ?")).await?,
        put_named: read(format!("INSERT INTO {named} (scope, name, value) VALUES (?, ?, ?) USING TIMESTAMP ?")).await?,
        scan_named: read(format!("SELECT name, value FROM {named} WHERE scope = ? AND name >= ?")).await?,
        delete_named: read(format!("DELETE FROM {named} USING TIMESTAMP ? WHERE scope = ? AND name = ?")).await?,
        clear_named: read(format!("DELETE FROM {named} USING TIMESTAMP ? WHERE scope = ?")).await?,
    })
}
