//! The merged inputs: the log's records merged, one table per topic. Written in the same unit as the views; a restart and
//! `verify` derive everything else from them.

use super::{Flow, ReadError, Rows, Table, TableInfo, get, scan};
use crate::codec::{Corrupt, KeyCodec, RowCodec, put_signed, take_time};
use crate::ids::{ItemId, MemberId, OrderId, Owner};
use crate::records::{InteractionKey, LedgerKey, MemberKey, MemberRecord};
use crate::units::EventTime;

/// The value of an identity.
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

macro_rules! inputs {
    ($($(#[$doc:meta])* $Table:ident $name:literal: $Key:ty => $Row:ty;)+) => {
        $(
            $(#[$doc])*
            pub struct $Table;

            impl Table for $Table {
                const NAME: &'static str = $name;
                type Key = $Key;
                type Row = $Row;
            }
        )+

        /// Every table of merged inputs.
        pub fn input_tables() -> Vec<TableInfo> {
            vec![$(TableInfo::of::<$Table>()),+]
        }
    };
}

inputs! {
    /// A raw owner's identities below the cap, hidden ones and retracts included. The view `histories` reads it.
    Interactions "inputs_interactions": (Owner, InteractionKey) => StoredInteraction;
    /// The greatest record of each order.
    Orders "inputs_orders": OrderId => Canonical;
    /// The greatest record of each item.
    Catalog "inputs_catalog": ItemId => Canonical;
    /// The merged record of each member and session.
    Members "inputs_members": MemberKey => Canonical;
    /// The merged record of each ledger entry, without erased members'.
    Ledger "inputs_ledger": LedgerKey => Canonical;
}

impl Members {
    /// The record of a member or session.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(rows: &dyn Rows, key: &MemberKey) -> Result<Option<MemberRecord>, ReadError> {
        get::<Self>(rows, key)?.map(|record| decoded(&record)).transpose()
    }

    /// Every record, in the order of keys.
    ///
    /// # Errors
    /// Those of reading.
    pub fn scan(rows: &dyn Rows, mut visit: impl FnMut(MemberRecord)) -> Result<(), ReadError> {
        scan::<Self, _>(rows, &[], |_, record| decoded(&record).map(&mut visit))
    }
}

/// Whether a member is known: from a record, an interaction, an order, a session or an invitee.
///
/// # Errors
/// Those of reading.
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
    // The slow path: search records for the name. Most known members are found by key before.
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
