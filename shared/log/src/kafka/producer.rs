//! Appending: many records in flight, one answer per call.
//!
//! ```text
//! send(topic, items) ──▶ librdkafka's queue (bounded) ──▶ brokers ──delivery──▶ Ticket (one a record) ──▶ Call ──▶ places
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka::Message;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::sync::oneshot;

use super::config::KafkaConfig;
use super::context::Context;
use super::errors::{counted, from_code, from_error, seconds};
use super::native::bootstrap;
use crate::LogError;

/// Back-off while the queue is full.
const FULL: Duration = Duration::from_millis(2);
/// Extra timeout on top of librdkafka's, which always answers; guards against the impossible.
const GRACE: Duration = Duration::from_secs(5);

/// How long a delivery may take before the client may have lost all brokers.
const IN_VAIN: Duration = Duration::from_secs(2);

/// One message to write; without a payload a tombstone.
pub(super) struct Item {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// The partition and offset of a written message.
pub(super) type Written = (u32, u64);

/// The deliveries of one call.
struct Call {
    state: Mutex<State>,
}

struct State {
    /// By the message's index in the call.
    written: Vec<Option<Written>>,
    /// Pending deliveries.
    left: usize,
    /// The error of the first failed message.
    failed: Option<RDKafkaErrorCode>,
    done: Option<oneshot::Sender<()>>,
}

impl Call {
    fn settle(&self, number: usize, outcome: Result<Written, RDKafkaErrorCode>) {
        let mut state = self.state.lock();
        match outcome {
            Ok(written) => state.written[number] = Some(written),
            Err(code) => _ = state.failed.get_or_insert(code),
        }
        state.left -= 1;
        if state.left == 0
            && let Some(done) = state.done.take()
        {
            // The caller may be gone.
            let _ = done.send(());
        }
    }
}

/// Travels with each message through librdkafka and returns with its delivery report.
pub(super) struct Ticket {
    call: Arc<Call>,
    number: usize,
}

impl Ticket {
    pub(super) fn delivered(&self, delivered: &DeliveryResult<'_>) {
        let outcome = match delivered {
            Ok(message) => match (u32::try_from(message.partition()), u64::try_from(message.offset())) {
                (Ok(partition), Ok(offset)) => Ok((partition, offset)),
                _ => Err(RDKafkaErrorCode::Unknown),
            },
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.call.settle(self.number, outcome);
    }
}

type Native = ThreadedProducer<Context>;

/// The producer of a log. Recreated after a fatal error of librdkafka's idempotent producer.
pub(super) struct Producer {
    config: KafkaConfig,
    native: RwLock<Arc<Native>>,
}

fn native(config: &KafkaConfig) -> Result<Arc<Native>, LogError> {
    let made = config.producer().create_with_context(Context::new(&config.brokers));
    made.map(Arc::new).map_err(|error| from_error(&error, "could not make a producer"))
}

impl Producer {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        Ok(Self { config: config.clone(), native: RwLock::new(native(config)?) })
    }

    /// Writes messages to a topic in this order; returns their offsets once all in-sync replicas have them.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: each may or may not be there. [`LogError::Refused`]: as its text says.
    pub(super) async fn send(&self, topic: &str, items: Vec<Item>) -> Result<Vec<Written>, LogError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let native = self.native.read().clone();
        let outcome = self.try_send(&native, topic, items).await;
        if native.client().fatal_error().is_some() {
            self.renew(&native);
        }
        outcome.map_err(|error| counted(error, "append"))
    }

    async fn try_send(&self, native: &Native, topic: &str, items: Vec<Item>) -> Result<Vec<Written>, LogError> {
        let count = items.len();
        let deadline = Instant::now() + self.config.timeout();
        let (done, all_done) = oneshot::channel();
        let state = State { written: vec![None; count], left: count, failed: None, done: Some(done) };
        let call = Arc::new(Call { state: Mutex::new(state) });
        for (number, item) in items.iter().enumerate() {
            if let Err(code) = Self::enqueue(native, topic, item, Box::new(Ticket { call: call.clone(), number }), deadline).await
            {
                // This message and the rest are not sent; await those that were, so that the result is complete.
                for unsent in number..count {
                    call.settle(unsent, Err(code));
                }
                break;
            }
        }
        let until = Instant::now() + self.config.timeout() + GRACE;
        let mut all_done = all_done;
        while tokio::time::timeout(IN_VAIN, &mut all_done).await.is_err() {
            if Instant::now() >= until {
                return Err(LogError::Unavailable(format!(
                    "no broker answered within {}",
                    seconds(self.config.timeout() + GRACE)
                )));
            }
            bootstrap(native.client());
        }
        let state = call.state.lock();
        let written: Vec<Written> = state.written.iter().copied().flatten().collect();
        match state.failed {
            None => Ok(written),
            Some(code) => {
                let there = written.len();
                let doing = match there {
                    0 => format!("could not append to {topic}"),
                    _ => format!("could not append all {count} records to {topic}; {there} are there"),
                };
                Err(from_code(code, &doing))
            }
        }
    }

    /// Puts a message into librdkafka's queue, waiting for capacity until `deadline`.
    async fn enqueue(
        native: &Native,
        topic: &str,
        item: &Item,
        ticket: Box<Ticket>,
        deadline: Instant,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut record: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(topic, ticket);
        record.key = item.key.as_deref();
        record.payload = item.payload.as_deref();
        while let Err((error, back)) = native.send(record) {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code != RDKafkaErrorCode::QueueFull || Instant::now() >= deadline {
                return Err(code);
            }
            record = back;
            tokio::time::sleep(FULL).await;
        }
        Ok(())
    }

    fn renew(&self, broken: &Arc<Native>) {
        let mut current = self.native.write();
        if !Arc::ptr_eq(&current, broken) {
            return;
        }
        let reason = broken.client().fatal_error().map_or_else(String::new, |(_, reason)| reason);
        match native(&self.config) {
            Ok(new) => {
                tracing::warn!(reason, "recreated the Kafka producer after a fatal error");
                metrics::counter!("log_producers_renewed_total").increment(1);
                *current = new;
            }
            Err(error) => tracing::error!(reason, "could not recreate the Kafka producer: {error}"),
        }
    }
}
