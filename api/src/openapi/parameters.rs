//! What a parameter may be, by its name and place: said once, wherever it stands.
//!
//! ```text
//! (place, name) ──▶ length, pattern, format or the words that are taken; an example
//! ```

use kindred_model::units::Tier;
use kindred_model::{Kind, Topic, views};
use serde_json::{Value, json};

use crate::recommend::Sort;
use crate::routes::accounts::staff::TEXT_BYTES_MAX;
use crate::routes::catalog::{CATEGORY_BYTES_MAX, TAG_BYTES_MAX};
use crate::routes::endpoint::{Endpoint, Parameter, Place, Shape};
use crate::routes::idempotency::KEY_CHARS;

/// The parameters of an endpoint: of its path, and what it says by itself or shares.
pub(super) fn of(endpoint: &Endpoint) -> Vec<Value> {
    let named = |name: &str, description: &'static str| {
        let stands = endpoint.path.contains(&format!("{{{name}}}"));
        let name = if name == "item" { "item" } else { "member" };
        stands.then_some(Parameter { place: Place::Path, name, shape: Shape::Text, required: true, description })
    };
    let item = named("item", "the item, percent-encoded; 1 to 128 bytes");
    let member = named("member", "the member, percent-encoded");
    let own = [item, member].into_iter().flatten();
    own.chain(endpoint.all_parameters().cloned()).map(|parameter| described(endpoint.path, &parameter)).collect()
}

fn described(template: &str, parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let mut schema = match parameter.shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(least, most) => json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most }),
        Shape::Texts(least, most) => {
            json!({ "type": "array", "items": { "type": "string" }, "minItems": least, "maxItems": most })
        }
    };
    narrow(template, parameter.place, parameter.name, &mut schema);
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    })
}

/// A position: topic, partition and offset of each place, or `0`, the beginning.
const POSITION: &str = "^(0|[cilmo][0-9]+\\.[0-9]+(-[cilmo][0-9]+\\.[0-9]+)*)$";
/// Anything but control characters.
const IDENTITY: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
/// ETags, or any.
const VALIDATORS: &str = "^(\\*|(W/)?\"[^\"]*\"( *, *(W/)?\"[^\"]*\")*)$";
/// Characters of an identity. Its limit is 128 bytes, which is never more than as many characters.
const IDENTITY_CHARS_MAX: usize = 128;

fn narrow(template: &str, place: Place, name: &str, schema: &mut Value) {
    let add = match (place, name) {
        (Place::Path, "item" | "member") | (Place::Query, "member") => {
            let example = if name == "item" { "sku-1" } else { "m1" };
            json!({ "minLength": 1, "maxLength": IDENTITY_CHARS_MAX, "pattern": IDENTITY, "example": example })
        }
        (Place::Path, "topic") => words(Topic::OF_SHOPS.iter().map(|topic| topic.name())),
        (Place::Path, "view") => words(views::ALL.iter().map(|view| view.name)),
        (Place::Query, "view") => words(["also_bought"]),
        (Place::Query, "kind") if template == "/v1/popular" => {
            words(Kind::ALL.iter().filter(|kind| **kind != Kind::Search).map(|kind| kind.name()))
        }
        (Place::Query, "kind") if template == "/v1/items" => words(["good", "service", "activity"]),
        (Place::Query, "sort") => words(Sort::ALL.map(|(name, _)| name)),
        (Place::Query, "category") => at_most(CATEGORY_BYTES_MAX),
        (Place::Query, "tag") => at_most(TAG_BYTES_MAX),
        (Place::Query, "verbose") => words(["", "true", "false"]),
        (Place::Query, "format") => words(["ndjson", "csv"]),
        (Place::Query, "state") => words(["registered", "activating", "activated", "suspended"]),
        (Place::Query, "tier") => words(Tier::ALL.iter().map(|tier| tier.name())),
        (Place::Query, "actor" | "subject" | "q") => at_most(TEXT_BYTES_MAX),
        (Place::Query, "as_of" | "from" | "to") => json!({ "format": "date", "example": "2026-01-05" }),
        (Place::Query, "min_position") => json!({ "pattern": POSITION, "example": "0" }),
        (Place::Header, "Idempotency-Key") => {
            let bare = format!("[!#-~]{{{},{}}}", KEY_CHARS.start(), KEY_CHARS.end());
            json!({ "pattern": format!("^(\"{bare}\"|{bare})$"), "example": "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46" })
        }
        (Place::Header, "If-None-Match") if template == "/v1/admin/roles/{name}" => words(["*"]),
        (Place::Header, "If-Match") => json!({ "pattern": VALIDATORS, "example": "*" }),
        _ => return,
    };
    let (Value::Object(schema), Value::Object(add)) = (schema, add) else { unreachable!("both are objects") };
    schema.extend(add);
}

/// From one to so many characters: the limit is one of bytes, which is never more.
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
