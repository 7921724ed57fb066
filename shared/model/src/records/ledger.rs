//! `ledger`: entries of members' ledgers (LOYALTY 1). Natural key: (member, entry). Merge: greatest canonical bytes; a record
//! `{member, erased: true}` hides all entries of the member. Written by Kindred only.

use serde::{Deserialize, Serialize};

use super::{Invalid, Text, bounded, from_json, required, text, word};
use crate::ids::{EntryId, MemberId, OrderId};
use crate::units::{Day, EventTime, LedgerKind};

/// The natural key: member and entry; the empty entry is the erasure.
pub type LedgerKey = (MemberId, EntryId);

/// Maximum amount of an entry, in points or minor units.
const AMOUNT_MAX: i64 = 10_000_000_000_000;
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LedgerEntry {
    /// The member whose ledger it belongs to.
    pub member: MemberId,
    /// The entry.
    pub entry: EntryId,
    /// What it does.
    pub kind: LedgerKind,
    /// Points; negative only for an adjustment. Absent for wallet entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<i64>,
    /// Money in minor units; negative only for an adjustment. Absent for point entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    /// The order it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// The entry it returns, wholly or in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refers_to: Option<EntryId>,
    /// The first day on which a positive adjustment of points no longer counts; absent means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<Day>,
    /// The reason, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// When; later than the member's previous entry.
    pub at: EventTime,
}

/// A record of `ledger`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum LedgerRecord {
    /// An entry.
    Entry(Box<LedgerEntry>),
    /// Erases all entries of the member, for good.
    Erased {
        /// The member.
        member: MemberId,
        /// True.
        erased: bool,
    },
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    member: Option<Text<'a>>,
    #[serde(borrow)]
    entry: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    points: Option<i64>,
    amount_minor: Option<i64>,
    #[serde(borrow)]
    order: Option<Text<'a>>,
    #[serde(borrow)]
    refers_to: Option<Text<'a>>,
    #[serde(borrow)]
    expires_on: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    at: Option<Text<'a>>,
    erased: Option<bool>,
}

/// An entry's amount: required where it belongs and refused elsewhere; not zero, and negative only for an adjustment.
fn moved(field: &str, value: Option<i64>, belongs: bool, kind: LedgerKind) -> Result<Option<i64>, Invalid> {
    if !belongs {
        let other = || Invalid::new(field, format!("does not belong to an entry of kind {kind}"));
        return value.map_or(Ok(None), |_| Err(other()));
    }
    let least = if kind.is_adjustment() { -AMOUNT_MAX } else { 1 };
    match bounded(field, required(field, value)?, least, AMOUNT_MAX)? {
        0 => Err(Invalid::new(field, "must not be 0")),
        value => Ok(Some(value)),
    }
}

fn entry_id(field: &str, value: &str) -> Result<EntryId, Invalid> {
    EntryId::parse(value).map_err(|error| Invalid::new(field, error.reason))
}

impl LedgerRecord {
    /// Decodes and validates one JSON object. An erasure keeps the member only.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: Raw = from_json(bytes)?;
        let member = MemberId::parse(&required("member", raw.member)?)?;
        if raw.erased.unwrap_or(false) {
            return Ok(Self::Erased { member, erased: true });
        }
        let entry = entry_id("entry", &required("entry", raw.entry)?)?;
        let kind: LedgerKind = word("kind", &required("kind", raw.kind)?)?;
        let points = moved("points", raw.points, !kind.is_of_wallet(), kind)?;
        let amount_minor = moved("amount_minor", raw.amount_minor, kind.is_of_wallet(), kind)?;
        let refers_to = raw.refers_to.map(|entry| entry_id("refers_to", &entry)).transpose()?;
        if refers_to.is_none() && kind == LedgerKind::Return {
            return Err(Invalid::new("refers_to", "is required: a return is of a spend or of a negative adjustment"));
        }
        let expires_on: Option<Day> = raw
            .expires_on
            .map(|day| day.parse().map_err(|error: Invalid| Invalid::new("expires_on", error.reason)))
            .transpose()?;
        if expires_on.is_some() && (kind != LedgerKind::Adjust || points.unwrap_or(0) < 0) {
            return Err(Invalid::new("expires_on", "belongs to a positive adjustment of points only"));
        }
        let reason = text("reason", raw.reason, REASON_BYTES_MAX)?.filter(|reason| !reason.trim().is_empty());
        if reason.is_none() && kind.is_adjustment() {
            return Err(Invalid::new("reason", "is required of an adjustment"));
        }
        Ok(Self::Entry(Box::new(LedgerEntry {
            member,
            entry,
            kind,
            points,
            amount_minor,
            order: raw.order.map(|order| OrderId::parse(&order)).transpose()?,
            refers_to,
            expires_on,
            reason,
            at: EventTime::parse("at", &required("at", raw.at)?)?,
        })))
    }

    /// The natural key.
    pub fn key(&self) -> LedgerKey {
        match self {
            Self::Entry(entry) => (entry.member.clone(), entry.entry.clone()),
            Self::Erased { member, .. } => (member.clone(), EntryId::NONE),
        }
    }

    /// The member.
    pub fn member(&self) -> &MemberId {
        match self {
            Self::Entry(entry) => &entry.member,
            Self::Erased { member, .. } => member,
        }
    }

    /// Whether it erases the member's entries.
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Erased { .. })
    }

    /// The frozen encoding (version 1): JSON with the fields in the order of the schema, absent ones left out.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a ledger record serialises")
    }
}
