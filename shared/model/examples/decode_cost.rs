//! Cost of decoding and encoding a record on one thread: `cargo run --release -p kindred-model --example decode_cost`.
//!
//! Every event is decoded, so it should stay below 1.5 µs an interaction.

use std::hint::black_box;
use std::time::Instant;

use kindred_model::records::Rules;
use kindred_model::{Record, Topic};

const RECORDS: &[(&str, Topic, &str)] = &[
    (
        "interaction",
        Topic::Interactions,
        r#"{"member":"member-0012345","kind":"purchase","item":"item-004711","at":"2026-01-05T10:11:12.123Z"}"#,
    ),
    (
        "search",
        Topic::Interactions,
        r#"{"session":"0198c0de-0000-7000-8000-000000000001","kind":"search","query":"Blue  running Shoes","at":"2026-01-05T10:11:12+01:00","rank":3,"reco_id":"r-1"}"#,
    ),
    (
        "order of 2",
        Topic::Orders,
        r#"{"order":"o-0012345","version":3,"status":"completed","member":"member-0012345","tier":"vip","placed_at":"2026-01-05T10:11:12Z","paid_at":"2026-01-05T10:12:00Z","completed_at":"2026-01-09T09:00:00Z","currency":"EUR","lines":[{"line":1,"item":"item-004711","quantity":3,"unit_price_minor":1999},{"line":2,"item":"item-000815","quantity":1,"unit_price_minor":499}],"refunds":[{"refund":"r1","at":"2026-01-12T00:00:00Z","line":1,"quantity":1,"amount_minor":1999}]}"#,
    ),
    (
        "catalog",
        Topic::Catalog,
        r#"{"item":"item-004711","version":7,"kind":"good","title":"Blue running shoes","category":["sports","running"],"tags":["blue","shoe"],"price_minor":8999,"url":"/items/item-004711","image":"/i/4711.svg"}"#,
    ),
    (
        "member",
        Topic::Members,
        r#"{"member":"member-0012345","version":2,"state":"activated","tier":"svip","invited_by":"member-0000001","activated_at":"2026-01-05T10:11:12.123Z"}"#,
    ),
];

fn main() {
    let rules = Rules::default();
    let rounds = 300_000;
    println!("{:<12} {:>12} {:>12}", "record", "decode ns", "write ns");
    for (name, topic, json) in RECORDS {
        let record = Record::decode(*topic, json.as_bytes(), &rules).expect("the example is valid");
        let ns = |start: Instant| start.elapsed().as_nanos() / rounds;
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(Record::decode(*topic, black_box(json.as_bytes()), &rules).is_ok());
        }
        let decode = ns(start);
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(black_box(&record).to_json());
        }
        println!("{name:<12} {decode:>12} {:>12}", ns(start));
    }
}
