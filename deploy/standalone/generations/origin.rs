//! From where a generation was built, held with it, and whether it can become the live one.

use anyhow::{Context, Result};
use kindred_model::Semantics;
use kindred_store::ViewStore;
use kindred_store::embedded_generations::FIRST;
use serde::{Deserialize, Serialize};

/// Under which a store holds it.
const ORIGIN: &str = "origin";

/// From where a generation was built.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// `beginning`, `inputs`, a position or a time.
    pub from: String,
    /// A position or a time, where it is to end.
    pub until: Option<String>,
    /// Whether it has once reached the end of what it was to read.
    pub complete: bool,
}

impl Origin {
    /// Of the first generation, which the log feeds from its first record on.
    fn first() -> Self {
        Self { from: "beginning".to_owned(), until: None, complete: true }
    }

    /// Of a generation; `None` where a replay was ended before it had prepared its store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn of(name: &str, store: &dyn ViewStore) -> Result<Option<Self>> {
        let held = store.named().get(ORIGIN).await.context("could not read from where the generation was built")?;
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).context("from where the generation was built does not read");
        Ok(held.map(read).transpose()?.or_else(|| (name == FIRST).then(Self::first)))
    }

    /// As [`Origin::of`], for whom one that is not prepared is one that is not complete.
    ///
    /// # Errors
    /// As [`Origin::of`].
    pub async fn shown(name: &str, store: &dyn ViewStore) -> Result<Self> {
        let unknown = || Self { from: "nothing yet".to_owned(), until: None, complete: false };
        Ok(Self::of(name, store).await?.unwrap_or_else(unknown))
    }

    /// Notes it with the generation.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn note(&self, store: &dyn ViewStore) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("plain data");
        store.named().put(ORIGIN, &bytes).await.context("could not note from where the generation was built")
    }

    /// Whether it is built from the same part of the events.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.from, &self.until) == (&other.from, &other.until)
    }

    /// Whether it is of all events, so that it can follow the log as the live one does.
    pub fn is_whole(&self) -> bool {
        self.until.is_none() && ["beginning", "inputs"].contains(&&*self.from)
    }

    /// Why it cannot become the live one, if it cannot.
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
