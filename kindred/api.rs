//! `kindred api`: the API on services. Any number of them, beside a pipeline in processes of its own.
//!
//! ```text
//! POST /v1/events ──▶ Kafka        CQL ◀──reads── Followers ◀── the topic changes ◀── kindred pipeline
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use kindred_api::{Context, GenerationOperations as _};
use kindred_config::Loaded;
use kindred_log::EventLog;
use kindred_store::keys::KeyStore;
use kindred_telemetry::vital_task;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::failure::exit;
use crate::generations::Followers;
use crate::installation::Open;
use crate::members;
use crate::operations::{Process, Reach, Views};
use crate::serve::Signals;
use crate::server::{api_config, explain_start, free, keep_up};
use crate::services::Services;

/// `kindred api`
#[derive(Args, Clone, Debug, Default)]
pub struct ApiArgs {
    /// Where the API listens; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
}

/// How often to look for keys that another process made or revoked.
const KEYS_EVERY: Duration = Duration::from_secs(2);

/// Runs `kindred api`.
///
/// # Errors
/// When it cannot start.
pub fn run(app: &App, loaded: &Loaded, args: &ApiArgs) -> Result<u8> {
    Services::required("api", loaded)?;
    app.runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = Running::start(app, loaded, args) => running?,
            () = signals.next() => return Ok(exit::FINE),
        };
        print!("{}", running.banner());
        signals.next().await;
        signals.end_in_order(running.stop()).await
    })
}

struct Running {
    services: Arc<Services>,
    api: kindred_api::Running,
    background: [JoinHandle<()>; 3],
}

impl Running {
    async fn start(app: &App, loaded: &Loaded, args: &ApiArgs) -> Result<Self> {
        let settings = &loaded.settings;
        let (listen, admin_listen) = (args.listen.unwrap_or(settings.api.listen), settings.api.admin_listen);
        free(listen)?;
        free(admin_listen)?;
        // Metrics recorded before there is a recorder are lost.
        let metrics = kindred_telemetry::metrics_handle().context("could not set up metrics")?;

        let services = Arc::new(Services::open(loaded, Open::Existing).await?);
        let followers = Arc::new(Followers::new(Arc::clone(&services)));
        let live = followers.open(&services.generation).await.context("could not open the live generation")?;
        let keys = Arc::new(KeyStore::open(Arc::clone(&services.records)).await.context("could not read the keys")?);
        let reach = Arc::new(Reach::default());
        let views = Views::Elsewhere(Arc::clone(&followers), Arc::clone(&reach));
        let process = Process::new(Arc::clone(&services.log) as _, views);
        let records = Arc::clone(&services.records);
        let log: Arc<dyn EventLog> = Arc::clone(&services.log) as _;
        let members = members::open(settings, None, records, Arc::clone(&log), &app.clock, None).await?;
        let rendered = metrics.clone();
        let context = Context {
            log,
            settings: Arc::clone(&live.settings),
            live: Some(live),
            keys: Arc::clone(&keys),
            operations: Arc::new(process),
            generations: Some(Arc::clone(&followers) as _),
            members,
            clock: app.clock.clone(),
            render_metrics: Some(Arc::new(move || rendered.render())),
            extra: None,
        };
        let config = api_config(settings, listen, Some(admin_listen), &services.generation);
        let api = kindred_api::start(config, context).await.map_err(explain_start)?;
        let background = [
            vital_task("the upkeep of metrics", keep_up(metrics)),
            vital_task("the refresh of keys", follow_keys(keys)),
            vital_task(
                "the watch over log and store",
                reach.watch(Arc::clone(&services.log) as _, Arc::clone(&services.store) as _),
            ),
        ];
        Ok(Self { services, api, background })
    }

    fn banner(&self) -> String {
        let Self { services, api, .. } = self;
        let admin = api.admin_address.map(|address| format!("  metrics      http://{address}/metrics\n")).unwrap_or_default();
        format!(
            "Kindred serves at http://{address}\n  from         {services}\n{admin}  contract     http://{address}/openapi.json, to read: http://{address}/docs\n",
            address = api.address
        )
    }

    async fn stop(self) -> Result<()> {
        self.background.iter().for_each(JoinHandle::abort);
        self.api.shutdown().await;
        Ok(())
    }
}

/// Takes over what other processes do to the keys; never ends.
async fn follow_keys(keys: Arc<KeyStore>) {
    let mut due = tokio::time::interval(KEYS_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answered = true;
    loop {
        due.tick().await;
        let refreshed = keys.refresh().await;
        // Told once, not every time.
        if let Err(error) = &refreshed
            && answered
        {
            tracing::warn!("could not look for keys made or revoked elsewhere: {error}");
        }
        answered = refreshed.is_ok();
    }
}
