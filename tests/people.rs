//! Test doubles around a server: mail and phone receivers, a solver of challenges, forms.
//!
//! ```text
//! kindred ──SMTP──▶ smtp_sink ──▶ Sent ──▶ token_in, code_in
//!         ──POST──▶ phone_gateway ──▶ Sent
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{PATIENCE, until};

/// Everybody's password.
pub const PASSWORD: &str = "violet harbour 92 lantern";

/// Received messages: (to, text).
pub type Sent = Arc<Mutex<Vec<(String, String)>>>;

/// Listens; serves each connection on a thread for the rest of the test.
fn listen(serve: impl Fn(TcpStream, &Sent) -> std::io::Result<()> + Send + Sync + 'static) -> (u16, Sent) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sent, serve) = (Sent::default(), Arc::new(serve));
    let all = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (sent, serve) = (Arc::clone(&all), Arc::clone(&serve));
            std::thread::spawn(move || serve(stream, &sent));
        }
    });
    (port, sent)
}

/// An SMTP server without TLS (RFC 5321).
pub fn smtp_sink() -> (u16, Sent) {
    listen(|mut stream, sent| {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        stream.write_all(b"220 sink\r\n")?;
        let mut to = String::new();
        while let Some(line) = lines.next().transpose()? {
            let upper = line.to_ascii_uppercase();
            if upper.starts_with("RCPT TO:") {
                line[8..].trim().trim_matches(['<', '>']).clone_into(&mut to);
            }
            if upper == "DATA" {
                stream.write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                while let Some(line) = lines.next().transpose()?.filter(|line| line != ".") {
                    // Quoted-printable: soft line breaks and the escaped equals sign are enough for a link.
                    match line.strip_suffix('=') {
                        Some(soft) => text.push_str(soft),
                        None => text.push_str(&(line + "\n")),
                    }
                }
                sent.lock().expect("no reader panics").push((to.clone(), text.replace("=3D", "=")));
            }
            stream.write_all(if upper.starts_with("QUIT") { b"221 bye\r\n" } else { b"250 ok\r\n" })?;
        }
        Ok(())
    })
}

/// A phone gateway: POST of JSON.
pub fn phone_gateway() -> (u16, Sent) {
    listen(|mut stream, sent| {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line)? > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            if length == 0 {
                return Ok(());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
            sent.lock().expect("no reader panics").push((text("to"), text("text")));
            stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")?;
        }
    })
}

/// Waits for a message that yields a value.
pub fn wait_for<T>(sent: &Sent, to: &str, find: impl Fn(&str) -> Option<T>) -> T {
    let sent = || sent.lock().expect("no sink panics");
    let found = || sent().iter().rev().filter(|(of, _)| of == to).find_map(|(_, text)| find(text));
    until(PATIENCE, || format!("nothing came to {to}: {:?}", sent()), found)
}

/// The code in a phone message.
pub fn code_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit()).find(|word| word.len() == 6).map(str::to_owned)
}

/// The token in a verification link.
pub fn token_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("verify-email#")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// Settings that use these receivers, allow many requests from one address, and make challenges cheap.
pub fn settings(smtp: u16, gateway: u16) -> Vec<String> {
    [
        "members.mail.host=\"127.0.0.1\"".to_owned(),
        format!("members.mail.port={smtp}"),
        "members.mail.security=none".to_owned(),
        format!("members.phone.url=\"http://127.0.0.1:{gateway}/\""),
        "members.registration.challenge_bits=4".to_owned(),
        "members.default_language=en".to_owned(),
        "members.limits.registrations_hour=1000".to_owned(),
        "members.limits.phone_codes_address_hour=1000".to_owned(),
        "members.limits.challenges_hour=10000".to_owned(),
    ]
    .into()
}

/// A challenge and its solution.
pub fn solved(made: &Value) -> Value {
    let (token, bits) = (text_of(made, "token"), made["bits"].as_u64().expect("bits"));
    let fits = |nonce: &String| {
        let digest = Sha256::digest(format!("{token}.{nonce}"));
        u64::from(u128::from_be_bytes(digest[..16].try_into().expect("16 bytes")).leading_zeros()) >= bits
    };
    let nonce = (0_u64..).map(|number| number.to_string()).find(fits).expect("there is one");
    json!({ "token": token, "nonce": nonce })
}

/// A text field.
pub fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}
