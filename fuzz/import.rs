//! What is fuzzed of the import: a shop's file, with what must hold whatever is in it.
//!
//! The fuzzer includes this file (`fuzz_targets/`), and so does a test of the import that runs everywhere
//! (`kindred/import/tests.rs`): one set of targets, two ways to run them.

use std::cell::RefCell;
use std::io::Cursor;

use kindred::import::{Format, ImportOptions, Input, Rejects, convert};
use kindred_log::Rejected;
use kindred_model::records::{OrderStatus, Rules};
use kindred_model::{Record, Topic};

targets![import];

/// Enough for what is fuzzed: nothing is written to disk.
const MEMORY_BYTES: usize = 1 << 20;

/// A file, after a byte that says of what: `i`, `o`, `c` or `m`, in capitals with cancellations linked. It is refused as a whole, or each of
/// its rows becomes a part of a record or is turned away with a reason; the records are those that the log takes, earliest first, the
/// same each time, and can be imported themselves.
pub fn import(bytes: &[u8]) {
    check(bytes);
}

/// As [`import`]; how many records it became.
pub fn check(bytes: &[u8]) -> usize {
    let Some((of, file)) = bytes.split_first() else { return 0 };
    let topic = match of.to_ascii_lowercase() {
        b'i' => Topic::Interactions,
        b'o' => Topic::Orders,
        b'c' => Topic::Catalog,
        _ => Topic::Members,
    };
    let mut options = ImportOptions::new(topic, "EUR");
    if topic == Topic::Orders {
        options.link_cancellations = of.is_ascii_uppercase();
        options.map_status.insert("fine".to_owned(), OrderStatus::Completed);
    }
    let Some(made) = imported(&options, file) else { return 0 };
    assert_eq!(imported(&options, file).as_ref(), Some(&made), "the same file made something else");
    assert!(made.turned_away.iter().all(|rejected| !rejected.reason.is_empty()));
    if topic != Topic::Orders {
        assert_eq!(made.records.len() + made.turned_away.len(), made.rows as usize, "a row was lost");
    }
    let mut last = None;
    for record in &made.records {
        let decoded = Record::decode(topic, record, &Rules::default()).expect("the log takes it");
        assert_eq!(&decoded.to_json(), record);
        assert!(last <= decoded.time(), "it is not in the order of time");
        last = decoded.time();
    }
    let plain = ImportOptions { format: Some(Format::Ndjson), ..ImportOptions::new(topic, "EUR") };
    let mut again = imported(&plain, &made.records.join(&b'\n')).expect("lines of JSON are a file");
    assert_eq!(again.turned_away, []);
    let mut records = made.records;
    records.sort();
    again.records.sort();
    assert_eq!(again.records, records);
    records.len()
}

#[derive(PartialEq, Debug)]
struct Imported {
    records: Vec<Vec<u8>>,
    turned_away: Vec<Rejected>,
    rows: u64,
}

/// What a file becomes; `None` where it is refused as a whole.
fn imported(options: &ImportOptions, file: &[u8]) -> Option<Imported> {
    let turned_away = RefCell::new(Vec::new());
    let sink = Box::new(|batch| {
        turned_away.borrow_mut().extend(batch);
        Ok(())
    });
    let input = Input { name: "file".to_owned(), reader: Box::new(Cursor::new(file.to_vec())) };
    let rejects = Rejects::new(options.topic, sink);
    let mut converted = convert(vec![input], options, &Rules::default(), rejects, MEMORY_BYTES, &mut || {}).ok()?;
    let mut records = Vec::new();
    while let Some(record) = converted.records.next_record().expect("it is in memory") {
        records.push(record);
    }
    assert_eq!((converted.count, converted.rejects.rows), (records.len() as u64, turned_away.borrow().len() as u64));
    Some(Imported { records, turned_away: turned_away.into_inner(), rows: converted.rows })
}
