//! What enters the dataflow and what leaves it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kindred_model::intern::{Item, Party};
use kindred_model::records::{CatalogRecord, Interaction, MemberRecord, OrderRecord, Record, Subject};
use kindred_model::{EventTime, Kind, Topic};
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
    /// What the last conflicts were about, the oldest first.
    conflicting: Mutex<VecDeque<String>>,
}

/// Subjects of conflicts that are kept.
const CONFLICTING_MAX: usize = 20;

impl Stats {
    /// Counts two contents under one version, and keeps what they are about.
    pub fn conflict(&self, topic: Topic, canonical: &[u8]) {
        Self::add(&self.conflicts, 1);
        let record: serde_json::Value = serde_json::from_slice(canonical).unwrap_or_default();
        let subject = ["order", "item", "member", "session"].iter().find_map(|field| record[field].as_str());
        let told = format!("{topic} {}", subject.unwrap_or("?"));
        let Ok(mut last) = self.conflicting.lock() else { return };
        last.retain(|before| *before != told);
        last.push_back(told);
        if last.len() > CONFLICTING_MAX {
            last.pop_front();
        }
    }

    /// What the last conflicts were about, the newest first.
    pub fn conflicting(&self) -> Vec<String> {
        self.conflicting.lock().map(|last| last.iter().rev().cloned().collect()).unwrap_or_default()
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
