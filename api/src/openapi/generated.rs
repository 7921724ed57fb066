//! Generates the contract from the endpoints.
//!
//! ```text
//! Endpoint ──▶ operation: parameters, body, own and shared responses ──▶ schemas/openapi.json
//! ```

use std::sync::LazyLock;

use http::Method;
use serde_json::{Map, Value, json};

use super::{answers, examples, parameters, records};
use crate::routes::endpoint::{Endpoint, Need, Schemas, Template, endpoints, schema_of};

/// The tags, in the order of the documentation.
const TAGS: &[(&str, &str)] = &[
    ("lists", "recommendations"),
    ("catalog", "the catalog"),
    ("events", "event ingestion"),
    ("members", "data of one member"),
    ("registration", "registration of members"),
    ("sessions", "sign-in and sessions"),
    ("account", "the caller's own account"),
    ("staff", "member administration"),
    ("admin", "operation"),
    ("health", "health, metrics and this contract"),
    ("widget", "the storefront widget"),
];

fn security_schemes() -> Value {
    let bearer = |description: &str| json!({ "type": "http", "scheme": "bearer", "description": description });
    json!({
        "service_key": bearer("kd_sk_...: a secret of the shop's servers"),
        "publishable_key": bearer("kd_pk_...: used in web pages; limited to its origins, scopes and rate"),
        "access_token": bearer("an access token (RFC 9068) of a signed-in person"),
        "publishable_key_in_query": {
            "type": "apiKey",
            "in": "query",
            "name": "key",
            "description": "a publishable key, for clients that cannot send headers (EventSource)",
        },
    })
}

fn security(need: Need) -> Value {
    let schemes: &[&str] = match need {
        Need::Anyone => return json!([{}]),
        Need::ReadLists => &["service_key", "publishable_key", "publishable_key_in_query", "access_token"],
        Need::WriteEvents => &["service_key", "publishable_key"],
        Need::SignedIn => &["access_token"],
        Need::OwnOr(_) | Need::Staff(_) => &["service_key", "access_token"],
    };
    schemes.iter().map(|scheme| json!({ *scheme: [] })).collect()
}

fn operation(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "tags": [endpoint.tag],
        "operationId": endpoint.operation,
        "description": endpoint.description,
        "responses": answers::of(endpoint, schemas),
        "security": security(endpoint.need),
    });
    let parameters = parameters::of(endpoint);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = endpoint.body {
        operation["requestBody"] = body(schemas);
    }
    operation
}

fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let mut schemas = Schemas::new();
        schema_of::<crate::problem::Body<'_>>(&mut schemas);
        let mut paths = Map::new();
        for endpoint in endpoints().filter(|endpoint| !endpoint.on_admin_address) {
            let operations = paths.entry(endpoint.path).or_insert_with(|| json!({}));
            operations[endpoint.method.as_str().to_lowercase()] = operation(endpoint, &mut schemas);
        }
        let tag = |(name, description): &(&str, &str)| json!({ "name": name, "description": description });
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Kindred",
                "description": "Live recommendations and loyalty from a shop's event log. Errors are problem details (RFC 9457).",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
                "version": env!("CARGO_PKG_VERSION"),
            },
            "tags": TAGS.iter().map(tag).collect::<Value>(),
            "paths": paths,
            "components": { "schemas": schemas, "responses": answers::shared(), "securitySchemes": security_schemes() },
        });
        records::add_records(&mut document);
        examples::add_examples(&mut document);
        document
    });
    &DOCUMENT
}

/// Whether the contract has a response with this status. Requests without an endpoint are in no contract.
pub(crate) fn describes(template: Option<&Template>, method: &Method, status: u16) -> bool {
    let Some(endpoint) = template.and_then(|template| template.endpoint(method)) else { return true };
    endpoint.on_admin_address || !answers::of(endpoint, &mut Schemas::new())[status.to_string()].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is committed is what the code says: whoever changes a route changes the contract knowingly.
    #[test]
    fn the_committed_contract_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/openapi.json");
        let generated = format!("{:#}\n", document());
        if std::env::var_os("KINDRED_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == generated,
            "schemas/openapi.json is out of date: KINDRED_WRITE_OPENAPI=1 cargo test -p kindred-api openapi"
        );
    }

    /// A client is generated from them: two of one name would be one function.
    #[test]
    fn operations_have_names_of_their_own() {
        let contract = document();
        let operations = contract["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let mut names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        names.sort_unstable();
        let twice: Vec<&[&str]> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}
