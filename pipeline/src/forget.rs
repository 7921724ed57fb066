//! Forgetting: the raw records of erased members leave the log, the merged inputs and `rejected`.
//!
//! Erasure takes a person out of every view at once; that is the dataflow's work and no special case. What remains is what
//! the views no longer look at. It leaves a day before `erasure.raw_days` have passed, so that the promise is kept:
//!
//! 1. their orders are appended again without the member, marked `erased`: they count in sales totals alone, as before; and the links of
//!    their sessions with version 0, before which no other can come;
//! 2. the payloads of their interactions, orders, records and of their sessions' interactions are emptied in the log;
//! 3. the identities of their sessions leave the merged inputs.
//!
//! What step 1 appends is final, whatever else comes: `erased` is sticky, and a session keeps its first member. So no result changes by
//! what leaves afterwards, and each step may be repeated after a crash. What stays is the erased record, with who invited whom and
//! when it was activated, and the links of the sessions, so that a late duplicate of a session's event stays hidden.
//!
//! A shop goes on writing about somebody who is gone: an order is completed, a refund comes weeks later. So what came to the log since
//! the last sweep is looked through for everybody who was swept before, and who is named in it is swept again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kindred_clock::Clock;
use kindred_dataflow::update::Update;
use kindred_log::{EventLog, Share};
use kindred_model::intern::Party;
use kindred_model::records::{MemberRecord, OrderRecord, Record, Rules};
use kindred_model::views::inputs::{Members, Orders};
use kindred_model::views::scan;
use kindred_model::{EventTime, MemberId, Owner, Position, SessionId, Topic};
use kindred_store::{StoreError, ViewStore};
use kindred_telemetry::fail_point;
use tracing::{info, warn};

use crate::progress::PipelineState;
use crate::source::Feed;
use crate::{Context, PipelineError, block_on_runtime};

/// How often to look for members erased since the last sweep. A sweep reads the whole log, so it takes many at once.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// The same where `erasure.raw_days` is 0.
const SWEEP_SOON: Duration = Duration::from_secs(10);
/// How long to sleep before looking whether to stop.
const NAP: Duration = Duration::from_millis(100);
/// How long one step may take to pass the views before the sweep is put off.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// Under which the store notes since when a member is known to be erased; the API notes it under the same name, in the same form.
const ERASED: &str = "erased:";
/// Under which the store notes that a member's raw records have left, and when.
const SWEPT: &str = "swept:";
/// Under which the store notes up to where the log was looked through for those that were swept.
const SWEPT_TO: &str = "swept_to";
/// Records of the log that are looked at at once.
const LOOKED_AT: usize = 4_096;
/// How long to wait for them.
const POLL: Duration = Duration::from_millis(50);

/// Numbers the administrative acts of the process, to wait for each.
static ACTS: AtomicU64 = AtomicU64::new(1);

/// The members whose raw records have left, as the live generation's store notes them.
///
/// # Errors
/// When the store does not answer.
pub async fn swept_members(store: &dyn ViewStore) -> Result<Vec<MemberId>, StoreError> {
    let swept = store.named().scan(SWEPT).await?;
    Ok(swept.into_iter().map(|(name, _)| MemberId::trusted(name[SWEPT.len()..].to_owned())).collect())
}

pub(crate) struct Sweeper {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
    pub context: Context,
    pub inject: Feed,
    pub rules: Rules,
    pub raw_days: u32,
    pub clock: Clock,
}

pub(crate) fn spawn(sweeper: Sweeper) -> Result<JoinHandle<()>, PipelineError> {
    let runtime = block_on_runtime()?;
    let context = sweeper.context.clone();
    context.spawn("kindred-forget", move || sweeper.run(&runtime))
}

impl Sweeper {
    fn run(&self, runtime: &tokio::runtime::Runtime) {
        let every = if self.raw_days == 0 { SWEEP_SOON } else { SWEEP_EVERY };
        let mut last: Option<Instant> = None;
        while !self.context.stopping() {
            let due = last.is_none_or(|last| last.elapsed() >= every);
            if due && self.context.progress.state() == PipelineState::Running {
                last = Some(Instant::now());
                fail_point("thread: sweeper");
                if let Err(error) = runtime.block_on(self.sweep())
                    && !self.context.stopping()
                {
                    warn!("could not sweep raw records of erased members, trying again later: {error}");
                }
            }
            std::thread::sleep(NAP);
        }
    }

    async fn sweep(&self) -> Result<(), PipelineError> {
        let end = self.log.end().await?;
        // What is emptied has to be in the rows that are appended again.
        self.context.progress.wait_for(&end, STEP_TIMEOUT).await?;
        let Some(mut condemned) = self.condemned(&end).await? else { return Ok(()) };
        let erased_orders = self.erased_orders(&condemned, &end)?;
        let orders = erased_orders.len();
        self.append(Topic::Members, std::mem::take(&mut condemned.links)).await?;
        self.append(Topic::Orders, erased_orders).await?;

        let rules = &self.rules;
        let is_condemned = |topic: Topic, payload: &[u8]| match Record::decode(topic, payload, rules) {
            Ok(record) => condemned.holds(&record),
            // What does not decode may still name the person: the identities are looked for as text.
            Err(_) => condemned.is_named_in(payload),
        };
        let mut purged = 0;
        for topic in [Topic::Interactions, Topic::Orders, Topic::Members, Topic::Ledger] {
            purged += self.log.purge(topic, &end, &|payload| is_condemned(topic, payload)).await?;
        }

        let act = ACTS.fetch_add(1, Ordering::Relaxed);
        let purges = condemned.sessions.iter().map(|session| Update::Purge(Party::intern(session))).collect();
        if !self.inject.act(act, purges) {
            return Err(self.context.progress.failure());
        }
        self.context.progress.wait_for_act(act, STEP_TIMEOUT).await?;
        self.store.sync().await?;
        if let Err(error) = self.store.shed().await {
            warn!("what was erased is in no row, but its bytes leave the disk later: {error}");
        }

        let today = self.clock.today().to_string();
        for member in &condemned.members {
            self.store.named().put(&format!("{SWEPT}{member}"), today.as_bytes()).await?;
        }
        self.has_looked_to(&end).await?;
        info!(members = condemned.members.len(), orders, purged, "raw records of erased members have left");
        Ok(())
    }

    async fn has_looked_to(&self, end: &Position) -> Result<(), PipelineError> {
        Ok(self.store.named().put(SWEPT_TO, end.to_string().as_bytes()).await?)
    }

    /// Those of `swept`, and of the sessions that are theirs, of whom records came since the log was last looked through.
    async fn named_since(&self, swept: &Condemned, end: &Position) -> Result<HashSet<Owner>, PipelineError> {
        let noted = self.store.named().get(SWEPT_TO).await?;
        let from = noted.and_then(|noted| str::from_utf8(&noted).ok()?.parse().ok()).unwrap_or_else(Position::beginning);
        let mut found = HashSet::new();
        self.look_through(&from, end, |record| found.extend(swept.whose(&record)))?;
        Ok(found)
    }

    /// Gives the records of the log between two positions to `look`.
    fn look_through(&self, from: &Position, end: &Position, mut look: impl FnMut(Record)) -> Result<(), PipelineError> {
        let mut reader = self.log.reader(Share::ALL)?;
        reader.seek(from)?;
        let mut records = Vec::new();
        while !reader.position().reaches(end) && !self.context.stopping() {
            records.clear();
            reader.poll(LOOKED_AT, POLL, &mut records)?;
            for record in records.iter().filter(|record| !record.payload.is_empty()) {
                if let Ok(record) = Record::decode(record.place.topic, &record.payload, &self.rules) {
                    look(record);
                }
            }
        }
        Ok(())
    }

    /// The members whose raw records are due, and their sessions; `None` when there is nobody. `end` is that of the log.
    async fn condemned(&self, end: &Position) -> Result<Option<Condemned>, PipelineError> {
        let swept: HashSet<String> = self.store.named().scan(SWEPT).await?.into_iter().map(|(name, _)| name).collect();
        let known: HashMap<String, Vec<u8>> = self.store.named().scan(ERASED).await?.into_iter().collect();
        let today = self.clock.today();
        let mut new = Vec::new();
        let snapshot = self.store.snapshot()?;
        let (mut condemned, mut before) = (Condemned::default(), Condemned::default());
        let mut links = Vec::new();
        scan::<Members, _>(&*snapshot.rows, &[], |_, row| match MemberRecord::decode(&row.0) {
            Ok(record @ MemberRecord::Member(_)) if record.is_erased() => {
                let member = record.key().id().to_owned();
                if swept.contains(&format!("{SWEPT}{member}")) {
                    before.members.insert(member);
                    return;
                }
                let since = known
                    .get(&format!("{ERASED}{member}"))
                    .and_then(|noted| EventTime::parse("erased", str::from_utf8(noted).ok()?).ok());
                if since.is_none() {
                    new.push(member.clone());
                }
                if today >= since.map_or(today, EventTime::day).plus(self.raw_days.saturating_sub(1)) {
                    condemned.members.insert(member);
                }
            }
            Ok(MemberRecord::Session { session, merged_into, version }) => links.push((session, merged_into, version)),
            _ => {}
        })?;
        for member in new {
            self.store.named().put(&format!("{ERASED}{member}"), self.clock.now().to_string().as_bytes()).await?;
        }
        drop(snapshot);
        if !before.members.is_empty() {
            let theirs = links.iter().filter(|(_, member, _)| before.members.contains(member.as_str()));
            before.sessions.extend(theirs.map(|(session, ..)| Owner::Session(session.clone())));
            let named = self.named_since(&before, end).await?;
            if named.is_empty() {
                self.has_looked_to(end).await?;
            }
            let late = |member: &str, session: Option<&SessionId>| {
                named.contains(&Owner::Member(MemberId::trusted(member.to_owned())))
                    || session.is_some_and(|session| named.contains(&Owner::Session(session.clone())))
            };
            let by_session = links.iter().filter(|(session, member, _)| late(member.as_str(), Some(session)));
            let again: Vec<String> = by_session.map(|(_, member, _)| member.to_string()).collect();
            let by_name = before.members.iter().filter(|member| late(member, None)).cloned();
            condemned.members.extend(by_name.chain(again.into_iter().filter(|member| before.members.contains(member))));
        }
        links.retain(|(_, member, _)| condemned.members.contains(member.as_str()));
        for (session, merged_into, version) in links {
            condemned.sessions.insert(Owner::Session(session.clone()));
            if version > 0 {
                condemned.links.push(MemberRecord::Session { session, version: 0, merged_into }.canonical());
            }
        }
        Ok((!condemned.members.is_empty()).then_some(condemned))
    }

    /// The orders of the condemned without them; and those that have no member any more, of which a record that names one of them is
    /// emptied, whose contents may be in nothing else that the log holds.
    fn erased_orders(&self, condemned: &Condemned, end: &Position) -> Result<Vec<Vec<u8>>, PipelineError> {
        let mut named = HashSet::new();
        // A log that compacts has been given again what its records are merged to, and none of them is emptied.
        if !self.log.compacts() {
            self.look_through(&Position::beginning(), end, |record| match record {
                Record::Order(order) if condemned.holds_order(&order) => drop(named.insert(order.order)),
                _ => {}
            })?;
        }
        let snapshot = self.store.snapshot()?;
        let mut orders = Vec::new();
        scan::<Orders, _>(&*snapshot.rows, &[], |_, row| {
            if let Ok(order) = OrderRecord::decode(&row.0, &self.rules)
                && (condemned.holds_order(&order) || order.erased && named.contains(&order.order))
            {
                let erased = OrderRecord { member: None, erased: true, ..order };
                orders.push(erased.canonical());
            }
        })?;
        Ok(orders)
    }

    /// Appends in portions, and waits until the last has passed the views.
    async fn append(&self, topic: Topic, records: Vec<Vec<u8>>) -> Result<(), PipelineError> {
        let mut last = None;
        for portion in records.chunks(1_000) {
            let places = self.log.append(topic, portion.to_vec(), None).await?;
            last = places.last().map(|place| place.position()).or(last);
        }
        match last {
            Some(last) => self.context.progress.wait_for(&last, STEP_TIMEOUT).await,
            None => Ok(()),
        }
    }
}

/// Whose raw records leave.
#[derive(Default)]
struct Condemned {
    members: HashSet<String>,
    sessions: HashSet<Owner>,
    /// The records that make the links of the sessions final.
    links: Vec<Vec<u8>>,
}

impl Condemned {
    fn holds(&self, record: &Record) -> bool {
        match record {
            Record::Interaction(interaction) => self.holds_owner(&interaction.owner),
            Record::Order(order) => self.holds_order(order),
            Record::Member(record) => {
                !record.is_erased() && matches!(record, MemberRecord::Member(_)) && self.holds_owner(&record.key())
            }
            Record::Ledger(record) => !record.is_erased() && self.members.contains(record.member().as_str()),
            Record::Catalog(_) => false,
        }
    }

    fn holds_order(&self, order: &OrderRecord) -> bool {
        order.member.as_ref().is_some_and(|member| self.members.contains(member.as_str()))
    }

    /// Whom of them a record names.
    fn whose(&self, record: &Record) -> Option<Owner> {
        if !self.holds(record) {
            return None;
        }
        match record {
            Record::Interaction(interaction) => Some(interaction.owner.clone()),
            Record::Order(order) => order.member.clone().map(Owner::Member),
            Record::Member(record) => Some(record.key()),
            Record::Ledger(record) => Some(Owner::Member(record.member().clone())),
            Record::Catalog(_) => None,
        }
    }

    fn holds_owner(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Guest(_) => false,
            Owner::Member(member) => self.members.contains(member.as_str()),
            session @ Owner::Session(_) => self.sessions.contains(session),
        }
    }

    fn is_named_in(&self, payload: &[u8]) -> bool {
        let text = String::from_utf8_lossy(payload);
        // A row of a file, whatever stands between its values and around them; and the strings of JSON, however they are escaped.
        let values: HashSet<&str> =
            text.split([',', ';', '\t', '|', '\r', '\n']).map(|value| value.trim_matches(['"', ' '])).collect();
        let strings = strings_in(&text);
        let named = |id: &str| values.contains(id) || strings.contains(id);
        self.members.iter().any(|member| named(member)) || self.sessions.iter().any(|session| named(session.id()))
    }
}

/// The strings that stand in a text as JSON writes them, whole or cut, good or not.
fn strings_in(text: &str) -> HashSet<String> {
    let quotes = text.match_indices('"').map(|(at, _)| &text[at..]);
    quotes.filter_map(|from| serde_json::Deserializer::from_str(from).into_iter::<String>().next()?.ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, what was turned away would keep a person who was forgotten, where a program writes ids in another way than ours.
    #[test]
    fn a_rejected_record_names_a_person_however_the_id_is_written() {
        let members = ["müller", "shop/17", "a\"b"].map(str::to_owned).into();
        let condemned = Condemned { members, ..Condemned::default() };
        for named in [
            r#"{"order":"Z","member":"müller","status":"bad"}"#,
            r#"{"order":"Z","member":"m\u00fcller","status":"bad"}"#,
            r#"{"order":"Z","member":"shop\/17","sta"#,
            r#"[{"member":"a\"b"}]"#,
            "Z,shop/17,tea,x",
            "Z;\"müller\";tea",
        ] {
            assert!(condemned.is_named_in(named.as_bytes()), "{named}");
        }
        for other in [r#"{"member":"mueller"}"#, r#"{"member":"shop\/170"}"#, "Z,shop/170,tea", "\"", ""] {
            assert!(!condemned.is_named_in(other.as_bytes()), "{other}");
        }
    }
}
