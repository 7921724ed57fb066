//! A foreign producer and consumer: Kafka's command-line tools write records, without keys or with other keys than ours, into
//! partitions that are added meanwhile; and read our topics as `schemas/` describes them.

use std::io::Write;
use std::process::{Command, Stdio};

use kindred_model::{Record, Topic};
use serde_json::Value;

use crate::faults::Shop;
use crate::law::{oracle_export, small};
use crate::support::{AS_OF, VIEWS, text, until_so};

/// Runs one of Kafka's tools; returns its output.
pub fn tool(name: &str, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("deploy/local/kafka-tool");
    command.arg(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("deploy/local/kafka-tool runs");
    child.stdin.take().expect("its input").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{name} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Lines for the console producer: interactions without a key, others keyed by their id.
fn lines(topic: Topic, records: &[Record]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records.iter().filter(|record| record.topic() == topic) {
        let json = record.to_json();
        if topic != Topic::Interactions {
            let fields: Value = serde_json::from_slice(&json).expect("JSON");
            let identity = ["order", "item", "member", "session"].iter().find_map(|field| fields[*field].as_str());
            lines.extend_from_slice(format!("theirs/{}\t", identity.expect("an identity")).as_bytes());
        }
        lines.extend_from_slice(&json);
        lines.push(b'\n');
    }
    lines
}

/// If it failed, a shop could not use existing topics, or others could not read ours.
#[test]
fn others_write_and_read_the_topics() {
    let (Ok(kafka), Ok(cassandra)) = (std::env::var("KINDRED_TEST_KAFKA"), std::env::var("KINDRED_TEST_CASSANDRA")) else {
        eprintln!("NOT RUN: Kafka's own producer and consumer (tests/run starts the services)");
        return;
    };
    let temp = tempfile::tempdir().expect("a directory");
    let name = format!("foreign_{}", std::process::id());
    let variant = small();
    let more = "[inputs]\nidentities_per_owner = 6\n[views.also_bought]\nwindow = 3\ntop = 4\n";
    let shop = Shop::migrate(temp.path(), &kafka, &cassandra, &name, more);
    let pipeline = shop.spawn("pipeline-0", &["pipeline"]);
    let topic_name = |topic: Topic| format!("{name}-{topic}");

    let records = kindred_oracle::testing::random_log(9, 400, &kindred_oracle::testing::Shape::default());
    let produce = |topic: Topic, input: &[u8]| {
        if input.is_empty() {
            return;
        }
        let topic_name = topic_name(topic);
        let mut args = vec!["--bootstrap-server", &kafka, "--topic", &topic_name];
        if topic != Topic::Interactions {
            args.extend(["--reader-property", "parse.key=true", "--reader-property", "key.separator=\t"]);
        }
        tool("ConsoleProducer", &args, input);
    };
    let (first, second) = records.split_at(records.len() / 2);
    for topic in &Topic::OF_SHOPS {
        produce(*topic, &lines(*topic, first));
    }
    produce(Topic::Interactions, b"{\"member\": \"m1\", \"item\": \"i1\", no JSON\n");
    let interactions = topic_name(Topic::Interactions);
    tool("TopicCommand", &["--bootstrap-server", &kafka, "--alter", "--topic", &interactions, "--partitions", "7"], b"");
    for topic in &Topic::OF_SHOPS {
        produce(*topic, &lines(*topic, second));
    }

    let expected = VIEWS.map(|view| oracle_export(view, &records, &variant.semantics));
    let export = || VIEWS.map(|view| shop.run(&["export", view, "--format", "csv", "--as-of", AS_OF]));
    until_so(|| format!("what others wrote is not served:\n{}", shop.logs()), || export() == expected);
    let rejected = shop.run(&["rejected", "list"]);
    assert!(rejected.contains("interactions") && rejected.contains("the record is not JSON"), "{rejected}");

    // Read to the end, our records (appended again where theirs were older) among theirs.
    for topic in &Topic::OF_SHOPS {
        let schema = std::fs::read_to_string(format!("schemas/events/{topic}.json")).expect("a schema");
        let schema = jsonschema::validator_for(&serde_json::from_str(&schema).expect("JSON")).expect("a schema");
        let topic_name = topic_name(*topic);
        let args = ["--bootstrap-server", &kafka, "--topic", &topic_name, "--from-beginning", "--timeout-ms", "4000"];
        let read = tool("consumer.ConsoleConsumer", &args, b"");
        let (valid, other): (Vec<&str>, Vec<&str>) =
            read.lines().partition(|line| serde_json::from_str(line).is_ok_and(|record: Value| schema.is_valid(&record)));
        let written = records.iter().filter(|record| record.topic() == *topic).count();
        assert!(valid.len() >= written, "{topic}: {} of {written} records read back as the schema says", valid.len());
        assert_eq!(other.len(), usize::from(*topic == Topic::Interactions), "{topic}: {other:?}");
    }
    drop(pipeline);
}
