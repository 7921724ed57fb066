//! Tables: a compacted topic scanned as a whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::config::KafkaConfig;
use super::errors::{from_code, seconds};
use super::native::{Fetched, Fetcher, attend};
use super::offsets::{Side, offsets};
use super::topics::describe;
use crate::LogError;

const SLICE: Duration = Duration::from_millis(100);

/// Passes every entry written before the call to `each`, in partition order: key, and payload or `None` for a tombstone. The last
/// entry of a key counts. Reads the whole topic, so it is for small or rarely read tables.
///
/// # Errors
/// [`LogError::Unavailable`]; some entries may have been passed.
pub(super) fn scan(config: &KafkaConfig, topic: &str, mut each: impl FnMut(&[u8], Option<&[u8]>)) -> Result<(), LogError> {
    let client = super::client(config)?;
    let name = [config.topic(topic)];
    let state = describe(&client, &name, config.timeout())?.remove(0);
    let count = u32::try_from(state.map_err(|code| from_code(code, &name[0]))?.led.len()).unwrap_or(0);
    let partitions = || (0..count).map(|partition| (&name[0], partition));
    let first = offsets(&client, partitions(), Side::First, config.timeout())?;
    let next = offsets(&client, partitions(), Side::Next, config.timeout())?;

    // Records left to read, by partition.
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
