//! Faults on real services at random moments under load: pipeline processes, broker and database are killed, or hang and resume
//! (processes also after being replaced); and broker and database are away for a minute. The final export equals the oracle's,
//! byte for byte.
//!
//! ```text
//! poster ──▶ kindred api ──▶ Kafka ──▶ 2 processes by 2 workers (a supervisor restarts both when one ends) ──▶ Cassandra
//! ```

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kindred_model::{Record, Semantics};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::law::{oracle_export, small};
use crate::support::{
    AS_OF, PATIENCE, VIEWS, agent, command, ended, free_port, kindred_ok, lines_by_topic, own_services, text, until, until_so,
};

/// The longest pause between two faults.
const CALM: Duration = Duration::from_secs(3);
/// How long services stay away.
const AWAY: Duration = Duration::from_secs(5);
/// How long the broker hangs: longer than its controller session (9 s), so that it resumes fenced and for a moment reports a
/// cluster without brokers.
const FENCED: Duration = Duration::from_secs(12);
/// How long an API may stay ready without log or store: it waits up to 10 s for an answer, and checks at intervals.
const NOTICED: Duration = Duration::from_secs(45);

/// The outage of broker and database together, under load: `KINDRED_OUTAGE_SECONDS`, by default a minute.
fn outage() -> Duration {
    let seconds = std::env::var("KINDRED_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(60, |seconds| seconds.parse().expect("KINDRED_OUTAGE_SECONDS is a number")))
}

/// Services of one test, which kills them.
pub struct Services {
    dir: PathBuf,
    told: String,
}

impl Services {
    /// Those that `deploy/local/up` starts for these arguments.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let dir = dir.join("services");
        let told = Self::up(&dir, args);
        Self { dir, told }
    }

    /// The address of a service: `KAFKA` or `CASSANDRA`.
    pub fn address(&self, name: &str) -> &str {
        let line = self.told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.told))
    }

    /// Restarts a lost service.
    pub fn up_again(&self, service: &str) {
        Self::up(&self.dir, &[service]);
    }

    /// Stops one gracefully.
    pub fn down(&self, service: &str) {
        let mut down = Command::new("deploy/local/down");
        let output = down.arg(service).arg("--dir").arg(&self.dir).output().expect("deploy/local/down runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn up(dir: &Path, more: &[&str]) -> String {
        let output = Command::new("deploy/local/up").arg("--dir").arg(dir).args(more).output().expect("deploy/local/up runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Sends a signal to one.
    pub fn send(&self, service: &str, signal: &str) {
        let mut kill = Command::new("deploy/local/kill");
        let output = kill.arg(service).arg("--dir").arg(&self.dir).args(["--signal", signal]).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Pauses one for a while.
    fn hang(&self, service: &str, long: Duration) {
        self.send(service, "STOP");
        sleep(long);
        self.send(service, "CONT");
    }

    /// Kills both for a long time and restarts them. Meanwhile the API serves from memory, and reports that it is not ready and
    /// why.
    fn lose_all(&self, url: &str, key: &str) {
        self.send("kafka", "KILL");
        self.send("cassandra", "KILL");
        let begin = Instant::now();
        let agent = agent(PATIENCE);
        let get = |path: &str| {
            let request = agent.get(format!("{url}{path}")).header("Authorization", format!("Bearer {key}"));
            let mut answer = request.call().expect("the API answers");
            (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body"))
        };
        let watched = outage().min(NOTICED);
        let noticed = loop {
            let (status, body) = get("/readyz?verbose");
            if status == 503 || begin.elapsed() >= watched {
                break (status, body);
            }
            sleep(Duration::from_millis(500));
        };
        if outage() > NOTICED {
            assert_eq!(noticed.0, 503, "an API without log and store calls itself ready: {}", noticed.1);
            assert!(noticed.1.contains("log") && noticed.1.contains("store"), "{}", noticed.1);
        }
        assert_eq!(get("/v1/items/i1/similar").0, 200, "lists are served from memory");
        sleep(outage().saturating_sub(begin.elapsed()));
        Self::up(&self.dir, &[]);
    }

    /// Kills one for a while and restarts it with its data.
    fn lose(&self, service: &str) {
        self.send(service, "KILL");
        sleep(AWAY);
        self.up_again(service);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = Command::new("deploy/local/down").arg("--dir").arg(&self.dir).arg("--drop").output();
    }
}

/// One installation on services and its processes.
pub struct Shop {
    dir: PathBuf,
    config: String,
    /// Its service key.
    pub key: String,
}

impl Shop {
    /// Creates one with this name, with logs in `dir`; `more` are further settings.
    pub fn migrate(dir: &Path, kafka: &str, cassandra: &str, name: &str, more: &str) -> Self {
        let config = dir.join("kindred.toml");
        let text = format!(
            "{more}\n[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = \"{kafka}\"\nprefix = \"{name}-\"\npartitions = 4\n\
             [store]\nkind = \"cql\"\n[store.cql]\nnodes = [\"{cassandra}\"]\nkeyspace = \"{name}\"\nview_buckets = 8\ninput_buckets = 8\n\
             [pipeline]\nworkers = 2\nadmin_listen = \"127.0.0.1:0\"\n[api]\nadmin_listen = \"127.0.0.1:0\"\n",
        );
        std::fs::write(&config, text).expect("a settings file");
        let config = config.to_str().expect("a path").to_owned();
        let mut shop = Self { dir: dir.to_owned(), config, key: String::new() };
        let told = shop.run(&["migrate"]);
        shop.key = told.rsplit(": ").next().expect("a key is told").trim().to_owned();
        shop
    }

    /// Runs a command on it that must succeed.
    pub fn run(&self, args: &[&str]) -> String {
        kindred_ok(&[args, &["--config", &self.config]].concat())
    }

    /// Starts a process on it.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Process {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log"))).expect("a log file");
        let mut command = command(args);
        command.args(["--config", &self.config]).stdout(log.try_clone().expect("a second handle")).stderr(log);
        Process(command.stdin(Stdio::null()).spawn().expect("the binary starts"))
    }

    /// Waits until its API shows what is at a position.
    pub fn serves(&self, url: &str, position: &str) {
        let agent = agent(PATIENCE);
        let shows = || {
            let request = agent.get(format!("{url}/v1/items/i1/similar?min_position={position}&wait_ms=10000"));
            let answer = request.header("Authorization", format!("Bearer {}", self.key)).call();
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        until_so(|| format!("the last event is not served\n{}", self.logs()), shows);
    }

    /// Its views are those of the oracle.
    pub fn is_as(&self, records: &[Record], semantics: &Semantics) {
        self.run(&["verify"]);
        for view in VIEWS {
            let served = self.run(&["export", view, "--format", "csv", "--as-of", AS_OF]);
            assert_eq!(served, oracle_export(view, records, semantics), "{view}\n{}", self.logs());
        }
    }

    fn start_processes(&self) -> Vec<Process> {
        let hosts = format!("cluster.hosts=[\"127.0.0.1:{}\",\"127.0.0.1:{}\"]", free_port(), free_port());
        let start = |process: usize| {
            let number = format!("cluster.process={process}");
            self.spawn(&format!("pipeline-{process}"), &["pipeline", "--set", &hosts, "--set", &number])
        };
        (0..2).map(start).collect()
    }

    /// The last output of its processes.
    pub fn logs(&self) -> String {
        let names = ["pipeline-0", "pipeline-1", "api"];
        let tail = |name: &&str| {
            let log = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(30).collect();
            format!("--- {name}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        names.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

/// Stops threads when dropped, also after a panic of the test.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Restarts all pipeline processes when one has ended, like systemd or Kubernetes.
struct Supervisor {
    processes: Mutex<Vec<Process>>,
    restarts: AtomicUsize,
    ends: AtomicBool,
}

impl Supervisor {
    fn watch(&self, shop: &Shop) {
        while !self.ends.load(Ordering::Acquire) {
            let mut processes = self.processes.lock().expect("nobody panicked with it");
            if processes.iter_mut().any(|process| process.try_wait().expect("it can be asked").is_some()) {
                // All must end before any restarts.
                processes.clear();
                *processes = shop.start_processes();
                self.restarts.fetch_add(1, Ordering::AcqRel);
            }
            drop(processes);
            sleep(Duration::from_millis(100));
        }
    }

    /// The pid of a process.
    fn pid(&self, process: usize) -> Pid {
        Pid::from_child(&self.processes.lock().expect("nobody panicked with it")[process])
    }

    /// Waits until the processes have been restarted after a fault that ends them.
    fn await_restart(&self, before: usize, shop: &Shop) {
        let restarted = || (self.restarts.load(Ordering::Acquire) != before).then_some(());
        until(Duration::from_secs(20), || format!("a lost process did not end the others\n{}", shop.logs()), restarted);
    }
}

/// A process that ends with the test.
pub struct Process(Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Posts everything in small batches with retries; returns the position after each.
pub fn post(url: &str, key: &str, feed: &[&Record], rng: &mut StdRng, done: &AtomicUsize) -> Vec<String> {
    let agent = agent(Duration::from_secs(20));
    let (mut rest, mut positions) = (feed, Vec::new());
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rng.random_range(1..=8.min(rest.len())));
        rest = later;
        for (topic, lines) in lines_by_topic(batch) {
            let begin = Instant::now();
            loop {
                let request = agent.post(format!("{url}/v1/events/{topic}")).header("Authorization", format!("Bearer {key}"));
                if let Ok(mut answer) = request.header("Content-Type", "application/x-ndjson").send(&lines[..])
                    && answer.status() == 202
                {
                    let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().expect("a body")).expect("JSON");
                    positions.push(body["position"].as_str().expect("a position").to_owned());
                    break;
                }
                assert!(begin.elapsed() < 2 * PATIENCE, "a batch was not accepted in {:?}", begin.elapsed());
                sleep(Duration::from_millis(100));
            }
        }
        done.fetch_add(batch.len(), Ordering::AcqRel);
        sleep(Duration::from_millis(15));
    }
    positions
}

/// If it failed, a crash, a hang or an outage would lose or duplicate events, or leave rows that no event explains.
#[test]
fn faults_leave_no_trace() {
    if std::env::var("KINDRED_TEST_KAFKA").is_err() {
        eprintln!("NOT RUN: faults of real services (tests/run starts them)");
        return;
    }
    let _turn = own_services();
    let temp = tempfile::tempdir().expect("a directory");
    let services = Services::start(temp.path(), &["--kafka-port", "0", "--cassandra-port", "0"]);
    let variant = small();
    let more = "[inputs]\nidentities_per_owner = 6\n[views.also_bought]\nwindow = 3\ntop = 4\n";
    let shop = Arc::new(Shop::migrate(temp.path(), services.address("KAFKA"), services.address("CASSANDRA"), "faults", more));
    let mut rng = StdRng::seed_from_u64(5);
    let records = kindred_oracle::testing::random_log(5, 9_000, &kindred_oracle::testing::Shape::default());
    let mut feed: Vec<&Record> = records.iter().collect();
    feed.extend(records.iter().filter(|_| rng.random_bool(0.2)));
    feed.shuffle(&mut rng);

    let listen = format!("127.0.0.1:{}", free_port());
    let api = shop.spawn("api", &["api", "--listen", &listen]);
    let url = format!("http://{listen}");
    let supervisor = Arc::new(Supervisor {
        processes: Mutex::new(shop.start_processes()),
        restarts: AtomicUsize::new(0),
        ends: AtomicBool::new(false),
    });
    let done = AtomicUsize::new(0);
    let positions = std::thread::scope(|scope| {
        let end = Ends(&supervisor.ends);
        scope.spawn(|| supervisor.watch(&shop));
        let poster = scope.spawn(|| post(&url, &shop.key, &feed, &mut StdRng::seed_from_u64(6), &done));
        let mut woken = Vec::new();
        for fault in
            ["process 0", "broker", "process 1", "database", "hang", "hanging broker", "hanging database", "both", "process 0"]
        {
            sleep(rng.random_range(CALM / 3..CALM));
            let restarts = supervisor.restarts.load(Ordering::Acquire);
            match fault {
                "process 0" | "process 1" => {
                    let process = usize::from(fault == "process 1");
                    kill_process(supervisor.pid(process), Signal::KILL).expect("it can be killed");
                    supervisor.await_restart(restarts, &shop);
                }
                "broker" => services.lose("kafka"),
                "database" => services.lose("cassandra"),
                "hanging broker" => services.hang("kafka", FENCED),
                "hanging database" => services.hang("cassandra", AWAY),
                "both" => services.lose_all(&url, &shop.key),
                _ => {
                    // Both hang and are replaced; when they resume, their writes must lose.
                    let mut processes = supervisor.processes.lock().expect("nobody panicked with it");
                    for process in processes.iter() {
                        kill_process(Pid::from_child(process), Signal::STOP).expect("it can be stopped");
                    }
                    woken.extend(std::mem::replace(&mut *processes, shop.start_processes()));
                    drop(processes);
                    sleep(AWAY);
                    for process in &woken {
                        kill_process(Pid::from_child(process), Signal::CONT).expect("it can go on");
                    }
                }
            }
            eprintln!("{fault}: {} of {} records are posted", done.load(Ordering::Acquire), feed.len());
        }
        let positions = poster.join().unwrap_or_else(|_| panic!("posting failed\n{}", shop.logs()));
        for mut process in woken {
            let status = ended(&mut process, || format!("a process that was replaced goes on\n{}", shop.logs()));
            assert!(!status.success(), "a process that was replaced ends as if all were well");
        }
        drop(end);
        positions
    });

    // An API in another process shows the last event.
    shop.serves(&url, positions.last().expect("something was posted"));
    for process in supervisor.processes.lock().expect("nobody panicked with it").iter_mut() {
        kill_process(Pid::from_child(process), Signal::TERM).expect("it can be asked to stop");
    }
    for process in supervisor.processes.lock().expect("nobody panicked with it").iter_mut() {
        let status = ended(process, || shop.logs());
        assert!(status.success(), "a process of the pipeline ended with {status}\n{}", shop.logs());
    }
    shop.is_as(&records, &variant.semantics);
    drop(api);
}
