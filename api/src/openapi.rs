//! The contract (OpenAPI 3.1) as served at `/openapi.json`. Tests generate schemas/openapi.json from the endpoints and compare
//! them with it.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod parameters;
#[cfg(test)]
mod records;

#[cfg(test)]
pub(crate) use generated::describes;

/// The contract as JSON.
pub const TEXT: &str = include_str!("../../schemas/openapi.json");
