//! The topics: their names, how they are created, and what is checked when a log is opened.
//!
//! | topic | cleanup | why |
//! | --- | --- | --- |
//! | `interactions` | delete after `retention_days` | keyed by owner: compaction would keep one an owner |
//! | `orders`, `catalog`, `members`, `ledger` | compact | the last record of a key, which the re-append rule makes the merged one |
//! | `rejected`, `marks` | compact | tables: by id, by import |
//! | `changes` | delete after an hour, one partition | hints, in order |

use std::sync::Arc;
use std::time::{Duration, Instant};

use kindred_model::Topic;
use kindred_model::records::RECORD_BYTES_MAX;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use super::config::KafkaConfig;
use super::context::Context;
use super::errors::{from_code, from_error};
use super::native::{Client, Describing, TopicState, bootstrap};
use super::offsets::{Side, offsets};
use super::{CHANGES, MARKS, REJECTED};
use crate::LogError;

/// The largest message: the largest record, its key, and Kafka's framing.
pub(super) const MESSAGE_BYTES_MAX: usize = RECORD_BYTES_MAX + (64 << 10);

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Retention of `changes`: an API that was down longer reloads from a snapshot.
const CHANGES_MS: u64 = HOUR_MS;

/// A cleanup policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cleanup {
    Compact,
    Delete { after_ms: u64, segment_ms: u64 },
}

/// The intended configuration of a topic.
struct Plan {
    name: String,
    partitions: u32,
    cleanup: Cleanup,
}

fn plans(config: &KafkaConfig) -> Vec<Plan> {
    let keep = Cleanup::Delete { after_ms: u64::from(config.retention_days) * DAY_MS, segment_ms: DAY_MS };
    let events = Topic::ALL.iter().map(|topic| {
        let cleanup = if *topic == Topic::Interactions { keep } else { Cleanup::Compact };
        (topic.name(), config.partitions, cleanup)
    });
    let short = Cleanup::Delete { after_ms: CHANGES_MS, segment_ms: HOUR_MS / 4 };
    let others = [(REJECTED, 1, Cleanup::Compact), (MARKS, 1, Cleanup::Compact), (CHANGES, 1, short)];
    events.chain(others).map(|(name, partitions, cleanup)| Plan { name: config.topic(name), partitions, cleanup }).collect()
}

impl Plan {
    /// The settings it is created with.
    fn settings(&self, config: &KafkaConfig) -> Vec<(&'static str, String)> {
        let mut settings = vec![("max.message.bytes", MESSAGE_BYTES_MAX.to_string())];
        match self.cleanup {
            Cleanup::Delete { after_ms, segment_ms } => settings.extend([
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", after_ms.to_string()),
                // Retention removes whole segments, once their last record is old enough.
                ("segment.ms", segment_ms.to_string()),
            ]),
            Cleanup::Compact => settings.extend([
                ("cleanup.policy", "compact".to_owned()),
                ("segment.ms", DAY_MS.to_string()),
                // Forces compaction even with few writes, so that what was replaced (an order of an erased member) leaves in
                // time.
                ("max.compaction.lag.ms", (u64::from(config.retention_days) * DAY_MS).to_string()),
            ]),
        }
        settings
    }

    /// Checks the actual settings: an error, or warnings.
    fn check(&self, resource: &ConfigResource) -> Result<Vec<String>, LogError> {
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
        let (name, mut notes) = (&self.name, Vec::new());
        let policy = value("cleanup.policy").unwrap_or_default();
        let (compacts, deletes) = (policy.contains("compact"), policy.contains("delete"));
        let forever = value("retention.ms") == Some("-1");
        match self.cleanup {
            Cleanup::Delete { .. } if compacts => {
                return Err(LogError::Refused(format!(
                    "topic {name} has cleanup.policy={policy}, which would remove records that are needed; set it: \
                     kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name {name} \
                     --add-config cleanup.policy=delete"
                )));
            }
            Cleanup::Compact if deletes && !forever => notes.push(format!(
                "topic {name} has cleanup.policy={policy}: what retention removes lives on in the store alone; compact keeps it here"
            )),
            _ => (),
        }
        if let Some(bytes) = value("max.message.bytes").and_then(|value| value.parse::<usize>().ok())
            && bytes < MESSAGE_BYTES_MAX
        {
            notes.push(format!(
                "topic {name} has max.message.bytes={bytes}: larger records are refused by the brokers; {MESSAGE_BYTES_MAX} takes all"
            ));
        }
        Ok(notes)
    }
}

/// The result of [`super::KafkaLog::create_topics`] for a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicReport {
    /// The topic's name on the brokers.
    pub topic: String,
    /// Whether it was made just now.
    pub created: bool,
    /// How many partitions it has.
    pub partitions: usize,
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<Context>, LogError> {
    config
        .admin()
        .create_with_context(Context::new(&config.brokers))
        .map_err(|error| from_error(&error, "could not make a client"))
}

fn options(config: &KafkaConfig) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(config.timeout())).operation_timeout(Some(config.timeout()))
}

/// Describes topics and waits for the answer.
pub(super) fn describe(
    client: &Arc<Client>,
    names: &[String],
    timeout: Duration,
) -> Result<Vec<Result<TopicState, RDKafkaErrorCode>>, LogError> {
    let asked = Describing::ask(client, names, timeout);
    let answer = asked.answer(timeout + Duration::from_secs(1));
    if let Some(Ok(topics)) = answer {
        client.context().answered();
        return Ok(topics);
    }
    bootstrap(client.client());
    Err(answer.and_then(Result::err).map_or_else(
        || LogError::Unavailable("could not reach Kafka: no broker answered in time".into()),
        |code| from_code(code, "could not reach Kafka"),
    ))
}

/// The state of all topics of the log.
///
/// # Errors
/// [`LogError::Unavailable`] naming the topics that are missing.
pub(super) fn all(client: &Arc<Client>, config: &KafkaConfig) -> Result<Vec<TopicState>, LogError> {
    let names: Vec<String> = plans(config).into_iter().map(|plan| plan.name).collect();
    let (mut states, mut missing) = (Vec::new(), Vec::new());
    for (name, state) in names.iter().zip(describe(client, &names, config.timeout())?) {
        match state {
            Ok(state) => states.push(state),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => missing.push(name.as_str()),
            Err(code) => return Err(from_code(code, &format!("could not describe topic {name}"))),
        }
    }
    if missing.is_empty() {
        return Ok(states);
    }
    let missing = missing.join(", ");
    Err(LogError::Unavailable(format!("there are no topics {missing}; `kindred migrate` creates them")))
}

/// Checks the settings of all topics; logs warnings.
pub(super) async fn check(config: &KafkaConfig) -> Result<(), LogError> {
    let (admin, plans) = (admin(config)?, plans(config));
    let names: Vec<ResourceSpecifier<'_>> = plans.iter().map(|plan| ResourceSpecifier::Topic(&plan.name)).collect();
    let doing = "could not read the settings of the topics";
    let resources = admin.describe_configs(&names, &options(config)).await.map_err(|error| from_error(&error, doing))?;
    for (plan, resource) in plans.iter().zip(resources) {
        match resource {
            Ok(resource) => plan.check(&resource)?.iter().for_each(|note| tracing::warn!("{note}")),
            Err(code) => {
                tracing::warn!(%code, "could not read the settings of topic {}, assuming they are right", plan.name);
            }
        }
    }
    Ok(())
}

/// Creates the missing topics and waits until they are usable.
pub(super) async fn create(client: &Arc<Client>, config: &KafkaConfig) -> Result<Vec<TopicReport>, LogError> {
    let (admin, plans) = (admin(config)?, plans(config));
    let settings: Vec<_> = plans.iter().map(|plan| plan.settings(config)).collect();
    let replication = if config.replication == 0 { -1 } else { i32::try_from(config.replication).unwrap_or(i32::MAX) };
    let new: Vec<NewTopic<'_>> = plans
        .iter()
        .zip(&settings)
        .map(|(plan, settings)| {
            let partitions = i32::try_from(plan.partitions).expect("checked with the configuration");
            let topic = NewTopic::new(&plan.name, partitions, TopicReplication::Fixed(replication));
            settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        })
        .collect();
    let made = admin.create_topics(&new, &options(config)).await;
    let made = made.map_err(|error| from_error(&error, "could not create the topics"))?;
    let mut created = Vec::new();
    for (plan, outcome) in plans.iter().zip(made) {
        match outcome {
            Ok(_) => created.push(true),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => created.push(false),
            Err((_, code)) => return Err(from_code(code, &format!("could not create topic {}", plan.name))),
        }
    }
    // Brokers learn of a new topic one after another.
    let deadline = Instant::now() + config.timeout();
    let states = loop {
        let (asking, asked) = (client.clone(), config.clone());
        let states = super::blocking(move || {
            let states = all(&asking, &asked)?;
            // A broker may be named leader before it knows: wait until it answers for each partition.
            let names = self::plans(&asked).into_iter().map(|plan| plan.name);
            let partitions =
                names.zip(&states).flat_map(|(name, state)| (0..).take(state.led.len()).map(move |p| (name.clone(), p)));
            offsets(&asking, partitions, Side::Next, asked.timeout())?;
            Ok(states)
        });
        let states = states.await;
        match states {
            Ok(states) if states.iter().all(|state| state.led.iter().all(|led| *led)) => break states,
            Ok(_) | Err(LogError::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(_) => return Err(LogError::Unavailable("the new topics have no leader yet".into())),
            Err(error) => return Err(error),
        }
    };
    let reports = plans.into_iter().zip(created).zip(states);
    Ok(reports.map(|((plan, created), state)| TopicReport { topic: plan.name, created, partitions: state.led.len() }).collect())
}
