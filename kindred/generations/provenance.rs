//! The provenance of a generation: the part of the log it is built from, stored with it, and whether it can become live.

use anyhow::{Context, Result};
use kindred_model::Semantics;
use kindred_store::ViewStore;
use kindred_store::embedded_generations::FIRST;
use serde::{Deserialize, Serialize};

/// The named value of a store.
const ORIGIN: &str = "origin";

/// The part of the log a generation is built from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// `beginning`, `inputs`, a position or a time.
    pub from: String,
    /// A position or a time where it ends.
    pub until: Option<String>,
    /// Whether it has reached the end of that part once.
    pub complete: bool,
}

impl Provenance {
    /// Of the first generation, which reads the log from its first record.
    fn first() -> Self {
        Self { from: "beginning".to_owned(), until: None, complete: true }
    }

    /// The provenance of a generation; `None` when a replay ended before its store was prepared.
    pub async fn of(name: &str, store: &dyn ViewStore) -> Result<Option<Self>> {
        let held = store.named().get(ORIGIN).await.context("could not read the provenance of the generation")?;
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).context("corrupt provenance of the generation");
        Ok(held.map(read).transpose()?.or_else(|| (name == FIRST).then(Self::first)))
    }

    /// As [`Provenance::of`]; an unprepared generation is incomplete.
    pub async fn shown(name: &str, store: &dyn ViewStore) -> Result<Self> {
        let unknown = || Self { from: "nothing yet".to_owned(), until: None, complete: false };
        Ok(Self::of(name, store).await?.unwrap_or_else(unknown))
    }

    /// Stores it with the generation.
    pub async fn note(&self, store: &dyn ViewStore) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        store.named().put(ORIGIN, &bytes).await.context("could not write the provenance of the generation")
    }

    /// Whether both are built from the same part of the events.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.from, &self.until) == (&other.from, &other.until)
    }

    /// Whether it covers all events, so that it can follow the log.
    pub fn is_whole(&self) -> bool {
        self.until.is_none() && ["beginning", "inputs"].contains(&&*self.from)
    }

    /// Why it cannot become live, if it cannot.
    pub fn not_promotable(&self, settings: &Semantics, live: &Semantics) -> Option<String> {
        if settings.program != live.program {
            return Some(
                "its program.* rules are others than the live ones: it is a what-if, comparable and never promotable".to_owned(),
            );
        }
        if settings.shop != live.shop {
            return Some("its shop.currency is another".to_owned());
        }
        if !self.complete {
            return Some("it has not reached the end of the log yet; go on with its replay".to_owned());
        }
        (!self.is_whole()).then(|| "it is of a part of the events alone: comparable, never promotable".to_owned())
    }
}
