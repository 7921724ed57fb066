//! Files and commands as shops have them: silent data loss is reported, with help.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{AS_OF, Server, command, kindred, kindred_ok, order, output, text};

const HEADER: &str = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path").to_owned()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// A file of one order of two units of tea.
    fn order(&self, name: &str, id: &str, status: &str) -> String {
        self.write(name, format!("{HEADER}\n{id},ann,tea,2,500,1767600000000,{status}\n"))
    }
}

/// Exit code, stdout and stderr of a command.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = kindred(args);
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}

/// If this fails, a typo writes made-up orders into a shop's log, irreversibly.
#[test]
fn nothing_is_written_without_a_command_and_by_the_demo_into_its_own_alone() {
    let files = Files::new();
    let data = files.path("shop");
    kindred_ok(&["import", "orders", &files.order("o.csv", "A", "paid"), "--data", &data]);
    let before = kindred_ok(&["status", "--json", "--data", &data]);
    let config = files.write("kindred.toml", format!("[data]\ndir = {data:?}\n"));

    let bare = command(&[]);
    let mut here = bare;
    here.current_dir(files.0.path());
    let told = output(here, crate::support::PATIENCE);
    assert!(told.status.success() && text(&told.stdout).contains("Usage: kindred"), "{told:?}");
    let (code, _, stderr) = run(&["demo", "--data", &data, "--listen", "localhost:0"]);
    assert!(code == 3 && stderr.contains("was not made by the demo") && stderr.contains("--data NEW"), "{code} {stderr}");
    let after = kindred_ok(&["status", "--json", "--config", &config]);
    let topics = |status: &str| serde_json::from_str::<Value>(status).expect("JSON")["topics"].clone();
    assert_eq!(topics(&before), topics(&after));
    assert!(!files.0.path().join("kindred-demo").exists());
    assert_eq!(run(&["--data", &data]).0, 2);
}

/// If this fails, a newer export of a shop is ignored silently.
#[test]
fn a_second_content_under_a_version_is_told_with_its_ids() {
    let files = Files::new();
    let data = files.path("shop");
    let (monday, tuesday) = (files.order("mon.csv", "A", "paid"), files.order("tue.csv", "A", "cancelled"));
    kindred_ok(&["import", "orders", &monday, "--data", &data]);
    kindred_ok(&["import", "orders", &monday, "--data", &data]);
    let (code, told, _) = run(&["import", "orders", &tuesday, "--data", &data]);
    assert_eq!(code, 1, "{told}");
    for words in ["1 id has two contents under one version: A", "--version 2", "--version-from COLUMN"] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
    // Again, as after a kill: the records are in the log, and it is still reported.
    let told = run(&["import", "orders", &tuesday, "--version", "2", "--data", &data]);
    assert!(
        told.0 == 0 && !told.1.contains("counts") && !told.1.contains("conflicts"),
        "a cancellation is news enough: {told:?}"
    );
    assert!(kindred_ok(&["export", "points", "--as-of", AS_OF, "--data", &data]).lines().count() == 1, "it is cancelled");
    let told = run(&["import", "orders", &monday, "--data", &data]);
    assert!(told.1.contains("of a lower version"), "{told:?}");

    let updated = |name: &str, status: &str, at: &str| {
        files.write(name, format!("{HEADER},updated_at\nB,ann,cup,1,500,1767600000000,{status},{at}\n"))
    };
    let (one, two) = (updated("1.csv", "paid", "2026-01-05T10:00:00Z"), updated("2.csv", "completed", "2026-01-06T10:00:00Z"));
    for file in [&two, &one] {
        kindred_ok(&["import", "orders", file, "--version-from", "updated_at", "--data", &data]);
    }
    assert!(kindred_ok(&["export", "member_orders", "--data", &data]).contains("completed"));

    let server = Server::start(Path::new(&data), &[]);
    let key_file = format!("{data}/service.key");
    let remote = ["--url", &server.url, "--key-file", &key_file];
    let on_server = |args: &[&str]| run(&[args, &remote[..]].concat());
    let (code, told, stderr) = on_server(&["import", "orders", &files.order("c1.csv", "C", "paid")]);
    assert_eq!(code, 0, "{told}{stderr}");
    let (code, told, _) = on_server(&["import", "orders", &files.order("c2.csv", "C", "completed")]);
    assert!(code == 1 && told.contains("two contents under one version: C"), "{code} {told}");
    // In quick succession, faster than the views: the answer knows.
    let at = "2026-01-05T10:00:00Z";
    let post = |record: &Value| server.post("/v1/events/orders", "application/json", record.to_string().as_bytes()).json();
    let first = post(&order("D", 1, "placed", "ann", at, &["tea"]));
    assert_eq!((first.get("conflicts"), first["results"][0].get("conflict")), (None, None), "{first}");
    let second = post(&order("D", 1, "paid", "ann", at, &["tea"]));
    assert_eq!((&second["conflicts"], &second["results"][0]["conflict"]), (&json!(1), &json!(true)), "{second}");
    assert_eq!(post(&order("D", 2, "paid", "ann", at, &["tea"])).get("conflicts"), None);
    let position = post(&order("E", 1, "paid", "ann", at, &["tea"]))["position"].as_str().expect("a position").to_owned();
    server.list("tea", &position);
    let (_, status, _) = on_server(&["status"]);
    assert!(status.contains("conflicts") && status.contains("orders D") && status.contains("orders C"), "{status}");
    // A byte order mark before JSON and NDJSON.
    let marked = format!("\u{feff}{}", order("F", 1, "paid", "ann", at, &["tea"]));
    for kind in ["application/json", "application/x-ndjson"] {
        assert_eq!(server.post("/v1/events/orders", kind, marked.as_bytes()).json()["accepted"], 1, "{kind}");
    }
    let me =
        server.post("/v1/events/orders", "application/json", order("G", 1, "paid", "me", at, &["tea"]).to_string().as_bytes());
    assert!(me.status == 422 && me.body.contains("reserved for the signed-in member"), "{me:?}");
    server.stop();
}

/// If this fails, rows are lost silently, or a file is refused without help. `kindred/import/tests.rs` has every form and mistake.
#[test]
fn what_a_file_has_is_imported_or_told() {
    let files = Files::new();
    let data = files.path("shop");
    let import = |topic: &str, file: &str, more: &[&str]| run(&[&["import", topic, file, "--data", &data], more].concat());
    let utf_16: Vec<u8> = "\u{feff}item;title;price\r\nkaffee;Kaffee für zwei;12,90\r\ntee;Tee;3\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let catalog = files.write("c.csv", utf_16);
    let (code, told, stderr) = import("catalog", &catalog, &["--map", "price_minor=price"]);
    assert!(code == 3 && stderr.contains("--decimal-money"), "{code} {told}{stderr}");
    assert!(!Path::new(&data).exists(), "what failed has made nothing");
    let (code, told, _) = import("catalog", &catalog, &["--map", "price_minor=price", "--decimal-money"]);
    assert!(code == 0 && told.contains("imported 2 items"), "{code} {told}");
    let local = files.write("l.csv", format!("{HEADER}\nL,ann ,tea,1,500,2026-01-05 10:00:00,placed\n"));
    let (code, told, _) = import("orders", &local, &[]);
    assert!(code == 1 && told.contains("--time-zone"), "{code} {told}");
    let (code, told, _) = import("orders", &local, &["--time-zone", "Europe/Berlin"]);
    assert!(
        code == 1 && told.contains("none of these orders counts") && told.contains("--map-status placed=paid"),
        "{code} {told}"
    );
    assert!(told.contains("blanks around ids were taken off, of 1 value"), "{told}");
    let sheet = files.write("s.csv", "item,title\nkaffee,Kaffee\n,\n  ,  \n");
    let (code, told, _) = import("catalog", &sheet, &["--version", "2"]);
    assert!(code == 0 && told.contains("skipped: 2 rows without a value") && !told.contains("blanks"), "{code} {told}");
}

/// If this fails, a change leaves no audit entry, or rejected records cannot be removed.
#[test]
fn what_a_command_changes_is_in_the_audit_log() {
    let files = Files::new();
    let data = files.path("shop");
    let bad = files.write("o.csv", format!("{HEADER}\nA,ann,tea,1,500,1767600000000,paid\nB,ann,tea,0,500,1767600000000,paid\nC,ann,tea,0,500,1767600000000,paid\n"));
    assert_eq!(run(&["import", "orders", &bad, "--data", &data]).0, 1);
    assert_eq!(run(&["import", "orders", &bad, "--data", &data]).0, 1, "the same once more");
    // Lines of another file of that name are other records.
    let bad = files.write("o.csv", format!("{HEADER}\nA,ann,tea,1,500,1767600000000,paid\nB,ann,tea,0,-1,1767600000000,paid\n"));
    assert_eq!(run(&["import", "orders", &bad, "--data", &data]).0, 1);
    let key = kindred_ok(&["keys", "create", "service", "--name", "shop", "--data", &data]);
    let listed = kindred_ok(&["keys", "list", "--data", &data]);
    let id = listed
        .lines()
        .find(|line| line.contains("  shop  "))
        .and_then(|line| line.split_whitespace().next())
        .expect("it is listed");
    let rotated = kindred_ok(&["keys", "rotate", id, "--overlap", "1h", "--data", &data]);
    assert_ne!(key, rotated);
    kindred_ok(&["keys", "revoke", id, "--data", &data]);
    let ids: Vec<String> = kindred_ok(&["rejected", "list", "--data", &data])
        .lines()
        .map(|line| line.split("  ").next().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(kindred_ok(&["rejected", "delete", &ids[0], "--data", &data]).contains("1 rejected record is deleted"));
    assert_eq!(run(&["rejected", "delete", &ids[0], "--data", &data]).0, 3);
    assert_eq!(run(&["rejected", "delete", "--data", &data]).0, 2);
    kindred_ok(&["rejected", "delete", "--all", "--yes", "--data", &data]);
    assert_eq!(kindred_ok(&["rejected", "list", "--data", &data]), "");
    kindred_ok(&["forget", "ann", "--yes", "--data", &data]);
    kindred_ok(&["replay", "--generation", "other", "--once", "--data", &data]);

    let server = Server::start(Path::new(&data), &["--from", "beginning"]);
    let audit = kindred_ok(&["admin", "audit", "--json", "--url", &server.url, "--key-file", &format!("{data}/service.key")]);
    let kinds: Vec<(String, String)> = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|entry| {
            entry["actor"].as_str().is_some_and(|actor| actor.starts_with("operator:") && actor != "operator:unknown")
                && entry["ok"] == true
        })
        .map(|entry| {
            (entry["kind"].as_str().unwrap_or_default().to_owned(), entry["subject"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    for (kind, subject) in [
        ("key.create", "shop"),
        ("key.rotate", id),
        ("key.revoke", id),
        ("rejected.drop", ids[0].as_str()),
        ("member.erase", "ann"),
        ("generation.create", "other"),
        ("views.rebuild", "g1"),
    ] {
        assert!(kinds.iter().any(|(of, about)| of == kind && about == subject), "{kind} {subject} is not in {kinds:?}");
    }
    server.stop();
}
