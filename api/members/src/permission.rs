//! Who may do what (R18 to R20). A member's tier and a staff role are two fields: points never give staff rights.

use kindred_store::records::Step;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::base::Roles;
use crate::db::{self, ROLES};
use crate::error::{MemberError, Result};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// What may be done; each route declares which it asks for.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Permission { $($(#[$doc])* #[serde(rename = $word)] $name),+ }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for it in `scope`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }
    };
}

permissions! {
    /// Product, category and tag pages.
    CatalogBrowse = "catalog:browse",
    /// Buy, submit orders, see the own orders.
    OrderTrade = "order:trade",
    /// See members.
    MemberRead = "member:read",
    /// Suspend, activate and change members, end their sessions.
    MemberWrite = "member:write",
    /// See and change orders.
    OrderManage = "order:manage",
    /// Promotions, coupons, campaigns.
    PromoManage = "promo:manage",
    /// Reports.
    ReportRead = "report:read",
    /// The audit log.
    AuditRead = "audit:read",
    /// Service and storefront keys, signing keys.
    KeyManage = "key:manage",
    /// Roles, and who has which.
    RoleManage = "role:manage",
    /// Generations of lists: replay, promote, drop.
    GenerationManage = "generation:manage",
}

impl Permission {
    /// Whether every member has it.
    pub const fn is_members(self) -> bool {
        matches!(self, Self::CatalogBrowse | Self::OrderTrade)
    }

    /// The one of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.name() == word)
    }
}

/// A named set of permissions of staff.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RoleShown)]
pub struct Role {
    /// 1 to 32 of `a-z 0-9 _ -`.
    pub name: String,
    /// What its holders may, beside what every member may.
    #[schema(value_type = Vec<String>)]
    pub permissions: Vec<Permission>,
    /// Whether it comes with the product; such a role is not changed.
    #[serde(default)]
    #[schema(required)]
    pub built_in: bool,
}

impl Role {
    /// Those that come with the product: everything, and the usual parts of it.
    pub fn built_in() -> Vec<Self> {
        use Permission as P;
        let role =
            |name: &str, permissions: &[Permission]| Self { name: name.into(), permissions: permissions.into(), built_in: true };
        let staff: Vec<Permission> = Permission::ALL.iter().copied().filter(|permission| !permission.is_members()).collect();
        vec![
            role("admin", &staff),
            role("support", &[P::MemberRead, P::OrderManage]),
            role("marketing", &[P::PromoManage, P::ReportRead]),
            role("auditor", &[P::AuditRead, P::MemberRead]),
        ]
    }
}

/// Who does something, as it was established by whoever calls: the holder of an access token, the operator at the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// A member's id, or `operator:NAME`, or `key:ID`.
    pub id: String,
    /// What they may.
    pub permissions: Vec<Permission>,
    /// The address they come from; empty for the machine itself.
    pub address: String,
}

impl Actor {
    /// Whoever may use the command line on the machine.
    pub fn operator(name: &str) -> Self {
        Self { id: format!("operator:{name}"), permissions: Permission::ALL.to_vec(), address: String::new() }
    }

    /// Refuses whoever lacks the permission.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`].
    pub fn needs(&self, permission: Permission) -> Result<()> {
        if self.permissions.contains(&permission) { Ok(()) } else { Err(MemberError::Forbidden(permission)) }
    }

    /// Refuses whoever may less than what is to be made, given or changed: nobody reaches beyond themselves by way of a key, a role, a
    /// set-up token or another member.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] of the first permission that is missing.
    pub fn covers(&self, permissions: &[Permission]) -> Result<()> {
        permissions.iter().try_for_each(|&permission| self.needs(permission))
    }
}

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
