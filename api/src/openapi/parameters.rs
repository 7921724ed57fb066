//! What a parameter may be, by its name and place: said once, wherever it stands.
//!
//! ```text
//! (place, name) ──▶ length, pattern, format or the words that are taken; an example
//! ```

use kindred_model::units::Tier;
use kindred_model::{Kind, Topic, views};
use serde_json::Value;
use utoipa::Modify;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{KnownFormat, Object, RefOr, Required, Schema, SchemaFormat, Type};

use super::operation_of;
use crate::params::WAIT_MS_MAX;
use crate::recommend::Sort;
use crate::routes::access::{Need, ROUTES, Route};
use crate::routes::accounts::staff::TEXT_BYTES_MAX;
use crate::routes::catalog::{CATEGORY_BYTES_MAX, TAG_BYTES_MAX};
use crate::routes::once::KEY_CHARS;

/// Puts it into the contract.
pub(super) struct NamedParameters;

impl Modify for NamedParameters {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for route in ROUTES {
            let Some(operation) = operation_of(openapi, route) else { continue };
            for shared in SHARED.iter().filter(|shared| (shared.of)(route)) {
                operation.parameters.get_or_insert_default().push(RefOr::T(shared.parameter()));
            }
        }
        for (template, path) in &mut openapi.paths.paths {
            let operations = [&mut path.get, &mut path.post, &mut path.put, &mut path.patch, &mut path.delete];
            for operation in operations.into_iter().flatten() {
                describe(template, operation);
            }
        }
    }
}

fn describe(template: &str, operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { name, parameter_in, schema: Some(RefOr::T(Schema::Object(schema))), .. }) = parameter {
            narrow(template, parameter_in, name, schema);
        }
    }
}

/// A parameter that many routes take, told at one place.
struct Shared {
    place: ParameterIn,
    name: &'static str,
    kind: Type,
    description: &'static str,
    /// Which routes take it.
    of: fn(&Route) -> bool,
}

const SHARED: &[Shared] = &[
    Shared {
        place: ParameterIn::Query,
        name: "member",
        kind: Type::String,
        description: "as this member sees it; with a service key",
        of: |route| route.need == Need::ReadLists && route.template() != "/v1/stream",
    },
    Shared {
        place: ParameterIn::Query,
        name: "min_position",
        kind: Type::String,
        description: "answer only once the views reach this position",
        of: waits_for_a_position,
    },
    Shared {
        place: ParameterIn::Query,
        name: "wait_ms",
        kind: Type::Integer,
        description: "how long to wait for it; 1000 unless given",
        of: waits_for_a_position,
    },
    Shared {
        place: ParameterIn::Query,
        name: "key",
        kind: Type::String,
        description: "a publishable key, in place of the header: an EventSource can send none",
        of: |route| route.need == Need::ReadLists,
    },
    Shared {
        place: ParameterIn::Header,
        name: "If-None-Match",
        kind: Type::String,
        description: "an ETag: 304 when the answer is still that",
        of: is_read_at_once,
    },
    Shared {
        place: ParameterIn::Header,
        name: "Idempotency-Key",
        kind: Type::String,
        description: "names the request, a UUID for one: asked for again under it within a day, it is not done again, and the answer is that \
                      of the first time, with `Idempotency-Replayed: true`. Only a success is kept",
        of: Route::takes_idempotency_keys,
    },
];

/// What is read of lists and the catalog, and not followed.
fn is_read_at_once(route: &Route) -> bool {
    route.need == Need::ReadLists && !route.template().ends_with("/stream")
}

/// What can be asked for as of what was written just now.
fn waits_for_a_position(route: &Route) -> bool {
    is_read_at_once(route) || route.method() == "GET" && matches!(route.need, Need::OwnOr(_))
}

impl Shared {
    fn parameter(&self) -> Parameter {
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(self.place.clone())
            .required(Required::False)
            .description(Some(self.description))
            .schema(Some(Object::with_type(self.kind.clone())))
            .build()
    }
}

/// A position: topic, partition and offset of each place, or `0`, the beginning.
const POSITION: &str = "^(0|[cilmo][0-9]+\\.[0-9]+(-[cilmo][0-9]+\\.[0-9]+)*)$";
/// Anything but control characters.
const IDENTITY: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
/// ETags, or any.
const VALIDATORS: &str = "^(\\*|(W/)?\"[^\"]*\"( *, *(W/)?\"[^\"]*\")*)$";
/// Characters of an identity. Its limit is 128 bytes, which is never more than as many characters.
const IDENTITY_CHARS_MAX: usize = 128;

fn narrow(template: &str, place: &ParameterIn, name: &str, schema: &mut Object) {
    match (place, name) {
        (ParameterIn::Path, "item" | "member") | (ParameterIn::Query, "member") => {
            schema.min_length = Some(1);
            schema.max_length = Some(IDENTITY_CHARS_MAX);
            schema.pattern = Some(IDENTITY.to_owned());
            schema.example = Some(if name == "item" { "sku-1" } else { "m1" }.into());
        }
        (ParameterIn::Path, "topic") => words(schema, Topic::OF_SHOPS.iter().map(|topic| topic.name())),
        (ParameterIn::Path, "view") => words(schema, views::ALL.iter().map(|view| view.name)),
        (ParameterIn::Query, "view") => words(schema, ["also_bought"]),
        (ParameterIn::Query, "kind") if template == "/v1/popular" => {
            words(schema, Kind::ALL.iter().filter(|kind| **kind != Kind::Search).map(|kind| kind.name()));
        }
        (ParameterIn::Query, "kind") if template == "/v1/items" => words(schema, ["good", "service", "activity"]),
        (ParameterIn::Query, "sort") => words(schema, Sort::ALL.map(|(name, _)| name)),
        (ParameterIn::Query, "category") => at_most(schema, CATEGORY_BYTES_MAX),
        (ParameterIn::Query, "tag") => at_most(schema, TAG_BYTES_MAX),
        (ParameterIn::Query, "verbose") => words(schema, ["", "true", "false"]),
        (ParameterIn::Query, "format") => words(schema, ["ndjson", "csv"]),
        (ParameterIn::Query, "state") => words(schema, ["registered", "activating", "activated", "suspended"]),
        (ParameterIn::Query, "tier") => words(schema, Tier::ALL.iter().map(|tier| tier.name())),
        (ParameterIn::Query, "actor" | "subject" | "q") => at_most(schema, TEXT_BYTES_MAX),
        (ParameterIn::Query, "as_of" | "from" | "to") => {
            schema.format = Some(SchemaFormat::KnownFormat(KnownFormat::Date));
            schema.example = Some("2026-01-05".into());
        }
        (ParameterIn::Query, "min_position") => {
            schema.pattern = Some(POSITION.to_owned());
            schema.example = Some("0".into());
        }
        (ParameterIn::Query, "wait_ms") => {
            schema.minimum = Some(0.into());
            schema.maximum = Some(WAIT_MS_MAX.into());
        }
        (ParameterIn::Header, "Idempotency-Key") => {
            let bare = format!("[!#-~]{{{},{}}}", KEY_CHARS.start(), KEY_CHARS.end());
            schema.pattern = Some(format!("^(\"{bare}\"|{bare})$"));
            schema.example = Some("019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46".into());
        }
        (ParameterIn::Header, "If-None-Match") if template == "/v1/admin/roles/{name}" => words(schema, ["*"]),
        (ParameterIn::Header, "If-Match") => {
            schema.pattern = Some(VALIDATORS.to_owned());
            schema.example = Some("*".into());
        }
        _ => {}
    }
    if *place == ParameterIn::Header {
        // What may be absent is not null: a header has no such value.
        schema.schema_type = SchemaType::Type(Type::String);
    }
}

/// From one to so many characters: the limit is one of bytes, which is never more.
fn at_most(schema: &mut Object, bytes: usize) {
    schema.min_length = Some(1);
    schema.max_length = Some(bytes);
}

fn words<'w>(schema: &mut Object, taken: impl IntoIterator<Item = &'w str>) {
    schema.enum_values = Some(taken.into_iter().map(Value::from).collect());
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
