//! The first administrator (V6.3.2: no account comes with the product), and the keys that sign access tokens.
//!
//! ```text
//! operator's service key ──setup-tokens──▶ token, an hour ──▶ a member who signed in ──setup──▶ role; it counts with a second factor
//! ```
//!
//! A token is worth what its maker is when it is redeemed: the key has to be good still, the member has to have the role's permissions.

use http::StatusCode;
use kindred_members::SetupShown;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Reply;

use crate::routes::endpoint::prelude::*;
use crate::routes::{done, json};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            post("/v1/admin/setup-tokens", Staff(Permission::RoleManage), make_setup_token)
                .says("A token with which one member gets a staff role, once, within the hour. Nobody gives more than they have.")
                .answers::<SetupToken>(201, "the token")
                .fails(422, "there is no such role"),
            get("/v1/admin/setup-tokens", Staff(Permission::RoleManage), list_setup_tokens)
                .says("The set-up tokens that may still be redeemed, without their texts: which role each gives, and who made it.")
                .answers::<SetupTokenList>(200, "the tokens"),
            delete("/v1/admin/setup-tokens/{id}", Staff(Permission::RoleManage), withdraw_setup_token)
                .says("Withdraws a set-up token: nobody can redeem it any more. Nobody withdraws one that gives more than they have.")
                .path("id", "the token's id, as listed")
                .answers_nothing(204, "it is withdrawn")
                .fails(404, "there is none of this id: it was redeemed, withdrawn, or has expired"),
            post("/v1/admin/setup", SignedIn, redeem_setup_token)
                .says("Gives the token's role to whoever asks, if its maker could give it now. All their sessions end: they sign in \
                anew, with a second factor, for the role to count.")
                .answers_nothing(204, "the role is given; sign in anew")
                .fails(410, "the token is used, expired, withdrawn, or was never given; or its maker may not give the role any more"),
            post("/v1/admin/signing-keys/rotate", Staff(Permission::KeyManage), rotate_signing_keys)
                .says("Makes the next key that signs access tokens. It signs in five minutes, when every process knows it; tokens of \
                the key before stay good until they expire. With `withdraw=true`, where a key may be known to others: the new \
                one signs at once, and no token of the keys before is taken any more, anywhere within a second. Sessions go on: \
                whoever is signed in refreshes.")
                .query("withdraw", Flag, "withdraw the keys before; false unless given")
                .answers_nothing(202, "the key is made"),
        ],
    )
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

async fn make_setup_token(request: Request, SetupRole { role }: SetupRole) -> Answered {
    let token = request.members()?.create_setup_token(&request.actor(), &role).await?;
    let shown = SetupToken { token: token.expose_secret().to_owned(), expires_in_s: kindred_members::SETUP_S };
    json(StatusCode::CREATED, &shown)
}

/// The set-up tokens that may still be redeemed.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetupTokenList {
    /// The oldest first.
    setup_tokens: Vec<SetupShown>,
}

async fn list_setup_tokens(request: Request) -> Answered {
    let setup_tokens = request.members()?.setup_tokens(&request.actor()).await?;
    json(StatusCode::OK, &SetupTokenList { setup_tokens })
}

async fn withdraw_setup_token(request: Request) -> Answered {
    request.members()?.withdraw_setup_token(&request.actor(), &request.segment("id")?).await?;
    Ok(done())
}

/// A set-up token, presented.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRedeemed {
    /// As it was given.
    token: String,
}

async fn redeem_setup_token(request: Request, SetupRedeemed { token }: SetupRedeemed) -> Answered {
    let is_good = |id: &str| request.api.ring.is_good_service_key(id);
    request.members()?.redeem_setup_token(request.person()?, &token, request.from(), is_good).await?;
    Ok(done())
}

async fn rotate_signing_keys(request: Request) -> Answered {
    let (members, actor) = (request.members()?, request.actor());
    if request.params.boolean("withdraw", false)? {
        members.withdraw_keys(&actor).await?;
    } else {
        members.rotate_keys(&actor).await?;
    }
    Ok(StatusCode::ACCEPTED.into_response())
}
