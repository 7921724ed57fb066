//! Measures sign-in beside the bare hash, and the check of an access token, over the embedded store.
//!
//! `cargo run --release -p kindred-members --example measure_members -- [SECONDS]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_members::senders::Message;
use kindred_members::{
    EventSink, Language, LimitsConfig, Members, MembersConfig, Registration, Sender, SignIn, SignedIn, Solution,
};
use kindred_model::records::MemberRecord;
use kindred_store::records::embedded::EmbeddedRecords;
use parking_lot::Mutex;
use secrecy::ExposeSecret;

const PASSWORD: &str = "qzvw kxjp 71 umbra";

struct Nowhere;

#[async_trait]
impl EventSink for Nowhere {
    async fn append(&self, _record: MemberRecord) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Default)]
struct Last(Mutex<String>);

#[async_trait]
impl Sender for Last {
    async fn send(&self, message: Message) -> Result<(), String> {
        *self.0.lock() = message.rendered.body;
        Ok(())
    }
}

/// What follows from a change may itself be followed by something.
async fn follow(members: &Members) {
    for _ in 0..5 {
        members.sweep().await.expect("a sweep");
    }
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().nth(1).map_or(5, |text| text.parse().expect("a number of seconds"));
    let time = Duration::from_secs(seconds);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let hashed = AtomicU64::new(0);
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let argon = Argon2::default();
                while Instant::now() < until {
                    argon.hash_password(PASSWORD.as_bytes()).expect("a hash");
                    hashed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let bound = hashed.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    println!("argon2 alone, {cores} threads: {bound:.1}/s");

    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(EmbeddedRecords::open(dir.path()).expect("a store"));
    let inbox = Arc::new(Last::default());
    let mut config = MembersConfig { default_language: Language::En, ..MembersConfig::default() };
    config.limits = LimitsConfig { sessions: 20, ..config.limits };
    let opened = Members::open(store, Clock::system(), config, Arc::new(Nowhere), inbox.clone());
    let members = Arc::new(opened.await.expect("members"));
    let solve = async || Solution::find(&members.challenge("::1").await.expect("a challenge"));
    members.request_phone_code("13812345678", Language::En, &solve().await, "::1").await.expect("a code");
    follow(&members).await;
    let digits: String = inbox.0.lock().chars().filter(char::is_ascii_digit).take(6).collect();
    let registration = Registration {
        username: "mara".into(),
        phone: "13812345678".into(),
        email: "mara@example.com".into(),
        password: PASSWORD.into(),
        solution: solve().await,
        phone_code: digits,
        agreement_version: "1".into(),
        invite_code: None,
        language: None,
        marketing_consent: false,
        address: "::1".into(),
    };
    members.register(registration).await.expect("a registration");
    follow(&members).await;
    let token = inbox.0.lock().split_once('#').map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().to_owned());
    members.verify_email(&token.expect("a token"), "::1").await.expect("verified");

    let signed_in = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..cores * 4)
        .map(|_| {
            let (members, signed_in) = (members.clone(), signed_in.clone());
            tokio::spawn(async move {
                while Instant::now() < until {
                    let sign_in = SignIn {
                        account: "mara".into(),
                        password: PASSWORD.into(),
                        device: None,
                        label: String::new(),
                        address: "::1".into(),
                        session: None,
                    };
                    match members.sign_in(sign_in).await {
                        Ok(SignedIn::Session(_)) => drop(signed_in.fetch_add(1, Ordering::Relaxed)),
                        Ok(SignedIn::SecondFactor { .. }) => panic!("no second factor was enrolled"),
                        Err(kindred_members::MemberError::Throttled { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    let rate = signed_in.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    println!("sign-in of one member, {} at once: {rate:.1}/s, {:.0} % of the bound", cores * 4, 100.0 * rate / bound);

    let sign_in = SignIn {
        account: "mara".into(),
        password: PASSWORD.into(),
        device: None,
        label: String::new(),
        address: "::1".into(),
        session: None,
    };
    let Ok(SignedIn::Session(grant)) = members.sign_in(sign_in).await else { panic!("signed in") };
    let token = grant.access_token.expose_secret();
    let started = Instant::now();
    members.authenticate(token).expect("a good token");
    println!("first check of a token: {:.1} µs", started.elapsed().as_secs_f64() * 1e6);
    let started = Instant::now();
    for _ in 0..100_000 {
        members.authenticate(token).expect("a good token");
    }
    println!("each check after: {:.2} µs", started.elapsed().as_secs_f64() * 10.0);
}
