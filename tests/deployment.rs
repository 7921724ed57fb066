//! Files of `deploy/` that cannot be run here: their syntax, and that the names in them exist.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{command, text};

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    value.apply_merge().expect("anchors merge");
    serde_json::to_value(value).expect("YAML without odd keys")
}

fn compose() -> Value {
    yaml("deploy/compose/compose.yaml")
}

/// If it failed, `docker compose up` would refuse the file.
#[test]
fn the_compose_file_is_as_its_schema_says() {
    let schema = std::fs::read_to_string("deploy/compose/schema/compose_spec.json").expect("the schema");
    let mut schema: Value = serde_json::from_str(&schema).expect("JSON");
    // The validator does not know a draft with a fragment.
    schema.as_object_mut().expect("an object").remove("$schema");
    let schema = jsonschema::options().with_draft(jsonschema::Draft::Draft201909).build(&schema).expect("a schema");
    let compose = compose();
    let errors: Vec<String> = schema.iter_errors(&compose).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(!schema.is_valid(&serde_json::json!({ "services": { "a": { "imaje": "x" } } })), "the schema says anything goes");
}

/// If it failed, a container would start with invalid settings, or depend on an unknown container.
#[test]
fn what_the_compose_file_names_exists() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let ours =
        services.iter().filter(|(_, service)| service["image"].as_str().is_some_and(|image| image.starts_with("kindred:")));
    let mut seen = 0;
    for (name, service) in ours {
        seen += 1;
        let variables: BTreeMap<String, String> = serde_json::from_value(service["environment"].clone()).expect("texts");
        let output = command(&["config", "show"]).envs(&variables).output().expect("the binary runs");
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(shown.contains("kafka:9092") && shown.contains("scylla:9042"), "{name}: {shown}");
        let verb = service["command"][0].as_str().expect("a command");
        assert!(command(&[verb, "--help"]).output().expect("it runs").status.success(), "{name}: there is no `kindred {verb}`");
        for on in service["depends_on"].as_object().expect("names").keys() {
            assert!(services.contains_key(on), "{name} waits for {on}");
        }
    }
    assert_eq!(seen, 4, "migrate, two of the pipeline, the API");
    let scraped = yaml("deploy/compose/prometheus.yml")["scrape_configs"].clone();
    for job in scraped.as_array().expect("jobs") {
        for target in job["static_configs"][0]["targets"].as_array().expect("targets") {
            let host = target.as_str().expect("a target").split(':').next().expect("a host");
            assert!(services.contains_key(host), "Prometheus asks {host}");
        }
    }
}

/// All of our source, to find names in.
fn source(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            source(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&std::fs::read_to_string(path).expect("source"));
        }
    }
}

/// If it failed, an alert would use a metric that does not exist.
#[test]
fn alerts_name_metrics_that_exist() {
    let mut code = String::new();
    for folder in ["api/src", "pipeline/src", "shared", "kindred"] {
        source(Path::new(folder), &mut code);
    }
    let alerts = yaml("deploy/compose/alerts.yml");
    let mut seen = 0;
    for rule in alerts["groups"][0]["rules"].as_array().expect("rules") {
        let expression = rule["expr"].as_str().expect("an expression");
        let names = expression.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).filter(|word| word.contains('_'));
        for name in names {
            seen += 1;
            assert!(code.contains(&format!("!(\"{name}\"")), "{name} of {expression} is recorded nowhere");
        }
        assert!(rule["annotations"]["summary"].is_string());
    }
    assert!(seen >= 4);
}

/// If it failed, a unit would start an unknown command. `systemd-analyze verify` checks the rest if installed.
#[test]
fn units_start_commands_that_exist() {
    for entry in std::fs::read_dir("deploy/systemd").expect("units").flatten() {
        let path = entry.path();
        let unit = std::fs::read_to_string(&path).expect("a unit");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        let verb = start.split_whitespace().nth(1).expect("a verb");
        assert!(command(&[verb, "--help"]).output().expect("it runs").status.success(), "{}: {start}", path.display());
        for needed in ["NoNewPrivileges=", "ProtectSystem=strict", "Restart="] {
            assert!(unit.contains(needed), "{} lacks {needed}", path.display());
        }
    }
}
