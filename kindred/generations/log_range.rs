//! A range of the log, by positions or by event time: what a replay with `--from` or `--until` reads.
//!
//! ```text
//! EventLog ──▶ LogRange (drops what is outside, ends at `until`) ──▶ the pipeline's source
//! ```
//!
//! Event time is an interaction's `at` or an order's `placed_at`. Records of the catalog and of members have none and always
//! count: they describe items and members, and erasures.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kindred_log::{EventLog, EventReader, LogError, LogRecord, Mark, PartitionStatus, Place, Predicate, Rejected, Share};
use kindred_model::records::{Record, Rules};
use kindred_model::{Day, EventTime, Position, Topic};

/// A position or an event time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bound {
    Position(Position),
    Time(EventTime),
}

impl FromStr for Bound {
    type Err = String;

    /// A time (RFC 3339 with an offset), a day (its start, UTC), or a position.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<Day>() {
            return EventTime::parse("time", &format!("{day}T00:00:00Z")).map(Self::Time).map_err(|error| error.to_string());
        }
        if let Ok(time) = EventTime::parse("time", text) {
            return Ok(Self::Time(time));
        }
        text.parse().map(Self::Position).map_err(|_| {
            format!(
                "{text:?} is neither a time like 2026-01-31T00:00:00Z, nor a day, nor a position as `kindred status` shows it"
            )
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Position(position) => write!(f, "{position}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// The part of a log between `from` and `until`.
#[derive(Clone)]
pub struct LogRange {
    /// The whole log.
    pub log: Arc<dyn EventLog>,
    /// Skips earlier records; a position is where the caller makes the reader start.
    pub from: Option<Bound>,
    /// Skips records of this time and later, or from this position on.
    pub until: Option<Bound>,
    /// For decoding.
    pub rules: Rules,
}

impl LogRange {
    fn holds_time(&self, record: &LogRecord) -> bool {
        let is_time = |bound: &Option<Bound>| matches!(bound, Some(Bound::Time(_)));
        if !is_time(&self.from) && !is_time(&self.until) {
            return true;
        }
        let at = match Record::decode(record.place.topic, &record.payload, &self.rules) {
            Ok(Record::Interaction(interaction)) => interaction.at,
            Ok(Record::Order(order)) => order.placed_at,
            // Records that do not decode are rejected by the pipeline.
            _ => return true,
        };
        let after = |bound: &Option<Bound>| matches!(bound, Some(Bound::Time(time)) if at >= *time);
        !after(&self.until) && (after(&self.from) || !is_time(&self.from))
    }

    /// `position`, at most `until`.
    fn capped(&self, position: &Position) -> Position {
        let Some(Bound::Position(until)) = &self.until else { return position.clone() };
        let mut capped = Position::beginning();
        for (topic, partition, next) in position.partitions() {
            if let Some(last) = next.min(until.next_offset(topic, partition)).checked_sub(1) {
                capped.passed(topic, partition, last);
            }
        }
        capped
    }
}

#[async_trait]
impl EventLog for LogRange {
    fn identity(&self) -> &str {
        self.log.identity()
    }

    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
        self.log.append(topic, records, mark).await
    }

    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError> {
        self.log.mark(name).await
    }

    fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError> {
        let reader = self.log.reader(share)?;
        let position = self.capped(reader.position());
        Ok(Box::new(LogRangeReader { range: self.clone(), reader, position, read: Vec::new() }))
    }

    async fn end(&self) -> Result<Position, LogError> {
        Ok(self.capped(&self.log.end().await?))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
        self.log.partitions().await
    }

    fn compacts(&self) -> bool {
        self.log.compacts()
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.log.disk_bytes()
    }

    async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError> {
        self.log.reject(records).await
    }

    async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError> {
        self.log.rejected(after, limit).await
    }

    async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError> {
        self.log.rejected_one(id).await
    }

    async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError> {
        self.log.rejected_remove(ids).await
    }

    async fn purge(&self, topic: Topic, end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError> {
        self.log.purge(topic, end, condemned).await
    }
}

struct LogRangeReader {
    range: LogRange,
    reader: Box<dyn EventReader>,
    position: Position,
    read: Vec<LogRecord>,
}

impl EventReader for LogRangeReader {
    fn seek(&mut self, position: &Position) -> Result<(), LogError> {
        self.reader.seek(position)?;
        self.position = self.range.capped(self.reader.position());
        Ok(())
    }

    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError> {
        self.read.clear();
        self.reader.poll(limit, timeout, &mut self.read)?;
        self.position = self.range.capped(self.reader.position());
        let within = |record: &LogRecord| match &self.range.until {
            Some(Bound::Position(until)) => record.place.offset < until.next_offset(record.place.topic, record.place.partition),
            _ => true,
        };
        into.extend(self.read.drain(..).filter(|record| within(record) && self.range.holds_time(record)));
        Ok(())
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn oldest_polled(&self) -> Option<SystemTime> {
        self.reader.oldest_polled()
    }

    fn end(&mut self) -> Result<Position, LogError> {
        Ok(self.range.capped(&self.reader.end()?))
    }
}
