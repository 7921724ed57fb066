//! Records on a real database, in the keyspace of `cql::tests`.

use std::time::Instant;

use super::*;
use crate::cql::session::connect;
use crate::cql::tests::keyspace;
use crate::records::{Expect, conformance};

const NOW: EventTime = EventTime(1_767_600_000_000);
const RACERS: u8 = 6;

async fn opened(config: &CqlConfig) -> CqlRecords {
    for _ in 0..20 {
        match CqlRecords::open(config.clone()).await {
            Ok(records) => return records,
            // Some tests have tiny timeouts, or a paused database.
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the database does not answer");
}

/// Two sessions, like two processes.
#[tokio::test(flavor = "multi_thread")]
async fn they_conform() {
    let Some(config) = keyspace().await else { return };
    let open = async || Arc::new(opened(&config).await) as Arc<dyn RecordStore>;
    conformance::run(&open().await, &open().await).await;
}

/// If this failed, deleted personal data would stay readable, or garbage stay forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_has_no_value_and_a_day_to_live() {
    let Some(config) = keyspace().await else { return };
    let records = opened(&config).await;
    let steps = [
        Step::insert("deleted", b"secret".to_vec(), None),
        Step::insert("expiring", b"1".to_vec(), Some(EventTime(NOW.0 + 3_600_000))),
        Step::insert("staying", b"1".to_vec(), None),
    ];
    let Outcome::Done(version) = records.transact("rows", b"p", &steps, NOW).await.expect("done") else { panic!("new") };
    let steps = [Step::delete("deleted", version), Step::check("none", Expect::Absent)];
    let Outcome::Done(deleted) = records.transact("rows", b"p", &steps, NOW).await.expect("done") else { panic!("as read") };
    let session = connect(&config).await.expect("connected");
    let text = format!(
        "SELECT sort, value, version, previous, TTL(version), TTL(value) FROM {}.records WHERE table_name = 'rows' AND partition = ?",
        config.keyspace
    );
    let rows = session.query_unpaged(text, (b"p".as_slice(),)).await.expect("read").into_rows_result().expect("rows");
    type Row = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Option<i32>, Option<i32>);
    let rows: Vec<Row> = rows.rows::<Row>().expect("columns").map(|row| row.expect("a row")).collect();
    let (first, day) = (version_bytes(version).to_vec(), 86_400);
    assert_eq!(rows.len(), 3, "and none for what was only looked at");
    let (sort, value, version, previous, ttl, value_ttl) = rows[0].clone();
    assert_eq!((sort, value, version, previous), (b"deleted".to_vec(), vec![], version_bytes(deleted).to_vec(), first.clone()));
    assert!(ttl == value_ttl && ttl.is_some_and(|ttl| (day - 60..=day).contains(&ttl)), "{ttl:?}");
    assert!(rows[1].4.is_some_and(|ttl| (day + 3_540..=day + 3_600).contains(&ttl)), "{:?}", rows[1].4);
    assert_eq!((&rows[2].2, &rows[2].3, rows[2].4), (&first, &Vec::new(), None));
}

/// What the racers want: each writes its own number, so that the winner can be identified.
enum Prize {
    Insert,
    Replace(Version),
    /// Deletes the record and inserts a note, like the use of a single-use token.
    Use(Version),
}

/// Races on all handles, checks every outcome against the rows, and counts the winners.
async fn contest(stores: &[CqlRecords], truth: &CqlRecords, key: &str, prize: Prize) -> (Option<Version>, Vec<Duration>) {
    let racers: Vec<_> = (0..RACERS)
        .map(|n| {
            let store = stores[usize::from(n) % stores.len()].clone();
            let note = Step::insert(format!("{key} used"), vec![n], None);
            let steps = match prize {
                Prize::Insert => vec![Step::insert(key, vec![n], None)],
                Prize::Replace(version) => vec![Step::replace(key, version, vec![n], None)],
                Prize::Use(version) => vec![Step::delete(key, version), note],
            };
            tokio::spawn(async move {
                let began = Instant::now();
                (store.transact("contest", b"p", &steps, NOW).await, began.elapsed())
            })
        })
        .collect();
    let (mut told, mut took) = (Vec::new(), Vec::new());
    for racer in racers {
        let (outcome, time) = racer.await.expect("no panic");
        told.push(outcome);
        took.push(time);
    }
    let place = if matches!(prize, Prize::Use(_)) { format!("{key} used") } else { key.to_owned() };
    let there = loop {
        match truth.read("contest", b"p", place.as_bytes(), NOW).await {
            Ok(there) => break there,
            // The database may be paused.
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(other) => panic!("{other}"),
        }
    };
    let there = there.filter(|there| !matches!(prize, Prize::Replace(version) if version == there.version));
    let won: Vec<usize> = (0..told.len()).filter(|&n| matches!(told[n], Ok(Outcome::Done(_)))).collect();
    assert!(won.len() <= 1, "at most one is told that he won: {told:?}");
    for (n, told) in told.iter().enumerate() {
        let happened = there.as_ref().is_some_and(|there| usize::from(there.value[0]) == n);
        match told {
            Ok(Outcome::Done(version)) => {
                assert!(happened && there.as_ref().is_some_and(|there| there.version == *version), "{n} won: {there:?}");
            }
            Ok(Outcome::Conflict) => assert!(!happened, "{n} was told that nothing happened, but it did"),
            Err(StoreError::Unavailable(_)) => (),
            Err(other) => panic!("{other}"),
        }
    }
    let open = told.iter().any(Result::is_err);
    assert!(there.is_some() || open, "nobody won, though all were answered");
    (there.map(|there| there.version), took)
}

/// A contest over one key a round; returns the duration of each transaction.
async fn contests(stores: &[CqlRecords], truth: &CqlRecords, rounds: std::ops::Range<usize>) -> Vec<Duration> {
    let mut all = Vec::new();
    for round in rounds {
        let key = format!("key {round}");
        let (inserted, took) = contest(stores, truth, &key, Prize::Insert).await;
        all.extend(took);
        // None is known to have been applied, though one may be: skip the round.
        let Some(inserted) = inserted else { continue };
        let (replaced, took) = contest(stores, truth, &key, Prize::Replace(inserted)).await;
        all.extend(took);
        let Some(replaced) = replaced else { continue };
        let (_, took) = contest(stores, truth, &key, Prize::Use(replaced)).await;
        all.extend(took);
    }
    all
}

/// If this failed, a late answer would let a token be used twice, or report a conflict for an applied transaction.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_true_though_answers_get_lost() {
    let Some(config) = keyspace().await else { return };
    let truth = opened(&config).await;
    let mut late = 0;
    // From timeouts that almost always expire to some that rarely do.
    for (n, timeout_ms) in [2, 3, 4, 6, 9, 14].into_iter().enumerate() {
        let hasty = CqlConfig { request_timeout_ms: timeout_ms, attempts: 6, ..config.clone() };
        let took = contests(&[opened(&hasty).await, opened(&hasty).await], &truth, n * 8..n * 8 + 8).await;
        late += took.iter().filter(|took| took.as_millis() > u128::from(timeout_ms)).count();
    }
    assert!(late > 20, "hardly an answer was lost: {late}");
}
