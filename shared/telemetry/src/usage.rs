//! CPU and memory usage of this process or another. CPU comes from the POSIX clocks; memory and per-thread CPU from Linux's `/proc`, `None`
//! or empty elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The kernel truncates thread names to this length.
const THREAD_NAME_BYTES_MAX: usize = 15;

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process, including ended ones.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

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

    /// Resident memory.
    pub fn rss_bytes(self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Peak resident memory.
    pub fn peak_rss_bytes(self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(self.path("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// CPU time of the live threads, summed by name. Cheap enough for every scrape: one file per thread.
    pub fn cpu_by_thread(self) -> BTreeMap<String, Duration> {
        let mut by_name = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir(self.path("task")) else { return by_name };
        for task in tasks.flatten() {
            // A thread may end between the listing and the read.
            let name = std::fs::read_to_string(task.path().join("comm"));
            let used = std::fs::read_to_string(task.path().join("schedstat"));
            let (Ok(name), Ok(used)) = (name, used) else { continue };
            let Some(ns) = used.split(' ').next().and_then(|ns| ns.parse().ok()) else { continue };
            *by_name.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(ns);
        }
        by_name
    }

    /// CPU time of all live threads.
    pub fn cpu(self) -> Duration {
        self.cpu_by_thread().values().sum()
    }
}

/// Starts a thread whose name is visible in `top -H`, [`Process::cpu_by_thread`] and panics, truncated to 15 bytes.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn_named<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    let mut end = name.len().min(THREAD_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    std::thread::Builder::new().name(name[..end].to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Burns about `ms` of CPU on the calling thread.
    fn burn(ms: u64) {
        let start = thread_cpu();
        let mut x = 1u64;
        while thread_cpu() - start < Duration::from_millis(ms) {
            for n in 0..10_000u64 {
                x = std::hint::black_box(x.wrapping_mul(n | 1));
            }
        }
    }

    #[test]
    fn cpu_of_a_thread_is_its_own_and_part_of_the_process() {
        let process_before = process_cpu();
        let (done, wait) = std::sync::mpsc::channel();
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let worker = spawn_named("usage-test-with-a-long-name", move || {
            burn(20);
            done.send(thread_cpu()).unwrap();
            hold.recv().ok();
        })
        .unwrap();
        let used = wait.recv().unwrap();
        assert!(used >= Duration::from_millis(20));
        assert!(process_cpu() - process_before >= Duration::from_millis(20));
        let threads = Process::Own.cpu_by_thread();
        assert!(threads.get("usage-test-with").is_some_and(|cpu| *cpu >= Duration::from_millis(15)), "{threads:?}");
        release.send(()).unwrap();
        worker.join().unwrap();
    }

    #[test]
    fn memory_in_ram_shows_a_block_and_the_peak_remembers_it() {
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let bytes = block.len() as u64;
        assert!(Process::Own.rss_bytes().expect("Linux tells") >= bytes);
        drop(block);
        assert!(Process::Own.peak_rss_bytes().expect("Linux tells") >= bytes);
        assert!(Process::Other(std::process::id()).rss_bytes().is_some());
    }
}
