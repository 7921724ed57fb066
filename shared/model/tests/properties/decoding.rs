//! Round trips of records, and spellings that must not matter.

use kindred_model::records::Rules;
use kindred_model::{EventTime, Position, Record, Topic};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::generators::{record, time};

fn decode(topic: Topic, json: &Value) -> Record {
    Record::decode(topic, json.to_string().as_bytes(), &Rules::default()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn fields(record: &Record) -> Map<String, Value> {
    serde_json::from_slice(&record.to_json()).unwrap()
}

/// Every optional field of each topic.
fn optional(topic: Topic) -> &'static [&'static str] {
    match topic {
        Topic::Interactions => &["member", "session", "item", "query", "rating", "reco_id", "rank", "generation", "retract"],
        Topic::Orders => &["member", "tier", "promotion", "paid_at", "completed_at", "cancelled_at", "refunds", "erased"],
        Topic::Catalog => {
            &["description", "category", "tags", "price_minor", "url", "image", "available", "visibility", "listed_at", "deleted"]
        }
        Topic::Members => &["member", "session", "state", "tier", "invited_by", "registered_at", "activated_at", "merged_into"],
        Topic::Ledger => {
            &["entry", "kind", "points", "amount_minor", "order", "refers_to", "expires_on", "reason", "at", "erased"]
        }
    }
}

/// JSON of any shape.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(record in record()) {
        let written = record.to_json();
        let read = Record::decode(record.topic(), &written, &Rules::default()).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(read.to_json(), written);
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_dropped(record in record(), unknown in btree_map("[a-zA-Z_.\\PC]{0,9}", json(), 0..4)) {
        let topic = record.topic();
        let mut noisy = fields(&record);
        for field in optional(topic) {
            noisy.entry(*field).or_insert(Value::Null);
        }
        for (name, value) in &unknown {
            if !noisy.contains_key(name) {
                noisy.insert(name.clone(), value.clone());
            }
        }
        for list in ["lines", "refunds"] {
            for entry in noisy.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                entry["note"] = serde_json::json!({"line": 1});
                for field in ["discount_minor", "coupon"] {
                    entry.as_object_mut().unwrap().entry(field).or_insert(Value::Null);
                }
            }
        }
        prop_assert_eq!(decode(topic, &Value::Object(noisy)), record);
    }

    /// If this failed, the order of fields or white space would matter.
    #[test]
    fn order_of_fields_and_white_space_do_not_matter((record, order) in (record(), any::<u64>())) {
        let mut shuffled: Vec<_> = fields(&record).into_iter().collect();
        let count = shuffled.len();
        for n in 0..count {
            shuffled.swap(n, (order as usize).wrapping_mul(n + 7) % count);
        }
        let text: Vec<String> = shuffled.iter().map(|(name, value)| format!("\r\n\t {} : {value:#} ", Value::from(name.clone()))).collect();
        let text = format!(" {{{}}} \n", text.join(","));
        prop_assert_eq!(Record::decode(record.topic(), text.as_bytes(), &Rules::default()).unwrap(), record);
    }

    /// If this failed, escaped and plain texts would differ.
    #[test]
    fn escapes_do_not_matter(record in record()) {
        let json = String::from_utf8(record.to_json()).unwrap();
        let escaped: String = json
            .chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect() })
            .collect();
        prop_assert_eq!(Record::decode(record.topic(), escaped.as_bytes(), &Rules::default()).unwrap(), record);
    }

    /// If this failed, an instant would depend on the offset it is written with.
    #[test]
    fn an_offset_moves_the_clock_and_not_the_instant(time in time(), hours in -23i64..=23, minutes in 0i64..60) {
        let east = if hours < 0 { hours * 60 - minutes } else { hours * 60 + minutes };
        let local = EventTime(time.0 + east * 60_000).to_string();
        let sign = if hours < 0 { '-' } else { '+' };
        let text = format!("{}{sign}{:02}:{minutes:02}", local.trim_end_matches('Z'), hours.abs());
        prop_assert_eq!(EventTime::parse("at", &text).unwrap(), time, "{}", text);
    }

    #[test]
    fn a_position_reads_back_and_joins_as_a_semilattice(a in position(), b in position(), c in position()) {
        prop_assert_eq!(a.to_string().parse::<Position>().unwrap(), a.clone());
        let join = |a: &Position, b: &Position| { let mut joined = a.clone(); joined.join(b); joined };
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert!(join(&a, &b).reaches(&a) && join(&a, &b).reaches(&b));
        prop_assert_eq!(a.reaches(&b) && b.reaches(&a), a == b);
        prop_assert_eq!(a.lag_behind(&b) == 0, a.reaches(&b));
    }
}

fn position() -> impl Strategy<Value = Position> {
    let offset = prop_oneof![0..4u64, Just(u64::MAX - 1), any::<u64>()];
    vec((proptest::sample::select(Topic::ALL.to_vec()), 0..3u32, offset), 0..5).prop_map(|passed| {
        let mut position = Position::beginning();
        for (topic, partition, offset) in passed {
            position.passed(topic, partition, offset);
        }
        position
    })
}
