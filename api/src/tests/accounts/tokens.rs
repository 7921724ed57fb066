//! Access tokens in the header, and an unavailable store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;

use super::*;

/// RFC 6750: in the header, and nowhere else. What is no token is decided in `api/members/tests/it/sign_in.rs`.
#[tokio::test]
async fn v9_1_1_v9_2_1_a_token_is_taken_from_the_header_alone() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let (signed, _) = token.rsplit_once('.').unwrap();
    for wrong in [format!("{signed}.AAAA"), "x".repeat(20_000), text(&town.sign_in("mara").await, "refresh_token")] {
        for path in ["/v1/members/me", "/v1/members/me/points", "/v1/items/a/similar"] {
            let answer = town.ask(&wrong, "GET", path).await;
            assert_problem(&answer, 401, "unauthorized", path);
            assert!(header(&answer, "www-authenticate").contains("invalid_token"), "{path}");
        }
    }
    for path in [format!("/v1/members/me?access_token={token}"), format!("/v1/items/a/similar?key={token}")] {
        assert_problem(&town.reply(town.nobody("GET", &path)).await, 401, "unauthorized", "in the URL");
    }
    town.pass(606);
    assert!(!town.works(&token).await, "ten minutes");
}

#[tokio::test]
async fn the_public_keys_are_public() {
    let town = Town::of_mara().await;
    let answer = town.reply(town.nobody("GET", "/.well-known/jwks.json")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "public, max-age=60"));
    let key = body(&answer)["keys"][0].clone();
    for (field, value) in [("kty", "OKP"), ("crv", "Ed25519"), ("alg", "EdDSA"), ("use", "sig")] {
        assert_eq!(key[field], value);
    }
    assert!(key["d"].is_null() && !String::from_utf8_lossy(answer.body()).contains("seed"), "nothing private");
    let head = town.token("mara").await;
    let head: Value = serde_json::from_slice(&B64.decode(head.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(head["kid"], key["kid"]);
}

/// V8.2.1, V8.2.2: a person reaches their own resources, and nothing of others or of the shop.
#[tokio::test]
async fn v8_2_1_v8_2_2_a_person_reaches_their_own() {
    let town = Town::of_mara().await;
    let nora = town.member("nora", "13912345678").await;
    let token = town.token("mara").await;
    let mara = text(&body(&town.ask(&token, "GET", "/v1/members/me").await), "member");
    for own in ["me", &mara] {
        for view in ["points", "history", "orders"] {
            assert_eq!(town.ask(&token, "GET", &format!("/v1/members/{own}/{view}")).await.status(), 200);
            let other = town.ask(&token, "GET", &format!("/v1/members/{nora}/{view}")).await;
            assert_problem(&other, 404, "not_found", "another's is as good as not there");
        }
    }
    use crate::routes::endpoint::{Need, endpoints};
    for route in endpoints().filter(|route| matches!(route.need, Need::Staff(_) | Need::WriteEvents)) {
        let path = route.path.replace("{member}", &nora).replace("{topic}", "interactions").replace(['{', '}'], "");
        let answer = town.send(&token, route.method_name(), &path, &json!({})).await;
        assert_problem(&answer, 403, "insufficient_scope", route.name);
    }
    // A key is not a person.
    for route in endpoints().filter(|route| route.need == Need::SignedIn) {
        let answer = town.bench.request(route.method_name().parse().unwrap(), &route.path.replace("{id}", "x")).body("{}");
        assert_problem(&answer.reply(&town.bench.public).await, 403, "insufficient_scope", route.name);
    }
    assert_eq!(town.ask(&token, "GET", "/v1/items/a/similar").await.status(), 200, "R19: every member browses");
}

/// V16.5.1 to V16.5.3: without its store it reports that, reveals nothing about it, and lets nobody in.
#[tokio::test]
async fn v16_5_1_v16_5_2_v16_5_3_the_store_is_away() {
    let town = Town::of_mara().await;
    let grant = town.sign_in("mara").await;
    let token = text(&grant, "access_token");
    let form = town.form("nora", "13912345678").await;
    let solved = town.solved().await;
    town.records.around.away.store(true, Ordering::Relaxed);
    let refresh = json!({ "refresh_token": text(&grant, "refresh_token") });
    let credentials = json!({ "account": "mara", "password": PASSWORD });
    for (path, form) in [
        ("/v1/registrations", form),
        ("/v1/sessions", credentials.clone()),
        ("/v1/sessions/refresh", refresh.clone()),
        ("/v1/password-resets", json!({ "account": "mara", "challenge": solved })),
        ("/v1/captcha/challenges", json!({})),
    ] {
        let answer = town.post(path, &form).await;
        let problem = assert_problem(&answer, 503, "unavailable", path);
        assert_eq!(
            (header(&answer, "retry-after"), &problem["detail"]),
            ("1", &json!("The service is not available for the moment"))
        );
        assert!(!problem.to_string().contains("away"), "nothing of the reason is told: {problem}");
    }
    for (method, path) in [("GET", "/v1/members/me"), ("DELETE", "/v1/sessions/current"), ("GET", "/v1/members/me/export")] {
        assert_problem(&town.ask(&token, method, path).await, 503, "unavailable", path);
    }
    // The cookie of a page is kept.
    let cookie = format!("__Host-kindred-refresh={}", text(&grant, "refresh_token"));
    let kept =
        town.reply(with_form(own_page(town.nobody("POST", "/v1/sessions/refresh")).header("cookie", cookie), &json!({}))).await;
    assert!(kept.status() == 503 && cookies(&kept).is_empty());
    town.records.around.away.store(false, Ordering::Relaxed);
    assert_eq!(town.post("/v1/sessions/refresh", &refresh).await.status(), 200, "it was not used up");
    assert_eq!(town.post("/v1/sessions", &credentials).await.status(), 201);
}

/// Without members an installation has none of these routes.
#[tokio::test]
async fn without_members_there_is_nothing_to_sign_in_to() {
    let bench = Bench::new().await;
    for path in ["/v1/registrations/rules", "/.well-known/jwks.json"] {
        assert_problem(&bench.get(path).await, 404, "not_found", path);
    }
    let posted = bench.post("/v1/sessions", "application/json", json!({ "account": "a", "password": "b" }).to_string()).await;
    assert_problem(&posted, 404, "not_found", "sign in");
}
