//! CPU and memory of a process, this one or a child, by thread name, from Linux's `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process to look at.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    /// This one.
    Own,
    /// Another one, by its id.
    Other(u32),
}

impl Process {
    fn path(self, file: &str) -> PathBuf {
        match self {
            Self::Own => PathBuf::from(format!("/proc/self/{file}")),
            Self::Other(id) => PathBuf::from(format!("/proc/{id}/{file}")),
        }
    }

    /// Resident bytes; 0 if unknown.
    pub fn rss_bytes(self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Peak resident bytes.
    pub fn peak_rss_bytes(self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(self, field: &str) -> u64 {
        let status = std::fs::read_to_string(self.path("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }

    /// CPU time of the living threads, summed by name; ended threads are missing.
    pub fn cpu_by_thread(self) -> BTreeMap<String, Duration> {
        let mut by_name = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir(self.path("task")) else { return by_name };
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            let name = std::fs::read_to_string(task.path().join("comm"));
            let used = std::fs::read_to_string(task.path().join("schedstat"));
            let (Ok(name), Ok(used)) = (name, used) else { continue };
            let Some(ns) = used.split(' ').next().and_then(|ns| ns.parse().ok()) else { continue };
            *by_name.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(ns);
        }
        by_name
    }

    /// CPU time of all living threads.
    pub fn cpu(self) -> Duration {
        self.cpu_by_thread().values().sum()
    }
}

/// The difference of two readings of [`Process::cpu_by_thread`].
pub fn difference(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> BTreeMap<String, Duration> {
    let used = |name: &String, cpu: &Duration| cpu.saturating_sub(before.get(name).copied().unwrap_or_default());
    after.iter().map(|(name, cpu)| (name.clone(), used(name, cpu))).collect()
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The bench's figures are sums of these: work must show on the thread that did it.
    #[test]
    fn work_shows_on_the_thread_that_did_it() {
        let before = Process::Own.cpu_by_thread();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::Builder::new()
            .name("usage-work".to_owned())
            .spawn(move || {
                let start = thread_cpu();
                let mut x = 1u64;
                while thread_cpu() - start < Duration::from_millis(30) {
                    x = std::hint::black_box(x.wrapping_mul(3));
                }
                tell.send(thread_cpu()).unwrap();
                ended.recv().ok();
            })
            .unwrap();
        assert!(told.recv().unwrap() >= Duration::from_millis(30));
        let used = difference(&before, &Process::Own.cpu_by_thread());
        assert!(used["usage-work"] >= Duration::from_millis(25), "{used:?}");
        drop(end);
        worker.join().unwrap();
        assert!(Process::Own.rss_bytes() > 0 && Process::Own.peak_rss_bytes() >= Process::Own.rss_bytes() / 2);
        assert!(Process::Other(std::process::id()).rss_bytes() > 0);
    }
}
