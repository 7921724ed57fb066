//! `kindred status`: what lies in the log, how far the views are, what it costs. One JSON value for programs and for the API's
//! `GET /v1/admin/status`; a page of text for people.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use kindred_config::Loaded;
use kindred_log::EventLog;
use kindred_model::Semantics;
use kindred_model::views::{ALL, input_tables, view_tables};
use kindred_pipeline::PipelineStatus;
use kindred_store::cql::CqlStore;
use kindred_store::{StoreError, ViewStore};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::changes::ChangeStreamStatus;
use crate::cli::TargetArgs;
use crate::client::Client;
use crate::failure::{Failure, bytes, counted, exit, thousands};
use crate::installation::{Installation, Open};
use crate::remote::text;

/// `kindred status`
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
    /// Of what.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Rejected records that are counted one by one; beyond it the figure says "more".
const REJECTED_COUNTED: usize = 10_000;

/// How long `kindred status` counts rows that no process has counted.
const COUNT_MAX: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct TopicStatus {
    topic: &'static str,
    partition: u32,
    first: u64,
    next: u64,
    applied: u64,
    lag: u64,
}

/// Everything, as `status --json` prints it: of the log and the store, of the pipeline and the change feed where there are any, and for
/// how long this process has served, if it does.
///
/// # Errors
/// When log or store do not answer.
pub async fn observe(
    log: &dyn EventLog,
    (store, semantics): (Arc<dyn ViewStore>, &Semantics),
    pipeline: Option<&PipelineStatus>,
    feed: Option<&ChangeStreamStatus>,
    uptime: Option<Duration>,
) -> Result<Value> {
    let frontier = store.frontier();
    let partitions = log.partitions().await.context("could not read the log")?;
    let topics: Vec<TopicStatus> = partitions
        .iter()
        .map(|partition| {
            let applied = frontier.position.next_offset(partition.topic, partition.partition);
            TopicStatus {
                topic: partition.topic.name(),
                partition: partition.partition,
                first: partition.first,
                next: partition.next,
                applied,
                lag: partition.next.saturating_sub(applied),
            }
        })
        .collect();
    let lag: u64 = topics.iter().map(|topic| topic.lag).sum();
    let rejected = log.rejected(None, REJECTED_COUNTED + 1).await.context("could not read the rejected records")?.len();
    // Counting reads the disk.
    let counting = tokio::task::spawn_blocking(move || {
        let count = |table: &'static str| {
            let rows = store.row_count(table).with_context(|| format!("could not count the rows of {table}"))?;
            Ok((table, rows))
        };
        let rows = input_tables().iter().chain(&view_tables()).map(|table| count(table.name)).collect::<Result<Vec<_>>>()?;
        anyhow::Ok((rows, store.disk_bytes()))
    });
    let (rows, store_bytes) = counting.await??;
    let tables: Vec<Value> = rows.iter().map(|(table, rows)| json!({ "table": table, "rows": rows })).collect();
    let rows: HashMap<&str, u64> = rows.into_iter().collect();
    let views = ALL.iter().map(|view| {
        // A view without tables of its own reads the merged interactions back.
        let own = (view.tables)();
        let table = own.first().map_or("inputs_interactions", |table| table.name);
        json!({ "view": view.name, "enabled": (view.enabled)(semantics), "rows": rows[table] })
    });
    let views: Vec<Value> = views.collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": uptime.map(|uptime| uptime.as_secs()),
        "position": frontier.position.to_string(),
        "epoch": frontier.epoch,
        "unfinished": frontier.unfinished,
        "lag": lag,
        "topics": topics,
        "rejected": rejected.min(REJECTED_COUNTED),
        "rejected_more": rejected > REJECTED_COUNTED,
        "views": views,
        "tables": tables,
        "pipeline": pipeline,
        "changes": feed,
        "memory": {
            "resident_bytes": kindred_telemetry::Process::Own.rss_bytes(),
            "peak_resident_bytes": kindred_telemetry::Process::Own.peak_rss_bytes(),
        },
        "disk": { "log_bytes": log.disk_bytes(), "store_bytes": store_bytes },
        "log": log.identity(),
        "settings": semantics,
    }))
}

/// Runs `kindred status`.
///
/// # Errors
/// When the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &StatusArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "status")?;
    if let Some(services) = client.installation().and_then(Installation::services) {
        app.runtime.block_on(count_rows(&services.store));
    }
    let status = client.status()?;
    if args.json {
        println!("{status}");
    } else {
        print!("{}", for_people(&status));
    }
    match text(&status["pipeline"]["state"]) {
        "failed" => Err(Failure::new("the pipeline has ended; the server has to be started again").into()),
        _ => Ok(exit::FINE),
    }
}

/// Counts the rows of all tables, where that is dear: what is asked for afterwards is the last count.
async fn count_rows(store: &CqlStore) {
    let counts = input_tables().into_iter().chain(view_tables()).map(|table| store.count(table.name));
    let counted = async {
        for count in counts {
            count.await?;
        }
        Ok::<_, StoreError>(())
    };
    match tokio::time::timeout(COUNT_MAX, counted).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("could not count all rows: {error}"),
        Err(_) => eprintln!("not all rows were counted within {} s; those that were not show as 0", COUNT_MAX.as_secs()),
    }
}

fn for_people(status: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), thousands);
    let size = |value: &Value| value.as_u64().map_or_else(|| "unknown".to_owned(), bytes);
    let each = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    let pipeline = &status["pipeline"];
    lines.push(match pipeline["state"].as_str() {
        Some(state) => {
            let uptime = status["uptime_s"].as_u64().map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
            let reason = pipeline["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("pipeline   {state}{uptime}{reason}")
        }
        None if status["changes"].is_object() => "pipeline   in another process".to_owned(),
        None if text(&status["log"]).starts_with("kafka/") => {
            "pipeline   in another process: its /status is on pipeline.admin_listen".to_owned()
        }
        None => "pipeline   not running".to_owned(),
    });
    let changes = &status["changes"];
    if changes.is_object() {
        let trouble = changes["trouble"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(format!("changes    heard, {} ms behind the store{trouble}", number(&changes["behind_ms"])));
    }
    let unfinished = if status["unfinished"] == true { "; an epoch was not finished, the next start mends it" } else { "" };
    lines.push(format!("frontier   {} (epoch {}){unfinished}", text(&status["position"]), number(&status["epoch"])));
    lines.push(format!("lag        {}", counted(status["lag"].as_u64().unwrap_or(0), "record", "records")));
    let more = if status["rejected_more"] == true { " and more" } else { "" };
    lines.push(format!("rejected   {}{more}", number(&status["rejected"])));
    if pipeline["conflicts"].as_u64().is_some_and(|conflicts| conflicts > 0) {
        let last: Vec<&str> = pipeline["conflicting"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        lines.push(format!("conflicts  {} since the start, the last of: {}", number(&pipeline["conflicts"]), last.join(", ")));
    }
    lines.push(format!("memory     {} resident", size(&status["memory"]["resident_bytes"])));
    lines.push(format!("disk       log {}, store {}", size(&status["disk"]["log_bytes"]), size(&status["disk"]["store_bytes"])));
    if pipeline.is_object() {
        let line = format!(
            "state      {} owners with {} identities, {} orders, {} directed pairs in {}",
            number(&pipeline["owners"]),
            number(&pipeline["identities"]),
            number(&pipeline["orders"]),
            number(&pipeline["pairs"]),
            size(&pipeline["similarity_bytes"])
        );
        lines.push(line);
    }
    lines.push(String::new());
    lines.push(format!("{:<24}{:>14}{:>14}{:>14}", "topic", "records", "applied", "lag"));
    let topics = each("topics");
    let parts = topics.iter().any(|topic| topic["partition"] != 0);
    for topic in topics {
        let partition = if parts { format!(" {}", topic["partition"]) } else { String::new() };
        lines.push(format!(
            "{:<24}{:>14}{:>14}{:>14}",
            format!("{}{partition}", text(&topic["topic"])),
            number(&topic["next"]),
            number(&topic["applied"]),
            number(&topic["lag"])
        ));
    }
    lines.push(String::new());
    lines.push(format!("{:<24}{:>14}", "view", "rows"));
    for view in each("views") {
        let off = if view["enabled"] == false { "  (off)" } else { "" };
        lines.push(format!("{:<24}{:>14}{off}", text(&view["view"]), number(&view["rows"])));
    }
    lines.push(String::new());
    lines.join("\n")
}
