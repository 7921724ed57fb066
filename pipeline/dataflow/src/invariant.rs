//! Invariant violations, which mean a bug of ours: logged, counted, and survived.
//!
//! A panic would stop every list of the shop for one wrong row. A violation is therefore an error in the log and in the metric
//! `pipeline_invariant_violations_total`; tests require that there are none.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
/// Violations logged in full; further ones usually have the same cause.
const LOGGED_MAX: u64 = 100;

/// Logs and counts a violation. The caller continues with the nearest valid value.
pub(crate) fn violated(what: fmt::Arguments<'_>) {
    let before = VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    if before < LOGGED_MAX {
        tracing::error!("invariant violated, a row may be wrong, `kindred verify --repair` repairs it: {what}");
    }
}

/// The number of violations in this process.
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}
