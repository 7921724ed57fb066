//! The command: converts, appends under a mark, waits until the views are durable, and prints a summary.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kindred_config::Loaded;
use kindred_log::{Mark, Rejected};
use kindred_model::records::OrderStatus;
use kindred_model::{Position, Topic};
use kindred_store::ViewStore;
use sha2::{Digest, Sha256};

use super::ImportArgs;
use super::convert::{Converted, convert};
use super::input::{self, Reading};
use super::options::{ImportOptions, shell_word};
use super::rejects::{Origin, Rejects, Spool, without_values};
use super::time_order::MEMORY_BYTES;
use crate::app::App;
use crate::failure::{Failure, counted, exit, thousands};
use crate::installation::{Installation, Open, Place};
use crate::local::Local;
use crate::remote::{Remote, Target};

/// Records per append: few fsyncs, and little to repeat after a kill.
const BATCH_RECORDS: usize = 10_000;
/// Bytes per append and per request.
const BATCH_BYTES: usize = 4 << 20;
/// The update interval of the progress bar.
const TICK: Duration = Duration::from_millis(200);

/// The summary.
struct Summary {
    topic: Topic,
    files: String,
    several_files: bool,
    converted: Converted,
    /// Records that an earlier run had appended.
    there_already: u64,
    /// Whether the rejects are kept in the topic `rejected`.
    kept: bool,
    /// Records that the server rejected.
    refused: u64,
    /// The directory, if this import created it.
    created: Option<String>,
    position: Position,
    took: Duration,
}

/// Runs `kindred import`; returns the exit code.
///
/// # Errors
/// When a file, the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, args: &ImportArgs) -> Result<u8> {
    let topic = args.options.topic;
    if topic != Topic::Orders && (args.options.link_cancellations || !args.map_status.is_empty()) {
        return Err(Failure::usage(format!("--map-status and --link-cancellations are for orders, not for {topic}")).into());
    }
    let started = Instant::now();
    let options = |currency: &str| ImportOptions {
        map: args.map.iter().cloned().collect(),
        map_status: args.map_status.iter().cloned().collect(),
        currency: currency.to_owned(),
        ..args.options.clone()
    };
    let summary = match Target::of(&args.target, loaded)? {
        Target::Here(place) => into_place(app, loaded, &place, args, &options)?,
        Target::Server(remote) => {
            let currency = remote.currency()?;
            into_server(&remote, args, &options(&currency))?
        }
    };
    let summary = Summary { took: started.elapsed(), ..summary };
    print!("{}", summary.text(args.options.version));
    Ok(if summary.found() { exit::FOUND } else { exit::FINE })
}

fn into_place(
    app: &App,
    loaded: &Loaded,
    place: &Place,
    args: &ImportArgs,
    options: &dyn Fn(&str) -> ImportOptions,
) -> Result<Summary> {
    let open =
        || app.runtime.block_on(Installation::open(place, loaded, Open::OrCreate, &format!("import {}", args.options.topic)));
    let bar = Bar::new();
    // Created once the files have been converted: a mistake in the command pins no settings.
    let found = if place.is_there() { Some(open()?) } else { None };
    let semantics = found.as_ref().map_or(&loaded.settings.semantics, |found| &found.semantics).clone();
    let (options, rules) = (options(&semantics.shop.currency), semantics.rules());
    let options = &options;
    let mut spool = Spool::new().context("could not make a temporary file")?;
    let reject = |batch: Vec<Rejected>| spool.keep(&batch).context("could not write a temporary file");
    let (mut converted, name) = read(args, options, &rules, Box::new(reject), &bar)?;
    let installation = match found {
        Some(found) => found,
        None => open()?,
    };
    if installation.semantics != semantics {
        // Another process created it meanwhile.
        return Err(Failure::new(format!("{installation} was made meanwhile, with other settings"))
            .help("run the command again")
            .into());
    }
    let created = installation.directory().filter(|directory| directory.created).map(|_| installation.to_string());
    let log = std::sync::Arc::clone(&installation.log);
    // The reject's id: the file's line under this name and these options.
    let import = name.trim_start_matches("import:").get(..8).unwrap_or_default();
    spool.empty(|mut batch| {
        batch.iter_mut().for_each(|rejected| rejected.source = format!("{}@{import}", rejected.source));
        app.runtime.block_on(log.reject(batch)).context("could not store the rejected records")
    })?;
    let compare = |converted: &mut Converted, store: &dyn ViewStore| {
        let snapshot = store.snapshot().context("could not read the store")?;
        converted.versions.compare(options.topic, &*snapshot.rows, &rules).context("could not read the merged rows")
    };
    compare(&mut converted, &*installation.store)?;

    let done = app.runtime.block_on(log.mark(&name)).context("could not read the import's mark in the log")?.unwrap_or(0);
    let there_already = done.min(converted.count);
    let mut appended = 0;
    bar.stage("appending", converted.count);
    while appended < there_already && converted.records.next_record()?.is_some() {
        appended += 1;
    }
    while let Some(batch) = next_batch(&mut converted)? {
        appended += batch.len() as u64;
        let mark = Mark { name: name.clone(), done: appended };
        app.runtime.block_on(log.append(options.topic, batch, Some(mark))).context("could not append to the log")?;
        bar.at(appended);
    }

    // Started late: a pipeline with the whole backlog applies it in few large epochs, several times less work.
    let local = Local::start(app, loaded, installation)?;
    let end = app.runtime.block_on(log.end()).context("could not read the end of the log")?;
    let from = local.applied();
    let lag = from.lag_behind(&end);
    bar.stage("computing", lag);
    local.wait_for(app, &end, |applied| bar.at(lag.saturating_sub(applied.lag_behind(&end))))?;
    compare(&mut converted, &*local.installation.store)?;
    let position = local.stop(app)?;
    bar.done();
    Ok(Summary {
        topic: options.topic,
        files: files(args),
        several_files: args.files.len() > 1,
        converted,
        there_already,
        kept: true,
        refused: 0,
        created,
        position,
        took: Duration::ZERO,
    })
}

fn into_server(remote: &Remote, args: &ImportArgs, options: &ImportOptions) -> Result<Summary> {
    let bar = Bar::new();
    let rules = kindred_model::records::Rules { currency: options.currency.clone() };
    let (mut converted, _) = read(args, options, &rules, Box::new(|_| Ok(())), &bar)?;
    bar.stage("sending", converted.count);
    let (mut sent, mut refused, mut position) = (0, 0, Position::beginning());
    while let Some(batch) = next_batch(&mut converted)? {
        let answer = remote.post_events(options.topic, &batch)?;
        sent += batch.len() as u64;
        refused += answer.refused;
        for reason in answer.reasons {
            bar.say(&format!("refused by the server: {}", without_values(&reason)));
        }
        for record in answer.conflicts.iter().filter_map(|n| batch.get(*n)) {
            converted.versions.reported(options.topic, record, &rules).map_err(|error| Failure::new(error.to_string()))?;
        }
        position.join(&answer.position);
        bar.at(sent);
    }
    bar.stage("computing", 0);
    remote.wait_for(&position)?;
    bar.done();
    Ok(Summary {
        topic: options.topic,
        files: files(args),
        several_files: args.files.len() > 1,
        converted,
        there_already: 0,
        kept: false,
        refused,
        created: None,
        position,
        took: Duration::ZERO,
    })
}

fn files(args: &ImportArgs) -> String {
    let names: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
    if names == ["-"] { "standard input".to_owned() } else { names.join(", ") }
}

/// Reads and converts the files; returns the records and the name of the import, a digest of contents and options.
fn read(
    args: &ImportArgs,
    options: &ImportOptions,
    rules: &kindred_model::records::Rules,
    reject: super::rejects::RejectSink<'_>,
    bar: &Bar,
) -> Result<(Converted, String)> {
    let (inputs, reading) = input::open(&args.files)?;
    bar.reading(&reading);
    let rejects = Rejects::new(options.topic, reject);
    let converted = convert(inputs, options, rules, rejects, MEMORY_BYTES, &mut || bar.at(reading.bytes_read()))?;
    let mut name = Sha256::new();
    name.update(serde_json::to_vec(options).expect("options serialise"));
    name.update(reading.digest());
    let name = name.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok((converted, format!("import:{name}")))
}

fn next_batch(converted: &mut Converted) -> Result<Option<Vec<Vec<u8>>>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
        let Some(record) = converted.records.next_record().context("could not read a temporary file")? else { break };
        bytes += record.len() + 1;
        batch.push(record);
    }
    Ok((!batch.is_empty()).then_some(batch))
}

/// Progress on stderr, if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    fn reading(&self, reading: &Reading) {
        let template = "{msg:<10} {wide_bar} {bytes} of {total_bytes}, {elapsed}";
        self.0.set_style(ProgressStyle::with_template(template).expect("a template"));
        self.0.set_length(reading.bytes_total);
        self.0.set_message("reading");
    }

    fn stage(&self, name: &'static str, records: u64) {
        let template = "{msg:<10} {wide_bar} {human_pos} of {human_len} records, {elapsed}";
        self.0.set_style(ProgressStyle::with_template(template).expect("a template"));
        self.0.set_position(0);
        self.0.set_length(records);
        self.0.set_message(name);
    }

    fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Summary {
    /// Whether anything needs attention.
    fn found(&self) -> bool {
        self.converted.rejects.rows + self.refused + self.converted.versions.conflicts() > 0 || self.counts_for_nothing()
    }

    /// Whether no order counts in a view. Cancellations alone may be a night's changes.
    fn counts_for_nothing(&self) -> bool {
        let counted = [OrderStatus::Paid, OrderStatus::Shipped, OrderStatus::Completed];
        let statuses = &self.converted.statuses;
        statuses.contains_key(&OrderStatus::Placed) && counted.iter().all(|status| !statuses.contains_key(status))
    }

    /// Lines, with the file where there are several.
    fn lines(&self, of: &[Origin]) -> String {
        let shown = |origin: &Origin| match self.several_files {
            true => format!("{}:{}", origin.file, origin.line),
            false => origin.line.to_string(),
        };
        of.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    fn text(&self, version: u64) -> String {
        let converted = &self.converted;
        let rows =
            if converted.rows == converted.count { String::new() } else { format!(" of {} rows", thousands(converted.rows)) };
        let mut text = format!(
            "imported {} {}{rows} from {} in {:.1} s\n",
            thousands(converted.count),
            what(self.topic, converted.count),
            self.files,
            self.took.as_secs_f64()
        );
        let mut line = |indented: String| {
            text.push_str("  ");
            text.push_str(&indented);
            text.push('\n');
        };
        if let Some(created) = &self.created {
            line(format!("created {}, with the settings that results depend on pinned in it", shell_word(created)));
        }
        if self.there_already > 0 {
            line(format!("{} of them were in the log already, from an earlier run", thousands(self.there_already)));
        }
        if !converted.unused_columns.is_empty() {
            line(format!("columns not used: {}", converted.unused_columns.join(", ")));
        }
        if let Some(notes) = &converted.credit_notes {
            line(format!(
                "credit notes: {} with {} lines took back {} of {} units, worth {} minor units, in refunds: {}, of orders: {}",
                thousands(notes.notes),
                thousands(notes.lines),
                thousands(notes.units_taken),
                thousands(notes.units),
                thousands(notes.amount_minor),
                thousands(notes.refunds),
                thousands(notes.orders)
            ));
            if notes.leftover_lines > 0 {
                let first = self.lines(&notes.leftover_first);
                line(format!(
                    "nothing to take back in the files of this import: {} units on {} lines of {} credit notes, worth {} minor units (first \
                     rows: {first})",
                    thousands(notes.leftover_units),
                    thousands(notes.leftover_lines),
                    thousands(notes.leftover_notes),
                    thousands(notes.leftover_minor)
                ));
                line("  orders of an earlier import are not looked at: name their files beside these in one command".to_owned());
            }
        }
        if converted.blanks > 0 {
            line(format!("blanks around ids were taken off, of {}", counted(converted.blanks, "value", "values")));
        }
        if converted.empty_rows > 0 {
            line(format!("skipped: {}", counted(converted.empty_rows, "row without a value", "rows without a value")));
        }
        if converted.null_words > 0 {
            let of = counted(converted.null_words, "id is", "ids are");
            line(format!("{of} NULL, nan, none or n/a: each such word is taken as the name of one member, item or order"));
            line("  leave the cell empty where there is none, and import the file again with a greater --version".to_owned());
        }
        if let (rows, Some(first)) = &converted.overlap {
            let (rows, file, at) = (counted(*rows, "row", "rows"), &first.file, first.line);
            line(format!("overlap: {rows} repeated in another file, counted once (the first: {file}:{at})"));
        }
        if self.counts_for_nothing() {
            let of = |(status, orders): (&OrderStatus, &u64)| format!("{} {}", thousands(*orders), status.name());
            let statuses: Vec<String> = converted.statuses.iter().map(of).collect();
            line(format!(
                "none of these orders counts in a view ({}): only paid, shipped and completed ones do",
                statuses.join(", ")
            ));
            line("  say what the words of the file mean, as in --map-status placed=paid (or placed=completed, where nothing comes back \
                  any more); a greater --version is needed then"
                .to_owned());
        }
        if converted.unlinked > 0 {
            let orders = counted(converted.unlinked, "cancelled order", "cancelled orders");
            line(format!("nothing is taken back by {orders} of items that the same member had bought before"));
            line(
                "  if they are credit notes, --link-cancellations makes refunds of them; a greater --version is needed then"
                    .to_owned(),
            );
        }
        if converted.versions.older() > 0 {
            let records = counted(converted.versions.older(), "record", "records");
            line(format!("without effect: {records} of a lower version than what is there"));
        }
        let conflicts = converted.versions.conflicts();
        if conflicts > 0 {
            let of = counted(conflicts, "id has", "ids have");
            line(format!("conflicts: {of} two contents under one version: {}", converted.versions.named()));
            line(format!(
                "  which of them counts does not depend on which came last; if these are the newer ones, import them again with --version \
                 {}, or with --version-from COLUMN, a column that grows with each change, such as updated_at",
                version.saturating_add(1)
            ));
        }
        if converted.rejects.rows > 0 {
            let kept = if self.kept { "kept: kindred rejected list" } else { "not kept: they did not reach the server" };
            line(format!("rejected: {} ({kept})", counted(converted.rejects.rows, "row", "rows")));
            for (reason, met) in converted.rejects.reasons.iter().take(REASONS_SHOWN) {
                let first = self.lines(&met.first);
                let more = if met.rows > met.first.len() as u64 { ", …" } else { "" };
                let lines = if met.rows == 1 { "line" } else { "lines" };
                line(format!("  {} × {reason} ({lines} {first}{more})", thousands(met.rows)));
            }
            let hidden = converted.rejects.reasons.len().saturating_sub(REASONS_SHOWN);
            if hidden > 0 {
                line(format!("  and {} further reasons", thousands(hidden as u64)));
            }
        }
        if self.refused > 0 {
            line(format!("refused by the server: {}", counted(self.refused, "record", "records")));
        }
        line(format!("the views are durable at position {}", self.position));
        text
    }
}

/// Reasons listed in the summary.
const REASONS_SHOWN: usize = 20;

const fn what(topic: Topic, count: u64) -> &'static str {
    match (topic, count) {
        (Topic::Interactions, 1) => "interaction",
        (Topic::Interactions, _) => "interactions",
        (Topic::Orders, 1) => "order",
        (Topic::Orders, _) => "orders",
        (Topic::Catalog, 1) => "item",
        (Topic::Catalog, _) => "items",
        (Topic::Members, 1) => "member record",
        (Topic::Members, _) => "member records",
        (Topic::Ledger, 1) => "ledger entry",
        (Topic::Ledger, _) => "ledger entries",
    }
}
