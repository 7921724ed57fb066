//! Sign-in (R16, R17) and the sessions that come of it.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{person, with_members};
use crate::api::Api;
use crate::auth::{Caller, Visitor, caller, visitor};
use crate::params::Params;
use crate::routes::access::need;
use crate::routes::{guarded, json, query, with};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "members" / "me" / "sessions")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(visitor(api))
        .and(with(api))
        .then(list_own_sessions)
        .boxed()
}

/// The sessions of whoever asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// The latest used first.
    sessions: Vec<SessionListed>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionListed {
    id: String,
    /// Whether it is the one that asks.
    current: bool,
    created_at: String,
    used_at: String,
    /// What the browser called itself.
    label: String,
    address: String,
    /// Whether a second factor was shown.
    second_factor: bool,
}

/// GET /v1/members/me/sessions
///
/// Where one is signed in (V7.5.2).
#[utoipa::path(
    get, path = "/v1/members/me/sessions", tag = "sessions",
    responses(
        (status = 200, description = "the sessions", body = SessionList),
        (status = 401, description = "not signed in", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn list_own_sessions(query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/members/me/sessions") }, |grant| async move {
        Params::parse(&query, &[])?;
        let claims = person(&grant)?;
        let sessions = with_members(shared, &visitor, |members| members.sessions(&claims.sub)).await?;
        let listed = sessions.into_iter().map(|session| SessionListed {
            current: session.id == claims.sid,
            created_at: session.created_at.to_string(),
            used_at: session.used_at.to_string(),
            id: session.id,
            label: session.label,
            address: session.address,
            second_factor: session.second_factor,
        });
        json(StatusCode::OK, &SessionList { sessions: listed.collect() })
    })
    .await
}
