//! The public keys of access tokens, for servers that check them by themselves (RFC 7517).

use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::asked::{Asked, asked};
use super::members;
use crate::api::Api;
use crate::routes::json;

/// They are public, and a new one is published five minutes before it signs: whoever keeps them for a minute misses none.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!(".well-known" / "jwks.json").and(warp::get()).and(asked(api)).then(show_keys).boxed()
}

/// The keys (RFC 7517).
#[derive(Serialize, ToSchema)]
pub(crate) struct KeySet {
    /// Each with `kty`, `crv`, `alg`, `use`, `kid` and `x`.
    #[schema(value_type = Vec<Object>)]
    keys: serde_json::Value,
}

/// GET /.well-known/jwks.json
///
/// The public keys that access tokens are signed with.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "sessions",
    responses((status = 200, description = "the keys", body = KeySet)),
    security(()),
)]
async fn show_keys(asked: Asked) -> Response {
    asked
        .open(async {
            asked.params(&[])?;
            let keys = members(&asked.api)?.jwks()["keys"].take();
            let mut response = json(StatusCode::OK, &KeySet { keys })?;
            response.headers_mut().insert(CACHE_CONTROL, KEPT);
            Ok(response)
        })
        .await
}
