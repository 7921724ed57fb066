//! Behaviour that only a connection shows: client addresses, and unexpected bodies.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// One request over a connection of its own: (status, body).
async fn exchange(address: SocketAddr, method: &str, path: &str, headers: &str, form: &Value) -> (u16, Value) {
    let form = form.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{form}",
        form.len()
    );
    let answer = crate::tests::sockets::exchange(address, &[request.as_bytes()]).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// V4.1.3, V15.3.4: the address is the connection's, whatever the client claims; a proxy is believed where the settings trust it.
#[tokio::test]
async fn v4_1_3_v15_3_4_where_a_session_comes_from() {
    let town = Town::of_mara().await;
    let credentials = json!({ "account": "mara", "password": PASSWORD });
    let forwarded = "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n";
    for (trusted, expected) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".parse().unwrap()], "203.0.113.9")] {
        let config = ApiConfig { trusted_proxies: trusted, ..town.bench.config.clone() };
        let running = crate::start(config, town.bench.context.clone()).await.unwrap();
        let (status, grant) = exchange(running.address, "POST", FORM, forwarded, &credentials).await;
        assert_eq!(status, 201, "{grant}");
        let bearer = format!("Authorization: Bearer {}\r\n", text(&grant, "access_token"));
        let (_, listed) = exchange(running.address, "GET", "/v1/members/me/sessions", &bearer, &json!({})).await;
        let current = listed["sessions"].as_array().unwrap().iter().find(|session| session["current"] == true).unwrap().clone();
        assert_eq!(current["address"], expected);
        running.shutdown().await;
    }
}

/// A reverse proxy: each connection forwards the address of another visitor.
async fn proxy(to: SocketAddr, visitors: Vec<&'static str>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for visitor in visitors {
            let (mut from, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(from.read_u8().await.unwrap());
                }
                let line = head.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                let mut to = TcpStream::connect(to).await.unwrap();
                to.write_all(&head[..line]).await.unwrap();
                to.write_all(format!("X-Forwarded-For: {visitor}\r\n").as_bytes()).await.unwrap();
                to.write_all(&head[line..]).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Findings 4 and C: behind an unconfigured proxy all visitors share one quota, with a warning; behind a configured one each has
/// their own, in any notation of addresses.
#[tokio::test]
async fn v4_1_3_visitors_behind_a_proxy() {
    let town = Town::with(|config| config.limits.challenges_hour = 2).await;
    let visitors = vec![
        "198.51.100.1",
        "198.51.100.1:4711",
        "198.51.100.1",
        "198.51.100.2",
        "[2001:db8::7]:51234",
        "\"[2001:db8::7]\"",
        "2001:db8::7",
    ];
    for (trusted, expected) in [
        (vec![], [201, 201, 429, 429, 429, 429, 429]),
        (vec!["127.0.0.0/8".parse().unwrap()], [201, 201, 429, 201, 201, 201, 429]),
    ] {
        let told = trusted.is_empty();
        let config = ApiConfig { trusted_proxies: trusted, ..town.bench.config.clone() };
        let running = crate::start(config, town.bench.context.clone()).await.unwrap();
        let ready = async || exchange(running.address, "GET", "/readyz?verbose", "", &json!({})).await.1.to_string();
        assert!(!ready().await.contains("trusted_proxies"), "nothing was forwarded yet");
        let front = proxy(running.address, visitors.clone()).await;
        let mut statuses = Vec::new();
        for _ in &visitors {
            statuses.push(exchange(front, "POST", "/v1/captcha/challenges", "", &json!({})).await.0);
        }
        assert_eq!(statuses, expected);
        assert_eq!(ready().await.contains("trusted_proxies"), told);
        running.shutdown().await;
    }
}

/// Finding 2: a slow stranger occupies no thread that serves requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_2_1_hard_passwords_do_not_stop_the_server() {
    let town = Town::with(|config| {
        config.limits.registrations_hour = 1_000;
        config.limits.challenges_hour = 1_000;
    })
    .await;
    let running = crate::start(town.bench.config.clone(), town.bench.context.clone()).await.unwrap();
    let address = running.address;
    let hard: String = "(@4<{[6|9!1|7+0$5+7%2'*7)".chars().cycle().take(128).collect();
    let mut forms = Vec::new();
    for number in 0..32 {
        let mut form = town.form_with(&format!("name-{number}"), "13800138000", "000000").await;
        form["password"] = if number % 2 == 0 { json!(hard) } else { json!("$5".repeat(64)) };
        forms.push(form);
    }
    let running_forms: Vec<_> = forms
        .into_iter()
        .map(|form| tokio::spawn(async move { exchange(address, "POST", "/v1/registrations", "", &form).await }))
        .collect();
    let mut took = Vec::new();
    while took.len() < 15 || !running_forms.iter().all(tokio::task::JoinHandle::is_finished) && took.len() < 500 {
        let begun = std::time::Instant::now();
        assert_eq!(exchange(address, "GET", "/livez", "", &json!({})).await.0, 200);
        took.push(begun.elapsed());
    }
    for answered in running_forms {
        let (status, problem) = answered.await.unwrap();
        assert!(matches!(status, 422 | 429), "{status} {problem}");
    }
    took.sort();
    // The median: other tests may take the machine meanwhile.
    assert!(took[took.len() / 2] < Duration::from_millis(100), "{took:?}");
    running.shutdown().await;
}
