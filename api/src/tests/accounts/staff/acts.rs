//! Administrative actions on members: state, role, tier, sessions, erasure; races between two of them.

use kindred_members::MemberError;

use super::*;

const ME: &str = "/v1/members/me/sessions";

/// V7.4.2, V7.4.1: a suspended member's access token is refused here at once, and in other processes within a second.
#[tokio::test]
async fn v7_4_2_suspension_ends_access_within_a_second() {
    let shop = Shop::new().await;
    let member = shop.member("mara").await;
    let token = shop.token("mara").await;
    let (other, elsewhere) = shop.another().await;
    let running = tokio::spawn(async move { other.run().await });
    let at_other = async || shop.request(&token, "GET", ME).reply(&elsewhere).await.status().as_u16();
    assert_eq!((shop.ask(&token, "GET", ME).await.status().as_u16(), at_other().await), (200, 200));
    let path = format!("/v1/admin/members/{member}/suspend");
    let suspended = shop.send(&shop.bench.service, "POST", &path, json!({"reason": "chargebacks"})).await;
    assert_eq!(suspended.status(), 204);
    assert_problem(&shop.ask(&token, "GET", ME).await, 401, "unauthorized", "at once");
    let begun = std::time::Instant::now();
    while at_other().await != 401 {
        assert!(begun.elapsed() < Duration::from_secs(1), "it is still taken elsewhere");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    assert_problem(&shop.post(FORM, &credentials(false)).await, 401, "unauthenticated", "it is not told why");
    assert_eq!(body(&shop.get(&format!("/v1/admin/members/{member}")).await)["state"], "suspended");

    assert_problem(&shop.send(&shop.bench.service, "POST", &path, json!({"reason": "again"})).await, 409, "refused", "twice");
    let path = format!("/v1/admin/members/{member}/activate");
    assert_eq!(shop.send(&shop.bench.service, "POST", &path, json!({"reason": "paid"})).await.status(), 204);
    assert_problem(&shop.ask(&token, "GET", ME).await, 401, "unauthorized", "the session is over all the same");
    let token = shop.token("mara").await;
    assert_eq!(shop.ask(&token, "GET", ME).await.status(), 200);
    for bad in
        [json!({}), json!({"reason": ""}), json!({"reason": " \n"}), json!({"reason": "x".repeat(501)}), json!({"why": "x"})]
    {
        let answer = shop.send(&shop.bench.service, "POST", &path, bad.clone()).await;
        assert_eq!(answer.status(), 422, "{bad}: {:?}", answer.body());
        assert!(body(&answer)["errors"][0]["pointer"].as_str().is_some_and(|pointer| pointer.len() > 1), "{bad}");
    }
}

/// V7.4.5: staff ends all sessions of a member.
#[tokio::test]
async fn v7_4_5_staff_ends_the_sessions_of_any_member() {
    let shop = Shop::new().await;
    let member = shop.member("mara").await;
    let (_, admin) = shop.staff("nora", "admin").await;
    let tokens = [shop.token("mara").await, shop.token("mara").await];
    let path = format!("/v1/admin/members/{member}/sessions");
    assert_eq!(body(&shop.ask(&admin, "GET", &path).await)["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(shop.ask(&admin, "DELETE", &path).await.status(), 204);
    for token in &tokens {
        assert_problem(&shop.ask(token, "GET", ME).await, 401, "unauthorized", "an ended session");
    }
    assert_eq!(body(&shop.ask(&admin, "GET", &path).await), json!({"sessions": []}));
    assert_eq!(shop.ask(&admin, "DELETE", &path).await.status(), 204, "none are none again");
    assert_eq!(shop.ask(&admin, "GET", ME).await.status(), 200, "the own session goes on");
}

/// Of concurrent changes to the same version one succeeds; the others get a conflict. V15.3.3: unknown fields change nothing.
#[tokio::test]
async fn v15_3_3_if_match_lets_one_of_many_change_a_member() {
    let shop = Shop::new().await;
    let member = shop.member("mara").await;
    let (tier, role) = (format!("/v1/admin/members/{member}/tier"), format!("/v1/admin/members/{member}/role"));
    let etag = async || header(&shop.get(&format!("/v1/admin/members/{member}")).await, "etag").to_owned();
    let put = async |path: &str, tag: &str, json: Value| {
        let request = shop.request(&shop.bench.service, "PUT", path).header("if-match", tag).json(&json);
        request.reply(&shop.bench.public).await
    };
    for (path, json) in [(&tier, json!({"tier": "vip"})), (&role, json!({"role": "support"}))] {
        assert_problem(&shop.send(&shop.bench.service, "PUT", path, json.clone()).await, 428, "precondition_required", path);
        let read = etag().await;
        let racers = (0..16).map(|_| put(path, &read, json.clone()));
        let mut statuses: Vec<u16> =
            futures_util::future::join_all(racers).await.iter().map(|answer| answer.status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![204], vec![412; 15]].concat(), "{path}");
        assert_problem(&put(path, &read, json.clone()).await, 412, "changed", "as it was read before");
        assert_problem(&put(path, &format!("W/{}", etag().await), json.clone()).await, 412, "changed", "a weak validator");
        assert_problem(&put(path, "nonsense", json.clone()).await, 400, "malformed_request", "no validator");
        assert_eq!(put(path, "*", json).await.status(), 204);
    }
    let shown = body(&shop.get(&format!("/v1/admin/members/{member}")).await);
    assert_eq!((&shown["tier"], &shown["role"]), (&json!("vip"), &json!("support")));
    assert_eq!(put(&role, "*", json!({"role": null})).await.status(), 204);
    assert_eq!(body(&shop.get(&format!("/v1/admin/members/{member}")).await)["role"], json!(null));
    let read = etag().await;
    assert_eq!(put(&tier, &read, json!({"tier": "svip"})).await.status(), 204);
    let stale =
        shop.request(&shop.bench.service, "POST", &format!("/v1/admin/members/{member}/suspend")).header("if-match", &read);
    let stale = stale.json(&json!({"reason": "x"})).reply(&shop.bench.public).await;
    assert_problem(&stale, 412, "changed", "a suspension may name a version, too");
    for (path, bad, status) in [
        (&tier, json!({"tier": "gold"}), 422),
        (&tier, json!({"tier": "vip", "role": "admin"}), 422),
        (&tier, json!({}), 422),
        (&role, json!({"role": "nothing"}), 422),
        (&role, json!({}), 422),
    ] {
        assert_eq!(put(path, "*", bad.clone()).await.status(), status, "{path} {bad}");
    }
    assert_problem(&put("/v1/admin/members/nobody/tier", "*", json!({"tier": "vip"})).await, 404, "not_found", "nobody");
}

/// The verification mail is sent again; the old link is invalid.
#[tokio::test]
async fn a_verification_is_sent_again() {
    let shop = Shop::new().await;
    shop.register(&["olga".to_owned()]).await;
    let found = body(&shop.get("/v1/admin/members?q=olga").await);
    let member = found["members"][0]["member"].as_str().unwrap().to_owned();
    let path = format!("/v1/admin/members/{member}/resend-verification");
    let link = |mail: String| mail.split_once('#').unwrap().1.split_whitespace().next().unwrap().to_owned();
    let first = link(shop.inbox.last("olga@example.com").rendered.body);
    assert_eq!(shop.ask(&shop.bench.service, "POST", &path).await.status(), 202);
    shop.deliver().await;
    assert_eq!(shop.inbox.sent("olga@example.com"), 2);
    assert_eq!(shop.members.registrations.verify_email(&first, ADDRESS).await, Err(MemberError::TokenGone));
    let second = link(shop.inbox.last("olga@example.com").rendered.body);
    assert_eq!(shop.members.registrations.verify_email(&second, ADDRESS).await, Ok(member));
    shop.deliver().await;
    assert_problem(&shop.ask(&shop.bench.service, "POST", &path).await, 409, "refused", "verified already");
}

/// V7.4.2: one erasure removes the account and the events, and is idempotent; unknown members can be erased too.
#[tokio::test]
async fn v7_4_2_an_erasure_takes_account_sessions_and_views() {
    let shop = Shop::new().await;
    let following = shop.bench.follow_members();
    let member = shop.member("mara").await;
    let token = shop.token("mara").await;
    let (_, admin) = shop.staff("nora", "admin").await;
    let path = format!("/v1/members/{member}");
    let first = shop.ask(&admin, "DELETE", &path).await;
    assert_eq!(first.status(), 200, "{:?}", first.body());
    let receipt = body(&first);
    assert_eq!((&receipt["member"], &receipt["erased"], &receipt["durable"]), (&json!(member), &json!(true), &json!(true)));
    assert!(receipt["account"]["erased_at"].is_string() && receipt["account"]["audit_until"].is_string(), "{receipt}");
    assert_problem(&shop.ask(&token, "GET", ME).await, 401, "unauthorized", "erased");
    assert_problem(&shop.get(&format!("/v1/admin/members/{member}")).await, 404, "not_found", "erased");
    shop.deliver().await;
    assert_eq!(body(&shop.get("/v1/admin/members?q=mara").await)["members"], json!([]));
    let last = logged(&shop.bench.log).await.into_iter().rev().find_map(|(_, record)| {
        let text = String::from_utf8(record.to_json()).unwrap();
        text.contains(&member).then_some(text)
    });
    assert!(last.unwrap().contains(r#""state":"erased""#));
    shop.bench.clock.advance(Duration::from_secs(86_400));
    let again = body(&shop.ask(&shop.bench.service, "DELETE", &path).await);
    assert_eq!((&again["views_erased_at"], &again["account"]), (&receipt["views_erased_at"], &receipt["account"]));
    let stranger = body(&shop.ask(&shop.bench.service, "DELETE", "/v1/members/stranger").await);
    assert_eq!((&stranger["erased"], &stranger["account"]), (&json!(true), &json!(null)));
    assert_eq!(shop.audited("&kind=member.erase").await.len(), 2, "each once: mara, and the stranger");
    shop.bench.stop.send_replace(true);
    following.await.unwrap();
}
