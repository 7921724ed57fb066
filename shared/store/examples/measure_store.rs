//! Figures of the embedded store: `cargo run --release -p kindred-store --example measure_store -- DIR [ROWS]`. DIR must not exist.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kindred_model::Position;
use kindred_model::views::{input_tables, view_tables};
use kindred_store::embedded::EmbeddedStore;
use kindred_store::{Change, EpochChanges, ViewStore};

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

fn row(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64 / 8).flat_map(|n| mixed(seed * 1_000 + n).to_be_bytes()).collect()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("a directory"));
    let bulk: u64 = arguments.next().map_or(2_000_000, |text| text.parse().expect("a number"));
    let store = EmbeddedStore::open(&dir).expect("opened");
    let (input, view) = (input_tables()[0].name, view_tables()[0].name);
    let unit = |epoch: u64, changes: Vec<Change>| EpochChanges { epoch, position: Position::beginning(), changes };

    let mut changes: Vec<Change> = (0..bulk)
        .map(|n| Change { table: input, key: [mixed(n).to_be_bytes(), n.to_be_bytes(), [7; 8]].concat(), row: Some(row(n, 24)) })
        .collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let first = unit(1, changes);
    let started = Instant::now();
    store.apply(first).await.expect("applied");
    println!(
        "bulk, one unit of {bulk} sorted rows of 24 + 24 bytes: {:.0} rows/s",
        bulk as f64 / started.elapsed().as_secs_f64()
    );
    let mut rest = Duration::ZERO;
    for epoch in 0..8 {
        let n = bulk / 16;
        let changes = (0..n)
            .map(|m| Change { table: view, key: mixed(epoch * n + m).to_be_bytes().to_vec(), row: Some(row(m, 400)) })
            .collect();
        let started = Instant::now();
        store.apply(unit(epoch + 2, changes)).await.expect("applied");
        rest += started.elapsed();
    }
    println!(
        "bulk, {} lists of 400 bytes in eight units, any order: {:.0} rows/s",
        bulk / 2,
        bulk as f64 / 2.0 / rest.as_secs_f64()
    );

    let live = |epoch: u64| {
        let inputs = (0..20).map(|n| Change {
            table: input,
            key: [mixed(epoch * 20 + n + bulk).to_be_bytes(), epoch.to_be_bytes(), [7; 8]].concat(),
            row: Some(row(n, 24)),
        });
        let lists = (0..200).map(|n| Change {
            table: view,
            key: mixed(mixed(epoch * 200 + n) % (bulk / 2)).to_be_bytes().to_vec(),
            row: Some(row(epoch, 400)),
        });
        unit(100 + epoch, inputs.chain(lists).collect())
    };
    // A closed loop shows the throughput, a loop at a fixed rate the latency that a shop of 1,000 events/s would see.
    for (name, epochs, every) in [("closed loop", 5_000_u64, Duration::ZERO), ("50 a second", 1_500, Duration::from_millis(20))] {
        let (mut took, mut synced, mut last, began) = (Vec::new(), Vec::new(), Instant::now(), Instant::now());
        for epoch in 0..epochs {
            let unit = live(epoch);
            let due = began + every * u32::try_from(epoch).expect("few");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let started = Instant::now();
            store.apply(unit).await.expect("applied");
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
    for n in 0..100_000_u64 {
        let key = mixed(mixed(n) % (bulk / 2)).to_be_bytes();
        let started = Instant::now();
        let found = store.get(view, &key).await.expect("read");
        took.push(started.elapsed());
        assert!(found.is_some());
    }
    tell("get of a list", took);
    for table in [input, view] {
        let (started, mut count) = (Instant::now(), 0_u64);
        let visit = &mut |_: &[u8], _: &[u8]| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        };
        store.snapshot().expect("a snapshot").rows.scan(table, b"", visit).expect("scanned");
        println!(
            "scan of {table}: {:.0} rows/s ({count}); told {}",
            count as f64 / started.elapsed().as_secs_f64(),
            store.row_count(table).expect("counted")
        );
    }
    println!("disk: {} MB", store.disk_bytes().unwrap_or(0) / 1_000_000);
    let started = Instant::now();
    drop(store);
    println!("close: {:?}", started.elapsed());
    for _ in 0..2 {
        let started = Instant::now();
        let store = EmbeddedStore::open(&dir).expect("opened");
        println!("open: {:?}", started.elapsed());
        drop(store);
    }
}
