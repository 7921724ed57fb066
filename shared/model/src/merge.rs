//! How two records under one natural key become one: the join of a semilattice. Idempotent, commutative, associative, so that
//! order, duplicates and replays of the log cannot matter.

use std::cmp::Ordering;

use crate::records::{CatalogRecord, Interaction, MemberRecord, OrderRecord};

/// A record whose greatest version wins; the canonical bytes break the tie of two contents under one version.
pub trait Versioned {
    /// (erased, version): what is compared first. Records that know no erasure say `false`.
    fn rank(&self) -> (bool, u64);

    /// The frozen encoding; compared last, and the row of the merged input.
    fn canonical(&self) -> Vec<u8>;
}

/// What came of merging a record into what was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merged {
    /// The record is the greater one: it replaces what was known.
    Replaces,
    /// The known one is greater, or the two are equal.
    Kept,
    /// Two contents under one version: a mistake of the producer, which is counted. The greater bytes win.
    Conflict {
        /// Whether the record replaces what was known.
        replaces: bool,
    },
}

impl Merged {
    /// Whether the merged record differs from what was known.
    pub const fn replaces(self) -> bool {
        matches!(self, Self::Replaces | Self::Conflict { replaces: true })
    }
}

/// Merges a record, given as its rank and canonical bytes, into the known one.
pub fn merge_versioned(known: Option<((bool, u64), &[u8])>, rank: (bool, u64), canonical: &[u8]) -> Merged {
    let Some((known_rank, known_canonical)) = known else { return Merged::Replaces };
    match rank.cmp(&known_rank) {
        Ordering::Greater => Merged::Replaces,
        Ordering::Less => Merged::Kept,
        Ordering::Equal => match canonical.cmp(known_canonical) {
            Ordering::Equal => Merged::Kept,
            order => Merged::Conflict { replaces: order == Ordering::Greater },
        },
    }
}

impl Versioned for OrderRecord {
    fn rank(&self) -> (bool, u64) {
        (self.erased, self.version)
    }
    fn canonical(&self) -> Vec<u8> {
        OrderRecord::canonical(self)
    }
}

impl Versioned for CatalogRecord {
    fn rank(&self) -> (bool, u64) {
        (false, self.version)
    }
    fn canonical(&self) -> Vec<u8> {
        CatalogRecord::canonical(self)
    }
}

impl Versioned for MemberRecord {
    fn rank(&self) -> (bool, u64) {
        (self.is_erased(), self.version())
    }
    fn canonical(&self) -> Vec<u8> {
        MemberRecord::canonical(self)
    }
}

/// Whether `record` replaces `known`, both of one owner and one natural key: the greater (`at`, payload bytes).
pub fn interaction_replaces(known: &Interaction, record: &Interaction) -> bool {
    debug_assert_eq!((&known.owner, known.key()), (&record.owner, record.key()));
    (record.at, record.payload.canonical()) > (known.at, known.payload.canonical())
}
