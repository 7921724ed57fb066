//! First and next offsets of partitions: one request per broker, for any number of partitions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::errors::{from_code, from_error};
use super::native::{Client, bootstrap};
use crate::LogError;

/// Which end of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The oldest offset that can be read.
    First,
    /// The offset after the last readable record; records of open transactions are not readable.
    Next,
}

/// Back-off before the new leader of a partition is asked.
const MOVED_WAIT: Duration = Duration::from_millis(100);

/// Whether the broker does not lead the partition, or not yet: after topic creation or a broker failure.
fn leader_moved(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable))
}

/// The offsets of partitions, by (topic, partition).
///
/// # Errors
/// [`LogError::Unavailable`] also when a single partition has no leader.
pub(super) fn offsets(
    client: &Client,
    partitions: impl IntoIterator<Item = (impl AsRef<str>, u32)>,
    side: Side,
    timeout: Duration,
) -> Result<BTreeMap<(String, u32), u64>, LogError> {
    const DOING: &str = "could not ask Kafka for the ends of the topics";
    let mut asked = TopicPartitionList::new();
    // The protocol asks for an end as "time" -1 or -2.
    let time = match side {
        Side::First => Offset::Beginning,
        Side::Next => Offset::End,
    };
    for (topic, partition) in partitions {
        let number = i32::try_from(partition).map_err(|_| from_code(RDKafkaErrorCode::UnknownPartition, DOING))?;
        asked.add_partition_offset(topic.as_ref(), number, time).map_err(|error| from_error(&error, DOING))?;
    }
    if asked.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let deadline = Instant::now() + timeout;
    let answer = loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(MOVED_WAIT);
        let answer = client.offsets_for_times(asked.clone(), left).map_err(|error| {
            bootstrap(client.client());
            from_error(&error, DOING)
        })?;
        let moved = answer.elements().iter().any(|element| element.error().is_err_and(|error| leader_moved(&error)));
        if !moved || Instant::now() >= deadline {
            break answer;
        }
        std::thread::sleep(MOVED_WAIT);
    };
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(|error| from_error(&error, DOING))?;
        let (Offset::Offset(offset), Ok(partition)) = (element.offset(), u32::try_from(element.partition())) else {
            return Err(LogError::Unavailable(format!("{DOING}: no offset for {} {}", element.topic(), element.partition())));
        };
        offsets.insert((element.topic().to_owned(), partition), u64::try_from(offset).unwrap_or(0));
    }
    client.context().answered();
    Ok(offsets)
}
