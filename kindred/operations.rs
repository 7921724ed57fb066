//! What a process tells of itself and does for its API: status, readiness, `verify`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_api::{Check, OperationError, Operations, VerifiedTable, VerifyReport};
use kindred_log::EventLog;
use kindred_model::Semantics;
use kindred_pipeline::{InputsReport, PipelineError, PipelineState, Progress};
use kindred_store::ViewStore;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::changes::ChangeStreamStatus;
use crate::fingerprint::FINGERPRINT;
use crate::generations::{Fleet, Followers};
use crate::status::{Observed, observe};

/// Differences that `verify` names for each table.
const DIFFERENCES_NAMED: usize = 10;
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
}

impl Views {
    fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Here(fleet) => Some(fleet.progress()),
            Self::OnServices { progress, .. } => Some(Arc::clone(progress)),
            Self::Elsewhere(..) => None,
        }
    }

    fn reach(&self) -> Option<&Reach> {
        match self {
            Self::Here(_) => None,
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
        }
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
        let ask = async |which: usize, service: &dyn Asks| {
            let mut due = tokio::time::interval(ASK_EVERY);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                let answer = service.ask().await;
                let asked = &mut self.asked.lock()[which];
                asked.trouble = answer.err();
                if asked.trouble.is_none() {
                    asked.answered = Instant::now();
                }
            }
        };
        // Each by itself: one that hangs must not keep the other from being asked.
        tokio::join!(ask(0, &log), ask(1, &store));
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

/// What can be asked whether it answers.
#[async_trait]
trait Asks: Send + Sync {
    async fn ask(&self) -> Result<(), String>;
}

#[async_trait]
impl Asks for Arc<dyn EventLog> {
    async fn ask(&self) -> Result<(), String> {
        self.end().await.map(drop).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Asks for Arc<dyn ViewStore> {
    async fn ask(&self) -> Result<(), String> {
        self.named().get(FINGERPRINT).await.map(drop).map_err(|error| error.to_string())
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
        let observed = Observed {
            log: &*self.log,
            store,
            semantics: &semantics,
            pipeline: pipeline.clone(),
            uptime: Some(self.started.elapsed()),
            feed: feed.clone(),
        };
        observe(observed)
            .await
            .unwrap_or_else(|error| json!({ "error": format!("{error:#}"), "pipeline": pipeline, "changes": feed }))
    }

    async fn verify(&self, repair: bool) -> Result<VerifyReport, OperationError> {
        if repair {
            let help = match self.views {
                Views::Here(_) => "stop the server, then kindred verify --data DIR --repair",
                _ => "stop the pipeline, then kindred verify --config FILE --repair",
            };
            return Err(OperationError::Refused(format!("rows are mended while nothing writes to them: {help}")));
        }
        let nothing = || OperationError::Unavailable("nothing is served yet".to_owned());
        let (store, semantics) = self.views.live().ok_or_else(nothing)?;
        let busy = |_| OperationError::Busy("the views are being verified already".to_owned());
        let permit = Arc::clone(&self.verifying).try_lock_owned().map_err(busy)?;
        let log = Arc::clone(&self.log);
        let partitions = log.partitions().await;
        // The permit belongs to the work and not to whoever waits for it: a caller that goes away ends neither.
        let compared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let (partitions, snapshot) = (partitions?, store.snapshot()?);
            let views = kindred_pipeline::verify(&*snapshot.rows, &semantics, DIFFERENCES_NAMED)?;
            let inputs = kindred_pipeline::verify_inputs(&*log, &partitions, &snapshot, &semantics, DIFFERENCES_NAMED)?;
            // Counting rows reads the disk as well.
            Ok::<_, PipelineError>(by_table(&views, &inputs, &*store))
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
        repaired: false,
        tables: tables.collect(),
        records: inputs.records,
        not_compared: inputs.not_compared.clone(),
    }
}
