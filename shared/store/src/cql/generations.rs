//! Generations on CQL: a row each, a pointer to the live one, and drops by partition.

use std::sync::Arc;

use async_trait::async_trait;
use kindred_model::Position;
use kindred_model::units::EventTime;
use kindred_telemetry::fail_point;

use super::connection::Connection;
use super::frontier::{DROPPED, DROPPING, KEPT, Row, before, position_bytes};
use super::runtime::StoreRuntime;
use super::session::{answered, unreadable};
use crate::StoreError;
use crate::generations::{Generation, Generations, check_name};

/// The generations of a keyspace.
#[derive(Clone)]
pub struct CqlGenerations {
    pub(super) connection: Arc<Connection>,
    pub(super) runtime: Arc<StoreRuntime>,
}

impl CqlGenerations {
    async fn run<T: Send + 'static, F>(&self, task: impl FnOnce(Arc<Connection>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.run(task(Arc::clone(&self.connection))).await
    }
}

#[async_trait]
impl Generations for CqlGenerations {
    async fn list(&self) -> Result<Vec<Generation>, StoreError> {
        self.run(async |connection| connection.list().await).await
    }

    async fn create(&self, name: &str, settings: &str, created_at: EventTime) -> Result<(), StoreError> {
        check_name(name)?;
        let (name, settings) = (name.to_owned(), settings.to_owned());
        self.run(async move |connection| connection.create(&name, &settings, created_at).await).await
    }

    async fn live(&self) -> Result<Option<String>, StoreError> {
        self.run(async |connection| connection.live().await).await
    }

    async fn promote(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.run(async move |connection| connection.promote(&name).await).await
    }

    async fn drop(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.run(async move |connection| connection.drop_generation(&name).await).await
    }
}

impl Connection {
    async fn list(&self) -> Result<Vec<Generation>, StoreError> {
        let list = &self.state.generations;
        let result = answered(self.config.attempts, "generations", || self.session.execute_unpaged(list, ())).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let mut found = Vec::new();
        for row in rows.rows::<Row>().map_err(|error| unreadable(&error))? {
            let row = row.map_err(|error| unreadable(&error))?;
            if row.state != DROPPED {
                found.push(row.generation()?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn create(&self, name: &str, settings: &str, created_at: EventTime) -> Result<(), StoreError> {
        let nowhere = position_bytes(&Position::beginning());
        fail_point("generations: creating");
        let values = (name, settings, created_at.0, &nowhere);
        if self.transact("create_generation", &self.state.insert_generation, values).await? {
            return Ok(());
        }
        let values = (settings, created_at.0, &nowhere, name);
        if self.transact("create_generation", &self.state.revive_generation, values).await? {
            return Ok(());
        }
        // Ours may have been applied without an answer.
        match self.generation(name).await? {
            Some(row) if row.state == KEPT && row.settings == settings && row.created_at_ms == created_at.0 => Ok(()),
            Some(row) if row.state == DROPPING => {
                Err(StoreError::Refused(format!("generation {name} is being dropped; drop it again to finish, then create it")))
            }
            _ => Err(StoreError::Refused(format!("there is a generation {name} already; choose another name, or drop it first"))),
        }
    }

    async fn live(&self) -> Result<Option<String>, StoreError> {
        let live = &self.state.live;
        let result = answered(self.config.attempts, "live", || self.session.execute_unpaged(live, ())).await?;
        let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
        let row = rows.maybe_first_row::<(String,)>().map_err(|error| unreadable(&error))?;
        Ok(row.map(|(name,)| name))
    }

    async fn promote(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.kept_generation(name).await?;
        let before = self.live().await?;
        fail_point("generations: promoting");
        let turned = match &before {
            Some(before) if before == name => return Ok(Some(before.clone())),
            Some(before) => self.transact("promote", &self.state.turn_live, (name, before.as_str())).await?,
            None => self.transact("promote", &self.state.insert_live, (name,)).await?,
        };
        fail_point("generations: promoted");
        let now = self.live().await?;
        if !turned && now.as_deref() != Some(name) {
            let now = now.unwrap_or_default();
            return Err(StoreError::Refused(format!("generation {now} was promoted concurrently; check, and promote again")));
        }
        // A drop changes the state, then reads the pointer; a promotion changes the pointer, then reads the state: one sees the
        // other.
        if self.generation(name).await?.is_none_or(|row| row.state != KEPT) {
            if let Some(before) = &before {
                self.transact("promote", &self.state.turn_live, (before.as_str(), name)).await?;
            }
            return Err(StoreError::Refused(format!("generation {name} is being dropped")));
        }
        Ok(before)
    }

    async fn drop_generation(&self, name: &str) -> Result<(), StoreError> {
        let row = self.generation(name).await?.filter(|row| row.state != DROPPED);
        let row =
            row.ok_or_else(|| StoreError::Refused(format!("there is no generation {name}; `kindred generations` lists them")))?;
        let is_live = || StoreError::Refused(format!("generation {name} is live; promote another one first"));
        if self.live().await?.as_deref() == Some(name) {
            return Err(is_live());
        }
        fail_point("generations: dropping");
        // A new incarnation: a pipeline that still writes this generation cannot commit, and its rows are older.
        let number = row.incarnation + 1;
        self.turn(name, (&row.state, row.incarnation), (DROPPING, number)).await?;
        if self.live().await?.as_deref() == Some(name) {
            self.turn(name, (DROPPING, number), (KEPT, number)).await?;
            return Err(is_live());
        }
        fail_point("generations: turned");
        let timestamp = before(number.unsigned_abs())?;
        for layout in self.layouts() {
            self.clear(name, layout.name, timestamp).await?;
            fail_point("generations: emptied");
        }
        self.clear_named(name).await?;
        fail_point("generations: forgotten");
        self.turn(name, (DROPPING, number), (DROPPED, number)).await
    }

    async fn turn(&self, name: &str, from: (&str, i64), to: (&str, i64)) -> Result<(), StoreError> {
        if self.transact("drop_generation", &self.state.turn_state, (to.0, to.1, name, from.0, from.1)).await? {
            return Ok(());
        }
        match self.generation(name).await? {
            // Ours, applied without an answer.
            Some(row) if row.state == to.0 && row.incarnation == to.1 => Ok(()),
            _ => Err(StoreError::Unavailable(format!("generation {name} was changed concurrently; check, and try again"))),
        }
    }
}
