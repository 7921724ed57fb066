//! The conformance suite of the log: each sentence of the port's documentation as a check.
//!
//! ```no_run
//! # async fn example(open: impl AsyncFn(&str) -> std::sync::Arc<dyn kindred_log::EventLog>) {
//! kindred_log::conformance::run(open, kindred_log::conformance::Purging::InPlace).await;
//! # }
//! ```
//! `open(name)` opens the log of that name, creating it if needed. The suite drops a log and opens it again by its name; nothing
//! else may use it meanwhile. A failed check panics and names the sentence that does not hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_model::records::RECORD_BYTES_MAX;
use kindred_model::{Position, Topic};

use crate::broadcast::{Broadcast, Heard};
use crate::{EventLog, EventReader, LogError, LogRecord, Mark, Place, Rejected, Share};

/// In some implementations a poll crosses a network even when nothing comes.
const PATIENCE: Duration = Duration::from_secs(10);

type Opened = Arc<dyn EventLog>;

/// What [`EventLog::purge`] can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purging {
    /// Records are emptied in place.
    InPlace,
    /// Only rejected records are emptied; other records leave by retention and compaction.
    RejectedOnly,
}

/// Runs all checks.
///
/// # Panics
/// When one fails.
pub async fn run(open: impl AsyncFn(&str) -> Opened, purging: Purging) {
    an_empty_log_has_no_records(&open).await;
    places_count_up_in_the_order_of_a_call(&open).await;
    what_is_acknowledged_can_be_read(&open).await;
    many_tasks_may_append_at_once(&open).await;
    a_reader_may_stand_anywhere(&open).await;
    polling_waits_for_the_first_record(&open).await;
    reading_goes_on_while_writing(&open).await;
    marks_are_written_with_their_records(&open).await;
    a_refused_call_appends_nothing(&open).await;
    rejected_records_are_kept_until_removed(&open).await;
    purging_empties_payloads_and_keeps_offsets(&open, purging).await;
    shares_divide_the_partitions(&open).await;
    opening_again_gives_the_same(&open).await;
}

fn payload(n: usize) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}

fn payloads(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(payload).collect()
}

/// Reads up to `count` records, or fewer once nothing comes for a while.
fn read(reader: &mut dyn EventReader, count: usize) -> Vec<LogRecord> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while records.len() < count && Instant::now() < deadline {
        let before = records.len();
        reader.poll(count - before, Duration::from_secs(1), &mut records).expect("polling");
        assert!(records.len() <= count, "poll returned more than its limit");
    }
    records
}

async fn read_all(log: &Opened) -> Vec<LogRecord> {
    let end = log.end().await.expect("the end");
    let count = Position::beginning().lag_behind(&end);
    let records = read(&mut *log.reader(Share::ALL).expect("a reader"), usize::try_from(count).expect("few"));
    assert_eq!(records.len() as u64, count, "a reader from the beginning reads up to the end");
    records
}

/// The records by partition; checks that offsets are contiguous.
fn partitioned(records: &[LogRecord]) -> BTreeMap<(Topic, u32), Vec<&LogRecord>> {
    let mut partitions: BTreeMap<_, Vec<&LogRecord>> = BTreeMap::new();
    for record in records {
        let partition = partitions.entry((record.place.topic, record.place.partition)).or_default();
        if let Some(last) = partition.last() {
            assert_eq!(record.place.offset, last.place.offset + 1, "records of a partition come in its order, without a gap");
        }
        partition.push(record);
    }
    partitions
}

fn after(places: &[Place]) -> Position {
    let mut position = Position::beginning();
    for place in places {
        position.join(&place.position());
    }
    position
}

async fn an_empty_log_has_no_records(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("empty").await;
    assert!(!log.identity().is_empty(), "a log has an identity");
    assert_eq!(log.end().await.expect("the end"), Position::beginning());
    assert!(log.partitions().await.expect("partitions").iter().all(|p| p.first == 0 && p.next == 0));
    let mut records = Vec::new();
    let started = Instant::now();
    log.reader(Share::ALL).expect("a reader").poll(10, Duration::from_millis(50), &mut records).expect("nothing is no error");
    assert!(
        records.is_empty() && started.elapsed() >= Duration::from_millis(50),
        "poll waits for its timeout, then returns nothing"
    );
    assert_ne!(open("empty-too").await.identity(), log.identity(), "two logs have two identities");
}

async fn places_count_up_in_the_order_of_a_call(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("places").await;
    let mut expected: BTreeMap<(Topic, u32), Vec<Vec<u8>>> = BTreeMap::new();
    for (n, topic) in Topic::ALL.iter().cycle().take(12).enumerate() {
        let records = payloads(n * 10..n * 10 + n);
        let places = log.append(*topic, records.clone(), None).await.expect("appended");
        assert_eq!(places.len(), records.len(), "a place for every record");
        for (place, record) in places.iter().zip(records) {
            assert_eq!(place.topic, *topic);
            let partition = expected.entry((place.topic, place.partition)).or_default();
            assert_eq!(place.offset, partition.len() as u64, "offsets count up from 0 in the order of the call");
            partition.push(record);
        }
    }
    let records = read_all(&log).await;
    let got: BTreeMap<(Topic, u32), Vec<Vec<u8>>> = partitioned(&records)
        .into_iter()
        .map(|(key, records)| (key, records.iter().map(|r| r.payload.clone()).collect()))
        .collect();
    assert_eq!(got, expected, "what was appended is what is read");
    for status in log.partitions().await.expect("partitions") {
        let count = expected.get(&(status.topic, status.partition)).map_or(0, Vec::len) as u64;
        assert_eq!((status.first, status.next), (0, count), "partitions tell what can be read");
    }
    assert_eq!(log.append(Topic::Orders, Vec::new(), None).await.expect("nothing to do"), [], "no records have no places");
}

async fn what_is_acknowledged_can_be_read(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("acknowledged").await;
    let mut reader = log.reader(Share::ALL).expect("a reader");
    for n in 0..20 {
        let places = log.append(Topic::Interactions, payloads(n..n + 1), None).await.expect("appended");
        assert!(log.end().await.expect("the end").reaches(&places[0].position()), "the end is after what was acknowledged");
        assert!(reader.end().expect("the end").reaches(&places[0].position()), "for a reader, too");
        let records = read(&mut *reader, 1);
        assert_eq!(
            records,
            [LogRecord { place: places[0], payload: payload(n), tombstone: None }],
            "an acknowledged record can be read"
        );
    }
}

async fn many_tasks_may_append_at_once(open: &impl AsyncFn(&str) -> Opened) {
    const TASKS: usize = 8;
    const CALLS: usize = 25;
    let log = open("many").await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.spawn(async move {
            let mut appended = Vec::new();
            for call in 0..CALLS {
                let start = (task * CALLS + call) * 3;
                let places = log.append(Topic::Interactions, payloads(start..start + 3), None).await.expect("appended");
                appended.extend(places.into_iter().zip(payloads(start..start + 3)));
            }
            appended
        });
    }
    let mut appended: Vec<(Place, Vec<u8>)> = tasks.join_all().await.into_iter().flatten().collect();
    let mut got: Vec<(Place, Vec<u8>)> = read_all(&log).await.into_iter().map(|r| (r.place, r.payload)).collect();
    appended.sort();
    got.sort();
    assert_eq!(got, appended, "every record lies at the place that its appender was told, once");
}

async fn a_reader_may_stand_anywhere(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("seek").await;
    let first = log.append(Topic::Orders, payloads(0..10), None).await.expect("appended");
    let middle = after(&first);
    let second = log.append(Topic::Orders, payloads(10..15), None).await.expect("appended");
    log.append(Topic::Members, payloads(0..3), None).await.expect("appended");
    let end = log.end().await.expect("the end");
    let mut reader = log.reader(Share::ALL).expect("a reader");
    for (position, count) in [(&middle, 8), (&Position::beginning(), 18), (&end, 0), (&middle, 8)] {
        reader.seek(position).expect("a position of this log");
        let mut records = Vec::new();
        while records.len() < count {
            let before = records.len();
            reader.poll(100, PATIENCE, &mut records).expect("polling");
            assert!(records.len() > before, "what lies after the position is read");
        }
        reader.poll(100, Duration::ZERO, &mut records).expect("polling");
        assert_eq!(records.len(), count, "a reader reads from where it stands");
        for record in &records {
            assert!(record.place.offset >= position.next_offset(record.place.topic, record.place.partition));
        }
    }
    let mut beyond = end.clone();
    beyond.passed(Topic::Orders, second[0].partition, 1_000);
    assert!(matches!(reader.seek(&beyond), Err(LogError::Refused(_))), "a position after the end is of another log");
    reader.seek(&middle).expect("a position of this log");
    let records = read(&mut *reader, 4);
    assert_eq!(records.len(), 4, "a limit is a limit");
    let mut position = middle.clone();
    for record in &records {
        position.passed(record.place.topic, record.place.partition, record.place.offset);
    }
    assert_eq!(reader.position(), &position, "a reader tells where it stands");
    assert_eq!(position.lag_behind(&end), 4, "the rest is left");
    let mut other = log.reader(Share::ALL).expect("a second reader");
    other.seek(&position).expect("where the first one stands");
    let rest = |reader: &mut dyn EventReader| {
        let mut rest = read(reader, 4);
        rest.sort_by_key(|record| record.place);
        rest
    };
    assert_eq!(rest(&mut *reader), rest(&mut *other), "where a reader stands is told by what it has read");
}

async fn polling_waits_for_the_first_record(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("wait").await;
    let mut reader = log.reader(Share::ALL).expect("a reader");
    let waiting = std::thread::spawn(move || {
        let started = Instant::now();
        let mut records = Vec::new();
        reader.poll(10, PATIENCE, &mut records).expect("polling");
        (records.len(), started.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    log.append(Topic::Catalog, payloads(0..1), None).await.expect("appended");
    let (count, waited) = tokio::task::spawn_blocking(|| waiting.join()).await.expect("joined").expect("no panic");
    assert_eq!(count, 1, "poll returns the record that comes while it waits");
    assert!(waited < PATIENCE, "and returns when it comes");
}

async fn reading_goes_on_while_writing(open: &impl AsyncFn(&str) -> Opened) {
    const COUNT: usize = 600;
    let log = open("while").await;
    let mut reader = log.reader(Share::ALL).expect("a reader");
    let reading = std::thread::spawn(move || read(&mut *reader, COUNT));
    let mut places = Vec::new();
    for n in (0..COUNT).step_by(20) {
        let topic = if n % 40 == 0 { Topic::Interactions } else { Topic::Orders };
        places.extend(log.append(topic, payloads(n..n + 20), None).await.expect("appended"));
    }
    let records = tokio::task::spawn_blocking(|| reading.join()).await.expect("joined").expect("no panic");
    partitioned(&records);
    let mut got: Vec<Place> = records.iter().map(|record| record.place).collect();
    got.sort();
    places.sort();
    assert_eq!(got, places, "a reader misses nothing that is written while it reads");
}

async fn marks_are_written_with_their_records(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("marks").await;
    assert_eq!(log.mark("a").await.expect("a mark"), None);
    for done in [3, 6, 9] {
        let mark = Mark { name: "a".into(), done };
        log.append(Topic::Orders, payloads(0..3), Some(mark)).await.expect("appended");
        assert_eq!(log.mark("a").await.expect("a mark"), Some(done), "a mark is there with its records");
        assert_eq!(Position::beginning().lag_behind(&log.end().await.expect("the end")), done, "and they with it");
    }
    log.append(Topic::Orders, Vec::new(), Some(Mark { name: "a".into(), done: 10 })).await.expect("a mark alone");
    assert_eq!(log.mark("a").await.expect("a mark"), Some(10), "a mark may come without records");
    assert_eq!(log.mark("b").await.expect("a mark"), None, "a mark is known by its name");
    drop(log);
    assert_eq!(open("marks").await.mark("a").await.expect("a mark"), Some(10), "a mark is durable");
}

async fn a_refused_call_appends_nothing(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("refused").await;
    let mark = || Some(Mark { name: "a".into(), done: 2 });
    for wrong in [Vec::new(), vec![b' '; RECORD_BYTES_MAX + 1]] {
        let refused = log.append(Topic::Orders, vec![payload(1), wrong], mark()).await;
        assert!(matches!(refused, Err(LogError::Refused(_))), "an empty or overlong record is refused");
    }
    assert_eq!(log.end().await.expect("the end"), Position::beginning(), "none of the records of a refused call is there");
    assert_eq!(log.mark("a").await.expect("a mark"), None, "nor its mark");
    let largest = vec![b' '; RECORD_BYTES_MAX];
    log.append(Topic::Orders, vec![largest.clone()], None).await.expect("the largest record is accepted");
    assert_eq!(read_all(&log).await[0].payload, largest);
}

fn turned_away(source: &str, offset: u64, payload: &str) -> Rejected {
    let (source, payload) = (source.to_owned(), payload.to_owned());
    Rejected { source, topic: Topic::Orders, partition: 0, offset, reason: "at: is required".into(), payload }
}

async fn rejected_records_are_kept_until_removed(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("rejected").await;
    assert_eq!(log.rejected(None, 10).await.expect("none"), []);
    let mut records: Vec<Rejected> = (0..5).map(|n| turned_away("import:a.csv", n, "{}")).collect();
    records.push(turned_away("orders", 3, "{\"order\":\"caf\u{e9}\"}"));
    log.reject(records.clone()).await.expect("kept");
    records.sort_by_key(Rejected::id);
    assert_eq!(log.rejected(None, 10).await.expect("listed"), records, "rejected records come in the order of their ids");
    let page = log.rejected(Some(&records[1].id()), 2).await.expect("listed");
    assert_eq!(page, records[2..4], "after an id, at most a limit");
    assert_eq!(log.rejected(Some(&records[5].id()), 2).await.expect("listed"), []);
    log.reject(records[..2].to_vec()).await.expect("kept");
    assert_eq!(log.rejected(None, 10).await.expect("listed"), records, "rejecting the same again changes nothing");
    assert_eq!(log.rejected_one(&records[4].id()).await.expect("found").as_ref(), Some(&records[4]));
    assert_eq!(log.rejected_one("orders:0:999").await.expect("not found"), None);
    let long = "\u{e9}".repeat(64 << 10);
    log.reject(vec![turned_away("long", 0, &long)]).await.expect("kept");
    let cut = log.rejected_one("long:0:0").await.expect("found").expect("there").payload;
    assert!(cut.len() <= 64 << 10 && cut.len() > 60 << 10 && long.starts_with(&cut), "the payload is cut at 64 KiB");
    log.rejected_remove(&["long:0:0".into(), records[0].id(), "orders:0:999".into()]).await.expect("removed");
    log.rejected_remove(&[records[0].id()]).await.expect("removing what is not there changes nothing");
    assert_eq!(log.end().await.expect("the end"), Position::beginning(), "they are no records of the event topics");
    drop(log);
    assert_eq!(open("rejected").await.rejected(None, 10).await.expect("listed"), records[1..], "all of it is durable");
}

async fn purging_empties_payloads_and_keeps_offsets(open: &impl AsyncFn(&str) -> Opened, purging: Purging) {
    let log = open("purge").await;
    let record =
        |n: usize| format!("{{\"member\":\"{}\",\"n\":{n}}}", if n.is_multiple_of(3) { "gone" } else { "stays" }).into_bytes();
    log.append(Topic::Interactions, (0..30).map(record).collect(), None).await.expect("appended");
    log.append(Topic::Orders, (0..3).map(record).collect(), None).await.expect("appended");
    let mut other = turned_away("interactions", 1, "{\"member\":\"gone\"}");
    let mut meant = turned_away("interactions", 2, "{\"member\":\"gone\"}");
    other.topic = Topic::Members;
    meant.topic = Topic::Interactions;
    log.reject(vec![other.clone(), meant.clone()]).await.expect("kept");
    let before = (read_all(&log).await, log.end().await.expect("the end"));
    let gone = |payload: &[u8]| payload.windows(4).any(|window| window == b"gone");
    let purged = log.purge(Topic::Interactions, &before.1, &gone).await.expect("purged");
    let in_place = purging == Purging::InPlace;
    assert_eq!(purged, if in_place { 11 } else { 1 }, "it tells how many records and rejected records were emptied");
    let check = |records: &[LogRecord]| {
        assert_eq!(records.len(), before.0.len(), "offsets stay");
        let by_place: BTreeMap<Place, &Vec<u8>> = records.iter().map(|r| (r.place, &r.payload)).collect();
        for record in &before.0 {
            let empty = in_place && record.place.topic == Topic::Interactions && gone(&record.payload);
            let expected = if empty { &Vec::new() } else { &record.payload };
            assert_eq!(by_place[&record.place], expected, "what is condemned is emptied, of that topic alone");
        }
    };
    check(&read_all(&log).await);
    let kept = log.rejected_one(&meant.id()).await.expect("found").expect("its id stays");
    assert_eq!((kept.payload.as_str(), kept.offset), ("", meant.offset), "a rejected record meant for the topic is emptied");
    assert_eq!(log.rejected_one(&other.id()).await.expect("found").as_ref(), Some(&other));
    assert_eq!(log.purge(Topic::Interactions, &before.1, &gone).await.expect("purged"), 0, "the same again has nothing to do");
    assert_eq!(log.end().await.expect("the end"), before.1);
    drop(log);
    let log = open("purge").await;
    check(&read_all(&log).await);
    log.append(Topic::Interactions, vec![record(0)], None).await.expect("appended");
    assert_eq!(log.purge(Topic::Interactions, &before.1, &gone).await.expect("purged"), 0, "what came later is not looked at");
}

/// Polls until the reader is at the end of its share; no record must come.
fn settle(reader: &mut dyn EventReader) {
    let end = reader.end().expect("the end");
    let (mut records, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while !reader.position().reaches(&end) {
        assert!(Instant::now() < deadline, "a reader that has read everything stands at the end: {} of {end}", reader.position());
        reader.poll(10, Duration::from_millis(20), &mut records).expect("polling");
    }
    assert_eq!(records, [], "everything was read already");
}

async fn shares_divide_the_partitions(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("shares").await;
    for topic in Topic::ALL {
        log.append(*topic, payloads(0..40), None).await.expect("appended");
    }
    let mut everything: Vec<Place> = read_all(&log).await.into_iter().map(|record| record.place).collect();
    everything.sort();
    for of in [1, 2, 3] {
        let mut got = Vec::new();
        let mut stood = Position::beginning();
        for index in 0..of {
            let share = Share::new(index, of);
            let mut reader = log.reader(share).expect("a reader");
            let end = reader.end().expect("the end of its share");
            let count = usize::try_from(Position::beginning().lag_behind(&end)).expect("few");
            let records = read(&mut *reader, count);
            assert_eq!(records.len(), count, "a reader reads up to the end of its share");
            assert!(records.iter().all(|r| share.holds(r.place.topic, r.place.partition)), "and nothing else");
            settle(&mut *reader);
            assert_eq!(reader.position(), &end, "then it stands there");
            reader.seek(&log.end().await.expect("the end")).expect("others' places do not matter");
            assert_eq!(reader.position(), &end, "a position is of its share alone");
            stood.join(reader.position());
            got.extend(records.into_iter().map(|record| record.place));
        }
        got.sort();
        assert_eq!(got, everything, "between them, readers read each record once");
        assert_eq!(stood, log.end().await.expect("the end"));
    }
}

async fn opening_again_gives_the_same(open: &impl AsyncFn(&str) -> Opened) {
    let log = open("again").await;
    for topic in Topic::ALL {
        log.append(*topic, payloads(0..usize::from(topic.code()) * 7), None).await.expect("appended");
    }
    let state = async |log: &Opened| {
        let mut records: Vec<(Place, Vec<u8>)> = read_all(log).await.into_iter().map(|r| (r.place, r.payload)).collect();
        records.sort();
        (log.identity().to_owned(), records, log.end().await.expect("the end"), log.partitions().await.expect("partitions"))
    };
    let before = state(&log).await;
    drop(log);
    let log = open("again").await;
    assert_eq!(state(&log).await, before, "a log that is opened again is the same log");
    let place = log.append(Topic::Members, payloads(0..1), None).await.expect("appended")[0];
    assert_eq!(place.offset, before.2.next_offset(Topic::Members, place.partition), "and goes on where it ended");
}

/// The conformance suite of the broadcast. Nothing else may publish meanwhile.
///
/// # Panics
/// When a check fails.
pub async fn broadcast(all: &dyn Broadcast) {
    let message = |n: usize| Heard::Message(payload(n));
    let hear = async |ear: &mut dyn crate::broadcast::Subscription| {
        tokio::time::timeout(PATIENCE, ear.next()).await.expect("heard in time")
    };
    all.publish(payload(0)).await.expect("published to nobody");
    let mut first = all.subscribe().await.expect("subscribed");
    all.publish(payload(1)).await.expect("published");
    let mut second = all.subscribe().await.expect("subscribed");
    for n in 2..100 {
        all.publish(payload(n)).await.expect("published");
    }
    for n in 1..100 {
        assert_eq!(hear(&mut *first).await, Some(message(n)), "a subscriber hears everything from its time on, in order");
    }
    for n in 2..100 {
        assert_eq!(hear(&mut *second).await, Some(message(n)), "each for itself");
    }
    drop(first);
    all.publish(payload(100)).await.expect("published");
    assert_eq!(hear(&mut *second).await, Some(message(100)), "one that goes takes nothing from the others");
}
