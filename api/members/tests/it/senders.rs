//! Mails over a real socket, webhooks to one, and the mailbox page.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use kindred_config::members::{MailConfig, MailSecurity};
use kindred_members::senders::{Channel, Mailbox, Message, Rendered, Smtp, Webhook};
use kindred_members::{Language, MembersConfig, Sender, SignInConfig};
use kindred_model::SessionId;
use kindred_model::records::MemberRecord;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::{World, config};

fn message(to: &str, subject: &str) -> Message {
    Message {
        id: "0123.00".into(),
        to: to.into(),
        channel: Channel::Mail,
        language: Language::ZhCn,
        at: kindred_model::EventTime(1_800_000_000_000),
        rendered: Rendered { subject: subject.into(), body: "你好\n.\nBcc: none@example.com".into() },
    }
}

/// Takes one mail: (commands, data).
async fn smtp_sink(listener: &TcpListener) -> (Vec<String>, String) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 sink\r\n").await.unwrap();
    let (mut commands, mut data) = (Vec::new(), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return (commands, data);
        }
        let line = line.trim_end().to_owned();
        let answer: &[u8] = match line.split(' ').next().unwrap() {
            "EHLO" => b"250 sink\r\n",
            "DATA" => {
                stream.get_mut().write_all(b"354 go on\r\n").await.unwrap();
                while !data.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut data).await.unwrap();
                }
                b"250 taken\r\n"
            }
            "QUIT" => {
                commands.push(line);
                return (commands, data);
            }
            _ => b"250 fine\r\n",
        };
        commands.push(line);
        stream.get_mut().write_all(answer).await.unwrap();
        if !data.is_empty() {
            return (commands, data);
        }
    }
}

/// V1.3.11: one recipient, and no header that a text brought along.
#[tokio::test]
async fn v1_3_11_no_text_becomes_a_header() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let smtp = Smtp::new(&MailConfig {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        security: MailSecurity::None,
        user: String::new(),
        password: String::new(),
        from: "Teahouse <shop@example.com>".into(),
    })
    .unwrap();
    let sent = smtp.send(message("mara@example.com", "Hello\r\nBcc: evil@example.com"));
    let (sent, (commands, data)) = tokio::join!(sent, smtp_sink(&listener));
    sent.unwrap();
    let recipients: Vec<_> = commands.iter().filter(|command| command.starts_with("RCPT")).collect();
    assert_eq!(recipients, ["RCPT TO:<mara@example.com>"]);
    let (head, _) = data.split_once("\r\n\r\n").unwrap();
    assert!(!head.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{head}");
    assert!(head.contains("Message-ID: <0123.00@example.com>"), "the same however often it is sent: {head}");
    for to in ["a@b.cc\r\nBcc: evil@example.com", "a@b.cc, evil@example.com", "<a@b.cc> evil"] {
        assert!(smtp.send(message(to, "Hello")).await.is_err(), "{to:?}");
    }
}

#[tokio::test]
async fn a_webhook_is_signed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sms", listener.local_addr().unwrap());
    let webhook = Webhook::new(url, "whsec".to_owned().into());
    let answer = async |status: &str| {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut part = [0; 4_096];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "the request ended early");
            request.extend_from_slice(&part[..read]);
        }
        stream
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        String::from_utf8(request).unwrap()
    };
    let sms = Message { channel: Channel::Phone, ..message("+8613812345678", "") };
    let (sent, request) = tokio::join!(webhook.send(sms.clone()), answer("204 No Content"));
    sent.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"whsec").unwrap();
    mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["to"], "+8613812345678");
    let (sent, _) = tokio::join!(webhook.send(sms), answer("500 Oops"));
    assert!(sent.is_err());
}

#[tokio::test]
async fn the_mailbox_keeps_a_day() {
    let world = World::new().await;
    let mailbox = Mailbox::new(world.store.clone(), world.clock.clone());
    for subject in ["one", "two"] {
        let id = format!("{subject}.00");
        mailbox.send(Message { at: world.clock.now(), id, ..message("mara@example.com", subject) }).await.unwrap();
        world.pass(1);
    }
    let subjects: Vec<_> = mailbox.newest(10).await.unwrap().into_iter().map(|kept| kept.subject).collect();
    assert_eq!(subjects, ["two", "one"]);
    world.pass(86_400);
    assert_eq!(mailbox.newest(10).await.unwrap(), []);
}

/// A gateway that is down keeps nothing from working, and what it missed arrives.
#[tokio::test]
async fn what_cannot_be_sent_is_sent_later() {
    struct Down(parking_lot::Mutex<u32>, Arc<crate::support::Inbox>);
    #[async_trait::async_trait]
    impl Sender for Down {
        async fn send(&self, message: Message) -> Result<(), String> {
            {
                let mut left = self.0.lock();
                if *left > 0 {
                    *left -= 1;
                    return Err("down".into());
                }
            }
            self.1.send(message).await
        }
    }
    let mut world = World::new().await;
    world.member("mara", "13812345678").await;
    let before = world.inbox.0.lock().len();
    let down = Arc::new(Down(parking_lot::Mutex::new(3), world.inbox.clone()));
    world.members = world.open(&config(), down).await.unwrap();
    world.credentials.request_reset("mara", &world.solution().await, "192.0.2.1").await.unwrap();
    for _ in 0..4 {
        assert!(world.members.sweep().await.is_ok());
    }
    assert_eq!(world.inbox.0.lock().len(), before, "not in a hurry");
    world.deliver().await;
    assert_eq!(world.inbox.0.lock().len(), before + 1, "once");
}

/// What a browser did before it signed in becomes the member's.
#[tokio::test]
async fn a_session_is_merged_when_it_signs_in() {
    let world = World::with(MembersConfig { sign_in: SignInConfig::default(), ..config() }).await;
    let member = world.member("mara", "13812345678").await;
    let mut credentials = world.credentials("mara", crate::support::PASSWORD);
    (credentials.session, credentials.browses) = (Some(SessionId::parse("browser-1").unwrap()), true);
    let kindred_members::SignedIn::Session(grant) = world.sign_in.first(credentials).await.unwrap() else {
        panic!("no second factor")
    };
    world.deliver().await;
    let log = world.log.0.lock();
    let merged: Vec<_> = log
        .iter()
        .filter_map(|record| match record {
            MemberRecord::Session { session, merged_into, .. } => Some((session.as_str(), merged_into.as_str())),
            MemberRecord::Member(_) => None,
        })
        .collect();
    let browsing = grant.browsing.unwrap();
    assert_eq!(merged, [("browser-1", member.as_str()), (browsing.as_str(), member.as_str())]);
}
