//! Messages that are kept instead of sent: what the demo's mailbox page shows.

use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_model::units::EventTime;
use kindred_store::records::{Range, RecordStore};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{Channel, Message, Sender};
use crate::db::{Db, MAILBOX, ms};
use crate::error::Result;

/// Days that a message is kept.
const KEPT_S: u64 = 86_400;
const ALL: &str = "all";

/// A message that was kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// When it was sent.
    #[serde(with = "ms")]
    pub at: EventTime,
    /// Whether a mail or a phone message.
    pub channel: Channel,
    /// To whom.
    pub to: String,
    /// Of a mail.
    pub subject: String,
    /// The text, with its codes and links.
    pub body: String,
}

/// Keeps messages in records for a day. For demonstrations: whoever reads it reads everybody's codes.
#[derive(Clone)]
pub struct Mailbox(Db);

impl Mailbox {
    /// In a store.
    pub fn new(store: Arc<dyn RecordStore>, clock: Clock) -> Self {
        Self(Db::new(store, clock))
    }

    /// The newest messages first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Kept>> {
        let range = Range { descending: true, ..Range::default() };
        Ok(self.0.page(MAILBOX, ALL, &range, limit).await?.into_iter().map(|(_, held)| held.value).collect())
    }
}

#[async_trait]
impl Sender for Mailbox {
    async fn send(&self, message: Message) -> Result<(), String> {
        let Message { id, to, channel, at, rendered, .. } = message;
        let sort = format!("{:015}-{id}", at.0.max(0));
        let kept = Kept { id, at, channel, to, subject: rendered.subject, body: rendered.body };
        let until = Some(self.0.in_s(KEPT_S));
        self.0.insert(MAILBOX, ALL, &sort, &kept, until).await.map(drop).map_err(|error| error.to_string())
    }
}
