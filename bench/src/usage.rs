//! What two readings of a process's CPU time differ by, and the disk that a folder takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use kindred_telemetry::{Process, thread_cpu};

/// The difference of two readings of [`Process::cpu_by_thread`].
pub fn difference(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> BTreeMap<String, Duration> {
    let used = |name: &String, cpu: &Duration| cpu.saturating_sub(before.get(name).copied().unwrap_or_default());
    after.iter().map(|(name, cpu)| (name.clone(), used(name, cpu))).collect()
}

/// Bytes of all files in a folder.
pub fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
