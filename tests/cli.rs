//! The command line: import, export, verify, forget; the lock and the pinned settings of a directory; error messages.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{AS_OF, PATIENCE, Server, command, interaction, kindred, kindred_ok, order, text};

/// A shop's year in seven rows: two members who bought x and y together, a guest, a credit note, an invalid row.
const ORDERS: &str = "\
order_id,member,item,quantity,unit_price_cents,timestamp_ms,status
A,m1,x,2,100,1767571200000,placed
B,m2,y,1,150,1767571300000,placed
A,m1,y,1,150,1767571260000,placed
B,m2,x,1,100,1767571300000,placed
G,,x,1,100,1767571300000,placed
C1,m1,x,1,100,1767571400000,cancelled
D,m3,z,0,100,1767571400000,placed
";

struct Shop {
    temp: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().expect("a path").to_owned()
    }

    fn data(&self) -> String {
        self.path("shop")
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn export(&self, view: &str) -> String {
        kindred_ok(&["export", view, "--as-of", AS_OF, "--data", &self.data()])
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// Asserts an exit code and words on stderr.
#[track_caller]
fn fails(args: &[&str], expected: i32, words: &[&str]) {
    let output = kindred(args);
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), expected, "kindred {args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "kindred {args:?}: {word:?} is not in: {stderr}");
    }
}

/// If this fails, an imported file is misread, or a command on a directory does not work.
#[test]
fn a_year_of_orders_is_imported_exported_verified_and_a_member_forgotten() {
    let shop = Shop::new();
    let (data, file) = (shop.data(), shop.file("orders.csv", ORDERS));
    let import = ["import", "orders", &file, "--map-status", "placed=completed", "--link-cancellations", "--data", &data];
    let output = kindred(&import);
    let told = text(&output.stdout);
    assert_eq!(code(&output), 1, "a row was turned away: {}{told}", text(&output.stderr));
    for words in
        ["imported 3 orders of 7 rows", "took back 1 of 1 units", "quantity: is 0", "(line 8)", "durable at position o0.3"]
    {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }

    let lists = "item,rank,neighbor,score,co_count,support_item,support_neighbor\nx,1,y,0.816497,2,3,2\ny,1,x,0.816497,2,2,3\n";
    assert_eq!(shop.export("also_bought"), lists);
    // One of m1's two x was returned: (1 + 1) units of 10 points; the guest, an owner above, has none.
    assert_eq!(shop.export("points"), "member,pending,available,from_items,from_invites\nm1,0,20,20,0\nm2,0,20,20,0\n");
    assert_eq!(shop.export("popularity"), "item,kind,day,owners\nx,purchase,2026-01-05,3\ny,purchase,2026-01-05,2\n");
    let ndjson = kindred_ok(&["export", "points", "--format", "ndjson", "--as-of", "2026-01-05", "--data", &data]);
    let first: Value = serde_json::from_str(ndjson.lines().next().expect("a row")).expect("JSON");
    assert_eq!((&first["member"], &first["available"]), (&"m1".into(), &20.into()), "completed the day it was placed");

    // Importing again changes nothing: the log has a mark.
    let again = text(&kindred(&import).stdout);
    assert!(again.contains("3 of them were in the log already"), "{again}");
    assert!(kindred_ok(&["verify", "--data", &data]).starts_with("verified: "));

    let rejected = kindred_ok(&["rejected", "list", "--json", "--data", &data]);
    let rejected: Value = serde_json::from_str(rejected.trim()).expect("one record");
    assert_eq!((&rejected["offset"], &rejected["topic"]), (&8.into(), &"orders".into()));
    let id = rejected["id"].as_str().expect("an id");
    assert!(kindred_ok(&["rejected", "show", id, "--data", &data]).contains("D,m3,z,0,100"));
    assert_eq!(code(&kindred(&["rejected", "retry", "--data", &data])), 1, "it is as wrong as before");

    let told = kindred_ok(&["forget", "m1", "--yes", "--data", &data]);
    assert_eq!(kindred_ok(&["forget", "m1", "--yes", "--data", &data]), told, "once more changes nothing");
    fails(&["forget", "m2", "--data", &data], 2, &["--yes"]);
    fails(&["forget", "nobody", "--yes", "--data", &data], 3, &["unknown member; nothing was erased", "--unknown"]);
    fails(&["forget", "me", "--yes", "--data", &data], 2, &["reserved for the signed-in member"]);
    assert_eq!(shop.export("points"), "member,pending,available,from_items,from_invites\nm2,0,20,20,0\n");
    assert!(shop.export("also_bought").contains("x,1,y,0.707107,1,2,1"), "the pair stands on m2 alone");
    kindred_ok(&["verify", "--data", &data]);

    let status: Value = serde_json::from_str(&kindred_ok(&["status", "--json", "--data", &data])).expect("JSON");
    assert_eq!((&status["lag"], &status["rejected"]), (&0.into(), &1.into()));
    assert_eq!(status["position"], "o0.3-m0.1");
    let people = kindred_ok(&["status", "--data", &data]);
    assert!(people.contains("pipeline   not running") && people.contains("also_bought"), "{people}");
}

/// If this fails, `verify` misses wrong rows, or does not repair them.
#[test]
fn verify_finds_wrong_rows_and_repair_mends_them() {
    use kindred_store::{Change, EpochChanges, ViewReader, ViewWriter};
    let shop = Shop::new();
    let (data, file) = (shop.data(), shop.file("orders.csv", ORDERS));
    kindred(&["import", "orders", &file, "--map-status", "placed=completed", "--data", &data]);
    let right = shop.export("points");
    {
        // A faulty disk: one row is missing, one is another's, one is extra.
        let store = kindred_store::embedded::EmbeddedStore::open(&Path::new(&data).join("store")).expect("the store opens");
        let frontier = store.frontier();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let snapshot = store.snapshot().expect("a snapshot");
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], row: &[u8]| {
            rows.push((key.to_vec(), row.to_vec()));
            std::ops::ControlFlow::Continue(())
        };
        snapshot.rows.scan("points", &[], &mut visit).expect("rows");
        let change = |key: &[u8], row: Option<Vec<u8>>| Change { table: "points", key: key.to_vec(), row };
        let mut stray = rows[0].0.clone();
        stray[0] ^= 1;
        let mut other = rows[1].1.clone();
        other[0] ^= 2;
        let changes = vec![change(&rows[0].0, None), change(&rows[1].0, Some(other)), change(&stray, Some(rows[0].1.clone()))];
        let unit = EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: changes.into() };
        let applied = runtime.block_on(async { store.begin().await?.apply(unit).await });
        applied.expect("it applies");
        runtime.block_on(store.sync()).expect("it syncs");
    }
    let output = kindred(&["verify", "--data", &data]);
    let told = text(&output.stdout);
    assert_eq!(code(&output), 1, "{told}");
    assert!(told.contains("points") && told.contains("no row") && told.contains("DIFFERENT: 3 of"), "{told}");
    let told = kindred_ok(&["verify", "--repair", "--data", &data]);
    assert!(told.contains("mended 3 rows") && told.contains("verified: "), "{told}");
    assert_eq!(shop.export("points"), right);
}

/// If this fails, two processes can write one directory, or the error for the second does not help.
#[test]
fn a_directory_in_use_says_by_whom_and_where_to_ask() {
    let shop = Shop::new();
    let data = shop.data();
    std::fs::create_dir(&data).expect("a directory");
    let server = Server::start(Path::new(&data), &[]);
    let pid = server.pid().to_string();
    let asks = format!("kindred export points --format csv --url {} --key-file {data}/service.key", server.url);
    fails(&["export", "points", "--format", "csv", "--data", &data], 4, &[&pid, "(kindred serve)", &server.url, &asks]);
    fails(
        &["serve", "--listen", "127.0.0.1:0", "--set", "api.admin_listen=127.0.0.1:0", "--data", &data],
        4,
        &["in use", "served already"],
    );

    // What the message suggests works, and so does everything else through the server.
    let at = "2026-01-05T10:00:00Z";
    server.post_events("interactions", &[interaction("a", "x", "purchase", at), interaction("a", "y", "purchase", at)]);
    server.post_events("orders", &[order("P", 1, "paid", "b", at, &["x", "y"])]);
    let remote = ["--url", &server.url, "--key", &server.key];
    let on_server = |args: &[&str]| kindred_ok(&[args, &remote].concat());
    let file = shop.file("orders.csv", ORDERS);
    let import = [&["import", "orders", &file, "--map-status", "placed=completed", "--link-cancellations"], &remote[..]].concat();
    let output = kindred(&import);
    let told = text(&output.stdout);
    assert_eq!(code(&output), 1, "{told}{}", text(&output.stderr));
    assert!(told.contains("imported 3 orders of 7 rows"), "{told}");
    assert!(on_server(&["export", "points", "--as-of", AS_OF]).contains("m1,0,20,20,0"));
    assert!(on_server(&["verify"]).starts_with("verified: "));
    assert!(on_server(&["status"]).contains("pipeline   running"));
    assert!(on_server(&["forget", "m1", "--yes"]).contains("m1 is forgotten"));
    fails(&[&["forget", "nobody", "--yes"], &remote[..]].concat(), 3, &["unknown member; nothing was erased"]);
    assert!(server.delete("/v1/members/me").status >= 400, "it is no member's id");
    let again = server.delete("/v1/members/m1");
    assert_eq!((again.status, &again.json()["erased"]), (200, &true.into()), "asking again answers the same: {}", again.body);
    assert!(!on_server(&["export", "points", "--as-of", AS_OF]).contains("m1"));
    let key = on_server(&["keys", "create", "publishable", "--origin", "https://shop.example"]);
    assert!(key.starts_with("kd_pk_"), "{key}");
    let listed = on_server(&["keys", "list"]);
    let line = listed.lines().find(|line| line.contains("https://shop.example")).expect("it is listed");
    assert!(line.contains("  never used  "), "{line}");
    on_server(&["keys", "revoke", line.split_whitespace().next().expect("an id")]);
    // The server's own key is rotated, in its file as well; both are valid meanwhile.
    let first = on_server(&["keys", "list"]);
    let id = first.split_whitespace().next().expect("an id").to_owned();
    assert!(first.contains("  service  first  ") && first.contains("  used 20"), "{first}");
    let file = Path::new(&data).join("service.key");
    let rotated = on_server(&["keys", "rotate", &id, "--overlap", "1h", "--data", &data]);
    assert!(rotated.starts_with("kd_sk_") && rotated.trim() != server.key, "{rotated}");
    assert_eq!(std::fs::read_to_string(&file).expect("the key's file"), rotated);
    let listed = on_server(&["keys", "list"]);
    let (old, new) = listed.split_once('\n').expect("two keys");
    let successor = new.split_whitespace().next().expect("an id");
    assert!(old.starts_with(&id) && old.contains(&format!("(replaced by {successor}, good until 20")), "{listed}");
    kindred_ok(&["status", "--url", &server.url, "--key", rotated.trim()]);
    fails(&[&["keys", "rotate", &id], &remote[..]].concat(), 3, &["409", successor]);
    fails(&[&["keys", "rotate", "nothing"], &remote[..]].concat(), 3, &["404", "no key"]);
    fails(&[&["keys", "rotate", successor, "--overlap", "31d"], &remote[..]].concat(), 2, &["422", "overlap_seconds"]);
    fails(&["keys", "rotate", successor, "--overlap", "1w", "--data", &data], 2, &["as in 24h"]);
    assert_eq!(on_server(&["rejected", "list"]), "");
    // The key of the directory is found by its name alone.
    kindred_ok(&["status", "--url", &server.url, "--data", &data]);
    fails(&["status", "--url", &server.url, "--key", "kd_sk_wrong"], 3, &["401", "--key"]);
    let url = server.url.clone();
    server.stop();
    fails(&["status", "--url", &url, "--key", "kd_sk_any"], 3, &["does not answer", "kindred serve"]);
    kindred_ok(&["verify", "--data", &data]);

    // On the directory, too. Use survives the server; the next one refuses ended keys.
    let listed = kindred_ok(&["keys", "list", "--data", &data]);
    let used = listed.lines().find(|line| line.starts_with(successor)).expect("it is listed");
    assert!(used.contains("  used 20"), "{listed}");
    let json: Value =
        serde_json::from_str(kindred_ok(&["keys", "list", "--json", "--data", &data]).lines().next().expect("a key"))
            .expect("JSON");
    assert_eq!((&json["id"], &json["replaced_by"]), (&Value::from(id.as_str()), &Value::from(successor)));
    fails(&["keys", "rotate", &id, "--data", &data], 3, &["error: the key is already being replaced by", "keys revoke"]);
    let last = kindred_ok(&["keys", "rotate", successor, "--overlap", "0", "--data", &data]);
    assert_eq!(std::fs::read_to_string(&file).expect("the key's file"), last);
    let server = Server::start(Path::new(&data), &[]);
    assert_eq!(server.key, last.trim());
    kindred_ok(&["status", "--url", &server.url, "--key", &server.key]);
    fails(&["status", "--url", &server.url, "--key", rotated.trim()], 3, &["401"]);
    server.stop();
}

/// If this fails, a typo gets no help, or results of two settings can mix.
#[test]
fn what_is_wrong_is_said_with_what_helps() {
    let shop = Shop::new();
    let data = shop.data();
    fails(&["export", "points", "--data", &data], 3, &["no data directory", "kindred import"]);
    fails(&["export", "point", "--data", &data], 2, &["no view \"point\"", &kindred_model::views::NAMES.join(", ")]);
    let set = ["import", "orders", "-", "--data", &data, "--set", "views.also_bought.windw=3"];
    fails(&set, 2, &["views.also_bought.windw", "did you mean views.also_bought.window?"]);
    fails(&["import", "orders", "/nonexistent.csv", "--data", &shop.path("other")], 3, &["could not open /nonexistent.csv"]);
    fails(&["import", "clicks", "x", "--data", &data], 2, &["interactions", "orders"]);
    fails(&["import", "catalog", "x", "--link-cancellations", "--data", &data], 2, &["are for orders"]);
    fails(&["frobnicate"], 2, &["unrecognized subcommand"]);
    fails(&["keys", "create", "--data", &data], 2, &["--origin https://shop.example"]);

    let file = shop.file("orders.csv", ORDERS);
    let pins = ["--set", "views.also_bought.window=7", "--set", "shop.currency=GBP"];
    // A mistake in the command pins nothing.
    fails(&["import", "orders", &file, "--map", "status=state", "--data", &data], 3, &["no such column"]);
    assert!(!Path::new(&data).exists());
    kindred(&[&["import", "orders", &file, "--data", &data], &pins[..]].concat());
    assert!(kindred_ok(&["config", "show", "--data", &data]).contains("window = 7"));
    fails(&["verify", "--data", &data, "--set", "views.also_bought.window=8"], 2, &["window is 7 there, 8 was given"]);
    kindred_ok(&["verify", "--data", &data, "--set", "views.also_bought.window=7"]);
    std::fs::remove_dir_all(Path::new(&data).join("log")).expect("the log can be removed");
    fails(&["verify", "--data", &data], 3, &["another log", "--from beginning"]);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    fails(
        &["serve", "--data", &shop.path("new"), "--listen", &address],
        3,
        &["could not listen", "choose another with --listen"],
    );
    assert!(!Path::new(&shop.path("new")).exists(), "nothing is made for a server that cannot start");
}

/// If this fails, `kindred export … | head` ends with an error.
#[test]
fn an_export_to_a_closed_pipe_ends_quietly() {
    let shop = Shop::new();
    let mut rows = String::from("member,kind,item,at\n");
    for n in 0..20_000 {
        rows.push_str(&format!("m{n},view,an-item-with-a-long-name-{n},2026-01-05T10:00:00Z\n"));
    }
    let (data, file) = (shop.data(), shop.file("views.csv", rows));
    kindred_ok(&["import", "interactions", &file, "--data", &data]);
    let mut child = command(&["export", "histories", "--data", &data])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = [0; 32];
    std::io::Read::read_exact(&mut child.stdout.take().expect("a pipe"), &mut first).expect("a header");
    assert!(first.starts_with(b"member,session,item,kind,day,at\n"));
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
}

/// If this fails, `kindred views | head -1` or a full disk is reported as a bug.
#[test]
fn an_answer_that_cannot_be_written_is_no_panic() {
    for args in [&["views"][..], &["config", "example"], &["config", "keys"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(args).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""), "{args:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let output = command(&["views"]).stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    let told = text(&output.stderr);
    assert!(code(&output) == 3 && told.contains("could not be written") && told.lines().count() == 1, "{told}");
}

/// If this fails, a killed import loses records, duplicates them, or must start over.
#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let shop = Shop::new();
    let mut lines = String::new();
    let count = 60_000;
    for n in 0..count {
        let (day, minute) = (1 + n % 28, n % 60);
        lines.push_str(&format!(
            "{{\"member\":\"m{n}\",\"kind\":\"purchase\",\"item\":\"i{}\",\"at\":\"2026-01-{day:02}T10:{minute:02}:00Z\"}}\n",
            n % 100
        ));
    }
    let (data, file) = (shop.data(), shop.file("events.ndjson", &lines));
    let import = ["import", "interactions", &file, "--data", &data];
    let in_log = || {
        let output = kindred(&["status", "--json", "--data", &data]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["topics"][0]["next"].as_u64().unwrap_or(0)
    };
    // Killed later each time: while the directory is created, while the file is read, and during the append.
    let mut alive = Duration::from_millis(10);
    while in_log() == 0 {
        let mut child = command(&import).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(alive);
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        alive += alive / 4;
        assert!(alive < PATIENCE, "nothing reaches the log");
    }

    let told = kindred_ok(&import);
    assert!(told.contains("imported 60,000 interactions"), "{told}");
    let status: Value = serde_json::from_str(&kindred_ok(&["status", "--json", "--data", &data])).expect("JSON");
    assert_eq!(status["topics"][0]["next"], count, "every record once: {told}");
    assert_eq!(shop.export("histories").lines().count(), 1 + count);
    // The log is in time order.
    let told = kindred_ok(&import);
    assert!(told.contains("60,000 of them were in the log already"), "{told}");
}

/// If this fails, standard input, compressed files or other topics are not imported.
#[test]
fn files_come_in_any_form() {
    use std::io::Write;
    let shop = Shop::new();
    let data = shop.data();
    let members = "member,version,state,tier,invited_by,registered_at,activated_at\n\
                   ann,1,activated,svip,,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z\n\
                   bob,1,activated,,ann,2026-01-03T00:00:00Z,1767484800000\n";
    kindred_ok(&["import", "members", &shop.file("members.csv", members), "--data", &data]);
    let catalog = "sku,name,price_cents,tags\nx,A tent,1999,outdoor|new\n";
    let catalog = shop.file("products.csv", catalog);
    kindred_ok(&["import", "catalog", &catalog, "--map", "item=sku", "--map", "title=name", "--data", &data]);
    let mut child = command(&["import", "interactions", "-", "--data", &data]).stdin(Stdio::piped()).spawn().expect("it starts");
    let line = interaction("ann", "x", "view", "2026-01-05T10:00:00Z").to_string();
    child.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(shop.export("points"), "member,pending,available,from_items,from_invites\nann,0,100,0,100\n");
    assert_eq!(shop.export("histories").lines().count(), 2);
    let status: Value = serde_json::from_str(&kindred_ok(&["status", "--json", "--data", &data])).expect("JSON");
    assert_eq!(status["position"], "i0.1-c0.1-m0.2");
}

/// If this fails, a command or the list of views is not as documented.
#[test]
fn help_views_and_config_tell_what_there_is() {
    let help = kindred_ok(&["--help"]);
    for word in ["demo", "serve", "import", "export", "verify", "forget", "rejected", "status", "keys", "Exit codes", "--set"] {
        assert!(help.contains(word), "{word} is not in the help");
    }
    let views = kindred_ok(&["views"]);
    assert!(views.contains("also_bought") && views.contains("GET /v1/items/{item}/similar"), "{views}");
    assert!(kindred_ok(&["config", "keys"]).contains("views.also_bought.window = 50"));
    assert!(kindred_ok(&["config", "example"]).contains("[views.also_bought]"));
    let shown = command(&["config", "show", "--set", "pipeline.workers=3"]).output().expect("it runs");
    assert!(text(&shown.stdout).contains("workers = 3") && text(&shown.stdout).contains("--set pipeline.workers=3"));
}
