//! Behaviour that only a socket shows: chunked bodies, slow and broken clients, addresses, shutdown.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// The answer to what is sent.
pub(super) async fn exchange(address: std::net::SocketAddr, parts: &[&[u8]]) -> String {
    exchange_on(TcpStream::connect(address).await.unwrap(), parts).await
}

pub(super) async fn exchange_on(mut socket: TcpStream, parts: &[&[u8]]) -> String {
    for part in parts {
        // The server may close before everything is sent, after a 413.
        if socket.write_all(part).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4_096];
        while let Ok(read) = socket.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                if read == 0 {
                    break;
                }
                continue;
            };
            let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if read == 0 || length.is_some_and(|length: usize| body.len() >= length) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("no answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bodies_are_capped_while_they_are_read() {
    let bench = Bench::limited(|limits| {
        limits.body_bytes = 100_000;
        limits.body_read_ms = 300;
    })
    .await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let head = |rest: &str| {
        format!(
            "POST /v1/events/interactions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{rest}\r\n\r\n",
            bench.service
        )
    };
    // A chunked body has no declared length.
    let chunk = format!("2710\r\n{}\r\n", " ".repeat(10_000));
    let chunked = head("Transfer-Encoding: chunked");
    let mut parts: Vec<&[u8]> = vec![chunked.as_bytes()];
    parts.extend(std::iter::repeat_n(chunk.as_bytes(), 50));
    let answer = exchange(running.address, &parts).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
    // An oversized one is not read at all.
    let announced = exchange(running.address, &[head("Content-Length: 100001").as_bytes()]).await;
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    // A stalled one times out.
    let stalled = exchange(running.address, &[head("Content-Length: 1000").as_bytes(), b"{"]).await;
    assert!(stalled.starts_with("HTTP/1.1 408") && stalled.contains("request_timeout"), "{stalled}");
    // A complete chunked one is accepted.
    let record = view("s", "a").to_string();
    let good = format!("{:x}\r\n{record}\r\n0\r\n\r\n", record.len());
    let taken = exchange(running.address, &[head("Transfer-Encoding: chunked").as_bytes(), good.as_bytes()]).await;
    assert!(taken.starts_with("HTTP/1.1 202"), "{taken}");
    // Bytes that are not HTTP do no harm.
    let noise = exchange(running.address, &[b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]).await;
    assert!(noise.is_empty() || noise.starts_with("HTTP/1.1 400"), "{noise}");
    assert_eq!(logged(&bench.log).await.len(), 1);
    running.shutdown().await;
}

/// The largest accepted body: 10 MB of lines, each decoded and answered.
#[tokio::test]
async fn ten_thousand_records_in_ten_megabytes_are_taken() {
    let bench = Bench::new().await;
    let lines: String = (0..10_000).map(|n| format!("{}{}\n", view("s", &format!("i{n}")), " ".repeat(900))).collect();
    assert!((9_000_000..10_000_000).contains(&lines.len()));
    let answer = bench.post("/v1/events/interactions", "application/x-ndjson", &lines).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(body(&answer)["results"].as_array().unwrap().len(), 10_000);
    let over = format!("{lines}{}", view("s", "one more"));
    let answer = bench.post("/v1/events/interactions", "application/x-ndjson", &over).await;
    assert_problem(&answer, 413, "payload_too_large", "10,001 records");
}

#[tokio::test]
async fn the_addresses_are_apart_and_the_end_is_in_order() {
    let bench = Bench::new().await;
    let config = ApiConfig { admin_listen: Some(([127, 0, 0, 1], 0).into()), ..bench.config.clone() };
    let running = crate::start(config, bench.context.clone()).await.unwrap();
    let (public, admin) = (running.address, running.admin_address.unwrap());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(exchange(public, &[get("/metrics").as_bytes()]).await.starts_with("HTTP/1.1 404"));
    assert!(exchange(admin, &[get("/metrics").as_bytes()]).await.contains("up 1"));
    assert!(exchange(admin, &[get("/v1/popular").as_bytes()]).await.starts_with("HTTP/1.1 404"));
    assert!(exchange(public, &[get("/livez").as_bytes()]).await.starts_with("HTTP/1.1 200"));

    let taken = ApiConfig { listen: public, ..bench.config.clone() };
    let error = crate::start(taken, bench.context.clone()).await.err().expect("one address was bound twice");
    assert!(error.to_string().contains("--listen"), "{error}");

    // An idle connection does not delay the shutdown.
    let idle = TcpStream::connect(public).await.unwrap();
    let begun = std::time::Instant::now();
    running.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(TcpStream::connect(public).await.is_err(), "it still accepts");
    drop(idle);
}

#[tokio::test]
async fn further_routes_are_tried_last_and_finished_like_ours() {
    use warp::{Filter, Reply};
    let bench = Bench::new().await;
    let page = warp::path!("page")
        .map(|| warp::reply::with_header("<p>", "content-security-policy", "default-src 'self'").into_response())
        .boxed();
    let context = Context { extra: Some(page), ..bench.context.clone() };
    let api = crate::prepare(bench.config.clone(), context, bench.stop.subscribe()).await.unwrap();
    let public = crate::routes::public(&api);
    let page = warp::test::request().path("/page").reply(&public).await;
    assert_eq!((page.status().as_u16(), header(&page, "content-security-policy")), (200, "default-src 'self'"));
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    assert_problem(&warp::test::request().path("/other").reply(&public).await, 404, "not_found", "neither ours nor theirs");
}

/// V12.2.1: an address that other machines reach without a proxy is warned about at the start; otherwise passwords might cross
/// the network in the clear unnoticed.
#[test]
fn v12_2_1_an_address_that_others_reach_is_told_of() {
    for (address, behind_proxy, told) in [
        ("127.0.0.1:8080", false, false),
        ("[::1]:8080", false, false),
        ("[::ffff:127.0.0.1]:8080", false, false),
        ("0.0.0.0:8080", false, true),
        ("[::]:8080", false, true),
        ("192.0.2.7:80", false, true),
        ("0.0.0.0:8080", true, false),
    ] {
        let warning = crate::exposed(address.parse().unwrap(), behind_proxy);
        assert_eq!(warning.is_some(), told, "{address}");
        assert!(warning.is_none_or(|text| text.contains(address) && text.contains("api.trusted_proxies")));
    }
}
