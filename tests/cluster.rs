//! The product on real services: `kindred migrate`, `pipeline` and `api` as processes of their own, on Kafka and Cassandra at
//! `KINDRED_TEST_KAFKA` and `KINDRED_TEST_CASSANDRA` (host:port; `tests/run` starts them). Without them it says that it was not run.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use kindred_model::{Record, Topic};
use kindred_oracle::testing::{Shape, random_log};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{AS_OF, PATIENCE, Server, VIEWS, command, interaction, kindred, kindred_ok, text};

/// Topics and a keyspace of their own on the services, and the settings file that names them.
struct Installation {
    dir: tempfile::TempDir,
    config: String,
}

impl Installation {
    /// `None` where there are no services.
    fn new(name: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(kafka), Some(cassandra)) = (variable("KINDRED_TEST_KAFKA"), variable("KINDRED_TEST_CASSANDRA")) else {
            eprintln!("NOT RUN: {name} on services: KINDRED_TEST_KAFKA and KINDRED_TEST_CASSANDRA name none (host:port)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let own = format!("{name}_{}", std::process::id());
        let settings = format!(
            "[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = \"{kafka}\"\nprefix = \"{own}.\"\npartitions = 3\n\
             [store]\nkind = \"cql\"\n[store.cql]\nnodes = [\"{cassandra}\"]\nkeyspace = \"{own}\"\nview_buckets = 4\ninput_buckets = 4\n\
             [api]\nadmin_listen = \"127.0.0.1:0\"\n[pipeline]\nadmin_listen = \"127.0.0.1:0\"\n\
             [inputs]\nidentities_per_owner = 30\n[views.also_bought]\nwindow = 8\n"
        );
        let file = dir.path().join("kindred.toml");
        std::fs::write(&file, settings).expect("a file");
        Some(Self { config: file.to_str().expect("a path").to_owned(), dir })
    }

    /// The settings that results depend on, for an embedded run of the same.
    const PINNED: [&'static str; 4] = ["--set", "inputs.identities_per_owner=30", "--set", "views.also_bought.window=8"];

    fn ok(&self, args: &[&str]) -> String {
        kindred_ok(&[args, &["--config", &self.config]].concat())
    }

    /// Runs a command that has to fail with this code, and returns what it says.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = kindred(&[args, &["--config", &self.config]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{said}", text(&output.stdout));
        said
    }

    /// Starts a process that stays, and waits until it says where it answers.
    fn start(&self, name: &str, args: &[&str]) -> Running {
        let dir = self.dir.path().join(name);
        let log = dir.with_extension("log");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let before = said().len();
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let mut command = command(args);
        command.args(["--config", &self.config]).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut child = command.spawn().expect("the binary starts");
        let begin = Instant::now();
        loop {
            let said = said()[before..].to_owned();
            if let Some(url) = said.split_whitespace().find(|word| word.starts_with("http://")) {
                return Running { child: Some(child), dir, url: url.trim_end_matches("/status").to_owned() };
            }
            if let Some(status) = child.try_wait().expect("it can be asked") {
                panic!("kindred {args:?} ended with {status}:\n{said}");
            }
            assert!(begin.elapsed() < PATIENCE, "kindred {args:?} does not start:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn pipeline(&self) -> Running {
        self.start("pipeline", &["pipeline", "--set", "pipeline.workers=2"])
    }

    fn api(&self, name: &str, key: &str) -> Server {
        let mut running = self.start(name, &["api", "--listen", "127.0.0.1:0"]);
        let child = running.child.take().expect("it was started");
        Server::attach(child, &running.dir, &running.url, key)
    }

    fn exports(&self) -> [String; 4] {
        VIEWS.map(|view| self.ok(&["export", view, "--format", "csv", "--as-of", AS_OF]))
    }
}

/// A process that stays. Dropping it kills it.
struct Running {
    child: Option<Child>,
    dir: PathBuf,
    url: String,
}

impl Running {
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM; how it ended.
    fn stop(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be asked to stop");
        child.wait().expect("it ends")
    }

    /// How it ends by itself.
    fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().expect("it runs").try_wait().expect("it can be asked") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it runs on:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("{}{path}", self.url)).call().expect("the admin address answers");
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

fn key_in(said: &str) -> String {
    said.split_whitespace().find(|word| word.starts_with("kd_sk_")).expect("a service key is told").to_owned()
}

/// Posts a batch topic by topic; joins the positions.
fn post(server: &Server, batch: &[&Record], position: &mut kindred_model::Position) {
    for topic in Topic::ALL {
        let records: Vec<Value> = batch
            .iter()
            .filter(|record| record.topic() == *topic)
            .map(|record| serde_json::from_slice(&record.to_json()).expect("JSON"))
            .collect();
        if !records.is_empty() {
            position.join(&server.post_events(topic.name(), &records).parse().expect("a position"));
        }
    }
}

/// The exports of an embedded run of the same events, and its pure lists.
fn embedded(dir: &Path, records: &[&Record], items: &[String]) -> ([String; 4], Vec<Value>) {
    let server = Server::start(dir, &Installation::PINNED);
    let mut position = kindred_model::Position::beginning();
    post(&server, records, &mut position);
    let lists = items.iter().map(|item| server.list(item, &position.to_string())).collect();
    server.stop();
    let data = dir.to_str().expect("a path");
    (VIEWS.map(|view| kindred_ok(&["export", view, "--format", "csv", "--as-of", AS_OF, "--data", data])), lists)
}

/// If this fails, the product on services serves something else than the embedded one from the same events: after kills of the
/// pipeline, from any of several APIs, from memory as from the store.
#[test]
fn services_serve_what_an_embedded_run_serves() {
    let Some(on) = Installation::new("kindred_served") else { return };
    // Before anything is made, every command says what makes it.
    assert!(on.fails(3, &["status"]).contains("kindred migrate"));
    let made = on.ok(&["migrate"]);
    let key = key_in(&made);
    let again = on.ok(&["migrate"]);
    assert!(!again.contains("made") && !again.contains("kd_sk_"), "it is made once: {again}");
    assert!(on.fails(2, &["status", "--set", "views.also_bought.window=9"]).contains("views.also_bought.window is 8 there"));
    assert!(on.fails(2, &["status", "--data", "x"]).contains("--data"));
    assert!(on.fails(2, &["serve"]).contains("kindred pipeline"));

    let mut pipeline = on.pipeline();
    let (one, other) = (on.api("one", &key), on.api("other", &key));
    let records = random_log(11, 500, &Shape::default());
    let mut rng = StdRng::seed_from_u64(11);
    let mut feed: Vec<&Record> = records.iter().collect();
    feed.extend(records.iter().filter(|_| rng.random_bool(0.2)));
    feed.shuffle(&mut rng);
    let mut position = kindred_model::Position::beginning();
    for (n, batch) in feed.chunks(40).enumerate() {
        post(if n % 2 == 0 { &one } else { &other }, batch, &mut position);
        if n % 4 == 3 {
            pipeline.kill();
            pipeline = on.pipeline();
        }
    }

    let mut items: Vec<String> = Vec::new();
    for line in on.ok(&["export", "also_bought", "--format", "csv"]).lines().skip(1) {
        items.extend(line.split(',').next().map(str::to_owned));
    }
    items.dedup();
    assert!(!items.is_empty());
    let wanted = position.to_string();
    let served = |server: &Server| items.iter().map(|item| server.list(item, &wanted)).collect::<Vec<Value>>();
    let from_one = served(&one);
    assert_eq!(from_one, served(&other), "two APIs answer alike");
    let fresh = on.api("fresh", &key);
    assert_eq!(from_one, served(&fresh), "what was heard of is what the store holds");
    let (expected, lists) = embedded(&on.dir.path().join("shop"), &feed, &items);
    assert_eq!(from_one, lists, "lists of services and of a directory");
    assert_eq!(on.exports(), expected, "exports of services and of a directory");
    on.ok(&["verify"]);
    assert!(on.ok(&["status"]).contains("lag        0 records"));

    let (status, ready) = pipeline.get("/readyz");
    assert_eq!(status, 200, "{ready}");
    let figures: Value = serde_json::from_str(&pipeline.get("/status").1).expect("JSON");
    assert_eq!((&figures["pipeline"]["state"], &figures["lag"]), (&json!("running"), &json!(0)), "{figures}");
    assert!(pipeline.get("/metrics").1.contains("pipeline_records_total"));
    let status = pipeline.stop();
    assert!(status.success(), "a pipeline that is asked to ends in order: {status}");
    assert_eq!(on.exports(), expected, "and leaves what it served");
    one.stop();
    other.stop();
}

/// If this fails, the commands that change something do not work beside a pipeline of another process, or a key made or revoked by
/// one process means nothing to another.
#[test]
fn commands_work_beside_the_processes() {
    let Some(on) = Installation::new("kindred_commands") else { return };
    let key = key_in(&on.ok(&["migrate"]));
    let mut pipeline = on.pipeline();
    let api = on.api("api", &key);

    let orders = on.dir.path().join("orders.csv");
    let rows = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status\n\
                o1,ann,tea,1,500,1767600000000,paid\no1,ann,cup,1,300,1767600000000,paid\no2,ben,tea,1,500,1767600001000,paid\n\
                o2,ben,cup,1,300,1767600001000,paid\no3,ben,pot,many,300,1767600001000,paid\n";
    std::fs::write(&orders, rows).expect("a file");
    let said = kindred(&["import", "orders", orders.to_str().expect("a path"), "--config", &on.config]);
    assert_eq!(said.status.code(), Some(1), "one row is turned away: {}{}", text(&said.stdout), text(&said.stderr));
    assert!(on.ok(&["rejected", "list"]).contains("many"));
    let position = text(&said.stdout).split_whitespace().last().expect("a position").to_owned();
    assert_eq!(api.list_items("tea", &position), ["cup"], "what a command imported is served");

    let before = api.post_events("interactions", &[interaction("cat", "tea", "purchase", "2026-01-05T10:00:00Z")]);
    assert_eq!(api.list("tea", &before)["items"][0]["co_count"], 2);
    on.ok(&["forget", "ann"]);
    assert!(!on.ok(&["export", "histories", "--format", "csv"]).contains("ann"));

    let made = text(&kindred(&["keys", "create", "service", "--name", "second", "--config", &on.config]).stdout);
    let status = |key: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.get(format!("{}/v1/items/tea/similar", api.url)).header("Authorization", format!("Bearer {key}"));
        request.call().expect("it answers").status().as_u16()
    };
    let becomes = |wanted: u16| {
        let begin = Instant::now();
        while status(made.trim()) != wanted {
            assert!(begin.elapsed() < Duration::from_secs(10), "the key does not become {wanted}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    becomes(200);
    let listed = on.ok(&["keys", "list"]);
    let second = listed.lines().find(|line| line.contains("second")).expect("it is listed");
    on.ok(&["keys", "revoke", second.split_whitespace().next().expect("an id")]);
    becomes(401);
    assert_eq!(status(&key), 200, "the other stays good");

    // A second pipeline takes over; the first ends by itself, and not with 0.
    let second = on.start("second", &["pipeline"]);
    api.post_events("interactions", &[interaction("dan", "tea", "purchase", "2026-01-05T10:00:00Z")]);
    let status = pipeline.ends();
    assert!(!status.success(), "{status}");
    assert!(pipeline.log().contains("taken over"), "{}", pipeline.log());
    let position = api.post_events(
        "interactions",
        &[
            interaction("dan", "jar", "purchase", "2026-01-05T10:00:00Z"),
            interaction("cat", "jar", "purchase", "2026-01-05T11:00:00Z"),
        ],
    );
    assert_eq!(api.list("jar", &position)["items"][0]["co_count"], 2);
    on.ok(&["verify"]);
    assert!(second.stop().success());
    on.ok(&["verify", "--repair"]);
}

/// If this fails, a cluster of which a process is lost runs on without its work, or computes something else than one process.
#[test]
fn two_processes_share_the_work_and_end_together() {
    let Some(on) = Installation::new("kindred_processes") else { return };
    on.ok(&["migrate"]);
    let port = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let hosts = format!("cluster.hosts=[\"127.0.0.1:{}\",\"127.0.0.1:{}\"]", port(), port());
    let start = |name: &str, process: &str| {
        on.start(name, &["pipeline", "--set", &hosts, "--set", process, "--set", "pipeline.workers=2"])
    };
    let (mut first, second) = (start("first", "cluster.process=0"), start("second", "cluster.process=1"));
    let events = on.dir.path().join("events.ndjson");
    let records = random_log(12, 300, &Shape::default());
    for topic in Topic::ALL {
        let lines: Vec<u8> =
            records.iter().filter(|r| r.topic() == *topic).flat_map(|r| [r.to_json(), b"\n".to_vec()].concat()).collect();
        if !lines.is_empty() {
            std::fs::write(&events, lines).expect("a file");
            on.ok(&["import", topic.name(), events.to_str().expect("a path")]);
        }
    }
    on.ok(&["verify"]);
    second.kill();
    let status = first.ends();
    assert!(!status.success(), "a process whose other was lost ends, and not with 0: {status}");
    let pipeline = on.pipeline();
    let feed: Vec<&Record> = records.iter().collect();
    let (expected, _) = embedded(&on.dir.path().join("shop"), &feed, &[]);
    assert!(pipeline.stop().success());
    assert_eq!(on.exports(), expected);
    on.ok(&["verify"]);
}
