//! The administration of members over HTTP: a shop with members, staff, and two processes.

mod acts;
mod asvs;
mod audit;
mod matrix;
mod power;
mod search;
mod setup;

use std::net::IpAddr;
use std::sync::atomic::AtomicU32;

use kindred_members::{Actor, Language, Members as Keeper, MembersConfig, Registration, SignIn, SignedIn, Solution};
use kindred_store::records::RecordStore;
use secrecy::ExposeSecret;
use totp_rs::{Builder, Secret};

use super::inbox::Inbox;
use super::*;
use crate::LogEventSink;
use crate::server::Peer;

/// 18 characters: staff need 15.
const PASSWORD: &str = "qzvw kxjp 71 umbra";
/// The staff's address.
const DESK: &str = "198.51.100.7";

/// An API that keeps members.
struct Shop {
    bench: Bench,
    members: Arc<Keeper>,
    records: Arc<dyn RecordStore>,
    config: MembersConfig,
    inbox: Arc<Inbox>,
    registered: AtomicU32,
}

impl Shop {
    async fn new() -> Self {
        let mut config =
            MembersConfig { shop_name: "Teahouse".into(), default_language: Language::En, ..MembersConfig::default() };
        config.registration.challenge_bits = 1;
        config.password.threads = 1;
        let bench = Bench::new().await;
        let records: Arc<dyn RecordStore> = bench.records.clone();
        let inbox = Arc::new(Inbox::default());
        let members = open(&bench, &records, &config, &inbox).await;
        let mut shop = Self { bench, members, records, config, inbox, registered: AtomicU32::new(0) };
        (shop.bench.api, shop.bench.public) = shop.process(&shop.members).await;
        shop.bench.context.members = Some(shop.members.clone());
        shop
    }

    /// A process of the API.
    async fn process(&self, members: &Arc<Keeper>) -> (Arc<Api>, BoxedFilter<(Response,)>) {
        let context = Context { members: Some(members.clone()), ..self.bench.context.clone() };
        let api = crate::prepare(self.bench.config.clone(), context, self.bench.stop.subscribe()).await.unwrap();
        let public = crate::routes::public(&api);
        (api, public)
    }

    /// Another process over the same records.
    async fn another(&self) -> (Arc<Keeper>, BoxedFilter<(Response,)>) {
        let members = open(&self.bench, &self.records, &self.config, &self.inbox).await;
        let (_, public) = self.process(&members).await;
        (members, public)
    }

    /// Drains the outbox.
    async fn deliver(&self) {
        for _ in 0..50 {
            if self.members.sweep().await.unwrap() == 0 && self.members.sweep().await.unwrap() == 0 {
                return;
            }
            self.bench.clock.advance(Duration::from_secs(40));
        }
        panic!("the outbox does not run empty");
    }

    /// Registers all concurrently; the e-mails are unverified.
    async fn register(&self, names: &[String]) {
        let people: Vec<(String, String, String)> = names
            .iter()
            .map(|name| {
                let number = self.registered.fetch_add(1, Ordering::Relaxed);
                (name.clone(), format!("138{number:08}"), format!("10.{}.{}.1", number / 256, number % 256))
            })
            .collect();
        let solved = async |address: &str| Solution::find(&self.members.challenge(address).await.unwrap());
        futures_util::future::join_all(people.iter().map(|(_, phone, address)| async move {
            self.members.request_phone_code(phone, Language::En, &solved(address).await, address).await.unwrap();
        }))
        .await;
        self.deliver().await;
        futures_util::future::join_all(people.iter().map(|(name, phone, address)| async move {
            let digits: String =
                self.inbox.last(&format!("+86{phone}")).rendered.body.chars().filter(char::is_ascii_digit).collect();
            let registration = Registration {
                username: name.clone(),
                phone: phone.clone(),
                email: format!("{name}@example.com"),
                password: PASSWORD.into(),
                solution: solved(address).await,
                phone_code: digits[..6].to_owned(),
                agreement_version: self.config.agreement_version.clone(),
                invite_code: None,
                language: Some(Language::En),
                marketing_consent: false,
                address: address.clone(),
            };
            self.members.register(registration).await.unwrap();
        }))
        .await;
        self.deliver().await;
    }

    /// A member, verified.
    async fn member(&self, name: &str) -> String {
        self.register(&[name.to_owned()]).await;
        let mail = self.inbox.last(&format!("{name}@example.com")).rendered.body;
        let token = mail.split_once('#').unwrap().1.split_whitespace().next().unwrap();
        let member = self.members.verify_email(token, DESK).await.unwrap();
        self.deliver().await;
        member
    }

    async fn signs_in(&self, name: &str) -> SignedIn {
        let sign_in = SignIn {
            account: name.into(),
            password: PASSWORD.into(),
            device: None,
            label: "Firefox".into(),
            address: DESK.into(),
            session: None,
            browses: false,
        };
        self.members.sign_in(sign_in).await.unwrap()
    }

    /// An access token by password.
    async fn token(&self, name: &str) -> String {
        match self.signs_in(name).await {
            SignedIn::Session(grant) => grant.access_token.expose_secret().to_owned(),
            SignedIn::SecondFactor { .. } => panic!("no second factor was expected"),
        }
    }

    /// Enrols a second factor; its secret.
    async fn enrol(&self, name: &str) -> String {
        let claims = self.members.authenticate(&self.token(name).await).unwrap();
        let enrolment = self.members.enrol_totp(&claims, &PASSWORD.into(), DESK).await.unwrap();
        let secret = enrolment.secret.expose_secret().to_owned();
        self.members.confirm_totp(&claims, &self.code(&secret), DESK).await.unwrap();
        secret
    }

    fn code(&self, secret: &str) -> String {
        let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).with_account_name("x").build().unwrap();
        totp.generate((self.bench.clock.now().0 / 1_000).unsigned_abs()).to_string()
    }

    /// An access token by password and second factor. Advances half a minute: a code works once.
    async fn token_by_both(&self, name: &str, secret: &str) -> String {
        self.bench.clock.advance(Duration::from_secs(30));
        match self.signs_in(name).await {
            SignedIn::SecondFactor { challenge, .. } => {
                let grant = self.members.sign_in_second(&challenge, &self.code(secret)).await.unwrap();
                grant.access_token.expose_secret().to_owned()
            }
            SignedIn::Session(_) => panic!("the second factor was not asked for"),
        }
    }

    /// A member with a staff role and a second factor, signed in: (member, access token).
    async fn staff(&self, name: &str, role: &str) -> (String, String) {
        let member = self.member(name).await;
        let secret = self.enrol(name).await;
        self.members.change_role(&Actor::operator("test"), &member, None, Some(role)).await.unwrap();
        self.deliver().await;
        (member, self.token_by_both(name, &secret).await)
    }

    /// A request from the staff's address with a token or a key.
    fn request(&self, token: &str, method: &str, path: &str) -> warp::test::RequestBuilder {
        let peer: IpAddr = DESK.parse().unwrap();
        let request = warp::test::request().method(method).path(path).extension(Peer(peer));
        request.header("authorization", format!("Bearer {token}")).header("accept-language", "en")
    }

    async fn ask(&self, token: &str, method: &str, path: &str) -> http::Response<bytes::Bytes> {
        self.request(token, method, path).reply(&self.bench.public).await
    }

    async fn send(&self, token: &str, method: &str, path: &str, json: Value) -> http::Response<bytes::Bytes> {
        self.request(token, method, path).json(&json).reply(&self.bench.public).await
    }

    /// Creates or changes a role.
    async fn put_role(&self, token: &str, name: &str, permissions: Value) -> http::Response<bytes::Bytes> {
        let path = format!("/v1/admin/roles/{name}");
        let there = self.get(&path).await;
        let request = self.request(token, "PUT", &path).json(&json!({ "permissions": permissions }));
        let request = match there.headers().get("etag") {
            Some(etag) => request.header("if-match", etag),
            None => request.header("if-none-match", "*"),
        };
        request.reply(&self.bench.public).await
    }

    /// With the service key.
    async fn get(&self, path: &str) -> http::Response<bytes::Bytes> {
        self.ask(&self.bench.service, "GET", path).await
    }

    /// The matching audit entries of these days, newest first.
    async fn audited(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/admin/audit?limit=200&from=2026-01-05{query}")).await;
        assert_eq!(answer.status(), 200, "{query}: {:?}", answer.body());
        body(&answer)["entries"].as_array().unwrap().clone()
    }
}

async fn open(bench: &Bench, records: &Arc<dyn RecordStore>, config: &MembersConfig, inbox: &Arc<Inbox>) -> Arc<Keeper> {
    let sink = Arc::new(LogEventSink(bench.log.clone()));
    let opened = Keeper::open_weak_for_tests(records.clone(), bench.clock.clone(), config.clone(), sink, inbox.clone());
    Arc::new(opened.await.unwrap())
}
