//! The settings of the CQL connection.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use scylla::statement::{Consistency as Level, SerialConsistency};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// Longest keyspace name of Cassandra, in bytes.
const KEYSPACE_BYTES_MAX: usize = 48;
/// More partitions a table only slow down scans and drops.
const BUCKETS_MAX: u32 = 1 << 16;
/// Statements in a batch, limited by the protocol.
const BATCH_ROWS_MAX: usize = 1_000;
/// Half of Cassandra's smallest usual commit log segment (16 MiB), its limit for a mutation.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The settings of the store on CQL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CqlConfig {
    /// Contact points, `host:port`; the other nodes are discovered.
    pub nodes: Vec<String>,
    /// The keyspace: lower-case letters, digits and `_`. `kindred migrate` creates it if missing; an existing one keeps its
    /// replication. (`ScyllaDB` up to 2025.3 has no lightweight transactions in keyspaces with tablets: create it with `tablets =
    /// {'enabled': false}`.)
    pub keyspace: String,
    /// Replicas of every row, for the keyspace that `kindred migrate` creates: a number, or a number by datacenter.
    pub replication: Replication,
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// The preferred datacenter; empty for none.
    #[serde(with = "absent")]
    pub datacenter: Option<String>,
    /// User name; empty disables authentication.
    #[serde(with = "absent")]
    pub user: Option<String>,
    /// The password. Never logged or shown.
    #[serde(serialize_with = "hidden", deserialize_with = "absent::deserialize")]
    pub password: Option<String>,
    /// Partitions of each view table; `kindred migrate` fixes the number in the keyspace. With 600 bytes a list and 64, five
    /// million items make partitions of 50 MB, half of Cassandra's recommended limit.
    pub view_buckets: u32,
    /// Partitions of each table of merged inputs, fixed too. At 60 bytes a row, a hundred million interactions need 64.
    pub input_buckets: u32,
    /// Timeout of a request before its retry, in milliseconds. Keep it above the timeouts of the database.
    pub request_timeout_ms: u64,
    /// The same for a single-row read, which is on the request path and retried once.
    pub read_timeout_ms: u64,
    /// Attempts of any other request before the store counts as unavailable.
    pub attempts: u32,
    /// Concurrent batches. More raise the throughput until the database is saturated, then only the latency.
    pub writes_in_flight: usize,
    /// Partitions scanned concurrently.
    pub scans_in_flight: usize,
    /// Rows of one batch.
    pub batch_rows: usize,
    /// Bytes of one batch, approximately; a single row may be larger.
    pub batch_bytes: usize,
    /// How often a process that does not write polls the frontier, in milliseconds.
    pub frontier_poll_ms: u64,
}

impl Default for CqlConfig {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "kindred".to_owned(),
            replication: Replication::Copies(1),
            consistency: Consistency::LocalQuorum,
            datacenter: None,
            user: None,
            password: None,
            view_buckets: 64,
            input_buckets: 64,
            request_timeout_ms: 12_000,
            read_timeout_ms: 2_000,
            attempts: 4,
            writes_in_flight: 16,
            scans_in_flight: 8,
            batch_rows: 50,
            batch_bytes: 64 << 10,
            frontier_poll_ms: 250,
        }
    }
}

/// An optional text, serialized as the empty one: settings files name every setting.
mod absent {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands it over so")]
    pub fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }
}

/// Serializes whether there is a value, not the value.
#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn hidden<S: serde::Serializer>(secret: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if secret.is_some() { "(not shown)" } else { "" })
}

/// Replicas of every row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Replication {
    /// `SimpleStrategy`: for one datacenter.
    Copies(u32),
    /// `NetworkTopologyStrategy`: a number for each datacenter.
    PerDatacenter(BTreeMap<String, u32>),
}

/// How many replicas must answer a read and confirm a write. Below a quorum, reads may be stale for a while, and a lost node
/// loses rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// One of any datacenter.
    One,
    /// One of the local datacenter.
    LocalOne,
    /// A majority of the local datacenter, for lightweight transactions too: all pipelines must be in one datacenter.
    LocalQuorum,
    /// A majority of all.
    Quorum,
}

impl Consistency {
    pub(super) const fn level(self) -> Level {
        match self {
            Self::One => Level::One,
            Self::LocalOne => Level::LocalOne,
            Self::LocalQuorum => Level::LocalQuorum,
            Self::Quorum => Level::Quorum,
        }
    }

    const fn local(self) -> bool {
        matches!(self, Self::LocalOne | Self::LocalQuorum)
    }

    /// As [`Consistency::level`], but at least a majority: an acknowledged record must not depend on the settings.
    pub(super) const fn majority(self) -> Level {
        if self.local() { Level::LocalQuorum } else { Level::Quorum }
    }

    /// The level of lightweight transactions.
    pub(super) const fn serial(self) -> SerialConsistency {
        if self.local() { SerialConsistency::LocalSerial } else { SerialConsistency::Serial }
    }

    /// The level of a read that must see every earlier transaction.
    pub(super) const fn serial_read(self) -> Level {
        if self.local() { Level::LocalSerial } else { Level::Serial }
    }
}

impl CqlConfig {
    /// Validates the settings; the error names the wrong one.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    pub fn check(&self) -> Result<(), StoreError> {
        let refuse = |reason: String| Err(StoreError::Refused(reason));
        if self.nodes.is_empty() {
            return refuse("nodes is empty; name at least one host:port".into());
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let named = self.keyspace.starts_with(|first: char| first.is_ascii_lowercase());
        if !named || self.keyspace.len() > KEYSPACE_BYTES_MAX || !self.keyspace.bytes().all(plain) {
            return refuse(format!(
                "keyspace is {:?}; use up to {KEYSPACE_BYTES_MAX} small letters, digits and `_`, a letter first",
                self.keyspace
            ));
        }
        let copies: Vec<u32> = match &self.replication {
            Replication::Copies(copies) => vec![*copies],
            Replication::PerDatacenter(each) => each.values().copied().collect(),
        };
        if copies.is_empty() || copies.contains(&0) {
            return refuse("replication must be at least 1, or name a datacenter with at least 1".into());
        }
        if self.user.is_some() != self.password.is_some() {
            return refuse("user and password are set together, or neither".into());
        }
        let range = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(StoreError::Refused(format!("{name} is {value}; from 1 to {max} is accepted")))
        };
        range("view_buckets", self.view_buckets as usize, BUCKETS_MAX as usize)?;
        range("input_buckets", self.input_buckets as usize, BUCKETS_MAX as usize)?;
        range("request_timeout_ms", usize::try_from(self.request_timeout_ms).unwrap_or(usize::MAX), 600_000)?;
        range("read_timeout_ms", usize::try_from(self.read_timeout_ms).unwrap_or(usize::MAX), 600_000)?;
        range("attempts", self.attempts as usize, 100)?;
        range("writes_in_flight", self.writes_in_flight, 1_024)?;
        range("scans_in_flight", self.scans_in_flight, 1_024)?;
        range("batch_rows", self.batch_rows, BATCH_ROWS_MAX)?;
        range("batch_bytes", self.batch_bytes, BATCH_BYTES_MAX)?;
        range("frontier_poll_ms", usize::try_from(self.frontier_poll_ms).unwrap_or(usize::MAX), 60_000)
    }

    pub(super) const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// The replication map in CQL.
    pub(super) fn replication_map(&self) -> String {
        match &self.replication {
            Replication::Copies(copies) => format!("{{'class': 'SimpleStrategy', 'replication_factor': {copies}}}"),
            Replication::PerDatacenter(each) => {
                let each: String =
                    each.iter().map(|(name, copies)| format!(", '{}': {copies}", name.replace('\'', "''"))).collect();
                format!("{{'class': 'NetworkTopologyStrategy'{each}}}")
            }
        }
    }
}

impl fmt::Debug for CqlConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlConfig")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("consistency", &self.consistency)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_documented_and_the_password_stays_inside() {
        let text = r#"{"nodes": ["a:9042", "b:9042"], "replication": {"north": 3, "o'hare": 2}, "consistency": "one",
            "user": "kindred", "password": "geheim"}"#;
        let config: CqlConfig = serde_json::from_str(text).unwrap();
        config.check().unwrap();
        assert_eq!(config.consistency, Consistency::One);
        assert_eq!(config.replication_map(), "{'class': 'NetworkTopologyStrategy', 'north': 3, 'o''hare': 2}");
        assert!(!format!("{config:?}").contains("geheim") && !serde_json::to_string(&config).unwrap().contains("geheim"));
        let config: CqlConfig = serde_json::from_str(r#"{"replication": 3}"#).unwrap();
        assert_eq!(config.replication_map(), "{'class': 'SimpleStrategy', 'replication_factor': 3}");
        assert!(serde_json::from_str::<CqlConfig>(r#"{"replicas": 3}"#).is_err());
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let with = |change: fn(&mut CqlConfig)| {
            let mut config = CqlConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        CqlConfig::default().check().unwrap();
        assert!(with(|c| c.nodes.clear()).contains("nodes"));
        assert!(with(|c| c.keyspace = "x; drop".into()).contains("keyspace"));
        assert!(with(|c| c.keyspace = "1x".into()).contains("keyspace"));
        assert!(with(|c| c.replication = Replication::Copies(0)).contains("replication"));
        assert!(with(|c| c.user = Some("a".into())).contains("password"));
        assert!(with(|c| c.view_buckets = 0).contains("view_buckets"));
        assert!(with(|c| c.batch_rows = 1 << 17).contains("batch_rows"));
    }
}
