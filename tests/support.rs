//! Shared by all system tests: the binary, a server on its own directory, and requests to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use kindred_model::{Record, Topic};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::installation::Running;

/// A generous timeout, since tests share two cores with each other and with services. Every wait has one: a hanging test would
/// hide its reason, and others'.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The timeout of a shell session of the docs.
pub const SESSION: Duration = Duration::from_secs(600);

/// Serializes tests that start their own services: concurrent JVMs starve everything.
static OWN_SERVICES: Mutex<()> = Mutex::new(());

/// The lock for starting services.
pub fn own_services() -> MutexGuard<'static, ()> {
    // A failed test leaves nothing that disturbs the next.
    OWN_SERVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `kindred` with these arguments to its end.
pub fn kindred(args: &[&str]) -> Output {
    output(command(args), PATIENCE)
}

/// Runs a command to its end within a time; returns its output.
pub fn output(mut command: Command, within: Duration) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    end.recv_timeout(within).map_or_else(
        |_| {
            let _ = kill_process(pid, Signal::KILL);
            // Processes that outlive it may hold its output open.
            let said = end.recv_timeout(Duration::from_secs(5));
            panic!("{command:?} has not ended after {within:?}: {said:?}");
        },
        |output| output.expect("its output reads"),
    )
}

/// Polls until something is there; `what` tells what is missing.
#[track_caller]
pub fn until<T>(within: Duration, what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < within, "{} (waited {within:?})", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Polls until a condition holds.
#[track_caller]
pub fn until_so(what: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    until(PATIENCE, what, || is_so().then_some(()));
}

/// Waits for the end of a process; `log` is its output.
pub fn ended(child: &mut Child, log: impl FnOnce() -> String) -> ExitStatus {
    ended_within(child, PATIENCE, log)
}

/// The same with another timeout.
pub fn ended_within(child: &mut Child, within: Duration, log: impl FnOnce() -> String) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status;
        }
        if begin.elapsed() >= within {
            let _ = child.kill();
            panic!("a process runs on after {within:?}:\n{}", log());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends SIGTERM; returns the exit status.
pub fn stopped(child: &mut Child, log: impl FnOnce() -> String) -> ExitStatus {
    kill_process(Pid::from_child(child), Signal::TERM).expect("it can be asked to stop");
    ended(child, log)
}

/// Runs `kindred`, which must succeed; returns its output.
pub fn kindred_ok(args: &[&str]) -> String {
    let output = kindred(args);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "kindred {args:?} ended with {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// The command, not started, without settings from the environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindred"));
    command.args(args).stdin(Stdio::null()).env_remove("KINDRED_CONFIG").env_remove("KINDRED_DATA");
    command.env_remove("KINDRED_URL").env_remove("KINDRED_KEY").env("KINDRED_TELEMETRY__LOG", "warn");
    command
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `kindred serve`, or on services an API and its pipeline. Dropping it kills it.
pub struct Server {
    child: Child,
    /// On services the pipeline is a process of its own.
    pipeline: Option<Running>,
    dir: PathBuf,
    /// The URL of its API.
    pub url: String,
    /// Its service key.
    pub key: String,
    agent: ureq::Agent,
}

/// An answer of any status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

impl Server {
    /// Starts on a directory and waits until it is ready.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        Self::start_with(command(&[]), dir, more)
    }

    /// Starts a prepared command (limits, environment).
    pub fn start_with(command: Command, dir: &Path, more: &[&str]) -> Self {
        Self::try_start_with(command, dir, more).unwrap_or_else(|(status, log)| panic!("the server ended with {status}:\n{log}"))
    }

    /// The same for a process that may end before it is ready: how it ended, and its output.
    pub fn try_start_with(mut command: Command, dir: &Path, more: &[&str]) -> Result<Self, (ExitStatus, String)> {
        let lock = dir.join("lock");
        let stale = std::fs::read_to_string(&lock).unwrap_or_default();
        command.args(["serve", "--data"]).arg(dir).args(["--listen", "127.0.0.1:0", "--set", "api.admin_listen=127.0.0.1:0"]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.with_extension("log")).expect("a log file");
        let child =
            command.args(more).stdout(log.try_clone().expect("a second handle")).stderr(log).spawn().expect("the binary starts");
        let agent = agent(PATIENCE);
        let mut server = Self { child, pipeline: None, dir: dir.to_owned(), url: String::new(), key: String::new(), agent };
        let begin = Instant::now();
        loop {
            if let Some(status) = server.child.try_wait().expect("it can be asked") {
                return Err((status, server.log()));
            }
            let lock = std::fs::read_to_string(&lock).unwrap_or_default();
            if lock != stale
                && let Ok(lock) = serde_json::from_str::<Value>(&lock)
                && let Some(url) = lock["url"].as_str()
            {
                server.url = url.to_owned();
                server.key = std::fs::read_to_string(dir.join("service.key")).unwrap_or_default().trim().to_owned();
                if server.agent.get(format!("{url}/readyz")).call().is_ok_and(|answer| answer.status() == 200) {
                    return Ok(server);
                }
            }
            assert!(begin.elapsed() < PATIENCE, "the server is not ready after {PATIENCE:?}:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An API started otherwise: waits until it is ready. Its output is in the file beside `dir`.
    pub fn attach(child: Child, dir: &Path, url: &str, key: &str) -> Self {
        let agent = agent(PATIENCE);
        let server = Self { child, pipeline: None, dir: dir.to_owned(), url: url.to_owned(), key: key.to_owned(), agent };
        until_so(|| format!("the API is not ready:\n{}", server.log()), || server.get("/readyz").status == 200);
        server
    }

    /// The same, with its pipeline.
    pub fn with(self, pipeline: Running) -> Self {
        // `Self` implements `Drop`: its fields cannot be moved out.
        let mut server = self;
        server.pipeline = Some(pipeline);
        server
    }

    /// Its output.
    pub fn log(&self) -> String {
        let own = std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default();
        own + &self.pipeline.as_ref().map(Running::log).unwrap_or_default()
    }

    /// The address of its metrics.
    fn admin(&self) -> String {
        let own = std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default();
        let told = own.lines().rev().find_map(|line| line.trim().strip_prefix("metrics"));
        told.expect("it says where its metrics are").trim().to_owned()
    }

    /// The metrics of all its processes, concatenated.
    pub fn metrics(&self) -> String {
        let own = answer(self.agent.get(self.admin()).call()).body;
        own + &self.pipeline.as_ref().map(|pipeline| pipeline.get("/metrics").1).unwrap_or_default()
    }

    /// The process of the API.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All its processes, the pipeline first.
    pub fn pids(&self) -> Vec<u32> {
        self.pipeline.iter().map(Running::pid).chain([self.pid()]).collect()
    }

    /// `kill -9`: no time to write anything.
    pub fn kill(mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            pipeline.kill();
        }
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends SIGTERM and waits for the end. Accepted events are then in the views: a single process applies its backlog first,
    /// and a separate pipeline is waited for.
    pub fn stop(mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            self.caught_up();
            let log = pipeline.log();
            let status = pipeline.stop();
            assert!(status.success(), "the pipeline ended with {status}:\n{log}");
        }
        let log = self.dir.with_extension("log");
        let status = stopped(&mut self.child, || std::fs::read_to_string(log).unwrap_or_default());
        assert!(status.success(), "the server ended with {status}:\n{}", self.log());
    }

    /// GET with the service key.
    pub fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.url);
        answer(self.agent.get(url).header("Authorization", format!("Bearer {}", self.key)).call())
    }

    /// GET that must return 200 with JSON.
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer.json()
    }

    /// POST with the service key; `None` without an answer (the server was killed).
    pub fn try_post(&self, path: &str, content_type: &str, body: &[u8]) -> Option<Answer> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request.header("Authorization", format!("Bearer {}", self.key)).header("Content-Type", content_type);
        match request.send(body) {
            Ok(response) => {
                let (parts, mut body) = response.into_parts();
                let body = body.read_to_string().ok()?;
                Some(Answer { status: parts.status.as_u16(), body })
            }
            Err(_) => None,
        }
    }

    /// POST with the service key.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.try_post(path, content_type, body).unwrap_or_else(|| panic!("POST {path} got no answer:\n{}", self.log()))
    }

    /// Posts records of a topic that must be accepted; returns the position after them.
    pub fn post_events(&self, topic: &str, records: &[Value]) -> String {
        let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
        let answer = self.post(&format!("/v1/events/{topic}"), "application/x-ndjson", lines.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.body);
        let body = answer.json();
        assert_eq!(body["rejected"], 0, "{body}");
        body["position"].as_str().expect("a position").to_owned()
    }

    /// DELETE with the service key.
    pub fn delete(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.url);
        answer(self.agent.delete(url).header("Authorization", format!("Bearer {}", self.key)).call())
    }

    /// A request with an optional access token and an optional JSON body.
    pub fn send(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        self.try_send(method, path, token, body).expect("the server answers")
    }

    /// The same; an error without an answer (the server died).
    pub fn try_send(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Answer, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let (parts, mut body) = self.agent.run(request.body(bytes).expect("a request"))?.into_parts();
        Ok(Answer { status: parts.status.as_u16(), body: body.read_to_string()? })
    }

    /// The exit status of the API's process, if it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be asked")
    }

    /// The same of any of its processes.
    pub fn ended_any(&mut self) -> Option<ExitStatus> {
        self.pipeline.as_mut().and_then(Running::ended).or_else(|| self.ended())
    }

    /// Waits until the views have reached the end of the log.
    pub fn caught_up(&self) {
        let status = || self.get("/v1/admin/status");
        let what = || format!("the views do not catch up: {}\n{}", status().body, self.log());
        until_so(what, || Some(status()).is_some_and(|status| status.status == 200 && status.json()["lag"] == 0));
    }

    /// The unfilled list of an item as of a position.
    pub fn list(&self, item: &str, position: &str) -> Value {
        self.get_json(&format!("/v1/items/{item}/similar?fill=false&min_position={position}&wait_ms=10000"))
    }

    /// The items of that list, best first.
    pub fn list_items(&self, item: &str, position: &str) -> Vec<String> {
        let list = self.list(item, position);
        let entries = list["items"].as_array().expect("items");
        entries.iter().map(|entry| entry["item"].as_str().expect("an item").to_owned()).collect()
    }

    /// An export of a running server.
    pub fn export(&self, view: &str) -> String {
        kindred_ok(&["export", view, "--format", "csv", "--as-of", AS_OF, "--url", &self.url, "--key", &self.key])
    }
}

/// The as-of day of exports in tests: results must not depend on the date.
pub const AS_OF: &str = "2026-06-30";

/// The views exported and compared.
pub const VIEWS: [&str; kindred_model::views::NAMES.len()] = kindred_model::views::NAMES;

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let (parts, mut body) = result.expect("the server answers").into_parts();
    let body = body.read_to_string().expect("a body");
    Answer { status: parts.status.as_u16(), body }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The records of each topic as lines of JSON; topics without any are left out.
pub fn lines_by_topic(records: &[&Record]) -> Vec<(Topic, Vec<u8>)> {
    let lines = |topic: &Topic| {
        let of_topic = records.iter().filter(|record| record.topic() == *topic);
        (*topic, of_topic.flat_map(|record| [record.to_json(), b"\n".to_vec()].concat()).collect::<Vec<u8>>())
    };
    Topic::OF_SHOPS.iter().map(lines).filter(|(_, lines)| !lines.is_empty()).collect()
}

/// A client that waits, and takes every status for an answer.
pub fn agent(patience: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).build().into()
}

/// One interaction as JSON.
pub fn interaction(member: &str, item: &str, kind: &str, at: &str) -> Value {
    serde_json::json!({ "member": member, "item": item, "kind": kind, "at": at })
}

/// An unused port, for a process that needs a number. Below the ephemeral range, so that no client takes it meanwhile, and never
/// the same twice: two tests would talk to each other's servers.
pub fn free_port() -> u16 {
    use rand::Rng;
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = std::iter::repeat_with(|| rand::rng().random_range(10_000..32_000));
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(|port| is_free(port) && given.insert(*port)).expect("ports do not end")
}

/// An order of one unit of each item, as JSON.
pub fn order(order: &str, version: u64, status: &str, member: &str, placed_at: &str, items: &[&str]) -> Value {
    let lines: Vec<Value> = items
        .iter()
        .enumerate()
        .map(|(n, item)| serde_json::json!({ "line": n + 1, "item": item, "quantity": 1, "unit_price_minor": 1000 }))
        .collect();
    serde_json::json!({
        "order": order, "version": version, "status": status, "member": member,
        "placed_at": placed_at, "currency": "EUR", "lines": lines,
    })
}

/// Arms the fail points of a process, and reads the steps it passed.
pub struct Points(PathBuf);

impl Points {
    pub fn new(place: &Path) -> Self {
        let directory = place.join("points");
        std::fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }

    pub fn command(&self) -> Command {
        let mut command = command(&[]);
        command.env("KINDRED_FAIL_POINTS", &self.0);
        command
    }

    pub fn arm(&self, what: &str) {
        std::fs::write(self.0.join("trace"), "").expect("a file");
        let new = self.0.join("new");
        std::fs::write(&new, what).expect("a file");
        std::fs::rename(new, self.0.join("armed")).expect("a file");
    }

    pub fn disarm(&self) {
        std::fs::remove_file(self.0.join("armed")).expect("it was armed");
    }

    pub fn trace(&self) -> Vec<String> {
        let trace = std::fs::read_to_string(self.0.join("trace")).expect("a trace");
        trace.lines().map(str::to_owned).collect()
    }
}
