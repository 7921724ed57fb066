//! Who may do what (R18 to R20). A member's tier and a staff role are two fields: points never give staff rights.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
