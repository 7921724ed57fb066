//! `Idempotency-Key`: a repeated request is executed once. With the records of the embedded store; the races between processes
//! are in `api/members/tests/it/races.rs`, on both stores.

use super::*;

const KEYS: &str = "/v1/admin/keys";
const KEY: &str = "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46";

impl Town {
    /// Creates a service key, as the shop's server, under an `Idempotency-Key`.
    async fn make_key(&self, key: &str, name: &str) -> Answer {
        let request = self.bench.request(Method::POST, KEYS).header("idempotency-key", key);
        self.reply(with_form(request, &json!({ "kind": "service", "name": name }))).await
    }

    /// The names of the keys there are.
    async fn key_names(&self) -> Vec<String> {
        let listed = body(&self.bench.get(KEYS).await);
        let names = listed["keys"].as_array().unwrap().iter().map(|key| text(key, "name"));
        let mut names: Vec<String> = names.filter(|name| name.starts_with('n')).collect();
        names.sort_unstable();
        names
    }
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers().contains_key("idempotency-replayed")
}

/// If it failed, a retry after a lost answer would be executed twice.
#[tokio::test]
async fn what_is_asked_for_again_is_done_once_and_answered_as_it_was() {
    let town = Town::new().await;
    let first = town.make_key(KEY, "n1").await;
    assert_eq!(first.status(), 201, "{:?}", body(&first));
    assert!(!is_replayed(&first));
    // Quoted is the same key.
    for key in [KEY, &format!("\"{KEY}\"")] {
        let again = town.make_key(key, "n1").await;
        assert_eq!((again.status(), again.body()), (first.status(), first.body()));
        assert_eq!(header(&again, "idempotency-replayed"), "true");
        assert_eq!(header(&again, "content-type"), header(&first, "content-type"));
        assert_eq!(header(&again, "cache-control"), "no-store");
        assert_secured(&again, "a replay");
    }
    assert_eq!(town.key_names().await, ["n1"]);

    // Without a key, or under another, it is another request.
    assert_eq!(town.make_key("019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b47", "n2").await.status(), 201);
    assert_eq!(
        town.bench.post(KEYS, "application/json", json!({ "kind": "service", "name": "n3" }).to_string()).await.status(),
        201
    );
    assert_eq!(town.key_names().await.len(), 3);

    // A day later it has expired.
    town.pass(kindred_members::ANSWER_S);
    let anew = town.make_key(KEY, "n1").await;
    assert_eq!(anew.status(), 201);
    assert!(!is_replayed(&anew));
    assert_ne!(anew.body(), first.body());
    assert_eq!(town.key_names().await.len(), 4);
}

#[tokio::test]
async fn a_key_is_of_one_request() {
    let town = Town::new().await;
    assert_eq!(town.make_key(KEY, "n1").await.status(), 201);
    assert_problem(&town.make_key(KEY, "n2").await, 422, "idempotency_key_reused", "another body");
    assert_eq!(town.key_names().await, ["n1"]);

    // The same route and body, but another member.
    let (mara, ilse) = (town.member("mara", "13812345678").await, town.member("ilse", "13812345679").await);
    let suspend = |member: &str, key: &'static str| {
        let path = format!("/v1/admin/members/{member}/suspend");
        let request = town.bench.request(Method::POST, &path).header("idempotency-key", key);
        town.reply(with_form(request, &json!({ "reason": "no reason" })))
    };
    let key = "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b48";
    assert_eq!(suspend(&mara, key).await.status(), 204);
    let again = suspend(&mara, key).await;
    assert_eq!(again.status(), 204, "repeated without it, the state would not allow it: {:?}", again.body());
    assert!(is_replayed(&again));
    assert_problem(&suspend(&ilse, key).await, 422, "idempotency_key_reused", "another path");
    assert_problem(&suspend(&mara, "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b49").await, 409, "refused", "another key");
}

#[tokio::test]
async fn what_was_refused_may_be_asked_for_again() {
    let town = Town::new().await;
    for _ in 0..2 {
        assert_problem(&town.make_key(KEY, "").await, 422, "invalid", "no name");
    }
    let mended = town.make_key(KEY, "n1").await;
    assert_eq!(mended.status(), 201);
    assert!(!is_replayed(&mended));
    // The store was unavailable: nothing was done or stored.
    town.records.around.away.store(true, Ordering::Relaxed);
    let other = "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b50";
    assert_problem(&town.make_key(other, "n2").await, 503, "unavailable", "away");
    town.records.around.away.store(false, Ordering::Relaxed);
    assert_eq!(town.make_key(other, "n2").await.status(), 201);
    assert_eq!(town.key_names().await, ["n1", "n2"]);
}

/// If it failed, anyone who sees a key in a log could read another caller's answer.
#[tokio::test]
async fn a_key_is_its_callers_own() {
    let town = Town::of_mara().await;
    town.member("ilse", "13812345679").await;
    let (mara, ilse) = (town.token("mara").await, town.token("ilse").await);
    let path = "/v1/members/me/totp";
    let enrol = |token: String| {
        let request = town.nobody("POST", path).header("authorization", format!("Bearer {token}")).header("idempotency-key", KEY);
        town.reply(with_form(request, &json!({ "current_password": PASSWORD })))
    };
    let first = enrol(mara.clone()).await;
    assert!(first.status().is_success(), "{:?}", body(&first));
    let of_ilse = enrol(ilse).await;
    assert!(of_ilse.status().is_success() && !is_replayed(&of_ilse));
    assert_ne!(of_ilse.body(), first.body());
    // Another token of the same person.
    let again = enrol(town.token("mara").await).await;
    assert_eq!(again.body(), first.body());
    assert!(is_replayed(&again));
    // A signed-out caller gets nothing.
    assert_eq!(town.ask(&mara, "DELETE", CURRENT).await.status(), 204);
    assert_problem(&enrol(mara).await, 401, "unauthorized", "signed out");
}

#[tokio::test]
async fn a_key_that_could_be_guessed_is_refused() {
    let town = Town::new().await;
    for bad in ["", "1", "fifteen-letters", "with a space inside", "\"unended-0123456789", &"x".repeat(129)] {
        let problem = assert_problem(&town.make_key(bad, "n1").await, 400, "invalid_parameter", bad);
        assert_eq!(fields(&problem), [("/Idempotency-Key".to_owned(), "invalid".to_owned())]);
        assert_eq!(problem["errors"][0]["in"], "header");
    }
    assert!(town.key_names().await.is_empty());
}

/// If it failed, keys and passwords could be read from the store.
#[tokio::test]
async fn what_is_kept_is_sealed() {
    let town = Town::new().await;
    let made = town.make_key(KEY, "n1").await;
    let key = text(&body(&made), "key");
    let mut found = 0;
    let written = town.records.around.written.lock().clone();
    for (_, partition) in written.into_iter().filter(|(table, _)| table == "idempotency") {
        for (_, record) in town.records.scan("idempotency", &partition, &Range::default(), 10, NOW).await.unwrap() {
            let kept = String::from_utf8(record.value).unwrap();
            for secret in [&*key, KEY, "service"] {
                assert!(!kept.contains(secret) && !String::from_utf8(partition.clone()).unwrap().contains(secret), "{kept}");
            }
            found += 1;
        }
    }
    assert_eq!(found, 1);
}

/// The caller disconnects after each number of steps: the request completes, and a retry gets its answer. If it failed, the retry
/// would be told for a minute that the request is in progress.
#[tokio::test]
async fn what_nobody_waits_for_is_done_to_its_end() {
    let town = Town::new().await;
    let mut left = 0;
    for steps in 0.. {
        let (key, name) = (format!("{KEY}-{steps}"), format!("n{steps:03}"));
        let mut request = Box::pin(town.make_key(&key, &name));
        let answered = tokio::select! {
            biased;
            _ = &mut request => true,
            () = async { for _ in 0..steps { tokio::task::yield_now().await } } => false,
        };
        drop(request);
        let began = std::time::Instant::now();
        let again = loop {
            let again = town.make_key(&key, &name).await;
            if again.status() != 409 {
                break again;
            }
            assert_eq!(header(&again, "retry-after"), "1");
            assert!(began.elapsed() < Duration::from_secs(20), "left after {steps} steps, it is never done");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(again.status(), 201);
        left += usize::from(is_replayed(&again) && !answered);
        assert_eq!(town.key_names().await.len(), steps + 1, "left after {steps} steps");
        if answered || steps == 200 {
            break;
        }
    }
    assert!(left > 0, "none was left while it was being done");
}

/// Events need no key, and routes without a caller ignore the header.
#[tokio::test]
async fn other_routes_go_their_way() {
    let town = Town::new().await;
    for _ in 0..2 {
        let request = town.bench.request(Method::POST, "/v1/events/interactions").header("idempotency-key", "short");
        let answer = town.reply(with_form(request, &view("s1", "a"))).await;
        assert_eq!(answer.status(), 202);
        assert!(!is_replayed(&answer));
        let answer =
            town.reply(with_form(town.nobody("POST", "/v1/captcha/challenges").header("idempotency-key", KEY), &json!({}))).await;
        assert!(answer.status().is_success() && !is_replayed(&answer));
    }
    // An unknown key is refused as always.
    let request = warp::test::request()
        .method("POST")
        .path(KEYS)
        .header("authorization", "Bearer kd_sk_none")
        .header("idempotency-key", KEY);
    assert_problem(&town.reply(with_form(request, &json!({}))).await, 401, "unauthorized", "unknown");
}

/// Finding 26: a non-ASCII key was ignored, and the request executed each time.
#[tokio::test]
async fn a_key_beyond_ascii_is_refused() {
    let town = Town::new().await;
    let key = http::HeaderValue::from_bytes("schlüssel-schlüssel".as_bytes()).unwrap();
    let request = town.bench.request(Method::POST, KEYS).header("idempotency-key", key);
    let answer = town.reply(with_form(request, &json!({ "kind": "service", "name": "n1" }))).await;
    assert_problem(&answer, 400, "invalid_parameter", "not ASCII");
    assert!(town.key_names().await.is_empty());
}
