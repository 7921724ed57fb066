//! The log on a real Kafka: the conformance suite, and what is specific to Kafka.
//!
//! `KINDRED_TEST_KAFKA=host:port` names the brokers (`deploy/local/up kafka` starts one); without it the tests are skipped with a
//! message. Every test creates topics under a unique prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_log::broadcast::{Broadcast, Heard};
use kindred_log::kafka::{KafkaConfig, KafkaLog};
use kindred_log::{EventLog, EventReader, LogError, LogRecord, Rejected, Share, conformance};
use kindred_model::{Position, Topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration with a unique prefix; `None` without Kafka, reported past the test harness's output capture.
fn config(partitions: u32) -> Option<KafkaConfig> {
    let Ok(brokers) = std::env::var("KINDRED_TEST_KAFKA") else {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test").to_owned();
        let line = format!("NOT RUN: {test}: KINDRED_TEST_KAFKA is not set (deploy/local/up kafka)\n");
        // One write: tests run in parallel.
        let _ = std::io::stderr().write_all(line.as_bytes());
        return None;
    };
    Some(at(&brokers, partitions))
}

fn at(brokers: &str, partitions: u32) -> KafkaConfig {
    let prefix = format!("t{:016x}.", rand::random::<u64>());
    KafkaConfig { brokers: brokers.to_owned(), prefix, partitions, ..KafkaConfig::default() }
}

/// Limits fetching ahead, so that retention can overtake a reader.
fn fetch_little(config: &mut KafkaConfig) {
    let little = [("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "1000"), ("queued.min.messages", "1")];
    config.properties = little.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
}

async fn made(config: &KafkaConfig) -> KafkaLog {
    KafkaLog::create_topics(config).await.expect("topics");
    KafkaLog::open(config).await.expect("opened")
}

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &config.brokers).create().expect("a client")
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)))
}

fn payloads(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(|n| format!("{{\"order\":\"o{n}\",\"item\":\"i{n}\",\"member\":\"m{n}\"}}").into_bytes()).collect()
}

/// Polls until `count` records are there.
fn read(reader: &mut dyn EventReader, count: usize) -> Vec<LogRecord> {
    let (mut records, deadline, mut told) = (Vec::new(), Instant::now() + PATIENCE, String::new());
    while records.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came; told: {told:?}", records.len());
        match reader.poll(count - records.len(), Duration::from_millis(100), &mut records) {
            Ok(()) => (),
            Err(LogError::Unavailable(reason)) => told = reason,
            Err(error) => panic!("{error}"),
        }
    }
    records
}

/// Polls until the reader fails permanently; only records may come before.
fn verdict(reader: &mut dyn EventReader) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the reader never gave up");
        match reader.poll(1_000, Duration::from_millis(100), &mut Vec::new()) {
            Ok(()) | Err(LogError::Unavailable(_)) => (),
            Err(LogError::Refused(reason)) => return reason,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Polls until the reader is at its end.
fn settle(reader: &mut dyn EventReader) -> Vec<LogRecord> {
    let (mut records, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let end = reader.end().expect("the end");
    while !reader.position().reaches(&end) {
        assert!(Instant::now() < deadline, "it stays at {}, before {end}", reader.position());
        reader.poll(1_000, Duration::from_millis(50), &mut records).expect("polling");
    }
    records
}

impl Reading for KafkaLog {}
trait Reading: EventLog {
    fn all(&self) -> Box<dyn EventReader> {
        self.reader(Share::ALL).expect("a reader")
    }
}

async fn conforms(partitions: u32) {
    let Some(base) = config(partitions) else { return };
    let open = async |name: &str| {
        let config = KafkaConfig { prefix: format!("{}{name}.", base.prefix), ..base.clone() };
        Arc::new(made(&config).await) as Arc<dyn EventLog>
    };
    conformance::run(open, conformance::Purging::RejectedOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_with_one_partition() {
    conforms(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_with_three_partitions() {
    conforms(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broadcast_conforms() {
    let Some(config) = config(1) else { return };
    conformance::broadcast(&made(&config).await.broadcast()).await;
}

/// If this failed, an API that was down longer than the retention of changes would serve stale rows without noticing.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_retention_overtakes_is_told() {
    let Some(mut config) = config(1) else { return };
    fetch_little(&mut config);
    let all = made(&config).await.broadcast();
    let mut slow = all.subscribe().await.expect("subscribed");
    let message = |n: usize| format!("message {n:0>1000}").into_bytes();
    // More than fit between the topic and a subscriber that does not read.
    const SENT: usize = 4_000;
    for n in 0..SENT {
        all.publish(message(n)).await.expect("published");
    }
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset(&config.topic("changes"), 0, Offset::End).expect("a partition");
    admin(&config).delete_records(&upto, &options()).await.expect("removed");
    let mut heard = 0;
    loop {
        match tokio::time::timeout(PATIENCE, slow.next()).await.expect("heard in time").expect("it goes on") {
            Heard::Message(bytes) => assert_eq!(bytes, message(heard), "in order, up to where it is overtaken"),
            Heard::Lost => break,
        }
        heard += 1;
    }
    assert!(heard < SENT, "nothing was lost: the test has not overtaken it");
    all.publish(message(SENT)).await.expect("published");
    let next = tokio::time::timeout(PATIENCE, slow.next()).await.expect("heard in time");
    assert_eq!(next, Some(Heard::Message(message(SENT))), "then it hears what follows");
}

/// If this failed, `kindred migrate` would not name missing topics, or would change existing ones.
#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_named_and_made_once() {
    let Some(config) = config(2) else { return };
    match KafkaLog::open(&config).await.err() {
        Some(LogError::Unavailable(reason)) => {
            for topic in ["interactions", "orders", "catalog", "members", "ledger", "rejected", "marks", "changes"] {
                assert!(reason.contains(&config.topic(topic)), "{reason} does not name {topic}");
            }
            assert!(reason.contains("kindred migrate"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let reports = KafkaLog::create_topics(&config).await.expect("made");
    assert!(reports.iter().all(|report| report.created), "{reports:?}");
    let partitions: Vec<usize> = reports.iter().map(|report| report.partitions).collect();
    assert_eq!(partitions, [2, 2, 2, 2, 2, 1, 1, 1]);
    let more = KafkaConfig { partitions: 5, ..config.clone() };
    let again = KafkaLog::create_topics(&more).await.expect("nothing to do");
    assert!(again.iter().all(|report| !report.created), "{again:?}");
    assert!(again.iter().map(|report| report.partitions).eq(partitions), "topics that are there stay as they are");
    KafkaLog::open(&config).await.expect("opened");
}

/// If this failed, a wrongly configured topic would silently lose records.
#[tokio::test(flavor = "multi_thread")]
async fn interactions_must_not_be_compacted() {
    let Some(config) = config(1) else { return };
    let name = config.topic("interactions");
    let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin(&config).create_topics([&topic], &options()).await.expect("made")[0].as_ref().expect("made");
    KafkaLog::create_topics(&config).await.expect("the others are made");
    match KafkaLog::open(&config).await.err() {
        Some(LogError::Refused(reason)) => {
            assert!(reason.contains(&name) && reason.contains("cleanup.policy=delete"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// If this failed, records of a person or an order would be spread over partitions, and compaction would miss some.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_lies_in_one_partition() {
    let Some(config) = config(4) else { return };
    let log = made(&config).await;
    let mut partitions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for n in 0..60 {
        let member = format!("m{}", n % 12);
        let record = format!("{{\"member\":\"{member}\",\"item\":\"i{n}\"}}").into_bytes();
        let place = log.append(Topic::Interactions, vec![record], None).await.expect("appended")[0];
        partitions.entry(member).or_default().insert(place.partition);
    }
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
    assert!(partitions.values().flatten().collect::<BTreeSet<_>>().len() > 1, "and not all in one");
}

/// If this failed, records of another producer (without keys, with tombstones, in transactions) would be missed, aborted ones
/// would count, or the lag would never be 0, as the last offsets of its partitions hold markers.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_and_tombstones_of_others_are_understood() {
    let Some(config) = config(2) else { return };
    let log = made(&config).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("transactional.id", &config.prefix)
        .create()
        .expect("a producer");
    let (orders, interactions) = (config.topic("orders"), config.topic("interactions"));
    let send = |topic: &str, partition: i32, key: &str, payload: Option<&str>| {
        let mut record = BaseRecord::to(topic).key(key).partition(partition);
        record.payload = payload;
        producer.send(record).expect("queued");
    };
    let wait = Duration::from_secs(20);
    producer.init_transactions(wait).expect("transactions");
    producer.begin_transaction().expect("begun");
    send(&orders, 0, "a", Some("{\"order\":\"a\"}"));
    send(&orders, 1, "b", None);
    send(&interactions, 0, "", Some("{\"member\":\"m\"}"));
    producer.commit_transaction(wait).expect("committed");

    let mut reader = log.all();
    let mut got: Vec<(Topic, u32, u64, String)> = Vec::new();
    let mut tell = |records: Vec<LogRecord>| {
        got.extend(records.into_iter().map(|record| {
            let place = record.place;
            (place.topic, place.partition, place.offset, String::from_utf8(record.payload).expect("text"))
        }));
        got.sort();
        std::mem::take(&mut got)
    };
    let committed = vec![
        (Topic::Interactions, 0, 0, "{\"member\":\"m\"}".to_owned()),
        (Topic::Orders, 0, 0, "{\"order\":\"a\"}".to_owned()),
        (Topic::Orders, 1, 0, String::new()),
    ];
    // A commit returns before its markers are in every partition; until then its records are not readable.
    let mut records = read(&mut *reader, 3);
    records.extend(settle(&mut *reader));
    assert_eq!(tell(records), committed, "what is committed is read, a tombstone as an empty record");
    assert_eq!(reader.position().lag_behind(&log.end().await.expect("the end")), 0, "the markers are passed");
    assert_eq!(reader.position().next_offset(Topic::Orders, 0), 2, "a marker takes an offset");

    producer.begin_transaction().expect("begun");
    send(&orders, 0, "c", Some("{\"order\":\"c\"}"));
    producer.flush(wait).expect("sent");
    let behind_it = log.append(Topic::Orders, vec![b"{\"order\":\"d\"}".to_vec()], None).await.expect("appended")[0];
    producer.abort_transaction(wait).expect("aborted");
    let mut records = read(&mut *reader, 1);
    records.extend(settle(&mut *reader));
    let rest = tell(records);
    assert_eq!(rest.len(), 1, "what is aborted is not read: {rest:?}");
    assert_eq!(rest[0], (Topic::Orders, behind_it.partition, behind_it.offset, "{\"order\":\"d\"}".to_owned()));
    assert_eq!(reader.position().lag_behind(&log.end().await.expect("the end")), 0);

    // Resumes after a marker, at an offset without a record.
    let position = reader.position().clone();
    let mut second = log.all();
    second.seek(&position).expect("the end of the log");
    assert_eq!(settle(&mut *second), [], "nothing is left");
    assert_eq!(second.position(), &position);
}

/// If this failed, members hashed to a new partition would be missed until the next restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_is_read_from_its_beginning() {
    let Some(config) = config(1) else { return };
    let log = made(&config).await;
    log.append(Topic::Orders, payloads(0..10), None).await.expect("appended");
    let mut halves = [log.reader(Share::new(0, 2)).expect("a reader"), log.reader(Share::new(1, 2)).expect("a reader")];
    let mut reader = log.all();
    assert_eq!(read(&mut *reader, 10).len(), 10);
    halves.iter_mut().for_each(|half| _ = settle(&mut **half));
    let name = config.topic("orders");
    admin(&config).create_partitions([&NewPartitions::new(&name, 3)], &options()).await.expect("asked")[0]
        .as_ref()
        .expect("made");
    // It takes another producer a moment to learn of the new partitions.
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("topic.metadata.refresh.interval.ms", "200")
        .create()
        .expect("a producer");
    for n in 0..30 {
        let record = format!("{{\"order\":\"new{n}\"}}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = producer.send(FutureRecord::to(&name).key("other").payload(&record).partition(n % 3), PATIENCE).await;
            let Err((error, _)) = sent else { break };
            assert!(Instant::now() < deadline, "{error}");
        }
    }
    let partitions = |records: &[LogRecord]| {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        records.iter().for_each(|record| *counts.entry(record.place.partition).or_default() += 1);
        counts
    };
    assert_eq!(partitions(&read(&mut *reader, 30)), BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
    let mut shared = read(&mut *halves[0], 10);
    shared.extend(read(&mut *halves[1], 20));
    assert_eq!(partitions(&shared), BTreeMap::from([(0, 10), (1, 10), (2, 10)]), "shares take what is new, too");
    let deadline = Instant::now() + PATIENCE;
    while log.partitions().await.expect("partitions").iter().filter(|status| status.topic == Topic::Orders).count() < 3 {
        assert!(Instant::now() < deadline, "the log does not see the new partitions");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(reader.position().lag_behind(&log.end().await.expect("the end")), 0);
}

/// If this failed, positions of a deleted topic would be used in the one that took its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_is_another_log() {
    let Some(config) = config(2) else { return };
    let log = made(&config).await;
    log.append(Topic::Orders, payloads(0..100), None).await.expect("appended");
    let mut reader = log.all();
    read(&mut *reader, 100);
    let position = reader.position().clone();
    assert_eq!(KafkaLog::open(&config).await.expect("opened").identity(), log.identity());

    let name = config.topic("orders");
    admin(&config).delete_topics(&[&name], &options()).await.expect("asked")[0].as_ref().expect("deleted");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match reader.poll(10, Duration::from_millis(100), &mut Vec::new()) {
            Err(LogError::Unavailable(reason)) if reason.contains("kindred migrate") => break,
            Ok(()) | Err(LogError::Unavailable(_)) => assert!(Instant::now() < deadline, "that the topic is missing is not told"),
            Err(other) => panic!("{other}"),
        }
    }
    let anew = made(&config).await;
    assert_ne!(anew.identity(), log.identity());
    // More than before, so that the old position is within it.
    anew.append(Topic::Orders, payloads(0..500), None).await.expect("appended");
    let reason = verdict(&mut *reader);
    assert!(reason.contains(&name) && reason.contains("kindred replay"), "{reason}");
    match log.all().seek(&position) {
        Err(LogError::Refused(reason)) => assert!(reason.contains("created anew"), "{reason}"),
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(matches!(log.end().await, Err(LogError::Refused(_))), "the end of the old log is no more");
    assert_eq!(settle(&mut *anew.all()).len(), 500, "the new log is read by itself");
}

/// If this failed, records that retention removed before they were read would be skipped silently.
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_has_removed_is_told() {
    let Some(config) = config(1) else { return };
    let log = made(&config).await;
    log.append(Topic::Interactions, payloads(0..100), None).await.expect("appended");
    let mut reader = log.all();
    read(&mut *reader, 20);
    let position = reader.position().clone();
    assert_eq!(position.next_offset(Topic::Interactions, 0), 20);
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset(&config.topic("interactions"), 0, Offset::Offset(60)).expect("a partition");
    admin(&config).delete_records(&upto, &options()).await.expect("removed");

    let status = &log.partitions().await.expect("partitions")[0];
    assert_eq!((status.topic, status.first, status.next), (Topic::Interactions, 60, 100));
    let refused = |seek: Result<(), LogError>| match seek {
        Err(LogError::Refused(reason)) => {
            for part in ["20", "60", "interactions", "kindred replay"] {
                assert!(reason.contains(part), "{reason} does not tell {part}");
            }
        }
        other => panic!("{other:?}"),
    };
    let mut late = log.all();
    refused(late.seek(&position));
    late.seek(&Position::beginning()).expect("what has no place begins where the partition does");
    let rest = settle(&mut *late);
    assert_eq!((rest.len(), rest[0].place.offset), (40, 60));
    assert_eq!(late.position().lag_behind(&log.end().await.expect("the end")), 0);

    upto = TopicPartitionList::new();
    upto.add_partition_offset(&config.topic("interactions"), 0, Offset::End).expect("a partition");
    admin(&config).delete_records(&upto, &options()).await.expect("removed");
    let mut fresh = log.all();
    assert_eq!(settle(&mut *fresh), [], "nothing is left");
    assert_eq!(fresh.position().lag_behind(&log.end().await.expect("the end")), 0, "which is the end all the same");
}

/// If this failed, a reader slower than retention would silently skip records.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_retention_overtakes_is_told() {
    let Some(mut config) = config(1) else { return };
    fetch_little(&mut config);
    let log = made(&config).await;
    for n in 0..200 {
        log.append(Topic::Interactions, payloads(n..n + 1), None).await.expect("appended");
    }
    let mut reader = log.all();
    read(&mut *reader, 5);
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset(&config.topic("interactions"), 0, Offset::Offset(190)).expect("a partition");
    admin(&config).delete_records(&upto, &options()).await.expect("removed");
    let reason = verdict(&mut *reader);
    for part in ["retention has removed", "to 189", "can be read from 190", "kindred replay"] {
        assert!(reason.contains(part), "{reason} does not tell {part}");
    }
    let next = reader.position().next_offset(Topic::Interactions, 0);
    assert!((5..190).contains(&next), "it stands where it was overtaken: {next}");
    assert_eq!(verdict(&mut *reader), reason, "it stays with that");
    reader.seek(&Position::beginning()).expect("from where it begins now");
    assert_eq!(settle(&mut *reader).len(), 10, "after another seek it reads what is there");
}

/// If this failed, an oversized record would be retried forever, or silently lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_for_its_topic_is_refused() {
    let Some(config) = config(1) else { return };
    let log = made(&config).await;
    let name = config.topic("catalog");
    let alter =
        AlterConfig::new(ResourceSpecifier::Topic(&name)).set("max.message.bytes", "2000").set("cleanup.policy", "compact");
    admin(&config).alter_configs([&alter], &options()).await.expect("asked")[0].as_ref().expect("altered");
    let noise: String = std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z'))).take(10_000).collect();
    let large = format!("{{\"item\":\"large\",\"title\":\"{noise}\"}}").into_bytes();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match log.append(Topic::Catalog, vec![large.clone()], None).await {
            Err(LogError::Refused(reason)) => {
                assert!(reason.contains(&name) && reason.contains("max.message.bytes"), "{reason}");
                break;
            }
            // Brokers take a moment to apply a setting.
            Ok(_) => assert!(Instant::now() < deadline, "the large record is always accepted"),
            Err(other) => panic!("{other}"),
        }
    }
    log.append(Topic::Catalog, payloads(0..1), None).await.expect("a small one is accepted");
}

/// If this failed, a second page of rejected records would miss some, or a removed one would come back.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_records_come_in_pages() {
    let Some(config) = config(1) else { return };
    let log = made(&config).await;
    let record = |n: u64| Rejected {
        source: "orders".into(),
        topic: Topic::Orders,
        partition: 0,
        offset: n,
        reason: format!("reason {n}"),
        payload: "{}".into(),
    };
    log.reject((0..2_500).map(record).collect()).await.expect("kept");
    let gone: Vec<String> = (0..2_500).filter(|n| n % 5 == 0).map(|n| record(n).id()).collect();
    log.rejected_remove(&gone).await.expect("removed");
    let mut expected: Vec<Rejected> = (0..2_500).filter(|n| n % 5 != 0).map(record).collect();
    expected.sort_by_key(Rejected::id);
    let (mut got, mut after): (Vec<Rejected>, Option<String>) = (Vec::new(), None);
    loop {
        let page = log.rejected(after.as_deref(), 700).await.expect("listed");
        let Some(last) = page.last() else { break };
        after = Some(last.id());
        got.extend(page);
    }
    assert_eq!(got, expected);
}

/// A dedicated broker that the test may kill.
struct Broker {
    dir: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn script(name: &str) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/local").join(name);
        let mut command = Command::new(path);
        command.arg("kafka");
        command
    }

    fn up(&self) -> String {
        let output =
            Self::script("up").arg("--dir").arg(self.dir.path()).args(["--kafka-port", &self.port()]).output().expect("run");
        let (told, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "could not start a broker: {log}");
        told.trim().strip_prefix("KAFKA=").expect("its address").to_owned()
    }

    fn port(&self) -> String {
        self.address.rsplit(':').next().unwrap_or_default().to_owned()
    }

    fn start() -> Self {
        let mut broker = Self { dir: tempfile::tempdir().expect("a directory"), address: ":0".to_owned() };
        broker.address = broker.up();
        broker
    }

    fn signal(&self, signal: &str) {
        let status = Self::script("kill").arg("--dir").arg(self.dir.path()).args(["--signal", signal]).status();
        assert!(status.expect("run").success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = Self::script("down").arg("--dir").arg(self.dir.path()).arg("--drop").status();
    }
}

/// If this failed, a broker that is down or hangs would end the pipeline, lose acknowledged records, or go unreported.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_may_go_and_come_back() {
    if config(1).is_none() {
        return;
    }
    let broker = Broker::start();
    let config = KafkaConfig { message_timeout_ms: 3_000, ..at(&broker.address, 2) };
    let log = Arc::new(made(&config).await);
    let mut reader = log.all();
    let mut acknowledged: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut got: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut ear = log.broadcast().subscribe().await.expect("subscribed");
    for (round, signal) in ["KILL", "STOP", "KILL"].into_iter().enumerate() {
        let before = payloads(round * 1_000..round * 1_000 + 50);
        log.append(Topic::Orders, before.clone(), None).await.expect("appended");
        acknowledged.extend(before);
        broker.signal(signal);
        let doubtful = payloads(round * 1_000 + 50..round * 1_000 + 60);
        let began = Instant::now();
        match log.append(Topic::Orders, doubtful.clone(), None).await {
            Err(LogError::Unavailable(reason)) => assert!(!reason.is_empty()),
            other => panic!("{signal}: an append without a broker gave {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(9), "{signal}: it took {:?} to say so", began.elapsed());
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            let mut records = Vec::new();
            match reader.poll(1_000, Duration::from_millis(100), &mut records) {
                Ok(()) => got.extend(records.into_iter().map(|record| record.payload)),
                Err(LogError::Unavailable(reason)) => break reason,
                Err(other) => panic!("{signal}: {other}"),
            }
            assert!(Instant::now() < deadline, "{signal}: a reader without a broker says nothing");
        };
        assert!(!told.is_empty());
        assert!(matches!(log.end().await, Err(LogError::Unavailable(_))), "{signal}");
        assert!(matches!(log.rejected(None, 10).await, Err(LogError::Unavailable(_))), "{signal}");

        match signal {
            "STOP" => broker.signal("CONT"),
            _ => _ = broker.up(),
        }
        let back = Instant::now();
        loop {
            match log.append(Topic::Orders, doubtful.clone(), None).await {
                Ok(_) => break,
                Err(LogError::Unavailable(_)) => assert!(back.elapsed() < PATIENCE, "{signal}: it never goes on"),
                Err(other) => panic!("{signal}: {other}"),
            }
        }
        acknowledged.extend(doubtful);
        while !got.is_superset(&acknowledged) {
            let mut records = Vec::new();
            match reader.poll(1_000, Duration::from_millis(100), &mut records) {
                Ok(()) | Err(LogError::Unavailable(_)) => got.extend(records.into_iter().map(|record| record.payload)),
                Err(other) => panic!("{signal}: {other}"),
            }
            assert!(back.elapsed() < PATIENCE, "{signal}: acknowledged records are missing");
        }
        let message = format!("round {round}").into_bytes();
        log.broadcast().publish(message.clone()).await.expect("published");
        let heard = tokio::time::timeout(PATIENCE, ear.next()).await.expect("heard in time");
        assert_eq!(heard, Some(Heard::Message(message)), "{signal}: a subscription goes on");
    }
    assert_eq!(got, acknowledged, "and nothing else is there");
}
