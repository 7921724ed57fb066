//! The dependencies and the configuration of the API.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use kindred_clock::Clock;
use kindred_config::ApiLimits;
use kindred_log::EventLog;
use kindred_members::Members;
use kindred_model::{Day, Semantics};
use kindred_store::keys::KeyStore;
use kindred_store::{ChangeSource, ViewReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// The dependencies of the API.
#[derive(Clone)]
pub struct Context {
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The served generation. Taken by [`crate::start`], since it may be dropped later.
    pub live: Option<GenerationSource>,
    /// The API keys. The API is their only writer.
    pub keys: Arc<KeyStore>,
    /// The pinned settings.
    pub settings: Arc<Semantics>,
    /// Operations that involve the pipeline.
    pub operations: Arc<dyn Operations>,
    /// The generations; without it one generation is served and the generation routes return 404.
    pub generations: Option<Arc<dyn GenerationOperations>>,
    /// Member accounts; without it their routes return 404.
    pub members: Option<Arc<Members>>,
    /// The wall clock.
    pub clock: Clock,
    /// Renders `/metrics`; without it the admin address returns 404 there.
    pub render_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Further routes (the pages of the demo), tried last.
    pub extra: Option<BoxedFilter<(Response,)>>,
}

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where it listens, without TLS.
    pub listen: SocketAddr,
    /// Where `/metrics` is served; never on the public address.
    pub admin_listen: Option<SocketAddr>,
    /// The name of the served generation.
    pub generation: String,
    /// `erasure.raw_days`, for erasure receipts.
    pub raw_days: u32,
    /// The limits.
    pub limits: ApiLimits,
    /// Limits of the state in memory.
    pub memory: MemoryConfig,
    /// Proxies whose `X-Forwarded-For` is trusted (V4.1.3).
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `/docs` is served (V13.4.5).
    pub docs: bool,
}

/// Limits of the state in memory. Supports, catalog and popularity are always held whole; lists and rendered responses are
/// caches.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// Bytes of lists per generation; beyond it the least recently used are read from the store. A list of 50 takes about 600.
    pub lists_bytes_max: u64,
    /// Bytes of rendered responses per generation. 64 MiB hold about 25,000 lists of 20 items.
    pub answers_bytes_max: u64,
    /// `catalog.strict_listed_after`: of items for registered members, free-tier members see only those listed after they joined
    /// (R7).
    pub strict_listed_after: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { lists_bytes_max: 4 << 30, answers_bytes_max: 64 << 20, strict_listed_after: false }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: None,
            generation: "g1".to_owned(),
            raw_days: 30,
            limits: ApiLimits::default(),
            memory: MemoryConfig::default(),
            trusted_proxies: Vec::new(),
            docs: true,
        }
    }
}

/// Operations that involve the pipeline. The binary implements them, since API and pipeline do not depend on each other.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The body of `GET /v1/admin/status`.
    async fn status(&self) -> Value;

    /// Recomputes every view with the oracle, compares, and names the `first` differences; `repair` fixes rows that differ.
    async fn verify(&self, repair: bool, first: usize) -> Result<VerifyReport, OperationError>;

    /// The checks behind `/readyz`. Must not block.
    fn readiness(&self) -> Vec<Check>;
}

/// An opened generation.
#[derive(Clone)]
pub struct GenerationSource {
    /// Its rows.
    pub store: Arc<dyn ViewReader>,
    /// Their changes. Without it no rows are held in memory and no list is answered.
    pub changes: Option<Arc<dyn ChangeSource>>,
    /// Its settings.
    pub settings: Arc<Semantics>,
}

/// A generation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GenerationShown {
    /// Its name.
    pub name: String,
    /// Whether it is the live generation.
    pub live: bool,
    /// When it was created.
    pub created_at: String,
    /// The position up to which it has processed the log.
    pub position: String,
    /// Log records processed.
    pub events: u64,
    /// Log records not processed yet.
    pub lag: u64,
    /// What it was built from: `beginning`, `inputs`, a position or a time.
    pub from: String,
    /// The position or time at which it stops, if any.
    pub until: Option<String>,
    /// Whether it has reached the end of its input once.
    pub complete: bool,
    /// Why it cannot be promoted; null if it can.
    pub not_promotable: Option<String>,
    /// Its settings, as TOML.
    pub settings: String,
    /// Settings that differ from those of the live generation.
    pub differing: std::collections::BTreeMap<String, String>,
}

/// The existing generations and which is live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its name.
    pub live: String,
    /// All names.
    pub names: std::collections::BTreeSet<String>,
}

/// Operations on generations.
#[async_trait]
pub trait GenerationOperations: Send + Sync {
    /// All generations, by name.
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError>;

    /// Opens a generation for reading; [`OperationError::Unknown`] where there is none.
    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError>;

    /// Whether a generation can be promoted: [`OperationError::Refused`] never, [`OperationError::Unavailable`] not yet.
    async fn promotable(&self, name: &str) -> Result<(), OperationError>;

    /// The current state, including promotions and drops by other processes. The API polls it.
    async fn standing(&self) -> Result<Standing, OperationError>;

    /// Called when the API has switched to this generation, whichever process promoted it.
    fn turned_to(&self, name: &str);

    /// Makes a generation live, durably, and returns the previous one. The API switches to it next.
    async fn promote(&self, name: &str) -> Result<String, OperationError>;

    /// Deletes a generation that the API has released; [`OperationError::Refused`] if it is live.
    async fn drop_generation(&self, name: &str) -> Result<(), OperationError>;

    /// Compares two generations; points are as of `day`.
    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError>;
}

/// A readiness check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    /// What was checked: `pipeline`, `log`, `store`.
    pub name: String,
    /// Whether the check passed.
    pub ready: bool,
    /// For humans; contains no shop data.
    pub detail: String,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The same operation is already running.
    #[error("already running: {0}")]
    Busy(String),
    /// Retry later.
    #[error("not available now: {0}")]
    Unavailable(String),
    /// There is no such generation.
    #[error("{0}")]
    Unknown(String),
    /// Refused; retrying does not help.
    #[error("{0}")]
    Refused(String),
    /// Needs an operator.
    #[error("failed: {0}")]
    Failed(String),
}

/// The result of a verification.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    /// Whether every row equals what the oracle computes, after repairs.
    pub ok: bool,
    /// Whether the differences were repaired.
    pub repaired: bool,
    /// Rows that were repaired.
    pub mended: u64,
    /// Merged inputs compared.
    pub inputs: u64,
    /// View rows compared.
    pub rows: u64,
    /// Whether there are more differences than were asked for.
    pub more: bool,
    /// Log records that are not applied yet; the comparison covers those before.
    pub lag: u64,
    /// Whether the last process ended within a unit; the next start repairs it.
    pub unfinished: bool,
    /// The compared tables, as found: merged inputs against the log, view rows against the merged inputs.
    pub tables: Vec<VerifiedTable>,
    /// Log records read.
    pub records: u64,
    /// What could not be compared, and why: for example inputs older than the beginning of a truncated log.
    pub not_compared: Vec<String>,
}

/// The result of a verification for one table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VerifiedTable {
    /// The table.
    pub table: String,
    /// Rows of it.
    pub rows: u64,
    /// Rows that differ, of the first that were asked for.
    pub differences: u64,
    /// The first differences, for humans.
    pub first: Vec<String>,
}
