//! The served generations: the live one, replaced in one step, and others requested by name.
//!
//! ```text
//! promote(g2): open g2 ──▶ load its memory ──▶ wait until it has caught up with the live one ──▶ durable ──▶ live = g2
//! promoted elsewhere: standing().live ≠ live ──▶ the same without the durable step
//! ```
//!
//! A request takes memory, store and settings of a generation together, once. The previous generation stays in memory, so a
//! rollback loads nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kindred_clock::Clock;
use kindred_model::Semantics;
use kindred_store::{StoreError, ViewReader};
use tokio::sync::watch;

use crate::api::Api;
use crate::completion::run_to_completion;
use crate::context::{GenerationOperations, GenerationSource, MemoryConfig, OperationError, Standing};
use crate::problem::{Code, Problem};
use crate::recommend::{LoadError, Memory};

/// How long a promotion waits for the new memory to catch up with the live one.
const CATCH_UP_WAIT: Duration = Duration::from_secs(10);
/// The same after a promotion by another process, which is followed even if this expires.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// How often promotions and drops by other processes are polled.
const LOOK: Duration = Duration::from_secs(1);

/// A generation loaded into memory.
pub(crate) struct Serving {
    pub generation: String,
    pub memory: Arc<Memory>,
    pub store: Arc<dyn ViewReader>,
    pub settings: Arc<Semantics>,
}

impl Serving {
    /// Loads the memory of a generation.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(source: GenerationSource, name: &str, clock: Clock, limits: MemoryConfig) -> Result<Self, LoadError> {
        let (generation, of_memory) = (name.to_owned(), source.clone());
        let loading = tokio::task::spawn_blocking(move || Memory::load(of_memory, &generation, clock, limits));
        let memory = loading.await.map_err(|error| StoreError::Unavailable(format!("the loading ended early: {error}")))??;
        let GenerationSource { store, settings, .. } = source;
        Ok(Self { generation: name.to_owned(), memory, store, settings })
    }
}

/// The loaded generations.
pub(crate) struct Served {
    live: ArcSwap<Serving>,
    /// Generations that are not live, by name. Locked while one is loaded, so concurrent requests load it once.
    others: tokio::sync::Mutex<HashMap<String, Arc<Serving>>>,
    /// Counts promotions, for streams.
    promotions: watch::Sender<u64>,
}

impl Served {
    pub fn new(live: Serving) -> Self {
        Self { live: ArcSwap::from_pointee(live), others: tokio::sync::Mutex::default(), promotions: watch::Sender::new(0) }
    }

    pub fn live(&self) -> Arc<Serving> {
        self.live.load_full()
    }

    fn turn(&self, others: &mut HashMap<String, Arc<Serving>>, next: Arc<Serving>) {
        let name = next.generation.clone();
        let left = self.live.swap(next);
        others.remove(&name);
        if left.generation != name {
            tracing::info!(generation = name, "serving generation {name}");
            others.insert(left.generation.clone(), left);
            self.promotions.send_modify(|count| *count += 1);
        }
    }

    pub fn promotions(&self) -> watch::Receiver<u64> {
        self.promotions.subscribe()
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Busy(reason) => Self::new(Code::Conflict, reason).retry_after(10),
            OperationError::Unavailable(reason) => Self::new(Code::Unavailable, reason).retry_after(1),
            OperationError::Unknown(reason) => Self::new(Code::NotFound, reason),
            OperationError::Refused(reason) => Self::new(Code::Refused, reason),
            OperationError::Failed(reason) => Self::internal(format_args!("operation failed: {reason}")),
        }
    }
}

/// A 404 where this process serves a single generation.
pub(crate) fn operations(api: &Api) -> Result<&Arc<dyn GenerationOperations>, Problem> {
    let none = || Problem::new(Code::NotFound, "this server has a single generation");
    api.context.generations.as_ref().ok_or_else(none)
}

/// A generation by name, loaded on first use.
pub(crate) async fn named(api: &Arc<Api>, name: &str) -> Result<Arc<Serving>, Problem> {
    let live = api.live();
    if live.generation == name {
        return Ok(live);
    }
    // Runs to completion even if the client disconnects, so that the next request does not load it again.
    let (api, name) = (api.clone(), name.to_owned());
    run_to_completion(async move { load_named(&api, &name).await }).await?
}

async fn load_named(api: &Api, name: &str) -> Result<Arc<Serving>, Problem> {
    let mut others = api.served.others.lock().await;
    let live = api.live();
    if live.generation == name {
        return Ok(live);
    }
    if let Some(there) = others.get(name) {
        return Ok(there.clone());
    }
    let source = operations(api)?.open(name).await?;
    let loaded = Serving::load(source, name, api.context.clock.clone(), api.config.memory).await;
    let loaded = Arc::new(loaded.map_err(Problem::internal)?);
    others.insert(name.to_owned(), loaded.clone());
    Ok(loaded)
}

/// Promotes a generation and returns the previous one. Running requests finish on the one that they took. One that has not
/// caught up is refused unless forced.
pub(crate) async fn promote(api: &Arc<Api>, name: &str, force: bool) -> Result<String, Problem> {
    let operations = operations(api)?;
    operations.promotable(name).await?;
    let next = named(api, name).await?;
    // Clients that have seen a position must not fall behind it.
    let position = api.live().memory.position();
    if !force && !next.memory.reached(&position, CATCH_UP_WAIT).await {
        let detail = format!(
            "{name} has not caught up with the live generation: let a pipeline follow it (on services kindred pipeline --generation \
             {name}), or force it"
        );
        return Err(Problem::new(Code::Unavailable, detail).retry_after(10));
    }
    // Under the lock, so that the durable and the served generation change in the same order.
    let mut others = api.served.others.lock().await;
    let before = operations.promote(name).await?;
    api.served.turn(&mut others, next);
    operations.turned_to(name);
    Ok(before)
}

/// Follows promotions and drops by other processes; never returns.
pub(crate) async fn follow(api: Arc<Api>) {
    let Some(operations) = &api.context.generations else { return };
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut logged = false;
    loop {
        due.tick().await;
        let followed = async {
            let Standing { live, names } = operations.standing().await?;
            api.served.others.lock().await.retain(|name, _| names.contains(name));
            if live == api.live().generation { Ok(()) } else { turn(&api, operations, &live).await }
        };
        let followed: Result<(), Problem> = followed.await;
        let failed = followed.err();
        // Logged once, not every second.
        if let Some(problem) = failed.as_ref().filter(|_| !logged) {
            tracing::warn!("could not follow promotions of other processes: {}", problem.detail);
        }
        logged = failed.is_some();
    }
}

async fn turn(api: &Arc<Api>, operations: &Arc<dyn GenerationOperations>, name: &str) -> Result<(), Problem> {
    let next = named(api, name).await?;
    let position = api.live().memory.position();
    if !next.memory.reached(&position, TURN_WAIT).await {
        tracing::warn!("generation {name} was promoted but does not reach {position}: check that its pipeline is running");
    }
    let mut others = api.served.others.lock().await;
    // It may have been rolled back meanwhile.
    if operations.standing().await?.live == name {
        api.served.turn(&mut others, next);
        operations.turned_to(name);
    }
    Ok(())
}

pub(crate) async fn drop_generation(api: &Api, name: &str) -> Result<(), Problem> {
    let operations = operations(api)?;
    let mut others = api.served.others.lock().await;
    others.remove(name);
    // Still locked, so that it is not loaded again meanwhile.
    Ok(operations.drop_generation(name).await?)
}
