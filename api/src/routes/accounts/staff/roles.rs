//! Staff roles (R18 to R20) and the permissions that endpoints require.

use http::StatusCode;
use http::header::ETAG;
use kindred_members::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{Code, FieldError, Problem};
use crate::routes::endpoint::prelude::*;
use crate::routes::precondition::{etag, required_seen};
use crate::routes::{done, json};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            get("/v1/admin/roles", Staff(Permission::MemberRead), list_roles)
                .says("All roles.")
                .answers::<RoleList>(200, "the roles"),
            get("/v1/admin/roles/{name}", Staff(Permission::MemberRead), show_role)
                .says("One role.")
                .path("name", "the name of the role")
                .answers::<Role>(200, "the role")
                .sends("ETag", "the version for If-Match; absent for built-in roles"),
            put("/v1/admin/roles/{name}", Staff(Permission::RoleManage), put_role)
                .says(
                    "Creates or replaces a role. Nobody can grant permissions that they lack. Changes apply when holders refresh \
                        their tokens, within ten minutes.",
                )
                .path("name", "1 to 32 of `a-z 0-9 _ -`, not the name of a built-in role")
                .header("If-Match", "to change a role: the ETag that was read")
                .header("If-None-Match", "to create a role: `*`")
                .answers_nothing(204, "created or changed")
                .fails(412, "the version has changed, or the role exists already")
                .fails(422, "the name or a permission is invalid")
                .fails(428, "If-Match or If-None-Match is missing"),
            get("/v1/admin/permissions", Staff(Permission::MemberRead), list_permissions)
                .says("All permissions and the routes that require them.")
                .answers::<PermissionList>(200, "the permissions"),
        ],
    )
}

/// All roles.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoleList {
    /// Built-in roles first.
    roles: Vec<Role>,
}

async fn list_roles(request: Request) -> Answered {
    let roles = request.members()?.roles.all(&request.actor()).await?;
    json(StatusCode::OK, &RoleList { roles })
}

async fn show_role(request: Request) -> Answered {
    let found = request.members()?.roles.show(&request.actor(), &request.segment("name")?).await?;
    let (role, version) = found.ok_or_else(|| Problem::new(Code::NotFound, "there is no role with this name"))?;
    let mut response = json(StatusCode::OK, &role)?;
    if let Some(version) = version {
        response.headers_mut().insert(ETAG, etag(&version)?);
    }
    Ok(response)
}

/// The permissions of a role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleSet {
    /// Names from GET /v1/admin/permissions.
    permissions: Vec<String>,
}

impl RoleSet {
    fn checked(&self) -> Result<Vec<Permission>, Problem> {
        let mut permissions = Vec::new();
        let mut errors = Vec::new();
        for (n, word) in self.permissions.iter().enumerate() {
            match Permission::of(word) {
                Some(permission) => permissions.push(permission),
                None => errors.push(FieldError::body(
                    format!("/permissions/{n}"),
                    "permission_unknown",
                    "unknown permission; see GET /v1/admin/permissions",
                )),
            }
        }
        if errors.is_empty() {
            permissions.sort_unstable();
            permissions.dedup();
            return Ok(permissions);
        }
        Err(Problem { errors, ..Problem::new(Code::Invalid, "unknown permissions") })
    }
}

async fn put_role(request: Request, form: RoleSet) -> Answered {
    let seen = required_seen(request.header("if-match")?, request.header("if-none-match")?)?;
    let role = Role { name: request.segment("name")?.into_owned(), permissions: form.checked()?, built_in: false };
    request.members()?.roles.put(&request.actor(), &role, &seen).await?;
    Ok(done())
}

/// All permissions.
#[derive(Serialize, ToSchema)]
pub(crate) struct PermissionList {
    permissions: Vec<PermissionShown>,
}

/// A permission.
#[derive(Serialize, ToSchema)]
pub(crate) struct PermissionShown {
    /// Its name in roles and in the `scope` of access tokens.
    name: &'static str,
    /// Whether every member has it.
    members: bool,
    /// Routes that require it, each as `METHOD /path`.
    routes: Vec<&'static str>,
}

async fn list_permissions(request: Request) -> Answered {
    let shown = |permission: &Permission| PermissionShown {
        name: permission.name(),
        members: permission.is_members(),
        routes: request
            .api
            .table
            .endpoints()
            .filter(|endpoint| endpoint.need.permission() == Some(*permission))
            .map(|endpoint| endpoint.name)
            .collect(),
    };
    json(StatusCode::OK, &PermissionList { permissions: Permission::ALL.iter().map(shown).collect() })
}
