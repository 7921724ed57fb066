//! The settings: what they are ([`Settings`]), where they come from ([`load`]), and which of them a data directory holds fast
//! ([`check_pinned`]).
//!
//! ```text
//! defaults ◀─ file ◀─ KINDRED_… variables ◀─ --set      the last that names a setting decides
//!                        │
//!                        └─▶ Settings { semantics (pinned), data, api, pipeline, erasure, telemetry }
//! ```
//!
//! One file documents them all, `deploy/kindred.toml` ([`EXAMPLE`]); a test holds it equal to the defaults. A name that is no
//! setting is an error that says where it stands and which one was meant.

mod load;
mod names;
mod pinned;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use kindred_model::Semantics;
use kindred_model::loyalty::Program;
use kindred_model::settings::{Inputs, Shop, ViewSettings};
pub use kindred_telemetry::LogFormat;
use serde::{Deserialize, Serialize};

pub use load::{Loaded, Sources, load, load_from};
pub use pinned::{Difference, check_pinned, pinned_toml, read_pinned, varied};

/// The documented settings file: every setting with its default, unit and meaning.
pub const EXAMPLE: &str = include_str!("../../../deploy/kindred.toml");

/// Every setting. In files and names there is no `semantics`: its tables stand beside the others (`views.also_bought.window`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Default)]
#[serde(from = "Tables", into = "Tables")]
pub struct Settings {
    /// `shop`, `inputs`, `views`, `program`: with the events and the as-of day they decide what is served. Pinned.
    pub semantics: Semantics,
    /// `data.*`
    pub data: Data,
    /// `api.*`
    pub api: Api,
    /// `pipeline.*`
    pub pipeline: Pipeline,
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

/// `api.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where `/metrics` is served.
    pub admin_listen: SocketAddr,
}

/// `pipeline.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Threads that keep the views.
    pub workers: usize,
    /// The shortest epoch, in milliseconds.
    pub epoch_min_ms: u64,
    /// The most records of one epoch while catching up.
    pub epoch_records_max: usize,
    /// How often the store is fsynced, in milliseconds.
    pub sync_interval_ms: u64,
}

/// `erasure.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Erasure {
    /// Days within which the raw records of an erased member leave the log.
    pub raw_days: u32,
}

/// `telemetry.*`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How they look.
    pub format: LogFormat,
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: PathBuf::from("data") }
    }
}

impl Default for Api {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { listen: local(8080), admin_listen: local(9090) }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { workers: 1, epoch_min_ms: 1, epoch_records_max: 2_000_000, sync_interval_ms: 1_000 }
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

/// [`Settings`] as they are written.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    shop: Shop,
    inputs: Inputs,
    views: ViewSettings,
    program: Program,
    data: Data,
    api: Api,
    pipeline: Pipeline,
    erasure: Erasure,
    telemetry: Telemetry,
}

impl From<Tables> for Settings {
    fn from(tables: Tables) -> Self {
        let Tables { shop, inputs, views, program, data, api, pipeline, erasure, telemetry } = tables;
        Self { semantics: Semantics { shop, inputs, views, program }, data, api, pipeline, erasure, telemetry }
    }
}

impl From<Settings> for Tables {
    fn from(settings: Settings) -> Self {
        let Settings { semantics, data, api, pipeline, erasure, telemetry } = settings;
        let Semantics { shop, inputs, views, program } = semantics;
        Self { shop, inputs, views, program, data, api, pipeline, erasure, telemetry }
    }
}

impl Settings {
    /// What must hold for the values.
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
        within("erasure.raw_days", self.erasure.raw_days, 0, 3_650)?;
        if self.data.dir.as_os_str().is_empty() {
            return Err("data.dir must not be empty".to_owned());
        }
        Ok(())
    }

    /// The settings as TOML that [`load`] reads back: what `kindred config show` prints.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("settings serialise")
    }
}

/// Why the settings cannot be used. Every message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is no TOML.
    #[error("the settings file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A `--set` that is none.
    #[error("--set {0}: name=value is accepted, as in views.also_bought.window=100")]
    Set(String),
    /// A name that is no setting.
    #[error("there is no setting {name} ({origin}); did you mean {nearest}?")]
    Unknown {
        /// What was named.
        name: String,
        /// Where it stands.
        origin: String,
        /// The setting with the nearest name.
        nearest: String,
    },
    /// A value that is not accepted.
    #[error("{reason}{}", origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default())]
    Invalid {
        /// What is wrong, with the name of the setting.
        reason: String,
        /// Where the value was given.
        origin: Option<String>,
    },
    /// The data directory pins other values.
    #[error("{}", pinned::explain(.0))]
    Pinned(Vec<Difference>),
    /// What was pinned cannot be read back.
    #[error(
        "the settings pinned in the data directory do not read: {0}; a newer or a damaged directory, look at its fingerprint"
    )]
    Unreadable(String),
}
