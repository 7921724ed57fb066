//! Generations: `kindred replay`, `generations`, `compare`, `promote`, `drop`, on an installation or by a running server.
//!
//! ```text
//! replay g2 ──▶ a store beside the live one ──compare──▶ what moved ──promote──▶ it is live; promote g1 rolls back
//! ```

mod at_rest;
mod capacity;
mod fleet;
mod followers;
mod log_range;
mod provenance;
mod replay;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use kindred_api::{GenerationShown, OperationError};
use kindred_compare::{Comparison, Side, compare as compare_rows, page, text};
use kindred_config::{Loaded, pinned_toml};
use kindred_log::EventLog;
use kindred_model::views::inputs::knows;
use kindred_model::{Day, MemberId, Semantics};
use kindred_store::generations::{Generation, Generations};
use kindred_store::{StoreError, ViewStore};
use provenance::Provenance;
use serde_json::{Value, json};

pub use at_rest::AtRest;
pub use fleet::{Fleet, explain_end};
pub use followers::Followers;
pub use replay::{ReplayArgs, run as replay};

use crate::app::App;
use crate::ask::confirm;
use crate::cli::{TargetArgs, day};
use crate::client::Client;
use crate::failure::{exit, thousands};
use crate::installation::Open;
use crate::remote::{Remote, segment, text as text_of};

/// `kindred generations`
#[derive(Args, Clone, Debug)]
pub struct GenerationsArgs {
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
    /// Of what.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred compare`
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The one
    #[arg(value_name = "A")]
    pub a: String,
    /// The other
    #[arg(value_name = "B")]
    pub b: String,
    /// Write a page to look at, with plots and examples side by side
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
    /// Points are told for this day (UTC); without it today
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub as_of: Option<Day>,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred promote`
#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    /// The generation
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Also one that has not caught up with the live one. On services, readers then go back to what it has taken in
    #[arg(long)]
    pub force: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred drop`
#[derive(Args, Clone, Debug)]
pub struct DropArgs {
    /// The generation
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Runs `kindred generations`.
///
/// # Errors
/// When the directory or the server cannot be used.
pub fn list(app: &App, loaded: &Loaded, args: &GenerationsArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "generations")?;
    let shown = all(&client)?;
    if args.json {
        println!("{}", json!({ "generations": shown }));
        return Ok(exit::FINE);
    }
    println!("{:<2}{:<16}{:<26}{:<24}{:>14}{:>12}  {:<14}", "", "name", "created", "as of", "events", "lag", "built from");
    for generation in &shown {
        let until = generation.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
        println!(
            "{:<2}{:<16}{:<26}{:<24}{:>14}{:>12}  {}{until}{}",
            if generation.live { "*" } else { "" },
            generation.name,
            generation.created_at,
            generation.position,
            thousands(generation.events),
            thousands(generation.lag),
            generation.from,
            if generation.complete { "" } else { " (not finished)" }
        );
        for (name, value) in &generation.differing {
            println!("    {name} = {value}");
        }
        if let Some(reason) = generation.not_promotable.as_ref().filter(|_| !generation.live) {
            println!("    cannot be promoted: {reason}");
        }
    }
    println!("* is live; settings are shown where they are others than its");
    Ok(exit::FINE)
}

fn all(remote: &Remote) -> Result<Vec<GenerationShown>> {
    let answer = remote.get("/v1/admin/generations")?;
    serde_json::from_value(answer["generations"].clone()).context("could not decode the list of generations")
}

/// A generation whose drop did not finish: some of its rows may be gone.
fn half_dropped(generation: Generation) -> GenerationShown {
    let help = format!("a drop of it was begun and not finished; kindred drop {} --yes ends it", generation.name);
    GenerationShown {
        name: generation.name,
        live: false,
        created_at: generation.created_at.to_string(),
        position: generation.frontier.position.to_string(),
        events: 0,
        lag: 0,
        from: "nothing any more".to_owned(),
        until: None,
        complete: false,
        not_promotable: Some(help),
        settings: generation.settings,
        differing: BTreeMap::new(),
    }
}

/// `live` is the name and the settings of the live generation.
async fn describe(
    generation: &Generation,
    store: &dyn ViewStore,
    settings: &Semantics,
    live: (&str, &Semantics),
    end: &kindred_model::Position,
) -> Result<GenerationShown> {
    let origin = Provenance::shown(&generation.name, store).await?;
    let position = store.frontier().position;
    let differing = kindred_compare::setting_changes(live.1, settings);
    Ok(GenerationShown {
        name: generation.name.clone(),
        live: generation.name == live.0,
        created_at: generation.created_at.to_string(),
        events: kindred_model::Position::beginning().lag_behind(&position),
        lag: position.lag_behind(end),
        position: position.to_string(),
        not_promotable: origin.not_promotable(settings, live.1),
        from: origin.from,
        until: origin.until,
        complete: origin.complete,
        settings: pinned_toml(settings),
        differing: differing.into_iter().map(|change| (change.name, change.b)).collect(),
    })
}

/// All generations of an installation; `open` gives rows and settings of one.
async fn list_all<F>(
    log: &dyn EventLog,
    generations: &dyn Generations,
    live: (&str, &Semantics),
    open: impl Fn(String) -> F,
) -> Result<Vec<GenerationShown>, OperationError>
where
    F: Future<Output = Result<(Arc<dyn ViewStore>, Arc<Semantics>), OperationError>>,
{
    let end = log.end().await.map_err(|error| OperationError::Unavailable(error.to_string()))?;
    let mut shown = Vec::new();
    for generation in generations.list().await.map_err(of_store)? {
        if generation.dropping {
            shown.push(half_dropped(generation));
            continue;
        }
        let (store, settings) = match open(generation.name.clone()).await {
            // Dropped meanwhile.
            Err(OperationError::Unknown(_)) => continue,
            opened => opened?,
        };
        shown.push(describe(&generation, &*store, &settings, live, &end).await.map_err(|error| failed(&error))?);
    }
    Ok(shown)
}

/// Refuses a generation that can never be promoted.
async fn check_promotable(
    name: &str,
    store: &dyn ViewStore,
    settings: &Semantics,
    live: &Semantics,
) -> Result<(), OperationError> {
    let origin = Provenance::shown(name, store).await.map_err(|error| failed(&error))?;
    match origin.not_promotable(settings, live) {
        Some(reason) => Err(OperationError::Refused(format!("{name} cannot be promoted: {reason}"))),
        None => Ok(()),
    }
}

fn failed(error: &anyhow::Error) -> OperationError {
    OperationError::Failed(format!("{error:#}"))
}

fn of_store(error: StoreError) -> OperationError {
    match error {
        StoreError::Refused(reason) => OperationError::Refused(reason),
        StoreError::Unavailable(reason) => OperationError::Unavailable(reason),
        other => OperationError::Failed(other.to_string()),
    }
}

/// Whether a generation of a part of the events holds data of an erased member. It follows no log, sees no erasure, and is
/// dropped as a whole. `looked` caches the members that are in no generation.
///
/// # Errors
/// When a store does not answer.
pub async fn holds_forgotten(
    name: &str,
    store: Arc<dyn ViewStore>,
    swept: &[MemberId],
    looked: &mut HashSet<(String, MemberId)>,
) -> Result<bool> {
    if Provenance::shown(name, &*store).await?.is_whole() {
        return Ok(false);
    }
    let new = swept.iter().map(|member| (name.to_owned(), member.clone())).filter(|of| !looked.contains(of));
    let new: Vec<(String, MemberId)> = new.collect();
    let look = move || -> Result<Option<Vec<(String, MemberId)>>> {
        let snapshot = store.snapshot()?;
        for (_, member) in &new {
            if knows(&*snapshot.rows, member)? {
                return Ok(None);
            }
        }
        Ok(Some(new))
    };
    let unknown = tokio::task::spawn_blocking(look).await.context("the check of a generation panicked")??;
    let holds = unknown.is_none();
    looked.extend(unknown.into_iter().flatten());
    Ok(holds)
}

/// Compares generations for an API, two at a time.
#[derive(Default)]
struct Comparing(Arc<tokio::sync::Mutex<()>>);

impl Comparing {
    async fn compare(&self, a: Compared<'_>, b: Compared<'_>, day: Day) -> Result<Value, OperationError> {
        let busy = |_| OperationError::Busy("two generations are being compared already".to_owned());
        let permit = Arc::clone(&self.0).try_lock_owned().map_err(busy)?;
        let [a, b] = [a, b].map(|(name, store, settings)| (name.to_owned(), store, settings));
        // The job owns the permit: cancelling the caller does not release it.
        let compared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compare_stores((&a.0, &*a.1, &a.2), (&b.0, &*b.1, &b.2), day)
        });
        let comparison =
            compared.await.map_err(|error| OperationError::Failed(error.to_string()))?.map_err(|error| failed(&error))?;
        serde_json::to_value(comparison).map_err(|error| OperationError::Failed(error.to_string()))
    }
}

/// Name, rows and settings of a compared generation.
type Compared<'a> = (&'a str, Arc<dyn ViewStore>, Arc<Semantics>);

/// Runs `kindred compare`.
///
/// # Errors
/// When one of them does not exist, or the directory or the server cannot be used.
pub fn compare(app: &App, loaded: &Loaded, args: &CompareArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "compare")?;
    let day = args.as_of.map(|day| format!("&as_of={day}")).unwrap_or_default();
    let path = format!("/v1/admin/generations/{}/compare?with={}{day}", segment(&args.a), segment(&args.b));
    let comparison: Comparison = serde_json::from_value(client.get(&path)?).context("could not decode the comparison")?;
    if args.json {
        println!("{}", serde_json::to_string(&comparison).context("could not write the comparison")?);
    } else {
        print!("{}", text::table(&comparison));
    }
    if let Some(file) = &args.html {
        std::fs::write(file, page::html(&comparison)).with_context(|| format!("could not write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(exit::FINE)
}

/// Compares snapshots of two stores.
fn compare_stores(
    (a, store_a, settings_a): (&str, &dyn ViewStore, &Semantics),
    (b, store_b, settings_b): (&str, &dyn ViewStore, &Semantics),
    day: Day,
) -> Result<Comparison> {
    let (one, other) =
        (store_a.snapshot().context("could not read the store")?, store_b.snapshot().context("could not read the store")?);
    let (at_a, at_b) = (one.frontier.position.to_string(), other.frontier.position.to_string());
    compare_rows(
        Side { name: a, settings: settings_a, as_of: &at_a, rows: &*one.rows },
        Side { name: b, settings: settings_b, as_of: &at_b, rows: &*other.rows },
        day,
    )
    .context("could not read the rows")
}

/// Runs `kindred promote`.
///
/// # Errors
/// When it cannot be promoted, or the directory or the server cannot be used.
pub fn promote(app: &App, loaded: &Loaded, args: &PromoteArgs) -> Result<u8> {
    let name = &args.name;
    let client = Client::open(app, loaded, &args.target, Open::Existing, "promote")?;
    // Nobody reads from a directory that is not served.
    let force = args.force || client.is_on_directory();
    let promoted = client.post(&format!("/v1/admin/generations/{}/promote?force={force}", segment(name)), &json!({}))?;
    let before = text_of(&promoted["before"]);
    let lag = all(&client)?.iter().find(|generation| generation.name == *name).map_or(0, |generation| generation.lag);
    if lag > 0 {
        println!("{} records of the log are not in {name} yet; its pipeline will apply them", thousands(lag));
    }
    if before == name {
        println!("{name} was live already");
    } else {
        println!("{name} is live; kindred promote {before} rolls back");
    }
    Ok(exit::FINE)
}

/// Runs `kindred drop`.
///
/// # Errors
/// When it is live or missing, not confirmed, or the directory or the server cannot be used.
pub fn drop_one(app: &App, loaded: &Loaded, args: &DropArgs) -> Result<u8> {
    let name = &args.name;
    if !args.yes {
        confirm(&format!("delete generation {name} with all of its rows?"), &format!("dropping {name} deletes its rows"))?;
    }
    let client = Client::open(app, loaded, &args.target, Open::Existing, "drop")?;
    client.delete(&format!("/v1/admin/generations/{}", segment(name)))?;
    println!("dropped {name}");
    Ok(exit::FINE)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use kindred_store::embedded::EmbeddedStore;

    use super::*;

    /// If this failed, one cancelled request would block comparisons until a restart.
    #[tokio::test]
    async fn a_comparison_whose_caller_is_gone_lets_the_next_one_in() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ViewStore> = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
        let comparing = Comparing::default();
        let compare = || {
            let side = |name| (name, Arc::clone(&store), Arc::default());
            comparing.compare(side("g1"), side("g2"), Day(20_000))
        };
        drop(tokio::time::timeout(Duration::ZERO, compare()).await);
        let begun = Instant::now();
        loop {
            match compare().await {
                Ok(_) => break,
                Err(OperationError::Busy(_)) if begun.elapsed() < Duration::from_secs(10) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
