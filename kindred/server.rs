//! The process that serves: pipeline and API on one directory, and the simulated shop when asked.
//!
//! ```text
//! Directory ──▶ Fleet: a Pipeline (log → views → store) for each generation
//!          └──▶ API (log, store) ◀── Operations: what only the whole process can do
//! ```

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use kindred_api::{ApiConfig, Context, GenerationOperations, MemoryConfig, StartError};
use kindred_clock::Clock;
use kindred_config::members::MembersConfig;
use kindred_config::{Loaded, Settings};
use kindred_demo::{Backend, BackendError, Shop, ShopConfig};
use kindred_members::senders::Mailbox;
use kindred_model::MemberId;
use kindred_pipeline::Progress;
use kindred_store::keys::{Grant, KeyStore, Scope};
use kindred_store::records::RecordStore;
use kindred_telemetry::vital_task;
use serde_json::Value;
use tokio::task::JoinHandle;
use warp::{Filter, Reply};

use crate::audit::note;
use crate::directory::Directory;
use crate::failure::Failure;
use crate::generations::{Fleet, explain_end};
use crate::installation::Open;
use crate::members;
use crate::operations::{Process, Views};
use crate::remote::{AnswerError, Remote, segment};

/// How long the end waits for the views to take in what is in the log. What is left is taken in by the next start.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After which pauses the bytes of erased accounts are made to leave the disk.
const SHED_PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_secs(60)];
/// Under which a generation's store notes for how many members that were forgotten the accounts' bytes have left.
const SHED: &str = "shed_accounts";
/// How often to look whether raw records of members have left.
pub const FORGET_LOOK: Duration = Duration::from_secs(5);
/// How often samples of metrics are put into their buckets.
const METRICS_UPKEEP: Duration = Duration::from_secs(10);
/// What the key of the demo's page is called.
const DEMO_KEY: &str = "demo";
/// Requests a minute of the demo's page, which reads lists and follows streams in many tabs at once.
const DEMO_RATE_PER_MINUTE: u32 = 60_000;

/// What to start.
pub struct StartConfig {
    /// The settings.
    pub loaded: Loaded,
    /// The data directory.
    pub data: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where `/metrics` is; `None` has none.
    pub admin_listen: Option<SocketAddr>,
    /// Empty the store and rebuild it from the log.
    pub from_beginning: bool,
    /// Run the simulated shop.
    pub demo: bool,
    /// What the owner of the directory is called, for whoever finds it in use.
    pub command: String,
    /// What time it is.
    pub clock: Clock,
}

/// A serving process.
pub struct Running {
    /// Where the API answers.
    pub url: String,
    /// Where `/metrics` is.
    pub admin_address: Option<SocketAddr>,
    /// The service key.
    pub service_key: String,
    /// The directory.
    pub directory: Directory,
    api: kindred_api::Running,
    fleet: Arc<Fleet>,
    shop: Option<Arc<Shop>>,
    upkeep: Vec<JoinHandle<()>>,
}

/// Starts: opens the directory, makes a service key if it has none, starts the pipeline and the API. Returns when requests are
/// answered; `/readyz` says when the state is restored.
///
/// # Errors
/// A [`Failure`] that says what helps, where a person can do something about it.
pub async fn start(config: StartConfig) -> Result<Running> {
    let StartConfig { loaded, data, listen, admin_listen, from_beginning, demo, command, clock } = config;
    // Before the address: a second start of the same would blame it, and another address would not help.
    Directory::check_free(&data, &command)?;
    let found = free(listen)?;
    // The demo's key names the origins of its page, so its port has to be known before.
    let listen = if demo { found } else { listen };
    if let Some(admin_listen) = admin_listen {
        free(admin_listen)?;
    }
    let open = match (from_beginning, demo) {
        (true, _) => Open::ToRebuild,
        (false, true) => Open::Demo,
        (false, false) => Open::OrCreate,
    };
    let mut directory = Directory::open(&data, &loaded, open, &command).await?;
    let log = Arc::clone(&directory.log);

    let keys = Arc::new(KeyStore::open(Arc::clone(&directory.records)).await.context("could not read the keys")?);
    let service_key = directory.service_key(&keys, clock.now()).await?;

    // Metrics recorded before there is a recorder are lost.
    let metrics = kindred_telemetry::metrics_handle().context("could not set up metrics")?;
    let records = Arc::clone(&directory.records);
    let accounts = Arc::clone(&records);
    let mailbox = demo.then(|| Mailbox::new(Arc::clone(&records), clock.clone()));
    let mut settings = loaded.settings.clone();
    // Whoever tries it out has a phone of any region.
    if demo && settings.members.registration.phone_regions == MembersConfig::default().registration.phone_regions {
        settings.members.registration.phone_regions.push("*".into());
    }
    if demo && settings.members.base_url == MembersConfig::default().base_url {
        // The pages of the demo are where it listens.
        settings.members.base_url = demo_url(listen);
    }
    let members = members::open(&settings, Some(&directory.path), records, Arc::clone(&log), &clock, mailbox.clone()).await?;
    if from_beginning {
        note(members.as_deref(), "views.rebuild", &directory.live, true, &[]).await?;
    }
    let fleet = Fleet::start(&directory, &loaded.settings, &clock, from_beginning).await?;
    let operations = Arc::new(Process::new(Arc::clone(&directory.log), Views::Here(Arc::clone(&fleet))));

    let backend = Arc::new(Loopback::default());
    let shop = match demo {
        true => Some(open_shop(&directory, &keys, Arc::clone(&backend), listen, &clock).await?),
        false => None,
    };
    let extra =
        shop.clone().zip(mailbox).map(|(shop, mailbox)| kindred_demo::routes(shop, mailbox).map(Reply::into_response).boxed());
    let api_config = api_config(&loaded.settings, listen, admin_listen, &directory.live);
    let live = fleet.open(&directory.live).await.context("could not open the live generation")?;
    let context = Context {
        log,
        settings: Arc::clone(&live.settings),
        live: Some(live),
        keys,
        operations,
        generations: Some(Arc::clone(&fleet) as Arc<dyn GenerationOperations>),
        members,
        clock,
        render_metrics: Some(Arc::new({
            let metrics = metrics.clone();
            move || metrics.render()
        })),
        extra,
    };
    let api = kindred_api::start(api_config, context).await.map_err(explain_start)?;
    let url = format!("http://{}", api.address);
    backend.found(Remote::new(&url, &service_key)?);
    directory.announce(&url)?;
    let upkeep = vec![
        vital_task("the upkeep of metrics", keep_up(metrics)),
        vital_task("the disk of erased accounts", forget_elsewhere(Arc::clone(&fleet), accounts)),
    ];
    let admin_address = api.admin_address;
    // The fleet holds the stores.
    directory.release_store();
    Ok(Running { url, admin_address, service_key, directory, api, fleet, shop, upkeep })
}

impl Running {
    /// Returns when the pipeline has ended by itself, with why. While it runs, this waits.
    pub async fn ended(&self) -> anyhow::Error {
        explain_end(&*self.fleet.ended().await)
    }

    /// How far the pipeline is.
    pub fn progress(&self) -> Arc<Progress> {
        self.fleet.progress()
    }

    /// Ends in order: no new requests, running ones end, the views take in what is in the log, the store is durable.
    ///
    /// # Errors
    /// When the pipeline had ended before, or the store cannot be made durable.
    pub async fn stop(self) -> Result<()> {
        self.upkeep.iter().for_each(JoinHandle::abort);
        self.api.shutdown().await;
        // Its shoppers go home before the log is looked at for the last time.
        drop(self.shop);
        self.fleet.stop(DRAIN_TIMEOUT).await
    }
}

/// Puts samples of metrics into their buckets: where nobody scrapes, they would pile up.
pub async fn keep_up(metrics: kindred_telemetry::Metrics) {
    let mut due = tokio::time::interval(METRICS_UPKEEP);
    loop {
        due.tick().await;
        metrics.upkeep();
    }
}

/// What else holds something of members whose raw records have left: generations that stand still, and the accounts' files. Makes the
/// bytes of erased accounts leave the disk once the raw records of members have left. An account is deleted when it is erased;
/// what follows from it, mails and marks beside it, is deleted piece by piece afterwards, so it is done again a little later.
async fn forget_elsewhere(fleet: Arc<Fleet>, accounts: Arc<dyn RecordStore>) {
    let mut looked = HashSet::new();
    loop {
        let forgotten = async {
            let (live, swept) = fleet.drop_forgotten(&mut looked).await?;
            // With the generation, so that what a process of before left undone is done.
            let swept = swept.to_string();
            if live.named().get(SHED).await?.map_or(swept == "0", |shed| shed == swept.as_bytes()) {
                return Ok(());
            }
            for pause in SHED_PAUSES {
                tokio::time::sleep(pause).await;
                accounts.shed().await?;
            }
            live.named().put(SHED, swept.as_bytes()).await?;
            anyhow::Ok(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(
                "erasure: what generations and accounts still hold of forgotten members could not be removed yet; it is tried again: {error:#}"
            );
        }
        tokio::time::sleep(FORGET_LOOK).await;
    }
}

/// How an API runs under these settings.
pub fn api_config(settings: &Settings, listen: SocketAddr, admin_listen: Option<SocketAddr>, generation: &str) -> ApiConfig {
    ApiConfig {
        listen,
        admin_listen,
        generation: generation.to_owned(),
        raw_days: settings.erasure.raw_days,
        memory: MemoryConfig {
            lists_bytes_max: settings.api.lists_bytes_max,
            answers_bytes_max: settings.api.answers_bytes_max,
            strict_listed_after: settings.catalog.strict_listed_after,
        },
        trusted_proxies: settings.api.trusted_proxies.clone(),
        docs: settings.api.docs,
        limits: settings.api.limits.clone(),
    }
}

/// Looks whether an address can be had, before anything is made on disk for a server that cannot start. Returns it, with a port
/// where none was named.
pub fn free(address: SocketAddr) -> Result<SocketAddr> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|error| explain_bind(address, &error).into())
}

pub fn explain_bind(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("could not listen on {address}: {error}"));
    let options = "--listen ADDR:PORT for the API, --set api.admin_listen=ADDR:PORT for /metrics";
    match error.kind() {
        std::io::ErrorKind::AddrInUse => failure.help(format!("something listens there already; choose another with {options}")),
        _ => failure.help(format!("choose an address of this machine with {options}")),
    }
}

pub fn explain_start(error: StartError) -> anyhow::Error {
    match error {
        StartError::Bind { address, error } => explain_bind(address, &error).into(),
        other => anyhow!(other).context("could not start the API"),
    }
}

/// Opens the simulated shop: writes its history if the log has none yet.
async fn open_shop(
    directory: &Directory,
    keys: &KeyStore,
    backend: Arc<Loopback>,
    listen: SocketAddr,
    clock: &Clock,
) -> Result<Arc<Shop>> {
    let origins = demo_origins(listen);
    let known = keys.list().into_iter().find_map(|key| match &key.grant {
        Grant::Publishable { token, origins: theirs, .. } if key.name == DEMO_KEY && *theirs == origins && key.end.is_none() => {
            Some(token.clone())
        }
        _ => None,
    });
    let publishable_key = match known {
        Some(token) => token,
        None => {
            let scopes = [Scope::ListsRead, Scope::EventsWrite];
            let made = keys.create_publishable(DEMO_KEY, &origins, &scopes, DEMO_RATE_PER_MINUTE, clock.now()).await;
            made.context("could not make the key of the demo's page")?.token
        }
    };
    let config = ShopConfig {
        currency: directory.semantics.shop.currency.clone(),
        publishable_key,
        hosts: vec![listen.ip().to_string()],
        ..ShopConfig::default()
    };
    Shop::open(Arc::clone(&directory.log), backend, config).await.context("could not open the simulated shop")
}

/// The names under which a browser of this machine finds the page.
fn demo_origins(listen: SocketAddr) -> Vec<String> {
    let port = listen.port();
    let mut origins = vec![format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}"), format!("http://{listen}")];
    origins.sort();
    origins.dedup();
    origins
}

/// Where a browser of this machine finds the page: cookies that are for TLS alone are kept for addresses of the machine itself.
fn demo_url(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() { format!("http://localhost:{}", listen.port()) } else { format!("http://{listen}") }
}

/// The shop's own server asks Kindred over HTTP, as any shop would.
#[derive(Default)]
struct Loopback(OnceLock<Remote>);

impl Loopback {
    /// Tells where Kindred answers.
    fn found(&self, remote: Remote) {
        // Set once, by the one start.
        let _ = self.0.set(remote);
    }

    async fn ask(&self, ask: impl FnOnce(&Remote) -> Result<Value> + Send + 'static) -> Result<Value, BackendError> {
        let unavailable = |detail: String| BackendError { status: 503, detail };
        let remote = self.0.get().cloned().ok_or_else(|| unavailable("the server is starting".to_owned()))?;
        let answer = tokio::task::spawn_blocking(move || ask(&remote)).await.map_err(|error| unavailable(error.to_string()))?;
        answer.map_err(|error| match error.downcast_ref::<AnswerError>() {
            Some(answer) => BackendError { status: answer.status, detail: answer.detail.clone() },
            None => unavailable(format!("{error:#}")),
        })
    }
}

#[async_trait]
impl Backend for Loopback {
    async fn forget(&self, member: &MemberId) -> Result<Value, BackendError> {
        let path = format!("/v1/members/{}", segment(member.as_str()));
        self.ask(move |remote| remote.delete(&path)).await
    }

    async fn points(&self, member: &MemberId) -> Result<Value, BackendError> {
        let path = format!("/v1/members/{}/points", segment(member.as_str()));
        self.ask(move |remote| remote.get(&path)).await
    }

    async fn history(&self, member: &MemberId) -> Result<Value, BackendError> {
        let path = format!("/v1/members/{}/history", segment(member.as_str()));
        self.ask(move |remote| remote.get(&path)).await
    }

    async fn profile(&self, access_token: &str) -> Result<Value, BackendError> {
        let token = access_token.to_owned();
        self.ask(move |remote| remote.with_key(&token).get("/v1/members/me")).await
    }
}
