//! `Idempotency-Key`: what a caller asks for again under one key is done once, and answered as it was.
//!
//! ```text
//! POST + key ──who, may they──▶ begin ──first──▶ the route, to its end ──a success──▶ kept, 24 h
//!                                 ├──answered──▶ the same, Idempotency-Replayed: true
//!                                 └──under way, or another request──▶ 409, 422
//! ```
//!
//! It stands before the handlers, so that none of them knows of it. Only a success is kept: what was refused did not happen, and may be
//! asked for again. Routes without a caller have none: their tokens and codes are good once. Events have none: they merge by their
//! natural keys.

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

use super::body::Posted;
use super::endpoint::Answered;
use super::request::Request;
use crate::problem::{Code, Problem};
use crate::to_the_end::to_the_end;

/// The header of the request.
pub(crate) const KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key. A short one could be guessed, and what was answered is sealed under it.
pub(crate) const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// How much longer than a handler another process waits until it takes the one that began for dead.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Answers a request, once for each key that it may name.
///
/// # Errors
/// What the handler says; a 400 for a key that is not acceptable, a 409 while its request is under way, a 422 where it is another's.
pub(super) async fn once(request: Request, posted: Posted) -> Answered {
    let Some(key) = request.headers.get(KEY).filter(|_| request.endpoint.takes_idempotency_keys()) else {
        return handle(request, posted).await;
    };
    // As bytes: a key that is no ASCII is refused, and not taken for none.
    let Key(key) = String::from_utf8_lossy(key.as_bytes()).parse()?;
    let Some(members) = request.api.context.members.clone() else {
        return Err(Problem::new(Code::MalformedRequest, "this installation keeps no members, and no Idempotency-Key"));
    };
    let body = Bytes::from_owner(posted.read_small(&request.api).await?);
    // To its end, also when the caller goes away, from the mark on that it is under way: the caller will ask again, and wants to hear
    // what came of it.
    to_the_end(async move { do_once(&members, &key, request, body).await }).await?
}

/// A key that is accepted.
struct Key(String);

impl FromStr for Key {
    type Err = Problem;

    /// Bare, or quoted as a string of RFC 8941: there are clients of either kind.
    fn from_str(text: &str) -> Result<Self, Problem> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        if KEY_CHARS.contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return Ok(Self(bare.to_owned()));
        }
        let message = format!("is not of {} to {} visible ASCII characters; a UUID is one", KEY_CHARS.start(), KEY_CHARS.end());
        Err(Problem::field(Code::InvalidParameter, "header", "Idempotency-Key", message))
    }
}

async fn handle(request: Request, posted: Posted) -> Answered {
    let endpoint = request.endpoint.clone();
    endpoint.handle(request, posted).await
}

async fn do_once(members: &Members, key: &str, request: Request, body: Bytes) -> Answered {
    let digest = STANDARD.encode(Sha256::digest(&body));
    let named = [request.path.as_str(), &request.query, request.header("if-match")?.unwrap_or_default(), &digest];
    let lease = Duration::from_millis(request.api.config.limits.handler_ms) + LEASE_MARGIN;
    let begun = members.begin_once(&request.grant.actor("").id, key, &named, lease.as_secs()).await?;
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
            let posted = Posted::of(&request.headers, request.address, body)?;
            settle(members, &attempt, handle(request, posted).await).await
        }
        Once::Answered(kept) => serde_json::from_slice::<Answer>(&kept).map_err(Problem::internal)?.replayed(),
        Once::UnderWay => {
            Err(Problem::new(Code::Conflict, "the request of this Idempotency-Key is still being done").retry_after(1))
        }
        Once::AnotherRequest => Err(Problem::new(Code::IdempotencyKeyReused, Code::IdempotencyKeyReused.meaning())),
    }
}

/// Keeps what succeeded, and frees the key of what did not.
async fn settle(members: &Members, attempt: &Attempt, outcome: Answered) -> Answered {
    let warn =
        |error| tracing::warn!(%error, "could not keep what was answered to an Idempotency-Key; it is free after its lease");
    let response = match outcome {
        Ok(response) if response.status().is_success() => response,
        refused => {
            members.free_key(attempt).await.unwrap_or_else(warn);
            return refused;
        }
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Problem::internal)?.to_bytes();
    let kept = serde_json::to_vec(&Answer::of(parts.status, &parts.headers, &body)).map_err(Problem::internal)?;
    if kept.len() > ANSWER_BYTES_MAX {
        tracing::warn!(
            bytes = kept.len(),
            "an answer to an Idempotency-Key is too large to be kept: it is done anew if it is asked for again"
        );
    }
    members.keep_answer(attempt, &kept).await.unwrap_or_else(warn);
    Ok(Response::from_parts(parts, body.into()))
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    /// Names and values; ours are ASCII.
    headers: Vec<(String, String)>,
    /// In base64.
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
