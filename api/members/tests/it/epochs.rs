//! What is begun with the credentials of an account ends with every change of them, whichever of the two comes between the other's
//! reading and its transaction.
//!
//! ```text
//! every CredentialEvent × everything that can be begun × { before, between the event's reading and its transaction,
//!                                                          the event between the beginning's reading and its transaction }
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use kindred_members::{AccessClaims, CredentialEvent, Grant, KNOWN_MAX, LimitsConfig, Result, SignIn, SignedIn, TokenKind};
use kindred_store::StoreError;
use kindred_store::records::{Around, Call, Effect, Outcome, RecordStore, Step, Surrounded, Write};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::races::{race, unlimited, worlds};
use crate::sign_in::code;
use crate::support::{ADDRESS, MemberError, Memory, PASSWORD, World, config};

const NEW: &str = "vextro jumbles 93 quip";
const PHONE: &str = "13812345678";
/// Where whoever else has the password comes from.
const ELSEWHERE: &str = "198.51.100.9";

/// What can be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Thing {
    /// A session with its access and refresh tokens.
    Session,
    /// A sign-in that waits for its second factor.
    FirstFactor,
    /// A mark of a browser.
    Device,
    /// An authenticator that is being set up.
    Enrolment,
    /// A token beside the account.
    Token(TokenKind),
}

fn things() -> Vec<Thing> {
    let mut things = vec![Thing::Session, Thing::FirstFactor, Thing::Device, Thing::Enrolment];
    things.extend(TokenKind::ALL.map(Thing::Token));
    things
}

/// When it is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Before the event.
    Before,
    /// Between the event's reading and its transaction.
    Within,
    /// The event comes between the reading and the first transaction of what begins.
    Around,
}

/// What was begun.
#[derive(Clone)]
enum Begun {
    Session(Box<Grant>),
    FirstFactor(String),
    Device(String),
    Enrolment(String),
    Token(String),
}

/// A member with what the event needs.
#[derive(Clone)]
struct Prepared {
    member: String,
    claims: Option<Arc<AccessClaims>>,
    /// Token of the mail, code to the phone or secret of the authenticator that the event is done with.
    proof: String,
    recovery: Vec<String>,
}

const NEW_PHONE: &str = "13800000001";

impl Prepared {
    /// `None` where the two never meet.
    async fn new(world: &World, event: CredentialEvent, thing: Thing) -> Option<Self> {
        use CredentialEvent as E;
        let none = Self { member: String::new(), claims: None, proof: String::new(), recovery: Vec::new() };
        if thing == Thing::Token(TokenKind::Verify) {
            // Nobody signs in before the e-mail is verified: staff alone can do something.
            if !matches!(event, E::Erasure | E::SignOutEverywhere) {
                return None;
            }
            world.registrations.register(world.form("mara", PHONE).await.unwrap()).await.unwrap();
            world.deliver().await;
            let member = world.inbox.token("mara@example.com").split('.').next().unwrap().to_owned();
            return Some(Self { member, ..none });
        }
        let with_factor = thing == Thing::FirstFactor || event == E::SecondFactorOff;
        if with_factor && (event == E::SecondFactorOn || thing == Thing::Enrolment) {
            return None; // There is one, or there is none.
        }
        let member = world.member("mara", PHONE).await;
        let claims = world.claims(&world.sign_in("mara").await);
        let mut recovery = Vec::new();
        if with_factor {
            let secret = enrol(world, &claims).await.unwrap();
            let codes = world.factors.confirm_totp(&claims, &code(world, &secret, 0), ADDRESS).await.unwrap();
            recovery = codes.iter().map(|code| code.expose_secret().to_owned()).collect();
        }
        let proof = match event {
            E::PasswordReset => reset_token(world).await.unwrap(),
            E::EmailChange => email_token(world, &claims, "new@example.com").await.unwrap(),
            E::PhoneChange => phone_code(world, &claims, NEW_PHONE).await.unwrap(),
            E::SecondFactorOn => enrol(world, &claims).await.unwrap(),
            E::PasswordChange
            | E::PasswordChangeKeepingSessions
            | E::SecondFactorOff
            | E::Suspension
            | E::Activation
            | E::Erasure
            | E::RoleChange
            | E::SignOutEverywhere => String::new(),
        };
        Some(Self { member, claims: Some(claims), proof, recovery })
    }

    fn claims(&self) -> &AccessClaims {
        self.claims.as_ref().expect("somebody signed in")
    }
}

async fn enrol(world: &World, claims: &AccessClaims) -> Result<String> {
    let enrolment = world.factors.enrol_totp(claims, &PASSWORD.into(), ADDRESS).await?;
    Ok(enrolment.secret.expose_secret().to_owned())
}

async fn reset_token(world: &World) -> Result<String> {
    let resets = || {
        let inbox = world.inbox.0.lock();
        let tokens = inbox.iter().filter_map(|mail| mail.rendered.body.split_once("reset-password#"));
        tokens.map(|(_, rest)| rest.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sent = resets().len();
    world.credentials.request_reset("mara", &world.solution().await, ADDRESS).await?;
    world.members.sweep().await?;
    world.members.sweep().await?;
    // No mail comes for an account that is locked or gone.
    resets().split_off(sent).pop().ok_or(MemberError::Unauthenticated)
}

async fn email_token(world: &World, claims: &AccessClaims, email: &str) -> Result<String> {
    world.credentials.change_email(claims, &PASSWORD.into(), email, ADDRESS).await?;
    world.members.sweep().await?;
    Ok(world.inbox.token(email))
}

async fn phone_code(world: &World, claims: &AccessClaims, phone: &str) -> Result<String> {
    world.credentials.change_phone(claims, &PASSWORD.into(), phone, ADDRESS).await?;
    world.members.sweep().await?;
    world.members.sweep().await?;
    Ok(world.inbox.code(&format!("+86{phone}")))
}

fn elsewhere(world: &World, password: &str) -> SignIn {
    SignIn { address: ELSEWHERE.into(), ..world.credentials("mara", password) }
}

/// Makes the event happen, by a process of its own.
async fn happen(world: &World, event: CredentialEvent, prepared: &Prepared) -> Result<()> {
    use CredentialEvent as E;
    let (members, member, admin) = (&world.members, &prepared.member, world.admin());
    let password = SecretString::from(PASSWORD);
    match event {
        E::PasswordChange => members.credentials.change_password(prepared.claims(), &password, NEW.into(), true, ADDRESS).await,
        E::PasswordChangeKeepingSessions => {
            members.credentials.change_password(prepared.claims(), &password, NEW.into(), false, ADDRESS).await
        }
        E::PasswordReset => members.credentials.reset_password(&prepared.proof, NEW.into(), ADDRESS).await.map(drop),
        E::EmailChange => members.credentials.confirm_email(&prepared.proof, ADDRESS).await,
        E::PhoneChange => {
            members.credentials.confirm_phone(prepared.claims(), &password, NEW_PHONE, &prepared.proof, ADDRESS).await
        }
        E::SecondFactorOn => {
            members.factors.confirm_totp(prepared.claims(), &code(world, &prepared.proof, 0), ADDRESS).await.map(drop)
        }
        E::SecondFactorOff => members.factors.remove_totp(prepared.claims(), &password, &prepared.recovery[0], ADDRESS).await,
        E::Suspension => members.staff.suspend(&admin, member, None, "test").await,
        E::Activation => members.staff.activate(&admin, member, None, "test").await,
        E::Erasure => members.erase_member(&admin, member).await.map(drop),
        E::RoleChange => members.staff.change_role(&admin, member, None, Some("support")).await,
        E::SignOutEverywhere => members.staff.end_member_sessions(&admin, member).await,
    }
}

/// Begins a thing as somebody who has the password, or the mailbox.
async fn begin(world: &World, thing: Thing, prepared: &Prepared) -> Result<Begun> {
    match thing {
        Thing::Session | Thing::Device => {
            let grant = match world.sign_in.first(elsewhere(world, PASSWORD)).await? {
                SignedIn::Session(grant) => *grant,
                SignedIn::SecondFactor { challenge, .. } => world.sign_in.second(&challenge, &prepared.recovery[1]).await?,
            };
            Ok(match thing {
                Thing::Session => Begun::Session(Box::new(grant)),
                _ => Begun::Device(grant.device.unwrap()),
            })
        }
        Thing::FirstFactor => match world.sign_in.first(elsewhere(world, PASSWORD)).await? {
            SignedIn::SecondFactor { challenge, .. } => Ok(Begun::FirstFactor(challenge)),
            SignedIn::Session(_) => panic!("the second factor was not asked for"),
        },
        Thing::Enrolment => Ok(Begun::Enrolment(enrol(world, prepared.claims()).await?)),
        Thing::Token(TokenKind::Reset) => reset_token(world).await.map(Begun::Token),
        Thing::Token(TokenKind::Email) => email_token(world, prepared.claims(), "evil@example.com").await.map(Begun::Token),
        Thing::Token(TokenKind::Phone) => phone_code(world, prepared.claims(), "13800000002").await.map(Begun::Token),
        Thing::Token(TokenKind::Verify) => {
            world.staff.resend_verification(&world.admin(), &prepared.member).await?;
            // Not until the outbox is empty: time would pass, and the pointer of the event's change would be given up.
            world.members.sweep().await?;
            Ok(Begun::Token(world.inbox.token("mara@example.com")))
        }
    }
}

/// Whether it is still worth something.
async fn is_good(world: &World, thing: Thing, begun: &Begun, prepared: &Prepared) -> bool {
    let members = &world.members;
    let current = async || {
        for password in [NEW, PASSWORD] {
            if members.sign_in.first(world.credentials("mara", password)).await.is_ok() {
                return password;
            }
        }
        PASSWORD
    };
    match (thing, begun) {
        (_, Begun::Session(grant)) => {
            let listed = members.sessions.of(&grant.member).await.unwrap();
            let refreshed = members.sessions.refresh(&grant.refresh_token, ELSEWHERE, "Firefox").await.is_ok();
            refreshed
                || members.sessions.authenticate(grant.access_token.expose_secret()).is_ok()
                || listed.iter().any(|session| session.id == grant.session)
        }
        (_, Begun::FirstFactor(challenge)) => {
            let Some(code) = prepared.recovery.get(3) else { return false };
            members.sign_in.second(challenge, code).await.is_ok()
        }
        (_, Begun::Device(device)) => {
            // A good mark is judged by itself, however often others have failed.
            for number in 0..6 {
                let guess = SignIn { address: format!("203.0.113.{number}"), ..world.credentials("mara", "wrong password") };
                assert!(members.sign_in.first(guess).await.is_err());
            }
            let mut judged = false;
            for password in [PASSWORD, NEW] {
                let mut marked = SignIn { device: Some(device.clone()), ..world.credentials("mara", password) };
                marked.address = "203.0.113.99".into();
                judged |= !matches!(members.sign_in.first(marked).await, Err(MemberError::Throttled { .. }));
            }
            judged
        }
        (_, Begun::Enrolment(secret)) => {
            members.factors.confirm_totp(prepared.claims(), &code(world, secret, 0), ADDRESS).await.is_ok()
        }
        (Thing::Token(TokenKind::Reset), Begun::Token(token)) => {
            members.credentials.reset_password(token, "quux vlor 88 stamp".into(), ADDRESS).await.is_ok()
        }
        (Thing::Token(TokenKind::Email), Begun::Token(token)) => members.credentials.confirm_email(token, ADDRESS).await.is_ok(),
        (Thing::Token(TokenKind::Phone), Begun::Token(code)) => {
            let password = current().await;
            members.credentials.confirm_phone(prepared.claims(), &password.into(), "13800000002", code, ADDRESS).await.is_ok()
        }
        (Thing::Token(TokenKind::Verify), Begun::Token(token)) => {
            members.registrations.verify_email(token, ADDRESS).await.is_ok()
        }
        _ => panic!("{thing:?} is not begun like that"),
    }
}

/// There is one of a kind: beginning it anew takes away what the event is done with.
fn replaces(event: CredentialEvent, thing: Thing) -> bool {
    use CredentialEvent as E;
    matches!(
        (event, thing),
        (E::PasswordReset, Thing::Token(TokenKind::Reset))
            | (E::EmailChange, Thing::Token(TokenKind::Email))
            | (E::PhoneChange, Thing::Token(TokenKind::Phone))
            | (E::SecondFactorOn, Thing::Enrolment)
    )
}

impl World {
    fn epoch_of(&self, member: &str) -> Option<u64> {
        let accounts = self.memory.table("accounts", self.clock.now());
        let account = accounts.into_iter().find(|(of, sort, ..)| of == member && sort == "account");
        account.and_then(|(_, _, account, _)| account["epoch"].as_u64())
    }
}

type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Does something of others before one transaction that was chosen: what the caller has read is old then.
struct Between {
    memory: Arc<Memory>,
    /// Before the epoch is raised; or before anything beside an account is written.
    at_epoch: bool,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Between {
    async fn is_it(&self, Call { table, partition, steps, now }: Call<'_>) -> bool {
        if table != "accounts" || !self.at_epoch {
            return table == "accounts";
        }
        let epoch = |value: &[u8]| serde_json::from_slice::<serde_json::Value>(value).unwrap()["epoch"].as_u64().unwrap();
        let stored = self.memory.read(table, partition, b"account", now).await.unwrap();
        let written = steps.iter().find(|step| step.sort == b"account").map(|step| &step.effect);
        match (stored, written) {
            (Some(stored), Some(Effect::Put { value, .. })) => epoch(value) > epoch(&stored.value),
            _ => false,
        }
    }
}

#[async_trait]
impl Around for Between {
    async fn writes(&self, call: Call<'_>, write: Write<'_>) -> Result<Outcome, StoreError> {
        if self.meanwhile.lock().is_some() && self.is_it(call).await {
            let meanwhile = self.meanwhile.lock().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile().await;
            }
        }
        write.await
    }
}

/// A process in whose store `meanwhile` happens at the chosen transaction; whether it did is in what it gives.
async fn process(world: &World, at_epoch: bool, meanwhile: Meanwhile) -> (World, Arc<Surrounded<Between>>) {
    let around = Between { memory: world.memory.clone(), at_epoch, meanwhile: Mutex::new(None) };
    let between = Arc::new(Surrounded { store: world.memory.clone(), around });
    let process = World { store: between.clone(), ..world.clone() }.another().await;
    *between.around.meanwhile.lock() = Some(meanwhile);
    (process, between)
}

/// What happens for one pair in one order: what was begun, if it was, and whether the event happened.
async fn play(
    world: &World,
    prepared: &Prepared,
    event: CredentialEvent,
    thing: Thing,
    order: Order,
) -> (Option<Begun>, Result<()>) {
    match order {
        Order::Before => {
            let begun = begin(world, thing, prepared).await.ok();
            if event == CredentialEvent::Activation {
                world.staff.suspend(&world.admin(), &prepared.member, None, "test").await.unwrap();
            }
            (begun, happen(world, event, prepared).await)
        }
        Order::Within => {
            if event == CredentialEvent::Activation {
                world.staff.suspend(&world.admin(), &prepared.member, None, "test").await.unwrap();
            }
            let begun: Arc<Mutex<Option<Begun>>> = Arc::default();
            let (at, own, with) = (begun.clone(), world.clone(), prepared.clone());
            let meanwhile: Meanwhile = Box::new(move || {
                Box::pin(async move {
                    let before = own.epoch_of(&with.member);
                    let done = begin(&own, thing, &with).await.ok();
                    // A sweep of its process may have done the event, and what was begun came after that.
                    *at.lock() = done.filter(|_| own.epoch_of(&with.member) == before);
                })
            });
            let (process, between) = process(world, true, meanwhile).await;
            let happened = happen(&process, event, prepared).await;
            assert!(between.around.meanwhile.lock().is_none(), "{event:?} has raised no epoch: {happened:?}");
            let begun = begun.lock().take();
            (begun, happened)
        }
        Order::Around => {
            if event == CredentialEvent::Activation {
                return (None, Ok(())); // Nothing begins while an account is locked.
            }
            let happened: Arc<Mutex<Option<Result<()>>>> = Arc::default();
            let (at, own, with) = (happened.clone(), world.clone(), prepared.clone());
            let meanwhile: Meanwhile = Box::new(move || {
                Box::pin(async move {
                    let done = happen(&own, event, &with).await;
                    *at.lock() = Some(done);
                })
            });
            let (process, between) = process(world, false, meanwhile).await;
            let begun = begin(&process, thing, prepared).await.ok();
            let left = between.around.meanwhile.lock().take();
            if let Some(left) = left {
                left().await; // It began without a transaction on the account.
            }
            let happened = happened.lock().take().unwrap();
            (begun, happened)
        }
    }
}

/// For every credential event × everything that can be begun × every order: it is worth nothing afterwards, and its record is gone.
///
/// If it failed, somebody who had a password, a mailbox or a browser for a moment would keep the account.
#[tokio::test]
async fn v7_4_3_whatever_was_begun_ends_with_every_credential_event() {
    let mut met = 0;
    for event in CredentialEvent::ALL {
        for thing in things() {
            for order in [Order::Before, Order::Within, Order::Around] {
                let case = format!("{event:?} × {thing:?}, {order:?}");
                if order == Order::Around && matches!(thing, Thing::Token(TokenKind::Reset | TokenKind::Verify)) {
                    continue; // Asked for without credentials: it is given after the event, to the address that is good then.
                }
                let world = World::with(unlimited_but_for_failures()).await;
                let Some(prepared) = Prepared::new(&world, event, thing).await else { continue };
                let (begun, happened) = play(&world, &prepared, event, thing, order).await;
                if let Err(error) = &happened {
                    assert!(replaces(event, thing), "{case}: {error:?}");
                    continue;
                }
                met += 1;
                let kept = thing == Thing::Session && !event.ends_sessions();
                world.deliver().await;
                let left: BTreeSet<String> = (world.memory.table("accounts", world.clock.now()).into_iter())
                    .map(|(_, sort, ..)| sort.split('/').next().unwrap().to_owned())
                    .collect();
                let may_stay = match event {
                    CredentialEvent::Erasure => vec!["account"],
                    _ => vec!["account", "known", "session"],
                };
                if let Some(begun) = begun {
                    assert!(left.iter().all(|kind| may_stay.contains(&kind.as_str())), "{case}: left are {left:?}");
                    let good = is_good(&world, thing, &begun, &prepared).await;
                    // Begun with the old password while it changed: with the sessions' leave it is one of them, or it was refused.
                    assert!(!good || kept, "{case}: it is still good");
                    assert!(good || !kept || order == Order::Around, "{case}: it should go on");
                }
            }
        }
    }
    assert!(met > 200, "{met} cases prove little");
}

fn unlimited_but_for_failures() -> kindred_members::MembersConfig {
    let config = unlimited();
    let limits = LimitsConfig { free_failures: 5, ..config.limits };
    kindred_members::MembersConfig { limits, ..config }
}

/// 60 sign-ins with the old password at once with one change: none of them lives. On the store in memory, and on the embedded one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v7_4_2_v7_4_3_no_session_survives_a_race_with_a_credential_event() {
    use CredentialEvent as E;
    for event in
        [E::PasswordChange, E::PasswordReset, E::Suspension, E::Erasure, E::RoleChange, E::SignOutEverywhere, E::SecondFactorOn]
    {
        for (world, _dir) in worlds().await {
            let prepared = Prepared::new(&world, event, Thing::Session).await.unwrap();
            let grants: Arc<Mutex<Vec<Grant>>> = Arc::default();
            let done = Arc::new(Mutex::new(None));
            race(&world, |members, number| {
                let world = World { members, ..world.clone() };
                let (prepared, grants, done) = (prepared.clone(), grants.clone(), done.clone());
                async move {
                    if number == 20 {
                        let happened = happen(&world, event, &prepared).await;
                        *done.lock() = Some(happened);
                    } else if let Ok(SignedIn::Session(grant)) = world.sign_in.first(elsewhere(&world, PASSWORD)).await {
                        grants.lock().push(*grant);
                    }
                    true
                }
            })
            .await;
            assert_eq!(done.lock().take(), Some(Ok(())), "{event:?}");
            let grants = std::mem::take(&mut *grants.lock());
            // Where the password is still good, what began after it may live: those of the account's present epoch.
            let again = matches!(event, E::RoleChange | E::SignOutEverywhere);
            let before = world.another().await;
            for grant in grants {
                let claims = before.members.sessions.authenticate(grant.access_token.expose_secret());
                let refreshed = world.sessions.refresh(&grant.refresh_token, ELSEWHERE, "Firefox").await;
                let lives = claims.is_ok() || refreshed.is_ok();
                assert!(!lives || (again && claims.is_ok_and(|claims| claims.epoch > 0)), "{event:?}: a session of before lives");
            }
        }
    }
}

/// Erasure, suspension, end of sessions, change and reset of a password at the limits of every setting, with more known addresses and
/// every kind of token: they are done at once, and what is left leaves by the outbox. Issue 12: above 60 records it was 503 for ever.
#[tokio::test]
async fn what_grows_is_emptied_in_pieces() {
    use CredentialEvent as E;
    let sessions = kindred_members::SESSIONS_MAX;
    for event in [E::PasswordChange, E::PasswordReset, E::Suspension, E::Erasure, E::RoleChange, E::SignOutEverywhere] {
        let mut config = unlimited();
        config.limits.sessions = sessions;
        let world = World::with(config).await;
        let prepared = Prepared::new(&world, event, Thing::Session).await.unwrap();
        for kind in [TokenKind::Reset, TokenKind::Email, TokenKind::Phone] {
            if !replaces(event, Thing::Token(kind)) {
                begin(&world, Thing::Token(kind), &prepared).await.unwrap();
            }
        }
        let of_member = |kind: &str| {
            let records = world.memory.table("accounts", world.clock.now());
            records.into_iter().filter(|(of, sort, ..)| *of == prepared.member && sort.starts_with(kind)).collect::<Vec<_>>()
        };
        let (_, _, session, until) = of_member("session/").remove(0);
        let step = |sort: String, value: &serde_json::Value| Step::insert(sort, value.to_string().into_bytes(), until);
        let planted: Vec<Step> = (1..sessions)
            .map(|number| step(format!("session/planted{number}"), &session))
            .chain((1..200).map(|number| step(format!("known/planted{number}"), &serde_json::Value::Null)))
            .collect();
        for steps in planted.chunks(60) {
            world.memory.transact("accounts", prepared.member.as_bytes(), steps, world.clock.now()).await.unwrap();
        }
        assert_eq!((of_member("session/").len(), of_member("known/").len()), (sessions, 200));
        assert_eq!(happen(&world, event, &prepared).await, Ok(()), "{event:?}");
        let listed = world.sessions.of(&prepared.member).await.unwrap().len();
        let kept = usize::from(event == E::PasswordChange);
        assert_eq!(listed, kept, "{event:?}: they have ended when it is answered");
        world.deliver().await;
        let known = if event == E::Erasure { 0 } else { KNOWN_MAX };
        assert_eq!(
            (of_member("session/").len(), of_member("known/").len(), of_member("token/").len()),
            (kept, known, 0),
            "{event:?}"
        );
    }
}

/// A member is known at 20 addresses, the newest; one more forgets the oldest.
#[tokio::test]
async fn known_addresses_are_bounded() {
    let world = World::with(unlimited()).await;
    world.member("mara", PHONE).await;
    for number in 0..60 {
        let sign_in = SignIn { address: format!("198.51.100.{number}"), ..world.credentials("mara", PASSWORD) };
        world.sign_in.first(sign_in).await.unwrap();
        world.pass(1);
        let known = world.memory.table("accounts", world.clock.now());
        let known = known.iter().filter(|(_, sort, ..)| sort.starts_with("known/")).count();
        assert!(known <= KNOWN_MAX, "{known} addresses are known");
    }
}

/// A lower limit holds from the next sign-in on, however many sessions there were.
#[tokio::test]
async fn a_lower_limit_of_sessions_holds_at_once() {
    let world = World::with(unlimited()).await;
    world.member("mara", PHONE).await;
    let mut grants = Vec::new();
    for _ in 0..40 {
        world.pass(1);
        grants.push(world.sign_in("mara").await);
    }
    let mut fewer = unlimited();
    fewer.limits.sessions = 3;
    let world = World { config: fewer, ..world }.another().await;
    world.pass(1);
    let last = world.sign_in("mara").await;
    world.deliver().await;
    let listed: Vec<String> = world.sessions.of(&last.member).await.unwrap().into_iter().map(|session| session.id).collect();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0], last.session, "the newest are left");
    for (number, grant) in grants.iter().enumerate() {
        let good = world.sessions.authenticate(grant.access_token.expose_secret()).is_ok();
        assert_eq!(good, number >= 38, "session {number}");
    }
}

/// Lifetimes are read when they are used: a session that began under a longer one ends by the shorter.
#[tokio::test]
async fn v7_3_1_lifetimes_are_read_when_used() {
    let world = World::of_mara().await;
    let grant = world.sign_in("mara").await;
    let mut shorter = config();
    (shorter.tokens.idle_days, shorter.tokens.access_s) = (1, 60);
    let world = World { config: shorter, ..world }.another().await;
    let access = world.sessions.authenticate(grant.access_token.expose_secret());
    assert_eq!(access.err(), Some(MemberError::Unauthenticated), "its life is longer than any may have now");
    world.pass(86_400);
    assert_eq!(world.sessions.of(&grant.member).await.unwrap(), []);
    let refreshed = world.sessions.refresh(&grant.refresh_token, ADDRESS, "Firefox").await;
    assert_eq!(refreshed.err(), Some(MemberError::Unauthenticated));
}

/// The address until then hears that another was asked for, and a new password stops it.
#[tokio::test]
async fn the_old_address_hears_of_a_change_that_is_asked_for() {
    let world = World::of_mara().await;
    let claims = world.claims(&world.sign_in("mara").await);
    let token = email_token(&world, &claims, "evil@example.com").await.unwrap();
    world.deliver().await;
    let told = world.inbox.last("mara@example.com").unwrap();
    assert!(told.rendered.subject.contains("new e-mail address"), "{}", told.rendered.subject);
    assert!(told.rendered.body.contains("/reset-password") && !told.rendered.body.contains("evil"), "{}", told.rendered.body);
    let reset = reset_token(&world).await.unwrap();
    world.credentials.reset_password(&reset, NEW.into(), ADDRESS).await.unwrap();
    assert_eq!(world.credentials.confirm_email(&token, ADDRESS).await, Err(MemberError::TokenGone));
}

/// A lost answer is given again for 30 s to the device that asked, and to no other; beyond that, reuse ends the session.
#[tokio::test]
async fn v10_4_5_a_lost_answer_is_given_again() {
    let again = async |wait: u64, address: &str, label: &str| {
        let world = World::of_mara().await;
        let first = world.sign_in("mara").await;
        let lost = world.sessions.refresh(&first.refresh_token, ADDRESS, "Firefox").await.unwrap();
        world.pass(wait);
        let repeated = world.sessions.refresh(&first.refresh_token, address, label).await;
        (world, first, lost, repeated)
    };
    let (world, first, lost, repeated) = again(29, ADDRESS, "Firefox").await;
    let repeated = repeated.unwrap();
    assert_eq!(repeated.refresh_token.expose_secret(), lost.refresh_token.expose_secret(), "the same successor");
    assert_eq!(repeated.refresh_until, lost.refresh_until);
    assert!(world.sessions.authenticate(repeated.access_token.expose_secret()).is_ok());
    let next = world.sessions.refresh(&repeated.refresh_token, ADDRESS, "Firefox").await.unwrap();
    assert_ne!(next.refresh_token.expose_secret(), repeated.refresh_token.expose_secret());
    // The successor was used: the one before it is old, within the 30 s as well.
    let old = world.sessions.refresh(&first.refresh_token, ADDRESS, "Firefox").await;
    assert_eq!(old.err(), Some(MemberError::Unauthenticated));
    assert_eq!(world.sessions.authenticate(next.access_token.expose_secret()).err(), Some(MemberError::Unauthenticated));
    for (wait, address, label) in [(30, ADDRESS, "Firefox"), (0, ELSEWHERE, "Firefox"), (0, ADDRESS, "Chrome")] {
        let (world, _, lost, repeated) = again(wait, address, label).await;
        assert_eq!(repeated.err(), Some(MemberError::Unauthenticated), "{wait} s, {address}, {label}");
        let family = world.sessions.refresh(&lost.refresh_token, ADDRESS, "Firefox").await;
        assert_eq!(family.err(), Some(MemberError::Unauthenticated), "the session has ended");
    }
}
