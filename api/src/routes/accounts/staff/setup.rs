//! The first administrator (V6.3.2: there is no default account), and the signing keys of access tokens.
//!
//! ```text
//! operator's service key ──setup-tokens──▶ token, an hour ──▶ a signed-in member ──setup──▶ role; takes effect with a second factor
//! ```
//!
//! When a token is redeemed, its creator must still be able to assign the role: the key must be valid, the member must have its
//! permissions.

use http::StatusCode;
use kindred_members::SetupShown;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Reply;

use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            post("/v1/admin/setup-tokens", Staff(Permission::RoleManage), make_setup_token)
                .says(
                    "Creates a token that gives one member a staff role, once, within an hour. Nobody can grant permissions \
                    that they lack.",
                )
                .answers::<SetupToken>(201, "the token")
                .fails(422, "there is no such role"),
            get("/v1/admin/setup-tokens", Staff(Permission::RoleManage), list_setup_tokens)
                .says("The open set-up tokens, without their texts: the role of each and who created it.")
                .answers::<SetupTokenList>(200, "the tokens"),
            delete("/v1/admin/setup-tokens/{id}", Staff(Permission::RoleManage), withdraw_setup_token)
                .says("Revokes a set-up token. Nobody can revoke one that grants permissions that they lack.")
                .path("id", "the token id")
                .answers_nothing(204, "revoked")
                .fails(404, "there is no such token, or it was redeemed, revoked or has expired"),
            post("/v1/admin/setup", SignedIn, redeem_setup_token)
                .says(
                    "Assigns the role of the token to the caller, if its creator could still do so. All sessions of the caller \
                    end; the role takes effect after signing in with a second factor.",
                )
                .answers_nothing(204, "assigned; sign in again")
                .fails(410, "the token is unknown, used, expired or revoked; or its creator may no longer assign the role"),
            post("/v1/admin/signing-keys/rotate", Staff(Permission::KeyManage), rotate_signing_keys)
                .says(
                    "Creates the next signing key of access tokens. It signs in five minutes, when every process knows it; \
                    tokens of earlier keys stay valid until they expire. With `withdraw=true` (a key may be compromised) it \
                    signs at once, and tokens of earlier keys are refused within a second. Sessions continue: clients refresh.",
                )
                .query("withdraw", Flag, "withdraw earlier keys; default false")
                .answers_nothing(202, "created"),
        ],
    )
}

/// The role of a set-up token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRole {
    /// The name of a role: `admin` for the first administrator.
    role: String,
}

/// A set-up token.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupToken {
    /// The token, returned once; redeemed by a signed-in member.
    token: String,
    /// Seconds until it expires.
    expires_in_s: u64,
}

async fn make_setup_token(request: Request, SetupRole { role }: SetupRole) -> Answered {
    let token = request.members()?.staff.create_setup_token(&request.actor(), &role).await?;
    let shown = SetupToken { token: token.expose_secret().to_owned(), expires_in_s: kindred_members::SETUP_S };
    json(StatusCode::CREATED, &shown)
}

/// The open set-up tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupTokenList {
    /// Oldest first.
    setup_tokens: Vec<SetupShown>,
}

async fn list_setup_tokens(request: Request) -> Answered {
    let setup_tokens = request.members()?.staff.setup_tokens(&request.actor()).await?;
    json(StatusCode::OK, &SetupTokenList { setup_tokens })
}

async fn withdraw_setup_token(request: Request) -> Answered {
    request.members()?.staff.withdraw_setup_token(&request.actor(), &request.segment("id")?).await?;
    Ok(done())
}

/// A set-up token to redeem.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRedeemed {
    /// The token.
    token: String,
}

async fn redeem_setup_token(request: Request, SetupRedeemed { token }: SetupRedeemed) -> Answered {
    let is_good = |id: &str| request.api.ring.is_good_service_key(id);
    request.members()?.staff.redeem_setup_token(request.person()?, &token, request.from(), is_good).await?;
    Ok(done())
}

async fn rotate_signing_keys(request: Request) -> Answered {
    let withdraw = request.params.boolean("withdraw", false)?;
    request.members()?.sessions.rotate_keys(&request.actor(), withdraw).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
