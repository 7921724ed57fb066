//! What every store of records has to pass: each sentence of the port's documentation as a check.
//!
//! ```no_run
//! # async fn example(one: std::sync::Arc<dyn kindred_store::records::RecordStore>, other: std::sync::Arc<dyn kindred_store::records::RecordStore>) {
//! kindred_store::records::conformance::run(&one, &other).await;
//! # }
//! ```
//! `one` and `other` are handles on the same records: two sessions where several processes may open them, else the same one twice. The
//! records must be empty, and nothing else uses them meanwhile. A check that fails panics and says which sentence does not hold.

mod keys;
mod model;
mod race;

use std::sync::Arc;

use kindred_model::EventTime;

use super::{
    Effect, Expect, KEY_BYTES_MAX, Outcome, PAGE_MAX, Range, Record, RecordStore, STEPS_MAX, Step, TABLE_BYTES_MAX,
    TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX, Version,
};
use crate::StoreError;

type Handle = Arc<dyn RecordStore>;

/// When the checks take place; a later moment is so many milliseconds after it.
const NOW: EventTime = EventTime(1_767_600_000_000);
const HOUR_MS: i64 = 3_600_000;

/// What holds of every store of records.
///
/// # Panics
/// When a check fails.
pub async fn run(one: &Handle, other: &Handle) {
    what_is_written_is_read_by_everyone(one, other).await;
    no_text_is_part_of_a_query(one).await;
    a_transaction_whose_expectation_fails_does_nothing(one).await;
    what_has_expired_is_as_good_as_absent(one, other).await;
    a_deleted_record_is_absent(one, other).await;
    scans_come_in_the_order_of_sort_keys(one, other).await;
    a_page_is_full_unless_there_are_no_more(one).await;
    what_is_too_long_is_refused(one).await;
    partitions_and_tables_are_kept_apart(one).await;
    race::exactly_one_wins(one, other).await;
    race::nobody_sees_half_a_transaction(one, other).await;
    keys::run(one, other).await;
    model::any_sequence_does_what_the_model_does(one, other).await;
}

fn at(later_ms: i64) -> EventTime {
    EventTime(NOW.0 + later_ms)
}

async fn transact(store: &Handle, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Outcome {
    store.transact(table, partition, steps, now).await.expect("the store answers")
}

/// A transaction that has to happen.
async fn done(store: &Handle, table: &str, partition: &[u8], steps: &[Step]) -> Version {
    match transact(store, table, partition, steps, NOW).await {
        Outcome::Done(version) => version,
        Outcome::Conflict => panic!("nobody else writes, so it happens: {steps:?}"),
    }
}

async fn read(store: &Handle, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Option<Record> {
    store.read(table, partition, sort, now).await.expect("the store answers")
}

async fn scan(store: &Handle, table: &str, partition: &[u8], range: &Range, limit: usize) -> Vec<(Vec<u8>, Record)> {
    store.scan(table, partition, range, limit, NOW).await.expect("the store answers")
}

fn record(value: &[u8], version: Version, expires_at: Option<EventTime>) -> Record {
    Record { value: value.to_vec(), version, expires_at }
}

/// Keys and values are data whatever stands in them (V1.2.4).
async fn no_text_is_part_of_a_query(store: &Handle) {
    let table = "texts";
    done(store, table, b"plain", &[Step::insert("ma", b"1".to_vec(), None)]).await;
    for text in [
        "'; DROP TABLE members; --",
        "ma' OR '1'='1",
        "ma%",
        "m_",
        "*",
        "?",
        ":a",
        "\"",
        "$$",
        "\\",
        "$(id)",
        "/*",
        "{{7*7}}",
        "\n",
    ] {
        let version = done(store, table, text.as_bytes(), &[Step::insert(text, text.as_bytes().to_vec(), None)]).await;
        let there = record(text.as_bytes(), version, None);
        assert_eq!(
            scan(store, table, text.as_bytes(), &Range::default(), 10).await,
            [(text.as_bytes().to_vec(), there)],
            "{text}"
        );
        let range = Range { prefix: text.as_bytes().to_vec(), ..Range::default() };
        assert_eq!(scan(store, table, b"plain", &range, 10).await, [], "{text} finds nothing but itself");
    }
    assert!(read(store, table, b"plain", b"ma", NOW).await.is_some());
}

async fn what_is_written_is_read_by_everyone(one: &Handle, other: &Handle) {
    let (table, partition) = ("written", b"p".as_slice());
    assert_eq!(read(one, table, partition, b"a", NOW).await, None);
    let first = done(one, table, partition, &[Step::insert("a", b"1".to_vec(), None)]).await;
    for store in [one, other] {
        assert_eq!(read(store, table, partition, b"a", NOW).await, Some(record(b"1", first, None)));
    }
    let second = done(other, table, partition, &[Step::replace("a", first, b"2".to_vec(), Some(at(HOUR_MS)))]).await;
    assert_ne!(first, second, "every write gives another version");
    assert_eq!(read(one, table, partition, b"a", NOW).await, Some(record(b"2", second, Some(at(HOUR_MS)))));
    let third = done(one, table, partition, &[Step::replace("a", second, Vec::new(), None)]).await;
    assert_eq!(read(other, table, partition, b"a", NOW).await, Some(record(b"", third, None)), "an empty value is one");
    // Several at once have one version; those that are not named stay.
    let steps = [
        Step::insert("b", b"b".to_vec(), None),
        Step::check("a", Expect::Version(third)),
        Step::insert("", b"c".to_vec(), Some(at(1))),
        Step::check("never", Expect::Absent),
    ];
    let both = done(other, table, partition, &steps).await;
    assert_eq!(read(one, table, partition, b"", NOW).await, Some(record(b"c", both, Some(at(1)))), "a sort key may be empty");
    assert_eq!(read(one, table, partition, b"b", NOW).await, Some(record(b"b", both, None)));
    assert_eq!(read(one, table, partition, b"a", NOW).await, Some(record(b"", third, None)));
    assert_eq!(read(one, table, partition, b"never", NOW).await, None, "what is looked at is not written");
    // Looking alone is a transaction too.
    done(one, table, partition, &[Step::check("a", Expect::Version(third))]).await;
    let checks = [Step::check("a", Expect::Version(third)), Step::check("b", Expect::Absent)];
    assert_eq!(transact(one, table, partition, &checks, NOW).await, Outcome::Conflict);
    assert_eq!(read(other, table, partition, b"a", NOW).await, Some(record(b"", third, None)));
}

async fn a_transaction_whose_expectation_fails_does_nothing(one: &Handle) {
    let (table, partition) = ("expected", b"p".as_slice());
    let old = done(one, table, partition, &[Step::insert("a", b"old".to_vec(), None)]).await;
    let now = done(one, table, partition, &[Step::replace("a", old, b"now".to_vec(), None)]).await;
    let no_write = Version(7);
    let failing = [
        Step::insert("a", b"x".to_vec(), None),
        Step::replace("a", old, b"x".to_vec(), None),
        Step::delete("a", old),
        Step::replace("none", no_write, b"x".to_vec(), None),
        Step::delete("none", no_write),
        Step::check("none", Expect::Version(now)),
        Step::check("a", Expect::Absent),
    ];
    for step in failing {
        assert_eq!(transact(one, table, partition, std::slice::from_ref(&step), NOW).await, Outcome::Conflict, "{step:?}");
        for steps in
            [[Step::insert("b", b"x".to_vec(), None), step.clone()], [step.clone(), Step::insert("b", b"x".to_vec(), None)]]
        {
            assert_eq!(transact(one, table, partition, &steps, NOW).await, Outcome::Conflict, "{step:?}, with another");
        }
    }
    assert_eq!(read(one, table, partition, b"a", NOW).await, Some(record(b"now", now, None)));
    assert_eq!(read(one, table, partition, b"b", NOW).await, None);
    assert_eq!(scan(one, table, partition, &Range::default(), 9).await.len(), 1);
}

async fn what_has_expired_is_as_good_as_absent(one: &Handle, other: &Handle) {
    let (table, partition) = ("expiry", b"p".as_slice());
    let steps = [Step::insert("a", b"1".to_vec(), Some(at(1_000))), Step::insert("b", b"1".to_vec(), Some(at(1_000)))];
    let first = done(one, table, partition, &steps).await;
    assert!(read(other, table, partition, b"a", at(999)).await.is_some());
    assert_eq!(read(other, table, partition, b"a", at(1_000)).await, None, "from its time on");
    assert_eq!(other.scan(table, partition, &Range::default(), 9, at(1_000)).await.expect("scanned"), []);
    let late = at(1_000);
    let failing =
        [Step::replace("a", first, b"x".to_vec(), None), Step::delete("a", first), Step::check("a", Expect::Version(first))];
    for step in failing {
        assert_eq!(transact(one, table, partition, &[step], late).await, Outcome::Conflict);
    }
    let steps = [Step::check("b", Expect::Absent), Step::insert("a", b"2".to_vec(), Some(at(2_000)))];
    let Outcome::Done(second) = transact(other, table, partition, &steps, late).await else { panic!("its place is free") };
    assert_eq!(read(one, table, partition, b"a", late).await, Some(record(b"2", second, Some(at(2_000)))));
    assert_eq!(transact(one, table, partition, &[Step::insert("a", b"x".to_vec(), None)], late).await, Outcome::Conflict);
    // One that never expires takes its place, one that has expired already is none.
    let steps = [Step::replace("a", second, b"3".to_vec(), None)];
    let Outcome::Done(third) = transact(one, table, partition, &steps, late).await else { panic!("it is as it was read") };
    let steps = [Step::insert("c", b"x".to_vec(), Some(at(0))), Step::check("a", Expect::Version(third))];
    done(one, table, partition, &steps).await;
    assert_eq!(read(one, table, partition, b"c", NOW).await, None);
    let years = 40 * 365 * 24 * HOUR_MS;
    assert_eq!(read(other, table, partition, b"a", at(years)).await, Some(record(b"3", third, None)));
    // Swept or not, after a long time: an insert finds the place free, and what lives stays.
    let far = at(10 * 24 * HOUR_MS);
    for n in 0..3 {
        let steps = [Step::insert(format!("d{n}"), b"1".to_vec(), Some(EventTime(far.0 + 1)))];
        assert!(matches!(transact(one, table, partition, &steps, far).await, Outcome::Done(_)));
    }
    let there = one.scan(table, partition, &Range::default(), 9, far).await.expect("scanned");
    assert_eq!(there.iter().map(|(sort, _)| sort.as_slice()).collect::<Vec<_>>(), [b"a".as_slice(), b"d0", b"d1", b"d2"]);
    assert!(matches!(transact(one, table, partition, &[Step::insert("b", b"2".to_vec(), None)], far).await, Outcome::Done(_)));
}

async fn a_deleted_record_is_absent(one: &Handle, other: &Handle) {
    let (table, partition) = ("deleted", b"p".as_slice());
    let mut before = None;
    for round in 0..3_u8 {
        let insert = [Step::insert("a", vec![round], None), Step::insert("b", vec![round], None)];
        let version = done(one, table, partition, &insert).await;
        if let Some(before) = before {
            assert_eq!(transact(one, table, partition, &[Step::delete("a", before)], NOW).await, Outcome::Conflict);
        }
        let delete = [Step::delete("a", version), Step::delete("b", version)];
        let deleted = done(other, table, partition, &delete).await;
        for store in [one, other] {
            assert_eq!(read(store, table, partition, b"a", NOW).await, None);
            assert_eq!(scan(store, table, partition, &Range::default(), 9).await, []);
        }
        // Neither what was deleted nor the deletion is a record.
        for version in [version, deleted] {
            for step in [Step::delete("a", version), Step::replace("a", version, b"x".to_vec(), None)] {
                assert_eq!(transact(one, table, partition, &[step], NOW).await, Outcome::Conflict);
            }
        }
        done(one, table, partition, &[Step::check("a", Expect::Absent)]).await;
        before = Some(version);
    }
}

async fn scans_come_in_the_order_of_sort_keys(one: &Handle, other: &Handle) {
    let (table, partition) = ("scan", b"p".as_slice());
    let mut sorts: Vec<Vec<u8>> =
        [b"".as_slice(), b"a", b"a\0", b"a\0\0", b"a\x01", b"a\xff", b"a\xff\xff", b"b", b"b1", b"\xff", b"\xff\0", b"\xff\xff"]
            .map(<[u8]>::to_vec)
            .to_vec();
    sorts.push(vec![0xff; KEY_BYTES_MAX]);
    for sort in sorts.iter().rev() {
        done(one, table, partition, &[Step::insert(sort.clone(), sort.clone(), None)]).await;
    }
    // Beside them lie other partitions and what has gone.
    for beside in [b"".as_slice(), b"p\0", b"o", b"q"] {
        done(one, table, beside, &[Step::insert("a", b"beside".to_vec(), None)]).await;
    }
    let gone = done(one, table, partition, &[Step::insert("a\x02", b"x".to_vec(), None)]).await;
    done(one, table, partition, &[Step::delete("a\x02", gone)]).await;
    done(one, table, partition, &[Step::insert("a\x03", b"x".to_vec(), Some(NOW))]).await;
    let keys = |found: Vec<(Vec<u8>, Record)>| -> Vec<Vec<u8>> {
        found
            .into_iter()
            .map(|(sort, record)| {
                assert_eq!(sort, record.value, "a record comes with its own sort key");
                sort
            })
            .collect()
    };
    let afters: Vec<Option<Vec<u8>>> = std::iter::once(None)
        .chain(sorts.iter().cloned().map(Some))
        .chain([Some(b"a\x02".to_vec()), Some(b"aa".to_vec())])
        .collect();
    for prefix in [b"".as_slice(), b"a", b"a\0", b"a\xff", b"b", b"c", b"\xff"] {
        for descending in [false, true] {
            for after in &afters {
                let behind = |sort: &Vec<u8>| match after {
                    Some(after) if descending => sort < after,
                    Some(after) => sort > after,
                    None => true,
                };
                let mut expected: Vec<Vec<u8>> =
                    sorts.iter().filter(|sort| sort.starts_with(prefix) && behind(sort)).cloned().collect();
                expected.sort();
                if descending {
                    expected.reverse();
                }
                let range = Range { prefix: prefix.to_vec(), after: after.clone(), descending };
                assert_eq!(keys(scan(other, table, partition, &range, 100).await), expected, "{range:?}");
                expected.truncate(2);
                assert_eq!(keys(scan(one, table, partition, &range, 2).await), expected, "{range:?}, two of them");
            }
        }
    }
    assert_eq!(scan(one, table, partition, &Range::default(), 0).await, []);
}

async fn a_page_is_full_unless_there_are_no_more(one: &Handle) {
    let (table, partition) = ("pages", b"p".as_slice());
    let sort = |n: usize| format!("{n:05}").into_bytes();
    let count = PAGE_MAX + 250;
    // Every third has gone: what has gone does not take up the room of a page.
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(STEPS_MAX) {
        let step = |&n: &usize| Step::insert(sort(n), sort(n), (n % 3 == 0).then(|| at(if n % 2 == 0 { 0 } else { HOUR_MS })));
        let version = done(one, table, partition, &chunk.iter().map(step).collect::<Vec<_>>()).await;
        let odd = chunk.iter().filter(|n| **n % 6 == 3).map(|&n| Step::delete(sort(n), version));
        done(one, table, partition, &odd.collect::<Vec<_>>()).await;
    }
    let mut expected: Vec<Vec<u8>> = numbers.iter().filter(|n| **n % 3 != 0).map(|&n| sort(n)).collect();
    for descending in [false, true] {
        for limit in [7, 100, 300, PAGE_MAX] {
            let mut range = Range { descending, ..Range::default() };
            let mut found = Vec::new();
            loop {
                let page = scan(one, table, partition, &range, limit).await;
                assert!(page.len() == limit || found.len() + page.len() == expected.len(), "{} of {limit}", page.len());
                let last = page.last().map(|(sort, _)| sort.clone());
                found.extend(page.into_iter().map(|(sort, _)| sort));
                let Some(last) = last else { break };
                range.after = Some(last);
            }
            assert!(found == expected, "{} found by pages of {limit}, {} expected", found.len(), expected.len());
        }
        expected.reverse();
    }
}

async fn what_is_too_long_is_refused(one: &Handle) {
    let table = "t".repeat(TABLE_BYTES_MAX);
    let (key, long_key) = (vec![0xff; KEY_BYTES_MAX], vec![b'k'; KEY_BYTES_MAX + 1]);
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let version = done(one, &table, &key, &[Step::insert(key.clone(), value.clone(), None)]).await;
    assert_eq!(read(one, &table, &key, &key, NOW).await, Some(record(&value, version, None)));
    let many = (0..STEPS_MAX).map(|n| Step::insert(format!("{n}"), vec![b'v'; 10_000], None)).collect::<Vec<_>>();
    done(one, &table, b"", &many).await;
    assert_eq!(scan(one, &table, b"", &Range::default(), PAGE_MAX).await.len(), STEPS_MAX);
    done(
        one,
        &table,
        b"",
        &(0..4).map(|n| Step::insert(format!("m{n}"), vec![b'v'; VALUE_BYTES_MAX - 2], None)).collect::<Vec<_>>(),
    )
    .await;

    let refused = async |table: &str, partition: &[u8], steps: &[Step]| {
        let outcome = one.transact(table, partition, steps, NOW).await;
        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{table:?}: {outcome:?}");
    };
    let fine = [Step::insert("a", b"1".to_vec(), None)];
    for name in ["", "Table", "t t", "t-t", &"t".repeat(TABLE_BYTES_MAX + 1)] {
        refused(name, b"p", &fine).await;
        assert!(matches!(one.read(name, b"p", b"a", NOW).await, Err(StoreError::Refused(_))));
    }
    let table = table.as_str();
    refused(table, &long_key, &fine).await;
    refused(table, b"p", &[]).await;
    refused(table, b"p", &[Step::insert(long_key.clone(), b"1".to_vec(), None)]).await;
    refused(table, b"p", &[fine[0].clone(), Step::insert("b", vec![b'v'; VALUE_BYTES_MAX + 1], None)]).await;
    refused(table, b"p", &[fine[0].clone(), Step::check("a", Expect::Absent)]).await;
    refused(table, b"p", &[Step { sort: b"b".to_vec(), expect: Expect::Absent, effect: Effect::Delete }]).await;
    let too_many = (0..=STEPS_MAX).map(|n| Step::insert(format!("{n}"), Vec::new(), None)).collect::<Vec<_>>();
    refused(table, b"p", &too_many).await;
    let values = TRANSACTION_BYTES_MAX / VALUE_BYTES_MAX;
    let too_much = (0..values).map(|n| Step::insert(format!("{n}"), value.clone(), None)).collect::<Vec<_>>();
    refused(table, b"p", &too_much).await;
    for outcome in [one.read(table, &long_key, b"a", NOW).await, one.read(table, b"p", &long_key, NOW).await] {
        assert!(matches!(outcome, Err(StoreError::Refused(_))));
    }
    let after = Range { after: Some(long_key.clone()), ..Range::default() };
    let prefix = Range { prefix: long_key.clone(), ..Range::default() };
    for (range, limit) in [(after, 1), (prefix, 1), (Range::default(), PAGE_MAX + 1)] {
        assert!(matches!(one.scan(table, b"p", &range, limit, NOW).await, Err(StoreError::Refused(_))));
    }
    assert_eq!(scan(one, table, b"p", &Range::default(), 9).await, [], "and nothing of it happened");
}

async fn partitions_and_tables_are_kept_apart(one: &Handle) {
    let places =
        [("apart", b"".as_slice()), ("apart", b"a"), ("apart", b"a\0"), ("apart_", b""), ("apar", b"t"), ("apart_outbox", b"a")];
    let mut written = Vec::new();
    for (n, (table, partition)) in places.into_iter().enumerate() {
        written.push(done(one, table, partition, &[Step::insert("a", vec![u8::try_from(n).expect("few")], None)]).await);
    }
    for (n, (table, partition)) in places.into_iter().enumerate() {
        let own = (b"a".to_vec(), record(&[u8::try_from(n).expect("few")], written[n], None));
        assert_eq!(scan(one, table, partition, &Range::default(), 9).await, [own], "{table} {partition:?}");
    }
}
