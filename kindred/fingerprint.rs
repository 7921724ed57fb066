//! The fingerprint of a store: the settings, format and log that its rows were computed from.

use anyhow::{Context, Result};
use kindred_config::{pinned_toml, read_pinned};
use kindred_log::EventLog;
use kindred_model::{Position, Semantics};
use kindred_store::ViewStore;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::installation::Open;

/// The version of the storage format, raised when older programs would misread it.
const FORMAT: u32 = 2;
pub const FINGERPRINT: &str = "fingerprint";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Fingerprint {
    format: u32,
    log: String,
    settings: String,
}

/// The subject of messages.
pub struct Subject {
    /// The directory, or the generation.
    pub shown: String,
    /// Where its settings are pinned.
    pub pinned: String,
    /// The command that rebuilds the store from the log.
    pub rebuild: String,
    /// The command that migrates it from an older format.
    pub migrate: String,
}

/// Checks that a store was computed from this log with these settings; records it in a new store. Format 1 is migrated by
/// commands that maintain the views. A [`Failure`] says what differs and what to do.
pub async fn check_fingerprint(
    store: &dyn ViewStore,
    log: &dyn EventLog,
    semantics: &Semantics,
    open: Open,
    subject: &Subject,
) -> Result<()> {
    let ours = Fingerprint { format: FORMAT, log: log.identity().to_owned(), settings: pinned_toml(semantics) };
    let Subject { shown, pinned, rebuild, migrate } = subject;
    let stored = store.named().get(FINGERPRINT).await.context("could not read the store's fingerprint")?;
    match stored {
        None if open == Open::ToRebuild || store.frontier().position == Position::beginning() => {}
        None => {
            return Err(Failure::new(format!("the store in {shown} does not say what it was computed from"))
                .help(format!("rebuild it from the log: {rebuild}"))
                .into());
        }
        Some(bytes) => {
            let theirs: Fingerprint = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::new(format!("the fingerprint of the store in {shown} does not read: {error}")))?;
            // Parsed, so that settings added by a later version have their defaults.
            let same_settings = read_pinned(&theirs.settings).is_ok_and(|theirs| theirs == *semantics);
            if theirs.format == FORMAT && theirs.log == ours.log && same_settings {
                return Ok(());
            }
            if theirs.format == 1 && open.migrates() && theirs.log == ours.log {
                kindred_pipeline::migrate_from_format_1(store, &semantics.rules())
                    .await
                    .with_context(|| format!("could not migrate {shown}"))?;
                let bytes = serde_json::to_vec(&Fingerprint { format: FORMAT, ..theirs }).expect("a fingerprint serialises");
                store.named().put(FINGERPRINT, &bytes).await.context("could not write the store's fingerprint")?;
                return Box::pin(check_fingerprint(store, log, semantics, open, subject)).await;
            }
            if theirs.format == 1 && open == Open::ToAdd {
                println!(
                    "{shown} is of format 1; `{migrate}` migrates it, once all processes of the version before have stopped"
                );
                return Ok(());
            }
            if theirs.format == 1 {
                return Err(Failure::new(format!(
                    "{shown} was written in format 1, and this version of kindred reads format {FORMAT}"
                ))
                .help(format!("it is migrated by the first start: {migrate}"))
                .into());
            }
            if theirs.format != FORMAT {
                return Err(Failure::new(format!(
                    "{shown} was written in format {}, and this version of kindred reads format {FORMAT}",
                    theirs.format
                ))
                .help("use the version that wrote it, or import the events into another directory")
                .into());
            }
            if open != Open::ToRebuild {
                let what = if theirs.log == ours.log {
                    format!("{pinned} was edited after the store was computed with other settings")
                } else {
                    "its store was computed from another log: positions of the one mean nothing in the other".to_owned()
                };
                return Err(Failure::new(format!("{shown} does not fit together: {what}"))
                    .help(format!("put back what was there, or rebuild the store from the log: {rebuild}"))
                    .into());
            }
        }
    }
    let bytes = serde_json::to_vec(&ours).expect("a fingerprint serialises");
    store.named().put(FINGERPRINT, &bytes).await.context("could not write the store's fingerprint")?;
    Ok(())
}
