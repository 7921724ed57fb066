//! Conflicts: two contents under one version, within an import or against the store.
//!
//! ```text
//! records ──(subject, version, digest)──▶ Versions ──compared with the merged rows, before and after──▶ ids
//! ```
//!
//! The winner does not depend on arrival, so an import must report conflicts. Compared before the append, the rows show which
//! records conflict; compared afterwards, which lost, also when an import was killed and resumed, or others wrote meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use kindred_model::records::{Record, Rules};
use kindred_model::views::{ReadError, Rows};
use kindred_model::{Invalid, Topic};
use sha2::{Digest, Sha256};

/// Ids listed in a message.
const NAMED: usize = 20;

/// Up to this many rows are read one by one; more in one table scan, which a database does much faster.
const READ_ONE_BY_ONE: usize = 5_000;

type Content = [u8; 16];

struct Known {
    version: u64,
    content: Content,
}

/// The versions of an import's records, and their conflicts.
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
    /// Adds a record of the import.
    pub fn add(&mut self, record: &Record) {
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
            // An erased record has no version and always wins.
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

    /// Adds a conflict reported by the server.
    pub fn reported(&mut self, topic: Topic, record: &[u8], rules: &Rules) -> Result<(), Invalid> {
        self.conflicts.insert(Record::decode(topic, record, rules)?.subject().to_owned());
        Ok(())
    }

    /// Subjects with two contents under one version.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.len() as u64
    }

    /// Records with a lower version than the stored one.
    pub fn older(&self) -> u64 {
        self.older.len() as u64
    }

    /// The first subjects in conflict.
    pub fn named(&self) -> String {
        let first: Vec<String> = self.conflicts.iter().take(NAMED).map(|id| super::shell_word(id)).collect();
        let more = if self.conflicts.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", first.join(", "))
    }
}
