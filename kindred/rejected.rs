//! `kindred rejected`: what could not be accepted, and trying it again.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kindred_config::Loaded;
use serde_json::{Value, json};

use crate::app::App;
use crate::ask::confirm;
use crate::cli::TargetArgs;
use crate::client::Client;
use crate::failure::{Failure, counted, exit};
use crate::installation::Open;
use crate::remote::{Remote, helped, segment, text};
use crate::table;

/// `kindred rejected`
#[derive(Subcommand, Debug)]
pub enum RejectedCommand {
    /// List rejected records: id, topic, reason
    List(RejectedListArgs),
    /// Show one rejected record with its payload
    Show(RejectedShowArgs),
    /// Try rejected records again, all or those named: what is accepted now goes to the log
    Retry(RejectedRetryArgs),
    /// Delete rejected records, those named or all: for good
    Delete(RejectedDeleteArgs),
}

/// `kindred rejected delete`
#[derive(Args, Clone, Debug)]
pub struct RejectedDeleteArgs {
    /// Their ids, as `list` shows them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred rejected list`
#[derive(Args, Clone, Debug)]
pub struct RejectedListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Only those after this id
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// One JSON object a line, payload and all
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred rejected show`
#[derive(Args, Clone, Debug)]
pub struct RejectedShowArgs {
    /// Its id, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred rejected retry`
#[derive(Args, Clone, Debug)]
pub struct RejectedRetryArgs {
    /// Their ids; without one, all
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Records looked at together.
const PAGE: usize = 1_000;
/// What helps where there is no such record.
const LISTED: &str = "`kindred rejected list` shows the ids";

/// Runs `kindred rejected`.
///
/// # Errors
/// When there is no such record, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, command: &RejectedCommand) -> Result<u8> {
    match command {
        RejectedCommand::List(args) => list(app, loaded, args),
        RejectedCommand::Show(args) => show(app, loaded, args),
        RejectedCommand::Retry(args) => retry(app, loaded, args),
        RejectedCommand::Delete(args) => delete(app, loaded, args),
    }
}

fn list(app: &App, loaded: &Loaded, args: &RejectedListArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "rejected list")?;
    let mut records: Vec<Value> = Vec::new();
    let mut after = args.after.clone();
    while records.len() < args.limit {
        let page = page(&client, after.as_deref(), args.limit - records.len())?;
        after = page["next_cursor"].as_str().map(str::to_owned);
        records.extend(page["rejected"].as_array().into_iter().flatten().cloned());
        if after.is_none() {
            break;
        }
    }
    if args.json {
        let mut out = io::stdout().lock();
        match records.iter().try_for_each(|record| writeln!(out, "{record}")) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("could not write to standard output")?;
            }
            _ => {}
        }
    } else {
        let row = |record: &Value| ["id", "topic", "reason"].map(|field| text(&record[field]).to_owned()).to_vec();
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        table::print(&["id", "topic", "reason"], &rows).context("could not write to standard output")?;
    }
    if records.len() == args.limit {
        let last = records.last().and_then(|record| record["id"].as_str()).unwrap_or_default();
        eprintln!("there may be more: --after {}", crate::import::shell_word(last));
    }
    Ok(exit::FINE)
}

/// Deletes rejected records for good, those named or all.
fn delete(app: &App, loaded: &Loaded, args: &RejectedDeleteArgs) -> Result<u8> {
    if args.ids.is_empty() != args.all {
        return Err(Failure::usage("name the records, or give --all").help(LISTED).into());
    }
    if args.all && !args.yes {
        confirm("delete all rejected records, for good?", "deleting all rejected records loses them")?;
    }
    let client = Client::open(app, loaded, &args.target, Open::Existing, "rejected delete")?;
    let mut deleted = 0;
    in_pages(&client, &args.ids, |ids| {
        let answer = client.post("/v1/admin/rejected/delete", &json!({ "ids": ids }))?;
        deleted += answer["deleted"].as_u64().unwrap_or(0);
        known(&answer)
    })?;
    println!("{} deleted", counted(deleted, "rejected record is", "rejected records are"));
    Ok(exit::FINE)
}

/// A page of the rejected records, at most [`PAGE`] of them.
fn page(remote: &Remote, after: Option<&str>, limit: usize) -> Result<Value> {
    let after = after.map(|after| format!("&cursor={}", segment(after))).unwrap_or_default();
    remote.get(&format!("/v1/admin/rejected?limit={}{after}", limit.clamp(1, PAGE)))
}

/// Does something with rejected records, as many as are taken together: with those named, or with all.
fn in_pages(remote: &Remote, ids: &[String], mut act: impl FnMut(&[String]) -> Result<()>) -> Result<()> {
    ids.chunks(PAGE).try_for_each(&mut act)?;
    let mut after: Option<String> = None;
    while ids.is_empty() {
        let page = page(remote, after.as_deref(), PAGE)?;
        let records = page["rejected"].as_array().into_iter().flatten();
        let listed: Vec<String> = records.map(|record| text(&record["id"]).to_owned()).collect();
        if !listed.is_empty() {
            act(&listed)?;
        }
        after = page["next_cursor"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Refuses an answer that names an id of no rejected record.
fn known(answer: &Value) -> Result<()> {
    match answer["unknown"].get(0) {
        Some(id) => Err(Failure::new(format!("there is no rejected record {}", text(id))).help(LISTED).into()),
        None => Ok(()),
    }
}

fn show(app: &App, loaded: &Loaded, args: &RejectedShowArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "rejected show")?;
    let record = client.get(&format!("/v1/admin/rejected/{}", segment(&args.id))).map_err(helped(404, LISTED))?;
    println!("{}", serde_json::to_string_pretty(&record).expect("a value serialises"));
    Ok(exit::FINE)
}

fn retry(app: &App, loaded: &Loaded, args: &RejectedRetryArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "rejected retry")?;
    let (mut accepted, mut still) = (0, 0);
    let retried = in_pages(&client, &args.ids, |ids| {
        let answer = client.post("/v1/admin/rejected/retry", &json!({ "ids": ids }))?;
        let count = |name: &str| answer[name].as_array().map_or(0, |listed| listed.len() as u64);
        accepted += count("accepted");
        still += count("rejected");
        known(&answer)
    });
    if accepted > 0 {
        client.while_views_follow(app, loaded, |_| Ok(()))?;
    }
    retried?;
    let accepted = counted(accepted, "record is", "records are");
    println!("{accepted} accepted now and in the log; {} not", counted(still, "is", "are"));
    Ok(if still > 0 { exit::FOUND } else { exit::FINE })
}
