//! The merged inputs: what the log's records have become, one table a topic. They are tables like any view's, written in the
//! same unit, and what a restart and `verify` derive everything else from.

use super::{Flow, ReadError, Rows, Table, get, scan};
use crate::codec::{Corrupt, KeyCodec, RowCodec, put_signed, take_time};
use crate::ids::{ItemId, MemberId, OrderId, Owner};
use crate::records::{InteractionKey, LedgerKey, MemberKey, MemberRecord};
use crate::units::EventTime;

/// Identities of each raw owner that the cap keeps, hidden ones and retracts among them. It is also the view `histories`.
pub struct Interactions;

/// What one identity holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredInteraction {
    /// The greatest time.
    pub at: EventTime,
    /// Its payload's canonical bytes.
    pub payload: Box<[u8]>,
}

impl RowCodec for StoredInteraction {
    fn encode(&self, out: &mut Vec<u8>) {
        put_signed(out, self.at.0);
        out.extend_from_slice(&self.payload);
    }
    fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let at = take_time(&mut bytes)?;
        Ok(Self { at, payload: bytes.into() })
    }
}

/// The canonical bytes of a merged record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical(pub Box<[u8]>);

impl RowCodec for Canonical {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        Ok(Self(bytes.into()))
    }
}

impl Table for Interactions {
    const NAME: &'static str = "inputs_interactions";
    type Key = (Owner, InteractionKey);
    type Row = StoredInteraction;
}

/// The greatest record of each order.
pub struct Orders;

impl Table for Orders {
    const NAME: &'static str = "inputs_orders";
    type Key = OrderId;
    type Row = Canonical;
}

/// The greatest record of each item.
pub struct Catalog;

impl Table for Catalog {
    const NAME: &'static str = "inputs_catalog";
    type Key = ItemId;
    type Row = Canonical;
}

/// The greatest record of each member and session.
pub struct Members;

impl Table for Members {
    const NAME: &'static str = "inputs_members";
    type Key = MemberKey;
    type Row = Canonical;
}

/// The greatest record of each entry of a ledger, those of erased members left out.
pub struct Ledger;

impl Table for Ledger {
    const NAME: &'static str = "inputs_ledger";
    type Key = LedgerKey;
    type Row = Canonical;
}

impl Members {
    /// The record of a member or session.
    ///
    /// # Errors
    /// What reading says.
    pub fn read(rows: &dyn Rows, key: &MemberKey) -> Result<Option<MemberRecord>, ReadError> {
        get::<Self>(rows, key)?.map(|record| decoded(&record)).transpose()
    }

    /// Every record, in the order of keys.
    ///
    /// # Errors
    /// What reading says.
    pub fn scan(rows: &dyn Rows, mut visit: impl FnMut(MemberRecord)) -> Result<(), ReadError> {
        scan::<Self, _>(rows, &[], |_, record| decoded(&record).map(&mut visit))
    }
}

/// Whether anything is known of a member: a record, an interaction, an order, a session, an invitee.
///
/// # Errors
/// What reading says.
pub fn knows(rows: &dyn Rows, member: &MemberId) -> Result<bool, ReadError> {
    let owner = Owner::Member(member.clone());
    if get::<Members>(rows, &owner)?.is_some() {
        return Ok(true);
    }
    let mut found = false;
    rows.scan(Interactions::NAME, &owner.to_bytes(), &mut |_, _| {
        found = true;
        Flow::Break(Ok(()))
    })?;
    // What names a member beside its keys is looked through; whoever is known seldom comes so far.
    let name = serde_json::to_vec(member).unwrap_or_default();
    for table in [Orders::NAME, Members::NAME, Ledger::NAME] {
        if found {
            break;
        }
        rows.scan(table, &[], &mut |_, row| {
            found = row.windows(name.len()).any(|part| part == name) && names(row, member);
            if found { Flow::Break(Ok(())) } else { Flow::Continue(()) }
        })?;
    }
    Ok(found)
}

/// Whether a canonical record names a member.
fn names(row: &[u8], member: &MemberId) -> bool {
    let record: serde_json::Value = serde_json::from_slice(row).unwrap_or_default();
    ["member", "invited_by", "merged_into"].iter().any(|field| record[field] == member.as_str())
}

fn decoded(Canonical(bytes): &Canonical) -> Result<MemberRecord, ReadError> {
    MemberRecord::decode(bytes).map_err(|_| Corrupt("a member record that does not decode").into())
}
