//! The frontier of a generation and its incarnation: one row, changed only by lightweight transactions.
//!
//! ```text
//! begin ──IF incarnation = n──▶ n + 1, not clean ──commit, commit, … IF incarnation = n + 1──▶ end_clean
//! ```
//!
//! **Timestamps.** Every write and delete carries `incarnation · 2^36 + (epoch - first epoch of the incarnation)`: late writes of
//! an earlier incarnation lose, and within one the later epoch wins. 2^36 epochs are more than two years at a thousand a second
//! without a restart. `ScyllaDB` refuses timestamps more than three days ahead (`restrict_future_timestamp`); these reach today's
//! microseconds after some 26,000 starts.

use kindred_model::Position;
use kindred_model::units::EventTime;
use scylla::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;

use super::connection::Connection;
use super::session::{answered, unreadable, was_applied};
use crate::generations::Generation;
use crate::wire::{decode_position, encode_position};
use crate::{Frontier, Incarnation, StoreError};

/// Bits of the epoch.
const EPOCH_BITS: u32 = 36;
/// Attempts to begin while others do.
const BEGINS_MAX: usize = 20;

/// The state of a generation in use.
pub(super) const KEPT: &str = "kept";
pub(super) const DROPPING: &str = "dropping";
pub(super) const DROPPED: &str = "dropped";

/// A stored generation.
#[derive(DeserializeRow)]
pub(super) struct Row {
    pub name: String,
    pub state: String,
    pub settings: String,
    pub created_at_ms: i64,
    pub incarnation: i64,
    pub owner: String,
    pub first_epoch: i64,
    pub epoch: i64,
    pub position: Vec<u8>,
    pub clean: bool,
    pub rewriting: bool,
}

impl Row {
    pub fn frontier(&self) -> Result<Frontier, StoreError> {
        let corrupt = |error| StoreError::Corrupt(format!("corrupt frontier of {}: {error}", self.name));
        let position = decode_position(&mut self.position.as_slice()).map_err(corrupt)?;
        Ok(Frontier { epoch: self.epoch.unsigned_abs(), position, unfinished: self.rewriting })
    }

    pub fn generation(self) -> Result<Generation, StoreError> {
        let frontier = self.frontier()?;
        Ok(Generation {
            frontier: Frontier { unfinished: frontier.unfinished || self.state == DROPPING, ..frontier },
            name: self.name,
            settings: self.settings,
            created_at: EventTime(self.created_at_ms),
            incarnation: self.incarnation.unsigned_abs(),
            clean: self.clean,
            dropping: self.state == DROPPING,
        })
    }
}

/// A stored position.
pub(super) fn position_bytes(position: &Position) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_position(position, &mut bytes);
    bytes
}

/// A timestamp just below an incarnation's: deleting under it removes older rows only.
pub(super) fn before(incarnation: u64) -> Result<i64, StoreError> {
    Ok(stamp(incarnation, 0)? - 1)
}

fn stamp(incarnation: u64, epoch: u64) -> Result<i64, StoreError> {
    let number = i64::try_from(incarnation).ok().filter(|&number| number < 1 << (63 - EPOCH_BITS));
    match number {
        Some(number) if epoch < 1 << EPOCH_BITS => Ok((number << EPOCH_BITS) + i64::try_from(epoch).expect("checked")),
        _ => Err(StoreError::Refused(format!(
            "incarnation {incarnation} has no room for epoch {epoch}: restart the pipeline, which begins a new one"
        ))),
    }
}

/// The incarnation of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub number: u64,
    pub first_epoch: u64,
    /// Another process began it and commits.
    pub joined: bool,
}

impl Held {
    /// The timestamp of an epoch's writes.
    pub fn timestamp(self, epoch: u64) -> Result<i64, StoreError> {
        let since = epoch.checked_sub(self.first_epoch).ok_or_else(|| {
            StoreError::Refused(format!("epoch {epoch} is before the incarnation, which began at {}", self.first_epoch))
        })?;
        stamp(self.number, since)
    }
}

fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Refused(format!("{number} is too large to be stored")))
}

impl Connection {
    /// Retries a transaction until its outcome is known; returns whether it was applied.
    pub async fn transact(
        &self,
        statement: &'static str,
        prepared: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, StoreError> {
        let result = answered(self.config.attempts, statement, || self.session.execute_unpaged(prepared, &values)).await?;
        was_applied(result)
    }

    /// A generation's row, after every acknowledged transaction.
    pub async fn generation(&self, name: &str) -> Result<Option<Row>, StoreError> {
        let read = || self.session.execute_unpaged(&self.state.generation, (name,));
        let rows = answered(self.config.attempts, "generation", read).await?.into_rows_result().map_err(|e| unreadable(&e))?;
        rows.maybe_first_row::<Row>().map_err(|error| unreadable(&error))
    }

    pub async fn kept_generation(&self, name: &str) -> Result<Row, StoreError> {
        let row = self.generation(name).await?.filter(|row| row.state == KEPT);
        row.ok_or_else(|| StoreError::Refused(format!("there is no generation {name}; `kindred generations` lists them")))
    }

    pub async fn begin(&self, generation: &str) -> Result<Incarnation, StoreError> {
        let mut owner = [0; 16];
        getrandom::fill(&mut owner).map_err(|error| StoreError::Unavailable(format!("there are no random bytes: {error}")))?;
        let owner: String = owner.iter().map(|byte| format!("{byte:02x}")).collect();
        // From before our own transaction, which may have been applied without an answer.
        let mut unfinished = false;
        for _ in 0..BEGINS_MAX {
            let row = self.kept_generation(generation).await?;
            if row.owner == owner {
                let frontier = Frontier { unfinished, ..row.frontier()? };
                let number = row.incarnation.unsigned_abs();
                return Ok(Incarnation { number, first_epoch: row.first_epoch.unsigned_abs(), frontier });
            }
            unfinished = !row.clean || row.rewriting;
            before(row.incarnation.unsigned_abs() + 1)?;
            let values = (row.incarnation + 1, owner.as_str(), row.epoch, unfinished, generation, row.incarnation);
            self.transact("begin", &self.state.begin, values).await?;
        }
        Err(StoreError::Unavailable(format!("other pipelines keep taking over generation {generation}; let only one start")))
    }

    pub async fn join(&self, generation: &str, number: u64) -> Result<Incarnation, StoreError> {
        let row = self.kept_generation(generation).await?;
        if row.incarnation.unsigned_abs() != number {
            return Err(taken_over(generation, number));
        }
        Ok(Incarnation { number, first_epoch: row.first_epoch.unsigned_abs(), frontier: row.frontier()? })
    }

    pub async fn commit(&self, generation: &str, held: Held, epoch: u64, position: &Position) -> Result<(), StoreError> {
        let values = (signed(epoch)?, position_bytes(position), generation, signed(held.number)?);
        let applied = self.transact("commit", &self.state.commit, values).await?;
        if applied { Ok(()) } else { Err(taken_over(generation, held.number)) }
    }

    pub async fn reset_position(&self, generation: &str, held: Held, position: &Position) -> Result<(), StoreError> {
        let values = (position_bytes(position), generation, signed(held.number)?);
        let applied = self.transact("reset_position", &self.state.reset_position, values).await?;
        if applied { Ok(()) } else { Err(taken_over(generation, held.number)) }
    }

    pub async fn end_clean(&self, generation: &str, held: Held, rewriting: bool) -> Result<(), StoreError> {
        let values = (rewriting, generation, signed(held.number)?);
        let applied = self.transact("end_clean", &self.state.end_clean, values).await?;
        if applied { Ok(()) } else { Err(taken_over(generation, held.number)) }
    }
}

fn taken_over(generation: &str, number: u64) -> StoreError {
    StoreError::Refused(format!(
        "another pipeline has taken over generation {generation} (this one is incarnation {number}): let this one end, and run one \
         pipeline a generation"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a write of an earlier incarnation could win.
    #[test]
    fn timestamps_order_by_incarnation_then_epoch() {
        let held = Held { number: 3, first_epoch: 70, joined: false };
        let later = Held { number: 4, first_epoch: 71, joined: false };
        assert!(before(3).unwrap() < held.timestamp(70).unwrap());
        assert!(held.timestamp(70).unwrap() < held.timestamp(71).unwrap());
        assert!(held.timestamp(70 + (1 << EPOCH_BITS) - 1).unwrap() < later.timestamp(71).unwrap());
        assert_eq!(held.timestamp(70 + (1 << EPOCH_BITS) - 1).unwrap(), before(4).unwrap());
        assert!(matches!(held.timestamp(70 + (1 << EPOCH_BITS)), Err(StoreError::Refused(_))));
        assert!(matches!(held.timestamp(69), Err(StoreError::Refused(_))));
        assert!(matches!(before(1 << 30), Err(StoreError::Refused(_))));
    }
}
