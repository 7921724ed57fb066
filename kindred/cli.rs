//! The command line: what can be said, and what `--help` says about it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kindred_model::Day;

use crate::admin::AdminArgs;
use crate::api::ApiArgs;
use crate::export::ExportArgs;
use crate::forget::ForgetArgs;
use crate::generations::{CompareArgs, DropArgs, GenerationsArgs, PromoteArgs, ReplayArgs};
use crate::import::ImportArgs;
use crate::keys::KeysArgs;
use crate::pipeline::PipelineArgs;
use crate::rejected::RejectedArgs;
use crate::serve::{DemoArgs, ServeArgs};
use crate::settings::{ConfigCommand, ViewsArgs};
use crate::status::StatusArgs;
use crate::verify::VerifyArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing was found wrong
  1  done, and something was found: rows that `verify` finds different, rows that `import` or `rejected retry` turn away
  2  the command line or the settings cannot be used
  3  it could not be done
  4  the data directory is in use by another process; the message says where to ask instead. Or, of `export`: records of the log are
     not taken in yet, and the rows are of those before; --stale exports them all the same

Settings come from kindred.toml, KINDRED_… variables and --set; see `kindred config`.";

/// Live recommendations and loyalty from a shop's event log.
#[derive(Parser, Debug)]
#[command(
    name = "kindred",
    version,
    about = "Live recommendations and loyalty from a shop's event log",
    long_about = "Kindred turns a shop's event log into live recommendations and loyalty points: lists of items bought together by the \
                  same people, what is popular, what a member has earned. What it serves is a function of the set of events, the \
                  settings and the day, and of nothing else; a refund or a forgotten member is taken back exactly.\n\n\
                  `kindred demo` runs a simulated shop, and a page at http://127.0.0.1:8080/ to watch it.",
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Settings, for every command.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The command; without one the help is printed.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where settings come from besides the environment.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// The settings file; without it KINDRED_CONFIG, or kindred.toml in the working directory
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// One setting over all others, as in views.also_bought.window=100; may be repeated
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a simulated shop and a page to watch it
    #[command(
        long_about = "Runs everything in one process on a simulated shop: some hundred products, shoppers with tastes who look, buy and \
                      sometimes send back, and a page where you watch their lists move as events arrive, and take part.\n\n\
                      Its orders are made up, so it writes into a directory of its own alone: one that is new, or that an earlier \
                      `kindred demo` made. The setting data.dir is not used.\n\n\
                      Examples:\n  kindred demo\n  kindred demo --listen 127.0.0.1:9000 --data /tmp/demo"
    )]
    Demo(DemoArgs),
    /// Run the pipeline and the API on a data directory
    #[command(
        long_about = "Runs the pipeline and the API on a data directory until SIGTERM or SIGINT, which drain and end it cleanly. The \
                      directory is created if it is not there; the settings that results depend on are then pinned in it, and a \
                      service key is made and written to DIR/service.key.\n\n\
                      Examples:\n  kindred serve --data shop\n  kindred serve --data shop --listen 127.0.0.1:9000 --set \
                      pipeline.workers=2\n  kindred serve --data shop --from beginning"
    )]
    Serve(ServeArgs),
    /// Make what is missing on the services: topics, keyspace, tables, the first generation
    #[command(
        long_about = "On Kafka and CQL (log.kind=kafka, store.kind=cql): makes the topics that are missing, makes the keyspace or brings \
                      its tables up to this version, makes the generation g1 with the settings that results depend on pinned in it, \
                      promotes it, and makes a first service key, which is printed once. Says what it found and did; repeating it \
                      changes nothing.\n\n\
                      Example:\n  kindred migrate --config /etc/kindred.toml"
    )]
    Migrate,
    /// Keep the views on the services
    #[command(
        long_about = "On Kafka and CQL: reads the log, keeps the views, writes them, and tells every `kindred api` what changed, until \
                      SIGTERM or SIGINT, which end it cleanly. Metrics, readiness and status are on pipeline.admin_listen. Several \
                      processes share the work when each is started with the same cluster.hosts and a cluster.process of its own. It \
                      ends with an exit code that is not 0 when it cannot go on, or one of its processes is lost: start all again.\n\n\
                      Examples:\n  kindred pipeline --config /etc/kindred.toml\n  kindred pipeline --config /etc/kindred.toml --set \
                      'cluster.hosts=[\"a:2101\",\"b:2101\"]' --set cluster.process=1"
    )]
    Pipeline(PipelineArgs),
    /// Run the API on the services; any number of them
    #[command(
        long_about = "On Kafka and CQL: takes events into the log and serves what the pipeline keeps. Any number may run.\n\n\
                      Example:\n  kindred api --config /etc/kindred.toml --listen 0.0.0.0:8080"
    )]
    Api(ApiArgs),
    /// Import files of a shop's records
    #[command(
        long_about = "Imports files into the log, in time order, and returns once the views are durable. Into a data directory, or with \
                      --url into a running server. Files may be plain, gzip or zstd; - is standard input. Killed at any moment, the \
                      same command goes on where it was.\n\n\
                      CSV files start with a header. Interactions, catalog and members: a column is the record's field of that name \
                      (tags and category as a|b; timestamp_ms is `at`, price_cents is `price_minor`; an item without a kind is a \
                      good). Orders: a row is an order line (order_id, member, item, quantity, unit_price_cents, timestamp_ms, status, \
                      and if there tier, currency, promotion, discount_minor, coupon, paid_at, completed_at, cancelled_at, version). \
                      The rows of an order may be apart: its time is the earliest, a line's number that of its row within the order. \
                      An order is taken as a whole or not at all. An empty member is a guest. A row with a negative quantity is a \
                      return: of an order with other rows it becomes a refund of its latest lines of that item, and under an order id \
                      of its own a credit note (--link-cancellations). Rows that two of the files have alike count once.\n\n\
                      Times are RFC 3339 or near to it, like 2026-01-05 10:11:12 +0200, or numbers of seconds, milliseconds and finer \
                      since 1970; without an offset they need --time-zone, and in another form --time-format. Money is in minor units \
                      (cents) unless --decimal-money is given; a file with decimals is refused without it. Yes and no are true, yes, 1, \
                      false, no, 0. Blanks around values are taken off. JSON is an object a line, or an array.\n\n\
                      Records have a version, and the greatest counts; without a column for it, it is 1. So a newer export of the same \
                      shop needs a greater one: --version 2, or --version-from updated_at. Ids with two contents under one version are \
                      named.\n\n\
                      What cannot be accepted is told by reason with line numbers, and kept: see `kindred rejected`. Exit code 1 says \
                      that there was some, that versions conflict, or that no order counts in a view; credit notes with nothing to \
                      take back are told alone.\n\n\
                      Examples:\n  kindred import orders orders.csv.zst --map-status placed=paid --link-cancellations --data shop\n  \
                      kindred import orders export.csv --map-status processing=paid --decimal-money --time-zone Europe/Berlin \
                      --version-from updated_at --data shop\n  \
                      kindred import catalog products.csv --map item=sku --map title=name --data shop\n  \
                      zcat clicks.ndjson.gz | kindred import interactions - --data shop\n  \
                      kindred import members members.ndjson --url http://127.0.0.1:8080 --key-file shop/service.key"
    )]
    Import(ImportArgs),
    /// Write the rows of a view to standard output
    #[command(
        long_about = "Writes the rows of a view to standard output, sorted, and nothing else, so that two exports compare with diff. CSV \
                      has a header; ids are raw, times like 2026-01-05T10:11:12.123Z, days like 2026-01-05. `kindred views` lists the \
                      views and their columns.\n\n\
                      Examples:\n  kindred export also_bought --data shop > lists.csv\n  kindred export points --as-of 2026-01-31 --data \
                      shop\n  kindred export popularity --format ndjson --url http://127.0.0.1:8080 --key-file shop/service.key"
    )]
    Export(ExportArgs),
    /// Recompute every view by brute force and compare
    #[command(
        long_about = "Recomputes every view from the merged inputs by brute force, the way a batch job would, and compares all rows byte \
                      by byte. Names the first differences and ends with exit code 1 if there is one. --repair writes the right rows, \
                      deletes the wrong ones, and verifies again.\n\n\
                      Examples:\n  kindred verify --data shop\n  kindred verify --data shop --repair\n  kindred verify --url \
                      http://127.0.0.1:8080 --key-file shop/service.key"
    )]
    Verify(VerifyArgs),
    /// Forget a member: take the person out of every view
    #[command(
        long_about = "Erases a member, the account with it: nobody signs in to it any more, the person is in no list, profile or tally \
                      as soon as the command returns, and the raw records leave the log within erasure.raw_days. What stays is without \
                      the person: the orders in sales totals, and the points of who invited them. It cannot be undone, and the id is \
                      never used again: so it asks first, and refuses an id of which nothing is known.\n\n\
                      Examples:\n  kindred forget 17850 --data shop\n  kindred forget 17850 --yes --url http://127.0.0.1:8080 --key-file \
                      shop/service.key"
    )]
    Forget(ForgetArgs),
    /// Look at records that could not be accepted, retry or delete them
    Rejected(RejectedArgs),
    /// Show topics, positions, lag, rows a view, memory and disk
    #[command(
        long_about = "Shows what lies in the log, how far the views are, what is waiting, and what it costs in rows, memory and disk. Of a \
                      running server with --url; of a directory that nobody uses with --data.\n\n\
                      Examples:\n  kindred status --data shop\n  kindred status --url http://127.0.0.1:8080 --key-file \
                      shop/service.key --json"
    )]
    Status(StatusArgs),
    /// Build another generation of all views from the log, beside the live one
    #[command(
        long_about = "Builds a generation: all views anew, from the log or from the live generation's merged inputs, with other settings \
                      where --set names some. The live one is not touched. An estimate of memory and disk comes first, and without \
                      room nothing is begun. Interrupted at any moment, the same command goes on. Once at the end of the log it \
                      follows it until Ctrl-C; with --once it ends there. A server that is started on the directory afterwards keeps \
                      the generation up to date until it is dropped.\n\n\
                      A generation of a part of the events (--from a place, --until) or with other program.* rules is a what-if: it \
                      can be compared, never promoted.\n\n\
                      Examples:\n  kindred replay --generation g2 --set views.also_bought.window=100 --once --data shop\n  kindred replay \
                      --generation vip --from inputs --set program.multiplier_pct.vip=300 --once --data shop\n  kindred replay \
                      --generation may --until 2026-06-01 --data shop"
    )]
    Replay(ReplayArgs),
    /// List the generations: settings, events, as of, which is live
    Generations(GenerationsArgs),
    /// Compare two generations: what moved, how far, and examples
    #[command(
        long_about = "Compares two generations: settings that differ, whether both are of the same events, how many lists moved (also \
                      weighted by views), how much of the first 5, 10, 20 and 50 is in both, rank-biased overlap (Webber, Moffat, Zobel \
                      2010, p = 0.9), how much of the catalog stands in a list, and the lists that moved most.\n\n\
                      Example:\n  kindred compare g1 g2 --html compared.html --data shop"
    )]
    Compare(CompareArgs),
    /// Make a generation the live one; promoting the one before again rolls back
    Promote(PromoteArgs),
    /// Delete a generation that is not live
    Drop(DropArgs),
    /// Make, list, rotate and revoke keys of the API
    Keys(KeysArgs),
    /// Members, roles and the audit log
    #[command(
        long_about = "Members, roles and the audit log, of a running server (--url and --key-file, or KINDRED_URL and KINDRED_KEY_FILE), or \
                      of a directory that nobody uses (--data). There is no account until somebody registers, and none of staff until a \
                      set-up token is redeemed.\n\n\
                      Example:\n  kindred admin create --url http://127.0.0.1:8080 --key-file shop/service.key\n\n\
                      prints a token that the first administrator enters under My account, or posts to /v1/admin/setup, within the hour."
    )]
    Admin(AdminArgs),
    /// Show the settings: those that would be used, the documented file, or all names
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List the views: what a row means, the columns of the export, the route
    Views(ViewsArgs),
}

/// Where the data is: a directory of this machine, or a running server.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// The data directory; without it the services that the settings name, or data.dir (data)
    #[arg(long, value_name = "DIR", global = true, help_heading = "Where the data is")]
    pub data: Option<PathBuf>,
    /// A running server to ask instead [env: KINDRED_URL, unless --data is given]
    #[arg(long, value_name = "URL", global = true, help_heading = "Where the data is")]
    pub url: Option<String>,
    /// The file that its service key is in [env: KINDRED_KEY_FILE; with --data, DIR/service.key]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Where the data is", conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Its service key [env: KINDRED_KEY]; whoever lists the processes of the machine sees it: --key-file is better
    #[arg(long, value_name = "KEY", global = true, help_heading = "Where the data is")]
    pub key: Option<String>,
}

/// A day of the command line.
///
/// # Errors
/// Why it is none.
pub fn day(text: &str) -> Result<Day, String> {
    text.parse().map_err(|error: kindred_model::records::Invalid| error.reason)
}

/// A number of seconds, minutes, hours or days.
pub fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "" if number == "0" => 1,
        _ => return Err("a number with s, m, h or d is accepted, as in 24h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number stands before s, m, h or d, as in 24h".to_owned())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Clap's own checks: names that clash, defaults that do not parse.
    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every command and every option says what it is: a person has nothing else to go by.
    #[test]
    fn everything_has_a_help_text() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for argument in command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
            {
                assert!(argument.get_help().is_some(), "{path}: {} says nothing about itself", argument.get_id());
            }
            for below in command.get_subcommands() {
                check(below, &format!("{path} {}", below.get_name()));
            }
        }
        check(&Cli::command(), "kindred");
    }

    /// If it failed, a slip of the fingers would start something that writes.
    #[test]
    fn nothing_runs_without_a_command() {
        let parse = |args: &[&str]| Cli::try_parse_from(args);
        assert!(parse(&["kindred"]).unwrap().command.is_none());
        assert!(parse(&["kindred", "--listen", "127.0.0.1:1"]).is_err());
        assert!(parse(&["kindred", "--data=x"]).is_err());
        let cli = parse(&["kindred", "--set", "a.b=1", "serve", "--set", "c.d=2"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve(_))));
    }

    #[test]
    fn a_span_has_a_unit() {
        let seconds = |text| span(text).map(|span| span.as_secs()).ok();
        assert_eq!(["0", "0s", "90m", "24h", "7d"].map(seconds), [0, 0, 5_400, 86_400, 604_800].map(Some));
        for bad in ["", "24", "h", "-1h", "1.5h", "1w", "1 h", "1hh", "18446744073709551615d", "18446744073709551616s"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
