//! `ledger`: entries of members' ledgers (LOYALTY 1). Natural key: (member, entry). Merge: greatest canonical bytes; a record
//! `{member, erased: true}` hides all entries of the member. Written by Kindred only.

use serde::Serialize;

use super::{Invalid, from_json, plain, record, text, within};
use crate::ids::{EntryId, MemberId, OrderId};
use crate::units::{Day, EventTime, LedgerKind};

/// The natural key: member and entry; the empty entry is the erasure.
pub type LedgerKey = (MemberId, EntryId);

/// Maximum amount of an entry, in points or minor units.
const AMOUNT_MAX: i64 = 10_000_000_000_000;
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

record! {
    /// One entry.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct LedgerEntry, raw Raw {
        /// The member whose ledger it belongs to.
        member: MemberId,
        /// The entry.
        entry: EntryId,
        /// What it does.
        kind: LedgerKind,
        /// Points; negative only for an adjustment. Absent for wallet entries.
        points: Option<i64> = amount(kind),
        /// Money in minor units; negative only for an adjustment. Absent for point entries.
        amount_minor: Option<i64> = amount(kind),
        /// The order it is about.
        order: Option<OrderId>,
        /// The entry it returns, wholly or in part.
        refers_to: Option<EntryId>,
        /// The first day on which a positive adjustment of points no longer counts; absent means never.
        expires_on: Option<Day>,
        /// The reason, for people.
        reason: Option<Box<str>> = text(REASON_BYTES_MAX),
        /// When; later than the member's previous entry.
        at: EventTime,
    }
    beside {
        erased: bool,
    }
    => LedgerEntry::checked
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

/// An entry's amount: not zero, and negative only for an adjustment.
fn amount(kind: LedgerKind) -> impl Fn(&str, i64) -> Result<i64, Invalid> {
    let least = if kind.is_adjustment() { -AMOUNT_MAX } else { 1 };
    move |field, value| match within(least..=AMOUNT_MAX)(field, value)? {
        0 => Err(Invalid::new(field, "must not be 0")),
        value => Ok(value),
    }
}

impl LedgerEntry {
    fn checked(mut self) -> Result<Self, Invalid> {
        let kind = self.kind;
        let amounts = [("points", self.points, !kind.is_of_wallet()), ("amount_minor", self.amount_minor, kind.is_of_wallet())];
        for (field, amount, belongs) in amounts {
            match amount {
                Some(_) if !belongs => {
                    return Err(Invalid::new(field, format!("does not belong to an entry of kind {kind}")));
                }
                None if belongs => return Err(Invalid::required(field)),
                _ => {}
            }
        }
        if self.refers_to.is_none() && kind == LedgerKind::Return {
            return Err(Invalid::new("refers_to", "is required: a return is of a spend or of a negative adjustment"));
        }
        if self.expires_on.is_some() && (kind != LedgerKind::Adjust || self.points.unwrap_or(0) < 0) {
            return Err(Invalid::new("expires_on", "belongs to a positive adjustment of points only"));
        }
        self.reason = self.reason.filter(|reason| !reason.trim().is_empty());
        if self.reason.is_none() && kind.is_adjustment() {
            return Err(Invalid::new("reason", "is required of an adjustment"));
        }
        Ok(self)
    }
}

impl LedgerRecord {
    /// Decodes and validates one JSON object. An erasure keeps the member only.
    ///
    /// # Errors
    /// [`Invalid`] with the field and the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let raw: Raw = from_json(bytes)?;
        if raw.erased == Some(true) {
            return Ok(Self::Erased { member: plain("member", raw.member)?, erased: true });
        }
        Ok(Self::Entry(Box::new(LedgerEntry::of(raw)?)))
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
