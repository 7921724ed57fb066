//! Keys, scopes, origins, rates.

use serde_json::json;

use super::*;
use crate::routes::endpoint::{Need, endpoints};

const LIST: &str = "/v1/items/a/similar";

impl Bench {
    fn publicly(&self, method: &str, path: &str) -> warp::test::RequestBuilder {
        warp::test::request().method(method).path(path).header("authorization", format!("Bearer {}", self.publishable))
    }
}

/// Every open route is declared as such, and routes not for browsers need more than a publishable key.
#[tokio::test]
async fn no_route_is_open() {
    let bench = Bench::new().await;
    for route in endpoints().filter(|route| route.need != Need::Anyone) {
        let (method, context) = (route.method_name(), route.name);
        let path = route.path.replace("{topic}", "interactions").replace("{view}", "points").replace(['{', '}'], "");
        let bare = warp::test::request().method(method).path(&path).reply(&bench.public).await;
        assert_problem(&bare, 401, "unauthorized", context);
        assert!(header(&bare, "www-authenticate").starts_with("Bearer"), "{context}");
        for wrong in ["Bearer kd_sk_wrong", "Bearer", "Basic a2V5", "kd_sk_wrong"] {
            let refused = warp::test::request().method(method).path(&path).header("authorization", wrong);
            assert_problem(&refused.reply(&bench.public).await, 401, "unauthorized", context);
        }
        if !matches!(route.need, Need::ReadLists | Need::WriteEvents) {
            let refused = bench.publicly(method, &path).reply(&bench.public).await;
            assert_problem(&refused, 403, "insufficient_scope", context);
            assert!(header(&refused, "www-authenticate").contains("insufficient_scope"));
        }
    }
}

#[tokio::test]
async fn a_publishable_key_may_stand_in_the_query_and_a_secret_may_not() {
    let bench = Bench::new().await;
    let get = async |query: &str| warp::test::request().path(&format!("{LIST}?{query}")).reply(&bench.public).await;
    assert_eq!(get(&format!("key={}", bench.publishable)).await.status(), 200);
    assert_problem(&get(&format!("key={}", bench.service)).await, 401, "unauthorized", "a secret in a URL");
    // An error in the query repeats the key only to the caller.
    assert_problem(&get(&format!("limit=0&key={}", bench.publishable)).await, 400, "invalid_parameter", "limit");
    let both = bench.publicly("GET", &format!("{LIST}?key={}", bench.publishable)).reply(&bench.public).await;
    assert_problem(&both, 400, "invalid_parameter", "two keys");
    let path = format!("/v1/events/interactions?key={}", bench.publishable);
    let posted = warp::test::request().method("POST").path(&path).header("content-type", "application/json");
    assert_problem(&posted.body(view("s", "a").to_string()).reply(&bench.public).await, 401, "unauthorized", "a write by query");
}

#[tokio::test]
async fn origins_are_those_of_the_key() {
    let bench = Bench::new().await;
    let listed = bench.publicly("GET", LIST).header("origin", ORIGIN).reply(&bench.public).await;
    assert_eq!(listed.status(), 200);
    assert_eq!(header(&listed, "access-control-allow-origin"), ORIGIN);
    assert_eq!(header(&listed, "vary"), "Origin");
    let exposed = header(&listed, "access-control-expose-headers");
    // The widget corrects the visitor's clock by `Date`.
    assert!(["Kindred-Reco-Id", "Date"].iter().all(|name| exposed.split(", ").any(|exposed| exposed == *name)), "{exposed}");
    assert!(!listed.headers().contains_key("access-control-allow-credentials"));

    let bare = bench.publicly("GET", LIST).reply(&bench.public).await;
    assert_eq!((bare.status().as_u16(), header(&bare, "vary")), (200, "Origin"));

    let evil = bench.publicly("GET", LIST).header("origin", "https://evil.example").reply(&bench.public).await;
    assert_problem(&evil, 403, "origin_not_allowed", "evil");
    assert_eq!(header(&evil, "vary"), "Origin");
    // The page can read the reason, and nothing else.
    for refused in [
        evil,
        warp::test::request().path(LIST).header("origin", "https://evil.example").reply(&bench.public).await,
        bench.publicly("GET", "/v1/admin/status").header("origin", ORIGIN).reply(&bench.public).await,
        warp::test::request().path("/v1/nothing").header("origin", "https://evil.example").reply(&bench.public).await,
    ] {
        assert!(refused.status().is_client_error());
        assert!(header(&refused, "access-control-allow-origin").starts_with("https://"), "{refused:?}");
        assert!(!refused.headers().contains_key("access-control-allow-credentials"));
    }

    // Pages of a listed origin can read errors.
    let wrong = bench.publicly("GET", &format!("{LIST}?limit=x")).header("origin", ORIGIN).reply(&bench.public).await;
    assert_problem(&wrong, 400, "invalid_parameter", "limit");
    assert_eq!(header(&wrong, "access-control-allow-origin"), ORIGIN);
    // A service key is for servers: no page may read with it.
    let service = bench.request(Method::GET, LIST).header("origin", ORIGIN).reply(&bench.public).await;
    assert!(!service.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_preflight_is_answered_for_listed_origins() {
    let bench = Bench::new().await;
    let preflight = async |path: &str, origin: &str| {
        let request = warp::test::request().method("OPTIONS").path(path).header("origin", origin);
        request.header("access-control-request-method", "POST").reply(&bench.public).await
    };
    for path in [LIST, "/v1/events/interactions", "/v1/items/a/similar/stream"] {
        let allowed = preflight(path, ORIGIN).await;
        assert_eq!(allowed.status(), 204);
        assert_eq!(header(&allowed, "access-control-allow-origin"), ORIGIN);
        assert_eq!(header(&allowed, "access-control-max-age"), "600");
        assert!(header(&allowed, "access-control-allow-headers").contains("authorization"));
        assert!(header(&allowed, "vary").contains("Origin"));
        assert!(!preflight(path, "https://evil.example").await.headers().contains_key("access-control-allow-origin"));
    }
    let plain = warp::test::request().method("OPTIONS").path(LIST).reply(&bench.public).await;
    assert_eq!((plain.status().as_u16(), header(&plain, "allow")), (204, "GET, HEAD, OPTIONS"), "asked outside of a preflight");
}

#[tokio::test]
async fn a_publishable_key_posts_browser_events_of_sessions_alone() {
    let bench = Bench::new().await;
    let post = async |topic: &str, record: Value| {
        let request = bench.publicly("POST", &format!("/v1/events/{topic}")).header("content-type", "application/json");
        request.body(record.to_string()).reply(&bench.public).await
    };
    let of = |kind: &str| {
        let mut record = view("s", "a");
        record["kind"] = json!(kind);
        record
    };
    for kind in ["view", "cart", "favorite", "follow", "impression", "click", "dismiss"] {
        assert_eq!(post("interactions", of(kind)).await.status(), 202, "{kind}");
    }
    let search = json!({"session": "s", "kind": "search", "query": "tea", "at": "2026-01-05T10:00:00Z"});
    assert_eq!(post("interactions", search).await.status(), 202);
    for kind in ["purchase", "comment"] {
        let problem = assert_problem(&post("interactions", of(kind)).await, 403, "insufficient_scope", kind);
        assert_eq!(problem["errors"][0]["pointer"], "/kind");
    }
    let member = json!({"member": "m", "kind": "view", "item": "a", "at": "2026-01-05T10:00:00Z"});
    let problem = assert_problem(&post("interactions", member.clone()).await, 403, "insufficient_scope", "a member's");
    assert_eq!(problem["errors"][0]["pointer"], "/member");
    let mixed = body(&post("interactions", json!([member, of("view")])).await);
    assert_eq!((&mixed["accepted"], &mixed["results"][0]["error"]["code"]), (&json!(1), &json!("forbidden")));
    for topic in ["orders", "catalog", "members"] {
        assert_problem(&post(topic, json!({})).await, 403, "insufficient_scope", topic);
    }
}

#[tokio::test]
async fn a_session_has_its_records_an_hour() {
    let bench = Bench::limited(|limits| limits.records_per_session_hour = 3).await;
    let post = async |session: &str, count: usize| {
        let records: Vec<Value> = (0..count).map(|n| view(session, &format!("i{n}"))).collect();
        let request = bench.publicly("POST", "/v1/events/interactions").header("content-type", "application/json");
        request.body(json!(records).to_string()).reply(&bench.public).await
    };
    assert_eq!(post("s1", 2).await.status(), 202);
    let refused = post("s1", 2).await;
    assert_problem(&refused, 429, "session_limit", "the fourth");
    assert_eq!(header(&refused, "retry-after"), "3600");
    assert_eq!(post("s1", 1).await.status(), 202, "a refused batch was counted");
    assert_eq!(post("s2", 3).await.status(), 202);
    assert_eq!(logged(&bench.log).await.len(), 6);
    // The shop's server is not limited.
    let records: Vec<Value> = (0..9).map(|n| view("s1", &format!("i{n}"))).collect();
    assert_eq!(bench.post("/v1/events/interactions", "application/json", json!(records).to_string()).await.status(), 202);
}

#[tokio::test]
async fn a_key_has_its_rate() {
    let bench = Bench::new().await;
    let origins = [ORIGIN.to_owned()];
    let slow = bench.context.keys.create_publishable("slow", &origins, &[Scope::ListsRead], 3, NOW).await.unwrap().token;
    let get = async || {
        let request = warp::test::request().path(LIST).header("authorization", format!("bearer {slow}")).header("origin", ORIGIN);
        request.reply(&bench.public).await
    };
    for remaining in [2, 1, 0] {
        let answer = get().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "ratelimit-policy"), "\"key\";q=3;w=60");
        assert!(header(&answer, "ratelimit").starts_with(&format!("\"key\";r={remaining};t=")));
    }
    let refused = get().await;
    let problem = assert_problem(&refused, 429, "rate_limited", "the fourth");
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait) && problem["retry_after"] == wait);
    assert_eq!(header(&refused, "access-control-allow-origin"), ORIGIN, "a page cannot read that it must wait");
    assert!(header(&refused, "ratelimit").starts_with("\"key\";r=0;"));
    // Others are not limited, and a service key has no rate limit.
    assert_eq!(bench.publicly("GET", LIST).reply(&bench.public).await.status(), 200);
    let service = bench.get(LIST).await;
    assert!(service.status() == 200 && !service.headers().contains_key("ratelimit"));
    // A key for lists cannot post.
    let reader = bench.context.keys.create_publishable("reader", &origins, &[Scope::ListsRead], 60, NOW).await.unwrap().token;
    let posted =
        warp::test::request().method("POST").path("/v1/events/interactions").header("authorization", format!("Bearer {reader}"));
    assert_problem(&posted.reply(&bench.public).await, 403, "insufficient_scope", "lists:read alone");
}
