//! What enters the dataflow and what leaves it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kindred_model::intern::{Item, Party};
use kindred_model::records::{CatalogRecord, Interaction, LedgerRecord, MemberRecord, OrderRecord, Record, Subject};
use kindred_model::{EventTime, Kind, Topic};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One decoded record, or an administrative act, on its way in.
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
    /// A record without a value came under this key of a compacted topic. It deletes nothing: what is merged is appended again.
    Tombstone(Topic, Arc<[u8]>),
    /// All identities of a raw owner leave the merged inputs: how a session of an erased member is forgotten
    /// (`erasure.raw_days`). It takes out what the log does not hold any more, so the law stands.
    Purge(Party),
}

/// What an interaction is about, interned.
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
    /// What it is about.
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

/// Changed rows of one table at one epoch, still typed and interned, so that the sink's thread encodes them and not the
/// dataflow's. At most one change a key and epoch, over all workers.
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

/// What is on its way out.
pub enum Output {
    /// Changed rows.
    Rows {
        /// When.
        epoch: u64,
        /// What.
        changes: Box<dyn Changes>,
    },
    /// Records came of these keys that are not what is merged under them: the canonical bytes of what is. A compacted topic keeps
    /// the last record of a key, so the merged one has to be appended again.
    Superseded {
        /// When.
        epoch: u64,
        /// The topic of the records.
        topic: Topic,
        /// What is merged, once a key.
        merged: Vec<Arc<[u8]>>,
    },
}

impl Output {
    /// When.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Rows { epoch, .. } | Self::Superseded { epoch, .. } => *epoch,
        }
    }
}

/// Takes the outputs of every worker. NB: an epoch's outputs have all been given before its probe passes on any worker.
pub type OutputFn = Arc<dyn Fn(Output) + Send + Sync>;

/// Figures that the operators keep while they run, summed over the workers of the process.
#[derive(Default, Debug)]
pub struct Stats {
    /// Owners with identities.
    pub owners: AtomicU64,
    /// Identities held, hidden ones and retracts among them.
    pub identities: AtomicU64,
    /// Identities that fell out of an owner's cap.
    pub evicted: AtomicU64,
    /// Two contents under one version.
    pub conflicts: AtomicU64,
    /// The latest of them, each key once, the latest last.
    pub latest_conflicts: Mutex<VecDeque<Conflict>>,
    /// Sums that left the 64 bits of a row.
    pub saturated: AtomicU64,
    /// Orders held.
    pub orders: AtomicU64,
    /// Directed pairs held by the similarity views.
    pub pairs: AtomicU64,
    /// Bytes of rows and lists of the similarity views.
    pub similarity_bytes: AtomicU64,
    /// Pair updates done, for the share of each worker see the logs.
    pub pair_updates: AtomicU64,
    /// Lists that changed.
    pub lists_changed: AtomicU64,
}

/// A key under which two contents came with one version: a mistake of the producer.
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

/// Conflicts that are kept to be told.
pub const CONFLICTS_KEPT: usize = 100;

impl Stats {
    /// Counts a conflict and keeps it to be told.
    pub fn conflict(&self, conflict: Conflict) {
        Self::add(&self.conflicts, 1);
        let mut latest = self.latest_conflicts.lock();
        latest.retain(|known| *known != conflict);
        if latest.len() >= CONFLICTS_KEPT {
            latest.pop_front();
        }
        latest.push_back(conflict);
    }

    /// Adds to a figure.
    pub fn add(figure: &AtomicU64, by: u64) {
        figure.fetch_add(by, Ordering::Relaxed);
    }

    /// Takes from a figure.
    pub fn sub(figure: &AtomicU64, by: u64) {
        figure.fetch_sub(by, Ordering::Relaxed);
    }

    /// A figure.
    pub fn get(figure: &AtomicU64) -> u64 {
        figure.load(Ordering::Relaxed)
    }
}
