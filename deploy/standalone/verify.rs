//! `kindred verify`: every view recomputed by brute force, compared row by row with what is stored.

use std::sync::Arc;

use anyhow::{Context, Result};
use kindred_config::Loaded;
use kindred_pipeline::VerifyReport;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::VerifyArgs;
use crate::directory::{Directory, Open};
use crate::failure::{exit, thousands};
use crate::remote::{Remote, Target, text};

/// Runs `kindred verify`; exit code 1 where a row differs in the end.
///
/// # Errors
/// When the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &VerifyArgs) -> Result<u8> {
    match Target::of(&args.target, loaded)? {
        Target::Directory(path) => {
            let directory = app.runtime.block_on(Directory::open(&path, loaded, Open::Existing, "verify"))?;
            in_directory(app, &directory, args)
        }
        Target::Server(remote) => on_server(&remote, args),
    }
}

fn in_directory(app: &App, directory: &Directory, args: &VerifyArgs) -> Result<u8> {
    let report = verified(directory, args.first)?;
    print!("{}", differences_text(&report));
    let frontier = directory.store.frontier();
    let end = app.runtime.block_on(directory.log.end()).context("could not read the end of the log")?;
    let lag = frontier.position.lag_behind(&end);
    if lag > 0 {
        println!("{} records of the log are not taken in yet; the views are of those before", thousands(lag));
    }
    if frontier.unfinished {
        println!("an epoch was not finished when the last process ended; the next start, or --repair, mends it");
    }
    let nothing_to_mend = report.holds() && !frontier.unfinished;
    if nothing_to_mend || !args.repair {
        return Ok(verdict(&report));
    }
    let mended = app
        .runtime
        .block_on(kindred_pipeline::repair(Arc::clone(&directory.store), &directory.semantics))
        .context("could not mend the rows")?;
    println!("mended {} rows", thousands(mended));
    let report = verified(directory, args.first)?;
    print!("{}", differences_text(&report));
    Ok(verdict(&report))
}

fn verified(directory: &Directory, first: usize) -> Result<VerifyReport> {
    let snapshot = directory.store.snapshot().context("could not read the store")?;
    kindred_pipeline::verify(&*snapshot.rows, &directory.semantics, first).context("could not read the rows")
}

fn verdict(report: &VerifyReport) -> u8 {
    if report.holds() { exit::FINE } else { exit::FOUND }
}

fn differences_text(report: &VerifyReport) -> String {
    if report.holds() {
        return format!("verified: {} rows are what brute force gives from the same events\n", thousands(report.rows));
    }
    let mut lines = String::new();
    for difference in &report.differences {
        let side = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".to_owned());
        lines.push_str(&format!(
            "{} {}\n  expected  {}\n  stored    {}\n",
            difference.table,
            difference.key,
            side(&difference.expected),
            side(&difference.stored)
        ));
    }
    let shown = report.differences.len();
    let more = if report.more { " and there are more" } else { "" };
    format!("{lines}DIFFERENT: {shown} of {} rows differ{more}\n", thousands(report.rows))
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
