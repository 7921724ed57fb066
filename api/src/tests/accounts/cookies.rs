//! The cookies of the shop's own pages.

use super::*;

/// V3.3.1 to V3.3.4: `__Host-`, Secure, HttpOnly, SameSite, the whole host and no domain.
#[tokio::test]
async fn v3_3_1_v3_3_2_v3_3_3_v3_3_4_cookies() {
    let town = Town::of_mara().await;
    let answer = town.reply(with_form(own_page(town.nobody("POST", FORM)), &credentials(true))).await;
    let grant = body(&answer);
    assert!(grant["refresh_token"].is_null() && grant["device"].is_null(), "what is in a cookie no script reads: {grant}");
    let set = cookies(&answer);
    let names: Vec<&str> = set.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["__Host-kindred-refresh", "__Host-kindred-device"]);
    for (name, value, attributes) in &set {
        assert!(value.len() >= 43, "{name}");
        assert_eq!(attributes[..4], ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"], "{name}");
        let age: i64 = attributes[4].strip_prefix("Max-Age=").unwrap().parse().unwrap();
        assert_eq!(age, if name.ends_with("refresh") { 30 * 86_400 } else { 400 * 86_400 }, "{name}");
        assert_eq!(attributes.len(), 5, "no Domain: {attributes:?}");
    }
    let plain = town.post(FORM, &credentials(false)).await;
    assert!(cookies(&plain).is_empty() && body(&plain)["refresh_token"].is_string() && body(&plain)["device"].is_string());
}

/// The life of a session in cookies: refreshed, used as a device mark, ended.
#[tokio::test]
async fn a_session_lives_in_cookies() {
    let town = Town::of_mara().await;
    let (grant, sent) = with_cookies(&town).await;
    let refresh = |sent: &str| with_form(own_page(town.nobody("POST", REFRESH)).header("cookie", sent), &json!({}));
    let next = town.reply(refresh(&sent)).await;
    assert_eq!((next.status().as_u16(), &body(&next)["session"]), (200, &grant["session"]));
    assert!(body(&next)["refresh_token"].is_null());
    let set = cookies(&next);
    assert_eq!((set.len(), set[0].0.as_str()), (1, "__Host-kindred-refresh"), "the mark of the browser stays");
    let newer = format!("{}={}", set[0].0, set[0].1);
    // The old one again: within 30 s its successor, since the answer may have been lost; later the session ends and the cookie is
    // cleared.
    let repeated = town.reply(refresh(&sent)).await;
    assert_eq!(cookies(&repeated)[0].1, set[0].1);
    town.pass(30);
    let reused = town.reply(refresh(&sent)).await;
    assert_problem(&reused, 401, "unauthenticated", "used twice");
    assert_eq!((cookies(&reused)[0].1.as_str(), cookies(&reused)[0].2[4].as_str()), ("", "Max-Age=0"));
    assert_problem(&town.reply(refresh(&newer)).await, 401, "unauthenticated", "the session has ended");
    assert_problem(&town.reply(refresh("other=1")).await, 401, "unauthenticated", "no cookie");
    // Signing out by the cookie alone: a freshly loaded page has no access token.
    let (grant, sent) = with_cookies(&town).await;
    let out = own_page(town.nobody("DELETE", CURRENT)).header("cookie", &sent);
    let out = town.reply(out).await;
    assert_eq!((out.status().as_u16(), cookies(&out)[0].2[4].as_str()), (204, "Max-Age=0"));
    assert!(!town.works(&text(&grant, "access_token")).await);
    assert_problem(&town.reply(refresh(&sent)).await, 401, "unauthenticated", "signed out");
    let again = town.reply(own_page(town.nobody("DELETE", CURRENT)).header("cookie", &sent)).await;
    assert_eq!(again.status(), 204, "what has ended has ended");
}

/// V3.5.1 to V3.5.3: another site's page can neither sign in, refresh nor sign out by a cookie, and HTML forms are refused.
#[tokio::test]
async fn v3_5_1_v3_5_2_v3_5_3_other_sites_cannot() {
    let town = Town::of_mara().await;
    let (grant, sent) = with_cookies(&town).await;
    let evil: &[&[(&str, &str)]] = &[
        &[],
        &[("origin", "https://shop.example")],
        &[("kindred-csrf", "1")],
        &[("kindred-csrf", "1"), ("origin", "https://evil.example")],
        &[("kindred-csrf", "1"), ("origin", "null")],
        &[("kindred-csrf", "1"), ("origin", "https://shop.example"), ("sec-fetch-site", "cross-site")],
    ];
    for headers in evil {
        let from = |method: &str, path: &str| {
            let request = town.nobody(method, path).header("cookie", &sent);
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        for (path, form) in [(FORM, credentials(true)), (REFRESH, json!({}))] {
            let answer = town.reply(with_form(from("POST", path), &form)).await;
            assert_problem(&answer, 403, "cross_site", &format!("{path} {headers:?}"));
            assert!(cookies(&answer).is_empty() && !answer.headers().contains_key("access-control-allow-origin"));
        }
        assert_problem(&town.reply(from("DELETE", CURRENT)).await, 403, "cross_site", "sign out");
    }
    assert!(town.works(&text(&grant, "access_token")).await, "nothing of it ended the session");
    // A form that any page can post is refused.
    for content_type in
        ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/json; charset=gbk"]
    {
        for route in crate::routes::endpoint::endpoints().filter(|route| route.name.starts_with("POST /v1/") && is_peoples(route))
        {
            let token = text(&grant, "access_token");
            let request = own_page(town.nobody("POST", route.path)).header("authorization", format!("Bearer {token}"));
            let request = request.header("content-type", content_type).body("account=mara&password=x");
            assert_problem(&town.reply(request).await, 415, "unsupported_media_type", &format!("{} {content_type}", route.name));
        }
    }
    // V3.5.3: no GET changes anything.
    for path in [
        FORM,
        REFRESH,
        "/v1/sessions/second-factor",
        "/v1/email-verifications",
        "/v1/password-resets/redeem",
        "/v1/registrations",
    ] {
        assert_problem(
            &town.reply(own_page(town.nobody("GET", path)).header("cookie", &sent)).await,
            405,
            "method_not_allowed",
            path,
        );
    }
}

/// The form routes of these modules.
fn is_peoples(route: &crate::routes::endpoint::Endpoint) -> bool {
    let of_forms = ["/v1/phone-codes", "/v1/registrations", "/v1/email-", "/v1/password-", "/v1/sessions", "/v1/members/me"];
    of_forms.iter().any(|start| route.path.starts_with(start))
}
