//! What is fuzzed: each decoder of bytes from outside or from disk, with what must hold whatever the bytes are.
//!
//! The fuzzer includes this file (`fuzz_targets/`), and so does a test of the model that runs everywhere
//! (`shared/model/tests/fuzz_smoke.rs`): one set of targets, two ways to run them.

use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::merge::{Merged, Versioned, merge_versioned};
use kindred_model::records::{InteractionKey, Rules, TOTAL_MINOR_MAX, normalise_query};
use kindred_model::views::also_bought::Neighbors;
use kindred_model::views::inputs::{Canonical, StoredInteraction};
use kindred_model::views::points::Earned;
use kindred_model::{Day, EventTime, ItemId, Kind, MemberId, OrderId, Owner, Position, Record, SessionId, Topic};

targets![interaction, order, catalog, ledger, member, position, time, key, row, query];

macro_rules! records {
    ($($name:ident: $Topic:ident;)+) => { $(
        #[doc = concat!("A record of the topic of ", stringify!($Topic), ".")]
        pub fn $name(bytes: &[u8]) {
            record(Topic::$Topic, bytes);
        }
    )+ };
}
records! {
    interaction: Interactions;
    order: Orders;
    catalog: Catalog;
    member: Members;
    ledger: Ledger;
}

/// It is refused with a reason, or it is the record that its canonical bytes read as, and fit for everything made of it.
fn record(topic: Topic, bytes: &[u8]) {
    let record = match Record::decode(topic, bytes, &Rules::default()) {
        Ok(record) => record,
        Err(error) => {
            assert!(!error.reason.is_empty() && !error.to_string().is_empty());
            assert!(error.pointer().is_empty() == error.field.is_empty());
            assert!(error.to_string().len() < 1_024);
            return;
        }
    };
    let written = record.to_json();
    let read = Record::decode(topic, &written, &Rules::default()).expect("what was written reads");
    assert_eq!(read, record);
    assert_eq!(read.to_json(), written, "the canonical bytes are a fixed point");
    if let Some(time) = record.time() {
        assert!((EventTime::MIN..EventTime::END).contains(&time));
    }
    match &record {
        Record::Interaction(interaction) => {
            one_key(&(interaction.owner.clone(), interaction.key()));
            let payload = interaction.payload.canonical().into();
            one_row(&StoredInteraction { at: interaction.at, payload });
        }
        Record::Order(order) => {
            one_key(&order.order);
            merges_with_itself(order);
            let program = kindred_model::loyalty::Program::default();
            let mut total = 0i128;
            for (line, net) in order.net_lines() {
                assert!((0..=line.quantity).contains(&net));
                total += i128::from(line.quantity) * i128::from(line.unit_price_minor);
            }
            assert!(total <= TOTAL_MINOR_MAX && order.refunded_minor() <= order.total_minor());
            let (mut points, mut known_from) = (0, None);
            for (lot, amounts) in program.rulebook().order_points(order) {
                points += amounts.points;
                assert!(points >= 0 && Some(lot.known_from) > known_from.replace(lot.known_from));
            }
        }
        Record::Catalog(item) => {
            one_key(&item.item);
            merges_with_itself(item);
        }
        Record::Member(member) => {
            one_key(&member.key());
            merges_with_itself(member);
        }
        Record::Ledger(entry) => {
            one_key(&entry.key());
            merges_with_itself(entry);
        }
    }
}

fn merges_with_itself<R: Versioned>(record: &R) {
    let canonical = record.canonical();
    let merged = merge_versioned(R::TOPIC, Some((record.rank(), &canonical)), record.rank(), &canonical);
    assert_eq!(merged, Merged { new: None, conflict: false });
}

fn one_key<K: KeyCodec>(key: &K) {
    assert_eq!(&K::from_bytes(&key.to_bytes()).expect("a key reads back"), key);
}

fn one_row<R: RowCodec>(row: &R) {
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    assert_eq!(&R::decode(&bytes).expect("a row reads back"), row);
}

/// A position from a caller. It is refused, or it is written as it came.
pub fn position(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string(), text);
    let beginning = Position::beginning();
    assert!(position.reaches(&beginning) && position.reaches(&position));
    assert_eq!(position.lag_behind(&position), 0);
    let lag = beginning.lag_behind(&position);
    assert_eq!(lag == 0, beginning.reaches(&position));
    let mut passed = position.clone();
    for (topic, partition, offset) in position.partitions() {
        passed.passed(topic, partition, offset);
    }
    assert!(passed.reaches(&position));
}

/// A time and a day.
pub fn time(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(time) = EventTime::parse("at", text) {
        assert_eq!(EventTime::parse("at", &time.to_string()), Ok(time));
        assert!(time.to_string().starts_with(&time.day().to_string()));
    }
    if let Ok(day) = text.parse::<Day>() {
        assert_eq!(day.to_string(), text);
    }
}

/// A key of the store. It is corrupt, or it is written as it was read.
pub fn key(bytes: &[u8]) {
    macro_rules! each {
        [$($Key:ty),+ $(,)?] => { $(if let Ok(key) = <$Key as KeyCodec>::from_bytes(bytes) {
            assert_eq!(key.to_bytes(), bytes);
        })+ };
    }
    each![ItemId, MemberId, SessionId, OrderId, Owner, Day, Kind, InteractionKey, (Owner, InteractionKey), (ItemId, Kind, Day)];
}

/// A row of the store. It is corrupt, or it is a row that can be written and shown.
pub fn row(bytes: &[u8]) {
    macro_rules! each {
        [$($Row:ty),+ $(,)?] => { $(if let Ok(row) = <$Row as RowCodec>::decode(bytes) {
            one_row(&row);
            assert!(!format!("{row:?}").is_empty());
        })+ };
    }
    each![u64, EventTime, StoredInteraction, Canonical, Neighbors, Earned];
    if let Ok(StoredInteraction { at, .. }) = StoredInteraction::decode(bytes) {
        assert!(at.to_string().ends_with('Z') && !at.day().to_string().is_empty());
    }
}

/// A query as typed. Its identity fits a key and is its own identity.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let normalised = normalise_query(text);
    assert!(normalised.len() <= kindred_model::ids::ID_BYTES_MAX);
    assert!(!normalised.chars().any(char::is_control));
    assert_eq!(normalised.trim(), &*normalised);
    assert_eq!(normalise_query(&normalised), normalised);
}
