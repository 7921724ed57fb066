//! A log in memory and a recording backend, for the tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kindred_clock::Clock;
use kindred_log::{EventLog, EventReader, LogError, LogRecord, Mark, PartitionStatus, Place, Predicate, Rejected, Share};
use kindred_members::senders::Mailbox;
use kindred_model::{MemberId, Position, Topic};
use kindred_store::records::embedded::EmbeddedRecords;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::shop::{Backend, BackendError};

#[derive(Default)]
struct Inner {
    records: Vec<LogRecord>,
    marks: std::collections::HashMap<String, u64>,
    /// Refuses appends, like a full disk.
    full: bool,
}

/// The log; clones are the same log.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Inner>>);

impl MemoryLog {
    pub fn records(&self, topic: Topic) -> Vec<Vec<u8>> {
        self.0.lock().records.iter().filter(|record| record.place.topic == topic).map(|record| record.payload.clone()).collect()
    }

    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Keeps the first `len` records and their marks, as after a kill.
    pub fn cut(&self, len: usize) {
        let mut inner = self.0.lock();
        inner.records.truncate(len);
        let lengths: Vec<(Topic, u64)> = Topic::ALL
            .iter()
            .map(|&topic| (topic, inner.records.iter().filter(|record| record.place.topic == topic).count() as u64))
            .collect();
        for (topic, len) in lengths {
            for (name, done) in &mut inner.marks {
                if name.ends_with(topic.name()) {
                    *done = (*done).min(len);
                }
            }
        }
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn identity(&self) -> &'static str {
        "memory"
    }

    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
        let mut inner = self.0.lock();
        if inner.full {
            return Err(LogError::Full("it is set to be full".to_owned()));
        }
        if let Some(mark) = mark {
            inner.marks.insert(mark.name, mark.done);
        }
        let next = inner.records.iter().filter(|record| record.place.topic == topic).count() as u64;
        let places: Vec<Place> = (next..).zip(&records).map(|(offset, _)| Place { topic, partition: 0, offset }).collect();
        let records = places.iter().zip(records).map(|(&place, payload)| LogRecord { place, payload, tombstone: None });
        inner.records.extend(records);
        Ok(places)
    }

    async fn mark(&self, name: &str) -> Result<Option<u64>, LogError> {
        Ok(self.0.lock().marks.get(name).copied())
    }

    fn reader(&self, _share: Share) -> Result<Box<dyn EventReader>, LogError> {
        Ok(Box::new(Reader { log: self.clone(), next: 0, position: Position::beginning() }))
    }

    async fn end(&self) -> Result<Position, LogError> {
        let mut position = Position::beginning();
        for record in &self.0.lock().records {
            position.join(&record.place.position());
        }
        Ok(position)
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
        Ok(Vec::new())
    }

    fn compacts(&self) -> bool {
        false
    }

    fn disk_bytes(&self) -> Option<u64> {
        None
    }

    async fn reject(&self, _records: Vec<Rejected>) -> Result<(), LogError> {
        Ok(())
    }

    async fn rejected(&self, _after: Option<&str>, _limit: usize) -> Result<Vec<Rejected>, LogError> {
        Ok(Vec::new())
    }

    async fn rejected_one(&self, _id: &str) -> Result<Option<Rejected>, LogError> {
        Ok(None)
    }

    async fn rejected_remove(&self, _ids: &[String]) -> Result<(), LogError> {
        Ok(())
    }

    async fn purge(&self, _topic: Topic, _end: &Position, _condemned: &Predicate<'_>) -> Result<u64, LogError> {
        Ok(0)
    }
}

struct Reader {
    log: MemoryLog,
    next: usize,
    position: Position,
}

impl EventReader for Reader {
    fn seek(&mut self, position: &Position) -> Result<(), LogError> {
        assert_eq!(*position, Position::beginning(), "the shop reads from the beginning");
        (self.next, self.position) = (0, Position::beginning());
        Ok(())
    }

    fn poll(&mut self, limit: usize, timeout: Duration, into: &mut Vec<LogRecord>) -> Result<(), LogError> {
        let begun = std::time::Instant::now();
        loop {
            let inner = self.log.0.lock();
            if self.next < inner.records.len() {
                let end = inner.records.len().min(self.next + limit);
                for record in &inner.records[self.next..end] {
                    self.position.join(&record.place.position());
                    into.push(record.clone());
                }
                self.next = end;
                return Ok(());
            }
            drop(inner);
            if begun.elapsed() > timeout {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn end(&mut self) -> Result<Position, LogError> {
        Err(LogError::Refused("the shop does not ask a reader for the end".to_owned()))
    }
}

/// An empty mailbox and its directory.
pub fn mailbox() -> (Mailbox, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let records = EmbeddedRecords::open(dir.path()).expect("records");
    (Mailbox::new(Arc::new(records), Clock::system()), dir)
}

/// The access token of the one person of [`Notebook`], `a-person`.
pub const SIGNED_IN: &str = "the-token";

/// A backend that records which members it was told to forget.
#[derive(Clone, Default)]
pub struct Notebook(pub Arc<Mutex<Vec<MemberId>>>);

#[async_trait]
impl Backend for Notebook {
    async fn forget(&self, member: &MemberId) -> Result<Value, BackendError> {
        self.0.lock().push(member.clone());
        Ok(json!({ "forgotten": member }))
    }

    async fn points(&self, member: &MemberId) -> Result<Value, BackendError> {
        Ok(json!({ "member": member, "pending": 20, "available": 130 }))
    }

    async fn history(&self, member: &MemberId) -> Result<Value, BackendError> {
        Err(BackendError { status: 503, detail: format!("no history of {member} here") })
    }

    async fn profile(&self, access_token: &str) -> Result<Value, BackendError> {
        if access_token != SIGNED_IN {
            return Err(BackendError { status: 401, detail: "the access token is not good".to_owned() });
        }
        Ok(json!({ "member": "a-person", "tier": "vip", "username": "ada" }))
    }
}
