//! A store in memory that can be made to fail, a log and a mailbox that keep what they got, and a person who registers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_members::senders::{Channel, Message};
pub use kindred_members::{Actor, MemberError, Members};
use kindred_members::{
    AuditQuery, Entry, EventSink, Grant, Hashes, Language, MembersConfig, Registration, Result, Sender, SignIn, SignedIn,
    Solution,
};
use kindred_model::records::{MemberRecord, MemberState, Membership};
use kindred_model::units::EventTime;
use kindred_store::StoreError;
use kindred_store::records::{Effect, Expect, Outcome, Page, Range, Record, RecordStore, STEPS_MAX, Step, Version};
use parking_lot::Mutex;

pub const PASSWORD: &str = "qzvw kxjp 71 umbra";
pub const ADDRESS: &str = "192.0.2.7";

type Key = (String, Vec<u8>, Vec<u8>);

/// The port's contract on a map. It fails the calls that it is told to, and from then on all, as for a process that has died.
#[derive(Default)]
pub struct Memory {
    records: Mutex<BTreeMap<Key, Record>>,
    versions: AtomicU64,
    calls: AtomicU64,
    /// The call from which on everything fails; 0: none.
    dies_at: AtomicU64,
    /// Whether the call at which it dies is still done.
    done_before: AtomicBool,
}

impl Memory {
    /// Dies at the `call`th call from now, before or after it is done.
    pub fn die_at(&self, call: u64, done_before: bool) {
        self.done_before.store(done_before, Ordering::SeqCst);
        self.calls.store(0, Ordering::SeqCst);
        self.dies_at.store(call, Ordering::SeqCst);
    }

    /// Whether it died; it lives again.
    pub fn revive(&self) -> bool {
        let at = self.dies_at.swap(0, Ordering::SeqCst);
        at > 0 && self.calls.load(Ordering::SeqCst) >= at
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Everything in a table that has not expired: (partition, sort, value).
    pub fn table(&self, table: &str, now: EventTime) -> Vec<(String, String, serde_json::Value, Option<EventTime>)> {
        let records = self.records.lock();
        let of_table = records.iter().filter(|((named, _, _), record)| named == table && alive(record, now));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        of_table
            .map(|((_, partition, sort), record)| {
                (text(partition), text(sort), serde_json::from_slice(&record.value).unwrap(), record.expires_at)
            })
            .collect()
    }

    fn call(&self) -> (bool, Result<(), StoreError>) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let at = self.dies_at.load(Ordering::SeqCst);
        let failed = || Err(StoreError::Unavailable("died".into()));
        match at {
            0 => (true, Ok(())),
            _ if number < at => (true, Ok(())),
            _ if number == at => (self.done_before.load(Ordering::SeqCst), failed()),
            _ => (false, failed()),
        }
    }
}

fn alive(record: &Record, now: EventTime) -> bool {
    record.expires_at.is_none_or(|at| at > now)
}

#[async_trait]
impl RecordStore for Memory {
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
        self.call().1?;
        let records = self.records.lock();
        let found = records.get(&(table.to_owned(), partition.to_vec(), sort.to_vec()));
        Ok(found.filter(|record| alive(record, now)).cloned())
    }

    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError> {
        self.call().1?;
        let records = self.records.lock();
        let mut found: Vec<(Vec<u8>, Record)> = records
            .iter()
            .filter(|((named, own, sort), record)| {
                named == table && own == partition && sort.starts_with(&range.prefix) && alive(record, now)
            })
            .map(|((_, _, sort), record)| (sort.clone(), record.clone()))
            .collect();
        if range.descending {
            found.reverse();
        }
        found.retain(|(sort, _)| {
            range.after.as_ref().is_none_or(|after| if range.descending { sort < after } else { sort > after })
        });
        found.truncate(limit);
        Ok(found)
    }

    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
        let (does, answer) = self.call();
        if !does {
            return answer.map(|()| Outcome::Conflict);
        }
        // Others get in between, as they do on a network.
        tokio::task::yield_now().await;
        let outcome = {
            let mut records = self.records.lock();
            let key = |step: &Step| (table.to_owned(), partition.to_vec(), step.sort.clone());
            let mut sorts: Vec<_> = steps.iter().map(|step| &step.sort).collect();
            sorts.sort();
            sorts.dedup();
            if steps.is_empty() || steps.len() > STEPS_MAX || sorts.len() != steps.len() {
                return Err(StoreError::Refused("no step, too many, or two of one record".into()));
            }
            let holds = |step: &Step| {
                let there = records.get(&key(step)).filter(|record| alive(record, now));
                match step.expect {
                    Expect::Absent => there.is_none(),
                    Expect::Version(version) => there.is_some_and(|record| record.version == version),
                }
            };
            if !steps.iter().all(holds) {
                Outcome::Conflict
            } else {
                let version = Version(u128::from(self.versions.fetch_add(1, Ordering::SeqCst)) + 1);
                for step in steps {
                    match &step.effect {
                        Effect::Put { value, expires_at } => {
                            records.insert(key(step), Record { value: value.clone(), version, expires_at: *expires_at });
                        }
                        Effect::Delete => drop(records.remove(&key(step))),
                        Effect::Check => {}
                    }
                }
                Outcome::Done(version)
            }
        };
        answer?;
        Ok(outcome)
    }
}

/// The log: every record in the order in which it came.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<MemberRecord>>);

#[async_trait]
impl EventSink for Log {
    async fn append(&self, record: MemberRecord) -> Result<(), String> {
        self.0.lock().push(record);
        Ok(())
    }
}

impl Log {
    /// The merged records of members: greatest (erased, version, bytes).
    pub fn merged(&self) -> BTreeMap<String, Membership> {
        let mut merged: BTreeMap<String, Membership> = BTreeMap::new();
        for record in self.0.lock().iter() {
            if let MemberRecord::Member(membership) = record {
                let rank = |membership: &Membership| {
                    let bytes = MemberRecord::Member(membership.clone()).canonical();
                    (membership.state == MemberState::Erased, membership.version, bytes)
                };
                let place = merged.entry(membership.member.to_string()).or_insert_with(|| membership.clone());
                if rank(membership) > rank(place) {
                    *place = membership.clone();
                }
            }
        }
        merged
    }
}

/// Everybody's mailbox and phone.
#[derive(Default)]
pub struct Inbox(pub Mutex<Vec<Message>>);

#[async_trait]
impl Sender for Inbox {
    async fn send(&self, message: Message) -> Result<(), String> {
        self.0.lock().push(message);
        Ok(())
    }
}

impl Inbox {
    /// The last message to somebody.
    pub fn last(&self, to: &str) -> Option<Message> {
        self.0.lock().iter().rev().find(|message| message.to == to).cloned()
    }

    pub fn code(&self, phone: &str) -> String {
        let message = self.last(phone).expect("a code was sent");
        assert_eq!(message.channel, Channel::Phone);
        let digits: String = message.rendered.body.chars().filter(char::is_ascii_digit).collect();
        digits[..6].to_owned()
    }

    pub fn token(&self, mail: &str) -> String {
        let message = self.last(mail).expect("a mail was sent");
        let (_, rest) = message.rendered.body.split_once('#').unwrap_or_else(|| panic!("no token in {}", message.rendered.body));
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

/// One process over a store, a log and a mailbox that others may share.
#[derive(Clone)]
pub struct World {
    pub memory: Arc<Memory>,
    pub store: Arc<dyn RecordStore>,
    pub clock: Clock,
    pub log: Arc<Log>,
    pub inbox: Arc<Inbox>,
    pub config: MembersConfig,
    pub members: Arc<Members>,
}

pub fn config() -> MembersConfig {
    let mut config = MembersConfig { shop_name: "Teahouse".into(), default_language: Language::En, ..MembersConfig::default() };
    config.registration.challenge_bits = 1;
    config.password.threads = 1;
    config
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: MembersConfig) -> Self {
        let memory = Arc::new(Memory::default());
        Self::over(memory.clone(), memory, config).await
    }

    /// With a member, mara.
    pub async fn of_mara() -> Self {
        let world = Self::new().await;
        world.member("mara", "13812345678").await;
        world
    }

    pub async fn over(memory: Arc<Memory>, store: Arc<dyn RecordStore>, config: MembersConfig) -> Self {
        let clock = Clock::fixed(EventTime::parse("now", "2026-11-24T12:00:00Z").unwrap());
        let (log, inbox) = (Arc::new(Log::default()), Arc::new(Inbox::default()));
        let members = open(&store, &clock, &config, &log, inbox.clone()).await.unwrap();
        Self { memory, store, clock, log, inbox, config, members }
    }

    /// Opens another process, or is refused.
    pub async fn open(&self, config: &MembersConfig, sender: Arc<dyn Sender>) -> Result<Arc<Members>> {
        open(&self.store, &self.clock, config, &self.log, sender).await
    }

    /// Another process on the same store.
    pub async fn another(&self) -> Self {
        Self { members: self.open(&self.config, self.inbox.clone()).await.unwrap(), ..self.clone() }
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Lets the outbox run empty.
    pub async fn deliver(&self) {
        for _ in 0..50 {
            if self.members.sweep().await.unwrap() == 0 && self.members.sweep().await.unwrap() == 0 {
                return;
            }
            self.pass(40);
        }
        panic!("the outbox does not run empty");
    }

    pub async fn solution(&self) -> Solution {
        Solution::find(&self.challenges.draw(ADDRESS).await.unwrap())
    }

    /// What a person sends, with the code from the phone.
    pub async fn form(&self, name: &str, phone: &str) -> Result<Registration> {
        let solution = self.solution().await;
        self.registrations.request_phone_code(phone, [None; 3], Language::En, &solution, ADDRESS).await?;
        self.deliver().await;
        self.form_without_code(name, phone, &self.inbox.code(&format!("+86{phone}"))).await
    }

    pub async fn form_without_code(&self, name: &str, phone: &str, code: &str) -> Result<Registration> {
        let challenge = self.challenges.draw(ADDRESS).await?;
        Ok(Registration {
            username: name.into(),
            phone: phone.into(),
            email: format!("{name}@example.com"),
            password: PASSWORD.into(),
            solution: Solution::find(&challenge),
            phone_code: code.into(),
            agreement_version: self.config.agreement_version.clone(),
            invite_code: None,
            language: Some(Language::En),
            marketing_consent: false,
            address: ADDRESS.into(),
        })
    }

    /// A member, registered and verified.
    pub async fn member(&self, name: &str, phone: &str) -> String {
        let form = self.form(name, phone).await.unwrap();
        self.registrations.register(form).await.unwrap();
        self.deliver().await;
        let token = self.inbox.token(&format!("{name}@example.com"));
        let member = self.registrations.verify_email(&token, ADDRESS).await.unwrap();
        self.deliver().await;
        member
    }

    pub fn credentials(&self, account: &str, password: &str) -> SignIn {
        SignIn {
            account: account.into(),
            password: password.into(),
            device: None,
            label: "Firefox".into(),
            address: ADDRESS.into(),
            session: None,
            browses: false,
        }
    }

    pub async fn sign_in(&self, account: &str) -> Grant {
        match self.sign_in.first(self.credentials(account, PASSWORD)).await.unwrap() {
            SignedIn::Session(grant) => *grant,
            SignedIn::SecondFactor { .. } => panic!("no second factor was expected"),
        }
    }

    pub fn claims(&self, grant: &Grant) -> Arc<kindred_members::AccessClaims> {
        use secrecy::ExposeSecret;
        self.sessions.authenticate(grant.access_token.expose_secret()).unwrap()
    }

    /// What the audit log says, read page by page.
    pub async fn audited(&self, mut query: AuditQuery) -> Vec<Entry> {
        let mut all = Vec::new();
        loop {
            let page = self.audit.search(&self.admin(), &query).await.unwrap();
            all.extend(page.items);
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                return all;
            }
        }
    }

    pub fn admin(&self) -> Actor {
        Actor::operator("test")
    }
}

async fn open(
    store: &Arc<dyn RecordStore>,
    clock: &Clock,
    config: &MembersConfig,
    log: &Arc<Log>,
    sender: Arc<dyn Sender>,
) -> Result<Arc<Members>> {
    let hashes = Hashes::WeakForTests;
    Members::open(store.clone(), clock.clone(), config.clone(), log.clone(), sender, hashes).await.map(Arc::new)
}

impl std::ops::Deref for World {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.members
    }
}

/// The fields of a refusal with their codes.
pub fn codes(result: Result<()>) -> Vec<(&'static str, &'static str)> {
    match result {
        Err(MemberError::Invalid(errors)) => errors.into_iter().map(|error| (error.field, error.code)).collect(),
        other => panic!("fields were expected to be refused, not {other:?}"),
    }
}
