//! `verify`: recomputes every view from the merged inputs by the oracle, and the merged inputs from the log as far as that reaches
//! back; compares row by row and byte by byte.

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

/// What `verify` found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Rows of views compared.
    pub rows: u64,
    /// The first differences; none when the law holds.
    pub differences: Vec<DifferenceReport>,
    /// Whether there are more than those listed.
    pub more: bool,
}

impl VerifyReport {
    /// Whether every row is what the oracle says.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One row that is not what the oracle says.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceReport {
    /// The table.
    pub table: String,
    /// The key, for a person to read.
    pub key: String,
    /// What the oracle says, if it says there is a row.
    pub expected: Option<String>,
    /// What the store holds.
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

/// Compares every row of every view with the oracle's, and names the first `limit` differences. Takes memory for the inputs
/// and all rows.
///
/// # Errors
/// What reading says.
pub fn verify(rows: &dyn Rows, semantics: &Semantics, limit: usize) -> Result<VerifyReport, ReadError> {
    let expected = tables(&Inputs::read(rows, semantics)?, semantics);
    let mut differences = first_differences(&expected, rows, limit + 1)?;
    let more = differences.len() > limit;
    differences.truncate(limit);
    Ok(VerifyReport { rows: expected.row_count(), differences: differences.iter().map(Into::into).collect(), more })
}

/// What `verify` found when it held the merged inputs against the log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InputsReport {
    /// Records of the log that were read.
    pub records: u64,
    /// Merged inputs compared.
    pub rows: u64,
    /// The first differences.
    pub differences: Vec<DifferenceReport>,
    /// Whether there are more than those listed.
    pub more: bool,
    /// What could not be compared, and why: for a person.
    pub not_compared: Vec<String>,
}

impl InputsReport {
    /// Whether the inputs are what the log says.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares the merged inputs of a snapshot with what the log holds up to its position. Of a topic that the log has from its first
/// record, the inputs must be exactly what the records merge to. Of one that begins later, or loses records to compaction, there may be
/// more in the store; what the log has must be in it all the same.
///
/// Sessions of erased members are left out: their raw records leave at a time of their own. Takes memory for the inputs twice, and
/// reads the whole log.
///
/// # Errors
/// What reading says.
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
            () if log.compacts() && topic != Topic::Interactions => "the log may keep the last record of a key alone".to_owned(),
            () => return true,
        };
        not_compared.push(format!("whether the inputs of {topic} hold more than the log has: {why}"));
        false
    };
    let [interactions, orders, catalog, members, ledger] =
        [Topic::Interactions, Topic::Orders, Topic::Catalog, Topic::Members, Topic::Ledger].map(&mut is_whole);
    // What is known of members decides whose interactions and entries are none.
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

/// The records of the log up to a position, decoded; what was rejected is none.
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
                // A log that is shorter than the store says has lost records: what they were is missing from what is expected.
                Ok(true) => return None,
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
    }
}

/// Writes every row that is not what the oracle says as it says, in one unit, and returns how many that were. For a store that
/// no pipeline writes to meanwhile. Repeating it changes nothing.
///
/// # Errors
/// What reading and writing say.
pub async fn repair(store: Arc<dyn ViewStore>, semantics: &Semantics) -> Result<u64, PipelineError> {
    let frontier = store.begin().await?.frontier;
    let snapshot = store.snapshot()?;
    let expected = tables(&Inputs::read(&*snapshot.rows, semantics)?, semantics);
    let differences = first_differences(&expected, &*snapshot.rows, usize::MAX)?;
    let mended = differences.len() as u64;
    drop(snapshot);
    let changes: Vec<Change> = if frontier.unfinished {
        // Every row, as a start does: what a process that was replaced still sends must lose against it.
        let views: Vec<&'static str> = view_tables().iter().map(|table| table.name).collect();
        store.clear(&views).await?;
        let rows = |table| expected.rows(table).map(move |(key, row)| Change { table, key: key.into(), row: Some(row.into()) });
        views.into_iter().flat_map(rows).collect()
    } else {
        differences
            .into_iter()
            .map(|difference| Change { table: difference.table, key: difference.key, row: difference.expected })
            .collect()
    };
    store.apply(EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: changes.into() }).await?;
    store.sync().await?;
    store.end_clean().await?;
    Ok(mended)
}
