//! The contract: OpenAPI 3.1, served at `/openapi.json`. It stands in schemas/openapi.json, which the tests generate from the endpoints and
//! hold together with them; what runs serves that file.

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
