//! Fail points: every write of the side of members has a name, at which a test can kill a debug build. A release build has nothing of
//! this.
//!
//! ```text
//! Members, API ──▶ Watched<RecordStore | EventLog | Sender> ──▶ the real one
//!                     │ armed with this name: dies before the write, or after it and before anybody learns of it
//!                     └──▶ DIR/trace    a line for each write passed while something is armed
//! ```
//!
//! Names are those of the trace ([`kindred_telemetry::fail_point`] says how a process is armed): `claims: put name`, `accounts: put
//! account, put outbox`, `log: append members`, `send: mail`. What is done beside for changes of before, which an earlier process left in
//! the outbox, is traced as `earlier: NAME` and not counted.

#[cfg(debug_assertions)]
pub use watched::{log, records, sender};

#[cfg(not(debug_assertions))]
pub use unwatched::{log, records, sender};

/// What a release build does: nothing.
#[cfg(not(debug_assertions))]
mod unwatched {
    use std::sync::Arc;

    use kindred_log::EventLog;
    use kindred_members::Sender;
    use kindred_store::records::RecordStore;

    pub fn records(real: Arc<dyn RecordStore>) -> Arc<dyn RecordStore> {
        real
    }

    pub fn log(real: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        real
    }

    pub fn sender(real: Arc<dyn Sender>) -> Arc<dyn Sender> {
        real
    }
}

#[cfg(debug_assertions)]
mod watched {
    use std::sync::Arc;

    use async_trait::async_trait;
    use kindred_log::{EventLog, EventReader, LogError, Mark, PartitionStatus, Place, Predicate, Rejected, Share};
    use kindred_members::Sender;
    use kindred_members::senders::{Channel, Message};
    use kindred_model::{Position, Topic};
    use kindred_store::StoreError;
    use kindred_store::records::{self, Around, Call, Effect, Outcome, RecordStore, Surrounded, Write};
    use kindred_telemetry::{Step, fail_points_armed, watched_step};

    /// The records, watched where `KINDRED_FAIL_POINTS` is set.
    pub fn records(store: Arc<dyn RecordStore>) -> Arc<dyn RecordStore> {
        if fail_points_armed() { Arc::new(Surrounded { store, around: Points }) } else { store }
    }

    /// The log, watched in the same way.
    pub fn log(real: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        if fail_points_armed() { Arc::new(Watched(real)) } else { real }
    }

    /// What carries messages, watched in the same way.
    pub fn sender(real: Arc<dyn Sender>) -> Arc<dyn Sender> {
        if fail_points_armed() { Arc::new(Watched(real)) } else { real }
    }

    struct Watched<T: ?Sized>(Arc<T>);

    /// A transaction by its table and what it does there, without what is different each time.
    fn transaction(table: &str, partition: &[u8], steps: &[records::Step]) -> Step {
        let first = |text: &[u8]| String::from_utf8_lossy(text).split('/').next().unwrap_or_default().to_owned();
        let mut does: Vec<String> = Vec::new();
        for step in steps {
            let verb = match step.effect {
                Effect::Put { .. } => "put",
                Effect::Delete => "delete",
                Effect::Check => "check",
            };
            let what = match table {
                "accounts" | "requests" => first(&step.sort),
                "claims" | "member_index" => first(partition),
                _ => String::new(),
            };
            let step = format!("{verb} {what}").trim_end().to_owned();
            if !does.contains(&step) {
                does.push(step);
            }
        }
        // The pointer of a change is `outbox[..]/CHANGE`, an item of it `outbox/CHANGE/NN` beside what was changed.
        let change = steps.iter().find_map(|step| {
            let sort = String::from_utf8_lossy(&step.sort);
            match sort.strip_prefix("outbox/").and_then(|rest| rest.split_once('/')) {
                Some((change, _)) => Some((change.to_owned(), false)),
                None if table == "outbox" => Some((sort.into_owned(), matches!(step.effect, Effect::Put { .. }))),
                None => None,
            }
        });
        Step { name: format!("{table}: {}", does.join(", ")), change }
    }

    /// Stands around the records.
    struct Points;

    #[async_trait]
    impl Around for Points {
        async fn writes(&self, call: Call<'_>, write: Write<'_>) -> Result<Outcome, StoreError> {
            watched_step(|| transaction(call.table, call.partition, call.steps), write).await
        }
    }

    #[async_trait]
    impl Sender for Watched<dyn Sender> {
        async fn send(&self, message: Message) -> Result<(), String> {
            let by = match message.channel {
                Channel::Mail => "mail",
                Channel::Phone => "phone",
            };
            // The id of a message is its change's, with the number of the item.
            let change = message.id.split_once('.').map(|(change, _)| (change.to_owned(), false));
            watched_step(|| Step { name: format!("send: {by}"), change }, self.0.send(message)).await
        }
    }

    #[async_trait]
    impl EventLog for Watched<dyn EventLog> {
        fn identity(&self) -> &str {
            self.0.identity()
        }

        async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
            let point = || Step { name: format!("log: append {}", topic.name()), change: None };
            watched_step(point, self.0.append(topic, records, mark)).await
        }

        async fn mark(&self, name: &str) -> Result<Option<u64>, LogError> {
            self.0.mark(name).await
        }

        fn reader(&self, share: Share) -> Result<Box<dyn EventReader>, LogError> {
            self.0.reader(share)
        }

        async fn end(&self) -> Result<Position, LogError> {
            self.0.end().await
        }

        async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
            self.0.partitions().await
        }

        fn compacts(&self) -> bool {
            self.0.compacts()
        }

        fn disk_bytes(&self) -> Option<u64> {
            self.0.disk_bytes()
        }

        async fn reject(&self, records: Vec<Rejected>) -> Result<(), LogError> {
            self.0.reject(records).await
        }

        async fn rejected(&self, after: Option<&str>, limit: usize) -> Result<Vec<Rejected>, LogError> {
            self.0.rejected(after, limit).await
        }

        async fn rejected_one(&self, id: &str) -> Result<Option<Rejected>, LogError> {
            self.0.rejected_one(id).await
        }

        async fn rejected_remove(&self, ids: &[String]) -> Result<(), LogError> {
            self.0.rejected_remove(ids).await
        }

        async fn purge(&self, topic: Topic, end: &Position, condemned: &Predicate<'_>) -> Result<u64, LogError> {
            self.0.purge(topic, end, condemned).await
        }
    }
}
