//! Where one is signed in, and how to end it there (V7.5.2, V7.4.3).

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Asked, asked, done};
use super::cookies::drop_refresh;
use super::sessions::browse_as_nobody;
use crate::api::Api;
use crate::params::Segment;
use crate::routes::access::need;
use crate::routes::json;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let own = || warp::path!("v1" / "members" / "me" / "sessions");
    let list = own().and(warp::get()).and(asked(api)).then(list_own_sessions);
    let end_all = own().and(warp::delete()).and(asked(api)).then(end_own_sessions);
    let end =
        warp::path!("v1" / "members" / "me" / "sessions" / Segment).and(warp::delete()).and(asked(api)).then(end_own_session);
    list.or(end_all).unify().or(end).unify().boxed()
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
    responses((status = 200, description = "the sessions", body = SessionList)),
    security(("access_token" = [])),
)]
async fn list_own_sessions(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("GET /v1/members/me/sessions") }, |claims| async move {
            asked.params(&[])?;
            let sessions = asked.members(|members| members.sessions(&claims.sub)).await?;
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

/// DELETE /v1/members/me/sessions
///
/// Signs out everywhere, or everywhere else (V7.4.3).
#[utoipa::path(
    delete, path = "/v1/members/me/sessions", tag = "sessions",
    params(("keep_current" = Option<bool>, Query, description = "whether the session that asks goes on; false unless given")),
    responses((status = 204, description = "they have ended")),
    security(("access_token" = [])),
)]
async fn end_own_sessions(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("DELETE /v1/members/me/sessions") }, |claims| async move {
            let keep = asked.params(&["keep_current"])?.boolean("keep_current", false)?;
            asked.members(|members| members.end_own_sessions(&claims, keep, &asked.visitor.address)).await?;
            let mut response = done();
            if !keep {
                browse_as_nobody(&mut response);
                if asked.browser.has_refresh() {
                    drop_refresh(&mut response);
                }
            }
            Ok(response)
        })
        .await
}

/// DELETE /v1/members/me/sessions/{id}
///
/// Signs out in one place (V7.5.2).
#[utoipa::path(
    delete, path = "/v1/members/me/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "the session")),
    responses((status = 204, description = "it has ended")),
    security(("access_token" = [])),
)]
async fn end_own_session(id: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .signed_in(const { need("DELETE /v1/members/me/sessions/{id}") }, |claims| async move {
            asked.params(&[])?;
            let id = id.decoded()?;
            let own = asked.members(|members| members.end_own_session(&claims, &id, &asked.visitor.address));
            own.await.map(|()| done())
        })
        .await
}
