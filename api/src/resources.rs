//! The resources of the API: what is kept beside the accounts of members, with its endpoints, its erasure and its export.
//!
//! ```text
//! RESOURCES ──endpoints──▶ the table of the API (routes/endpoint.rs)
//!     └──erase, export──▶ kindred_members, which walks all of them
//! ```
//!
//! CONTRIBUTING.md, "Add a resource", is how one is added.

use crate::routes::endpoint::Endpoint;

/// A resource with its endpoints.
pub(crate) trait Resource: kindred_members::Resource {
    /// All of its endpoints.
    fn endpoints(&self) -> Vec<Endpoint>;
}

/// Resources.
pub(crate) type Resources = &'static [&'static dyn Resource];

/// All resources of the product.
pub(crate) const RESOURCES: Resources = &[];

/// The same for the members, who forget with an account what is kept beside it.
pub(crate) fn member_resources(resources: Resources) -> kindred_members::Resources {
    resources.iter().map(|resource| *resource as &dyn kindred_members::Resource).collect()
}
