//! The settings: their definition ([`Settings`]), their sources ([`load`]), and those pinned by a data directory
//! ([`check_pinned`]).
//!
//! ```text
//! defaults ◀─ file ◀─ KINDRED_… variables ◀─ --set      the last source that sets a name wins
//!                        │
//!                        └─▶ Settings { semantics (pinned), data, log, store, api, members, pipeline, cluster, erasure, telemetry }
//! ```
//!
//! One file documents all settings, `deploy/kindred.toml` ([`EXAMPLE`]); a test compares it with the defaults. An unknown name is
//! an error that says where it stands and which setting was probably meant.

/// Declares tables of settings: of each setting its meaning, type, default and, where there are bounds, the accepted values.
macro_rules! settings {
    ($(#[$table:meta])* $name:ident, $prefix:literal:
     $($(#[$setting:meta])* $field:ident: $type:ty = $default:expr $(, $accepted:expr)?;)*) => {
        #[doc = concat!("`", $prefix, ".*`")]
        $(#[$table])*
        #[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$setting])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// Fails on the first value out of its bounds.
            #[allow(dead_code, reason = "some tables have no bounds")]
            pub(crate) fn check_bounds(&self) -> Result<(), String> {
                $($(crate::within(concat!($prefix, ".", stringify!($field)), self.$field, $accepted)?;)?)*
                Ok(())
            }
        }
    };
}

mod api_limits;
mod listen;
mod load;
pub mod members;
mod names;
mod pinned;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use kindred_log::LogError;
use kindred_log::kafka::KafkaConfig;
use kindred_model::Semantics;
use kindred_store::StoreError;
use kindred_store::cql::CqlConfig;
pub use kindred_telemetry::LogFormat;
use serde::{Deserialize, Serialize};

use self::members::MembersConfig;

pub use api_limits::ApiLimits;
pub use listen::listen_address;
pub use load::{Loaded, Sources, load, load_from};
pub use pinned::{Difference, check_pinned, pinned_toml, read_pinned, varied};

/// The documented settings file: every setting with its default, unit and meaning.
pub const EXAMPLE: &str = include_str!("../../../deploy/kindred.toml");

/// Placeholder for secrets in output.
const NOT_SHOWN: &str = "(not shown)";

/// Every setting. `semantics` is no table of the file: its tables stand beside the others (`views.also_bought.window`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Settings {
    /// `shop`, `inputs`, `views`, `program`: with the events and the as-of day they determine the results. Pinned.
    #[serde(flatten, skip_deserializing)]
    pub semantics: Semantics,
    /// `data.*`
    pub data: Data,
    /// `log.*`
    pub log: Log,
    /// `store.*`
    pub store: Store,
    /// `api.*`
    pub api: Api,
    /// `catalog.*`
    pub catalog: Catalog,
    /// `members.*`
    pub members: MembersConfig,
    /// `pipeline.*`
    pub pipeline: Pipeline,
    /// `cluster.*`
    pub cluster: Cluster,
    /// `erasure.*`
    pub erasure: Erasure,
    /// `telemetry.*`
    pub telemetry: Telemetry,
}

settings! {
    Data, "data":
    /// The directory that holds the log and the store.
    dir: PathBuf = PathBuf::from("data");
}

settings! {
    Log, "log":
    /// The backend.
    kind: LogKind = LogKind::default();
    /// `log.kafka.*`
    kafka: KafkaConfig = KafkaConfig::default();
}

/// The log's backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// In the data directory.
    #[default]
    Embedded,
    /// On Kafka.
    Kafka,
}

settings! {
    Store, "store":
    /// The backend.
    kind: StoreKind = StoreKind::default();
    /// `store.cql.*`
    cql: CqlConfig = CqlConfig::default();
}

/// The backend of merged inputs and rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In the data directory.
    #[default]
    Embedded,
    /// In a CQL database: Apache Cassandra or `ScyllaDB`.
    Cql,
}

settings! {
    Cluster, "cluster":
    /// The index of this process of the pipeline, from 0.
    process: usize = 0;
    /// The addresses the processes listen on for each other, `host:port`; none or one means a single process.
    hosts: Vec<String> = Vec::new();
}

settings! {
    Api, "api":
    /// The address the API listens on.
    #[serde(deserialize_with = "listen::deserialize")]
    listen: SocketAddr = local(8080);
    /// The address that serves `/metrics`.
    #[serde(deserialize_with = "listen::deserialize")]
    admin_listen: SocketAddr = local(9090);
    /// Trusted proxies, by address or network; `X-Forwarded-For` of others is ignored.
    #[serde(deserialize_with = "networks")]
    trusted_proxies: Vec<ipnet::IpNet> = Vec::new();
    /// Whether to serve the API reference at `/docs`.
    docs: bool = true;
    /// Memory for lists of each generation in use, in bytes; least recently used ones beyond it are read from the store. A list
    /// of 50 takes some 600.
    lists_bytes_max: u64 = 4 << 30;
    /// Memory for rendered responses of each generation in use, in bytes.
    answers_bytes_max: u64 = 64 << 20;
    /// `api.limits.*`
    limits: ApiLimits = ApiLimits::default();
}

settings! {
    Catalog, "catalog":
    /// Members of the free tier see registered-only items only if listed after they joined (R7, literally).
    strict_listed_after: bool = false;
}

settings! {
    Pipeline, "pipeline":
    /// Worker threads.
    workers: usize = 1, 1..=64;
    /// Minimum duration of an epoch, in milliseconds.
    epoch_min_ms: u64 = 1, 0..=60_000;
    /// Maximum records of an epoch while catching up.
    epoch_records_max: usize = 2_000_000, 1..=100_000_000;
    /// Interval between fsyncs of the store, in milliseconds.
    sync_interval_ms: u64 = 1_000, 10..=3_600_000;
    /// The address where `kindred pipeline` serves `/metrics`, `/livez`, `/readyz` and `/status`.
    #[serde(deserialize_with = "listen::deserialize")]
    admin_listen: SocketAddr = local(9091);
}

settings! {
    Erasure, "erasure":
    /// Days within which the raw records of an erased member are removed from the log.
    raw_days: u32 = 30, 0..=3_650;
}

settings! {
    Telemetry, "telemetry":
    /// The log filter, in the syntax of `tracing_subscriber::EnvFilter`.
    log: String = "info".to_owned();
    /// The format of log lines.
    format: LogFormat = LogFormat::Text;
}

fn within<N: PartialOrd + std::fmt::Display>(name: &str, value: N, accepted: RangeInclusive<N>) -> Result<(), String> {
    let (min, max) = (accepted.start(), accepted.end());
    if accepted.contains(&value) { Ok(()) } else { Err(format!("{name} is {value}; from {min} to {max} is accepted")) }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Settings {
    /// Validates the values.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(&self) -> Result<(), String> {
        self.semantics.check()?;
        self.members.levels.check()?;
        self.pipeline.check_bounds()?;
        self.members.check_bounds()?;
        self.members.tokens.check_bounds()?;
        self.members.limits.check_bounds()?;
        self.api.limits.check_bounds()?;
        self.erasure.check_bounds()?;
        if self.data.dir.as_os_str().is_empty() {
            return Err("data.dir must not be empty".to_owned());
        }
        let mixed = match (self.log.kind, self.store.kind) {
            (LogKind::Kafka, StoreKind::Embedded) => Some(("kafka", "embedded", "store.kind=cql")),
            (LogKind::Embedded, StoreKind::Cql) => Some(("embedded", "cql", "log.kind=kafka")),
            _ => None,
        };
        if let Some((log, store, help)) = mixed {
            return Err(format!(
                "log.kind is {log:?} and store.kind is {store:?}: set {help} too, or leave both embedded, in one data directory"
            ));
        }
        let Cluster { process, hosts } = &self.cluster;
        if *process >= hosts.len().max(1) {
            return Err(format!("cluster.process is {process}; cluster.hosts names {} processes, counted from 0", hosts.len()));
        }
        self.log.kafka.check().map_err(|error| match error {
            LogError::Refused(reason) => reason,
            error => error.to_string(),
        })?;
        self.store.cql.check().map_err(|error| match error {
            StoreError::Refused(reason) => format!("store.cql.{reason}"),
            error => error.to_string(),
        })
    }

    /// Whether log and store are shared services instead of a data directory.
    pub fn on_services(&self) -> bool {
        self.log.kind == LogKind::Kafka
    }

    /// The settings as TOML, as `kindred config show` prints them, without passwords and librdkafka properties. [`load`] reads it
    /// back.
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        shown.log.kafka.properties.values_mut().for_each(|value| NOT_SHOWN.clone_into(value));
        toml::to_string_pretty(&shown).expect("settings serialise")
    }
}

/// Errors of the settings. Every message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is not TOML.
    #[error("the settings file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A malformed `--set`.
    #[error("--set {0}: name=value is accepted, as in views.also_bought.window=100")]
    Set(String),
    /// An unknown setting.
    #[error("there is no setting {name} ({origin}); did you mean {nearest}?")]
    Unknown {
        /// The unknown name.
        name: String,
        /// Where it was set.
        origin: String,
        /// The setting with the nearest name.
        nearest: String,
    },
    /// An invalid value.
    #[error("{reason}{}", origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default())]
    Invalid {
        /// What is wrong, with the name of the setting.
        reason: String,
        /// Where it was set.
        origin: Option<String>,
    },
    /// The data directory pins other values.
    #[error("{}", pinned::explain(.0))]
    Pinned(Vec<Difference>),
    /// What was pinned cannot be read back.
    #[error("could not decode the settings pinned in the data directory: {0}; it is newer or damaged, look at its fingerprint")]
    Unreadable(String),
}

/// Networks, or single addresses.
fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ipnet::IpNet>, D::Error> {
    let network = |text: &String| {
        let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
        text.parse::<ipnet::IpNet>().or_else(|_| address()).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is no address and no network; like \"10.0.0.5\" or \"10.0.0.0/8\" is accepted"
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(network).collect()
}
