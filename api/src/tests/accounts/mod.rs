//! Accounts over HTTP: every test uses the routes, and reads mails and phone codes from the test's sender.

mod browse;
mod cookies;
mod headers;
mod once;
mod own_account;
mod registration;
mod second_factor;
mod sessions;
mod sockets;
mod staff;
mod tokens;
mod wishlist;

use std::collections::BTreeSet;

use kindred_members::{Actor, Challenge, Hashes, Language, Members as Keeper, MembersConfig, Solution};
use kindred_store::StoreError;
use kindred_store::records::{Around, Call, Outcome, Range, RecordStore, Surrounded, Write};
use parking_lot::Mutex;
use totp_rs::{Builder, Secret};

use super::inbox::Inbox;
use super::*;
use crate::LogEventSink;
use crate::server::Peer;

/// 18 characters: staff need 15.
const PASSWORD: &str = "qzvw kxjp 71 umbra";
const ADDRESS: &str = "192.0.2.7";
const FORM: &str = "/v1/sessions";
const REFRESH: &str = "/v1/sessions/refresh";
const CURRENT: &str = "/v1/sessions/current";
const SECOND: &str = "/v1/sessions/second-factor";
const TOTP: &str = "/v1/members/me/totp";
const HOST: &str = "shop.example";

/// Wraps the records, and can make them unavailable.
#[derive(Default)]
struct Watch {
    away: AtomicBool,
    written: Mutex<BTreeSet<(String, Vec<u8>)>>,
}

impl Watch {
    fn there(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) { Err(StoreError::Unavailable("it is away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Around for Watch {
    async fn reads(&self) -> Result<(), StoreError> {
        self.there()
    }

    async fn writes(&self, call: Call<'_>, write: Write<'_>) -> Result<Outcome, StoreError> {
        self.there()?;
        self.written.lock().insert((call.table.to_owned(), call.partition.to_vec()));
        write.await
    }
}

type Records = Surrounded<Watch>;

/// An API with accounts.
struct Town {
    bench: Bench,
    members: Arc<Keeper>,
    inbox: Arc<Inbox>,
    records: Arc<Records>,
}

type Answer = http::Response<bytes::Bytes>;

impl Town {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(configure: impl FnOnce(&mut MembersConfig)) -> Self {
        Self::of(crate::resources::RESOURCES, configure).await
    }

    async fn with_resources(resources: crate::resources::Resources) -> Self {
        Self::of(resources, |_| {}).await
    }

    async fn of(resources: crate::resources::Resources, configure: impl FnOnce(&mut MembersConfig)) -> Self {
        let mut bench = Bench::new().await;
        let store = bench.records.clone();
        let records = Arc::new(Surrounded { store, around: Watch::default() });
        let inbox = Arc::new(Inbox::default());
        let mut config =
            MembersConfig { shop_name: "Teahouse".into(), default_language: Language::En, ..MembersConfig::default() };
        config.registration.challenge_bits = 1;
        config.password.threads = 1;
        configure(&mut config);
        let members = open(&bench, &records, config, &inbox, resources).await;
        (bench.api, bench.public) = process(&bench, &members, resources).await;
        bench.context.members = Some(members.clone());
        Self { bench, members, inbox, records }
    }

    /// Another process over the same records.
    async fn another(&self) -> (Arc<Keeper>, BoxedFilter<(Response,)>) {
        let resources = crate::resources::RESOURCES;
        let config = self.members.config().clone();
        let members = open(&self.bench, &self.records, config, &self.inbox, resources).await;
        let (_, public) = process(&self.bench, &members, resources).await;
        (members, public)
    }

    /// A town with a registered member, mara.
    async fn of_mara() -> Self {
        let town = Self::new().await;
        town.member("mara", "13812345678").await;
        town
    }

    /// Drains the outbox.
    async fn deliver(&self) {
        for _ in 0..50 {
            if self.members.sweep().await.unwrap() == 0 && self.members.sweep().await.unwrap() == 0 {
                return;
            }
            self.pass(40);
        }
        panic!("the outbox does not run empty");
    }

    fn pass(&self, seconds: u64) {
        self.bench.clock.advance(Duration::from_secs(seconds));
    }

    /// An anonymous request from an address.
    fn from(&self, address: &str, method: &str, path: &str) -> warp::test::RequestBuilder {
        warp::test::request()
            .method(method)
            .path(path)
            .header("host", HOST)
            .header("user-agent", "Firefox")
            .extension(Peer(address.parse().unwrap()))
    }

    fn nobody(&self, method: &str, path: &str) -> warp::test::RequestBuilder {
        self.from(ADDRESS, method, path)
    }

    async fn reply(&self, request: warp::test::RequestBuilder) -> Answer {
        request.reply(&self.bench.public).await
    }

    /// Posts a form anonymously.
    async fn post(&self, path: &str, form: &Value) -> Answer {
        self.reply(with_form(self.nobody("POST", path), form)).await
    }

    /// Requests with an access token.
    async fn ask(&self, token: &str, method: &str, path: &str) -> Answer {
        self.reply(self.nobody(method, path).header("authorization", format!("Bearer {token}"))).await
    }

    /// Sends a form with an access token.
    async fn send(&self, token: &str, method: &str, path: &str, form: &Value) -> Answer {
        let request = self.nobody(method, path).header("authorization", format!("Bearer {token}"));
        self.reply(with_form(request, form)).await
    }

    /// A solved challenge.
    async fn solved(&self) -> Value {
        let made = body(&self.post("/v1/captcha/challenges", &json!({})).await);
        let token = made["token"].as_str().unwrap().to_owned();
        let bits = u32::try_from(made["bits"].as_u64().unwrap()).unwrap();
        let solution = Solution::find(&Challenge { token, bits, expires_at: made["expires_at"].as_i64().unwrap() });
        json!({ "token": solution.token, "nonce": solution.nonce })
    }

    /// A registration form, with the code from the phone.
    async fn form(&self, name: &str, phone: &str) -> Value {
        let asked = json!({ "phone": phone, "challenge": self.solved().await });
        assert_eq!(self.post("/v1/phone-codes", &asked).await.status(), 202);
        self.deliver().await;
        self.form_with(name, phone, &self.inbox.code(&format!("+86{phone}"))).await
    }

    async fn form_with(&self, name: &str, phone: &str, code: &str) -> Value {
        json!({
            "username": name, "phone": phone, "email": format!("{name}@example.com"), "password": PASSWORD,
            "challenge": self.solved().await, "phone_code": code, "agreement_version": "1",
        })
    }

    /// Registers; the e-mail is not verified.
    async fn register(&self, name: &str, phone: &str) {
        let form = self.form(name, phone).await;
        assert_eq!(self.post("/v1/registrations", &form).await.status(), 202);
        self.deliver().await;
    }

    /// The id of a new member, registered and verified.
    async fn member(&self, name: &str, phone: &str) -> String {
        self.register(name, phone).await;
        let token = self.inbox.token(&format!("{name}@example.com"));
        let verified = self.post("/v1/email-verifications", &json!({ "token": token })).await;
        assert_eq!(verified.status(), 200);
        self.deliver().await;
        body(&verified)["member"].as_str().unwrap().to_owned()
    }

    /// Signs in with the password.
    async fn sign_in(&self, account: &str) -> Value {
        let answer = self.post("/v1/sessions", &json!({ "account": account, "password": PASSWORD })).await;
        assert_eq!(answer.status(), 201, "{:?}", body(&answer));
        body(&answer)
    }

    /// An access token.
    async fn token(&self, account: &str) -> String {
        text(&self.sign_in(account).await, "access_token")
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/sessions/refresh", &json!({ "refresh_token": token })).await
    }

    fn code(&self, secret: &str) -> String {
        let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).with_account_name("x").build().unwrap();
        totp.generate((self.bench.clock.now().0 / 1_000).unsigned_abs()).to_string()
    }

    /// Sets up a second factor: (secret, recovery codes).
    async fn enrol(&self, token: &str) -> (String, Vec<String>) {
        let begun = self.send(token, "POST", TOTP, &json!({ "current_password": PASSWORD })).await;
        assert_eq!(begun.status(), 201);
        let begun = body(&begun);
        let secret = text(&begun, "secret");
        assert!(text(&begun, "uri").starts_with("otpauth://totp/Teahouse"));
        let picture = text(&begun, "qr_svg");
        assert!(picture.contains("<svg") && !picture.contains("script"), "{picture}");
        let confirmed = self.send(token, "POST", &format!("{TOTP}/confirm"), &json!({ "code": self.code(&secret) })).await;
        assert_eq!(confirmed.status(), 200);
        (secret, serde_json::from_value(body(&confirmed)["recovery_codes"].clone()).unwrap())
    }

    /// The first step of signing in with two factors: its challenge.
    async fn first(&self, account: &str) -> String {
        let answer = self.post(FORM, &json!({ "account": account, "password": PASSWORD })).await;
        assert_eq!(answer.status(), 200);
        let asked = body(&answer);
        assert!(asked["access_token"].is_null() && asked["expires_in"] == 300 && cookies(&answer).is_empty());
        text(&asked, "challenge")
    }

    async fn second(&self, challenge: &str, code: &str) -> Answer {
        self.post(SECOND, &json!({ "challenge": challenge, "code": code })).await
    }

    /// Whether an access token is still valid.
    async fn works(&self, token: &str) -> bool {
        let answer = self.ask(token, "GET", "/v1/members/me").await;
        match answer.status().as_u16() {
            200 => true,
            401 => false,
            other => panic!("{other}: {}", body(&answer)),
        }
    }
}

async fn open(
    bench: &Bench,
    records: &Arc<Records>,
    config: MembersConfig,
    inbox: &Arc<Inbox>,
    resources: crate::resources::Resources,
) -> Arc<Keeper> {
    let sink = Arc::new(LogEventSink(bench.log.clone()));
    let opened = Keeper::open(records.clone(), bench.clock.clone(), config, sink, inbox.clone(), Hashes::WeakForTests);
    Arc::new(opened.await.unwrap().with_resources(crate::resources::member_resources(resources)))
}

/// A process of the API.
async fn process(
    bench: &Bench,
    members: &Arc<Keeper>,
    resources: crate::resources::Resources,
) -> (Arc<Api>, BoxedFilter<(Response,)>) {
    let context = Context { members: Some(members.clone()), ..bench.context.clone() };
    let api = crate::prepare_with(resources, bench.config.clone(), context, bench.stop.subscribe()).await.unwrap();
    let public = crate::routes::public(&api);
    (api, public)
}

fn with_form(request: warp::test::RequestBuilder, form: &Value) -> warp::test::RequestBuilder {
    request.header("content-type", "application/json").body(form.to_string())
}

/// A request of the shop's own page.
fn own_page(request: warp::test::RequestBuilder) -> warp::test::RequestBuilder {
    request.header("kindred-csrf", "1").header("origin", format!("https://{HOST}"))
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_else(|| panic!("no {field} in {of}")).to_owned()
}

/// A form with one field changed.
fn with(form: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut form = form.clone();
    form[field] = value.into();
    form
}

/// (name, value, attributes) of the cookies that an answer sets.
fn cookies(answer: &Answer) -> Vec<(String, String, Vec<String>)> {
    let set = answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    set.map(|text| {
        let (pair, attributes) = text.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned(), attributes.split("; ").map(str::to_owned).collect())
    })
    .collect()
}

/// The pointers and codes of a problem.
fn fields(problem: &Value) -> Vec<(String, String)> {
    problem["errors"].as_array().unwrap().iter().map(|error| (text(error, "pointer"), text(error, "code"))).collect()
}

fn credentials(cookie: bool) -> Value {
    json!({ "account": "mara", "password": PASSWORD, "cookie": cookie })
}

/// Signs in as the shop's own page does; returns the cookies to send.
async fn with_cookies(town: &Town) -> (Value, String) {
    let answer = town.reply(with_form(own_page(town.nobody("POST", FORM)), &credentials(true))).await;
    assert_eq!(answer.status(), 201);
    let sent: Vec<String> = cookies(&answer).into_iter().map(|(name, value, _)| format!("{name}={value}")).collect();
    (body(&answer), sent.join("; "))
}
