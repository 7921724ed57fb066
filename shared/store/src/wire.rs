//! Units as bytes, for processes that hear of each other's writes through the log.
//!
//! ```text
//! sink ──EpochChanges──encode──▶ bytes (a topic) ──decode──EpochChanges──▶ the API's memory
//! ```
//!
//! Version 1: the byte 1, the epoch, the position, the names of the tables, then each change as table, key and row. Numbers are
//! variable-length, texts and bytes stand behind their length; a row's length is one more than it has bytes, and 0 deletes. What
//! is decoded comes from outside: lengths are checked against what is there before anything is reserved for them.

use kindred_model::codec::{Corrupt, put_varint, take, take_varint};
use kindred_model::views::{input_tables, view_tables};
use kindred_model::{Position, Topic};

use crate::{Change, EpochChanges};

const VERSION: u8 = 1;

impl EpochChanges {
    /// The unit as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.changes.iter().map(|change| change.key.len() + change.row.as_ref().map_or(0, Vec::len) + 6).sum();
        let mut out = Vec::with_capacity(bytes + 128);
        out.push(VERSION);
        put_varint(&mut out, self.epoch);
        encode_position(&self.position, &mut out);
        let mut tables: Vec<&'static str> = self.changes.iter().map(|change| change.table).collect();
        tables.sort_unstable();
        tables.dedup();
        put_length(&mut out, tables.len());
        for table in &tables {
            put_bytes(&mut out, table.as_bytes());
        }
        put_length(&mut out, self.changes.len());
        for change in self.changes.iter() {
            put_length(&mut out, tables.binary_search(&change.table).expect("every table is listed"));
            put_bytes(&mut out, &change.key);
            match &change.row {
                None => put_varint(&mut out, 0),
                Some(row) => {
                    put_length(&mut out, row.len() + 1);
                    out.extend_from_slice(row);
                }
            }
        }
        out
    }

    /// Reads a unit back.
    ///
    /// # Errors
    /// [`Corrupt`] for bytes that are none, of another version, or of a table that this version does not have.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Corrupt> {
        let bytes = &mut bytes;
        if take::<1>(bytes)? != [VERSION] {
            return Err(Corrupt("changes of an unknown version"));
        }
        let epoch = take_varint(bytes)?;
        let position = decode_position(bytes)?;
        let known: Vec<&'static str> = input_tables().into_iter().chain(view_tables()).map(|table| table.name).collect();
        let mut tables = Vec::new();
        for _ in 0..take_length(bytes)? {
            let name = take_bytes(bytes)?;
            let table = known.iter().find(|table| table.as_bytes() == name);
            tables.push(*table.ok_or(Corrupt("changes of an unknown table"))?);
        }
        let count = take_length(bytes)?;
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            let table = usize::try_from(take_varint(bytes)?).ok().and_then(|n| tables.get(n).copied());
            let table = table.ok_or(Corrupt("a change of a table that is not listed"))?;
            let key = take_bytes(bytes)?.to_vec();
            let row = match take_varint(bytes)?.checked_sub(1) {
                None => None,
                Some(length) => Some(take_exactly(bytes, length)?.to_vec()),
            };
            changes.push(Change { table, key, row });
        }
        if bytes.is_empty() {
            Ok(Self { epoch, position, changes: changes.into() })
        } else {
            Err(Corrupt("changes with bytes left over"))
        }
    }
}

/// Appends a position. The text of one is no promise, so its parts are written.
pub(crate) fn encode_position(position: &Position, out: &mut Vec<u8>) {
    let parts: Vec<(Topic, u32, u64)> = position.partitions().collect();
    put_length(out, parts.len());
    for (topic, partition, next) in parts {
        out.push(topic.code());
        put_varint(out, u64::from(partition));
        put_varint(out, next);
    }
}

/// Reads a position.
pub(crate) fn decode_position(bytes: &mut &[u8]) -> Result<Position, Corrupt> {
    let mut position = Position::beginning();
    for _ in 0..take_length(bytes)? {
        let [code] = take(bytes)?;
        let topic = Topic::from_code(code).ok_or(Corrupt("an unknown topic"))?;
        let partition = u32::try_from(take_varint(bytes)?).map_err(|_| Corrupt("a partition out of range"))?;
        if let Some(last) = take_varint(bytes)?.checked_sub(1) {
            position.passed(topic, partition, last);
        }
    }
    Ok(position)
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, length as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A number of things that follow, each of at least a byte.
fn take_length(bytes: &mut &[u8]) -> Result<usize, Corrupt> {
    let length = usize::try_from(take_varint(bytes)?).ok().filter(|&length| length <= bytes.len());
    length.ok_or(Corrupt("a length beyond the end"))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Corrupt> {
    let length = take_varint(bytes)?;
    take_exactly(bytes, length)
}

fn take_exactly<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], Corrupt> {
    let length = usize::try_from(length).map_err(|_| Corrupt("a length beyond the end"))?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Corrupt("a length beyond the end"))?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changes() -> impl Strategy<Value = EpochChanges> {
        let tables: Vec<&'static str> = input_tables().into_iter().chain(view_tables()).map(|table| table.name).collect();
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let change = (proptest::sample::select(tables), bytes(), proptest::option::of(bytes()))
            .prop_map(|(table, key, row)| Change { table, key, row });
        let passed = (proptest::sample::select(Topic::ALL), any::<u32>(), 0..u64::MAX);
        let position = proptest::collection::vec(passed, 0..6).prop_map(|parts| {
            let mut position = Position::beginning();
            parts.into_iter().for_each(|(topic, partition, offset)| position.passed(topic, partition, offset));
            position
        });
        (any::<u64>(), position, proptest::collection::vec(change, 0..30)).prop_map(|(epoch, position, changes)| EpochChanges {
            epoch,
            position,
            changes: changes.into(),
        })
    }

    fn same(a: &EpochChanges, b: &EpochChanges) -> bool {
        (a.epoch, &a.position, &a.changes) == (b.epoch, &b.position, &b.changes)
    }

    proptest! {
        /// If it failed, an API in another process would serve other rows than were written.
        #[test]
        fn what_is_encoded_reads_back(unit in changes()) {
            let read = EpochChanges::decode(&unit.encode()).expect("it reads");
            prop_assert!(same(&read, &unit));
        }

        /// If it failed, a damaged or hostile record would end the process, or be taken for half of a unit.
        #[test]
        fn bytes_from_outside_are_read_or_refused(unit in changes(), noise in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            let _ = EpochChanges::decode(&noise);
            let whole = unit.encode();
            let cut = at.index(whole.len());
            prop_assert!(EpochChanges::decode(&whole[..cut]).is_err(), "a part is no unit");
            let mut turned = whole.clone();
            turned[cut] ^= noise.first().copied().unwrap_or(0x80);
            let _ = EpochChanges::decode(&turned);
            prop_assert!(EpochChanges::decode(&[whole, vec![0]].concat()).is_err(), "nor is more than one");
        }
    }

    /// If it failed, a few bytes would reserve all memory.
    #[test]
    fn lengths_are_checked_before_they_are_reserved() {
        let mut huge = vec![VERSION, 1, 0, 0];
        put_varint(&mut huge, u64::MAX >> 1);
        assert_eq!(EpochChanges::decode(&huge).unwrap_err(), Corrupt("a length beyond the end"));
        assert_eq!(EpochChanges::decode(&[2]).unwrap_err(), Corrupt("changes of an unknown version"));
        let table = [vec![VERSION, 1, 0, 1, 4], b"nope".to_vec(), vec![0]].concat();
        assert_eq!(EpochChanges::decode(&table).unwrap_err(), Corrupt("changes of an unknown table"));
    }
}
