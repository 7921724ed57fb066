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
#[derive(Args, Clone, Debug)]
pub struct RejectedArgs {
    /// What.
    #[command(subcommand)]
    pub command: RejectedCommand,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What `kindred rejected` does.
#[derive(Subcommand, Clone, Debug)]
pub enum RejectedCommand {
    /// List rejected records: id, topic, reason
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// One JSON object a line, payload and all
        #[arg(long)]
        json: bool,
    },
    /// Show one rejected record with its payload
    Show {
        /// Its id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try rejected records again, all or those named: what is accepted now goes to the log
    Retry {
        /// Their ids; without one, all
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
    /// Delete rejected records, those named or all: for good
    Delete {
        /// Their ids, as `list` shows them
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Records looked at together.
const PAGE: usize = 1_000;
/// What helps where there is no such record.
const LISTED: &str = "`kindred rejected list` shows the ids";

/// Runs `kindred rejected`.
///
/// # Errors
/// When there is no such record, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, RejectedArgs { command, target }: &RejectedArgs) -> Result<u8> {
    if let RejectedCommand::Delete { ids, all, yes } = command {
        if ids.is_empty() != *all {
            return Err(Failure::usage("name the records, or give --all").help(LISTED).into());
        }
        if *all && !yes {
            confirm("delete all rejected records, for good?", "deleting all rejected records loses them")?;
        }
    }
    let client = Client::open(app, loaded, target, Open::Existing, "rejected")?;
    match command {
        RejectedCommand::List { limit, after, json } => list(&client, *limit, after.clone(), *json)?,
        RejectedCommand::Show { id } => {
            let record = client.get(&format!("/v1/admin/rejected/{}", segment(id))).map_err(helped(404, LISTED))?;
            println!("{record:#}");
        }
        RejectedCommand::Retry { ids } => {
            let (mut accepted, mut still) = (0, 0);
            let retried = in_pages(&client, ids, "retry", |answer| {
                let count = |name: &str| answer[name].as_array().map_or(0, |listed| listed.len() as u64);
                accepted += count("accepted");
                still += count("rejected");
            });
            if accepted > 0 {
                client.while_views_follow(app, loaded, |_| Ok(()))?;
            }
            retried?;
            let accepted = counted(accepted, "record is", "records are");
            println!("{accepted} accepted now and in the log; {} not", counted(still, "is", "are"));
            return Ok(if still > 0 { exit::FOUND } else { exit::FINE });
        }
        RejectedCommand::Delete { ids, .. } => {
            let mut deleted = 0;
            in_pages(&client, ids, "delete", |answer| deleted += answer["deleted"].as_u64().unwrap_or(0))?;
            println!("{} deleted", counted(deleted, "rejected record is", "rejected records are"));
        }
    }
    Ok(exit::FINE)
}

fn list(client: &Remote, limit: usize, mut after: Option<String>, json: bool) -> Result<()> {
    let mut records: Vec<Value> = Vec::new();
    while records.len() < limit {
        let page = page(client, after.as_deref(), limit - records.len())?;
        after = page["next_cursor"].as_str().map(str::to_owned);
        records.extend(page["rejected"].as_array().into_iter().flatten().cloned());
        if after.is_none() {
            break;
        }
    }
    if json {
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
    if let Some(last) = records.last().filter(|_| records.len() == limit) {
        eprintln!("there may be more: --after {}", crate::import::shell_word(text(&last["id"])));
    }
    Ok(())
}

/// A page of the rejected records, at most [`PAGE`] of them.
fn page(client: &Remote, after: Option<&str>, limit: usize) -> Result<Value> {
    let after = after.map(|after| format!("&cursor={}", segment(after))).unwrap_or_default();
    client.get(&format!("/v1/admin/rejected?limit={}{after}", limit.clamp(1, PAGE)))
}

/// Does something with rejected records, as many as are taken together: with those named, or with all.
fn in_pages(client: &Remote, named: &[String], act: &str, mut done: impl FnMut(&Value)) -> Result<()> {
    let mut act = |ids: &[String]| {
        let answer = client.post(&format!("/v1/admin/rejected/{act}"), &json!({ "ids": ids }))?;
        done(&answer);
        match answer["unknown"].get(0) {
            Some(id) => Err(Failure::new(format!("there is no rejected record {}", text(id))).help(LISTED).into()),
            None => anyhow::Ok(()),
        }
    };
    named.chunks(PAGE).try_for_each(&mut act)?;
    let mut after: Option<String> = None;
    while named.is_empty() {
        let page = page(client, after.as_deref(), PAGE)?;
        let records = page["rejected"].as_array().into_iter().flatten();
        act(&records.map(|record| text(&record["id"]).to_owned()).collect::<Vec<_>>())?;
        after = page["next_cursor"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(())
}
