//! The conversion from text to records.

use std::cell::RefCell;

use kindred_log::Rejected;
use kindred_model::Topic;
use kindred_model::records::{OrderStatus, Rules};
use serde_json::{Value, json};

use super::*;

#[path = "../../fuzz/smoke.rs"]
#[macro_use]
mod smoke;

#[path = "../../fuzz/import.rs"]
mod fuzzed;

const HEADER: &str = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status\n";
/// 2026-01-05T00:00:00Z; the tests count minutes from here.
const START_MS: i64 = 1_767_571_200_000;

struct Outcome {
    records: Vec<Value>,
    rejected: Vec<Rejected>,
    converted: Converted,
}

impl Outcome {
    fn reasons(&self) -> Vec<(u64, &str)> {
        self.rejected.iter().map(|rejected| (rejected.offset, rejected.reason.as_str())).collect()
    }
    fn order(&self, id: &str) -> &Value {
        self.records.iter().find(|record| record["order"] == id).unwrap_or_else(|| panic!("no order {id}"))
    }
    fn ids(&self) -> Vec<&str> {
        self.records.iter().map(|record| record["order"].as_str().unwrap()).collect()
    }
    fn notes(&self) -> &CreditNoteReport {
        self.converted.credit_notes.as_ref().unwrap()
    }
}

fn run<T: AsRef<[u8]>>(options: &ImportOptions, files: &[(&str, T)]) -> anyhow::Result<Outcome> {
    let rejected = RefCell::new(Vec::new());
    let rejects = Rejects::new(
        options.topic,
        Box::new(|batch| {
            rejected.borrow_mut().extend(batch);
            Ok(())
        }),
    );
    let inputs = files
        .iter()
        .map(|(name, text)| Input { name: (*name).to_owned(), reader: Box::new(std::io::Cursor::new(text.as_ref().to_vec())) });
    let mut converted = convert(inputs.collect(), options, &Rules::default(), rejects, MEMORY_BYTES, &mut || {})?;
    let mut records = Vec::new();
    while let Some(record) = converted.records.next_record()? {
        records.push(serde_json::from_slice(&record)?);
    }
    assert_eq!(converted.count, records.len() as u64);
    assert_eq!(converted.rejects.rows, rejected.borrow().len() as u64);
    Ok(Outcome { records, rejected: rejected.into_inner(), converted })
}

fn orders() -> ImportOptions {
    ImportOptions::new(Topic::Orders, "EUR")
}

/// Rows of (order, member, item, quantity, price, minute, status), with a header.
fn rows(rows: &[(&str, &str, &str, i64, i64, i64, &str)]) -> String {
    let mut text = HEADER.to_owned();
    for (order, member, item, quantity, price, minute, status) in rows {
        let ms = START_MS + minute * 60_000;
        text.push_str(&format!("{order},{member},{item},{quantity},{price},{ms},{status}\n"));
    }
    text
}

fn linked(text: &str) -> Outcome {
    let options = ImportOptions { link_cancellations: true, ..orders() };
    run(&options, &[("orders.csv", text)]).unwrap()
}

/// Rows of an order may be apart: its time is the earliest, a line's number counts within the order.
#[test]
fn rows_of_an_order_may_be_apart() {
    let text = rows(&[
        ("B", "m2", "x", 1, 100, 5, "paid"),
        ("A", "m1", "y", 2, 50, 9, "paid"),
        ("B", "m2", "z", 3, 70, 3, "paid"),
        ("A", "m1", "y", 1, 50, 8, "paid"),
    ]);
    let outcome = run(&orders(), &[("orders.csv", &text)]).unwrap();
    assert_eq!(outcome.ids(), ["B", "A"], "in time order");
    let b = outcome.order("B");
    assert_eq!(b["placed_at"], "2026-01-05T00:03:00.000Z");
    assert_eq!(b["currency"], "EUR");
    assert_eq!(b["version"], 1);
    assert_eq!(
        b["lines"],
        json!([
            {"line": 1, "item": "x", "quantity": 1, "unit_price_minor": 100},
            {"line": 2, "item": "z", "quantity": 3, "unit_price_minor": 70},
        ])
    );
    assert_eq!(outcome.order("A")["lines"][1]["line"], 2, "an item may stand on two lines");
}

/// Orders of one time are appended by the bytes of their ids, so that a resumed import sees the same sequence.
#[test]
fn orders_of_one_time_go_by_identity() {
    let text = rows(&[("b", "m", "x", 1, 1, 0, "paid"), ("a", "m", "x", 1, 1, 0, "paid"), ("B", "m", "x", 1, 1, 0, "paid")]);
    assert_eq!(run(&orders(), &[("orders.csv", &text)]).unwrap().ids(), ["B", "a", "b"]);
}

#[test]
fn an_empty_member_is_a_guest_and_an_empty_currency_the_shops() {
    let text = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status,currency,tier,discount_minor,coupon,paid_at\n\
                A,,x,1,100,2026-01-05T01:00:00+01:00,paid,,,,,\n\
                B,m,x,2,100,1767571200000,paid,EUR,vip,20,SPRING,2026-01-05T00:00:01Z\n";
    let outcome = run(&orders(), &[("orders.csv", text)]).unwrap();
    let (a, b) = (outcome.order("A"), outcome.order("B"));
    assert_eq!((a.get("member"), &a["currency"], &a["placed_at"]), (None, &json!("EUR"), &json!("2026-01-05T00:00:00.000Z")));
    assert_eq!((&b["tier"], &b["paid_at"]), (&json!("vip"), &json!("2026-01-05T00:00:01.000Z")));
    assert_eq!((&b["lines"][0]["discount_minor"], &b["lines"][0]["coupon"]), (&json!(20), &json!("SPRING")));
}

/// A broken row rejects its order: half an order would earn half its points.
#[test]
fn an_order_is_taken_as_a_whole_or_not_at_all() {
    let text = rows(&[
        ("A", "m", "x", 1, 100, 0, "paid"),
        ("A", "m", "y", 0, 100, 0, "paid"),
        ("B", "m", "x", 1, 100, 0, "paid"),
        ("C", "m", "x", 1, 100, 0, "paid"),
        ("C", "n", "x", 1, 100, 0, "paid"),
        ("D", "m", "x", 1, 100, 0, "bought it"),
    ]) + "E,m,x,1,2x,1767571200000,paid\n,m,x,1,2,1767571200000,paid\nF,m,x,1,2\n";
    let outcome = run(&orders(), &[("o.csv", &text)]).unwrap();
    assert_eq!(outcome.ids(), ["B"]);
    let mut reasons = outcome.reasons();
    reasons.sort_unstable();
    let lines: Vec<u64> = reasons.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 5, 6, 7, 8, 9, 10]);
    assert!(reasons[0].1.contains("line 3 of it is rejected"), "{reasons:?}");
    assert_eq!(reasons[1].1, "quantity: is 0; from 1 to 1000000 is accepted");
    assert!(reasons[3].1.starts_with("member: is not the same in all rows"), "{reasons:?}");
    assert!(reasons[4].1.ends_with("--map-status 'bought it'=STATUS"), "{reasons:?}");
    assert_eq!(reasons[5].1, "unit_price_minor: \"2x\" is not a whole number");
    assert_eq!(reasons[6].1, "order: is required");
    assert_eq!(reasons[7].1, "row: has 5 fields where the header has 7");
    assert_eq!(outcome.rejected[0].source, "import:o.csv");
    assert!(outcome.rejected.iter().any(|rejected| rejected.payload == "A,m,y,0,100,1767571200000,paid"));
    let group = outcome.converted.rejects.reasons.iter().find(|(reason, _)| reason.starts_with("another row")).unwrap();
    assert_eq!(group.1.rows, 2);
}

#[test]
fn words_of_the_status_are_mapped() {
    let mut options = orders();
    options.map_status.insert("placed".to_owned(), OrderStatus::Completed);
    let text = rows(&[("A", "m", "x", 1, 100, 0, "placed"), ("B", "m", "x", 1, 100, 0, "shipped")]);
    let outcome = run(&options, &[("o.csv", &text)]).unwrap();
    assert_eq!((&outcome.order("A")["status"], &outcome.order("B")["status"]), (&json!("completed"), &json!("shipped")));
    let ndjson = r#"{"order":"A","status":"placed","placed_at":"2026-01-05T00:00:00Z","lines":[{"line":1,"item":"x","quantity":1,"unit_price_minor":1}]}"#;
    let outcome = run(&options, &[("o.ndjson", ndjson)]).unwrap();
    assert_eq!(outcome.order("A")["status"], "completed", "in NDJSON too");
    assert_eq!(outcome.order("A")["currency"], "EUR");
}

#[test]
fn a_credit_note_takes_back_the_latest_lines_first_over_two_orders() {
    let outcome = linked(&rows(&[
        ("A", "m", "x", 3, 100, 0, "completed"),
        ("B", "m", "x", 2, 100, 1, "completed"),
        ("B", "m", "x", 1, 100, 1, "completed"),
        ("Other", "n", "x", 9, 100, 1, "completed"),
        ("C1", "m", "x", 4, 90, 2, "cancelled"),
    ]));
    assert_eq!(outcome.ids(), ["A", "B", "Other"], "a credit note is no order");
    let at = "2026-01-05T00:02:00.000Z";
    assert_eq!(
        outcome.order("B")["refunds"],
        json!([
            {"refund": "C1", "at": at, "line": 1, "quantity": 2, "amount_minor": 180},
            {"refund": "C1", "at": at, "line": 2, "quantity": 1, "amount_minor": 90},
        ])
    );
    assert_eq!(outcome.order("A")["refunds"], json!([{"refund": "C1", "at": at, "line": 1, "quantity": 1, "amount_minor": 90}]));
    assert_eq!(outcome.order("Other").get("refunds"), None, "somebody else's");
    let notes = outcome.notes();
    assert_eq!((notes.notes, notes.lines, notes.refunds, notes.orders), (1, 1, 3, 2));
    assert_eq!((notes.units, notes.units_taken, notes.amount_minor, notes.leftover_units), (4, 4, 360, 0));
}

/// Bought no later; the order of rows does not matter.
#[test]
fn what_was_bought_later_is_not_taken_back() {
    let outcome = linked(&rows(&[
        ("C1", "m", "x", 2, 100, 1, "cancelled"),
        ("C2", "m", "y", 1, 100, 1, "cancelled"),
        ("A", "m", "x", 5, 100, 2, "completed"),
        ("B", "m", "y", 5, 100, 1, "completed"),
        ("C3", "", "y", 1, 100, 9, "cancelled"),
    ]));
    assert_eq!(outcome.order("A").get("refunds"), None);
    assert_eq!(outcome.order("B")["refunds"][0]["refund"], "C2", "the same time is early enough");
    let notes = outcome.notes();
    assert_eq!((notes.leftover_notes, notes.leftover_lines, notes.leftover_units), (2, 2, 3), "C1 and the guest's C3");
    assert_eq!(notes.leftover_first.iter().map(|origin| origin.line).collect::<Vec<_>>(), [2, 6]);
    assert!(outcome.rejected.is_empty(), "leftovers are no rejects");
}

/// Credit notes are processed in (time, row) order, and units are taken back once.
#[test]
fn credit_notes_share_what_is_there_and_report_the_rest() {
    let outcome = linked(&rows(&[
        ("A", "m", "x", 3, 100, 0, "completed"),
        ("Late", "m", "x", 3, 100, 9, "cancelled"),
        ("Early", "m", "x", 2, 100, 5, "cancelled"),
    ]));
    let refunds = outcome.order("A")["refunds"].as_array().unwrap();
    let taken: Vec<_> = refunds.iter().map(|r| (r["refund"].as_str().unwrap(), r["quantity"].as_i64().unwrap())).collect();
    assert_eq!(taken, [("Early", 2), ("Late", 1)]);
    assert_eq!((outcome.notes().leftover_lines, outcome.notes().leftover_units), (1, 2));
}

/// A note that names an item twice makes one entry per line.
#[test]
fn two_lines_of_a_note_on_one_line_are_one_refund() {
    let outcome = linked(&rows(&[
        ("A", "m", "x", 5, 100, 0, "completed"),
        ("C", "m", "x", 1, 100, 1, "cancelled"),
        ("C", "m", "x", 2, 90, 1, "cancelled"),
    ]));
    let refunds = outcome.order("A")["refunds"].as_array().unwrap();
    assert_eq!(refunds.len(), 1);
    assert_eq!((&refunds[0]["quantity"], &refunds[0]["amount_minor"]), (&json!(3), &json!(280)));
    assert_eq!((outcome.notes().refunds, outcome.notes().units_taken), (1, 3));
}

#[test]
fn without_linking_a_cancelled_order_is_an_order() {
    let text = rows(&[("C", "m", "x", 1, 100, 1, "cancelled")]);
    assert_eq!(run(&orders(), &[("o.csv", &text)]).unwrap().order("C")["status"], "cancelled");
}

#[test]
fn columns_are_mapped_and_missing_ones_named() {
    let mut options = orders();
    let text =
        "Invoice,member,StockCode,quantity,unit_price_cents,timestamp_ms,status,country\nA,m,x,1,2,1767571200000,paid,NL\n";
    let error = format!("{:#}", run(&options, &[("o.csv", text)]).err().unwrap());
    assert!(error.contains("no column order or order_id") && error.contains("--map order=COLUMN"), "{error}");
    options.map.insert("order_id".to_owned(), "Invoice".to_owned());
    options.map.insert("item".to_owned(), "StockCode".to_owned());
    let outcome = run(&options, &[("o.csv", text)]).unwrap();
    assert_eq!(outcome.order("A")["lines"][0]["item"], "x");
    assert_eq!(outcome.converted.unused_columns, ["country"]);
    options.map.insert("prize".to_owned(), "country".to_owned());
    let error = format!("{:#}", run(&options, &[("o.csv", text)]).err().unwrap());
    assert!(error.contains("no field \"prize\""), "{error}");
}

#[test]
fn catalog_rows_become_items() {
    let options = ImportOptions { version: 7, ..ImportOptions::new(Topic::Catalog, "EUR") };
    let text = "item,title,category,tags,price_cents,description\n\
                10002,\"GLOBE, POLITICAL\",,a|b,85,\"two\nlines\"\n\
                10003,,,,1,\n\
                10004,FINE,home|kitchen,,,\n";
    let outcome = run(&options, &[("catalog.csv", text)]).unwrap();
    assert_eq!(
        outcome.records,
        [
            json!({"item": "10002", "version": 7, "kind": "good", "title": "GLOBE, POLITICAL", "description": "two\nlines",
                   "tags": ["a", "b"], "price_minor": 85}),
            json!({"item": "10004", "version": 7, "kind": "good", "title": "FINE", "category": ["home", "kitchen"]}),
        ]
    );
    assert_eq!(outcome.reasons(), [(4, "title: is required")], "a record begins at its first line");
    assert!(outcome.rejected[0].payload.starts_with('{'), "kept as the record that it would have been");
}

#[test]
fn interactions_are_put_into_time_order_and_broken_lines_named() {
    let options = ImportOptions::new(Topic::Interactions, "EUR");
    let text = "{\"member\":\"m\",\"kind\":\"view\",\"item\":\"late\",\"at\":\"2026-01-05T00:00:02Z\"}\n\n\
                {\"member\":\"m\",\"kind\":\"stare\",\"item\":\"x\",\"at\":\"2026-01-05T00:00:01Z\"}\n\
                {\"session\":\"s\",\"kind\":\"view\",\"item\":\"early\",\"at\":\"2026-01-05T00:00:01Z\"}\n\
                not json";
    let outcome = run(&options, &[("-", text)]).unwrap();
    let items: Vec<&str> = outcome.records.iter().map(|record| record["item"].as_str().unwrap()).collect();
    assert_eq!(items, ["early", "late"]);
    assert_eq!(outcome.rejected.iter().map(|rejected| rejected.offset).collect::<Vec<_>>(), [3, 5]);
    let mapped = ImportOptions {
        format: Some(Format::Ndjson),
        map: [("item".to_owned(), "sku".to_owned()), ("at".to_owned(), "ts".to_owned())].into(),
        ..options
    };
    let outcome = run(&mapped, &[("x", r#"{"member":"m","kind":"view","sku":"a","ts":1767571200000}"#)]).unwrap();
    assert_eq!((&outcome.records[0]["item"], &outcome.records[0]["at"]), (&json!("a"), &json!("2026-01-05T00:00:00.000Z")));
}

/// A line longer than any record is rejected without being buffered. If this failed, half an order would be imported because one
/// row is unreadable: a decimal comma, another encoding, a row too long.
#[test]
fn a_row_that_cannot_be_read_takes_its_order_with_it() {
    let order = |more: &[u8]| [rows(&[("A", "m", "x", 1, 100, 0, "paid")]).as_bytes(), more].concat();
    for row in [
        &b"A,m,y,1,12,99,1767571200000,paid\n"[..],
        b"A,m,y,1\n",
        b"A,m,Gr\xf6\xdfe,1,100,1767571200000,paid\n",
        &[b"A,m,", &[b'y'; 2 << 20][..], b",1,100,1767571200000,paid\n"].concat(),
    ] {
        let outcome = run(&orders(), &[("o.csv", &order(row))]).unwrap();
        assert_eq!(outcome.ids(), [] as [&str; 0]);
        assert_eq!(outcome.rejected.len(), 2, "{:?}", outcome.reasons());
    }
}

/// If this failed, the reported line would be wrong.
#[test]
fn lines_are_those_of_the_file() {
    let text = rows(&[
        ("A", "m", "x", 1, 100, 0, "paid"),
        ("B", "m", "two\nlines", 1, 100, 0, "paid"),
        ("C", "m", "x", 0, 100, 0, "paid"),
    ]);
    let text = text.replace("two\nlines", "\"two\nlines\"");
    for (end, blank) in [("\n", ""), ("\r\n", ""), ("\r", ""), ("\n", "\n\n"), ("\r\n", "\r\n"), ("\r", "\r")] {
        let lines: Vec<&str> = text.lines().collect();
        let file = format!("{}{end}{blank}{}", lines[0], lines[1..].join(end));
        let outcome = run(&orders(), &[("o.csv", &file)]).unwrap();
        let at = 5 + (blank.len() / end.len()) as u64;
        // B's item contains a line end.
        let found: Vec<u64> = outcome.reasons().iter().map(|(line, _)| *line).collect();
        assert!(found.contains(&at), "{file:?}: {found:?}");
    }
}

#[test]
fn a_line_of_many_megabytes_is_turned_away() {
    let options = ImportOptions::new(Topic::Interactions, "EUR");
    let good = "{\"member\":\"m\",\"kind\":\"view\",\"item\":\"x\",\"at\":\"2026-01-05T00:00:02Z\"}";
    let text = format!("{}\n{good}\n", "x".repeat(10 << 20));
    let outcome = run(&options, &[("i.ndjson", &text)]).unwrap();
    assert_eq!(outcome.records.len(), 1);
    assert_eq!(outcome.rejected[0].offset, 1);
    assert!(outcome.rejected[0].payload.len() <= 64 << 10);
}

/// All files of one command are one import: orders and credit notes may span them.
#[test]
fn files_of_one_command_belong_together() {
    let options = ImportOptions { link_cancellations: true, ..orders() };
    let notes = rows(&[("C", "m", "x", 1, 100, 5, "cancelled")]);
    let bought =
        rows(&[("A", "m", "x", 1, 100, 1, "paid"), ("A", "m", "y", 0, 100, 1, "paid"), ("B", "m", "x", 1, 100, 1, "paid")]);
    let outcome = run(&options, &[("notes.csv", &notes), ("bought.csv", &bought)]).unwrap();
    assert_eq!(outcome.order("B")["refunds"][0]["refund"], "C");
    assert_eq!(outcome.rejected.iter().map(|rejected| &*rejected.source).collect::<Vec<_>>(), ["import:bought.csv"; 2]);
}

fn refused(options: &ImportOptions, files: &[(&str, &str)]) -> String {
    let error = run(options, files).err().expect("it is refused");
    format!("{error:#}{:?}", error.downcast_ref::<crate::failure::Failure>())
}

/// If this failed, a stray quote would silently lose the rows after it.
#[test]
fn a_stray_quote_is_told_with_its_line() {
    let row = |id: &str, note: &str| format!("{id},m,tea,1,500,1767600000000,paid,{note}\n");
    let header = HEADER.replace('\n', ",note\n");
    let open = format!("{header}{}{}{}", row("o1", "\"ring"), row("o2", ""), row("o3", ""));
    assert!(refused(&orders(), &[("o.csv", &open)]).contains("line 2: "));
    let two = format!("{header}{}{}{}{}", row("o1", ""), row("o2", "\"ring"), row("o3", "\"ring"), row("o4", ""));
    assert!(refused(&orders(), &[("o.csv", &two)]).contains("line 3: "));
    // One that closes at the end of another row: the swallowed text looks like rows.
    let closed = format!("{header}{}{}{}{}", row("o1", ""), row("o2", "\"ring"), row("o3", "13\""), row("o4", ""));
    let outcome = run(&orders(), &[("o.csv", &closed)]).unwrap();
    assert_eq!(outcome.ids(), ["o1", "o4"]);
    assert!(outcome.reasons()[0].1.contains("look like rows"), "{:?}", outcome.reasons());
}

/// If this failed, a price of 3 euros would become 3 cents.
#[test]
fn money_with_decimals_is_read_as_told_or_not_at_all() {
    let catalog = ImportOptions::new(Topic::Catalog, "EUR");
    let csv = "item,title,price_cents\na,A,12.99\nb,B,3\n";
    let told = refused(&catalog, &[("c.csv", csv)]);
    assert!(told.contains("line 2 of c.csv") && told.contains("--decimal-money"), "{told}");
    let json = "{\"item\":\"b\",\"kind\":\"good\",\"title\":\"B\",\"price_minor\":3}\n{\"item\":\"a\",\"kind\":\"good\",\"title\":\"A\",\"price_minor\":12.99}\n";
    assert!(refused(&catalog, &[("c.ndjson", json)]).contains("--decimal-money"));
    let decimal = ImportOptions { decimal_money: true, ..catalog };
    for file in [("c.csv", csv), ("c.ndjson", json)] {
        let outcome = run(&decimal, &[file]).unwrap();
        let price = |id: &str| outcome.records.iter().find(|record| record["item"] == id).unwrap()["price_minor"].as_i64();
        assert_eq!((price("a"), price("b")), (Some(1_299), Some(300)), "{file:?}");
    }
}

#[test]
fn a_file_is_taken_as_spreadsheets_and_programs_write_it() {
    let start = START_MS / 1_000;
    let text = format!(
        "sep=;\r\norder_id;member;item;quantity;unit_price_cents;timestamp_ms;status\r\n\
         A; m1 ;tea;1.0000;500;{start};paid\r\nB;m1;tea;1;500;2026-01-05 01:00:00 +0100;paid\r\n"
    );
    let outcome = run(&orders(), &[("o.csv", &text)]).unwrap();
    assert_eq!(outcome.ids(), ["A", "B"]);
    assert!(outcome.records.iter().all(|order| order["member"] == "m1" && order["placed_at"] == "2026-01-05T00:00:00.000Z"));
    assert_eq!(outcome.converted.blanks, 1);
    let tabs = text.lines().skip(1).collect::<Vec<_>>().join("\n").replace(';', "\t");
    assert_eq!(run(&orders(), &[("o.csv", &tabs)]).unwrap().ids(), ["A", "B"]);
    let bad = run(&orders(), &[("o.csv", &format!("sep=;\n{}A;m;x;0;1;{start};paid\n", HEADER.replace(',', ";")))]).unwrap();
    assert_eq!(bad.reasons()[0].0, 3, "lines are counted with the one above the header");
    let catalog = ImportOptions::new(Topic::Catalog, "EUR");
    let outcome = run(&catalog, &[("c.csv", "item,title,available\na,A,FALSE\nb,B,Yes\nc,C,0\n")]).unwrap();
    assert_eq!(
        outcome.records.iter().map(|item| item["available"].as_bool()).collect::<Vec<_>>(),
        [Some(false), Some(true), Some(false)]
    );
}

#[test]
fn json_may_be_an_array_or_stand_on_several_lines() {
    let options = ImportOptions::new(Topic::Interactions, "EUR");
    let one = |item: &str| json!({"member": "m ", "kind": "view", "item": item, "at": "2026-01-05 00:00:01Z"});
    let array = serde_json::to_string_pretty(&json!([one("a"), {"member": "m"}, one("b")])).unwrap();
    let pretty =
        [one("a"), json!({"member": "m"}), one("b")].map(|value| serde_json::to_string_pretty(&value).unwrap()).join("\n");
    for (text, line) in [(array.clone(), 8), (array.replace(['\n', ' '], "").replace("0500", "05 00"), 1), (pretty, 7)] {
        let outcome = run(&options, &[("-", &text)]).unwrap();
        assert_eq!(
            outcome.records.iter().map(|record| record["item"].as_str().unwrap()).collect::<Vec<_>>(),
            ["a", "b"],
            "{text}"
        );
        assert!(outcome.records.iter().all(|record| record["member"] == "m"));
        assert_eq!(outcome.rejected.iter().map(|rejected| rejected.offset).collect::<Vec<_>>(), [line], "{text}");
    }
    assert!(refused(&options, &[("-", &array[..array.len() - 3])]).contains("no whole JSON array"));
}

/// If this failed, overlapping exports would double purchases.
#[test]
fn rows_that_two_files_have_alike_count_once() {
    let (a, b) = (("A", "m", "x", 2, 100, 0, "paid"), ("A", "m", "y", 1, 100, 0, "paid"));
    let (january, february) = (rows(&[a, a, b]), rows(&[a, a, ("B", "m", "x", 1, 100, 5, "paid")]));
    let outcome = run(&orders(), &[("jan.csv", &january), ("feb.csv", &february)]).unwrap();
    assert_eq!(outcome.order("A")["lines"].as_array().unwrap().len(), 3, "two alike in one file are two lines");
    let (overlap, first) = &outcome.converted.overlap;
    assert_eq!((*overlap, first.as_ref().map(|first| (&*first.file, first.line))), (2, Some(("feb.csv", 2))));
    let cancelled = rows(&[("B", "m", "x", 1, 100, 5, "cancelled")]);
    let outcome = run(&orders(), &[("feb.csv", &february), ("mar.csv", &cancelled)]).unwrap();
    assert!(outcome.rejected.iter().any(|rejected| rejected.reason.contains("--version-from")), "{:?}", outcome.reasons());
}

#[test]
fn a_negative_quantity_is_a_return() {
    let text = rows(&[
        ("A", "m", "x", -1, 100, 9, "returned"),
        ("A", "m", "x", 2, 100, 0, "paid"),
        ("A", "m", "x", 1, 100, 0, "paid"),
        ("A", "m", "x", -1, 100, 9, "returned"),
        ("B", "m", "y", 1, 100, 0, "paid"),
        ("B", "m", "y", -2, 100, 1, "paid"),
        ("R", "m", "x", -1, 100, 10, "cancelled"),
    ]);
    let outcome = run(&orders(), &[("o.csv", &text)]).unwrap();
    assert_eq!(outcome.ids(), ["A"]);
    let refunds = outcome.order("A")["refunds"].as_array().unwrap();
    let taken: Vec<_> = refunds.iter().map(|refund| (refund["line"].as_i64(), refund["quantity"].as_i64())).collect();
    assert_eq!(taken, [(Some(1), Some(1)), (Some(2), Some(1))], "the latest line first, then the one before");
    assert_eq!(refunds[0]["at"], "2026-01-05T00:09:00.000Z");
    let reasons: Vec<&str> = outcome.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("takes back 1 more")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("--link-cancellations")), "{reasons:?}");
    let linked = linked(&text);
    assert_eq!(linked.order("A")["refunds"].as_array().unwrap().len(), 3);
    assert_eq!(linked.notes().units_taken, 1);
}

#[test]
fn the_version_is_read_from_a_column() {
    let options = ImportOptions { version_from: Some("updated_at".to_owned()), ..ImportOptions::new(Topic::Catalog, "EUR") };
    let csv = "item,title,updated_at\na,A,2026-01-05T00:00:00Z\nb,B,7\nc,C,\n";
    let ndjson = "{\"item\":\"a\",\"kind\":\"good\",\"title\":\"A\",\"updated_at\":\"2026-01-05T00:00:00Z\"}\n\
                  {\"item\":\"b\",\"kind\":\"good\",\"title\":\"B\",\"updated_at\":7}\n{\"item\":\"c\",\"kind\":\"good\",\"title\":\"C\"}\n";
    for file in [("c.csv", csv), ("c.ndjson", ndjson)] {
        let outcome = run(&options, &[file]).unwrap();
        let versions: Vec<_> = outcome.records.iter().map(|record| record["version"].as_i64()).collect();
        assert_eq!(versions, [Some(START_MS), Some(7), Some(1)], "{file:?}");
    }
    assert!(refused(&options, &[("c.csv", "item,title\na,A\n")]).contains("--version-from updated_at"));
}

/// If this failed, a message would show personal data of a file without a header, or of a binary one.
#[test]
fn a_message_shows_no_data_of_a_file() {
    for text in ["1,ann@example.com,Ann Miller\n2,ben@example.com,Ben\n", "[{\"member\":\"ann@example.com\"}]"] {
        let told = refused(&ImportOptions { format: Some(Format::Csv), ..orders() }, &[("o", text)]);
        assert!(told.contains("starts with a header") && !told.contains("ann"), "{told}");
    }
}

/// If this failed, a file could stop an import, lose a row, or make records that the log rejects.
#[test]
fn every_file_becomes_records_and_reasons() {
    let sold = "o1,ann,tea,3,500,1767600000000,fine\no1,ann,cup,1,300,1767600000000,fine\no2,,tea,2,500,1767600001000,paid\n";
    let line = r#"{"line":1,"item":"tea","quantity":1,"unit_price_minor":500}"#;
    let seeds = [
        format!("o{HEADER}{sold}"),
        format!("O{HEADER}{sold}C9,ann,tea,1,500,1767600002000,cancelled\n"),
        format!(
            r#"O{{"order":"o1","version":1,"status":"paid","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{line}]}}"#
        ),
        "imember,kind,item,at\nann,view,tea,2026-01-05T10:00:00Z\n\"a\"\"b\",purchase,cup,1767600000000\n".to_owned(),
        "i{\"member\":\"ann\",\"kind\":\"view\",\"item\":\"tea\",\"at\":\"2026-01-05T10:00:00Z\"}\n\n[]\n".to_owned(),
        "citem,kind,category,tags,title,price_cents,listed_at\ntea,good,a|b,x|y,Tea,500,2026-01-05T10:00:00Z\n".to_owned(),
        "mmember,state,tier,invited_by,registered_at\nann,activated,vip,ben,2026-01-05T10:00:00Z\nben,suspended,,,\n".to_owned(),
    ];
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(String::into_bytes).collect();
    for seed in &seeds {
        assert!(fuzzed::check(seed) > 0, "nothing comes of {}", seed.escape_ascii());
    }
    smoke::run(fuzzed::ALL, |_| seeds.clone());
}

#[test]
fn words_of_a_status_may_hold_an_equals_sign() {
    assert_eq!(status_pair("a=b=paid").unwrap(), ("a=b".to_owned(), OrderStatus::Paid));
    assert!(status_pair("placed=bought").unwrap_err().contains("none of placed"));
}
