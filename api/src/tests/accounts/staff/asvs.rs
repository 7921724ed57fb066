//! Requirements of ASVS that belong to no route.

use kindred_members::Permission;

use super::*;
use crate::tests::inbox::Lines;

/// V1.4.2: overflowing amounts are refused. Accepted sums saturate: tested by the law of the dataflow.
#[tokio::test]
async fn v1_4_2_amounts_do_not_overflow() {
    let bench = Bench::new().await;
    for (quantity, price) in
        [(json!(i64::MAX), json!(1)), (json!(1), json!(i64::MAX)), (json!(i64::MIN), json!(1)), (json!(1), json!(1e30))]
    {
        let order = json!({"order": "o", "version": 1, "status": "paid", "placed_at": "2026-01-05T10:00:00Z", "member": "m",
            "currency": "EUR", "lines": [{"line": 1, "item": "a", "quantity": quantity, "unit_price_minor": price}]});
        let answer = bench.post("/v1/events/orders", "application/json", order.to_string()).await;
        assert_problem(&answer, 422, "invalid_record", &order.to_string());
    }
}

/// V6.2.10: a password does not expire.
#[tokio::test]
async fn v6_2_10_a_password_does_not_expire() {
    let shop = Shop::new().await;
    shop.member("mara").await;
    shop.bench.clock.advance(Duration::from_secs(5 * 365 * 86_400));
    let token = shop.token("mara").await;
    assert_eq!(shop.ask(&token, "GET", "/v1/members/me/sessions").await.status(), 200);
}

/// V6.5.3, V6.5.4: phone codes have six random digits (20 bits, as ASVS counts), recovery codes 80 bits.
#[tokio::test]
async fn v6_5_3_v6_5_4_codes_are_random() {
    let shop = Shop::new().await;
    let names: Vec<String> = (0..60).map(|n| format!("member{n:02}")).collect();
    shop.register(&names).await;
    let codes: Vec<String> = {
        let messages = shop.inbox.0.lock();
        let phones = messages.iter().filter(|message| message.to.starts_with('+'));
        phones.map(|message| message.rendered.body.chars().filter(char::is_ascii_digit).take(6).collect()).collect()
    };
    let distinct: BTreeSet<&String> = codes.iter().collect();
    assert!(codes.len() == 60 && codes.iter().all(|code| code.len() == 6) && distinct.len() >= 57, "{codes:?}");
    for place in 0..6 {
        let digits: BTreeSet<u8> = codes.iter().map(|code| code.as_bytes()[place]).collect();
        assert!(digits.len() >= 7, "digit {place} is hardly random: {codes:?}");
    }

    shop.member("mara").await;
    let (secret, recovery) = shop.town.enrol(&shop.token("mara").await).await;
    assert_eq!(Secret::try_from_base32(&secret).unwrap().as_bytes().len(), 20, "160 bits");
    let recovery: BTreeSet<&str> = recovery.iter().map(String::as_str).collect();
    assert_eq!(recovery.len(), kindred_members::RECOVERY_CODES);
    for code in recovery {
        let letters = code.chars().filter(char::is_ascii_alphanumeric).count();
        assert_eq!(letters, 16, "16 of 32 letters are 80 bits: {code}");
    }
}

/// V16.3.2, V16.3.3: a denied request logs who asked for what; an invalid key logs from where.
#[tokio::test]
async fn v16_3_2_v16_3_3_refusals_are_logged() {
    let shop = Shop::new().await;
    let member = shop.member("mara").await;
    let token = shop.token("mara").await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let logged = tracing::subscriber::set_default(subscriber);
    shop.ask(&token, "GET", "/v1/admin/audit").await;
    shop.ask("kd_sk_wrong", "DELETE", "/v1/admin/generations/g1").await;
    shop.ask(&format!("{token}x"), "POST", "/v1/admin/setup").await;
    drop(logged);
    let text = lines.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = lines.iter().find(|line| line["target"] == "audit").unwrap_or_else(|| panic!("{text}"));
    let fields = &refused["fields"];
    assert_eq!((&fields["actor"], &fields["kind"]), (&json!(member), &json!("access.refused")));
    assert_eq!((&fields["permission"], &fields["ok"]), (&json!(Permission::AuditRead.name()), &json!(false)));
    assert!(refused["timestamp"].as_str().unwrap().ends_with('Z'), "UTC");
    for route in ["/v1/admin/generations/{name}", "/v1/admin/setup"] {
        let line = lines.iter().find(|line| line["fields"]["route"] == route).unwrap_or_else(|| panic!("{route}: {text}"));
        assert_eq!(line["fields"]["status"], 401);
    }
    assert!(!text.contains(&token) && !text.contains("kd_sk_wrong"), "what was presented is not repeated");
}

/// V13.4.2, V13.4.4, V13.4.5: no route answers TRACE, metrics are only on the admin address, errors reveal no internals.
#[tokio::test]
async fn v13_4_2_v13_4_4_v13_4_5_nothing_of_the_inside_is_public() {
    let shop = Shop::new().await;
    for path in ["/v1/admin/members", "/v1/popular", "/nothing"] {
        assert_problem(&shop.ask(&shop.bench.service, "TRACE", path).await, 405, "method_not_allowed", path);
    }
    for path in ["/metrics", "/debug", "/debug/pprof", "/admin", "/swagger", "/.git/config", "/.env", "/server-status"] {
        assert_problem(&shop.get(path).await, 404, "not_found", path);
    }
    // The reference page shows the contract, and nothing of this installation.
    let page = shop.get("/docs").await;
    assert!(page.status() == 200 && !std::str::from_utf8(page.body()).unwrap().contains(&shop.bench.service));
    let broken = shop.get("/v1/admin/members?cursor=%00").await;
    let text = std::str::from_utf8(broken.body()).unwrap();
    assert!(broken.status().is_client_error() && !text.contains(".rs") && !text.contains("panicked"), "{text}");
    assert!(!broken.headers().contains_key("server"));
}
