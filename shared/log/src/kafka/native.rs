//! What rdkafka's safe interface lacks: topic ids, and batch fetching with positions.
//!
//! ```text
//! Describing  ──DescribeTopics──▶ id and leaders of each topic         (asynchronous: a reader never waits for it)
//! Fetcher     start(topic, partition, offset) ─▶ one queue ─▶ poll ─▶ Record | End | Failed, each with topic, partition and offset
//! ```
//!
//! `BaseConsumer::poll` does not suffice: its errors do not name the topic, and its end of a partition has no offset, without
//! which a reader cannot tell its position where the last offsets hold no record. A thread also gets about twice the records a
//! second at the same CPU per record (`examples/measure_kafka.rs`: 2.6 to 3.1 against 1.2 to 1.3 million/s of 186 bytes with the
//! same fetch settings; with librdkafka's own settings 0.2). The fetcher uses librdkafka's simple consumer: no group, no commits.
//!
//! The only module of the crate with `unsafe`. Every pointer belongs to a struct that holds the client (`Arc`) it was made from,
//! and is freed before the client; librdkafka's handles are thread-safe. Miri cannot run foreign code: the tests against a real
//! broker (`tests/kafka.rs`) cover every function here.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, RDKafkaErrorCode};

use super::context::Context;

/// The client that everything here is made from; without `group.id`, so that its queues are its own.
pub(super) type Client = BaseConsumer<Context>;

/// Messages taken from the queue in one call.
const BATCH: usize = 4_096;

fn milliseconds(duration: Duration) -> i32 {
    // Rounded up: a wait of half a millisecond must not become a busy loop.
    i32::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX)
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("names of topics and brokers are checked")
}

/// # Safety
/// `text` is null or points to a NUL-terminated string that lives during the call.
unsafe fn owned(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A queue of librdkafka.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked internally.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    fn new(client: &Client) -> Self {
        // SAFETY: the client's pointer is valid as long as the client, which the queue's owner holds.
        let queue = unsafe { sys::rd_kafka_queue_new(client.client().native_ptr()) };
        Self(NonNull::new(queue).expect("a queue is made or the process is out of memory"))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `new`, dropped once, before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The state of a topic on the brokers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TopicState {
    /// Created with the topic: a recreated topic has another.
    pub id: String,
    /// Whether each partition has a leader now.
    pub led: Vec<bool>,
}

/// A pending DescribeTopics request.
pub(super) struct Describing {
    queue: Queue,
    topics: usize,
    /// Freed last.
    _client: Arc<Client>,
}

impl Describing {
    /// Sends the request. If the brokers do not answer within `timeout`, the answer is a timeout.
    pub(super) fn ask(client: &Arc<Client>, names: &[String], timeout: Duration) -> Self {
        let queue = Queue::new(client);
        let names: Vec<CString> = names.iter().map(|name| c_string(name)).collect();
        let mut pointers: Vec<*const std::ffi::c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the client lives (held by `Self`); names and pointers outlive the calls, which copy them; what is made is
        // destroyed here, once. The error buffer may be null when its size is 0.
        unsafe {
            let native = client.client().native_ptr();
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = sys::rd_kafka_AdminOptions_new(native, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds(timeout), std::ptr::null_mut(), 0);
            sys::rd_kafka_DescribeTopics(native, topics, options, queue.0.as_ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
        Self { queue, topics: names.len(), _client: client.clone() }
    }

    /// The answer once it has arrived: for each topic, in the order of the request. Can be taken once.
    pub(super) fn answer(&self, wait: Duration) -> Option<Result<Vec<Result<TopicState, RDKafkaErrorCode>>, RDKafkaErrorCode>> {
        // SAFETY: the queue is ours. The event is destroyed once, after everything that points into it has been copied. The
        // result has as many descriptions as it says, each valid as long as the event.
        unsafe {
            let event = NonNull::new(sys::rd_kafka_queue_poll(self.queue.0.as_ptr(), milliseconds(wait)))?.as_ptr();
            let error = sys::rd_kafka_event_error(event);
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            let answer = if error.is_error() {
                Err(error.into())
            } else if result.is_null() {
                Err(RDKafkaErrorCode::BadMessage)
            } else {
                let mut count = 0;
                let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                debug_assert_eq!(count, self.topics, "a description for each topic");
                Ok((0..count).map(|n| described(*descriptions.add(n))).collect())
            };
            sys::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

/// # Safety
/// `topic` is a description of a result that has not been destroyed.
unsafe fn described(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<TopicState, RDKafkaErrorCode> {
    // SAFETY: all of it belongs to the description and is copied; an error may be null, which is no error; a topic without one
    // has an id and as many partitions as it says.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code.is_error() {
                return Err(code.into());
            }
        }
        let id = owned(sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic)));
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let mut led = vec![false; count];
        for n in 0..count {
            let partition = *partitions.add(n);
            let number = usize::try_from(sys::rd_kafka_TopicPartitionInfo_partition(partition)).unwrap_or(usize::MAX);
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
            if let Some(led) = led.get_mut(number) {
                *led = !leader.is_null() && sys::rd_kafka_Node_id(leader) >= 0;
            }
        }
        Ok(TopicState { id, led })
    }
}

/// A topic as librdkafka knows it.
struct NativeTopic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's topics are counted and locked internally.
unsafe impl Send for NativeTopic {}

impl Drop for NativeTopic {
    fn drop(&mut self) {
        // SAFETY: made by `Fetcher::new`, dropped once, before the client.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A message, destroyed when dropped.
struct Message(NonNull<sys::rd_kafka_message_t>);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: handed out by `rd_kafka_consume_batch_queue`, destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// A result of a fetcher. `topic` is the index of the topic's name.
#[derive(Debug)]
pub(super) enum Fetched<'a> {
    /// A record; without a payload a tombstone. `at_ms` is the append or the producer's time, as the topic is configured.
    Record { topic: usize, partition: u32, offset: u64, at_ms: Option<u64>, key: Option<&'a [u8]>, payload: Option<&'a [u8]> },
    /// The current end of the partition: every record before `offset` was returned.
    End { topic: usize, partition: u32, offset: u64 },
    /// A partition cannot be read.
    Failed { topic: usize, partition: u32, code: RDKafkaErrorCode, reason: String },
}

/// Fetches partitions from given offsets, each in order.
pub(super) struct Fetcher {
    started: BTreeSet<(usize, u32)>,
    buffer: Vec<*mut sys::rd_kafka_message_t>,
    queue: Queue,
    topics: Vec<NativeTopic>,
    names: Vec<CString>,
    /// Freed last.
    client: Arc<Client>,
}

// SAFETY: the pointers in `buffer` are null between calls; the rest may be sent.
unsafe impl Send for Fetcher {}

impl Fetcher {
    pub(super) fn new(client: &Arc<Client>, names: &[String]) -> Self {
        let names: Vec<CString> = names.iter().map(|name| c_string(name)).collect();
        let topic = |name: &CString| {
            // SAFETY: the client lives (held by `Self`); the name is copied; a null configuration means the client's.
            let topic = unsafe { sys::rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), std::ptr::null_mut()) };
            NativeTopic(NonNull::new(topic).expect("a topic with a checked name is made"))
        };
        let topics = names.iter().map(topic).collect();
        let buffer = vec![std::ptr::null_mut(); BATCH];
        Self { started: BTreeSet::new(), buffer, queue: Queue::new(client), topics, names, client: client.clone() }
    }

    /// Starts to fetch a partition at `offset`, or at its beginning; restarts it if it was started.
    pub(super) fn start(&mut self, topic: usize, partition: u32, offset: Option<u64>) {
        self.stop(topic, partition);
        let offset = offset.map_or(i64::from(sys::RD_KAFKA_OFFSET_BEGINNING), |offset| offset.try_into().unwrap_or(i64::MAX));
        let number = i32::try_from(partition).expect("a partition of Kafka");
        // SAFETY: topic and queue are ours and live.
        let failed =
            unsafe { sys::rd_kafka_consume_start_queue(self.topics[topic].0.as_ptr(), number, offset, self.queue.0.as_ptr()) };
        // Fails only for a negative offset or partition, or a client with a group: impossible here.
        assert_eq!(failed, 0, "could not start partition {partition} at {offset}");
        self.started.insert((topic, partition));
    }

    fn stop(&mut self, topic: usize, partition: u32) {
        if self.started.remove(&(topic, partition)) {
            let number = i32::try_from(partition).expect("a partition of Kafka");
            // SAFETY: the topic is ours and lives. Records of it that are still in the queue are outdated, and dropped by
            // librdkafka.
            unsafe { sys::rd_kafka_consume_stop(self.topics[topic].0.as_ptr(), number) };
        }
    }

    /// Stops all partitions.
    pub(super) fn stop_all(&mut self) {
        for (topic, partition) in self.started.clone() {
            self.stop(topic, partition);
        }
    }

    /// The started partitions.
    pub(super) fn started(&self) -> &BTreeSet<(usize, u32)> {
        &self.started
    }

    /// Waits up to `timeout` for the first result, then hands over what is there, at most `limit`; returns how many.
    pub(super) fn poll(&mut self, limit: usize, timeout: Duration, mut each: impl FnMut(Fetched<'_>)) -> usize {
        let limit = limit.min(BATCH);
        if limit == 0 {
            return 0;
        }
        // librdkafka waits for the full count, so ask for one first, then for what is there.
        let mut count = self.take(0, 1, timeout);
        if count == 1 {
            count += self.take(1, limit - 1, Duration::ZERO);
        }
        for n in 0..count {
            let message = std::mem::replace(&mut self.buffer[n], std::ptr::null_mut());
            let message = Message(NonNull::new(message).expect("as many messages as librdkafka says"));
            if let Some(fetched) = self.read(&message) {
                each(fetched);
            }
        }
        count
    }

    fn take(&mut self, at: usize, limit: usize, timeout: Duration) -> usize {
        if limit == 0 {
            return 0;
        }
        let room = &mut self.buffer[at..at + limit];
        // SAFETY: the queue is ours; there is room for `limit` pointers.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.0.as_ptr(), milliseconds(timeout), room.as_mut_ptr(), room.len())
        };
        usize::try_from(count).unwrap_or(0)
    }

    fn read<'a>(&self, message: &'a Message) -> Option<Fetched<'a>> {
        // SAFETY: the message lives as long as `'a`, and what it points to as long as it.
        let raw = unsafe { message.0.as_ref() };
        let topic = self.topics.iter().position(|topic| topic.0.as_ptr() == raw.rkt).or_else(|| self.named(raw.rkt))?;
        let partition = u32::try_from(raw.partition).ok()?;
        let offset = u64::try_from(raw.offset);
        if raw.err.is_error() {
            let code = RDKafkaErrorCode::from(raw.err);
            return Some(match offset {
                Ok(offset) if code == RDKafkaErrorCode::PartitionEOF => Fetched::End { topic, partition, offset },
                // SAFETY: the text belongs to the message and is copied.
                _ => Fetched::Failed { topic, partition, code, reason: unsafe { owned(sys::rd_kafka_message_errstr(raw)) } },
            });
        }
        let bytes = |at: *mut std::ffi::c_void, length: usize| {
            // SAFETY: key and payload have as many bytes as the message says, and live as long as it; null is none.
            (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>().cast_const(), length) })
        };
        let (key, payload) = (bytes(raw.key, raw.key_len), bytes(raw.payload, raw.len));
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives; the call writes the kind alone. Without a timestamp the answer is -1.
        let at_ms = u64::try_from(unsafe { sys::rd_kafka_message_timestamp(raw, &raw mut kind) }).ok();
        Some(Fetched::Record { topic, partition, offset: offset.ok()?, at_ms, key, payload })
    }

    /// The index of the topic behind a foreign handle.
    fn named(&self, topic: *mut sys::rd_kafka_topic_t) -> Option<usize> {
        if topic.is_null() {
            return None;
        }
        // SAFETY: the handle belongs to a live message; its name is NUL-terminated.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) };
        self.names.iter().position(|known| known.as_c_str() == name)
    }

    /// The end of a partition according to its broker's last response, from memory.
    pub(super) fn known_end(&self, topic: usize, partition: u32) -> Option<u64> {
        let (mut low, mut high) = (-1, -1);
        let number = i32::try_from(partition).ok()?;
        // SAFETY: the client lives, the name is NUL-terminated, and both numbers are ours.
        let error = unsafe {
            let native = self.client.client().native_ptr();
            sys::rd_kafka_get_watermark_offsets(native, self.names[topic].as_ptr(), number, &raw mut low, &raw mut high)
        };
        if error.is_error() { None } else { u64::try_from(high).ok() }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// Gives the bootstrap servers to a client again, at most every two seconds; for callers that waited in vain.
///
/// librdkafka drops every broker missing from the last metadata response. If all are fenced at one moment (as a single broker is
/// after a hang or restart, until its controller hears it), none is left and the client never reconnects. Its own remedy,
/// `metadata.recovery.strategy=rebootstrap`, has no back-off.
pub(super) fn bootstrap(client: &rdkafka::client::Client<Context>) {
    let Some(brokers) = client.context().to_name_again() else { return };
    let brokers = c_string(brokers);
    // SAFETY: the client lives during the call, which copies the text.
    unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
}

/// Lets the client deliver its log lines and errors to its context; call it regularly.
pub(super) fn attend(client: &Client) {
    // Each call serves one event; messages go to the fetcher's queue instead.
    for _ in 0..4 {
        let _ = client.poll(Duration::ZERO);
    }
}
