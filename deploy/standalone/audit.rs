//! What a command changes on a directory or on services, in the audit log: who, what, when. Through a server the API does the same.
//!
//! ```text
//! entry ──▶ the act ──failed──▶ another entry, not ok
//! ```

use std::sync::Arc;

use anyhow::{Context as _, Result};
use kindred_clock::Clock;
use kindred_config::Loaded;
use kindred_members::{Actor, Members};

use crate::installation::Installation;
use crate::members;

/// The audit log of an installation, where members are kept.
pub struct Audit {
    members: Option<Arc<Members>>,
    actor: Actor,
}

impl Audit {
    /// Opens it.
    ///
    /// # Errors
    /// What the store of the records says.
    pub async fn open(installation: &Installation, loaded: &Loaded, clock: &Clock) -> Result<Self> {
        let records = match (installation.directory(), installation.services()) {
            (Some(directory), _) => members::records_of_directory(&directory.path).await?,
            (None, Some(services)) => members::records_of_services(&services.generations).await?,
            (None, None) => unreachable!("an installation is a directory or on services"),
        };
        let log = Arc::clone(&installation.log);
        let directory = installation.directory().map(|directory| directory.path.as_path());
        let members = members::open(&loaded.settings, directory, records, log, clock, None).await?;
        let name = ["SUDO_USER", "USER", "LOGNAME"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
        Ok(Self { members, actor: Actor::operator(name.as_deref().unwrap_or("unknown")) })
    }

    /// The members whose acts it is about, where some are kept.
    pub fn members(&self) -> Option<&Arc<Members>> {
        self.members.as_ref()
    }

    /// Whoever runs the command.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Notes an act and does it: where the log cannot be written, nothing is done. That it failed is noted beside.
    ///
    /// # Errors
    /// What the store of the log says; what the act says.
    pub async fn noted<T>(
        &self,
        kind: &str,
        subject: &str,
        detail: &[(&str, &str)],
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.note(kind, subject, true, detail).await?;
        let done = act.await;
        if done.is_err() && self.note(kind, subject, false, detail).await.is_err() {
            tracing::warn!(kind, "could not note in the audit log that an act failed; it stands there as begun");
        }
        done
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// What the store says.
    pub async fn note(&self, kind: &str, subject: &str, ok: bool, detail: &[(&str, &str)]) -> Result<()> {
        let Some(members) = &self.members else { return Ok(()) };
        members.record(&self.actor, kind, subject, ok, detail).await.context("could not write the audit log; nothing was done")
    }
}
