//! Generations: several sets of rows side by side in one store, of which one is live.
//!
//! ```text
//! create(g2) ──▶ a replay writes g2 beside the live g1 ──▶ promote(g2) ──▶ readers turn to g2; promote(g1) turns them back
//! ```

use async_trait::async_trait;
use kindred_model::units::EventTime;

use crate::{Frontier, StoreError};

/// Bytes of a generation's name: it stands in the key of every partition.
pub const NAME_BYTES_MAX: usize = 48;

/// One generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generation {
    /// Its name.
    pub name: String,
    /// The fingerprint of the settings that its rows are computed with, as it was given.
    pub settings: String,
    /// When it was made.
    pub created_at: EventTime,
    /// Its last incarnation: how often a pipeline was started on it, or it was dropped.
    pub incarnation: u64,
    /// How far it reaches; unfinished where its rows are to be derived anew, or a drop of it was not finished.
    pub frontier: Frontier,
    /// Whether its last pipeline ended cleanly. False while one runs.
    pub clean: bool,
    /// A drop of it was begun and not finished: nothing reads it any more, and dropping it again ends it.
    pub dropping: bool,
}

/// The generations of a store.
#[async_trait]
pub trait Generations: Send + Sync {
    /// All of them, by name.
    ///
    /// # Errors
    /// What the store says.
    async fn list(&self) -> Result<Vec<Generation>, StoreError>;

    /// Makes an empty one. Settings are the fingerprint that says whether results of two can be compared.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is one of that name already, or it is no name ([`check_name`]).
    async fn create(&self, name: &str, settings: &str, created_at: EventTime) -> Result<(), StoreError>;

    /// The one that readers are to read, if one was promoted yet.
    ///
    /// # Errors
    /// What the store says.
    async fn live(&self) -> Result<Option<String>, StoreError>;

    /// Makes one the live one in one step and returns the one before: promoting that again rolls back.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is none of that name, or another promotion came between.
    async fn promote(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Deletes one with all of its rows and named values. Its name may be used again. Repeat it when it was interrupted.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: it is the live one, or there is none of that name.
    async fn drop(&self, name: &str) -> Result<(), StoreError>;
}

/// Whether a text can be the name of a generation.
///
/// # Errors
/// [`StoreError::Refused`]: names are 1 to 48 small letters, digits, `_`, `-` and `.`, the last not in front.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    // A name that starts with a dot would be a hidden directory, or the one above.
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "{name:?} cannot name a generation: use 1 to {NAME_BYTES_MAX} small letters, digits, `_`, `-` and `.`, the last not in \
         front"
    )))
}
