//! Names and units of the metrics, and prepared handles for the hot route.

use metrics::{Counter, Histogram};

/// Seconds; labels `method`, `route` (the template), `status`.
const DURATION: &str = "http_server_request_duration_seconds";
/// The template of the hot route.
pub(crate) const SIMILAR: &str = "/v1/items/{item}/similar";

pub(crate) struct RequestMetrics {
    similar_ok: Histogram,
    similar_not_modified: Histogram,
    /// Lists served, label `view`.
    pub lists: Counter,
    /// Events accepted.
    pub events_accepted: Counter,
    /// Events rejected before the log.
    pub events_rejected: Counter,
}

impl RequestMetrics {
    /// Requires that the recorder is installed.
    pub fn new() -> Self {
        metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "request duration");
        metrics::describe_counter!("recs_served_total", "lists served, by view");
        metrics::describe_counter!("api_events_total", "records posted, by outcome");
        metrics::describe_counter!("auth_failures_total", "refused authentications, by reason");
        metrics::describe_gauge!("api_streams", "open streams");
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

    pub fn record(&self, method: &'static str, route: &'static str, status: u16, seconds: f64) {
        match (route, status) {
            (SIMILAR, 200) => self.similar_ok.record(seconds),
            (SIMILAR, 304) => self.similar_not_modified.record(seconds),
            _ => metrics::histogram!(DURATION, "method" => method, "route" => route, "status" => status.to_string())
                .record(seconds),
        }
    }
}
