//! How often something may be tried (docs/design/0008-sign-in.md). Counters lie in records, so that all processes share them; what is
//! under way in this process counts as if it had failed, so that a burst gains nothing.
//!
//! ```text
//! quota     so many in a fixed window, then wait for its end
//! failures  so many are free, then each doubles the wait; forgotten after a day or when it succeeds
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use kindred_config::members::LimitsConfig;
use kindred_model::units::EventTime;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::db::{self, Db, THROTTLE, ms};
use crate::error::{MemberError, Result};
use crate::marks::Marks;

const COUNTER: &str = "counter";
/// Failures are forgotten after a day without one.
const FORGET_S: u64 = 86_400;
/// A window of a quota.
pub(crate) const HOUR_S: u64 = 3_600;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Counter {
    count: u32,
    /// When the window began, or the last failure was.
    #[serde(with = "ms")]
    at: EventTime,
}

/// What is under way in this process, by key.
type UnderWay = Arc<Mutex<HashMap<String, u32>>>;

/// The counters.
pub(crate) struct Throttle {
    db: Db,
    marks: Marks,
    limits: LimitsConfig,
    under_way: UnderWay,
}

/// A try that is under way. It says what became of it with [`Throttle::failed`] or [`Throttle::succeeded`].
pub(crate) struct Try {
    key: String,
    under_way: UnderWay,
    failures: u32,
}

impl Drop for Try {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.key);
            }
        }
    }
}

impl Throttle {
    pub fn new(db: Db, marks: Marks, limits: LimitsConfig) -> Self {
        Self { db, marks, limits, under_way: UnderWay::default() }
    }

    /// Takes one of so many in a window.
    ///
    /// # Errors
    /// [`MemberError::Throttled`] until the window ends.
    pub async fn quota(&self, purpose: &str, part: &str, most: u32, window_s: u64) -> Result<()> {
        let key = self.marks.key(purpose, &[part]);
        let now = self.db.now();
        let refused = self
            .db
            .update(THROTTLE, &key, COUNTER, |held: Option<Counter>| match held {
                Some(counter) if db::after(counter.at, window_s) > now => {
                    let ends = db::after(counter.at, window_s);
                    if counter.count >= most {
                        return (None, Some(ends));
                    }
                    (Some((Counter { count: counter.count + 1, ..counter }, Some(ends))), None)
                }
                _ => (Some((Counter { count: 1, at: now }, Some(db::after(now, window_s)))), None),
            })
            .await?;
        refused.map_or(Ok(()), |until| Err(wait(now, until)))
    }

    /// Whether one more try may be made, of something whose failures double the wait.
    ///
    /// # Errors
    /// [`MemberError::Throttled`].
    pub async fn attempt(&self, key: String) -> Result<Try> {
        let limits = &self.limits;
        let counter = self.db.read::<Counter>(THROTTLE, &key, COUNTER).await?.map(|held| held.value);
        let now = self.db.now();
        let failures = counter.as_ref().map_or(0, |counter| counter.count);
        let last = counter.map_or(now, |counter| counter.at);
        let mut under_way = self.under_way.lock();
        let here = under_way.get(&key).copied().unwrap_or(0);
        if failures + here >= limits.free_failures {
            // Beyond the free ones, one at a time, each after its wait.
            let until = if failures >= limits.free_failures { db::after(last, self.wait_s(failures)) } else { now };
            if until > now || here > 0 {
                return Err(wait(now, until.max(db::after(now, 1))));
            }
        }
        *under_way.entry(key.clone()).or_default() += 1;
        drop(under_way);
        Ok(Try { key, under_way: self.under_way.clone(), failures })
    }

    /// Whether one more try may be made, of something that may fail so often in an hour.
    ///
    /// # Errors
    /// [`MemberError::Throttled`].
    pub async fn attempt_of_hour(&self, key: String, most: u32) -> Result<Try> {
        let counter = self.db.read::<Counter>(THROTTLE, &key, COUNTER).await?;
        let now = self.db.now();
        let open = counter.filter(|held| db::after(held.value.at, HOUR_S) > now);
        let failures = open.as_ref().map_or(0, |held| held.value.count);
        let mut under_way = self.under_way.lock();
        let here = under_way.get(&key).copied().unwrap_or(0);
        if failures + here >= most {
            let until = open.map_or(db::after(now, 1), |held| db::after(held.value.at, HOUR_S));
            return Err(wait(now, until));
        }
        *under_way.entry(key.clone()).or_default() += 1;
        drop(under_way);
        Ok(Try { key, under_way: self.under_way.clone(), failures })
    }

    fn wait_s(&self, failures: u32) -> u64 {
        let beyond = failures.saturating_sub(self.limits.free_failures).min(30);
        (1_u64 << beyond).min(self.limits.wait_max_s.into())
    }

    /// It failed: counted, before it is no longer under way.
    pub async fn failed(&self, tried: Try) -> Result<()> {
        let now = self.db.now();
        let counted = |held: Option<Counter>| {
            let counter = Counter { count: held.map_or(0, |counter| counter.count).saturating_add(1), at: now };
            (Some((counter, Some(db::after(now, FORGET_S)))), ())
        };
        self.db.update(THROTTLE, &tried.key, COUNTER, counted).await
    }

    /// It failed, of those that are counted by the hour.
    pub async fn failed_of_hour(&self, tried: Try) -> Result<()> {
        let now = self.db.now();
        let counted = |held: Option<Counter>| {
            let counter = match held {
                Some(counter) if db::after(counter.at, HOUR_S) > now => Counter { count: counter.count + 1, ..counter },
                _ => Counter { count: 1, at: now },
            };
            let ends = db::after(counter.at, HOUR_S);
            (Some((counter, Some(ends))), ())
        };
        self.db.update(THROTTLE, &tried.key, COUNTER, counted).await
    }

    /// It succeeded: what failed before is forgotten.
    pub async fn succeeded(&self, tried: Try) -> Result<()> {
        if tried.failures > 0 {
            self.db.remove(THROTTLE, &tried.key, COUNTER).await?;
        }
        Ok(())
    }
}

fn wait(now: EventTime, until: EventTime) -> MemberError {
    let seconds = (until.0 - now.0).max(0).unsigned_abs().div_ceil(1_000).max(1);
    MemberError::Throttled { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
}
