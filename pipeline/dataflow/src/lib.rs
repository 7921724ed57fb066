//! The dataflow: merged inputs and views, maintained under additions and removals. Only this crate, the pipeline's worker and the
//! operator bench name timely or differential.
//!
//! ```text
//! Update ─▶ merge (by natural key) ─▶ collections ─▶ one `Maintained` a view ─▶ Output ─▶ sink
//! ```
//!
//! The dataflow is pure: no clock, no I/O, no panics on data.

pub mod baskets;
pub mod build;
pub mod collections;
pub mod facts;
pub mod invariant;
pub mod links;
pub mod merge;
pub mod output;
pub mod reference;
pub mod restore;
pub mod similar;
pub mod update;

macro_rules! modules {
    ($($module:ident: $View:ident,)+) => { $(pub mod $module;)+ };
}

kindred_model::for_each_view!(modules);

pub use build::{Dataflow, build};
pub use restore::restore;
