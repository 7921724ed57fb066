//! The conformance suite of stores: a check for each sentence of the port's documentation.
//!
//! ```no_run
//! # async fn example(open: impl AsyncFn(&str) -> std::sync::Arc<dyn kindred_store::ViewStore>) {
//! kindred_store::conformance::run(&open).await; // every store
//! kindred_store::conformance::run_atomic(&open).await; // one whose units and snapshots are whole: embedded
//! # }
//! ```
//! [`run_shared`] for one that several processes write, [`run_feed`] for a change feed. `open(name)` opens the store of that name and makes it where there is
//! none. The suite drops a store and opens it again by its name; nothing else uses it meanwhile. A check that fails panics and says
//! which sentence does not hold.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kindred_model::views::also_bought::Supports;
use kindred_model::views::{ReadError, Table, input_tables, view_tables};
use kindred_model::{EventTime, Position, Topic};

use crate::feed::ChangeEvent;
use crate::generations::Generations;
use crate::{Change, ChangeSource, EpochChanges, Frontier, Snapshot, StoreError, ViewStore, ViewWriter, WriteSession};

type Opened = Arc<dyn ViewStore>;
type Row = (Vec<u8>, Vec<u8>);

/// Checks for every store.
///
/// # Panics
/// When a check fails.
pub async fn run(open: &impl AsyncFn(&str) -> Opened) {
    an_empty_store_reaches_nothing(open).await;
    a_unit_is_readable_once_applied(open).await;
    applying_again_changes_nothing(open).await;
    what_is_written_is_covered_by_the_next_commit(open).await;
    scans_come_in_the_order_of_keys(open).await;
    scans_of_many_rows_miss_none(open).await;
    clearing_is_a_unit_that_is_not_finished(open).await;
    a_position_can_be_reset(open).await;
    named_values_are_kept_apart(open).await;
    a_unit_with_an_unknown_table_is_refused(open).await;
    opening_again_gives_the_same(open).await;
}

/// Checks for a store with atomic units and fixed snapshots.
///
/// # Panics
/// When a check fails.
pub async fn run_atomic(open: &impl AsyncFn(&str) -> Opened) {
    a_snapshot_does_not_move(open).await;
    nobody_sees_half_a_unit(open).await;
    a_snapshot_is_of_one_unit(open).await;
    a_cleared_table_is_empty(open).await;
}

/// Checks for a store that several processes may open. Every call of `open` stands for another process.
///
/// # Panics
/// When a check fails.
pub async fn run_shared(open: &impl AsyncFn(&str) -> Opened) {
    an_unclean_end_is_noticed_and_a_clean_one_is_not(open).await;
    a_replaced_pipeline_commits_no_more(open).await;
    a_late_write_does_not_win(open).await;
    a_rewrite_serves_old_rows_until_it_is_through(open).await;
    processes_of_a_cluster_write_under_one_incarnation(open).await;
    a_reader_hears_how_far_the_store_reaches(open).await;
}

/// Checks that a feed brings every row written after its snapshot, in order. `writer` writes to an empty store; `source` follows
/// it.
///
/// # Panics
/// When a check fails.
pub async fn run_feed(writer: &dyn ViewWriter, source: &dyn ChangeSource) {
    const UNITS: u64 = 60;
    let table = Supports::NAME;
    let session = writer.begin().await.expect("begun");
    let mut consumers = Vec::new();
    let value = |row: Option<Vec<u8>>| row.map_or(0, |row| String::from_utf8_lossy(&row).parse().expect("a number"));
    for epoch in 1..=UNITS {
        if epoch % 10 == 1 {
            let (snapshot, feed) = tokio::task::block_in_place(|| source.changes()).expect("a feed");
            let row: u64 = value(snapshot.rows.get(table, b"k").expect("read"));
            assert!(row >= snapshot.frontier.epoch, "rows are at least as new as the frontier");
            let mut last = snapshot.frontier.position.clone();
            consumers.push(std::thread::spawn(move || {
                let mut rows = Vec::new();
                while last != position(UNITS) {
                    match feed.next(Duration::from_secs(20)) {
                        ChangeEvent::Unit(unit) => {
                            rows.extend(unit.changes.iter().map(|change| value(change.row.clone())));
                            assert!(unit.position.reaches(&last), "positions only grow");
                            last = unit.position;
                        }
                        ChangeEvent::Reset(_) => panic!("nothing was lost"),
                        ChangeEvent::Idle | ChangeEvent::Ended => panic!("the feed ended at {last}, {rows:?}"),
                    }
                }
                (row, rows)
            }));
        }
        session.apply(unit(epoch, vec![put(table, "k", epoch.to_string())])).await.expect("applied");
    }
    for consumer in consumers {
        let (from, rows) = consumer.join().expect("no panic");
        assert_eq!(rows, (from + 1..=UNITS).collect::<Vec<u64>>(), "every unit after the snapshot, in order, once");
    }
}

/// Checks of generations, for every store. Creates and drops some named `c-…`, and leaves `c-live` live.
///
/// # Panics
/// When a check fails.
pub async fn run_generations(generations: &dyn Generations) {
    let refused = |outcome: Result<(), StoreError>, what: &str| {
        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{what} is refused: {outcome:?}");
    };
    for name in ["", ".", "..", ".c", "C-1", "c/1", "c 1", &"c".repeat(49)] {
        refused(generations.create(name, "", EventTime(1)).await, name);
    }
    for (name, settings, at) in [("c-other", "other", 2), ("c-live", "settings", 1)] {
        generations.create(name, settings, EventTime(at)).await.expect("it is made");
    }
    refused(generations.create("c-live", "", EventTime(3)).await, "a second one of a name");
    let ours = async || -> Vec<(String, String, i64)> {
        let all = generations.list().await.expect("they are listed");
        assert!(all.is_sorted_by(|a, b| a.name < b.name), "they are listed by name");
        let ours = all.into_iter().filter(|generation| generation.name.starts_with("c-"));
        ours.map(|generation| (generation.name, generation.settings, generation.created_at.0)).collect()
    };
    let (live, other) = (("c-live".into(), "settings".into(), 1), ("c-other".into(), "other".into(), 2));
    assert_eq!(ours().await, [live.clone(), other.clone()]);

    refused(generations.promote("c-none").await.map(drop), "promoting what is not there");
    refused(generations.drop("c-none").await, "dropping what is not there");
    let before = generations.live().await.expect("the live one");
    assert_eq!(generations.promote("c-other").await.expect("it is promoted"), before, "promoting returns the previous one");
    assert_eq!(generations.live().await.expect("the live one").as_deref(), Some("c-other"));
    assert_eq!(generations.promote("c-live").await.expect("it is promoted").as_deref(), Some("c-other"));
    assert_eq!(generations.promote("c-other").await.expect("it rolls back").as_deref(), Some("c-live"));
    assert_eq!(generations.promote("c-live").await.expect("and on").as_deref(), Some("c-other"));
    assert_eq!(generations.promote("c-live").await.expect("again").as_deref(), Some("c-live"), "promoting again changes nothing");
    refused(generations.drop("c-live").await, "dropping the live one");
    assert_eq!(ours().await, [live.clone(), other]);

    generations.drop("c-other").await.expect("it is dropped");
    assert_eq!(ours().await, std::slice::from_ref(&live));
    refused(generations.drop("c-other").await, "dropping it again");
    generations.create("c-other", "K=10", EventTime(4)).await.expect("a name may be used again");
    assert_eq!(ours().await, [live.clone(), ("c-other".into(), "K=10".into(), 4)]);
    generations.drop("c-other").await.expect("it is dropped");
    assert_eq!(ours().await, [live]);
}

/// All tables; most checks use two.
fn tables() -> Vec<&'static str> {
    input_tables().into_iter().chain(view_tables()).map(|table| table.name).collect()
}

fn put(table: &'static str, key: impl Into<Vec<u8>>, row: impl Into<Vec<u8>>) -> Change {
    Change { table, key: key.into(), row: Some(row.into()) }
}

fn delete(table: &'static str, key: impl Into<Vec<u8>>) -> Change {
    Change { table, key: key.into(), row: None }
}

/// A position that grows with the epoch.
fn position(epoch: u64) -> Position {
    let mut position = Position::beginning();
    position.passed(Topic::Interactions, 0, epoch * 3);
    position.passed(Topic::Orders, 2, epoch);
    position
}

/// A store opened for writing.
struct Begun {
    session: Box<dyn WriteSession>,
    store: Opened,
}

impl std::ops::Deref for Begun {
    type Target = Opened;
    fn deref(&self) -> &Opened {
        &self.store
    }
}

async fn begun(open: &impl AsyncFn(&str) -> Opened, name: &str) -> Begun {
    let store = open(name).await;
    Begun { session: store.begin().await.expect("begun"), store }
}

/// Ends a store cleanly.
async fn end(begun: Begun) {
    begun.session.end().await.expect("a clean end");
}

/// Waits for a row count, which may lag.
async fn counts(store: &Opened, table: &str, expected: u64) {
    for _ in 0..200 {
        if store.row_count(table).expect("a count") == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{table} never counted {expected} rows, but {}", store.row_count(table).expect("a count"));
}

fn unit(epoch: u64, changes: Vec<Change>) -> EpochChanges {
    EpochChanges { epoch, position: position(epoch), changes: changes.into() }
}

fn finished(epoch: u64) -> Frontier {
    Frontier { epoch, position: position(epoch), unfinished: false }
}

fn rows(snapshot: &Snapshot, table: &str, prefix: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let visit = &mut |key: &[u8], row: &[u8]| {
        rows.push((key.to_vec(), row.to_vec()));
        ControlFlow::Continue(())
    };
    snapshot.rows.scan(table, prefix, visit).expect("a scan");
    rows
}

fn all(snapshot: &Snapshot) -> BTreeMap<&'static str, Vec<Row>> {
    tables().into_iter().map(|table| (table, rows(snapshot, table, b""))).collect()
}

async fn an_empty_store_reaches_nothing(open: &impl AsyncFn(&str) -> Opened) {
    let store = open("empty").await;
    assert_eq!(store.frontier(), Frontier::default());
    let snapshot = store.snapshot().expect("a snapshot");
    assert_eq!(snapshot.frontier, Frontier::default());
    for table in tables() {
        assert_eq!(store.get(table, b"a").await.expect("read"), None);
        assert_eq!(rows(&snapshot, table, b""), []);
        counts(&store, table, 0).await;
    }
    assert!(matches!(store.row_count("no_such_table"), Err(StoreError::Refused(_))));
}

async fn a_unit_is_readable_once_applied(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "apply").await;
    for (n, table) in tables().into_iter().enumerate() {
        let epoch = n as u64 + 1;
        store
            .session
            .apply(unit(epoch, vec![put(table, "a", "1"), put(table, "b", vec![0, 255]), put(table, "c", "")]))
            .await
            .expect("applied");
        assert_eq!(store.frontier(), finished(epoch), "the frontier is that of the unit");
        assert_eq!(store.get(table, b"a").await.expect("read"), Some(b"1".to_vec()));
        assert_eq!(store.get(table, b"b").await.expect("read"), Some(vec![0, 255]));
        assert_eq!(store.get(table, b"c").await.expect("read"), Some(Vec::new()), "an empty row is a row");
        counts(&store, table, 3).await;
    }
    let table = tables()[0];
    store.session.apply(unit(90, vec![put(table, "a", "2"), delete(table, "b"), delete(table, "never")])).await.expect("applied");
    assert_eq!(store.get(table, b"a").await.expect("read"), Some(b"2".to_vec()), "a row is replaced");
    assert_eq!(store.get(table, b"b").await.expect("read"), None, "or deleted");
    assert_eq!(store.get(table, b"never").await.expect("read"), None);
    assert_eq!(store.get(tables()[1], b"b").await.expect("read"), Some(vec![0, 255]), "in its table alone");
    store.session.apply(unit(91, Vec::new())).await.expect("applied");
    assert_eq!(store.frontier(), finished(91), "a unit without changes moves the frontier");
    store.sync().await.expect("synced");
}

async fn applying_again_changes_nothing(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "twice").await;
    let [one, two] = [tables()[0], tables()[1]];
    store.session.apply(unit(1, vec![put(one, "gone", "1"), put(two, "x", "1")])).await.expect("applied");
    let again = unit(2, vec![put(one, "a", "1"), delete(one, "gone"), put(two, "x", "2")]);
    store.session.apply(again.clone()).await.expect("applied");
    let before = all(&store.snapshot().expect("a snapshot"));
    store.session.apply(again).await.expect("applied again");
    assert_eq!(all(&store.snapshot().expect("a snapshot")), before, "applying a unit again changes nothing");
    assert_eq!(store.frontier(), finished(2));
}

async fn what_is_written_is_covered_by_the_next_commit(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "write").await;
    let [one, two] = [tables()[0], tables()[5]];
    store.session.apply(unit(1, vec![put(one, "a", "1"), put(two, "gone", "1")])).await.expect("applied");
    store.session.write(2, vec![put(one, "a", "2"), delete(two, "gone")].into()).await.expect("written");
    store.session.write(2, vec![put(two, "b", "2")].into()).await.expect("written");
    assert_eq!(store.frontier(), finished(1), "writing does not move the frontier");
    store.session.commit(2, position(2)).await.expect("committed");
    assert_eq!(store.frontier(), finished(2));
    let now = store.snapshot().expect("a snapshot");
    let expected = (vec![(b"a".to_vec(), b"2".to_vec())], vec![(b"b".to_vec(), b"2".to_vec())]);
    assert_eq!((rows(&now, one, b""), rows(&now, two, b"")), expected);
    let unknown = store.session.write(3, vec![put("no_such_table", "a", "1")].into()).await;
    assert!(matches!(unknown, Err(StoreError::Refused(_))));
    drop(now);
    end(store).await;
    let store = begun(open, "write").await;
    store.session.write(3, vec![put(one, "a", "3")].into()).await.expect("written");
    let refused = store.session.end().await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "a pipeline does not end cleanly with rows that no commit covers");
}

async fn a_snapshot_does_not_move(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "snapshot").await;
    let table = tables()[0];
    store.session.apply(unit(1, vec![put(table, "a", "1"), put(table, "b", "1")])).await.expect("applied");
    let snapshot = store.snapshot().expect("a snapshot");
    let before = all(&snapshot);
    for epoch in 2..12 {
        let changes = vec![put(table, "a", epoch.to_string()), delete(table, "b"), put(table, format!("n{epoch}"), "1")];
        store.session.apply(unit(epoch, changes)).await.expect("applied");
    }
    assert_eq!(all(&snapshot), before, "later writes do not show in a snapshot");
    assert_eq!(snapshot.frontier, finished(1));
    assert_eq!(snapshot.rows.get(table, b"a").expect("read"), Some(b"1".to_vec()));
    assert_eq!(snapshot.rows.get(table, b"b").expect("read"), Some(b"1".to_vec()));
    assert_eq!(snapshot.rows.get(table, b"n2").expect("read"), None);
    assert_eq!(store.snapshot().expect("a snapshot").frontier, finished(11), "a new one is of the last unit");
}

async fn scans_come_in_the_order_of_keys(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "scan").await;
    let table = tables()[0];
    let keys: [&[u8]; 8] = [b"\0", b"a", b"a\0", b"ab", b"ab\xff", b"ac", b"b", b"\xff\xff"];
    let shuffled = [5, 2, 7, 0, 3, 6, 1, 4].map(|n: usize| put(table, keys[n], vec![u8::try_from(n).expect("small")]));
    store.session.apply(unit(1, shuffled.to_vec())).await.expect("applied");
    let snapshot = store.snapshot().expect("a snapshot");
    let scanned = |prefix: &[u8]| rows(&snapshot, table, prefix).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(scanned(b""), keys, "rows come in the order of their keys");
    assert_eq!(scanned(b"a"), keys[1..6], "those with the prefix, and only those");
    assert_eq!(scanned(b"ab"), keys[3..5]);
    assert_eq!(scanned(b"\xff"), keys[7..]);
    assert_eq!(scanned(b"zz"), Vec::<&[u8]>::new());
    let mut seen = 0;
    let mut stopped = |ended: fn() -> Result<(), ReadError>| {
        seen = 0;
        snapshot.rows.scan(table, b"", &mut |_, _| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(ended()) } else { ControlFlow::Continue(()) }
        })
    };
    assert!(stopped(|| Ok(())).is_ok(), "breaking ends the scan well");
    let failed = stopped(|| Err(ReadError::Unavailable("enough".into())));
    assert!(matches!(failed, Err(ReadError::Unavailable(text)) if text == "enough"), "or with its error");
    assert_eq!(seen, 2, "and at once");
}

async fn scans_of_many_rows_miss_none(open: &impl AsyncFn(&str) -> Opened) {
    // Several pages and batches in a partition, and one identity with many rows.
    const ROWS: u64 = 20_000;
    let store = begun(open, "many").await;
    let table = tables()[0];
    let key = |n: u64| match n % 2 {
        0 => [format!("owner {}", n % 70).as_bytes(), &[0], &n.to_be_bytes()[..]].concat(),
        _ => [&b"bot\0"[..], &n.to_be_bytes()].concat(),
    };
    let changes = (0..ROWS).map(|n| put(table, key(n), n.to_string()));
    store.session.apply(unit(1, changes.collect())).await.expect("applied");
    let mut expected: Vec<Row> = (0..ROWS).map(|n| (key(n), n.to_string().into_bytes())).collect();
    expected.sort();
    let snapshot = store.snapshot().expect("a snapshot");
    assert!(rows(&snapshot, table, b"") == expected, "a scan gives every row once, in the order of their keys");
    let of = |prefix: &[u8]| expected.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect::<Vec<_>>();
    for prefix in [&b"bot\0"[..], b"owner 3", b"owner 33\0", b"o"] {
        assert!(rows(&snapshot, table, prefix) == of(prefix), "and so does one below a prefix");
    }
    for (key, row) in expected.iter().step_by(997) {
        assert_eq!(store.get(table, key).await.expect("read").as_ref(), Some(row));
    }
}

async fn nobody_sees_half_a_unit(open: &impl AsyncFn(&str) -> Opened) {
    const UNITS: u64 = 150;
    let store = begun(open, "atomic").await;
    let tables = tables();
    let changes = |epoch: u64| -> Vec<Change> {
        let rows = (0..12).map(|n| put(tables[n % tables.len()], format!("k{n}"), epoch.to_string()));
        // A row that moves from key to key: readers must find exactly one.
        rows.chain([put(tables[0], format!("m{}", epoch % 5), "m"), delete(tables[0], format!("m{}", (epoch + 4) % 5))]).collect()
    };
    store.session.apply(unit(1, changes(1))).await.expect("applied");
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (store.clone(), done.clone());
            std::thread::spawn(move || {
                let mut snapshots = 0;
                while !done.load(Ordering::Relaxed) || snapshots == 0 {
                    let snapshot = store.snapshot().expect("a snapshot");
                    assert!(!snapshot.frontier.unfinished, "a snapshot is of a whole unit");
                    let expected = snapshot.frontier.epoch.to_string().into_bytes();
                    let all = all(&snapshot);
                    let (moving, counted): (Vec<Row>, Vec<Row>) =
                        all.into_values().flatten().partition(|(key, _)| key.starts_with(b"m"));
                    assert_eq!(counted.len(), 12);
                    for (_, row) in counted {
                        assert_eq!(row, expected, "all rows and the frontier of a snapshot are of one unit");
                    }
                    assert_eq!(moving.len(), 1, "a deletion and its upsert are seen together");
                    snapshots += 1;
                }
                snapshots
            })
        })
        .collect();
    for epoch in 2..=UNITS {
        store.session.apply(unit(epoch, changes(epoch))).await.expect("applied");
        let row = store.get(tables[0], b"k0").await.expect("read");
        assert_eq!(row, Some(epoch.to_string().into_bytes()), "a get serves the last unit");
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        let snapshots = tokio::task::spawn_blocking(|| reader.join()).await.expect("joined").expect("a reader saw half a unit");
        assert!(snapshots > 0);
    }
}

async fn a_snapshot_is_of_one_unit(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "one unit").await;
    let table = tables()[0];
    let Begun { session, store } = store;
    let writer = tokio::spawn(async move {
        for epoch in 1..=60 {
            session.apply(unit(epoch, vec![put(table, "k", epoch.to_string())])).await.expect("applied");
        }
    });
    for _ in 0..5 {
        let snapshot = store.snapshot().expect("a snapshot");
        let row = snapshot.rows.get(table, b"k").expect("read");
        assert_eq!(row, (snapshot.frontier.epoch > 0).then(|| snapshot.frontier.epoch.to_string().into_bytes()));
        tokio::task::yield_now().await;
    }
    writer.await.expect("no panic");
}

async fn clearing_is_a_unit_that_is_not_finished(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "clear").await;
    let [one, two] = [tables()[0], tables()[5]];
    store.named().put("fingerprint", b"f").await.expect("written");
    store.session.apply(unit(1, vec![put(one, "a", "1"), put(two, "a", "1"), put(two, "b", "1")])).await.expect("applied");
    store.session.clear(&[two]).await.expect("cleared");
    let during = store.snapshot().expect("a snapshot");
    assert_eq!(&during.frontier, &finished(1));
    assert_eq!(rows(&during, two, b"").len(), 2, "readers keep the rows of views");
    assert_eq!(store.get(two, b"a").await.expect("read"), Some(b"1".to_vec()));
    drop((store, during));

    let store = begun(open, "clear").await;
    assert_eq!(store.frontier(), Frontier { unfinished: true, ..finished(1) }, "a stop in between leaves the mark");
    assert_eq!(rows(&store.snapshot().expect("a snapshot"), one, b"").len(), 1, "the other tables are as they were");
    // What a pipeline does when it finds the mark.
    store.session.clear(&[two]).await.expect("cleared");
    store.session.apply(unit(2, vec![put(two, "b", "2")])).await.expect("applied");
    assert_eq!(store.frontier(), finished(2), "the next unit lifts the mark");
    let now = store.snapshot().expect("a snapshot");
    assert_eq!(rows(&now, two, b""), [(b"b".to_vec(), b"2".to_vec())], "and what was not written again is gone");
    assert_eq!(rows(&now, one, b""), [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(store.named().get("fingerprint").await.expect("read"), Some(b"f".to_vec()), "named values are no rows");
    assert!(matches!(store.session.clear(&["no_such_table"]).await, Err(StoreError::Refused(_))));
    drop(now);
    end(store).await;
    let store = begun(open, "clear").await;
    assert_eq!(store.frontier(), finished(2));
    assert_eq!(rows(&store.snapshot().expect("a snapshot"), two, b""), [(b"b".to_vec(), b"2".to_vec())]);
    // A rebuild from the log.
    store.session.clear(&[one, two]).await.expect("cleared");
    store.session.reset_position(Position::beginning()).await.expect("reset");
    let expected = Frontier { epoch: 2, position: Position::beginning(), unfinished: true };
    assert_eq!(store.frontier(), expected, "setting the position does not lift the mark");
    let now = store.snapshot().expect("a snapshot");
    assert_eq!(rows(&now, one, b""), [], "merged inputs are gone at once: nothing must be restored from them");
    store.session.apply(unit(3, vec![put(one, "c", "3")])).await.expect("applied");
    assert_eq!(store.frontier(), finished(3));
    let now = store.snapshot().expect("a snapshot");
    assert_eq!((rows(&now, one, b""), rows(&now, two, b"")), (vec![(b"c".to_vec(), b"3".to_vec())], Vec::new()));
}

async fn a_cleared_table_is_empty(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "emptied").await;
    let table = tables()[5];
    store.session.apply(unit(1, vec![put(table, "a", "1")])).await.expect("applied");
    store.session.clear(&[table]).await.expect("cleared");
    drop(store);
    let store = begun(open, "emptied").await;
    assert_eq!(rows(&store.snapshot().expect("a snapshot"), table, b""), [], "a stop in between shows the store as it is");
    store.session.clear(&[table]).await.expect("cleared");
    store.session.reset_position(Position::beginning()).await.expect("reset");
    assert_eq!(rows(&store.snapshot().expect("a snapshot"), table, b""), [], "and so does setting the position");
}

async fn a_position_can_be_reset(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "reset").await;
    let table = tables()[0];
    store.session.apply(unit(7, vec![put(table, "a", "1")])).await.expect("applied");
    store.session.reset_position(Position::beginning()).await.expect("reset");
    let expected = Frontier { epoch: 7, position: Position::beginning(), unfinished: false };
    assert_eq!(store.frontier(), expected, "the position is another, the epoch counts on");
    assert_eq!(store.snapshot().expect("a snapshot").frontier, expected);
    end(store).await;
    let store = begun(open, "reset").await;
    assert_eq!(store.frontier(), expected);
    assert_eq!(store.get(table, b"a").await.expect("read"), Some(b"1".to_vec()), "rows stay");
}

async fn named_values_are_kept_apart(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "meta").await;
    assert_eq!(store.named().get("a").await.expect("read"), None);
    for name in ["key:b", "key:a", "key", "kez", "erased:a"] {
        store.named().put(name, name.as_bytes()).await.expect("written");
    }
    store.named().put("key:a", b"2").await.expect("replaced");
    store.named().put("erased:a", b"").await.expect("replaced");
    assert_eq!(store.named().get("key:a").await.expect("read"), Some(b"2".to_vec()));
    assert_eq!(store.named().get("erased:a").await.expect("read"), Some(Vec::new()), "an empty value is a value");
    let named = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    assert_eq!(store.named().scan("key:").await.expect("read"), [named("key:a", "2"), named("key:b", "key:b")], "in order");
    assert_eq!(store.named().scan("").await.expect("read").len(), 5, "nothing of the store's own is among them");
    store.named().delete("key:b").await.expect("deleted");
    store.named().delete("key:b").await.expect("deleting what is not there changes nothing");
    store.session.apply(unit(1, vec![put(tables()[0], "key:b", "a row")])).await.expect("applied");
    end(store).await;
    let store = begun(open, "meta").await;
    assert_eq!(store.named().scan("key:").await.expect("read"), [named("key:a", "2")], "named values are durable");
    assert_eq!(store.named().get("key:b").await.expect("read"), None);
}

async fn a_unit_with_an_unknown_table_is_refused(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "unknown").await;
    let table = tables()[0];
    let refused = store.session.apply(unit(1, vec![put(table, "a", "1"), put("no_such_table", "a", "1")])).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))));
    assert_eq!(store.get(table, b"a").await.expect("read"), None, "nothing of it is readable");
    assert_eq!(store.frontier(), Frontier::default());
}

async fn opening_again_gives_the_same(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "again").await;
    for epoch in 1..=20 {
        let changes = tables().into_iter().map(|table| put(table, format!("k{}", epoch % 7), epoch.to_string())).collect();
        store.session.apply(unit(epoch, changes)).await.expect("applied");
    }
    let before = all(&store.snapshot().expect("a snapshot"));
    end(store).await;
    let store = begun(open, "again").await;
    assert_eq!(store.frontier(), finished(20), "a store that is opened again reaches as far");
    assert_eq!(all(&store.snapshot().expect("a snapshot")), before, "with the same rows");
    store.session.apply(unit(21, Vec::new())).await.expect("applied");
    assert_eq!(store.frontier(), finished(21), "and resumes");
}

async fn an_unclean_end_is_noticed_and_a_clean_one_is_not(open: &impl AsyncFn(&str) -> Opened) {
    let store = begun(open, "unclean").await;
    let first = store.session.incarnation().clone();
    assert!(!first.frontier.unfinished, "a new store is whole");
    store.session.apply(unit(1, vec![put(tables()[0], "a", "1")])).await.expect("applied");
    end(store).await;

    let store = begun(open, "unclean").await;
    let second = store.session.incarnation().clone();
    assert_eq!(second.frontier, finished(1), "after a clean end there is nothing to mend");
    assert!(second.number > first.number, "each begin takes a higher number");
    store.session.write(2, vec![put(tables()[0], "a", "half")].into()).await.expect("written");
    drop(store);

    let store = begun(open, "unclean").await;
    let third = store.session.incarnation().frontier.clone();
    assert_eq!(third, Frontier { unfinished: true, ..finished(1) }, "a pipeline that just ended is noticed");
    // A clean end without rewritten rows: they remain to be repaired.
    end(store).await;
    let store = begun(open, "unclean").await;
    assert!(store.session.incarnation().frontier.unfinished, "the mark stays until a commit");
    store.session.apply(unit(2, vec![put(tables()[0], "a", "2")])).await.expect("applied");
    assert_eq!(store.frontier(), finished(2));
    end(store).await;
    assert_eq!(begun(open, "unclean").await.session.incarnation().frontier, finished(2));
}

async fn a_replaced_pipeline_commits_no_more(open: &impl AsyncFn(&str) -> Opened) {
    let old = begun(open, "replaced").await;
    old.session.apply(unit(1, vec![put(tables()[0], "a", "1")])).await.expect("applied");
    let new = begun(open, "replaced").await;
    let assert_refused = |refused: Result<(), StoreError>| match refused {
        Err(StoreError::Refused(reason)) => assert!(reason.contains("taken over"), "it says why: {reason}"),
        other => panic!("a replaced pipeline went on: {other:?}"),
    };
    assert_refused(old.session.apply(unit(2, vec![put(tables()[0], "b", "1")])).await);
    assert_refused(old.session.commit(3, position(3)).await);
    assert_refused(old.session.reset_position(Position::beginning()).await);
    new.session.apply(unit(2, vec![put(tables()[0], "a", "new")])).await.expect("the new one continues");
    assert_refused(old.session.commit(9, position(9)).await);
    assert_eq!(new.frontier(), finished(2));
    assert!(matches!(old.session.end().await, Err(StoreError::Refused(_))), "nor does it end in the new one's name");
    drop(new);
    let next = begun(open, "replaced").await;
    assert_eq!(next.session.incarnation().frontier, Frontier { unfinished: true, ..finished(2) });
}

async fn a_late_write_does_not_win(open: &impl AsyncFn(&str) -> Opened) {
    let [one, two] = [tables()[0], tables()[5]];
    let old = begun(open, "late").await;
    old.session
        .apply(unit(5, vec![put(one, "a", "old"), put(two, "a", "old"), put(two, "stray", "old")]))
        .await
        .expect("applied");
    let new = begun(open, "late").await;
    assert!(new.frontier().unfinished);
    new.session.clear(&[two]).await.expect("cleared");
    new.session.apply(unit(5, vec![put(one, "a", "new"), put(two, "a", "new"), delete(one, "b")])).await.expect("applied");
    // The old one was paused in a later epoch, and resumes.
    let late =
        vec![put(one, "a", "late"), put(one, "b", "late"), put(two, "a", "late"), delete(two, "a"), put(two, "stray", "late")];
    for change in late {
        old.session.write(900, vec![change].into()).await.expect("written, to no effect");
    }
    let now = new.snapshot().expect("a snapshot");
    assert_eq!(rows(&now, one, b""), [(b"a".to_vec(), b"new".to_vec())], "neither a late row nor a late delete wins");
    assert_eq!(rows(&now, two, b""), [(b"a".to_vec(), b"new".to_vec())], "nor a late row where the rewrite deleted one");
    // Within one incarnation the later epoch wins, in any order of arrival.
    new.session.write(8, vec![put(one, "c", "8"), delete(one, "d")].into()).await.expect("written");
    new.session.write(7, vec![put(one, "c", "7"), put(one, "d", "7")].into()).await.expect("written");
    assert_eq!(new.get(one, b"c").await.expect("read"), Some(b"8".to_vec()));
    assert_eq!(new.get(one, b"d").await.expect("read"), None);
}

async fn a_rewrite_serves_old_rows_until_it_is_through(open: &impl AsyncFn(&str) -> Opened) {
    let table = tables()[5];
    let old = begun(open, "rewrite").await;
    let rows_of =
        |epoch: u64, keys: std::ops::Range<u64>| keys.map(move |n| put(table, format!("k{n}"), epoch.to_string())).collect();
    old.session.apply(unit(1, rows_of(1, 0..100))).await.expect("applied");
    drop(old);
    let new = begun(open, "rewrite").await;
    assert!(new.frontier().unfinished);
    new.session.clear(&[table]).await.expect("cleared");
    assert_eq!(rows(&new.snapshot().expect("a snapshot"), table, b"").len(), 100, "every row is served meanwhile");
    new.session.write(1, rows_of(2, 0..60).into()).await.expect("written");
    let between = rows(&new.snapshot().expect("a snapshot"), table, b"");
    assert_eq!(between.len(), 100);
    assert_eq!(between.iter().filter(|(_, row)| row == b"2").count(), 60, "also those that were written again");
    new.session.commit(1, position(1)).await.expect("committed");
    let after = rows(&new.snapshot().expect("a snapshot"), table, b"");
    assert!(after.len() == 60 && after.iter().all(|(_, row)| row == b"2"), "then those are gone that were not");
}

async fn processes_of_a_cluster_write_under_one_incarnation(open: &impl AsyncFn(&str) -> Opened) {
    let table = tables()[0];
    let first = begun(open, "cluster").await;
    let incarnation = first.session.incarnation().clone();
    let second = open("cluster").await;
    let second = Begun { session: second.join(incarnation.number).await.expect("joined"), store: second };
    assert_eq!(second.session.incarnation().number, incarnation.number);
    first.session.write(1, vec![put(table, "a", "first")].into()).await.expect("written");
    second.session.write(1, vec![put(table, "b", "second")].into()).await.expect("written");
    assert!(
        matches!(second.session.commit(1, position(1)).await, Err(StoreError::Refused(_))),
        "only the one that began commits"
    );
    assert!(matches!(second.session.end().await, Err(StoreError::Refused(_))), "or ends cleanly");
    assert_eq!(first.frontier(), Frontier::default());
    first.session.commit(1, position(1)).await.expect("committed");
    let expected = [(b"a".to_vec(), b"first".to_vec()), (b"b".to_vec(), b"second".to_vec())];
    assert_eq!(rows(&first.snapshot().expect("a snapshot"), table, b""), expected);
    assert!(begun(open, "cluster").await.session.incarnation().frontier.unfinished);
    let refused = open("cluster").await.join(incarnation.number).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "a replaced incarnation cannot be joined");
}

async fn a_reader_hears_how_far_the_store_reaches(open: &impl AsyncFn(&str) -> Opened) {
    let reader = open("reader").await;
    let writer = begun(open, "reader").await;
    for epoch in 1..=3 {
        writer.session.apply(unit(epoch, vec![put(tables()[0], "a", epoch.to_string())])).await.expect("applied");
        assert_eq!(reader.get(tables()[0], b"a").await.expect("read"), Some(epoch.to_string().into_bytes()), "rows at once");
    }
    for _ in 0..200 {
        if reader.frontier() == finished(3) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the reader was never notified, and is at {:?}", reader.frontier());
}
