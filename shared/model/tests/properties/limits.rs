//! Limits and hostile input: every refusal has a readable reason, nothing panics, nothing is half accepted.

use kindred_model::records::{Interaction, OrderRecord, RECORD_BYTES_MAX, Rules};
use kindred_model::{EventTime, Invalid, ItemId, Record, Topic};
use serde_json::{Value, json};

fn refused(topic: Topic, bytes: &[u8]) -> Invalid {
    match Record::decode(topic, bytes, &Rules::default()) {
        Err(error) => {
            assert!(!error.reason.is_empty(), "{error:?}");
            assert!(error.to_string().len() < 4_096, "a reason is read by a person: {} bytes", error.to_string().len());
            error
        }
        Ok(record) => panic!("accepted as {record:?}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)])),
    }
}

fn view(field: &str, value: Value) -> Vec<u8> {
    let mut record = json!({"member": "m", "kind": "view", "item": "i", "at": "2026-01-05T10:11:12Z"});
    record[field] = value;
    record.to_string().into_bytes()
}

fn order(lines: Value, refunds: Value) -> Vec<u8> {
    json!({
        "order": "o", "version": 1, "status": "paid", "placed_at": "2026-01-05T10:11:12Z", "currency": "EUR",
        "lines": lines, "refunds": refunds
    })
    .to_string()
    .into_bytes()
}

fn line(number: u32, quantity: i64, unit_price_minor: i64) -> Value {
    json!({"line": number, "item": "i", "quantity": quantity, "unit_price_minor": unit_price_minor})
}

fn refund(name: &str, line: u32, quantity: i64) -> Value {
    json!({"refund": name, "at": "2026-01-06T00:00:00Z", "line": line, "quantity": quantity, "amount_minor": 0})
}

#[test]
fn identities_end_at_128_bytes() {
    for accepted in
        ["x".repeat(128), "é".repeat(64), "員".repeat(42) + "xx", "🙂".repeat(32), " ".to_owned(), "\u{a0}".to_owned()]
    {
        let read = Interaction::decode(&view("item", accepted.as_str().into())).unwrap();
        assert_eq!(read.key().subject, kindred_model::records::Subject::Item(ItemId::parse(&accepted).unwrap()));
    }
    for too_long in ["x".repeat(129), "é".repeat(64) + "x", "🙂".repeat(33)] {
        let error = refused(Topic::Interactions, &view("item", too_long.as_str().into()));
        assert_eq!(error.field, "item");
        assert!(error.reason.contains(&format!("{} bytes", too_long.len())), "{error}");
    }
    for c in (0u32..0x20).chain(0x7f..0xa0).filter_map(char::from_u32) {
        let error = refused(Topic::Interactions, &view("member", format!("a{c}b").into()));
        assert_eq!((error.field.as_str(), error.reason.as_str()), ("member", "must not contain control characters"), "{c:?}");
    }
}

#[test]
fn times_end_where_the_accepted_years_do() {
    let parse = |text: &str| EventTime::parse("at", text);
    assert_eq!(parse("1990-01-01T00:00:00Z"), Ok(EventTime::MIN));
    assert_eq!(parse("1989-12-31T23:00:00-01:00"), Ok(EventTime::MIN));
    assert_eq!(parse("2099-12-31T23:59:59.999999999Z"), Ok(EventTime(EventTime::END.0 - 1)));
    assert_eq!(parse("2100-01-01T00:59:59.999+01:00"), Ok(EventTime(EventTime::END.0 - 1)));
    for outside in [
        "1989-12-31T23:59:59.999999999Z",
        "1990-01-01T00:59:59+01:00",
        "2100-01-01T00:00:00Z",
        "2099-12-31T23:00:00-01:00",
        "1970-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ] {
        let error = parse(outside).unwrap_err();
        assert_eq!(error.to_string(), "at: lies outside of the accepted years 1990 to 2099", "{outside}");
    }
    // 2000 was a leap year; 2100 is not, and not accepted anyway; impossible days are refused.
    assert!(parse("2000-02-29T00:00:00Z").is_ok() && parse("2096-02-29T00:00:00Z").is_ok());
    for no_day in ["2026-02-29", "2026-00-10", "2026-13-01", "2026-04-31", "2026-01-00", "2026-1-05"] {
        assert!(parse(&format!("{no_day}T00:00:00Z")).unwrap_err().reason.contains("is not a time"), "{no_day}");
    }
    for ms in [i128::MIN, i128::from(i64::MIN), -1, 0, i128::from(i64::MAX), i128::MAX] {
        assert!(EventTime::from_ms("at", ms).is_err());
    }
}

#[test]
fn numbers_that_are_none_or_too_great_are_refused() {
    let with = |field: &str, token: &str| {
        let text = format!(r#"{{"member":"m","kind":"view","item":"i","at":"2026-01-05T10:11:12Z","{field}":{token}}}"#);
        Record::decode(Topic::Interactions, text.as_bytes(), &Rules::default())
    };
    for token in
        ["NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "-1e999", "01", "+1", ".5", "1.", "0x10", "1e", "--1", "1_0"]
    {
        assert!(with("rating", token).is_err(), "{token}");
        assert!(with("rank", token).is_err(), "{token}");
        assert!(with("unknown", token).is_err() || token.ends_with("1e999"), "{token}: not JSON, wherever it stands");
    }
    for token in ["18446744073709551616", "-9223372036854775809", &"9".repeat(400), "1e2", "1.0", "1e400"] {
        let error = with("rank", token).expect_err(token);
        assert!(error.field.is_empty() || error.field == "rank", "{error}");
    }
    for (token, rating) in [("1e2", 100.0), ("1e-400", 0.0), ("0.1", 0.1), ("-0", 0.0), ("-0.0", 0.0), ("5", 5.0)] {
        let Ok(Record::Interaction(read)) = with("rating", token) else { panic!("{token}") };
        assert_eq!(read.payload.rating.map(f64::to_bits), Some(f64::to_bits(rating)), "{token}");
    }
    assert_eq!(with("rating", "100.00000000000001").unwrap_err().field, "rating");
}

/// If this failed, a number would not read back as the double that was written, which the JSON library does not promise by
/// default.
#[test]
fn ratings_are_a_fixed_point_of_the_canonical_encoding() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let rating = f64::from_bits(state % 100f64.to_bits());
        let read = Interaction::decode(&view("rating", rating.into())).unwrap();
        assert_eq!(read.payload.rating.map(f64::to_bits), Some(rating.to_bits()), "{rating:e}");
        assert_eq!(Interaction::decode(&read.to_json()).unwrap().to_json(), read.to_json());
    }
}

/// If this failed, deep nesting would overflow the stack: unread fields are skipped without recursion, read ones refused at the
/// first level.
#[test]
fn nesting_never_overflows_the_stack() {
    for depth in [2, 127, 128, 1_000, 300_000] {
        for (open, middle, close) in [("[", "", "]"), (r#"{"a":"#, "0", "}")] {
            let nested = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
            if nested.len() > RECORD_BYTES_MAX - 200 {
                continue;
            }
            let with = |field: &str, value: &str| {
                let rest = r#""member":"m","kind":"view","item":"i","at":"2026-01-05T10:11:12Z""#;
                Record::decode(Topic::Interactions, format!("{{{rest},\"{field}\":{value}}}").as_bytes(), &Rules::default())
            };
            assert!(with("unknown", &nested).is_ok(), "{depth} of {open}");
            assert!(with("unknown", &nested[..nested.len() - 1]).is_err(), "{depth} of {open}");
            assert_eq!(with("rating", &nested).unwrap_err().field, "rating");
            refused(Topic::Interactions, nested.as_bytes());
            for list in ["lines", "refunds", "order"] {
                let error = refused(Topic::Orders, format!(r#"{{"{list}":{nested}}}"#).as_bytes());
                assert!(error.field.starts_with(list), "{error}");
            }
        }
    }
}

#[test]
fn what_is_not_utf_8_or_not_one_object_is_refused_in_every_topic() {
    let valid = view("rank", 1.into());
    let mut hostile: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" \n".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"[[]]".to_vec(),
        b"{}".to_vec(),
        b"{".to_vec(),
        b"\"view\"".to_vec(),
        b"0".to_vec(),
        b"\0".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        [b"\xef\xbb\xbf".as_slice(), &valid].concat(),
        [&valid[..], &valid].concat(),
        [&valid[..], b"]"].concat(),
        [&valid[..], b"\0"].concat(),
        [&valid[..valid.len() - 1], b",}"].concat(),
        [&valid[..valid.len() - 1], br#","member":"n"}"#].concat(),
        [&valid[..valid.len() - 1], br#","item":"\ud800"}"#].concat(),
        // Invalid UTF-8 in an unread field is invalid JSON all the same.
        [&valid[..valid.len() - 1], b",\"x\":\"\xc3\x28\"}"].concat(),
        [&valid[..valid.len() - 1], b",\"x\xff\":1}"].concat(),
        // A line break within a text must be escaped.
        [&valid[..valid.len() - 1], b",\"x\":\"a\nb\"}"].concat(),
    ];
    hostile.extend((0..valid.len()).map(|end| valid[..end].to_vec()));
    for &topic in Topic::ALL {
        for bytes in &hostile {
            refused(topic, bytes);
        }
    }
    let error = refused(Topic::Interactions, b"{\"x\":\"\xff\"}");
    assert_eq!(error.to_string(), "the record is not UTF-8: byte 6 begins no character");
}

#[test]
fn a_record_ends_at_a_mebibyte() {
    let valid = view("rank", 1.into());
    let padded = |size: usize| [vec![b' '; size - valid.len()], valid.clone()].concat();
    Record::decode(Topic::Interactions, &padded(RECORD_BYTES_MAX), &Rules::default()).unwrap();
    for size in [RECORD_BYTES_MAX + 1, 10 << 20] {
        let error = refused(Topic::Interactions, &padded(size));
        assert!(error.reason.contains(&format!("{size} bytes")) && error.reason.contains("1048576"), "{error}");
    }
    // An order with the maximum number of lines fits, if its identities are short.
    let lines: Vec<_> = (1..=5_000)
        .map(|n| {
            let name = format!("{n:0>40}");
            json!({"line": u32::MAX - n, "item": name, "quantity": 1_000_000, "unit_price_minor": 2_000, "discount_minor": 2_000_000_000i64})
        })
        .collect();
    let order = order(lines.into(), Value::Null);
    assert!(order.len() < RECORD_BYTES_MAX);
    let read = OrderRecord::decode(&order, &Rules::default()).unwrap();
    assert_eq!(read.lines.iter().map(|line| line.quantity * line.unit_price_minor).sum::<i64>(), 10_000_000_000_000);
}

#[test]
fn money_never_overflows() {
    let decode = |lines: Value| OrderRecord::decode(&order(lines, Value::Null), &Rules::default());
    decode(json!([line(1, 1_000, 10_000_000_000)])).unwrap();
    for too_much in [
        json!([line(1, 1_000, 10_000_000_000), line(2, 1, 1)]),
        json!([line(1, 1_000_000, 10_000_000_000)]),
        (1..=1_000).map(|n| line(n, 1_000_000, 10_000_000_000)).collect::<Vec<_>>().into(),
    ] {
        let error = decode(too_much).unwrap_err();
        assert_eq!(error.field, "lines");
        assert!(error.reason.contains("sum up to"), "{error}");
    }
    for (field, value) in
        [("quantity", i64::MAX), ("unit_price_minor", i64::MAX), ("discount_minor", i64::MAX), ("quantity", i64::MIN)]
    {
        let mut line = line(1, 1, 1);
        line[field] = value.into();
        assert_eq!(decode(json!([line])).unwrap_err().field, format!("lines[0].{field}"));
    }
}

#[test]
fn refunds_take_back_what_was_bought_and_no_more() {
    let bought = json!([line(7, 3, 100), line(9, 1, 100)]);
    let decode = |refunds: Value| OrderRecord::decode(&order(bought.clone(), refunds), &Rules::default());
    let all = decode(json!([refund("b", 7, 1), refund("a", 7, 2), refund("a", 9, 1)])).unwrap();
    assert_eq!(all.net_lines().map(|(line, net)| (line.line, net)).collect::<Vec<_>>(), [(7, 0), (9, 0)]);
    assert_eq!(all.counting_lines().count(), 0);
    let places: Vec<_> = all.refunds.iter().map(|refund| (&*refund.refund, refund.line)).collect();
    assert_eq!(places, [("a", Some(7)), ("a", Some(9)), ("b", Some(7))]);
    for (refunds, reason) in [
        (json!([refund("a", 7, 4)]), "take back more of line 7 than was bought"),
        (json!([refund("a", 7, 2), refund("b", 7, 2)]), "take back more of line 7 than was bought"),
        (json!([refund("a", 8, 1)]), "name line 8, which the order has not"),
        (json!([refund("a", 7, 1), refund("a", 7, 1)]), "name refund \"a\" of line 7 twice"),
    ] {
        let error = decode(refunds).unwrap_err();
        assert_eq!((error.field.as_str(), error.reason.as_str()), ("refunds", reason));
    }
    let many: Vec<_> = (0..10_001).map(|n| refund(&n.to_string(), 7, 1)).collect();
    assert!(decode(many.into()).unwrap_err().reason.contains("at most 10000"));
}

/// If this failed, refunds of money without units could exceed what was paid.
#[test]
fn refunds_of_money_alone_are_bounded_by_what_was_paid() {
    // Two lines of 300 and 100, 50 off the first, 20 off the order, 30 of shipping: 360.
    let decode = |refunds: Value| {
        let mut first = line(7, 3, 100);
        first["discounts"] = json!([{"kind": "tier", "amount_minor": 20}, {"kind": "coupon", "id": "W", "amount_minor": 30}]);
        let mut order: Value = serde_json::from_slice(&order(json!([first, line(9, 1, 100)]), refunds)).unwrap();
        (order["discount_minor"], order["shipping_minor"]) = (json!(20), json!(30));
        OrderRecord::decode(order.to_string().as_bytes(), &Rules::default())
    };
    let money = |name: &str, line: Option<u32>, amount: i64| json!({"refund": name, "at": "2026-01-06T00:00:00Z", "line": line, "amount_minor": amount});
    let read = decode(json!([money("a", Some(7), 250), money("a", None, 100), money("b", None, 10)])).unwrap();
    assert_eq!((read.total_minor(), read.refunded_minor(), read.refunded_units()), (360, 360, 0));
    assert_eq!(read.lines[0].discount_minor, Some(50));
    assert_eq!(read.net_lines().map(|(_, net)| net).collect::<Vec<_>>(), [3, 1]);
    for (refunds, field, reason) in [
        (json!([money("a", None, 361)]), "refunds", "give back 361 minor units, and lines and shipping cost 360"),
        (
            json!([money("a", Some(7), 360), money("b", None, 1)]),
            "refunds",
            "give back 361 minor units, and lines and shipping cost 360",
        ),
        (json!([money("a", None, 1), money("a", None, 1)]), "refunds", "name refund \"a\" of the order twice"),
        (json!([money("a", Some(8), 1)]), "refunds", "name line 8, which the order has not"),
    ] {
        let error = decode(refunds).unwrap_err();
        assert_eq!((error.field.as_str(), error.reason.as_str()), (field, reason));
    }
    let mut units_of_the_order = money("a", None, 1);
    units_of_the_order["quantity"] = 1.into();
    assert_eq!(decode(json!([units_of_the_order])).unwrap_err().field, "refunds[0].line");
}

#[test]
fn discounts_of_an_order_add_up() {
    let with = |line_fields: Value, order_fields: Value| {
        let mut first = line(1, 2, 100);
        first.as_object_mut().unwrap().extend(line_fields.as_object().unwrap().clone());
        let mut order: Value = serde_json::from_slice(&order(json!([first]), Value::Null)).unwrap();
        order.as_object_mut().unwrap().extend(order_fields.as_object().unwrap().clone());
        OrderRecord::decode(order.to_string().as_bytes(), &Rules::default())
    };
    let parts = |minor: i64| json!([{"kind": "tier", "amount_minor": minor}, {"kind": "coupon", "id": "c", "amount_minor": 5}]);
    assert_eq!(with(json!({"discounts": parts(10)}), json!({})).unwrap().lines[0].discount_minor, Some(15));
    assert_eq!(
        with(json!({"discounts": parts(10), "discount_minor": 15}), json!({"discount_minor": 185})).unwrap().total_minor(),
        0
    );
    for (line_fields, order_fields, field) in [
        (json!({"discounts": parts(10), "discount_minor": 14}), json!({}), "lines[0].discount_minor"),
        (json!({"discounts": parts(196)}), json!({}), "lines[0].discounts"),
        (json!({"discounts": [{"kind": "tier"}]}), json!({}), "lines[0].discounts[0].amount_minor"),
        (json!({}), json!({"discount_minor": 201}), "discount_minor"),
        (json!({}), json!({"shipping_minor": 10_000_000_000_000i64}), "shipping_minor"),
        (json!({}), json!({"shipping_minor": -1}), "shipping_minor"),
    ] {
        assert_eq!(with(line_fields, order_fields).unwrap_err().field, field);
    }
}

#[test]
fn another_currency_is_refused_with_the_setting_that_says_so() {
    let order = order(json!([line(1, 1, 1)]), Value::Null);
    let rules = Rules { currency: "GBP".to_owned() };
    let error = OrderRecord::decode(&order, &rules).unwrap_err();
    assert_eq!(error.to_string(), "currency: is \"EUR\"; this shop's currency is \"GBP\" (shop.currency)");
    assert!(OrderRecord::decode(&order, &Rules::default()).is_ok());
}

/// A past bug: a record or a line given as an array was read by position.
#[test]
fn an_array_is_no_record() {
    let error = refused(Topic::Interactions, br#"["m",null,"view","i",null,"2026-01-05T10:11:12Z",null,null,null,null,null]"#);
    assert!(error.field.is_empty() && error.reason.contains("expected an object"), "{error}");
    let error = refused(Topic::Members, br#"["m",null,1,"activated",null,null,null,null,null]"#);
    assert!(error.reason.contains("expected an object"), "{error}");
    let error = refused(Topic::Orders, &order(json!([[1, "i", 1, 1, null, null]]), Value::Null));
    assert_eq!(error.field, "lines[0]");
}

/// Found by fuzzing: JSON cut within an unknown field reported that name as the path.
#[test]
fn a_field_that_is_none_of_ours_is_not_pointed_at() {
    for name in [".....", "[", "a.b", "", "x y", &"n".repeat(5_000)] {
        let error = refused(Topic::Members, format!("{{\"{name}\":").as_bytes());
        assert_eq!((error.field.as_str(), error.pointer().as_str()), ("", ""), "{name}");
    }
    assert_eq!(refused(Topic::Members, br#"{"version":"#).field, "version");
    assert_eq!(refused(Topic::Interactions, br#"{"rating":1e999}"#).field, "rating");
}

/// If this failed, a reason would be as long as the value it quotes.
#[test]
fn reasons_stay_short_and_keep_their_end() {
    for long in ["x".repeat(500_000), "é".repeat(250_000), "員\u{1f642}".repeat(70_000), "\"".repeat(250_000)] {
        for field in ["kind", "at", "rating", "rank", "retract", "member"] {
            let error = refused(Topic::Interactions, &view(field, long.as_str().into()));
            assert_eq!(error.field, field);
            assert!(error.reason.len() <= 512, "{} bytes", error.reason.len());
        }
        let error = refused(Topic::Interactions, &view("kind", long.as_str().into()));
        assert!(error.reason.ends_with("purchase, search, view"), "{error}");
    }
    assert_eq!(Invalid::new("f", "r".repeat(512)).reason.len(), 512);
    assert_eq!(Invalid::new("f", "r".repeat(513)).reason.len(), 512);
}

/// Found by fuzzing: control characters were removed after NFKC, which left marks in another order.
#[test]
fn control_characters_do_not_change_a_query() {
    use kindred_model::records::normalise_query;
    let marks = "2ĩ:\u{7eb}\u{329}©";
    let apart: String = marks.chars().flat_map(|c| [c, '\0', '\u{7f}']).collect();
    assert_eq!(normalise_query(&apart), normalise_query(marks));
    assert_eq!(normalise_query(&normalise_query(marks)), normalise_query(marks));
    // Found by fuzzing: lower case can undo the normal form. Both are the capital with a dot above and a line below.
    assert_eq!(normalise_query("\u{130}\u{329}"), "i\u{329}\u{307}".into());
    assert_eq!(normalise_query("I\u{329}\u{307}"), "i\u{329}\u{307}".into());
}

#[test]
fn errors_point_at_the_field() {
    let error = refused(Topic::Orders, &order(json!([line(1, 1, 1), line(2, 0, 1)]), Value::Null));
    assert_eq!((error.field.as_str(), error.pointer().as_str()), ("lines[1].quantity", "/lines/1/quantity"));
    let error = refused(Topic::Orders, &order(json!([line(1, 1, 1), {"line": "2"}]), Value::Null));
    assert_eq!((error.field.as_str(), error.pointer().as_str()), ("lines[1].line", "/lines/1/line"));
    assert_eq!(Invalid::new("", "x").pointer(), "");
}
