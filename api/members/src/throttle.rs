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
    failures: Failures,
    /// Those before it.
    counted: u32,
}

/// What failures lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failures {
    /// Some are free; each beyond them doubles the wait.
    Double,
    /// No more than so many an hour.
    AnHour(u32),
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

    /// Whether one more try may be made.
    ///
    /// # Errors
    /// [`MemberError::Throttled`].
    pub async fn attempt(&self, key: String, failures: Failures) -> Result<Try> {
        let counter = self.db.read::<Counter>(THROTTLE, &key, COUNTER).await?.map(|held| held.value);
        let (now, free) = (self.db.now(), self.limits.free_failures);
        let (count, at) = counter.map_or((0, now), |counter| (counter.count, counter.at));
        let (counted, most, until) = match failures {
            Failures::Double if count >= free => (count, free, db::after(at, self.wait_s(count))),
            Failures::Double => (count, free, now),
            Failures::AnHour(most) if count > 0 && db::after(at, HOUR_S) > now => (count, most, db::after(at, HOUR_S)),
            Failures::AnHour(most) => (0, most, now),
        };
        let mut under_way = self.under_way.lock();
        let here = under_way.get(&key).copied().unwrap_or(0);
        // Beyond the free ones, one at a time, each after its wait.
        let over = until > now || here > 0 || failures != Failures::Double;
        if counted + here >= most && over {
            return Err(wait(now, until.max(db::after(now, 1))));
        }
        *under_way.entry(key.clone()).or_default() += 1;
        drop(under_way);
        Ok(Try { key, under_way: self.under_way.clone(), failures, counted })
    }

    fn wait_s(&self, failures: u32) -> u64 {
        let beyond = failures.saturating_sub(self.limits.free_failures).min(30);
        (1_u64 << beyond).min(self.limits.wait_max_s.into())
    }

    /// It failed: counted, before it is no longer under way.
    pub async fn failed(&self, tried: Try) -> Result<()> {
        let now = self.db.now();
        let counted = |held: Option<Counter>| {
            let (count, since) = held.map_or((0, now), |counter| (counter.count, counter.at));
            let counter = match tried.failures {
                Failures::AnHour(_) if db::after(since, HOUR_S) <= now => Counter { count: 1, at: now },
                Failures::AnHour(_) => Counter { count: count + 1, at: since },
                Failures::Double => Counter { count: count.saturating_add(1), at: now },
            };
            let kept_s = if tried.failures == Failures::Double { FORGET_S } else { HOUR_S };
            let until = Some(db::after(counter.at, kept_s));
            (Some((counter, until)), ())
        };
        self.db.update(THROTTLE, &tried.key, COUNTER, counted).await
    }

    /// Counts what became of a try. What is wrong is a failure; any other error is none.
    pub async fn settle<T>(&self, tried: Try, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.succeeded(tried).await?,
            Err(MemberError::CodeWrong | MemberError::ReauthenticationFailed) => self.failed(tried).await?,
            Err(_) => {}
        }
        outcome
    }

    /// It succeeded: what failed before is forgotten.
    pub async fn succeeded(&self, tried: Try) -> Result<()> {
        if tried.counted > 0 {
            self.db.remove(THROTTLE, &tried.key, COUNTER).await?;
        }
        Ok(())
    }
}

fn wait(now: EventTime, until: EventTime) -> MemberError {
    let seconds = (until.0 - now.0).max(0).unsigned_abs().div_ceil(1_000).max(1);
    MemberError::Throttled { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
}
