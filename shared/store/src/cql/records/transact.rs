//! One transaction: attempts under one version until its outcome is known.
//!
//! An answered conditional batch is decided. One without an answer may have been applied, may yet be, or never: its rows are read
//! at SERIAL, which completes what has been agreed on, and [`judge`] decides. A retry is safe while every attempt has the same
//! version and expectations: the first to be applied defeats the others.

use std::collections::HashMap;
use std::time::Duration;

use kindred_model::units::EventTime;
use rand::Rng;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};

use super::judge::{Seen, Verdict, judge};
use super::{Shared, version_bytes, version_of};
use crate::StoreError;
use crate::cql::session::{answered, unreadable, was_applied};
use crate::records::{Effect, Expect, NEVER, Outcome, SWEPT_AFTER_MS, Step, Version};

/// Attempts beyond the configured ones, for rows that are expired or deleted.
const ATTEMPTS_MORE: u32 = 2;
/// Back-off after an attempt without an answer.
const WAIT: Duration = Duration::from_millis(50);
/// The expiry of a deleted row.
const DELETED: i64 = i64::MIN;
/// Cassandra limits the end of a TTL to 2038; rows that expire later than this have none, and stay until overwritten.
const TTL_SECONDS_MAX: i64 = 365 * 86_400;

/// The TTL in seconds; zero for none.
fn ttl(expires_at: Option<EventTime>, now: EventTime) -> i32 {
    let Some(expires_at) = expires_at else { return 0 };
    let seconds = (expires_at.0.saturating_sub(now.0).max(0).saturating_add(SWEPT_AFTER_MS + 999)) / 1_000;
    if seconds > TTL_SECONDS_MAX { 0 } else { i32::try_from(seconds).expect("a year") }
}

type Written<'a> = (i32, &'a [u8], [u8; 16], Vec<u8>, i64, &'a str, &'a [u8], &'a [u8], Option<[u8; 16]>);
type Checked<'a> = (&'a str, &'a [u8], &'a [u8], Option<[u8; 16]>);

/// Bound values, with the expiry to check where that is a condition.
enum Bound<'a> {
    Write(Written<'a>, Option<i64>),
    Check(Checked<'a>, Option<i64>),
}

impl SerializeRow for Bound<'_> {
    fn serialize(&self, context: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        match self {
            Self::Write((a, b, c, d, e, f, g, h, i), Some(now)) => (a, b, c, d, e, f, g, h, i, now).serialize(context, writer),
            Self::Write(values, None) => values.serialize(context, writer),
            Self::Check((a, b, c, d), Some(now)) => (a, b, c, d, now).serialize(context, writer),
            Self::Check(values, None) => values.serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Shared {
    pub async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
        let ours = Version::new();
        let expected = |step: &Step| match step.expect {
            Expect::Absent => None,
            Expect::Version(version) => Some(version),
        };
        let mut tried: Vec<Option<Version>> = steps.iter().map(expected).collect();
        // Whether an attempt with the last expectations may still be applied.
        let mut unanswered = false;
        let mut reason = "concurrent changes".to_owned();
        for _ in 0..self.connection.config.attempts + ATTEMPTS_MORE {
            match self.attempt(table, partition, steps, &tried, ours, now).await {
                Ok(true) => return Ok(Outcome::Done(ours)),
                Ok(false) => (),
                Err(StoreError::Unavailable(why)) => {
                    (unanswered, reason) = (true, why);
                    let share = rand::rng().random_range(0.5..1.5);
                    tokio::time::sleep(WAIT.mul_f64(share)).await;
                }
                Err(refused) if !unanswered => return Err(refused),
                Err(refused) => return Err(StoreError::Unavailable(refused.to_string())),
            }
            let seen = self.look(table, partition, steps).await?;
            match judge(steps, &tried, unanswered, &seen, ours, now) {
                Verdict::Done => return Ok(Outcome::Done(ours)),
                Verdict::Conflict => return Ok(Outcome::Conflict),
                Verdict::Unknown => {
                    return Err(StoreError::Unavailable(format!(
                        "outcome of a transaction on {table} unknown: no answer, and its rows have changed since: {reason}"
                    )));
                }
                Verdict::Again(next) => {
                    // With changed expectations, earlier attempts can no longer be applied: their rows have moved on.
                    unanswered &= next == tried;
                    tried = next;
                }
            }
        }
        Err(StoreError::Unavailable(format!("a transaction on {table} failed: {reason}")))
    }

    /// Appends a record that expects nothing and that no other step ever changes.
    pub async fn append(&self, table: &str, partition: &[u8], step: &Step, now: EventTime) -> Result<(), StoreError> {
        let Effect::Put { value, expires_at } = &step.effect else { return Ok(()) };
        let append = &self.statements(table).append;
        let (lives, until) = (ttl(*expires_at, now), expires_at.map_or(NEVER, |at| at.0));
        let version = version_bytes(Version::new());
        let previous: &[u8] = b"";
        let values = (lives, value.as_slice(), version.as_slice(), previous, until, table, partition, step.sort.as_slice());
        let attempts = self.connection.config.attempts;
        answered(attempts, "append_record", || self.connection.session.execute_unpaged(append, &values)).await.map(drop)
    }

    /// Sends the batch once; returns whether it was applied.
    async fn attempt(
        &self,
        table: &str,
        partition: &[u8],
        steps: &[Step],
        tried: &[Option<Version>],
        ours: Version,
        now: EventTime,
    ) -> Result<bool, StoreError> {
        let statements = self.statements(table);
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_consistency(self.connection.config.consistency.majority());
        let mut values = Vec::with_capacity(steps.len());
        for (step, tried) in steps.iter().zip(tried) {
            let replaced = tried.map(version_bytes);
            let live = matches!(step.expect, Expect::Version(_)).then_some(now.0);
            let (value, expires_at, ttl): (&[u8], _, _) = match &step.effect {
                Effect::Put { value, expires_at } => (value, expires_at.map_or(NEVER, |at| at.0), ttl(*expires_at, now)),
                Effect::Delete => (b"", DELETED, ttl(Some(now), now)),
                Effect::Check => {
                    batch.append_statement(if live.is_some() { &statements.check_live } else { &statements.check }.clone());
                    values.push(Bound::Check((table, partition, &step.sort, replaced), live));
                    continue;
                }
            };
            batch.append_statement(if live.is_some() { &statements.write_live } else { &statements.write }.clone());
            let previous = replaced.map_or_else(Vec::new, Vec::from);
            let written =
                (ttl, value, version_bytes(ours), previous, expires_at, table, partition, step.sort.as_slice(), replaced);
            values.push(Bound::Write(written, live));
        }
        was_applied(answered(1, "transact_records", || self.connection.session.batch(&batch, &values)).await?)
    }

    /// The rows of the steps, in their order, read at SERIAL.
    async fn look(&self, table: &str, partition: &[u8], steps: &[Step]) -> Result<Vec<Option<Seen>>, StoreError> {
        let look = &self.statements(table).look;
        let sorts: Vec<&[u8]> = steps.iter().map(|step| step.sort.as_slice()).collect();
        let values = (table, partition, &sorts);
        let attempts = self.connection.config.attempts;
        let result = answered(attempts, "look_at_records", || self.connection.session.execute_unpaged(look, values)).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let mut seen = HashMap::new();
        type Columns<'a> = (&'a [u8], Option<&'a [u8]>, Option<&'a [u8]>, Option<i64>);
        for row in rows.rows::<Columns<'_>>().map_err(|error| unreadable(&error))? {
            let (sort, version, previous, expires_at) = row.map_err(|error| unreadable(&error))?;
            let (Some(version), Some(expires_at)) = (version, expires_at) else { continue };
            let previous = previous.filter(|previous| !previous.is_empty()).map(version_of).transpose()?;
            seen.insert(sort.to_vec(), Seen { version: version_of(version)?, previous, expires_at });
        }
        Ok(sorts.iter().map(|&sort| seen.get(sort).copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_outlives_its_record_by_a_day_and_what_lives_for_years_is_not_thrown_away() {
        let now = EventTime(1_767_600_000_000);
        assert_eq!(ttl(None, now), 0);
        assert_eq!(ttl(Some(now), now), 86_400);
        assert_eq!(ttl(Some(EventTime(now.0 - 5_000)), now), 86_400);
        assert_eq!(ttl(Some(EventTime(now.0 + 1)), now), 86_401);
        assert_eq!(ttl(Some(EventTime(now.0 + 364 * 86_400_000)), now), 365 * 86_400);
        assert_eq!(ttl(Some(EventTime(now.0 + 365 * 86_400_000)), now), 0);
        assert_eq!(ttl(Some(EventTime(i64::MAX)), EventTime(0)), 0);
    }
}
