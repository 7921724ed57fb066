//! Adds the schemas of schemas/events to the contract as components.
//!
//! ```text
//! schemas/events/orders.json ──▶ #/components/schemas/Order and its `$defs` ──▶ the body of POST /v1/events/{topic}
//! ```

use serde_json::{Map, Value, json};

const RECORDS: [(&str, &str); 4] = [
    ("Interaction", include_str!("../../../schemas/events/interactions.json")),
    ("Order", include_str!("../../../schemas/events/orders.json")),
    ("CatalogItem", include_str!("../../../schemas/events/catalog.json")),
    ("MemberEvent", include_str!("../../../schemas/events/members.json")),
];

pub(super) fn add_records(contract: &mut Value) {
    let mut components = Map::new();
    for (name, text) in RECORDS {
        let mut schema: Value = serde_json::from_str(text).expect("the schema is JSON");
        let fields = schema.as_object_mut().expect("an object");
        // As part of another document it has no address.
        fields.retain(|field, _| !["$schema", "$id", "title"].contains(&field.as_str()));
        let definitions = fields.remove("$defs").unwrap_or_default();
        rename(&mut schema, name);
        components.insert(name.to_owned(), schema);
        for (part, mut definition) in definitions.as_object().cloned().unwrap_or_default() {
            rename(&mut definition, name);
            components.insert(part_name(name, &part), definition);
        }
    }
    let any: Vec<Value> = RECORDS.iter().map(|(name, _)| json!({ "$ref": reference(name) })).collect();
    let description = "A record of the topic it is posted to.";
    components.insert("EventRecord".to_owned(), json!({ "description": description, "anyOf": any }));

    let schemas = contract["components"]["schemas"].as_object_mut().expect("components");
    for (name, schema) in components {
        assert!(schemas.insert(name.clone(), schema).is_none(), "two components are called {name}");
    }
    let record = json!({ "$ref": reference("EventRecord") });
    let list = json!({ "type": "array", "items": record, "minItems": 1, "maxItems": 10_000 });
    contract["paths"]["/v1/events/{topic}"]["post"]["requestBody"]["content"]["application/json"]["schema"] =
        json!({ "anyOf": [record, list] });
}

/// `Order` and `line`: `OrderLine`.
fn part_name(record: &str, part: &str) -> String {
    let (first, rest) = part.split_at(1);
    format!("{record}{}{rest}", first.to_uppercase())
}

fn reference(component: &str) -> String {
    format!("#/components/schemas/{component}")
}

/// Rewrites references to `$defs` into references to components.
fn rename(schema: &mut Value, record: &str) {
    match schema {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(text) if field == "$ref" => {
                        let part = text.strip_prefix("#/$defs/").expect("it refers to a definition of its own");
                        *text = reference(&part_name(record, part));
                    }
                    value => rename(value, record),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, record)),
        _ => {}
    }
}
