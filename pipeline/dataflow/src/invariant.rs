//! What can never be in the data, unless this code is wrong: told, counted, and survived.
//!
//! An assertion would stop every list of the shop for one row that is wrong. So a violation is an error in the log and in the metric
//! `pipeline_invariant_violations_total`; tests require that there is none.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
/// Violations that are logged in full: each has the same cause as the first, as a rule.
const TOLD_MAX: u64 = 100;

/// Tells of a violation. The caller goes on with what is nearest to right.
pub(crate) fn violated(what: fmt::Arguments<'_>) {
    let before = VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    if before < TOLD_MAX {
        tracing::error!("a row may be wrong, `kindred verify --repair` mends it: {what}");
    }
}

/// How many there were in this process.
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}
