//! Keys: made, listed, rotated, revoked. The text of a key is told once, when it is made.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::access::need;
use super::body::Posted;
use super::noted::{Act, note, noted};
use super::{acting, acting_with_body, guarded, in_time, json, query, with};
use crate::api::Api;
use crate::auth::{Caller, KeyChange, KeyReplaced, KeyRotation, KeySettings, KeyShown, Visitor, caller};
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let listed = warp::path!("v1" / "admin" / "keys").and(warp::get()).and(query()).and(caller()).and(with(api)).then(list_keys);
    let made = warp::path!("v1" / "admin" / "keys").and(warp::post()).and(acting_with_body(api)).then(make_key);
    let revoked = warp::path!("v1" / "admin" / "keys" / Segment).and(warp::delete()).and(acting(api)).then(revoke_key);
    let rotated =
        warp::path!("v1" / "admin" / "keys" / Segment / "rotate").and(warp::post()).and(acting_with_body(api)).then(rotate_key);
    let changed = warp::path!("v1" / "admin" / "keys" / Segment).and(warp::patch()).and(acting_with_body(api)).then(change_key);
    listed.or(made).unify().or(changed).unify().or(revoked).unify().or(rotated).unify().boxed()
}

/// All keys, without their texts.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyShown>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyMade {
    /// The key itself: told this once, and stored nowhere.
    key: String,
    #[serde(flatten)]
    shown: KeyShown,
}

/// A key that was just made, in place of another.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyRotated {
    #[serde(flatten)]
    made: KeyMade,
    /// Which it replaces, and until when that stays good.
    replaces: KeyReplaced,
}

/// GET /v1/admin/keys
///
/// All keys, without the texts of service keys: when each was last used, and which are being replaced. One that is revoked or has ended
/// is none of them.
#[utoipa::path(
    get, path = "/v1/admin/keys", tag = "admin",
    responses(
        (status = 200, description = "the keys", body = KeyList),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_keys(query: String, caller: Caller, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/keys") }, |_| async {
        Params::parse(&query, &[])?;
        json(StatusCode::OK, &KeyList { keys: shared.ring.list() })
    })
    .await
}

/// POST /v1/admin/keys
///
/// Makes a key and tells its text, this once. A service key may everything: only whoever may everything makes one.
#[utoipa::path(
    post, path = "/v1/admin/keys", tag = "admin",
    request_body = KeySettings,
    responses(
        (status = 201, description = "the key", body = KeyMade),
        (status = 422, description = "the settings are not accepted", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn make_key(query: String, caller: Caller, posted: Posted, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("POST /v1/admin/keys") }, |grant| async move {
        Params::parse(&query, &[])?;
        let settings: KeySettings = posted.json(shared).await?;
        if matches!(settings, KeySettings::Service { .. }) {
            grant.needs_everything()?;
        }
        let (key, shown) = in_time(shared, async {
            let (key, shown) = shared.ring.make(settings).await?;
            // Its id is known only now. Where that cannot be noted, nobody is told the key, and it is worthless.
            let act = Act { kind: "key.create", subject: &shown.id, detail: &[("name", &shown.name), ("kind", shown.kind)] };
            if let Err(problem) = note(shared, &grant, &visitor, act, true).await {
                shared.ring.revoke(&shown.id).await?;
                return Err(problem);
            }
            Ok((key, shown))
        })
        .await?;
        tracing::info!(key = shown.id, "made a key");
        json(StatusCode::CREATED, &KeyMade { key, shown })
    })
    .await
}

/// PATCH /v1/admin/keys/{id}
///
/// Gives a publishable key other origins, from the next request on. Its text and what else it has stay as they are.
#[utoipa::path(
    patch, path = "/v1/admin/keys/{id}", tag = "admin",
    params(("id" = String, Path, description = "the key's id")),
    request_body = KeyChange,
    responses(
        (status = 200, description = "the key as it is now", body = KeyShown),
        (status = 404, description = "no such key", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "an origin is not accepted, or it is a service key", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn change_key(id: Segment, query: String, caller: Caller, posted: Posted, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("PATCH /v1/admin/keys/{id}") }, |grant| async move {
        Params::parse(&query, &[])?;
        let id = id.decoded()?;
        let KeyChange { origins } = posted.json(shared).await?;
        let listed = origins.join(" ");
        let act = Act { kind: "key.change", subject: &id, detail: &[("origins", &listed)] };
        let changed = noted(shared, &grant, &visitor, act, shared.ring.set_origins(&id, &origins));
        json(StatusCode::OK, &in_time(shared, changed).await?)
    })
    .await
}

/// POST /v1/admin/keys/{id}/rotate
///
/// Makes a key in place of another, of the same kind, name, origins, scopes and rate, and tells its text, this once. The old one stays
/// good for the overlap, in which it is replaced wherever it is used, and is refused from then on. A service key is rotated only by
/// whoever may everything.
#[utoipa::path(
    post, path = "/v1/admin/keys/{id}/rotate", tag = "admin",
    params(("id" = String, Path, description = "the id of the key that is to be replaced")),
    request_body = KeyRotation,
    responses(
        (status = 201, description = "the key that replaces it", body = KeyRotated),
        (status = 404, description = "no such key", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 409, description = "it is being replaced already", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "the overlap is not accepted", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn rotate_key(id: Segment, query: String, caller: Caller, posted: Posted, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("POST /v1/admin/keys/{id}/rotate") }, |grant| async move {
        Params::parse(&query, &[])?;
        let id = id.decoded()?;
        let KeyRotation { overlap_seconds } = posted.json(shared).await?;
        if shared.ring.is_service_key(&id) {
            grant.needs_everything()?;
        }
        // Drawn before it is noted, so that the entry names it.
        let successor = shared.ring.draw_successor(&id);
        let (by, overlap) = (successor.as_ref().map(|it| it.id()).unwrap_or_default(), overlap_seconds.to_string());
        let detail = [("replaced_by", &*by), ("overlap_seconds", &*overlap)];
        let act = Act { kind: "key.rotate", subject: &id, detail: &detail };
        let rotated = noted(shared, &grant, &visitor, act, async { shared.ring.rotate(successor?, overlap_seconds).await });
        let (key, shown, replaces) = in_time(shared, rotated).await?;
        tracing::info!(key = shown.id, replaces = replaces.id, "rotated a key");
        json(StatusCode::CREATED, &KeyRotated { made: KeyMade { key, shown }, replaces })
    })
    .await
}

/// DELETE /v1/admin/keys/{id}
///
/// Revokes a key: it is refused from the next request on. A service key is revoked only by whoever may everything.
#[utoipa::path(
    delete, path = "/v1/admin/keys/{id}", tag = "admin",
    params(("id" = String, Path, description = "the key's id")),
    responses(
        (status = 204, description = "it is revoked"),
        (status = 404, description = "no such key", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn revoke_key(id: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("DELETE /v1/admin/keys/{id}") }, |grant| async move {
        Params::parse(&query, &[])?;
        let id = id.decoded()?;
        if shared.ring.is_service_key(&id) {
            grant.needs_everything()?;
        }
        let act = Act { kind: "key.revoke", subject: &id, detail: &[] };
        let revoked = noted(shared, &grant, &visitor, act, async {
            match shared.ring.revoke(&id).await? {
                true => Ok(()),
                false => Err(Problem::new(Code::NotFound, "there is no key of this id")),
            }
        });
        in_time(shared, revoked).await?;
        tracing::info!(key = &*id, "revoked a key");
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}
