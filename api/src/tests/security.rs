//! docs/SECURITY.md: which test proves each requirement, and what each route asks for. Its tables are generated here, from test
//! names and code.
//!
//! ```text
//! fn v7_4_2_… anywhere in the tree ──▶ V7.4.2 ──▶ ROWS ──▶ table      ROUTES, Role::built_in ──▶ tables
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use kindred_members::{Permission, Role};

use crate::routes::endpoint::{Need, endpoints};

const REWRITE: &str = "KINDRED_WRITE_SECURITY=1 cargo test -p kindred-api security";
/// Source folders with tests.
const SOURCES: &[&str] = &["api", "bench", "kindred", "pipeline", "shared", "tests"];

/// The requirements of OWASP ASVS 5.0 that apply (level 1 and 2, and some of 3): (ids with their levels, in our words).
const ROWS: &[(&str, &str)] = &[
    ("V1.2.4 (1)", "what is searched for is a value, never a part of a query"),
    ("V1.2.10 (3)", "reports for people neutralise formulas"),
    ("V1.3.11 (2)", "no CR or LF into the headers of mails"),
    ("V1.4.2 (2)", "points and money do not overflow"),
    ("V2.2.1 (1), V2.2.3 (2)", "every input is judged, also in combination"),
    ("V2.3.1 (1)", "no step is skipped"),
    ("V2.3.2 (2)", "limits of the business are enforced"),
    ("V2.3.3 (2)", "all of it or nothing, wherever a process dies"),
    ("V2.3.4 (2)", "what is there once is given once"),
    ("V2.4.1 (2)", "robots are slowed: quotas, proof of work"),
    ("V3.3.1 (1), V3.3.2 (2), V3.3.3 (2), V3.3.4 (2)", "cookies: Secure, SameSite, `__Host-`, HttpOnly"),
    (
        "V3.4.1 (1), V3.4.2 (1), V3.4.3 (2), V3.4.4 (2), V3.4.5 (2), V3.4.6 (2)",
        "HSTS, origins allowed by key, CSP, nosniff, Referrer-Policy, no frames",
    ),
    ("V3.5.1 (1), V3.5.2 (1), V3.5.3 (1)", "other sites change nothing; GET changes nothing"),
    ("V4.1.1 (1)", "the right Content-Type with its charset"),
    ("V4.1.3 (2), V15.3.4 (2)", "nobody chooses the address that they seem to come from"),
    ("V6.1.1 (1)", "the throttle is documented and locks no owner out"),
    ("V6.2.1 (1), V6.2.5 (1), V6.2.8 (1), V6.2.9 (2)", "passwords: 8 at least, 64 and more, no composition rules, nothing cut"),
    ("V6.2.2 (1), V6.2.3 (1)", "a password is changed, with the current one"),
    ("V6.2.4 (1), V6.2.11 (2), V6.2.12 (2)", "common, own and breached passwords are refused"),
    ("V6.2.10 (2)", "a password does not expire"),
    ("V6.3.1 (1)", "guessing is slow"),
    ("V6.3.2 (1)", "no default accounts"),
    ("V6.3.3 (2)", "staff needs a second factor"),
    ("V6.3.8 (3)", "nobody learns who is registered"),
    ("V6.4.1 (1), V6.4.3 (2)", "resets: random, short-lived, once, and not round the second factor"),
    ("V6.5.1 (2), V6.5.3 (2), V6.5.4 (2), V6.5.5 (2)", "codes: once, random, 20 bits and more, for 30 s (TOTP) and 10 min"),
    ("V6.6.3 (2)", "guessing codes is limited by account"),
    ("V7.2.3 (1), V7.2.4 (1)", "session tokens: 128 random bits and more, new at every sign-in"),
    ("V7.3.1 (2), V7.3.2 (2)", "sessions end after 30 days idle, 90 days in all"),
    ("V7.4.1 (1)", "signing out ends the access token, too"),
    ("V7.4.2 (1), V7.4.5 (2)", "suspension and erasure end every session; staff ends any"),
    ("V7.4.3 (2), V7.5.1 (2), V7.5.2 (2)", "others end after a change; the password again before one; the own sessions are seen"),
    ("V8.2.1 (1), V8.2.2 (1), V8.2.3 (2)", "who may what: by function, by object, by field"),
    (
        "V9.1.1 (1), V9.1.2 (1), V9.1.3 (1), V9.2.1 (1), V9.2.2 (2), V9.2.3 (2)",
        "access tokens: signature, one algorithm, our keys alone, times, type, audience",
    ),
    ("V10.4.5 (1)", "a refresh token used twice ends its session, but for a lost answer that is asked for again"),
    ("V11.4.2 (2)", "argon2id with parameters of the appendix, raised at sign-in"),
    ("V11.5.1 (2)", "secrets are random: 32 bytes"),
    ("V13.2.1 (2), V13.3.1 (2)", "no secret in the source; secrets lie sealed in the database"),
    ("V13.4.2 (2), V13.4.4 (2), V13.4.5 (2)", "no debug, no TRACE, no metrics on the public address"),
    ("V14.2.1 (1), V14.3.2 (2)", "nothing secret in a URL or a log; personal answers are kept nowhere"),
    ("V15.1.2 (2)", "an inventory of what is built in (SBOM)"),
    ("V15.3.1 (1), V15.3.3 (2), V15.3.7 (2)", "no field more out or in than is meant; no parameter twice"),
    (
        "V16.2.1 (2), V16.3.1 (2), V16.3.2 (2), V16.3.3 (2), V16.4.1 (2)",
        "security events with who, what, when, where; refusals; no injected lines",
    ),
    ("V16.5.1 (2), V16.5.2 (2), V16.5.3 (2)", "errors say nothing of the inside, and fail closed"),
];

/// Requirements without a test, and why.
const WAITING: &[(&str, &str)] = &[
    ("V2.3.2", "waits for coupons and spending"),
    ("V2.3.4", "of coupons and points, waits for spending; identities and tokens are raced in `api/members/tests/it/races.rs`"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files below a directory with one of these endings, sorted, without build output.
fn files(below: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(below) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// The ids in the name of a test: `v9_1_v9_2_1_what` has `V9.1` (all of it) and `V9.2.1`.
fn ids(name: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for word in name.split('_') {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match word.strip_prefix('v') {
            Some(chapter) if number(chapter) => ids.push(format!("V{chapter}")),
            _ if number(word) && ids.last().is_some_and(|id| id.matches('.').count() < 2) => {
                let id = ids.last_mut().unwrap();
                *id = format!("{id}.{word}");
            }
            _ => break,
        }
    }
    ids
}

/// The tests named after requirements: (ids, name, file).
fn tests() -> Vec<(Vec<String>, String, String)> {
    let root = root();
    let mut sources = Vec::new();
    SOURCES.iter().for_each(|folder| files(&root.join(folder), &[".rs"], &mut sources));
    let mut tests = Vec::new();
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            // Two tests of one body (tests/place.rs).
            let of_both = line.split_once("on_both_back_ends!(").and_then(|(_, rest)| rest.strip_suffix(");"));
            if let Some((name, ids)) = of_both.map(|name| (name, ids(name))).filter(|(_, ids)| !ids.is_empty()) {
                tests.push((ids, name.to_owned(), shown.clone()));
            }
            if let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ") {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let ids = ids(&name);
                if is_test && !ids.is_empty() {
                    tests.push((ids, name, shown.clone()));
                }
                is_test = false;
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            }
        }
    }
    tests
}

fn requirements() -> String {
    let tests = tests();
    let covers = |of: &str, id: &str| of == id || id.strip_prefix(of).is_some_and(|rest| rest.starts_with('.'));
    let mut text = "| ASVS 5.0 (level) | in our words | proved by |\n|---|---|---|\n".to_owned();
    let mut known = BTreeSet::new();
    for (row, words) in ROWS {
        let mut proofs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut waits = Vec::new();
        for id in row.split(", ").map(|id| id.split(' ').next().unwrap()) {
            assert!(known.insert(id), "{id} stands in two rows");
            let mut proved = false;
            for (_, name, file) in tests.iter().filter(|(ids, ..)| ids.iter().any(|of| covers(of, id))) {
                proofs.entry(file).or_default().insert(name);
                proved = true;
            }
            match (proved, WAITING.iter().find(|(of, _)| *of == id)) {
                (false, Some((_, why))) => waits.push(format!("{id}: {why}")),
                (false, None) => panic!("no test has {id} in its name (fn {}_...)", id.to_lowercase().replace('.', "_")),
                (true, Some(_)) => panic!("{id} has a test, and still stands in WAITING"),
                (true, None) => {}
            }
        }
        let mut cell: Vec<String> = proofs
            .iter()
            .map(|(file, names)| {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("{} ([{file}](../{file}))", names.join(", "))
            })
            .collect();
        cell.extend(waits);
        writeln!(text, "| {row} | {words} | {} |", cell.join("; ")).unwrap();
    }
    text
}

fn routes() -> String {
    let mut text = "| route | asks for | page key | member | staff with | service key |\n|---|---|---|---|---|---|\n".to_owned();
    for route in endpoints() {
        let permission = route.need.permission().map(|permission| format!("`{}`", permission.name())).unwrap_or_default();
        // (asks for, page key, member, staff with, service key)
        let (asks, page, member, staff, service) = match route.need {
            Need::Anyone => ("nothing", "yes", "yes", "yes".to_owned(), "yes"),
            Need::ReadLists => ("`lists:read`, or a member", "with the scope", "yes", "yes".to_owned(), "yes"),
            Need::WriteEvents => ("`events:write`", "with the scope", "no", "no".to_owned(), "yes"),
            Need::SignedIn => ("a member who signed in", "no", "yes", "yes".to_owned(), "no"),
            Need::OwnOr(_) => ("the member it is about", "no", "the own", permission, "yes"),
            Need::Staff(_) => ("a permission", "no", "no", permission, "yes"),
        };
        writeln!(text, "| `{}` | {asks} | {page} | {member} | {staff} | {service} |", route.name).unwrap();
    }
    text
}

fn roles() -> String {
    let roles = Role::built_in();
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let mut text = format!("| permission | every member | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for permission in Permission::ALL {
        let yes = |has: bool| if has { "yes" } else { "" };
        let cells: Vec<&str> =
            roles.iter().map(|role| yes(role.permissions.contains(permission) || permission.is_members())).collect();
        writeln!(text, "| `{}` | {} | {} |", permission.name(), yes(permission.is_members()), cells.join(" | ")).unwrap();
    }
    text
}

/// If it failed, the document would promise a missing test, or hide a route.
#[test]
fn the_committed_tables_are_these() {
    let path = root().join("docs/SECURITY.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = committed.clone();
    for (name, table) in [("requirements", requirements()), ("routes", routes()), ("roles", roles())] {
        let (begin, end) = (format!("<!-- {name}: made by {REWRITE} -->\n"), format!("<!-- end of {name} -->"));
        let from = text.find(&begin).unwrap_or_else(|| panic!("docs/SECURITY.md has no {begin}")) + begin.len();
        let to = from + text[from..].find(&end).unwrap_or_else(|| panic!("docs/SECURITY.md has no {end}"));
        text.replace_range(from..to, &table);
    }
    if std::env::var_os("KINDRED_WRITE_SECURITY").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    assert!(committed == text, "docs/SECURITY.md is another: {REWRITE}");
}

#[test]
fn ids_are_read_from_names() {
    assert_eq!(ids("v7_4_2_suspension"), ["V7.4.2"]);
    assert_eq!(ids("v9_1_v9_2_3_what"), ["V9.1", "V9.2.3"]);
    assert_eq!(ids("v10_4_5_64_refreshes"), ["V10.4.5"]);
    assert!(ids("very_long").is_empty() && ids("r21_300_members").is_empty());
}

/// Kinds of secrets in a text, by their form.
fn secrets_in(text: &str) -> Vec<&'static str> {
    let long = |rest: &str, least: usize| {
        rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count() >= least
    };
    let after = |mark: &str, least: usize| text.match_indices(mark).any(|(at, _)| long(&text[at + mark.len()..], least));
    let mut found = Vec::new();
    if after(&["kd", "sk", ""].join("_"), 40) {
        found.push("a service key");
    }
    let begin = ["-----", "BEGIN "].concat();
    let private = ["PRIVATE", " KEY"].concat();
    if text.match_indices(&begin).any(|(at, _)| text[at..].lines().next().is_some_and(|line| line.contains(&private))) {
        found.push("a private key");
    }
    // Header and claims of a JWT are JSON objects, so both begin the same way.
    if text.match_indices("eyJ").any(|(at, _)| {
        let mut parts = text[at..].split('.');
        let header = parts.next().is_some_and(|part| long(part, 12) && !part.contains(char::is_whitespace));
        header && parts.next().is_some_and(|part| part.starts_with("eyJ")) && parts.next().is_some_and(|part| long(part, 20))
    }) {
        found.push("a token");
    }
    // Sixteen capitals and digits and no more: histograms in base64 have longer runs of letters.
    let capitals = |rest: &str| rest.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).count() == 16;
    let aws = ["AK", "IA"].concat();
    if text.match_indices(&aws).any(|(at, _)| capitals(&text[at + aws.len()..])) {
        found.push("a key of AWS");
    }
    found
}

/// V13.2.1, V13.3.1: no file of the tree has a key, token or private key, and the detector finds them.
#[test]
fn v13_2_1_v13_3_1_no_secret_in_the_source() {
    let letters = "Ab3_".repeat(11);
    for (what, kind) in
        [("RSA ", "a private key"), ("EC ", "a private key"), ("OPENSSH ", "a private key"), ("", "a private key")]
    {
        assert_eq!(secrets_in(&format!("x\n-----{} {what}PRIVATE KEY-----\nMII", "BEGIN")), [kind]);
    }
    assert_eq!(secrets_in(&format!("KEY={}_sk_{letters}", "kd")), ["a service key"]);
    assert_eq!(secrets_in(&format!("\"{0}hbGciOiJFZERTQSJ9.{0}zdWIiOiJtIn0.{letters}\"", "eyJ")), ["a token"]);
    let mut found = Vec::new();
    all_files(&root(), &mut found);
    let named = |name: &str| found.iter().any(|path| path.ends_with(name));
    assert!(found.len() > 300 && named("Dockerfile") && named("up") && named("Cargo.lock"), "{} files", found.len());
    for path in found {
        let secrets = secrets_in(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        assert!(secrets.is_empty(), "{} has {secrets:?} in it", path.display());
    }
}

/// Every file of the tree, without build output and `.git`.
fn all_files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || ["target", ".git", "node_modules"].contains(&&*name) {
            continue;
        }
        if path.is_dir() { all_files(&path, found) } else { found.push(path) }
    }
}
