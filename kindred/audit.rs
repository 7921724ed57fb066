//! The audit log of what is changed beside the API: rebuilding views, and making a generation. Everything else is changed through the
//! API, which notes it there.

use anyhow::{Context as _, Result};
use kindred_members::{Actor, Members};

/// What whoever runs the command is called.
pub fn operator() -> String {
    let name =
        ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    // A timer or a container often has no name in its environment.
    name.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}

/// Writes one entry, where members are kept: before what it says, so that nothing is done that could not be noted.
///
/// # Errors
/// What the store says.
pub async fn note(members: Option<&Members>, kind: &str, subject: &str, ok: bool, detail: &[(&str, &str)]) -> Result<()> {
    let Some(members) = members else { return Ok(()) };
    let noted = members.audit.record(&Actor::operator(&operator()), kind, subject, ok, detail).await;
    noted.context("could not write the audit log; nothing was done")
}
