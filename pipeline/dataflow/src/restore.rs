//! Restore: the merged inputs of the store as updates, for epoch 0 of a restart.

use std::ops::ControlFlow;

use kindred_model::codec::{Corrupt, KeyCodec, RowCodec};
use kindred_model::intern::{Item, Party};
use kindred_model::records::{CatalogRecord, InteractionKey, Invalid, LedgerRecord, MemberRecord, OrderRecord, Subject};
use kindred_model::views::inputs::{Catalog, Interactions, Ledger, Members, Orders, StoredInteraction};
use kindred_model::views::{ReadError, Rows, Table};
use kindred_model::{Owner, Semantics};

use crate::update::{InteractionUpdate, SubjectKey, Update};

/// The epoch that restores the state; empty without any.
pub const RESTORED: u64 = 0;

/// Reads the five tables of merged inputs and emits each row as the update that yields it. Fed to an empty dataflow, these
/// rebuild the state, tables and views. `part` (index, count) is what this process reads: see [`Rows::scan_part`].
///
/// # Errors
/// Those of reading; [`ReadError::Corrupt`] when a row does not decode.
pub fn restore(
    rows: &dyn Rows,
    part: (usize, usize),
    semantics: &Semantics,
    each: &mut dyn FnMut(Update),
) -> Result<(), ReadError> {
    // Members first, so that identities without an owner never become facts.
    records::<Members>(rows, part, |bytes| Ok(Update::Member(Box::new(MemberRecord::decode(bytes)?))), each)?;
    records::<Ledger>(rows, part, |bytes| Ok(Update::Ledger(Box::new(LedgerRecord::decode(bytes)?))), each)?;
    records::<Catalog>(rows, part, |bytes| Ok(Update::Catalog(Box::new(CatalogRecord::decode(bytes)?))), each)?;
    let rules = semantics.rules();
    records::<Orders>(rows, part, |bytes| Ok(Update::Order(Box::new(OrderRecord::decode(bytes, &rules)?))), each)?;
    // Rows come owner by owner: intern each once.
    let mut last: Option<(Owner, Party)> = None;
    let (part, of) = part;
    rows.scan_part(Interactions::NAME, part, of, &mut |key, row| {
        let decoded = <(Owner, InteractionKey)>::from_bytes(key).and_then(|key| Ok((key, StoredInteraction::decode(row)?)));
        let ((owner, key), row) = match decoded {
            Ok(decoded) => decoded,
            Err(corrupt) => return ControlFlow::Break(Err(corrupt.into())),
        };
        let party = match &last {
            Some((known, party)) if *known == owner => *party,
            _ => {
                let party = Party::intern(&owner);
                last = Some((owner, party));
                party
            }
        };
        each(Update::Interaction(InteractionUpdate {
            party,
            subject: match key.subject {
                Subject::Item(item) => SubjectKey::Item(Item::intern(item.as_str())),
                Subject::Query(query) => SubjectKey::Query(query),
            },
            kind: key.kind.code(),
            retract: key.day.is_none(),
            at: row.at.0,
            scenario: key.scenario,
            payload: row.payload,
        }));
        ControlFlow::Continue(())
    })
}

fn records<T: Table>(
    rows: &dyn Rows,
    (part, of): (usize, usize),
    decode: impl Fn(&[u8]) -> Result<Update, Invalid>,
    each: &mut dyn FnMut(Update),
) -> Result<(), ReadError> {
    rows.scan_part(T::NAME, part, of, &mut |_key, row| match decode(row) {
        Ok(update) => {
            each(update);
            ControlFlow::Continue(())
        }
        Err(_) => ControlFlow::Break(Err(Corrupt("a merged record that is not valid").into())),
    })
}
