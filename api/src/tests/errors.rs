//! Endpoints against invalid values: each returns a 4xx problem that names the value, never plain text.

use super::*;

#[tokio::test]
async fn bad_parameters_are_named() {
    let bench = Bench::new().await;
    let long = "x".repeat(129);
    let long_item = format!("/v1/items/{long}/similar");
    let long_member = format!("/v1/members/{long}/points");
    let cases: &[(&str, &str)] = &[
        ("/v1/items/a/similar?limit=0", "/limit"),
        ("/v1/items/a/similar?limit=51", "/limit"),
        ("/v1/items/a/similar?limit=-1", "/limit"),
        ("/v1/items/a/similar?limit=99999999999999999999", "/limit"),
        ("/v1/items/a/similar?limit=NaN", "/limit"),
        ("/v1/items/a/similar?limit=5&limit=6", "/limit"),
        ("/v1/items/a/similar?view=also_seen", "/view"),
        ("/v1/items/a/similar?view=", "/view"),
        ("/v1/items/a/similar?fill=yes", "/fill"),
        ("/v1/items/a/similar?explain=1", "/explain"),
        ("/v1/items/a/similar?min_position=x", "/min_position"),
        ("/v1/items/a/similar?min_position=i0.1-i0.2", "/min_position"),
        ("/v1/items/a/similar?min_position=%C3%BC", "/min_position"),
        ("/v1/items/a/similar?min_position=0&wait_ms=10001", "/wait_ms"),
        ("/v1/items/a/similar?wait_ms=a", "/wait_ms"),
        ("/v1/items/a/similar?unknown=1", "/unknown"),
        ("/v1/items/a/similar?q%2F~=1", "/q~1~0"),
        (&long_item, "/item"),
        ("/v1/items/a%00b/similar", "/item"),
        ("/v1/items/a%0Ab/similar", "/item"),
        ("/v1/items/a/similar/stream?limit=0", "/limit"),
        ("/v1/items/a/similar/stream?min_position=0", "/min_position"),
        ("/v1/popular?kind=bought", "/kind"),
        ("/v1/popular?kind=search", "/kind"),
        ("/v1/popular?days=0", "/days"),
        ("/v1/popular?days=3661", "/days"),
        ("/v1/popular?as_of=yesterday", "/as_of"),
        ("/v1/popular?as_of=1989-12-30", "/as_of"),
        ("/v1/popular?as_of=9999-01-01", "/as_of"),
        ("/v1/popular?as_of=2026-02-30", "/as_of"),
        ("/v1/popular?category=", "/category"),
        ("/v1/popular?limit=51", "/limit"),
        (&long_member, "/member"),
        ("/v1/members/m/points?as_of=2026-13-01", "/as_of"),
        ("/v1/members/m/points?limit=1", "/limit"),
        ("/v1/members/m/history?limit=201", "/limit"),
        ("/v1/members/m/history?cursor=!", "/cursor"),
        ("/v1/members/m/history?cursor=e30", "/cursor"),
        ("/v1/members/m/orders?limit=201", "/limit"),
        ("/v1/members/m/orders?cursor=e30", "/cursor"),
        ("/v1/admin/export/points?format=xml", "/format"),
        ("/v1/admin/export/points?as_of=x", "/as_of"),
        ("/v1/admin/rejected?limit=1001", "/limit"),
        ("/v1/admin/status?x=1", "/x"),
        ("/v1/admin/keys?x=1", "/x"),
        ("/readyz?verbose=maybe", "/verbose"),
    ];
    for (path, pointer) in cases {
        let problem = assert_problem(&bench.get(path).await, 400, "invalid_parameter", path);
        assert_eq!(problem["errors"][0]["pointer"], *pointer, "{path}: {problem}");
        let message = problem["errors"][0]["message"].as_str().unwrap();
        assert!(!message.is_empty() && problem["detail"].as_str().unwrap().contains(message), "{path}");
    }
    for path in ["/v1/items/%FF/similar", "/v1/members/%C3/points", "/v1/popular?%FF=1"] {
        assert_problem(&bench.get(path).await, 400, "malformed_request", path);
    }
    let endless = format!("/v1/popular?category={}", "x".repeat(5_000));
    assert_problem(&bench.get(&endless).await, 400, "malformed_request", "an endless query");
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let bench = Bench::new().await;
    for path in [
        "/",
        "/v1",
        "/v2/items/a/similar",
        "/v1/items//similar",
        "/v1/items/a",
        "/v1/items/a/similar/stream/x",
        "/v1/admin/export/nothing",
        "/v1/admin/rejected/interactions:0:1",
        "/metrics",
        "/problems/nothing",
        "/../etc/passwd",
    ] {
        assert_problem(&bench.get(path).await, 404, "not_found", path);
    }
    for topic in ["rejected", "Interactions", "x", "%20"] {
        let posted = bench.post(&format!("/v1/events/{topic}"), "application/json", "{}").await;
        assert_problem(&posted, 404, "not_found", topic);
    }
    let revoked = bench.request(Method::DELETE, "/v1/admin/keys/nothing").reply(&bench.public).await;
    assert_problem(&revoked, 404, "not_found", "a key");
}

/// Every route against every unsupported method: 405 and `Allow`, for TRACE and unknown paths too.
#[tokio::test]
async fn other_methods_are_405_and_name_those_that_are() {
    let bench = Bench::new().await;
    for template in crate::routes::endpoint::templates().iter().filter(|template| template.path != "/metrics") {
        let (template, methods) = (template.path, &template.allow);
        let path = template.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "HEAD"] {
            // `retry` is also an id below `/v1/admin/rejected/`.
            let is_an_id = template.ends_with("/retry") && matches!(method, "GET" | "DELETE");
            if is_an_id || methods.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = bench.request(method.parse().unwrap(), &path).reply(&bench.public).await;
            let context = format!("{method} {path}");
            assert_eq!(answer.status(), 405, "{context}");
            assert_eq!(header(&answer, "allow"), *methods, "{context}");
            assert_problem(&answer, 405, "method_not_allowed", &context);
        }
    }
    let trace = bench.request(Method::TRACE, "/nothing").reply(&bench.public).await;
    assert_problem(&trace, 405, "method_not_allowed", "TRACE");
}

#[tokio::test]
async fn a_problem_carries_the_callers_trace_and_its_page_explains_it() {
    let bench = Bench::new().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = bench.request(Method::GET, "/v1/items/a/similar?limit=x");
    let answer = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")).reply(&bench.public).await;
    let problem = assert_problem(&answer, 400, "invalid_parameter", "traced");
    assert_eq!((problem["trace_id"].as_str(), problem["instance"].as_str()), (Some(trace), Some("/v1/items/a/similar")));
    let request = bench.request(Method::GET, "/nothing").header("traceparent", "nonsense");
    assert_problem(&request.reply(&bench.public).await, 404, "not_found", "a broken traceparent is as none");
    for code in crate::problem::Code::ALL {
        let page = bench.get(&format!("/problems/{}", code.name())).await;
        assert_eq!(page.status(), 200);
        assert!(std::str::from_utf8(page.body()).unwrap().contains(code.meaning()));
    }
}

#[tokio::test]
async fn headers_that_are_no_text_are_400() {
    let bench = Bench::new().await;
    for name in ["if-none-match", "origin"] {
        let value = http::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        let answer = bench.request(Method::GET, "/v1/items/a/similar").header(name, value).reply(&bench.public).await;
        assert_problem(&answer, 400, "malformed_request", name);
    }
}
