//! Resources: data stored beside member accounts, with its endpoints, erasure and export. CONTRIBUTING.md, "Add a resource", has
//! the steps.

use crate::routes::endpoint::Endpoint;

pub(crate) trait Resource: kindred_members::Resource {
    fn endpoints(&self) -> Vec<Endpoint>;
}

pub(crate) type Resources = &'static [&'static dyn Resource];

pub(crate) const RESOURCES: Resources = &[];

pub(crate) fn member_resources(resources: Resources) -> kindred_members::Resources {
    resources.iter().map(|resource| *resource as &dyn kindred_members::Resource).collect()
}
