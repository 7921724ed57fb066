//! Random transactions and readings, beside a map that does what the port says.

use std::collections::BTreeMap;

use kindred_model::EventTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Handle, NOW};
use crate::records::{Effect, Expect, Outcome, Range, Record, Step, Version};

const SEEDS: u64 = 6;
const OPERATIONS: usize = 120;
const SORTS: [&[u8]; 7] = [b"", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"];
const PARTITIONS: [&[u8]; 2] = [b"", b"p"];

type Model = BTreeMap<(Vec<u8>, Vec<u8>), Record>;

fn any<'a>(random: &mut StdRng, of: &[&'a [u8]]) -> &'a [u8] {
    of[random.random_range(0..of.len())]
}

/// Steps on some of the records, most of which expect what is there.
fn steps(random: &mut StdRng, model: &Model, partition: &[u8], now: EventTime, versions: &[Version]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let sort = any(random, &SORTS);
        if steps.iter().any(|step| step.sort == sort) {
            continue;
        }
        let there = model.get(&(partition.to_vec(), sort.to_vec())).filter(|record| !record.expired(now));
        let expect = match random.random_range(0..12) {
            0 => Expect::Absent,
            1 if !versions.is_empty() => Expect::Version(versions[random.random_range(0..versions.len())]),
            _ => there.map_or(Expect::Absent, |record| Expect::Version(record.version)),
        };
        let effect = match random.random_range(0..8) {
            0 | 1 if expect != Expect::Absent => Effect::Delete,
            2 => Effect::Check,
            _ => {
                let value = (0..random.random_range(0..9)).map(|_| random.random()).collect();
                let expires_at = random.random_bool(0.5).then(|| EventTime(now.0 + random.random_range(-5..20)));
                Effect::Put { value, expires_at }
            }
        };
        steps.push(Step { sort: sort.to_vec(), expect, effect });
    }
    steps
}

/// What the port says that a transaction does.
fn apply(model: &mut Model, partition: &[u8], steps: &[Step], now: EventTime, version: Option<Version>) -> bool {
    let key = |step: &Step| (partition.to_vec(), step.sort.clone());
    let holds = |step: &Step| {
        let there = model.get(&key(step)).filter(|record| !record.expired(now));
        there.map_or(Expect::Absent, |record| Expect::Version(record.version)) == step.expect
    };
    if !steps.iter().all(holds) {
        return false;
    }
    let version = version.expect("every expectation holds, so the transaction happens");
    for step in steps {
        match &step.effect {
            Effect::Put { value, expires_at } => {
                model.insert(key(step), Record { value: value.clone(), version, expires_at: *expires_at });
            }
            Effect::Delete => drop(model.remove(&key(step))),
            Effect::Check => (),
        }
    }
    true
}

pub(super) async fn any_sequence_does_what_the_model_does(one: &Handle, other: &Handle) {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let (table, mut model) = (format!("model_{seed}"), Model::new());
        let (mut now, mut versions, mut happened) = (NOW, Vec::new(), 0);
        for n in 0..OPERATIONS {
            let store = if random.random_bool(0.5) { one } else { other };
            let partition = any(&mut random, &PARTITIONS);
            now = EventTime(now.0 + random.random_range(0..4));
            let told = format!("seed {seed}, operation {n}");
            match random.random_range(0..6) {
                0 => {
                    let sort = any(&mut random, &SORTS);
                    let expected = model.get(&(partition.to_vec(), sort.to_vec())).filter(|record| !record.expired(now));
                    let found = store.read(&table, partition, sort, now).await.expect("the store answers");
                    assert_eq!(found.as_ref(), expected, "{told}");
                }
                1 => {
                    let prefix = [b"".as_slice(), b"a", b"\xff"][random.random_range(0..3)].to_vec();
                    let after = random.random_bool(0.5).then(|| any(&mut random, &SORTS).to_vec());
                    let range = Range { prefix, after, descending: random.random_bool(0.5) };
                    let limit = random.random_range(1..9);
                    let found = store.scan(&table, partition, &range, limit, now).await.expect("the store answers");
                    let within = |sort: &Vec<u8>| {
                        let behind = match &range.after {
                            Some(after) => {
                                if range.descending {
                                    sort < after
                                } else {
                                    sort > after
                                }
                            }
                            None => true,
                        };
                        behind && sort.starts_with(&range.prefix)
                    };
                    let live =
                        model.iter().filter(|((of, sort), record)| of == partition && within(sort) && !record.expired(now));
                    let mut expected: Vec<_> = live.map(|((_, sort), record)| (sort.clone(), record.clone())).collect();
                    if range.descending {
                        expected.reverse();
                    }
                    expected.truncate(limit);
                    assert_eq!(found, expected, "{told}: {range:?}, {limit}");
                }
                _ => {
                    let steps = steps(&mut random, &model, partition, now, &versions);
                    let outcome = store.transact(&table, partition, &steps, now).await.expect("the store answers");
                    let version = match outcome {
                        Outcome::Done(version) => Some(version),
                        Outcome::Conflict => None,
                    };
                    versions.extend(version);
                    let expected = apply(&mut model, partition, &steps, now, version);
                    assert_eq!(version.is_some(), expected, "{told}: {steps:?}");
                    happened += usize::from(expected);
                }
            }
        }
        assert!(happened > OPERATIONS / 3, "most of what is tried happens, or nothing is tested: {happened} of {OPERATIONS}");
    }
}
