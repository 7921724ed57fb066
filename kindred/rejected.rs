//! `kindred rejected`: what could not be accepted, and trying it again.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kindred_config::Loaded;
use kindred_log::{EventLog, Rejected};
use kindred_model::records::{Record, Rules};
use serde_json::{Value, json};

use crate::app::App;
use crate::ask::confirm;
use crate::audit::Audit;
use crate::cli::TargetArgs;
use crate::failure::{Failure, counted, exit};
use crate::installation::{Installation, Open};
use crate::local::Local;
use crate::remote::{AnswerError, Remote, Target, segment, text};
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
    let records: Vec<Value> = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => {
            let mut records = Vec::new();
            let mut after = args.after.clone();
            while records.len() < args.limit {
                let page = page(&remote, after.as_deref(), args.limit - records.len())?;
                after = page["next_cursor"].as_str().map(str::to_owned);
                records.extend(page["rejected"].as_array().into_iter().flatten().cloned());
                if after.is_none() {
                    break;
                }
            }
            records
        }
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "rejected list").await?;
            let records = installation.log.rejected(args.after.as_deref(), args.limit).await;
            anyhow::Ok(records.context("could not read the rejected records")?.iter().map(shown).collect())
        })?,
    };
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
        return Err(Failure::usage("name the records, or give --all").help("`kindred rejected list` shows their ids").into());
    }
    if args.all && !args.yes {
        confirm("delete all rejected records, for good?", "deleting all rejected records loses them")?;
    }
    let deleted = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => {
            let mut deleted = 0;
            let one = |id: &str| remote.delete(&format!("/v1/admin/rejected/{}", segment(id))).map(drop);
            for id in &args.ids {
                one(id).map_err(|error| match error.downcast_ref::<AnswerError>() {
                    Some(answer) if answer.status == 404 => none(id).into(),
                    _ => error,
                })?;
                deleted += 1;
            }
            let mut more = args.all;
            while more {
                let page = page(&remote, None, PAGE)?;
                let records = page["rejected"].as_array().map(Vec::as_slice).unwrap_or_default();
                more = !records.is_empty();
                for record in records {
                    one(text(&record["id"]))?;
                    deleted += 1;
                }
            }
            deleted
        }
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "rejected delete").await?;
            let audit = Audit::open(&installation, loaded, &app.clock).await?;
            let log = &installation.log;
            for id in &args.ids {
                let known = log.rejected_one(id).await.context("could not read the rejected records")?;
                known.ok_or_else(|| none(id))?;
            }
            let mut deleted = 0;
            let mut left = args.ids.clone();
            loop {
                if args.all {
                    let page = log.rejected(None, PAGE).await.context("could not read the rejected records")?;
                    left = page.iter().map(Rejected::id).collect();
                }
                if left.is_empty() {
                    return anyhow::Ok(deleted);
                }
                for ids in std::mem::take(&mut left).chunks(PAGE) {
                    let (subject, records) = (if ids.len() == 1 { ids[0].as_str() } else { "" }, ids.len().to_string());
                    let remove = async { log.rejected_remove(ids).await.context("could not delete the rejected records") };
                    audit.noted("rejected.drop", subject, &[("records", &records)], remove).await?;
                    deleted += ids.len() as u64;
                }
            }
        })?,
    };
    println!("{} deleted", counted(deleted, "rejected record is", "rejected records are"));
    Ok(exit::FINE)
}

/// A page of a server's rejected records, at most [`PAGE`] of them.
fn page(remote: &Remote, after: Option<&str>, limit: usize) -> Result<Value> {
    let after = after.map(|after| format!("&cursor={}", segment(after))).unwrap_or_default();
    remote.get(&format!("/v1/admin/rejected?limit={}{after}", limit.clamp(1, PAGE)))
}

/// Has a server try records again, those named or all; how many were accepted, and how many were not.
fn retry_on(remote: &Remote, ids: &[String]) -> Result<(u64, u64)> {
    let (mut accepted, mut still) = (0, 0);
    let mut retry = |ids: &[String]| -> Result<()> {
        let answer = remote.post("/v1/admin/rejected/retry", &json!({ "ids": ids }))?;
        let count = |name: &str| answer[name].as_array().map_or(0, |listed| listed.len() as u64);
        accepted += count("accepted");
        still += count("rejected");
        match answer["unknown"].as_array().and_then(|unknown| unknown.first()).and_then(Value::as_str) {
            Some(unknown) => Err(none(unknown).into()),
            None => Ok(()),
        }
    };
    for ids in ids.chunks(PAGE) {
        retry(ids)?;
    }
    let mut after: Option<String> = None;
    while ids.is_empty() {
        let page = page(remote, after.as_deref(), PAGE)?;
        let records = page["rejected"].as_array().into_iter().flatten();
        let listed: Vec<String> = records.filter_map(|record| record["id"].as_str().map(str::to_owned)).collect();
        if !listed.is_empty() {
            retry(&listed)?;
        }
        after = page["next_cursor"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok((accepted, still))
}

/// A rejected record as it is shown: its fields, and the id to name it by.
pub fn shown(record: &Rejected) -> Value {
    let mut value = serde_json::to_value(record).expect("a rejected record serialises");
    value["id"] = Value::from(record.id());
    value
}

fn show(app: &App, loaded: &Loaded, args: &RejectedShowArgs) -> Result<u8> {
    let record = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => remote.get(&format!("/v1/admin/rejected/{}", segment(&args.id)))?,
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "rejected show").await?;
            let record = installation.log.rejected_one(&args.id).await.context("could not read the rejected records")?;
            let record = record.ok_or_else(|| none(&args.id))?;
            anyhow::Ok(shown(&record))
        })?,
    };
    println!("{}", serde_json::to_string_pretty(&record).expect("a value serialises"));
    Ok(exit::FINE)
}

fn none(id: &str) -> Failure {
    Failure::new(format!("there is no rejected record {id}")).help("`kindred rejected list` shows the ids")
}

fn retry(app: &App, loaded: &Loaded, args: &RejectedRetryArgs) -> Result<u8> {
    let (accepted, still) = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => retry_on(&remote, &args.ids)?,
        Target::Here(place) => {
            let installation = app.runtime.block_on(Installation::open(&place, loaded, Open::Existing, "rejected retry"))?;
            let rules = installation.semantics.rules();
            let retried = app.runtime.block_on(async {
                let audit = Audit::open(&installation, loaded, &app.clock).await?;
                let records = if args.ids.is_empty() { "all".to_owned() } else { args.ids.len().to_string() };
                let retry = retry_in(&*installation.log, &rules, &args.ids);
                audit.noted("rejected.retry", "", &[("records", &records)], retry).await
            })?;
            if retried.0 > 0 {
                Local::start(app, loaded, installation)?.stop(app)?;
            }
            retried
        }
    };
    let accepted = counted(accepted, "record is", "records are");
    println!("{accepted} accepted now and in the log; {} not", counted(still, "is", "are"));
    Ok(if still > 0 { exit::FOUND } else { exit::FINE })
}

/// Decodes rejected records again; appends those that are accepted now and drops them from the rejected. A kill in between
/// leaves both, which is harmless: records merge. Returns how many were accepted, and how many were not.
async fn retry_in(log: &dyn EventLog, rules: &Rules, ids: &[String]) -> Result<(u64, u64)> {
    let reading = "could not read the rejected records";
    let (mut accepted, mut still) = (0, 0);
    let mut take = async |records: Vec<Rejected>| -> Result<()> {
        let (mut mended, mut kept) = (std::collections::BTreeMap::<_, (Vec<String>, Vec<Vec<u8>>)>::new(), 0);
        for record in &records {
            match Record::decode(record.topic, record.payload.as_bytes(), rules) {
                Ok(decoded) => {
                    let (ids, payloads) = mended.entry(record.topic).or_default();
                    ids.push(record.id());
                    payloads.push(decoded.to_json());
                }
                Err(_) => kept += 1,
            }
        }
        still += kept;
        for (topic, (ids, payloads)) in mended {
            accepted += ids.len() as u64;
            log.append(topic, payloads, None).await.context("could not append to the log")?;
            log.rejected_remove(&ids).await.context("could not drop what was accepted from the rejected records")?;
        }
        Ok(())
    };
    if !ids.is_empty() {
        let mut records = Vec::new();
        for id in ids {
            records.push(log.rejected_one(id).await.context(reading)?.ok_or_else(|| none(id))?);
        }
        take(records).await?;
        return Ok((accepted, still));
    }
    let mut after: Option<String> = None;
    loop {
        let page = log.rejected(after.as_deref(), PAGE).await.context(reading)?;
        let Some(last) = page.last() else { return Ok((accepted, still)) };
        after = Some(last.id());
        take(page).await?;
    }
}
