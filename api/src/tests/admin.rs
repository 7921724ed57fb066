//! Administration, health, and what is public.

use kindred_log::Rejected;
use serde_json::json;

use super::*;

#[tokio::test]
async fn status_and_verify_are_the_processs() {
    let bench = Bench::new().await;
    assert_eq!(body(&bench.get("/v1/admin/status").await), json!({"epoch": 7}));
    let verify = async |query: &str| bench.request(Method::POST, &format!("/v1/admin/verify{query}")).reply(&bench.public).await;
    let report = body(&verify("?repair=true").await);
    assert_eq!(
        (&report["ok"], &report["repaired"], &report["tables"][0]["differences"]),
        (&json!(false), &json!(true), &json!(1))
    );
    assert_eq!(body(&verify("").await)["repaired"], json!(false));
    assert_eq!(bench.process.repairs.load(Ordering::Relaxed), 1);
    bench.process.busy.store(true, Ordering::Relaxed);
    assert_problem(&verify("").await, 409, "conflict", "twice at once");
}

#[tokio::test]
async fn exports_are_whole_and_in_the_form_asked_for() {
    let bench = Bench::new().await;
    let row = earnings(100, &[(NOW.day(), 10)]);
    let changes = (0..5_000).map(|n| earned(&format!("m{n:04},\"x\""), &row)).collect();
    bench.apply(changes).await;
    let csv = bench.get("/v1/admin/export/points?format=csv&as_of=2026-01-04").await;
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8; header=present");
    let text = std::str::from_utf8(csv.body()).unwrap();
    assert!(text.starts_with("member,pending,available,from_items,from_invites\n\"m0000,\"\"x\"\"\",10,100,10,100\n"));
    assert_eq!(text.lines().count(), 5_001);
    let ndjson = bench.get("/v1/admin/export/points").await;
    assert_eq!(header(&ndjson, "content-type"), "application/x-ndjson");
    let last: Value = serde_json::from_slice(ndjson.body().split(|b| *b == b'\n').nth(4_999).unwrap()).unwrap();
    assert_eq!(last, json!({"member": "m4999,\"x\"", "pending": 0, "available": 110, "from_items": 10, "from_invites": 100}));
    for view in kindred_model::views::ALL {
        let export = bench.get(&format!("/v1/admin/export/{}?format=csv", view.name)).await;
        assert_eq!(export.body().split(|b| *b == b'\n').next().unwrap(), view.columns.join(",").as_bytes());
        let none = bench.get(&format!("/v1/views/{}/nobody?format=csv", view.name)).await;
        assert_eq!(none.body().trim_ascii_end(), view.columns.join(",").as_bytes());
    }
    // The export's row of one key, and nothing of a longer key.
    let one = bench.get("/v1/views/points/m0007%2C%22x%22?as_of=2026-01-04").await;
    let expected = json!({"member": "m0007,\"x\"", "pending": 10, "available": 100, "from_items": 10, "from_invites": 100});
    assert_eq!(serde_json::from_slice::<Value>(one.body()).unwrap(), expected);
    assert_eq!(bench.get("/v1/views/points/m0007").await.body(), "");
    assert_problem(&bench.get("/v1/views/point/m0007").await, 404, "not_found", "no view");
}

#[tokio::test]
async fn rejected_records_are_listed_shown_retried_and_dropped() {
    let bench = Bench::new().await;
    let rejected = |offset: u64, payload: &str| Rejected {
        source: "import:a b/c.csv".to_owned(),
        topic: Topic::Interactions,
        partition: 0,
        offset,
        reason: "kind: \"veiw\" is none".to_owned(),
        payload: payload.to_owned(),
    };
    let good = view("s", "a").to_string();
    let records = vec![rejected(1, &good), rejected(2, "{}"), rejected(3, &good)];
    let ids: Vec<String> = records.iter().map(Rejected::id).collect();
    bench.log.reject(records).await.unwrap();

    let page = body(&bench.get("/v1/admin/rejected?limit=2").await);
    assert_eq!((page["rejected"].as_array().unwrap().len(), &page["next_cursor"]), (2, &json!(ids[1])));
    let encoded = percent_encoding::utf8_percent_encode(&ids[1], percent_encoding::NON_ALPHANUMERIC).to_string();
    let next = body(&bench.get(&format!("/v1/admin/rejected?cursor={encoded}")).await);
    assert_problem(&bench.get("/v1/admin/rejected?cursor=zzz").await, 400, "invalid_parameter", "cursor");
    assert_eq!((next["rejected"][0]["id"].as_str(), &next["next_cursor"]), (Some(&*ids[2]), &json!(null)));
    let one = body(&bench.get(&format!("/v1/admin/rejected/{encoded}")).await);
    assert_eq!((&one["offset"], &one["payload"], &one["topic"]), (&json!(2), &json!("{}"), &json!("interactions")));

    let retry = json!({"ids": [ids[0], ids[1], "import:none:0:9"]}).to_string();
    let retried = body(&bench.post("/v1/admin/rejected/retry", "application/json", retry).await);
    assert_eq!((&retried["accepted"], &retried["unknown"]), (&json!([ids[0]]), &json!(["import:none:0:9"])));
    assert_eq!((retried["rejected"][0]["id"].as_str(), retried["rejected"].as_array().unwrap().len()), (Some(&*ids[1]), 1));
    assert_eq!(logged(&bench.log).await.len(), 1);

    let dropped = bench.request(Method::DELETE, &format!("/v1/admin/rejected/{encoded}")).reply(&bench.public).await;
    assert_eq!(dropped.status(), 204);
    assert_eq!(bench.log.rejected(None, 10).await.unwrap().len(), 1);

    for (bad, status, code) in
        [("{", 400, "malformed_json"), ("{}", 422, "invalid"), ("{\"ids\":[],\"x\":1}", 422, "invalid"), ("[]", 422, "invalid")]
    {
        assert_problem(&bench.post("/v1/admin/rejected/retry", "application/json", bad).await, status, code, bad);
    }
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let bench = Bench::new().await;
    let make = async |settings: Value| bench.post("/v1/admin/keys", "application/json", settings.to_string()).await;
    let made = make(json!({"kind": "publishable", "name": "shop", "origins": ["https://a.example"]})).await;
    assert_eq!(made.status(), 201);
    let made = body(&made);
    assert_eq!((&made["scopes"], &made["rate_limit_per_minute"]), (&json!(["lists:read", "events:write"]), &json!(6000)));
    let (token, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    let get = async |token: &str| {
        let request = warp::test::request().path("/v1/items/a/similar").header("authorization", format!("Bearer {token}"));
        request.reply(&bench.public).await.status().as_u16()
    };
    assert_eq!((get(&token).await, get(&token).await), (200, 200));
    let revoked = bench.request(Method::DELETE, &format!("/v1/admin/keys/{id}")).reply(&bench.public).await;
    assert_eq!((revoked.status().as_u16(), get(&token).await), (204, 401));

    let service = body(&make(json!({"kind": "service", "name": "other server"})).await);
    let secret = service["key"].as_str().unwrap();
    assert_eq!(get(secret).await, 200);
    let listed = bench.get("/v1/admin/keys").await;
    assert_eq!(body(&listed)["keys"].as_array().unwrap().len(), 3);
    assert!(!std::str::from_utf8(listed.body()).unwrap().contains(secret), "a secret was listed");
    assert_eq!(header(&listed, "cache-control"), "no-store");

    for (bad, pointer) in [
        (json!({"kind": "service", "name": ""}), "/name"),
        (json!({"kind": "publishable", "name": "n", "origins": []}), "/origins"),
        (json!({"kind": "publishable", "name": "n", "origins": ["https://a.example", "*"]}), "/origins/1"),
        (
            json!({"kind": "publishable", "name": "n", "origins": ["https://a.example"], "rate_limit_per_minute": 0}),
            "/rate_limit_per_minute",
        ),
        (json!({"kind": "publishable", "name": "n"}), "/origins"),
        (json!({"kind": "service", "name": "n", "admin": true}), "/admin"),
    ] {
        let problem = assert_problem(&make(bad.clone()).await, 422, "invalid", &bad.to_string());
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{bad}: {problem}");
    }
}

#[tokio::test]
async fn health_contract_and_widget_need_no_key() {
    let bench = Bench::new().await;
    let get = async |path: &str| warp::test::request().path(path).reply(&bench.public).await;
    assert_eq!(get("/livez").await.status(), 200);
    assert_eq!(body(&get("/readyz").await), json!({"ready": true}));
    bench.process.unready.store(true, Ordering::Relaxed);
    let unready = get("/readyz?verbose").await;
    assert_eq!((unready.status().as_u16(), &body(&unready)["checks"][0]["name"]), (503, &json!("pipeline")));
    let contract = get("/openapi.json").await;
    assert_eq!(body(&contract)["info"]["title"], "Kindred");
    // Its page loads only its own style, and cannot be framed.
    let page = get("/docs").await;
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    let policy = header(&page, "content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.ends_with("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && page.headers().contains_key("x-content-type-options"), "{policy}");
    let mut hidden = bench.config.clone();
    hidden.docs = false;
    let hidden = crate::prepare(hidden, bench.context.clone(), bench.stop.subscribe()).await.unwrap();
    let page = warp::test::request().path("/docs").reply(&crate::routes::public(&hidden)).await;
    assert_problem(&page, 404, "not_found", "api.docs is false");
    let widget = get("/widget.js").await;
    assert_eq!(header(&widget, "content-type"), "text/javascript; charset=utf-8");
    assert_eq!(header(&widget, "access-control-allow-origin"), "*");
    assert_eq!(header(&widget, "cross-origin-resource-policy"), "cross-origin", "pages with COEP load it");
    let again =
        warp::test::request().path("/widget.js").header("if-none-match", header(&widget, "etag")).reply(&bench.public).await;
    assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
    for path in ["/livez", "/readyz", "/openapi.json", "/widget.js"] {
        assert_secured(&get(path).await, path);
    }
    // Metrics are on the admin address, which has no other route of the API.
    let admin = crate::routes::admin_address(&bench.api);
    let metrics = warp::test::request().path("/metrics").reply(&admin).await;
    assert_eq!((metrics.status().as_u16(), &**metrics.body()), (200, &b"up 1\n"[..]));
    let request = bench.request(Method::GET, "/v1/admin/status").reply(&admin).await;
    assert_problem(&request, 404, "not_found", "the admin address");
}
