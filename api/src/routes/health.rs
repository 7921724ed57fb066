//! Health, the contract and its page, the pages of problem types, and metrics (admin address only).

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

/// The group that the admin address serves, too.
pub(super) const TAG: &str = "health";

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        TAG,
        [
            get("/livez", Anyone, live).ignores_query().says("Liveness: the process responds.").answers_as(
                200,
                &["text/plain"],
                "alive",
            ),
            get("/readyz", Anyone, ready)
                .says("Readiness: 200 if requests should be sent here, else 503.")
                .query("verbose", Text, "include the checks; may be given without a value")
                .answers::<Readiness>(200, "ready")
                .answers::<Readiness>(503, "not ready"),
            get("/openapi.json", Anyone, contract).ignores_query().says("This contract.").answers_object(200, "OpenAPI 3.1"),
            get("/docs", Anyone, show_reference)
                .ignores_query()
                .says("This contract as an HTML page without external resources.")
                .answers_as(200, &["text/html"], "the page")
                .fails(404, "disabled (`api.docs`)"),
            get("/problems/{code}", Anyone, explain_problem)
                .ignores_query()
                .says("Explains a problem type: the target of `type` in problems.")
                .path("code", "the `code` of a problem")
                .answers_as(200, &["text/plain"], "the explanation")
                .fails(404, "no such code"),
            get("/metrics", Anyone, show_metrics).ignores_query().on_admin_address(),
        ],
    )
}

async fn live(_: Request) -> Answered {
    Ok("ok\n".into_response())
}

/// Readiness of the process.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// The checks, with `?verbose`.
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
        return Err(Problem::new(Code::NotFound, "/docs is disabled (api.docs); see /openapi.json"));
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
    let render = render.ok_or_else(|| Problem::new(Code::NotFound, "metrics are disabled"))?;
    let mut response = render().into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
