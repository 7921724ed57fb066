//! `Idempotency-Key`: a repeated request is executed once and gets the stored response.
//!
//! ```text
//! POST + key ──authorized──▶ begin ──first──▶ handler, to completion ──success──▶ stored, 24 h
//!                               ├──stored──▶ the same response, Idempotency-Replayed: true
//!                               └──in progress, or a different request──▶ 409, 422
//! ```
//!
//! Handlers do not know of it. Only successes are stored: a refused request had no effect and may be retried. Unauthenticated
//! routes do not need it (their tokens and codes work once), nor do events, which merge by their natural keys.

use std::future::ready;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use kindred_members::{ANSWER_BYTES_MAX, Attempt, Members, Once};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use warp::reply::Response;

use super::body::UnreadBody;
use super::endpoint::Answered;
use super::request::Request;
use crate::completion::run_to_completion;
use crate::problem::{Code, Problem};

pub(crate) const KEY: &str = "idempotency-key";
/// Marks a replayed response.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Length of a key in characters. The stored response is sealed under it, so it must not be guessable.
pub(crate) const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// Margin over the handler timeout after which another process may retry an unfinished request.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Handles a request, at most once per `Idempotency-Key`.
pub(super) async fn handle_once(request: Request, posted: UnreadBody) -> Answered {
    let Some(key) = request.headers.get(KEY).filter(|_| request.endpoint.takes_idempotency_keys()) else {
        return handle(request, posted).await;
    };
    // Lossy, so that a non-ASCII key is refused and not ignored.
    let Key(key) = String::from_utf8_lossy(key.as_bytes()).parse()?;
    let Some(members) = request.api.context.members.clone() else {
        return Err(Problem::new(
            Code::MalformedRequest,
            "this installation has no member accounts and does not support Idempotency-Key",
        ));
    };
    let body = Bytes::from_owner(posted.read_small(&request.api).await?);
    // To completion even if the client disconnects: it will retry and needs the result.
    run_to_completion(async move { execute_once(&members, &key, request, body).await }).await?
}

struct Key(String);

impl FromStr for Key {
    type Err = Problem;

    /// Bare or quoted (RFC 8941): clients do either.
    fn from_str(text: &str) -> Result<Self, Problem> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        if KEY_CHARS.contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return Ok(Self(bare.to_owned()));
        }
        let message =
            format!("must have {} to {} visible ASCII characters, for example a UUID", KEY_CHARS.start(), KEY_CHARS.end());
        Err(Problem::field(Code::InvalidParameter, "header", "Idempotency-Key", message))
    }
}

async fn handle(request: Request, posted: UnreadBody) -> Answered {
    let endpoint = request.endpoint.clone();
    endpoint.handle(request, posted).await
}

async fn execute_once(members: &Members, key: &str, request: Request, body: Bytes) -> Answered {
    let digest = STANDARD.encode(Sha256::digest(&body));
    let named = [request.path.as_str(), &request.query, request.header("if-match")?.unwrap_or_default(), &digest];
    let lease = Duration::from_millis(request.api.config.limits.handler_ms) + LEASE_MARGIN;
    let begun = members.idempotency.begin_once(&request.grant.actor("").id, key, &named, lease.as_secs()).await?;
    let outcome = match &begun {
        Once::First(_) => "first",
        Once::Answered(_) => "replayed",
        Once::UnderWay => "under_way",
        Once::AnotherRequest => "another_request",
    };
    metrics::counter!("http_idempotency_keys_total", "outcome" => outcome).increment(1);
    match begun {
        Once::First(attempt) => {
            let body = stream::once(ready(Ok::<_, warp::Error>(body)));
            let posted = UnreadBody::of(&request.headers, request.address, body)?;
            settle(members, &attempt, handle(request, posted).await).await
        }
        Once::Answered(kept) => serde_json::from_slice::<Answer>(&kept).map_err(Problem::internal)?.replayed(),
        Once::UnderWay => Err(Problem::new(Code::Conflict, "a request with this Idempotency-Key is in progress").retry_after(1)),
        Once::AnotherRequest => Err(Problem::new(Code::IdempotencyKeyReused, Code::IdempotencyKeyReused.meaning())),
    }
}

/// Stores the response of a success; releases the key otherwise.
async fn settle(members: &Members, attempt: &Attempt, outcome: Answered) -> Answered {
    let warn = |error| tracing::warn!(%error, "could not store the response of an Idempotency-Key; the key is released when its lease expires");
    let response = match outcome {
        Ok(response) if response.status().is_success() => response,
        refused => {
            members.idempotency.free_key(attempt).await.unwrap_or_else(warn);
            return refused;
        }
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Problem::internal)?.to_bytes();
    let kept = serde_json::to_vec(&Answer::of(parts.status, &parts.headers, &body)).map_err(Problem::internal)?;
    if kept.len() > ANSWER_BYTES_MAX {
        tracing::warn!(
            bytes = kept.len(),
            "the response of an Idempotency-Key is too large to store: a repeated request is executed again"
        );
    }
    members.idempotency.keep_answer(attempt, &kept).await.unwrap_or_else(warn);
    Ok(Response::from_parts(parts, body.into()))
}

/// A stored response.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    /// (name, value); ours are ASCII.
    headers: Vec<(String, String)>,
    /// Base64.
    body: String,
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Self {
        let headers = headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self { status: status.as_u16(), headers: headers.collect(), body: STANDARD.encode(body) }
    }

    fn replayed(self) -> Answered {
        let body = STANDARD.decode(self.body).map_err(Problem::internal)?;
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(self.status).map_err(Problem::internal)?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_str(name).map_err(Problem::internal)?;
            response.headers_mut().append(name, HeaderValue::from_str(value).map_err(Problem::internal)?);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}
