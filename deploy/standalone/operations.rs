//! What a process tells of itself and does for its API: status, readiness, `verify`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kindred_api::{Check, OperationError, Operations, VerifiedTable, VerifyReport};
use kindred_log::EventLog;
use kindred_model::Semantics;
use kindred_pipeline::{PipelineError, PipelineState, Progress};
use kindred_store::ViewStore;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::changes::Feed;
use crate::fingerprint::FINGERPRINT;
use crate::generations::Fleet;
use crate::status::{Observed, observe};

/// Differences that `verify` names for each table.
const DIFFERENCES_NAMED: usize = 10;
/// How often log and store are asked whether they answer.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one of them may be silent before requests are sent elsewhere: a leader that moves takes some seconds.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// Where the views are kept.
pub enum Views {
    /// In this process, on a directory: of each generation.
    Here(Arc<Fleet>),
    /// In this process, on services.
    OnServices(Arc<Progress>, Arc<Reach>),
    /// By a pipeline in another one.
    Elsewhere(Arc<Reach>),
}

impl Views {
    fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Here(fleet) => Some(fleet.progress()),
            Self::OnServices(progress, _) => Some(Arc::clone(progress)),
            Self::Elsewhere(_) => None,
        }
    }

    fn reach(&self) -> Option<&Reach> {
        match self {
            Self::Here(_) => None,
            Self::OnServices(_, reach) | Self::Elsewhere(reach) => Some(reach),
        }
    }
}

/// How well a process reaches the services that it works on.
pub struct Reach {
    /// What it hears of a pipeline elsewhere.
    feed: Option<Arc<Feed>>,
    /// The log and the store: since when each does not answer, and why.
    silent: Mutex<[Option<(Instant, String)>; 2]>,
}

const ASKED: [&str; 2] = ["log", "store"];

impl Reach {
    /// With this feed, if it listens.
    pub fn new(feed: Option<Arc<Feed>>) -> Self {
        Self { feed, silent: Mutex::default() }
    }

    /// Asks log and store again and again; never ends.
    pub async fn watch(self: Arc<Self>, log: Arc<dyn EventLog>, store: Arc<dyn ViewStore>) {
        let mut due = tokio::time::interval(ASK_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let (end, row) = tokio::join!(log.end(), store.get_meta(FINGERPRINT));
            self.answered(0, end.map_err(|error| error.to_string()));
            self.answered(1, row.map_err(|error| error.to_string()));
        }
    }

    fn answered<T>(&self, which: usize, answer: Result<T, String>) {
        let mut silent = self.silent.lock();
        match answer {
            Ok(_) => silent[which] = None,
            Err(reason) => {
                let since = silent[which].as_ref().map_or_else(Instant::now, |(since, _)| *since);
                silent[which] = Some((since, reason));
            }
        }
    }

    fn checks(&self) -> Vec<Check> {
        let silent = self.silent.lock();
        let mut checks: Vec<Check> = ASKED
            .iter()
            .zip(silent.iter())
            .map(|(name, silent)| {
                let ready = silent.as_ref().is_none_or(|(since, _)| since.elapsed() < SILENT_MAX);
                let detail = silent.as_ref().map_or_else(|| "answers".to_owned(), |(_, reason)| reason.clone());
                Check { name: (*name).to_owned(), ready, detail }
            })
            .collect();
        if let Some(feed) = &self.feed {
            let status = feed.status();
            let detail = status.trouble.unwrap_or_else(|| format!("{} ms behind the store", status.behind_ms));
            checks.push(Check { name: "changes".to_owned(), ready: feed.is_fresh(), detail });
        }
        checks
    }
}

/// What only the whole process can do for the API.
pub struct Process {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ViewStore>,
    semantics: Arc<Semantics>,
    views: Views,
    started: Instant,
    verifying: AtomicBool,
}

impl Process {
    /// Of a process that starts now. Store and settings are those of the live generation where there is but one; of a fleet, the
    /// live one's are asked for each time.
    pub fn new(log: Arc<dyn EventLog>, store: Arc<dyn ViewStore>, semantics: Arc<Semantics>, views: Views) -> Self {
        Self { log, store, semantics, views, started: Instant::now(), verifying: AtomicBool::new(false) }
    }

    fn live(&self) -> (Arc<dyn ViewStore>, Arc<Semantics>) {
        match &self.views {
            Views::Here(fleet) => {
                let live = fleet.live();
                (live.store, live.semantics)
            }
            _ => (Arc::clone(&self.store), Arc::clone(&self.semantics)),
        }
    }
}

#[async_trait]
impl Operations for Process {
    async fn status(&self) -> Value {
        let pipeline = self.views.progress().map(|progress| progress.status());
        let feed = self.views.reach().and_then(|reach| Some(reach.feed.as_ref()?.status()));
        let (store, semantics) = self.live();
        let observed = Observed {
            log: &*self.log,
            store: &*store,
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
            return Err(OperationError::Unavailable(format!("rows are mended while nothing writes to them: {help}")));
        }
        if self.verifying.swap(true, Ordering::AcqRel) {
            return Err(OperationError::Busy("the views are being verified already".to_owned()));
        }
        let (store, semantics) = self.live();
        let verified = Arc::clone(&store);
        let compared = tokio::task::spawn_blocking(move || {
            let snapshot = store.snapshot()?;
            Ok::<_, PipelineError>(kindred_pipeline::verify(&*snapshot.rows, &semantics, DIFFERENCES_NAMED)?)
        });
        let report = compared.await;
        self.verifying.store(false, Ordering::Release);
        let report = report.map_err(|error| OperationError::Failed(error.to_string()))?;
        let report = report.map_err(|error| OperationError::Failed(error.to_string()))?;
        Ok(by_table(&report, &*verified))
    }

    fn readiness(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(progress) = self.views.progress() {
            checks.push(check_pipeline(&progress));
        }
        checks.extend(self.views.reach().map(Reach::checks).unwrap_or_default());
        checks
    }
}

fn check_pipeline(progress: &Progress) -> Check {
    let status = progress.status();
    // One that waits for room or for a disk still serves what it has.
    let ready = matches!(status.state, PipelineState::Running | PipelineState::Waiting);
    let state = serde_json::to_value(status.state).ok().and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default();
    let detail = status.reason.map_or(state.clone(), |reason| format!("{state}: {reason}"));
    Check { name: "pipeline".to_owned(), ready, detail }
}

/// The report of the pipeline, table by table.
fn by_table(report: &kindred_pipeline::VerifyReport, store: &dyn ViewStore) -> VerifyReport {
    let tables = kindred_model::views::view_tables();
    let tables = tables.iter().map(|table| {
        let differences: Vec<_> = report.differences.iter().filter(|difference| difference.table == table.name).collect();
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
    VerifyReport { ok: report.holds(), repaired: false, tables: tables.collect() }
}
