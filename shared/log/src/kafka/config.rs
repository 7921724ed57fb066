//! The settings of the log on Kafka, and the librdkafka configuration made from them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

use super::topics::MESSAGE_BYTES_MAX;
use crate::LogError;

/// Capacity of the producer's queue; beyond it `append` waits.
const PRODUCER_KBYTES: u32 = 128 << 10;
/// Records fetched ahead of `poll`, over all partitions of a reader.
const FETCHED_KBYTES: u32 = 64 << 10;

/// `log.kafka.*`: where the brokers are, how topics are named and made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port,host:port`.
    pub brokers: String,
    /// Set before every topic's name: several installations can share one cluster.
    pub prefix: String,
    /// Partitions of each event topic that `kindred migrate` makes. More can be added later; the most readers that share the
    /// work.
    pub partitions: u32,
    /// Replicas of each topic that is made; 0 leaves it to the brokers (`default.replication.factor`).
    pub replication: u32,
    /// How records are compressed: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long interactions are kept, in days, and within how many days compaction has removed what was replaced in the other
    /// topics. Raw records of an erased member have left a day later: keep `erasure.raw_days` above it.
    pub retention_days: u32,
    /// What brokers call us in their logs and quotas.
    pub client_id: String,
    /// How long an append waits for the brokers before it is in doubt, in milliseconds.
    pub message_timeout_ms: u32,
    /// Any setting of librdkafka, last: security (`security.protocol`, `sasl.mechanism`, `sasl.username`, …), tuning. TLS and
    /// SASL/SCRAM need the feature `tls` of this crate; without it they are refused when the log is opened.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            prefix: String::new(),
            partitions: 8,
            replication: 0,
            compression: "lz4".into(),
            retention_days: 28,
            client_id: "kindred".into(),
            message_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    /// Without the values of `properties`: passwords are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, prefix, partitions, replication, compression, retention_days, client_id, message_timeout_ms, .. } =
            self;
        f.debug_struct("KafkaConfig")
            .field("brokers", brokers)
            .field("prefix", prefix)
            .field("partitions", partitions)
            .field("replication", replication)
            .field("compression", compression)
            .field("retention_days", retention_days)
            .field("client_id", client_id)
            .field("message_timeout_ms", message_timeout_ms)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl KafkaConfig {
    /// Checks what librdkafka would only report later.
    ///
    /// # Errors
    /// [`LogError::Refused`] naming the setting.
    pub fn check(&self) -> Result<(), LogError> {
        let wrong = |setting: &str, what: &str| Err(LogError::Refused(format!("log.kafka.{setting} {what}")));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.brokers.trim().is_empty() {
            return wrong("brokers", "is empty; name one, like 10.0.0.1:9092");
        }
        if !self.prefix.chars().all(allowed) || self.prefix.len() > 200 {
            return wrong("prefix", "may have letters, digits and . _ - alone, at most 200");
        }
        if self.partitions == 0 || self.partitions > 10_000 {
            return wrong("partitions", "must lie between 1 and 10000");
        }
        if self.retention_days == 0 || self.retention_days > 36_500 {
            return wrong("retention_days", "must lie between 1 and 36500");
        }
        if !(100..=3_600_000).contains(&self.message_timeout_ms) {
            return wrong("message_timeout_ms", "must lie between 100 and 3600000");
        }
        Ok(())
    }

    /// A topic's name on the brokers.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Timeout of requests other than appends.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.message_timeout_ms.into())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // Avoids two reconnect loops of librdkafka 2.12 that bypass the back-off and took half a core per process while a
            // broker was down: re-bootstrapping whenever all known brokers are down, and `RD_KAFKA_OP_CONNECT` ("expedite next
            // reconnect") at each connection state change while a request waits for the controller. The price is an open
            // connection to each broker.
            .set("metadata.recovery.strategy", "none")
            .set("enable.sparse.connections", "false")
            // A returning broker is noticed within a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true")
            // Brokers close idle connections all the time.
            .set("log.connection.close", "false");
        client
    }

    fn with_properties(&self, mut client: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
    }

    /// A producer whose acknowledgement means: on all in-sync replicas, in order, exactly once.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", &self.compression)
            .set("linger.ms", "1")
            .set("message.timeout.ms", self.message_timeout_ms.to_string())
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("queue.buffering.max.kbytes", PRODUCER_KBYTES.to_string())
            // The partitioner of Kafka's own clients.
            .set("partitioner", "murmur2_random")
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("statistics.interval.ms", "5000");
        self.with_properties(client)
    }

    /// A consumer without a group: it commits nothing, we keep the positions.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            // Never skip what retention has removed.
            .set("auto.offset.reset", "error")
            .set("queued.max.messages.kbytes", FETCHED_KBYTES.to_string())
            // Catching up empties the queue in milliseconds; the default waits a second before it fetches again.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100");
        self.with_properties(client)
    }

    /// For creating and describing topics.
    pub(super) fn admin(&self) -> ClientConfig {
        self.with_properties(self.client())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a password would be logged.
    #[test]
    fn passwords_are_not_shown() {
        let properties = [("sasl.password".to_owned(), "s3cret".to_owned())].into();
        let shown = format!("{:?}", KafkaConfig { properties, ..KafkaConfig::default() });
        assert!(shown.contains("sasl.password") && !shown.contains("s3cret"), "{shown}");
    }

    /// If this failed, a wrong setting would look like an unreachable broker and be retried forever.
    #[tokio::test]
    async fn wrong_settings_are_named() {
        let with = |name: &str, value: &str| {
            let properties = [(name.to_owned(), value.to_owned())].into();
            KafkaConfig { brokers: "127.0.0.1:1".into(), properties, ..KafkaConfig::default() }
        };
        let mut wrong = vec![
            (with("no.such.setting", "1"), "no.such.setting"),
            (KafkaConfig { prefix: "a/b".into(), ..KafkaConfig::default() }, "log.kafka.prefix"),
            (KafkaConfig { partitions: 0, ..KafkaConfig::default() }, "log.kafka.partitions"),
        ];
        if !cfg!(feature = "tls") {
            wrong.push((with("security.protocol", "ssl"), "security.protocol"));
        }
        for (config, name) in wrong {
            match super::super::KafkaLog::open(&config).await.err() {
                Some(LogError::Refused(reason)) => assert!(reason.contains(name), "{reason} does not name {name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
