//! Problem details (RFC 9457): the format of every error.
//!
//! ```text
//! handler ──Problem──▶ (response extension) ──middleware: instance, trace id──▶ application/problem+json
//! warp rejection ──from_rejection──▶ Problem ──▶ the same way
//! ```
//!
//! Domain errors are responses; rejections are routing failures only. Each code is documented once, in [`Code`], and served at
//! its `type`, `/problems/{code}`.

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
        /// The machine-readable code of a problem. A code never changes its meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Code { $($variant),+ }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
            /// The text of the page at its `type`.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed_request", BAD_REQUEST, "Malformed request",
        "a header, the path or the body is not valid HTTP or UTF-8; fix the request";
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "Invalid parameter",
        "a path or query parameter is unknown, repeated or out of bounds; `errors` names it";
    MalformedJson = "malformed_json", BAD_REQUEST, "Invalid JSON",
        "the body does not parse; nothing was processed";
    Unauthorized = "unauthorized", UNAUTHORIZED, "Unauthorized",
        "credentials are missing, unknown, revoked or expired: send `Authorization: Bearer <key>`";
    InsufficientScope = "insufficient_scope", FORBIDDEN, "Insufficient scope",
        "the credentials are valid but do not allow this: a publishable key reads lists and posts browser events of sessions, other requests need a service key or a permission";
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN, "Origin not allowed",
        "the origin of the page is not in the list of the publishable key; add it with PATCH /v1/admin/keys/{id}";
    CrossSite = "cross_site", FORBIDDEN, "Cross-site request",
        "cookies are accepted from the shop's own pages only: send `Kindred-Csrf: 1`, from the same origin";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Sign-in failed",
        "the account, the password or the code is wrong, or the session has ended; the response does not reveal which";
    ReauthenticationFailed = "reauthentication_failed", FORBIDDEN, "The current password is wrong",
        "changing credentials requires the current password";
    NotFound = "not_found", NOT_FOUND, "Not found",
        "there is no such route, or no object with this id";
    ViewDisabled = "view_disabled", NOT_FOUND, "View disabled",
        "the view is disabled in the settings; it can be enabled for a new data directory";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed",
        "`Allow` lists the allowed methods";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "Request timeout",
        "the body did not arrive in time; nothing was processed";
    Conflict = "conflict", CONFLICT, "Conflict",
        "the same operation is in progress; retry when it has finished";
    UsernameTaken = "username_taken", CONFLICT, "Username taken",
        "the username is taken or being registered; choose another";
    IdentifierTaken = "identifier_taken", CONFLICT, "Identifier taken",
        "the username, the phone or the e-mail address is taken; choose another";
    Refused = "refused", CONFLICT, "Not allowed in this state",
        "the current state does not allow the operation; retrying does not help";
    TokenGone = "token_gone", GONE, "Link used or expired",
        "a mailed link works once and for a limited time; request a new one";
    Changed = "changed", PRECONDITION_FAILED, "Version mismatch",
        "`If-Match` names an outdated version: read the current one and retry";
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "Payload too large",
        "a body has at most 10 MB and 10,000 records, with a publishable key 64 KiB and 200 records; nothing was processed, split the request";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported content type",
        "send application/json or application/x-ndjson, in UTF-8 and uncompressed";
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "Invalid fields",
        "`errors` lists the invalid fields; nothing was done";
    ChallengeFailed = "challenge_failed", UNPROCESSABLE_ENTITY, "Challenge failed",
        "the proof of work is wrong, expired or already used: get a new challenge from POST /v1/captcha/challenges";
    OneTimeCodeWrong = "code_wrong", UNPROCESSABLE_ENTITY, "Wrong or expired code",
        "a code works once and for some minutes; request a new one";
    InvalidRecord = "invalid_record", UNPROCESSABLE_ENTITY, "Invalid records",
        "no record of the request is valid; `errors` lists what is wrong with each. Nothing was appended";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "Idempotency-Key reused",
        "for a day a key belongs to one request (path and body included): use a new key for a different request";
    LogRefused = "log_refused", UNPROCESSABLE_ENTITY, "Rejected by the log",
        "nothing was appended; retrying does not help";
    PreconditionRequired = "precondition_required", PRECONDITION_REQUIRED, "Precondition required",
        "send `If-Match` with the ETag that you read, so that no concurrent change is lost";
    Throttled = "throttled", TOO_MANY_REQUESTS, "Too many attempts",
        "too many attempts for this account or from this address; wait `Retry-After` seconds";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "the rate limit of the key or its per-address share is exceeded; wait `Retry-After` seconds";
    SessionLimit = "session_limit", TOO_MANY_REQUESTS, "Session limit exceeded",
        "the hourly number of records per session, or of new sessions per address, is limited for publishable keys; nothing was appended";
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many streams",
        "the limit of open streams is reached; close one or poll the list";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "the server log has details under the same `trace_id`";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Service unavailable",
        "the log, the store or the pipeline did not respond; retrying is safe, writes merge by their natural keys";
    Busy = "busy", SERVICE_UNAVAILABLE, "Over capacity",
        "the limit of concurrent password checks, request body bytes or connections is reached; retry in a second";
    PositionNotReached = "position_not_reached", SERVICE_UNAVAILABLE, "Position not reached",
        "the views have not reached the requested position yet; retry, or use a longer `wait_ms`";
    InsufficientStorage = "insufficient_storage", INSUFFICIENT_STORAGE, "Insufficient storage",
        "out of disk space: nothing was appended, nothing acknowledged is lost; writes resume when there is space again";
}

impl Code {
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// An invalid field or parameter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where the field is: `body`, `query`, `path` or `header`.
    #[serde(rename = "in")]
    pub place: &'static str,
    /// JSON pointer (RFC 6901) of the field; for a parameter, its name after a slash.
    pub pointer: String,
    /// Machine-readable error code.
    pub code: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// An error response.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub code: Code,
    pub detail: Cow<'static, str>,
    pub errors: Vec<FieldError>,
    pub retry_after: Option<u64>,
    pub extensions: Map<String, Value>,
    /// The error of the members service, for [`Problem::told`] in the language of the client.
    pub(crate) member: Option<Arc<MemberError>>,
}

impl FieldError {
    /// A field of a body.
    pub(crate) fn body(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { place: "body", pointer: pointer.into(), code, message: message.into() }
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { code, detail, errors: Vec::new(), retry_after: None, extensions: Map::new(), member: None }
    }

    pub fn query(name: &str, reason: impl Into<String>) -> Self {
        Self::field(Code::InvalidParameter, "query", name, reason)
    }

    pub fn path(error: &Invalid) -> Self {
        Self::field(Code::InvalidParameter, "path", &error.field, error.reason.clone())
    }

    /// A field or parameter that is not accepted: `place` as in [`FieldError`].
    pub(crate) fn field(code: Code, place: &'static str, name: &str, reason: impl Into<String>) -> Self {
        let detail = reason.into();
        let error = FieldError { place, ..FieldError::body(pointer(name), "invalid", detail.clone()) };
        Self { errors: vec![error], ..Self::new(code, format!("{name}: {detail}")) }
    }

    /// Logs the reason; the client gets the trace id only.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("internal error: {reason}");
        metrics::counter!("http_internal_errors_total").increment(1);
        Self::new(Code::Internal, Code::Internal.meaning())
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Renders the response; `instance` is the request path.
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

pub(crate) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// Identifies the kind of problem; resolves to a page that explains it.
    #[serde(rename = "type")]
    problem_type: String,
    /// Human-readable name of the kind of problem.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// Human-readable explanation of this occurrence.
    detail: &'a str,
    /// The request path.
    instance: &'a str,
    /// Machine-readable kind of problem: the last part of `type`.
    code: &'a str,
    /// The invalid fields.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// The id of this request in the server log; that of `traceparent` if one was sent.
    trace_id: &'a str,
    /// Seconds after which to retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Additional fields of some kinds of problems.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    extensions: &'a Map<String, Value>,
}

impl Reply for Problem {
    /// An empty response that carries the problem; the middleware renders it with path and trace id.
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
                tracing::warn!("the log did not respond: {reason}");
                Self::new(
                    Code::Unavailable,
                    "the log did not respond; the records may or may not have been appended, retrying is safe",
                )
                .retry_after(1)
            }
            LogError::Full(reason) => {
                tracing::error!("the log is out of disk space: {reason}");
                Self::new(Code::InsufficientStorage, "the log is out of disk space; nothing was appended").retry_after(30)
            }
            LogError::Refused(reason) => Self::new(Code::LogRefused, format!("rejected by the log: {reason}")),
            LogError::Corrupt(reason) => Self::internal(format_args!("the log is corrupt: {reason}")),
        }
    }
}

impl From<MemberError> for Problem {
    fn from(error: MemberError) -> Self {
        match &error {
            MemberError::Store(reason) => tracing::warn!("the store did not respond: {reason}"),
            MemberError::Full(reason) => tracing::error!("the store is out of disk space: {reason}"),
            _ => {}
        }
        let problem = Self::of_member(&error, Language::En, 0);
        Self { member: Some(Arc::new(error)), ..problem }
    }
}

impl Problem {
    /// The problem in the language of the client; the minimum password length may differ for `staff`.
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
                    // R15 fixes this wording.
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
            MemberError::CodeWrong => problem(Code::OneTimeCodeWrong),
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
                tracing::warn!("the store did not respond: {reason}");
                Self::new(Code::Unavailable, "the store did not respond; retrying is safe").retry_after(1)
            }
            StoreError::Full(reason) => {
                tracing::error!("the store is out of disk space: {reason}");
                Self::new(Code::InsufficientStorage, "the store is out of disk space").retry_after(30)
            }
            StoreError::Refused(reason) => Self::internal(format_args!("rejected by the store: {reason}")),
            StoreError::Corrupt(reason) => Self::internal(format_args!("the store is corrupt: {reason}")),
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

pub(crate) fn no_route() -> Problem {
    Problem::new(Code::NotFound, "there is no such route; /openapi.json lists them")
}

/// Maps warp rejections to problems, so that warp's plain-text errors are never sent.
pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    if rejection.is_not_found() {
        no_route()
    } else if let Some(header) = rejection.find::<reject::InvalidHeader>() {
        // Before the method: only routes that have the method read headers.
        Problem::new(Code::MalformedRequest, format!("the header {} is not readable", header.name()))
    } else if rejection.find::<reject::MethodNotAllowed>().is_some() || rejection.find::<reject::MissingHeader>().is_some() {
        // Only preflights require a header: OPTIONS without one is not a method of the route.
        Problem::new(Code::MethodNotAllowed, "the route does not have this method")
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
