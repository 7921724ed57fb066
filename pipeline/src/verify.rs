//! `verify`: recomputes every view from the merged inputs by the oracle and compares, row by row and byte by byte.

use std::sync::Arc;

use kindred_model::Semantics;
use kindred_model::views::{ReadError, Rows, view_tables};
use kindred_oracle::{Difference, Inputs, first_differences, tables};
use kindred_store::{Change, EpochChanges, ViewStore};
use serde::Serialize;

use crate::PipelineError;

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
    let changes = if frontier.unfinished {
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
    store.apply(EpochChanges { epoch: frontier.epoch, position: frontier.position, changes }).await?;
    store.sync().await?;
    store.end_clean().await?;
    Ok(mended)
}
