//! Examples of requests and responses, derived from their schemas: a field name has the same value everywhere, and every example
//! is valid.
//!
//! ```text
//! schema of a body ──sample──▶ its example        description of an operation ──first sentence──▶ its summary
//! ```

use serde_json::{Map, Value, json};

use super::answers::status_of;
use crate::problem::Code;

/// Example values by field or parameter name; other fields follow their schema.
const VALUES: &[(&str, &str)] = &[
    ("accepted", "interactions:0:1234"),
    ("access_token", "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.…"),
    ("account", "mara"),
    ("actor", "m_7f3c"),
    ("address", "192.0.2.7"),
    ("agreement", "2026-01"),
    ("agreement_version", "2026-01"),
    ("as_of", "2026-03-01"),
    ("at", "2026-01-05T10:11:12.123Z"),
    ("audit_until", "2027-01-05T10:11:12.123Z"),
    ("available_from", "2026-01-14"),
    ("before", "g1"),
    ("browsing_session", "s_5d1e"),
    ("category", "outdoor"),
    ("challenge", "c_2b8f"),
    ("city", "Berlin"),
    ("code", "123456"),
    ("country", "DE"),
    ("coupon", "SPRING"),
    ("created_at", "2026-01-05T10:11:12.123Z"),
    ("currency", "EUR"),
    ("current_password", "violet harbour 92 lantern"),
    ("cursor", "eyJhIjoxfQ"),
    ("day", "2026-01-05"),
    ("description", "For two, three kilograms."),
    ("detail", "12 records behind"),
    ("device", "d_9c2f"),
    ("email", "mara@example.com"),
    ("first", "also_bought sku-1"),
    ("from", "beginning"),
    ("generation", "g1"),
    ("id", "01a2b3c4"),
    ("image", "/images/sku-1.jpg"),
    ("invite_code", "K7QM2P"),
    ("item", "sku-1"),
    ("key", "kd_pk_…"),
    ("kid", "k-2026-01"),
    ("label", "Firefox on Linux"),
    ("language", "en"),
    ("line", "Main street 1"),
    ("lines", "Main street 1"),
    ("live", "g2"),
    ("locale", "en"),
    ("made_by", "m_7f3c"),
    ("member", "m1"),
    ("message", "Registered: follow the link in the mail"),
    ("name", "storefront"),
    ("new_password", "another horse entirely"),
    ("next_cursor", "eyJhIjoxfQ"),
    ("nonce", "000000000000a1f3"),
    ("not_compared", "interactions: the log begins at record 1200, so older inputs were not compared"),
    ("not_promotable", "built from a part of the events: can be compared but not promoted"),
    ("order", "o-1001"),
    ("origin", "https://shop.example"),
    ("password", "violet harbour 92 lantern"),
    ("payload", "{\"member\":\"m1\",\"kind\":\"stare\"}"),
    ("permission", "member:read"),
    ("permissions", "member:read"),
    ("phone", "+8613800138000"),
    ("phone_code", "123456"),
    ("phone_region", "CN"),
    ("position", "i0.1234-o0.17"),
    ("postal_code", "10115"),
    ("promotion", "spring-sale"),
    ("qr_svg", "<svg>…</svg>"),
    ("raw_erased_by", "2026-02-04"),
    ("reason", "kind: \"stare\" is none of the kinds"),
    ("recovery_code", "4k7m-9q2x"),
    ("refresh_token", "rt_…"),
    ("refresh_until", "2026-02-04T10:11:12.123Z"),
    ("refund", "r-1"),
    ("region", "CN"),
    ("replaced_by", "01a2b3c5"),
    ("role", "support"),
    ("route", "GET /v1/items"),
    ("scenario", "similar"),
    ("scope", "profile"),
    ("secret", "JBSWY3DPEHPK3PXP"),
    ("session", "s_5d1e"),
    ("settings", "[views.also_bought]\ntop = 50\n"),
    ("source", "interactions"),
    ("state", "activated"),
    ("status", "accepted"),
    ("subject", "m1"),
    ("table", "also_bought_lists"),
    ("tag", "outdoor"),
    ("tier", "normal"),
    ("title", "Tent"),
    ("token", "kt_…"),
    ("token_type", "Bearer"),
    ("topic", "interactions"),
    ("unknown", "interactions:0:99"),
    ("until", "2026-02-15"),
    ("uri", "otpauth://totp/Kindred:mara?secret=JBSWY3DPEHPK3PXP&issuer=Kindred"),
    ("url", "/shop/sku-1"),
    ("username", "mara"),
    ("version", "7"),
    ("view", "also_bought"),
    ("views.also_bought.top", "50"),
    ("visibility", "public"),
];

/// A record of `interactions`.
const RECORD: &str = r#"{"member":"m1","kind":"view","item":"sku-1","at":"2026-01-05T10:11:12Z"}"#;

/// Maximum depth, for recursive schemas.
const DEPTH: usize = 12;

/// The direction of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Required fields.
    Sent,
    /// All fields.
    Received,
}

/// Adds examples, and summaries to operations.
pub(super) fn add_examples(contract: &mut Value) {
    let described = contract.clone();
    let operations = contract["paths"].as_object_mut().expect("paths").values_mut();
    for operation in operations.flat_map(|path| path.as_object_mut().expect("a path").values_mut()) {
        if let Some(description) = operation["description"].as_str() {
            operation["summary"] = first_sentence(description).into();
        }
        if let Some(body) = operation.get_mut("requestBody") {
            exemplify(body, &described, Way::Sent, None);
        }
        for (status, answer) in operation["responses"].as_object_mut().into_iter().flatten() {
            exemplify(answer, &described, Way::Received, Some(status));
        }
    }
    for (name, answer) in contract["components"]["responses"].as_object_mut().into_iter().flatten() {
        exemplify(answer, &described, Way::Received, status_of(name));
    }
}

fn first_sentence(description: &str) -> String {
    let line = description.lines().next().unwrap_or_default();
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

fn exemplify(of: &mut Value, contract: &Value, way: Way, status: Option<&str>) {
    let Some(content) = of.get_mut("content").and_then(Value::as_object_mut) else { return };
    for (content_type, body) in content {
        body["example"] = match content_type.as_str() {
            _ if body.get("example").is_some() => continue,
            "application/problem+json" => {
                let is_of = |code: &&Code| status.is_some_and(|status| code.status().as_str() == status);
                problem(*Code::ALL.iter().find(is_of).unwrap_or(&Code::Internal))
            }
            "application/json" => sample(contract, &body["schema"], "", way, 0),
            _ => continue,
        };
    }
}

/// An example problem.
pub(super) fn problem(code: Code) -> Value {
    json!({
        "type": format!("/problems/{}", code.name()),
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": code.meaning(),
        "instance": "/v1/…",
        "code": code.name(),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    })
}

fn sample(contract: &Value, schema: &Value, name: &str, way: Way, depth: usize) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        if reference.ends_with("/EventRecord") {
            return serde_json::from_str(RECORD).expect("a record is JSON");
        }
        let component = contract.pointer(reference.trim_start_matches('#')).expect("it refers to a component");
        return sample(contract, component, name, way, depth + 1);
    }
    for (given, of) in [("example", &schema["example"]), ("const", &schema["const"]), ("enum", &schema["enum"][0])] {
        if schema.get(given).is_some() {
            return of.clone();
        }
    }
    let own = |schema: &Value| schema.get("properties").is_some() || schema.get("type").is_some();
    if !own(schema) || schema["type"] == "object" && schema.get("properties").is_none() {
        for choice in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[choice].as_array() {
                let chosen = choices.iter().find(|choice| choice["type"] != "null").unwrap_or(&Value::Null);
                return sample(contract, chosen, name, way, depth + 1);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut whole = Map::new();
            for part in parts {
                if let Value::Object(fields) = sample(contract, part, name, way, depth + 1) {
                    whole.extend(fields);
                }
            }
            return whole.into();
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null")).unwrap_or("null"),
        kind => kind.as_str().unwrap_or(if schema.get("properties").is_some() { "object" } else { "null" }),
    };
    let known = VALUES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let least = |field: &str, otherwise: i64| schema[field].as_i64().unwrap_or(otherwise);
    match kind {
        "object" if depth < DEPTH => {
            let required = |field: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|name| name == field));
            let none_is = schema["required"].as_array().is_none_or(Vec::is_empty);
            let mut fields = Map::new();
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                if way == Way::Received || none_is || required(field) {
                    fields.insert(field.clone(), sample(contract, of, field, way, depth + 1));
                }
            }
            if fields.is_empty() && schema["additionalProperties"].is_object() {
                let key = if name == "differing" { "views.also_bought.top" } else { "interactions" };
                fields.insert(key.to_owned(), sample(contract, &schema["additionalProperties"], "", way, depth + 1));
            }
            fields.into()
        }
        "array" if depth < DEPTH => vec![sample(contract, &schema["items"], name.trim_end_matches('s'), way, depth + 1)].into(),
        "object" => json!({}),
        "array" => json!([]),
        "string" => match (schema["format"].as_str(), known) {
            (Some("date-time"), _) => "2026-01-05T10:11:12.123Z".into(),
            (Some("date"), _) => "2026-03-01".into(),
            (_, Some(known)) => known.into(),
            _ if name.ends_with("_at") => "2026-01-05T10:11:12.123Z".into(),
            _ if ["", "kind"].contains(&name) => "…".into(),
            _ => panic!("the example of `{name}` would say nothing: give its schema a format, or it a value in VALUES"),
        },
        "integer" => least("minimum", 0).max(1).min(least("maximum", i64::MAX)).into(),
        "number" => json!(0.5),
        "boolean" => true.into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An example that is not what the contract says would teach who copies it a request that is refused.
    #[test]
    fn every_operation_has_a_summary_and_examples_that_are_valid() {
        let contract: Value = serde_json::from_str(crate::openapi::TEXT).unwrap();
        let mut wrong = Vec::new();
        let mut check = |what: String, content: &Value| {
            for (content_type, body) in content.as_object().into_iter().flatten() {
                if body.get("example").is_none() && content_type != "application/json" {
                    continue;
                }
                let schema = json!({ "components": contract["components"], "allOf": [body["schema"]] });
                let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema).unwrap();
                let errors: Vec<String> = validator
                    .iter_errors(&body["example"])
                    .map(|error| format!("{what} {content_type} {}: {error}", error.instance_path))
                    .collect();
                wrong.extend(errors);
            }
        };
        for (path, operations) in contract["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let summary = operation["summary"].as_str().unwrap();
                assert!(!summary.is_empty() && !summary.contains(path.as_str()), "{method} {path}: {summary}");
                check(format!("{method} {path}"), &operation["requestBody"]["content"]);
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    check(format!("{method} {path} {status}"), &answer["content"]);
                }
            }
        }
        assert!(wrong.is_empty(), "{} are not valid:\n{}", wrong.len(), wrong.join("\n"));
    }
}
