//! The answers of endpoints: what each says by itself, and what many share, told at one place.
//!
//! ```text
//! Endpoint (need, method, path, body) ──▶ statuses that it does not say itself ──▶ #/components/responses, with their headers
//! ```

use http::Method;
use serde_json::{Map, Value, json};

use crate::routes::endpoint::{Endpoint, Need, Schemas};

/// The answers of an endpoint by their statuses.
pub(super) fn of(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let mut answers = Map::new();
    for answer in &endpoint.answers {
        let mut headers: Map<String, Value> =
            answer.headers.iter().map(|(name, description)| ((*name).to_owned(), header("string", description))).collect();
        let status = answer.status.to_string();
        name_headers(&status, &mut headers);
        if endpoint.takes_idempotency_keys() && status.starts_with('2') {
            let replayed = "`true` where the answer is that of an earlier request of the same Idempotency-Key";
            headers.insert("Idempotency-Replayed".to_owned(), header("string", replayed));
        }
        let content: Map<String, Value> = answer
            .content
            .iter()
            .map(|(media_type, schema)| ((*media_type).to_owned(), json!({ "schema": schema(schemas) })))
            .collect();
        answers.insert(status, response(answer.description, content, headers));
    }
    for shared in ANSWERS.iter().filter(|shared| (shared.of)(endpoint)) {
        let reference = || json!({ "$ref": format!("#/components/responses/{}", shared.name) });
        answers.entry(shared.status).or_insert_with(reference);
    }
    answers.into()
}

/// The answers that endpoints share, by name.
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

/// An answer that many routes can give, for a reason that is not the handler's own.
struct Answer {
    status: &'static str,
    /// Of its component.
    name: &'static str,
    description: &'static str,
    /// Which routes can give it.
    of: fn(&Endpoint) -> bool,
}

/// The status of a shared answer.
pub(super) fn status_of(name: &str) -> Option<&'static str> {
    ANSWERS.iter().find(|answer| answer.name == name).map(|answer| answer.status)
}

const ANSWERS: &[Answer] = &[
    Answer {
        status: "400",
        name: "BadRequest",
        description: "a header, the path, a parameter or the body cannot be read, or a parameter is not accepted",
        of: |endpoint| reads(endpoint),
    },
    Answer {
        status: "401",
        name: "Unauthorized",
        description: "no key and no access token, or one that is not good (any more)",
        of: |endpoint| is_guarded(endpoint),
    },
    Answer {
        status: "403",
        name: "Forbidden",
        description: "the key or the person may not do this; or the current password is wrong",
        of: |endpoint| is_guarded(endpoint),
    },
    Answer {
        status: "404",
        name: "NotFound",
        description: "there is nothing of this name, or this installation keeps no members",
        of: |endpoint| endpoint.path.contains('{') || is_of_people(endpoint),
    },
    Answer {
        status: "408",
        name: "RequestTimeout",
        description: "the body did not arrive in time; nothing of it was taken",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "409",
        name: "BeingDone",
        description: "the request of this Idempotency-Key is still being done; wait for `Retry-After` seconds",
        of: |endpoint| endpoint.takes_idempotency_keys(),
    },
    Answer {
        status: "413",
        name: "PayloadTooLarge",
        description: "the body is too large; nothing of it was taken",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "415",
        name: "UnsupportedMediaType",
        description: "the body is of another type, in another charset or compressed",
        of: |endpoint| endpoint.body.is_some(),
    },
    Answer {
        status: "422",
        name: "UnprocessableContent",
        description: "fields of the body are not accepted, `errors` names them; or the Idempotency-Key is another request's",
        of: |endpoint| endpoint.body.is_some() || endpoint.takes_idempotency_keys(),
    },
    Answer {
        status: "429",
        name: "TooManyRequests",
        description: "too many requests of the key, or tries of the person or the address; wait for `Retry-After` seconds",
        of: |endpoint| {
            let is_rated = matches!(endpoint.need, Need::ReadLists | Need::WriteEvents);
            is_rated || is_of_people(endpoint) && endpoint.body.is_some()
        },
    },
    Answer {
        status: "500",
        name: "InternalServerError",
        description: "something is wrong on the server's side; its log says more under the same `trace_id`",
        of: |endpoint| reads(endpoint),
    },
    Answer {
        status: "503",
        name: "ServiceUnavailable",
        description: "the store or the log gave no answer in time, or too many passwords are being checked; ask again",
        of: |endpoint| is_guarded(endpoint) || is_of_people(endpoint),
    },
    Answer {
        status: "507",
        name: "InsufficientStorage",
        description: "there is no room left; nothing was done",
        of: |endpoint| endpoint.method != Method::GET && (is_guarded(endpoint) || is_of_people(endpoint)),
    },
];

/// Whether it looks at anything of a request but its path.
fn reads(endpoint: &Endpoint) -> bool {
    !endpoint.ignores_query || endpoint.path.contains('{') || !endpoint.parameters.is_empty()
}

fn is_guarded(endpoint: &Endpoint) -> bool {
    endpoint.need != Need::Anyone
}

/// The headers that [`crate::problem`] puts on a status.
fn name_headers(status: &str, headers: &mut Map<String, Value>) {
    let (name, header) = match status {
        "401" => ("WWW-Authenticate", header("string", "which kind of credentials is asked for (RFC 6750)")),
        "429" | "503" | "507" => ("Retry-After", header("integer", "after how many seconds asking again makes sense")),
        _ => return,
    };
    headers.entry(name).or_insert(header);
}

fn header(kind: &str, description: &str) -> Value {
    json!({ "schema": { "type": kind }, "description": description })
}

/// Whether it stands on members, which an installation may do without.
fn is_of_people(endpoint: &Endpoint) -> bool {
    ["registration", "sessions", "account", "staff"].contains(&endpoint.tag)
}
