//! Reading: the partitions of one share, fetched into one queue, with our own positions.
//!
//! ```text
//! Fetcher ──Record──▶ into, position     ──End──▶ position (over gaps)     ──Failed──▶ removed or recreated: a permanent error
//! brokers ──look, every few seconds──▶ starts new partitions; reports missing, leaderless or recreated topics
//! ```
//!
//! A permanent error stays until the next `seek`. Everything else is transient: librdkafka finds new leaders and returning
//! brokers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kindred_model::{Position, Topic};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, info};

use super::errors::{counted, from_code, seconds};
use super::native::{Client, Describing, Fetched, Fetcher, TopicState, attend, bootstrap};
use super::offsets::{Side, offsets};
use super::topics::describe;
use super::{Shared, recreated};
use crate::{EventReader, LogError, LogRecord, Place, Share};

/// Interval of topic checks, and so the delay until a new partition is read.
const LOOK: Duration = Duration::from_secs(5);
/// The interval while something is wrong.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Timeout of a topic check.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest wait within `poll` before it serves the client and the topic checks.
const SLICE: Duration = Duration::from_millis(100);
/// The longest poll: adding more could overflow the clock.
const POLL_MAX: Duration = Duration::from_secs(86_400);

pub(super) struct Reader {
    shared: Arc<Shared>,
    share: Share,
    /// Declared before the client, so that it is dropped first.
    fetcher: Fetcher,
    looking: Option<Describing>,
    client: Arc<Client>,
    position: Position,
    /// Whether it has a position and its partitions are started.
    standing: bool,
    looked_at: Instant,
    /// When the oldest record of the last poll was appended, in ms since 1970.
    oldest_ms: Option<u64>,
    /// What keeps part of the share from being read, by the last topic check.
    trouble: Option<String>,
    /// The permanent error, if any.
    verdict: Option<LogError>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, share: Share) -> Result<Self, LogError> {
        let client = super::client(&shared.config)?;
        let fetcher = Fetcher::new(&client, &shared.names);
        let (position, looked_at) = (Position::beginning(), Instant::now());
        let (looking, trouble, verdict) = (None, None, None);
        Ok(Self {
            shared,
            share,
            fetcher,
            looking,
            client,
            position,
            standing: false,
            looked_at,
            oldest_ms: None,
            trouble,
            verdict,
        })
    }

    fn name(&self, topic: Topic) -> &str {
        &self.shared.names[usize::from(topic.code())]
    }

    /// Checks the topics periodically, without waiting.
    fn look(&mut self) {
        attend(&self.client);
        let answer = match &self.looking {
            Some(asked) => asked.answer(Duration::ZERO),
            None => {
                let wrong = self.trouble.is_some() || self.client.context().down().is_some();
                if self.looked_at.elapsed() >= if wrong { LOOK_AGAIN } else { LOOK } {
                    self.looking = Some(Describing::ask(&self.client, &self.shared.names, LOOK_TIMEOUT));
                }
                None
            }
        };
        let Some(answer) = answer else { return };
        self.looking = None;
        self.looked_at = Instant::now();
        match answer {
            Ok(states) => {
                self.client.context().answered();
                self.take_in(states);
                self.tell_lag();
            }
            Err(code) => {
                bootstrap(self.client.client());
                let within = seconds(LOOK_TIMEOUT);
                let reason = self.client.context().down().filter(|reason| !reason.is_empty());
                let reason = reason.unwrap_or_else(|| format!("no broker answers within {within} ({code})"));
                self.trouble = Some(reason);
            }
        }
    }

    /// Starts new partitions and records what is wrong.
    fn take_in(&mut self, states: Vec<Result<TopicState, RDKafkaErrorCode>>) {
        let mut troubles = Vec::new();
        for (&topic, state) in Topic::ALL.iter().zip(states) {
            let state = match state {
                Ok(state) => state,
                Err(code) => {
                    troubles.push(from_code(code, self.name(topic)));
                    continue;
                }
            };
            if state.id != self.shared.ids[usize::from(topic.code())] {
                self.verdict = Some(recreated(self.name(topic)));
                return;
            }
            for (partition, led) in (0..).zip(&state.led) {
                if !self.share.holds(topic, partition) {
                    continue;
                }
                if !led {
                    let reason = format!("partition {partition} of {} has no leader: a broker is down", self.name(topic));
                    troubles.push(LogError::Unavailable(reason));
                }
                let key = (usize::from(topic.code()), partition);
                if self.standing && !self.fetcher.started().contains(&key) {
                    info!(
                        topic = self.name(topic),
                        partition,
                        "a new partition of {} is read from its beginning",
                        self.name(topic)
                    );
                    self.fetcher.start(key.0, partition, None);
                }
            }
        }
        self.trouble = None;
        for error in troubles {
            match error {
                LogError::Unavailable(reason) => self.trouble = Some(reason),
                refused => self.verdict = Some(refused),
            }
        }
    }

    fn tell_lag(&self) {
        for &(code, partition) in self.fetcher.started() {
            let topic = Topic::ALL[code];
            let Some(end) = self.fetcher.known_end(code, partition) else { continue };
            let lag = end.saturating_sub(self.position.next_offset(topic, partition));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
            metrics::gauge!("log_lag_records", "topic" => topic.name(), "partition" => partition.to_string()).set(lag as f64);
        }
    }

    /// Appends what is there, up to `limit`; waits up to `wait` for the first.
    fn fetch(&mut self, limit: usize, mut wait: Duration, into: &mut Vec<LogRecord>) {
        let before = into.len();
        let mut failed = Vec::new();
        while into.len() - before < limit {
            let Self { fetcher, position, oldest_ms, .. } = self;
            let count = fetcher.poll(limit - (into.len() - before), wait, |fetched| match fetched {
                Fetched::Record { topic, partition, offset, at_ms, payload, key, .. } => {
                    let topic = Topic::ALL[topic];
                    // Never return a record twice.
                    if offset >= position.next_offset(topic, partition) {
                        position.passed(topic, partition, offset);
                        *oldest_ms = [*oldest_ms, at_ms].into_iter().flatten().min();
                        let tombstone = key.filter(|_| payload.is_none()).map(<[u8]>::to_vec);
                        let payload = payload.unwrap_or_default().to_vec();
                        into.push(LogRecord { place: Place { topic, partition, offset }, payload, tombstone });
                    }
                }
                Fetched::End { topic, partition, offset } => {
                    if let Some(last) = offset.checked_sub(1) {
                        position.passed(Topic::ALL[topic], partition, last);
                    }
                }
                Fetched::Failed { topic, partition, code, reason } => failed.push((Topic::ALL[topic], partition, code, reason)),
            });
            if count == 0 {
                break;
            }
            wait = Duration::ZERO;
        }
        if into.len() > before {
            self.client.context().answered();
        }
        for (topic, partition, code, reason) in failed {
            self.failed(topic, partition, code, &reason);
        }
    }

    fn failed(&mut self, topic: Topic, partition: u32, code: RDKafkaErrorCode, reason: &str) {
        debug!(topic = self.name(topic), partition, %code, "could not read: {reason}");
        metrics::counter!("log_read_errors_total", "topic" => topic.name()).increment(1);
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => match self.out_of_range(topic, partition) {
                Ok(()) => {
                    let next = self.position.next_offset(topic, partition);
                    self.fetcher.start(usize::from(topic.code()), partition, (next > 0).then_some(next));
                }
                Err(LogError::Unavailable(reason)) => {
                    // Unknown until the brokers answer again.
                    let next = self.position.next_offset(topic, partition);
                    self.fetcher.start(usize::from(topic.code()), partition, (next > 0).then_some(next));
                    self.trouble = Some(reason);
                }
                Err(verdict) => self.verdict = Some(verdict),
            },
            RDKafkaErrorCode::TopicAuthorizationFailed => self.verdict = Some(from_code(code, self.name(topic))),
            // Triggers a topic check; `checked_sub`, as the clock may have started later.
            _ => self.looked_at = self.looked_at.checked_sub(LOOK).unwrap_or(self.looked_at),
        }
    }

    /// Why the brokers do not have the next offset of a partition; `Ok` if they do after all.
    fn out_of_range(&self, topic: Topic, partition: u32) -> Result<(), LogError> {
        let name = [self.name(topic).to_owned()];
        match &describe(&self.client, &name, LOOK_TIMEOUT)?[0] {
            Ok(state) if state.id != self.shared.ids[usize::from(topic.code())] => return Err(recreated(&name[0])),
            Ok(_) => (),
            Err(code) => return Err(from_code(*code, &name[0])),
        }
        self.within(&[(topic, partition, self.position.next_offset(topic, partition))])
    }

    /// Checks that these offsets are readable.
    fn within(&self, places: &[(Topic, u32, u64)]) -> Result<(), LogError> {
        let named = || places.iter().map(|&(topic, partition, _)| (self.name(topic), partition));
        let first = offsets(&self.client, named(), Side::First, self.shared.config.timeout())?;
        let end = offsets(&self.client, named(), Side::Next, self.shared.config.timeout())?;
        for &(topic, partition, next) in places {
            let name = self.name(topic);
            let key = (name.to_owned(), partition);
            let (first, end) = (first.get(&key).copied().unwrap_or(0), end.get(&key).copied().unwrap_or(0));
            if next > end {
                return Err(LogError::Refused(format!(
                    "position {next} of partition {partition} of {name} lies after its end, {end}: the topic was created anew or has \
                     lost records; `kindred replay --generation NAME --from inputs` goes on with what the store has"
                )));
            }
            if next > 0 && next < first {
                return Err(LogError::Refused(format!(
                    "retention has removed records {next} to {} of partition {partition} of {name} before they were read; it can be read \
                     from {first}: `kindred replay --generation NAME --from inputs` starts with what the store has and reads from there",
                    first - 1
                )));
            }
        }
        Ok(())
    }
}

impl EventReader for Reader {
    fn seek(&mut self, position: &Position) -> Result<(), LogError> {
        let states = describe(&self.client, &self.shared.names, self.shared.config.timeout())?;
        let mut partitions = Vec::new();
        for (&topic, state) in Topic::ALL.iter().zip(states) {
            let state = state.map_err(|code| from_code(code, self.name(topic)))?;
            if state.id != self.shared.ids[usize::from(topic.code())] {
                return Err(recreated(self.name(topic)));
            }
            partitions.push(state.led.len());
        }
        let named = |&(topic, partition, offset): &(Topic, u32, u64)| offset > 0 && self.share.holds(topic, partition);
        let places: Vec<_> = position.partitions().filter(named).collect();
        if let Some((topic, partition, _)) =
            places.iter().find(|(topic, p, _)| *p as usize >= partitions[usize::from(topic.code())])
        {
            let name = self.name(*topic);
            return Err(LogError::Refused(format!("{name} has no partition {partition}: the position is of another log")));
        }
        self.within(&places)?;
        self.fetcher.stop_all();
        self.position = Position::beginning();
        for &(topic, partition, next) in &places {
            self.position.passed(topic, partition, next - 1);
        }
        for (&topic, count) in Topic::ALL.iter().zip(partitions) {
            for partition in (0..).take(count).filter(|&partition| self.share.holds(topic, partition)) {
                let next = self.position.next_offset(topic, partition);
                self.fetcher.start(usize::from(topic.code()), partition, (next > 0).then_some(next));
            }
        }
        (self.trouble, self.verdict, self.standing, self.looked_at) = (None, None, true, Instant::now());
        Ok(())
    }

    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError> {
        let deadline = Instant::now() + timeout.min(POLL_MAX);
        if !self.standing {
            self.seek(&Position::beginning())?;
        }
        let before = into.len();
        self.oldest_ms = None;
        loop {
            if self.verdict.is_none() {
                self.look();
                let wait = deadline.saturating_duration_since(Instant::now()).min(SLICE);
                self.fetch(limit, wait, into);
                if into.len() > before {
                    return Ok(());
                }
            }
            if let Some(verdict) = &self.verdict {
                return Err(counted(verdict.clone(), "poll"));
            }
            if let Some(reason) = self.client.context().down().or_else(|| self.trouble.clone()) {
                return Err(counted(LogError::Unavailable(reason), "poll"));
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn oldest_polled(&self) -> Option<SystemTime> {
        self.oldest_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    fn end(&mut self) -> Result<Position, LogError> {
        if !self.standing {
            self.seek(&Position::beginning())?;
        }
        let partitions = self.fetcher.started().iter().map(|&(code, partition)| (Topic::ALL[code], partition));
        self.shared.end_of(&self.client, partitions)
    }
}
