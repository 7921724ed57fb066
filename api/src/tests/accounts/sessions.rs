//! Signing in and out.

use super::*;

const OWN: &str = "/v1/members/me/sessions";

/// V6.1.1: who has to wait is told how long, and a known browser does not, by its mark or by its cookie.
#[tokio::test]
async fn v6_1_1_a_known_browser_does_not_wait_for_guessers() {
    let town = Town::of_mara().await;
    let device = text(&town.sign_in("mara").await, "device");
    let (_, sent) = with_cookies(&town).await;
    let guess = with(&credentials(false), "password", "a guess");
    for _ in 0..6 {
        town.reply(with_form(town.from("203.0.113.66", "POST", FORM), &guess)).await;
    }
    let refused = town.reply(with_form(town.from("198.51.100.20", "POST", FORM), &credentials(false))).await;
    let problem = assert_problem(&refused, 429, "throttled", "an unknown browser");
    assert_eq!(problem["retry_after"].to_string(), header(&refused, "retry-after"));
    let by_mark = with(&credentials(false), "device", device);
    assert_eq!(town.reply(with_form(town.from("198.51.100.20", "POST", FORM), &by_mark)).await.status(), 201);
    let by_cookie = own_page(town.from("198.51.100.21", "POST", FORM)).header("cookie", &sent);
    assert_eq!(town.reply(with_form(by_cookie, &credentials(true))).await.status(), 201);
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
