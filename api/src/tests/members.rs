//! Points, history and erasure.

use kindred_model::SessionId;
use kindred_model::records::{InteractionKey, Subject};
use kindred_model::views::inputs::{Interactions, StoredInteraction};
use serde_json::json;

use super::*;

fn did(owner: &kindred_model::Owner, what: &str, kind: Kind, at: &str) -> Change {
    let at = EventTime::parse("at", at).unwrap();
    let key = InteractionKey { subject: Subject::Item(item(what)), kind, day: Some(at.day()), scenario: Box::default() };
    change::<Interactions>(&(owner.clone(), key), Some(&StoredInteraction { at, payload: Box::default() }))
}

fn linked(session: &str, to: &str) -> Change {
    let record = MemberRecord::Session { session: SessionId::parse(session).unwrap(), version: 1, merged_into: member(to) };
    change::<Members>(&record.key(), Some(&Canonical(record.canonical().into())))
}

#[tokio::test]
async fn points_are_evaluated_for_the_as_of_day() {
    let bench = Bench::new().await;
    let today = NOW.day();
    let row = earnings(100, &[(Day(today.0 - 5), 40), (today, 10), (Day(today.0 + 2), 7)]);
    bench.apply(vec![earned("m 1", &row)]).await;
    let answer = bench.get("/v1/members/m%201/points").await;
    let expected =
        json!({"member": "m 1", "as_of": "2026-01-05", "pending": 7, "available": 150, "from_items": 57, "from_invites": 100});
    assert_eq!(body(&answer), expected);
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let before = body(&bench.get("/v1/members/m%201/points?as_of=2026-01-04").await);
    assert_eq!((&before["pending"], &before["available"]), (&json!(17), &json!(140)));
    // The statement adds up to the balance, also as of another day.
    let stated = body(&bench.get("/v1/members/m%201/points?statement=true&as_of=2026-01-04").await);
    let line = |day: &str, points: i64, pending: bool| json!({"available_from": day, "points": points, "pending": pending});
    assert_eq!(
        stated["statement"],
        json!([line("2026-01-07", 7, true), line("2026-01-05", 10, true), line("2025-12-31", 40, false)])
    );
    let nobody = body(&bench.get("/v1/members/nobody/points?statement=true").await);
    assert_eq!(nobody["statement"], json!([]));
    assert_problem(&bench.get("/v1/members/m%201/points?statement=1").await, 400, "invalid_parameter", "neither true nor false");
    let nobody = bench.get("/v1/members/nobody/points").await;
    assert_eq!((nobody.status().as_u16(), &body(&nobody)["available"]), (200, &json!(0)));
}

#[tokio::test]
async fn a_history_has_the_sessions_and_is_read_in_pages() {
    let bench = Bench::new().await;
    let me = kindred_model::Owner::Member(member("m"));
    let session = kindred_model::Owner::Session(SessionId::parse("s").unwrap());
    bench
        .apply(vec![
            did(&me, "a", Kind::View, "2026-01-01T08:00:00Z"),
            did(&me, "b", Kind::View, "2026-01-03T08:00:00Z"),
            did(&me, "b", Kind::Cart, "2026-01-03T08:00:00Z"),
            did(&session, "c", Kind::View, "2026-01-02T08:00:00Z"),
            did(&session, "a", Kind::View, "2026-01-01T09:00:00Z"),
        ])
        .await;
    assert_eq!(items(&bench.get("/v1/members/m/history").await), ["b", "b", "a"]);
    bench.apply(vec![linked("s", "m")]).await;
    let whole = bench.get("/v1/members/m/history").await;
    assert_eq!(items(&whole), ["b", "b", "c", "a"]);
    let shown = body(&whole);
    assert_eq!(shown["items"][3], json!({"item": "a", "kind": "view", "day": "2026-01-01", "at": "2026-01-01T09:00:00.000Z"}));
    assert_eq!((&shown["items"][0]["kind"], &shown["next_cursor"]), (&json!("cart"), &json!(null)));

    let mut seen = Vec::new();
    let get = async |path: &str| bench.get(path).await;
    pages("/v1/members/m/history?limit=1", get, async |page| {
        seen.extend(items(page));
        // New records sort before the cursor and do not shift pages.
        bench.apply(vec![did(&me, "new", Kind::View, &format!("2026-01-04T0{}:00:00Z", seen.len()))]).await;
    })
    .await;
    assert_eq!(seen, ["b", "b", "c", "a"]);
    assert_eq!(items(&bench.get("/v1/members/nobody/history").await).len(), 0);
}

fn order(order: &str, member: &str, placed_at: &str, status: &str) -> Value {
    json!({
        "order": order, "version": 3, "status": status, "member": member, "tier": "vip", "placed_at": placed_at, "currency": "EUR",
        "lines": [
            { "line": 2, "item": "tea", "quantity": 3, "unit_price_minor": 500, "discount_minor": 100, "coupon": "SPRING" },
            { "line": 1, "item": "cup", "quantity": 1, "unit_price_minor": 900 },
        ],
        "refunds": [{ "refund": "r1", "at": "2026-01-04T00:00:00Z", "line": 2, "quantity": 1, "amount_minor": 450 }],
    })
}

#[tokio::test]
async fn orders_of_any_status_are_read_in_pages_the_latest_first() {
    let bench = Bench::new().await;
    let placed = [
        order("o1", "m", "2026-01-01T08:00:00Z", "completed"),
        order("o3", "m", "2026-01-02T08:00:00Z", "cancelled"),
        order("o2", "m", "2026-01-02T08:00:00Z", "paid"),
        order("o4", "m", "2026-01-03T08:00:00Z", "placed"),
        order("o5", "m2", "2026-01-03T08:00:00Z", "placed"),
    ];
    bench.apply(placed.iter().flat_map(ordered).collect()).await;
    let named = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|order| order["order"].as_str().unwrap().to_owned()).collect()
    };
    let whole = bench.get("/v1/members/m/orders").await;
    assert_eq!(
        (named(&body(&whole)), header(&whole, "cache-control")),
        (vec!["o4".into(), "o2".into(), "o3".into(), "o1".into()], "no-store")
    );
    assert!(whole.headers().contains_key("kindred-as-of"));
    let expected = json!({
        "order": "o1", "version": 3, "status": "completed", "tier": "vip", "placed_at": "2026-01-01T08:00:00.000Z",
        "currency": "EUR", "total_minor": 2300, "refunded_minor": 450,
        "lines": [
            { "line": 1, "item": "cup", "quantity": 1, "net_quantity": 1, "unit_price_minor": 900 },
            { "line": 2, "item": "tea", "quantity": 3, "net_quantity": 2, "unit_price_minor": 500, "discount_minor": 100, "coupon": "SPRING" },
        ],
        "refunds": [{ "refund": "r1", "at": "2026-01-04T00:00:00.000Z", "line": 2, "quantity": 1, "amount_minor": 450 }],
    });
    assert_eq!(body(&whole)["items"][3], expected);

    let mut seen = Vec::new();
    let get = async |path: &str| bench.get(path).await;
    pages("/v1/members/m/orders?limit=1", get, async |page| {
        seen.extend(named(&body(page)));
        let later = order(&format!("n{}", seen.len()), "m", &format!("2026-01-04T0{}:00:00Z", seen.len()), "placed");
        bench.apply(ordered(&later)).await;
    })
    .await;
    assert_eq!(seen, ["o4", "o2", "o3", "o1"]);
    assert_eq!(
        body(&bench.get("/v1/members/nobody/orders").await),
        json!({ "member": "nobody", "items": [], "next_cursor": null })
    );

    // Until they leave the log, an erased member's orders are indexed and hidden.
    let gone = MemberRecord::Member(kindred_model::records::Membership::erased(member("m"), None));
    bench.apply(vec![change::<Members>(&gone.key(), Some(&Canonical(gone.canonical().into())))]).await;
    assert_eq!(named(&body(&bench.get("/v1/members/m/orders").await)).len(), 0);
    assert_eq!(named(&body(&bench.get("/v1/members/m2/orders").await)), ["o5"]);
}

#[tokio::test]
async fn an_erasure_keeps_what_the_inviter_earned_and_answers_the_same_again() {
    let bench = Bench::new().await;
    let following = bench.follow_members();
    let known = json!({"member": "m", "version": 7, "state": "activated", "tier": "vip", "invited_by": "inviter",
        "registered_at": "2026-01-01T00:00:00Z", "activated_at": "2026-01-02T00:00:00Z"});
    assert_eq!(bench.post("/v1/events/members", "application/json", known.to_string()).await.status(), 202);

    let forget = async || bench.request(Method::DELETE, "/v1/members/m").reply(&bench.public).await;
    let first = forget().await;
    assert_eq!(
        body(&first),
        json!({"member": "m", "erased": true, "position": "m0.2", "durable": true,
            "views_erased_at": "2026-01-05T10:11:12.123Z", "raw_erased_by": "2026-02-04"})
    );
    let last = logged(&bench.log).await.pop().unwrap().1;
    let expected =
        r#"{"member":"m","version":8,"state":"erased","invited_by":"inviter","activated_at":"2026-01-02T00:00:00.000Z"}"#;
    assert_eq!(String::from_utf8(last.to_json()).unwrap(), expected);

    bench.clock.advance(Duration::from_secs(86_400));
    let again = body(&forget().await);
    assert_eq!((&again["views_erased_at"], &again["raw_erased_by"]), (&json!("2026-01-05T10:11:12.123Z"), &json!("2026-02-04")));
    assert_eq!(logged(&bench.log).await.len(), 2, "an erased member was erased again");

    // Unknown members can be erased too: their late events stay hidden.
    let unknown = bench.request(Method::DELETE, "/v1/members/unknown").reply(&bench.public).await;
    assert_eq!(unknown.status(), 200);
    let last = String::from_utf8(logged(&bench.log).await.pop().unwrap().1.to_json()).unwrap();
    assert_eq!(last, r#"{"member":"unknown","version":1,"state":"erased"}"#);
    bench.stop.send_replace(true);
    following.await.unwrap();
}

/// Copying from an incomplete record would lose the inviter's points: the erasure waits, or reports that it did not.
#[tokio::test]
async fn an_erasure_does_not_overtake_the_log() {
    let bench = Bench::limited(|limits| limits.erasure_wait_ms = 30).await;
    let known = json!({"member": "m", "version": 1, "state": "activated", "invited_by": "inviter"});
    bench.post("/v1/events/members", "application/json", known.to_string()).await;
    let behind = bench.request(Method::DELETE, "/v1/members/m").reply(&bench.public).await;
    assert_problem(&behind, 503, "position_not_reached", "no pipeline");
    assert_eq!(logged(&bench.log).await.len(), 1, "something was appended all the same");
}
