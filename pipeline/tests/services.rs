//! The pipeline on real services, at `KINDRED_TEST_CASSANDRA` and `KINDRED_TEST_KAFKA` (host:port): its rows must equal the
//! oracle's after restarts, a takeover from a running pipeline and a rebuild, for any number of processes and workers. Skipped,
//! with a message, without the variables.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kindred_clock::Clock;
use kindred_log::embedded::EmbeddedLog;
use kindred_log::kafka::{KafkaConfig, KafkaLog};
use kindred_log::{EventLog, Share};
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::records::SCENARIO;
use kindred_model::views::inputs::Interactions;
use kindred_model::views::{Table, scan};
use kindred_model::{EventTime, Kind, Record, Semantics, Topic};
use kindred_oracle::testing::{Rng, Shape, random_log, small_semantics};
use kindred_pipeline::{Cluster, Pipeline, PipelineConfig, PipelineState, migrate_from_format_1, repair, verify};
use kindred_store::cql::{CqlConfig, CqlStore};
use kindred_store::generations::Generations;
use kindred_store::{Change, EpochChanges, ViewReader, ViewStore, ViewWriter};
use support::append;

const PATIENCE: Duration = Duration::from_secs(60);

async fn assert_is(store: &Arc<CqlStore>, records: &[Record], semantics: &Semantics, when: &'static str) {
    let (store, records, semantics) = (Arc::clone(store), records.to_vec(), semantics.clone());
    tokio::task::spawn_blocking(move || {
        let differences = support::differences(&*store, &records, &semantics);
        assert!(differences.is_empty(), "{when}: {differences:#?}");
        let snapshot = store.snapshot().expect("a snapshot");
        assert!(verify(&*snapshot.rows, &semantics, 3).expect("it reads").holds(), "{when}");
    })
    .await
    .expect("compared");
}

/// If this failed, a crash, or a replaced process that still runs, could leave rows that no event explains.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_take_overs_leave_what_the_oracle_says() {
    let Ok(node) = std::env::var("KINDRED_TEST_CASSANDRA") else {
        eprintln!("NOT RUN: the pipeline on CQL: KINDRED_TEST_CASSANDRA names no Cassandra (host:port)");
        return;
    };
    let keyspace = format!("kindred_pipeline_{}", std::process::id());
    let config = CqlConfig { nodes: vec![node], keyspace, view_buckets: 8, input_buckets: 8, ..CqlConfig::default() };
    CqlStore::migrate(config.clone()).await.expect("migrated");
    let generations = CqlStore::generations_of(config).await.expect("connected");
    generations.create("g1", "", EventTime(0)).await.expect("created");
    let open = async || Arc::new(CqlStore::open_in(&generations, "g1").await.expect("opened"));
    let temp = tempfile::tempdir().expect("a directory");
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&temp.path().join("log")).expect("a log"));
    let semantics = small_semantics();
    let pipeline_config = PipelineConfig { workers: 2, ..PipelineConfig::new(semantics.clone()) };
    let start = async |store: &Arc<CqlStore>, config: &PipelineConfig| {
        let store: Arc<dyn ViewStore> = Arc::clone(store) as _;
        let clock = Clock::fixed(EventTime(1_780_000_000_000));
        Pipeline::start(config.clone(), Arc::clone(&log), store, clock).await.expect("it starts")
    };
    let records = random_log(5, 600, &Shape::default());
    let [first, second, third] = [&records[..200], &records[200..400], &records[400..]];

    let store = open().await;
    let pipeline = start(&store, &pipeline_config).await;
    append(&log, first).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    assert_is(&store, first, &semantics, "live").await;
    pipeline.stop().expect("it stops");
    drop(store);

    let store = open().await;
    let old = start(&store, &pipeline_config).await;
    assert!(!store.frontier().unfinished, "a pipeline that stopped leaves the store clean");
    append(&log, second).await;
    old.settle(PATIENCE).await.expect("it settles");
    assert_is(&store, &records[..400], &semantics, "restarted").await;

    // Another pipeline takes over while the old one runs: it rewrites rows that may be half written.
    let replaced = store;
    let stray = Change { table: "points", key: b"nobody\0".to_vec(), row: Some(vec![2]) };
    let number = generations.list().await.expect("listed")[0].incarnation;
    let late = replaced.join(number).await.expect("joined");
    late.write(replaced.frontier().epoch + 500, vec![stray].into()).await.expect("written");
    let store = open().await;
    let new = start(&store, &pipeline_config).await;
    append(&log, third).await;
    new.settle(PATIENCE).await.expect("it settles");
    assert!(old.settle(PATIENCE).await.is_err(), "the old one ends");
    assert_eq!(old.status().state, PipelineState::Failed);
    let reason = old.stop().expect_err("it failed").to_string();
    assert!(reason.contains("taken over"), "{reason}");
    assert_is(&store, &records, &semantics, "taken over").await;
    new.stop().expect("it stops");

    let rebuild = PipelineConfig { from_beginning: true, ..pipeline_config.clone() };
    let rebuilt = start(&store, &rebuild).await;
    rebuilt.settle(PATIENCE).await.expect("it settles");
    assert_is(&store, &records, &semantics, "rebuilt").await;
    rebuilt.stop().expect("it stops");

    let session = store.begin().await.expect("begun");
    let frontier = session.incarnation().frontier.clone();
    let invented = Change { table: "points", key: b"nobody\0".to_vec(), row: Some(vec![2]) };
    let unit = EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: vec![invented].into() };
    session.apply(unit).await.expect("it writes");
    let left: Arc<dyn ViewStore> = open().await;
    repair(Arc::clone(&left), &semantics).await.expect("it mends");
    assert_is(&store, &records, &semantics, "mended").await;
    drop(left);

    let store = open().await;
    as_of_format_1(&store).await;
    migrate_from_format_1(&*store, &semantics.rules()).await.expect("it is migrated");
    let migrated = start(&store, &pipeline_config).await;
    migrated.settle(PATIENCE).await.expect("it settles");
    assert_is(&store, &records, &semantics, "migrated").await;
    migrated.stop().expect("it stops");
    generations.drop("g1").await.expect("dropped");
}

/// Turns a store into format 1: other codes of kinds, no scenario, other rows of points.
async fn as_of_format_1(store: &Arc<CqlStore>) {
    let reading = Arc::clone(store);
    let mut changes = tokio::task::spawn_blocking(move || {
        let mut changes = Vec::new();
        let snapshot = reading.snapshot().expect("a snapshot");
        let scanned = scan::<Interactions, _>(&*snapshot.rows, &[], |(owner, key), held| {
            let code = (0..=u8::MAX).find(|&code| Kind::of_format_1(code) == Some(key.kind));
            let Some(code) = code.filter(|_| key.scenario.is_empty() || *key.scenario == *SCENARIO) else { return };
            let scenario = if key.kind.is_of_a_list() && key.day.is_some() { key.scenario.len() + 1 } else { 0 };
            let new = (owner, key).to_bytes();
            let mut old = new[..new.len() - scenario].to_vec();
            let at = old.len() - 5;
            old[at] = code;
            let table = Interactions::NAME;
            changes.push(Change { table, key: new, row: None });
            let mut row = Vec::new();
            held.encode(&mut row);
            changes.push(Change { table, key: old, row: Some(row) });
        });
        scanned.expect("it reads");
        changes
    })
    .await
    .expect("read");
    assert!(changes.len() > 20, "there is something to migrate");
    changes.push(Change { table: "points", key: b"nobody\0".to_vec(), row: Some(vec![2]) });
    let session = store.begin().await.expect("begun");
    let frontier = session.incarnation().frontier.clone();
    let unit = EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: changes.into() };
    session.apply(unit).await.expect("it writes");
}

/// The worst case of compaction: the last record of each key in compacted topics.
fn compacted(log: &dyn EventLog, semantics: &Semantics) -> Vec<Record> {
    let mut reader = log.reader(Share::ALL).expect("a reader");
    let (mut read, end) = (Vec::new(), reader.end().expect("an end"));
    while !reader.position().reaches(&end) {
        reader.poll(10_000, Duration::from_secs(1), &mut read).expect("it reads");
    }
    let mut last: HashMap<(Topic, Vec<u8>), Record> = HashMap::new();
    let mut interactions = Vec::new();
    for read in read {
        let record = Record::decode(read.place.topic, &read.payload, &semantics.rules()).expect("it decodes");
        let key = match &record {
            Record::Interaction(_) => {
                interactions.push(record);
                continue;
            }
            Record::Order(order) => order.order.to_bytes(),
            Record::Catalog(item) => item.item.to_bytes(),
            Record::Member(member) => member.key().to_bytes(),
            Record::Ledger(record) => record.key().to_bytes(),
        };
        last.insert((read.place.topic, key), record);
    }
    interactions.extend(last.into_values());
    interactions
}

/// A currently free port for each process of a cluster.
fn free_hosts(processes: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..processes).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// If this failed, results would depend on the number of processes and workers, or a restart with another number would lose or
/// duplicate records.
#[tokio::test(flavor = "multi_thread")]
async fn processes_and_workers_change_nothing() {
    let (Ok(node), Ok(brokers)) = (std::env::var("KINDRED_TEST_CASSANDRA"), std::env::var("KINDRED_TEST_KAFKA")) else {
        eprintln!("NOT RUN: a pipeline of several processes: KINDRED_TEST_CASSANDRA and KINDRED_TEST_KAFKA name no services");
        return;
    };
    let id = std::process::id();
    let config = CqlConfig {
        nodes: vec![node],
        keyspace: format!("kindred_cluster_{id}"),
        view_buckets: 8,
        input_buckets: 8,
        ..CqlConfig::default()
    };
    CqlStore::migrate(config.clone()).await.expect("migrated");
    let generations = CqlStore::generations_of(config).await.expect("connected");
    generations.create("g1", "", EventTime(0)).await.expect("created");
    let kafka =
        KafkaConfig { brokers, prefix: format!("cluster-{id}-"), partitions: 4, replication: 1, ..KafkaConfig::default() };
    KafkaLog::create_topics(&kafka).await.expect("topics");
    let log: Arc<dyn EventLog> = Arc::new(KafkaLog::open(&kafka).await.expect("opened"));
    let semantics = small_semantics();
    let records = random_log(11, 900, &Shape::default());
    let mut rng = Rng::new(11);
    let mut feed = records.clone();
    feed.extend(records.iter().filter(|_| rng.chance(30)).cloned());
    rng.shuffle(&mut feed);

    let shapes = [(1, 1), (2, 2), (2, 1), (1, 3), (2, 2)];
    let portions = feed.chunks(feed.len().div_ceil(shapes.len()));
    for (n, ((processes, workers), portion)) in shapes.into_iter().zip(portions).enumerate() {
        let hosts = if processes > 1 { free_hosts(processes) } else { Vec::new() };
        let starts = (0..processes).map(|process| {
            let cluster = (processes > 1).then(|| Cluster { process, hosts: hosts.clone() });
            let config = PipelineConfig { workers, cluster, ..PipelineConfig::new(semantics.clone()) };
            let (generations, log) = (&generations, Arc::clone(&log));
            async move {
                let store: Arc<dyn ViewStore> = Arc::new(CqlStore::open_in(generations, "g1").await.expect("opened"));
                let clock = Clock::fixed(EventTime(1_780_000_000_000));
                Pipeline::start(config, log, store, clock).await.expect("it starts")
            }
        });
        let mut pipelines = Vec::new();
        for start in starts {
            pipelines.push(start.await);
        }
        append(&log, portion).await;
        pipelines[0].settle(PATIENCE).await.expect("it settles");
        let store = Arc::new(CqlStore::open_in(&generations, "g1").await.expect("opened"));
        let taken_in: Vec<Record> = feed.iter().take((n + 1) * feed.len().div_ceil(shapes.len())).cloned().collect();
        assert_is(&store, &taken_in, &semantics, "after another portion").await;
        // Stopping one stops the others.
        let stops = pipelines.into_iter().rev().map(|pipeline| tokio::task::spawn_blocking(move || pipeline.stop()));
        for stop in stops {
            stop.await.expect("joined").expect("it stops in order");
        }
        let reopened = CqlStore::open_in(&generations, "g1").await.expect("opened");
        assert!(!reopened.frontier().unfinished, "{processes} processes of {workers} workers end cleanly");
    }
    let store = Arc::new(CqlStore::open_in(&generations, "g1").await.expect("opened"));
    let left = {
        let (log, semantics) = (Arc::clone(&log), semantics.clone());
        tokio::task::spawn_blocking(move || compacted(&*log, &semantics)).await.expect("read")
    };
    let erased = left.iter().filter(|record| matches!(record, Record::Member(member) if member.is_erased())).count();
    assert!(erased > 0, "no erased member is among what compaction leaves, so the test means little");
    assert!(left.len() < records.len(), "compaction would leave everything");
    assert_is(&store, &left, &semantics, "from what compaction leaves of the log").await;
    generations.drop("g1").await.expect("dropped");
}
