//! Where one is signed in, and how to end it there (V7.5.2, V7.4.3).

use http::StatusCode;
use kindred_members::SessionShown;
use serde::Serialize;
use utoipa::ToSchema;

use super::cookies::drop_refresh;
use super::sessions::browse_as_nobody;
use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [
            get("/v1/members/me/sessions", SignedIn, list_own_sessions)
                .says("Where one is signed in (V7.5.2).")
                .answers::<SessionList>(200, "the sessions"),
            delete("/v1/members/me/sessions", SignedIn, end_own_sessions)
                .says("Signs out everywhere, or everywhere else (V7.4.3).")
                .query("keep_current", Flag, "whether the session that asks goes on; false unless given")
                .answers_nothing(204, "they have ended"),
            delete("/v1/members/me/sessions/{id}", SignedIn, end_own_session)
                .says("Signs out in one place (V7.5.2).")
                .path("id", "the session")
                .answers_nothing(204, "it has ended"),
        ],
    )
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
    /// Whether it is the one that asks.
    current: bool,
    #[serde(flatten)]
    session: SessionShown,
}

async fn list_own_sessions(request: Request) -> Answered {
    let claims = request.person()?;
    let sessions = request.members()?.sessions(&claims.sub).await?;
    let listed = sessions.into_iter().map(|session| SessionListed { current: session.id == claims.sid, session });
    json(StatusCode::OK, &SessionList { sessions: listed.collect() })
}

async fn end_own_sessions(request: Request) -> Answered {
    let keep = request.params.boolean("keep_current", false)?;
    request.members()?.end_own_sessions(request.person()?, keep, request.from()).await?;
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
    request.members()?.end_own_session(request.person()?, &request.segment("id")?, request.from()).await?;
    Ok(done())
}
