//! Tests against a real database, at `KINDRED_TEST_CASSANDRA` (host:port); `tests/run` starts one. Without it they print that
//! they did not run. All share one keyspace, since schema changes are slow; each store has its own generation.

use std::sync::Arc;

use kindred_model::units::EventTime;
use kindred_model::views::{input_tables, view_tables};
use kindred_model::{Position, Topic};
use tokio::sync::OnceCell;

use super::*;
use crate::generations::Generations;
use crate::{ViewStore, conformance};

const AT: EventTime = EventTime(1_767_600_000_000);

/// The settings of the database, if there is one.
fn database() -> Option<CqlConfig> {
    let Ok(node) = std::env::var("KINDRED_TEST_CASSANDRA") else {
        eprintln!("NOT RUN: the store on CQL: KINDRED_TEST_CASSANDRA names no Cassandra (host:port)");
        return None;
    };
    let keyspace = format!("kindred_test_{}", std::process::id());
    Some(CqlConfig {
        nodes: vec![node],
        keyspace,
        view_buckets: 8,
        input_buckets: 8,
        frontier_poll_ms: 50,
        ..CqlConfig::default()
    })
}

/// The keyspace of this run, created by the first test.
pub(super) async fn keyspace() -> Option<CqlConfig> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let config = database()?;
    MADE.get_or_init(async || {
        let made = CqlStore::migrate(config.clone()).await.expect("migrated");
        assert_eq!(made.buckets, Buckets { views: 8, inputs: 8 });
    })
    .await;
    Some(config)
}

async fn opened(config: &CqlConfig, generation: &str) -> Arc<CqlStore> {
    let generations = CqlStore::generations_of(config.clone()).await.expect("connected");
    if !generations.list().await.expect("listed").iter().any(|there| there.name == generation) {
        generations.create(generation, "settings", AT).await.expect("created");
    }
    Arc::new(CqlStore::open_in(&generations, generation).await.expect("opened"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(config) = keyspace().await else { return };
    let open = async |name: &str| opened(&config, &format!("run-{name}")).await as Arc<dyn ViewStore>;
    conformance::run(&open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_between_processes() {
    let Some(config) = keyspace().await else { return };
    let open = async |name: &str| opened(&config, &format!("shared-{name}")).await as Arc<dyn ViewStore>;
    conformance::run_shared(&open).await;
}

/// If this failed, a wrong keyspace would be written to, or the error would not help.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_does_not_fit_is_refused_with_the_command() {
    let Some(config) = keyspace().await else { return };
    let again = CqlStore::migrate(CqlConfig { view_buckets: 99, ..config.clone() }).await.expect("migrated again");
    assert_eq!(again, Migrated { applied: Vec::new(), buckets: Buckets { views: 8, inputs: 8 } }, "what was fixed stays");
    let refusal = async |config: &CqlConfig| match CqlStore::open(config.clone(), "g1").await {
        Err(StoreError::Refused(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    };
    let nowhere = CqlConfig { keyspace: "kindred_is_not_here".into(), ..config.clone() };
    assert!(refusal(&nowhere).await.contains("`kindred migrate`"));
    // In its own keyspace: the others share theirs.
    let own = CqlConfig { keyspace: format!("{}_schema", config.keyspace), ..config.clone() };
    CqlStore::migrate(own.clone()).await.expect("migrated");
    let session = session::connect(&own).await.expect("connected");
    let run = async |text: &str| {
        let text = text.replace("KS", &own.keyspace);
        session.query_unpaged(text, ()).await.expect("it is done");
    };
    assert!(refusal(&own).await.contains("there is no generation g1"));
    run("INSERT INTO KS.schema_migrations (number, name, checksum) VALUES (999, '999_later', 'x')").await;
    let unknown = refusal(&own).await;
    assert!(unknown.contains("999_later") && unknown.contains("`kindred migrate`"), "{unknown}");
    run("DELETE FROM KS.schema_migrations WHERE number = 999").await;
    run("UPDATE KS.schema_migrations SET checksum = 'x' WHERE number = 1").await;
    let edited = refusal(&own).await;
    assert!(edited.contains("001_tables") && edited.contains("`kindred migrate`"), "{edited}");
    run("DELETE FROM KS.schema_migrations WHERE number = 1").await;
    assert!(refusal(&own).await.contains("lacks migration 001_tables: run `kindred migrate`"));
    let mended = CqlStore::migrate(own.clone()).await.expect("an interrupted migration is repeated");
    assert_eq!(mended.applied, ["001_tables"]);
    run("DROP KEYSPACE KS").await;
}

/// If this failed, half a promotion would be visible, or a dropped generation leave rows to the next of its name.
#[tokio::test(flavor = "multi_thread")]
async fn generations_live_side_by_side() {
    let Some(config) = keyspace().await else { return };
    let generations = CqlStore::generations_of(config.clone()).await.expect("connected");
    let refused = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
    generations.create("side-1", "K=50", AT).await.expect("created");
    generations.create("side-2", "K=100", EventTime(AT.0 + 1)).await.expect("created");
    refused(generations.create("side-1", "K=50", EventTime(1)).await);
    refused(generations.create("Side 1", "", AT).await);
    let (one, two) = (input_tables()[0].name, view_tables()[0].name);
    let put = |table, key: &str, row: &str| Change { table, key: key.into(), row: Some(row.into()) };
    let (first, second) = (opened(&config, "side-1").await, opened(&config, "side-2").await);
    let mut position = Position::beginning();
    position.passed(Topic::Orders, 3, 7);
    let mut sessions = Vec::new();
    for (store, row) in [(&first, "of the first"), (&second, "of the second")] {
        let session = store.begin().await.expect("begun");
        let changes = vec![put(one, "a\0", row), put(two, "b\0", row)];
        session.apply(EpochChanges { epoch: 4, position: position.clone(), changes: changes.into() }).await.expect("applied");
        sessions.push(session);
        store.named().put("fingerprint", row.as_bytes()).await.expect("written");
    }
    first.named().put("key:abc", b"a key").await.expect("written");
    assert_eq!(ViewReader::get(&*first, one, b"a\0").await.expect("read"), Some(b"of the first".to_vec()));
    assert_eq!(ViewReader::get(&*second, one, b"a\0").await.expect("read"), Some(b"of the second".to_vec()));
    assert_eq!(second.named().get("fingerprint").await.expect("read"), Some(b"of the second".to_vec()));
    assert_eq!(
        second.named().get("key:abc").await.expect("read"),
        Some(b"a key".to_vec()),
        "the API's keys are the same for all"
    );
    sessions.pop().expect("of the second").end().await.expect("a clean end");
    let listed = generations.list().await.expect("listed");
    let of = |name: &str| listed.iter().find(|generation| generation.name == name).expect("listed").clone();
    assert_eq!((of("side-1").settings.as_str(), of("side-1").created_at, of("side-1").clean), ("K=50", AT, false));
    assert_eq!((of("side-2").frontier, of("side-2").clean), (Frontier { epoch: 4, position, unfinished: false }, true));

    assert_eq!(generations.live().await.expect("read"), None);
    assert!(matches!(generations.promote("side-9").await, Err(StoreError::Refused(_))));
    assert_eq!(generations.promote("side-1").await.expect("promoted"), None);
    assert_eq!(generations.promote("side-2").await.expect("promoted"), Some("side-1".into()));
    assert_eq!(generations.live().await.expect("read"), Some("side-2".into()));
    assert_eq!(generations.promote("side-1").await.expect("rolled back"), Some("side-2".into()));
    refused(generations.drop("side-1").await);
    generations.drop("side-2").await.expect("dropped");
    refused(generations.drop("side-2").await);
    assert!(!generations.list().await.expect("listed").iter().any(|generation| generation.name == "side-2"));
    assert!(matches!(CqlStore::open_in(&generations, "side-2").await, Err(StoreError::Refused(_))));

    generations.create("side-2", "K=10", AT).await.expect("a name may be used again");
    let again = opened(&config, "side-2").await;
    assert_eq!(
        (ViewReader::get(&*again, one, b"a\0").await.expect("read"), ViewReader::get(&*again, two, b"b\0").await.expect("read")),
        (None, None)
    );
    assert_eq!(again.named().get("fingerprint").await.expect("read"), None);
    let session = again.begin().await.expect("begun");
    let begun = session.incarnation();
    assert_eq!((begun.frontier.clone(), begun.number > of("side-2").incarnation), (Frontier::default(), true));
    session
        .apply(EpochChanges { epoch: 1, changes: vec![put(one, "a\0", "new")].into(), ..EpochChanges::default() })
        .await
        .expect("applied");
    assert_eq!(
        ViewReader::get(&*again, one, b"a\0").await.expect("read"),
        Some(b"new".to_vec()),
        "and what was dropped does not hide its rows"
    );
    assert_eq!(
        ViewReader::get(&*first, one, b"a\0").await.expect("read"),
        Some(b"of the first".to_vec()),
        "the others are as they were"
    );
    first.named().delete("key:abc").await.expect("deleted");
    conformance::run_generations(&generations).await;
}

/// If this failed, blocking code would deadlock or panic on a runtime's only thread.
#[tokio::test(flavor = "current_thread")]
async fn rows_are_read_and_a_store_is_dropped_on_any_thread() {
    let Some(config) = keyspace().await else { return };
    let store = opened(&config, "any-thread").await;
    let session = store.begin().await.expect("begun");
    let table = input_tables()[0].name;
    let changes = vec![Change { table, key: b"a\0".to_vec(), row: Some(b"1".to_vec()) }];
    session.apply(EpochChanges { epoch: 1, changes: changes.into(), ..EpochChanges::default() }).await.expect("applied");
    let snapshot = store.snapshot().expect("a snapshot");
    drop((session, store));
    let read = || {
        assert_eq!(snapshot.rows.get(table, b"a\0").expect("read"), Some(b"1".to_vec()));
        let mut rows = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            std::ops::ControlFlow::Continue(())
        };
        snapshot.rows.scan(table, b"", visit).expect("scanned");
        assert_eq!(rows, 1);
    };
    read();
    std::thread::scope(|scope| scope.spawn(read).join().expect("no panic"));
    drop(snapshot);
}
