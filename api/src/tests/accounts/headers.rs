//! Headers of every answer on the account routes.

use super::*;
use crate::routes::endpoint::{Endpoint, Need, endpoints};

fn peoples() -> impl Iterator<Item = &'static Endpoint> {
    let others = ["/livez", "/readyz", "/openapi.json", "/docs", "/problems/{code}", "/widget.js", "/metrics"];
    endpoints().filter(move |route| matches!(route.need, Need::Anyone | Need::SignedIn) && !others.contains(&route.path))
}

/// V3.4.1, V3.4.2, V3.4.3, V3.4.4, V3.4.5, V3.4.6: on answers and errors alike; other origins cannot read them.
#[tokio::test]
async fn v3_4_1_v3_4_2_v3_4_3_v3_4_4_v3_4_5_v3_4_6_security_headers() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    for route in peoples() {
        let path = route.path.replace("{id}", "x");
        for bearer in [Some(&token), None] {
            let request = town.nobody(route.method_name(), &path).header("origin", "https://evil.example");
            let request = match bearer {
                Some(token) if route.method_name() != "DELETE" => request.header("authorization", format!("Bearer {token}")),
                _ => request,
            };
            let answer = town.reply(request).await;
            assert_secured(&answer, route.name);
            let strict = header(&answer, "strict-transport-security");
            let age: u64 = strict.strip_prefix("max-age=").unwrap().split(';').next().unwrap().parse().unwrap();
            // For this host only: its subdomains are the proxy's business.
            assert!(age >= 31_536_000 && !strict.contains("includeSubDomains"), "{strict}");
            // Any page may read why it was refused, and nothing else.
            let opened = answer.headers().keys().any(|name| name.as_str().starts_with("access-control"));
            let is_problem = answer.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
            let for_pages = matches!(route.need, Need::ReadLists | Need::WriteEvents);
            assert_eq!(opened, is_problem && for_pages, "{}", route.name);
            assert!(!answer.headers().contains_key("access-control-allow-credentials"), "{}", route.name);
        }
    }
}

/// V4.1.1, V14.3.2: JSON in UTF-8, never cached.
#[tokio::test]
async fn v4_1_1_v14_3_2_content_type_and_no_store() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let mut seen = 0;
    for route in peoples().filter(|route| route.name != "GET /.well-known/jwks.json") {
        let path = route.path.replace("{id}", "x");
        let wrong = town.nobody(route.method_name(), &path).header("content-type", "application/json").body("{}");
        let answer = town.reply(wrong).await;
        assert_eq!(header(&answer, "cache-control"), "no-store", "{}", route.name);
        let content_type = header(&answer, "content-type");
        assert!(
            ["application/problem+json", "application/json; charset=utf-8"].contains(&content_type),
            "{}: {content_type}",
            route.name
        );
        seen += 1;
    }
    assert!(seen >= 25, "{seen}");
    for path in ["/v1/members/me", "/v1/members/me/sessions", "/v1/registrations/rules"] {
        let answer = town.ask(&token, "GET", path).await;
        assert_eq!(
            (header(&answer, "content-type"), header(&answer, "cache-control")),
            ("application/json; charset=utf-8", "no-store")
        );
    }
    let out = town.ask(&token, "DELETE", "/v1/sessions/current").await;
    assert_eq!((out.status().as_u16(), header(&out, "cache-control")), (204, "no-store"));
}
