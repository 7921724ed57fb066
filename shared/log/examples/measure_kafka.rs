//! Benchmark of the log on Kafka: `cargo run --release -p kindred-log --example measure_kafka -- HOST:PORT [RECORDS]
//! [PARTITIONS]`. Creates topics under a unique prefix and leaves them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_log::kafka::{KafkaConfig, KafkaLog};
use kindred_log::{EventLog, Share};
use kindred_model::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};
use tokio::task::JoinSet;

/// Records of one append, as an import writes them.
const BATCH: usize = 2_000;
/// Concurrent appends.
const CALLERS: usize = 8;

fn record(n: usize) -> Vec<u8> {
    format!(
        "{{\"member\":\"m{:07}\",\"item\":\"i{:05}\",\"kind\":\"view\",\"at\":\"2026-01-05T10:11:12.123Z\",\"reco_id\":\"{:x}\",\"pad\":\"{n:0>80}\"}}",
        n % 200_000,
        n * 7919 % 20_000,
        n * 1_000_003
    )
    .into_bytes()
}

/// Prints latency quantiles in milliseconds.
fn tell(what: &str, took: &mut [Duration]) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let calls = took.len();
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms ({calls} calls)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// CPU seconds of all threads of this process.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

/// Order-independent sum of some records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Sum {
    records: usize,
    bytes: usize,
    digests: u64,
}

impl Sum {
    fn add(&mut self, payload: &[u8]) {
        let mut hasher = std::hash::DefaultHasher::new();
        payload.hash(&mut hasher);
        self.records += 1;
        self.bytes += payload.len();
        self.digests = self.digests.wrapping_add(hasher.finish());
    }

    fn join(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.digests = self.digests.wrapping_add(other.digests);
    }
}

/// The fetch settings of our reader: without them librdkafka waits a second whenever its queue was full.
const OURS: &[(&str, &str)] =
    &[("fetch.queue.backoff.ms", "5"), ("fetch.wait.max.ms", "100"), ("isolation.level", "read_committed")];

/// The baseline: rdkafka's safe consumer, one poll per message; copies the payload as our reader does.
fn plain(config: &KafkaConfig, settings: &[(&str, &str)], partitions: u32, count: usize) -> Sum {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("group.id", &config.prefix).set("enable.auto.commit", "false");
    for (name, value) in settings {
        client.set(*name, *value);
    }
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("few") {
        assigned.add_partition_offset(&config.topic("interactions"), partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assigned).expect("assigned");
    let mut sum = Sum::default();
    while sum.records < count {
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let payload = std::hint::black_box(message.expect("a message").payload().unwrap_or_default().to_vec());
            sum.add(&payload);
        }
    }
    sum
}

fn report(what: &str, sum: &Sum, expected: &Sum, began: Instant, cpu_before: f64) {
    let took = began.elapsed().as_secs_f64();
    let micros = (cpu() - cpu_before) * 1e6 / sum.records as f64;
    assert_eq!(sum, expected, "{what}: every record once, as it was appended");
    println!("{what}: {:.0}/s, {:.2} s, {micros:.2} us of CPU each", sum.records as f64 / took, took);
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().expect("HOST:PORT of a broker");
    let count: usize = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number of records"));
    let partitions: u32 = arguments.next().map_or(4, |text| text.parse().expect("a number of partitions"));
    let prefix = format!("measure{:x}.", rand::random::<u64>());
    let config = KafkaConfig { brokers, prefix, partitions, ..KafkaConfig::default() };
    KafkaLog::create_topics(&config).await.expect("topics");
    let log = Arc::new(KafkaLog::open(&config).await.expect("opened"));

    let (began, cpu_before) = (Instant::now(), cpu());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let log = log.clone();
        callers.spawn(async move {
            let mut start = caller * BATCH;
            while start < count {
                let records = (start..count.min(start + BATCH)).map(record).collect();
                log.append(Topic::Interactions, records, None).await.expect("appended");
                start += CALLERS * BATCH;
            }
        });
    }
    callers.join_all().await;
    let took = began.elapsed().as_secs_f64();
    let micros = (cpu() - cpu_before) * 1e6 / count as f64;
    println!(
        "append: {count} records of {} bytes, {CALLERS} callers of {BATCH}: {:.0}/s, {micros:.2} us of CPU each",
        record(0).len(),
        count as f64 / took
    );

    // What was appended, independent of order: count, bytes, and the sum of digests.
    let mut expected = Sum::default();
    (0..count).for_each(|n| expected.add(&record(n)));
    // The first round also warms the brokers' caches and our allocator, so each variant runs twice.
    for round in 1..=2 {
        for (how, settings) in [("librdkafka's settings", &[][..]), ("our settings", OURS)] {
            let (began, cpu_before) = (Instant::now(), cpu());
            let sum = plain(&config, settings, partitions, count);
            report(&format!("read by BaseConsumer::poll with {how}, round {round}"), &sum, &expected, began, cpu_before);
        }
        for of in [1, 2] {
            let (began, cpu_before) = (Instant::now(), cpu());
            let readers: Vec<_> = (0..of)
                .map(|index| {
                    let mut reader = log.reader(Share::new(index, of)).expect("a reader");
                    std::thread::spawn(move || {
                        let (mut records, mut sum) = (Vec::new(), Sum::default());
                        let end = reader.end().expect("the end");
                        while !reader.position().reaches(&end) {
                            records.clear();
                            reader.poll(4_096, Duration::from_millis(50), &mut records).expect("polled");
                            records.iter().for_each(|record| sum.add(&record.payload));
                        }
                        sum
                    })
                })
                .collect();
            let mut sum = Sum::default();
            readers.into_iter().for_each(|reader| sum.join(&reader.join().expect("no panic")));
            report(&format!("read by {of} of our readers, round {round}"), &sum, &expected, began, cpu_before);
        }
    }

    let mut reader = log.reader(Share::ALL).expect("a reader");
    reader.seek(&log.end().await.expect("the end")).expect("the end of the log");
    let (arrived, arrivals) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut records = Vec::new();
        loop {
            records.clear();
            reader.poll(4_096, Duration::from_millis(50), &mut records).expect("polled");
            let now = Instant::now();
            if records.iter().any(|record| arrived.send((record.place, now)).is_err()) {
                return;
            }
        }
    });
    let (mut acknowledged, mut heard) = (Vec::new(), Vec::new());
    for n in 0..3_000 {
        let began = Instant::now();
        let place = log.append(Topic::Interactions, vec![record(n)], None).await.expect("appended")[0];
        acknowledged.push(began.elapsed());
        let (at, when) = arrivals.recv().expect("it arrives");
        assert_eq!(at, place);
        heard.push(when - began);
    }
    tell("append of 1, one caller, to acknowledged", &mut acknowledged);
    tell("append of 1, one caller, to read by another thread", &mut heard);

    let mut callers = JoinSet::new();
    let began = Instant::now();
    for caller in 0..64 {
        let log = log.clone();
        callers.spawn(async move {
            let mut took = Vec::new();
            for n in 0..300 {
                let began = Instant::now();
                log.append(Topic::Interactions, vec![record(caller * 300 + n)], None).await.expect("appended");
                took.push(began.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
    println!("append of 1, 64 callers: {:.0}/s", took.len() as f64 / began.elapsed().as_secs_f64());
    tell("append of 1, 64 callers, to acknowledged", &mut took);

    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        log.end().await.expect("the end");
        took.push(began.elapsed());
    }
    tell(&format!("end of {} partitions", 4 * partitions), &mut took);
    drop(arrivals);
    log.append(Topic::Interactions, vec![record(0)], None).await.expect("appended");
    reading.join().expect("no panic");
}
