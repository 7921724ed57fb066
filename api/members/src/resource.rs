//! What is kept of members beside their accounts: each part of the product that keeps something declares what becomes of it.
//!
//! ```text
//! account emptied ──outbox, one item a resource──▶ erase, and once more when no token of the member is taken any more
//! export ──────────each resource──▶ a section of account.json
//! ```

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::Value;

use crate::Members;
use crate::error::Result;

/// How long after an erasure what is left is looked for again, seconds. A request that had begun before may still write; after a minute
/// no process takes a token that it cannot tell to be good.
pub(crate) const AGAIN_S: u64 = 120;

/// What keeps something of members. There is no default: whoever keeps something says how it is forgotten, and how it is given out.
///
/// ```compile_fail,E0046
/// # use kindred_members::{Members, Resource, Result};
/// struct Notes;
///
/// #[async_trait::async_trait]
/// impl Resource for Notes {
///     fn name(&self) -> &'static str {
///         "notes"
///     }
///     // Nothing says how they are erased.
///     async fn export(&self, _: &Members, _: &str) -> Result<serde_json::Value> {
///         Ok(serde_json::Value::Null)
///     }
/// }
/// ```
#[async_trait]
pub trait Resource: Send + Sync {
    /// A stable word of its own: the section of the export, and what an item of the outbox is found by.
    fn name(&self) -> &'static str;

    /// Deletes all that it keeps of a member whose account is emptied. It is done until it has succeeded, and may be done again.
    ///
    /// # Errors
    /// What the store says; it is tried again.
    async fn erase(&self, members: &Members, member: &str) -> Result<()>;

    /// All that it keeps of a member, for the member.
    ///
    /// # Errors
    /// What the store says.
    async fn export(&self, members: &Members, member: &str) -> Result<Value>;
}

/// All resources of a product.
pub type Resources = Vec<&'static dyn Resource>;

impl Members {
    /// With what else keeps something of members.
    ///
    /// # Panics
    /// Where two resources have one name: an erasure would miss one.
    #[must_use]
    pub fn with_resources(self, resources: Resources) -> Self {
        let names: BTreeSet<_> = resources.iter().map(|resource| resource.name()).collect();
        assert_eq!(names.len(), resources.len(), "two resources have one name");
        Self { resources, ..self }
    }

    /// What else keeps something of members.
    pub fn resources(&self) -> &[&'static dyn Resource] {
        &self.resources
    }

    /// The records of resources (`db.rs`), in tables of their own.
    pub fn records(&self) -> crate::Records {
        self.db.of_resources()
    }

    pub(crate) async fn erase_resource(&self, name: &str, member: &str) -> Result<()> {
        let resource = self.resources.iter().find(|resource| resource.name() == name);
        let unknown = || crate::MemberError::Internal(format!("the resource {name} is not known to this version"));
        resource.ok_or_else(unknown)?.erase(self, member).await
    }
}
