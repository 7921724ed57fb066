//! The context of a figure: machine, commit, command line, date.

use std::process::Command;

use serde::Serialize;

/// The machine, the code and the moment of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Circumstances {
    /// CPU model, as the system names it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory of the machine, in MiB.
    pub memory_mib: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// The built commit, with `-dirty` when files differed.
    pub commit: String,
    /// The command line.
    pub command_line: String,
    /// UTC, RFC 3339.
    pub date: String,
    /// Whether this program is optimised; otherwise the figures mean nothing.
    pub optimised: bool,
    /// Load average of the last minute at the start: the machine should be idle.
    pub load_average: f64,
}

impl Circumstances {
    /// Collects the context; missing values are `unknown` or 0.
    pub fn observe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        let memory_kib =
            field(&read("/proc/meminfo"), "MemTotal").and_then(|kib| kib.trim_end_matches(" kB").parse::<u64>().ok());
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib.unwrap_or(0) / 1_024,
            kernel: if kernel.is_empty() { unknown() } else { kernel },
            commit: commit().unwrap_or_else(unknown),
            command_line: command_line(std::env::args().skip(1)),
            date: format!("{:.0}", jiff::Timestamp::now()),
            optimised: !cfg!(debug_assertions),
            load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// The folder of results, like `2026-11-24-amd-epyc-2-cores`; never with a host name.
    pub fn folder(&self) -> String {
        let day = self.date.split('T').next().unwrap_or("undated");
        let mut slug = String::new();
        for c in self.cpu.to_lowercase().replace("(r)", "").replace("(tm)", "").chars() {
            if c.is_ascii_alphanumeric() {
                slug.push(c);
            } else if !slug.ends_with('-') {
                slug.push('-');
            }
        }
        let cores = if self.cores == 1 { "core" } else { "cores" };
        format!("{day}-{}-{}-{cores}", slug.trim_matches('-'), self.cores)
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

/// The command line without key secrets: results are published.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["kindred-bench".to_owned()];
    for argument in arguments {
        let is_secret = words.last().is_some_and(|before| before == "--key");
        words.push(match argument.split_once('=') {
            _ if is_secret => "…".to_owned(),
            Some(("--key", _)) => "--key=…".to_owned(),
            _ => argument,
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_names_day_and_machine_and_no_host() {
        let mut here = Circumstances::observe();
        here.cpu = "AMD EPYC(TM) 9R14  Processor".to_owned();
        here.cores = 2;
        here.date = "2026-11-24T10:00:00Z".to_owned();
        assert_eq!(here.folder(), "2026-11-24-amd-epyc-9r14-processor-2-cores");
        here.cores = 1;
        assert!(here.folder().ends_with("-1-core"));
    }

    /// If it failed, a service key would be in the results.
    #[test]
    fn a_key_is_not_kept() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let kept = "kindred-bench load --url http://a --key … --rate 5";
        assert_eq!(command_line(words("load --url http://a --key kd_sk_1 --rate 5")), kept);
        assert_eq!(command_line(words("load --key=kd_sk_1")), "kindred-bench load --key=…");
    }
}
