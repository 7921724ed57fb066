//! The broadcast: the change feed from one process to all others, beside the log.
//!
//! ```text
//! pipeline sink ──publish──▶ Broadcast ──Subscription──▶ every API: its memory, cache and event streams
//! ```
//!
//! Messages arrive in publish order, each at least once, from the subscription on. They are hints: a subscriber that missed some
//! is told so and reads what it needs from the store. Implementations: [`InMemory`] for one process, and
//! [`crate::kafka::KafkaBroadcast`].

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::LogError;

/// Messages buffered for a slow subscriber; beyond it the subscriber has a gap.
const KEPT: usize = 4_096;

/// The publishing side.
#[async_trait]
pub trait Broadcast: Send + Sync {
    /// Sends one message to all subscribers; returns once it is durably on its way.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: it may or may not have been sent; send it again.
    async fn publish(&self, message: Vec<u8>) -> Result<(), LogError>;

    /// Subscribes: receives everything published after this returns.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, LogError>;
}

/// What a subscriber receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A message.
    Message(Vec<u8>),
    /// A gap: messages were dropped before they were read; reload from the store. Later messages follow.
    Lost,
}

/// One subscriber.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next message; `None` when there will be none. Cancel-safe.
    async fn next(&mut self) -> Option<Heard>;
}

/// Within one process.
pub struct InMemory(broadcast::Sender<Vec<u8>>);

impl Default for InMemory {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

#[async_trait]
impl Broadcast for InMemory {
    async fn publish(&self, message: Vec<u8>) -> Result<(), LogError> {
        // No subscribers: not an error.
        let _ = self.0.send(message);
        Ok(())
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, LogError> {
        Ok(Box::new(Ear(self.0.subscribe())))
    }
}

struct Ear(broadcast::Receiver<Vec<u8>>);

#[async_trait]
impl Subscription for Ear {
    async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(message) => Some(Heard::Message(message)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Lost),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        crate::conformance::broadcast(&InMemory::default()).await;
    }

    /// If this failed, a slow API would serve stale rows without noticing.
    #[tokio::test]
    async fn who_is_too_slow_is_told() {
        let all = InMemory::default();
        let mut slow = all.subscribe().await.unwrap();
        for n in 0..=KEPT {
            all.publish(n.to_string().into_bytes()).await.unwrap();
        }
        assert_eq!(slow.next().await, Some(Heard::Lost));
        assert_eq!(slow.next().await, Some(Heard::Message(b"1".to_vec())), "and hears what is still there");
        drop(all);
        while let Some(heard) = slow.next().await {
            assert_ne!(heard, Heard::Lost);
        }
    }
}
