//! What follows from a change takes effect exactly once, whatever crashes: it is written in the transaction of the change, and done
//! from there until it has succeeded.
//!
//! ```text
//! 1. pointer  outbox[op's first digit]/op          ──▶ where to look
//! 2. change   accounts[member]: account, sessions, outbox/op/00 …   one transaction
//! 3. work     each item: performed (repeatable), then taken out; records, log, mail and phone each in a lane of their own
//! 4. pointer taken away
//! ```
//!
//! A process does what follows from its own changes at once. Once a second it looks at all pointers as well: for what failed, and for
//! what a process that has ended left behind. A lane has so many places: where the mail host hangs, mails wait for one another and
//! nothing else waits for them.
//!
//! A pointer without items belongs to a change that failed, or that is still on its way in a process that stands still. Before a
//! pointer is taken away for that, its first item's place is filled by a mark, so that the late change conflicts and begins again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use kindred_model::units::EventTime;
use kindred_store::records::Step;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::audit::Entry;
use crate::db::{self, Db, Held, OUTBOX, ms};
use crate::error::{MemberError, Result};
use crate::random::{self, hex};
use crate::resource::{AGAIN_S, Job};
use crate::revocations::Revocations;
use crate::senders::{Channel, Template};
use crate::validate::{Identifier, Kind};
use kindred_config::members::Language;

/// A pointer whose change has not shown itself for so long is taken for abandoned, milliseconds.
const ABANDONED_MS: i64 = 60_000;
/// How long the mark stands in the way of a change that comes late, seconds: no process stands still for a day.
const MARK_S: u64 = 86_400;
/// First wait before something that failed is tried again, and the longest, milliseconds.
const BACKOFF_MS: (i64, i64) = (1_000, 3_600_000);
/// How long a message being sent is left to whoever sends it, milliseconds.
const LEASE_MS: i64 = 30_000;
/// How long what a caller waits for is left to the caller, seconds: two who do it at once would only wait for each other.
const CALLER_S: u64 = 5;
/// How often all pointers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Changes that are followed at once; the others are found by a later look.
const FOLLOWED_MAX: usize = 10_000;
/// Items that are done at once in each lane: records are ours, the others are somebody else's hosts.
const PLACES: [usize; Lane::ALL] = [32, 16, 8, 8];

/// What may have to wait for the same thing.
#[derive(Clone, Copy)]
enum Lane {
    /// Records of members.
    Records,
    /// The log.
    Log,
    /// The mail host.
    Mail,
    /// The gateway to phones.
    Phone,
}

impl Lane {
    const ALL: usize = Self::Phone as usize + 1;
}

/// What follows from changes. It knows no service: [`Perform`] does an item, but for what ends sessions, which is in force at once.
pub(crate) struct Outbox {
    db: Db,
    revocations: Arc<Revocations>,
    /// The places of the lanes.
    places: [Semaphore; Lane::ALL],
    /// The changes of this process that nobody follows yet.
    begun: Mutex<Vec<Op>>,
    kicked: Notify,
}

/// Does what follows from changes.
#[async_trait]
pub(crate) trait Perform: Sync {
    /// Does one item, of a change in a partition. `id` is the item's, however often it is done.
    async fn perform(&self, partition: &str, id: String, work: &Work) -> Result<()>;
}

/// Something that has to happen because of a change. Doing it twice is as good as once (a message: may arrive twice, under one id).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// A record of `members` is appended to the log.
    Event {
        record: String,
    },
    /// A mail or a phone message is sent.
    Message {
        to: String,
        template: Template,
        language: Language,
        params: BTreeMap<String, String>,
    },
    /// An entry of the audit log.
    Audit {
        entry: Box<Entry>,
    },
    /// Access tokens of these sessions stop working.
    Revoke {
        sessions: Vec<String>,
    },
    /// Access tokens of the member's sessions of earlier epochs stop working, but for one session's.
    RevokeBefore {
        epoch: u64,
        except: Option<String>,
    },
    /// What lies beside the account and is worth nothing any more is deleted.
    Tidy,
    /// The identifiers of a registration are claimed, or it is turned away.
    Register,
    /// The claims of a verified account are made to last.
    Activate,
    /// A new phone or e-mail is claimed and takes the place of the old.
    Identifier {
        kind: Kind,
        #[serde(default)]
        new: Option<Identifier>,
        /// The session that asked, which goes on.
        #[serde(default)]
        session: Option<String>,
    },
    /// Claims that the member no longer has a use for.
    Release {
        identifiers: Vec<Identifier>,
    },
    /// The invite code of somebody who is no member any more.
    ReleaseInvite {
        code: String,
    },
    /// What an invited person was known by last, for [`crate::base::Claims::first_invitation`].
    Invitee {
        identifiers: Vec<Identifier>,
    },
    /// What a resource keeps of the member is deleted; `late` is when it is looked for again.
    Erase {
        resource: String,
        late: bool,
    },
    /// Work of a resource's own.
    Job(Job),
    /// The search index follows; the entries that may have become wrong.
    Index {
        stale: Vec<(String, String)>,
    },
    /// Somebody asks for something about an identifier: looked into after the answer, so that the answer cannot tell.
    ResetRequest {
        account: String,
    },
    ResendRequest {
        email: String,
    },
    CodeRequest {
        phone: Identifier,
        language: Language,
        /// Drawn when it is asked for: done again, it is the same one that is sent.
        #[serde(default = "random::digits")]
        code: String,
    },
}

impl Work {
    /// Whether it is in force before the caller is answered.
    fn at_once(&self) -> bool {
        matches!(self, Self::Revoke { .. } | Self::RevokeBefore { .. })
    }

    /// When it is due, where the change is made now.
    fn not_before(&self, now: EventTime) -> EventTime {
        match self {
            Self::Activate | Self::Identifier { .. } => db::after(now, CALLER_S),
            Self::Erase { late: true, .. } => db::after(now, AGAIN_S),
            Self::Job(job) => job.not_before.map_or(now, |at| now.max(at)),
            _ => now,
        }
    }

    fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }

    fn lane(&self) -> Lane {
        match self {
            Self::Event { .. } => Lane::Log,
            Self::Message { template, .. } => match template.channel() {
                Channel::Mail => Lane::Mail,
                Channel::Phone => Lane::Phone,
            },
            _ => Lane::Records,
        }
    }
}

/// Work with its history.
#[derive(Clone, Serialize, Deserialize)]
struct Item {
    /// Absent: the mark that stands in the way of a change that comes too late.
    work: Option<Work>,
    attempts: u32,
    #[serde(with = "ms")]
    not_before: EventTime,
}

/// Where the items of a change lie.
#[derive(Clone, Serialize, Deserialize)]
struct Pointer {
    table: String,
    partition: String,
    #[serde(with = "ms")]
    since: EventTime,
}

/// A change that has a pointer.
#[derive(Clone)]
pub(crate) struct Op {
    id: String,
    at: Pointer,
}

impl Op {
    fn sort(&self, number: usize) -> String {
        format!("outbox/{}/{number:02}", self.id)
    }

    fn shard(&self) -> &str {
        &self.id[..1]
    }
}

impl Outbox {
    pub fn new(db: Db, revocations: Arc<Revocations>) -> Self {
        Self { db, revocations, places: PLACES.map(Semaphore::new), begun: Mutex::default(), kicked: Notify::new() }
    }

    /// Writes the pointer of a change that is about to be made.
    async fn point(&self, table: &str, partition: &str) -> Result<Op> {
        let at = Pointer { table: table.into(), partition: partition.into(), since: self.db.now() };
        let op = Op { id: hex(&random::bytes::<16>()), at };
        self.db.insert(OUTBOX, op.shard(), &op.id, &op.at, None).await?;
        Ok(op)
    }

    /// Makes the change with what follows from it; false on a conflict, after which it is tried again with the same `op` or that is
    /// cancelled. Afterwards what has to be in force is, or the error is that it is not yet certain; the rest follows by itself.
    pub async fn commit(
        &self,
        op: &mut Option<Op>,
        table: &str,
        partition: &str,
        mut steps: Vec<Step>,
        works: Vec<Work>,
        expires_at: Option<EventTime>,
    ) -> Result<bool> {
        if works.is_empty() {
            return self.db.transact(table, partition, &steps).await;
        }
        // Where the pointer was given up meanwhile, because this process stood still, the change needs a new one.
        if let Some(pointed) = op
            && self.db.read::<Item>(table, partition, &pointed.sort(0)).await?.is_some()
        {
            *op = None;
        }
        let op = match op {
            Some(op) => op,
            None => op.insert(self.point(table, partition).await?),
        };
        let now = self.db.now();
        let at_once = works.iter().any(Work::at_once);
        for (number, work) in works.into_iter().enumerate() {
            let item = Item { not_before: work.not_before(now), work: Some(work), attempts: 0 };
            steps.push(Step::insert(op.sort(number), db::encode(&item), expires_at));
        }
        if !self.db.transact(table, partition, &steps).await? {
            return Ok(false);
        }
        if at_once {
            self.follow(op, None).await?;
        }
        let mut begun = self.begun.lock();
        // Where nobody takes them, the look at all pointers finds them.
        if begun.len() < FOLLOWED_MAX {
            begun.push(op.clone());
        }
        drop(begun);
        self.kicked.notify_one();
        Ok(true)
    }

    /// Makes a change that is tried once, with its pointer; false on a conflict.
    pub async fn transact(
        &self,
        table: &str,
        partition: &str,
        steps: Vec<Step>,
        works: Vec<Work>,
        expires_at: Option<EventTime>,
    ) -> Result<bool> {
        let mut op = None;
        let done = self.commit(&mut op, table, partition, steps, works, expires_at).await?;
        if !done {
            self.cancel(op).await;
        }
        Ok(done)
    }

    /// A request that is looked into after it was answered: one write, whatever will be found.
    pub async fn request(&self, works: Vec<Work>, life_s: u64) -> Result<()> {
        let partition = hex(&random::bytes::<16>());
        // The partition is new: only the mark of a pointer that was given up can be in the way.
        let done = self.transact(db::REQUESTS, &partition, Vec::new(), works, Some(self.db.in_s(life_s))).await?;
        if done { Ok(()) } else { Err(db::contended(db::REQUESTS)) }
    }

    /// Takes away the pointer of a change that was not made. What fails here, the sweep does.
    pub async fn cancel(&self, op: Option<Op>) {
        if let Some(op) = op {
            let _swept_later = self.db.remove(OUTBOX, op.shard(), &op.id).await;
        }
    }

    /// Does all that is due, of every process; how many changes still have something that waits. Errors of single items are logged
    /// and tried again; an error is that the outbox cannot be read.
    pub async fn sweep(&self, performer: &dyn Perform) -> Result<usize> {
        let pointers = self.pointers().await?;
        let mut waiting = 0;
        for chunk in pointers.chunks(PLACES.iter().sum()) {
            let mut settling: FuturesUnordered<_> = chunk.iter().map(|op| self.follow_up(op, performer)).collect();
            while let Some(is_settled) = settling.next().await {
                waiting += usize::from(!is_settled);
            }
        }
        metrics::gauge!("members_outbox_waiting").set(waiting as f64);
        Ok(waiting)
    }

    /// All changes that have something left to do, of every process.
    async fn pointers(&self) -> Result<Vec<Op>> {
        let mut pointers = Vec::new();
        for shard in "0123456789abcdef".chars() {
            let found: Vec<(String, Held<Pointer>)> = self.db.all(OUTBOX, &shard.to_string(), "").await?;
            pointers.extend(found.into_iter().map(|(id, held)| Op { id, at: held.value }));
        }
        Ok(pointers)
    }

    /// Does what is due of a change; whether nothing of it is left.
    async fn follow_up(&self, op: &Op, performer: &dyn Perform) -> bool {
        let settled = async {
            match self.follow(op, Some(performer)).await? {
                Some(0) => self.db.remove(OUTBOX, op.shard(), &op.id).await.map(|()| true),
                Some(_) => Ok(false),
                None => self.abandon(op).await,
            }
        };
        settled.await.unwrap_or_else(|error: MemberError| {
            tracing::warn!(%error, "could not do what follows from a change; it is tried again");
            false
        })
    }

    /// Does what follows from each change of this process at once, and looks at those of all processes every second, for as long as it is
    /// polled.
    pub async fn deliver_forever(&self, performer: &dyn Perform) {
        enum Done {
            Settled(Op),
            Looked(Result<Vec<Op>>),
        }
        let look = |after: Duration| -> BoxFuture<'_, Done> {
            Box::pin(async move {
                tokio::time::sleep(after).await;
                Done::Looked(self.pointers().await)
            })
        };
        let mut running: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let mut followed: HashSet<String> = HashSet::new();
        running.push(look(Duration::ZERO));
        let mut waiting = 0;
        loop {
            let found = tokio::select! {
                () = self.kicked.notified() => {
                    let begun = std::mem::take(&mut *self.begun.lock());
                    waiting += begun.len();
                    begun
                }
                done = running.next() => match done {
                    Some(Done::Settled(op)) => {
                        followed.remove(&op.id);
                        continue;
                    }
                    Some(Done::Looked(found)) => {
                        running.push(look(LOOK));
                        let found = found.unwrap_or_else(|error| {
                            tracing::warn!(%error, "could not read the outbox of members; it is tried again");
                            Vec::new()
                        });
                        waiting = found.len();
                        found
                    }
                    // There is always a look to come.
                    None => Vec::new(),
                },
            };
            for op in found {
                if followed.len() < FOLLOWED_MAX && followed.insert(op.id.clone()) {
                    running.push(Box::pin(async move {
                        self.follow_up(&op, performer).await;
                        Done::Settled(op)
                    }));
                }
            }
            metrics::gauge!("members_outbox_waiting").set(waiting as f64);
        }
    }

    /// Fills the place of a change that does not come, so that it cannot come any more; whether that is done.
    async fn abandon(&self, op: &Op) -> Result<bool> {
        let at = &op.at;
        if self.db.now().0 - at.since.0 < ABANDONED_MS {
            return Ok(false);
        }
        let mark = Item { work: None, attempts: 0, not_before: self.db.now() };
        if self.db.insert(&at.table, &at.partition, &op.sort(0), &mark, Some(self.db.in_s(MARK_S))).await? {
            self.db.remove(OUTBOX, op.shard(), &op.id).await?;
            return Ok(true);
        }
        Ok(false) // It came after all.
    }

    /// Does the items of a change that are due, or without a performer those that are in force before the caller is answered: how many
    /// are left, or `None` where there are none and may never have been.
    async fn follow(&self, op: &Op, performer: Option<&dyn Perform>) -> Result<Option<usize>> {
        let prefix = format!("outbox/{}/", op.id);
        let items: Vec<(String, Held<Item>)> = self.db.all(&op.at.table, &op.at.partition, &prefix).await?;
        if items.is_empty() {
            return Ok(None);
        }
        let mut lanes: [Vec<(String, Held<Item>, Work)>; Lane::ALL] = Default::default();
        let mut left = 0;
        for (sort, held) in items {
            // The mark expires by itself.
            let Some(work) = held.value.work.clone() else { continue };
            left += 1;
            if performer.map_or(work.at_once(), |_| held.value.not_before <= self.db.now()) {
                lanes[work.lane() as usize].push((sort, held, work));
            }
        }
        // In their order within a lane; one lane does not wait for another.
        let lanes = lanes.into_iter().zip(&self.places).map(async |(items, places)| {
            let (mut done, mut failed) = (0, None);
            for (sort, held, work) in items {
                // What is in force before the caller is answered waits for nobody.
                let _place = match performer {
                    None => None,
                    Some(_) => places.acquire().await.ok(),
                };
                match self.follow_item(op, &sort, held, work, performer).await {
                    Ok(is_done) => done += usize::from(is_done),
                    Err(error) if performer.is_none() => failed = failed.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
            failed.map_or(Ok(done), Err)
        });
        let done: usize = try_join_all(lanes).await?.into_iter().sum();
        Ok(Some(left - done))
    }

    /// Does one item; whether it is done.
    async fn follow_item(
        &self,
        op: &Op,
        sort: &str,
        held: Held<Item>,
        work: Work,
        performer: Option<&dyn Perform>,
    ) -> Result<bool> {
        let Pointer { table, partition, .. } = &op.at;
        let mut version = held.version;
        let attempts = held.value.attempts + 1;
        let wait = |most: i64| EventTime(self.db.now().0 + (BACKOFF_MS.0 << (attempts - 1).min(20)).max(most).min(BACKOFF_MS.1));
        let later = |not_before| db::encode(&Item { work: Some(work.clone()), attempts, not_before });
        if work.is_message() {
            // Whoever sends it takes it for a while: two sweeps do not send one message at once.
            let step = Step::replace(sort, version, later(wait(LEASE_MS)), held.expires_at);
            if !self.db.transact(table, partition, &[step]).await? {
                return Ok(false);
            }
            match self.db.read::<Item>(table, partition, sort).await? {
                Some(taken) => version = taken.version,
                None => return Ok(false),
            }
        }
        let id = format!("{}.{}", op.id, &sort[sort.len() - 2..]);
        let performed = match (&work, performer) {
            (Work::Revoke { sessions }, _) => self.revocations.revoke(sessions).await,
            (Work::RevokeBefore { epoch, except }, _) => {
                self.revocations.revoke_before(partition, *epoch, except.as_deref()).await
            }
            (work, Some(performer)) => performer.perform(partition, id, work).await,
            (_, None) => return Ok(false),
        };
        match performed {
            Ok(()) => {
                // A conflict is that another sweep has done it as well.
                self.db.transact(table, partition, &[Step::delete(sort, version)]).await?;
                Ok(true)
            }
            Err(error) if performer.is_none() => Err(error),
            Err(error) => {
                tracing::warn!(%error, attempts, "an item of the outbox failed; it is tried again");
                metrics::counter!("members_outbox_failures_total").increment(1);
                if !work.is_message() {
                    let step = Step::replace(sort, version, later(wait(0)), held.expires_at);
                    self.db.transact(table, partition, &[step]).await?;
                }
                Ok(false)
            }
        }
    }
}
