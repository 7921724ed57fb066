//! Failures of the process: a panic ends it, a hang is reported, a start killed in any step loses nothing, and no metric stops it
//! (#12).

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::place::{Backend, Place, on_both_back_ends};
use crate::support::{PATIENCE, Points, Server, VIEWS, kindred, kindred_ok, order, text, until, until_so};

/// The exit code of a failed process.
const FAILED: i32 = 3;

/// The exit status of a server that ends by itself.
fn end_of(server: &mut Server) -> (ExitStatus, Duration) {
    let begin = Instant::now();
    let status = until(PATIENCE, || "it runs on".to_owned(), || server.ended());
    (status, begin.elapsed())
}

/// Order `n` of member `m<n % 3>`, of shared items.
pub fn some_order(n: usize, version: u64, status: &str) -> Value {
    let items: Vec<String> = (n..n + 4).map(|item| format!("i{}", item % 7)).collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    order(&format!("o{n}"), version, status, &format!("m{}", n % 3), "2026-05-04T10:00:00Z", &items)
}

/// All exports of a directory.
fn exports(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path");
    VIEWS.iter().map(|view| kindred_ok(&["export", view, "--format", "csv", "--as-of", "2026-06-30", "--data", dir])).collect()
}

/// If it failed, an order paid and cancelled in turns would end the pipeline at the tenth version: a memory metric became
/// negative. The metric must equal a restart's.
#[test]
fn an_order_that_is_paid_and_cancelled_in_turns_stops_nothing() {
    for workers in ["1", "2"] {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path().join("shop");
        std::fs::create_dir(&dir).expect("a directory");
        let set = format!("pipeline.workers={workers}");
        let server = Server::start(&dir, &["--set", &set]);
        let items =
            |from: usize| (0..20).map(|n| format!("c{n}")).chain((from..from + 20).map(|n| format!("i{n}"))).collect::<Vec<_>>();
        let of = |name: &str, version, status, member, from| {
            let items = items(from);
            order(name, version, status, member, "2026-05-04T10:00:00Z", &items.iter().map(String::as_str).collect::<Vec<_>>())
        };
        server.post_events("orders", &[of("a", 1, "paid", "ann", 100)]);
        let mut position = String::new();
        for version in 1..=41 {
            let status = if version % 2 == 1 { "paid" } else { "cancelled" };
            position = server.post_events("orders", &[of("b", version, status, "ben", 200)]);
            // Each is its own epoch.
            server.list("c0", &position);
        }
        assert_eq!(server.list("c0", &position)["items"].as_array().expect("items").len(), 12);
        let status = server.get_json("/v1/admin/status");
        assert_eq!(status["pipeline"]["state"], "running", "{status}");
        let figure = |status: &Value| status["pipeline"]["similarity_bytes"].as_u64().expect("a figure");
        let churned = figure(&status);
        server.stop();
        let server = Server::start(&dir, &["--set", &set]);
        let fresh = figure(&server.get_json("/v1/admin/status"));
        assert!(churned >= fresh && churned < 2 * fresh, "{churned} bytes after churn, {fresh} after a restart");
        server.stop();
        kindred_ok(&["verify", "--data", dir.to_str().expect("a path")]);
    }
}

/// If it failed, a panic in one thread would block the others: the shop would stall while readiness, status and every 202 report
/// success, and SIGTERM would not end it.
#[test]
fn a_panic_in_any_thread_ends_the_process_and_loses_nothing() {
    for (workers, thread) in [
        (1, "thread: worker 0"),
        (4, "thread: worker 3"),
        (3, "thread: source"),
        (2, "thread: sink"),
        (1, "thread: figures"),
        (1, "thread: sweeper"),
        (2, "thread: store-writer"),
        (1, "thread: log-writer"),
        (1, "thread: records-writer"),
        (1, "task: members"),
    ] {
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, points) = (temp.path().join("shop"), Points::new(temp.path()));
        std::fs::create_dir(&dir).expect("a directory");
        let set = format!("pipeline.workers={workers}");
        let mut server = Server::start_with(points.command(), &dir, &["--set", &set, "--set", "erasure.raw_days=0"]);
        let mut accepted: Vec<Value> = (0..3).map(|n| some_order(n, 1, "paid")).collect();
        server.post_events("orders", &accepted);
        points.arm(&format!("panic {thread}#1"));
        // Every worker has a share of several topics; unanswered records were not accepted.
        let order = some_order(3, 1, "paid");
        let body = order.to_string();
        if server.try_post("/v1/events/orders", "application/json", body.as_bytes()).is_some_and(|answer| answer.status == 202) {
            accepted.push(order);
        }
        for topic in ["interactions", "catalog", "members"] {
            let body = match topic {
                "interactions" => json!({ "member": "m1", "item": "i1", "kind": "view", "at": "2026-05-04T10:00:00Z" }),
                "catalog" => json!({ "item": "i1", "version": 1, "kind": "good", "title": "One" }),
                _ => json!({ "member": "m9", "version": 1, "state": "activated" }),
            };
            server.try_post(&format!("/v1/events/{topic}"), "application/json", body.to_string().as_bytes());
        }
        if thread == "task: members" || thread == "thread: records-writer" {
            let _ = server.try_send("POST", "/v1/captcha/challenges", None, None);
        }
        let (status, took) = end_of(&mut server);
        assert_eq!(status.code(), Some(FAILED), "{thread} of {workers}: {}", server.log());
        assert!(server.log().contains("panicked"), "{thread}: {}", server.log());
        eprintln!("{thread} of {workers} workers: ended {took:.1?} after the last request");
        points.disarm();
        let server = Server::start(&dir, &[]);
        // It is ready with the restored state, and applies the backlog now.
        server.caught_up();
        let orders = server.get_json("/v1/members/m0/orders");
        let lag = server.get_json("/v1/admin/status");
        let expected = accepted.iter().filter(|order| order["member"] == "m0").count();
        assert!(orders["items"].as_array().is_some_and(|orders| orders.len() >= expected), "{thread}: {orders} {lag}");
        server.stop();
        let verified = kindred(&["verify", "--data", dir.to_str().expect("a path")]);
        assert!(verified.status.success(), "{thread}: {}", text(&verified.stdout));
    }
}

/// The same on services, with pipeline and API as separate processes.
#[test]
fn a_panic_ends_the_process_on_services_too() {
    for (process, thread) in [("pipeline", "thread: worker 1"), ("pipeline", "thread: sink"), ("pipeline", "thread: source")] {
        let name = format!("panic_{process}_{}", thread.replace([' ', ':'], "_"));
        let Some(on) = crate::installation::Installation::with(&name, "") else { return };
        let key = crate::installation::key_in(&on.ok(&["migrate"]));
        let points = Points::new(on.dir());
        let mut pipeline = on.start_with(points.command(), "pipeline", &["pipeline", "--set", "pipeline.workers=2"]);
        let api = on.api("api", &key, &[]);
        let position = api.post_events("orders", &[some_order(0, 1, "paid")]);
        api.list("i0", &position);
        points.arm(&format!("panic {thread}#1"));
        let position = api.post_events("orders", &(1..9).map(|n| some_order(n, 1, "paid")).collect::<Vec<_>>());
        let status = pipeline.ends();
        assert_eq!(status.code(), Some(FAILED), "{thread}: {}", pipeline.log());
        points.disarm();
        let pipeline = on.pipeline();
        assert!(!api.list("i0", &position)["items"].as_array().expect("items").is_empty());
        drop(api);
        assert!(pipeline.stop().success());
        on.ok(&["verify"]);
    }
}

/// If it failed, a hanging worker would go unnoticed, and the process would have to be killed by hand.
#[test]
fn a_worker_that_hangs_is_told_of_and_does_not_hold_up_the_end() {
    let temp = tempfile::tempdir().expect("a directory");
    let (dir, points) = (temp.path().join("shop"), Points::new(temp.path()));
    std::fs::create_dir(&dir).expect("a directory");
    let mut server = Server::start_with(points.command(), &dir, &["--set", "pipeline.workers=2"]);
    server.post_events("orders", &[some_order(0, 1, "paid")]);
    points.arm("hang thread: worker 1#1");
    for n in 1..4 {
        server.post_events("orders", &[some_order(n, 1, "paid")]);
        server.post_events(
            "interactions",
            &[json!({ "member": "m1", "item": "i1", "kind": "view", "at": "2026-05-04T10:00:00Z" })],
        );
        server.post_events("members", &[json!({ "member": "m9", "version": n, "state": "activated" })]);
        server.post_events("catalog", &[json!({ "item": "i1", "version": n, "kind": "good", "title": "One" })]);
    }
    let verbose = || format!("it says that it is ready:\n{}", server.get("/readyz?verbose").body);
    until_so(verbose, || server.get("/readyz").status == 503);
    let verbose = server.get("/readyz?verbose").body;
    assert!(verbose.contains("the frontier has not moved for"), "{verbose}");
    let status = server.get_json("/v1/admin/status");
    assert!(status["pipeline"]["stalled_ms"].as_u64().is_some_and(|ms| ms >= 30_000), "{status}");
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it can be asked to stop");
    let (status, took) = end_of(&mut server);
    assert_eq!(status.code(), Some(FAILED), "{}", server.log());
    assert!(took < Duration::from_secs(90), "it ended {took:?} after SIGTERM");
    assert!(server.log().contains("did not end in order within"), "{}", server.log());
}

/// If it failed, a server killed during a rebuild would serve an empty shop while every check succeeds: the inputs were gone, the
/// position was not.
fn a_rebuild_that_is_killed_in_any_step_ends_in_the_next_start(backend: Backend) {
    let Some(place) = Place::new(backend, "killed_rebuild", &[]) else { return };
    let server = place.start(&[]);
    for n in 0..12 {
        server.post_events("orders", &[some_order(n, 1, if n % 4 == 0 { "completed" } else { "paid" })]);
    }
    server.post_events("interactions", &[json!({ "member": "m1", "item": "i1", "kind": "view", "at": "2026-05-04T10:00:00Z" })]);
    server.post_events("catalog", &[json!({ "item": "i1", "version": 1, "kind": "good", "title": "One" })]);
    server.stop();
    let expected = place.exports();

    let points = Points::new(place.temp());
    points.arm("never");
    place.rebuild_with(points.command()).expect("nothing is armed").stop();
    let steps: Vec<String> = points.trace().into_iter().filter(|step| step.starts_with("start: ")).collect();
    assert!(steps.len() >= 12, "{steps:?}");
    assert_eq!(place.exports(), expected);
    for step in steps {
        points.arm(&format!("kill {step}"));
        assert!(place.rebuild_with(points.command()).is_none(), "it passed {step} alive");
        points.disarm();
        // The next start knows nothing of the killed one.
        place.start(&[]).stop();
        assert_eq!(place.exports(), expected, "killed at {step}");
        place.ok(&["verify"]);
    }
}
on_both_back_ends!(a_rebuild_that_is_killed_in_any_step_ends_in_the_next_start);

/// If it failed, `verify` would report success on a store that lost its inputs, since the rest is consistent.
#[test]
fn verify_holds_the_inputs_against_the_log() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("shop");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Server::start(&dir, &[]);
    server.post_events("orders", &(0..5).map(|n| some_order(n, 1, "paid")).collect::<Vec<_>>());
    server.post_events("interactions", &[json!({ "member": "m1", "item": "i1", "kind": "view", "at": "2026-05-04T10:00:00Z" })]);
    server.stop();
    let before = exports(&dir);
    let path = dir.to_str().expect("a path");
    let told = kindred_ok(&["verify", "--data", path]);
    assert!(told.contains("6 merged inputs are what the log gives"), "{told}");

    lose_an_order(&dir);
    let verified = kindred(&["verify", "--data", path, "--repair"]);
    let told = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{told}{}", text(&verified.stderr));
    assert!(told.contains("inputs_orders") && told.contains("--from beginning"), "{told}");
    let server = Server::start(&dir, &[]);
    let report = server.post("/v1/admin/verify", "application/json", b"{}").json();
    assert_eq!(report["ok"], false, "{report}");
    server.stop();

    Server::start(&dir, &["--from", "beginning"]).stop();
    assert_eq!(exports(&dir), before);
    kindred_ok(&["verify", "--data", path]);
}

/// Removes a merged order and all its rows from a store.
fn lose_an_order(dir: &Path) {
    use kindred_model::views::view_tables;
    use kindred_store::embedded::EmbeddedStore;
    use kindred_store::{Change, EpochChanges, ViewReader, ViewWriter};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = EmbeddedStore::open(&dir.join("store")).expect("the store opens");
    let frontier = store.frontier();
    let mut first = None;
    let snapshot = store.snapshot().expect("a snapshot");
    let scanned = snapshot.rows.scan("inputs_orders", &[], &mut |key, _| {
        first.get_or_insert(key.to_vec());
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("it reads");
    drop(snapshot);
    let change = Change { table: "inputs_orders", key: first.expect("an order"), row: None };
    let unit = EpochChanges { epoch: frontier.epoch, position: frontier.position, changes: vec![change].into() };
    let session = runtime.block_on(store.begin()).expect("begun");
    runtime.block_on(session.apply(unit)).expect("applied");
    // Leaves an unfinished unit: the next start derives every row again.
    runtime.block_on(session.clear(&[view_tables()[0].name])).expect("cleared");
    runtime.block_on(store.sync()).expect("synced");
}
