//! Member search: pages, filters, and the fields shown.

use super::*;

fn names(answer: &Answer) -> Vec<String> {
    let body = body(answer);
    assert_eq!(answer.status(), 200, "{body}");
    body["members"].as_array().unwrap().iter().map(|member| member["username"].as_str().unwrap().to_owned()).collect()
}

/// R21: every member once, by cursors and by page numbers, with concurrent registrations.
#[tokio::test]
async fn r21_60_members_are_paged_without_loss_or_doubling() {
    let shop = Shop::new().await;
    let all: Vec<String> = (0..60).map(|n| format!("member{n:03}")).collect();
    for some in all.chunks(12) {
        shop.register(some).await;
        // Pages are ordered by registration; the test's clock stands still.
        shop.bench.clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let get = async |path: &str| shop.get(path).await;
    pages("/v1/admin/members?limit=17&state=registered", get, async |page| {
        seen.extend(names(page));
        if seen.len() == 34 {
            shop.register(&["latecomer".to_owned()]).await;
        }
    })
    .await;
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "somebody came twice");
    assert_eq!(distinct.into_iter().filter(|name| *name != "latecomer").collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());

    // By page number: 50 by default, the last one short, those beyond it empty.
    let mut by_number = Vec::new();
    for page in 1..=2 {
        by_number.extend(names(&shop.get(&format!("/v1/admin/members?page={page}")).await));
    }
    assert_eq!(by_number.len(), 61);
    assert_eq!(by_number.iter().collect::<BTreeSet<_>>().len(), 61);
    assert_eq!(names(&shop.get("/v1/admin/members").await), by_number[..50]);
    for beyond in ["3", "10000"] {
        assert!(names(&shop.get(&format!("/v1/admin/members?page={beyond}")).await).is_empty());
    }
    assert_eq!(names(&shop.get("/v1/admin/members?q=member01&limit=200").await).len(), 10);
}

/// R21: by identifiers and by attributes.
#[tokio::test]
async fn r21_members_are_found() {
    let shop = Shop::new().await;
    let mara = shop.member("mara").await;
    shop.bench.clock.advance(Duration::from_secs(86_400));
    let (nora, _) = shop.staff("nora", "support").await;
    shop.register(&["olga".to_owned()]).await;
    let operator = Actor::operator("test");
    shop.members.staff.set_tier(&operator, &mara, None, kindred_model::units::Tier::Vip).await.unwrap();
    shop.members.staff.suspend(&operator, &mara, None, "test").await.unwrap();
    shop.deliver().await;
    for (query, found) in [
        ("q=MAR", vec!["mara"]),
        ("q=nora%40", vec!["nora"]),
        ("q=nora&by=email", vec!["nora"]),
        ("q=13800000002", vec!["olga"]),
        ("q=%2B8613800000002", vec!["olga"]),
        ("q=138", vec!["mara", "nora", "olga"]),
        ("state=suspended", vec!["mara"]),
        ("state=registered", vec!["olga"]),
        ("state=activated", vec!["nora"]),
        ("tier=vip", vec!["mara"]),
        ("tier=normal", vec!["olga", "nora"]),
        ("role=support", vec!["nora"]),
        ("role=nothing", vec![]),
        ("to=2026-01-05", vec!["mara"]),
        ("from=2026-01-06", vec!["olga", "nora"]),
        ("from=2026-01-05&to=2026-01-06", vec!["olga", "nora", "mara"]),
        ("from=2030-01-05", vec![]),
        ("q=%27%3B%20--", vec![]),
        ("q=nobody", vec![]),
    ] {
        assert_eq!(names(&shop.get(&format!("/v1/admin/members?{query}")).await), found, "{query}");
    }
    let shown = shop.get(&format!("/v1/admin/members/{nora}")).await;
    let expected = json!({
        "member": nora, "state": "activated", "username": "nora", "phone": "+8613800000001", "email": "nora@example.com",
        "tier": "normal", "role": "support", "second_factor": true, "language": "en", "marketing_consent": false,
        "agreement_version": "1",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(body(&shown)[field], *value, "{field}");
    }
    assert_eq!(header(&shown, "cache-control"), "no-store");
    let request = shop.request(&shop.bench.service, "GET", &format!("/v1/admin/members/{nora}"));
    let again = request.header("if-none-match", header(&shown, "etag")).reply(&shop.bench.public).await;
    assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
    for none in ["nobody", "00000000-0000-0000-0000-000000000000"] {
        for (method, path) in [("GET", ""), ("GET", "/sessions"), ("DELETE", "/sessions"), ("POST", "/resend-verification")] {
            let path = format!("/v1/admin/members/{none}{path}");
            assert_problem(&shop.ask(&shop.bench.service, method, &path).await, 404, "not_found", &path);
        }
    }
}

/// V15.3.1: an answer has the fields that administration needs, and no more.
#[tokio::test]
async fn v15_3_1_no_field_more_than_is_needed() {
    let shop = Shop::new().await;
    let mara = shop.member("mara").await;
    shop.enrol("mara").await;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<String>>();
    let listed =
        ["activated_at", "email", "member", "phone", "registered_at", "role", "second_factor", "state", "tier", "username"];
    let mut detail =
        [&listed[..], &["agreement_accepted_at", "agreement_version", "invite_code", "language", "marketing_consent"]].concat();
    detail.sort_unstable();
    assert_eq!(fields(&body(&shop.get("/v1/admin/members").await)["members"][0]), listed);
    assert_eq!(fields(&body(&shop.get(&format!("/v1/admin/members/{mara}")).await)), detail);
    let sessions = body(&shop.get(&format!("/v1/admin/members/{mara}/sessions")).await);
    let expected = ["address", "created_at", "id", "label", "second_factor", "used_at"];
    assert_eq!(fields(&sessions["sessions"][0]), expected);
}

/// V2.2.1, V2.2.3, V15.3.7: each parameter alone, with another, and duplicated.
#[tokio::test]
async fn v2_2_1_v2_2_3_v15_3_7_parameters_are_judged() {
    let shop = Shop::new().await;
    for (path, pointer) in [
        ("members?from=2026-02-01&to=2026-01-01", "/to"),
        ("audit?from=2026-02-01&to=2026-01-01", "/to"),
        ("members?from=yesterday", "/from"),
        ("members?to=1989-01-01", "/to"),
        ("members?q=", "/q"),
        ("members?q=1&q=2", "/q"),
        ("members?q=%2B8", "/q"),
        ("members?q=mara&by=name", "/by"),
        ("members?by=email", "/by"),
        ("members?state=erased", "/state"),
        ("members?tier=gold", "/tier"),
        ("members?role=", "/role"),
        ("members?limit=0", "/limit"),
        ("members?limit=201", "/limit"),
        ("members?page=0", "/page"),
        ("members?page=-1", "/page"),
        ("members?page=10001", "/page"),
        ("members?page=1&cursor=x", "/page"),
        ("members?cursor=", "/cursor"),
        ("members?cursor=x.y", "/cursor"),
        ("members?offset=1", "/offset"),
        ("audit?cursor=x.y", "/cursor"),
        ("audit?limit=201", "/limit"),
        ("audit?kind=", "/kind"),
        ("audit?actor=a&actor=b", "/actor"),
        ("roles?x=1", "/x"),
        ("permissions?x=1", "/x"),
    ] {
        let problem = assert_problem(&shop.get(&format!("/v1/admin/{path}")).await, 400, "invalid_parameter", path);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{path}: {problem}");
        assert_eq!(problem["errors"][0]["in"], "query", "{path}: {problem}");
    }
    let long = "x".repeat(400);
    for parameter in ["q", "role"] {
        let path = format!("/v1/admin/members?{parameter}={long}");
        assert_problem(&shop.get(&path).await, 400, "invalid_parameter", parameter);
    }
}

/// Without members the routes report that.
#[tokio::test]
async fn an_installation_without_members_has_none_to_administer() {
    let bench = Bench::new().await;
    for path in ["/v1/admin/members", "/v1/admin/members/m", "/v1/admin/roles", "/v1/admin/audit"] {
        assert_problem(&bench.get(path).await, 404, "not_found", path);
    }
}
