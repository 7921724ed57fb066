//! `kindred verify`: every view recomputed by brute force, compared row by row with what is stored.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use kindred_config::Loaded;
use kindred_log::PartitionStatus;
use kindred_pipeline::{DifferenceReport, InputsReport, VerifyReport};
use kindred_store::generations::Generation;
use serde_json::{Value, json};

use crate::app::App;
use crate::audit::Audit;
use crate::cli::TargetArgs;
use crate::failure::{Failure, counted, exit, thousands};
use crate::installation::{Installation, Open};
use crate::remote::{Remote, Target, text};

/// `kindred verify`
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Mend what differs, then verify again
    #[arg(long)]
    pub repair: bool,
    /// How many differences to name
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub first: usize,
    /// Of what.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// How often rows are compared while a pipeline writes to them.
const ATTEMPTS: u32 = 4;
/// After how long this process has heard how far another's writes reach.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs `kindred verify`; exit code 1 where a row differs in the end.
///
/// # Errors
/// When the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &VerifyArgs) -> Result<u8> {
    match Target::of(&args.target, loaded)? {
        Target::Here(place) => {
            let installation = app.runtime.block_on(Installation::open(&place, loaded, Open::Existing, "verify"))?;
            in_installation(app, loaded, &installation, args)
        }
        Target::Server(remote) => on_server(&remote, args),
    }
}

fn in_installation(app: &App, loaded: &Loaded, installation: &Installation, args: &VerifyArgs) -> Result<u8> {
    let partitions = app.runtime.block_on(installation.log.partitions()).context("could not read the log")?;
    let (report, inputs) = verified(installation, &partitions, args.first)?;
    print!("{}", inputs_text(&inputs));
    print!("{}", differences_text(&report));
    let frontier = installation.store.frontier();
    let end = app.runtime.block_on(installation.log.end()).context("could not read the end of the log")?;
    let lag = frontier.position.lag_behind(&end);
    if lag > 0 {
        println!("{} records of the log are not taken in yet; the views are of those before", thousands(lag));
    }
    if frontier.unfinished {
        println!("an epoch was not finished when the last process ended; the next start, or --repair, mends it");
    }
    if !inputs.holds() {
        println!(
            "the merged inputs differ from the log: `kindred serve --from beginning` (on services `kindred pipeline`) rebuilds them"
        );
        return Ok(exit::FOUND);
    }
    let nothing_to_mend = report.holds() && !frontier.unfinished;
    if nothing_to_mend || !args.repair {
        return Ok(verdict(&report));
    }
    if let Some(services) = installation.services() {
        check_stopped(&app.runtime.block_on(services.row())?)?;
    }
    let mended = app.runtime.block_on(async {
        let audit = Audit::open(installation, loaded, &app.clock).await?;
        let repair = kindred_pipeline::repair(Arc::clone(&installation.store), &installation.semantics);
        audit.noted("views.verify", "", &[("repair", "true")], async { repair.await.context("could not mend the rows") }).await
    })?;
    println!("mended {}", counted(mended, "row", "rows"));
    let (report, _) = verified(installation, &partitions, args.first)?;
    print!("{}", differences_text(&report));
    Ok(verdict(&report))
}

/// Refuses to mend rows under a pipeline: it would be replaced, and end.
fn check_stopped(generation: &Generation) -> Result<()> {
    if generation.clean || generation.incarnation == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the pipeline of generation {} runs, or did not end in order: rows are mended while nothing writes to them",
        generation.name
    ))
    .help(
        "stop `kindred pipeline` with SIGTERM and try again; after a kill or a crash start it, which writes every row anew by itself",
    )
    .into())
}

/// Compares. Where a pipeline writes meanwhile, rows and inputs may be read of different moments: then it is done again.
fn verified(installation: &Installation, partitions: &[PartitionStatus], first: usize) -> Result<(VerifyReport, InputsReport)> {
    let shared = installation.services().is_some();
    let mut attempts = if shared { ATTEMPTS } else { 1 };
    loop {
        let before = installation.store.frontier();
        let snapshot = installation.store.snapshot().context("could not read the store")?;
        let compared = kindred_pipeline::verify(&*snapshot.rows, &installation.semantics, first);
        let report = compared.context("could not read the rows")?;
        let inputs = kindred_pipeline::verify_inputs(&*installation.log, partitions, &snapshot, &installation.semantics, first);
        let inputs = inputs.context("could not compare the merged inputs with the log")?;
        if (report.holds() && inputs.holds()) || !shared {
            return Ok((report, inputs));
        }
        attempts -= 1;
        // What was written while it was read is heard of a moment later.
        std::thread::sleep(SETTLE);
        if installation.store.frontier() == before || attempts == 0 {
            if attempts == 0 {
                println!("the pipeline wrote all the while; stop it to be sure of what follows");
            }
            return Ok((report, inputs));
        }
    }
}

fn verdict(report: &VerifyReport) -> u8 {
    if report.holds() { exit::FINE } else { exit::FOUND }
}

fn inputs_text(report: &InputsReport) -> String {
    for what in &report.not_compared {
        eprintln!("not compared: {what}");
    }
    match report.holds() {
        true => format!("verified: {} merged inputs are what the log gives\n", thousands(report.rows)),
        false => format!("{}DIFFERENT: merged inputs are not what the log gives\n", lines(&report.differences)),
    }
}

fn differences_text(report: &VerifyReport) -> String {
    if report.holds() {
        return format!("verified: {} rows are what brute force gives from the same events\n", thousands(report.rows));
    }
    let shown = report.differences.len();
    let more = if report.more { " and there are more" } else { "" };
    format!("{}DIFFERENT: {shown} of {} rows differ{more}\n", lines(&report.differences), thousands(report.rows))
}

fn lines(differences: &[DifferenceReport]) -> String {
    let mut lines = String::new();
    for difference in differences {
        let side = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".to_owned());
        lines.push_str(&format!(
            "{} {}\n  expected  {}\n  stored    {}\n",
            difference.table,
            difference.key,
            side(&difference.expected),
            side(&difference.stored)
        ));
    }
    lines
}

fn on_server(remote: &Remote, args: &VerifyArgs) -> Result<u8> {
    let report = remote.post(&format!("/v1/admin/verify?repair={}", args.repair), &json!({}))?;
    let (mut rows, mut different) = (0, 0);
    for table in report["tables"].as_array().into_iter().flatten() {
        rows += table["rows"].as_u64().unwrap_or(0);
        different += table["differences"].as_u64().unwrap_or(0);
        for first in table["first"].as_array().into_iter().flatten().filter_map(Value::as_str).take(args.first) {
            println!("{} {first}", text(&table["table"]));
        }
    }
    for what in report["not_compared"].as_array().into_iter().flatten() {
        eprintln!("not compared: {}", text(what));
    }
    if report["ok"] == true {
        println!("verified: {} rows are what brute force gives from the same events", thousands(rows));
        return Ok(exit::FINE);
    }
    println!("DIFFERENT: {} of {} rows differ", thousands(different), thousands(rows));
    if report["repaired"] == true {
        println!("mended them");
    }
    Ok(exit::FOUND)
}
