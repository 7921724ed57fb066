//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use kindred_model::SessionId;
use tokio::sync::watch;

use crate::auth::{Forwarding, KeyRing, Streams};
use crate::conflicts::RecentVersions;
use crate::context::{ApiConfig, Context};
use crate::measure::Measures;
use crate::served::{Served, Serving};

/// Sessions whose records are counted at once; beyond it the least used are forgotten, and may start over.
const SESSIONS_COUNTED_MAX: u64 = 200_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// The running API.
pub(crate) struct Api {
    pub context: Context,
    pub config: ApiConfig,
    pub served: Served,
    pub ring: Arc<KeyRing>,
    pub forwarding: Arc<Forwarding>,
    pub measures: Measures,
    pub reco_ids: RecoIds,
    pub session_rates: SessionRates,
    pub versions: RecentVersions,
    pub streams: Arc<Streams>,
    /// Becomes true when the server stops: streams end.
    pub stopping: watch::Receiver<bool>,
}

impl Api {
    /// The live generation. Whoever answers takes it once, so that no answer is of two.
    pub fn live(&self) -> Arc<Serving> {
        self.served.live()
    }
}

/// Names of answers: unique, 128 bits of which 64 are drawn anew by each process.
pub(crate) struct RecoIds {
    process: u64,
    answers: AtomicU64,
}

impl RecoIds {
    /// Begins a new series.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { process: getrandom::u64()?, answers: AtomicU64::new(0) })
    }

    /// The next name.
    pub fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut text = [0u8; 32];
        for (half, number) in text.chunks_exact_mut(16).zip([self.process, answer]) {
            for (n, digit) in half.iter_mut().enumerate() {
                *digit = DIGITS[(number >> (60 - 4 * n)) as usize & 15];
            }
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits")
    }
}

/// How many records each session posted through a publishable key, within an hour of its first.
pub(crate) struct SessionRates(moka::sync::Cache<(Box<str>, SessionId), Arc<AtomicU32>>);

impl SessionRates {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(SESSIONS_COUNTED_MAX).time_to_live(HOUR).build())
    }

    /// Counts `records` of a session unless they would be more than `most`; whether they were counted.
    pub fn count(&self, key: &str, session: &SessionId, records: u32, most: u32) -> bool {
        let posted = self.0.get_with((key.into(), session.clone()), Arc::default);
        let room = |posted: u32| posted.checked_add(records).filter(|sum| *sum <= most);
        posted.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok()
    }

    /// Takes back what was counted: nothing of it was appended.
    pub fn forgive(&self, key: &str, session: &SessionId, records: u32) {
        if let Some(posted) = self.0.get(&(key.into(), session.clone())) {
            posted.fetch_sub(records, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_answers_differ() {
        let ids = RecoIds::new().unwrap();
        let (one, other) = (ids.next(), ids.next());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
        assert_eq!(one.as_bytes()[..16], other.as_bytes()[..16]);
    }

    #[test]
    fn a_session_has_its_records_an_hour() {
        let rates = SessionRates::new();
        let session = SessionId::parse("s").unwrap();
        assert!(rates.count("k", &session, 6, 10) && !rates.count("k", &session, 5, 10));
        assert!(rates.count("other", &session, 10, 10));
        rates.forgive("k", &session, 6);
        assert!(rates.count("k", &session, 10, 10));
    }
}
