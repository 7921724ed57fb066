//! The first administrator (V6.3.2: no account comes with the product), and the keys that sign access tokens.
//!
//! ```text
//! operator's service key ──setup-tokens──▶ token, an hour ──▶ a member who signed in ──setup──▶ role; it counts with a second factor
//! ```
//!
//! A token is worth what its maker is when it is redeemed: the key has to be good still, the member has to have the role's permissions.

use std::sync::Arc;

use http::StatusCode;
use kindred_members::SetupShown;
use kindred_model::EventTime;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{Asked, asked};
use crate::api::Api;
use crate::params::Segment;
use crate::routes::access::need;
use crate::routes::accounts::person;
use crate::routes::body::{Posted, posted};
use crate::routes::json;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let made =
        warp::path!("v1" / "admin" / "setup-tokens").and(warp::post()).and(posted()).and(asked(api)).then(make_setup_token);
    let redeemed = warp::path!("v1" / "admin" / "setup").and(warp::post()).and(posted()).and(asked(api)).then(redeem_setup_token);
    let rotated = warp::path!("v1" / "admin" / "signing-keys" / "rotate")
        .and(warp::post())
        .and(posted())
        .and(asked(api))
        .then(rotate_signing_keys);
    let listed = warp::path!("v1" / "admin" / "setup-tokens").and(warp::get()).and(asked(api)).then(list_setup_tokens);
    let withdrawn =
        warp::path!("v1" / "admin" / "setup-tokens" / Segment).and(warp::delete()).and(asked(api)).then(withdraw_setup_token);
    made.or(redeemed).unify().or(rotated).unify().or(listed).unify().or(withdrawn).unify().boxed()
}

/// Which role a set-up token gives.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRole {
    /// The name of a role: `admin` for the first.
    role: String,
}

/// A set-up token.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupToken {
    /// Told this once; whoever signs in and presents it has the role.
    token: String,
    /// Seconds until it is worthless.
    expires_in_s: u64,
}

/// POST /v1/admin/setup-tokens
///
/// A token with which one member gets a staff role, once, within the hour. Nobody gives more than they have.
#[utoipa::path(
    post, path = "/v1/admin/setup-tokens", tag = "staff",
    request_body = SetupRole,
    responses(
        (status = 201, description = "the token", body = SetupToken),
        (status = 422, description = "there is no such role", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn make_setup_token(posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("POST /v1/admin/setup-tokens") }, |_, actor| async move {
            asked.params(&[])?;
            let SetupRole { role } = posted.json(&asked.api).await?;
            let token = asked.members(|members| async move { members.create_setup_token(&actor, &role).await }).await?;
            let shown = SetupToken { token: token.expose_secret().to_owned(), expires_in_s: kindred_members::SETUP_S };
            json(StatusCode::CREATED, &shown)
        })
        .await
}

/// The set-up tokens that may still be redeemed.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupTokenList {
    /// The oldest first.
    setup_tokens: Vec<SetupTokenShown>,
}

/// A set-up token that nobody has redeemed; without its text.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupTokenShown {
    /// By which it is withdrawn.
    id: String,
    /// What it gives.
    role: String,
    /// Who made it: a member's id, `key:ID` or `operator:NAME`.
    made_by: String,
    /// When.
    #[schema(value_type = String)]
    made_at: EventTime,
    /// When it is worthless.
    #[schema(value_type = String)]
    expires_at: EventTime,
}

/// GET /v1/admin/setup-tokens
///
/// The set-up tokens that may still be redeemed, without their texts: which role each gives, and who made it.
#[utoipa::path(
    get, path = "/v1/admin/setup-tokens", tag = "staff",
    responses((status = 200, description = "the tokens", body = SetupTokenList)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_setup_tokens(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/setup-tokens") }, |_, actor| async move {
            asked.params(&[])?;
            let found = asked.members(|members| async move { members.setup_tokens(&actor).await }).await?;
            let shown = |token: SetupShown| {
                let SetupShown { id, role, made_by, made_at, expires_at } = token;
                SetupTokenShown { id, role, made_by, made_at, expires_at }
            };
            json(StatusCode::OK, &SetupTokenList { setup_tokens: found.into_iter().map(shown).collect() })
        })
        .await
}

/// DELETE /v1/admin/setup-tokens/{id}
///
/// Withdraws a set-up token: nobody can redeem it any more. Nobody withdraws one that gives more than they have.
#[utoipa::path(
    delete, path = "/v1/admin/setup-tokens/{id}", tag = "staff",
    params(("id" = String, Path, description = "the token's id, as listed")),
    responses(
        (status = 204, description = "it is withdrawn"),
        (status = 404, description = "there is none of this id: it was redeemed, withdrawn, or has expired", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn withdraw_setup_token(id: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("DELETE /v1/admin/setup-tokens/{id}") }, |_, actor| async move {
            asked.params(&[])?;
            let id = id.decoded()?;
            asked.members(|members| async { members.withdraw_setup_token(&actor, &id).await }).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// A set-up token, presented.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRedeemed {
    /// As it was given.
    token: String,
}

/// POST /v1/admin/setup
///
/// Gives the token's role to whoever asks, if its maker could give it now. All their sessions end: they sign in anew, with a second factor, for the role to count.
#[utoipa::path(
    post, path = "/v1/admin/setup", tag = "staff",
    request_body = SetupRedeemed,
    responses(
        (status = 204, description = "the role is given; sign in anew"),
        (status = 410, description = "the token is used, expired, withdrawn, or was never given; or its maker may not give the role any more", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("access_token" = [])),
)]
async fn redeem_setup_token(posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("POST /v1/admin/setup") }, |grant, actor| async move {
            asked.params(&[])?;
            let claims = person(&grant)?;
            let SetupRedeemed { token } = posted.json(&asked.api).await?;
            let is_good = |id: &str| asked.api.ring.is_good_service_key(id);
            let done =
                asked.members(|members| async move { members.redeem_setup_token(claims, &token, &actor.address, is_good).await });
            done.await.map(|()| StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// POST /v1/admin/signing-keys/rotate
///
/// Makes the next key that signs access tokens. It signs in five minutes, when every process knows it; tokens of the key before stay
/// good until they expire. With `withdraw=true`, where a key may be known to others: the new one signs at once, and no token of the keys
/// before is taken any more, anywhere within a second. Sessions go on: whoever is signed in refreshes.
#[utoipa::path(
    post, path = "/v1/admin/signing-keys/rotate", tag = "staff",
    params(("withdraw" = Option<bool>, Query, description = "withdraw the keys before; false unless given")),
    responses((status = 202, description = "the key is made")),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn rotate_signing_keys(posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("POST /v1/admin/signing-keys/rotate") }, |_, actor| async move {
            posted.ignore(&asked.api).await?;
            let withdraw = asked.params(&["withdraw"])?.boolean("withdraw", false)?;
            let done = asked.members(|members| async move {
                if withdraw { members.withdraw_keys(&actor).await } else { members.rotate_keys(&actor).await }
            });
            done.await?;
            Ok(StatusCode::ACCEPTED.into_response())
        })
        .await
}
