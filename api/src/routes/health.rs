//! Whether the process lives and is ready, the contract and its page, the pages behind problem types, and metrics (admin address only).

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{JSON, NO_CACHE, json, query, with};
use crate::api::Api;
use crate::context::Check;
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};
use crate::reference;

/// All routes of this module but metrics.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let live = warp::path!("livez").and(warp::get()).then(live);
    let ready = warp::path!("readyz").and(warp::get()).and(query()).and(with(api)).then(ready).map(Reply::into_response);
    let contract = warp::path!("openapi.json").and(warp::get()).then(contract);
    let reference = warp::path!("docs").and(warp::get()).and(with(api)).then(show_reference).map(Reply::into_response);
    let problem = warp::path!("problems" / Segment).and(warp::get()).then(explain_problem).map(Reply::into_response);
    live.or(ready).unify().or(contract).unify().or(reference).unify().or(problem).unify().boxed()
}

/// GET /metrics, on the admin address alone.
pub(super) fn metrics_routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("metrics").and(warp::get()).and(with(api)).then(show_metrics).map(Reply::into_response).boxed()
}

/// GET /livez
///
/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "it lives", body = String)))]
async fn live() -> Response {
    "ok\n".into_response()
}

/// Whether requests should be sent here.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// With `?verbose`: what was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

/// GET /readyz
///
/// Requests should be sent here: 200, or 503.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    params(("verbose" = Option<String>, Query, description = "say what was looked at; without a value, too")),
    responses(
        (status = 200, description = "ready", body = Readiness),
        (status = 503, description = "not ready", body = Readiness),
    ),
)]
async fn ready(query: String, api: Arc<Api>) -> Result<Response, Problem> {
    let params = Params::parse(&query, &["verbose"])?;
    let verbose = match params.get("verbose") {
        Some("") => true,
        _ => params.boolean("verbose", false)?,
    };
    let mut checks = api.context.operations.readiness();
    checks.extend(api.forwarding.check());
    let ready = checks.iter().all(|check| check.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { ready, checks: verbose.then_some(checks) })
}

/// GET /openapi.json
///
/// This contract.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn contract() -> Response {
    let mut response = Response::new(crate::openapi::text().into());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    response
}

/// GET /docs
///
/// This contract for people: one page, which loads nothing from anywhere.
#[utoipa::path(
    get, path = "/docs", tag = "health",
    responses(
        (status = 200, description = "the page", content_type = "text/html", body = String),
        (status = 404, description = "this installation does not show it (`api.docs`)", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
)]
async fn show_reference(api: Arc<Api>) -> Result<Response, Problem> {
    if !api.config.docs {
        return Err(Problem::new(Code::NotFound, "this installation does not show it; /openapi.json is the same"));
    }
    let mut response = Response::new(reference::PAGE.as_str().into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, reference::POLICY.clone());
    headers.insert(CACHE_CONTROL, NO_CACHE);
    Ok(response)
}

/// GET /problems/{code}
///
/// What the `type` of a problem leads to.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "health",
    params(("code" = String, Path, description = "the `code` of a problem")),
    responses(
        (status = 200, description = "what it means and what to do", body = String),
        (status = 404, description = "no such code", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
)]
async fn explain_problem(code: Segment) -> Result<Response, Problem> {
    let code = code.decoded()?;
    let code = Code::find(&code).ok_or_else(|| Problem::new(Code::NotFound, "there is no such problem"))?;
    let status = code.status().as_u16();
    let text = format!("{} ({status})\n{}\n\n{}\n", code.title(), code.name(), code.meaning());
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

async fn show_metrics(api: Arc<Api>) -> Result<Response, Problem> {
    let render = api.context.render_metrics.as_ref();
    let render = render.ok_or_else(|| Problem::new(Code::NotFound, "this process records no metrics"))?;
    let mut response = render().into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
