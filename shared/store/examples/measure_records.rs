//! Figures of the records: `cargo run --release -p kindred-store --example measure_records -- WHERE [TRANSACTIONS]`. WHERE is a directory
//! that does not exist yet (embedded), or `cql://HOST:PORT`: then a keyspace `kindred_measure_records` is made, and left there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_model::units::EventTime;
use kindred_store::cql::{CqlConfig, CqlRecords, CqlStore};
use kindred_store::records::embedded::EmbeddedRecords;
use kindred_store::records::{Outcome, Range, RecordStore, Step};

const NOW: EventTime = EventTime(1_767_600_000_000);
/// Of a record, about an account's.
const VALUE_BYTES: usize = 400;

async fn open(place: &str) -> Arc<dyn RecordStore> {
    let Some(node) = place.strip_prefix("cql://") else {
        return Arc::new(EmbeddedRecords::open(Path::new(place)).expect("opened"));
    };
    let config =
        CqlConfig { nodes: vec![node.to_owned()], keyspace: "kindred_measure_records".to_owned(), ..CqlConfig::default() };
    CqlStore::migrate(config.clone()).await.expect("migrated");
    Arc::new(CqlRecords::open(config).await.expect("opened"))
}

/// Calls by so many tasks at a time, and how long each took.
async fn measure<F>(what: &str, tasks: usize, calls: usize, call: impl Fn(usize) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut took = Vec::with_capacity(calls / tasks);
                for n in (task..calls).step_by(tasks) {
                    let began = Instant::now();
                    call(n).await;
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = Vec::with_capacity(calls);
    for running in running {
        took.extend(running.await.expect("no panic"));
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}, {tasks} at a time: {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms ({} calls)",
        at(0.5),
        at(0.99),
        at(1.0),
        took.len()
    );
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().expect("WHERE: a directory, or cql://HOST:PORT");
    let transactions: usize = arguments.next().map_or(5_000, |text| text.parse().expect("a number of transactions"));
    let store = open(&place).await;
    let run = std::process::id();
    let key = move |tasks: usize, n: usize| format!("{run} {tasks} {n}").into_bytes();
    for tasks in [1, 8, 64] {
        let calls = if tasks == 1 { transactions / 5 } else { transactions };
        let records = Arc::clone(&store);
        measure("insert into a partition of its own", tasks, calls, move |n| {
            let store = Arc::clone(&records);
            async move {
                let steps = [Step::insert("a", vec![b'v'; VALUE_BYTES], None)];
                let outcome = store.transact("accounts", &key(tasks, n), &steps, NOW).await.expect("answered");
                assert!(matches!(outcome, Outcome::Done(_)));
            }
        })
        .await;
        let records = Arc::clone(&store);
        measure("read", tasks, calls, move |n| {
            let store = Arc::clone(&records);
            async move { assert!(store.read("accounts", &key(tasks, n), b"a", NOW).await.expect("answered").is_some()) }
        })
        .await;
        let records = Arc::clone(&store);
        measure("read, then replace with a second record", tasks, calls, move |n| {
            let store = Arc::clone(&records);
            async move {
                let read = store.read("accounts", &key(tasks, n), b"a", NOW).await.expect("answered").expect("there");
                let steps = [Step::replace("a", read.version, read.value, None), Step::insert("b", vec![b'v'; 40], None)];
                let outcome = store.transact("accounts", &key(tasks, n), &steps, NOW).await.expect("answered");
                assert!(matches!(outcome, Outcome::Done(_)));
            }
        })
        .await;
    }
    for task in 0..300 {
        let partition = [key(0, task), vec![0]].concat();
        for n in 0..4 {
            store.transact("mail_outbox", &partition, &[Step::insert([n], vec![b'v'; 40], None)], NOW).await.expect("answered");
        }
    }
    measure("scan of a partition of four", 1, 1_000, {
        let store = Arc::clone(&store);
        move |n| {
            let (store, partition) = (Arc::clone(&store), [key(0, n % 300), vec![0]].concat());
            async move {
                let found = store.scan("mail_outbox", &partition, &Range::default(), 100, NOW).await.expect("answered");
                assert_eq!(found.len(), 4);
            }
        }
    })
    .await;
}
