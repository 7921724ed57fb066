//! The authenticator app and the recovery codes.

use super::*;

/// Set up, used in cookies and without, by code and by recovery code. Steps, limits and resets are decided in
/// `api/members/tests/it/sign_in.rs`.
#[tokio::test]
async fn v6_5_1_a_second_factor_is_set_up_and_used() {
    let town = Town::of_mara().await;
    let (token, other) = (town.token("mara").await, town.token("mara").await);
    let early = town.send(&token, "POST", &format!("{TOTP}/confirm"), &json!({ "code": "123456" })).await;
    assert_problem(&early, 409, "refused", "V2.3.1: nothing is being set up");
    let (secret, recovery) = town.enrol(&token).await;
    assert!(recovery.len() == 10 && recovery.iter().all(|code| code.len() == 19), "80 bits each");
    assert!(town.works(&token).await && !town.works(&other).await, "the other sessions end");
    assert_eq!(body(&town.ask(&token, "GET", "/v1/members/me").await)["second_factor"], true);
    let twice = town.send(&token, "POST", TOTP, &json!({ "current_password": PASSWORD })).await;
    assert_problem(&twice, 409, "refused", "there is one");

    let challenge = town.first("mara").await;
    assert_problem(&town.second(&challenge, &town.code(&secret)).await, 422, "code_wrong", "that step was used to enrol");
    assert_problem(&town.second("forged.x", &town.code(&secret)).await, 401, "unauthenticated", "forged");
    town.pass(60);
    let answer = town.second(&challenge, &town.code(&secret)).await;
    assert_eq!((answer.status().as_u16(), &body(&answer)["token_type"]), (201, &json!("Bearer")));
    assert_eq!(town.second(&town.first("mara").await, &recovery[0].to_uppercase()).await.status(), 201);
    town.pass(60);
    let form = json!({ "challenge": town.first("mara").await, "code": town.code(&secret), "cookie": true });
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
    let (secret, recovery) = town.enrol(&token).await;
    assert_problem(&renew(json!({})).await, 403, "reauthentication_failed", "without the password");
    let renewed = renew(current.clone()).await;
    assert_eq!(renewed.status(), 200);
    let fresh = body(&renewed)["recovery_codes"][0].as_str().unwrap().to_owned();
    assert!(!recovery.contains(&fresh));
    let remove = async |form: Value| town.send(&token, "DELETE", TOTP, &form).await;
    assert_problem(&remove(json!({ "code": fresh })).await, 403, "reauthentication_failed", "without the password");
    assert_problem(&remove(with(&current, "code", &*recovery[1])).await, 422, "code_wrong", "an old recovery code");
    town.pass(60);
    assert_eq!(remove(with(&current, "code", town.code(&secret))).await.status(), 204);
    town.sign_in("mara").await;
}
