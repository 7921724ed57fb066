//! Key management. The text of a service key is returned once, when it is created.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::AuditAction;
use super::endpoint::prelude::*;
use super::{done, json};
use crate::auth::{KeyChange, KeyReplaced, KeyRotation, KeySettings, KeyShown};
use crate::problem::{Code, Problem};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "admin",
        [
            get("/v1/admin/keys", Staff(Permission::KeyManage), list_keys)
                .says(
                    "All keys with their last use and pending replacements, without the texts of service keys. Revoked and \
                    expired keys are not listed.",
                )
                .answers::<KeyList>(200, "the keys"),
            post("/v1/admin/keys", Staff(Permission::KeyManage), make_key)
                .says("Creates a key and returns its text, once. Only callers with every permission create service keys.")
                .answers::<KeyMade>(201, "the key")
                .fails(422, "invalid settings"),
            patch("/v1/admin/keys/{id}", Staff(Permission::KeyManage), change_key)
                .says("Changes the origins of a publishable key, from the next request on.")
                .path("id", "the key's id")
                .answers::<KeyShown>(200, "the changed key")
                .fails(404, "no such key")
                .fails(422, "an origin is invalid, or it is a service key"),
            post("/v1/admin/keys/{id}/rotate", Staff(Permission::KeyManage), rotate_key)
                .says(
                    "Creates a replacement with the same kind, name, origins, scopes and rate, and returns its text, once. The \
                    old key stays valid for the overlap, while its users switch to the new one. Only callers with every \
                    permission rotate service keys.",
                )
                .path("id", "the id of the key to replace")
                .answers::<KeyRotated>(201, "the new key")
                .fails(404, "no such key")
                .fails_as(Code::Refused, "it is already being replaced")
                .fails(422, "the overlap is invalid"),
            delete("/v1/admin/keys/{id}", Staff(Permission::KeyManage), revoke_key)
                .says(
                    "Revokes a key: it is refused from the next request on. Only callers with every permission revoke service \
                    keys.",
                )
                .path("id", "the key's id")
                .answers_nothing(204, "revoked")
                .fails(404, "no such key"),
        ],
    )
}

/// All keys.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyShown>,
}

/// A created key.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyMade {
    /// The text of the key: returned once and not stored.
    key: String,
    #[serde(flatten)]
    shown: KeyShown,
}

/// A rotated key.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyRotated {
    #[serde(flatten)]
    made: KeyMade,
    /// The replaced key and its expiry.
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
    // The id is known only now. If the audit entry cannot be written, the key is revoked and not returned.
    let action = AuditAction { kind: "key.create", subject: &shown.id, detail: &[("name", &shown.name), ("kind", shown.kind)] };
    if let Err(problem) = request.audit(action, true).await {
        ring.revoke(&shown.id).await?;
        return Err(problem);
    }
    tracing::info!(key = shown.id, "created a key");
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
    // Generated first, so that the audit entry names it.
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
            false => Err(Problem::new(Code::NotFound, "there is no key with this id")),
        }
    };
    request.audited(action, revoked).await?;
    tracing::info!(key = &*id, "revoked a key");
    Ok(done())
}
