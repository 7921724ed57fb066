//! Figures of the store: `cargo run --release -p kindred-store --example measure_store -- WHERE [ROWS [BUCKETS]]`. WHERE is a directory that
//! does not exist yet (embedded), or `cql://HOST:PORT`: then a keyspace `kindred_measure_BUCKETS` is used, with a generation that is
//! dropped at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_model::Position;
use kindred_model::units::EventTime;
use kindred_model::views::{input_tables, view_tables};
use kindred_store::cql::{CqlConfig, CqlGenerations, CqlStore};
use kindred_store::embedded::EmbeddedStore;
use kindred_store::generations::Generations;
use kindred_store::{Change, EpochChanges, ViewStore};

/// Reads a second of the open loop, and for how many seconds.
const READS_PER_SECOND: u32 = 1_000;
const READS_SECONDS: u32 = 20;
/// An identity's end in a key: what stands before decides the partition on CQL.
const END: [u8; 1] = [0];

/// Where the measured store is.
enum Place {
    Directory(PathBuf),
    Cql(CqlGenerations, String),
}

impl Place {
    async fn of(text: &str, buckets: u32) -> Self {
        let Some(node) = text.strip_prefix("cql://") else { return Self::Directory(text.into()) };
        let keyspace = format!("kindred_measure_{buckets}");
        let (view_buckets, input_buckets) = (buckets, buckets);
        let config = CqlConfig { nodes: vec![node.to_owned()], keyspace, view_buckets, input_buckets, ..CqlConfig::default() };
        CqlStore::migrate(config.clone()).await.expect("migrated");
        let generations = CqlStore::generations_of(config).await.expect("connected");
        let name = format!("measure-{}", std::process::id());
        generations.create(&name, "", EventTime(0)).await.expect("created");
        Self::Cql(generations, name)
    }

    async fn open(&self) -> Arc<dyn ViewStore> {
        match self {
            Self::Directory(directory) => Arc::new(EmbeddedStore::open(directory).expect("opened")),
            Self::Cql(generations, name) => Arc::new(CqlStore::open_in(generations, name).await.expect("opened")),
        }
    }
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms ({} calls, {:.0}/s)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        took.len(),
        took.len() as f64 / took.iter().sum::<Duration>().as_secs_f64()
    );
}

/// Well mixed, the same in every run.
fn mixed(n: u64) -> u64 {
    let x = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// An owner, and one of its identities.
fn input_key(owner: u64, identity: u64) -> Vec<u8> {
    [format!("{:016x}", mixed(owner)).as_bytes(), &END, &identity.to_be_bytes(), &[7; 8]].concat()
}

/// An item.
fn list_key(item: u64) -> Vec<u8> {
    [format!("{:016x}", mixed(item)).as_bytes(), &END].concat()
}

/// A list of fifty.
const LIST_BYTES: usize = 600;

fn row(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64 / 8).flat_map(|n| mixed(seed * 1_000 + n).to_be_bytes()).collect()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().expect("a directory, or cql://HOST:PORT");
    let bulk: u64 = arguments.next().map_or(2_000_000, |text| text.parse().expect("a number"));
    let buckets = arguments.next().map_or(64, |text| text.parse().expect("a number"));
    let place = Place::of(&place, buckets).await;
    let store = place.open().await;
    let session = store.begin().await.expect("begun");
    let (input, view) = (input_tables()[0].name, view_tables()[0].name);
    let unit =
        |epoch: u64, changes: Vec<Change>| EpochChanges { epoch, position: Position::beginning(), changes: changes.into() };

    let mut changes: Vec<Change> =
        (0..bulk).map(|n| Change { table: input, key: input_key(n, n), row: Some(row(n, 24)) }).collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let first = unit(1, changes);
    let started = Instant::now();
    session.apply(first).await.expect("applied");
    println!(
        "bulk, one unit of {bulk} sorted rows of 33 + 24 bytes: {:.0} rows/s",
        bulk as f64 / started.elapsed().as_secs_f64()
    );
    let mut rest = Duration::ZERO;
    for epoch in 0..8 {
        let n = bulk / 16;
        let changes =
            (0..n).map(|m| Change { table: view, key: list_key(epoch * n + m), row: Some(row(m, LIST_BYTES)) }).collect();
        let started = Instant::now();
        session.apply(unit(epoch + 2, changes)).await.expect("applied");
        rest += started.elapsed();
    }
    println!(
        "bulk, {} lists of {LIST_BYTES} bytes in eight units, any order: {:.0} rows/s",
        bulk / 2,
        bulk as f64 / 2.0 / rest.as_secs_f64()
    );

    let live = |epoch: u64| {
        let inputs =
            (0..20).map(|n| Change { table: input, key: input_key(epoch * 20 + n + bulk, epoch), row: Some(row(n, 24)) });
        let lists = (0..200).map(|n| Change {
            table: view,
            key: list_key(mixed(epoch * 200 + n) % (bulk / 2)),
            row: Some(row(epoch, LIST_BYTES)),
        });
        unit(100 + epoch, inputs.chain(lists).collect())
    };
    // A closed loop shows the throughput, a loop at a fixed rate the latency that a shop of 1,000 events/s would see.
    for (name, epochs, every) in [("closed loop", 2_000_u64, Duration::ZERO), ("20 a second", 600, Duration::from_millis(50))] {
        let (mut took, mut synced, mut last, began) = (Vec::new(), Vec::new(), Instant::now(), Instant::now());
        for epoch in 0..epochs {
            let unit = live(epoch);
            let due = began + every * u32::try_from(epoch).expect("few");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let started = Instant::now();
            session.apply(unit).await.expect("applied");
            took.push(started.elapsed());
            if last.elapsed() > Duration::from_secs(1) {
                let started = Instant::now();
                store.sync().await.expect("synced");
                synced.push(started.elapsed());
                last = Instant::now();
            }
        }
        tell(&format!("apply of 20 inputs and 200 lists, {name}"), took);
        tell("sync, once a second", synced);
    }
    let mut took = Vec::new();
    for n in 0..20_000_u64 {
        let key = list_key(mixed(n) % (bulk / 2));
        let started = Instant::now();
        let found = store.get(view, &key).await.expect("read");
        took.push(started.elapsed());
        assert!(found.is_some());
    }
    tell("get of a list, one after the other", took);
    // At a fixed rate, whatever the answers take; from when each was due.
    let began = Instant::now();
    let mut reads = Vec::new();
    for n in 0..READS_PER_SECOND * READS_SECONDS {
        let due = began + Duration::from_secs(1) * n / READS_PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let (store, key) = (store.clone(), list_key(mixed(u64::from(n)) % (bulk / 2)));
        reads.push(tokio::spawn(async move {
            assert!(store.get(view, &key).await.expect("read").is_some());
            due.elapsed()
        }));
    }
    let mut took = Vec::new();
    for read in reads {
        took.push(read.await.expect("no panic"));
    }
    tell(&format!("get of a list, open loop at {READS_PER_SECOND}/s"), took);
    for table in [input, view] {
        let reader = store.clone();
        let (count, took) = tokio::task::spawn_blocking(move || {
            let (started, mut count) = (Instant::now(), 0_u64);
            let visit = &mut |_: &[u8], _: &[u8]| {
                count += 1;
                std::ops::ControlFlow::Continue(())
            };
            reader.snapshot().expect("a snapshot").rows.scan(table, b"", visit).expect("scanned");
            (count, started.elapsed())
        })
        .await
        .expect("no panic");
        let told = store.row_count(table).expect("counted");
        println!("scan of {table}: {:.0} rows/s ({count}); told {told}", count as f64 / took.as_secs_f64());
    }
    println!("disk: {} MB", store.disk_bytes().unwrap_or(0) / 1_000_000);
    session.end().await.expect("a clean end");
    let started = Instant::now();
    drop(store);
    println!("close: {:?}", started.elapsed());
    for _ in 0..2 {
        let started = Instant::now();
        let store = place.open().await;
        println!("open: {:?}", started.elapsed());
        drop(store);
    }
    if let Place::Cql(generations, name) = &place {
        let started = Instant::now();
        generations.drop(name).await.expect("dropped");
        println!("drop of the generation: {:?}", started.elapsed());
    }
}
