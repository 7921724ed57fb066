//! The responses of endpoints: their own, and shared ones that follow from access, method, path and body.
//!
//! ```text
//! Endpoint ──▶ statuses that it does not declare itself ──▶ #/components/responses, with their headers
//! ```

use http::Method;
use serde_json::{Map, Value, json};

use super::examples::problem;
use crate::routes::endpoint::{Endpoint, Need, Schemas};

pub(super) fn of(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let mut answers = Map::new();
    for answer in &endpoint.answers {
        let mut headers: Map<String, Value> =
            answer.headers.iter().map(|(name, description)| ((*name).to_owned(), header("string", description))).collect();
        let status = answer.status.to_string();
        name_headers(&status, &mut headers);
        if endpoint.takes_idempotency_keys() && status.starts_with('2') {
            let replayed = "`true` when the response of an earlier request with the same Idempotency-Key is replayed";
            headers.insert("Idempotency-Replayed".to_owned(), header("string", replayed));
        }
        let mut content: Map<String, Value> = answer
            .content
            .iter()
            .map(|(media_type, schema)| ((*media_type).to_owned(), json!({ "schema": schema(schemas) })))
            .collect();
        if let Some(code) = answer.code {
            content["application/problem+json"]["example"] = problem(code);
        }
        answers.insert(status, response(answer.description, content, headers));
    }
    for (status, name, ..) in ANSWERS.iter().filter(|(.., can_return)| can_return(endpoint)) {
        answers.entry(*status).or_insert_with(|| json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    answers.into()
}

pub(super) fn shared() -> Value {
    let shared = |(status, name, description, _): &Shared| {
        let mut headers = Map::new();
        name_headers(status, &mut headers);
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let content = Map::from_iter([("application/problem+json".to_owned(), problem)]);
        ((*name).to_owned(), response(description, content, headers))
    };
    ANSWERS.iter().map(shared).collect::<Map<String, Value>>().into()
}

fn response(description: &str, content: Map<String, Value>, headers: Map<String, Value>) -> Value {
    let mut response = json!({ "description": description });
    if !content.is_empty() {
        response["content"] = content.into();
    }
    if !headers.is_empty() {
        response["headers"] = headers.into();
    }
    response
}

/// A response shared by many endpoints: status, the name of its component, description, and which endpoints can return it.
type Shared = (&'static str, &'static str, &'static str, fn(&Endpoint) -> bool);

pub(super) fn status_of(name: &str) -> Option<&'static str> {
    ANSWERS.iter().find(|(_, shared, ..)| *shared == name).map(|(status, ..)| *status)
}

const ANSWERS: &[Shared] = &[
    ("400", "BadRequest", "malformed request, or an invalid parameter", reads),
    ("401", "Unauthorized", "missing, invalid or expired credentials", is_guarded),
    ("403", "Forbidden", "missing permission or scope; or the current password is wrong", is_guarded),
    ("404", "NotFound", "not found; or this installation has no member accounts", |endpoint| {
        endpoint.path.contains('{') || is_of_people(endpoint)
    }),
    ("408", "RequestTimeout", "the body did not arrive in time; nothing was processed", takes_body),
    (
        "409",
        "RequestInProgress",
        "a request with this Idempotency-Key is in progress; retry after `Retry-After` seconds",
        Endpoint::takes_idempotency_keys,
    ),
    ("413", "PayloadTooLarge", "the body is too large; nothing was processed", takes_body),
    ("415", "UnsupportedMediaType", "unsupported content type, charset or content encoding", takes_body),
    (
        "422",
        "UnprocessableContent",
        "invalid fields, listed in `errors`; or the Idempotency-Key was used with another request",
        |endpoint| takes_body(endpoint) || endpoint.takes_idempotency_keys(),
    ),
    (
        "429",
        "TooManyRequests",
        "rate limit of the key, the account or the address exceeded; retry after `Retry-After` seconds",
        |endpoint| {
            let is_rated = matches!(endpoint.need, Need::ReadLists | Need::WriteEvents);
            is_rated || is_of_people(endpoint) && takes_body(endpoint)
        },
    ),
    ("500", "InternalServerError", "internal error; the server log has details under the same `trace_id`", reads),
    ("503", "ServiceUnavailable", "the store or the log is unavailable, or the server is over capacity; retry", |endpoint| {
        is_guarded(endpoint) || is_of_people(endpoint)
    }),
    ("507", "InsufficientStorage", "out of disk space; nothing was done", |endpoint| {
        endpoint.method != Method::GET && (is_guarded(endpoint) || is_of_people(endpoint))
    }),
];

fn takes_body(endpoint: &Endpoint) -> bool {
    endpoint.body.is_some()
}

fn reads(endpoint: &Endpoint) -> bool {
    !endpoint.ignores_query || endpoint.path.contains('{') || !endpoint.parameters.is_empty()
}

fn is_guarded(endpoint: &Endpoint) -> bool {
    endpoint.need != Need::Anyone
}

/// The headers that [`crate::problem`] adds for a status.
fn name_headers(status: &str, headers: &mut Map<String, Value>) {
    let (name, header) = match status {
        "401" => ("WWW-Authenticate", header("string", "the expected credentials (RFC 6750)")),
        "429" | "503" | "507" => ("Retry-After", header("integer", "seconds after which to retry")),
        _ => return,
    };
    headers.entry(name).or_insert(header);
}

fn header(kind: &str, description: &str) -> Value {
    json!({ "schema": { "type": kind }, "description": description })
}

/// Whether it needs member accounts, which an installation may disable.
fn is_of_people(endpoint: &Endpoint) -> bool {
    ["registration", "sessions", "account", "staff"].contains(&endpoint.tag)
}
