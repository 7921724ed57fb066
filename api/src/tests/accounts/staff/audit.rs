//! The audit log: every administrative action with who, what, whose, when, from where and the outcome.

use kindred_log::Rejected;

use super::*;

/// V16.2.1, V16.3.1: every action over HTTP is audited, by staff and by key.
#[tokio::test]
async fn v16_2_1_v16_3_1_each_act_is_noted() {
    let shop = Shop::new().await;
    let (boss, admin) = shop.staff("boss", "admin").await;
    let mara = shop.member("mara").await;
    shop.register(&["olga".to_owned()]).await;
    let olga = body(&shop.get("/v1/admin/members?q=olga").await)["members"][0]["member"].as_str().unwrap().to_owned();
    let rejected = Rejected {
        source: "import:c.csv".to_owned(),
        topic: Topic::Interactions,
        partition: 0,
        offset: 1,
        reason: "no".to_owned(),
        payload: "{}".to_owned(),
    };
    let id = rejected.id();
    shop.bench.log.reject(vec![rejected]).await.unwrap();
    let drop_path =
        format!("/v1/admin/rejected/{}", percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC));
    let at = |member: &str, act: &str| format!("/v1/admin/members/{member}/{act}");

    let made = shop.send(&admin, "POST", "/v1/admin/keys", json!({"kind": "service", "name": "till"})).await;
    let key = body(&made)["id"].as_str().unwrap().to_owned();
    // (method, path, body, kind, subject, detail)
    let acts = [
        ("PUT", at(&mara, "tier"), json!({"tier": "vip"}), "tier.change", mara.as_str(), json!({"to": "vip"})),
        ("PUT", at(&mara, "role"), json!({"role": "support"}), "role.change", &mara, json!({"from": "", "to": "support"})),
        ("POST", at(&mara, "suspend"), json!({"reason": "a\nb"}), "member.suspend", &mara, json!({"reason": "a\u{fffd}b"})),
        ("POST", at(&mara, "activate"), json!({"reason": "c"}), "member.activate", &mara, json!({"reason": "c"})),
        ("DELETE", at(&mara, "sessions"), json!(null), "session.end_all", &mara, json!({})),
        ("POST", at(&olga, "resend-verification"), json!(null), "verification.resend", &olga, json!({})),
        (
            "PUT",
            "/v1/admin/roles/desk".to_owned(),
            json!({"permissions": ["member:read"]}),
            "role.put",
            "desk",
            json!({"permissions": "member:read"}),
        ),
        ("POST", "/v1/admin/setup-tokens".to_owned(), json!({"role": "desk"}), "setup_token.create", "desk", json!({})),
        ("POST", "/v1/admin/signing-keys/rotate".to_owned(), json!(null), "signing_key.rotate", "", json!({})),
        ("POST", "/v1/admin/verify?repair=true".to_owned(), json!(null), "views.verify", "", json!({"repair": "true"})),
        ("GET", "/v1/admin/export/points".to_owned(), json!(null), "view.export", "points", json!({})),
        ("POST", "/v1/admin/rejected/retry".to_owned(), json!({"ids": [id]}), "rejected.retry", "", json!({"records": "1"})),
        ("DELETE", drop_path, json!(null), "rejected.drop", &id, json!({})),
        ("DELETE", format!("/v1/admin/keys/{key}"), json!(null), "key.revoke", &key, json!({})),
    ];
    for (method, path, json, kind, subject, detail) in &acts {
        shop.bench.clock.advance(Duration::from_secs(1));
        let mut request = shop.request(&admin, method, path);
        if path.starts_with("/v1/admin/roles") {
            request = request.header("if-none-match", "*");
        } else if method == &"PUT" {
            request = request.header("if-match", "*");
        }
        if !json.is_null() {
            request = request.json(json);
        }
        let answer = request.reply(&shop.bench.public).await;
        assert!(answer.status().is_success(), "{method} {path}: {:?}", answer.body());
        let now = shop.bench.clock.now().to_string();
        shop.deliver().await;
        let found = shop.audited(&format!("&actor={boss}&kind={kind}")).await;
        let [entry] = &found[..] else { panic!("{kind}: {found:?}") };
        let mut detail = detail.clone();
        if kind == &"setup_token.create" {
            // The id for revoking it.
            assert!(entry["detail"]["id"].as_str().is_some_and(|id| id.len() > 8), "{entry}");
            detail["id"] = entry["detail"]["id"].clone();
        }
        let expected = json!({
            "id": entry["id"], "at": now, "actor": boss, "kind": kind, "subject": subject, "address": ADDRESS, "ok": true,
            "detail": detail,
        });
        assert_eq!(*entry, expected);
    }
    let made = &shop.audited("&kind=key").await[1];
    assert_eq!((&made["kind"], &made["subject"]), (&json!("key.create"), &json!(key)));
    assert_eq!(made["detail"], json!({"kind": "service", "name": "till"}));

    let made = shop.send(&admin, "POST", "/v1/admin/keys", json!({"kind": "service", "name": "till"})).await;
    let key = body(&made)["id"].as_str().unwrap().to_owned();
    let rotate = async |key: &str| {
        let path = format!("/v1/admin/keys/{key}/rotate");
        shop.send(&admin, "POST", &path, json!({"overlap_seconds": 60})).await
    };
    let rotated = body(&rotate(&key).await);
    let found = shop.audited("&kind=key.rotate").await;
    let [entry] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&entry["actor"], &entry["subject"], &entry["ok"]), (&json!(boss), &json!(key), &json!(true)));
    assert_eq!(entry["detail"], json!({"replaced_by": rotated["id"], "overlap_seconds": "60"}));
    for (key, code) in [(key.as_str(), "refused"), ("000000000000", "not_found")] {
        assert_eq!(body(&rotate(key).await)["code"], code);
        let found = shop.audited(&format!("&kind=key.rotate&subject={key}")).await;
        let failed = found.iter().find(|entry| entry["ok"] == false).unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!(failed["detail"]["code"], code);
    }

    // A failed action has an entry for begun and one for failed.
    assert_problem(&shop.ask(&shop.bench.service, "POST", "/v1/admin/generations/g2/promote").await, 404, "not_found", "no g2");
    shop.bench.process.busy.store(true, Ordering::Relaxed);
    assert_problem(&shop.ask(&shop.bench.service, "POST", "/v1/admin/verify").await, 409, "conflict", "busy");
    for (kind, code) in [("generation.promote", "not_found"), ("views.verify", "conflict")] {
        let found = shop.audited(&format!("&kind={kind}")).await;
        let failed = found.iter().find(|entry| entry["ok"] == false).unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!(failed["detail"]["code"], code);
        assert!(failed["actor"].as_str().unwrap().starts_with("key:"), "a service key is named by its id");
    }
    // Anybody may search for actions on a member.
    let about: Vec<Value> = shop.audited(&format!("&subject={mara}&kind=member")).await;
    assert_eq!(about.len(), 2);
    let read = shop.ask(&shop.bench.publishable, "GET", "/v1/admin/audit").await;
    assert_problem(&read, 403, "insufficient_scope", "a page");
}

/// V16.3.2: staff's reads of personal data are audited, with reader and member, without the data; reads by members of their own
/// data, and by the shop's programs, are not.
#[tokio::test]
async fn v16_3_2_what_staff_reads_of_persons_is_noted() {
    let shop = Shop::new().await;
    let (clerk, desk) = shop.staff("clerk", "support").await;
    let mara = shop.member("mara").await;
    let own = shop.token("mara").await;
    for what in ["points", "history", "orders"] {
        assert_eq!(shop.ask(&own, "GET", &format!("/v1/members/{mara}/{what}")).await.status(), 200);
        assert_eq!(shop.ask(&shop.bench.service, "GET", &format!("/v1/members/{mara}/{what}")).await.status(), 200);
    }
    assert_eq!(shop.ask(&shop.bench.service, "GET", "/v1/admin/members?q=mara").await.status(), 200);
    assert_eq!(shop.audited("&kind=member.read").await, [] as [Value; 0]);
    let reads = [
        ("points", format!("/v1/members/{mara}/points"), mara.as_str()),
        ("history", format!("/v1/members/{mara}/history"), &mara),
        ("orders", format!("/v1/members/{mara}/orders"), &mara),
        ("search", "/v1/admin/members?q=mara".to_owned(), ""),
        ("profile", format!("/v1/admin/members/{mara}"), &mara),
        ("sessions", format!("/v1/admin/members/{mara}/sessions"), &mara),
        ("rejected", "/v1/admin/rejected".to_owned(), ""),
    ];
    for (what, path, subject) in reads {
        shop.bench.clock.advance(Duration::from_secs(1));
        assert_eq!(shop.ask(&desk, "GET", &path).await.status(), 200, "{path}");
        let entry = &shop.audited("&kind=member.read").await[0];
        assert_eq!((&entry["actor"], &entry["subject"]), (&json!(clerk), &json!(subject)), "{path}");
        assert_eq!(entry["detail"], json!({ "what": what }));
    }
}

/// V16.4.1: no text adds a line or a control character to an entry.
#[tokio::test]
async fn v16_4_1_an_entry_stays_one_line() {
    let shop = Shop::new().await;
    let service = shop.bench.service.clone();
    for path in ["/v1/admin/keys/a%0D%0Ab%1B%5B31m", "/v1/admin/rejected/a%0Ab%E2%80%AEc", "/v1/admin/generations/a%0Ab"] {
        shop.ask(&service, "DELETE", path).await;
    }
    let member = shop.member("mara").await;
    let reason = json!({"reason": "line one\nlevel=error forged\u{7}\u{202e}"});
    assert_eq!(shop.send(&service, "POST", &format!("/v1/admin/members/{member}/suspend"), reason).await.status(), 204);
    shop.deliver().await;
    let answer = shop.get("/v1/admin/audit?limit=200&from=2026-01-05").await;
    let entries = body(&answer)["entries"].as_array().unwrap().clone();
    assert!(entries.len() >= 6, "{entries:?}");
    for entry in entries {
        let mut texts: Vec<&str> =
            ["actor", "kind", "subject", "address"].iter().map(|field| entry[field].as_str().unwrap()).collect();
        texts.extend(entry["detail"].as_object().unwrap().values().map(|value| value.as_str().unwrap()));
        assert!(texts.iter().all(|text| !text.chars().any(char::is_control)), "{entry}");
    }
}

/// Pages have every entry once, across days.
#[tokio::test]
async fn v16_2_1_the_audit_log_is_read_in_pages() {
    let shop = Shop::new().await;
    for n in 0..12 {
        assert_eq!(shop.put_role(&shop.bench.service, &format!("r{n}"), json!([])).await.status(), 204);
        shop.bench.clock.advance(Duration::from_secs(40_000));
    }
    let whole = shop.audited("&kind=role.put").await;
    assert_eq!(whole.len(), 12);
    let mut paged = Vec::new();
    let get = async |path: &str| shop.get(path).await;
    let page = async |page: &Answer| paged.extend(body(page)["entries"].as_array().unwrap().clone());
    pages("/v1/admin/audit?from=2026-01-05&limit=5&kind=role", get, page).await;
    assert_eq!(paged, whole);
    assert_eq!(shop.audited("&to=2026-01-05").await.iter().filter(|entry| entry["kind"] == "role.put").count(), 2);
    let read = shop.get("/v1/admin/audit?kind=role.put").await;
    assert!(body(&read)["entries"].as_array().unwrap().len() <= 3, "today's alone");
}
