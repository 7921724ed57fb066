//! Access tokens in the header, in every invalid form; and an unavailable store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{Algorithm, EncodingKey};

use super::*;

/// V9.1.1 to V9.1.3, V9.2.1 to V9.2.3 with the real header. Each is signed with the current key, and wrong only in what its row
/// names.
#[tokio::test]
async fn v9_1_1_v9_1_2_v9_1_3_v9_2_1_v9_2_2_v9_2_3_what_is_no_access_token() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| -> Value { serde_json::from_slice(&B64.decode(part).unwrap()).unwrap() };
    let (head, claims) = (read(parts[0]), read(parts[1]));
    let written = |value: &Value| B64.encode(value.to_string());
    let range = Range::default();
    let ring = town.records.store.scan("secrets", b"keys", &range, 1, town.bench.clock.now()).await.unwrap();
    let stored: Value = serde_json::from_slice(&ring[0].1.value).unwrap();
    let seed: [u8; 32] = B64.decode(text(&stored, "seed")).unwrap().try_into().unwrap();
    let der = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_der(&ed25519_dalek::SigningKey::from_bytes(&seed)).unwrap();
    let by = |algorithm, key: &EncodingKey, head: &Value, claims: &Value| {
        let signed = format!("{}.{}", written(head), written(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
        format!("{signed}.{signature}")
    };
    let ours = EncodingKey::from_ed_der(der.as_bytes());
    let signed = |head: &Value, claims: &Value| by(Algorithm::EdDSA, &ours, head, claims);
    assert!(town.works(&signed(&head, &claims)).await, "the rows below are about what they change");

    let keys = body(&town.reply(town.nobody("GET", "/.well-known/jwks.json")).await);
    let x = B64.decode(text(&keys["keys"][0], "x")).unwrap();
    let hs256 = with(&head, "alg", "HS256");
    let hmac = by(Algorithm::HS256, &EncodingKey::from_secret(&x), &hs256, &claims);
    let none = with(&head, "alg", "none");
    let foreign = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let foreign = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_der(&foreign).unwrap();
    let theirs = EncodingKey::from_ed_der(foreign.as_bytes());
    let mut with_jku = with(&with(&head, "jku", "https://evil.example/jwks.json"), "kid", "theirs");
    with_jku["jwk"] = json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" });
    let now = town.bench.clock.now().0 / 1_000;
    let rows = [
        ("alg none", format!("{}.{}.", written(&none), parts[1])),
        ("alg none, with a signature", format!("{}.{}.{}", written(&none), parts[1], parts[2])),
        ("HS256 with the public key", hmac),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("changed claims", format!("{}.{}.{}", parts[0], written(&with(&claims, "scope", "member:read")), parts[2])),
        ("a foreign kid", signed(&with(&head, "kid", "other"), &claims)),
        ("a foreign key with jku and jwk", by(Algorithm::EdDSA, &theirs, &with_jku, &claims)),
        ("a foreign key under our kid", by(Algorithm::EdDSA, &theirs, &head, &claims)),
        ("typ JWT", signed(&with(&head, "typ", "JWT"), &claims)),
        ("no typ", signed(&with(&head, "typ", Value::Null), &claims)),
        ("another audience", signed(&head, &with(&claims, "aud", "other"))),
        ("another issuer", signed(&head, &with(&claims, "iss", "other"))),
        ("expired", signed(&head, &with(&claims, "exp", now - 6))),
        ("not yet", signed(&head, &with(&claims, "nbf", now + 6))),
        ("dots", "..".to_owned()),
        ("long", "x".repeat(20_000)),
        ("a refresh token", text(&town.sign_in("mara").await, "refresh_token")),
    ];
    for (what, token) in &rows {
        for path in ["/v1/members/me", "/v1/members/me/points", "/v1/items/a/similar"] {
            let answer = town.ask(token, "GET", path).await;
            assert_problem(&answer, 401, "unauthorized", what);
            assert!(header(&answer, "www-authenticate").contains("invalid_token"), "{what}");
        }
    }
    // RFC 6750: in the header, and nowhere else.
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
        assert_eq!((header(&answer, "retry-after"), &problem["detail"]), ("1", &json!("The service is temporarily unavailable")));
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
