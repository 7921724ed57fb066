//! `kindred pipeline`: maintains the views on services, as one process or as one of a cluster.
//!
//! ```text
//! Kafka ──▶ Pipeline ──▶ Publisher ──▶ CQL        pipeline.admin_listen: /metrics /livez /readyz /status
//!                           └──▶ the topic changes ──▶ kindred api
//! ```

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kindred_api::Operations;
use kindred_config::Loaded;
use kindred_pipeline::{Pipeline, PipelineConfig, swept_members};
use kindred_store::generations::Generations;
use kindred_telemetry::vital_task;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use warp::http::StatusCode;
use warp::{Filter, Reply};

use crate::app::App;
use crate::audit::note;
use crate::failure::{Failure, exit};
use crate::generations::holds_forgotten;
use crate::installation::Open;
use crate::local::pipeline_config;
use crate::members;
use crate::operations::{Process, Reach, Views};
use crate::serve::From;
use crate::serve::Signals;
use crate::server::{FORGET_LOOK, explain_bind, keep_up};
use crate::services::Services;

/// `kindred pipeline`
#[derive(Args, Clone, Debug, Default)]
pub struct PipelineArgs {
    /// The generation whose views it keeps; without it the one that is live when it starts. It keeps to it, whatever is promoted
    #[arg(long, value_name = "NAME")]
    pub generation: Option<String>,
    /// `beginning` empties the store and rebuilds it from the log alone
    #[arg(long, value_name = "WHERE")]
    pub from: Option<From>,
}

/// Runs `kindred pipeline`.
///
/// # Errors
/// When it cannot start, or the pipeline ends by itself.
pub fn run(app: &App, loaded: &Loaded, args: &PipelineArgs) -> Result<u8> {
    Services::required("pipeline", loaded)?;
    app.runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = Running::start(app, loaded, args) => running?,
            // The next start repeats what this one began.
            () = signals.next() => return Ok(exit::FINE),
        };
        println!("Kindred keeps the views of {}\n  status       http://{}/status", running.services, running.admin_address);
        tokio::select! {
            () = signals.next() => {}
            error = running.ended() => return Err(error),
        }
        signals.end_in_order(running.stop()).await
    })
}

struct Running {
    services: Arc<Services>,
    pipeline: Pipeline,
    admin_address: SocketAddr,
    background: Vec<JoinHandle<()>>,
}

impl Running {
    async fn start(app: &App, loaded: &Loaded, args: &PipelineArgs) -> Result<Self> {
        let address = loaded.settings.pipeline.admin_listen;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            explain_bind(address, &error).help("choose another address with --set pipeline.admin_listen=ADDR:PORT")
        })?;
        let admin_address = listener.local_addr().context("could not tell where it listens")?;
        // Metrics recorded without a recorder are lost.
        let metrics = kindred_telemetry::metrics_handle().context("could not set up metrics")?;

        let from_beginning = args.from == Some(From::Beginning);
        // Process 0 migrates what an older version wrote.
        let leads = loaded.settings.cluster.process == 0;
        let open = match (from_beginning, leads) {
            (true, _) => Open::ToRebuild,
            (false, true) => Open::ToKeep,
            (false, false) => Open::Existing,
        };
        let services = Services::open_generation(loaded, open, args.generation.as_deref()).await?;
        if from_beginning && leads {
            let (records, log) = (Arc::clone(&services.records), Arc::clone(&services.log) as _);
            let members = members::open(&loaded.settings, None, records, log, &app.clock, None).await?;
            note(members.as_deref(), "views.rebuild", &services.generation, true, &[]).await?;
        }
        let store = Arc::clone(&services.store);
        let writer = services.publisher(&services.generation, Arc::clone(&store) as _);
        // The live generation's pipeline repairs the log; others must not.
        let mends_log = services.is_live;
        let config = PipelineConfig {
            from_beginning,
            mends_log,
            ..pipeline_config(&loaded.settings, &services.semantics, &services.generation)
        };
        let log = Arc::clone(&services.log);
        let pipeline = Pipeline::start_with(config, Arc::clone(&log) as _, store, writer, app.clock.clone()).await;
        let pipeline = pipeline.context("could not start the pipeline")?;

        let reach = Arc::new(Reach::default());
        let views = Views::OnServices {
            progress: pipeline.progress(),
            store: Arc::clone(&services.store) as _,
            semantics: Arc::new(services.semantics.clone()),
            reach: Arc::clone(&reach),
        };
        let process = Arc::new(Process::new(Arc::clone(&log) as _, views));
        let (rendered, kept) = (metrics.clone(), metrics);
        let routes = admin_routes(process, move || rendered.render());
        let served = vital_task("the admin address", warp::serve(routes).incoming(listener).run());
        let watched = vital_task("the watch over log and store", reach.watch(log, Arc::clone(&services.store) as _));
        let mut background = vec![served, vital_task("the upkeep of metrics", keep_up(kept)), watched];
        let services = Arc::new(services);
        if services.is_live && leads {
            background.push(vital_task("the erasure of generations without a pipeline", drop_forgotten(Arc::clone(&services))));
        }
        Ok(Self { services, pipeline, admin_address, background })
    }

    /// Returns why the pipeline ended, once it has ended by itself.
    async fn ended(&self) -> anyhow::Error {
        let progress = self.pipeline.progress();
        progress.ended().await;
        let reason = progress.status().reason.unwrap_or_else(|| "another process of the cluster was stopped".to_owned());
        Failure::new(format!("the pipeline has ended: {reason}"))
            .help("nothing that was acknowledged is lost; start all of its processes again")
            .into()
    }

    /// Writes what was read and the frontier, then marks the store clean.
    async fn stop(self) -> Result<()> {
        let pipeline = self.pipeline;
        let stopped = tokio::task::spawn_blocking(move || pipeline.stop());
        stopped.await.map_err(|error| anyhow!(error))?.context("could not end the pipeline in order")?;
        self.background.iter().for_each(JoinHandle::abort);
        Ok(())
    }
}

/// Drops generations of a part of the events that hold data of an erased member: see [`holds_forgotten`].
async fn drop_forgotten(services: Arc<Services>) {
    let mut looked = HashSet::new();
    loop {
        let dropped = async {
            let swept = swept_members(&*services.store).await?;
            for generation in services.generations.list().await? {
                let name = generation.name;
                if name != services.generation
                    && !generation.dropping
                    && holds_forgotten(&name, services.generation_named(&name).await?.0, &swept, &mut looked).await?
                {
                    Generations::drop(&*services.generations, &name).await?;
                    tracing::warn!("dropped generation {name}: it follows no log and held data of an erased member");
                }
            }
            anyhow::Ok(())
        };
        if let Err(error) = dropped.await {
            tracing::warn!("could not check generations for erased members: {error:#}");
        }
        tokio::time::sleep(FORGET_LOOK).await;
    }
}

/// The routes of the admin address.
fn admin_routes(
    process: Arc<Process>,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let live = warp::path!("livez").map(|| "ok\n".into_response());
    let metrics = warp::path!("metrics").map(move || {
        warp::reply::with_header(render(), "content-type", "text/plain; version=0.0.4; charset=utf-8").into_response()
    });
    let ready = {
        let process = Arc::clone(&process);
        warp::path!("readyz").map(move || {
            let checks = process.readiness();
            let ready = checks.iter().all(|check| check.ready);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = warp::reply::json(&json!({ "ready": ready, "checks": checks }));
            warp::reply::with_status(body, status).into_response()
        })
    };
    let status = warp::path!("status").then(move || {
        let process = Arc::clone(&process);
        async move { warp::reply::json(&process.status().await).into_response() }
    });
    warp::get().and(live.or(metrics).unify().or(ready).unify().or(status).unify())
}
