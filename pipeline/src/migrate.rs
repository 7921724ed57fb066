//! From format 1 of a store to today's: keys of merged interactions are written anew, rows of views are derived anew, and the log is
//! read again from its first record, because records merge by other rules now. What the log does not hold any more lives on in the
//! merged inputs, which stay. Killed at any moment, it begins again: each step may be repeated.

use std::ops::ControlFlow;

use kindred_model::Position;
use kindred_model::codec::{Corrupt, interaction_key_of_format_1};
use kindred_model::records::{OrderRecord, Rules};
use kindred_model::views::Table;
use kindred_model::views::inputs::{Interactions, Orders};
use kindred_model::views::points::Points;
use kindred_model::views::popularity::Popularity;
use kindred_store::{Change, EpochChanges, Incarnation, StoreError, ViewStore};
use tracing::{info, warn};

use crate::PipelineError;

/// Changes written in one unit: bounds the memory.
const CHANGES_A_UNIT: usize = 100_000;

/// Brings a store of format 1 to today's; a pipeline has to follow, which derives the rows. The caller notes the format once it returns.
///
/// # Errors
/// What the store says; a key that is none of format 1.
pub async fn migrate_from_format_1(store: &dyn ViewStore, rules: &Rules) -> Result<(), PipelineError> {
    let begun = store.begin().await?;
    let interactions = |key: &[u8], row: &[u8], changes: &mut Vec<Change>| -> Result<(), Corrupt> {
        if let Some(new) = interaction_key_of_format_1(key)? {
            changes.push(Change { table: Interactions::NAME, key: new, row: Some(row.to_vec()) });
            changes.push(Change { table: Interactions::NAME, key: key.to_vec(), row: None });
        }
        Ok(())
    };
    // An order that gave back more money than was paid is accepted no more: the log has it, and it is rejected with its reason.
    let orders = |key: &[u8], row: &[u8], changes: &mut Vec<Change>| -> Result<(), Corrupt> {
        if let Err(invalid) = OrderRecord::decode(row, rules) {
            warn!(order = %String::from_utf8_lossy(key).trim_end_matches('\0'), "an order is accepted no more: {invalid}");
            changes.push(Change { table: Orders::NAME, key: key.to_vec(), row: None });
        }
        Ok(())
    };
    let keys = change(store, &begun, Interactions::NAME, &interactions).await? / 2;
    change(store, &begun, Orders::NAME, &orders).await?;
    // Rows that today's code would misread are gone before it looks at them; the others are served until they are derived.
    store.clear(&[Points::NAME, Popularity::NAME]).await?;
    store.reset_position(Position::beginning()).await?;
    store.sync().await?;
    info!(keys, "migrated the store from format 1; every row is derived anew and the log is read again");
    Ok(())
}

/// What a row is changed to.
type Rewrite<'a> = &'a (dyn Fn(&[u8], &[u8], &mut Vec<Change>) -> Result<(), Corrupt> + Sync);

/// Changes the rows of a table, unit by unit, until none is left to change; returns how many changes there were.
async fn change(store: &dyn ViewStore, begun: &Incarnation, table: &str, rewrite: Rewrite<'_>) -> Result<usize, PipelineError> {
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
        store.apply(EpochChanges { epoch: begun.first_epoch, position, changes: changes.into() }).await?;
    }
}
