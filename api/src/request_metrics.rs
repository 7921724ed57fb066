//! Metrics: names, units, and the handles of the hot route, which is looked up once and not per request.

use metrics::{Counter, Histogram};

/// How long requests took, in seconds; labels `method`, `route` (the template), `status`.
const DURATION: &str = "http_server_request_duration_seconds";
/// The template of the hot route.
pub(crate) const SIMILAR: &str = "/v1/items/{item}/similar";

/// Handles of what is counted on every request for a list.
pub(crate) struct RequestMetrics {
    similar_ok: Histogram,
    similar_not_modified: Histogram,
    /// Lists served, label `view`.
    pub lists: Counter,
    /// Events accepted.
    pub events_accepted: Counter,
    /// Events rejected at this edge.
    pub events_rejected: Counter,
}

impl RequestMetrics {
    /// Looks the handles up: after the recorder is installed.
    pub fn new() -> Self {
        metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "how long requests took");
        metrics::describe_counter!("recs_served_total", "lists served, by view");
        metrics::describe_counter!("api_events_total", "records posted, by outcome");
        metrics::describe_counter!("auth_failures_total", "callers refused, by reason");
        metrics::describe_gauge!("api_streams", "streams open");
        let similar =
            |status: &'static str| metrics::histogram!(DURATION, "method" => "GET", "route" => SIMILAR, "status" => status);
        Self {
            similar_ok: similar("200"),
            similar_not_modified: similar("304"),
            lists: metrics::counter!("recs_served_total", "view" => "also_bought"),
            events_accepted: metrics::counter!("api_events_total", "outcome" => "accepted"),
            events_rejected: metrics::counter!("api_events_total", "outcome" => "rejected"),
        }
    }

    /// Counts one answered request.
    pub fn answered(&self, method: &'static str, route: &'static str, status: u16, seconds: f64) {
        match (route, status) {
            (SIMILAR, 200) => self.similar_ok.record(seconds),
            (SIMILAR, 304) => self.similar_not_modified.record(seconds),
            _ => metrics::histogram!(DURATION, "method" => method, "route" => route, "status" => status.to_string())
                .record(seconds),
        }
    }
}
