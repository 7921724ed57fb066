//! Members through the real binary: registered with a real SMTP sink and phone gateway, signed in, raced, suspended and erased;
//! on a directory, and on services with two API processes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::installation::{Installation, Running, key_in};
use crate::people::{self, PASSWORD, Sent, code_in, phone_gateway, smtp_sink, text_of, token_in, wait_for};
use crate::place::Backend;
use crate::support::{Answer, PATIENCE, Server, kindred_ok};

/// A shop with message receivers: one API, or two on services.
pub struct Shop {
    apis: Vec<Server>,
    mails: Sent,
    phones: Sent,
    place: (tempfile::TempDir, Option<(Installation, Running)>),
}

impl Shop {
    /// Opens it; `None` without services.
    pub fn open(backend: Backend, name: &str) -> Option<Self> {
        Self::open_with(backend, name, &[])
    }

    /// The same with more settings, as `path=value`.
    pub fn open_with(backend: Backend, name: &str, more: &[&str]) -> Option<Self> {
        let ((smtp, mails), (gateway, phones)) = (smtp_sink(), phone_gateway());
        let mut set = people::settings(smtp, gateway);
        set.extend(more.iter().flat_map(|more| ["--set".to_owned(), (*more).to_owned()]));
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let temp = tempfile::tempdir().expect("a directory");
        let (apis, on) = match backend {
            Backend::Embedded => {
                let dir = temp.path().join("shop");
                std::fs::create_dir(&dir).expect("a directory");
                (vec![Server::start(&dir, &set)], None)
            }
            Backend::Services => {
                // For the pipeline as well: `erasure.raw_days=0` is a table of its own.
                let table = |set: &&str| set.split_once('.').map(|(table, rest)| format!("[{table}]\n{rest}\n"));
                let on = Installation::with(name, &more.iter().filter_map(table).collect::<String>())?;
                let key = key_in(&on.ok(&["migrate"]));
                let pipeline = on.pipeline();
                (vec![on.api("one", &key, &set), on.api("other", &key, &set)], Some((on, pipeline)))
            }
        };
        Some(Self { apis, mails, phones, place: (temp, on) })
    }

    /// Its directory, where it has one.
    fn place(&self) -> std::path::PathBuf {
        self.place.0.path().join("shop")
    }

    /// One of its APIs.
    pub fn api(&self, n: usize) -> &Server {
        &self.apis[n % self.apis.len()]
    }

    fn send(&self, n: usize, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        self.api(n).send(method, path, token, body)
    }

    fn challenge(&self, n: usize) -> Value {
        let made = self.send(n, "POST", "/v1/captcha/challenges", None, None);
        assert_eq!(made.status, 201, "{}", made.body);
        people::solved(&made.json())
    }

    fn phone_code(&self, n: usize, phone: &str) -> String {
        let asked = json!({ "phone": phone, "challenge": self.challenge(n), "language": "en" });
        let answer = self.send(n, "POST", "/v1/phone-codes", None, Some(&asked));
        assert!(answer.status < 300, "{}", answer.body);
        wait_for(&self.phones, &format!("+86{phone}"), code_in)
    }

    fn form(&self, n: usize, username: &str, phone: &str, code: &str) -> Value {
        json!({
            "username": username, "phone": phone, "email": format!("{username}@example.com"), "password": PASSWORD,
            "challenge": self.challenge(n), "phone_code": code, "agreement_version": "1", "language": "en",
        })
    }

    /// Registers, verifies and signs in.
    pub fn member(&self, n: usize, username: &str, phone: &str) -> Value {
        let code = self.phone_code(n, phone);
        let form = self.form(n, username, phone, &code);
        let answer = self.send(n, "POST", "/v1/registrations", None, Some(&form));
        assert_eq!(answer.status, 202, "{}", answer.body);
        let token = wait_for(&self.mails, &format!("{username}@example.com"), token_in);
        let verified = self.send(n + 1, "POST", "/v1/email-verifications", None, Some(&json!({ "token": token })));
        assert_eq!(verified.status, 200, "{}", verified.body);
        self.sign_in(n, username)
    }

    /// Signs in, once the account is active.
    pub fn sign_in(&self, n: usize, account: &str) -> Value {
        let begin = Instant::now();
        loop {
            let signed = self.send(n, "POST", "/v1/sessions", None, Some(&json!({ "account": account, "password": PASSWORD })));
            if signed.status < 300 {
                return signed.json();
            }
            // Activation is asynchronous.
            assert!(begin.elapsed() < PATIENCE, "{}", signed.body);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a token is accepted, or refused, at every API.
    fn token_answers(&self, token: &str, status: u16, within: Duration) {
        let begin = Instant::now();
        while (0..self.apis.len()).any(|n| self.send(n, "GET", "/v1/members/me", Some(token), None).status != status) {
            assert!(begin.elapsed() < within, "the token is not answered with {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// If it failed, a person could not register, a token would survive a sign-out at another API, or a member's events would not
/// reach the log.
fn a_person_registers_signs_in_and_leaves(backend: Backend) {
    let Some(shop) = Shop::open(backend, "members_life") else { return };
    assert_eq!(shop.api(0).get_json("/v1/admin/members")["members"], json!([]), "there is no default account (V6.3.2)");
    let grant = shop.member(0, "mara", "13800138001");
    let (member, token) = (text_of(&grant, "member").to_owned(), text_of(&grant, "access_token").to_owned());
    shop.token_answers(&token, 200, PATIENCE);
    // The query is data on every backend (V1.2.4): ma' OR '1'='1, ma%, m_ra, *, "; DROP TABLE members.
    for (q, found) in [
        ("ma", 1),
        ("ma%27%20OR%20%271%27%3D%271", 0),
        ("ma%25", 0),
        ("m_ra", 0),
        ("%2A", 0),
        ("%22%3B%20DROP%20TABLE%20members", 0),
    ] {
        let begin = Instant::now();
        let search = || shop.api(0).get_json(&format!("/v1/admin/members?by=username&q={q}"))["members"].as_array().map(Vec::len);
        while search() != Some(found) {
            assert!(begin.elapsed() < PATIENCE, "{q} is found");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    // The registration event is in the log, and points are visible to the member only.
    let placed = shop
        .api(0)
        .post_events("orders", &[crate::support::order("o1", 1, "completed", &member, "2026-01-03T00:00:00Z", &["a", "b"])]);
    let points = format!("/v1/members/me/points?min_position={placed}&wait_ms=10000");
    let points = shop.send(1, "GET", &points, Some(&token), None);
    assert_eq!((points.status, points.json()["available"].as_i64()), (200, Some(20)), "{}", points.body);
    let other = shop.send(0, "GET", "/v1/members/somebody-else/points", Some(&token), None);
    assert_eq!(other.status, 404, "{}", other.body);

    // V7.4.1: across processes, within a second or so; a loaded machine gets longer.
    assert_eq!(shop.send(0, "DELETE", "/v1/sessions/current", Some(&token), None).status, 204);
    shop.token_answers(&token, 401, Duration::from_secs(10));

    // Suspension by the command ends all sessions; activation allows new ones.
    let token = text_of(&shop.sign_in(1, "mara"), "access_token").to_owned();
    let admin = |args: &[&str]| kindred_ok(&[&["admin"], args, &["--url", &shop.api(0).url, "--key", &shop.api(0).key]].concat());
    assert!(admin(&["members", "mar"]).contains(&member));
    assert!(admin(&["members", "mar", "--csv"]).contains(",'+8613800138001,"), "the phone is no formula");
    admin(&["suspend", &member, "--reason", "a test"]);
    shop.token_answers(&token, 401, Duration::from_secs(10));
    let refused = shop.send(0, "POST", "/v1/sessions", None, Some(&json!({ "account": "mara", "password": PASSWORD })));
    assert_eq!(refused.status, 401, "{}", refused.body);
    admin(&["activate", &member, "--reason", "enough"]);
    let token = text_of(&shop.sign_in(0, "mara"), "access_token").to_owned();
    let audit = admin(&["audit", "--subject", &member]);
    assert!(audit.contains("member.suspend") && audit.contains("member.activate"), "{audit}");
    assert!(admin(&["create"]).trim().len() >= 43, "a set-up token has 32 random bytes");

    // V9.1.3: a revoked signing key invalidates its tokens; the session continues.
    let grant = shop.sign_in(0, "mara");
    admin(&["rotate-signing-keys", "--withdraw"]);
    shop.token_answers(&token, 401, Duration::from_secs(10));
    let refresh = json!({ "refresh_token": text_of(&grant, "refresh_token") });
    let begin = Instant::now();
    let token = loop {
        // An API may sign with the revoked key for a second at most.
        let refreshed = shop.send(0, "POST", "/v1/sessions/refresh", None, Some(&refresh));
        assert_eq!(refreshed.status, 200, "{}", refreshed.body);
        let token = text_of(&refreshed.json(), "access_token").to_owned();
        if shop.send(0, "GET", "/v1/members/me", Some(&token), None).status == 200 {
            break token;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "no token is good");
        std::thread::sleep(Duration::from_millis(100));
    };
    shop.token_answers(&token, 200, Duration::from_secs(10));

    // Closing the account removes everything: views answer as if the member had never existed.
    let left = shop.send(0, "DELETE", "/v1/members/me", Some(&token), Some(&json!({ "current_password": PASSWORD })));
    assert_eq!(left.status, 200, "{}", left.body);
    shop.token_answers(&token, 401, Duration::from_secs(10));
    let points = shop.api(1).get_json(&format!("/v1/members/{member}/points"));
    assert_eq!((points["available"].as_i64(), points["pending"].as_i64()), (Some(0), Some(0)));
    assert_eq!(shop.api(0).list_items("a", &placed), Vec::<String>::new());
    // The name is free again. Phone codes are limited to one a minute; and the old mail is invalid.
    shop.mails.lock().expect("no sink panics").clear();
    shop.member(1, "mara", "13800138002");
}
crate::place::on_both_back_ends!(a_person_registers_signs_in_and_leaves);

/// If it failed, two people could own one username, or a stolen refresh token would work beside the member's own.
fn of_many_at_once_one_wins(backend: Backend) {
    let Some(shop) = Shop::open(backend, "members_race") else { return };
    let many = 24;
    let forms: Vec<(usize, Value)> = (0..many)
        .map(|n| {
            let phone = format!("139001390{n:02}");
            let code = shop.phone_code(n, &phone);
            let mut form = shop.form(n, "wanted", &phone, &code);
            form["email"] = json!(format!("wanted-{n}@example.com"));
            (n, form)
        })
        .collect();
    let race = |forms: &[(usize, Value)], path: &str| -> Vec<u16> {
        std::thread::scope(|scope| {
            let send = |(n, form): &(usize, Value)| shop.send(*n, "POST", path, None, Some(form)).status;
            let racers: Vec<_> = forms.iter().map(|form| scope.spawn(move || send(form))).collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
        })
    };
    let statuses = race(&forms, "/v1/registrations");
    let won = statuses.iter().filter(|status| **status == 202).count();
    assert_eq!(won, 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [202, 409, 503].contains(status)), "{statuses:?}");

    let grant = shop.member(0, "rotor", "13700137001");
    let refresh = text_of(&grant, "refresh_token").to_owned();
    let forms: Vec<(usize, Value)> = (0..64).map(|n| (n, json!({ "refresh_token": refresh }))).collect();
    let statuses = race(&forms, "/v1/sessions/refresh");
    assert!(statuses.iter().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    // One device gets one successor: an answer may have been lost.
    let successor = |form: &Value| {
        let answer = shop.send(1, "POST", "/v1/sessions/refresh", None, Some(form));
        assert_eq!(answer.status, 200, "{}", answer.body);
        text_of(&answer.json(), "refresh_token").to_owned()
    };
    let next = successor(&forms[0].1);
    assert_eq!(successor(&forms[0].1), next);
    // V10.4.5: after its use, reuse of the previous one ends the session, the winner's included.
    successor(&json!({ "refresh_token": next }));
    let reused = shop.send(0, "POST", "/v1/sessions/refresh", None, Some(&forms[0].1));
    assert_eq!(reused.status, 401, "{}", reused.body);
    shop.token_answers(text_of(&grant, "access_token"), 401, Duration::from_secs(10));
}
crate::place::on_both_back_ends!(of_many_at_once_one_wins);

/// V1.2.10: no username runs as a formula in a spreadsheet.
#[test]
fn v1_2_10_a_report_for_people_has_no_formulas() {
    let Some(shop) = Shop::open(Backend::Embedded, "members_formulas") else { return };
    for (n, name) in ["-2b", "-cmd.x", "plain"].into_iter().enumerate() {
        let phone = format!("1380013801{n}");
        let code = shop.phone_code(0, &phone);
        let mut form = shop.form(0, name, &phone, &code);
        form["email"] = format!("m{n}@example.com").into();
        let answer = shop.send(0, "POST", "/v1/registrations", None, Some(&form));
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    let list = |more: &[&str]| {
        let target = ["--url", &shop.api(0).url, "--key", &shop.api(0).key];
        kindred_ok(&[&["admin", "members"], more, &target].concat())
    };
    let begin = Instant::now();
    let report = loop {
        let report = list(&["--csv"]);
        if report.lines().count() == 4 {
            break report;
        }
        // The index is asynchronous.
        assert!(begin.elapsed() < PATIENCE, "{report}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut table = csv::Reader::from_reader(report.as_bytes());
    assert_eq!(table.headers().expect("a header").iter().next(), Some("member"));
    let mut names: Vec<String> = table.records().map(|row| row.expect("a row")[2].to_owned()).collect();
    names.sort();
    assert_eq!(names, ["'-2b", "'-cmd.x", "plain"]);
    assert!(!list(&[]).contains("'-2b"), "what is read in a terminal is as it is");
}

/// The files below a directory that contain one of some texts.
fn files_with(dir: &std::path::Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, texts));
            continue;
        }
        // A file may be deleted meanwhile.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let holds = |text: &&&str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        found.extend(texts.iter().filter(holds).map(|text| format!("{text} in {}", path.display())));
    }
    found
}

/// If it failed, a shop's disk would still have names, numbers, searches and views of erased members: in journals and tables of
/// log, store and accounts, or in any row of a database (#12).
fn what_an_erased_person_was_is_nowhere(backend: Backend) {
    let Some(shop) = Shop::open_with(backend, "members_erased", &["erasure.raw_days=0"]) else { return };
    let api = shop.api(0);
    let (name, phone) = ("zephyrine77q", "13807654321");
    let grant = shop.member(0, name, phone);
    let (member, token) = (text_of(&grant, "member").to_owned(), text_of(&grant, "access_token").to_owned());
    shop.token_answers(&token, 200, PATIENCE);
    let at = "2026-05-04T10:00:00Z";
    let session = json!({ "session": "zsession-4711", "version": 1, "merged_into": member });
    api.post_events("members", &[session]);
    api.post_events(
        "interactions",
        &[
            json!({ "member": member, "kind": "search", "query": "zq-divorce-lawyer", "at": at }),
            json!({ "member": member, "kind": "view", "item": "zi-pregnancy-test", "at": at }),
            json!({ "session": "zsession-4711", "kind": "view", "item": "zi-of-the-session", "at": at }),
        ],
    );
    let order = json!({
        "order": "zo-1", "version": 1, "status": "paid", "member": member, "placed_at": at, "currency": "EUR",
        "lines": [{ "line": 1, "item": "z1", "quantity": 1, "unit_price_minor": 100 }],
    });
    let position = api.post_events("orders", &[order]);
    api.get_json(&format!("/v1/members/{member}/history?min_position={position}&wait_ms=10000"));
    let mail = format!("{name}@example.com");
    // A requested, unconfirmed change.
    let change = json!({ "phone": "13907650077", "current_password": PASSWORD });
    let asked = shop.send(0, "POST", "/v1/members/me/phone", Some(&token), Some(&change));
    assert!(asked.status < 300, "{}", asked.body);
    let texts = [name, phone, "13907650077", mail.as_str(), "zq-divorce-lawyer", "zi-pregnancy-test", "zi-of-the-session"];
    let places_with = |texts: &[&str]| match &shop.place.1 {
        None => files_with(&shop.place(), texts),
        Some((services, _)) => services.rows_with(texts),
    };
    for text in texts {
        assert!(!places_with(&[text]).is_empty(), "{text} is nowhere while the person is there: the search finds nothing");
    }
    let erased = api.delete(&format!("/v1/members/{member}"));
    assert_eq!(erased.status, 200, "{}", erased.body);
    let begin = Instant::now();
    loop {
        let found = places_with(&texts);
        if found.is_empty() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{found:#?}\n{}", api.log());
        std::thread::sleep(Duration::from_millis(500));
    }
}
crate::place::on_both_back_ends!(what_an_erased_person_was_is_nowhere);

/// V14.2.1, V16.2.5: no log line at any level has a secret or personal data.
#[test]
fn v14_2_1_v16_2_5_no_line_of_any_thread_names_a_person() {
    let shop = Shop::open_with(Backend::Embedded, "logged", &["telemetry.log=trace"]).expect("a directory");
    let code = shop.phone_code(0, "13800138001");
    let form = shop.form(0, "maraschino", "13800138001", &code);
    assert_eq!(shop.send(0, "POST", "/v1/registrations", None, Some(&form)).status, 202);
    let link = wait_for(&shop.mails, "maraschino@example.com", token_in);
    let verified = shop.send(0, "POST", "/v1/email-verifications", None, Some(&json!({ "token": link })));
    assert_eq!(verified.status, 200, "{}", verified.body);
    let grant = shop.sign_in(0, "maraschino");
    let wrong = "a wrong password of hers";
    shop.send(0, "POST", "/v1/sessions", None, Some(&json!({ "account": "maraschino", "password": wrong })));
    let refresh = json!({ "refresh_token": text_of(&grant, "refresh_token") });
    let refreshed = shop.send(0, "POST", "/v1/sessions/refresh", None, Some(&refresh)).json();
    let reset = json!({ "account": "maraschino", "challenge": shop.challenge(0) });
    assert_eq!(shop.send(0, "POST", "/v1/password-resets", None, Some(&reset)).status, 202);
    let in_reset = |text: &str| Some(text.split_once("reset-password#")?.1.split_whitespace().next()?.to_owned());
    let reset = wait_for(&shop.mails, "maraschino@example.com", in_reset);
    let token = text_of(&refreshed, "access_token").to_owned();
    for path in ["/v1/members/me", "/v1/members/me/sessions", "/v1/members/me/points"] {
        assert_eq!(shop.send(0, "GET", path, Some(&token), None).status, 200, "{path}");
    }
    let left = shop.send(0, "DELETE", "/v1/members/me", Some(&token), Some(&json!({ "current_password": PASSWORD })));
    assert_eq!(left.status, 200, "{}", left.body);
    let log = shop.api(0).log();
    assert!(log.contains("TRACE") && log.contains("/v1/sessions/refresh") && log.contains("member.erase"), "it is logged");
    let member = text_of(&grant, "member");
    let secrets =
        [text_of(&grant, "access_token"), text_of(&grant, "refresh_token"), text_of(&grant, "device"), &token, &link, &reset];
    for secret in secrets.into_iter().chain([PASSWORD, wrong, "maraschino", "13800138001", member]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

/// Whatever the umask, nothing in a data directory is readable by others, and no signing seed is in clear. If it failed, any user
/// of the machine could sign an administrator's tokens.
#[cfg(unix)]
#[test]
fn v13_3_1_a_directory_is_private_and_its_seeds_are_sealed() {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    fn files(path: &Path, found: &mut Vec<PathBuf>) {
        found.push(path.to_owned());
        if path.is_dir() {
            std::fs::read_dir(path).expect("a directory").for_each(|entry| files(&entry.expect("an entry").path(), found));
        }
    }
    let all = |path: &Path| {
        let mut found = Vec::new();
        files(path, &mut found);
        found
    };
    let open = |path: &Path| {
        let mut found = all(path);
        found.retain(|path| std::fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o077 != 0);
        found
    };
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("shop");
    let under_a_wide_umask = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kindred")]).args(args);
        command
    };
    let orders = temp.path().join("orders.ndjson");
    let order = crate::support::order("o1", 1, "completed", "m1", "2026-01-03T00:00:00Z", &["a", "b"]);
    std::fs::write(&orders, order.to_string()).expect("a file");
    let (at, from) = (dir.display().to_string(), orders.display().to_string());
    let import = ["import", "orders", from.as_str(), "--data", at.as_str()];
    let imported = under_a_wide_umask(&import).output().expect("it runs");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(open(&dir), Vec::<PathBuf>::new(), "after import");

    // A readable file, as earlier versions made it, is tightened with a warning.
    for path in all(&dir) {
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o055)).expect("it is ours");
    }
    let server = Server::start_with(under_a_wide_umask(&[]), &dir, &[]);
    assert!(server.log().contains("could be read by other users"), "{}", server.log());
    assert_eq!(server.get("/.well-known/jwks.json").status, 200);
    assert_eq!(open(&dir), Vec::<PathBuf>::new(), "while it serves");
    server.stop();
    assert_eq!(open(&dir), Vec::<PathBuf>::new(), "after it served");
    assert!(dir.join("sealing.key").is_file());
    let sealed = all(&dir.join("records")).into_iter().filter(|path| path.is_file()).any(|path| {
        let bytes = std::fs::read(path).expect("it is ours");
        let seeds = bytes.windows(8).filter(|window| window == b"\"seed\":\"");
        let clear = bytes.windows(16).any(|window| window.starts_with(b"\"seed\":\"") && !window.ends_with(b"sealed.1"));
        assert!(!clear, "a seed lies there in clear");
        seeds.count() > 0
    });
    assert!(sealed, "the test looks for what is there");
}

/// If it failed, `forget` on a directory would leave the account: its data, and a person who can sign in.
#[test]
fn forgetting_on_a_directory_erases_the_account_as_well() {
    let mut shop = Shop::open(Backend::Embedded, "forgotten").expect("a directory");
    let member = text_of(&shop.member(0, "mara", "13800138001"), "member").to_owned();
    let dir = shop.place();
    let data = dir.to_str().expect("a path").to_owned();
    shop.apis.remove(0).stop();
    let told = kindred_ok(&["forget", &member, "--yes", "--data", &data]);
    assert!(told.contains("is forgotten"), "{told}");
    shop.apis.push(Server::start(&dir, &[]));
    let account = shop.api(0).get(&format!("/v1/admin/members/{member}"));
    assert_eq!(account.status, 404, "{}", account.body);
    assert_eq!(shop.api(0).get_json("/v1/admin/members?q=mara")["members"], json!([]), "no index leads to the person");
    let signed = shop.send(0, "POST", "/v1/sessions", None, Some(&json!({ "account": "mara", "password": PASSWORD })));
    assert_eq!(signed.status, 401, "{}", signed.body);
}
