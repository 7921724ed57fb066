//! What is served: the live generation, replaced in one step, and others that were asked for by name.
//!
//! ```text
//! promote(g2): open g2 ──▶ load its memory aside ──▶ wait until it is as far as the live one ──▶ durable ──▶ live = g2
//! promoted elsewhere: standing().live ≠ live ──▶ the same, but for the durable step
//! ```
//!
//! A generation is its memory, its store and its settings together; a request takes them once. The one before stays in memory, so that
//! rolling back takes no loading.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kindred_clock::Clock;
use kindred_model::Semantics;
use kindred_store::{StoreError, ViewReader};
use tokio::sync::watch;

use crate::api::Api;
use crate::context::{GenerationOperations, GenerationSource, MemoryConfig, OperationError, Standing};
use crate::problem::{Code, Problem};
use crate::recommend::{LoadError, Memory};
use crate::to_the_end::to_the_end;

/// How long a promotion waits until the new memory is as far as the live one.
const CATCH_UP_WAIT: Duration = Duration::from_secs(10);
/// As long as that when another process has promoted: it is done then, and is followed whether or not.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// How often to look what other processes promoted and dropped.
const LOOK: Duration = Duration::from_secs(1);

/// One generation, ready to be served.
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

/// All that is in memory.
pub(crate) struct Served {
    live: ArcSwap<Serving>,
    /// Those that are not live, by name. Locked while one is loaded: two that ask for the same load it once.
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

    /// Serves another one from now on.
    fn turn(&self, others: &mut HashMap<String, Arc<Serving>>, next: Arc<Serving>) {
        let name = next.generation.clone();
        let left = self.live.swap(next);
        others.remove(&name);
        if left.generation != name {
            tracing::info!(generation = name, "serves generation {name}");
            others.insert(left.generation.clone(), left);
            self.promotions.send_modify(|count| *count += 1);
        }
    }

    /// Marked after each promotion.
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
            OperationError::Failed(reason) => Self::internal(format_args!("it failed: {reason}")),
        }
    }
}

/// What can be done with generations here.
///
/// # Errors
/// The process serves one, and knows of no others.
pub(crate) fn operations(api: &Api) -> Result<&Arc<dyn GenerationOperations>, Problem> {
    let none = || Problem::new(Code::NotFound, "this server keeps one generation and cannot turn to another");
    api.context.generations.as_ref().ok_or_else(none)
}

/// A generation by name, loaded when it is first asked for.
pub(crate) async fn named(api: &Arc<Api>, name: &str) -> Result<Arc<Serving>, Problem> {
    let live = api.live();
    if live.generation == name {
        return Ok(live);
    }
    // The lock is held until it is loaded, also when whoever asked for it is gone: the next would load it a second time.
    let (api, name) = (api.clone(), name.to_owned());
    to_the_end(async move { load_named(&api, &name).await }).await?
}

async fn load_named(api: &Api, name: &str) -> Result<Arc<Serving>, Problem> {
    let mut others = api.served.others.lock().await;
    // A promotion may have come between.
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

/// Turns to another generation; returns the name of the one before. No request fails or sees both: what runs ends on the old one.
pub(crate) async fn promote(api: &Arc<Api>, name: &str) -> Result<String, Problem> {
    let operations = operations(api)?;
    operations.promotable(name).await?;
    let next = named(api, name).await?;
    // Whoever was promised a position must not fall behind it.
    let position = api.live().memory.published().position.clone();
    if !next.memory.reached(&position, CATCH_UP_WAIT).await {
        let detail = format!("{name} has not caught up with the live generation; look at its lag, and promote it then");
        return Err(Problem::new(Code::Unavailable, detail).retry_after(10));
    }
    // Under the lock, so that what is durable and what is served turn in the same order.
    let mut others = api.served.others.lock().await;
    let before = operations.promote(name).await?;
    api.served.turn(&mut others, next);
    operations.turned_to(name);
    Ok(before)
}

/// Turns to what other processes promote, and lets go of what they drop; never ends.
pub(crate) async fn follow(api: Arc<Api>) {
    let Some(operations) = &api.context.generations else { return };
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        due.tick().await;
        let followed = async {
            let Standing { live, names } = operations.standing().await?;
            api.served.others.lock().await.retain(|name, _| names.contains(name));
            if live == api.live().generation { Ok(()) } else { turn(&api, operations, &live).await }
        };
        let followed: Result<(), Problem> = followed.await;
        let failed = followed.err();
        // Told once, not every second.
        if let Some(problem) = failed.as_ref().filter(|_| !told) {
            tracing::warn!("could not follow what is promoted elsewhere: {}", problem.detail);
        }
        told = failed.is_some();
    }
}

/// Turns to what another process promoted.
async fn turn(api: &Arc<Api>, operations: &Arc<dyn GenerationOperations>, name: &str) -> Result<(), Problem> {
    let next = named(api, name).await?;
    let position = api.live().memory.published().position.clone();
    if !next.memory.reached(&position, TURN_WAIT).await {
        tracing::warn!("generation {name} is live, and does not reach {position}: does a pipeline follow it?");
    }
    let mut others = api.served.others.lock().await;
    // It may have been taken back meanwhile.
    if operations.standing().await?.live == name {
        api.served.turn(&mut others, next);
        operations.turned_to(name);
    }
    Ok(())
}

/// Lets go of a generation and deletes it.
pub(crate) async fn drop_generation(api: &Api, name: &str) -> Result<(), Problem> {
    let operations = operations(api)?;
    let mut others = api.served.others.lock().await;
    others.remove(name);
    // Still locked: nobody loads it again meanwhile.
    Ok(operations.drop_generation(name).await?)
}
