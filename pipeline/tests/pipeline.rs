//! The pipeline on the embedded log and store: the store must hold the oracle's rows after any cut into appends, a restart, a
//! rebuild from the log and an erasure sweep.

mod support;

use std::sync::Arc;
use std::time::Duration;

use kindred_log::Share;
use kindred_model::{Position, Record, Semantics, Topic};
use kindred_oracle::inputs;
use kindred_oracle::testing::{Rng, Shape, random_log, small_semantics};
use kindred_pipeline::{PipelineConfig, PipelineState, repair, verify};
use kindred_store::{Change, EpochChanges};
use support::Shop;

const PATIENCE: Duration = Duration::from_secs(60);

/// If this failed, the store would differ from a batch job over the same events.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_holds_what_the_oracle_says() {
    for (seed, workers, semantics) in [(1, 1, Semantics::default()), (2, 2, small_semantics()), (3, 4, small_semantics())] {
        let temp = tempfile::tempdir().expect("a directory");
        let records = random_log(seed, 600, &Shape::default());
        let mut rng = Rng::new(seed);
        let mut feed: Vec<Record> = records.clone();
        feed.extend(records.iter().filter(|_| rng.chance(30)).cloned());
        rng.shuffle(&mut feed);
        let mut shop = Shop::open(temp.path());
        let config = PipelineConfig { workers, ..PipelineConfig::new(semantics.clone()) };
        let mut pipeline = shop.start(&config).await;
        for (n, portion) in feed.chunks(97).enumerate() {
            shop.append(portion).await;
            if n % 3 == 2 {
                // Restarts at an arbitrary point, from what the store holds by then.
                pipeline.stop().expect("it stops");
                drop(shop);
                shop = Shop::open(temp.path());
                pipeline = shop.start(&config).await;
            }
        }
        pipeline.settle(PATIENCE).await.expect("it settles");
        shop.assert_is(&records, &semantics, &format!("seed {seed}, live"));
        let snapshot = shop.store.snapshot().expect("a snapshot");
        assert!(verify(&*snapshot.rows, &semantics, 3).expect("it reads").holds());
        drop(snapshot);
        pipeline.stop().expect("it stops");

        let rebuild = PipelineConfig { from_beginning: true, ..config };
        let pipeline = shop.start(&rebuild).await;
        pipeline.settle(PATIENCE).await.expect("it settles");
        shop.assert_is(&records, &semantics, &format!("seed {seed}, rebuilt"));
        pipeline.stop().expect("it stops");
    }
}

/// If this failed, a damaged row would stay damaged, or `verify` would not report it.
#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_wrong_row_and_repair_mends_it() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = Semantics::default();
    let shop = Shop::open(temp.path());
    let records = random_log(7, 300, &Shape::default());
    let pipeline = shop.start(&PipelineConfig::new(semantics.clone())).await;
    shop.append(&records).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");

    let frontier = shop.store.frontier();
    let invented = Change { table: "points", key: b"nobody\0".to_vec(), row: Some(vec![2]) };
    let unit = EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: vec![invented].into() };
    shop.store.begin().await.expect("begun").apply(unit).await.expect("it writes");
    let report = verify(&*shop.store.snapshot().expect("a snapshot").rows, &semantics, 3).expect("it reads");
    assert_eq!(report.differences.len(), 1, "{report:?}");
    assert_eq!((report.differences[0].key.as_str(), &report.differences[0].expected), ("\"nobody\"", &None));
    assert_eq!(repair(Arc::clone(&shop.store), &semantics).await.expect("it mends"), 1);
    assert!(verify(&*shop.store.snapshot().expect("a snapshot").rows, &semantics, 3).expect("it reads").holds());
}

/// If this failed, an invalid record would stop the pipeline, or be lost without a reason.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_accepted_is_in_rejected_with_its_place_and_reason() {
    let temp = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(temp.path());
    let pipeline = shop.start(&PipelineConfig::new(Semantics::default())).await;
    let good = br#"{"member":"m","item":"i","kind":"view","at":"2026-01-05T10:00:00Z"}"#.to_vec();
    let bad = br#"{"member":"m","item":"i","kind":"stare","at":"2026-01-05T10:00:00Z"}"#.to_vec();
    shop.log
        .append(Topic::Interactions, vec![good.clone(), bad.clone(), b"\xff{".to_vec(), good], None)
        .await
        .expect("it appends");
    pipeline.settle(PATIENCE).await.expect("it settles");
    let rejected = shop.log.rejected(None, 10).await.expect("it answers");
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert_eq!((rejected[0].offset, rejected[1].offset), (1, 2));
    assert!(rejected[0].reason.starts_with("kind: "), "{}", rejected[0].reason);
    assert_eq!(rejected[0].payload.as_bytes(), bad);
    assert_eq!(pipeline.status().rejected, 2);
    pipeline.stop().expect("it stops");
}

/// If this failed, an erased member's raw records would stay in the log, or removing them would change a result.
#[tokio::test(flavor = "multi_thread")]
async fn raw_records_of_an_erased_member_leave_and_no_result_changes() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = Semantics::default();
    let shop = Shop::open(temp.path());
    let lines = |topic, lines: &[&str]| -> Vec<Record> {
        lines.iter().map(|line| Record::decode(topic, line.as_bytes(), &semantics.rules()).expect("valid")).collect()
    };
    let mut records = lines(
        Topic::Interactions,
        &[
            r#"{"member":"ann","item":"x","kind":"purchase","at":"2026-01-05T10:00:00Z"}"#,
            r#"{"session":"s1","item":"y","kind":"purchase","at":"2026-01-05T10:00:00Z"}"#,
            r#"{"member":"bob","item":"x","kind":"purchase","at":"2026-01-05T10:00:00Z"}"#,
            r#"{"member":"bob","item":"y","kind":"purchase","at":"2026-01-06T10:00:00Z"}"#,
        ],
    );
    records.extend(lines(
        Topic::Orders,
        &[
            r#"{"order":"o1","version":1,"status":"paid","member":"ann","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"z","quantity":1,"unit_price_minor":100}]}"#,
            r#"{"order":"o3","version":1,"status":"paid","member":"ann","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"z","quantity":1,"unit_price_minor":100}]}"#,
        ],
    ));
    records.extend(lines(
        Topic::Ledger,
        &[
            r#"{"member":"ann","entry":"e1","kind":"spend","points":5,"at":"2026-01-05T10:00:00Z"}"#,
            r#"{"member":"bob","entry":"e1","kind":"spend","points":5,"at":"2026-01-05T10:00:00Z"}"#,
        ],
    ));
    records.extend(lines(
        Topic::Members,
        &[
            r#"{"session":"s1","version":7,"merged_into":"ann"}"#,
            r#"{"member":"ann","version":1,"state":"activated","invited_by":"bob","activated_at":"2026-01-01T00:00:00Z"}"#,
            r#"{"member":"ann","version":2,"state":"erased","invited_by":"bob","activated_at":"2026-01-01T00:00:00Z"}"#,
        ],
    ));
    shop.append(&records).await;
    // The sweep runs once the state is restored.
    let pipeline = shop.start(&PipelineConfig { raw_days: 0, ..PipelineConfig::new(semantics.clone()) }).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    let begin = std::time::Instant::now();
    while shop.store.named().get("swept:ann").await.expect("it answers").is_none() {
        assert!(begin.elapsed() < PATIENCE, "no sweep; {:?}", pipeline.status());
        assert_eq!(pipeline.status().state, PipelineState::Running);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pipeline.settle(PATIENCE).await.expect("it settles");

    let mut reader = shop.log.reader(Share::ALL).expect("a reader");
    let mut left = Vec::new();
    while reader.poll(100, Duration::from_millis(10), &mut left).is_ok_and(|()| left.len() < records.len() + 3) {}
    let text: String = left.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned() + "\n").collect();
    // What stays: the erased record, the session's link, now final, the orders without their member.
    assert_eq!(text.matches("ann").count(), 3, "{text}");
    assert!(text.contains(r#"{"session":"s1","version":0,"merged_into":"ann"}"#), "{text}");
    assert!(text.contains(r#""erased":true"#) && text.contains("bob"), "{text}");

    let remaining: Vec<Record> = left
        .iter()
        .filter(|record| !record.payload.is_empty())
        .map(|record| Record::decode(record.place.topic, &record.payload, &semantics.rules()).expect("valid"))
        .collect();
    shop.assert_is(&remaining, &semantics, "after the sweep");

    // Later records about her, which also reassign her session and order: they are swept too and restore nothing.
    let mut late = lines(
        Topic::Interactions,
        &[
            r#"{"member":"ann","item":"late","kind":"purchase","at":"2026-01-07T10:00:00Z"}"#,
            r#"{"session":"s1","item":"late","kind":"purchase","at":"2026-01-07T10:00:00Z"}"#,
        ],
    );
    late.extend(lines(
        Topic::Orders,
        &[
            r#"{"order":"o1","version":2,"status":"completed","member":"ann","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"z","quantity":1,"unit_price_minor":100}]}"#,
            r#"{"order":"o1","version":9,"status":"completed","member":"bob","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"z","quantity":1,"unit_price_minor":100}]}"#,
            r#"{"order":"o3","version":9,"status":"cancelled","member":"ann","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"z","quantity":3,"unit_price_minor":100}]}"#,
            r#"{"order":"o2","version":1,"status":"paid","member":"ann","placed_at":"2026-01-06T10:00:00Z","currency":"EUR","lines":[{"line":1,"item":"late","quantity":1,"unit_price_minor":100}]}"#,
        ],
    ));
    late.extend(lines(
        Topic::Members,
        &[
            r#"{"member":"ann","version":9,"state":"activated","tier":"vip","invited_by":"bob","activated_at":"2026-01-01T00:00:00Z"}"#,
            r#"{"session":"s1","version":2,"merged_into":"bob"}"#,
        ],
    ));
    shop.append(&late).await;
    let taken = pipeline.settle(PATIENCE).await.expect("it settles");
    let begin = std::time::Instant::now();
    loop {
        let looked_to = shop.store.named().get("swept_to").await.expect("it answers").expect("it was looked through before");
        let looked_to: Position = String::from_utf8(looked_to).expect("a text").parse().expect("a position");
        if looked_to.reaches(&taken) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "no sweep of what came late; {:?}", pipeline.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let remaining = loop {
        let end = shop.log.end().await.expect("it answers");
        let (mut reader, mut left) = (shop.log.reader(Share::ALL).expect("a reader"), Vec::new());
        while !reader.position().reaches(&end) {
            reader.poll(100, Duration::from_millis(10), &mut left).expect("it reads");
        }
        left.retain(|record| !record.payload.is_empty());
        let text: String = left.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned() + "\n").collect();
        // The erased record and the session's link stay, and that s1 was reassigned to bob; s1's interactions are removed.
        if text.matches("\"ann\"").count() == 3 && text.matches("\"s1\"").count() == 3 {
            let read = |record: &kindred_log::LogRecord| Record::decode(record.place.topic, &record.payload, &semantics.rules());
            break left.iter().map(|record| read(record).expect("valid")).collect::<Vec<Record>>();
        }
        assert!(begin.elapsed() < PATIENCE, "late records stay: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    pipeline.settle(PATIENCE).await.expect("it settles");
    shop.assert_is(&remaining, &semantics, "after the sweep of what came late");
    let shown = inputs(remaining.clone(), &semantics);
    assert!(shown.orders.values().all(|order| order.erased && order.member.is_none()), "{:?}", shown.orders);
    let cancelled = shown.orders.values().filter(|order| order.version == 9 && order.lines.iter().any(|line| line.quantity == 3));
    assert_eq!(cancelled.count(), 1, "what came late of an order is of it, without its member: {:?}", shown.orders);
    pipeline.stop().expect("it stops");
    let pipeline = shop.start(&PipelineConfig { from_beginning: true, ..PipelineConfig::new(semantics.clone()) }).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    shop.assert_is(&remaining, &semantics, "rebuilt after the sweep");
    pipeline.stop().expect("it stops");
}
