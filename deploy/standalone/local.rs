//! A pipeline on a directory, for a command that changes something and ends: no API, and nothing else owns the directory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kindred_config::{Loaded, Settings};
use kindred_model::{Position, Semantics};
use kindred_pipeline::{Pipeline, PipelineConfig, PipelineError};

use crate::app::App;
use crate::directory::Directory;

/// How often to look how far the views are.
const LOOK: Duration = Duration::from_millis(200);

/// How a pipeline runs under these settings.
pub fn pipeline_config(settings: &Settings, semantics: &Semantics) -> PipelineConfig {
    PipelineConfig {
        workers: settings.pipeline.workers,
        epoch_min: Duration::from_millis(settings.pipeline.epoch_min_ms),
        epoch_records_max: settings.pipeline.epoch_records_max,
        sync_interval: Duration::from_millis(settings.pipeline.sync_interval_ms),
        raw_days: settings.erasure.raw_days,
        ..PipelineConfig::new(semantics.clone())
    }
}

/// A directory whose views follow its log.
pub struct Local {
    /// The directory.
    pub directory: Directory,
    /// What keeps its views.
    pub pipeline: Pipeline,
}

impl Local {
    /// Starts the pipeline.
    ///
    /// # Errors
    /// What the pipeline says.
    pub fn start(app: &App, loaded: &Loaded, directory: Directory) -> Result<Self> {
        let config = pipeline_config(&loaded.settings, &directory.semantics);
        let (log, store) = (Arc::clone(&directory.log), Arc::clone(&directory.store));
        let pipeline = app.runtime.block_on(Pipeline::start(config, log, store, app.clock.clone()));
        let pipeline = pipeline.context("could not start the pipeline")?;
        Ok(Self { directory, pipeline })
    }

    /// Waits until the store reaches a position, telling now and then how far it is.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub fn wait_for(&self, app: &App, position: &Position, mut look: impl FnMut(&Position)) -> Result<()> {
        loop {
            match app.runtime.block_on(self.pipeline.wait_for(position, LOOK)) {
                Ok(()) => return Ok(()),
                Err(PipelineError::Late(_)) => look(&self.pipeline.applied()),
                Err(error) => return Err(error).context("could not bring the views up to date"),
            }
        }
    }

    /// Waits until the views reach the end of the log and survive a loss of power, and ends cleanly. Returns how far they are.
    ///
    /// # Errors
    /// What the pipeline or the store say.
    pub fn stop(self, app: &App) -> Result<Position> {
        let end = app.runtime.block_on(self.directory.log.end()).context("could not read the end of the log")?;
        self.wait_for(app, &end, |_| ())?;
        self.pipeline.stop().context("could not end the pipeline")?;
        app.runtime.block_on(self.directory.store.sync()).context("could not make the store durable")?;
        Ok(end)
    }
}
