//! The routes, one module per resource: endpoints first, then handlers.
//!
//! ```text
//! request ──▶ template of the path ──▶ endpoint of the method ──▶ authorization ──▶ parameters ──(Idempotency-Key)──▶ handler ──▶ middleware
//!                └──none──▶ extra routes (pages of the demo)
//! ```

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod admin_keys;
pub(crate) mod audit;
pub(crate) mod body;
pub(crate) mod catalog;
pub(crate) mod endpoint;
pub(crate) mod events;
pub(crate) mod generations;
pub(crate) mod health;
pub(crate) mod idempotency;
pub(crate) mod members;
pub(crate) mod middleware;
pub(crate) mod orders;
pub(crate) mod popular;
pub(crate) mod precondition;
pub(crate) mod request;
pub(crate) mod similar;
pub(crate) mod stream;
pub(crate) mod widget;

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::{ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kindred_model::Day;
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply};

use self::accounts::cookies::Browser;
use self::body::UnreadBody;
use self::endpoint::{Answered, Endpoint, Need, Segments, Template};
pub(crate) use self::precondition::names;
use self::request::Request;
use crate::api::Api;
use crate::auth::{Admission, Caller, Grant, language_of, preflight};
use crate::completion::respond_early;
use crate::in_process::Operator;
use crate::params::{Freshness, Params, form_decoded};
use crate::problem::{Code, Problem};
use crate::recommend::{Memory, Published};
use crate::server::{Address, Peer};

/// `Kindred-As-Of`: the position and time that the response reaches.
pub(crate) const AS_OF: HeaderName = HeaderName::from_static("kindred-as-of");
/// `Kindred-Reco-Id`: the id of a list response, for attribution.
pub(crate) const RECO_ID: HeaderName = HeaderName::from_static("kindred-reco-id");
/// For personal data and administration.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// For lists: cached, but revalidated with their `ETag`.
pub(crate) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

pub(crate) fn public(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let ours = endpoints(api, |endpoint| !endpoint.on_admin_address);
    let routed = match api.context.extra.clone() {
        Some(extra) => ours.or(extra).unify().boxed(),
        None => ours,
    };
    middleware::finished(api, routed)
}

/// The admin address: metrics and health, no data, no keys.
pub(crate) fn admin_address(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let is_shown = |endpoint: &Endpoint| endpoint.on_admin_address || endpoint.tag == health::TAG;
    middleware::finished(api, endpoints(api, is_shown))
}

/// The endpoints of one address. Other paths are rejected before anything is read.
fn endpoints(api: &Arc<Api>, is_shown: fn(&Endpoint) -> bool) -> BoxedFilter<(Response,)> {
    let (api, table) = (api.clone(), api.clone());
    let matched = move |path: FullPath| {
        let matched = table.table.matched(path.as_str());
        let shown = matched.filter(|(template, _)| template.endpoints().iter().any(|endpoint| is_shown(endpoint)));
        std::future::ready(shown.map(|shown| (path, shown)).ok_or_else(warp::reject::not_found))
    };
    let query = warp::query::raw().or_else(|_| async { Ok::<_, Infallible>((String::new(),)) });
    warp::path::full()
        .and_then(matched)
        .and(warp::method())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<Address>())
        .and(warp::ext::optional::<Operator>())
        .and(warp::body::stream())
        .then(move |matched: Matched, method, query, headers, peer, address: Option<Address>, operator, body| {
            let (api, (path, (template, segments))) = (api.clone(), matched);
            let (path, address) = (path.as_str().to_owned(), address.map(|Address(address)| address));
            Incoming { api, path, segments, method, query, headers, peer, address, operator }.answer(template, body)
        })
        .boxed()
}

/// A path and what it belongs to.
type Matched = (FullPath, (Arc<Template>, Segments));

struct Incoming {
    api: Arc<Api>,
    path: String,
    segments: Segments,
    method: Method,
    query: String,
    headers: HeaderMap,
    peer: Option<Peer>,
    address: Option<std::net::IpAddr>,
    operator: Option<Operator>,
}

impl Incoming {
    async fn answer<B: Buf>(
        self,
        template: Arc<Template>,
        body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Response {
        let api = self.api.clone();
        let Some(endpoint) = template.endpoint(&self.method) else { return self.other_method(&template) };
        if let Some(Operator(grant)) = self.operator.clone() {
            let answer = self.dispatch(endpoint.clone(), grant, body).await;
            return answer.unwrap_or_else(Problem::into_response);
        }
        let caller = match Caller::of(&self.headers, self.address) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
        let by_cookie = endpoint.by_cookie && !caller.has_authorization();
        if endpoint.need == Need::Anyone || by_cookie && Browser::of(&self.headers).has_refresh() {
            let answer = self.dispatch(endpoint.clone(), Grant::anonymous(), body).await;
            return answer.unwrap_or_else(Problem::into_response);
        }
        let query_key = if endpoint.need == Need::ReadLists { query_key(&self.query) } else { None };
        let mut admission = Admission::of(&api.ring, api.context.members.as_deref(), &caller, query_key, endpoint.need);
        let answer = match admission.take_outcome() {
            Ok(grant) => self.dispatch(endpoint.clone(), grant, body).await,
            Err(problem) => Err(problem),
        };
        admission.add_headers(answer.unwrap_or_else(Problem::into_response))
    }

    /// OPTIONS, or a method that the template does not have.
    fn other_method(self, template: &Template) -> Response {
        if self.method != Method::OPTIONS {
            return Problem::new(Code::MethodNotAllowed, "the route does not have this method").into_response();
        }
        let origin = self.headers.get(ORIGIN).filter(|_| self.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD));
        if let Some(origin) = origin.filter(|_| template.path.starts_with("/v1")) {
            return preflight(&self.api.ring, origin);
        }
        // Not a preflight (RFC 9110, 9.3.7).
        let mut response = StatusCode::NO_CONTENT.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_str(&template.allow).expect("methods are ASCII"));
        response
    }

    async fn dispatch<B: Buf>(
        self,
        endpoint: Arc<Endpoint>,
        grant: Arc<Grant>,
        body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
    ) -> Answered {
        let Self { api, path, segments, query, headers, peer, address, .. } = self;
        let posted = UnreadBody::of(&headers, address, body)?;
        let params = Params::of(&endpoint, if endpoint.ignores_query { "" } else { &query })?;
        let (shared, accepted) = (api.clone(), headers.get(ACCEPT_LANGUAGE).cloned());
        let visitor = OnceLock::new();
        let request = Request { api, endpoint, grant, params, path, query, headers, address, segments, peer, visitor };
        let answered = idempotency::handle_once(request, posted).await;
        answered.map_err(|problem| problem.told(&shared, language_of(&shared, accepted.as_ref()), false))
    }
}

/// The key of a query that may otherwise be invalid, so that its errors reach the caller with CORS headers.
fn query_key(raw: &str) -> Option<&str> {
    raw.split('&').find_map(|pair| pair.strip_prefix("key="))
}

/// Limits how long the client waits. Reads are dropped then; changes of state continue ([`run_to_completion`]).
///
/// [`run_to_completion`]: crate::completion
pub(crate) async fn in_time<T>(api: &Api, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let limit = Duration::from_millis(api.config.limits.handler_ms);
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
        return done;
    }
    let too_long = || Problem::new(Code::Unavailable, "timed out; it may still complete, retrying is safe").retry_after(1);
    if respond_early(too_long()) { work.await } else { Err(too_long()) }
}

/// Runs work that blocks or computes for long on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(error)),
    }
}

/// Waits until the views reach `min_position`.
pub(crate) async fn wait_for_position(memory: &Memory, freshness: Option<Freshness>) -> Result<(), Problem> {
    let Some(Freshness { min_position, wait_ms }) = freshness else { return Ok(()) };
    if memory.reached(&min_position, Duration::from_millis(wait_ms)).await {
        return Ok(());
    }
    let reached = memory.published().position.to_string();
    let detail = format!("the views did not reach min_position within {wait_ms} ms");
    Err(Problem::new(Code::PositionNotReached, detail).retry_after(1).with("position", reached))
}

/// Today in UTC, for lists.
pub(crate) fn today(api: &Api) -> Day {
    api.context.clock.today()
}

/// Today in the time zone of the program, for points and reports.
pub(crate) fn program_today(api: &Api, settings: &kindred_model::Semantics) -> Day {
    settings.program.zone().day(api.context.clock.now())
}

/// A JSON response with `no-store`.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Answered {
    let bytes = serde_json::to_vec(body).map_err(Problem::internal)?;
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// Adds `Link` (RFC 8288) with the same query and the next cursor.
pub(crate) fn link_next(mut response: Response, query: &str, cursor: Option<&str>) -> Response {
    let Some(cursor) = cursor else { return response };
    if let Ok(link) = HeaderValue::from_str(&format!("<?{}>; rel=\"next\"", with_cursor(query, cursor))) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

pub(crate) fn with_cursor(query: &str, cursor: &str) -> String {
    // Parameter names may be percent-encoded.
    let is_cursor = |pair: &str| form_decoded(pair.split('=').next().unwrap_or_default()).is_some_and(|name| name == "cursor");
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_cursor(pair)).collect();
    let next = format!("cursor={cursor}");
    pairs.push(&next);
    // These would end the link target.
    pairs.join("&").replace('<', "%3C").replace('>', "%3E")
}

/// A list response with validator, position and id; 304 if unchanged.
pub(crate) fn list(request: &Request, body: Bytes, etag: HeaderValue, published: &Published) -> Answered {
    let mut response = unless_unchanged(request, &etag, || {
        let mut response = Response::new(body.into());
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        Ok(response)
    })?;
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, NO_CACHE);
    headers.insert(AS_OF, published.as_of.clone());
    headers.insert(RECO_ID, request.api.reco_ids.next());
    Ok(response)
}

/// A versioned resource with its `ETag`; 304 if unchanged.
pub(crate) fn versioned<T: Serialize>(request: &Request, version: &str, body: &T) -> Answered {
    let etag = precondition::etag(version)?;
    let mut response = unless_unchanged(request, &etag, || json(StatusCode::OK, body))?;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

fn unless_unchanged(request: &Request, etag: &HeaderValue, answer: impl FnOnce() -> Answered) -> Answered {
    if !request.header("if-none-match")?.is_some_and(|tags| names(tags, etag)) {
        return answer();
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    Ok(response)
}

pub(crate) fn done() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// 202: the result is never revealed by the response (V6.3.8).
pub(crate) fn accepted() -> Answered {
    json(StatusCode::ACCEPTED, &Accepted { status: "accepted" })
}

/// Accepted. The response does not reveal the result.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Always `accepted`.
    status: &'static str,
}
