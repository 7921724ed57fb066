//! The generations on services, for an API: pipelines elsewhere maintain them, and this process subscribes to those it serves.
//!
//! ```text
//! Kafka ──▶ kindred pipeline (g1) ──▶ CQL g1 ──changes──▶ feed of g1 ──▶ the API (live)       promote(g2): one row of CQL
//!    └────▶ kindred pipeline --generation g2 ──▶ CQL g2 ──changes──▶ feed of g2 ──▶ its memory, aside
//! ```
//!
//! One row of the store names the live generation. A transaction changes it, and every API follows within a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use kindred_api::{GenerationOperations, GenerationShown, GenerationSource, OperationError, Standing};
use kindred_model::{Day, Semantics};
use kindred_store::ViewStore;
use kindred_store::generations::Generations;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Comparing, check_promotable, failed, list_all, of_store};
use crate::changes::{ChangeStream, RemoteChanges};
use crate::services::Services;

/// A followed generation. The API owns it; once the API drops it, it is no longer followed.
#[derive(Clone)]
struct Kept {
    store: Weak<dyn ViewStore>,
    stream: Arc<ChangeStream>,
    semantics: Arc<Semantics>,
}

/// All generations on services, in a process that serves some of them.
pub struct Followers {
    services: Arc<Services>,
    kept: Mutex<BTreeMap<String, Kept>>,
    live: Mutex<String>,
    comparing: Comparing,
}

impl Followers {
    /// Without followers.
    pub fn new(services: Arc<Services>) -> Self {
        let live = Mutex::new(services.generation.clone());
        Self { services, kept: Mutex::default(), live, comparing: Comparing::default() }
    }

    /// The name of the live generation.
    pub fn live(&self) -> String {
        self.live.lock().clone()
    }

    /// Rows and settings of the live generation; `None` before it is opened.
    pub fn serving(&self) -> Option<(Arc<dyn ViewStore>, Arc<Semantics>)> {
        let Kept { store, semantics, .. } = self.kept_live()?;
        Some((store.upgrade()?, semantics))
    }

    /// The change stream of the live generation.
    pub fn stream(&self) -> Option<Arc<ChangeStream>> {
        self.kept_live().filter(|kept| kept.store.strong_count() > 0).map(|kept| kept.stream)
    }

    fn kept_live(&self) -> Option<Kept> {
        self.kept.lock().get(&*self.live.lock()).cloned()
    }

    /// Rows and settings of an existing generation.
    async fn there(&self, name: &str) -> Result<(Arc<dyn ViewStore>, Arc<Semantics>), OperationError> {
        match self.services.generation_named(name).await {
            Ok((store, semantics)) => Ok((store, Arc::new(semantics))),
            Err(error) => match self.services.row_of(name).await {
                Ok(row) if row.as_ref().is_none_or(|row| row.dropping) => {
                    Err(OperationError::Unknown(format!("there is no generation {name}")))
                }
                _ => Err(failed(&error)),
            },
        }
    }

    async fn settings_of_live(&self) -> Result<Arc<Semantics>, OperationError> {
        match self.serving() {
            Some((_, semantics)) => Ok(semantics),
            None => Ok(self.there(&self.live()).await?.1),
        }
    }
}

#[async_trait]
impl GenerationOperations for Followers {
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError> {
        let (live, settings) = (self.live(), self.settings_of_live().await?);
        let open = |name: String| async move { self.there(&name).await };
        list_all(&*self.services.log, &*self.services.generations, (&live, &settings), open).await
    }

    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError> {
        let (store, semantics) = self.there(name).await?;
        let (broadcast, generations) = (Arc::new(self.services.log.broadcast()), Arc::clone(&self.services.generations));
        let changes = Arc::new(RemoteChanges::new(Arc::clone(&store) as _, broadcast, generations as _, name));
        let kept = Kept { store: Arc::downgrade(&store), stream: changes.stream(), semantics: Arc::clone(&semantics) };
        self.kept.lock().insert(name.to_owned(), kept);
        Ok(GenerationSource { store, changes: Some(changes), settings: semantics })
    }

    async fn promotable(&self, name: &str) -> Result<(), OperationError> {
        let (store, semantics) = self.there(name).await?;
        // Whether a pipeline follows it shows when it catches up with the live one.
        check_promotable(name, &*store, &semantics, &*self.settings_of_live().await?).await
    }

    async fn standing(&self) -> Result<Standing, OperationError> {
        let (live, all) = tokio::join!(self.services.generations.live(), self.services.generations.list());
        let names = all.map_err(of_store)?.into_iter().map(|generation| generation.name).collect();
        Ok(Standing { live: live.map_err(of_store)?.unwrap_or_else(|| self.live()), names })
    }

    fn turned_to(&self, name: &str) {
        name.clone_into(&mut self.live.lock());
    }

    async fn promote(&self, name: &str) -> Result<String, OperationError> {
        let before = self.services.generations.promote(name).await.map_err(of_store)?;
        tracing::info!(generation = name, "promoted generation {name}");
        Ok(before.unwrap_or_default())
    }

    async fn drop_generation(&self, name: &str) -> Result<(), OperationError> {
        self.there(name).await?;
        Generations::drop(&*self.services.generations, name).await.map_err(of_store)
    }

    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError> {
        let (one, other) = (self.there(a).await?, self.there(b).await?);
        self.comparing.compare((a, one.0, one.1), (b, other.0, other.1), day).await
    }
}
