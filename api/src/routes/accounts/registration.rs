//! Registration in five steps (R8 to R15): challenge, phone code, the form, the link in the mail.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{open, with_members};
use crate::api::Api;
use crate::auth::{Visitor, visitor};
use crate::routes::body::{Posted, posted};
use crate::routes::{json, with};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "captcha" / "challenges")
        .and(warp::post())
        .and(visitor(api))
        .and(posted())
        .and(with(api))
        .then(give_challenge)
        .boxed()
}

/// A proof of work to be done before a registration, a phone code or a reset.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChallengeShown {
    /// Given back with the solution.
    token: String,
    /// Leading zero bits of SHA-256(`token.nonce`) to find a nonce for.
    bits: u32,
    /// Milliseconds since 1970 UTC at which it is worthless.
    expires_at: i64,
}

/// POST /v1/captcha/challenges
///
/// A challenge against robots: a browser solves it in a moment, a thousand registrations take a while. It works once.
#[utoipa::path(
    post, path = "/v1/captcha/challenges", tag = "registration",
    responses(
        (status = 201, description = "the challenge", body = ChallengeShown),
        (status = 429, description = "too many from this address", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(()),
)]
async fn give_challenge(visitor: Visitor, posted: Posted, api: Arc<Api>) -> Response {
    let shared = &api;
    open(async {
        posted.ignore(shared).await?;
        let made = with_members(shared, &visitor, |members| members.challenge(&visitor.address)).await?;
        let shown = ChallengeShown { token: made.token, bits: made.bits, expires_at: made.expires_at };
        json(StatusCode::CREATED, &shown)
    })
    .await
}
