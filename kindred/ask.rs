//! Asks whoever sits at the terminal before something is lost.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

use crate::failure::Failure;

/// Asks whether to do it. `loses` says what it does, for whoever cannot be asked or says no.
///
/// # Errors
/// Nobody sits there, or says yes.
pub fn confirm(question: &str, loses: &str) -> Result<()> {
    let unasked = || Failure::usage(loses).help("give --yes to do it without being asked");
    if !std::io::stdin().is_terminal() {
        return Err(unasked().into());
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().context("could not ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("could not read the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(unasked().into()) }
}
