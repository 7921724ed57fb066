//! Staff roles (R18 to R20): named sets of permissions, and which permission each route asks for.

use http::StatusCode;
use http::header::ETAG;
use kindred_members::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{Code, FieldError, Problem};
use crate::routes::endpoint::prelude::*;
use crate::routes::precondition::{etag, required_seen};
use crate::routes::{done, json};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            get("/v1/admin/roles", Staff(Permission::MemberRead), list_roles)
                .says("All roles.")
                .answers::<RoleList>(200, "the roles"),
            get("/v1/admin/roles/{name}", Staff(Permission::MemberRead), show_role)
                .says("One role.")
                .path("name", "its name")
                .answers::<Role>(200, "the role")
                .sends("ETag", "its version, for If-Match; none of the product's own"),
            put("/v1/admin/roles/{name}", Staff(Permission::RoleManage), put_role)
                .says(
                    "Makes a role, or says anew what it allows, whole. Nobody gives it more than they have. What its holders may \
                changes when their tokens are refreshed, within ten minutes.",
                )
                .path("name", "1 to 32 of `a-z 0-9 _ -`, and none of the product's")
                .header("If-Match", "to change one: the ETag of the role as it was read")
                .header("If-None-Match", "to make one: `*`")
                .answers_nothing(204, "the role is this")
                .fails(412, "the role was changed meanwhile; or there is one, and there was to be none")
                .fails(422, "the name or a permission is not accepted")
                .fails(428, "there is neither If-Match nor If-None-Match"),
            get("/v1/admin/permissions", Staff(Permission::MemberRead), list_permissions)
                .says("All permissions, and which routes ask for each.")
                .answers::<PermissionList>(200, "the permissions"),
        ],
    )
}

/// All roles.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoleList {
    /// Those of the product first.
    roles: Vec<Role>,
}

async fn list_roles(request: Request) -> Answered {
    let roles = request.members()?.roles(&request.actor()).await?;
    json(StatusCode::OK, &RoleList { roles })
}

async fn show_role(request: Request) -> Answered {
    let found = request.members()?.show_role(&request.actor(), &request.segment("name")?).await?;
    let (role, version) = found.ok_or_else(|| Problem::new(Code::NotFound, "there is no role of this name"))?;
    let mut response = json(StatusCode::OK, &role)?;
    if let Some(version) = version {
        response.headers_mut().insert(ETAG, etag(&version)?);
    }
    Ok(response)
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
                None => errors.push(FieldError::body(
                    format!("/permissions/{n}"),
                    "permission_unknown",
                    "there is no such permission; GET /v1/admin/permissions lists them",
                )),
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

async fn put_role(request: Request, form: RoleSet) -> Answered {
    let seen = required_seen(request.header("if-match")?, request.header("if-none-match")?)?;
    let role = Role { name: request.segment("name")?.into_owned(), permissions: form.checked()?, built_in: false };
    request.members()?.put_role(&request.actor(), &role, &seen).await?;
    Ok(done())
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
