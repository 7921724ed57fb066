//! What is kept of members beside their accounts: each part of the product that keeps something declares what becomes of it. Sessions,
//! claims, codes and entries of the index are no resources: only the transaction that empties the account still knows their names, and
//! raises the epoch by which sessions end. Entries of the audit log expire.
//!
//! ```text
//! account emptied ──outbox, one item a resource──▶ erase, and once more when no token of the member is taken any more
//! export ──────────each resource──▶ a section of account.json
//! ```

use std::collections::BTreeSet;

use async_trait::async_trait;
use kindred_model::units::EventTime;
use kindred_store::records::Step;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Members;
use crate::db::ms;
use crate::error::{MemberError, Result};
use crate::outbox::Work;

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

    /// Does a job that [`Members::transact`] has left in a partition. It is done until it has succeeded, and may be done again.
    ///
    /// # Errors
    /// A job that it does not know; whatever keeps one from being done. It is tried again.
    async fn perform(&self, _members: &Members, _partition: &str, job: &str, _payload: &Value) -> Result<()> {
        Err(MemberError::Internal(format!("the resource {} of this version has no job {job}", self.name())))
    }
}

/// Work that follows from a resource's transaction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// [`Resource::name`].
    pub resource: String,
    /// A stable word of the resource's own.
    pub job: String,
    /// What it is done with.
    pub payload: Value,
    /// It is not done before then.
    #[serde(with = "ms::option")]
    pub not_before: Option<EventTime>,
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
        self.core.db.of_resources()
    }

    /// Takes the steps of a resource in one of its partitions, and leaves jobs that [`Resource::perform`] does once they are taken; false
    /// on a conflict. Until they are done the jobs lie in the partition, under sort keys that begin with `outbox/`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn transact(&self, table: &str, partition: &str, steps: Vec<Step>, jobs: Vec<Job>) -> Result<bool> {
        let works = jobs.into_iter().map(Work::Job).collect();
        self.core.outbox.transact(&self.records().table(table), partition, steps, works, None).await
    }

    pub(crate) fn resource(&self, name: &str) -> Result<&'static dyn Resource> {
        let resource = self.resources.iter().find(|resource| resource.name() == name);
        resource.copied().ok_or_else(|| MemberError::Internal(format!("the resource {name} is not known to this version")))
    }
}
