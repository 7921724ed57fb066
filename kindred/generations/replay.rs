//! `kindred replay`: builds a generation beside the live one, from the log or from the live one's merged inputs.
//!
//! ```text
//! log (from, until) ──▶ Pipeline ──▶ the generation's own store        the live one is never written
//! live inputs ──copy──▶ the generation's inputs ──▶ (views derived again)
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kindred_config::{Loaded, pinned_toml, varied};
use kindred_log::EventLog;
use kindred_model::records::Rules;
use kindred_model::views::{ReadError, Rows, input_tables, view_tables};
use kindred_model::{Position, Semantics};
use kindred_pipeline::{Pipeline, PipelineConfig, PipelineError, PipelineState};
use kindred_store::embedded_generations::FIRST;
use kindred_store::generations::check_name;
use kindred_store::{Change, EpochChanges, Snapshot, ViewStore};

use super::capacity;
use super::log_range::{Bound, LogRange};
use super::provenance::Provenance;
use crate::app::App;
use crate::audit::note;
use crate::failure::{Failure, exit, thousands};
use crate::installation::{Installation, Open, Place};
use crate::local::pipeline_config;
use crate::serve::Signals;

/// From where a replay builds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayFrom {
    /// The first record of the log.
    Beginning,
    /// The merged inputs of the live generation.
    Inputs,
    /// A place in the log or in time.
    At(Bound),
}

impl std::str::FromStr for ReplayFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "inputs" => Ok(Self::Inputs),
            place => place.parse().map(Self::At).map_err(|error| format!("{error}; or beginning, or inputs")),
        }
    }
}

impl std::fmt::Display for ReplayFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::Inputs => f.write_str("inputs"),
            Self::At(bound) => bound.fmt(f),
        }
    }
}

/// `kindred replay`
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// What it is called: small letters, digits, `_`, `-` and `.`
    #[arg(long, value_name = "NAME")]
    pub generation: String,
    /// From where: `beginning` of the log, the merged `inputs` of the live generation, a position, or a time (records of before are
    /// left out)
    #[arg(long, value_name = "WHERE", default_value = "beginning")]
    pub from: ReplayFrom,
    /// Where it ends: a position, or a time (records of then and later are left out)
    #[arg(long, value_name = "WHERE")]
    pub until: Option<Bound>,
    /// End at the end of the log, and do not follow it
    #[arg(long)]
    pub once: bool,
    /// Read at most so many records a second: beside a live pipeline on the same machines, so that its readers do not wait. Such a
    /// replay has a lower priority too, takes ten seconds of records as one epoch, and writes one batch at a time (unless
    /// store.cql.writes_in_flight is set)
    #[arg(long, value_name = "RECORDS")]
    pub rate: Option<std::num::NonZeroU32>,
    /// Begin even where the estimate says that there is no room
    #[arg(long)]
    pub force: bool,
    /// The data directory; without it the setting data.dir (data)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// The polling interval.
const LOOK: Duration = Duration::from_millis(200);
/// Rows per copied batch: some tens of megabytes.
const COPY_ROWS: usize = 50_000;
/// Batches queued for the store.
const PORTIONS_WAITING: usize = 2;
/// Concurrent writes of a throttled replay, which leaves the database to others.
const THROTTLED_WRITES: usize = 1;
/// Niceness of a throttled replay, 0 to 19.
const THROTTLED_NICE: i32 = 10;
/// Prefix of the named values that say since when a member is known to be erased; the retention of raw records counts from then.
const ERASED: &str = "erased:";

/// Runs `kindred replay`.
///
/// # Errors
/// When the name is taken, the capacity is short, or the directory is in use.
pub fn run(app: &App, loaded: &Loaded, args: &ReplayArgs) -> Result<u8> {
    let mut loaded = loaded.clone();
    if args.rate.is_some() {
        throttle(&mut loaded);
    }
    let loaded = &loaded;
    check_name(&args.generation).map_err(|error| Failure::usage(error.to_string()))?;
    let place = Place::of(args.data.as_ref(), loaded)?;
    // The settings are the new generation's; they need not match what the live one pins.
    let unset = Loaded { explicit: Default::default(), ..loaded.clone() };
    let installation = app.runtime.block_on(Installation::open(&place, &unset, Open::Existing, "replay"))?;
    let semantics = varied(&installation.semantics, &loaded.explicit, &loaded.settings.semantics)
        .map_err(|error| Failure::usage(error.to_string()))?;
    app.runtime.block_on(replay(app, loaded, &installation, &semantics, args))
}

/// Throttles a replay: lower priority and fewer concurrent writes.
fn throttle(loaded: &mut Loaded) {
    if !loaded.explicit.contains_key("store.cql.writes_in_flight") {
        loaded.settings.store.cql.writes_in_flight = THROTTLED_WRITES;
    }
    // Threads started later inherit it.
    if let Err(error) = rustix::process::nice(THROTTLED_NICE) {
        tracing::warn!("could not lower the priority of the replay: {error}");
    }
}

async fn replay(app: &App, loaded: &Loaded, installation: &Installation, semantics: &Semantics, args: &ReplayArgs) -> Result<u8> {
    let name = &args.generation;
    if name == FIRST {
        return Err(Failure::usage(format!("{FIRST} is the first generation's name; choose another")).into());
    }
    if semantics.shop != installation.semantics.shop {
        return Err(Failure::usage("shop.currency is what the records of the log are in; a replay cannot have another").into());
    }
    if args.from == ReplayFrom::Inputs && semantics.inputs != installation.semantics.inputs {
        return Err(Failure::usage("inputs.* decides what the merged inputs keep: they cannot be read back under another")
            .help("replay --from beginning")
            .into());
    }
    let window = |from: Option<Bound>| {
        let rules = Rules { currency: semantics.shop.currency.clone() };
        LogRange { log: Arc::clone(&installation.log), from, until: args.until.clone(), rules }
    };
    let log: Arc<dyn EventLog> = match &args.from {
        ReplayFrom::At(bound) => Arc::new(window(Some(bound.clone()))),
        _ => Arc::new(window(None)),
    };
    let end = log.end().await.context("could not read the end of the log")?;
    let wanted = Provenance { from: args.from.to_string(), until: args.until.as_ref().map(ToString::to_string), complete: false };

    let there = installation.generations().list().await.context("could not list the generations")?;
    let is_there = there.iter().any(|generation| generation.name == *name);
    if !is_there {
        let estimate = capacity::estimate(installation, semantics, &args.from, &end)?;
        println!("{estimate}");
        if !args.force {
            estimate.check(installation.directory().map(|directory| &*directory.path))?;
        }
        let settings = pinned_toml(semantics);
        let (members, from) = (installation.members(loaded, &app.clock).await?, args.from.to_string());
        let note = async |ok| note(members.as_deref(), "generation.create", name, ok, &[("from", &from)]).await;
        note(true).await?;
        let created = installation.generations().create(name, &settings, app.clock.now()).await;
        if created.is_err() && note(false).await.is_err() {
            tracing::warn!("could not write to the audit log that making the generation failed");
        }
        created.with_context(|| format!("could not make generation {name}"))?;
    }
    let (store, theirs) = installation.generation(name).await?;
    match Provenance::of(name, &*store).await? {
        // Not prepared, or only in part: prepare it again.
        None if theirs == *semantics => prepare(installation, &*store, &wanted, &args.from).await?,
        Some(origin) if theirs == *semantics && origin.is_of(&wanted) => {
            println!("going on with {name}, which reaches {}", store.frontier().position);
        }
        _ => {
            return Err(Failure::new(format!("there is a generation {name} already, and it is another"))
                .help(format!("choose another name, or drop it first: kindred drop {name}"))
                .into());
        }
    }
    follow(app, loaded, installation, semantics, args, log).await
}

/// Prepares an empty store for its pipeline. The provenance is written last and commits the preparation.
async fn prepare(installation: &Installation, store: &dyn ViewStore, origin: &Provenance, from: &ReplayFrom) -> Result<()> {
    for (mark, since) in installation.store.named().scan(ERASED).await.context("could not read the marks of erasures")? {
        store.named().put(&mark, &since).await.context("could not copy the marks of erasures")?;
    }
    match from {
        ReplayFrom::Beginning | ReplayFrom::At(Bound::Time(_)) => {}
        ReplayFrom::At(Bound::Position(position)) => {
            let session = store.begin().await.context("could not set the position")?;
            session.reset_position(position.clone()).await.context("could not set the position")?;
            session.end().await.context("could not set the position")?;
        }
        ReplayFrom::Inputs => copy_inputs(&*installation.store, store).await?,
    }
    // The provenance must not be durable before the rest.
    store.sync().await.context("could not make the generation durable")?;
    origin.note(store).await
}

/// Brings the generation to the end of the log and, unless told otherwise, keeps following.
async fn follow(
    app: &App,
    loaded: &Loaded,
    installation: &Installation,
    semantics: &Semantics,
    args: &ReplayArgs,
    log: Arc<dyn EventLog>,
) -> Result<u8> {
    let (store, _) = installation.generation(&args.generation).await?;
    let writer = match installation.services() {
        Some(services) => services.publisher(&args.generation, Arc::clone(&store) as _),
        None => Arc::clone(&store) as _,
    };
    let mut signals = Signals::listen()?;
    let begun = Instant::now();
    // The live pipeline repairs the log; this process is not part of a cluster.
    let settings = pipeline_config(&loaded.settings, semantics, &args.generation);
    let config = PipelineConfig { mends_log: false, cluster: None, rate: args.rate, ..settings };
    let pipeline = Pipeline::start_with(config, Arc::clone(&log), Arc::clone(&store) as _, writer, app.clock.clone()).await;
    let pipeline = pipeline.context("could not start the pipeline")?;
    let end = log.end().await.context("could not read the end of the log")?;
    let from = store.frontier().position;
    let bar = bar(from.lag_behind(&end));
    let mut interrupted = false;
    loop {
        tokio::select! {
            reached = pipeline.wait_for(&end, LOOK) => match reached {
                // Without records to read, the views may still be derived from the inputs.
                Ok(()) if store.frontier().unfinished || pipeline.status().state == PipelineState::Restoring => {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(()) => break,
                Err(PipelineError::Late(_)) => {
                    let applied = pipeline.applied();
                    bar.set_position(from.lag_behind(&applied));
                }
                Err(error) => return Err(error).context("the replay has ended"),
            },
            () = signals.next() => { interrupted = true; break }
        }
    }
    bar.finish_and_clear();
    let taken = begun.elapsed().as_secs_f64();
    let records = from.lag_behind(&pipeline.applied());
    let rate = (records as f64 / taken.max(0.001)) as u64;
    println!("{} records in {taken:.1} s, {} a second", thousands(records), thousands(rate));
    if !interrupted {
        Provenance { complete: true, ..Provenance::shown(&args.generation, &*store).await? }.note(&*store).await?;
        println!("{} reaches {}", args.generation, pipeline.applied());
        if !args.once && args.until.is_none() {
            println!("following the log; Ctrl-C ends, and loses nothing");
            tokio::select! {
                () = signals.next() => {}
                () = async { pipeline.progress().ended().await } => {}
            }
        }
    }
    let stopped = tokio::task::spawn_blocking(move || pipeline.stop());
    stopped.await.context("the replay panicked")?.context("could not end the replay in order")?;
    store.sync().await.context("could not make the generation durable")?;
    if interrupted {
        println!("ended before the end of the log; the same command resumes");
        return Ok(exit::FINE);
    }
    let (live, name) = (installation.live(), &args.generation);
    if installation.services().is_some() {
        println!("to follow the log, as a promotion needs: kindred pipeline --generation {name}");
    }
    let data = installation.directory().map(|directory| format!(" --data {}", directory.path.display())).unwrap_or_default();
    println!("next: kindred compare {live} {name}{data} --html compared.html");
    Ok(exit::FINE)
}

fn bar(records: u64) -> ProgressBar {
    let bar = ProgressBar::new(records);
    let template = "replaying {bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).expect("a template"));
    bar.enable_steady_tick(LOOK);
    bar
}

/// Copies the merged inputs and leaves the mark by which a start derives every view again.
async fn copy_inputs(from: &dyn ViewStore, to: &dyn ViewStore) -> Result<()> {
    let failed = "could not copy the merged inputs";
    let inputs: Vec<&'static str> = input_tables().iter().map(|table| table.name).collect();
    let views: Vec<&'static str> = view_tables().iter().map(|table| table.name).collect();
    let snapshot = from.snapshot().context(failed)?;
    if snapshot.frontier.unfinished {
        return Err(Failure::new("an epoch of the live generation was not finished")
            .help("start the server once, which mends it, or replay --from beginning")
            .into());
    }
    let Snapshot { frontier, rows } = snapshot;
    let session = to.begin().await.context(failed)?;
    session.clear(&inputs).await.context(failed)?;
    let epoch = session.incarnation().first_epoch;
    let (portions, mut waiting) = tokio::sync::mpsc::channel(PORTIONS_WAITING);
    let reading = tokio::task::spawn_blocking(move || read_portions(&*rows, &inputs, &portions));
    while let Some(changes) = waiting.recv().await {
        session.apply(EpochChanges { epoch, position: Position::beginning(), changes: changes.into() }).await.context(failed)?;
    }
    reading.await.context(failed)?.context(failed)?;
    session.clear(&views).await.context(failed)?;
    // Last, so that the mark that emptying leaves is seen by the next start, in this process too.
    session.reset_position(frontier.position).await.context(failed)
}

/// Sends every row of the tables in batches.
fn read_portions(
    rows: &dyn Rows,
    tables: &[&'static str],
    portions: &tokio::sync::mpsc::Sender<Vec<Change>>,
) -> Result<(), ReadError> {
    let cancelled = || ReadError::Unavailable("the copy was cancelled".to_owned());
    let mut changes = Vec::new();
    for &table in tables {
        rows.scan(table, &[], &mut |key, row| {
            changes.push(Change { table, key: key.to_vec(), row: Some(row.to_vec()) });
            if changes.len() >= COPY_ROWS && portions.blocking_send(std::mem::take(&mut changes)).is_err() {
                return ControlFlow::Break(Err(cancelled()));
            }
            ControlFlow::Continue(())
        })?;
    }
    portions.blocking_send(changes).map_err(|_| cancelled())
}
