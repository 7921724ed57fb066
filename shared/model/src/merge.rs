//! The merge of records under one natural key: the join of a semilattice. Idempotent, commutative, associative, so that order,
//! duplicates and replays of the log do not matter.
//!
//! Records compare by their [`Rank`], their meaning; bytes only break ties.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::records::{CatalogRecord, LedgerRecord, MemberRecord, MemberState, OrderRecord};
use crate::units::Topic;

/// The part of a record that is compared before its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Rank {
    /// An erased member ranks above all versions.
    erased: bool,
    /// Greater is newer. For a session, whose first record wins, it is inverted.
    version: u64,
    /// Ranks two contents under one version as a shop would expect; by topic, see the implementations of [`Versioned`].
    meaning: (u8, u64, u64),
}

/// A record that merges by version and meaning.
pub trait Versioned: Serialize {
    /// Its topic.
    const TOPIC: Topic;

    /// Compared first.
    fn rank(&self) -> Rank;

    /// The frozen encoding (version 1), the row of the merged input: JSON with the fields in the order of the schema, absent ones
    /// left out.
    fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record serialises")
    }

    /// Whether the record erases for good, whatever later versions say.
    fn is_erased(&self) -> bool {
        false
    }
}

/// The result of merging a record into the known one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// The merged record, where it is not what was known.
    pub new: Option<(Rank, Vec<u8>)>,
    /// Two contents under one version: a mistake of the producer, which is counted and told.
    pub conflict: bool,
}

/// Merges a record of a topic, as rank and canonical bytes, into the known one. Both must be valid.
pub fn merge_versioned(topic: Topic, known: Option<(Rank, &[u8])>, rank: Rank, canonical: &[u8]) -> Merged {
    let replaces = |conflict| Merged { new: Some((rank, canonical.to_vec())), conflict };
    let Some((known_rank, known_canonical)) = known else { return replaces(false) };
    if canonical == known_canonical {
        return Merged { new: None, conflict: false };
    }
    if topic == Topic::Orders {
        return merge_orders((known_rank, known_canonical), (rank, canonical));
    }
    let conflict = (rank.erased, rank.version) == (known_rank.erased, known_rank.version);
    let order = rank.cmp(&known_rank).then_with(|| match topic {
        // A session keeps its first member.
        Topic::Members => session_member(known_canonical).cmp(&session_member(canonical)),
        _ => Ordering::Equal,
    });
    match order.then_with(|| canonical.cmp(known_canonical)) {
        Ordering::Greater => replaces(conflict),
        _ => Merged { new: None, conflict },
    }
}

/// The member a session was merged into; `None` for a member's record.
fn session_member(canonical: &[u8]) -> Option<Box<str>> {
    match MemberRecord::decode(canonical) {
        Ok(MemberRecord::Session { merged_into, .. }) => Some(merged_into.as_str().into()),
        _ => None,
    }
}

/// `erased` is sticky and removes the member; everything else is the greater record's.
fn merge_orders((known_rank, known): (Rank, &[u8]), (rank, canonical): (Rank, &[u8])) -> Merged {
    let same_version = rank.version == known_rank.version;
    let (known_erased, erased) = (ends_erased(known), ends_erased(canonical));
    if rank != known_rank && known_erased == erased {
        // The common case: decode neither.
        let new = (rank > known_rank).then(|| (rank, canonical.to_vec()));
        return Merged { new, conflict: same_version };
    }
    let (Ok(mut before), Ok(mut record)) = (OrderRecord::read(known), OrderRecord::read(canonical)) else {
        // Cannot happen for valid records: keep the known one and report a conflict.
        return Merged { new: None, conflict: true };
    };
    let is_erased = known_erased || erased;
    let (before_member, member) = (before.member.take(), record.member.take());
    (before.erased, record.erased) = (false, false);
    let (before_bytes, bytes) = (before.canonical(), record.canonical());
    let content = (rank, &bytes).cmp(&(known_rank, &before_bytes));
    // A member removed by erasure is no conflict.
    let conflict = same_version && (bytes != before_bytes || (!is_erased && before_member != member));
    let replaces = content.then_with(|| member.cmp(&before_member)) == Ordering::Greater;
    let (rank, mut merged, member) = if replaces { (rank, record, member) } else { (known_rank, before, before_member) };
    (merged.member, merged.erased) = (member.filter(|_| !is_erased), is_erased);
    let merged = merged.canonical();
    Merged { new: (merged != known).then_some((rank, merged)), conflict }
}

/// Whether an order's canonical bytes say that it is erased. NB: no other value in them can hold an unescaped quote.
fn ends_erased(canonical: &[u8]) -> bool {
    const MARK: &[u8] = br#","erased":true"#;
    // Only numbers may follow it.
    let tail = &canonical[canonical.len().saturating_sub(128)..];
    tail.windows(MARK.len()).any(|window| window == MARK)
}

impl Versioned for OrderRecord {
    const TOPIC: Topic = Topic::Orders;

    /// (rank of status, refunded units, refunded amount). `erased` is not compared: it is sticky.
    fn rank(&self) -> Rank {
        let meaning = (self.status.rank(), self.refunded_units().unsigned_abs(), self.refunded_minor().unsigned_abs());
        Rank { erased: false, version: self.version, meaning }
    }
    fn is_erased(&self) -> bool {
        self.erased
    }
}

impl Versioned for CatalogRecord {
    const TOPIC: Topic = Topic::Catalog;

    /// `deleted`, then not `available`.
    fn rank(&self) -> Rank {
        let meaning = (u8::from(self.deleted), u64::from(!self.available.unwrap_or(true)), 0);
        Rank { erased: false, version: self.version, meaning }
    }
}

impl Versioned for LedgerRecord {
    const TOPIC: Topic = Topic::Ledger;

    /// An entry is written once: bytes alone decide.
    fn rank(&self) -> Rank {
        Rank::default()
    }
    fn is_erased(&self) -> bool {
        LedgerRecord::is_erased(self)
    }
}

impl Versioned for MemberRecord {
    const TOPIC: Topic = Topic::Members;

    /// The rank of the state. A session's version is inverted, because its first member wins.
    fn rank(&self) -> Rank {
        let (version, state) = match self {
            Self::Member(membership) => (membership.version, membership.state),
            Self::Session { version, .. } => (!version, MemberState::Registered),
        };
        let state = match state {
            MemberState::Registered | MemberState::Erased => 0,
            MemberState::Activated => 1,
            MemberState::Suspended => 2,
        };
        Rank { erased: self.is_erased(), version, meaning: (state, 0, 0) }
    }
    fn is_erased(&self) -> bool {
        MemberRecord::is_erased(self)
    }
}
