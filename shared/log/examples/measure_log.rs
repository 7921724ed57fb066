//! Benchmark of the embedded log: `cargo run --release -p kindred-log --example measure_log -- DIR [RECORDS]`. DIR must not
//! exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_log::embedded::EmbeddedLog;
use kindred_log::{EventLog, Share};
use kindred_model::Topic;

fn records(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("{{\"member\":\"m{n:07}\",\"item\":\"i{:05}\",\"kind\":\"view\",\"at\":\"2026-01-05T10:11:12.123Z\",\"reco_id\":\"{:x}\",\"pad\":\"{:0>80}\"}}", n * 7919 % 20_000, n * 1_000_003, n).into_bytes()).collect()
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms ({} calls)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        took.len()
    );
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("a directory"));
    let bulk: usize = arguments.next().map_or(2_000_000, |text| text.parse().expect("a number"));
    let log = Arc::new(EmbeddedLog::open(&dir).expect("opened"));
    for (size, calls) in [(1, 3_000), (100, 1_000)] {
        let record = records(size);
        let mut took = Vec::new();
        for _ in 0..calls {
            let started = Instant::now();
            log.append(Topic::Interactions, record.clone(), None).await.expect("appended");
            took.push(started.elapsed());
        }
        tell(&format!("append of {size}, one caller"), took);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let log = log.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..500 {
                let started = Instant::now();
                log.append(Topic::Interactions, records(1), None).await.expect("appended");
                took.push(started.elapsed());
            }
            took
        });
    }
    let took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    println!("64 callers: {:.0} appends/s", took.len() as f64 / started.elapsed().as_secs_f64());
    tell("append of 1, 64 callers", took);

    let batch = records(10_000);
    let bytes: usize = batch.iter().map(Vec::len).sum();
    let started = Instant::now();
    for _ in 0..bulk / batch.len() {
        log.append(Topic::Interactions, batch.clone(), None).await.expect("appended");
    }
    let rate = bulk as f64 / started.elapsed().as_secs_f64();
    println!("bulk append of {bulk} records of {} bytes in tens of thousands: {rate:.0} records/s", bytes / batch.len());
    println!("disk: {} MB", log.disk_bytes().unwrap_or(0) / 1_000_000);

    for round in ["first", "second"] {
        let (mut reader, mut into, mut count) = (log.reader(Share::ALL).expect("a reader"), Vec::new(), 0);
        let started = Instant::now();
        loop {
            into.clear();
            reader.poll(20_000, Duration::ZERO, &mut into).expect("polled");
            count += into.len();
            if into.is_empty() {
                break;
            }
        }
        println!("{round} scan: {:.0} records/s ({count})", count as f64 / started.elapsed().as_secs_f64());
    }
    let started = Instant::now();
    drop(log);
    println!("close: {:?}", started.elapsed());
    for _ in 0..2 {
        let started = Instant::now();
        let log = EmbeddedLog::open(&dir).expect("opened");
        println!("open: {:?}", started.elapsed());
        drop(log);
    }
    let log = EmbeddedLog::open(&dir).expect("opened");
    let started = Instant::now();
    let purged = log
        .purge(Topic::Interactions, &log.end().await.expect("the end"), &|payload| {
            payload.windows(10).any(|w| w == b"\"m0000042\"")
        })
        .await
        .expect("purged");
    println!("purge of {purged}: {:?}", started.elapsed());
}
