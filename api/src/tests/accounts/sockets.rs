//! What only a connection shows: where it comes from, and bodies where few expect them.

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
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut answer)).await.expect("no answer").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// V4.1.3, V15.3.4: an address is the connection's, whatever the caller says; a proxy's word counts where the settings trust it.
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

/// A DELETE with a body reaches its handler over a connection as well.
#[tokio::test]
async fn an_account_is_closed_over_a_connection() {
    let town = Town::of_mara().await;
    let following = town.bench.follow_members();
    let running = crate::start(town.bench.config.clone(), town.bench.context.clone()).await.unwrap();
    let credentials = json!({ "account": "mara", "password": PASSWORD });
    let (_, grant) = exchange(running.address, "POST", FORM, "", &credentials).await;
    let bearer = format!("Authorization: Bearer {}\r\n", text(&grant, "access_token"));
    let close = async |form: Value| exchange(running.address, "DELETE", "/v1/members/me", &bearer, &form).await;
    assert_eq!(close(json!({})).await.0, 403);
    let (status, receipt) = close(json!({ "current_password": PASSWORD })).await;
    assert_eq!((status, &receipt["views"]["erased"]), (200, &json!(true)), "{receipt}");
    assert_eq!(close(json!({ "current_password": PASSWORD })).await.0, 401, "nobody is there to ask again");
    running.shutdown().await;
    following.abort();
}
