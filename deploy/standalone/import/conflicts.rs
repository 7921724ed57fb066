//! Two contents under one version: which of an import's records they are, among themselves and with what the store has.
//!
//! ```text
//! records ──(subject, version, digest)──▶ Versions ──compared with the merged rows, before and after──▶ ids
//! ```
//!
//! Which of two contents counts does not depend on which came later, so an import whose records differ from what is there has to say so.
//! Before the records are appended the rows show those that are about to meet another content. Afterwards they show those that lost: also
//! where the import was killed on its way and goes on, or records of somebody else came between.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use kindred_model::records::{Record, Rules};
use kindred_model::views::{ReadError, Rows};
use kindred_model::{Invalid, Topic};
use sha2::{Digest, Sha256};

/// Ids that are named.
const NAMED: usize = 20;

/// Up to so many rows are read one by one; more in one pass over the table, which a database gives much faster.
const READ_ONE_BY_ONE: usize = 5_000;

type Content = [u8; 16];

struct Known {
    version: u64,
    content: Content,
}

/// The versions of what an import holds, and where they conflict.
#[derive(Default)]
pub struct Versions {
    known: HashMap<(&'static str, Vec<u8>), Known>,
    conflicts: BTreeSet<String>,
    older: BTreeSet<Vec<u8>>,
}

fn content(record: &Record) -> Content {
    let digest = Sha256::digest(record.to_json());
    digest[..16].try_into().expect("a digest has more")
}

impl Versions {
    /// Takes note of a record of the import.
    pub fn take(&mut self, record: &Record) {
        let (Some(key), Some(version)) = (record.versioned_row(), record.version()) else { return };
        let new = Known { version, content: content(record) };
        match self.known.get_mut(&key) {
            None => drop(self.known.insert(key, new)),
            Some(known) => {
                if known.version == version && known.content != new.content {
                    self.conflicts.insert(record.subject().to_owned());
                }
                if known.version < version {
                    *known = new;
                }
            }
        }
    }

    /// Compares with the merged rows.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn compare(&mut self, topic: Topic, rows: &dyn Rows, rules: &Rules) -> Result<(), ReadError> {
        let Self { known, conflicts, older } = self;
        let mut look = |key: &[u8], known: &Known, row: &[u8]| {
            // An erased record has no version, and the last word.
            let Ok(record) = Record::decode(topic, row, rules) else { return };
            let Some(version) = record.version() else { return };
            if version == known.version && content(&record) != known.content {
                conflicts.insert(record.subject().to_owned());
            }
            if version > known.version {
                older.insert(key.to_owned());
            }
        };
        let Some((table, _)) = known.keys().next() else { return Ok(()) };
        let table = *table;
        if known.len() > READ_ONE_BY_ONE {
            return rows.scan(table, &[], &mut |key, row| {
                if let Some(known) = known.get(&(table, key.to_owned())) {
                    look(key, known, row);
                }
                ControlFlow::Continue(())
            });
        }
        for ((table, key), known) in &*known {
            if let Some(row) = rows.get(table, key)? {
                look(key, known, &row);
            }
        }
        Ok(())
    }

    /// A server says that a record of the import meets another content.
    pub fn told(&mut self, topic: Topic, record: &[u8], rules: &Rules) -> Result<(), Invalid> {
        self.conflicts.insert(Record::decode(topic, record, rules)?.subject().to_owned());
        Ok(())
    }

    /// How many subjects have two contents under one version.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.len() as u64
    }

    /// How many records are of a lower version than what is there.
    pub fn older(&self) -> u64 {
        self.older.len() as u64
    }

    /// The first of the subjects in conflict, for people.
    pub fn named(&self) -> String {
        let first: Vec<String> = self.conflicts.iter().take(NAMED).map(|id| super::shell_word(id)).collect();
        let more = if self.conflicts.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", first.join(", "))
    }
}
