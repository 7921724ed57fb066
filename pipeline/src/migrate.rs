//! Migrates a store from format 1: rewrites the keys of merged interactions, derives the rows of views again, and resets the log
//! position to the beginning, because the merge rules changed. Merged inputs stay, as the log may no longer hold their records.
//! Repeatable: a migration killed at any point starts over.

use std::ops::ControlFlow;

use kindred_model::Position;
use kindred_model::codec::{Corrupt, interaction_key_of_format_1};
use kindred_model::records::{OrderRecord, Rules};
use kindred_model::views::Table;
use kindred_model::views::inputs::{Interactions, Orders};
use kindred_model::views::points::Points;
use kindred_model::views::popularity::Popularity;
use kindred_store::{Change, EpochChanges, StoreError, ViewStore, WriteSession};
use tracing::{info, warn};

use crate::PipelineError;

/// Changes per unit; bounds memory.
const CHANGES_A_UNIT: usize = 100_000;

/// Migrates a store of format 1; the pipeline that follows derives the rows. The caller records the new format once it returns.
///
/// # Errors
/// Those of the store; [`PipelineError::Read`] for a key that is not of format 1.
pub async fn migrate_from_format_1(store: &dyn ViewStore, rules: &Rules) -> Result<(), PipelineError> {
    let session = &*store.begin().await?;
    let interactions = |key: &[u8], row: &[u8], changes: &mut Vec<Change>| -> Result<(), Corrupt> {
        if let Some(new) = interaction_key_of_format_1(key)? {
            changes.push(Change { table: Interactions::NAME, key: new, row: Some(row.to_vec()) });
            changes.push(Change { table: Interactions::NAME, key: key.to_vec(), row: None });
        }
        Ok(())
    };
    // An order refunded beyond what was paid is no longer valid. Reading the log again rejects it with its reason.
    let orders = |key: &[u8], row: &[u8], changes: &mut Vec<Change>| -> Result<(), Corrupt> {
        if let Err(invalid) = OrderRecord::decode(row, rules) {
            warn!(order = %String::from_utf8_lossy(key).trim_end_matches('\0'), "dropped an order that is no longer valid: {invalid}");
            changes.push(Change { table: Orders::NAME, key: key.to_vec(), row: None });
        }
        Ok(())
    };
    let keys = change(store, session, Interactions::NAME, &interactions).await? / 2;
    change(store, session, Orders::NAME, &orders).await?;
    // Deletes the rows that today's code would misread; the others are served until they are derived again.
    session.clear(&[Points::NAME, Popularity::NAME]).await?;
    session.reset_position(Position::beginning()).await?;
    store.sync().await?;
    info!(keys, "migrated the store from format 1; rewriting all rows and reading the log again");
    Ok(())
}

/// Turns a row into changes.
type Rewrite<'a> = &'a (dyn Fn(&[u8], &[u8], &mut Vec<Change>) -> Result<(), Corrupt> + Sync);

/// Rewrites the rows of a table in units until none is left; returns the number of changes.
async fn change(
    store: &dyn ViewStore,
    session: &dyn WriteSession,
    table: &str,
    rewrite: Rewrite<'_>,
) -> Result<usize, PipelineError> {
    let begun = session.incarnation();
    let mut made = 0;
    loop {
        let mut changes = Vec::new();
        let snapshot = store.snapshot()?;
        let scanned = snapshot.rows.scan(table, &[], &mut |key, row| match rewrite(key, row, &mut changes) {
            Ok(()) if changes.len() < CHANGES_A_UNIT => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(Ok(())),
            Err(corrupt) => ControlFlow::Break(Err(corrupt.into())),
        });
        drop(snapshot);
        scanned.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        if changes.is_empty() {
            return Ok(made);
        }
        made += changes.len();
        let position = begun.frontier.position.clone();
        session.apply(EpochChanges { epoch: begun.first_epoch, position, changes: changes.into() }).await?;
    }
}
