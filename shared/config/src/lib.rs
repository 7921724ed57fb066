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

mod api_limits;
mod listen;
mod load;
pub mod members;
mod names;
mod pinned;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use kindred_log::LogError;
use kindred_log::kafka::KafkaConfig;
use kindred_model::Semantics;
use kindred_model::loyalty::Program;
use kindred_model::settings::{Inputs, Shop};
use kindred_model::views::ViewSettings;
use kindred_store::StoreError;
use kindred_store::cql::CqlConfig;
pub use kindred_telemetry::LogFormat;
use serde::{Deserialize, Serialize};

use self::members::{MembersConfig, SESSIONS_MAX};

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
#[serde(from = "Tables", into = "Tables")]
pub struct Settings {
    /// `shop`, `inputs`, `views`, `program`: with the events and the as-of day they determine the results. Pinned.
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

/// `data.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The directory that holds the log and the store.
    pub dir: PathBuf,
}

/// `log.*`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The backend.
    pub kind: LogKind,
    /// `log.kafka.*`
    pub kafka: KafkaConfig,
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

/// `store.*`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The backend.
    pub kind: StoreKind,
    /// `store.cql.*`
    pub cql: CqlConfig,
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

/// `cluster.*`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The index of this process of the pipeline, from 0.
    pub process: usize,
    /// The addresses the processes listen on for each other, `host:port`; none or one means a single process.
    pub hosts: Vec<String>,
}

/// `api.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The address the API listens on.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// The address that serves `/metrics`.
    #[serde(deserialize_with = "listen::deserialize")]
    pub admin_listen: SocketAddr,
    /// Trusted proxies, by address or network; `X-Forwarded-For` of others is ignored.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Whether to serve the API reference at `/docs`.
    pub docs: bool,
    /// Memory for lists of each generation in use, in bytes; least recently used ones beyond it are read from the store. A list
    /// of 50 takes some 600.
    pub lists_bytes_max: u64,
    /// Memory for rendered responses of each generation in use, in bytes.
    pub answers_bytes_max: u64,
    /// `api.limits.*`
    pub limits: ApiLimits,
}

/// `catalog.*`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// Members of the free tier see registered-only items only if listed after they joined (R7, literally).
    pub strict_listed_after: bool,
}

/// `pipeline.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Worker threads.
    pub workers: usize,
    /// Minimum duration of an epoch, in milliseconds.
    pub epoch_min_ms: u64,
    /// Maximum records of an epoch while catching up.
    pub epoch_records_max: usize,
    /// Interval between fsyncs of the store, in milliseconds.
    pub sync_interval_ms: u64,
    /// The address where `kindred pipeline` serves `/metrics`, `/livez`, `/readyz` and `/status`.
    #[serde(deserialize_with = "listen::deserialize")]
    pub admin_listen: SocketAddr,
}

/// `erasure.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Erasure {
    /// Days within which the raw records of an erased member are removed from the log.
    pub raw_days: u32,
}

/// `telemetry.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The log filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The format of log lines.
    pub format: LogFormat,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: PathBuf::from("data") }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: local(8080),
            admin_listen: local(9090),
            trusted_proxies: Vec::new(),
            docs: true,
            lists_bytes_max: 4 << 30,
            answers_bytes_max: 64 << 20,
            limits: ApiLimits::default(),
        }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { workers: 1, epoch_min_ms: 1, epoch_records_max: 2_000_000, sync_interval_ms: 1_000, admin_listen: local(9091) }
    }
}

impl Default for Erasure {
    fn default() -> Self {
        Self { raw_days: 30 }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The form of [`Settings`] in files.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    shop: Shop,
    inputs: Inputs,
    views: ViewSettings,
    program: Program,
    data: Data,
    log: Log,
    store: Store,
    api: Api,
    catalog: Catalog,
    members: MembersConfig,
    pipeline: Pipeline,
    cluster: Cluster,
    erasure: Erasure,
    telemetry: Telemetry,
}

impl From<Tables> for Settings {
    fn from(tables: Tables) -> Self {
        let Tables {
            shop,
            inputs,
            views,
            program,
            data,
            log,
            store,
            api,
            catalog,
            members,
            pipeline,
            cluster,
            erasure,
            telemetry,
        } = tables;
        Self {
            semantics: Semantics { shop, inputs, views, program },
            data,
            log,
            store,
            api,
            catalog,
            members,
            pipeline,
            cluster,
            erasure,
            telemetry,
        }
    }
}

impl From<Settings> for Tables {
    fn from(settings: Settings) -> Self {
        let Settings { semantics, data, log, store, api, catalog, members, pipeline, cluster, erasure, telemetry } = settings;
        let Semantics { shop, inputs, views, program } = semantics;
        Self { shop, inputs, views, program, data, log, store, api, catalog, members, pipeline, cluster, erasure, telemetry }
    }
}

impl Settings {
    /// Validates the values.
    ///
    /// # Errors
    /// A sentence naming the setting.
    pub fn check(&self) -> Result<(), String> {
        self.semantics.check()?;
        fn within<N: PartialOrd + std::fmt::Display>(name: &str, value: N, min: N, max: N) -> Result<(), String> {
            if (&min..=&max).contains(&&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}; from {min} to {max} is accepted"))
            }
        }
        let pipeline = &self.pipeline;
        within("pipeline.workers", pipeline.workers, 1, 64)?;
        within("pipeline.epoch_min_ms", pipeline.epoch_min_ms, 0, 60_000)?;
        within("pipeline.epoch_records_max", pipeline.epoch_records_max, 1, 100_000_000)?;
        within("pipeline.sync_interval_ms", pipeline.sync_interval_ms, 10, 3_600_000)?;
        let members = &self.members;
        members.levels.check()?;
        within("members.audit_days", members.audit_days, 1, 3_650)?;
        let (tokens, limits) = (&members.tokens, &members.limits);
        within("members.tokens.access_s", tokens.access_s, 60, 86_400)?;
        within("members.tokens.idle_days", tokens.idle_days, 1, 3_650)?;
        within("members.tokens.absolute_days", tokens.absolute_days, 1, 3_650)?;
        within("members.tokens.key_days", tokens.key_days, 1, 3_650)?;
        const OFTEN: u32 = 1_000_000;
        for (name, value) in [
            ("registrations_hour", limits.registrations_hour),
            ("challenges_hour", limits.challenges_hour),
            ("sign_in_failures_hour", limits.sign_in_failures_hour),
            ("free_failures", limits.free_failures),
            ("phone_codes_hour", limits.phone_codes_hour),
            ("phone_codes_address_hour", limits.phone_codes_address_hour),
            ("mails_hour", limits.mails_hour),
            ("exports_hour", limits.exports_hour),
        ] {
            within(&format!("members.limits.{name}"), value, 1, OFTEN)?;
        }
        within("members.limits.wait_max_s", limits.wait_max_s, 1, 86_400)?;
        within("members.limits.sessions", limits.sessions, 1, SESSIONS_MAX)?;
        for (name, value, min, max) in self.api.limits.bounds() {
            within(&format!("api.limits.{name}"), value, min, max)?;
        }
        within("erasure.raw_days", self.erasure.raw_days, 0, 3_650)?;
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
