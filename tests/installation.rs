//! An installation on real services for a test: its own topics, keyspace and settings file, and its processes.
//! `KINDRED_TEST_KAFKA` and `KINDRED_TEST_CASSANDRA` (host:port) name the services; `tests/run` starts them.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlValue, Row};

use crate::support::{AS_OF, PATIENCE, Server, VIEWS, agent, command, ended, kindred, kindred_ok, stopped, text};

/// Its own topics and keyspace, and their settings file.
pub struct Installation {
    dir: tempfile::TempDir,
    config: String,
    /// Its keyspace, and the prefix of its topics.
    own: String,
}

/// The expiry of a deleted record.
const DELETED: Option<CqlValue> = Some(CqlValue::BigInt(i64::MIN));

impl Installation {
    /// Every row of its keyspace that contains one of some texts, except tombstones of records, which expire within a day
    /// (schemas/cql/002_records.cql); that is checked.
    pub fn rows_with(&self, texts: &[&str]) -> Vec<String> {
        let node = std::env::var("KINDRED_TEST_CASSANDRA").expect("there are services");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let mut found = Vec::new();
        runtime.block_on(async {
            let session = SessionBuilder::new().known_node(node).build().await.expect("a session");
            let rows = async |statement: String| -> Vec<Row> {
                let result = session.query_unpaged(statement, ()).await.expect("an answer").into_rows_result().expect("rows");
                result.rows::<Row>().expect("rows").map(|row| row.expect("a row")).collect()
            };
            let named = format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{}'", self.own);
            let tables = rows(named).await;
            assert!(tables.len() > 5, "{tables:?}");
            for table in tables {
                let Some(Some(CqlValue::Text(table))) = table.columns.into_iter().next() else { panic!("a name") };
                let marks = table.ends_with("records");
                if marks {
                    let lives = format!("SELECT expires_at, TTL(version) FROM {}.{table}", self.own);
                    for row in rows(lives).await.into_iter().filter(|row| row.columns[0] == DELETED) {
                        let leaves = matches!(row.columns[1], Some(CqlValue::Int(1..=86_400)));
                        assert!(leaves, "the mark of a deleted record stays: {row:?}");
                    }
                }
                for row in rows(format!("SELECT * FROM {}.{table}", self.own)).await {
                    if marks && row.columns.contains(&DELETED) {
                        continue;
                    }
                    let mut bytes = Vec::new();
                    for value in row.columns.into_iter().flatten() {
                        match value {
                            CqlValue::Blob(value) => bytes.extend(value),
                            CqlValue::Text(text) => bytes.extend(text.into_bytes()),
                            other => bytes.extend(format!("{other:?}").into_bytes()),
                        }
                        bytes.push(b' ');
                    }
                    let holds = |text: &&&str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                    found.extend(
                        texts.iter().filter(holds).map(|text| format!("{text} in {table}: {}", String::from_utf8_lossy(&bytes))),
                    );
                }
            }
        });
        found
    }

    /// With a small window and cap, so that evictions happen. `None` without services.
    pub fn new(name: &str) -> Option<Self> {
        Self::with(name, "[inputs]\nidentities_per_owner = 30\n[views.also_bought]\nwindow = 8\n")
    }

    /// With further settings. `None` without services.
    pub fn with(name: &str, more: &str) -> Option<Self> {
        Self::partitioned(name, 3, more)
    }

    /// With this many partitions a topic. `None` without services.
    pub fn partitioned(name: &str, partitions: u32, more: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(kafka), Some(cassandra)) = (variable("KINDRED_TEST_KAFKA"), variable("KINDRED_TEST_CASSANDRA")) else {
            eprintln!("NOT RUN: {name} on services: KINDRED_TEST_KAFKA and KINDRED_TEST_CASSANDRA name none (host:port)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let own = format!("{name}_{}", std::process::id());
        let settings = format!(
            "[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = \"{kafka}\"\nprefix = \"{own}.\"\npartitions = {partitions}\n\
             [store]\nkind = \"cql\"\n[store.cql]\nnodes = [\"{cassandra}\"]\nkeyspace = \"{own}\"\nview_buckets = 4\ninput_buckets = 4\n\
             [api]\nadmin_listen = \"127.0.0.1:0\"\n[pipeline]\nadmin_listen = \"127.0.0.1:0\"\n\
             {more}"
        );
        let file = dir.path().join("kindred.toml");
        std::fs::write(&file, settings).expect("a file");
        Some(Self { config: file.to_str().expect("a path").to_owned(), dir, own })
    }

    /// The settings of [`Installation::new`], for an embedded run.
    pub const PINNED: [&'static str; 4] = ["--set", "inputs.identities_per_owner=30", "--set", "views.also_bought.window=8"];

    /// Its settings file.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The name of a topic at the brokers.
    pub fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.own)
    }

    /// A directory for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command on it that must succeed; returns its output.
    pub fn ok(&self, args: &[&str]) -> String {
        kindred_ok(&[args, &["--config", &self.config]].concat())
    }

    /// Imports a file of records. A random log has conflicts: exit code 1.
    pub fn import(&self, topic: &str, file: &Path) {
        let output = kindred(&["import", topic, file.to_str().expect("a path"), "--config", &self.config]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{topic}: {said}");
    }

    /// Runs a command that must fail with this code; returns its stderr.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = kindred(&[args, &["--config", &self.config]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{said}", text(&output.stdout));
        said
    }

    /// Starts a process, and waits until it prints its address.
    pub fn start(&self, name: &str, args: &[&str]) -> Running {
        self.start_with(command(&[]), name, args)
    }

    /// Starts a prepared command (environment).
    pub fn start_with(&self, command: Command, name: &str, args: &[&str]) -> Running {
        let started = self.try_start_with(command, name, args);
        started.unwrap_or_else(|(status, said)| panic!("kindred {args:?} ended with {status}:\n{said}"))
    }

    /// The same for a process that may end before: how it ended, and its output.
    pub fn try_start_with(&self, mut command: Command, name: &str, args: &[&str]) -> Result<Running, (ExitStatus, String)> {
        let dir = self.dir.path().join(name);
        let log = dir.with_extension("log");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let before = said().len();
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        command.args(args).args(["--config", &self.config]).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut child = command.spawn().expect("the binary starts");
        let begin = Instant::now();
        loop {
            let said = said()[before..].to_owned();
            if let Some(url) = said.split_whitespace().find(|word| word.starts_with("http://")) {
                return Ok(Running { child: Some(child), dir, url: url.trim_end_matches("/status").to_owned() });
            }
            if let Some(status) = child.try_wait().expect("it can be asked") {
                return Err((status, said));
            }
            assert!(begin.elapsed() < PATIENCE, "kindred {args:?} does not start:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a pipeline.
    pub fn pipeline(&self) -> Running {
        self.start("pipeline", &["pipeline", "--set", "pipeline.workers=2"])
    }

    /// Starts an API and waits until it is ready.
    pub fn api(&self, name: &str, key: &str, more: &[&str]) -> Server {
        self.api_with(command(&[]), name, key, more)
    }

    /// The same with a prepared command (environment).
    pub fn api_with(&self, command: Command, name: &str, key: &str, more: &[&str]) -> Server {
        let mut running = self.start_with(command, name, &[&["api", "--listen", "127.0.0.1:0"], more].concat());
        let child = running.child.take().expect("it was started");
        Server::attach(child, &running.dir, &running.url, key)
    }

    /// All exports.
    pub fn exports(&self) -> [String; VIEWS.len()] {
        VIEWS.map(|view| self.ok(&["export", view, "--format", "csv", "--as-of", AS_OF]))
    }
}

/// A running process. Dropping it kills it.
pub struct Running {
    child: Option<Child>,
    dir: PathBuf,
    url: String,
}

impl Running {
    /// Its output.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Sends SIGTERM; returns the exit status.
    pub fn stop(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        stopped(&mut child, || self.log())
    }

    /// The exit status, if it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("it can be asked")
    }

    /// The exit status when it ends by itself.
    pub fn ends(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        ended(&mut child, || self.log())
    }

    /// A GET of its admin address.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = agent(PATIENCE).get(format!("{}{path}", self.url)).call().expect("the admin address answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The service key that `kindred migrate` prints once.
pub fn key_in(said: &str) -> String {
    said.split_whitespace().find(|word| word.starts_with("kd_sk_")).expect("a service key is told").to_owned()
}
