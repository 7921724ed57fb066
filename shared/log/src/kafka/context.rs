//! Callbacks of librdkafka's clients: log lines, connection errors, statistics, deliveries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::statistics::Statistics;
use tracing::{debug, warn};

use super::producer::Ticket;

/// How often the bootstrap servers are given again to a client without brokers.
const NAMED_AGAIN: Duration = Duration::from_secs(2);

/// The context of every client: tracks whether any broker is reachable.
pub(super) struct Context {
    /// The bootstrap servers.
    brokers: String,
    /// When they were last given to the client again.
    named_at: Mutex<Option<Instant>>,
    down: AtomicBool,
    reason: Mutex<String>,
}

impl Context {
    pub(super) fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), named_at: Mutex::default(), down: AtomicBool::default(), reason: Mutex::default() }
    }

    /// The bootstrap servers, if it is time to give them to the client again.
    pub(super) fn to_name_again(&self) -> Option<&str> {
        let mut named_at = self.named_at.lock();
        if named_at.is_some_and(|at| at.elapsed() < NAMED_AGAIN) {
            return None;
        }
        *named_at = Some(Instant::now());
        Some(&self.brokers)
    }

    /// Why no broker is reachable; `None` while one is, as far as known.
    pub(super) fn down(&self) -> Option<String> {
        self.down.load(Ordering::Acquire).then(|| self.reason.lock().clone())
    }

    /// A broker has answered.
    pub(super) fn answered(&self) {
        self.down.store(false, Ordering::Release);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(target: "kafka", facility = fac, "{message}"),
            // Connection failures are reported once by the call that waits for them.
            _ if fac == "FAIL" || fac == "ERROR" => debug!(target: "kafka", facility = fac, "{message}"),
            _ => warn!(target: "kafka", facility = fac, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        metrics::counter!("log_client_errors_total").increment(1);
        debug!(target: "kafka", ?code, "{reason}");
        let down = matches!(
            code,
            Some(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed
            )
        );
        if down {
            reason.clone_into(&mut self.reason.lock());
            self.down.store(true, Ordering::Release);
        } else if !self.down.load(Ordering::Acquire) {
            // The cause of an "all brokers are down" that may follow.
            reason.clone_into(&mut self.reason.lock());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let sum = |count: fn(&rdkafka::statistics::Broker) -> u64| statistics.brokers.values().map(count).sum();
        metrics::counter!("log_retries_total").absolute(sum(|broker| broker.txretries));
        metrics::counter!("log_request_timeouts_total").absolute(sum(|broker| broker.req_timeouts));
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
        metrics::gauge!("log_append_queue_bytes").set(statistics.msg_size as f64);
    }
}

impl ConsumerContext for Context {}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.delivered(delivered);
    }
}
