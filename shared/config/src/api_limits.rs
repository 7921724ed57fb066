//! `api.limits.*`: rate limits and capacities of the API per caller, per address and in total.

settings! {
    ApiLimits, "api.limits":
    /// Bytes of a body; beyond it 413. Fits 10,000 records of a kilobyte.
    body_bytes: usize = 10_000_000, 1_000..=1 << 30;
    /// Bytes of all bodies being received or processed; beyond it 503. 25 of the largest, or 4,000 from pages.
    bodies_bytes: usize = 256 << 20, 1 << 20..=1 << 40;
    /// The same per address; beyond it 503. Six of the largest: more than a server sends in parallel.
    bodies_bytes_per_address: usize = 64 << 20, 64 << 10..=1 << 40;
    /// Records of a request; beyond it 413. A batch this large is one fsync already; larger ones gain nothing.
    records: usize = 10_000, 1..=1_000_000;
    /// Timeout for receiving a body, in milliseconds; beyond it 408.
    body_read_ms: u64 = 30_000, 100..=3_600_000;
    /// Timeout of a handler, in milliseconds; beyond it 503. Streams, exports and verify are exempt.
    handler_ms: u64 = 30_000, 100..=3_600_000;
    /// Timeout for an erasure to pass the pipeline, in milliseconds; beyond it 503.
    erasure_wait_ms: u64 = 10_000, 100..=3_600_000;
    /// Open connections; beyond it new ones wait to be accepted.
    connections: usize = 10_000, 1..=1_000_000;
    /// Open connections per address, except trusted proxies; beyond it a new one is answered 503 and closed. Fits an office of
    /// some dozens, with tabs.
    connections_per_address: usize = 200, 1..=1_000_000;
    /// Timeout for a client to read 16 KiB of a response, in milliseconds; beyond it the connection is closed.
    write_stall_ms: u64 = 30_000, 1_000..=3_600_000;
    /// Streams per key; beyond it 429. All visitors of a shop share a publishable key.
    streams_per_key: usize = 1_000, 1..=1_000_000;
    /// Streams per signed-in person; beyond it 429. Fits the widgets of some tabs.
    streams_per_person: usize = 32, 1..=1_000_000;
    /// The share of a publishable key's limits that one address gets is 1 / this number: of requests a minute (at least 60),
    /// streams (at least 16), records a minute (at least 200); beyond it 429.
    address_share: u32 = 20, 1..=10_000;
    /// Bytes of a body with a publishable key; beyond it 413. Fits 200 records of a browser.
    page_body_bytes: usize = 64 << 10, 1_000..=1 << 30;
    /// Records of a request with a publishable key; beyond it 413. What the widget buffers while offline.
    page_records: usize = 200, 1..=1_000_000;
    /// Records a minute of a publishable key; beyond it 429. Two per request, at 6,000 requests.
    page_records_per_minute: u32 = 12_000, 1..=100_000_000;
    /// New sessions an hour that one address posts for with a publishable key; beyond it 429. An address may be an office's.
    page_sessions_per_hour: u32 = 200, 1..=100_000_000;
    /// Maximum age in days of records posted with a publishable key; beyond it the record is refused. Fits a browser closed over
    /// a holiday.
    page_past_days: u32 = 7, 1..=36_500;
    /// Accept records with publishable keys about items that neither the catalog nor an order names. Always on without a catalog.
    page_unknown_items: bool = false;
    /// Records a session may post in an hour through a publishable key; beyond it 429. A person makes some hundreds.
    records_per_session_hour: u32 = 1_000, 1..=100_000_000;
}
