//! The routes, one module a resource: routes on top, handlers beneath.
//!
//! ```text
//! request ──▶ similar (the hot one first) | once ──▶ stream | events | popular | catalog | members | orders | admin | pages | extra ──▶ finish
//! ```

pub(crate) mod access;
pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod admin_keys;
pub(crate) mod body;
pub(crate) mod catalog;
pub(crate) mod events;
pub(crate) mod finish;
pub(crate) mod generations;
pub(crate) mod health;
pub(crate) mod members;
pub(crate) mod noted;
pub(crate) mod once;
pub(crate) mod orders;
pub(crate) mod popular;
pub(crate) mod precondition;
pub(crate) mod similar;
pub(crate) mod stream;
pub(crate) mod widget;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK};
use http::{HeaderName, HeaderValue, StatusCode};
use kindred_model::Day;
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use self::access::Need;
use self::body::{Posted, posted};
pub(crate) use self::precondition::names;
use crate::api::Api;
use crate::auth::{Admission, Caller, Grant, Visitor, caller, preflight, visitor};
use crate::params::{Freshness, form_decoded};
use crate::problem::{Code, Problem};
use crate::recommend::{Memory, Published};
use crate::to_the_end::answer_caller;

/// `Kindred-As-Of`: how far the state that answered reaches.
pub(crate) const AS_OF: HeaderName = HeaderName::from_static("kindred-as-of");
/// `Kindred-Reco-Id`: the name of one answer, for attribution.
pub(crate) const RECO_ID: HeaderName = HeaderName::from_static("kindred-reco-id");
/// Answers about a person, and administration, are kept nowhere.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// A list may be kept, but is asked about each time: that is what its `ETag` is for.
pub(crate) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Everything on the public address. The hot route stands first and apart: it pays for no other.
pub(crate) fn public(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let others = stream::routes(api)
        .or(events::routes(api))
        .unify()
        .or(popular::routes(api))
        .unify()
        .or(catalog::routes(api))
        .unify()
        .or(accounts::routes(api))
        .unify()
        .or(members::routes(api))
        .unify()
        .or(orders::routes(api))
        .unify()
        .or(admin::routes(api))
        .unify()
        .or(admin_keys::routes(api))
        .unify()
        .or(generations::routes(api))
        .unify()
        .or(health::routes(api))
        .unify()
        .or(widget::routes())
        .unify()
        .or(preflight(api.ring.clone()))
        .unify()
        .boxed();
    let others = match api.context.extra.clone() {
        Some(extra) => others.or(extra).unify().boxed(),
        None => others,
    };
    finish::finished(api, similar::routes(api).or(once::once(api, others)).unify())
}

/// Everything on the admin address: metrics and health. No data, no keys.
pub(crate) fn admin_address(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    finish::finished(api, health::routes(api).or(health::metrics_routes(api)).unify())
}

/// Hands the API to a handler.
pub(crate) fn with(api: &Arc<Api>) -> impl Filter<Extract = (Arc<Api>,), Error = Infallible> + Clone + use<> {
    let api = api.clone();
    warp::any().map(move || api.clone())
}

/// What an act of administration knows of a request: the query, who asks and from where.
pub(crate) fn acting(api: &Arc<Api>) -> BoxedFilter<(String, Caller, Visitor, Arc<Api>)> {
    query().and(caller()).and(visitor(api)).and(with(api)).boxed()
}

/// As [`acting`], of one that has a body.
pub(crate) fn acting_with_body(api: &Arc<Api>) -> BoxedFilter<(String, Caller, Posted, Visitor, Arc<Api>)> {
    query().and(caller()).and(posted()).and(visitor(api)).and(with(api)).boxed()
}

/// The query as it came; empty when there is none.
pub(crate) fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Copy {
    warp::query::raw().or_else(|_| async { Ok::<_, Infallible>((String::new(),)) })
}

/// The key of a query, also where the rest of it is not acceptable: so that the error reaches who asked.
pub(crate) fn query_key(raw: &str) -> Option<&str> {
    raw.split('&').find_map(|pair| pair.strip_prefix("key="))
}

/// Lets a caller in and answers; granted or refused, the answer wears the headers of the admission.
pub(crate) async fn guarded<Handled>(
    api: &Arc<Api>,
    caller: &Caller,
    query_key: Option<&str>,
    need: Need,
    handle: impl FnOnce(Arc<Grant>) -> Handled,
) -> Response
where
    Handled: Future<Output = Result<Response, Problem>>,
{
    let members = api.context.members.as_deref();
    let mut admission = Admission::of(&api.ring, members, caller, query_key, need);
    let outcome = std::mem::replace(&mut admission.outcome, Err(Problem::new(Code::Internal, "")));
    let answer = match outcome {
        Ok(grant) => handle(grant).await,
        Err(problem) => Err(problem),
    };
    admission.dress(answer.into_response())
}

/// Bounds how long a caller waits for a handler. What only reads ends then; what changes state goes on to its end ([`to_the_end`]).
///
/// [`to_the_end`]: crate::to_the_end
pub(crate) async fn in_time<T>(api: &Api, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let limit = Duration::from_millis(api.config.limits.handler_ms);
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
        return done;
    }
    let too_long = || Problem::new(Code::Unavailable, "it took too long; it may still happen, repeating is safe").retry_after(1);
    if answer_caller(too_long()) { work.await } else { Err(too_long()) }
}

/// Runs what reads rows or computes for long on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(error)),
    }
}

/// Waits until the views reach what was asked for.
pub(crate) async fn reach(memory: &Memory, freshness: Option<Freshness>) -> Result<(), Problem> {
    let Some(Freshness { min_position, wait_ms }) = freshness else { return Ok(()) };
    if memory.reached(&min_position, Duration::from_millis(wait_ms)).await {
        return Ok(());
    }
    let reached = memory.published().position.to_string();
    let detail = format!("the views did not reach min_position within {wait_ms} ms");
    Err(Problem::new(Code::PositionNotReached, detail).retry_after(1).with("position", reached))
}

/// Today in UTC: the as-of day of what is shown and recommended.
pub(crate) fn today(api: &Api) -> Day {
    api.context.clock.today()
}

/// Today in the program's zone: the as-of day of points and reports.
pub(crate) fn program_today(api: &Api, settings: &kindred_model::Semantics) -> Day {
    settings.program.zone().day(api.context.clock.now())
}

/// A JSON answer that is kept nowhere.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(Problem::internal)?;
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// Names the next page in `Link` (RFC 8288): the same query, from its cursor.
pub(crate) fn link_next(mut response: Response, query: &str, cursor: Option<&str>) -> Response {
    let Some(cursor) = cursor else { return response };
    if let Ok(link) = HeaderValue::from_str(&format!("<?{}>; rel=\"next\"", linked(query, cursor))) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// A query with this cursor in place of the one that it has.
pub(crate) fn linked(query: &str, cursor: &str) -> String {
    // A name may be percent-encoded.
    let is_cursor = |pair: &str| form_decoded(pair.split('=').next().unwrap_or_default()).is_some_and(|name| name == "cursor");
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair)).collect();
    let next = format!("cursor={cursor}");
    pairs.push(&next);
    // What would end the reference early.
    pairs.join("&").replace('<', "%3C").replace('>', "%3E")
}

/// A list: with its validator, how far it reaches, and a name for attribution; 304 when the caller has it already.
pub(crate) fn list(api: &Api, body: Bytes, etag: HeaderValue, published: &Published, if_none_match: Option<&str>) -> Response {
    let unchanged = if_none_match.is_some_and(|tags| names(tags, &etag));
    let mut response = if unchanged {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(body.into());
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, NO_CACHE);
    headers.insert(AS_OF, published.as_of.clone());
    headers.insert(RECO_ID, api.reco_ids.next());
    response
}
