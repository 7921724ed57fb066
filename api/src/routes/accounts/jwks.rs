//! The public keys of access tokens, for servers that check them by themselves (RFC 7517).

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::routes::endpoint::prelude::*;
use crate::routes::json;

/// They are public, and a new one is published five minutes before it signs: whoever keeps them for a minute misses none.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [get("/.well-known/jwks.json", Anyone, show_keys)
            .says("The public keys that access tokens are signed with.")
            .answers::<KeySet>(200, "the keys")],
    )
}

/// The keys (RFC 7517).
#[derive(Serialize, ToSchema)]
pub(crate) struct KeySet {
    /// Each with `kty`, `crv`, `alg`, `use`, `kid` and `x`.
    #[schema(value_type = Vec<Object>)]
    keys: serde_json::Value,
}

async fn show_keys(request: Request) -> Answered {
    let keys = request.members()?.jwks()["keys"].take();
    let mut response = json(StatusCode::OK, &KeySet { keys })?;
    response.headers_mut().insert(CACHE_CONTROL, KEPT);
    Ok(response)
}
