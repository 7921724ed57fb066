//! The generations of an installation that this process does not serve: for a command, which holds it until it ends.

use std::sync::Arc;

use async_trait::async_trait;
use kindred_api::{GenerationOperations, GenerationShown, GenerationSource, OperationError, Standing};
use kindred_model::{Day, Semantics};
use kindred_store::ViewStore;
use serde_json::Value;

use super::{Comparing, check_promotable, failed, list_all, of_store};
use crate::installation::Installation;

/// All generations of an installation.
pub struct AtRest {
    installation: Arc<Installation>,
    comparing: Comparing,
}

impl AtRest {
    /// Of an installation.
    pub fn new(installation: Arc<Installation>) -> Self {
        Self { installation, comparing: Comparing::default() }
    }

    async fn there(&self, name: &str) -> Result<(Arc<dyn ViewStore>, Arc<Semantics>), OperationError> {
        if !self.standing().await?.names.contains(name) {
            return Err(OperationError::Unknown(format!("there is no generation {name}")));
        }
        let (store, settings) = self.installation.generation(name).await.map_err(|error| failed(&error))?;
        Ok((store, Arc::new(settings)))
    }
}

#[async_trait]
impl GenerationOperations for AtRest {
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError> {
        let installation = &self.installation;
        let live = (installation.live(), &installation.semantics);
        let open = |name: String| async move {
            let (store, settings) = installation.generation(&name).await.map_err(|error| failed(&error))?;
            Ok((store, Arc::new(settings)))
        };
        list_all(&*installation.log, installation.generations(), live, open).await
    }

    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError> {
        let (store, settings) = self.there(name).await?;
        Ok(GenerationSource { store, changes: None, settings })
    }

    async fn promotable(&self, name: &str) -> Result<(), OperationError> {
        let (store, settings) = self.there(name).await?;
        check_promotable(name, &*store, &settings, &self.installation.semantics).await
    }

    async fn standing(&self) -> Result<Standing, OperationError> {
        let all = self.installation.generations().list().await.map_err(of_store)?;
        let names = all.into_iter().map(|generation| generation.name).collect();
        Ok(Standing { live: self.installation.live().to_owned(), names })
    }

    fn turned_to(&self, _: &str) {}

    async fn promote(&self, name: &str) -> Result<String, OperationError> {
        Ok(self.installation.generations().promote(name).await.map_err(of_store)?.unwrap_or_default())
    }

    async fn drop_generation(&self, name: &str) -> Result<(), OperationError> {
        self.installation.generations().drop(name).await.map_err(of_store)
    }

    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError> {
        let (one, other) = (self.there(a).await?, self.there(b).await?);
        self.comparing.compare((a, one.0, one.1), (b, other.0, other.1), day).await
    }
}
