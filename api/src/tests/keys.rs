//! Key rotation with overlap, and the last use of keys.

use super::streams::{Reader, SOON};
use kindred_store::records::{Range, RecordStore};

use super::*;

const LIST: &str = "/v1/items/a/similar";

impl Bench {
    /// The status of a list request with a key from an origin.
    async fn status(&self, key: &str, origin: &str) -> u16 {
        let request = warp::test::request().path(LIST).header("authorization", format!("Bearer {key}")).header("origin", origin);
        request.reply(&self.public).await.status().as_u16()
    }

    async fn rotate(&self, id: &str, settings: Value) -> http::Response<bytes::Bytes> {
        self.post(&format!("/v1/admin/keys/{id}/rotate"), "application/json", settings.to_string()).await
    }

    /// The listed keys of a name.
    async fn listed(&self, name: &str) -> Vec<Value> {
        let keys = body(&self.get("/v1/admin/keys").await)["keys"].as_array().unwrap().clone();
        keys.into_iter().filter(|key| key["name"] == name).collect()
    }

    /// The stored time of a key's last use.
    async fn stored_use(&self, id: &str) -> Option<String> {
        let keys = KeyStore::open(self.records.clone()).await.unwrap();
        keys.last_use(id).unwrap().at().map(|at| at.to_string())
    }
}

/// If it failed, a shop could not rotate a key without an outage, or a rotated one would stay valid.
#[tokio::test]
async fn a_key_is_replaced_while_both_are_good_for_a_while() {
    let bench = Bench::new().await;
    let settings = json!({
        "kind": "publishable", "name": "shop", "origins": ["https://a.example"], "scopes": ["lists:read"],
        "rate_limit_per_minute": 600,
    });
    let old = body(&bench.post("/v1/admin/keys", "application/json", settings.to_string()).await);
    let (old_id, old_key) = (old["id"].as_str().unwrap(), old["key"].as_str().unwrap());
    let page = "https://a.example";
    assert_eq!(bench.status(old_key, page).await, 200);

    bench.clock.advance(Duration::from_millis(877));
    let answer = bench.rotate(old_id, json!({"overlap_seconds": 3_600})).await;
    let new = body(&answer);
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (201, "no-store"), "{new}");
    let ends = "2026-01-05T11:11:13.000Z";
    assert_eq!(new["replaces"], json!({"id": old_id, "expires_at": ends}));
    for same in ["kind", "name", "origins", "scopes", "rate_limit_per_minute"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    let (new_id, new_key) = (new["id"].as_str().unwrap(), new["key"].as_str().unwrap());
    assert!(new_key.starts_with("kd_pk_") && new_key != old_key && new["token"] == new_key);
    assert_eq!((&new["created_at"], &new["last_used_at"]), (&json!("2026-01-05T10:11:13.000Z"), &Value::Null));

    // The old one was cached before it got an end, and nothing is reloaded from here on.
    for (after_ms, of_old) in [(0, 200), (3_599_999, 200), (1, 401), (86_400_000, 401)] {
        bench.clock.advance(Duration::from_millis(after_ms));
        let both = (bench.status(old_key, page).await, bench.status(new_key, page).await);
        assert_eq!(both, (of_old, 200), "at {}", bench.clock.now());
        assert_eq!(bench.status(new_key, "https://evil.example").await, 403, "it has the origins of the old one");
    }
    let listed = bench.listed("shop").await;
    assert_eq!((listed.len(), &listed[0]["id"]), (2, &json!(old_id)));
    assert_eq!((&listed[0]["expires_at"], &listed[0]["replaced_by"]), (&json!(ends), &json!(new_id)));
    assert!(listed[1].get("expires_at").is_none() && listed[1].get("replaced_by").is_none());
    assert_problem(&bench.rotate(old_id, json!({})).await, 409, "refused", "it is replaced");

    bench.api.ring.maintain_once().await;
    let listed = bench.listed("shop").await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(new_id)), "what has ended is deleted");
    assert_eq!(bench.store.named().scan("key-end:").await.unwrap(), []);
    assert_problem(&bench.rotate(old_id, json!({})).await, 404, "not_found", "it is gone");
    assert_eq!(bench.status(new_key, page).await, 200);
}

#[tokio::test]
async fn the_overlap_has_its_bounds() {
    let bench = Bench::new().await;
    let id = bench.listed("shop server").await[0]["id"].as_str().unwrap().to_owned();
    for (bad, pointer) in [
        (json!({"overlap_seconds": 2_592_001}), "/overlap_seconds"),
        (json!({"overlap_seconds": u64::MAX}), "/overlap_seconds"),
        (json!({"overlap_seconds": -1}), "/overlap_seconds"),
        (json!({"overlap_seconds": 1.5}), "/overlap_seconds"),
        (json!({"overlap_seconds": "1h"}), "/overlap_seconds"),
        (json!({"overlap": 1}), "/overlap"),
        (json!([60]), ""),
        (json!([]), ""),
    ] {
        let problem = assert_problem(&bench.rotate(&id, bad.clone()).await, 422, "invalid", &bad.to_string());
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{bad}: {problem}");
    }
    assert_eq!(bench.listed("shop server").await.len(), 1, "nothing was made");
    for (path, context) in [("000000000000", "unknown"), ("a%0Ab", "no id"), (&bench.service[..], "the key itself is no id")] {
        assert_problem(&bench.rotate(path, json!({})).await, 404, "not_found", context);
    }

    // A day by default, the maximum, and none: a caller who ends their own key still gets the new one.
    let day = body(&bench.rotate(&id, json!({})).await);
    assert_eq!(day["replaces"]["expires_at"], "2026-01-06T10:11:12.123Z");
    let thirty = body(&bench.rotate(day["id"].as_str().unwrap(), json!({"overlap_seconds": 2_592_000})).await);
    assert_eq!(thirty["replaces"]["expires_at"], "2026-02-04T10:11:12.123Z");
    let own =
        body(&bench.post("/v1/admin/keys", "application/json", json!({"kind": "service", "name": "own"}).to_string()).await);
    let own_key = own["key"].as_str().unwrap();
    let path = format!("/v1/admin/keys/{}/rotate", own["id"].as_str().unwrap());
    let request = warp::test::request().method("POST").path(&path).header("authorization", format!("Bearer {own_key}"));
    let answer = request.json(&json!({"overlap_seconds": 0})).reply(&bench.public).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(
        (bench.status(own_key, ORIGIN).await, bench.status(body(&answer)["key"].as_str().unwrap(), ORIGIN).await),
        (401, 200)
    );
}

/// A stream ends with its key.
#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let keys = &bench.context.keys;
    let id = bench.listed("pages").await[0]["id"].as_str().unwrap().to_owned();
    let mut reader = Reader::open(&bench, running.address, "").await;
    assert!(reader.until("data:", 1, SOON).await, "{}", reader.text);
    keys.rotate(keys.draw_successor(&id).unwrap(), NOW, Duration::from_secs(60)).await.unwrap();
    assert!(!reader.until("data:", 2, Duration::from_millis(1_500)).await);
    bench.apply_list("a", &[("b", 2)], &[("b", 2)]).await;
    assert!(reader.until("data:", 2, SOON).await, "the stream ended before its key did");
    bench.clock.advance(Duration::from_secs(60));
    assert!(reader.until("\r\n0\r\n\r\n", 1, SOON).await, "the stream goes on: {}", reader.text);
    running.shutdown().await;
}

/// If it failed, nobody could tell which keys are unused, or each request would write to the store.
#[tokio::test]
async fn a_last_use_is_told_to_the_minute() {
    let bench = Bench::new().await;
    let used = async |name: &str| bench.listed(name).await[0]["last_used_at"].clone();
    assert_eq!(used("pages").await, Value::Null);
    assert_eq!(used("shop server").await, "2026-01-05T10:11:00.000Z", "by the listing itself");
    let version = bench.context.keys.version();
    assert_eq!(bench.status(&bench.publishable, ORIGIN).await, 200);
    assert_eq!(used("pages").await, "2026-01-05T10:11:00.000Z");
    // A refused request counts as use; an unknown key does not.
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.status(&bench.publishable, "https://evil.example").await, 403);
    assert_eq!(bench.status("kd_pk_nothing", ORIGIN).await, 401);
    assert_eq!(used("pages").await, "2026-01-05T10:12:00.000Z");

    let id = bench.listed("pages").await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.stored_use(&id).await, None, "a request writes nothing");
    bench.api.ring.maintain_once().await;
    assert_eq!(bench.stored_use(&id).await.as_deref(), Some("2026-01-05T10:12:00.000Z"));
    // A clock that was set back, and a process that saw less.
    bench.clock.set(EventTime(NOW.0 - 3_600_000));
    assert_eq!(bench.status(&bench.publishable, ORIGIN).await, 200);
    let other = KeyStore::open(bench.records.clone()).await.unwrap();
    other.last_use(&id).unwrap().note(bench.clock.now());
    bench.api.ring.maintain_once().await;
    other.save_uses().await.unwrap();
    assert_eq!(used("pages").await, "2026-01-05T10:12:00.000Z");
    assert_eq!(bench.stored_use(&id).await.as_deref(), Some("2026-01-05T10:12:00.000Z"));
    // The use in another process, once this one has reloaded.
    other.last_use(&id).unwrap().note(EventTime(NOW.0 + 600_000));
    other.save_uses().await.unwrap();
    bench.context.keys.refresh().await.unwrap();
    assert_eq!(used("pages").await, "2026-01-05T10:21:00.000Z");
    assert_eq!(bench.context.keys.version(), version, "a use made the API forget what it has verified");
    let revoked = bench.request(Method::DELETE, &format!("/v1/admin/keys/{id}")).reply(&bench.public).await;
    assert_eq!(revoked.status(), 204);
    bench.api.ring.maintain_once().await;
    let range = Range { prefix: b"used/".into(), ..Range::default() };
    let left = bench.records.scan("keys", b"all", &range, 10, NOW).await.unwrap();
    assert_eq!(left.len(), 1, "it goes with its key: {left:?}");
}

/// If it failed, a restart would lose the last minute of use.
#[tokio::test]
async fn an_end_in_order_saves_it() {
    let bench = Bench::new().await;
    let id = bench.listed("pages").await[0]["id"].as_str().unwrap().to_owned();
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut reader = Reader::open(&bench, running.address, "").await;
    assert!(reader.until("HTTP/1.1 200", 1, SOON).await, "{}", reader.text);
    running.shutdown().await;
    assert_eq!(bench.stored_use(&id).await.as_deref(), Some("2026-01-05T10:11:00.000Z"));
}

/// If it failed, a new host would need a new key in all pages, or a removed origin could still read.
#[tokio::test]
async fn the_origins_of_a_key_are_changed_and_its_text_stays() {
    let bench = Bench::new().await;
    let id = kindred_store::keys::id_of(&bench.publishable);
    let path = format!("/v1/admin/keys/{id}");
    let from = async |origin: &str| {
        let asked = warp::test::request().path("/v1/items/a/similar").header("origin", origin);
        asked.header("authorization", format!("Bearer {}", bench.publishable)).reply(&bench.public).await.status().as_u16()
    };
    let change = async |path: &str, body: Value| {
        let asked = bench.request(Method::PATCH, path).header("content-type", "application/json");
        asked.body(body.to_string()).reply(&bench.public).await
    };
    assert_eq!((from(ORIGIN).await, from("https://new.example").await), (200, 403));
    let changed = change(&path, json!({ "origins": ["https://new.example"] })).await;
    assert_eq!(changed.status(), 200, "{:?}", changed.body());
    let changed = body(&changed);
    assert_eq!((&changed["origins"], &changed["token"]), (&json!(["https://new.example"]), &json!(bench.publishable)));
    assert_eq!((from(ORIGIN).await, from("https://new.example").await), (403, 200));
    // Another process reads the same.
    let other = KeyStore::open(bench.records.clone()).await.unwrap();
    assert!(matches!(&other.list().iter().find(|key| key.id == id).unwrap().grant,
        kindred_store::keys::Grant::Publishable { origins, .. } if *origins == ["https://new.example"]));

    for (wrong, pointer) in [(json!([]), "/origins"), (json!(["shop.example"]), "/origins/0")] {
        let refused = assert_problem(&change(&path, json!({ "origins": wrong })).await, 422, "invalid", pointer);
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    let service = format!("/v1/admin/keys/{}", kindred_store::keys::id_of(&bench.service));
    assert_problem(&change(&service, json!({ "origins": [ORIGIN] })).await, 422, "invalid", "a service key");
    assert_problem(&change("/v1/admin/keys/none", json!({ "origins": [ORIGIN] })).await, 404, "not_found", "no key");
}
