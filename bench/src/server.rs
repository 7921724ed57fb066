//! The product as users run it: the binary `kindred`, on a new directory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kindred_model::Topic;
use kindred_model::views::{NAMES, ViewName};
use serde::Serialize;
use serde_json::Value;

use crate::generate;
use crate::http::{Connection, get};
use crate::progress;
use crate::synthetic::{Mix, Plan};
use crate::usage::Process;

/// Longest wait for readiness.
const PATIENCE: Duration = Duration::from_secs(120);
/// Polling interval, and so the accuracy of start times.
const LOOK: Duration = Duration::from_millis(1);

/// The binary `kindred`.
#[derive(Clone, Debug)]
pub struct Binary(PathBuf);

impl Binary {
    /// Finds the named one, or the one beside this program: `cargo build --release` makes both.
    ///
    /// # Errors
    /// When it is missing; says how to build it.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("kindred"));
        let path = named.map(Path::to_owned).or_else(beside).context("could not find this program's own folder")?;
        let release = if cfg!(debug_assertions) { "" } else { " --release" };
        ensure!(
            path.is_file(),
            "there is no {}: build it with `cargo build{release} --bin kindred`, or name it with --binary",
            path.display()
        );
        Ok(Self(path))
    }

    /// A command without settings from this machine's environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KINDRED_") {
                command.env_remove(name);
            }
        }
        // Logging each request would be measured too; warnings are worth reading.
        command.env("KINDRED_TELEMETRY__LOG", "warn").stdin(Stdio::null());
        command
    }

    /// Runs `kindred import` and samples its resource use.
    ///
    /// # Errors
    /// When it fails or rejects a record.
    pub fn import(&self, topic: Topic, file: &Path, data: &Path, settings: &[String]) -> Result<Finished> {
        let mut command = self.command();
        command.args(["import", topic.name()]).arg(file).arg("--data").arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
        with_settings(&mut command, settings);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("could not run {}", self.0.display()))?;
        let process = Process::Other(child.id());
        let mut finished = Finished::default();
        let status = loop {
            let cpu = process.cpu_by_thread();
            for (name, used) in cpu {
                // A thread's time only grows, and disappears with the thread.
                let kept = finished.cpu.entry(name).or_default();
                *kept = (*kept).max(used);
            }
            finished.peak_rss = finished.peak_rss.max(process.peak_rss_bytes().unwrap_or(0));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        finished.wall = began.elapsed();
        let output = child.wait_with_output()?;
        finished.printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !status.success() {
            bail!("importing {} ended with {status}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(finished)
    }
}

fn with_settings(command: &mut Command, settings: &[String]) {
    for setting in settings {
        command.args(["--set", setting]);
    }
}

/// Resource use of a command.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Finished {
    /// Wall time.
    pub wall: Duration,
    /// CPU time by thread name, to within 20 ms of the end.
    pub cpu: BTreeMap<String, Duration>,
    /// Peak memory.
    pub peak_rss: u64,
    /// Its output.
    pub printed: String,
}

/// Settings with only `also_bought`. They are pinned: import and server need the same.
pub fn also_bought_alone() -> Vec<String> {
    let others = NAMES.iter().filter(|view| **view != ViewName::AlsoBought.info().name);
    others.map(|view| format!("views.{view}.enabled=false")).collect()
}

/// The address and key of a server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// A service key.
    pub key: String,
}

impl Endpoint {
    /// A running server, by `http://127.0.0.1:8080` and its service key.
    ///
    /// # Errors
    /// When the URL has another form.
    pub fn parse(url: &str, key: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).and_then(|rest| rest.parse().ok());
        let address = address.with_context(|| format!("{url:?} is not like http://127.0.0.1:8080: a plain address and port"))?;
        Ok(Self { address, key: key.to_owned() })
    }

    /// The status of a GET; `None` without an answer.
    pub async fn status_of(&self, path: &str) -> Option<u16> {
        let mut connection = Connection::open(self.address).await.ok()?;
        Some(connection.exchange(&get(path, self.address, None)).await.ok()?.status)
    }

    /// The JSON of a GET with the service key.
    ///
    /// # Errors
    /// When the answer is not 200 or not JSON.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let mut connection =
            Connection::open(self.address).await.with_context(|| format!("could not connect to {}", self.address))?;
        let response = connection.exchange(&get(path, self.address, Some(&self.key))).await?;
        let body = String::from_utf8_lossy(response.body);
        ensure!(response.status == 200, "GET {path} answered {}: {body}", response.status);
        serde_json::from_str(&body).with_context(|| format!("GET {path} answered what is no JSON"))
    }
}

/// Times of a start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Started {
    /// The API answers.
    pub answers: Duration,
    /// `/readyz` is 200.
    pub ready: Duration,
}

/// A running `kindred serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its address and key.
    pub endpoint: Endpoint,
    /// Times of its start.
    pub started: Started,
    log: PathBuf,
}

impl Server {
    /// Starts on a directory and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready within two minutes; includes its output.
    pub async fn start(binary: &Binary, data: &Path, settings: &[String]) -> Result<Self> {
        let lock = data.join("lock");
        let stale = std::fs::read_to_string(&lock).unwrap_or_default();
        let log = data.with_extension("log");
        let printed =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).context("could not write the server's log")?;
        let mut command = binary.command();
        command.args(["serve", "--data"]).arg(data).args(["--listen", "127.0.0.1:0", "--set", "api.admin_listen=127.0.0.1:0"]);
        with_settings(&mut command, settings);
        command.stdout(printed.try_clone()?).stderr(printed);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("could not run {}", binary.0.display()))?;
        let said = |log: &Path| std::fs::read_to_string(log).unwrap_or_default();
        let mut found: Option<(Endpoint, Duration)> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}: {}", said(&log));
            }
            if found.is_none() {
                found = announced(&lock, &stale, data).map(|endpoint| (endpoint, began.elapsed()));
            }
            if let Some((endpoint, answers)) = &found
                && endpoint.status_of("/readyz").await == Some(200)
            {
                let started = Started { answers: *answers, ready: began.elapsed() };
                return Ok(Self { child, endpoint: endpoint.clone(), started, log });
            }
            if began.elapsed() > PATIENCE {
                child.kill().ok();
                child.wait().ok();
                bail!("the server is not ready after {PATIENCE:?}: {}", said(&log));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Its process.
    pub fn process(&self) -> Process {
        Process::Other(self.child.id())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server had ended with {status}: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The endpoint in the directory's lock, once the server listens.
fn announced(lock: &Path, stale: &str, data: &Path) -> Option<Endpoint> {
    let text = std::fs::read_to_string(lock).ok().filter(|text| text != stale)?;
    let holder: Value = serde_json::from_str(&text).ok()?;
    let key = std::fs::read_to_string(data.join("service.key")).ok()?;
    Endpoint::parse(holder["url"].as_str()?, key.trim()).ok()
}

/// An imported file.
#[derive(Debug, Serialize)]
pub struct Import {
    /// Its topic.
    pub topic: Topic,
    /// Its records.
    pub records: u64,
    /// Its resource use.
    pub finished: Finished,
}

/// A directory with an imported synthetic log.
#[derive(Debug)]
pub struct Preloaded {
    folder: tempfile::TempDir,
    /// The imports.
    pub imports: Vec<Import>,
    /// The settings it was created with.
    pub settings: Vec<String>,
}

impl Preloaded {
    /// A folder without a log: the first server creates the directory.
    ///
    /// # Errors
    /// When no folder can be created.
    pub fn empty(settings: Vec<String>, within: Option<&Path>) -> Result<Self> {
        let folder = within.map_or_else(tempfile::tempdir, tempfile::tempdir_in).context("could not make a temporary folder")?;
        Ok(Self { folder, imports: Vec::new(), settings })
    }

    /// Writes catalog and log of `plan` (purchases; with `mix` the whole product's) to files and imports them, catalog first.
    /// Below `within`, or in the system's temporary folder.
    ///
    /// # Errors
    /// When that fails, or the disk is full.
    pub fn make(binary: &Binary, plan: &Plan, mix: Option<Mix>, settings: Vec<String>, within: Option<&Path>) -> Result<Self> {
        let mut preloaded = Self::empty(settings, within)?;
        let files = preloaded.folder.path().join("files");
        let (whole, out) = (mix.is_some(), files.clone());
        let written = generate::run(&generate::Options { plan: *plan, whole, kinds: mix, catalog: true, out, zstd: false })?;
        let bar = progress::bar("importing it", written.len() as u64);
        bar.tick();
        for topic in [Topic::Catalog, Topic::Members, Topic::Orders, Topic::Interactions] {
            if let Some((file, records)) = written.get(&topic) {
                let finished = binary.import(topic, file, &preloaded.data(), &preloaded.settings)?;
                preloaded.imports.push(Import { topic, records: *records, finished });
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        std::fs::remove_dir_all(files).context("could not remove the files that were imported")?;
        Ok(preloaded)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a server on it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn serve(&self, binary: &Binary) -> Result<Server> {
        Server::start(binary, &self.data(), &self.settings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_what_helps() {
        let error = Binary::find(Some(Path::new("/nowhere/kindred"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/kindred") && error.contains("cargo build"), "{error}");
        assert!(Endpoint::parse("https://shop.example", "k").unwrap_err().to_string().contains("http://127.0.0.1:8080"));
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/", "k").unwrap();
        assert_eq!(endpoint.address.port(), 8080);
    }

    /// The old lock of a killed server must not be read as the new one's: the address would be wrong.
    #[test]
    fn a_stale_lock_announces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let text = r#"{"pid":1,"command":"serve","url":"http://127.0.0.1:4000"}"#;
        std::fs::write(&lock, text).unwrap();
        std::fs::write(folder.path().join("service.key"), "secret\n").unwrap();
        assert!(announced(&lock, text, folder.path()).is_none());
        let endpoint = announced(&lock, "", folder.path()).unwrap();
        assert_eq!((endpoint.address.port(), endpoint.key.as_str()), (4000, "secret"));
    }
}
