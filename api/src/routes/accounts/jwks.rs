//! Public keys for verifying access tokens (RFC 7517).

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::routes::endpoint::prelude::*;
use crate::routes::json;

/// A new key is published five minutes before it is used.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=60");

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "sessions",
        [get("/.well-known/jwks.json", Anyone, show_keys)
            .says("The public keys for verifying access tokens.")
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
    let keys = request.members()?.sessions.jwks()["keys"].take();
    let mut response = json(StatusCode::OK, &KeySet { keys })?;
    response.headers_mut().insert(CACHE_CONTROL, KEPT);
    Ok(response)
}
