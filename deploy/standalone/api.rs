//! `kindred api`: the API on services. Any number of them, beside a pipeline in processes of its own.
//!
//! ```text
//! POST /v1/events ──▶ Kafka        CQL ◀──reads── Followed ◀── the topic changes ◀── kindred pipeline
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kindred_api::{ApiConfig, Context};
use kindred_config::Loaded;
use kindred_store::keys::KeyStore;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::changes::Followed;
use crate::cli::ApiArgs;
use crate::failure::{Failure, exit};
use crate::installation::Open;
use crate::operations::{Process, Reach, Views};
use crate::serve::Signals;
use crate::server::{explain_start, free, keep_up};
use crate::services::Services;

/// How often to look for keys that another process made or revoked.
const KEYS_EVERY: Duration = Duration::from_secs(2);

/// Runs `kindred api`.
///
/// # Errors
/// When it cannot start.
pub fn run(app: &App, loaded: &Loaded, args: &ApiArgs) -> Result<u8> {
    if !loaded.settings.on_services() {
        return Err(Failure::usage("kindred api runs on services, and log.kind and store.kind are embedded")
            .help("`kindred serve` runs everything on a data directory; or name the services with --config FILE")
            .into());
    }
    app.runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = Running::start(app, loaded, args) => running?,
            () = signals.next() => return Ok(exit::FINE),
        };
        print!("{}", running.banner());
        signals.next().await;
        eprintln!("ending in order; once more ends at once");
        tokio::select! {
            () = running.stop() => Ok(exit::FINE),
            () = signals.next() => {
                eprintln!("ended at once");
                std::process::exit(i32::from(exit::FAILED));
            }
        }
    })
}

struct Running {
    services: Services,
    followed: Arc<Followed>,
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

        let services = Services::open(loaded, Open::Existing).await?;
        let followed = Arc::new(Followed::new(
            Arc::clone(&services.store) as _,
            Arc::new(services.log.broadcast()),
            Arc::clone(&services.generations) as _,
            &services.generation,
        ));
        let keys = Arc::new(KeyStore::open(Arc::clone(&services.store) as _).await.context("could not read the keys")?);
        let semantics = Arc::new(services.semantics.clone());
        let reach = Arc::new(Reach::new(Some(followed.feed())));
        let views = Views::Elsewhere(Arc::clone(&reach));
        let process =
            Process::new(Arc::clone(&services.log) as _, Arc::clone(&services.store) as _, Arc::clone(&semantics), views);
        let rendered = metrics.clone();
        let context = Context {
            log: Arc::clone(&services.log) as _,
            store: Arc::clone(&followed) as _,
            keys: Arc::clone(&keys),
            settings: semantics,
            operations: Arc::new(process),
            generations: None,
            clock: app.clock.clone(),
            render_metrics: Some(Arc::new(move || rendered.render())),
            extra: None,
        };
        let config = ApiConfig {
            listen,
            admin_listen: Some(admin_listen),
            generation: services.generation.clone(),
            raw_days: settings.erasure.raw_days,
            ..ApiConfig::default()
        };
        let api = kindred_api::start(config, context).await.map_err(explain_start)?;
        let background = [
            tokio::spawn(keep_up(metrics)),
            tokio::spawn(follow_keys(keys)),
            tokio::spawn(reach.watch(Arc::clone(&services.log) as _, Arc::clone(&services.store) as _)),
        ];
        Ok(Self { services, followed, api, background })
    }

    fn banner(&self) -> String {
        let Self { services, api, .. } = self;
        let admin = api.admin_address.map(|address| format!("  metrics      http://{address}/metrics\n")).unwrap_or_default();
        format!(
            "Kindred serves at http://{address}\n  from         {services}\n{admin}  contract     http://{address}/openapi.json\n",
            address = api.address
        )
    }

    async fn stop(self) {
        self.background.iter().for_each(JoinHandle::abort);
        self.api.shutdown().await;
        let followed = self.followed;
        if tokio::task::spawn_blocking(move || followed.stop()).await.is_err() {
            tracing::warn!("the thread that hears of changes did not end in order");
        }
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
