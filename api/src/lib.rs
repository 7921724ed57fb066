//! The HTTP API: accepts events, serves lists and points. [`start`] binds the addresses and serves until [`Running::shutdown`].
//!
//! ```text
//! POST /v1/events ──▶ EventLog            ChangeFeed ──▶ recommend (memory) ──▶ GET lists, streams
//!                                             └──snapshot──▶ members, export
//! ```

#[cfg(test)]
extern crate self as kindred_api;

mod api;
mod auth;
mod completion;
mod compression;
mod conflicts;
mod context;
mod event_sink;
mod export_writer;
#[doc(hidden)]
pub mod fuzzing;
mod in_process;
pub mod openapi;
mod params;
mod problem;
mod quota;
mod recommend;
mod reference;
mod request_metrics;
mod resources;
mod routes;
mod server;
mod serving;
mod write_timeout;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kindred_telemetry::vital_task;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use context::{
    ApiConfig, Check, Context, GenerationOperations, GenerationShown, GenerationSource, MemoryConfig, OperationError, Operations,
    Standing, VerifiedTable, VerifyReport,
};
pub use event_sink::LogEventSink;
pub use in_process::InProcess;
pub use recommend::{LoadError, TABLES as FOLLOWED_TABLES};

use crate::api::{Api, RecoIds};
use crate::auth::KeyRing;
use crate::quota::PageQuotas;
use crate::request_metrics::RequestMetrics;
use crate::resources::{RESOURCES, Resources};
use crate::routes::body::BodyBudget;
use crate::routes::endpoint::Table;
use crate::serving::{Served, Serving};

/// How long shutdown waits while the last-used times of keys are saved.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("could not listen on {address}: {error}; choose another with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The state in memory could not be loaded from the store.
    #[error("could not load the served state: {0}")]
    Load(#[from] LoadError),
    /// The operating system returned no random bytes.
    #[error("could not get random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The loading task panicked.
    #[error("could not load the served state: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A running API. Dropping it does not stop it; [`Running::shutdown`] does.
pub struct Running {
    /// The bound address, with the actual port where port 0 was configured.
    pub address: SocketAddr,
    /// The bound address of `/metrics`.
    pub admin_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    ring: Arc<KeyRing>,
    #[cfg(test)]
    api: Arc<Api>,
}

impl Running {
    /// Stops accepting, ends streams, drains running requests (at most 5 s) and saves when keys were last used.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.background.iter().for_each(JoinHandle::abort);
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::error!("a server task failed: {error}");
            }
        }
        if tokio::time::timeout(SAVE_TIMEOUT, self.ring.maintain_once()).await.is_err() {
            tracing::warn!("could not save the last-used times of keys before shutdown");
        }
    }
}

/// Binds the addresses, loads the served state and starts serving. On an error nothing is served.
pub async fn start(config: ApiConfig, context: Context) -> Result<Running, StartError> {
    let listener = bind(config.listen).await?;
    let admin_listener = match config.admin_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let address = local_address(&listener, config.listen)?;
    let admin_address = admin_listener
        .as_ref()
        .zip(config.admin_listen)
        .map(|(listener, address)| local_address(listener, address))
        .transpose()?;

    for address in [Some(address), admin_address].into_iter().flatten() {
        if let Some(warning) = exposed(address, !config.trusted_proxies.is_empty()) {
            tracing::warn!("{warning}");
        }
    }
    let (stop, stopping) = watch::channel(false);
    let api = prepare(config, context, stopping.clone()).await?;
    let ring = Arc::clone(&api.ring);
    let mut background = vec![vital_task("the generation watcher", serving::follow(Arc::clone(&api)))];
    background.push(vital_task("the key maintenance task", {
        let ring = Arc::clone(&ring);
        async move { ring.maintain().await }
    }));
    if let Some(members) = api.context.members.clone() {
        background.push(vital_task("the members background task", async move { members.run().await }));
    }
    let served = server::serve(listener, Arc::clone(&api), routes::public(&api), stopping.clone());
    let mut servers = vec![vital_task("the server", served)];
    if let Some(listener) = admin_listener {
        servers.push(vital_task(
            "the server of the admin address",
            server::serve(listener, Arc::clone(&api), routes::admin_address(&api), stopping),
        ));
    }
    tracing::info!(%address, "listening on http://{address}");
    Ok(Running {
        address,
        admin_address,
        stop,
        servers,
        background,
        ring,
        #[cfg(test)]
        api,
    })
}

/// A warning for an address that other machines can reach without a TLS proxy (V12.2.1).
fn exposed(address: SocketAddr, behind_proxy: bool) -> Option<String> {
    (!address.ip().to_canonical().is_loopback() && !behind_proxy).then(|| {
        format!(
            "{address} is reachable from other machines without TLS: put a TLS proxy in front of it and set api.trusted_proxies \
             (docs/OPERATIONS.md), or listen on 127.0.0.1"
        )
    })
}

/// The resources that the API stores beside member accounts, for [`kindred_members::Members::with_resources`].
pub fn member_resources() -> kindred_members::Resources {
    resources::member_resources(RESOURCES)
}

async fn prepare(config: ApiConfig, context: Context, stopping: watch::Receiver<bool>) -> Result<Arc<Api>, StartError> {
    prepare_with(RESOURCES, config, context, stopping).await
}

async fn prepare_with(
    resources: Resources,
    config: ApiConfig,
    mut context: Context,
    stopping: watch::Receiver<bool>,
) -> Result<Arc<Api>, StartError> {
    if let Some(members) = &context.members {
        let names = resources.iter().map(|resource| resource.name());
        let erased = members.resources().iter().map(|resource| resource.name());
        assert!(names.eq(erased), "the members service was opened without the resources of the API, which it has to erase");
    }
    let ring = Arc::new(KeyRing::new(context.keys.clone(), context.clock.clone(), config.limits.address_share));
    let live = context.live.take().expect("a context is started only once");
    let live = Serving::load(live, &config.generation, context.clock.clone(), config.memory).await?;
    let bodies = BodyBudget::new(config.limits.bodies_bytes, config.limits.bodies_bytes_per_address);
    Ok(Arc::new(Api {
        table: Table::of(resources),
        served: Served::new(live),
        forwarding: Arc::new(auth::Forwarding::new(config.trusted_proxies.clone())),
        context,
        config,
        ring,
        metrics: RequestMetrics::new(),
        reco_ids: RecoIds::new()?,
        versions: conflicts::RecentVersions::new(),
        quotas: PageQuotas::new(),
        bodies,
        streams: Arc::default(),
        stopping,
    }))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { address, error })
}

fn local_address(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| StartError::Bind { address, error })
}
