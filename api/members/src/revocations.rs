//! Access tokens that must not be taken any more although they have not expired: those of ended sessions (V7.4.1).
//!
//! ```text
//! revoke ──▶ memory, at once ──▶ revocations[hour] ──▶ refresh, in every process, twice a second ──▶ memory
//! ```
//!
//! An entry names a session, or a member with the first epoch whose tokens are good. It outlives the longest-lived access token and no
//! more, so memory is bounded by what ended within ten minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kindred_model::units::EventTime;
use kindred_store::records::Range;
use parking_lot::RwLock;

use crate::db::{self, Db, Held, REVOCATIONS};
use crate::error::Result;

/// By how much the clocks of processes may differ, milliseconds: what was written that long ago is read again.
const SKEW_MS: i64 = 30_000;
/// Beyond the life of a token: its leeway, and clocks that differ.
const BEYOND_S: u64 = 60;
const MS_AN_HOUR: i64 = 3_600_000;
/// The entry that says that a signing key was withdrawn. No session is called so.
const RING: &str = "#ring";
/// How old the list may be before no token is taken any more: it fails closed (V16.5.3).
const STALE: Duration = Duration::from_secs(60);

/// The sessions whose tokens are worthless.
pub(crate) struct Revocations {
    db: Db,
    /// Life of an access token, seconds.
    access_s: u32,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Until when each has to be remembered.
    sessions: HashMap<String, EventTime>,
    /// By member.
    floors: HashMap<String, Vec<Floor>>,
    /// Up to where the records were read.
    read_to: Option<i64>,
    read_at: Option<Instant>,
}

/// The first epoch of a member whose tokens are good, and the one session to which that does not apply.
#[derive(Clone, PartialEq, Eq)]
struct Floor {
    epoch: u64,
    except: Option<String>,
    until: EventTime,
}

impl Known {
    /// Takes an entry as it is stored: `SESSION`, or `@MEMBER/EPOCH/SESSION THAT GOES ON`, or [`RING`].
    fn learn(&mut self, entry: &str, until: EventTime) {
        if entry == RING {
            return;
        }
        let Some(floor) = entry.strip_prefix('@') else {
            self.sessions.insert(entry.to_owned(), until);
            return;
        };
        let mut parts = floor.splitn(3, '/');
        if let (Some(member), Some(Ok(epoch)), Some(except)) = (parts.next(), parts.next().map(str::parse), parts.next()) {
            let floor = Floor { epoch, except: Some(except.to_owned()).filter(|sid| !sid.is_empty()), until };
            let floors = self.floors.entry(member.to_owned()).or_default();
            if !floors.contains(&floor) {
                floors.push(floor);
            }
        }
    }

    fn forget(&mut self, now: i64) {
        self.sessions.retain(|_, until| until.0 > now);
        self.floors.retain(|_, floors| {
            floors.retain(|floor| floor.until.0 > now);
            !floors.is_empty()
        });
    }
}

fn hour(ms: i64) -> String {
    format!("{:010}", ms.div_euclid(MS_AN_HOUR))
}

fn sort(ms: i64) -> String {
    format!("{:015}/", ms.max(0))
}

impl Revocations {
    pub fn new(db: Db, access_s: u32) -> Self {
        Self { db, access_s, known: RwLock::default() }
    }

    /// Revokes sessions, by id: here at once, elsewhere when it is read. Doing it again does no harm.
    pub async fn revoke(&self, entries: &[String]) -> Result<()> {
        let now = self.db.now();
        let until = db::after(now, u64::from(self.access_s) + BEYOND_S);
        {
            let mut known = self.known.write();
            entries.iter().for_each(|entry| known.learn(entry, until));
        }
        for entry in entries {
            let sort = format!("{}{entry}", sort(now.0));
            self.db.insert(REVOCATIONS, &hour(now.0), &sort, &until.0, Some(until)).await?;
        }
        Ok(())
    }

    /// Revokes the sessions of a member that began before an epoch, but for one.
    pub async fn revoke_before(&self, member: &str, epoch: u64, except: Option<&str>) -> Result<()> {
        self.revoke(&[format!("@{member}/{epoch}/{}", except.unwrap_or_default())]).await
    }

    /// Has every process read the key ring: a key was withdrawn.
    pub async fn announce_ring(&self) -> Result<()> {
        self.revoke(&[RING.to_owned()]).await
    }

    /// Reads what others have revoked since the last time; whether the key ring may have changed.
    pub async fn refresh(&self) -> Result<bool> {
        let started = Instant::now();
        let now = self.db.now().0;
        let oldest = now - (i64::from(self.access_s) + BEYOND_S as i64) * 1_000;
        let from = self.known.read().read_to.map_or(oldest, |read_to| (read_to - SKEW_MS).max(oldest));
        let mut found = Vec::new();
        for bucket in from.div_euclid(MS_AN_HOUR)..=(now + SKEW_MS).div_euclid(MS_AN_HOUR) {
            let bucket = format!("{bucket:010}");
            let range = Range { after: Some(sort(from).into_bytes()), ..Range::default() };
            let entries: Vec<(String, Held<i64>)> = self.db.all_in(REVOCATIONS, &bucket, range).await?;
            found.extend(
                entries
                    .into_iter()
                    .filter_map(|(sort, held)| sort.split_once('/').map(|(_, entry)| (entry.to_owned(), EventTime(held.value)))),
            );
        }
        let mut known = self.known.write();
        known.forget(now);
        found.iter().for_each(|(entry, until)| known.learn(entry, *until));
        known.read_to = Some(now);
        known.read_at = Some(started);
        Ok(found.iter().any(|(entry, _)| entry == RING))
    }

    /// Whether the tokens of a member's session, of an epoch, are worthless; so are all when what was revoked is not known.
    pub fn is_revoked(&self, member: &str, session: &str, epoch: u64) -> bool {
        let known = self.known.read();
        let ended = |floor: &Floor| epoch < floor.epoch && floor.except.as_deref() != Some(session);
        known.sessions.contains_key(session) || known.floors.get(member).is_some_and(|floors| floors.iter().any(ended))
    }

    /// Whether it was read recently enough to decide by.
    pub fn is_fresh(&self) -> bool {
        self.known.read().read_at.is_some_and(|at| at.elapsed() < STALE)
    }
}
