//! What is of the embedded records alone: the directory, kills, the disk, and what leaves it.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};

use kindred_embedded::fjall::Readable;
use kindred_embedded::small_disk::SmallDisk;

use super::*;
use crate::records::{SWEPT_AFTER_MS, conformance};

const NOW: EventTime = EventTime(1_767_600_000_000);
/// Names the directory to the process that is going to be killed.
const CHILD: &str = "KINDRED_TEST_RECORDS_CHILD";

fn open(dir: &Path) -> Arc<dyn RecordStore> {
    Arc::new(EmbeddedRecords::open(dir).unwrap())
}

async fn insert(
    store: &dyn RecordStore,
    sort: impl Into<Vec<u8>>,
    value: Vec<u8>,
    expires_at: Option<EventTime>,
    now: EventTime,
) {
    let outcome = store.transact("t", b"p", &[Step::insert(sort, value, expires_at)], now).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "its place is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("records"));
    conformance::run(&store, &store).await;
}

/// If it failed, what a person was told would be gone after a restart, or two processes would write one directory.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("records");
    let (versions, copy) = {
        let store = open(&at);
        assert!(matches!(EmbeddedRecords::open(&at), Err(StoreError::Refused(_))));
        let mut versions = Vec::new();
        for n in 0..50_u8 {
            let steps = [Step::insert([n], vec![n; 100], None), Step::insert([n, n], vec![n], Some(EventTime(NOW.0 + 1)))];
            let Outcome::Done(version) = store.transact("t", b"p", &steps, NOW).await.unwrap() else { panic!("it is new") };
            versions.push(version);
        }
        // The files as they are, with nothing closed.
        let copy = dir.path().join("copy");
        assert!(Process::new("cp").arg("-r").arg(&at).arg(&copy).status().unwrap().success());
        (versions, copy)
    };
    for dir in [at, copy] {
        let store = open(&dir);
        for (n, &version) in versions.iter().enumerate() {
            let n = u8::try_from(n).unwrap();
            let long = store.read("t", b"p", &[n], NOW).await.unwrap().unwrap();
            assert_eq!(long, Record { value: vec![n; 100], version, expires_at: None });
            assert_eq!(store.read("t", b"p", &[n, n], NOW).await.unwrap().unwrap().version, version);
        }
    }
}

/// The process that is killed: it inserts pairs, one partition a task, and says which were acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_kill_leaves_each_transaction_whole_or_absent"]
async fn writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&dir));
    for task in 0..8_u8 {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let after = store.scan("t", &[task], &Range { descending: true, ..Range::default() }, 1, NOW).await.unwrap();
            let first = after.first().map_or(0, |(sort, _)| u32::from_be_bytes(sort[1..].try_into().unwrap()) + 1);
            for n in first.. {
                let of = |half: u8| [[half].as_slice(), &n.to_be_bytes()].concat();
                let steps = [Step::insert(of(0), vec![task; 50], None), Step::insert(of(1), vec![task; 5_000], None)];
                let outcome = store.transact("t", &[task], &steps, NOW).await.unwrap();
                assert!(matches!(outcome, Outcome::Done(_)));
                println!("acknowledged {task} {n}");
            }
        });
    }
    std::future::pending::<()>().await;
}

/// If it failed, a kill would take back what a person was told, or leave half of what has to change together.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_each_transaction_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("records");
    let mut acknowledged = [None::<u32>; 8];
    for round in 0..4_usize {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "records::embedded::tests::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &at)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = 0;
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ').skip_while(|word| *word != "acknowledged").skip(1);
            let (Some(task), Some(n)) = (words.next(), words.next()) else { continue };
            let (Ok(task), Ok(n)) = (task.parse::<usize>(), n.parse()) else { continue };
            acknowledged[task] = acknowledged[task].max(Some(n));
            heard += 1;
            if heard == 200 + round * 37 {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success() && heard >= 200 + round * 37, "it was killed in the middle, after {heard}");
        let store = open(&at);
        for (task, acknowledged) in acknowledged.iter().enumerate() {
            let partition = [u8::try_from(task).unwrap()];
            let half = async |half: u8| {
                let (mut found, mut range) = (Vec::new(), Range { prefix: vec![half], ..Range::default() });
                loop {
                    let page = store.scan("t", &partition, &range, 1_000, NOW).await.unwrap();
                    let Some((last, _)) = page.last() else { return found };
                    range.after = Some(last.clone());
                    found.extend(
                        page.into_iter()
                            .map(|(sort, record)| (u32::from_be_bytes(sort[1..].try_into().unwrap()), record.version)),
                    );
                }
            };
            let (first, second) = (half(0).await, half(1).await);
            assert!(first == second, "both halves of each transaction are of one write");
            assert!(first.iter().map(|(n, _)| *n).eq(0..u32::try_from(first.len()).unwrap()), "none is left out");
            assert!(first.last().map(|(n, _)| *n) >= *acknowledged, "what was acknowledged is there");
        }
    }
}

/// If it failed, the directory would keep what has expired for ever, or lose what has not.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_leaves_with_later_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("records");
    let soon = EventTime(NOW.0 + 1_000);
    let swept = EventTime(soon.0 + SWEPT_AFTER_MS);
    let mut store = EmbeddedRecords::open(&at).unwrap();
    for n in 0..600_u32 {
        insert(&store, format!("gone {n}"), b"x".to_vec(), Some(soon), NOW).await;
    }
    insert(&store, "stays", b"x".to_vec(), None, NOW).await;
    insert(&store, "later", b"x".to_vec(), Some(EventTime(swept.0 + 1)), NOW).await;
    insert(&store, "renewed", b"x".to_vec(), Some(soon), NOW).await;
    let renewed = store.read("t", b"p", b"renewed", NOW).await.unwrap().unwrap().version;
    let steps = [Step::replace("renewed", renewed, b"y".to_vec(), Some(EventTime(swept.0 + 2)))];
    assert!(matches!(store.transact("t", b"p", &steps, NOW).await.unwrap(), Outcome::Done(_)));
    // What lies on the disk, expired or not: records, and the times at which they expire.
    let count = |store: &EmbeddedRecords| {
        let engine = store.database.get().unwrap();
        let instant = engine.snapshot();
        (instant.iter(engine.space(RECORDS)).count(), instant.iter(engine.space(EXPIRIES)).count())
    };
    let other = async |store: &EmbeddedRecords, n: u32, now: EventTime| {
        store.transact("other", b"p", &[Step::insert(format!("{n}"), Vec::new(), None)], now).await.unwrap();
    };
    other(&store, 0, EventTime(swept.0 - 1)).await;
    assert_eq!(count(&store), (604, 602), "a day is not over");
    other(&store, 1, swept).await;
    assert!((3..604).contains(&count(&store).0), "not all at once: {:?}", count(&store));
    // A restart begins anew, and finds the rest.
    drop(store);
    store = EmbeddedRecords::open(&at).unwrap();
    for n in 2..6 {
        other(&store, n, EventTime(swept.0 + 1)).await;
    }
    let left = store.scan("t", b"p", &Range::default(), 9, EventTime(swept.0)).await.unwrap();
    assert_eq!(left.iter().map(|(sort, _)| sort.as_slice()).collect::<Vec<_>>(), [b"later".as_slice(), b"renewed", b"stays"]);
    assert_eq!(count(&store), (3 + 6, 2));
    // Also what is written with a time long past.
    insert(&store, "past", b"x".to_vec(), Some(EventTime(NOW.0 - 1)), swept).await;
    assert_eq!(count(&store), (4 + 6, 3));
    other(&store, 6, swept).await;
    assert_eq!(count(&store), (3 + 7, 2));
}

/// If it failed, a full disk would halve a transaction, or keep the records shut when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_half_transaction_and_the_records_go_on() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let dir = disk.path().join("records");
    let store = EmbeddedRecords::open_with(&dir, 0).unwrap();
    let pair = |n: u32| {
        let of = |half: u8| [[half].as_slice(), &n.to_be_bytes()].concat();
        let value = || rand::random_iter::<u8>().take(20_000).collect();
        [Step::insert(of(0), value(), None), Step::insert(of(1), value(), None)]
    };
    let mut n = 0;
    for _ in 0..3 {
        let ballast = disk.fill(2 << 20);
        let reason = loop {
            match store.transact("t", b"p", &pair(n), NOW).await {
                Ok(Outcome::Done(_)) => n += 1,
                Ok(Outcome::Conflict) => panic!("its place is free"),
                Err(StoreError::Full(reason)) => break reason,
                Err(other) => panic!("{other}"),
            }
            assert!(n < 10_000, "the disk was never full");
        };
        assert!(!reason.is_empty());
        drop(ballast);
        assert!(matches!(store.transact("t", b"p", &pair(n), NOW).await, Ok(Outcome::Done(_))), "there is room again");
        n += 1;
        for half in 0..2 {
            let found = store.scan("t", b"p", &Range { prefix: vec![half], ..Range::default() }, 1_000, NOW).await.unwrap();
            assert_eq!(found.len(), usize::try_from(n).unwrap());
        }
    }
    assert!(store.database.reopened() > 0, "the database was never poisoned");
}

/// If it failed, names and addresses of erased members would be found in the files of the accounts long after they were deleted.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_leave_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("records");
    let store = open(&at);
    let marker = b"Zq7xK2vR9mWt4LbN";
    let mut versions = Vec::new();
    for n in 0..50_u8 {
        let step = Step::insert([n], [marker.as_slice(), &[n]].concat(), Some(EventTime(NOW.0 + 1_000_000)));
        let outcome = store.transact("t", &[n % 4], &[step], NOW).await.unwrap();
        let Outcome::Done(done) = outcome else { panic!("its place is free") };
        versions.push(done);
    }
    assert!(!kindred_embedded::files_with(&at, marker).is_empty(), "the search finds nothing");
    for (n, version) in (0..50_u8).zip(versions) {
        let deleted = store.transact("t", &[n % 4], &[Step::delete([n], version)], NOW).await.unwrap();
        assert!(matches!(deleted, Outcome::Done(_)));
    }
    store.shed().await.unwrap();
    assert_eq!(kindred_embedded::files_with(&at, marker), Vec::<std::path::PathBuf>::new());
}
