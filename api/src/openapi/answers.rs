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
    for shared in ANSWERS.iter().filter(|shared| (shared.of)(endpoint)) {
        let reference = || json!({ "$ref": format!("#/components/responses/{}", shared.name) });
        answers.entry(shared.status).or_insert_with(reference);
    }
    answers.into()
}

pub(super) fn shared() -> Value {
    let shared = |answer: &Answer| {
        let mut headers = Map::new();
        name_headers(answer.status, &mut headers);
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let content = Map::from_iter([("application/problem+json".to_owned(), problem)]);
        (answer.name.to_owned(), response(answer.description, content, headers))
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

/// A response shared by many endpoints.
struct Answer {
    status: &'static str,
    /// The name of its component.
    name: &'static str,
    description: &'static str,
    /// Which endpoints can return it.
    of: fn(&Endpoint) -> bool,
}

pub(super) fn status_of(name: &str) -> Option<&'static str> {
    ANSWERS.iter().find(|answer| answer.name == name).map(|answer| answer.status)
}

const ANSWERS: &[Answer] = &[
    Answer {
        status: "400",
        name: "BadRequest",
        description: "malformed request, or an invalid parameter",
        of: |endpoint| reads(endpoint),
    },
    Answer {
        status: "401",
        name: "Unauthorized",
        description: "missing, invalid or expired credentials",
        of: |endpoint| is_guarded(endpoint),
    },
    Answer {
        status: "403",
        name: "Forbidden",
        description: "missing permission or scope; or the current password is wrong",
        of: |endpoint| is_guarded(endpoint),
    },
    Answer {
        status: "404",
        name: "NotFound",
        description: "not found; or this installation has no member accounts",
        of: |endpoint| endpoint.path.contains('{') || is_of_people(endpoint),
    },
    Answer {
        status: "408",
        name: "RequestTimeout",
        description: "the body did not arrive in time; nothing was processed",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "409",
        name: "RequestInProgress",
        description: "a request with this Idempotency-Key is in progress; retry after `Retry-After` seconds",
        of: |endpoint| endpoint.takes_idempotency_keys(),
    },
    Answer {
        status: "413",
        name: "PayloadTooLarge",
        description: "the body is too large; nothing was processed",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "415",
        name: "UnsupportedMediaType",
        description: "unsupported content type, charset or content encoding",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "422",
        name: "UnprocessableContent",
        description: "invalid fields, listed in `errors`; or the Idempotency-Key was used with another request",
        of: |endpoint| endpoint.body.is_some() || endpoint.takes_idempotency_keys(),
    },
    Answer {
        status: "429",
        name: "TooManyRequests",
        description: "rate limit of the key, the account or the address exceeded; retry after `Retry-After` seconds",
        of: |endpoint| {
            let is_rated = matches!(endpoint.need, Need::ReadLists | Need::WriteEvents);
            is_rated || is_of_people(endpoint) && endpoint.body.is_some()
        },
    },
    Answer {
        status: "500",
        name: "InternalServerError",
        description: "internal error; the server log has details under the same `trace_id`",
        of: |endpoint| reads(endpoint),
    },
    Answer {
        status: "503",
        name: "ServiceUnavailable",
        description: "the store or the log is unavailable, or the server is over capacity; retry",
        of: |endpoint| is_guarded(endpoint) || is_of_people(endpoint),
    },
    Answer {
        status: "507",
        name: "InsufficientStorage",
        description: "out of disk space; nothing was done",
        of: |endpoint| endpoint.method != Method::GET && (is_guarded(endpoint) || is_of_people(endpoint)),
    },
];

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
