//! The authenticator app and the recovery codes.

use totp_rs::{Builder, Secret};

use super::*;

const TOTP: &str = "/v1/members/me/totp";
const SECOND: &str = "/v1/sessions/second-factor";

fn code(town: &Town, secret: &str, steps_ago: u64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).with_account_name("x").build().unwrap();
    let seconds = u64::try_from(town.bench.clock.now().0 / 1_000).unwrap();
    totp.generate(seconds - 30 * steps_ago).to_string()
}

/// Enrols; (secret, recovery codes).
async fn enrol(town: &Town, token: &str) -> (String, Vec<String>) {
    let begun = town.send(token, "POST", TOTP, &json!({ "current_password": PASSWORD })).await;
    assert_eq!(begun.status(), 201);
    let secret = text(&body(&begun), "secret");
    assert!(text(&body(&begun), "uri").starts_with("otpauth://totp/Teahouse"));
    let picture = text(&body(&begun), "qr_svg");
    assert!(picture.contains("<svg") && !picture.contains("script"), "{picture}");
    let confirmed = town.send(token, "POST", &format!("{TOTP}/confirm"), &json!({ "code": code(town, &secret, 0) })).await;
    assert_eq!(confirmed.status(), 200);
    let codes =
        body(&confirmed)["recovery_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    (secret, codes)
}

/// The first step of signing in.
async fn first(town: &Town) -> String {
    let answer = town.post("/v1/sessions", &json!({ "account": "mara", "password": PASSWORD })).await;
    assert_eq!(answer.status(), 200);
    let asked = body(&answer);
    assert!(asked["access_token"].is_null() && asked["expires_in"] == 300 && cookies(&answer).is_empty());
    text(&asked, "challenge")
}

async fn second(town: &Town, challenge: &str, code: &str) -> Answer {
    town.post(SECOND, &json!({ "challenge": challenge, "code": code })).await
}

/// V6.5.1, V6.5.5, V6.6.3: a code works once, within its 30 seconds; wrong ones are limited over all sign-ins.
#[tokio::test]
async fn v6_5_1_v6_5_5_v6_6_3_a_code_works_once() {
    let town = Town::of_mara().await;
    let (token, other) = (town.token("mara").await, town.token("mara").await);
    let early = town.send(&token, "POST", &format!("{TOTP}/confirm"), &json!({ "code": "123456" })).await;
    assert_problem(&early, 409, "refused", "V2.3.1: nothing is being set up");
    let (secret, recovery) = enrol(&town, &token).await;
    assert!(recovery.len() == 10 && recovery.iter().all(|code| code.len() == 19), "80 bits each");
    assert!(town.works(&token).await && !town.works(&other).await, "the other sessions end");
    assert_eq!(body(&town.ask(&token, "GET", "/v1/members/me").await)["second_factor"], true);
    let twice = town.send(&token, "POST", TOTP, &json!({ "current_password": PASSWORD })).await;
    assert_problem(&twice, 409, "refused", "there is one");

    let challenge = first(&town).await;
    assert_problem(&second(&town, &challenge, &code(&town, &secret, 0)).await, 422, "code_wrong", "that step was used to enrol");
    town.pass(90);
    assert_problem(&second(&town, &challenge, &code(&town, &secret, 2)).await, 422, "code_wrong", "two steps before");
    // One step of skew (RFC 6238, 5.2), each step once.
    let before = code(&town, &secret, 1);
    assert_eq!(second(&town, &first(&town).await, &before).await.status(), 201);
    assert_problem(&second(&town, &challenge, &before).await, 422, "code_wrong", "once");
    let now = code(&town, &secret, 0);
    let answer = second(&town, &challenge, &now).await;
    assert_eq!((answer.status().as_u16(), &body(&answer)["token_type"]), (201, &json!("Bearer")));
    assert_problem(&second(&town, &challenge, &now).await, 422, "code_wrong", "once");
    assert_eq!(second(&town, &first(&town).await, &recovery[0].to_uppercase()).await.status(), 201);
    assert_problem(&second(&town, &first(&town).await, &recovery[0]).await, 422, "code_wrong", "once");
    let mut limited = false;
    for _ in 0..8 {
        limited |= second(&town, &first(&town).await, "000000").await.status() == 429;
    }
    assert!(limited);
    town.pass(30);
    let answer = second(&town, &first(&town).await, &code(&town, &secret, 0)).await;
    assert!(matches!(answer.status().as_u16(), 201 | 429), "{}", body(&answer));
    assert_problem(&second(&town, "forged.x", &now).await, 401, "unauthenticated", "forged");
    let late = first(&town).await;
    town.pass(301);
    assert_problem(&second(&town, &late, &code(&town, &secret, 0)).await, 401, "unauthenticated", "five minutes");
}

/// V6.4.3: access to the mailbox does not replace the second factor. On the shop's own page the session is in cookies.
#[tokio::test]
async fn v6_4_3_a_reset_does_not_go_round_the_second_factor() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let (secret, _) = enrol(&town, &token).await;
    let asked = json!({ "account": "mara", "challenge": town.solved().await });
    assert_eq!(town.post("/v1/password-resets", &asked).await.status(), 202);
    town.deliver().await;
    let form = json!({ "token": town.inbox.token("mara@example.com"), "password": PASSWORD });
    assert_eq!(town.post("/v1/password-resets/redeem", &form).await.status(), 200);
    town.pass(60);
    let form = json!({ "challenge": first(&town).await, "code": code(&town, &secret, 0), "cookie": true });
    assert_problem(&town.post(SECOND, &form).await, 403, "cross_site", "another page");
    let answer = town.reply(with_form(own_page(town.nobody("POST", SECOND)), &form)).await;
    assert_eq!((answer.status().as_u16(), cookies(&answer).len()), (201, 2));
    assert!(body(&answer)["refresh_token"].is_null());
}

/// V7.5.1: changing the factor needs the password, removing it a code as well.
#[tokio::test]
async fn v7_5_1_the_second_factor_is_changed_with_the_password() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let renew = async |form: Value| town.send(&token, "POST", "/v1/members/me/recovery-codes", &form).await;
    let current = json!({ "current_password": PASSWORD });
    assert_problem(&renew(current.clone()).await, 409, "refused", "there is no second factor");
    let (secret, recovery) = enrol(&town, &token).await;
    assert_problem(&renew(json!({})).await, 403, "reauthentication_failed", "without the password");
    let renewed = renew(current.clone()).await;
    assert_eq!(renewed.status(), 200);
    let fresh = body(&renewed)["recovery_codes"][0].as_str().unwrap().to_owned();
    assert!(!recovery.contains(&fresh));
    let remove = async |form: Value| town.send(&token, "DELETE", TOTP, &form).await;
    assert_problem(&remove(json!({ "code": fresh })).await, 403, "reauthentication_failed", "without the password");
    assert_problem(&remove(with(&current, "code", &*recovery[1])).await, 422, "code_wrong", "an old recovery code");
    town.pass(60);
    assert_eq!(remove(with(&current, "code", code(&town, &secret, 0))).await.status(), 204);
    town.sign_in("mara").await;
}

/// V6.3.3: a staff role counts only after the second factor.
#[tokio::test]
async fn v6_3_3_staff_needs_the_second_factor() {
    let town = Town::of_mara().await;
    let member = text(&town.sign_in("mara").await, "member");
    let operator = kindred_members::Actor::operator("test");
    town.people.change_role(&operator, &member, None, Some("marketing")).await.unwrap();
    let grant = town.sign_in("mara").await;
    assert_eq!(grant["scope"], "catalog:browse order:trade");
    let token = text(&grant, "access_token");
    assert_problem(&town.ask(&token, "GET", "/v1/admin/status").await, 403, "insufficient_scope", "the password alone");
    let (secret, _) = enrol(&town, &token).await;
    assert_problem(
        &town.ask(&token, "GET", "/v1/admin/status").await,
        403,
        "insufficient_scope",
        "this session has not shown it",
    );
    town.pass(60);
    let answer = second(&town, &first(&town).await, &code(&town, &secret, 0)).await;
    let grant = body(&answer);
    assert_eq!(grant["scope"], "catalog:browse order:trade promo:manage report:read");
    let token = text(&grant, "access_token");
    assert_eq!(town.ask(&token, "GET", "/v1/admin/status").await.status(), 200);
    assert_problem(&town.ask(&token, "GET", "/v1/admin/keys").await, 403, "insufficient_scope", "of another role");
    // R12: staff have a longer minimum password.
    let short = json!({ "current_password": PASSWORD, "password": "vextro 93 quip" });
    let problem = assert_problem(&town.send(&token, "POST", "/v1/members/me/password", &short).await, 422, "invalid", "14");
    assert_eq!(problem["errors"][0]["message"], "The password must have at least 15 characters");
}

/// V6.3.2: there are no default accounts.
#[tokio::test]
async fn v6_3_2_there_are_no_default_accounts() {
    let town = Town::new().await;
    for account in ["admin", "root", "administrator", "kindred", "test", "guest"] {
        for password in [account, "admin", "password", "kindred", ""] {
            let form = json!({ "account": account, "password": password });
            let answer = town.reply(with_form(town.from("203.0.113.1", "POST", FORM), &form)).await;
            assert!(matches!(answer.status().as_u16(), 401 | 429), "{account}");
        }
    }
    let all = kindred_members::MemberQuery::default();
    let found = town.people.search_members(&kindred_members::Actor::operator("test"), &all).await.unwrap();
    assert!(found.items.is_empty());
}
