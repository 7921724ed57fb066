//! Kill -9 at a write of every kind in a registration, a password change and an erasure: no half member, no lost identity, no
//! lost or duplicated event. `api/members/tests/it/faults.rs` covers every single write in memory; here a process with real
//! stores, log and senders dies. It kills itself at the armed write (`kindred/fail_points.rs`), another one recovers,
//! and the person checks for messages and retries.
//!
//! ```text
//! traced runs ──▶ the last write of each kind ──▶ for each: a person, death after it, restart, the person again, checks
//! ```
//!
//! With `kindred serve` on a directory and with `kindred api` beside a pipeline on services.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::installation::{Installation, Running, key_in};
use crate::people::{self, PASSWORD, Sent, code_in, phone_gateway, smtp_sink, text_of, token_in};
use crate::place::{Backend, on_both_back_ends};
use crate::support::{Answer, PATIENCE, Server, VIEWS, command, interaction, kindred, order, text};

/// A member's points for an invited member, by the default rules.
const POINTS_OF_AN_INVITE: i64 = 100;
/// Text of the mail about a changed password.
const PASSWORD_CHANGED: &str = "password was changed";
/// The new password.
const NEW: &str = "vextro jumbles 93 quip";
/// Traced runs; the writes common to all of them are the ones to die at.
const TRACED_RUNS: u32 = 3;
/// Attempts to die at a write: a run may skip it where another process is first.
const TRIES: u32 = 4;
/// One in this many writes may be in no attempt: two tasks raced for it in each traced run, and in none after.
const RACED_OF: usize = 20;

/// How long an unresponsive process may take to end.
const DYING: Duration = Duration::from_secs(2);

/// The server died during a request.
#[derive(Debug)]
struct Died;

type Alive<T> = Result<T, Died>;

/// A person, and what they know of their registration.
#[derive(Clone, Debug)]
struct Person {
    name: String,
    phone: String,
    password: &'static str,
    /// The invite code they have.
    invite: Option<String>,
    /// Where the process died during their request.
    point: String,
    /// Refused or used codes.
    used: BTreeSet<String>,
    /// The registration was answered.
    accepted: bool,
    /// The link of the mail was answered.
    verified: bool,
    /// The member id, once signed in.
    member: String,
    token: String,
    /// Earliest time of the next retry.
    not_before: Instant,
}

impl Person {
    fn new(n: usize, invite: Option<String>) -> Self {
        Self {
            name: format!("person{n:04}"),
            phone: format!("138{n:08}"),
            password: PASSWORD,
            invite,
            point: String::new(),
            used: BTreeSet::new(),
            accepted: false,
            verified: false,
            member: String::new(),
            token: String::new(),
            not_before: Instant::now(),
        }
    }

    fn email(&self) -> String {
        format!("{}@example.com", self.name)
    }
}

/// The installation: a directory, or topics and a keyspace, with a process that is killed repeatedly.
struct World {
    mails: Sent,
    phones: Sent,
    set: Vec<String>,
    on: On,
    server: Option<Server>,
    /// The file of the fail points.
    points: PathBuf,
    people: usize,
    temp: tempfile::TempDir,
}

enum On {
    Directory(PathBuf),
    Services { on: Installation, key: String, pipeline: Running },
}

impl World {
    fn open(backend: Backend, name: &str) -> Option<Self> {
        let ((smtp, mails), (gateway, phones)) = (smtp_sink(), phone_gateway());
        let mut set = people::settings(smtp, gateway);
        set.extend(["--set".to_owned(), "members.limits.sign_in_failures_hour=10000".to_owned()]);
        let temp = tempfile::tempdir().expect("a directory");
        let points = temp.path().join("points");
        std::fs::create_dir(&points).expect("a directory");
        let on = match backend {
            Backend::Embedded => {
                let dir = temp.path().join("shop");
                std::fs::create_dir(&dir).expect("a directory");
                On::Directory(dir)
            }
            Backend::Services => {
                let on = Installation::with(name, "")?;
                let key = key_in(&on.ok(&["migrate"]));
                let pipeline = on.pipeline();
                On::Services { on, key, pipeline }
            }
        };
        let mut world = Self { mails, phones, set, on, server: None, points, people: 0, temp };
        world.start();
        Some(world)
    }

    fn start(&mut self) {
        let mut command = command(&[]);
        command.env("KINDRED_FAIL_POINTS", &self.points);
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        self.server = Some(match &self.on {
            On::Directory(dir) => Server::start_with(command, dir, &set),
            On::Services { on, key, .. } => on.api_with(command, "api", key, &set),
        });
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    fn person(&mut self, invite: Option<String>) -> Person {
        self.people += 1;
        Person::new(self.people, invite)
    }

    /// Whether the process is alive. It may end only by its own kill.
    fn alive(&mut self) -> Alive<()> {
        let server = self.server.as_mut().expect("it was started");
        let Some(status) = server.ended() else { return Ok(()) };
        assert_eq!(status.signal(), Some(9), "it ended with {status}:\n{}", server.log());
        Err(Died)
    }

    fn send(&mut self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Alive<Answer> {
        // After an answer to an unread body the server closes the connection: retry, like browsers.
        for _ in 0..2 {
            if let Ok(answer) = self.server().try_send(method, path, token, body) {
                return Ok(answer);
            }
            let begin = Instant::now();
            while begin.elapsed() < DYING {
                self.alive()?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("{method} {path}: no answer\n{}", self.server().log());
    }

    /// Arms a fail point, or an unreachable one to trace the writes.
    fn arm(&self, what: &str) {
        let (new, trace) = (self.points.join("new"), self.points.join("trace"));
        std::fs::write(&trace, "").expect("a file");
        std::fs::write(&new, what).expect("a file");
        std::fs::rename(new, self.points.join("armed")).expect("a file");
    }

    fn disarm(&self) {
        std::fs::remove_file(self.points.join("armed")).expect("it was armed");
    }

    fn trace(&self) -> Vec<String> {
        let trace = std::fs::read_to_string(self.points.join("trace")).expect("a trace");
        trace.lines().map(str::to_owned).collect()
    }

    /// Waits until every change in the trace is complete, and nothing has been written for a while.
    fn settle(&mut self) -> Alive<()> {
        let quiet = Duration::from_millis(if matches!(self.on, On::Directory(_)) { 200 } else { 500 });
        let (begin, mut last, mut since) = (Instant::now(), 0, Instant::now());
        let ends = |trace: &[String]| {
            let of = |name: &str| trace.iter().filter(|line| line.starts_with(name)).count();
            of("outbox: put#") == of("outbox: delete#")
        };
        loop {
            self.alive()?;
            let trace = self.trace();
            if trace.len() != last {
                (last, since) = (trace.len(), Instant::now());
            } else if since.elapsed() > quiet && ends(&trace) {
                return Ok(());
            }
            assert!(begin.elapsed() < PATIENCE, "changes do not end: {trace:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Restarts after a death, and waits until unfinished changes are complete, except delayed ones.
    fn restart(&mut self) {
        self.server = None;
        self.arm("never after a death");
        self.start();
        self.settle().expect("it lives");
        self.disarm();
    }

    /// Performs an action once per kind of write, with a new person each time, and dies there. `again` is the person's retry.
    fn at_writes(
        &mut self,
        what: &str,
        mut prepare: impl FnMut(&mut Self) -> Person,
        does: impl Fn(&mut Self, &mut Person) -> Alive<()>,
        again: impl Fn(&mut Self, &mut Person),
    ) -> Vec<Person> {
        let begin = Instant::now();
        let mut people = Vec::new();
        let mut writes: Vec<String> = Vec::new();
        // Request and outbox may both do the work: only writes common to all runs are certain.
        for traced in 0..TRACED_RUNS {
            let mut person = prepare(self);
            self.arm(&format!("never {what} {traced}"));
            does(self, &mut person).and_then(|()| self.settle()).expect("nothing is armed");
            let trace = self.trace();
            match traced {
                0 => writes = trace.into_iter().filter(|name| !name.starts_with("earlier")).collect(),
                _ => writes.retain(|name| trace.contains(name)),
            }
            self.disarm();
            person.point = format!("{what}: nowhere");
            again(self, &mut person);
            people.push(person);
        }
        let writes = of_each_kind(writes);
        let (mut left, mut deaths) = (writes.clone(), 0);
        for _ in 0..TRIES {
            for name in std::mem::take(&mut left) {
                let mut person = prepare(self);
                person.point = format!("{what}: after {name}");
                self.arm(&format!("after {name}"));
                if does(self, &mut person).and_then(|()| self.settle()).is_err() {
                    assert!(self.trace().contains(&name), "it died elsewhere");
                    deaths += 1;
                    self.restart();
                } else {
                    assert!(!self.trace().contains(&name), "{what}: it lived through {name}");
                    self.disarm();
                    left.push(name);
                }
                again(self, &mut person);
                people.push(person);
            }
        }
        eprintln!("{what}: {deaths} deaths in {:.0?}, after {writes:?}", begin.elapsed());
        assert!(left.len() <= writes.len() / RACED_OF, "{what}: never passed: {left:?}");
        people
    }

    fn challenge(&mut self) -> Alive<Value> {
        let made = self.send("POST", "/v1/captcha/challenges", None, None)?;
        assert_eq!(made.status, 201, "{}", made.body);
        Ok(people::solved(&made.json()))
    }

    /// The newest value from a message, except known ones.
    fn came<T>(sent: &Sent, to: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let sent = sent.lock().expect("no sink panics");
        sent.iter().rev().filter(|(of, _)| of == to).find_map(|(_, text)| find(text))
    }

    /// Waits for a message while the server lives.
    fn wait_for<T>(&mut self, sent: &Sent, to: &str, find: impl Fn(&str) -> Option<T>) -> Alive<T> {
        let begin = Instant::now();
        loop {
            if let Some(found) = Self::came(sent, to, &find) {
                return Ok(found);
            }
            self.alive()?;
            assert!(begin.elapsed() < PATIENCE, "nothing came to {to}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn code_of(&self, person: &Person) -> Option<String> {
        Self::came(&self.phones, &format!("+86{}", person.phone), code_in).filter(|code| !person.used.contains(code))
    }

    fn ask_for_code(&mut self, person: &Person) -> Alive<Answer> {
        let asked = json!({ "phone": person.phone, "challenge": self.challenge()?, "language": "en" });
        self.send("POST", "/v1/phone-codes", None, Some(&asked))
    }

    fn send_form(&mut self, person: &Person, code: &str) -> Alive<Answer> {
        let form = json!({
            "username": person.name, "phone": person.phone, "email": person.email(), "password": PASSWORD,
            "challenge": self.challenge()?, "phone_code": code, "agreement_version": "1", "language": "en",
            "invite_code": person.invite,
        });
        self.send("POST", "/v1/registrations", None, Some(&form))
    }

    /// A complete registration.
    fn register(&mut self, person: &mut Person) -> Alive<()> {
        let asked = self.ask_for_code(person)?;
        assert_eq!(asked.status, 202, "{}", asked.body);
        let phones = Sent::clone(&self.phones);
        let code = self.wait_for(&phones, &format!("+86{}", person.phone), code_in)?;
        let answer = self.send_form(person, &code)?;
        assert_eq!(answer.status, 202, "{}", answer.body);
        person.accepted = true;
        let mails = Sent::clone(&self.mails);
        let token = self.wait_for(&mails, &person.email(), token_in)?;
        let verified = self.send("POST", "/v1/email-verifications", None, Some(&json!({ "token": token })))?;
        assert_eq!(verified.status, 200, "{}", verified.body);
        person.verified = true;
        Ok(())
    }

    /// Resumes an interrupted registration: checks for messages, and sends the form again. False if it has to wait.
    fn go_on(&mut self, person: &mut Person) -> Alive<bool> {
        if person.verified {
            return Ok(true);
        }
        if let Some(token) = Self::came(&self.mails, &person.email(), token_in) {
            let verified = self.send("POST", "/v1/email-verifications", None, Some(&json!({ "token": token })))?;
            assert!([200, 410].contains(&verified.status), "{}: {}", person.point, verified.body);
            person.verified = true;
            return Ok(true);
        }
        person.not_before = Instant::now() + Duration::from_millis(500);
        if person.accepted {
            return Ok(false); // The mail will come.
        }
        let Some(code) = self.code_of(person) else {
            let asked = self.ask_for_code(person)?;
            assert!([202, 429].contains(&asked.status), "{}: {}", person.point, asked.body);
            if let Some(seconds) = asked.headers.get("retry-after") {
                let seconds: u64 = seconds.to_str().expect("text").parse().expect("seconds");
                person.not_before = Instant::now() + Duration::from_secs(seconds);
            }
            return Ok(false);
        };
        let answer = self.send_form(person, &code)?;
        match answer.status {
            202 => person.accepted = true,
            // "This code is wrong": it is used up. "This name is taken": the mail will tell by whom.
            422 => drop(person.used.insert(code)),
            409 => {}
            _ => panic!("{}: {} {}", person.point, answer.status, answer.body),
        }
        Ok(false)
    }

    /// Everybody resumes until they are members.
    fn all_go_on(&mut self, people: &mut [Person]) {
        let begin = Instant::now();
        let mut waiting: Vec<&mut Person> = people.iter_mut().collect();
        while !waiting.is_empty() {
            waiting.retain_mut(|person| person.not_before > Instant::now() || !self.go_on(person).expect("it lives"));
            let points: Vec<_> = waiting.iter().map(|person| (&person.point, &person.name)).collect();
            assert!(begin.elapsed() < PATIENCE * 2, "these do not become members: {points:#?}\n{}", self.server().log());
            std::thread::sleep(Duration::from_millis(50));
        }
        for person in people {
            self.sign_in(person);
            let (member, token) = (person.member.clone(), person.token.clone());
            let by_phone = self.try_sign_in(&person.phone, person.password).expect("the phone is theirs");
            assert_eq!(text_of(&by_phone, "member"), member, "{}: two members of one person", person.point);
            (person.member, person.token) = (member, token);
        }
    }

    fn try_sign_in(&mut self, account: &str, password: &str) -> Option<Value> {
        let form = json!({ "account": account, "password": password });
        let signed = self.send("POST", "/v1/sessions", None, Some(&form)).expect("it lives");
        assert!(signed.status < 300 || signed.status == 401, "{account}: {}", signed.body);
        (signed.status < 300).then(|| signed.json())
    }

    fn sign_in(&mut self, person: &mut Person) {
        let signed = self.try_sign_in(&person.name, person.password);
        let signed = signed.unwrap_or_else(|| panic!("{}: {} cannot sign in", person.point, person.name));
        text_of(&signed, "member").clone_into(&mut person.member);
        text_of(&signed, "access_token").clone_into(&mut person.token);
    }

    /// Every member in the staff search: (username, member, state).
    fn members(&self) -> Vec<(String, String, String)> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.server().get_json(&format!("/v1/admin/members?limit=200{cursor}"));
            let field = |member: &Value, field: &str| text_of(member, field).to_owned();
            let members = page["members"].as_array().expect("members");
            found.extend(members.iter().map(|of| (field(of, "username"), field(of, "member"), field(of, "state"))));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        found.sort();
        found
    }

    /// The same, once this many are found: the index is asynchronous.
    fn found(&self, so_many: usize) -> Vec<(String, String, String)> {
        let begin = Instant::now();
        loop {
            let found = self.members();
            if found.len() >= so_many || begin.elapsed() > PATIENCE {
                return found;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The outbox is empty: a pointer without a change is dropped after a minute. The metric is of the last sweep, one a second.
    fn nothing_waits(&self) {
        let (begin, mut since) = (Instant::now(), Instant::now());
        while since.elapsed() < Duration::from_secs(3) {
            let metrics = self.server().metrics();
            let line = metrics.lines().find(|line| line.starts_with("members_outbox_waiting "));
            if line != Some("members_outbox_waiting 0") {
                since = Instant::now();
            }
            assert!(begin.elapsed() < PATIENCE * 2, "the outbox is not emptied:\n{}", self.server().log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The points for invitations, once the views are up to date.
    fn points_of_invites(&self, member: &str) -> i64 {
        caught_up(self.server());
        self.server().get_json(&format!("/v1/members/{member}/points"))["from_invites"].as_i64().expect("points")
    }
}

/// If it failed, a dying process would leave a half registered member, an account with two passwords or none, a half erasure, or
/// a lost or duplicated event.
fn v2_3_3_kill_9_at_the_writes_of_a_member(backend: Backend) {
    if !cfg!(debug_assertions) {
        eprintln!("NOT RUN: a release build has no fail points");
        return;
    }
    let Some(mut world) = World::open(backend, "killed") else { return };
    let (inviter, mut people) = registrations(&mut world);
    password_changes(&mut world, &mut people);
    erasures(&mut world, &inviter, people);
    world.server.take().expect("it runs").stop();
    let conflicts = |status: &Value| status.pointer("/conflicts").or(status.pointer("/pipeline/conflicts")).cloned();
    let status = match &world.on {
        On::Directory(dir) => {
            let verified = kindred(&["verify", "--data", dir.to_str().expect("a path")]);
            assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
            // Each process has read a part of the log; this one reads all of it.
            let whole = Server::start(dir, &["--from", "beginning"]);
            caught_up(&whole);
            whole.get_json("/v1/admin/status")
        }
        On::Services { pipeline, .. } => serde_json::from_str(&pipeline.get("/status").1).expect("JSON"),
    };
    assert_eq!(conflicts(&status), Some(json!(0)), "no version of a record has two contents: {status}");
}
on_both_back_ends!(v2_3_3_kill_9_at_the_writes_of_a_member);

/// The last write of each kind: by table and operation; the log; the senders.
fn of_each_kind(writes: Vec<String>) -> Vec<String> {
    let kind = |name: &str| name.split([' ', '#', ',']).take(2).collect::<Vec<_>>().join(" ");
    let of_ports = writes.into_iter().filter(|name| !name.starts_with("thread") && !name.starts_with("task"));
    of_ports.map(|name| (kind(&name), name)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Everybody becomes a member exactly once. Returns the inviter, and them.
fn registrations(world: &mut World) -> (Person, Vec<Person>) {
    let mut inviter = world.person(None);
    world.register(&mut inviter).expect("nothing is armed");
    inviter.invite = Some({
        world.sign_in(&mut inviter);
        let own = world.server().send("GET", "/v1/members/me", Some(&inviter.token), None).json();
        text_of(&own, "invite_code").to_owned()
    });
    let invite = inviter.invite.clone();
    // A delayed person resumes when all others are done.
    let invited = |world: &mut World| world.person(invite.clone());
    let mut people = world.at_writes("registration", invited, World::register, |_, _| ());
    assert!(people.len() > 15, "{} deaths prove little", people.len());
    world.all_go_on(&mut people);
    let found = world.found(people.len() + 1);
    assert_eq!(found.len(), people.len() + 1, "one member each, and nobody half registered: {found:?}");
    let members: BTreeMap<&str, &str> = found.iter().map(|(name, member, _)| (name.as_str(), member.as_str())).collect();
    for person in &people {
        assert_eq!(members.get(person.name.as_str()), Some(&person.member.as_str()), "{}", person.point);
    }
    assert!(found.iter().all(|(_, _, state)| state == "activated"), "{found:?}");
    (inviter, people)
}

/// Everybody has the old or the new password, and in the end the new one.
fn password_changes(world: &mut World, people: &mut [Person]) {
    let mut next = people.iter();
    let signed_in = |world: &mut World| {
        let mut person = next.next().expect("there are enough").clone();
        world.sign_in(&mut person);
        person
    };
    let change = |world: &mut World, person: &mut Person| {
        let form = json!({ "current_password": PASSWORD, "password": NEW });
        let answer = world.send("POST", "/v1/members/me/password", Some(&person.token), Some(&form))?;
        assert_eq!(answer.status, 204, "{}: {}", person.point, answer.body);
        Ok(())
    };
    let again = |world: &mut World, person: &mut Person| {
        let signs_in = |world: &mut World, password| world.try_sign_in(&person.name, password).is_some();
        let (old, new) = (signs_in(world, PASSWORD), signs_in(world, NEW));
        assert!(old != new, "{}: one password is good (old {old}, new {new})", person.point);
        if old {
            change(world, person).expect("it lives");
            let signs_in = |world: &mut World, password| world.try_sign_in(&person.name, password).is_some();
            assert!(!signs_in(world, PASSWORD) && signs_in(world, NEW), "{}: the new one is good", person.point);
        }
    };
    let changed = world.at_writes("password change", signed_in, change, again);
    for (person, changed) in people.iter_mut().zip(changed) {
        assert_eq!(person.member, changed.member);
        (person.password, person.point) = (NEW, changed.point);
    }
}

/// All side effects happened once.
fn all_is_told(world: &World, inviter: &Person, people: &[Person]) {
    world.nothing_waits();
    let earned = POINTS_OF_AN_INVITE * i64::try_from(people.len()).expect("some");
    assert_eq!(world.points_of_invites(&inviter.member), earned, "the event of every registration is in effect once");
    for person in people {
        // A mail may arrive twice, under one id.
        let sent = world.mails.lock().expect("no sink panics");
        let mails = sent.iter().filter(|(to, text)| *to == person.email() && text.contains(PASSWORD_CHANGED));
        let ids: BTreeSet<&str> =
            mails.filter_map(|(_, text)| text.lines().find(|line| line.starts_with("Message-ID:"))).collect();
        assert_eq!(ids.len(), usize::from(person.password == NEW), "{}: one change is told once: {ids:?}", person.point);
    }
}

/// Some are erased: the results equal those of a shop that never had them, and their names are free.
fn erasures(world: &mut World, inviter: &Person, people: Vec<Person>) {
    // Neighbours buy the same, so that an erasure changes lists.
    let bought = |n: usize, person: &Person| {
        let items = [format!("item{}", n / 2 % 7), format!("item{}", n / 2 % 5 + 7), format!("item{}", n % 3 + 12)];
        let purchases = items.iter().map(|item| interaction(&person.member, item, "purchase", "2026-01-05T10:00:00Z"));
        let id = format!("order{n}");
        let items: Vec<&str> = items.iter().map(String::as_str).collect();
        (purchases.collect::<Vec<_>>(), order(&id, 1, "completed", &person.member, "2026-01-07T12:00:00Z", &items[1..]))
    };
    for (n, person) in people.iter().enumerate() {
        let (purchases, order) = bought(n, person);
        world.server().post_events("interactions", &purchases);
        world.server().post_events("orders", &[order]);
    }
    let mut next = people.iter();
    let signed_in = |world: &mut World| {
        let mut person = next.next().expect("there are enough").clone();
        world.sign_in(&mut person);
        person
    };
    let leave = |world: &mut World, person: &mut Person| {
        let form = json!({ "current_password": person.password });
        let answer = world.send("DELETE", "/v1/members/me", Some(&person.token), Some(&form))?;
        // An unknown member is erased.
        let fine: &[u16] = if person.point.is_empty() { &[200] } else { &[200, 202, 401] };
        assert!(fine.contains(&answer.status), "{}: {} {}", person.point, answer.status, answer.body);
        Ok(())
    };
    let again = |world: &mut World, person: &mut Person| {
        leave(world, person).expect("it lives");
        assert_eq!(world.try_sign_in(&person.name, person.password), None, "{}: they have left", person.point);
    };
    let left = world.at_writes("erasure", signed_in, leave, again);
    assert!(left.len() + 3 < people.len(), "there are some who stay");
    // The inviters of erased members keep the points.
    all_is_told(world, inviter, &people);
    let found = world.members();
    assert_eq!(found.len(), people.len() + 1 - left.len(), "who left is not found, who stays is: {found:?}");

    let never = world.temp.path().join("never");
    std::fs::create_dir(&never).expect("a directory");
    let never = Server::start(&never, &[]);
    let today = text_of(&world.server().get_json(&format!("/v1/members/{}/points", inviter.member)), "as_of").to_owned();
    for (n, person) in people.iter().enumerate() {
        let invited = json!({
            "member": person.member, "version": 1, "state": "activated", "invited_by": inviter.member,
            "activated_at": format!("{today}T00:00:00Z"),
        });
        never.post_events("members", &[invited]);
        if n >= left.len() {
            let (purchases, order) = bought(n, person);
            never.post_events("interactions", &purchases);
            never.post_events("orders", &[order]);
        }
    }
    caught_up(&never);
    for view in VIEWS {
        assert_eq!(world.server().export(view), never.export(view), "{view}: as if those who left had never been");
    }

    // Their names can be registered again.
    let anew = |person: &Person| {
        let Person { name, phone, point, .. } = person.clone();
        Person { name, phone, point, ..Person::new(0, None) }
    };
    let mut anew: Vec<Person> = left.iter().map(anew).collect();
    for sent in [&world.mails, &world.phones] {
        sent.lock().expect("no sink panics").clear();
    }
    world.all_go_on(&mut anew);
    for (before, now) in left.iter().zip(&anew) {
        assert_ne!(before.member, now.member, "{}: another member", before.point);
    }
}

/// Waits until the views have reached the end of the log.
fn caught_up(server: &Server) {
    let begin = Instant::now();
    while server.get_json("/v1/admin/status")["lag"] != 0 {
        assert!(begin.elapsed() < PATIENCE, "the views do not catch up:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}
