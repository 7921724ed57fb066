//! The generations of a serving process: a pipeline maintains each complete one from the log; one of them is live.
//!
//! ```text
//! log ──▶ Pipeline(g1) ──▶ store g1 ──▶ API (live)      promote(g2): the API builds g2's memory aside, then `live` turns
//!    └──▶ Pipeline(g2) ──▶ store g2
//! ```
//!
//! A rollback is as quick and fresh as a promotion, since the former live generation keeps following the log. Generations of a
//! part of the events do not, and are dropped when a member in them is erased.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use kindred_api::{GenerationOperations, GenerationShown, GenerationSource, OperationError, Standing};
use kindred_clock::Clock;
use kindred_config::Settings;
use kindred_log::EventLog;
use kindred_model::{Day, MemberId, Semantics};
use kindred_pipeline::{Pipeline, PipelineConfig, PipelineError, PipelineState, Progress, swept_members};
use kindred_store::embedded_generations::EmbeddedGenerations;
use kindred_store::generations::Generations;
use kindred_store::{StoreError, ViewStore};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::provenance::Provenance;
use super::{Comparing, check_promotable, describe, failed, holds_forgotten, of_store};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::local::pipeline_config;

/// How long a drop waits for readers.
const DROP_WAIT: Duration = Duration::from_secs(10);
/// How long a promotion waits for a generation that is restoring its state.
const RESTORE_WAIT: Duration = Duration::from_secs(10);
/// The polling interval of both.
const LOOK: Duration = Duration::from_millis(50);
/// The polling interval for the end of the log.
const COMPLETE_LOOK: Duration = Duration::from_secs(3_600);

/// An open generation.
#[derive(Clone)]
pub struct Kept {
    /// Its rows.
    pub store: Arc<dyn ViewStore>,
    /// Its settings.
    pub semantics: Arc<Semantics>,
    /// The progress of its pipeline; `None` without one.
    pub progress: Option<Arc<Progress>>,
}

/// All generations of a directory, in a process that serves.
pub struct Fleet {
    log: Arc<dyn EventLog>,
    generations: Arc<EmbeddedGenerations>,
    kept: Mutex<BTreeMap<String, Kept>>,
    pipelines: Mutex<BTreeMap<String, Pipeline>>,
    live: watch::Sender<String>,
    /// Serializes promotions and drops.
    changing: tokio::sync::Mutex<()>,
    comparing: Comparing,
}

impl Fleet {
    /// Opens every generation and starts the pipelines. `from_beginning` rebuilds the live one from the log.
    ///
    /// # Errors
    /// When the live one does not start. Others that do not start are skipped with a warning.
    pub async fn start(directory: &Directory, settings: &Settings, clock: &Clock, from_beginning: bool) -> Result<Arc<Self>> {
        let fleet = Arc::new(Self {
            log: Arc::clone(&directory.log),
            generations: Arc::clone(&directory.generations),
            kept: Mutex::default(),
            pipelines: Mutex::default(),
            live: watch::Sender::new(directory.live.clone()),
            changing: tokio::sync::Mutex::default(),
            comparing: Comparing::default(),
        });
        let config = |name: &str, semantics: &Semantics| pipeline_config(settings, semantics, name);
        let live = PipelineConfig { from_beginning, ..config(&directory.live, &directory.semantics) };
        fleet.follow(&directory.live, Arc::clone(directory.store()), live, clock).await?;
        for generation in directory.generations.list().await.context("could not list the generations")? {
            if generation.name == directory.live {
                continue;
            }
            let started = async {
                let (store, semantics) = directory.generation(&generation.name).await?;
                if Provenance::of(&generation.name, &*store).await?.is_some_and(|origin| origin.is_whole()) {
                    return fleet.follow(&generation.name, store, config(&generation.name, &semantics), clock).await;
                }
                let kept = Kept { store, semantics: Arc::new(semantics), progress: None };
                fleet.kept.lock().insert(generation.name.clone(), kept);
                Ok(())
            };
            if let Err(error) = started.await {
                tracing::warn!("generation {} skipped: {error:#}", generation.name);
            }
        }
        Ok(fleet)
    }

    async fn follow(
        self: &Arc<Self>,
        name: &str,
        store: Arc<dyn ViewStore>,
        config: PipelineConfig,
        clock: &Clock,
    ) -> Result<()> {
        let semantics = Arc::new(config.semantics.clone());
        let pipeline = Pipeline::start(config, Arc::clone(&self.log), Arc::clone(&store), clock.clone()).await;
        let pipeline = pipeline.context("could not start the pipeline")?;
        let progress = pipeline.progress();
        let kept = Kept { store: Arc::clone(&store), semantics, progress: Some(Arc::clone(&progress)) };
        self.kept.lock().insert(name.to_owned(), kept);
        self.pipelines.lock().insert(name.to_owned(), pipeline);
        let origin = Provenance::shown(name, &*store).await?;
        if !origin.complete {
            let log = Arc::clone(&self.log);
            let store = Arc::downgrade(&store);
            tokio::spawn(async move {
                let Ok(end) = log.end().await else { return };
                while let Err(PipelineError::Late(_)) = progress.wait_for(&end, COMPLETE_LOOK).await {}
                let Some(store) = store.upgrade().filter(|_| progress.applied().reaches(&end)) else { return };
                if let Err(error) = (Provenance { complete: true, ..origin }).note(&*store).await {
                    tracing::warn!("{error:#}");
                }
            });
        }
        Ok(())
    }

    /// The live generation.
    pub fn live(&self) -> Kept {
        let name = self.live.borrow().clone();
        self.kept.lock().get(&name).cloned().expect("the live one is kept")
    }

    /// The progress of the live generation.
    pub fn progress(&self) -> Arc<Progress> {
        self.live().progress.expect("the live one follows the log")
    }

    /// Drops each generation without a pipeline that holds an erased member, once the raw records are gone. Returns the live
    /// store and the number of erased members.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn drop_forgotten(&self, looked: &mut HashSet<(String, MemberId)>) -> Result<(Arc<dyn ViewStore>, usize)> {
        let live = self.live().store;
        let swept = swept_members(&*live).await?;
        let still: Vec<(String, Arc<dyn ViewStore>)> = {
            let kept = self.kept.lock();
            kept.iter()
                .filter(|(_, kept)| kept.progress.is_none())
                .map(|(name, kept)| (name.clone(), kept.store.clone()))
                .collect()
        };
        for (name, store) in still {
            if holds_forgotten(&name, store, &swept, looked).await? {
                self.drop_generation(&name).await.map_err(|error| anyhow!("could not drop {name}: {error}"))?;
                tracing::warn!("dropped generation {name}: it follows no log and held data of an erased member");
            }
        }
        Ok((live, swept.len()))
    }

    /// Returns when the pipeline of the live generation has ended by itself.
    pub async fn ended(&self) -> Arc<Progress> {
        let mut turned = self.live.subscribe();
        loop {
            let progress = self.progress();
            turned.mark_unchanged();
            tokio::select! {
                () = progress.ended() => if Arc::ptr_eq(&progress, &self.progress()) { return progress },
                _ = turned.changed() => {}
            }
        }
    }

    /// Shuts down: the live generation drains the log within `drain`, then all pipelines stop and all stores sync.
    ///
    /// # Errors
    /// When the live pipeline had ended before, or a store does not sync.
    pub async fn stop(&self, drain: Duration) -> Result<()> {
        let live = self.live.borrow().clone();
        let mut pipelines = std::mem::take(&mut *self.pipelines.lock());
        let first = pipelines.remove(&live).context("the live generation has no pipeline")?;
        match first.settle(drain).await {
            Ok(position) => tracing::info!(%position, "the views reached the end of the log"),
            Err(PipelineError::Late(_)) => tracing::warn!("stopping before the end of the log; the next start resumes there"),
            Err(error) => tracing::warn!("stopping before the end of the log: {error}"),
        }
        for (name, pipeline) in pipelines {
            if let Err(error) = stop(pipeline).await {
                tracing::warn!("generation {name}: {error:#}");
            }
        }
        stop(first).await?;
        let stores: Vec<_> = self.kept.lock().values().map(|kept| Arc::clone(&kept.store)).collect();
        for store in stores {
            store.sync().await.context("could not make the store durable")?;
        }
        Ok(())
    }

    fn kept(&self, name: &str) -> Result<Kept, OperationError> {
        let kept = self.kept.lock().get(name).cloned();
        kept.ok_or_else(|| OperationError::Unknown(format!("there is no generation {name}")))
    }
}

async fn stop(pipeline: Pipeline) -> Result<()> {
    let stopped = tokio::task::spawn_blocking(move || pipeline.stop());
    stopped.await.map_err(|error| anyhow!(error))?.context("could not end the pipeline in order")
}

#[async_trait]
impl GenerationOperations for Fleet {
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError> {
        let listed = async {
            let end = self.log.end().await.context("could not read the end of the log")?;
            let (name, live) = (self.live.borrow().clone(), self.live());
            let mut shown = Vec::new();
            for generation in self.generations.list().await.context("could not list the generations")? {
                let Ok(kept) = self.kept(&generation.name) else { continue };
                shown.push(describe(&generation, &*kept.store, &kept.semantics, (&name, &live.semantics), &end).await?);
            }
            Ok(shown)
        };
        listed.await.map_err(|error| failed(&error))
    }

    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError> {
        let settings = self.kept(name)?.semantics;
        let store = self.generations.store(name).map_err(of_store)?;
        Ok(GenerationSource { changes: Some(Arc::clone(&store) as _), store, settings })
    }

    async fn promotable(&self, name: &str) -> Result<(), OperationError> {
        let kept = self.kept(name)?;
        check_promotable(name, &*kept.store, &kept.semantics, &self.live().semantics).await?;
        let state = || kept.progress.as_ref().map(|progress| progress.state());
        // Right after a start; a promotion must not cost readiness.
        let waited = tokio::time::Instant::now();
        while state() == Some(PipelineState::Restoring) && waited.elapsed() < RESTORE_WAIT {
            tokio::time::sleep(LOOK).await;
        }
        match state() {
            Some(PipelineState::Running | PipelineState::Waiting) => Ok(()),
            Some(PipelineState::Restoring) => Err(OperationError::Unavailable(format!("{name} is being restored"))),
            _ => Err(OperationError::Unavailable(format!("{name} does not follow the log; start the server again"))),
        }
    }

    async fn standing(&self) -> Result<Standing, OperationError> {
        // The directory is this process's, so no other process promotes or drops.
        Ok(Standing { live: self.live.borrow().clone(), names: self.kept.lock().keys().cloned().collect() })
    }

    fn turned_to(&self, name: &str) {
        self.live.send_replace(name.to_owned());
    }

    async fn promote(&self, name: &str) -> Result<String, OperationError> {
        let _one_at_a_time = self.changing.lock().await;
        self.promotable(name).await?;
        let before = self.generations.promote(name).await.map_err(of_store)?;
        tracing::info!(generation = name, "promoted generation {name}");
        Ok(before.unwrap_or_default())
    }

    async fn drop_generation(&self, name: &str) -> Result<(), OperationError> {
        let _one_at_a_time = self.changing.lock().await;
        if *self.live.borrow() == name {
            return Err(OperationError::Refused(format!("generation {name} is live; promote another one first")));
        }
        let mut kept = self.kept(name)?;
        kept.progress = None;
        let pipeline = self.pipelines.lock().remove(name);
        self.kept.lock().remove(name);
        if let Some(pipeline) = pipeline
            && let Err(error) = stop(pipeline).await
        {
            tracing::warn!("generation {name}: {error:#}");
        }
        let semantics = kept.semantics;
        drop(kept.store);
        let waited = tokio::time::Instant::now();
        loop {
            match Generations::drop(&*self.generations, name).await {
                Ok(()) => return Ok(()),
                // A request still reads from the store.
                Err(StoreError::Refused(_)) if waited.elapsed() < DROP_WAIT => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    if let Ok(store) = self.generations.store(name) {
                        let kept = Kept { store, semantics, progress: None };
                        self.kept.lock().insert(name.to_owned(), kept);
                    }
                    return Err(of_store(error));
                }
            }
        }
    }

    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError> {
        let (one, other) = (self.kept(a)?, self.kept(b)?);
        self.comparing.compare((a, one.store, one.semantics), (b, other.store, other.semantics), day).await
    }
}

/// Why the pipeline of the live generation has ended.
pub fn explain_end(progress: &Progress) -> anyhow::Error {
    let reason = progress.status().reason.unwrap_or_else(|| "unknown reason".to_owned());
    Failure::new(format!("the pipeline has ended: {reason}"))
        .help("nothing that was acknowledged is lost; look at the log lines above, then start again")
        .into()
}
