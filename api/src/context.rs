//! What the API is given, and its settings.

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

/// What the API builds on.
#[derive(Clone)]
pub struct Context {
    /// Where events go.
    pub log: Arc<dyn EventLog>,
    /// The live generation. It may be dropped one day: the API takes it when it starts.
    pub live: Option<GenerationSource>,
    /// The keys: the API is their one writer.
    pub keys: Arc<KeyStore>,
    /// The pinned settings.
    pub settings: Arc<Semantics>,
    /// What only the whole process can do.
    pub operations: Arc<dyn Operations>,
    /// The generations; without it the process serves one, and the routes on generations answer 404.
    pub generations: Option<Arc<dyn GenerationOperations>>,
    /// Members and sign-in; without it nobody signs in, and their routes answer 404.
    pub members: Option<Arc<Members>>,
    /// The wall clock.
    pub clock: Clock,
    /// The text of `/metrics`; without it the admin address has none.
    pub render_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Further routes (the demo's pages). They are tried last, and pass the same finish: problems and headers.
    pub extra: Option<BoxedFilter<(Response,)>>,
}

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where it listens. It has no TLS: outside of a machine it stands behind a proxy.
    pub listen: SocketAddr,
    /// Where `/metrics` is; nothing of it is on the public address.
    pub admin_listen: Option<SocketAddr>,
    /// The name of the generation served.
    pub generation: String,
    /// `erasure.raw_days`: for the receipt of an erasure.
    pub raw_days: u32,
    /// The limits.
    pub limits: ApiLimits,
    /// What is held in memory and shown.
    pub memory: MemoryConfig,
    /// Whose `X-Forwarded-For` is believed: the proxies in front. Nobody's unless named (V4.1.3).
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the contract is served as a page, too (V13.4.5).
    pub docs: bool,
}

/// What is held in memory, and what it shows to whom. Supports, catalog and popularity are held whole; lists and answers, which can be
/// read or rendered again, as far as there is room.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// Bytes of lists, of each generation in use; beyond it those not asked for lately are read from the store. A list of 50 takes
    /// some 600.
    pub lists_bytes_max: u64,
    /// Bytes of rendered answers, of each generation in use. 64 MiB are some 25,000 lists of 20 items, more than a shop shows in an
    /// hour.
    pub answers_bytes_max: u64,
    /// `catalog.strict_listed_after`: members of the free tier see, of what is for registered members, only what was put on sale
    /// since they came (R7, literally).
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

/// What only the whole process can do: the all-in-one package implements it, since api and pipeline never name each other.
#[async_trait]
pub trait Operations: Send + Sync {
    /// Topics, positions, durable frontier, lag, rows a view, memory, disk: the body of `GET /v1/admin/status`.
    async fn status(&self) -> Value;

    /// Recomputes every view by the oracle and compares; mends what differs where `repair`.
    ///
    /// # Errors
    /// [`OperationError`].
    async fn verify(&self, repair: bool) -> Result<VerifyReport, OperationError>;

    /// Whether requests should be sent here: `Ok`, or what is not ready. Must not block: `/readyz` asks.
    fn readiness(&self) -> Vec<Check>;
}

/// A generation to read.
#[derive(Clone)]
pub struct GenerationSource {
    /// Its rows.
    pub store: Arc<dyn ViewReader>,
    /// What changes in them.
    pub changes: Arc<dyn ChangeSource>,
    /// What it pins.
    pub settings: Arc<Semantics>,
}

/// What is told of a generation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GenerationShown {
    /// Its name.
    pub name: String,
    /// Whether it is what is served.
    pub live: bool,
    /// When it was made.
    pub created_at: String,
    /// How far it reaches.
    pub position: String,
    /// Records of the log that it has passed.
    pub events: u64,
    /// Records of the log behind them.
    pub lag: u64,
    /// From where it was built: `beginning`, `inputs`, a position or a time.
    pub from: String,
    /// Where it ends, if it does.
    pub until: Option<String>,
    /// Whether it has once reached the end of what it reads.
    pub complete: bool,
    /// Why it cannot be promoted, if it cannot.
    pub not_promotable: Option<String>,
    /// What it pins, as TOML.
    pub settings: String,
    /// The settings that are others than the live one's.
    pub differing: std::collections::BTreeMap<String, String>,
}

/// Which generations there are, and which is live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The live one.
    pub live: String,
    /// All of them.
    pub names: std::collections::BTreeSet<String>,
}

/// What can be done with the generations of the process.
#[async_trait]
pub trait GenerationOperations: Send + Sync {
    /// All of them, by name.
    ///
    /// # Errors
    /// [`OperationError`].
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError>;

    /// One of them, to read.
    ///
    /// # Errors
    /// [`OperationError::Unknown`].
    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError>;

    /// Whether one can be made the live one now.
    ///
    /// # Errors
    /// [`OperationError::Refused`]: never, and why; [`OperationError::Unavailable`]: not yet.
    async fn promotable(&self, name: &str) -> Result<(), OperationError>;

    /// How it stands, whoever promoted and dropped. The API asks again and again, and turns to what another process promoted.
    ///
    /// # Errors
    /// [`OperationError::Unavailable`]; it is asked again.
    async fn standing(&self) -> Result<Standing, OperationError>;

    /// The API serves this one from now on, by a promotion here or elsewhere.
    fn turned_to(&self, name: &str);

    /// Makes one the live one, durably, and returns the one before. The API has its memory ready by then, and turns to it next.
    ///
    /// # Errors
    /// As [`GenerationOperations::promotable`].
    async fn promote(&self, name: &str) -> Result<String, OperationError>;

    /// Deletes one. The API has let go of it by then.
    ///
    /// # Errors
    /// [`OperationError::Refused`]: it is the live one.
    async fn drop_generation(&self, name: &str) -> Result<(), OperationError>;

    /// What moved between two; points are told for `day`.
    ///
    /// # Errors
    /// [`OperationError`].
    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError>;
}

/// One thing that has to be well for the process to be ready.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    /// What was looked at: `pipeline`, `log`, `store`.
    pub name: String,
    /// Whether it is well.
    pub ready: bool,
    /// For a person; no data of the shop.
    pub detail: String,
}

/// Why an operation did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The same is under way already.
    #[error("it is being done already: {0}")]
    Busy(String),
    /// It may be asked again later.
    #[error("it is not available now: {0}")]
    Unavailable(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It was not done, and repeating will not help.
    #[error("{0}")]
    Refused(String),
    /// A person must look.
    #[error("it failed: {0}")]
    Failed(String),
}

/// What `verify` found.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct VerifyReport {
    /// Whether every row is what the oracle computes.
    pub ok: bool,
    /// Whether the differences were mended.
    pub repaired: bool,
    /// Each table that was compared: merged inputs with the log, rows of views with the merged inputs.
    pub tables: Vec<VerifiedTable>,
    /// Records of the log that were read.
    pub records: u64,
    /// What could not be compared, and why: a log that does not reach back to its beginning says nothing about what came before.
    pub not_compared: Vec<String>,
}

/// What `verify` found in one table.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct VerifiedTable {
    /// The table.
    pub table: String,
    /// Rows compared.
    pub rows: u64,
    /// Rows that differ.
    pub differences: u64,
    /// The first of them, for a person.
    pub first: Vec<String>,
}
