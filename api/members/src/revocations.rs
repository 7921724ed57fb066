//! Access tokens that must not be taken any more although they have not expired: those of ended sessions (V7.4.1).
//!
//! ```text
//! revoke ──▶ memory, at once ──▶ revocations[hour] ──▶ refresh, in every process, twice a second ──▶ memory
//! ```
//!
//! An entry outlives the longest-lived access token and no more, so memory is bounded by the sessions ended within ten minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kindred_model::units::EventTime;
use kindred_store::records::{PAGE_MAX, Range};
use parking_lot::RwLock;

use crate::db::{self, Db, Held, REVOCATIONS};
use crate::error::Result;

/// By how much the clocks of processes may differ, milliseconds: what was written that long ago is read again.
const SKEW_MS: i64 = 30_000;
/// Beyond the life of a token: its leeway, and clocks that differ.
const BEYOND_S: u64 = 60;
const MS_AN_HOUR: i64 = 3_600_000;
/// How old the list may be before no token is taken any more: it fails closed (V16.5.3).
const STALE: Duration = Duration::from_secs(60);

/// The sessions whose tokens are worthless.
#[derive(Default)]
pub(crate) struct Revocations(RwLock<Known>);

#[derive(Default)]
struct Known {
    /// Until when each has to be remembered.
    sessions: HashMap<String, EventTime>,
    /// Up to where the records were read.
    read_to: Option<i64>,
    read_at: Option<Instant>,
}

fn hour(ms: i64) -> String {
    format!("{:010}", ms.div_euclid(MS_AN_HOUR))
}

fn sort(ms: i64) -> String {
    format!("{:015}/", ms.max(0))
}

impl Revocations {
    /// Revokes sessions: here at once, elsewhere when it is read. Doing it again does no harm.
    pub async fn revoke(&self, db: &Db, sessions: &[String], access_s: u32) -> Result<()> {
        let now = db.now();
        let until = db::after(now, u64::from(access_s) + BEYOND_S);
        {
            let mut known = self.0.write();
            known.sessions.extend(sessions.iter().map(|session| (session.clone(), until)));
        }
        for session in sessions {
            db.insert(REVOCATIONS, &hour(now.0), &format!("{}{session}", sort(now.0)), &until.0, Some(until)).await?;
        }
        Ok(())
    }

    /// Reads what others have revoked since the last time.
    pub async fn refresh(&self, db: &Db, access_s: u32) -> Result<()> {
        let started = Instant::now();
        let now = db.now().0;
        let oldest = now - (i64::from(access_s) + BEYOND_S as i64) * 1_000;
        let from = self.0.read().read_to.map_or(oldest, |read_to| (read_to - SKEW_MS).max(oldest));
        let mut found = Vec::new();
        for bucket in from.div_euclid(MS_AN_HOUR)..=(now + SKEW_MS).div_euclid(MS_AN_HOUR) {
            let bucket = format!("{bucket:010}");
            let mut range = Range { after: Some(sort(from).into_bytes()), ..Range::default() };
            loop {
                let page: Vec<(String, Held<i64>)> = db.page(REVOCATIONS, &bucket, &range, PAGE_MAX).await?;
                range.after = page.last().map(|(sort, _)| sort.clone().into_bytes());
                let full = page.len() == PAGE_MAX;
                found.extend(page.into_iter().filter_map(|(sort, held)| {
                    sort.split_once('/').map(|(_, session)| (session.to_owned(), EventTime(held.value)))
                }));
                if !full {
                    break;
                }
            }
        }
        let mut known = self.0.write();
        known.sessions.retain(|_, until| until.0 > now);
        known.sessions.extend(found);
        known.read_to = Some(now);
        known.read_at = Some(started);
        Ok(())
    }

    /// Whether a session's tokens are worthless; so are all when what was revoked is not known.
    pub fn is_revoked(&self, session: &str) -> bool {
        self.0.read().sessions.contains_key(session)
    }

    /// Whether it was read recently enough to decide by.
    pub fn is_fresh(&self) -> bool {
        self.0.read().read_at.is_some_and(|at| at.elapsed() < STALE)
    }
}
