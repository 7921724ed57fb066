//! Limits for the public: a publishable key is in every page, and its readers must not exhaust the shop. Over real sockets, from
//! several loopback addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::sockets::{exchange, exchange_on};
use super::streams::{Reader, SOON};
use super::*;

const EVENTS: &str = "/v1/events/interactions";

/// A connection from a loopback address.
async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// A GET from an address: status and the whole answer.
async fn get(from: u8, to: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n");
    let text = exchange_on(connect(from, to).await, &[request.as_bytes()]).await;
    (text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), text)
}

impl Bench {
    async fn posted_by_a_page(&self, records: &[Value]) -> http::Response<bytes::Bytes> {
        let posted = warp::test::request().method("POST").path(EVENTS).header("content-type", "application/json");
        let posted = posted.header("authorization", format!("Bearer {}", self.publishable));
        posted.body(json!(records).to_string()).reply(&self.public).await
    }
}

/// If it failed, one client could use up the requests of all visitors.
#[tokio::test]
async fn one_address_has_a_share_of_the_rate_of_a_key() {
    let bench = Bench::new().await;
    let origins = [ORIGIN.to_owned()];
    let key = bench.context.keys.create_publishable("small", &origins, &[Scope::ListsRead], 1_300, NOW).await.unwrap().token;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    // All pipelined over one connection: 65 a minute are a twentieth.
    let one = format!("GET /v1/items/a/similar?key={key} HTTP/1.1\r\nHost: t\r\n\r\n");
    let last = format!("GET /v1/items/a/similar?key={key} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let mut socket = connect(1, running.address).await;
    socket.write_all(format!("{}{last}", one.repeat(199)).as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    tokio::time::timeout(SOON, socket.read_to_end(&mut answers)).await.unwrap().unwrap();
    let answers = String::from_utf8_lossy(&answers);
    let (granted, limited) = (answers.matches("HTTP/1.1 200").count(), answers.matches("HTTP/1.1 429").count());
    assert!((65..100).contains(&granted) && granted + limited == 200, "{granted} granted, {limited} limited");
    assert!(answers.contains("ratelimit-policy: \"address\";q=65;w=60"));
    let (status, answer) = get(2, running.address, &format!("/v1/items/a/similar?key={key}"), "").await;
    assert_eq!(status, 200, "another visitor: {answer}");
    running.shutdown().await;
}

/// If it failed, one client could hold all streams.
#[tokio::test]
async fn one_address_has_a_share_of_the_streams_of_a_key() {
    let bench = Bench::limited(|limits| {
        limits.streams_per_key = 40;
        limits.address_share = 2;
    })
    .await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let request = format!("GET /v1/stream?list=items/a/similar&key={} HTTP/1.1\r\nHost: t\r\n\r\n", bench.publishable);
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut reader = Reader::on(connect(1, running.address).await, &request).await;
        assert!(reader.until("data:", 1, SOON).await, "{}", reader.text);
        open.push(reader);
    }
    let mut refused = Reader::on(connect(1, running.address).await, &request).await;
    assert!(refused.until("your address has 20 streams open", 1, SOON).await, "{}", refused.text);
    let mut other = Reader::on(connect(2, running.address).await, &request).await;
    assert!(other.until("data:", 1, SOON).await, "another visitor: {}", other.text);
    running.shutdown().await;
}

/// If it failed, one client could hold every connection; behind a proxy all visitors would share one limit.
#[tokio::test]
async fn one_address_has_so_many_connections_and_a_trusted_proxy_any_number() {
    let bench = Bench::limited(|limits| limits.connections_per_address = 4).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut held = Reader::on(connect(1, running.address).await, "GET /livez HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert!(held.until("200", 1, SOON).await);
        open.push(held);
    }
    let mut refused = Reader::on(connect(1, running.address).await, "").await;
    assert!(refused.until("\"code\":\"busy\"", 1, SOON).await, "{}", refused.text);
    assert!(refused.text.starts_with("HTTP/1.1 503"), "{}", refused.text);
    refused.until("never", 1, SOON).await;
    let (head, body) = refused.text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}{body}");
    assert_eq!(get(2, running.address, "/livez", "").await.0, 200, "another address");
    drop(open);
    let begun = std::time::Instant::now();
    while get(1, running.address, "/livez", "").await.0 != 200 {
        assert!(begun.elapsed() < SOON, "a place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.shutdown().await;

    let config = ApiConfig { trusted_proxies: vec!["127.0.0.3/32".parse().unwrap()], ..bench.config.clone() };
    let running = crate::start(config, bench.context.clone()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..12 {
        let mut held = Reader::on(connect(3, running.address).await, "GET /livez HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert!(held.until("200", 1, SOON).await, "{}", held.text);
        open.push(held);
    }
    running.shutdown().await;
}

/// If it failed, a client that requests much and reads nothing would hold memory and a connection forever.
#[tokio::test]
async fn whoever_does_not_read_is_cut_off() {
    let bench = Bench::limited(|limits| limits.write_stall_ms = 1_000).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let socket = socket.connect(running.address).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    // Some hundred KB each: more than the socket buffers hold.
    let asking = async {
        let request = b"GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n";
        while writer.write_all(request).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("it may ask for ever and read nothing");
    let mut rest = Vec::new();
    let _reset = reader.read_to_end(&mut rest).await;
    assert_eq!(get(1, running.address, "/livez", "").await.0, 200);
    running.shutdown().await;
}

/// If it failed, endless bodies would fill the memory.
#[tokio::test]
async fn bodies_under_way_have_a_budget_and_an_address_a_part_of_it() {
    let bench = Bench::limited(|limits| {
        limits.bodies_bytes = 500_000;
        limits.bodies_bytes_per_address = 300_000;
    })
    .await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let begin = async |from: u8, bytes: usize| {
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            bench.service,
            bytes + 1
        );
        let mut reader = Reader::on(connect(from, running.address).await, &head).await;
        let _answered = reader.write(&vec![b' '; bytes]).await;
        reader
    };
    let held = begin(1, 200_000).await;
    // An announced body takes no memory.
    let _announced = begin(1, 0).await;
    let within = async {
        while running.api.bodies.held() < 200_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, within).await.expect("it is read");
    let mut refused = begin(1, 200_000).await;
    assert!(refused.until("from this address", 1, SOON).await, "{}", refused.text);
    assert!(refused.text.starts_with("HTTP/1.1 503") && refused.text.contains("retry-after"), "{}", refused.text);
    let _second = begin(2, 250_000).await;
    let mut third = begin(3, 200_000).await;
    assert!(third.until("as many bytes of bodies are under way as may be", 1, SOON).await, "{}", third.text);
    drop(held);
    let begun = std::time::Instant::now();
    loop {
        let mut other = begin(3, 200_000).await;
        let _ended = other.write(b"\n").await;
        assert!(other.until("HTTP/1.1 ", 1, SOON).await);
        if other.text.starts_with("HTTP/1.1 422") {
            break;
        }
        assert!(begun.elapsed() < SOON, "the bytes were not given back: {}", other.text);
    }
    running.shutdown().await;
}

/// If it failed, 40 requests would bring 400,000 records, each of its own session.
#[tokio::test]
async fn a_publishable_key_posts_little_and_nothing_old() {
    let bench = Bench::new().await;
    let records = |count: usize| (0..count).map(|n| view(&format!("s{n}"), "a")).collect::<Vec<_>>();
    assert_eq!(bench.posted_by_a_page(&records(200)).await.status(), 202);
    assert_problem(&bench.posted_by_a_page(&records(201)).await, 413, "payload_too_large", "records");
    let mut padded = view("s", "a");
    padded["query"] = json!("x".repeat(70_000));
    assert_problem(&bench.posted_by_a_page(&[padded]).await, 413, "payload_too_large", "bytes");
    for (at, status) in [("2025-12-29T10:12:00Z", 202), ("2025-12-29T10:11:00Z", 422), ("2000-01-01T00:00:00Z", 422)] {
        let mut record = view("s", "a");
        record["at"] = json!(at);
        let answer = bench.posted_by_a_page(&[record]).await;
        assert_eq!(answer.status(), status, "{at}: {:?}", answer.body());
        if status == 422 {
            assert_eq!(body(&answer)["errors"][0]["code"], "too_old");
        }
    }
    // A service key is not limited.
    let mut record = view("s", "a");
    record["at"] = json!("2001-01-01T00:00:00Z");
    let posted = bench.post(EVENTS, "application/json", json!([record]).to_string()).await;
    assert_eq!(posted.status(), 202);
}

/// If it failed, one address could fill memory with invented sessions.
#[tokio::test]
async fn one_address_posts_for_so_many_sessions_and_records() {
    let bench = Bench::limited(|limits| {
        limits.page_sessions_per_hour = 10;
        limits.page_records_per_minute = 250;
    })
    .await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let post = async |from: u8, sessions: std::ops::Range<usize>, of_each: usize| {
        let records: Vec<Value> = sessions.flat_map(|n| (0..of_each).map(move |_| view(&format!("s{n}"), "a"))).collect();
        let body = json!(records).to_string();
        let request = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nConnection: \
             close\r\nContent-Length: {}\r\n\r\n{body}",
            bench.publishable,
            body.len()
        );
        let mut reader = Reader::on(connect(from, running.address).await, &request).await;
        reader.until("\r\n\r\n", 1, SOON).await;
        reader.until("never", 1, SOON).await;
        let status = reader.text.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
        (status, reader.text)
    };
    assert_eq!(post(1, 0..10, 2).await.0, 202);
    let (status, answer) = post(1, 10..11, 1).await;
    assert!(status == 429 && answer.contains("session_limit"), "{answer}");
    assert_eq!(post(1, 0..10, 15).await.0, 202, "those that it has begun go on");
    let (status, answer) = post(1, 0..10, 15).await;
    assert!(status == 429 && answer.contains("rate_limited"), "{answer}");
    assert_eq!(post(2, 20..25, 2).await.0, 202, "another address");
    running.shutdown().await;
}

/// If it failed, 300 records would put anyone's text on top of the shop's page.
#[tokio::test]
async fn what_the_catalog_does_not_know_is_not_taken_from_pages() {
    let bench = Bench::new().await;
    let spam = "\u{2605} FREE iPhone at evil.example/win \u{2605}";
    assert_eq!(bench.posted_by_a_page(&[view("s", spam)]).await.status(), 202, "a shop without a catalog");
    let card = |item: &str| card(json!({ "item": item, "version": 1, "kind": "good", "title": item, "visibility": "svip" }));
    bench.apply(vec![card("tent"), support("ordered", 3)]).await;
    // Views from before there was a catalog are no longer shown or counted.
    let viewed = |item: &str, n| owners(item, Kind::View, NOW.day(), n);
    let bought = owners("bought", Kind::Purchase, NOW.day(), 1);
    bench.apply(vec![viewed(spam, 180), viewed("ordered", 2), viewed("bought", 1), bought]).await;
    let popular = body(&bench.get("/v1/popular?kind=view").await);
    let shown: Vec<&Value> = popular["items"].as_array().unwrap().iter().map(|item| &item["item"]).collect();
    assert_eq!((shown, &popular["total"]), (vec![&json!("ordered"), &json!("bought")], &json!(3)), "{popular}");
    let before = logged(&bench.log).await.len();
    let answer = bench.posted_by_a_page(&[view("s1", spam), view("s1", "tent"), view("s1", "ordered")]).await;
    let answer = body(&answer);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!(answer["results"][0]["error"]["code"], "unknown_item");
    assert_eq!(logged(&bench.log).await.len(), before + 2);
    // A search has no item, and a service key may post anything.
    let search = json!({ "session": "s1", "kind": "search", "query": "tents", "at": "2026-01-05T10:00:00Z" });
    assert_eq!(bench.posted_by_a_page(&[search]).await.status(), 202);
    assert_eq!(bench.post(EVENTS, "application/json", view("s2", "new").to_string()).await.status(), 202);
    let any = Bench::limited(|limits| limits.page_unknown_items = true).await;
    any.apply(vec![card("tent")]).await;
    assert_eq!(any.posted_by_a_page(&[view("s", "new")]).await.status(), 202, "where the settings say so");
}

/// If it failed, guessing the name of a hidden item would reveal that it exists, and who buys it.
#[tokio::test]
async fn the_list_of_an_item_that_may_not_be_seen_is_that_of_none() {
    let bench = Bench::new().await;
    let hidden = json!({ "item": "hidden", "version": 1, "kind": "good", "title": "h", "visibility": "svip", "category": ["x"] });
    let public = |item: &str| json!({ "item": item, "version": 1, "kind": "good", "title": item, "category": ["x"] });
    bench
        .apply(vec![
            card(hidden),
            card(public("b")),
            card(public("c")),
            list("hidden", &[("b", 7)]),
            support("hidden", 9),
            support("b", 8),
            baskets(20),
            owners("c", Kind::Purchase, NOW.day(), 4),
        ])
        .await;
    for query in ["fill=false&explain=true", "explain=true", "limit=3"] {
        let of = async |item: &str| {
            let path = format!("/v1/items/{item}/similar?{query}&key={}", bench.publishable);
            let answer = warp::test::request().path(&path).reply(&bench.public).await;
            String::from_utf8_lossy(answer.body()).replace(item, "ITEM")
        };
        assert_eq!(of("hidden").await, of("nothing").await, "{query}");
    }
    // It follows the catalog: once visible, its list is served.
    bench.apply(vec![card(public("hidden"))]).await;
    let shown = bench.get("/v1/items/hidden/similar?fill=false").await;
    assert_eq!(items(&shown), ["b"]);
}

/// If it failed, HEAD or OPTIONS would return 405 or 500.
#[tokio::test]
async fn every_method_is_answered_and_head_wherever_get_is() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let ask = async |method: &str, path: &str, headers: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n");
        let text = exchange(running.address, &[request.as_bytes()]).await.to_lowercase();
        let (head, body) = text.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned())).unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), head, body)
    };
    let key = format!("Authorization: Bearer {}\r\n", bench.service);
    for path in ["/v1/items/a/similar", "/livez", "/openapi.json", "/widget.js", "/v1/admin/keys", "/v1/popular", "/docs"] {
        let (status, got, _) = ask("GET", path, &key).await;
        let (head_status, head, body) = ask("HEAD", path, &key).await;
        assert_eq!((head_status, body.as_str()), (status, ""), "{path}");
        let length = |head: &str| head.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
        assert_eq!(length(&head), length(&got), "{path}");
    }
    let (status, head, body) = ask("HEAD", "/v1/items/a/similar/stream", &key).await;
    assert!(status == 200 && body.is_empty() && head.contains("text/event-stream"), "{head}");
    for path in ["/v1/nothing", "/v1", "/", "/v1/items/a/similar", "/v1/admin/keys", "/livez", "/v1/sessions", "/nothing"] {
        for method in ["OPTIONS", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            let (status, head, _) = ask(method, path, &key).await;
            assert!(status < 500, "{method} {path}: {status}");
            assert!(status != 405 || method != "OPTIONS" || ["/", "/nothing"].contains(&path), "{path}: {status}");
            if status == 405 {
                let allow = head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
                assert!(!allow.trim().is_empty(), "{method} {path}");
            }
        }
    }
    let (status, head, _) = ask("CONNECT", "shop.example:443", "").await;
    assert!(status == 405 && head.contains("allow: "), "{head}");
    // A request has one Host.
    for hosts in ["", "Host: t\r\nHost: u\r\n"] {
        let request = format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert!(exchange(running.address, &[request.as_bytes()]).await.starts_with("HTTP/1.1 400"), "{hosts}");
    }
    // Text is compressed if accepted.
    let (_, head, _) = ask("GET", "/openapi.json", "Accept-Encoding: gzip, br\r\n").await;
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let (_, head, _) = ask("GET", "/openapi.json", "").await;
    assert!(!head.contains("content-encoding"), "{head}");
    let (_, head, _) = ask("HEAD", "/v1/items/a/similar/stream", &format!("{key}Accept-Encoding: gzip\r\n")).await;
    assert!(!head.contains("content-encoding"), "{head}");
    running.shutdown().await;
}
