//! The log on Kafka and compatible brokers.
//!
//! ```text
//! append ──▶ Producer (idempotent, acks=all) ──▶ interactions, orders, catalog, members ──▶ Reader ──▶ pipeline source
//! reject, mark ─────────────────────────────▶ rejected, marks (tables: compacted) ──scan──▶ rejected(), mark()
//! KafkaBroadcast ───────────────────────────▶ changes ──▶ subscriptions
//! ```
//!
//! [`KafkaLog::create_topics`] creates the topics, [`KafkaLog::open`] checks them. Other producers may write the event topics,
//! with other keys or in transactions: readers see committed records, and offsets may have gaps. Brokers accept unkeyed records
//! in `interactions` alone, since the other topics are compacted; a producer without keys needs those with
//! `cleanup.policy=delete` and `retention.ms=-1`, which `open` accepts.
//!
//! # Errors
//! Unreachable brokers, a missing topic and a partition without a leader are [`LogError::Unavailable`] and transient. A record
//! too large for its topic, a topic recreated under a position, and records that retention removed before they were read are
//! [`LogError::Refused`], with the command that helps. A broker with a full disk looks unreachable.
//!
//! # Forgetting
//! Kafka records are immutable, so [`EventLog::purge`] rewrites rejected records only. Interactions leave by retention
//! (`retention_days`, and a day for the segment). The pipeline appends an erased member's orders again without the member, under
//! the same keys, and the erased record replaces the member's: compaction removes the old ones within `retention_days` and a day
//! (`max.compaction.lag.ms`). Tombstones cannot be used, as they would remove the erased record. Records that another producer
//! wrote to a compacted topic under other keys stay until it replaces or deletes them.

mod broadcast;
mod config;
mod context;
mod errors;
mod keys;
mod native;
mod offsets;
mod producer;
mod reader;
mod table;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_model::{Position, Topic};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;

pub use broadcast::KafkaBroadcast;
pub use config::KafkaConfig;
pub use topics::TopicReport;

use crate::{EventLog, EventReader, LogError, Mark, PartitionStatus, Place, Predicate, Rejected, Share};
use errors::{from_code, from_error};
use native::Client;
use offsets::{Side, offsets};
use producer::{Item, Producer};

const REJECTED: &str = "rejected";
const MARKS: &str = "marks";
const CHANGES: &str = "changes";

/// Maximum age of the partition list that `end` and `partitions` use.
const LAYOUT: Duration = Duration::from_secs(5);

/// The log on Kafka. Every method may be called concurrently.
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    identity: String,
    /// The event topics' names on the brokers, by code.
    names: Vec<String>,
    /// The event topics' ids when the log was opened, by code.
    ids: Vec<String>,
    client: Arc<Client>,
    producer: Producer,
    layout: Mutex<Layout>,
    /// The last requested end, and when: concurrent callers share one answer.
    end: tokio::sync::Mutex<Option<(Instant, Position)>>,
}

/// The number of partitions of each event topic, by code.
struct Layout {
    counts: Vec<usize>,
    asked: Instant,
}

fn client(config: &KafkaConfig) -> Result<Arc<Client>, LogError> {
    let made = config.consumer().create_with_context(context::Context::new(&config.brokers));
    made.map(Arc::new).map_err(|error| from_error(&error, "could not make a client"))
}

/// Runs a blocking call to the brokers.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R, LogError> + Send + 'static) -> Result<R, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(LogError::Unavailable(format!("the runtime has stopped: {error}"))))
}

fn recreated(name: &str) -> LogError {
    LogError::Refused(format!(
        "topic {name} was created anew: positions in the old one mean nothing in it; `kindred replay --generation NAME --from inputs` \
         starts with what the store has and reads the new one, `--from beginning` rebuilds from the log alone"
    ))
}

impl KafkaLog {
    /// Creates missing topics and reports what it found and did. Existing topics are not changed.
    ///
    /// # Errors
    /// [`LogError::Refused`] when the configuration is wrong or this user may not create topics; [`LogError::Unavailable`].
    pub async fn create_topics(config: &KafkaConfig) -> Result<Vec<TopicReport>, LogError> {
        config.check()?;
        topics::create(&client(config)?, config).await
    }

    /// Opens the log: all topics must exist with a suitable cleanup policy.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no broker answers or a topic is missing; [`LogError::Refused`] when the configuration is
    /// wrong, or a topic's cleanup policy would lose records.
    pub async fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        config.check()?;
        let client = client(config)?;
        let (asking, asked) = (client.clone(), config.clone());
        let (cluster, states) = blocking(move || {
            let states = topics::all(&asking, &asked)?;
            let cluster = asking.client().fetch_cluster_id(asked.timeout());
            let cluster = cluster.ok_or_else(|| LogError::Unavailable("the brokers did not return a cluster id".into()))?;
            Ok((cluster, states))
        })
        .await?;
        topics::check(config).await?;
        let events = &states[..Topic::ALL.len()];
        let ids: Vec<String> = events.iter().map(|state| state.id.clone()).collect();
        let shared = Shared {
            identity: format!("kafka/{cluster}/{}", ids.join(",")),
            names: Topic::ALL.iter().map(|topic| config.topic(topic.name())).collect(),
            ids,
            client,
            producer: Producer::new(config)?,
            layout: Mutex::new(Layout { counts: events.iter().map(|state| state.led.len()).collect(), asked: Instant::now() }),
            end: tokio::sync::Mutex::new(None),
            config: config.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The broadcast beside this log, on the topic `changes`.
    pub fn broadcast(&self) -> KafkaBroadcast {
        KafkaBroadcast { shared: self.shared.clone() }
    }

    /// Scans a table in the background and folds its entries into `state`.
    async fn fold<S: Send + 'static>(
        &self,
        table: &'static str,
        mut state: S,
        mut take: impl FnMut(&mut S, &str, Option<&[u8]>) + Send + 'static,
    ) -> Result<S, LogError> {
        let config = self.shared.config.clone();
        blocking(move || {
            table::scan(&config, table, |key, payload| {
                // Not one of our keys.
                if let Ok(key) = std::str::from_utf8(key) {
                    take(&mut state, key, payload);
                }
            })?;
            Ok(state)
        })
        .await
    }

    async fn write_table(
        &self,
        table: &str,
        entries: impl IntoIterator<Item = (String, Option<Vec<u8>>)>,
    ) -> Result<(), LogError> {
        let item = |(key, payload): (String, Option<Vec<u8>>)| Item { key: Some(key.into_bytes()), payload };
        self.shared.producer.send(&self.shared.config.topic(table), entries.into_iter().map(item).collect()).await.map(|_| ())
    }
}

impl Shared {
    /// The partitions of the event topics, refreshed periodically.
    fn partitions(&self) -> Result<Vec<(Topic, u32)>, LogError> {
        let mut layout = self.layout.lock();
        if layout.asked.elapsed() > LAYOUT {
            let states = topics::describe(&self.client, &self.names, self.config.timeout())?;
            let mut counts = Vec::with_capacity(states.len());
            for ((state, name), id) in states.into_iter().zip(&self.names).zip(&self.ids) {
                let state = state.map_err(|code| from_code(code, name))?;
                if state.id != *id {
                    return Err(recreated(name));
                }
                counts.push(state.led.len());
            }
            *layout = Layout { counts, asked: Instant::now() };
        }
        let of = |(&topic, &count): (&Topic, &usize)| (0..).take(count).map(move |partition| (topic, partition));
        Ok(Topic::ALL.iter().zip(&layout.counts).flat_map(of).collect())
    }

    /// The first or next offsets of event partitions.
    fn side(
        &self,
        client: &Client,
        partitions: impl IntoIterator<Item = (Topic, u32)>,
        side: Side,
    ) -> Result<BTreeMap<(Topic, u32), u64>, LogError> {
        let name = |topic: Topic| &self.names[usize::from(topic.code())];
        let asked = partitions.into_iter().map(|(topic, partition)| (name(topic), partition));
        let found = offsets(client, asked, side, self.config.timeout())?;
        native::attend(client);
        let topic = |name: &str| Topic::ALL[self.names.iter().position(|known| known == name).expect("asked by name")];
        Ok(found.into_iter().map(|((name, partition), offset)| ((topic(&name), partition), offset)).collect())
    }

    fn end_of(&self, client: &Client, partitions: impl IntoIterator<Item = (Topic, u32)>) -> Result<Position, LogError> {
        let mut position = Position::beginning();
        for ((topic, partition), next) in self.side(client, partitions, Side::Next)? {
            if let Some(last) = next.checked_sub(1) {
                position.passed(topic, partition, last);
            }
        }
        Ok(position)
    }
}

fn to_json(record: &Rejected) -> Vec<u8> {
    serde_json::to_vec(record).expect("a rejected record is plain data")
}

fn from_json(id: &str, payload: &[u8]) -> Result<Rejected, LogError> {
    serde_json::from_slice(payload).map_err(|error| LogError::Corrupt(format!("rejected record {id} does not decode: {error}")))
}

#[async_trait]
impl EventLog for KafkaLog {
    fn identity(&self) -> &str {
        &self.shared.identity
    }

    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
        crate::check_records(&records)?;
        // Handles the client's pending errors; during an outage they pile up.
        native::attend(&self.shared.client);
        let began = Instant::now();
        let keyless = topic == Topic::Interactions;
        let item = |payload: Vec<u8>| {
            let key = keys::key(topic, &payload).or_else(|| (!keyless).then(keys::unique));
            Item { key, payload: Some(payload) }
        };
        let count = records.len() as u64;
        let name = &self.shared.names[usize::from(topic.code())];
        let written = self.shared.producer.send(name, records.into_iter().map(item).collect()).await?;
        if count > 0 {
            crate::tell_appended(topic, count, began);
        }
        // After the records: if the mark is lost, an import repeats them, which is harmless.
        if let Some(mark) = mark {
            self.write_table(MARKS, [(mark.name, Some(mark.done.to_string().into_bytes()))]).await?;
        }
        Ok(written.into_iter().map(|(partition, offset)| Place { topic, partition, offset }).collect())
    }

    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError> {
        let wanted = name.to_owned();
        let found = self.fold(MARKS, None, move |found, name, payload| {
            if name == wanted {
                *found = payload.map(<[u8]>::to_vec);
            }
        });
        let Some(found) = found.await? else { return Ok(None) };
        let done = std::str::from_utf8(&found).ok().and_then(|text| text.parse().ok());
        done.map(Some).ok_or_else(|| LogError::Corrupt(format!("the mark of import {name} is not a number")))
    }

    fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError> {
        Ok(Box::new(reader::Reader::new(self.shared.clone(), share)?))
    }

    async fn end(&self) -> Result<Position, LogError> {
        let called = Instant::now();
        let mut end = self.shared.end.lock().await;
        // Requested after this call began and waited for the lock, so the answer is fresh enough.
        if let Some((asked, position)) = &*end
            && *asked >= called
        {
            return Ok(position.clone());
        }
        let (asked, shared) = (Instant::now(), self.shared.clone());
        let position = blocking(move || shared.end_of(&shared.client, shared.partitions()?)).await?;
        *end = Some((asked, position.clone()));
        Ok(position)
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
        let shared = self.shared.clone();
        blocking(move || {
            let partitions = shared.partitions()?;
            let first = shared.side(&shared.client, partitions.iter().copied(), Side::First)?;
            let next = shared.side(&shared.client, partitions, Side::Next)?;
            let status = |(key, next): ((Topic, u32), u64)| {
                let first = first.get(&key).copied().unwrap_or(0).min(next);
                PartitionStatus { topic: key.0, partition: key.1, first, next }
            };
            Ok(next.into_iter().map(status).collect())
        })
        .await
    }

    fn compacts(&self) -> bool {
        true
    }

    fn disk_bytes(&self) -> Option<u64> {
        None
    }

    async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError> {
        let entry = |record: Rejected| {
            let record = record.cut();
            (record.id(), Some(to_json(&record)))
        };
        self.write_table(REJECTED, records.into_iter().map(entry)).await
    }

    async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError> {
        // Two scans, so that only ids and one page are in memory: first the ids, then the page's records.
        let after = after.map(str::to_owned);
        let ids = self.fold(REJECTED, std::collections::BTreeSet::new(), move |ids, id, payload| {
            if payload.is_none() {
                ids.remove(id);
            } else if after.as_deref().is_none_or(|after| id > after) && !ids.contains(id) {
                ids.insert(id.to_owned());
            }
        });
        let page: BTreeMap<String, Option<Vec<u8>>> = ids.await?.into_iter().take(limit).map(|id| (id, None)).collect();
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let page = self.fold(REJECTED, page, |page, id, payload| {
            if let Some(kept) = page.get_mut(id) {
                *kept = payload.map(<[u8]>::to_vec);
            }
        });
        // Removed meanwhile.
        page.await?.into_iter().filter_map(|(id, payload)| Some(from_json(&id, &payload?))).collect()
    }

    async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError> {
        let wanted = id.to_owned();
        let found = self.fold(REJECTED, None, move |found, id, payload| {
            if id == wanted {
                *found = payload.map(<[u8]>::to_vec);
            }
        });
        found.await?.map(|payload| from_json(id, &payload)).transpose()
    }

    async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError> {
        self.write_table(REJECTED, ids.iter().map(|id| (id.clone(), None))).await
    }

    async fn purge(&self, topic: Topic, _end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError> {
        let mut purged = 0;
        let mut after: Option<String> = None;
        loop {
            let page = self.rejected(after.as_deref(), PURGE_PAGE).await?;
            let Some(last) = page.last() else { return Ok(purged) };
            after = Some(last.id());
            let meant = |r: &Rejected| r.topic == topic && !r.payload.is_empty() && condemned(r.payload.as_bytes());
            let emptied: Vec<Rejected> = page.into_iter().filter(meant).map(Rejected::emptied).collect();
            purged += emptied.len() as u64;
            self.reject(emptied).await?;
        }
    }
}

/// Rejected records that a purge holds in memory.
const PURGE_PAGE: usize = 10_000;
