//! Signing in and out.

use super::*;

const OWN: &str = "/v1/members/me/sessions";

/// V6.1.1: guessing from elsewhere does not lock the owner out of a known browser, by body or by cookie. V6.3.1: and has to wait
/// longer with every try.
#[tokio::test]
async fn v6_1_1_v6_3_1_guessing_is_slow_and_locks_nobody_out() {
    let town = Town::of_mara().await;
    let device = text(&town.sign_in("mara").await, "device");
    let (_, sent) = with_cookies(&town).await;
    let guess = async |n: usize| {
        let form = json!({ "account": "mara", "password": format!("guess number {n}") });
        town.reply(with_form(town.from("203.0.113.66", "POST", FORM), &form)).await
    };
    let mut limited = 0;
    for n in 0..50 {
        let answer = guess(n).await;
        match answer.status().as_u16() {
            401 => assert!(limited == 0 && n < 5),
            429 => limited += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(limited, 45);
    let refused = guess(50).await;
    let problem = assert_problem(&refused, 429, "throttled", "the 51st");
    assert_eq!(problem["retry_after"].to_string(), header(&refused, "retry-after"));
    let elsewhere = with_form(town.from("198.51.100.20", "POST", FORM), &credentials(false));
    assert_problem(&town.reply(elsewhere).await, 429, "throttled", "an unknown browser at an unknown address waits as well");
    let by_mark = with(&credentials(false), "device", device);
    assert_eq!(town.reply(with_form(town.from("198.51.100.20", "POST", FORM), &by_mark)).await.status(), 201);
    let by_cookie = own_page(town.from("198.51.100.21", "POST", FORM)).header("cookie", &sent);
    assert_eq!(town.reply(with_form(by_cookie, &credentials(true))).await.status(), 201);
    assert_eq!(town.post(FORM, &credentials(false)).await.status(), 201, "from where she was before");
}

/// V7.2.3, V7.2.4: 256 random bits, new at every sign-in and refresh.
#[tokio::test]
async fn v7_2_3_v7_2_4_tokens_are_random_and_new() {
    let town = Town::of_mara().await;
    let mut seen = std::collections::HashSet::new();
    let mut refresh = String::new();
    let mut secrets: Vec<String> = Vec::new();
    for _ in 0..32 {
        let grant = town.sign_in("mara").await;
        refresh = text(&grant, "refresh_token");
        let secret = refresh.split('.').nth(2).unwrap().to_owned();
        assert_eq!(secret.len(), 43, "32 bytes of base64url");
        secrets.push(secret.clone());
        assert!(seen.insert(secret) && seen.insert(text(&grant, "session")) && seen.insert(text(&grant, "access_token")));
    }
    // A counter would be unique too: of random bits about half are set, at every place.
    use base64::Engine;
    let decode = |text: &String| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let bytes: Vec<Vec<u8>> = secrets.iter().map(decode).collect();
    for place in 0..256 {
        let set = bytes.iter().filter(|bytes| bytes[place / 8] >> (place % 8) & 1 == 1).count();
        assert!((1..32).contains(&set), "bit {place} is {set} of 32 times set");
    }
    let set: u32 = bytes.iter().flatten().map(|byte| byte.count_ones()).sum();
    assert!((3_700..4_500).contains(&set), "{set} of 8192 bits are set");
    let next = body(&town.refresh(&refresh).await);
    assert!(seen.insert(text(&next, "refresh_token").split('.').nth(2).unwrap().to_owned()));
    town.pass(30);
    assert_problem(&town.refresh(&refresh).await, 401, "unauthenticated", "the old one is dead");
    // Signing in again in a browser ends its previous session.
    let (before, sent) = with_cookies(&town).await;
    let again = own_page(town.nobody("POST", FORM)).header("cookie", &sent);
    let again = town.reply(with_form(again, &credentials(true))).await;
    assert!(again.status() == 201 && cookies(&again)[0].1.len() > 43);
    assert!(!town.works(&text(&before, "access_token")).await);
    assert!(town.works(&text(&body(&again), "access_token")).await);
}

/// V7.3.1, V7.3.2: 30 days without use, 90 days in all.
#[tokio::test]
async fn v7_3_1_v7_3_2_sessions_end_by_themselves() {
    let town = Town::of_mara().await;
    let idle = text(&town.sign_in("mara").await, "refresh_token");
    let mut used = text(&town.sign_in("mara").await, "refresh_token");
    for _ in 0..4 {
        town.pass(20 * 86_400);
        let answer = town.refresh(&used).await;
        assert_eq!(answer.status(), 200);
        used = text(&body(&answer), "refresh_token");
    }
    assert_problem(&town.refresh(&idle).await, 401, "unauthenticated", "idle");
    town.pass(11 * 86_400);
    assert_problem(&town.refresh(&used).await, 401, "unauthenticated", "ninety days");
}

/// V7.4.1: signing out, V7.4.2: suspending, and V7.4.5: an administrator end issued tokens.
#[tokio::test]
async fn v7_4_1_v7_4_2_v7_4_5_ended_sessions_take_their_access_tokens_along() {
    let town = Town::of_mara().await;
    let (one, other) = (town.sign_in("mara").await, town.token("mara").await);
    let token = text(&one, "access_token");
    assert_eq!(town.ask(&token, "DELETE", CURRENT).await.status(), 204);
    assert_problem(&town.ask(&token, "GET", "/v1/members/me").await, 401, "unauthorized", "signed out");
    assert_problem(&town.refresh(&text(&one, "refresh_token")).await, 401, "unauthenticated", "signed out");
    assert!(town.works(&other).await, "the other session goes on");
    let operator = kindred_members::Actor::operator("test");
    let member = text(&one, "member");
    town.people.suspend(&operator, &member, None, "test").await.unwrap();
    assert_problem(&town.ask(&other, "GET", "/v1/members/me").await, 401, "unauthorized", "suspended");
    assert_problem(&town.post(FORM, &credentials(false)).await, 401, "unauthenticated", "it is not told why");
    town.people.activate(&operator, &member, None, "test").await.unwrap();
    let token = town.token("mara").await;
    town.people.end_member_sessions(&operator, &member).await.unwrap();
    assert!(!town.works(&token).await);
}

/// V7.4.1 across processes: within a second.
#[tokio::test]
async fn v7_4_1_another_process_hears_of_it_within_a_second() {
    let town = Town::of_mara().await;
    let config = town.people.config().clone();
    let sink = Arc::new(LogEventSink(town.bench.log.clone()));
    let other = People::open_weak_for_tests(town.records.clone(), town.bench.clock.clone(), config, sink, town.inbox.clone());
    let other = Arc::new(other.await.unwrap());
    let running = tokio::spawn({
        let other = other.clone();
        async move { other.run().await }
    });
    let token = town.token("mara").await;
    assert!(other.authenticate(&token).is_ok());
    assert_eq!(town.ask(&token, "DELETE", CURRENT).await.status(), 204);
    let begun = std::time::Instant::now();
    while other.authenticate(&token).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(1), "it still takes the token");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.abort();
}

/// V7.5.2, V7.4.3: a member's own sessions, listed and ended.
#[tokio::test]
async fn v7_5_2_v7_4_3_own_sessions() {
    let town = Town::of_mara().await;
    town.member("nora", "13912345678").await;
    let (one, two, three) = (town.sign_in("mara").await, town.token("mara").await, town.token("mara").await);
    let nora = town.sign_in("nora").await;
    let listed = body(&town.ask(&two, "GET", OWN).await);
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions.iter().filter(|session| session["current"] == true).count(), 1);
    assert!(sessions.iter().all(|session| session["label"] == "Firefox" && session["address"] == "192.0.2.7"));
    for (other, what) in [(text(&nora, "session"), "another's"), ("x".repeat(10_000), "long"), ("%00".into(), "a control")] {
        assert_problem(&town.ask(&two, "DELETE", &format!("{OWN}/{other}")).await, 404, "not_found", what);
    }
    assert!(town.works(&text(&nora, "access_token")).await);
    assert_eq!(town.ask(&two, "DELETE", &format!("{OWN}/{}", text(&one, "session"))).await.status(), 204);
    assert!(!town.works(&text(&one, "access_token")).await);
    assert_eq!(town.ask(&two, "DELETE", &format!("{OWN}?keep_current=true")).await.status(), 204);
    assert!(town.works(&two).await && !town.works(&three).await);
    assert_eq!(town.ask(&two, "DELETE", OWN).await.status(), 204);
    assert!(!town.works(&two).await);
    assert!(town.works(&text(&nora, "access_token")).await, "others are not touched");
}

/// V10.4.5: reuse of a refresh token ends the session, the newest token included, and is audited.
#[tokio::test]
async fn v10_4_5_a_refresh_token_used_twice_ends_the_session() {
    let town = Town::of_mara().await;
    let grant = town.sign_in("mara").await;
    let next = body(&town.refresh(&text(&grant, "refresh_token")).await);
    // The same device may retry after a lost answer.
    let again = body(&town.refresh(&text(&grant, "refresh_token")).await);
    assert_eq!(text(&again, "refresh_token"), text(&next, "refresh_token"));
    assert!(town.works(&text(&again, "access_token")).await && town.works(&text(&next, "access_token")).await);
    let thief = town.from("198.51.100.1", "POST", REFRESH);
    let stolen = town.reply(with_form(thief, &json!({ "refresh_token": text(&grant, "refresh_token") }))).await;
    assert_problem(&stolen, 401, "unauthenticated", "stolen");
    assert_problem(&town.refresh(&text(&next, "refresh_token")).await, 401, "unauthenticated", "the family has ended");
    assert!(!town.works(&text(&next, "access_token")).await);
    town.deliver().await;
    let query = kindred_members::AuditQuery { subject: Some(text(&grant, "member")), limit: Some(200), ..Default::default() };
    let found = town.people.search_audit(&kindred_members::Actor::operator("test"), &query).await.unwrap();
    assert!(found.items.iter().any(|entry| entry.kind == "token.reuse"), "{:?}", found.items);
    // An invalid one ends nothing.
    let grant = town.sign_in("mara").await;
    let mut forged: Vec<String> = text(&grant, "refresh_token").split('.').map(str::to_owned).collect();
    forged[2] = "A".repeat(43);
    assert_problem(&town.refresh(&forged.join(".")).await, 401, "unauthenticated", "forged");
    assert!(town.works(&text(&grant, "access_token")).await);
}

/// 64 requests at once with one refresh token, from one device: all get the same valid successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v10_4_5_64_refreshes_give_one_successor() {
    let town = Arc::new(Town::of_mara().await);
    let grant = town.sign_in("mara").await;
    let token = text(&grant, "refresh_token");
    let race = (0..64).map(|_| {
        let (town, token) = (town.clone(), token.clone());
        tokio::spawn(async move { town.refresh(&token).await })
    });
    let mut next = BTreeSet::new();
    for answer in futures_util::future::join_all(race).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        next.insert(text(&body(&answer), "refresh_token"));
    }
    assert_eq!(next.len(), 1);
    assert_eq!(town.refresh(next.first().unwrap()).await.status(), 200);
}

/// The browsing of a session becomes the member's.
#[tokio::test]
async fn signing_in_links_the_session_of_the_browser() {
    let town = Town::of_mara().await;
    let form = with(&credentials(false), "session", "browser-1");
    assert_eq!(town.post(FORM, &form).await.status(), 201);
    town.deliver().await;
    let linked = logged(&town.bench.log).await.into_iter().any(
        |(_, record)| matches!(&record, Record::Member(MemberRecord::Session { session, .. }) if session.as_str() == "browser-1"),
    );
    assert!(linked);
    // Signing in and out each begin a new browsing session; the one of signing in is the member's.
    let in_again = town.post(FORM, &with(&credentials(false), "session", "browser-2")).await;
    let begun = text(&body(&in_again), "browsing_session");
    assert_eq!(in_again.headers()["kindred-session"], begun.as_str());
    town.deliver().await;
    let of_mara = logged(&town.bench.log)
        .await
        .into_iter()
        .any(|(_, record)| matches!(&record, Record::Member(MemberRecord::Session { session, .. }) if session.as_str() == begun));
    assert!(of_mara);
    let token = text(&body(&in_again), "access_token");
    let out = town.ask(&token, "DELETE", CURRENT).await;
    assert_eq!(out.status(), 204);
    let nobodys = out.headers()["kindred-session"].to_str().unwrap().to_owned();
    assert!(!["browser-1", "browser-2", begun.as_str()].contains(&nobodys.as_str()));
    let everywhere = town.ask(&town.token("mara").await, "DELETE", OWN).await;
    assert!(everywhere.headers().contains_key("kindred-session"));
    let problem = assert_problem(&town.post(FORM, &with(&credentials(false), "session", "")).await, 422, "invalid", "no session");
    assert_eq!(problem["errors"][0]["pointer"], "/session");
}

/// On a shared computer the next person to sign in does not inherit the previous one's browsing. Issue 12: they did.
#[tokio::test]
async fn a_browsing_session_that_is_somebodys_is_not_linked_to_another() {
    let town = Town::of_mara().await;
    town.member("nora", "13912345678").await;
    let following = town.bench.follow_members();
    let sign_in = async |name: &str, session: &str| {
        let form = json!({ "account": name, "password": PASSWORD, "session": session });
        let grant = body(&town.post(FORM, &form).await);
        town.deliver().await;
        let end = town.bench.log.end().await.unwrap();
        assert!(town.bench.api.live().memory.reached(&end, Duration::from_secs(20)).await);
        grant
    };
    let mara = sign_in("mara", "browser-1").await;
    let nora = sign_in("nora", "browser-1").await;
    // Nor does the session begun by mara's sign-in become nora's.
    sign_in("nora", &text(&mara, "browsing_session")).await;
    let links: Vec<(String, String)> = logged(&town.bench.log)
        .await
        .into_iter()
        .filter_map(|(_, record)| match record {
            Record::Member(MemberRecord::Session { session, merged_into, .. }) => {
                Some((session.to_string(), merged_into.to_string()))
            }
            _ => None,
        })
        .collect();
    let owners = |session: &str| links.iter().filter(|(of, _)| of == session).map(|(_, to)| to.clone()).collect::<Vec<_>>();
    assert_eq!(owners("browser-1"), [text(&mara, "member")]);
    assert_eq!(owners(&text(&mara, "browsing_session")), [text(&mara, "member")]);
    assert_eq!(owners(&text(&nora, "browsing_session")), [text(&nora, "member")]);
    following.abort();
}
