//! The answers that routes share, told at one place. A handler's annotation says what is its own; what it says of a status stays.
//!
//! ```text
//! Route (need, method, template) + operation (body) ──▶ statuses that are missing ──▶ #/components/responses, with their headers
//! ```

use utoipa::Modify;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, Type};

use super::operation_of;
use crate::routes::access::{Need, ROUTES, Route};

/// Puts them into the contract.
pub(super) struct SharedAnswers;

impl Modify for SharedAnswers {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for answer in ANSWERS {
            components.responses.insert(answer.name.to_owned(), RefOr::T(answer.response()));
        }
        for route in ROUTES {
            let Some(operation) = operation_of(openapi, route) else { continue };
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    name_headers(status, response);
                    if route.takes_idempotency_keys() && status.starts_with('2') {
                        let replayed = text("`true` where the answer is that of an earlier request of the same Idempotency-Key");
                        response.headers.insert("Idempotency-Replayed".to_owned(), RefOr::T(replayed));
                    }
                }
            }
            for answer in ANSWERS.iter().filter(|answer| (answer.of)(route, operation)).collect::<Vec<_>>() {
                let response = || RefOr::Ref(Ref::new(format!("#/components/responses/{}", answer.name)));
                operation.responses.responses.entry(answer.status.to_owned()).or_insert_with(response);
            }
        }
    }
}

/// An answer that many routes can give, for a reason that is not the handler's own.
struct Answer {
    status: &'static str,
    /// Of its component.
    name: &'static str,
    description: &'static str,
    /// Which routes can give it.
    of: fn(&Route, &Operation) -> bool,
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
        of: |route, _| reads(route),
    },
    Answer {
        status: "401",
        name: "Unauthorized",
        description: "no key and no access token, or one that is not good (any more)",
        of: |route, _| is_guarded(route),
    },
    Answer {
        status: "403",
        name: "Forbidden",
        description: "the key or the person may not do this; or the current password is wrong",
        of: |route, _| is_guarded(route),
    },
    Answer {
        status: "404",
        name: "NotFound",
        description: "there is nothing of this name, or this installation keeps no members",
        of: |route, operation| route.template().contains('{') || is_of_people(operation),
    },
    Answer {
        status: "408",
        name: "RequestTimeout",
        description: "the body did not arrive in time; nothing of it was taken",
        of: |_, operation| operation.request_body.is_some(),
    },
    Answer {
        status: "409",
        name: "BeingDone",
        description: "the request of this Idempotency-Key is still being done; wait for `Retry-After` seconds",
        of: |route, _| route.takes_idempotency_keys(),
    },
    Answer {
        status: "413",
        name: "PayloadTooLarge",
        description: "the body is too large; nothing of it was taken",
        of: |_, operation| operation.request_body.is_some(),
    },
    Answer {
        status: "415",
        name: "UnsupportedMediaType",
        description: "the body is of another type, in another charset or compressed",
        of: |_, operation| operation.request_body.is_some(),
    },
    Answer {
        status: "422",
        name: "UnprocessableContent",
        description: "fields of the body are not accepted, `errors` names them; or the Idempotency-Key is another request's",
        of: |route, operation| operation.request_body.is_some() || route.takes_idempotency_keys(),
    },
    Answer {
        status: "429",
        name: "TooManyRequests",
        description: "too many requests of the key, or tries of the person or the address; wait for `Retry-After` seconds",
        of: |route, operation| {
            let is_rated = matches!(route.need, Need::ReadLists | Need::WriteEvents);
            is_rated || is_of_people(operation) && operation.request_body.is_some()
        },
    },
    Answer {
        status: "500",
        name: "InternalServerError",
        description: "something is wrong on the server's side; its log says more under the same `trace_id`",
        of: |route, _| reads(route),
    },
    Answer {
        status: "503",
        name: "ServiceUnavailable",
        description: "the store or the log gave no answer in time, or too many passwords are being checked; ask again",
        of: |route, operation| is_guarded(route) || is_of_people(operation),
    },
    Answer {
        status: "507",
        name: "InsufficientStorage",
        description: "there is no room left; nothing was done",
        of: |route, operation| route.method() != "GET" && (is_guarded(route) || is_of_people(operation)),
    },
];

impl Answer {
    fn response(&self) -> Response {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(self.description).content("application/problem+json", content);
        let mut response = response.build();
        name_headers(self.status, &mut response);
        response
    }
}

/// Whether it looks at anything of a request but its path.
fn reads(route: &Route) -> bool {
    !matches!(route.template(), "/livez" | "/openapi.json" | "/docs")
}

fn is_guarded(route: &Route) -> bool {
    route.need != Need::Anyone
}

/// The headers that [`crate::problem`] puts on a status.
fn name_headers(status: &str, response: &mut Response) {
    let (name, header) = match status {
        "401" => ("WWW-Authenticate", text("which kind of credentials is asked for (RFC 6750)")),
        "429" | "503" | "507" => ("Retry-After", seconds("after how many seconds asking again makes sense")),
        _ => return,
    };
    response.headers.entry(name.to_owned()).or_insert(RefOr::T(header));
}

fn text(description: &str) -> Header {
    header(Type::String, description)
}

fn seconds(description: &str) -> Header {
    header(Type::Integer, description)
}

fn header(kind: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(Schema::from(schema))).description(Some(description)).build()
}

/// Whether it stands on members, which an installation may do without.
fn is_of_people(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| ["registration", "sessions", "account", "staff"].contains(&tag.as_str()))
}
