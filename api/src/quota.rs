//! Quotas of publishable keys: counters per key, address and session within a time window.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kindred_model::SessionId;

use crate::problem::{Code, Problem};

/// Counters per window; beyond it the least recently used are dropped and start over.
const COUNTED_MAX: u64 = 200_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Counters whose window begins with their first count.
struct Window<K>(moka::sync::Cache<K, Arc<AtomicU32>>);

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Window<K> {
    fn new(length: Duration) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(COUNTED_MAX).time_to_live(length).build())
    }

    /// Adds `more` unless that exceeds `most`; whether it was added.
    fn count(&self, who: K, more: u32, most: u32) -> bool {
        let counted = self.0.get_with(who, Arc::default);
        let room = |counted: u32| counted.checked_add(more).filter(|sum| *sum <= most);
        counted.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok()
    }

    fn release(&self, who: &K, less: u32) {
        if let Some(counted) = self.0.get(who) {
            let _ = counted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sum| Some(sum.saturating_sub(less)));
        }
    }

    fn knows(&self, who: &K) -> bool {
        self.0.contains_key(who)
    }
}

/// (key, client address where known).
type Poster = (Arc<str>, Option<IpAddr>);

/// What is posted through publishable keys, which are public.
pub(crate) struct PageQuotas {
    records: Window<Poster>,
    new_sessions: Window<Poster>,
    of_session: Window<(Arc<str>, SessionId)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimits {
    /// Records per minute and key.
    pub records: u32,
    /// Records per minute, key and address.
    pub records_of_address: u32,
    /// New sessions per hour and address.
    pub new_sessions: u32,
    /// Records per hour and session.
    pub records_of_session: u32,
}

/// What one request used; [`PageQuotas::release`] gives it back.
pub(crate) struct Usage {
    poster: Poster,
    records: u32,
    sessions: Vec<(SessionId, u32)>,
    new_sessions: u32,
}

impl PageQuotas {
    pub fn new() -> Self {
        Self { records: Window::new(MINUTE), new_sessions: Window::new(HOUR), of_session: Window::new(HOUR) }
    }

    /// Counts the records of a request, or returns a 429 that names the exceeded quota and counts nothing.
    pub fn count(
        &self,
        key: &str,
        address: Option<IpAddr>,
        sessions: Vec<(SessionId, u32)>,
        limits: PageLimits,
    ) -> Result<Usage, Problem> {
        let records = sessions.iter().fold(0u32, |sum, (_, records)| sum.saturating_add(*records));
        let mut posted = Usage { poster: (key.into(), address), records: 0, sessions: Vec::new(), new_sessions: 0 };
        let counted = self.count_into(&mut posted, records, sessions, limits);
        if let Err((code, what, most, window)) = counted {
            self.release(&posted);
            let detail = format!("quota of {most} {what} exceeded for this publishable key; nothing was appended");
            return Err(Problem::new(code, detail).retry_after(window.as_secs()));
        }
        Ok(posted)
    }

    fn count_into(
        &self,
        posted: &mut Usage,
        records: u32,
        sessions: Vec<(SessionId, u32)>,
        limits: PageLimits,
    ) -> Result<(), (Code, &'static str, u32, Duration)> {
        let (key, address) = posted.poster.clone();
        let whole = (key.clone(), None);
        if address.is_some() && !self.records.count(posted.poster.clone(), records, limits.records_of_address) {
            return Err((Code::RateLimited, "records per minute from one address", limits.records_of_address, MINUTE));
        }
        if !self.records.count(whole, records, limits.records) {
            if address.is_some() {
                self.records.release(&posted.poster, records);
            }
            return Err((Code::RateLimited, "records per minute", limits.records, MINUTE));
        }
        posted.records = records;
        for (session, records) in sessions {
            let of_session = (key.clone(), session);
            let is_new = address.is_some() && !self.of_session.knows(&of_session);
            if is_new && !self.new_sessions.count(posted.poster.clone(), 1, limits.new_sessions) {
                let what = "new sessions per hour from one address";
                return Err((Code::SessionLimit, what, limits.new_sessions, HOUR));
            }
            posted.new_sessions += u32::from(is_new);
            if !self.of_session.count(of_session.clone(), records, limits.records_of_session) {
                let what = "records per hour of one session";
                return Err((Code::SessionLimit, what, limits.records_of_session, HOUR));
            }
            posted.sessions.push((of_session.1, records));
        }
        Ok(())
    }

    /// Gives back what a request used, when nothing of it was appended.
    pub fn release(&self, posted: &Usage) {
        let (key, address) = &posted.poster;
        self.records.release(&(key.clone(), None), posted.records);
        if address.is_some() {
            self.records.release(&posted.poster, posted.records);
            self.new_sessions.release(&posted.poster, posted.new_sessions);
        }
        for (session, records) in &posted.sessions {
            self.of_session.release(&(key.clone(), session.clone()), *records);
        }
    }
}

/// `most / share`, but at least `least` and at most `most`.
pub(crate) fn share_of(most: u32, share: u32, least: u32) -> u32 {
    (most / share.max(1)).max(least).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PageLimits = PageLimits { records: 30, records_of_address: 20, new_sessions: 3, records_of_session: 10 };

    /// If it failed, one address could post without an end through a key that stands in every page.
    #[test]
    fn what_one_address_posts_is_bounded_in_records_and_sessions() {
        let quotas = PageQuotas::new();
        let sessions = |names: &[&str], records| -> Vec<(SessionId, u32)> {
            names.iter().map(|name| (SessionId::parse(name).unwrap(), records)).collect()
        };
        let (one, other) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
        let code = |counted: Result<Usage, Problem>| counted.err().map(|problem| problem.code);
        assert_eq!(code(quotas.count("k", one, sessions(&["a"], 6), LIMITS)), None);
        assert_eq!(code(quotas.count("k", one, sessions(&["a"], 5), LIMITS)), Some(Code::SessionLimit), "of the session");
        assert_eq!(code(quotas.count("k", one, sessions(&["b", "c", "d"], 1), LIMITS)), Some(Code::SessionLimit), "new sessions");
        assert_eq!(code(quotas.count("k", one, sessions(&["b", "c"], 7), LIMITS)), None, "what was refused was not counted");
        assert_eq!(code(quotas.count("k", one, sessions(&["a"], 1), LIMITS)), Some(Code::RateLimited), "of the address");
        assert_eq!(code(quotas.count("k", other, sessions(&["d"], 10), LIMITS)), None, "another address goes on");
        assert_eq!(code(quotas.count("k", other, sessions(&["e"], 1), LIMITS)), Some(Code::RateLimited), "of the key");
        assert_eq!(code(quotas.count("l", one, sessions(&["a"], 10), LIMITS)), None, "another key goes on");
        // Given back, it may be posted.
        let posted = quotas.count("m", one, sessions(&["a"], 10), LIMITS).ok().unwrap();
        assert!(quotas.count("m", one, sessions(&["a"], 1), LIMITS).is_err());
        quotas.release(&posted);
        assert_eq!(code(quotas.count("m", one, sessions(&["a"], 10), LIMITS)), None);
    }

    #[test]
    fn a_share_is_never_less_than_the_least_nor_more_than_all() {
        assert_eq!([share_of(6_000, 20, 60), share_of(600, 20, 60), share_of(3, 20, 60), share_of(9, 0, 1)], [300, 60, 3, 9]);
    }
}
