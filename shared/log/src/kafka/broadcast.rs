//! The broadcast on Kafka: the topic `changes`, one partition, kept for an hour.
//!
//! ```text
//! publish ──▶ changes ──▶ a thread a subscription ──bounded channel──▶ next()
//! ```
//!
//! A subscription reads from the end, without a group. While brokers are down it is silent and then resumes; only messages that
//! retention removed before they were read are lost, which it reports.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::Consumer as _;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::native::{Client, Fetched, Fetcher, attend};
use super::offsets::{Side, offsets};
use super::producer::Item;
use super::topics::describe;
use super::{CHANGES, Shared, blocking};
use crate::LogError;
use crate::broadcast::{Broadcast, Heard, Subscription};

/// Capacity of the channel to a slow subscriber; beyond it messages wait in the topic.
const CHANNEL: usize = 1_024;
/// How often a thread checks whether its subscriber was dropped.
const SLICE: Duration = Duration::from_millis(200);
/// Timeout for brokers that were unreachable before.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Made by [`super::KafkaLog::broadcast`].
pub struct KafkaBroadcast {
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl Broadcast for KafkaBroadcast {
    async fn publish(&self, message: Vec<u8>) -> Result<(), LogError> {
        let topic = self.shared.config.topic(CHANGES);
        self.shared.producer.send(&topic, vec![Item { key: None, payload: Some(message) }]).await.map(|_| ())
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, LogError> {
        let shared = self.shared.clone();
        let listener = blocking(move || Listener::at_the_end(&shared)).await?;
        let (sender, heard) = mpsc::channel(CHANNEL);
        std::thread::Builder::new()
            .name("log-changes".into())
            .spawn(move || listener.run(&sender))
            .map_err(|error| LogError::Unavailable(format!("could not start a listener: {error}")))?;
        Ok(Box::new(Ear(heard)))
    }
}

struct Ear(mpsc::Receiver<Heard>);

#[async_trait]
impl Subscription for Ear {
    async fn next(&mut self) -> Option<Heard> {
        self.0.recv().await
    }
}

struct Listener {
    /// Declared before the client, so that it is dropped first.
    fetcher: Fetcher,
    client: Arc<Client>,
    topic: String,
    timeout: Duration,
}

impl Listener {
    fn at_the_end(shared: &Shared) -> Result<Self, LogError> {
        let client = super::client(&shared.config)?;
        let topic = shared.config.topic(CHANGES);
        let fetcher = Fetcher::new(&client, std::slice::from_ref(&topic));
        let mut listener = Self { fetcher, client, topic, timeout: shared.config.timeout() };
        listener.start()?;
        Ok(listener)
    }

    fn start(&mut self) -> Result<(), LogError> {
        let ends = offsets(&self.client, [(&self.topic, 0)], Side::Next, self.timeout)?;
        self.fetcher.start(0, 0, ends.into_values().next());
        Ok(())
    }

    /// Runs until the subscriber is dropped.
    fn run(mut self, sender: &mpsc::Sender<Heard>) {
        let mut lost = false;
        while !sender.is_closed() {
            attend(&self.client);
            if self.client.context().down().is_some() {
                // The client notes an answer itself; without one, this makes it reconnect to the bootstrap servers.
                if let Err(error) = describe(&self.client, std::slice::from_ref(&self.topic), self.timeout.min(LOOK_TIMEOUT)) {
                    debug!("could not describe topic {}: {error}", self.topic);
                }
            }
            self.fetcher.poll(CHANNEL, SLICE, |fetched| match fetched {
                Fetched::Record { payload, .. } => {
                    // A closed channel ends the loop.
                    let _ = sender.blocking_send(Heard::Message(payload.unwrap_or_default().to_vec()));
                }
                Fetched::End { .. } => (),
                Fetched::Failed { code, reason, .. } => {
                    debug!(%code, "could not read changes: {reason}");
                    lost = true;
                }
            });
            if lost {
                match self.start() {
                    Ok(()) => {
                        lost = false;
                        let _ = sender.blocking_send(Heard::Lost);
                    }
                    Err(error) => {
                        warn!("could not read changes, retrying: {error}");
                        std::thread::sleep(SLICE);
                    }
                }
            }
        }
    }
}
