//! Whether the process lives and is ready, the contract and its page, the pages behind problem types, and metrics (admin address only).

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Reply;
use warp::reply::Response;

use super::endpoint::prelude::*;
use super::{JSON, NO_CACHE, json};
use crate::context::Check;
use crate::problem::{Code, Problem};
use crate::reference;

/// The tag of what the admin address has, too.
pub(super) const TAG: &str = "health";

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        TAG,
        [
            get("/livez", Anyone, live).ignores_query().says("The process answers.").answers_as(200, &["text/plain"], "it lives"),
            get("/readyz", Anyone, ready)
                .says("Requests should be sent here: 200, or 503.")
                .query("verbose", Text, "say what was looked at; without a value, too")
                .answers::<Readiness>(200, "ready")
                .answers::<Readiness>(503, "not ready"),
            get("/openapi.json", Anyone, contract).ignores_query().says("This contract.").answers_object(200, "OpenAPI 3.1"),
            get("/docs", Anyone, show_reference)
                .ignores_query()
                .says("This contract for people: one page, which loads nothing from anywhere.")
                .answers_as(200, &["text/html"], "the page")
                .fails(404, "this installation does not show it (`api.docs`)"),
            get("/problems/{code}", Anyone, explain_problem)
                .ignores_query()
                .says("What the `type` of a problem leads to.")
                .path("code", "the `code` of a problem")
                .answers_as(200, &["text/plain"], "what it means and what to do")
                .fails(404, "no such code"),
            get("/metrics", Anyone, show_metrics).ignores_query().on_admin_address(),
        ],
    )
}

async fn live(_: Request) -> Answered {
    Ok("ok\n".into_response())
}

/// Whether requests should be sent here.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// With `?verbose`: what was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

async fn ready(request: Request) -> Answered {
    let (api, params) = (&request.api, &request.params);
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

async fn contract(_: Request) -> Answered {
    let mut response = Response::new(crate::openapi::TEXT.into());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    Ok(response)
}

async fn show_reference(request: Request) -> Answered {
    if !request.api.config.docs {
        return Err(Problem::new(Code::NotFound, "this installation does not show it; /openapi.json is the same"));
    }
    let mut response = Response::new(reference::PAGE.as_str().into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, reference::POLICY.clone());
    headers.insert(CACHE_CONTROL, NO_CACHE);
    Ok(response)
}

async fn explain_problem(request: Request) -> Answered {
    let code = request.segment("code")?;
    let code = Code::find(&code).ok_or_else(|| Problem::new(Code::NotFound, "there is no such problem"))?;
    let status = code.status().as_u16();
    let text = format!("{} ({status})\n{}\n\n{}\n", code.title(), code.name(), code.meaning());
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

async fn show_metrics(request: Request) -> Answered {
    let render = request.api.context.render_metrics.as_ref();
    let render = render.ok_or_else(|| Problem::new(Code::NotFound, "this process records no metrics"))?;
    let mut response = render().into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
