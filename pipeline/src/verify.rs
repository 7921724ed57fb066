//! `verify`: recomputes every view from the merged inputs with the oracle, and the merged inputs from the log as far as its
//! retention allows; compares the rows byte by byte.

use std::sync::Arc;

use kindred_log::{EventLog, EventReader, LogError, LogRecord, PartitionStatus, Share};
use kindred_model::records::{MemberRecord, Record, Rules};
use kindred_model::views::{ReadError, Rows, view_tables};
use kindred_model::{Owner, Position, Semantics, Topic};
use kindred_oracle::{Difference, Inputs, first_differences, tables};
use kindred_store::{Change, EpochChanges, Snapshot, ViewStore};
use serde::Serialize;

use crate::PipelineError;
use crate::source::{BATCH_RECORDS, POLL, is_tombstone};

/// The result of `verify`.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Rows of views compared.
    pub rows: u64,
    /// The first differences; empty when the views are right.
    pub differences: Vec<DifferenceReport>,
    /// Whether there are more.
    pub more: bool,
}

impl VerifyReport {
    /// Whether every row equals the oracle's.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One row that differs from the oracle's.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceReport {
    /// The table.
    pub table: String,
    /// The key, printable.
    pub key: String,
    /// The oracle's row, if it has one.
    pub expected: Option<String>,
    /// The stored row, if there is one.
    pub stored: Option<String>,
}

impl From<&Difference> for DifferenceReport {
    fn from(difference: &Difference) -> Self {
        Self {
            table: difference.table.to_owned(),
            key: difference.describe_key(),
            expected: difference.describe_expected(),
            stored: difference.describe_actual(),
        }
    }
}

/// Compares every row of every view with the oracle's and reports the first `limit` differences. Holds the inputs and all rows in
/// memory.
///
/// # Errors
/// Those of reading.
pub fn verify(rows: &dyn Rows, semantics: &Semantics, limit: usize) -> Result<VerifyReport, ReadError> {
    let expected = tables(&Inputs::read(rows, semantics)?, semantics);
    let mut differences = first_differences(&expected, rows, limit + 1)?;
    let more = differences.len() > limit;
    differences.truncate(limit);
    Ok(VerifyReport { rows: expected.row_count(), differences: differences.iter().map(Into::into).collect(), more })
}

/// The result of comparing the merged inputs with the log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InputsReport {
    /// Records read from the log.
    pub records: u64,
    /// Merged inputs compared.
    pub rows: u64,
    /// The first differences.
    pub differences: Vec<DifferenceReport>,
    /// Whether there are more.
    pub more: bool,
    /// What could not be compared and why, printable.
    pub not_compared: Vec<String>,
}

impl InputsReport {
    /// Whether the inputs match the log.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares the merged inputs of a snapshot with the log up to the snapshot's position. For a topic that the log holds
/// completely, the inputs must be exactly the merged records. If retention or compaction removed records, the store may hold
/// more, but must hold everything the log has.
///
/// Skips sessions of erased members, whose raw records are removed at their own time. Holds the inputs twice in memory and reads
/// the whole log.
///
/// # Errors
/// Those of reading.
pub fn verify_inputs(
    log: &dyn EventLog,
    partitions: &[PartitionStatus],
    snapshot: &Snapshot,
    semantics: &Semantics,
    limit: usize,
) -> Result<InputsReport, PipelineError> {
    let stored = Inputs::read(&*snapshot.rows, semantics)?;
    let mut not_compared = Vec::new();
    let mut is_whole = |topic: Topic| {
        let begins_at = partitions.iter().filter(|of| of.topic == topic).map(|of| of.first).max().unwrap_or(0);
        let why = match () {
            () if begins_at > 0 => format!("the log begins at record {begins_at} of it"),
            () if log.compacts() && topic != Topic::Interactions => {
                "the log is compacted and may keep only the last record of a key".to_owned()
            }
            () => return true,
        };
        not_compared.push(format!("whether the inputs of {topic} hold more than the log has: {why}"));
        false
    };
    let [interactions, orders, catalog, members, ledger] =
        [Topic::Interactions, Topic::Orders, Topic::Catalog, Topic::Members, Topic::Ledger].map(&mut is_whole);
    // Interactions and ledger entries of erased members count as absent, so they depend on members.
    let (interactions, ledger) = (interactions && members, ledger && members);

    let mut base = stored.clone();
    if interactions {
        base.interactions.clear();
    }
    if orders {
        base.orders.clear();
    }
    if catalog {
        base.catalog.clear();
    }
    if members {
        base.members.clear();
    }
    if ledger {
        base.ledger.clear();
    }
    let mut reading = Reading::of(log, &snapshot.frontier.position, semantics)?;
    let expected = without_sessions_of_erased(base.with(&mut reading, semantics)).tables();
    if let Some(error) = reading.failure {
        return Err(error.into());
    }
    let stored = without_sessions_of_erased(stored).tables();
    let mut differences = first_differences(&expected, &stored, limit + 1)?;
    let more = differences.len() > limit;
    differences.truncate(limit);
    let differences = differences.iter().map(Into::into).collect();
    Ok(InputsReport { records: reading.records, rows: expected.row_count(), differences, more, not_compared })
}

fn without_sessions_of_erased(mut inputs: Inputs) -> Inputs {
    let members = &inputs.members;
    let of_erased = |owner: &Owner| match members.get(owner) {
        Some(MemberRecord::Session { merged_into, .. }) => {
            members.get(&Owner::Member(merged_into.clone())).is_some_and(MemberRecord::is_erased)
        }
        _ => false,
    };
    inputs.interactions.retain(|owner, _| !of_erased(owner));
    inputs
}

/// The valid records of the log up to a position, decoded.
struct Reading {
    reader: Box<dyn EventReader>,
    until: Position,
    rules: Rules,
    batch: std::vec::IntoIter<LogRecord>,
    records: u64,
    failure: Option<LogError>,
}

impl Reading {
    fn of(log: &dyn EventLog, until: &Position, semantics: &Semantics) -> Result<Self, LogError> {
        let reader = log.reader(Share::ALL)?;
        let batch = Vec::new().into_iter();
        Ok(Self { reader, until: until.clone(), rules: semantics.rules(), batch, records: 0, failure: None })
    }
}

impl Iterator for &mut Reading {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            for LogRecord { place, payload, .. } in self.batch.by_ref() {
                if place.offset >= self.until.next_offset(place.topic, place.partition) {
                    continue;
                }
                self.records += 1;
                if !is_tombstone(&payload)
                    && let Ok(record) = Record::decode(place.topic, &payload, &self.rules)
                {
                    return Some(record);
                }
            }
            if self.reader.position().reaches(&self.until) {
                return None;
            }
            let mut batch = Vec::new();
            let polled = self.reader.poll(BATCH_RECORDS, POLL, &mut batch);
            let ends = polled.and_then(|()| Ok(batch.is_empty() && self.reader.end()? == *self.reader.position()));
            match ends {
                Ok(false) => self.batch = batch.into_iter(),
                // A log shorter than the store's position has lost records, which show up as differences.
                Ok(true) => return None,
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
    }
}

/// Rewrites all rows from the oracle in one unit and returns how many differed. No pipeline may write to the store meanwhile.
/// Repeatable.
///
/// # Errors
/// Those of reading and writing.
pub async fn repair(store: Arc<dyn ViewStore>, semantics: &Semantics) -> Result<u64, PipelineError> {
    let session = store.begin().await?;
    let frontier = session.incarnation().frontier.clone();
    let snapshot = store.snapshot()?;
    let expected = tables(&Inputs::read(&*snapshot.rows, semantics)?, semantics);
    let differences = first_differences(&expected, &*snapshot.rows, usize::MAX)?;
    let mended = differences.len() as u64;
    drop(snapshot);
    let changes: Vec<Change> = if frontier.unfinished {
        // All rows, as at a start: late writes of a replaced process must lose against them.
        let views: Vec<&'static str> = view_tables().iter().map(|table| table.name).collect();
        session.clear(&views).await?;
        let rows = |table| expected.rows(table).map(move |(key, row)| Change { table, key: key.into(), row: Some(row.into()) });
        views.into_iter().flat_map(rows).collect()
    } else {
        differences
            .into_iter()
            .map(|difference| Change { table: difference.table, key: difference.key, row: difference.expected })
            .collect()
    };
    session.apply(EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: changes.into() }).await?;
    store.sync().await?;
    session.end().await?;
    Ok(mended)
}
