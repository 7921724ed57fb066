//! `schemas/events` and the decoders agree, and the canonical encoding is frozen. If one of these fails, a producer that follows
//! the schemas is rejected, or a data directory changes its meaning.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kindred_model::records::{Interaction, Rules};
use kindred_model::{Record, Topic};
use serde_json::{Map, Value};

fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/events")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

fn schema(name: &str) -> Value {
    json(events().join(format!("{name}.json")))
}

fn validator(name: &str) -> jsonschema::Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(name)).unwrap()
}

#[track_caller]
fn assert_valid(validator: &jsonschema::Validator, record: &Value, what: &str) {
    let errors: Vec<_> = validator.iter_errors(record).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}

/// The `.json` files of a folder with one dot in their names: (name, text).
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned(), path)))
        .filter(|(name, _)| !name.contains('.'))
        .map(|(name, path)| (name, read(path)))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn examples(topic: Topic) -> Vec<(String, String)> {
    files(&events().join("examples").join(topic.name()))
}

fn example(topic: Topic, name: &str) -> Value {
    json(events().join("examples").join(topic.name()).join(format!("{name}.json")))
}

fn decode(topic: Topic, text: &str) -> Result<Record, kindred_model::Invalid> {
    Record::decode(topic, text.as_bytes(), &Rules::default())
}

fn properties(of: &Value) -> &Map<String, Value> {
    of["properties"].as_object().unwrap()
}

/// The lists of an order and the definitions of their entries.
const LISTS: [(&str, &str); 2] = [("lines", "line"), ("refunds", "refund")];

#[test]
fn every_schema_is_one() {
    for name in ["interactions", "orders", "catalog", "members", "ledger", "rejected"] {
        let schema = schema(name);
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let defs = schema["$defs"].as_object().unwrap().values().filter(|def| def.get("properties").is_some());
        for object in std::iter::once(&schema).chain(defs) {
            for (field, property) in properties(object) {
                assert!(property["description"].is_string(), "{name}: {field} has no description");
            }
        }
    }
}

#[test]
fn examples_are_valid_and_decode_to_the_frozen_canonical_bytes() {
    for &topic in Topic::ALL {
        let validator = validator(topic.name());
        for (name, text) in examples(topic) {
            let what = format!("{topic}/{name}");
            assert_valid(&validator, &serde_json::from_str(&text).unwrap(), &what);
            let decoded = decode(topic, &text).unwrap_or_else(|error| panic!("{what}: {error}"));
            let canonical = String::from_utf8(decoded.to_json()).unwrap();
            let frozen = read(events().join("examples").join(topic.name()).join(format!("{name}.canonical.json")));
            assert_eq!(canonical, frozen.trim_end_matches('\n'), "{what}: the canonical encoding is frozen (schemas/README.md)");
            assert_valid(&validator, &serde_json::from_str(&canonical).unwrap(), &format!("{what}, as it is written"));
            let again = decode(topic, &canonical).unwrap();
            assert_eq!((&again, again.to_json()), (&decoded, canonical.into_bytes()), "{what}");
        }
    }
}

/// If this failed, ties of interactions would break differently, or merged inputs would change.
#[test]
fn the_payload_of_an_interaction_is_frozen() {
    for (name, text) in examples(Topic::Interactions) {
        let payload = String::from_utf8(Interaction::decode(text.as_bytes()).unwrap().payload.canonical()).unwrap();
        let frozen = match name.as_str() {
            "full" => concat!(
                r#"{"item":"shoe-7","query":"  Blue   Running\tSHOES ","rating":4.5,"#,
                r#""reco_id":"0198c0de-7b1f-7000-8000-3f2f1d1c0b0a","rank":3,"generation":"g1"}"#
            ),
            "click_on_a_recommendation" => r#"{"reco_id":"r-1","rank":1,"generation":"g2"}"#,
            "click_in_a_scenario" => r#"{"reco_id":"r-1","rank":2,"generation":"g2","variant":"b","source":"trending"}"#,
            "rating_of_a_comment" => r#"{"rating":0.0}"#,
            _ => "",
        };
        assert_eq!(payload, frozen, "{name}");
    }
}

#[test]
fn invalid_examples_are_refused_by_the_decoder_and_by_the_schema_where_it_can_say_so() {
    for &topic in Topic::ALL {
        let folder = events().join("examples").join(topic.name());
        let expected = json(folder.join("invalid.expected.json"));
        let mut named: BTreeSet<_> = expected.as_object().unwrap().keys().cloned().collect();
        let validator = validator(topic.name());
        for (name, text) in files(&folder.join("invalid")) {
            let what = format!("{topic}/invalid/{name}");
            assert!(named.remove(&name), "{what}.json is not in invalid.expected.json");
            let expected = &expected[&name];
            let error = decode(topic, &text).expect_err(&format!("{what} was decoded"));
            assert_eq!(error.field, expected["field"].as_str().unwrap(), "{what}: {error}");
            assert!(!error.reason.is_empty() && !error.reason.ends_with('.'), "{what}: {error}");
            let refused = !validator.is_valid(&serde_json::from_str(&text).unwrap());
            let by_schema = expected["refused_by"].as_array().unwrap().contains(&"schema".into());
            assert_eq!(refused, by_schema, "{what}: refused by the schema");
        }
        assert!(named.is_empty(), "{topic}: no examples of {named:?}");
    }
}

/// If this failed, a field of the schema would be silently dropped by the decoder.
#[test]
fn the_decoder_knows_every_field_of_the_schema() {
    for &topic in Topic::ALL {
        let (schema, full) = (schema(topic.name()), example(topic, "full"));
        let refused = |mutated: &Value, path: &str| {
            let error = decode(topic, &mutated.to_string()).expect_err(&format!("{topic}: the decoder does not look at {path}"));
            assert_eq!(error.field, path, "{topic}: {error}");
        };
        for field in properties(&schema).keys() {
            let mut mutated = full.clone();
            mutated[field] = serde_json::json!({"no": "value"});
            refused(&mutated, field);
        }
        for (list, def) in LISTS {
            let Some(def) = schema["$defs"].get(def) else { continue };
            for field in properties(def).keys() {
                let mut mutated = full.clone();
                mutated[list][1][field] = serde_json::json!({"no": "value"});
                refused(&mutated, &format!("{list}[1].{field}"));
            }
        }
    }
}

/// If this failed, the decoder would keep an undocumented field.
#[test]
fn the_examples_and_the_schema_name_every_field_that_is_kept() {
    for &topic in Topic::ALL {
        let schema = schema(topic.name());
        let (mut kept, mut kept_below) = (BTreeSet::new(), BTreeSet::new());
        for (_, text) in examples(topic) {
            let canonical: Map<String, Value> = serde_json::from_slice(&decode(topic, &text).unwrap().to_json()).unwrap();
            for (list, def) in LISTS {
                for entry in canonical.get(list).and_then(Value::as_array).into_iter().flatten() {
                    kept_below.extend(entry.as_object().unwrap().keys().map(|field| format!("{def}.{field}")));
                }
            }
            kept.extend(canonical.into_iter().map(|(field, _)| field));
        }
        assert_eq!(kept, properties(&schema).keys().cloned().collect(), "{topic}");
        let described: BTreeSet<_> = LISTS
            .iter()
            .filter_map(|(_, def)| Some((def, schema["$defs"].get(*def)?)))
            .flat_map(|(def, schema)| properties(schema).keys().map(move |field| format!("{def}.{field}")))
            .collect();
        assert_eq!(kept_below, described, "{topic}");
    }
}

/// If this failed, schema and decoder would accept different words.
#[test]
fn the_schema_lists_the_words_that_are_accepted() {
    for (topic, name, field) in [
        (Topic::Interactions, "view", "kind"),
        (Topic::Orders, "full", "status"),
        (Topic::Ledger, "full", "kind"),
        (Topic::Orders, "full", "tier"),
        (Topic::Catalog, "full", "kind"),
        (Topic::Catalog, "full", "visibility"),
        (Topic::Members, "full", "state"),
        (Topic::Members, "full", "tier"),
    ] {
        let mut record = example(topic, name);
        let schema = schema(topic.name());
        let listed: BTreeSet<&str> =
            properties(&schema)[field]["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for word in &listed {
            record[field] = (*word).into();
            // A search also needs a query, and a ledger entry an amount: that error shows that the word is known.
            if let Err(error) = decode(topic, &record.to_string()) {
                assert_ne!(error.field, field, "{topic}: {error}");
            }
        }
        record[field] = "none of them".into();
        let error = decode(topic, &record.to_string()).unwrap_err();
        let known: BTreeSet<&str> = error.reason.split(" is none of ").nth(1).unwrap().split(", ").collect();
        assert_eq!(known, listed, "{topic}.{field}");
    }
}

#[test]
fn rejected_records_are_described() {
    let (validator, schema) = (validator("rejected"), schema("rejected"));
    for (name, text) in files(&events().join("examples/rejected")) {
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_valid(&validator, &record, &name);
        let fields: Vec<_> = record.as_object().unwrap().keys().collect();
        assert_eq!(fields, properties(&schema).keys().collect::<Vec<_>>(), "{name}");
        for field in fields {
            let mut record = record.clone();
            record.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&record), "{name} without {field}");
        }
    }
}
