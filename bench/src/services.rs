//! `services`: the pipeline between real Kafka and a real CQL database, in this process: a full replay, reading and computing
//! alone, and the same log on embedded storage.
//!
//! ```text
//! purchases ──append──▶ Kafka ──┬─▶ Pipeline ──▶ CQL                     the replay
//!                               └─▶ decode ──▶ dataflow ──▶ (nothing)    reading and computing alone
//! purchases ──append──▶ embedded log ──▶ Pipeline ──▶ embedded store     for comparison
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kindred_clock::Clock;
use kindred_dataflow::update::Update;
use kindred_log::embedded::EmbeddedLog;
use kindred_log::kafka::{KafkaConfig, KafkaLog};
use kindred_log::{EventLog, Share};
use kindred_model::records::Record;
use kindred_model::{EventTime, Semantics, Topic};
use kindred_pipeline::{Pipeline, PipelineConfig};
use kindred_store::ViewStore;
use kindred_store::cql::{CqlConfig, CqlStore};
use kindred_store::embedded::EmbeddedStore;
use kindred_store::generations::Generations;

use crate::dataflow::{Engine, run};
use crate::options::quick;
use crate::plot::Panel;
use crate::progress;
use crate::report::{Report, Target, number};
use crate::synthetic::{Plan, purchase_record, purchases};
use crate::usage::{Process, difference};

/// Records per append.
const APPENDED: usize = 5_000;
/// Time limit of a replay.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The log.
    #[command(flatten)]
    pub plan: Plan,
    /// The brokers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19092")]
    pub kafka: String,
    /// A node of the database
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:19042")]
    pub cql: String,
    /// Partitions of each topic
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Timely workers
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

quick!(|options| options.plan.quicken());

/// The cost of a replay.
struct Replayed {
    wall: Duration,
    cpu: BTreeMap<String, Duration>,
    rows: u64,
}

impl Replayed {
    fn cpu(&self) -> Duration {
        self.cpu.values().sum()
    }
}

/// Measures; creates its own topics and keyspace, and leaves them.
///
/// # Errors
/// When a service does not answer.
pub async fn run_services(options: &Options) -> Result<Report> {
    let mut report = Report::new("services");
    let plan = options.plan;
    crate::replay::plan_parameters(&mut report, &plan);
    report.parameter("partitions", options.partitions);
    report.parameter("workers", options.workers);
    let steps = progress::bar("between Kafka and CQL", 4);
    steps.tick();

    let id = std::process::id();
    let kafka = KafkaConfig {
        brokers: options.kafka.clone(),
        prefix: format!("bench-{id}-"),
        partitions: options.partitions,
        replication: 1,
        ..KafkaConfig::default()
    };
    KafkaLog::create_topics(&kafka).await.context("could not create topics")?;
    let log: Arc<dyn EventLog> = Arc::new(KafkaLog::open(&kafka).await.context("could not open the log")?);
    let appended = append(&log, &plan).await?;
    steps.inc(1);

    let config = CqlConfig { nodes: vec![options.cql.clone()], keyspace: format!("kindred_bench_{id}"), ..CqlConfig::default() };
    CqlStore::migrate(config.clone()).await.context("could not prepare the keyspace")?;
    let generations = CqlStore::generations_of(config).await?;
    generations.create("g1", "", EventTime(0)).await?;
    let store: Arc<dyn ViewStore> = Arc::new(CqlStore::open_in(&generations, "g1").await?);
    let replayed = replay(Arc::clone(&log), store, options).await?;
    steps.inc(1);

    let computed = {
        let log = Arc::clone(&log);
        tokio::task::spawn_blocking(move || compute(&*log, plan.events)).await??
    };
    steps.inc(1);

    let temp = tempfile::tempdir()?;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&temp.path().join("log"))?);
    append(&log, &plan).await?;
    let store: Arc<dyn ViewStore> = Arc::new(EmbeddedStore::open(&temp.path().join("store"))?);
    let embedded = replay(log, store, options).await?;
    steps.inc(1);
    steps.finish_and_clear();
    tell(&mut report, options, appended, &replayed, computed, &embedded);
    Ok(report)
}

async fn append(log: &Arc<dyn EventLog>, plan: &Plan) -> Result<Duration> {
    let began = Instant::now();
    let mut events = purchases(plan).take(plan.events).map(|purchase| Record::Interaction(purchase_record(purchase)).to_json());
    loop {
        let records: Vec<Vec<u8>> = events.by_ref().take(APPENDED).collect();
        if records.is_empty() {
            return Ok(began.elapsed());
        }
        log.append(Topic::Interactions, records, None).await.context("could not append")?;
    }
}

async fn replay(log: Arc<dyn EventLog>, store: Arc<dyn ViewStore>, options: &Options) -> Result<Replayed> {
    let (began, before) = (Instant::now(), Process::Own.cpu_by_thread());
    let config = PipelineConfig { workers: options.workers, ..PipelineConfig::new(Semantics::default()) };
    let pipeline = Pipeline::start(config, log, store, Clock::system()).await?;
    pipeline.settle(PATIENCE).await.context("the replay did not end")?;
    let (wall, after) = (began.elapsed(), Process::Own.cpu_by_thread());
    let status = pipeline.status();
    tokio::task::spawn_blocking(move || pipeline.stop()).await??;
    ensure!(status.records == options.plan.events as u64, "{} of {} records were read", status.records, options.plan.events);
    Ok(Replayed { wall, cpu: difference(&before, &after), rows: status.rows_written })
}

/// Reads the whole log, computes all views in one epoch, and discards them.
fn compute(log: &dyn EventLog, events: usize) -> Result<Duration> {
    let mut reader = log.reader(Share::ALL)?;
    let rules = Semantics::default().rules();
    let (give, take) = crossbeam_channel::bounded::<Update>(65_536);
    let began = Instant::now();
    let dataflow = std::thread::spawn(move || run(Engine::all_views(), move |job| job.updates(take)));
    let (mut records, mut left) = (Vec::new(), events);
    while left > 0 {
        records.clear();
        reader.poll(4_096, Duration::from_secs(1), &mut records)?;
        left = left.saturating_sub(records.len());
        for record in &records {
            give.send(Record::decode(record.place.topic, &record.payload, &rules)?.into())?;
        }
    }
    drop(give);
    let cost = dataflow.join().map_err(|_| anyhow::anyhow!("the dataflow ended by a panic"))?;
    ensure!(cost.events == events, "{} of {events} events came to the dataflow", cost.events);
    Ok(began.elapsed())
}

fn tell(
    report: &mut Report,
    options: &Options,
    appended: Duration,
    replayed: &Replayed,
    computed: Duration,
    embedded: &Replayed,
) {
    let events = options.plan.events as f64;
    let rate = |wall: Duration| events / wall.as_secs_f64();
    report.measure(
        "replay from Kafka into CQL, to consistent lists",
        rate(replayed.wall),
        "events/s",
        Some(Target::AtLeast(25_000.0)),
    );
    report.measure("reading from Kafka and computing alone", rate(computed), "events/s", Some(Target::AtLeast(150_000.0)));
    let ratio = replayed.cpu().as_secs_f64() / embedded.cpu().as_secs_f64();
    report.measure("CPU of the pipeline to that of the embedded run", ratio, "times", Some(Target::AtMost(1.5)));
    report.measure("appending to Kafka, one caller", rate(appended), "events/s", None);
    report.measure("the same replay on embedded storage", rate(embedded.wall), "events/s", None);
    let row = |name: &str, of: &Replayed| {
        vec![
            name.to_owned(),
            number(of.wall.as_secs_f64()),
            number(rate(of.wall)),
            number(of.rows as f64),
            number(of.cpu().as_secs_f64()),
            number(of.cpu().as_secs_f64() * 1e6 / events),
        ]
    };
    let header = ["replay", "wall, s", "events/s", "rows written", "CPU, s", "CPU µs/event"];
    report.table(
        "all views, until every list is readable",
        &header,
        vec![row("Kafka and CQL", replayed), row("embedded", embedded)],
    );
    let threads = |name: &str, of: &Replayed| {
        let busy = of.cpu.iter().filter(|(_, cpu)| **cpu >= Duration::from_millis(50));
        busy.map(|(thread, cpu)| vec![name.to_owned(), thread.clone(), number(cpu.as_secs_f64())]).collect::<Vec<_>>()
    };
    let mut rows = threads("Kafka and CQL", replayed);
    rows.extend(threads("embedded", embedded));
    report.table("CPU by thread", &["replay", "thread", "CPU, s"], rows);
    let panel = Panel::bars("From a log to readable lists, all views", "events/s (more is better)").with_target(25_000.0);
    report.plot(panel.with_bar("Kafka and CQL", rate(replayed.wall)).with_bar("embedded", rate(embedded.wall)));
}
