//! The product on real services, as separate processes: `kindred migrate`, `pipeline` and `api`, on Kafka and Cassandra at
//! `KINDRED_TEST_KAFKA` and `KINDRED_TEST_CASSANDRA` (host:port; `tests/run` starts them). Without them it prints NOT RUN.

use std::path::Path;
use std::time::Duration;

use kindred_model::Record;
use kindred_oracle::testing::{Shape, random_log};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::installation::{Installation, key_in};
use crate::support::{
    AS_OF, PATIENCE, Server, VIEWS, agent, free_port, interaction, kindred, kindred_ok, lines_by_topic, text, until,
};

/// Posts a batch by topic; joins the positions.
fn post(server: &Server, batch: &[&Record], position: &mut kindred_model::Position) {
    for (topic, lines) in lines_by_topic(batch) {
        let answer = server.post(&format!("/v1/events/{topic}"), "application/x-ndjson", &lines);
        assert_eq!(answer.status, 202, "{}", answer.body);
        position.join(&answer.json()["position"].as_str().and_then(|position| position.parse().ok()).expect("a position"));
    }
}

/// The exports and unfilled lists of an embedded run of the same events.
fn embedded(dir: &Path, records: &[&Record], items: &[String]) -> ([String; VIEWS.len()], Vec<Value>) {
    let server = Server::start(dir, &Installation::PINNED);
    let mut position = kindred_model::Position::beginning();
    post(&server, records, &mut position);
    let lists = items.iter().map(|item| server.list(item, &position.to_string())).collect();
    server.stop();
    let data = dir.to_str().expect("a path");
    (VIEWS.map(|view| kindred_ok(&["export", view, "--format", "csv", "--as-of", AS_OF, "--data", data])), lists)
}

/// If this fails, the product on services serves other results than the embedded one: after kills of the pipeline, from any API,
/// from memory or from the store.
#[test]
fn services_serve_what_an_embedded_run_serves() {
    let Some(on) = Installation::new("kindred_served") else { return };
    // Before the migration, every command names it.
    assert!(on.fails(3, &["status"]).contains("kindred migrate"));
    let made = on.ok(&["migrate"]);
    let key = key_in(&made);
    let again = on.ok(&["migrate"]);
    assert!(!again.contains("made") && !again.contains("kd_sk_"), "it is made once: {again}");
    assert!(on.fails(2, &["status", "--set", "views.also_bought.window=9"]).contains("views.also_bought.window is 8 there"));
    assert!(on.fails(2, &["status", "--data", "x"]).contains("--data"));
    assert!(on.fails(2, &["serve"]).contains("kindred pipeline"));

    let mut pipeline = on.pipeline();
    let (one, other) = (on.api("one", &key, &[]), on.api("other", &key, &[]));
    let records = random_log(11, 500, &Shape::default());
    let mut rng = StdRng::seed_from_u64(11);
    let mut feed: Vec<&Record> = records.iter().collect();
    feed.extend(records.iter().filter(|_| rng.random_bool(0.2)));
    feed.shuffle(&mut rng);
    let mut position = kindred_model::Position::beginning();
    for (n, batch) in feed.chunks(40).enumerate() {
        post(if n % 2 == 0 { &one } else { &other }, batch, &mut position);
        if n % 4 == 3 {
            pipeline.kill();
            pipeline = on.pipeline();
        }
    }

    let mut items: Vec<String> = Vec::new();
    for line in on.ok(&["export", "also_bought", "--format", "csv"]).lines().skip(1) {
        items.extend(line.split(',').next().map(str::to_owned));
    }
    items.dedup();
    assert!(!items.is_empty());
    let wanted = position.to_string();
    let served = |server: &Server| items.iter().map(|item| server.list(item, &wanted)).collect::<Vec<Value>>();
    let from_one = served(&one);
    assert_eq!(from_one, served(&other), "two APIs answer alike");
    let fresh = on.api("fresh", &key, &[]);
    assert_eq!(from_one, served(&fresh), "what was heard of is what the store holds");
    let (expected, lists) = embedded(&on.dir().join("shop"), &feed, &items);
    assert_eq!(from_one, lists, "lists of services and of a directory");
    assert_eq!(on.exports(), expected, "exports of services and of a directory");
    on.ok(&["verify"]);
    assert!(on.ok(&["status"]).contains("lag        0 records"));

    let (status, ready) = pipeline.get("/readyz");
    assert_eq!(status, 200, "{ready}");
    let figures: Value = serde_json::from_str(&pipeline.get("/status").1).expect("JSON");
    assert_eq!((&figures["pipeline"]["state"], &figures["lag"]), (&json!("running"), &json!(0)), "{figures}");
    assert!(pipeline.get("/metrics").1.contains("pipeline_records_total"));
    let status = pipeline.stop();
    assert!(status.success(), "a pipeline that is asked to ends in order: {status}");
    assert_eq!(on.exports(), expected, "and leaves what it served");
    one.stop();
    other.stop();
}

/// If this fails, commands that change something fail beside another process's pipeline, or a key created or revoked by one
/// process is not seen by another.
#[test]
fn commands_work_beside_the_processes() {
    let Some(on) = Installation::new("kindred_commands") else { return };
    let key = key_in(&on.ok(&["migrate"]));
    let mut pipeline = on.pipeline();
    let api = on.api("api", &key, &[]);

    let orders = on.dir().join("orders.csv");
    let rows = "order_id,member,item,quantity,unit_price_cents,timestamp_ms,status\n\
                o1,ann,tea,1,500,1767600000000,paid\no1,ann,cup,1,300,1767600000000,paid\no2,ben,tea,1,500,1767600001000,paid\n\
                o2,ben,cup,1,300,1767600001000,paid\no3,ben,pot,many,300,1767600001000,paid\n";
    std::fs::write(&orders, rows).expect("a file");
    let said = kindred(&["import", "orders", orders.to_str().expect("a path"), "--config", on.config()]);
    assert_eq!(said.status.code(), Some(1), "one row is turned away: {}{}", text(&said.stdout), text(&said.stderr));
    assert!(on.ok(&["rejected", "list"]).contains("many"));
    let position = text(&said.stdout).split_whitespace().last().expect("a position").to_owned();
    assert_eq!(api.list_items("tea", &position), ["cup"], "what a command imported is served");

    let before = api.post_events("interactions", &[interaction("cat", "tea", "purchase", "2026-01-05T10:00:00Z")]);
    assert_eq!(api.list("tea", &before)["items"][0]["co_count"], 2);
    on.ok(&["forget", "ann", "--yes"]);
    assert!(!on.ok(&["export", "histories", "--format", "csv"]).contains("ann"));

    let made = text(&kindred(&["keys", "create", "service", "--name", "second", "--config", on.config()]).stdout);
    let status = |key: &str| {
        let request =
            agent(PATIENCE).get(format!("{}/v1/items/tea/similar", api.url)).header("Authorization", format!("Bearer {key}"));
        request.call().expect("it answers").status().as_u16()
    };
    let becomes = |key: &str, wanted: u16| {
        let is_so = || (status(key.trim()) == wanted).then_some(());
        until(Duration::from_secs(10), || format!("the key does not become {wanted}"), is_so);
    };
    becomes(&made, 200);
    let listed = on.ok(&["keys", "list"]);
    let second = listed.lines().find(|line| line.contains("second")).expect("it is listed");
    let id = second.split_whitespace().next().expect("an id");
    // Rotated by a command beside the API: the new key is soon valid, the old one ends on time.
    let successor = text(&kindred(&["keys", "rotate", id, "--overlap", "5s", "--config", on.config()]).stdout);
    becomes(&successor, 200);
    becomes(&made, 401);
    let listed = on.ok(&["keys", "list"]);
    let third = listed.lines().filter(|line| line.contains("second")).find(|line| !line.starts_with(id)).expect("it is listed");
    on.ok(&["keys", "revoke", third.split_whitespace().next().expect("an id")]);
    becomes(&successor, 401);
    assert_eq!(status(&key), 200, "the other stays good");

    // A second pipeline takes over; the first ends with an error.
    let second = on.start("second", &["pipeline"]);
    api.post_events("interactions", &[interaction("dan", "tea", "purchase", "2026-01-05T10:00:00Z")]);
    let status = pipeline.ends();
    assert!(!status.success(), "{status}");
    assert!(pipeline.log().contains("taken over"), "{}", pipeline.log());
    let position = api.post_events(
        "interactions",
        &[
            interaction("dan", "jar", "purchase", "2026-01-05T10:00:00Z"),
            interaction("cat", "jar", "purchase", "2026-01-05T11:00:00Z"),
        ],
    );
    assert_eq!(api.list("jar", &position)["items"][0]["co_count"], 2);
    on.ok(&["verify"]);
    assert!(second.stop().success());
    on.ok(&["verify", "--repair"]);
}

/// If this fails, a cluster that lost a process continues without its work, or computes other results than one process.
#[test]
fn two_processes_share_the_work_and_end_together() {
    let Some(on) = Installation::new("kindred_processes") else { return };
    on.ok(&["migrate"]);
    let hosts = format!("cluster.hosts=[\"127.0.0.1:{}\",\"127.0.0.1:{}\"]", free_port(), free_port());
    let start = |name: &str, process: &str| {
        on.start(name, &["pipeline", "--set", &hosts, "--set", process, "--set", "pipeline.workers=2"])
    };
    let (mut first, second) = (start("first", "cluster.process=0"), start("second", "cluster.process=1"));
    let events = on.dir().join("events.ndjson");
    let records = random_log(12, 300, &Shape::default());
    let feed: Vec<&Record> = records.iter().collect();
    for (topic, lines) in lines_by_topic(&feed) {
        std::fs::write(&events, lines).expect("a file");
        on.import(topic.name(), &events);
    }
    on.ok(&["verify"]);
    second.kill();
    let status = first.ends();
    assert!(!status.success(), "a process whose other was lost ends, and not with 0: {status}");
    let pipeline = on.pipeline();
    let (expected, _) = embedded(&on.dir().join("shop"), &feed, &[]);
    assert!(pipeline.stop().success());
    assert_eq!(on.exports(), expected);
    on.ok(&["verify"]);
}
