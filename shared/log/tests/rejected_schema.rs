//! `schemas/events/rejected.json` describes the topic `rejected`.

use kindred_log::Rejected;
use kindred_model::Topic;
use serde_json::{Value, json};

/// If this failed, a consumer that follows the schema would refuse our records, or miss fields.
#[test]
fn rejected_records_are_as_their_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../../schemas/events/rejected.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let record = Rejected {
        source: "import:orders.csv".to_owned(),
        topic: Topic::Orders,
        partition: 3,
        offset: 17,
        reason: "line 2: more is refunded than was bought".to_owned(),
        payload: "{\"order\": \"o1\"}".to_owned(),
    };
    let written = serde_json::to_value(&record).expect("plain data");
    let errors: Vec<String> = validator.iter_errors(&written).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let named: Vec<&String> = schema["properties"].as_object().expect("properties").keys().collect();
    let ours = written.as_object().expect("an object");
    assert!(named.iter().all(|name| ours.contains_key(*name)), "the schema names {named:?}, a record has {written}");
    assert!(!validator.is_valid(&json!({ "topic": "orders" })), "the schema says anything goes");
}
