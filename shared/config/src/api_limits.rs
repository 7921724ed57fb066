//! `api.limits.*`: rate limits and capacities of the API per caller, per address and in total.

use serde::{Deserialize, Serialize};

/// `api.limits.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// Bytes of a body; beyond it 413. Fits 10,000 records of a kilobyte.
    pub body_bytes: usize,
    /// Bytes of all bodies being received or processed; beyond it 503. 25 of the largest, or 4,000 from pages.
    pub bodies_bytes: usize,
    /// The same per address; beyond it 503. Six of the largest: more than a server sends in parallel.
    pub bodies_bytes_per_address: usize,
    /// Records of a request; beyond it 413. A batch this large is one fsync already; larger ones gain nothing.
    pub records: usize,
    /// Timeout for receiving a body, in milliseconds; beyond it 408.
    pub body_read_ms: u64,
    /// Timeout of a handler, in milliseconds; beyond it 503. Streams, exports and verify are exempt.
    pub handler_ms: u64,
    /// Timeout for an erasure to pass the pipeline, in milliseconds; beyond it 503.
    pub erasure_wait_ms: u64,
    /// Open connections; beyond it new ones wait to be accepted.
    pub connections: usize,
    /// Open connections per address, except trusted proxies; beyond it a new one is answered 503 and closed. Fits an office of
    /// some dozens, with tabs.
    pub connections_per_address: usize,
    /// Timeout for a client to read 16 KiB of a response, in milliseconds; beyond it the connection is closed.
    pub write_stall_ms: u64,
    /// Streams per key; beyond it 429. All visitors of a shop share a publishable key.
    pub streams_per_key: usize,
    /// Streams per signed-in person; beyond it 429. Fits the widgets of some tabs.
    pub streams_per_person: usize,
    /// The share of a publishable key's limits that one address gets is 1 / this number: of requests a minute (at least 60),
    /// streams (at least 16), records a minute (at least 200); beyond it 429.
    pub address_share: u32,
    /// Bytes of a body with a publishable key; beyond it 413. Fits 200 records of a browser.
    pub page_body_bytes: usize,
    /// Records of a request with a publishable key; beyond it 413. What the widget buffers while offline.
    pub page_records: usize,
    /// Records a minute of a publishable key; beyond it 429. Two per request, at 6,000 requests.
    pub page_records_per_minute: u32,
    /// New sessions an hour that one address posts for with a publishable key; beyond it 429. An address may be an office's.
    pub page_sessions_per_hour: u32,
    /// Maximum age in days of records posted with a publishable key; beyond it the record is refused. Fits a browser closed over
    /// a holiday.
    pub page_past_days: u32,
    /// Accept records with publishable keys about items that neither the catalog nor an order names. Always on without a catalog.
    pub page_unknown_items: bool,
    /// Records a session may post in an hour through a publishable key; beyond it 429. A person makes some hundreds.
    pub records_per_session_hour: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            body_bytes: 10_000_000,
            bodies_bytes: 256 << 20,
            bodies_bytes_per_address: 64 << 20,
            records: 10_000,
            body_read_ms: 30_000,
            handler_ms: 30_000,
            erasure_wait_ms: 10_000,
            connections: 10_000,
            connections_per_address: 200,
            write_stall_ms: 30_000,
            streams_per_key: 1_000,
            streams_per_person: 32,
            address_share: 20,
            page_body_bytes: 64 << 10,
            page_records: 200,
            page_records_per_minute: 12_000,
            page_sessions_per_hour: 200,
            page_past_days: 7,
            page_unknown_items: false,
            records_per_session_hour: 1_000,
        }
    }
}

impl ApiLimits {
    /// Each limit: name, value, minimum, maximum.
    pub(crate) fn bounds(&self) -> Vec<(&'static str, u64, u64, u64)> {
        vec![
            ("body_bytes", self.body_bytes as u64, 1_000, 1 << 30),
            ("bodies_bytes", self.bodies_bytes as u64, 1 << 20, 1 << 40),
            ("bodies_bytes_per_address", self.bodies_bytes_per_address as u64, 64 << 10, 1 << 40),
            ("records", self.records as u64, 1, 1_000_000),
            ("body_read_ms", self.body_read_ms, 100, 3_600_000),
            ("handler_ms", self.handler_ms, 100, 3_600_000),
            ("erasure_wait_ms", self.erasure_wait_ms, 100, 3_600_000),
            ("connections", self.connections as u64, 1, 1_000_000),
            ("connections_per_address", self.connections_per_address as u64, 1, 1_000_000),
            ("write_stall_ms", self.write_stall_ms, 1_000, 3_600_000),
            ("streams_per_key", self.streams_per_key as u64, 1, 1_000_000),
            ("streams_per_person", self.streams_per_person as u64, 1, 1_000_000),
            ("address_share", self.address_share.into(), 1, 10_000),
            ("page_body_bytes", self.page_body_bytes as u64, 1_000, 1 << 30),
            ("page_records", self.page_records as u64, 1, 1_000_000),
            ("page_records_per_minute", self.page_records_per_minute.into(), 1, 100_000_000),
            ("page_sessions_per_hour", self.page_sessions_per_hour.into(), 1, 100_000_000),
            ("page_past_days", self.page_past_days.into(), 1, 36_500),
            ("records_per_session_hour", self.records_per_session_hour.into(), 1, 100_000_000),
        ]
    }
}
