//! Views that follow the log, for a command that changes something and ends: of a directory, a pipeline of its own; on services, the
//! one that runs there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kindred_config::{Loaded, Settings};
use kindred_model::{Position, Semantics};
use kindred_pipeline::{Cluster, Pipeline, PipelineConfig, PipelineError};
use kindred_store::ViewStore;

use crate::app::App;
use crate::failure::Failure;
use crate::installation::{Installation, Make};

/// How often to look how far the views are.
const LOOK: Duration = Duration::from_millis(200);
/// How long the views of another process may stand still before a command gives up waiting: longer than a start takes to restore
/// some ten million events.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How the pipeline of a generation runs under these settings.
pub fn pipeline_config(settings: &Settings, semantics: &Semantics, generation: &str) -> PipelineConfig {
    let cluster = Cluster { process: settings.cluster.process, hosts: settings.cluster.hosts.clone() };
    PipelineConfig {
        workers: settings.pipeline.workers,
        epoch_min: Duration::from_millis(settings.pipeline.epoch_min_ms),
        epoch_records_max: settings.pipeline.epoch_records_max,
        sync_interval: Duration::from_millis(settings.pipeline.sync_interval_ms),
        raw_days: settings.erasure.raw_days,
        // Processes share what services hold; a directory has one.
        cluster: (settings.on_services() && cluster.hosts.len() > 1).then_some(cluster),
        generation: generation.to_owned(),
        ..PipelineConfig::new(semantics.clone())
    }
}

/// An installation whose views follow its log.
pub struct Local {
    /// The installation.
    pub installation: Arc<Installation>,
    /// What keeps its views; none where another process does.
    pipeline: Option<Pipeline>,
}

impl Local {
    /// Starts the pipeline, where no other process is to run one.
    ///
    /// # Errors
    /// What the pipeline says.
    pub fn start(app: &App, loaded: &Loaded, installation: impl Into<Arc<Installation>>) -> Result<Self> {
        let installation = installation.into();
        let pipeline = match installation.make {
            Make::Services(_) => None,
            Make::Directory(_) => {
                let config = pipeline_config(&loaded.settings, &installation.semantics, installation.live());
                let (log, store) = (Arc::clone(&installation.log), Arc::clone(&installation.store));
                let pipeline = app.runtime.block_on(Pipeline::start(config, log, store, app.clock.clone()));
                Some(pipeline.context("could not start the pipeline")?)
            }
        };
        Ok(Self { installation, pipeline })
    }

    /// How far the store reaches.
    pub fn applied(&self) -> Position {
        self.pipeline.as_ref().map_or_else(|| self.installation.store.frontier().position, Pipeline::applied)
    }

    /// Waits until the store reaches a position, telling now and then how far it is.
    ///
    /// # Errors
    /// When the pipeline has ended, or that of another process stands still.
    pub fn wait_for(&self, app: &App, position: &Position, mut look: impl FnMut(&Position)) -> Result<()> {
        let Some(pipeline) = &self.pipeline else { return wait_elsewhere(&*self.installation.store, position, look) };
        loop {
            match app.runtime.block_on(pipeline.wait_for(position, LOOK)) {
                Ok(()) => return Ok(()),
                Err(PipelineError::Late(_)) => look(&pipeline.applied()),
                Err(error) => return Err(error).context("could not bring the views up to date"),
            }
        }
    }

    /// Waits until the views reach the end that the log has now, and returns it.
    ///
    /// # Errors
    /// As [`Local::wait_for`]; when the log does not answer.
    pub fn catch_up(&self, app: &App) -> Result<Position> {
        let end = app.runtime.block_on(self.installation.log.end()).context("could not read the end of the log")?;
        self.wait_for(app, &end, |_| ())?;
        Ok(end)
    }

    /// Waits until the views reach the end of the log and survive a loss of power, and ends cleanly. Returns how far they are.
    ///
    /// # Errors
    /// What the pipeline or the store say.
    pub fn stop(self, app: &App) -> Result<Position> {
        let end = self.catch_up(app)?;
        if let Some(pipeline) = self.pipeline {
            pipeline.stop().context("could not end the pipeline")?;
        }
        app.runtime.block_on(self.installation.store.sync()).context("could not make the store durable")?;
        Ok(end)
    }
}

fn wait_elsewhere(store: &dyn ViewStore, position: &Position, mut look: impl FnMut(&Position)) -> Result<()> {
    let (mut last, mut moved) = (store.frontier().position, Instant::now());
    while !last.reaches(position) {
        if moved.elapsed() > STANDSTILL {
            return Err(Failure::new(format!(
                "the views have not moved for {} s; what was written is in the log, and will be taken in",
                STANDSTILL.as_secs()
            ))
            .help("look whether `kindred pipeline` runs, and at /status on its pipeline.admin_listen")
            .into());
        }
        std::thread::sleep(LOOK);
        let now = store.frontier().position;
        if now != last {
            moved = Instant::now();
        }
        last = now;
        look(&last);
    }
    Ok(())
}
