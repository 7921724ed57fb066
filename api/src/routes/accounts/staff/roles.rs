//! Staff roles (R18 to R20): named sets of permissions, and which permission each route asks for.

use std::sync::Arc;

use http::StatusCode;
use http::header::ETAG;
use kindred_members::{Permission, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{Asked, asked};
use crate::api::Api;
use crate::params::Segment;
use crate::problem::{Code, FieldError, Problem};
use crate::routes::access::{ROUTES, need};
use crate::routes::body::{Posted, posted};
use crate::routes::json;
use crate::routes::precondition::{etag, required_seen};

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let listed = warp::path!("v1" / "admin" / "roles").and(warp::get()).and(asked(api)).then(list_roles);
    let shown = warp::path!("v1" / "admin" / "roles" / Segment).and(warp::get()).and(asked(api)).then(show_role);
    let put = warp::path!("v1" / "admin" / "roles" / Segment).and(warp::put()).and(posted()).and(asked(api)).then(put_role);
    let permissions = warp::path!("v1" / "admin" / "permissions").and(warp::get()).and(asked(api)).then(list_permissions);
    listed.or(shown).unify().or(put).unify().or(permissions).unify().boxed()
}

/// All roles.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoleList {
    /// Those of the product first.
    roles: Vec<RoleShown>,
}

/// A named set of permissions of staff.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoleShown {
    name: String,
    /// What its holders may, beside what every member may.
    permissions: Vec<&'static str>,
    /// Whether it comes with the product; such a role is not changed.
    built_in: bool,
}

impl From<Role> for RoleShown {
    fn from(role: Role) -> Self {
        let permissions = role.permissions.iter().map(|permission| permission.name()).collect();
        Self { name: role.name, permissions, built_in: role.built_in }
    }
}

/// GET /v1/admin/roles
///
/// All roles.
#[utoipa::path(
    get, path = "/v1/admin/roles", tag = "staff",
    responses((status = 200, description = "the roles", body = RoleList)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_roles(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/roles") }, |_, actor| async move {
            asked.params(&[])?;
            let roles = asked.members(|members| async move { members.roles(&actor).await }).await?;
            json(StatusCode::OK, &RoleList { roles: roles.into_iter().map(Into::into).collect() })
        })
        .await
}

/// GET /v1/admin/roles/{name}
///
/// One role.
#[utoipa::path(
    get, path = "/v1/admin/roles/{name}", tag = "staff",
    params(("name" = String, Path, description = "its name")),
    responses(
        (status = 200, description = "the role", body = RoleShown, headers(("ETag" = String, description = "its version, for If-Match; none of the product's own"))),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn show_role(name: Segment, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/roles/{name}") }, |_, actor| async move {
            asked.params(&[])?;
            let name = name.decoded()?;
            let found = asked.members(|members| async { members.show_role(&actor, &name).await }).await?;
            let (role, version) = found.ok_or_else(|| Problem::new(Code::NotFound, "there is no role of this name"))?;
            let mut response = json(StatusCode::OK, &RoleShown::from(role))?;
            if let Some(version) = version {
                response.headers_mut().insert(ETAG, etag(&version)?);
            }
            Ok(response)
        })
        .await
}

/// What a role is to allow.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleSet {
    /// Words of GET /v1/admin/permissions.
    permissions: Vec<String>,
}

impl RoleSet {
    fn checked(&self) -> Result<Vec<Permission>, Problem> {
        let mut permissions = Vec::new();
        let mut errors = Vec::new();
        for (n, word) in self.permissions.iter().enumerate() {
            match Permission::of(word) {
                Some(permission) => permissions.push(permission),
                None => errors.push(FieldError {
                    place: "body",
                    pointer: format!("/permissions/{n}"),
                    code: "permission_unknown",
                    message: "there is no such permission; GET /v1/admin/permissions lists them".into(),
                }),
            }
        }
        if errors.is_empty() {
            permissions.sort_unstable();
            permissions.dedup();
            return Ok(permissions);
        }
        Err(Problem { errors, ..Problem::new(Code::Invalid, "not every permission is known") })
    }
}

/// PUT /v1/admin/roles/{name}
///
/// Makes a role, or says anew what it allows, whole. Nobody gives it more than they have. What its holders may changes when their
/// tokens are refreshed, within ten minutes.
#[utoipa::path(
    put, path = "/v1/admin/roles/{name}", tag = "staff",
    params(
        ("name" = String, Path, description = "1 to 32 of `a-z 0-9 _ -`, and none of the product's"),
        ("If-Match" = Option<String>, Header, description = "to change one: the ETag of the role as it was read"),
        ("If-None-Match" = Option<String>, Header, description = "to make one: `*`"),
    ),
    request_body = RoleSet,
    responses(
        (status = 204, description = "the role is this"),
        (status = 412, description = "the role was changed meanwhile; or there is one, and there was to be none", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 422, description = "the name or a permission is not accepted", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 428, description = "there is neither If-Match nor If-None-Match", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn put_role(name: Segment, posted: Posted, asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("PUT /v1/admin/roles/{name}") }, |_, actor| async move {
            asked.params(&[])?;
            let seen = required_seen(asked.if_match.as_deref(), asked.if_none_match.as_deref())?;
            let name = name.decoded()?.into_owned();
            let permissions = posted.json::<RoleSet>(&asked.api).await?.checked()?;
            let role = Role { name, permissions, built_in: false };
            asked.members(|members| async move { members.put_role(&actor, &role, &seen).await }).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
        .await
}

/// All permissions.
#[derive(Serialize, ToSchema)]
pub(crate) struct PermissionList {
    permissions: Vec<PermissionShown>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct PermissionShown {
    /// The word in a role, and in the `scope` of an access token.
    name: &'static str,
    /// Whether every member has it.
    members: bool,
    /// Which routes ask for it, each as `METHOD /path`.
    routes: Vec<&'static str>,
}

/// GET /v1/admin/permissions
///
/// All permissions, and which routes ask for each.
#[utoipa::path(
    get, path = "/v1/admin/permissions", tag = "staff",
    responses((status = 200, description = "the permissions", body = PermissionList)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_permissions(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/permissions") }, |_, _| async move {
            asked.params(&[])?;
            let shown = |permission: &Permission| PermissionShown {
                name: permission.name(),
                members: permission.is_members(),
                routes: ROUTES
                    .iter()
                    .filter(|route| route.need.permission() == Some(*permission))
                    .map(|route| route.name)
                    .collect(),
            };
            json(StatusCode::OK, &PermissionList { permissions: Permission::ALL.iter().map(shown).collect() })
        })
        .await
}
