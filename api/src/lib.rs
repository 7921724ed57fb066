//! The API: events in, lists and points out.
//!
//! ```text
//! POST /v1/events ──▶ EventLog            ChangeFeed ──▶ recommend (memory) ──▶ GET lists, streams
//!                                             └──snapshot──▶ members, export
//! ```
//!
//! It meets the pipeline in the log and in the store, and nowhere else. [`start`] binds the addresses and serves until the
//! returned [`Running`] is shut down.

#[cfg(test)]
extern crate self as kindred_api;

mod api;
mod auth;
mod compressed;
mod conflicts;
mod context;
pub mod export_writer;
#[doc(hidden)]
pub mod fuzzing;
mod measure;
pub mod openapi;
mod paced;
mod params;
mod problem;
mod quota;
mod recommend;
mod reference;
mod resources;
mod routes;
mod served;
mod server;
mod to_log;
mod to_the_end;

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
pub use problem::{Code, FieldError, Problem};
pub use recommend::{LoadError, TABLES as FOLLOWED_TABLES};
pub use to_log::MembersToLog;

use crate::api::{Api, RecoIds};
use crate::auth::KeyRing;
use crate::measure::Measures;
use crate::quota::PageQuotas;
use crate::resources::{RESOURCES, Resources};
use crate::routes::body::Bodies;
use crate::routes::endpoint::Table;
use crate::served::{Served, Serving};

/// How long the end waits for the store to take when keys were last used: it is not worth more.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("could not listen on {address}: {error}; choose another with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The memory could not be loaded from the store.
    #[error("could not load what is served: {0}")]
    Load(#[from] LoadError),
    /// The system has no random numbers.
    #[error("could not draw random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The task that loads was lost.
    #[error("could not load what is served: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A running API. Dropping it leaves the API running to the end of the process; [`Running::shutdown`] ends it in order.
pub struct Running {
    /// Where it listens: the port that was given out where 0 was asked for.
    pub address: SocketAddr,
    /// Where `/metrics` is.
    pub admin_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    /// What goes on beside requests: turning to what other processes promote, the keeping of the keys, the outbox of the members.
    background: Vec<JoinHandle<()>>,
    ring: Arc<KeyRing>,
    #[cfg(test)]
    api: Arc<Api>,
}

impl Running {
    /// Takes no new requests, ends streams, lets running requests end (5 s at most), saves when keys were last used, and returns.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.background.iter().for_each(JoinHandle::abort);
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::error!("a server did not end in order: {error}");
            }
        }
        if tokio::time::timeout(LAST_SAVE, self.ring.keep_now()).await.is_err() {
            tracing::warn!("when keys were last used could not be saved in time");
        }
    }
}

/// Binds the addresses, loads what is served, and serves.
///
/// # Errors
/// [`StartError`]; nothing is served then.
pub async fn start(config: ApiConfig, context: Context) -> Result<Running, StartError> {
    let listener = bind(config.listen).await?;
    let admin_listener = match config.admin_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let address = local_address(&listener, config.listen)?;
    let admin_address = admin_listener.as_ref().zip(config.admin_listen).map(|(l, asked)| local_address(l, asked)).transpose()?;

    for address in [Some(address), admin_address].into_iter().flatten() {
        if let Some(warning) = exposed(address, !config.trusted_proxies.is_empty()) {
            tracing::warn!("{warning}");
        }
    }
    let (stop, stopping) = watch::channel(false);
    let api = prepare(config, context, stopping.clone()).await?;
    let ring = Arc::clone(&api.ring);
    let mut background = vec![vital_task("the watch over generations", served::follow(Arc::clone(&api)))];
    background.push(vital_task("the saving of when keys were used", {
        let ring = Arc::clone(&ring);
        async move { ring.keep().await }
    }));
    if let Some(members) = api.context.members.clone() {
        background.push(vital_task("the work of members", async move { members.run().await }));
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

/// What an operator is told of an address that others reach, where no proxy is named that stands before it (V12.2.1).
fn exposed(address: SocketAddr, behind_proxy: bool) -> Option<String> {
    (!address.ip().to_canonical().is_loopback() && !behind_proxy).then(|| {
        format!(
            "{address} is reached by other machines, and what is sent there can be read on the way: let a proxy with TLS stand before \
             it and name it in api.trusted_proxies (docs/OPERATIONS.md), or listen on 127.0.0.1"
        )
    })
}

/// What the API keeps of members beside their accounts: they are opened with it.
pub fn kept_of_members() -> kindred_members::Resources {
    resources::kept_of_members(RESOURCES)
}

/// Everything but the sockets.
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
        assert!(names.eq(erased), "the members were opened without the resources of the API, whose erasure they walk");
    }
    let ring = Arc::new(KeyRing::new(context.keys.clone(), context.clock.clone(), config.limits.address_share));
    let live = context.live.take().expect("a context is started once");
    let live = Serving::load(live, &config.generation, context.clock.clone(), config.memory).await?;
    let bodies = Bodies::new(config.limits.bodies_bytes, config.limits.bodies_bytes_per_address);
    Ok(Arc::new(Api {
        table: Table::of(resources),
        served: Served::new(live),
        forwarding: Arc::new(auth::Forwarding::new(config.trusted_proxies.clone())),
        context,
        config,
        ring,
        measures: Measures::new(),
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
