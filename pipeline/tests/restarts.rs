//! Starts and stops of the pipeline at bad moments: a store that fails during the restore, and a stop under load.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kindred_model::views::Visit;
use kindred_oracle::testing::{Rng, Shape, random_log, small_semantics};
use kindred_pipeline::{Pipeline, PipelineConfig, PipelineState};
use kindred_store::{Change, EpochChanges, Frontier, ViewStore, WriteSession};
use support::{Shop, append};

const PATIENCE: Duration = Duration::from_secs(30);

async fn settle_and_stop(pipeline: Pipeline) {
    pipeline.settle(PATIENCE).await.expect("it settles");
    pipeline.stop().expect("it stops");
}

/// All rows of a table.
fn rows_of(store: &dyn ViewStore, table: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let visit: Visit<'_> = &mut |key, row| {
        rows.push((key.to_vec(), row.to_vec()));
        ControlFlow::Continue(())
    };
    store.snapshot().expect("a snapshot").rows.scan(table, &[], visit).expect("rows");
    assert!(!rows.is_empty(), "{table} is empty");
    rows
}

async fn apply(store: &dyn ViewStore, changes: Vec<Change>) -> Box<dyn WriteSession> {
    let session = store.begin().await.expect("begun");
    let Frontier { epoch, position, .. } = store.frontier();
    session.apply(EpochChanges { epoch, position, changes: changes.into() }).await.expect("applied");
    session
}

/// If this failed, a store that fails during a restore would end up with the views of a part of the events, marked as complete.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_in_part_is_not_written_for_the_whole() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = small_semantics();
    let config = PipelineConfig { workers: 2, ..PipelineConfig::new(semantics.clone()) };
    let records = random_log(21, 500, &Shape::default());
    let shop = Shop::open(temp.path());
    let pipeline = shop.start(&config).await;
    shop.append(&records).await;
    settle_and_stop(pipeline).await;
    shop.assert_is(&records, &semantics, "at first");

    // One of its inputs, not the first, cannot be read; and the last unit is unfinished, so the next start rewrites all rows.
    let (key, row) = rows_of(&*shop.store, "inputs_orders").pop().expect("a row");
    let unfinished_with = async |shop: Shop, row: Vec<u8>| {
        let session = apply(&*shop.store, vec![Change { table: "inputs_orders", key: key.clone(), row: Some(row) }]).await;
        session.clear(&["points"]).await.expect("emptied");
        drop(session);
        drop(shop);
        Shop::open(temp.path())
    };
    let shop = unfinished_with(shop, vec![0xff]).await;
    let lacking = shop.differences(&records, &semantics);
    assert!(shop.store.frontier().unfinished && lacking.len() > 1, "{lacking:?}");
    let pipeline = shop.start(&config).await;
    tokio::time::timeout(PATIENCE, pipeline.progress().ended()).await.expect("it ends by itself");
    let status = pipeline.status();
    assert_eq!(status.state, PipelineState::Failed);
    assert!(status.reason.is_some_and(|reason| reason.contains("could not read the merged inputs")));
    tokio::task::spawn_blocking(|| pipeline.stop()).await.expect("joined").expect_err("it failed");
    assert_eq!(shop.differences(&records, &semantics), lacking, "nothing was written");
    assert!(shop.store.frontier().unfinished, "and it does not count as whole");

    let shop = unfinished_with(shop, row).await;
    settle_and_stop(shop.start(&config).await).await;
    shop.assert_is(&records, &semantics, "the next start writes it");
}

/// If this failed, a directory filled by an earlier version would silently lack the rows of a newer view.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_new_to_a_store_is_derived_at_the_next_start() {
    let temp = tempfile::tempdir().expect("a directory");
    let semantics = small_semantics();
    let config = PipelineConfig::new(semantics.clone());
    let records = random_log(23, 500, &Shape::default());
    let shop = Shop::open(temp.path());
    let pipeline = shop.start(&config).await;
    shop.append(&records).await;
    settle_and_stop(pipeline).await;

    // As left by a version without member_orders.
    let store = &shop.store;
    let gone = rows_of(&**store, "member_orders").into_iter().map(|(key, _)| Change { table: "member_orders", key, row: None });
    apply(&**store, gone.collect()).await.end().await.expect("whole");
    assert!(!shop.differences(&records, &semantics).is_empty());
    let known = store.named().get("tables").await.expect("read").expect("the store names its tables");
    let known = String::from_utf8(known).expect("text").replace("member_orders", "");
    store.named().put("tables", known.as_bytes()).await.expect("written");

    for start_number in 1..=2 {
        settle_and_stop(shop.start(&config).await).await;
        shop.assert_is(&records, &semantics, &format!("start {start_number}"));
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
    let shop = Shop::open(temp.path());
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let poster = {
        let (log, records, ended, sent) = (Arc::clone(&shop.log), records.clone(), Arc::clone(&ended), Arc::clone(&sent));
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
        let pipeline = shop.start(&config).await;
        tokio::time::sleep(Duration::from_millis(5 + rng.below(60))).await;
        let stopped = tokio::task::spawn_blocking(|| pipeline.stop());
        let stopped = tokio::time::timeout(PATIENCE, stopped).await;
        stopped.unwrap_or_else(|_| panic!("round {round}: the stop hangs")).expect("joined").expect("it stops in order");
    }
    ended.store(true, Ordering::Release);
    poster.await.expect("it posts");
    settle_and_stop(shop.start(&config).await).await;
    shop.assert_is(&records, &semantics, "after 30 stops");
}
