//! Staff roles: those of the product, and those that a shop makes.

use kindred_store::records::Step;

use crate::account::Accounts;
use crate::base::service;
use crate::db::{self, ROLES};
use crate::error::{MemberError, Result};
use crate::permission::{Actor, Permission, Role};

/// What whoever changes something has seen of it (RFC 9110, 13.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// That there is none.
    Absent,
    /// That there is one, whichever.
    Any,
    /// The one of this version.
    Version(String),
}

service! {
    /// Staff roles.
    Roles on Accounts
}

impl Roles {
    /// All roles, those of the product first.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`; what the store says.
    pub async fn all(&self, actor: &Actor) -> Result<Vec<Role>> {
        actor.needs(Permission::MemberRead)?;
        let mut roles = Role::built_in();
        roles.extend(self.db.all::<Role>(ROLES, "all", "").await?.into_iter().map(|(_, held)| held.value));
        Ok(roles)
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Option<Role>> {
        Ok(self.versioned_role(name).await?.map(|(role, _)| role))
    }

    /// One role, with its version; those of the product have none.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub async fn show(&self, actor: &Actor, name: &str) -> Result<Option<(Role, Option<String>)>> {
        actor.needs(Permission::MemberRead)?;
        self.versioned_role(name).await
    }

    async fn versioned_role(&self, name: &str) -> Result<Option<(Role, Option<String>)>> {
        if let Some(role) = Role::built_in().into_iter().find(|role| role.name == name) {
            return Ok(Some((role, None)));
        }
        let held = self.db.read::<Role>(ROLES, "all", name).await?;
        Ok(held.map(|held| (held.value, Some(db::shown(held.version)))))
    }

    /// Makes or changes a role, of which the actor has seen this. What its holders may changes when their tokens are refreshed, within
    /// ten minutes.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_invalid`;
    /// [`MemberError::Changed`]; what the store says.
    pub async fn put(&self, actor: &Actor, role: &Role, seen: &Seen) -> Result<()> {
        actor.needs(Permission::RoleManage)?;
        actor.covers(&role.permissions)?;
        let named = (1..=32).contains(&role.name.len())
            && role.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !named || Role::built_in().iter().any(|own| own.name == role.name) {
            return Err(MemberError::field("role", "role_invalid"));
        }
        let stored = db::encode(&Role { built_in: false, ..role.clone() });
        let held = self.db.read::<Role>(ROLES, "all", &role.name).await?;
        if let Some(held) = &held {
            // Those who have it keep what the actor may not judge.
            actor.covers(&held.value.permissions)?;
        }
        let step = match (held, seen) {
            (None, Seen::Absent) => Step::insert(role.name.as_str(), stored, None),
            (Some(held), Seen::Any) => Step::replace(role.name.as_str(), held.version, stored, None),
            (Some(held), Seen::Version(version)) if db::shown(held.version) == *version => {
                Step::replace(role.name.as_str(), held.version, stored, None)
            }
            _ => return Err(MemberError::Changed),
        };
        if !self.db.transact(ROLES, "all", &[step]).await? {
            return Err(MemberError::Changed);
        }
        let words: Vec<&str> = role.permissions.iter().map(|permission| permission.name()).collect();
        self.audit.record(actor, "role.put", &role.name, true, &[("permissions", &words.join(" "))]).await
    }

    pub(crate) async fn permissions(&self, role: Option<&str>) -> Result<Vec<Permission>> {
        let role = match role {
            Some(name) => self.get(name).await?,
            None => None,
        };
        Ok(role.map(|role| role.permissions).unwrap_or_default())
    }
}
