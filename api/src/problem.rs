//! Problem details (RFC 9457): the one envelope of every error, and the one place that builds it.
//!
//! ```text
//! handler ──Problem──▶ (reply's extension) ──finish: instance, trace id──▶ application/problem+json
//! warp rejection ──from_rejection──▶ Problem ──▶ the same way
//! ```
//!
//! A domain error is a reply, not a rejection; rejections are routing failures only. Each code is documented once, in [`Code`],
//! and served at its `type`, `/problems/{code}`.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use kindred_log::LogError;
use kindred_members::{Language, MemberError, messages};
use kindred_model::Invalid;
use kindred_model::views::ReadError;
use kindred_store::StoreError;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Reply, reject};

use crate::api::Api;
use crate::recommend::ListError;

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:ident, $title:literal, $meaning:literal;)+) => {
        /// What went wrong, for a program. A code is a promise: it is never given another meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code { $(#[doc = $meaning] $variant),+ }

        impl Code {
            /// All of them, in the order of their status.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in `code` and at the end of `type`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
            /// The status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }
            /// The `title`: the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
            /// What it means and what to do: the page at its `type`.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed_request", BAD_REQUEST, "The request is malformed",
        "a header, the path or the body cannot be read as HTTP or UTF-8; mend the request";
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter is not accepted",
        "a parameter of the path or the query is unknown, given twice or out of its bounds; `errors` names it";
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON",
        "the body as a whole does not parse; nothing of it was taken";
    Unauthorized = "unauthorized", UNAUTHORIZED, "A key is needed",
        "no key was presented, or one that is unknown, revoked or has ended: send `Authorization: Bearer <key>`";
    InsufficientScope = "insufficient_scope", FORBIDDEN, "The key does not reach this far",
        "the key is known, but is not for this: a publishable key reads lists and posts browser events of sessions, all else needs a service key";
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN, "The origin is not listed",
        "the page's origin is not among those of the publishable key; list it when the key is created";
    CrossSite = "cross_site", FORBIDDEN, "The request may be another site's",
        "what a cookie signs is asked for by the shop's own pages alone: send `Kindred-Csrf: 1`, from the origin that is asked";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Sign-in failed",
        "the account, the password or the code is wrong, or the session has ended; it is not told which";
    ReauthenticationFailed = "reauthentication_failed", FORBIDDEN, "The current password is wrong",
        "what protects an account is changed with its current password alone; send the right one";
    NotFound = "not_found", NOT_FOUND, "There is nothing here",
        "no route, or nothing under this identity";
    ViewDisabled = "view_disabled", NOT_FOUND, "The view is not kept",
        "the settings of this installation do not keep the view; it can be switched on for a new data directory";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here",
        "`Allow` lists the methods that are";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive",
        "the body was not complete in time; nothing of it was taken";
    Conflict = "conflict", CONFLICT, "It is being done already",
        "the same work is under way; ask again when it has ended";
    UsernameTaken = "username_taken", CONFLICT, "The username is taken",
        "somebody has this username, or is about to; choose another";
    IdentifierTaken = "identifier_taken", CONFLICT, "Username, phone or e-mail is taken",
        "one of them is somebody's; choose another";
    Refused = "refused", CONFLICT, "The state does not allow this",
        "what is there does not allow it; look at it, repeating will not help";
    TokenGone = "token_gone", GONE, "The link is used or expired",
        "a link of a mail works once and for some time; ask for a new one";
    Changed = "changed", PRECONDITION_FAILED, "It was changed meanwhile",
        "`If-Match` names a version that is not the present one: read it again, and decide anew";
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "a body has at most 10 MB and 10,000 records, with a publishable key 64 KiB and 200 records; nothing of it was taken, send it in pieces";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not accepted",
        "send application/json or application/x-ndjson, in UTF-8 and not compressed";
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "Fields are not accepted",
        "`errors` says of each field what is wrong; nothing was done";
    ChallengeFailed = "challenge_failed", UNPROCESSABLE_ENTITY, "The challenge is not solved",
        "the proof of work is wrong, expired or used before: get a new one from POST /v1/captcha/challenges";
    CodeWrong = "code_wrong", UNPROCESSABLE_ENTITY, "The code is wrong or expired",
        "a code works once and for some minutes; ask for a new one";
    InvalidRecord = "invalid_record", UNPROCESSABLE_ENTITY, "The records are not accepted",
        "no record of the request is acceptable; `errors` says of each what is wrong. Nothing was appended";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key is another request's",
        "a key names one request, its path and body included, for a day: send another with what is another request";
    LogRefused = "log_refused", UNPROCESSABLE_ENTITY, "The log refused the records",
        "nothing was appended, and repeating will not help";
    PreconditionRequired = "precondition_required", PRECONDITION_REQUIRED, "The version has to be named",
        "send `If-Match` with the ETag of what you read, so that nobody's change is lost";
    Throttled = "throttled", TOO_MANY_REQUESTS, "Too many tries",
        "of this account or from this address; wait for `Retry-After` seconds";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "the rate of the key is used up, or the share of it that one address has; wait for `Retry-After` seconds";
    SessionLimit = "session_limit", TOO_MANY_REQUESTS, "Too many events of a session",
        "a session may post a limited number of records an hour through a publishable key; nothing was appended";
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many streams",
        "the key has as many streams open as it may; poll the list instead, or close one";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something is wrong on our side",
        "the log of the server says more under the same `trace_id`";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "It is not available now",
        "the log, the store or the pipeline gave no answer; repeating is safe, every write is merged by its natural key";
    Busy = "busy", SERVICE_UNAVAILABLE, "Too much to do",
        "as many passwords are being checked, or bytes of bodies under way, as may be; ask again in a second";
    PositionNotReached = "position_not_reached", SERVICE_UNAVAILABLE, "The position is not reached yet",
        "what was asked for is in the log, but not yet in the views; ask again, or with a longer `wait_ms`";
    InsufficientStorage = "insufficient_storage", INSUFFICIENT_STORAGE, "There is no room left",
        "nothing was appended, and nothing acknowledged is lost; it goes on when there is room again";
}

impl Code {
    /// The code of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// One thing that is wrong with one field or parameter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// Where the field stands: `body`, `query`, `path` or `header`.
    #[serde(rename = "in")]
    pub place: &'static str,
    /// The field as a JSON pointer (RFC 6901); of a parameter, its name after a slash.
    pub pointer: String,
    /// What kind of error it is, for a program.
    pub code: &'static str,
    /// What is wrong, for a person.
    pub message: String,
}

/// An error as it is answered.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What went wrong.
    pub code: Code,
    /// This occurrence, for a person.
    pub detail: Cow<'static, str>,
    /// The fields it is about.
    pub errors: Vec<FieldError>,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u64>,
    /// Further members of the body.
    pub extensions: Map<String, Value>,
    /// What the members' side said, to be told in the language of who asks.
    pub(crate) member: Option<Arc<MemberError>>,
}

impl FieldError {
    /// A field of a body.
    pub(crate) fn body(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { place: "body", pointer: pointer.into(), code, message: message.into() }
    }
}

impl Problem {
    /// A problem that is about no field.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { code, detail, errors: Vec::new(), retry_after: None, extensions: Map::new(), member: None }
    }

    /// A parameter of the query that is not accepted.
    pub fn query(name: &str, reason: impl Into<String>) -> Self {
        Self::field(Code::InvalidParameter, "query", name, reason)
    }

    /// A parameter of the path that is not accepted.
    pub fn path(error: &Invalid) -> Self {
        Self::field(Code::InvalidParameter, "path", &error.field, error.reason.clone())
    }

    /// A field or parameter that is not accepted: `place` as in [`FieldError`].
    pub(crate) fn field(code: Code, place: &'static str, name: &str, reason: impl Into<String>) -> Self {
        let detail = reason.into();
        let error = FieldError { place, ..FieldError::body(pointer(name), "invalid", detail.clone()) };
        Self { errors: vec![error], ..Self::new(code, format!("{name}: {detail}")) }
    }

    /// A failure of ours: the reason goes to the log, the caller learns its trace id.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("could not answer a request: {reason}");
        metrics::counter!("http_internal_errors_total").increment(1);
        Self::new(Code::Internal, Code::Internal.meaning())
    }

    /// After how many seconds to ask again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A further member of the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// The answer. `instance` is the path that was asked for.
    pub(crate) fn render(&self, instance: &str, trace_id: &str, allow: Option<&str>) -> Response {
        let status = self.code.status();
        let body = Body {
            problem_type: format!("/problems/{}", self.code.name()),
            title: self.code.title(),
            status: status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code.name(),
            errors: &self.errors,
            trace_id,
            retry_after: self.retry_after,
            extensions: &self.extensions,
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(bytes.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        match self.code {
            Code::Unauthorized | Code::Unauthenticated => {
                let challenge = HeaderValue::from_static(r#"Bearer realm="kindred", error="invalid_token""#);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Code::InsufficientScope => {
                let challenge = HeaderValue::from_static(r#"Bearer realm="kindred", error="insufficient_scope""#);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            _ => {}
        }
        response
    }
}

/// A parameter's name as a JSON pointer.
pub(crate) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The body of a problem (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// Identifies the kind of problem; a page that says what it means.
    #[serde(rename = "type")]
    problem_type: String,
    /// The kind of problem for a person.
    title: &'a str,
    /// The status again.
    status: u16,
    /// This occurrence for a person.
    detail: &'a str,
    /// The path that was asked for.
    instance: &'a str,
    /// The kind of problem for a program: the last part of `type`.
    code: &'a str,
    /// The fields it is about.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// Under which the server's log has it; that of `traceparent` where one was sent.
    trace_id: &'a str,
    /// Seconds after which asking again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Further members of some kinds.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    extensions: &'a Map<String, Value>,
}

impl Reply for Problem {
    /// An empty reply that carries the problem: [`crate::routes`] renders it once it knows the path and the trace id.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => {
                tracing::warn!("the log did not answer: {reason}");
                Self::new(Code::Unavailable, "the log did not answer; it may or may not have happened, repeating is safe")
                    .retry_after(1)
            }
            LogError::Full(reason) => {
                tracing::error!("the log has no room left: {reason}");
                Self::new(Code::InsufficientStorage, "the log has no room left; nothing of this request was appended")
                    .retry_after(30)
            }
            LogError::Refused(reason) => Self::new(Code::LogRefused, format!("the log refused: {reason}")),
            LogError::Corrupt(reason) => Self::internal(format_args!("the log is damaged: {reason}")),
        }
    }
}

impl From<MemberError> for Problem {
    fn from(error: MemberError) -> Self {
        match &error {
            MemberError::Store(reason) => tracing::warn!("the store did not answer: {reason}"),
            MemberError::Full(reason) => tracing::error!("the store has no room left: {reason}"),
            _ => {}
        }
        let problem = Self::of_member(&error, Language::En, 0);
        Self { member: Some(Arc::new(error)), ..problem }
    }
}

impl Problem {
    /// The same in the language of who asks; the least length of a password may be another for `staff`.
    pub(crate) fn told(self, api: &Api, language: Language, staff: bool) -> Self {
        match (&self.member, &api.context.members) {
            (Some(error), Some(members)) if !matches!(**error, MemberError::Internal(_)) => {
                Self::of_member(error, language, members.password_min(staff))
            }
            _ => self,
        }
    }

    fn of_member(error: &MemberError, language: Language, min: usize) -> Self {
        let text = |code: &str| messages::text_with_min(code, language, min).unwrap_or_else(|| code.to_owned());
        let problem = |code| Self::new(code, text(error.code()));
        match error {
            MemberError::Invalid(fields) => {
                let message = |field: &kindred_members::FieldError| match (&field.named, language, field.code) {
                    // The seed's words stay as they are (R15).
                    (None, ..) | (_, Language::ZhCn, "phone_invalid") => text(field.code),
                    (Some(named), Language::ZhCn, _) => format!("{}（可用：{named}）", text(field.code)),
                    (Some(named), Language::En, _) => format!("{}. Accepted: {named}", text(field.code)),
                };
                let errors = fields.iter().map(|field| FieldError::body(pointer(field.field), field.code, message(field)));
                Self { errors: errors.collect(), ..problem(Code::Invalid) }
            }
            MemberError::UsernameTaken => problem(Code::UsernameTaken),
            MemberError::IdentifierTaken => problem(Code::IdentifierTaken),
            MemberError::ChallengeFailed => problem(Code::ChallengeFailed),
            MemberError::CodeWrong => problem(Code::CodeWrong),
            MemberError::TokenGone => problem(Code::TokenGone),
            MemberError::Unauthenticated => problem(Code::Unauthenticated),
            MemberError::ReauthenticationFailed => problem(Code::ReauthenticationFailed),
            MemberError::Forbidden(permission) => problem(Code::InsufficientScope).with("permission", permission.name()),
            MemberError::NotFound => problem(Code::NotFound),
            MemberError::Changed => problem(Code::Changed),
            MemberError::Refused(reason) => Self::new(Code::Refused, text(reason)),
            MemberError::Throttled { retry_after_s } => problem(Code::Throttled).retry_after(u64::from(*retry_after_s)),
            MemberError::Busy => problem(Code::Busy).retry_after(1),
            MemberError::Store(_) => problem(Code::Unavailable).retry_after(1),
            MemberError::Full(_) => problem(Code::InsufficientStorage).retry_after(30),
            MemberError::Internal(reason) => Self::internal(reason),
        }
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Corrupt(corrupt) => Self::internal(corrupt),
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!("the store did not answer: {reason}");
                Self::new(Code::Unavailable, "the store did not answer; repeating is safe").retry_after(1)
            }
            StoreError::Full(reason) => {
                tracing::error!("the store has no room left: {reason}");
                Self::new(Code::InsufficientStorage, "the store has no room left").retry_after(30)
            }
            StoreError::Refused(reason) => Self::internal(format_args!("the store refused: {reason}")),
            StoreError::Corrupt(reason) => Self::internal(format_args!("the store is damaged: {reason}")),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(reason) => StoreError::Unavailable(reason).into(),
            ReadError::Corrupt(corrupt) => Self::internal(corrupt),
        }
    }
}

/// Nothing is routed there.
pub(crate) fn no_route() -> Problem {
    Problem::new(Code::NotFound, "there is no such route; /openapi.json lists them")
}

/// What warp's routing could not place, as a problem: its plain texts never leave the house.
pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    if rejection.is_not_found() {
        no_route()
    } else if let Some(header) = rejection.find::<reject::InvalidHeader>() {
        // Before the methods: only a route that has the method looks at headers.
        Problem::new(Code::MalformedRequest, format!("the header {} is not readable", header.name()))
    } else if rejection.find::<reject::MethodNotAllowed>().is_some() || rejection.find::<reject::MissingHeader>().is_some() {
        // Nothing but a preflight demands a header: OPTIONS without one is no method of the route.
        Problem::new(Code::MethodNotAllowed, "this route has other methods")
    } else if rejection.find::<reject::UnsupportedMediaType>().is_some() {
        Problem::new(Code::UnsupportedMediaType, Code::UnsupportedMediaType.meaning())
    } else if rejection.find::<reject::PayloadTooLarge>().is_some() {
        Problem::new(Code::PayloadTooLarge, Code::PayloadTooLarge.meaning())
    } else if rejection.find::<reject::InvalidQuery>().is_some() || rejection.find::<reject::LengthRequired>().is_some() {
        Problem::new(Code::MalformedRequest, "the request is not readable")
    } else {
        Problem::internal(format_args!("{rejection:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_by_name() {
        for code in Code::ALL {
            assert_eq!(Code::find(code.name()), Some(*code), "{code:?} shares its name");
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    /// What a program goes by is listed for who writes it.
    #[test]
    fn every_code_stands_in_the_documentation() {
        let documented = include_str!("../../docs/API.md");
        let missing: Vec<&str> =
            Code::ALL.iter().map(|code| code.name()).filter(|name| !documented.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/API.md does not name {missing:?}");
    }
}
