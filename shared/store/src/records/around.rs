//! What stands around a store of records: in tests a failure, a wait, another table; in a debug build the points at which it can die.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use kindred_model::units::EventTime;

use super::{Outcome, Page, Range, Record, RecordStore, Step, Version};
use crate::StoreError;

/// A call of the store.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The table.
    pub table: &'a str,
    /// The partition.
    pub partition: &'a [u8],
    /// What is written.
    pub steps: &'a [Step],
    /// When.
    pub now: EventTime,
}

/// A write that is about to be made.
pub type Write<'a> = BoxFuture<'a, Result<Outcome, StoreError>>;

/// What is done around the calls of a store.
#[async_trait]
pub trait Around: Send + Sync {
    /// The name by which the store has a table.
    fn table<'a>(&self, table: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(table)
    }

    /// Before something is read.
    ///
    /// # Errors
    /// What is answered in place of it.
    async fn reads(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Around a write: makes it, or answers in place of it.
    ///
    /// # Errors
    /// What is answered.
    async fn writes(&self, _call: Call<'_>, write: Write<'_>) -> Result<Outcome, StoreError> {
        write.await
    }
}

/// A store with something around it.
pub struct Surrounded<A> {
    /// The store.
    pub store: Arc<dyn RecordStore>,
    /// What is around it.
    pub around: A,
}

#[async_trait]
impl<A: Around> RecordStore for Surrounded<A> {
    async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
        self.around.reads().await?;
        self.store.read(&self.around.table(table), partition, sort, now).await
    }

    async fn scan(&self, table: &str, partition: &[u8], range: &Range, limit: usize, now: EventTime) -> Result<Page, StoreError> {
        self.around.reads().await?;
        self.store.scan(&self.around.table(table), partition, range, limit, now).await
    }

    async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
        let own = self.around.table(table);
        let write = self.store.transact(&own, partition, steps, now);
        self.around.writes(Call { table, partition, steps, now }, write).await
    }

    async fn shed(&self) -> Result<(), StoreError> {
        self.store.shed().await
    }

    async fn append(&self, table: &str, partition: &[u8], insert: Step, now: EventTime) -> Result<(), StoreError> {
        let (own, steps) = (self.around.table(table), [insert.clone()]);
        // Nobody asks for its version.
        let write = async { self.store.append(&own, partition, insert, now).await.map(|()| Outcome::Done(Version(0))) };
        self.around.writes(Call { table, partition, steps: &steps, now }, Box::pin(write)).await.map(drop)
    }
}
