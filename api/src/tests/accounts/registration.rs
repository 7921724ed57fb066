//! Registration.

use super::*;

/// The five steps, in Chinese.
#[tokio::test]
async fn a_registration_is_walked_through() {
    let town = Town::new().await;
    let rules = body(&town.reply(town.nobody("GET", "/v1/registrations/rules")).await);
    assert_eq!((&rules["agreement_version"], &rules["password_min"]), (&json!("1"), &json!(8)));
    assert_eq!((&rules["challenge_bits"], &rules["phone_regions"]), (&json!(1), &json!(["CN"])));
    assert_eq!(rules["levels"], json!([{ "tier": "vip", "points": 1_000 }, { "tier": "svip", "points": 5_000 }]));

    let chinese =
        |path: &str, form: &Value| with_form(town.nobody("POST", path).header("accept-language", "zh-CN,zh;q=0.9"), form);
    let asked = json!({ "phone": "13812345678", "challenge": town.solved().await });
    let sent = town.reply(chinese("/v1/phone-codes", &asked)).await;
    assert_eq!((sent.status().as_u16(), body(&sent)), (202, json!({ "status": "accepted" })));
    town.deliver().await;
    assert!(town.inbox.last("+8613812345678").rendered.body.contains("验证码"), "the message is in Chinese");

    let form = town.form_with("mara", "13812345678", &town.inbox.code("+8613812345678")).await;
    let registered = town.reply(chinese("/v1/registrations", &form)).await;
    assert_eq!(registered.status(), 202);
    assert_eq!(body(&registered), json!({ "status": "accepted", "message": "如果该邮箱是新的,您将收到一封邮件" }));
    town.deliver().await;
    let mail = town.inbox.last("mara@example.com");
    assert_eq!(mail.language, Language::ZhCn);
    let token = town.inbox.token("mara@example.com");

    let credentials = json!({ "account": "mara", "password": PASSWORD });
    assert_problem(&town.post("/v1/sessions", &credentials).await, 401, "unauthenticated", "before the mail came back");
    let verified = town.reply(chinese("/v1/email-verifications", &json!({ "token": token }))).await;
    assert_eq!((verified.status().as_u16(), &body(&verified)["message"]), (200, &json!("注册成功")));
    assert_problem(&town.post("/v1/email-verifications", &json!({ "token": token })).await, 410, "token_gone", "once");
    town.deliver().await;

    let grant = town.sign_in("mara").await;
    assert_eq!((&grant["token_type"], &grant["expires_in"]), (&json!("Bearer"), &json!(600)));
    assert_eq!(grant["scope"], "catalog:browse order:trade");
    let profile = body(&town.ask(&text(&grant, "access_token"), "GET", "/v1/members/me").await);
    assert_eq!(profile["member"], body(&verified)["member"]);
    for (field, value) in [("username", "mara"), ("phone", "+8613812345678"), ("state", "activated"), ("language", "zh-CN")] {
        assert_eq!(profile[field], value, "{field}");
    }
    assert_eq!((&profile["tier"], &profile["role"], &profile["second_factor"]), (&json!("normal"), &json!(null), &json!(false)));
    // Signing in by phone (R16), and the log record that the pipeline reads.
    assert_eq!(town.sign_in("13812345678").await["member"], profile["member"]);
    let states: Vec<String> = logged(&town.bench.log).await.iter().map(|(_, record)| format!("{record:?}")).collect();
    assert!(states.iter().any(|record| record.contains("Activated")), "{states:?}");
}

#[tokio::test]
async fn v2_2_1_every_field_is_judged() {
    let town = Town::new().await;
    let form = town.form("mara", "13812345678").await;
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("username", json!("a"), "/username", "username_invalid"),
        ("username", json!("a\u{202e}b"), "/username", "username_invalid"),
        ("phone", json!("12812345678"), "/phone", "phone_invalid"),
        ("phone", json!("1' OR 1=1; --"), "/phone", "phone_invalid"),
        ("email", json!("a@b"), "/email", "email_invalid"),
        ("email", json!("a@b.c\r\nBcc: x@y.zz"), "/email", "email_invalid"),
        ("agreement_version", json!("0"), "/agreement_version", "agreement_stale"),
        ("invite_code", json!("NOBODYS1"), "/invite_code", "invite_unknown"),
        ("invite_code", json!("x".repeat(10_000)), "/invite_code", "invite_unknown"),
        ("language", json!("fr"), "/language", "invalid"),
        ("marketing_consent", json!("yes"), "/marketing_consent", "invalid"),
        ("password", json!(12_345_678), "/password", "invalid"),
        ("challenge", json!({ "token": "x" }), "/challenge/nonce", "missing_field"),
        ("challenge", json!({ "token": "x", "nonce": 7 }), "/challenge/nonce", "invalid"),
        ("role", json!("admin"), "/role", "unknown_field"),
    ];
    for (field, value, pointer, code) in cases {
        let context = format!("{field} = {value}");
        let mut bad = with(&form, field, value);
        if field == "invite_code" {
            bad["challenge"] = town.solved().await;
        }
        let problem = assert_problem(&town.post("/v1/registrations", &bad).await, 422, "invalid", &context);
        assert_eq!(fields(&problem), [(pointer.to_owned(), code.to_owned())], "{context}");
        assert!(!problem.to_string().contains("12345678"), "what was sent is not repeated: {problem}");
    }
    let mut several = form.clone();
    (several["username"], several["phone"], several["email"]) = (json!(""), json!(""), json!(""));
    let problem = assert_problem(&town.post("/v1/registrations", &several).await, 422, "invalid", "several");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    for (what, bytes, status, code) in [
        ("no JSON", "{", 400, "malformed_json"),
        ("two values", "{} {}", 400, "malformed_json"),
        ("another value", "[]", 422, "invalid"),
        ("given twice", r#"{"username":"a","username":"b"}"#, 422, "invalid"),
    ] {
        let request = town.nobody("POST", "/v1/registrations").header("content-type", "application/json").body(bytes);
        assert_problem(&town.reply(request).await, status, code, what);
    }
    let large = with(&form, "username", "x".repeat(70_000));
    assert_problem(&town.post("/v1/registrations", &large).await, 413, "payload_too_large", "large");
    assert_eq!(town.post("/v1/registrations", &with(&form, "challenge", town.solved().await)).await.status(), 202);
}

/// V2.2.1: every account form, with invalid input.
#[tokio::test]
async fn v2_2_1_no_form_takes_what_it_does_not_know() {
    let town = Town::of_mara().await;
    let token = town.token("mara").await;
    let forms = crate::routes::endpoint::endpoints().filter(|route| {
        let people = ["/v1/phone-", "/v1/registrations", "/v1/email-", "/v1/password-", "/v1/sessions", "/v1/members/me"];
        let reads = matches!(route.method_name(), "POST" | "PATCH")
            || ["DELETE /v1/members/me", "DELETE /v1/members/me/totp"].contains(&route.name);
        reads && people.iter().any(|start| route.path.starts_with(start))
    });
    let mut seen = 0;
    for route in forms {
        let send = async |body: &str| {
            let request = town.nobody(route.method_name(), route.path).header("authorization", format!("Bearer {token}"));
            let request = request.header("if-match", "*").header("content-type", "application/json; charset=utf-8");
            town.reply(request.body(body)).await
        };
        let problem = assert_problem(&send(r#"{"a~b/c": 1}"#).await, 422, "invalid", route.name);
        assert_eq!(fields(&problem), [("/a~0b~1c".to_owned(), "unknown_field".to_owned())], "{}", route.name);
        for wrong in ["[[[]]]", "[\"text\"]", "null", "7", "\"a text\""] {
            let problem = assert_problem(&send(wrong).await, 422, "invalid", &format!("{} {wrong}", route.name));
            assert!(!problem.to_string().contains("a text"));
        }
        for broken in ["", "{", "{} []", "\u{feff}", "{\"a\": \u{0}}"] {
            assert_problem(&send(broken).await, 400, "malformed_json", &format!("{} {broken:?}", route.name));
        }
        let deep = "[".repeat(60_000);
        assert_problem(&send(&deep).await, 400, "malformed_json", route.name);
        seen += 1;
    }
    assert_eq!(seen, 20);
    assert!(town.works(&token).await);
}

/// V6.2.8, V6.2.9: what is typed is what is checked.
#[tokio::test]
async fn v6_2_8_v6_2_9_no_character_of_a_password_is_cut_off() {
    let town = Town::new().await;
    let form = town.form("mara", "13812345678").await;
    let long: String = "horse staple umbra 71 ".repeat(6).chars().take(128).collect();
    let form = with(&with(&form, "password", &*long), "challenge", town.solved().await);
    assert_eq!(town.post("/v1/registrations", &form).await.status(), 202, "128 characters of letters and spaces");
    town.deliver().await;
    let token = town.inbox.token("mara@example.com");
    assert_eq!(town.post("/v1/email-verifications", &json!({ "token": token })).await.status(), 200);
    let sign_in =
        async |password: &str| town.post("/v1/sessions", &json!({ "account": "mara", "password": password })).await.status();
    assert_eq!(sign_in(&format!("{}x", &long[..127])).await, 401, "no character is cut off");
    assert_eq!(sign_in(&long.to_uppercase()).await, 401);
    assert_eq!(sign_in(&long).await, 201);
}

/// The parts of an answer that a client sees.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status().as_u16(), headers, String::from_utf8_lossy(answer.body()).into_owned())
}

/// V6.3.8: status, headers, body and size do not depend on what is registered.
#[tokio::test]
async fn v6_3_8_nobody_learns_who_is_registered() {
    let town = Town::of_mara().await;
    town.pass(3_600);
    let traced = |path: &str, form: &Value| {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        with_form(town.nobody("POST", path), form).header("traceparent", trace)
    };
    let new = town.form("nora", "13912345678").await;
    let of_new = seen(&town.reply(traced("/v1/registrations", &new)).await);
    assert_eq!(of_new.0, 202);
    let taken = with(&town.form("otto", "13712345678").await, "email", "MARA@example.com");
    assert_eq!(seen(&town.reply(traced("/v1/registrations", &taken)).await), of_new, "the e-mail is mara's");
    town.pass(61);
    let taken = town.form("pia", "13812345678").await;
    assert_eq!(seen(&town.reply(traced("/v1/registrations", &taken)).await), of_new, "the phone is mara's");
    town.deliver().await;
    assert!(town.inbox.last("MARA@example.com").rendered.body.contains("reset-password"), "the owner is told");
    let name =
        assert_problem(&town.post("/v1/registrations", &town.form("MARA", "13612345678").await).await, 409, "username_taken", "");
    assert_eq!(name["detail"], "The username is taken");

    let mut answers = Vec::new();
    for account in ["mara", "nobody", "13812345678", "13512345678", "pia", "a@b.cc", "", "\u{0}"] {
        answers.push(seen(&town.reply(traced("/v1/sessions", &json!({ "account": account, "password": "wrong one" }))).await));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 401), "{answers:?}");
    for (path, field, cases) in [
        ("/v1/password-resets", "account", ["mara", "nobody", "13812345678"]),
        ("/v1/email-verifications/resend", "email", ["mara@example.com", "nobody@example.com", "nora@example.com"]),
    ] {
        let mut answers = Vec::new();
        for case in cases {
            let form = json!({ field: case, "challenge": town.solved().await });
            answers.push(seen(&town.reply(traced(path, &form)).await));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 202), "{path}: {answers:?}");
    }
}

#[tokio::test]
async fn the_mail_of_a_registration_is_sent_again() {
    let town = Town::new().await;
    let form = town.form("mara", "13812345678").await;
    assert_eq!(town.post("/v1/registrations", &form).await.status(), 202);
    town.deliver().await;
    let first = town.inbox.token("mara@example.com");
    let asked = json!({ "email": "mara@example.com", "challenge": town.solved().await });
    assert_eq!(town.post("/v1/email-verifications/resend", &asked).await.status(), 202);
    town.deliver().await;
    let second = town.inbox.token("mara@example.com");
    assert_problem(&town.post("/v1/email-verifications", &json!({ "token": first })).await, 410, "token_gone", "the old link");
    assert_eq!(town.post("/v1/email-verifications", &json!({ "token": second })).await.status(), 200);
}

#[tokio::test]
async fn answers_are_in_the_language_that_was_asked_for() {
    let town = Town::new().await;
    let wrong = json!({ "account": "mara", "password": "wrong one" });
    for (accepted, detail) in [
        ("zh-CN", "用户名或密码错误"),
        ("de,zh;q=0.4,en;q=0.3", "用户名或密码错误"),
        ("en-GB,en;q=0.9", "The account or the password is wrong"),
        ("de", "The account or the password is wrong"),
    ] {
        let answer = town.reply(with_form(town.nobody("POST", "/v1/sessions"), &wrong).header("accept-language", accepted)).await;
        assert_eq!(assert_problem(&answer, 401, "unauthenticated", accepted)["detail"], detail, "{accepted}");
    }
    let form = with(&town.form_with("mara", "1", "0").await, "password", "short");
    let answer = town.reply(with_form(town.nobody("POST", "/v1/registrations"), &form).header("accept-language", "zh")).await;
    let problem = assert_problem(&answer, 422, "invalid", "Chinese");
    assert_eq!((&problem["detail"], &problem["errors"][0]["message"]), (&json!("输入有误"), &json!("手机号码不合法")));
    assert_eq!(problem["errors"][1]["message"], "密码不能为空且长度不能小于8");
}
