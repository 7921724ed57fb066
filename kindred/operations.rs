//! What a process tells of itself and does for its API: status, readiness, `verify`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_api::{Check, OperationError, Operations, VerifiedTable, VerifyReport};
use kindred_log::{EventLog, PartitionStatus};
use kindred_model::Semantics;
use kindred_pipeline::{InputsReport, PipelineError, PipelineState, Progress};
use kindred_store::ViewStore;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::changes::ChangeStreamStatus;
use crate::fingerprint::FINGERPRINT;
use crate::generations::{Fleet, Followers};
use crate::installation::Installation;
use crate::status::observe;

/// How often rows are compared while a pipeline of another process writes to them.
const ATTEMPTS: u32 = 4;
/// After how long this process has heard how far another's writes reach.
const SETTLE: Duration = Duration::from_secs(1);
/// How often log and store are asked whether they answer.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one of them may be silent before requests are sent elsewhere: a leader that moves takes some seconds.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// How long the frontier may stand still beside records that wait: an epoch of a catch-up takes some seconds.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// Where the views are kept, and those of which generation are served.
pub enum Views {
    /// In this process, on a directory: of each generation.
    Here(Arc<Fleet>),
    /// In this process, on services: of one generation.
    OnServices {
        /// How far its pipeline is.
        progress: Arc<Progress>,
        /// Its rows.
        store: Arc<dyn ViewStore>,
        /// What it pins.
        semantics: Arc<Semantics>,
        /// How well the services answer.
        reach: Arc<Reach>,
    },
    /// By pipelines in other processes.
    Elsewhere(Arc<Followers>, Arc<Reach>),
    /// By nobody here: a command has opened it.
    AtRest(Arc<Installation>),
}

impl Views {
    fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Here(fleet) => Some(fleet.progress()),
            Self::OnServices { progress, .. } => Some(Arc::clone(progress)),
            Self::Elsewhere(..) | Self::AtRest(_) => None,
        }
    }

    fn reach(&self) -> Option<&Reach> {
        match self {
            Self::Here(_) | Self::AtRest(_) => None,
            Self::OnServices { reach, .. } | Self::Elsewhere(_, reach) => Some(reach),
        }
    }

    fn feed(&self) -> Option<ChangeStreamStatus> {
        match self {
            Self::Elsewhere(followers, _) => Some(followers.stream()?.status()),
            _ => None,
        }
    }

    /// Rows and settings of what is served; `None` before there is anything.
    fn live(&self) -> Option<(Arc<dyn ViewStore>, Arc<Semantics>)> {
        match self {
            Self::Here(fleet) => {
                let live = fleet.live();
                Some((live.store, live.semantics))
            }
            Self::OnServices { store, semantics, .. } => Some((Arc::clone(store), Arc::clone(semantics))),
            Self::Elsewhere(followers, _) => followers.serving(),
            Self::AtRest(installation) => Some((Arc::clone(&installation.store), Arc::new(installation.semantics.clone()))),
        }
    }

    /// Whether another process may write rows meanwhile.
    fn is_shared(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::OnServices { .. } | Self::Elsewhere(..) => true,
            Self::AtRest(installation) => installation.services().is_some(),
        }
    }

    /// Refuses to mend rows that a pipeline writes to: on services it would be replaced, and end.
    async fn check_nothing_writes(&self) -> Result<(), OperationError> {
        let help = match self {
            Self::Here(_) => "stop the server, then kindred verify --data DIR --repair".to_owned(),
            Self::OnServices { .. } | Self::Elsewhere(..) => {
                "stop the pipeline, then kindred verify --config FILE --repair".to_owned()
            }
            Self::AtRest(installation) => {
                let Some(services) = installation.services() else { return Ok(()) };
                let generation = services.row().await.map_err(|error| OperationError::Failed(format!("{error:#}")))?;
                if generation.clean || generation.incarnation == 0 {
                    return Ok(());
                }
                format!(
                    "the pipeline of generation {} runs, or did not end in order: stop `kindred pipeline` with SIGTERM and try again; \
                     after a kill or a crash start it, which writes every row again by itself",
                    generation.name
                )
            }
        };
        Err(OperationError::Refused(format!("rows are mended while nothing writes to them: {help}")))
    }
}

/// How well a process reaches the services that it works on.
pub struct Reach {
    /// The log and the store.
    asked: Mutex<[Asked; 2]>,
}

/// One service that is asked again and again.
struct Asked {
    name: &'static str,
    /// When it last answered; at the start it had just done so.
    answered: Instant,
    /// Why it did not, the last time.
    trouble: Option<String>,
}

impl Default for Reach {
    fn default() -> Self {
        let asked = ["log", "store"].map(|name| Asked { name, answered: Instant::now(), trouble: None });
        Self { asked: Mutex::new(asked) }
    }
}

impl Reach {
    /// Asks log and store again and again; never ends.
    pub async fn watch(self: Arc<Self>, log: Arc<dyn EventLog>, store: Arc<dyn ViewStore>) {
        // Each by itself: one that hangs must not keep the other from being asked.
        let ask_log = || async { log.end().await.map(drop).map_err(|error| error.to_string()) };
        let ask_store = || async { store.named().get(FINGERPRINT).await.map(drop).map_err(|error| error.to_string()) };
        tokio::join!(self.ask_again(0, ask_log), self.ask_again(1, ask_store));
    }

    async fn ask_again<F: Future<Output = Result<(), String>>>(&self, which: usize, ask: impl Fn() -> F) {
        let mut due = tokio::time::interval(ASK_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let answer = ask().await;
            let asked = &mut self.asked.lock()[which];
            asked.trouble = answer.err();
            if asked.trouble.is_none() {
                asked.answered = Instant::now();
            }
        }
    }

    fn checks(&self) -> Vec<Check> {
        let check = |asked: &Asked| Check {
            name: asked.name.to_owned(),
            ready: asked.answered.elapsed() < SILENT_MAX,
            detail: asked.trouble.clone().unwrap_or_else(|| "answers".to_owned()),
        };
        self.asked.lock().iter().map(check).collect()
    }
}

fn check_feed(status: ChangeStreamStatus) -> Check {
    let ready = status.is_fresh();
    let detail = status.trouble.unwrap_or_else(|| format!("{} ms behind the store", status.behind_ms));
    Check { name: "changes".to_owned(), ready, detail }
}

/// What only the whole process can do for the API.
pub struct Process {
    log: Arc<dyn EventLog>,
    views: Views,
    started: Instant,
    verifying: Arc<tokio::sync::Mutex<()>>,
}

impl Process {
    /// Of a process that starts now.
    pub fn new(log: Arc<dyn EventLog>, views: Views) -> Self {
        Self { log, views, started: Instant::now(), verifying: Arc::default() }
    }
}

#[async_trait]
impl Operations for Process {
    async fn status(&self) -> Value {
        let pipeline = self.views.progress().map(|progress| progress.status());
        let feed = self.views.feed();
        let Some((store, semantics)) = self.views.live() else { return json!({ "pipeline": pipeline, "changes": feed }) };
        let uptime = (!matches!(self.views, Views::AtRest(_))).then(|| self.started.elapsed());
        observe(&*self.log, (store, &semantics), pipeline.as_ref(), feed.as_ref(), uptime)
            .await
            .unwrap_or_else(|error| json!({ "error": format!("{error:#}"), "pipeline": pipeline, "changes": feed }))
    }

    async fn verify(&self, repair: bool, first: usize) -> Result<VerifyReport, OperationError> {
        if repair {
            self.views.check_nothing_writes().await?;
        }
        let nothing = || OperationError::Unavailable("nothing is served yet".to_owned());
        let (store, semantics) = self.views.live().ok_or_else(nothing)?;
        let busy = |_| OperationError::Busy("the views are being verified already".to_owned());
        let permit = Arc::clone(&self.verifying).try_lock_owned().map_err(busy)?;
        let (shared, log, runtime) = (self.views.is_shared(), Arc::clone(&self.log), Handle::current());
        let (partitions, end) = tokio::join!(log.partitions(), log.end());
        // The permit belongs to the work and not to whoever waits for it: a caller that goes away ends neither.
        let compared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let comparing = Comparing { log: &*log, partitions: &partitions?, store: &*store, semantics: &semantics, first };
            let (views, inputs, wrote_all_the_while) = comparing.compare(if shared { ATTEMPTS } else { 1 })?;
            let frontier = store.frontier();
            let mut report = by_table(&views, &inputs, &*store);
            (report.lag, report.unfinished) = (frontier.position.lag_behind(&end?), frontier.unfinished);
            if wrote_all_the_while {
                report.not_compared.push("rows of one moment: a pipeline wrote all the while, stop it to be sure".to_owned());
            }
            if repair && inputs.holds() && (!views.holds() || frontier.unfinished) {
                report.mended = runtime.block_on(kindred_pipeline::repair(Arc::clone(&store), &semantics))?;
                let (views, ..) = comparing.compare(1)?;
                (report.repaired, report.ok, report.unfinished) = (true, views.holds(), false);
            }
            Ok::<_, PipelineError>(report)
        });
        let report = compared.await.map_err(|error| OperationError::Failed(error.to_string()))?;
        report.map_err(|error| OperationError::Failed(error.to_string()))
    }

    fn readiness(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(progress) = self.views.progress() {
            checks.push(check_pipeline(&progress));
        }
        checks.extend(self.views.reach().map(Reach::checks).unwrap_or_default());
        checks.extend(self.views.feed().map(check_feed));
        checks
    }
}

fn check_pipeline(progress: &Progress) -> Check {
    let status = progress.status();
    let stalled = Duration::from_millis(status.stalled_ms);
    // One that waits for room or for a disk still serves what it has, and says so. One that says nothing and takes nothing in is broken.
    let ready = match status.state {
        PipelineState::Waiting => true,
        PipelineState::Running => stalled < STALLED_MAX,
        _ => false,
    };
    let state = serde_json::to_value(status.state).ok().and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default();
    let reason = status.reason.or_else(|| {
        (stalled >= STALLED_MAX).then(|| format!("records wait and the frontier has not moved for {} s", stalled.as_secs()))
    });
    let detail = reason.map_or(state.clone(), |reason| format!("{state}: {reason}"));
    Check { name: "pipeline".to_owned(), ready, detail }
}

/// What is compared.
struct Comparing<'a> {
    log: &'a dyn EventLog,
    partitions: &'a [PartitionStatus],
    store: &'a dyn ViewStore,
    semantics: &'a Semantics,
    first: usize,
}

impl Comparing<'_> {
    /// Compares. Where a pipeline writes meanwhile, rows and inputs may be read of different moments: then it is done again. Whether
    /// one wrote during every attempt stands beside the reports.
    fn compare(&self, attempts: u32) -> Result<(kindred_pipeline::VerifyReport, InputsReport, bool), PipelineError> {
        let mut left = attempts;
        loop {
            let before = self.store.frontier();
            let snapshot = self.store.snapshot()?;
            let views = kindred_pipeline::verify(&*snapshot.rows, self.semantics, self.first)?;
            let inputs = kindred_pipeline::verify_inputs(self.log, self.partitions, &snapshot, self.semantics, self.first)?;
            left -= 1;
            if (views.holds() && inputs.holds()) || attempts == 1 {
                return Ok((views, inputs, false));
            }
            // What was written while it was read is heard of a moment later.
            std::thread::sleep(SETTLE);
            let stood_still = self.store.frontier() == before;
            if stood_still || left == 0 {
                return Ok((views, inputs, !stood_still));
            }
        }
    }
}

/// The report of the pipeline, table by table.
fn by_table(views: &kindred_pipeline::VerifyReport, inputs: &InputsReport, store: &dyn ViewStore) -> VerifyReport {
    let tables = kindred_model::views::input_tables().into_iter().chain(kindred_model::views::view_tables());
    let all = || inputs.differences.iter().chain(&views.differences);
    let tables = tables.map(|table| {
        let differences: Vec<_> = all().filter(|difference| difference.table == table.name).collect();
        let side = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".to_owned());
        VerifiedTable {
            table: table.name.to_owned(),
            rows: store.row_count(table.name).unwrap_or(0),
            differences: differences.len() as u64,
            first: differences
                .iter()
                .map(|d| format!("{}: expected {}, stored {}", d.key, side(&d.expected), side(&d.stored)))
                .collect(),
        }
    });
    VerifyReport {
        ok: views.holds() && inputs.holds(),
        inputs: inputs.rows,
        rows: views.rows,
        more: views.more || inputs.more,
        tables: tables.collect(),
        records: inputs.records,
        not_compared: inputs.not_compared.clone(),
        ..VerifyReport::default()
    }
}
