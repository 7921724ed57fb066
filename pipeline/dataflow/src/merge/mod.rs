//! Merging: records in any order, as often as they come, become the merged inputs (DESIGN, rule 1).
//!
//! Operators of our own, keyed by natural key. Each gives the rows of its table that changed, and the facts that came and went,
//! net of the epoch.

pub mod interactions;
pub mod ledger;
pub(crate) mod owner;
pub(crate) mod subject;
pub mod versioned;
