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
use crate::services::Services;

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
        let directory = installation.directory().map(|directory| &*directory.path);
        let (records, log) = (Arc::clone(&installation.records), Arc::clone(&installation.log));
        Ok(Self::of(members::open(&loaded.settings, directory, records, log, clock, None).await?))
    }

    /// Opens that of services.
    ///
    /// # Errors
    /// What the store of the records says.
    pub async fn on_services(services: &Services, loaded: &Loaded, clock: &Clock) -> Result<Self> {
        let records = Arc::clone(&services.records);
        let log = Arc::clone(&services.log) as _;
        Ok(Self::of(members::open(&loaded.settings, None, records, log, clock, None).await?))
    }

    /// That of members which are open already.
    pub fn of(members: Option<Arc<Members>>) -> Self {
        let name = ["SUDO_USER", "USER", "LOGNAME"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
        // A timer or a container often has no name in its environment.
        let name = name.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
        Self { members, actor: Actor::operator(&name) }
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
