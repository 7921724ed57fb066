//! Keys: made, listed, rotated, revoked. The text of a key is told once, when it is made.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::AuditAction;
use super::endpoint::prelude::*;
use super::{done, json};
use crate::auth::{KeyChange, KeyReplaced, KeyRotation, KeySettings, KeyShown};
use crate::problem::{Code, Problem};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "admin",
        [
            get("/v1/admin/keys", Staff(Permission::KeyManage), list_keys)
                .says("All keys, without the texts of service keys: when each was last used, and which are being replaced. One that is \
                revoked or has ended is none of them.")
                .answers::<KeyList>(200, "the keys"),
            post("/v1/admin/keys", Staff(Permission::KeyManage), make_key)
                .says("Makes a key and tells its text, this once. A service key may everything: only whoever may everything makes one.")
                .answers::<KeyMade>(201, "the key")
                .fails(422, "the settings are not accepted"),
            patch("/v1/admin/keys/{id}", Staff(Permission::KeyManage), change_key)
                .says("Gives a publishable key other origins, from the next request on. Its text and what else it has stay as they are.")
                .path("id", "the key's id")
                .answers::<KeyShown>(200, "the key as it is now")
                .fails(404, "no such key")
                .fails(422, "an origin is not accepted, or it is a service key"),
            post("/v1/admin/keys/{id}/rotate", Staff(Permission::KeyManage), rotate_key)
                .says("Makes a key in place of another, of the same kind, name, origins, scopes and rate, and tells its text, this \
                once. The old one stays good for the overlap, in which it is replaced wherever it is used, and is refused from \
                then on. A service key is rotated only by whoever may everything.")
                .path("id", "the id of the key that is to be replaced")
                .answers::<KeyRotated>(201, "the key that replaces it")
                .fails(404, "no such key")
                .fails(409, "it is being replaced already")
                .fails(422, "the overlap is not accepted"),
            delete("/v1/admin/keys/{id}", Staff(Permission::KeyManage), revoke_key)
                .says("Revokes a key: it is refused from the next request on. A service key is revoked only by whoever may everything.")
                .path("id", "the key's id")
                .answers_nothing(204, "it is revoked")
                .fails(404, "no such key"),
        ],
    )
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

async fn list_keys(request: Request) -> Answered {
    json(StatusCode::OK, &KeyList { keys: request.api.ring.list() })
}

async fn make_key(request: Request, settings: KeySettings) -> Answered {
    let ring = &request.api.ring;
    if matches!(settings, KeySettings::Service { .. }) {
        request.grant.require_all_permissions()?;
    }
    let (key, shown) = ring.make(settings).await?;
    // Its id is known only now. Where that cannot be noted, nobody is told the key, and it is worthless.
    let action = AuditAction { kind: "key.create", subject: &shown.id, detail: &[("name", &shown.name), ("kind", shown.kind)] };
    if let Err(problem) = request.audit(action, true).await {
        ring.revoke(&shown.id).await?;
        return Err(problem);
    }
    tracing::info!(key = shown.id, "made a key");
    json(StatusCode::CREATED, &KeyMade { key, shown })
}

async fn change_key(request: Request, KeyChange { origins }: KeyChange) -> Answered {
    let (id, listed) = (request.segment("id")?, origins.join(" "));
    let action = AuditAction { kind: "key.change", subject: &id, detail: &[("origins", &listed)] };
    json(StatusCode::OK, &request.audited(action, request.api.ring.set_origins(&id, &origins)).await?)
}

async fn rotate_key(request: Request, KeyRotation { overlap_seconds }: KeyRotation) -> Answered {
    let (id, ring) = (request.segment("id")?, &request.api.ring);
    if ring.is_service_key(&id) {
        request.grant.require_all_permissions()?;
    }
    // Drawn before it is noted, so that the entry names it.
    let successor = ring.draw_successor(&id);
    let (by, overlap) = (successor.as_ref().map(|it| it.id()).unwrap_or_default(), overlap_seconds.to_string());
    let detail = [("replaced_by", &*by), ("overlap_seconds", &*overlap)];
    let action = AuditAction { kind: "key.rotate", subject: &id, detail: &detail };
    let rotated = request.audited(action, async { ring.rotate(successor?, overlap_seconds).await });
    let (key, shown, replaces) = rotated.await?;
    tracing::info!(key = shown.id, replaces = replaces.id, "rotated a key");
    json(StatusCode::CREATED, &KeyRotated { made: KeyMade { key, shown }, replaces })
}

async fn revoke_key(request: Request) -> Answered {
    let (id, ring) = (request.segment("id")?, &request.api.ring);
    if ring.is_service_key(&id) {
        request.grant.require_all_permissions()?;
    }
    let action = AuditAction { kind: "key.revoke", subject: &id, detail: &[] };
    let revoked = async {
        match ring.revoke(&id).await? {
            true => Ok(()),
            false => Err(Problem::new(Code::NotFound, "there is no key of this id")),
        }
    };
    request.audited(action, revoked).await?;
    tracing::info!(key = &*id, "revoked a key");
    Ok(done())
}
