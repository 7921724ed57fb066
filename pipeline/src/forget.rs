//! Erasure sweep: removes the raw records of erased members from the log, the merged inputs and `rejected`.
//!
//! The dataflow retracts an erased member from every view at once. The raw records follow a day before `erasure.raw_days` have
//! passed:
//!
//! 1. append the member's orders again without the member, marked `erased` (they count in sales totals alone, as before), and the
//!    links of the member's sessions with version 0, the lowest;
//! 2. empty the payloads of the member's interactions, orders and records, and of the sessions' interactions, in the log;
//! 3. delete the sessions' identities from the merged inputs.
//!
//! Step 1 is final: `erased` is sticky, and a session keeps its first member. So steps 2 and 3 change no result, and every step
//! may be repeated after a crash. The erased record stays, with inviter and activation time, and so do the session links, so that
//! a late duplicate of a session's event stays hidden.
//!
//! Records about a swept member may still arrive: an order is completed, or refunded weeks later. Each sweep therefore scans the
//! log since the last sweep and sweeps again every member it finds there.

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
use kindred_store::{StoreError, ViewReader};
use kindred_telemetry::fail_point;
use tracing::{info, warn};

use crate::progress::PipelineState;
use crate::source::Feed;
use crate::{Context, PipelineError, block_on_runtime};

/// Sweep interval. A sweep reads the whole log, so it handles many members at once.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// Sweep interval where `erasure.raw_days` is 0.
const SWEEP_SOON: Duration = Duration::from_secs(10);
/// How often the thread checks for a stop.
const NAP: Duration = Duration::from_millis(100);
/// How long a step may take to reach the views before the sweep is postponed.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// Key prefix in the store: when a member's erasure was first seen. The API writes the same keys in the same format.
const ERASED: &str = "erased:";
/// Key prefix in the store: when a member's raw records were removed.
const SWEPT: &str = "swept:";
/// Key in the store: the log position up to which swept members were searched for.
const SWEPT_TO: &str = "swept_to";
/// Records of the log read per batch.
const SCAN_RECORDS: usize = 4_096;
/// Poll timeout of such a batch.
const POLL: Duration = Duration::from_millis(50);

/// Numbers the administrative actions of the process, so that each can be awaited.
static ACTS: AtomicU64 = AtomicU64::new(1);

/// The members whose raw records were removed, according to the live generation's store.
///
/// # Errors
/// When the store does not answer.
pub async fn swept_members(store: &dyn ViewReader) -> Result<Vec<MemberId>, StoreError> {
    let swept = store.named().scan(SWEPT).await?;
    Ok(swept.into_iter().map(|(name, _)| MemberId::trusted(name[SWEPT.len()..].to_owned())).collect())
}

pub(crate) struct Sweeper {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewReader>,
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
        // The rows that are appended again must include every record that is emptied.
        self.context.progress.wait_for(&end, STEP_TIMEOUT).await?;
        let Some(mut targets) = self.targets(&end).await? else { return Ok(()) };
        let erased_orders = self.erased_orders(&targets, &end)?;
        let orders = erased_orders.len();
        self.append(Topic::Members, std::mem::take(&mut targets.links)).await?;
        self.append(Topic::Orders, erased_orders).await?;

        let rules = &self.rules;
        let is_condemned = |topic: Topic, payload: &[u8]| match Record::decode(topic, payload, rules) {
            Ok(record) => targets.holds(&record),
            // A record that does not decode may still name the member: search its text for the ids.
            Err(_) => targets.is_named_in(payload),
        };
        let mut purged = 0;
        for topic in [Topic::Interactions, Topic::Orders, Topic::Members, Topic::Ledger] {
            purged += self.log.purge(topic, &end, &|payload| is_condemned(topic, payload)).await?;
        }

        let act = ACTS.fetch_add(1, Ordering::Relaxed);
        let purges = targets.sessions.iter().map(|session| Update::Purge(Party::intern(session))).collect();
        if !self.inject.act(act, purges) {
            return Err(self.context.progress.failure());
        }
        self.context.progress.wait_for_act(act, STEP_TIMEOUT).await?;
        self.store.sync().await?;
        if let Err(error) = self.store.shed().await {
            warn!("could not compact the store after an erasure, erased bytes stay on disk for now: {error}");
        }

        let today = self.clock.today().to_string();
        for member in &targets.members {
            self.store.named().put(&format!("{SWEPT}{member}"), today.as_bytes()).await?;
        }
        self.has_looked_to(&end).await?;
        info!(members = targets.members.len(), orders, purged, "removed raw records of erased members");
        Ok(())
    }

    async fn has_looked_to(&self, end: &Position) -> Result<(), PipelineError> {
        Ok(self.store.named().put(SWEPT_TO, end.to_string().as_bytes()).await?)
    }

    /// The members of `swept`, and their sessions, named in records that arrived since the last scan of the log.
    async fn named_since(&self, swept: &SweepTargets, end: &Position) -> Result<HashSet<Owner>, PipelineError> {
        let noted = self.store.named().get(SWEPT_TO).await?;
        let from = noted.and_then(|noted| str::from_utf8(&noted).ok()?.parse().ok()).unwrap_or_else(Position::beginning);
        let mut found = HashSet::new();
        self.scan_log(&from, end, |record| found.extend(swept.whose(&record)))?;
        Ok(found)
    }

    /// Calls `look` with every record of the log between two positions.
    fn scan_log(&self, from: &Position, end: &Position, mut look: impl FnMut(Record)) -> Result<(), PipelineError> {
        let mut reader = self.log.reader(Share::ALL)?;
        reader.seek(from)?;
        let mut records = Vec::new();
        while !reader.position().reaches(end) && !self.context.stopping() {
            records.clear();
            reader.poll(SCAN_RECORDS, POLL, &mut records)?;
            for record in records.iter().filter(|record| !record.payload.is_empty()) {
                if let Ok(record) = Record::decode(record.place.topic, &record.payload, &self.rules) {
                    look(record);
                }
            }
        }
        Ok(())
    }

    /// The members whose raw records are due, and their sessions; `None` without any. `end` is the end of the log.
    async fn targets(&self, end: &Position) -> Result<Option<SweepTargets>, PipelineError> {
        let swept: HashSet<String> = self.store.named().scan(SWEPT).await?.into_iter().map(|(name, _)| name).collect();
        let known: HashMap<String, Vec<u8>> = self.store.named().scan(ERASED).await?.into_iter().collect();
        let today = self.clock.today();
        let mut new = Vec::new();
        let snapshot = self.store.snapshot()?;
        let (mut targets, mut before) = (SweepTargets::default(), SweepTargets::default());
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
                    targets.members.insert(member);
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
            targets.members.extend(by_name.chain(again.into_iter().filter(|member| before.members.contains(member))));
        }
        links.retain(|(_, member, _)| targets.members.contains(member.as_str()));
        for (session, merged_into, version) in links {
            targets.sessions.insert(Owner::Session(session.clone()));
            if version > 0 {
                targets.links.push(MemberRecord::Session { session, version: 0, merged_into }.canonical());
            }
        }
        Ok((!targets.members.is_empty()).then_some(targets))
    }

    /// The orders to append again without the swept members, and those that lost their member before: emptying a record that
    /// names the member may remove their only copy in the log.
    fn erased_orders(&self, targets: &SweepTargets, end: &Position) -> Result<Vec<Vec<u8>>, PipelineError> {
        let mut named = HashSet::new();
        // A compacted log already holds the merged records, and none of them is emptied.
        if !self.log.compacts() {
            self.scan_log(&Position::beginning(), end, |record| match record {
                Record::Order(order) if targets.holds_order(&order) => drop(named.insert(order.order)),
                _ => {}
            })?;
        }
        let snapshot = self.store.snapshot()?;
        let mut orders = Vec::new();
        scan::<Orders, _>(&*snapshot.rows, &[], |_, row| {
            if let Ok(order) = OrderRecord::decode(&row.0, &self.rules)
                && (targets.holds_order(&order) || order.erased && named.contains(&order.order))
            {
                let erased = OrderRecord { member: None, erased: true, ..order };
                orders.push(erased.canonical());
            }
        })?;
        Ok(orders)
    }

    /// Appends in batches and waits until the last has passed the views.
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

/// The owners to sweep.
#[derive(Default)]
struct SweepTargets {
    members: HashSet<String>,
    sessions: HashSet<Owner>,
    /// The records that make the sessions' links final.
    links: Vec<Vec<u8>>,
}

impl SweepTargets {
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

    /// The owner among them that a record names.
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
        // Values of a CSV row, whatever separates and quotes them, and strings of JSON, however escaped.
        let values: HashSet<&str> =
            text.split([',', ';', '\t', '|', '\r', '\n']).map(|value| value.trim_matches(['"', ' '])).collect();
        let strings = strings_in(&text);
        let named = |id: &str| values.contains(id) || strings.contains(id);
        self.members.iter().any(|member| named(member)) || self.sessions.iter().any(|session| named(session.id()))
    }
}

/// The JSON strings in a text, which may be cut or invalid.
fn strings_in(text: &str) -> HashSet<String> {
    let quotes = text.match_indices('"').map(|(at, _)| &text[at..]);
    quotes.filter_map(|from| serde_json::Deserializer::from_str(from).into_iter::<String>().next()?.ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this failed, a rejected record that formats ids in another way would keep naming an erased member.
    #[test]
    fn a_rejected_record_names_a_person_however_the_id_is_written() {
        let members = ["müller", "shop/17", "a\"b"].map(str::to_owned).into();
        let targets = SweepTargets { members, ..SweepTargets::default() };
        for named in [
            r#"{"order":"Z","member":"müller","status":"bad"}"#,
            r#"{"order":"Z","member":"m\u00fcller","status":"bad"}"#,
            r#"{"order":"Z","member":"shop\/17","sta"#,
            r#"[{"member":"a\"b"}]"#,
            "Z,shop/17,tea,x",
            "Z;\"müller\";tea",
        ] {
            assert!(targets.is_named_in(named.as_bytes()), "{named}");
        }
        for other in [r#"{"member":"mueller"}"#, r#"{"member":"shop\/170"}"#, "Z,shop/170,tea", "\"", ""] {
            assert!(!targets.is_named_in(other.as_bytes()), "{other}");
        }
    }
}
