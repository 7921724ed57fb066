//! The same log as a scipy batch: the obvious alternative.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::synthetic::Purchase;

const SCRIPT: &str = include_str!("../scipy_batch.py");
const NEEDS: &str = "import numpy, pandas, scipy.sparse";
/// The note of a missing row.
pub const NOT_RUN: &str = "not run: pip install numpy scipy pandas";

/// The cost of the batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// Events read.
    pub events: u64,
    /// Directed pairs found.
    pub pairs: u64,
    /// Items with a list.
    pub lists: u64,
    /// CPU seconds to select each member's latest items.
    pub latest_cpu_s: f64,
    /// CPU seconds to count pairs.
    pub co_counts_cpu_s: f64,
    /// CPU seconds to rank.
    pub ranked_cpu_s: f64,
    /// CPU seconds of all three.
    pub total_cpu_s: f64,
    /// Wall seconds.
    pub wall_s: f64,
    /// Peak memory of the process, with the interpreter.
    pub peak_rss_bytes: u64,
    /// Versions of the libraries.
    pub versions: serde_json::Value,
}

/// Runs the batch; `None` without Python or its libraries.
///
/// # Errors
/// When it fails.
pub fn batch(log: impl Iterator<Item = Purchase>, window: usize, top: usize) -> Result<Option<Batch>> {
    let available = Command::new("python3").args(["-c", NEEDS]).output();
    if !available.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let mut file = tempfile::NamedTempFile::new().context("could not make a temporary file")?;
    let mut writer = std::io::BufWriter::new(file.as_file_mut());
    for Purchase { member, item, at } in log {
        writer.write_all(&member.to_le_bytes())?;
        writer.write_all(&item.to_le_bytes())?;
        writer.write_all(&at.to_le_bytes())?;
    }
    writer.flush().context("could not write the log for scipy")?;
    drop(writer);
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(file.path()).args([window.to_string(), top.to_string()]);
    let output = command.output().context("could not run python3")?;
    if !output.status.success() {
        bail!("scipy's batch ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("scipy's batch wrote what is no report").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three members, by hand: 0 and 1 both hold items 5 and 7 (two directed pairs), 2 holds 7 and 9 within a window of 2, which
    /// evicted item 5.
    #[test]
    fn the_batch_counts_pairs_within_the_window() {
        let taken = [(0, 5, 1), (0, 7, 2), (1, 5, 1), (1, 7, 2), (1, 7, 3), (2, 5, 1), (2, 7, 2), (2, 9, 3)];
        let log = taken.into_iter().map(|(member, item, at)| Purchase { member, item, at });
        // Without the libraries there is nothing to test; the bench notes that in its table.
        if let Some(batch) = batch(log, 2, 50).unwrap() {
            assert_eq!((batch.events, batch.pairs, batch.lists), (8, 4, 3));
        }
    }
}
