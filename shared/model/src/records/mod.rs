//! The five records of the log, and how each merges (schemas/README.md).
//!
//! ```text
//! bytes ──decode──▶ record ──merge by natural key──▶ the merged input ──canonical──▶ bytes of its table
//! ```
//!
//! Merging is a join-semilattice on a natural key: idempotent, commutative, associative. That is the first of the four rules that
//! make results a function of the set of events.

mod catalog;
mod field;
mod interaction;
mod json;
mod ledger;
mod member;
mod order;

use std::fmt;

pub use catalog::{CatalogRecord, ItemKind, Visibility};
pub(crate) use field::{Field, Plain, as_given, fields, parsed, plain, record, text, within};
pub use interaction::{Interaction, InteractionKey, Payload, SCENARIO, Subject, normalise_query};
pub(crate) use json::{Object, Text, from_json};
pub use ledger::{LedgerEntry, LedgerKey, LedgerRecord};
pub use member::{MemberKey, MemberRecord, MemberState, Membership};
pub use order::{
    DISCOUNTS_MAX, Discount, LINES_MAX, Line, OrderRecord, OrderStatus, PRICE_MINOR_MAX, QUANTITY_MAX, REFUNDS_MAX, Refund,
    TOTAL_MINOR_MAX,
};

use crate::ids::MemberId;
use crate::units::Topic;

/// Maximum record size in bytes of JSON. An order of 5,000 lines fits with 200 bytes a line.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Lower bound on the bytes that marking an order as erased adds.
const ERASED_BYTES: usize = 64;

/// Why a record or a value is invalid, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The field, as a path like `lines[2].quantity`; empty for the record as a whole.
    pub field: String,
    /// What is wrong: a fragment that follows the field.
    pub reason: String,
}

/// Reasons are kept with rejected records; longer ones are cut in the middle.
const REASON_BYTES_MAX: usize = 512;
/// Maximum characters of a quoted value.
const QUOTED_CHARS_MAX: usize = 80;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for Invalid {}

/// Cuts long quoted values, in quotes or serde's backquotes.
fn cut_quoted(reason: &str) -> String {
    let mut cut = String::with_capacity(reason.len());
    let (mut within, mut chars, mut escaped) = (None, 0_usize, false);
    for c in reason.chars() {
        match within {
            None => {
                within = Some(c).filter(|c| matches!(c, '"' | '`'));
                chars = 0;
            }
            Some(quote) if c == quote && !escaped => within = None,
            Some(_) => {
                chars += 1;
                escaped = c == '\\' && !escaped;
                if chars == QUOTED_CHARS_MAX + 1 {
                    cut.push('…');
                }
                if chars > QUOTED_CHARS_MAX {
                    continue;
                }
            }
        }
        cut.push(c);
    }
    cut
}

impl Invalid {
    /// An error about one field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > QUOTED_CHARS_MAX {
            reason = cut_quoted(&reason);
        }
        if reason.len() > REASON_BYTES_MAX {
            // The end often says what is accepted.
            let (mut from, mut to) = (REASON_BYTES_MAX / 2, reason.len() - REASON_BYTES_MAX / 2 + '…'.len_utf8());
            while !reason.is_char_boundary(from) {
                from -= 1;
            }
            while !reason.is_char_boundary(to) {
                to += 1;
            }
            reason.replace_range(from..to, "…");
        }
        Self { field: field.into(), reason }
    }

    /// An error about a missing field.
    pub(crate) fn required(field: &str) -> Self {
        Self::new(field, "is required")
    }

    /// The same error with its field below `parent`.
    #[must_use]
    pub fn within(mut self, parent: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() { parent.to_string() } else { format!("{parent}.{}", self.field) };
        self
    }

    /// The field as a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        for part in self.field.split(['.', '[']).filter(|part| !part.is_empty()) {
            pointer.push('/');
            pointer.push_str(&part.trim_end_matches(']').replace('~', "~0").replace('/', "~1"));
        }
        pointer
    }
}

/// The settings that decoding depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `shop.currency`: the one currency of the installation, ISO 4217.
    pub currency: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self { currency: "EUR".to_owned() }
    }
}

/// One of the five records, decoded and valid.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// From `interactions`.
    Interaction(Interaction),
    /// From `orders`.
    Order(OrderRecord),
    /// From `catalog`.
    Catalog(CatalogRecord),
    /// From `members`.
    Member(MemberRecord),
    /// From `ledger`.
    Ledger(LedgerRecord),
}

impl Record {
    /// Decodes and validates one JSON object of a topic. Unknown fields are dropped, `null` means absent.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(topic: Topic, bytes: &[u8], rules: &Rules) -> Result<Self, Invalid> {
        let record = match topic {
            Topic::Interactions => Self::Interaction(Interaction::decode(bytes)?),
            Topic::Orders => Self::Order(OrderRecord::decode(bytes, rules)?),
            Topic::Catalog => Self::Catalog(CatalogRecord::decode(bytes)?),
            Topic::Members => Self::Member(MemberRecord::decode(bytes)?),
            Topic::Ledger => Self::Ledger(LedgerRecord::decode(bytes)?),
        };
        // Full-form times lengthen a record less than twofold, so only large ones need measuring.
        if bytes.len() > RECORD_BYTES_MAX / 2 {
            record.check_written()?;
        }
        Ok(record)
    }

    /// Checks that the record decodes again from the merged input, for an order also once it is marked `erased`.
    fn check_written(&self) -> Result<(), Invalid> {
        let may_grow = matches!(self, Self::Order(order) if !order.erased);
        let max = if may_grow { RECORD_BYTES_MAX - ERASED_BYTES } else { RECORD_BYTES_MAX };
        let bytes = self.to_json().len();
        if bytes > max {
            return Err(Invalid::new("", format!("the record has {bytes} bytes in full form; at most {max} are accepted")));
        }
        Ok(())
    }

    /// The topic it belongs to.
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Interaction(_) => Topic::Interactions,
            Self::Order(_) => Topic::Orders,
            Self::Catalog(_) => Topic::Catalog,
            Self::Member(_) => Topic::Members,
            Self::Ledger(_) => Topic::Ledger,
        }
    }

    /// The record as JSON with its fields in the order of the schema, absent ones left out, as in the log.
    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Interaction(record) => record.to_json(),
            Self::Order(record) => record.canonical(),
            Self::Catalog(record) => record.canonical(),
            Self::Member(record) => record.canonical(),
            Self::Ledger(record) => record.canonical(),
        }
    }

    /// The table and key of its merged input, for the versioned records.
    pub fn versioned_row(&self) -> Option<(&'static str, Vec<u8>)> {
        use crate::codec::KeyCodec;
        use crate::views::{Table, inputs};
        match self {
            Self::Interaction(_) => None,
            Self::Order(record) => Some((inputs::Orders::NAME, record.order.to_bytes())),
            Self::Catalog(record) => Some((inputs::Catalog::NAME, record.item.to_bytes())),
            Self::Member(record) => Some((inputs::Members::NAME, record.key().to_bytes())),
            Self::Ledger(record) => Some((inputs::Ledger::NAME, record.key().to_bytes())),
        }
    }

    /// Refuses a record about an invalid member id ([`MemberId::check_named`]).
    ///
    /// # Errors
    /// [`Invalid`] naming the field.
    pub fn check_members(&self) -> Result<(), Invalid> {
        let named: Vec<(&str, Option<&MemberId>)> = match self {
            Self::Interaction(record) => vec![("member", record.owner.member())],
            Self::Order(record) => vec![("member", record.member.as_ref())],
            Self::Catalog(_) => Vec::new(),
            Self::Member(MemberRecord::Member(record)) => {
                vec![("member", Some(&record.member)), ("invited_by", record.invited_by.as_ref())]
            }
            Self::Member(MemberRecord::Session { merged_into, .. }) => vec![("merged_into", Some(merged_into))],
            Self::Ledger(record) => vec![("member", Some(record.member()))],
        };
        for (field, member) in named {
            if let Some(member) = member {
                member.clone().check_named().map_err(|error| Invalid::new(field, error.reason))?;
            }
        }
        Ok(())
    }

    /// Its version, if it has one and does not erase: an erasure wins whatever its version.
    pub fn version(&self) -> Option<u64> {
        match self {
            Self::Interaction(_) | Self::Ledger(_) => None,
            Self::Order(record) => Some(record.version).filter(|_| !record.erased),
            Self::Catalog(record) => Some(record.version),
            Self::Member(record) => Some(record.version()).filter(|_| !record.is_erased()),
        }
    }

    /// Its subject: the order, the item, the member or the session.
    pub fn subject(&self) -> &str {
        match self {
            Self::Interaction(record) => record.owner.id(),
            Self::Order(record) => record.order.as_str(),
            Self::Catalog(record) => record.item.as_str(),
            Self::Member(MemberRecord::Member(membership)) => membership.member.as_str(),
            Self::Member(MemberRecord::Session { session, .. }) => session.as_str(),
            Self::Ledger(LedgerRecord::Entry(entry)) => entry.entry.as_str(),
            Self::Ledger(LedgerRecord::Erased { member, .. }) => member.as_str(),
        }
    }

    /// Whether two records of one subject are in conflict, two contents under one version: a producer's mistake, because the
    /// later one does not necessarily win.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.version().is_some() && self.version() == other.version() && self.to_json() != other.to_json()
    }

    /// Its time, if it has one: an import appends in this order.
    pub fn time(&self) -> Option<crate::units::EventTime> {
        match self {
            Self::Interaction(record) => Some(record.at),
            Self::Order(record) => Some(record.placed_at),
            Self::Catalog(record) => record.listed_at,
            Self::Member(record) => record.time(),
            Self::Ledger(LedgerRecord::Entry(entry)) => Some(entry.at),
            Self::Ledger(LedgerRecord::Erased { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a message would quote personal data at length, or a whole file.
    #[test]
    fn a_reason_quotes_no_long_value() {
        let long = "é\"x".repeat(1_000);
        for reason in [format!("{long:?} is no time"), format!("unknown word `{}`, expected `a`", "y".repeat(300))] {
            let cut = Invalid::new("at", reason).reason;
            assert!(cut.chars().count() < QUOTED_CHARS_MAX + 40, "{cut}");
            assert!(cut.ends_with(" is no time") || cut.ends_with("`, expected `a`"), "{cut}");
        }
        assert_eq!(Invalid::new("at", format!("{:?} is no time", "x".repeat(80))).reason.chars().count(), 93);
        assert_eq!(Invalid::new("", "is not whole").to_string(), "is not whole");
        assert_eq!(Invalid::new("at", "is not whole").to_string(), "at: is not whole");
    }

    /// If this failed, an order that fits only as its producer wrote it would be accepted, and be unreadable in the store.
    #[test]
    fn what_is_accepted_reads_back_from_its_full_form() {
        let order = |padding: usize| {
            let refund = |n: usize| {
                format!(r#"{{"refund":"{n:0padding$}","at":"2026-01-05T10:00:00Z","line":1,"quantity":1,"amount_minor":1}}"#)
            };
            let refunds: Vec<String> = (0..9_000).map(refund).collect();
            let line = r#"{"line":1,"item":"i","quantity":9000,"unit_price_minor":1}"#;
            format!(
                r#"{{"order":"o","version":1,"status":"paid","member":"m","placed_at":"2026-01-05T10:00:00Z","currency":"EUR","lines":[{line}],"refunds":[{}]}}"#,
                refunds.join(",")
            )
        };
        let (mut accepted, mut refused) = (0, 0);
        for padding in (28..36).step_by(2) {
            let json = order(padding);
            assert!(json.len() < RECORD_BYTES_MAX);
            let record = match Record::decode(Topic::Orders, json.as_bytes(), &Rules::default()) {
                Ok(record) => record,
                Err(error) => {
                    assert!(error.reason.contains("in full form"), "{error}");
                    refused += 1;
                    continue;
                }
            };
            accepted += 1;
            let again = Record::decode(Topic::Orders, &record.to_json(), &Rules::default());
            assert_eq!(again.as_ref(), Ok(&record));
            let Record::Order(mut order) = record else { unreachable!("an order") };
            (order.member, order.erased) = (None, true);
            let erased = Record::Order(order);
            assert_eq!(Record::decode(Topic::Orders, &erased.to_json(), &Rules::default()).as_ref(), Ok(&erased));
        }
        assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
    }
}
