//! Starts and stops of the pipeline at bad moments: a store that fails during the restore, and a stop under load.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kindred_clock::Clock;
use kindred_log::EventLog;
use kindred_log::embedded::EmbeddedLog;
use kindred_model::views::inputs::Interactions;
use kindred_model::views::{Table, Visit};
use kindred_model::{EventTime, Record, Semantics, Topic};
use kindred_oracle::testing::{Rng, Shape, random_log, small_semantics};
use kindred_oracle::{first_differences, inputs, tables};
use kindred_pipeline::{Pipeline, PipelineConfig, PipelineState};
use kindred_store::embedded::EmbeddedStore;
use kindred_store::{Change, EpochChanges, Frontier, ViewStore};

const PATIENCE: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> (Arc<dyn EventLog>, Arc<dyn ViewStore>) {
    let log = EmbeddedLog::open(&dir.join("log")).expect("a log");
    (Arc::new(log), Arc::new(EmbeddedStore::open(&dir.join("store")).expect("a store")))
}

async fn start(log: &Arc<dyn EventLog>, store: &Arc<dyn ViewStore>, config: &PipelineConfig) -> Pipeline {
    let clock = Clock::fixed(EventTime(1_780_000_000_000));
    Pipeline::start(config.clone(), Arc::clone(log), Arc::clone(store), clock).await.expect("it starts")
}

async fn append(log: &Arc<dyn EventLog>, records: &[Record]) {
    for topic in Topic::ALL {
        let payloads: Vec<Vec<u8>> = records.iter().filter(|record| record.topic() == *topic).map(Record::to_json).collect();
        if !payloads.is_empty() {
            log.append(*topic, payloads, None).await.expect("it appends");
        }
    }
}

/// The number of rows that differ from the oracle's.
fn differences(store: &Arc<dyn ViewStore>, records: &[Record], semantics: &Semantics) -> usize {
    let expected = tables(&inputs(records.iter().cloned(), semantics), semantics);
    let snapshot = store.snapshot().expect("a snapshot");
    first_differences(&expected, &*snapshot.rows, 1_000).expect("rows").len()
}

/// If this failed, a store that fails during a restore would end up with the views of a part of the events, marked as complete.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_in_part_is_not_written_for_the_whole() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = small_semantics();
    let config = PipelineConfig { workers: 2, ..PipelineConfig::new(semantics.clone()) };
    let records = random_log(21, 500, &Shape::default());
    let (log, store) = open(temp.path());
    let pipeline = start(&log, &store, &config).await;
    append(&log, &records).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");
    assert_eq!(differences(&store, &records, &semantics), 0);

    // The row that is restored last does not decode. And the last unit is unfinished, so the next start rewrites all rows.
    let damage = async |store: &Arc<dyn ViewStore>, row: Option<Vec<u8>>| {
        let session = store.begin().await.expect("begun");
        let Frontier { epoch, position, .. } = store.frontier();
        let change = Change { table: Interactions::NAME, key: vec![0xff; 3], row };
        session.apply(EpochChanges { epoch, position, changes: vec![change].into() }).await.expect("applied");
        session.clear(&["points"]).await.expect("emptied");
    };
    damage(&store, Some(vec![0xff])).await;
    drop((log, store));
    let (log, store) = open(temp.path());
    assert!(store.frontier().unfinished);
    let lacking = differences(&store, &records, &semantics);
    assert!(lacking > 0);
    let pipeline = start(&log, &store, &config).await;
    tokio::time::timeout(PATIENCE, pipeline.progress().ended()).await.expect("it ends by itself");
    let status = pipeline.status();
    assert_eq!(status.state, PipelineState::Failed);
    assert!(status.reason.is_some_and(|reason| reason.contains("could not read the merged inputs")));
    tokio::task::spawn_blocking(|| pipeline.stop()).await.expect("joined").expect_err("it failed");
    assert_eq!(differences(&store, &records, &semantics), lacking, "nothing was written");
    assert!(store.frontier().unfinished, "and it does not count as whole");

    damage(&store, None).await;
    drop((log, store));
    let (log, store) = open(temp.path());
    let pipeline = start(&log, &store, &config).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");
    assert_eq!(differences(&store, &records, &semantics), 0, "the next start writes it");
}

/// If this failed, a directory filled by an earlier version would silently lack the rows of a newer view.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_new_to_a_store_is_derived_at_the_next_start() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = small_semantics();
    let config = PipelineConfig::new(semantics.clone());
    let records = random_log(23, 500, &Shape::default());
    let (log, store) = open(temp.path());
    let pipeline = start(&log, &store, &config).await;
    append(&log, &records).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");

    // As left by a version without member_orders.
    let mut rows = Vec::new();
    let snapshot = store.snapshot().expect("a snapshot");
    let visit: Visit<'_> = &mut |key, _| {
        rows.push(Change { table: "member_orders", key: key.to_vec(), row: None });
        ControlFlow::Continue(())
    };
    snapshot.rows.scan("member_orders", &[], visit).expect("rows");
    assert!(!rows.is_empty());
    let Frontier { epoch, position, .. } = snapshot.frontier;
    let session = store.begin().await.expect("begun");
    session.apply(EpochChanges { epoch, position, changes: rows.into() }).await.expect("applied");
    session.end().await.expect("whole");
    assert!(differences(&store, &records, &semantics) > 0);
    let known = store.named().get("tables").await.expect("read").expect("the store names its tables");
    let known = String::from_utf8(known).expect("text").replace("member_orders", "");
    store.named().put("tables", known.as_bytes()).await.expect("written");

    for start_number in 1..=2 {
        let pipeline = start(&log, &store, &config).await;
        pipeline.settle(PATIENCE).await.expect("it settles");
        pipeline.stop().expect("it stops");
        assert_eq!(differences(&store, &records, &semantics), 0, "start {start_number}");
        assert!(!store.frontier().unfinished, "start {start_number}");
    }
}

/// If this failed, workers would miscount who is done, and stopping under load would hang or lose records.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_ends_in_order_and_loses_nothing() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = small_semantics();
    let config = PipelineConfig { workers: 4, epoch_min: Duration::ZERO, ..PipelineConfig::new(semantics.clone()) };
    let records = random_log(22, 4_000, &Shape::default());
    let (log, store) = open(temp.path());
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let poster = {
        let (log, records, ended, sent) = (Arc::clone(&log), records.clone(), Arc::clone(&ended), Arc::clone(&sent));
        tokio::spawn(async move {
            for portion in records.chunks(7).cycle() {
                if ended.load(Ordering::Acquire) && sent.load(Ordering::Acquire) >= records.len() {
                    break;
                }
                append(&log, portion).await;
                sent.fetch_add(portion.len(), Ordering::AcqRel);
            }
        })
    };
    let mut rng = Rng::new(22);
    for round in 0..30 {
        let pipeline = start(&log, &store, &config).await;
        tokio::time::sleep(Duration::from_millis(5 + rng.below(60))).await;
        let stopped = tokio::task::spawn_blocking(|| pipeline.stop());
        let stopped = tokio::time::timeout(PATIENCE, stopped).await;
        stopped.unwrap_or_else(|_| panic!("round {round}: the stop hangs")).expect("joined").expect("it stops in order");
    }
    ended.store(true, Ordering::Release);
    poster.await.expect("it posts");
    let pipeline = start(&log, &store, &config).await;
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");
    assert_eq!(differences(&store, &records, &semantics), 0);
}
