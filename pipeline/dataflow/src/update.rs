//! Inputs and outputs of the dataflow.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kindred_model::intern::{Item, Party};
use kindred_model::records::{CatalogRecord, Interaction, LedgerRecord, MemberRecord, OrderRecord, Record, Subject};
use kindred_model::{EventTime, Kind, Topic};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One decoded record, or an administrative action.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// From `interactions`.
    Interaction(InteractionUpdate),
    /// From `orders`.
    Order(Box<OrderRecord>),
    /// From `catalog`.
    Catalog(Box<CatalogRecord>),
    /// From `members`.
    Member(Box<MemberRecord>),
    /// From `ledger`.
    Ledger(Box<LedgerRecord>),
    /// A tombstone arrived under this key of a compacted topic. It deletes nothing: the merged record is appended again.
    Tombstone(Topic, Arc<[u8]>),
    /// Removes all identities of a raw owner from the merged inputs: the erasure of a session (`erasure.raw_days`). The log no
    /// longer holds them, so the views stay a function of the log.
    Purge(Party),
}

/// The interned subject of an interaction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SubjectKey {
    /// An item.
    Item(Item),
    /// A normalised query.
    Query(Box<str>),
}

/// An interaction with interned identities.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InteractionUpdate {
    /// The raw owner.
    pub party: Party,
    /// The subject.
    pub subject: SubjectKey,
    /// [`Kind::code`].
    pub kind: u8,
    /// Takes back all of (party, subject, kind) at or before `at`.
    pub retract: bool,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// The scenario of an impression or a click; empty for all others.
    pub scenario: Box<str>,
    /// The payload's canonical bytes; empty for most.
    pub payload: Box<[u8]>,
}

impl InteractionUpdate {
    /// Interns a decoded interaction.
    pub fn new(interaction: &Interaction) -> Self {
        Self {
            party: Party::intern(&interaction.owner),
            subject: match &interaction.subject {
                Subject::Item(item) => SubjectKey::Item(Item::intern(item.as_str())),
                Subject::Query(query) => SubjectKey::Query(query.clone()),
            },
            kind: interaction.kind.code(),
            retract: interaction.retract,
            at: interaction.at.0,
            scenario: interaction.scenario.clone(),
            payload: interaction.payload.canonical().into_boxed_slice(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        Kind::from_code(self.kind).expect("a kind's code")
    }

    /// Its time.
    pub const fn at(&self) -> EventTime {
        EventTime(self.at)
    }
}

impl From<Record> for Update {
    fn from(record: Record) -> Self {
        match record {
            Record::Interaction(interaction) => Self::Interaction(InteractionUpdate::new(&interaction)),
            Record::Order(order) => Self::Order(Box::new(order)),
            Record::Catalog(item) => Self::Catalog(Box::new(item)),
            Record::Member(member) => Self::Member(Box::new(member)),
            Record::Ledger(record) => Self::Ledger(Box::new(record)),
        }
    }
}

/// Takes encoded rows: (table, key, row or `None` for a delete).
pub type EncodeInto<'a> = &'a mut dyn FnMut(&'static str, &[u8], Option<&[u8]>);

/// Changed rows of one table at one epoch, still typed and interned: the sink's thread encodes them. At most one change per key
/// and epoch, over all workers.
pub trait Changes: Send {
    /// Encodes each change.
    fn encode(&self, into: EncodeInto<'_>);
    /// How many changes there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An output of the dataflow.
pub enum Output {
    /// Changed rows.
    Rows {
        /// The epoch.
        epoch: u64,
        /// The changes.
        changes: Box<dyn Changes>,
    },
    /// The merged records, as canonical bytes, of keys for which another record arrived. A compacted topic keeps the last record
    /// of a key, so the merged one has to be appended again.
    Superseded {
        /// The epoch.
        epoch: u64,
        /// The topic of the records.
        topic: Topic,
        /// The merged records, one per key.
        merged: Vec<Arc<[u8]>>,
    },
}

impl Output {
    /// The epoch.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Rows { epoch, .. } | Self::Superseded { epoch, .. } => *epoch,
        }
    }
}

/// Receives the outputs of every worker. NB: an epoch's outputs have all been given before its probe passes on any worker.
pub type OutputFn = Arc<dyn Fn(Output) + Send + Sync>;

/// Counters maintained by the operators, summed over the workers of the process.
#[derive(Default, Debug)]
pub struct Stats {
    /// Owners with identities.
    pub owners: AtomicU64,
    /// Identities held, hidden ones and retracts included.
    pub identities: AtomicU64,
    /// Identities evicted by an owner's cap.
    pub evicted: AtomicU64,
    /// Conflicts: two contents under one version.
    pub conflicts: AtomicU64,
    /// The latest conflicts, each key once, the latest last.
    pub latest_conflicts: Mutex<VecDeque<Conflict>>,
    /// Sums that overflowed the 64 bits of a row.
    pub saturated: AtomicU64,
    /// Orders held.
    pub orders: AtomicU64,
    /// Directed pairs held by the similarity views.
    pub pairs: AtomicU64,
    /// Bytes of rows and lists of the similarity views.
    pub similarity_bytes: AtomicU64,
    /// Pair updates.
    pub pair_updates: AtomicU64,
    /// Lists that changed.
    pub lists_changed: AtomicU64,
}

/// A key with two contents under one version: a producer's mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The topic.
    pub topic: Topic,
    /// The order, item, member or session.
    pub id: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.id)
    }
}

/// Conflicts kept for the status.
pub const CONFLICTS_KEPT: usize = 100;

impl Stats {
    /// Counts and keeps a conflict.
    pub fn conflict(&self, conflict: Conflict) {
        Self::add(&self.conflicts, 1);
        let mut latest = self.latest_conflicts.lock();
        latest.retain(|known| *known != conflict);
        if latest.len() >= CONFLICTS_KEPT {
            latest.pop_front();
        }
        latest.push_back(conflict);
    }

    /// Adds to a counter.
    pub fn add(figure: &AtomicU64, by: u64) {
        figure.fetch_add(by, Ordering::Relaxed);
    }

    /// Subtracts from a counter.
    pub fn sub(figure: &AtomicU64, by: u64) {
        figure.fetch_sub(by, Ordering::Relaxed);
    }

    /// Reads a counter.
    pub fn get(figure: &AtomicU64) -> u64 {
        figure.load(Ordering::Relaxed)
    }
}
