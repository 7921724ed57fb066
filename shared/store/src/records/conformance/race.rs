//! Tasks that race on both handles: for each transaction it shows that it was whole, and the only one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Handle, NOW, done, read, scan};
use crate::StoreError;
use crate::records::{Outcome, Range, Step, Version};

const RACERS: usize = 64;

/// How often each of the racers' outcomes came.
#[derive(Default, PartialEq, Eq, Debug)]
struct Outcomes {
    done: Vec<Version>,
    conflicts: usize,
    unavailable: usize,
}

/// Each racer makes one transaction, all at the same moment, half of them on either handle.
async fn race(one: &Handle, other: &Handle, table: &'static str, steps: impl Fn(usize) -> Vec<Step>) -> Outcomes {
    let start = Arc::new(tokio::sync::Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|n| {
            let (store, start, steps) = (Arc::clone(if n % 2 == 0 { one } else { other }), Arc::clone(&start), steps(n));
            tokio::spawn(async move {
                start.wait().await;
                store.transact(table, b"p", &steps, NOW).await
            })
        })
        .collect();
    let mut outcomes = Outcomes::default();
    for racer in racers {
        match racer.await.expect("no panic") {
            Ok(Outcome::Done(version)) => outcomes.done.push(version),
            Ok(Outcome::Conflict) => outcomes.conflicts += 1,
            Err(StoreError::Unavailable(_)) => outcomes.unavailable += 1,
            Err(other) => panic!("{other}"),
        }
    }
    outcomes
}

pub(super) async fn exactly_one_wins(one: &Handle, other: &Handle) {
    let table = "race";
    let number = |n: usize| vec![u8::try_from(n).expect("few")];
    let mut wins = 0;
    let mut winner = |outcomes: &Outcomes, what: &str| {
        // A store that is overloaded may leave some without an answer, but never two with a good one.
        assert!(
            outcomes.done.len() <= 1 && outcomes.conflicts + outcomes.unavailable + outcomes.done.len() == RACERS,
            "{what}: {outcomes:?}"
        );
        assert_eq!(outcomes.done.len(), 1, "exactly one {what}: {outcomes:?}");
        wins += 1;
        outcomes.done[0]
    };
    for round in 0..3 {
        let key = format!("one {round}");
        let outcomes = race(one, other, table, |n| vec![Step::insert(key.as_str(), number(n), None)]).await;
        let inserted = winner(&outcomes, "insert");
        let there = read(one, table, b"p", key.as_bytes(), NOW).await.expect("it is there");
        assert_eq!(there.version, inserted, "the one who was told so");
        let outcomes = race(one, other, table, |n| {
            vec![Step::insert(format!("{key} {n}"), number(n), None), Step::replace(key.as_str(), inserted, number(n), None)]
        })
        .await;
        let replaced = winner(&outcomes, "replace");
        let there = read(other, table, b"p", key.as_bytes(), NOW).await.expect("it is there");
        assert_eq!(there.version, replaced, "the one who was told so");
        let beside = Range { prefix: format!("{key} ").into_bytes(), ..Range::default() };
        let beside = scan(one, table, b"p", &beside, RACERS).await;
        let expected = (format!("{key} {}", there.value[0]).into_bytes(), there.clone());
        assert_eq!(beside, [expected], "and what the others wanted beside it is not there");
        let outcomes = race(one, other, table, |_| vec![Step::delete(key.as_str(), replaced)]).await;
        winner(&outcomes, "delete");
        assert_eq!(read(one, table, b"p", key.as_bytes(), NOW).await, None);
    }
    assert_eq!(wins, 9);
}

/// Amounts are moved between records, so that their sum stays. What a transaction saw and what it wrote are from one moment.
pub(super) async fn nobody_sees_half_a_transaction(one: &Handle, other: &Handle) {
    const ACCOUNTS: usize = 6;
    const AMOUNT: u64 = 1_000;
    const MOVERS: u64 = 6;
    const MOVES: usize = 25;
    let table = "moves";
    let sort = |n: usize| format!("account {n}").into_bytes();
    let amount = |value: &[u8]| u64::from_be_bytes(value.try_into().expect("an amount"));
    let steps: Vec<_> = (0..ACCOUNTS).map(|n| Step::insert(sort(n), AMOUNT.to_be_bytes().to_vec(), None)).collect();
    done(one, table, b"p", &steps).await;
    let moving = Arc::new(AtomicBool::new(true));
    let movers: Vec<_> = (0..MOVERS)
        .map(|seed| {
            let store = Arc::clone(if seed % 2 == 0 { one } else { other });
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let mut moved = 0;
                while moved < MOVES {
                    let from = random.random_range(0..ACCOUNTS);
                    let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                    let (Some(source), Some(target)) =
                        (read(&store, table, b"p", &sort(from), NOW).await, read(&store, table, b"p", &sort(to), NOW).await)
                    else {
                        panic!("no account is ever absent")
                    };
                    let much = random.random_range(0..=amount(&source.value));
                    let (less, more) = (amount(&source.value) - much, amount(&target.value) + much);
                    let steps = [
                        Step::replace(sort(from), source.version, less.to_be_bytes().to_vec(), None),
                        Step::replace(sort(to), target.version, more.to_be_bytes().to_vec(), None),
                        Step::insert(format!("moved {seed} {moved:03}"), much.to_be_bytes().to_vec(), None),
                    ];
                    match store.transact(table, b"p", &steps, NOW).await.expect("the store answers") {
                        Outcome::Done(_) => moved += 1,
                        Outcome::Conflict => tokio::time::sleep(Duration::from_millis(random.random_range(0..5))).await,
                    }
                }
            })
        })
        .collect();
    // Meanwhile whoever looks at all of them, and writes that they are as they were, has seen one moment.
    let onlooker = tokio::spawn({
        let (store, moving) = (Arc::clone(other), Arc::clone(&moving));
        async move {
            let mut confirmed = 0;
            while moving.load(Ordering::Relaxed) || confirmed == 0 {
                let range = Range { prefix: b"account".to_vec(), ..Range::default() };
                let seen = scan(&store, table, b"p", &range, ACCOUNTS).await;
                let as_seen = seen.iter().map(|(sort, record)| Step::check(sort.clone(), super::Expect::Version(record.version)));
                let outcome = super::transact(&store, table, b"p", &as_seen.collect::<Vec<_>>(), NOW).await;
                if outcome != Outcome::Conflict {
                    let sum: u64 = seen.iter().map(|(_, record)| amount(&record.value)).sum();
                    assert_eq!(sum, AMOUNT * ACCOUNTS as u64, "nothing is lost or made on the way");
                    confirmed += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    for mover in movers {
        mover.await.expect("no panic");
    }
    moving.store(false, Ordering::Relaxed);
    onlooker.await.expect("no panic");
    let all: BTreeMap<_, _> = scan(one, table, b"p", &Range::default(), 1_000).await.into_iter().collect();
    let sum: u64 = (0..ACCOUNTS).map(|n| amount(&all[&sort(n)].value)).sum();
    assert_eq!(sum, AMOUNT * ACCOUNTS as u64);
    assert_eq!(all.len(), ACCOUNTS + usize::try_from(MOVERS).expect("few") * MOVES, "each move left its note");
}
