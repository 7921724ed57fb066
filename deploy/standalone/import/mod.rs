//! `kindred import`: a shop's files become records in its log, in time order.
//!
//! ```text
//! FILE… ──convert──▶ records in time order ──append under a mark──▶ log ──pipeline──▶ views, durable
//! ```

mod columns;
mod conflicts;
mod convert;
mod credit_notes;
mod input;
mod options;
mod orders;
mod quotes;
mod rejects;
mod run;
#[cfg(test)]
mod tests;
mod text;
mod time_order;
mod values;

pub use convert::{Converted, Input, convert};
pub use credit_notes::CreditNoteReport;
pub use options::{Format, ImportOptions, VERSION_ABSENT, Zone, encoding, shell_word};
pub use rejects::{Origin, Reason, RejectReport, Rejects};
pub use run::run;
pub use time_order::{InOrder, MEMORY_BYTES};
pub use values::time_format;
