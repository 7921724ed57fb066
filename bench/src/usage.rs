//! What two readings of a process's CPU time differ by.

use std::collections::BTreeMap;
use std::time::Duration;

pub use kindred_telemetry::{Process, thread_cpu};

/// The difference of two readings of [`Process::cpu_by_thread`].
pub fn difference(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> BTreeMap<String, Duration> {
    let used = |name: &String, cpu: &Duration| cpu.saturating_sub(before.get(name).copied().unwrap_or_default());
    after.iter().map(|(name, cpu)| (name.clone(), used(name, cpu))).collect()
}
