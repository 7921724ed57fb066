//! Operations on topics from outside: a topic is deleted and recreated, retention removes unread records, or records are too
//! large. Pipeline and API report each, and the advice of docs/OPERATIONS.md helps.

use std::time::Instant;

use serde_json::{Value, json};

use crate::foreign::tool;
use crate::installation::{Installation, Running, key_in};
use crate::support::{PATIENCE, Server, interaction, order, until_so};

/// An installation with one partition a topic, its pipeline and its API.
fn start(name: &str) -> Option<(Installation, Running, Server)> {
    let on = Installation::partitioned(name, 1, "")?;
    let key = key_in(&on.ok(&["migrate"]));
    let pipeline = on.pipeline();
    let api = on.api("api", &key, &[]);
    Some((on, pipeline, api))
}

fn brokers() -> String {
    std::env::var("KINDRED_TEST_KAFKA").expect("there are services")
}

/// Polls until a condition holds.
fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_so(|| what.to_owned(), is_so);
}

/// What the manual advises for invalid positions: rebuild the views from the log.
fn go_on_from_the_log(on: &Installation) -> Running {
    on.start("pipeline", &["pipeline", "--from", "beginning"])
}

fn purchases(member: usize) -> [Value; 2] {
    let at = "2026-01-05T10:00:00Z";
    ["x", "y"].map(|item| interaction(&format!("m{member}"), item, "purchase", at))
}

/// If it failed, a deleted topic would go unnoticed, or its successor be read from old positions.
#[test]
fn a_topic_deleted_and_made_again_is_told() {
    let Some((on, mut pipeline, api)) = start("topics_anew") else { return };
    let orders = on.topic("orders");
    let at = "2026-01-05T10:00:00Z";
    let position = api.post_events("orders", &[order("o1", 1, "paid", "a", at, &["x", "y"])]);
    assert_eq!(api.list_items("x", &position), ["y"]);

    tool("TopicCommand", &["--bootstrap-server", &brokers(), "--delete", "--topic", &orders], b"");
    until("the pipeline tells that a topic is missing", || {
        let told: Value = serde_json::from_str(&pipeline.get("/status").1).unwrap_or_default();
        let reason = told["pipeline"]["reason"].as_str().unwrap_or_default();
        told["pipeline"]["state"] == "waiting" && reason.contains(&orders) && reason.contains("kindred migrate")
    });
    until("the pipeline says that it is not ready, and why", || {
        let (status, told) = pipeline.get("/readyz");
        status == 503 && told.contains(&orders)
    });
    assert_eq!(api.get("/v1/items/x/similar").status, 200, "lists are served");

    let said = on.fails(3, &["migrate"]);
    assert!(said.contains("another log") && said.contains("--from beginning"), "{said}");
    let ended = pipeline.ends();
    assert!(!ended.success(), "{ended}");
    let log = pipeline.log();
    assert!(log.contains("created anew") && log.contains("kindred replay"), "{log}");
    api.kill();

    let pipeline = go_on_from_the_log(&on);
    let key = key_in(&on.ok(&["keys", "create", "service", "--name", "again"]));
    let api = on.api("again", &key, &[]);
    let position = api.post_events("orders", &[order("o2", 1, "paid", "b", at, &["x", "y"])]);
    assert_eq!(api.list("x", &position)["items"][0]["co_count"], 1, "what the old topic had is gone with it");
    on.ok(&["verify"]);
    assert!(pipeline.stop().success());
}

/// If it failed, records removed by retention would be skipped silently.
#[test]
fn what_retention_took_unread_is_told() {
    let Some((on, pipeline, api)) = start("topics_retention") else { return };
    let position = api.post_events("interactions", &purchases(0));
    assert_eq!(api.list_items("x", &position), ["y"]);
    assert!(pipeline.stop().success());
    for member in 1..20 {
        api.post_events("interactions", &purchases(member));
    }
    let file = on.dir().join("upto.json");
    let upto = json!({ "version": 1, "partitions": [{ "topic": on.topic("interactions"), "partition": 0, "offset": 30 }] });
    std::fs::write(&file, upto.to_string()).expect("a file");
    let file = file.to_str().expect("a path");
    tool("DeleteRecordsCommand", &["--bootstrap-server", &brokers(), "--offset-json-file", file], b"");

    let said = on.fails(3, &["pipeline"]);
    assert!(said.contains("retention has removed") && said.contains("kindred replay"), "{said}");
    api.kill();
    let pipeline = go_on_from_the_log(&on);
    let key = key_in(&on.ok(&["keys", "create", "service", "--name", "again"]));
    let api = on.api("again", &key, &[]);
    let position = api.post_events("interactions", &purchases(20));
    // Members 15 to 20 are left.
    assert_eq!(api.list("x", &position)["items"][0]["co_count"], 6);
    on.ok(&["verify"]);
    assert!(pipeline.stop().success());
}

/// If it failed, a record that Kafka refuses would be retried forever, or be acknowledged and lost.
#[test]
fn a_record_too_large_for_its_topic_is_refused() {
    let Some((on, pipeline, api)) = start("topics_large") else { return };
    let catalog = on.topic("catalog");
    let topic = ["--bootstrap-server", &brokers(), "--entity-type", "topics", "--entity-name", &catalog];
    tool("ConfigCommand", &[&topic[..], &["--alter", "--add-config", "max.message.bytes=2000"]].concat(), b"");
    let mut dice = 7_u64;
    // Incompressible text.
    let letter = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((dice >> 33) % 26).expect("a letter"))
    };
    let noise: String = std::iter::repeat_with(letter).take(10_000).collect();
    let large = json!({ "item": "large", "version": 1, "kind": "good", "title": "Large", "description": noise });
    let post = |record: &Value| api.post("/v1/events/catalog", "application/json", record.to_string().as_bytes());
    let begin = Instant::now();
    let refused = loop {
        let answer = post(&large);
        // A setting takes a moment to reach the brokers.
        if answer.status != 202 {
            break answer;
        }
        assert!(begin.elapsed() < PATIENCE, "the large record is always accepted: {}", answer.body);
    };
    assert!(refused.status >= 400 && refused.body.contains("max.message.bytes"), "{}: {}", refused.status, refused.body);
    let small = json!({ "item": "x", "version": 1, "kind": "good", "title": "Tea" });
    assert_eq!(post(&small).status, 202, "others are taken");
    assert!(pipeline.stop().success());
}
