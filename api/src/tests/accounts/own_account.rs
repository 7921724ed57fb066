//! A member's own account: read, changed, exported, closed.

use std::io::Read;

use kindred_model::records::{InteractionKey, Subject};
use kindred_model::views::inputs::{Interactions, StoredInteraction};

use super::*;

const ME: &str = "/v1/members/me";

async fn patch(town: &Town, token: &str, if_match: Option<&str>, form: &Value) -> Answer {
    let request = town.nobody("PATCH", ME).header("authorization", format!("Bearer {token}"));
    let request = match if_match {
        Some(tag) => request.header("if-match", tag),
        None => request,
    };
    town.reply(with_form(request, form)).await
}

#[tokio::test]
async fn a_profile_is_changed_as_it_was_read() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let read = town.ask(&token, "GET", ME).await;
    let tag = header(&read, "etag").to_owned();
    let known = town.nobody("GET", ME).header("authorization", format!("Bearer {token}")).header("if-none-match", &tag);
    let known = town.reply(known).await;
    assert_eq!((known.status().as_u16(), known.body().len(), header(&known, "cache-control")), (304, 0, "no-store"));
    let address = json!({
        "name": "Mara", "phone": "13812345678", "country": "CN", "region": "Zhejiang", "city": "Hangzhou",
        "lines": "1 Lake Road", "postal_code": "310000",
    });
    let change = json!({ "language": "zh-CN", "marketing_consent": true, "addresses": [address] });
    assert_problem(&patch(&town, &token, None, &change).await, 428, "precondition_required", "no If-Match");
    for other in ["\"other\"", &format!("W/{tag}"), "x"] {
        assert_problem(&patch(&town, &token, Some(other), &change).await, 412, "changed", other);
    }
    let changed = patch(&town, &token, Some(&tag), &change).await;
    assert_eq!(changed.status(), 200);
    assert_ne!(header(&changed, "etag"), tag);
    let profile = body(&changed);
    assert_eq!(
        (&profile["language"], &profile["marketing_consent"], &profile["addresses"][0]),
        (&json!("zh-CN"), &json!(true), &address)
    );
    assert_problem(&patch(&town, &token, Some(&tag), &change).await, 412, "changed", "the version before");
    let back = patch(&town, &token, Some("*"), &json!({ "language": "en" })).await;
    assert_eq!((&body(&back)["language"], &body(&back)["marketing_consent"]), (&json!("en"), &json!(true)), "the rest stays");
    for (form, pointer, code) in [
        (json!({ "addresses": vec![&address; 21] }), "/addresses", "addresses_many"),
        (json!({ "addresses": [with(&address, "city", "x".repeat(201))] }), "/addresses", "address_invalid"),
        (json!({ "addresses": [with(&address, "planet", "Earth")] }), "/addresses/0/planet", "unknown_field"),
        (json!({ "addresses": [{ "name": "Mara" }] }), "/addresses/0/phone", "missing_field"),
        (json!({ "agreement_version": "0" }), "/agreement_version", "agreement_stale"),
        (json!({ "language": 7 }), "/language", "invalid"),
    ] {
        let problem = assert_problem(&patch(&town, &token, Some("*"), &form).await, 422, "invalid", pointer);
        assert_eq!(fields(&problem), [(pointer.to_owned(), code.to_owned())]);
    }
}

/// V8.2.3, V15.3.3: only fields that a member may change are accepted.
#[tokio::test]
async fn v8_2_3_v15_3_3_no_mass_assignment() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let before = body(&town.ask(&token, "GET", ME).await);
    for (field, value) in [
        ("role", json!("admin")),
        ("tier", json!("svip")),
        ("points", json!(9)),
        ("state", json!("activated")),
        ("member", json!("other")),
        ("email", json!("x@y.zz")),
        ("phone", json!("13912345678")),
        ("username", json!("other")),
        ("password", json!("x")),
        ("second_factor", json!(false)),
        ("invited_by", json!("other")),
        ("version", json!("x")),
    ] {
        let problem =
            assert_problem(&patch(&town, &token, Some("*"), &with(&json!({}), field, value)).await, 422, "invalid", field);
        assert_eq!(fields(&problem), [(format!("/{field}"), "unknown_field".to_owned())]);
    }
    assert_eq!(body(&town.ask(&token, "GET", ME).await), before);
    for path in
        ["/v1/sessions", "/v1/sessions/refresh", "/v1/members/me/password", "/v1/password-resets/redeem", "/v1/members/me/totp"]
    {
        let problem = assert_problem(&town.send(&token, "POST", path, &json!({ "role": "admin" })).await, 422, "invalid", path);
        assert_eq!(fields(&problem), [("/role".to_owned(), "unknown_field".to_owned())], "{path}");
    }
}

/// V15.3.1: an answer has exactly these fields; nothing of passwords, factors or the store.
#[tokio::test]
async fn v15_3_1_no_more_than_is_meant() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let profile = body(&town.ask(&token, "GET", ME).await);
    let mut names: Vec<&str> = profile.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = "activated_at addresses agreement email invite_code language marketing_consent member phone registered_at role \
                    second_factor state tier username";
    assert_eq!(names.join(" "), expected);
}

/// V15.3.7: duplicate parameters and fields are refused, in the query and in the body.
#[tokio::test]
async fn v15_3_7_no_parameter_pollution() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    for path in ["/v1/members/me/sessions?keep_current=true&keep_current=false", "/v1/members/me/sessions?other=1"] {
        assert_problem(&town.ask(&token, "DELETE", path).await, 400, "invalid_parameter", path);
    }
    for path in ["/v1/members/me?x=1", "/v1/members/me/export?x=1", "/v1/members/me/sessions?x=1"] {
        assert_problem(&town.ask(&token, "GET", path).await, 400, "invalid_parameter", path);
    }
    for path in [
        "/v1/sessions?account=mara",
        "/v1/email-verifications?token=x",
        "/v1/registrations?x",
        "/v1/password-resets/redeem?token=x",
    ] {
        assert_problem(&town.post(path, &json!({})).await, 400, "invalid_parameter", path);
    }
    assert!(town.works(&token).await);
}

/// V6.2.2, V6.2.3, V6.2.4, V7.4.3: with the current password, by the rules of registration; the other sessions end.
#[tokio::test]
async fn v6_2_2_v6_2_3_v6_2_4_v7_4_3_a_password_is_changed_with_the_current_one() {
    let town = Town::of_mara().await;
    let (token, other) = (town.token("mara").await, town.token("mara").await);
    let change = async |form: Value| town.send(&token, "POST", "/v1/members/me/password", &form).await;
    let new = "velvet 93 quip harbor";
    assert_problem(&change(json!({ "password": new })).await, 403, "reauthentication_failed", "without");
    let wrong = change(json!({ "current_password": "wrong one", "password": new })).await;
    assert_problem(&wrong, 403, "reauthentication_failed", "wrong");
    for (password, code) in [("short", "password_short"), ("password1", "password_breached"), ("mara1234", "password_breached")] {
        let problem = assert_problem(
            &change(json!({ "current_password": PASSWORD, "password": password })).await,
            422,
            "invalid",
            password,
        );
        assert_eq!(fields(&problem), [("/password".to_owned(), code.to_owned())]);
    }
    assert!(town.works(&other).await);
    assert_eq!(change(json!({ "current_password": PASSWORD, "password": new })).await.status(), 204);
    assert!(town.works(&token).await && !town.works(&other).await);
    let old = town.post("/v1/sessions", &json!({ "account": "mara", "password": PASSWORD })).await;
    assert_problem(&old, 401, "unauthenticated", "the old one");
    assert_eq!(town.post("/v1/sessions", &json!({ "account": "mara", "password": new })).await.status(), 201);
    town.deliver().await;
    assert!(town.inbox.last("mara@example.com").rendered.subject.contains("password"), "she is told");
}

/// V7.5.1: changing e-mail or phone needs the password, and takes effect when verified.
#[tokio::test]
async fn v7_5_1_a_new_email_and_phone() {
    let town = Town::of_mara().await;
    town.member("nora", "13912345678").await;
    town.pass(3_600);
    let token = town.token("mara").await;
    let send = async |path: &str, form: Value| town.send(&token, "POST", path, &form).await;
    for (path, form) in [
        ("/v1/members/me/email", json!({ "email": "new@example.com" })),
        ("/v1/members/me/phone", json!({ "phone": "13712345678" })),
        ("/v1/members/me/phone/confirm", json!({ "phone": "13712345678", "code": "123456" })),
        ("/v1/members/me/totp", json!({})),
        ("/v1/members/me/recovery-codes", json!({})),
    ] {
        assert_problem(&send(path, form.clone()).await, 403, "reauthentication_failed", path);
        let wrong = with(&form, "current_password", "wrong one");
        let answer = send(path, wrong).await;
        assert!(matches!(answer.status().as_u16(), 403 | 429), "{path}: {}", body(&answer));
    }
    town.pass(1_000);
    let token = town.token("mara").await;
    let send = async |path: &str, form: Value| town.send(&token, "POST", path, &form).await;
    let mailed = send("/v1/members/me/email", json!({ "current_password": PASSWORD, "email": "new@example.com" })).await;
    assert_eq!(mailed.status(), 202);
    let taken = send("/v1/members/me/email", json!({ "current_password": PASSWORD, "email": "nora@example.com" })).await;
    assert_eq!((taken.status(), body(&taken)), (mailed.status(), body(&mailed)), "another's address answers the same");
    town.deliver().await;
    let again = send("/v1/members/me/email", json!({ "current_password": PASSWORD, "email": "new@example.com" })).await;
    assert_eq!(again.status(), 202);
    town.deliver().await;
    assert_eq!(body(&town.ask(&token, "GET", ME).await)["email"], "mara@example.com", "not before it is proved");
    let link = json!({ "token": town.inbox.token("new@example.com") });
    assert_eq!(town.post("/v1/email-changes/confirm", &link).await.status(), 204);
    assert_problem(&town.post("/v1/email-changes/confirm", &link).await, 410, "token_gone", "once");
    let token = town.token("mara").await;
    assert_eq!(body(&town.ask(&token, "GET", ME).await)["email"], "new@example.com");

    let phone = json!({ "current_password": PASSWORD, "phone": "13712345678" });
    assert_eq!(town.send(&token, "POST", "/v1/members/me/phone", &phone).await.status(), 202);
    town.deliver().await;
    let code = town.inbox.code("+8613712345678");
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let confirm = async |code: &str| town.send(&token, "POST", "/v1/members/me/phone/confirm", &with(&phone, "code", code)).await;
    assert_problem(&confirm(wrong).await, 422, "code_wrong", "wrong");
    assert_eq!(confirm(&code).await.status(), 204);
    assert_problem(&confirm(&code).await, 422, "code_wrong", "once");
    assert_eq!(body(&town.ask(&token, "GET", ME).await)["phone"], "+8613712345678");
    town.deliver().await;
    assert_eq!(town.sign_in("13712345678").await["token_type"], "Bearer");
    let old = town.post("/v1/sessions", &json!({ "account": "13812345678", "password": PASSWORD })).await;
    assert_problem(&old, 401, "unauthenticated", "the old phone is nobody's");
}

/// V6.4.1: the link works once; every session ends.
#[tokio::test]
async fn v6_4_1_a_password_is_set_anew_by_mail() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let ask = async || {
        let form = json!({ "account": "13812345678", "challenge": town.solved().await });
        assert_eq!(town.post("/v1/password-resets", &form).await.status(), 202);
        town.deliver().await;
        town.inbox.token("mara@example.com")
    };
    let redeem = async |form: Value| town.post("/v1/password-resets/redeem", &form).await;
    let form = json!({ "token": ask().await, "password": "velvet 93 quip harbor" });
    let problem = assert_problem(&redeem(with(&form, "password", "password1")).await, 422, "invalid", "common");
    assert_eq!(fields(&problem), [("/password".to_owned(), "password_breached".to_owned())]);
    let reset = redeem(form.clone()).await;
    assert!(reset.status() == 200 && body(&reset)["device"].is_string());
    assert_problem(&redeem(form).await, 410, "token_gone", "once");
    assert!(!town.works(&token).await);
    town.deliver().await;
    // The shop's own page keeps the device mark in its cookie.
    let link = ask().await;
    let form = json!({ "token": link, "password": PASSWORD, "cookie": true });
    assert_problem(&redeem(form.clone()).await, 403, "cross_site", "another page");
    let answer = town.reply(with_form(own_page(town.nobody("POST", "/v1/password-resets/redeem")), &form)).await;
    assert_eq!(
        (answer.status().as_u16(), body(&answer), cookies(&answer)[0].0.as_str()),
        (200, json!({}), "__Host-kindred-device")
    );
}

/// The whole export, in formats that any program reads.
#[tokio::test]
async fn an_export_has_everything() {
    let town = Town::of_mara().await;
    let grant = town.sign_in("mara").await;
    let (token, member) = (text(&grant, "access_token"), text(&grant, "member"));
    let of = MemberId::parse(&member).unwrap();
    let row = earnings(100, &[(NOW.day(), 40)]);
    let owner = kindred_model::Owner::Member(of.clone());
    let did = |subject: Subject, kind: Kind, payload: &str| {
        let held = StoredInteraction { at: NOW, payload: payload.as_bytes().into() };
        let key = InteractionKey { subject, kind, day: Some(NOW.day()), scenario: Box::default() };
        change::<Interactions>(&(owner.clone(), key), Some(&held))
    };
    let seen = did(Subject::Item(item("tea")), Kind::View, "");
    let searched = did(Subject::Query("green tea".into()), Kind::Search, r#"{"query":"Green  TEA","rank":2}"#);
    town.bench.apply(vec![change::<Points>(&of, Some(&row)), seen, searched]).await;
    let bought = json!({
        "order": "o1", "version": 1, "status": "paid", "member": member, "placed_at": "2026-01-01T08:00:00Z", "currency": "EUR",
        "lines": [{ "line": 1, "item": "tea", "quantity": 1, "unit_price_minor": 500 }],
    });
    town.bench.apply(ordered(&bought)).await;
    let following = town.bench.follow_members();
    let end = town.bench.log.end().await.unwrap();
    assert!(town.bench.api.live().memory.reached(&end, Duration::from_secs(10)).await, "the views follow");

    let answer = town.ask(&token, "GET", "/v1/members/me/export").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/zip"));
    assert_eq!(header(&answer, "cache-control"), "no-store");
    assert_secured(&answer, "export");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(answer.body().to_vec())).unwrap();
    let of_persons = kindred_model::views::ALL.iter().filter(|view| view.is_about_persons());
    assert_eq!(archive.len(), 3 + of_persons.count(), "a file of each view about persons");
    let mut read = |name: &str| -> Value {
        let mut text = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let account = read("account.json");
    assert_eq!((&account["profile"]["username"], &account["profile"]["phone"]), (&json!("mara"), &json!("+8613812345678")));
    assert_eq!(account["sessions"].as_array().unwrap().len(), 1);
    assert!(account["audit"].as_array().unwrap().iter().any(|entry| entry["kind"] == "sign_in"), "{account}");
    assert!(!account.to_string().contains("argon2"), "no secret of ours");
    let points = read("points.json");
    assert_eq!((&points["available"], &points["from_invites"]), (&json!(140), &json!(100)));
    assert_eq!(read("history.json")[0]["item"], "tea");
    let at = NOW.to_string();
    let expected = json!([
        { "member": member, "kind": "view", "item": "tea", "at": at },
        { "member": member, "kind": "search", "query": "Green  TEA", "at": at, "rank": 2 },
    ]);
    assert_eq!(read("interactions.json"), expected);
    assert_eq!((&read("orders.json")[0]["order"], &read("orders.json")[0]["total_minor"]), (&json!("o1"), &json!(500)));
    assert_eq!((&read("membership.json")["member"], &read("membership.json")["state"]), (&json!(member), &json!("activated")));
    following.abort();
    // Expensive, so limited per hour.
    for _ in 1..6 {
        assert_eq!(town.ask(&token, "GET", "/v1/members/me/export").await.status(), 200);
    }
    let beyond = town.ask(&token, "GET", "/v1/members/me/export").await;
    assert_problem(&beyond, 429, "throttled", "too many exports");
    town.pass(3_600);
    let token = town.token("mara").await;
    assert_eq!(town.ask(&token, "GET", "/v1/members/me/export").await.status(), 200);
}

/// Closing the account: with the password, at once, with both dates; nobody can sign in to it.
#[tokio::test]
async fn an_account_is_closed_with_both_dates() {
    let town = Town::of_mara().await;
    let following = town.bench.follow_members();
    let grant = town.sign_in("mara").await;
    let (token, member) = (text(&grant, "access_token"), text(&grant, "member"));
    assert_problem(&town.send(&token, "DELETE", ME, &json!({})).await, 403, "reauthentication_failed", "without the password");
    let wrong = json!({ "current_password": "wrong one" });
    assert_problem(&town.send(&token, "DELETE", ME, &wrong).await, 403, "reauthentication_failed", "wrong");
    assert!(town.works(&token).await);
    let request = town.nobody("DELETE", ME).header("authorization", format!("Bearer {token}"));
    let request = request.header("cookie", format!("__Host-kindred-refresh={}", text(&grant, "refresh_token")));
    let closed = town.reply(with_form(request, &json!({ "current_password": PASSWORD }))).await;
    let receipt = body(&closed);
    assert_eq!(closed.status(), 200, "{receipt}");
    assert_eq!(cookies(&closed)[0].2[4], "Max-Age=0", "the browser forgets its cookie");
    assert_eq!((&receipt["member"], &receipt["views"]["erased"]), (&json!(member), &json!(true)));
    let today = town.bench.clock.now();
    assert_eq!(receipt["account_erased_at"], today.to_string());
    assert_eq!(receipt["views"]["views_erased_at"], today.to_string());
    assert_eq!(receipt["views"]["raw_erased_by"], today.day().plus(30).to_string());
    assert!(text(&receipt, "audit_until") > text(&receipt, "account_erased_at"));
    assert!(!town.works(&token).await);
    assert_problem(&town.refresh(&text(&grant, "refresh_token")).await, 401, "unauthenticated", "closed");
    let again = town.post("/v1/sessions", &json!({ "account": "mara", "password": PASSWORD })).await;
    assert_problem(&again, 401, "unauthenticated", "closed");
    town.deliver().await;
    assert!(erased(&town).await, "the log has it");
    // Name, phone and e-mail are free again.
    town.pass(3_600);
    town.member("mara", "13812345678").await;
    following.abort();
}

/// If the pipeline lags, the account is gone all the same, and the answer says that the views follow.
#[tokio::test]
async fn an_account_is_closed_while_the_pipeline_is_behind() {
    let mut town = Town::of_mara().await;
    town.bench.config.limits.erasure_wait_ms = 50;
    town.bench.api =
        crate::prepare(town.bench.config.clone(), town.bench.context.clone(), town.bench.stop.subscribe()).await.unwrap();
    town.bench.public = crate::routes::public(&town.bench.api);
    let token = town.token("mara").await;
    let closed = town.send(&token, "DELETE", ME, &json!({ "current_password": PASSWORD })).await;
    let receipt = body(&closed);
    assert_eq!((closed.status().as_u16(), &receipt["views"]), (202, &json!(null)), "{receipt}");
    assert!(!town.works(&token).await);
    town.deliver().await;
    assert!(erased(&town).await, "the outbox has told the log");
}

async fn erased(town: &Town) -> bool {
    logged(&town.bench.log).await.into_iter().any(|(_, record)| matches!(&record, Record::Member(record) if record.is_erased()))
}
