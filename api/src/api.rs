//! The state that all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use tokio::sync::watch;

use crate::auth::{Forwarding, KeyRing, Streams};
use crate::conflicts::RecentVersions;
use crate::context::{ApiConfig, Context};
use crate::quota::PageQuotas;
use crate::request_metrics::RequestMetrics;
use crate::routes::body::BodyBudget;
use crate::routes::endpoint::Table;
use crate::serving::{Served, Serving};

pub(crate) struct Api {
    pub context: Context,
    pub config: ApiConfig,
    pub table: Table,
    pub served: Served,
    pub ring: Arc<KeyRing>,
    pub forwarding: Arc<Forwarding>,
    pub metrics: RequestMetrics,
    pub reco_ids: RecoIds,
    pub versions: RecentVersions,
    pub quotas: PageQuotas,
    /// Bytes of request bodies in memory.
    pub bodies: Arc<BodyBudget>,
    pub streams: Arc<Streams>,
    /// Becomes true at shutdown: streams end.
    pub stopping: watch::Receiver<bool>,
}

impl Api {
    /// The live generation. A request takes it once, so that its response is not a mix of two.
    pub fn live(&self) -> Arc<Serving> {
        self.served.live()
    }
}

/// Unique ids of list responses: 64 random bits of the process and a counter.
pub(crate) struct RecoIds {
    process: u64,
    count: AtomicU64,
}

impl RecoIds {
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { process: getrandom::u64()?, count: AtomicU64::new(0) })
    }

    pub fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let answer = self.count.fetch_add(1, Ordering::Relaxed);
        let mut text = [0u8; 32];
        for (half, number) in text.chunks_exact_mut(16).zip([self.process, answer]) {
            for (n, digit) in half.iter_mut().enumerate() {
                *digit = DIGITS[(number >> (60 - 4 * n)) as usize & 15];
            }
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits")
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
}
