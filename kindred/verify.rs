//! `kindred verify`: every view recomputed by brute force, compared row by row with what is stored.

use anyhow::{Context, Result};
use clap::Args;
use kindred_api::{VerifiedTable, VerifyReport};
use kindred_config::Loaded;
use kindred_model::views::input_tables;
use serde_json::json;

use crate::app::App;
use crate::cli::TargetArgs;
use crate::client::Client;
use crate::failure::{counted, exit, thousands};
use crate::installation::Open;

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

/// Runs `kindred verify`; exit code 1 where a row differs in the end.
///
/// # Errors
/// When the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &VerifyArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "verify")?;
    let report = client.post(&format!("/v1/admin/verify?repair={}&first={}", args.repair, args.first), &json!({}))?;
    let report: VerifyReport = serde_json::from_value(report).context("could not decode the report")?;
    for table in &report.tables {
        table.first.iter().for_each(|difference| println!("{} {difference}", table.table));
    }
    report.not_compared.iter().for_each(|what| eprintln!("not compared: {what}"));
    let inputs = input_tables();
    let different = |of_inputs: bool| -> u64 {
        let tables = report.tables.iter().filter(|table| inputs.iter().any(|input| input.name == table.table) == of_inputs);
        tables.map(|VerifiedTable { differences, .. }| differences).sum()
    };
    match different(true) {
        0 => println!("verified: {} merged inputs are what the log gives", thousands(report.inputs)),
        _ => println!("DIFFERENT: merged inputs are not what the log gives"),
    }
    let verified = || println!("verified: {} rows are what brute force gives from the same events", thousands(report.rows));
    match different(false) {
        0 => verified(),
        differences => {
            let more = if report.more { " and there are more" } else { "" };
            println!("DIFFERENT: {} of {} rows differ{more}", thousands(differences), thousands(report.rows));
        }
    }
    if report.lag > 0 {
        println!("{} records of the log are not taken in yet; the views are of those before", thousands(report.lag));
    }
    if report.unfinished {
        println!("an epoch was not finished when the last process ended; the next start, or --repair, mends it");
    }
    if different(true) > 0 {
        println!(
            "the merged inputs differ from the log: `kindred serve --from beginning` (on services `kindred pipeline`) rebuilds them"
        );
    }
    if report.repaired {
        println!("mended {}", counted(report.mended, "row", "rows"));
        if report.ok {
            verified();
        }
    }
    Ok(if report.ok { exit::FINE } else { exit::FOUND })
}
