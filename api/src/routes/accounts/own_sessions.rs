//! The caller's own sessions (V7.5.2, V7.4.3).

use http::StatusCode;
use kindred_members::SessionShown;
use serde::Serialize;
use utoipa::ToSchema;

use super::cookies::drop_refresh;
use super::sessions::browse_as_nobody;
use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [
            get("/v1/members/me/sessions", SignedIn, list_own_sessions)
                .says("The sessions of the caller (V7.5.2).")
                .answers::<SessionList>(200, "the sessions"),
            delete("/v1/members/me/sessions", SignedIn, end_own_sessions)
                .says("Ends all sessions of the caller, or all others (V7.4.3).")
                .query("keep_current", Flag, "keep the current session; default false")
                .answers_nothing(204, "ended"),
            delete("/v1/members/me/sessions/{id}", SignedIn, end_own_session)
                .says("Ends one session (V7.5.2).")
                .path("id", "the session id")
                .answers_nothing(204, "ended"),
        ],
    )
}

/// The sessions of the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// Most recently used first.
    sessions: Vec<SessionListed>,
}

/// A session.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionListed {
    /// Whether it is the current session.
    current: bool,
    #[serde(flatten)]
    session: SessionShown,
}

async fn list_own_sessions(request: Request) -> Answered {
    let claims = request.person()?;
    let sessions = request.members()?.sessions.of(&claims.sub).await?;
    let listed = sessions.into_iter().map(|session| SessionListed { current: session.id == claims.sid, session });
    json(StatusCode::OK, &SessionList { sessions: listed.collect() })
}

async fn end_own_sessions(request: Request) -> Answered {
    let keep = request.params.boolean("keep_current", false)?;
    request.members()?.sessions.end_own_sessions(request.person()?, keep, request.from()).await?;
    let mut response = done();
    if !keep {
        browse_as_nobody(&mut response);
        if request.browser().has_refresh() {
            drop_refresh(&mut response);
        }
    }
    Ok(response)
}

async fn end_own_session(request: Request) -> Answered {
    request.members()?.sessions.end_own_session(request.person()?, &request.segment("id")?, request.from()).await?;
    Ok(done())
}
