//! The pure core: identities, units, the five records and their merges, the similarity measure, the rules of points, and the
//! declaration of every view. No clock, no I/O, no threads; each rule and number is defined once.

pub mod calendar;
pub mod codec;
pub mod ids;
pub mod intern;
pub mod loyalty;
pub mod merge;
pub mod records;
pub mod settings;
pub mod similarity;
pub mod units;
pub mod views;

pub use ids::{EntryId, ItemId, MemberId, OrderId, Owner, SessionId};
pub use records::{Invalid, Record};
pub use settings::Semantics;
pub use units::{Day, EventTime, Kind, LedgerKind, Position, Tier, Topic};
