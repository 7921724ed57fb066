//! Schemas of parameters, by location and name: stated once for all endpoints.
//!
//! ```text
//! (location, name) ──▶ length, pattern, format or enum; an example
//! ```

use kindred_model::units::Tier;
use kindred_model::{Kind, Topic, views};
use serde_json::{Value, json};

use crate::recommend::Sort;
use crate::routes::accounts::staff::TEXT_BYTES_MAX;
use crate::routes::catalog::{CATEGORY_BYTES_MAX, TAG_BYTES_MAX};
use crate::routes::endpoint::{Endpoint, Parameter, ParameterIn, Shape};
use crate::routes::idempotency::KEY_CHARS;

/// All parameters of an endpoint.
pub(super) fn of(endpoint: &Endpoint) -> Vec<Value> {
    let named = |name: &str, description: &'static str| {
        let stands = endpoint.path.contains(&format!("{{{name}}}"));
        let name = if name == "item" { "item" } else { "member" };
        stands.then_some(Parameter { location: ParameterIn::Path, name, shape: Shape::Text, required: true, description })
    };
    let item = named("item", "the item, percent-encoded; 1 to 128 bytes");
    let member = named("member", "the member, percent-encoded");
    let own = [item, member].into_iter().flatten();
    own.chain(endpoint.all_parameters().cloned()).map(|parameter| described(endpoint.path, &parameter)).collect()
}

fn described(template: &str, parameter: &Parameter) -> Value {
    let location = match parameter.location {
        ParameterIn::Path => "path",
        ParameterIn::Query => "query",
        ParameterIn::Header => "header",
    };
    let mut schema = match parameter.shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(least, most) => json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most }),
        Shape::Texts(least, most) => {
            json!({ "type": "array", "items": { "type": "string" }, "minItems": least, "maxItems": most })
        }
    };
    narrow(template, parameter.location, parameter.name, &mut schema);
    json!({
        "name": parameter.name,
        "in": location,
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    })
}

/// A position: topic, partition and offset of each partition, or `0`, the beginning.
const POSITION: &str = "^(0|[cilmo][0-9]+\\.[0-9]+(-[cilmo][0-9]+\\.[0-9]+)*)$";
const IDENTITY: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
const VALIDATORS: &str = "^(\\*|(W/)?\"[^\"]*\"( *, *(W/)?\"[^\"]*\")*)$";
/// An identity has at most 128 bytes, so at most as many characters.
const IDENTITY_CHARS_MAX: usize = 128;

fn narrow(template: &str, location: ParameterIn, name: &str, schema: &mut Value) {
    let add = match (location, name) {
        (ParameterIn::Path, "item" | "member") | (ParameterIn::Query, "member") => {
            let example = if name == "item" { "sku-1" } else { "m1" };
            json!({ "minLength": 1, "maxLength": IDENTITY_CHARS_MAX, "pattern": IDENTITY, "example": example })
        }
        (ParameterIn::Path, "topic") => words(Topic::OF_SHOPS.iter().map(|topic| topic.name())),
        (ParameterIn::Path, "view") => words(views::ALL.iter().map(|view| view.name)),
        (ParameterIn::Query, "view") => words(["also_bought"]),
        (ParameterIn::Query, "kind") if template == "/v1/popular" => {
            words(Kind::ALL.iter().filter(|kind| **kind != Kind::Search).map(|kind| kind.name()))
        }
        (ParameterIn::Query, "kind") if template == "/v1/items" => words(["good", "service", "activity"]),
        (ParameterIn::Query, "sort") => words(Sort::ALL.map(|(name, _)| name)),
        (ParameterIn::Query, "category") => at_most(CATEGORY_BYTES_MAX),
        (ParameterIn::Query, "tag") => at_most(TAG_BYTES_MAX),
        (ParameterIn::Query, "verbose") => words(["", "true", "false"]),
        (ParameterIn::Query, "format") => words(["ndjson", "csv"]),
        (ParameterIn::Query, "state") => words(["registered", "activating", "activated", "suspended"]),
        (ParameterIn::Query, "tier") => words(Tier::ALL.iter().map(|tier| tier.name())),
        (ParameterIn::Query, "actor" | "subject" | "q") => at_most(TEXT_BYTES_MAX),
        (ParameterIn::Query, "as_of" | "from" | "to") => json!({ "format": "date", "example": "2026-01-05" }),
        (ParameterIn::Query, "min_position") => json!({ "pattern": POSITION, "example": "0" }),
        (ParameterIn::Header, "Idempotency-Key") => {
            let bare = format!("[!#-~]{{{},{}}}", KEY_CHARS.start(), KEY_CHARS.end());
            json!({ "pattern": format!("^(\"{bare}\"|{bare})$"), "example": "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46" })
        }
        (ParameterIn::Header, "If-None-Match") if template == "/v1/admin/roles/{name}" => words(["*"]),
        (ParameterIn::Header, "If-Match") => json!({ "pattern": VALIDATORS, "example": "*" }),
        _ => return,
    };
    let (Value::Object(schema), Value::Object(add)) = (schema, add) else { unreachable!("both are objects") };
    schema.extend(add);
}

/// 1 to `bytes` characters: the limit is one of bytes.
fn at_most(bytes: usize) -> Value {
    json!({ "minLength": 1, "maxLength": bytes })
}

fn words<'w>(accepted: impl IntoIterator<Item = &'w str>) -> Value {
    json!({ "enum": accepted.into_iter().collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that is generated from it takes what it says for all there is: positions that are given out fit to their pattern.
    #[test]
    fn positions_fit_to_their_pattern() {
        let schema = serde_json::json!({ "type": "string", "pattern": POSITION });
        let fits = |text: &str| jsonschema::is_valid(&schema, &Value::from(text));
        let mut position = kindred_model::Position::beginning();
        assert!(fits(&position.to_string()), "{position}");
        for topic in Topic::ALL {
            position.passed(*topic, 12, 9_041);
            assert!(fits(&position.to_string()), "{position}");
        }
        for bad in ["", "i0", "i.1", "i0.1-", "0-i0.1", "i0.1;"] {
            assert!(!fits(bad) && bad.parse::<kindred_model::Position>().is_err(), "{bad}");
        }
    }
}
