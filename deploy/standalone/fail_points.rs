//! Fail points: every write of the side of members has a name, and a debug build kills itself at the one that a test has armed, as
//! `kill -9` would. A release build has nothing of this.
//!
//! ```text
//! Members, API ──▶ Watched<RecordStore | EventLog | Sender> ──▶ the real one
//!                     │ armed with this name: dies before the write, or after it and before anybody learns of it
//!                     └──▶ DIR/trace    a line for each write passed while something is armed
//! ```
//!
//! `KINDRED_FAIL_POINTS=DIR` names the directory to a process that starts. It is looked into at every write, so that a process can be
//! armed while it runs: `DIR/armed` holds `after NAME#N` or `before NAME#N`, where N counts the writes of this name from 1 since the
//! file was written, or `never`, which traces only. Names are those of the trace: `claims: put username`, `accounts: put account, put
//! outbox`, `log: append members`, `send: mail`. What is done beside for changes of before, which an earlier process left in the outbox, is
//! traced as `earlier: NAME` and not counted.

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
    use std::collections::{HashMap, HashSet};
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{Arc, LazyLock};

    use async_trait::async_trait;
    use kindred_log::{EventLog, EventReader, LogError, Mark, PartitionStatus, Place, Rejected, Share};
    use kindred_members::Sender;
    use kindred_members::senders::{Channel, Message};
    use kindred_model::{EventTime, Position, Topic};
    use kindred_store::StoreError;
    use kindred_store::records::{Effect, Outcome, Range, Record, RecordStore, Step};
    use parking_lot::Mutex;

    /// The records, watched where `KINDRED_FAIL_POINTS` is set.
    pub fn records(real: Arc<dyn RecordStore>) -> Arc<dyn RecordStore> {
        if POINTS.is_some() { Arc::new(Watched(real)) } else { real }
    }

    /// The log, watched in the same way.
    pub fn log(real: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        if POINTS.is_some() { Arc::new(Watched(real)) } else { real }
    }

    /// What carries messages, watched in the same way.
    pub fn sender(real: Arc<dyn Sender>) -> Arc<dyn Sender> {
        if POINTS.is_some() { Arc::new(Watched(real)) } else { real }
    }

    static POINTS: LazyLock<Option<Points>> = LazyLock::new(|| {
        let directory = PathBuf::from(std::env::var_os("KINDRED_FAIL_POINTS")?);
        Some(Points { directory, passed: Mutex::default() })
    });

    struct Points {
        directory: PathBuf,
        passed: Mutex<Passed>,
    }

    /// What was passed since it was armed.
    #[derive(Default)]
    struct Passed {
        armed: String,
        /// How often, by name.
        times: HashMap<String, u32>,
        /// The changes that were begun: work in the outbox of others is an earlier process's.
        begun: HashSet<String>,
    }

    /// A write that is about to be done.
    struct Point {
        name: String,
        /// The change of the outbox that it belongs to, where that shows, and whether it begins it.
        change: Option<(String, bool)>,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Dies {
        Before,
        After,
        Not,
    }

    impl Points {
        fn pass(&self, point: Point) -> Dies {
            let mut passed = self.passed.lock();
            let Ok(armed) = std::fs::read_to_string(self.directory.join("armed")) else {
                passed.armed.clear();
                return Dies::Not;
            };
            if passed.armed != armed {
                *passed = Passed { armed: armed.clone(), ..Passed::default() };
            }
            match point.change {
                Some((change, true)) => drop(passed.begun.insert(change)),
                Some((change, false)) if !passed.begun.contains(&change) => {
                    self.trace(&format!("earlier: {}", point.name));
                    return Dies::Not;
                }
                _ => {}
            }
            let times = passed.times.entry(point.name.clone()).or_default();
            *times += 1;
            let line = format!("{}#{times}", point.name);
            self.trace(&line);
            match armed.trim().split_once(' ') {
                Some(("before", name)) if name == line => Dies::Before,
                Some(("after", name)) if name == line => Dies::After,
                _ => Dies::Not,
            }
        }

        fn trace(&self, line: &str) {
            let trace = OpenOptions::new().create(true).append(true).open(self.directory.join("trace"));
            let written = trace.and_then(|mut trace| writeln!(trace, "{line}"));
            written.expect("a test that arms a fail point can be told of what is passed");
        }
    }

    /// As by `kill -9`: no destructor runs, nothing is flushed, nothing goes on.
    fn die() -> ! {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }

    async fn watch<T>(point: impl FnOnce() -> Point, write: impl Future<Output = T>) -> T {
        let dies = POINTS.as_ref().map_or(Dies::Not, |points| points.pass(point()));
        if dies == Dies::Before {
            die();
        }
        let done = write.await;
        if dies == Dies::After {
            die();
        }
        done
    }

    struct Watched<T: ?Sized>(Arc<T>);

    /// A transaction by its table and what it does there, without what is different each time.
    fn transaction(table: &str, partition: &[u8], steps: &[Step]) -> Point {
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
        Point { name: format!("{table}: {}", does.join(", ")), change }
    }

    #[async_trait]
    impl RecordStore for Watched<dyn RecordStore> {
        async fn read(&self, table: &str, partition: &[u8], sort: &[u8], now: EventTime) -> Result<Option<Record>, StoreError> {
            self.0.read(table, partition, sort, now).await
        }

        async fn scan(
            &self,
            table: &str,
            partition: &[u8],
            range: &Range,
            limit: usize,
            now: EventTime,
        ) -> Result<Vec<(Vec<u8>, Record)>, StoreError> {
            self.0.scan(table, partition, range, limit, now).await
        }

        async fn partitions(&self, table: &str, after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
            self.0.partitions(table, after, limit).await
        }

        async fn transact(&self, table: &str, partition: &[u8], steps: &[Step], now: EventTime) -> Result<Outcome, StoreError> {
            watch(|| transaction(table, partition, steps), self.0.transact(table, partition, steps, now)).await
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
            watch(|| Point { name: format!("send: {by}"), change }, self.0.send(message)).await
        }
    }

    #[async_trait]
    impl EventLog for Watched<dyn EventLog> {
        fn identity(&self) -> &str {
            self.0.identity()
        }

        async fn append(&self, topic: Topic, records: Vec<Vec<u8>>, mark: Option<Mark>) -> Result<Vec<Place>, LogError> {
            let point = || Point { name: format!("log: append {}", topic.name()), change: None };
            watch(point, self.0.append(topic, records, mark)).await
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

        async fn purge(&self, topic: Topic, condemned: &(dyn for<'a> Fn(&'a [u8]) -> bool + Sync)) -> Result<u64, LogError> {
            self.0.purge(topic, condemned).await
        }
    }
}
