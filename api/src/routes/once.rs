//! `Idempotency-Key`: what a caller asks for again under one key is done once, and answered as it was.
//!
//! ```text
//! POST + key ──who, may they──▶ begin ──first──▶ the route, to its end ──a success──▶ kept, 24 h
//!                                 ├──answered──▶ the same, Idempotency-Replayed: true
//!                                 └──under way, or another request──▶ 409, 422
//! ```
//!
//! It stands before the routes, so that none of them knows of it. Only a success is kept: what was refused did not happen, and may be
//! asked for again. Routes without a caller have none: their tokens and codes are good once. Events have none: they merge by their
//! natural keys.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderMap, IF_MATCH};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use kindred_members::{ANSWER_BYTES_MAX, Attempt, Language, Members, Once};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::access::posted_to;
use super::body::{Posted, posted};
use super::finish::rejected;
use super::{query, with};
use crate::api::Api;
use crate::auth::{Caller, Grant, caller, known};
use crate::problem::{Code, FieldError, Problem};
use crate::server::Peer;
use crate::to_the_end::{apart, to_the_end};

/// The header of the request.
pub(crate) const KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key. A short one could be guessed, and what was answered is sealed under it.
pub(crate) const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// How much longer than a handler another process waits until it takes the one that began for dead.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// The routes behind it.
pub(super) fn once(api: &Arc<Api>, routed: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    let behind = routed.clone().recover(rejected).unify().boxed();
    // Whoever names no key goes on after one look at the headers.
    let named = warp::method()
        // As bytes: a key that is no ASCII is refused, and not taken for none.
        .and(
            warp::header::value(KEY)
                .map(|key: HeaderValue| Some(String::from_utf8_lossy(key.as_bytes()).into_owned()))
                .or(warp::any().map(|| None))
                .unify(),
        )
        .and_then(posted_key)
        .and(warp::path::full())
        .and(caller())
        .and(with(api))
        .and_then(named)
        .untuple_one();
    named
        .and(warp::path::full())
        .and(query())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(posted())
        .and(with(api))
        .then(move |key: Result<Key, Problem>, grant, path: FullPath, query: String, headers, peer, posted, api: Arc<Api>| {
            let behind = behind.clone();
            async move {
                let asked = Asked { path, query, headers, peer };
                match key {
                    Ok(key) => answer(api, behind, key, grant, asked, posted).await.unwrap_or_else(Problem::into_response),
                    Err(problem) => problem.into_response(),
                }
            }
        })
        .or(routed)
        .unify()
        .boxed()
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
        let error = FieldError { place: "header", pointer: "/Idempotency-Key".into(), code: "invalid", message: message.clone() };
        Err(Problem { errors: vec![error], ..Problem::new(Code::InvalidParameter, format!("Idempotency-Key: {message}")) })
    }
}

async fn posted_key(method: Method, key: Option<String>) -> Result<String, Rejection> {
    key.filter(|_| method == Method::POST).ok_or_else(warp::reject::not_found)
}

/// Whether a request is of a route that keys are for, by somebody who may ask for it; all others go their way.
async fn named(
    key: String,
    path: FullPath,
    caller: Caller,
    api: Arc<Api>,
) -> Result<(Result<Key, Problem>, Arc<Grant>), Rejection> {
    let elsewhere = warp::reject::not_found;
    let route = posted_to(path.as_str()).filter(|route| route.takes_idempotency_keys()).ok_or_else(elsewhere)?;
    let grant = known(&api.ring, api.context.members.as_deref(), &caller).filter(|grant| grant.allows(route.need));
    Ok((key.parse(), grant.ok_or_else(elsewhere)?))
}

/// A request, but for its body.
struct Asked {
    path: FullPath,
    query: String,
    headers: HeaderMap,
    peer: Option<Peer>,
}

async fn answer(
    api: Arc<Api>,
    behind: BoxedFilter<(Response,)>,
    Key(key): Key,
    grant: Arc<Grant>,
    asked: Asked,
    posted: Posted,
) -> Result<Response, Problem> {
    let Some(members) = api.context.members.clone() else {
        return Err(Problem::new(Code::MalformedRequest, "this installation keeps no members, and no Idempotency-Key"));
    };
    let body = Bytes::from_owner(posted.read_small(&api).await?);
    // To its end, also when the caller goes away, from the mark on that it is under way: the caller will ask again, and wants to hear
    // what came of it.
    to_the_end(async move { do_once(&api, &members, behind, &key, &grant, asked, body).await }).await?
}

async fn do_once(
    api: &Api,
    members: &Members,
    behind: BoxedFilter<(Response,)>,
    key: &str,
    grant: &Grant,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Problem> {
    let of_members = |error| Problem::of_member(&error, Language::En, 0);
    let digest = STANDARD.encode(Sha256::digest(&body));
    let header = |name| asked.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let request = [asked.path.as_str(), &asked.query, header(IF_MATCH), &digest];
    let lease = Duration::from_millis(api.config.limits.handler_ms) + LEASE_MARGIN;
    let begun = members.begin_once(&grant.actor("").id, key, &request, lease.as_secs()).await.map_err(of_members)?;
    let outcome = match &begun {
        Once::First(_) => "first",
        Once::Answered(_) => "replayed",
        Once::UnderWay => "under_way",
        Once::AnotherRequest => "another_request",
    };
    metrics::counter!("http_idempotency_keys_total", "outcome" => outcome).increment(1);
    match begun {
        Once::First(attempt) => settle(members, &attempt, forward(behind, asked, body).await?).await,
        Once::Answered(kept) => serde_json::from_slice::<Answer>(&kept).map_err(Problem::internal)?.replayed(),
        Once::UnderWay => {
            Err(Problem::new(Code::Conflict, "the request of this Idempotency-Key is still being done").retry_after(1))
        }
        Once::AnotherRequest => Err(Problem::new(Code::IdempotencyKeyReused, Code::IdempotencyKeyReused.meaning())),
    }
}

/// Sends the request on, with the body that was read.
async fn forward(behind: BoxedFilter<(Response,)>, asked: Asked, body: Bytes) -> Result<Response, Problem> {
    let Asked { path, query, headers, peer } = asked;
    let uri = if query.is_empty() { path.as_str().to_owned() } else { format!("{}?{query}", path.as_str()) };
    let mut request = Request::post(uri).body(Full::new(body)).map_err(Problem::internal)?;
    *request.headers_mut() = headers;
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let service = TowerToHyperService::new(warp::service(behind));
    let Ok(response) = apart(async move { service.call(request).await }).await?;
    Ok(response)
}

/// Keeps what succeeded, and frees the key of what did not.
async fn settle(members: &Members, attempt: &Attempt, response: Response) -> Result<Response, Problem> {
    let warn =
        |error| tracing::warn!(%error, "could not keep what was answered to an Idempotency-Key; it is free after its lease");
    if !response.status().is_success() {
        members.free_key(attempt).await.unwrap_or_else(warn);
        return Ok(response);
    }
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

    fn replayed(self) -> Result<Response, Problem> {
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
