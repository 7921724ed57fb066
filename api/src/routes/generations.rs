//! Generations: which there are, what moved between two, which is live. A service key's.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::access::need;
use super::body::Posted;
use super::noted::{Act, noted};
use super::{acting, acting_with_body, guarded, in_time, json, program_today, query, with};
use crate::api::Api;
use crate::auth::{Caller, Visitor, caller};
use crate::context::GenerationShown;
use crate::params::{Params, Segment};
use crate::problem::Problem;
use crate::served::{drop_generation, operations, promote};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let listed = warp::path!("v1" / "admin" / "generations")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(with(api))
        .then(list_generations);
    let compared = warp::path!("v1" / "admin" / "generations" / Segment / "compare")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(with(api))
        .then(compare_generations);
    let promoted = warp::path!("v1" / "admin" / "generations" / Segment / "promote")
        .and(warp::post())
        .and(acting_with_body(api))
        .then(promote_generation);
    let dropped =
        warp::path!("v1" / "admin" / "generations" / Segment).and(warp::delete()).and(acting(api)).then(delete_generation);
    listed.or(compared).unify().or(promoted).unify().or(dropped).unify().boxed()
}

/// All generations.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationList {
    /// By name.
    generations: Vec<GenerationShown>,
}

/// GET /v1/admin/generations
///
/// All generations: settings, events, as of, which is live.
#[utoipa::path(
    get, path = "/v1/admin/generations", tag = "admin",
    responses(
        (status = 200, description = "all of them", body = GenerationList),
        (status = 404, description = "this server keeps one generation and cannot turn to another", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_generations(query: String, caller: Caller, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/generations") }, |_| async {
        Params::parse(&query, &[])?;
        let generations = in_time(shared, async { Ok(operations(shared)?.list().await?) }).await?;
        json(StatusCode::OK, &GenerationList { generations })
    })
    .await
}

/// GET /v1/admin/generations/{name}/compare
///
/// What moved from this one to another. It takes as long as it takes; one is compared at a time.
#[utoipa::path(
    get, path = "/v1/admin/generations/{name}/compare", tag = "admin",
    params(
        ("name" = String, Path, description = "the one"),
        ("with" = String, Query, description = "the other"),
        ("as_of" = Option<String>, Query, description = "points are told for this day; today in program.tz unless given"),
    ),
    responses(
        (status = 200, description = "what moved", body = Object),
        (status = 404, description = "no such generation", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "two are being compared already", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn compare_generations(name: Segment, query: String, caller: Caller, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/generations/{name}/compare") }, |_| async {
        let params = Params::parse(&query, &["with", "as_of"])?;
        let other = params.get("with").ok_or_else(|| Problem::query("with", "is missing: name the other generation"))?;
        let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(shared, &shared.live().settings));
        json(StatusCode::OK, &operations(shared)?.compare(&name.decoded()?, other, as_of).await?)
    })
    .await
}

/// What was live before a promotion.
#[derive(Serialize, ToSchema)]
pub(crate) struct Promoted {
    /// What is live now.
    live: String,
    /// Promoting this one again rolls back.
    before: String,
}

/// POST /v1/admin/generations/{name}/promote
///
/// Makes a generation the live one: its memory is loaded aside, then all readers turn to it in one step. No request fails, and no
/// answer is of both.
#[utoipa::path(
    post, path = "/v1/admin/generations/{name}/promote", tag = "admin",
    params(("name" = String, Path, description = "the generation")),
    responses(
        (status = 200, description = "it is live, and durably so", body = Promoted),
        (status = 404, description = "no such generation", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "it cannot be promoted: other rules, or a part of the events", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "it has not caught up yet", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn promote_generation(
    name: Segment,
    query: String,
    caller: Caller,
    posted: Posted,
    visitor: Visitor,
    api: Arc<Api>,
) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("POST /v1/admin/generations/{name}/promote") }, |grant| async move {
        posted.ignore(shared).await?;
        Params::parse(&query, &[])?;
        let live = name.decoded()?.into_owned();
        let act = Act { kind: "generation.promote", subject: &live, detail: &[] };
        let before = noted(shared, &grant, &visitor, act, promote(shared, &live)).await?;
        json(StatusCode::OK, &Promoted { live, before })
    })
    .await
}

/// DELETE /v1/admin/generations/{name}
///
/// Deletes a generation that is not live, with all of its rows.
#[utoipa::path(
    delete, path = "/v1/admin/generations/{name}", tag = "admin",
    params(("name" = String, Path, description = "the generation")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 404, description = "no such generation", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "it is live", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn delete_generation(name: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("DELETE /v1/admin/generations/{name}") }, |grant| async move {
        Params::parse(&query, &[])?;
        let name = name.decoded()?;
        let act = Act { kind: "generation.drop", subject: &name, detail: &[] };
        noted(shared, &grant, &visitor, act, drop_generation(shared, &name)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}
