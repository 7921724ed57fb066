//! Tables: a compacted topic read from its beginning to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::config::KafkaConfig;
use super::errors::{from_code, seconds};
use super::native::{Fetched, Fetcher, attend};
use super::offsets::{Side, offsets};
use super::topics::describe;
use crate::LogError;

const SLICE: Duration = Duration::from_millis(100);

/// Hands over every entry of a table that was written before the call, in the order of each partition: key, and payload or, where it
/// was removed, none. The last of a key is the one that counts. Reads the whole topic: it is for tables that are small or rarely read.
///
/// # Errors
/// [`LogError::Unavailable`]; some entries may have been handed over.
pub(super) fn scan(config: &KafkaConfig, topic: &str, mut each: impl FnMut(&[u8], Option<&[u8]>)) -> Result<(), LogError> {
    let client = super::client(config)?;
    let name = [config.topic(topic)];
    let state = describe(&client, &name, config.timeout())?.remove(0);
    let count = u32::try_from(state.map_err(|code| from_code(code, &name[0]))?.led.len()).unwrap_or(0);
    let partitions = || (0..count).map(|partition| (&name[0], partition));
    let first = offsets(&client, partitions(), Side::First, config.timeout())?;
    let next = offsets(&client, partitions(), Side::Next, config.timeout())?;

    // What is left to be read, by partition.
    let mut left: BTreeMap<u32, u64> = BTreeMap::new();
    let mut fetcher = Fetcher::new(&client, &name);
    for (key, end) in next {
        if first.get(&key).is_none_or(|first| *first < end) {
            left.insert(key.1, end);
            fetcher.start(0, key.1, None);
        }
    }
    let mut moved = Instant::now();
    let mut failed = None;
    while !left.is_empty() {
        attend(&client);
        let count = fetcher.poll(usize::MAX, SLICE, |fetched| match fetched {
            Fetched::Record { partition, offset, key, payload, .. } => {
                if left.get(&partition).is_some_and(|end| offset < *end) {
                    each(key.unwrap_or_default(), payload);
                }
                if left.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                    left.remove(&partition);
                }
            }
            Fetched::End { partition, offset, .. } => {
                if left.get(&partition).is_some_and(|end| offset >= *end) {
                    left.remove(&partition);
                }
            }
            Fetched::Failed { code, reason, .. } => failed = Some(from_code(code, &reason)),
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if count > 0 {
            moved = Instant::now();
        } else if moved.elapsed() > config.timeout() {
            let after = seconds(config.timeout());
            return Err(LogError::Unavailable(format!("{}: nothing could be read for {after}", name[0])));
        }
    }
    Ok(())
}
