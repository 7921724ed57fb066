//! Fail points: places where a test lets the process die as a kill -9 would. Inert unless `KINDRED_FAIL_POINT=NAME` (or `NAME#3`, the
//! third time) is set when the process starts.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The changes that several partitions take part in.
pub const CHANGES: &[&str] = &[
    "register",
    "register.complete",
    "register.refuse",
    "activate",
    "activate.complete",
    "activate.undo",
    "password.change",
    "password.reset",
    "session.end",
    "identifier.change",
    "identifier.complete",
    "account.change",
    "erase",
    "request",
];
/// Where within each: before anything, the pointer written, the change made, everything delivered.
pub const PHASES: &[&str] = &["begin", "pointed", "committed", "delivered"];
/// Other places: an item of the outbox performed but not yet taken out, and a username claimed for a registration not yet written.
pub const OTHERS: &[&str] = &["outbox.performed", "register.claimed"];

/// Every name that may be set: `CHANGE:PHASE` and the others.
pub fn names() -> impl Iterator<Item = String> {
    let phases = CHANGES.iter().flat_map(|change| PHASES.iter().map(move |phase| format!("{change}:{phase}")));
    phases.chain(OTHERS.iter().map(|name| (*name).to_owned()))
}

struct Armed {
    name: String,
    /// How often it is still passed before the process dies.
    left: AtomicU32,
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
    let set = std::env::var("KINDRED_FAIL_POINT").ok()?;
    let (name, nth) = set.split_once('#').map_or((set.as_str(), 1), |(name, nth)| (name, nth.parse().unwrap_or(1)));
    Some(Armed { name: name.to_owned(), left: AtomicU32::new(nth) })
});

/// Dies if this point is armed.
pub(crate) fn hit(name: &str) {
    if let Some(armed) = &*ARMED
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // As a kill would: no destructor runs, nothing is flushed.
        std::process::abort();
    }
}

/// Dies if this phase of a change is armed.
pub(crate) fn phase(change: &str, phase: &str) {
    debug_assert!(CHANGES.contains(&change) && PHASES.contains(&phase), "{change}:{phase} is not listed");
    if let Some(armed) = &*ARMED
        && armed.name.split_once(':') == Some((change, phase))
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}
