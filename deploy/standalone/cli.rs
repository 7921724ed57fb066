//! The command line: what can be said, and what `--help` says about it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kindred_model::records::OrderStatus;
use kindred_model::views::ViewName;
use kindred_model::{Day, Topic};

use crate::generations::Bound;
use crate::import::Format;

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
    #[command(subcommand)]
    Rejected(RejectedCommand),
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
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Members, roles and the audit log of a running server
    #[command(
        long_about = "Members, roles and the audit log, through the API of a running server (--url and --key-file, or KINDRED_URL and \
                      KINDRED_KEY_FILE). There is no account until somebody registers, and none of staff until a set-up token is redeemed.\n\n\
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
    #[arg(long, value_name = "DIR", help_heading = "Where the data is")]
    pub data: Option<PathBuf>,
    /// A running server to ask instead [env: KINDRED_URL, unless --data is given]
    #[arg(long, value_name = "URL", help_heading = "Where the data is")]
    pub url: Option<String>,
    /// The file that its service key is in [env: KINDRED_KEY_FILE; with --data, DIR/service.key]
    #[arg(long, value_name = "FILE", help_heading = "Where the data is", conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Its service key [env: KINDRED_KEY]; whoever lists the processes of the machine sees it: --key-file is better
    #[arg(long, value_name = "KEY", help_heading = "Where the data is")]
    pub key: Option<String>,
}

/// `kindred demo`
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// The demo's directory, new or made by an earlier demo; without it kindred-demo in the working directory
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the page and the API listen; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
}

/// From where a start reads the log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// Empty the store and rebuild it from the log alone.
    Beginning,
}

/// `kindred serve`
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The data directory; without it the setting data.dir (data)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the API listens; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
    /// `beginning` empties the store and rebuilds it from the log alone
    #[arg(long, value_name = "WHERE")]
    pub from: Option<From>,
}

/// `kindred pipeline`
#[derive(Args, Clone, Debug, Default)]
pub struct PipelineArgs {
    /// The generation whose views it keeps; without it the one that is live when it starts. It keeps to it, whatever is promoted
    #[arg(long, value_name = "NAME")]
    pub generation: Option<String>,
    /// `beginning` empties the store and rebuilds it from the log alone
    #[arg(long, value_name = "WHERE")]
    pub from: Option<From>,
}

/// `kindred api`
#[derive(Args, Clone, Debug, Default)]
pub struct ApiArgs {
    /// Where the API listens; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
}

/// `kindred import`
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// What the files hold
    #[arg(value_name = "TOPIC", value_parser = clap::builder::PossibleValuesParser::new(Topic::OF_SHOPS.map(Topic::name))
        .map(|topic| topic.parse::<Topic>().expect("a topic's name")))]
    pub topic: Topic,
    /// The files, together one import; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How the records stand in the files; without it by the name, then by the first byte
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// A field that stands under another name, as in item=StockCode; may be repeated
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = pair)]
    pub map: Vec<(String, String)>,
    /// Orders: a word of the files that means a status, as in placed=paid (placed=completed skips the hold of points); may be
    /// repeated
    #[arg(long, value_name = "WORD=STATUS", value_parser = status_pair)]
    pub map_status: Vec<(String, OrderStatus)>,
    /// Orders: turn credit notes (status cancelled, an order id of their own) into refunds of the same member's earlier lines of
    /// that item, latest first
    #[arg(long)]
    pub link_cancellations: bool,
    /// The version of records that name none: a greater one for a newer export of the same
    #[arg(long, value_name = "N", default_value_t = crate::import::VERSION_ABSENT)]
    pub version: u64,
    /// The column that says a record's version, a whole number or a time that grows with each change, as updated_at does; where it is
    /// empty, --version holds
    #[arg(long, value_name = "COLUMN")]
    pub version_from: Option<String>,
    /// CSV: what stands between the columns, like ; or tab; without it what the header shows
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    pub delimiter: Option<char>,
    /// How the files are encoded, like windows-1252 or gbk; without it UTF-8, or UTF-16 where the file says so
    #[arg(long, value_name = "NAME", value_parser = crate::import::encoding)]
    pub encoding: Option<&'static encoding_rs::Encoding>,
    /// The zone of times without an offset, like Europe/Berlin or UTC
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<crate::import::Zone>,
    /// How times are written, as in '%d/%m/%Y %H:%M'; without it RFC 3339 and what is near to it, or seconds or their fractions since 1970
    #[arg(long, value_name = "FORMAT", value_parser = crate::import::time_format)]
    pub time_format: Option<String>,
    /// Prices are written with decimals: 12.99 (or 12,99) is 1299, 3 is 300, in a currency of hundredths
    #[arg(long)]
    pub decimal_money: bool,
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred export`
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Also while records of the log are not taken in: the rows are of those before
    #[arg(long)]
    pub stale: bool,
    /// The view; `kindred views` lists them
    #[arg(value_name = "VIEW")]
    pub view: ViewName,
    /// How rows are written
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: Format,
    /// Figures that depend on today are for this day (UTC); without it today
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub as_of: Option<Day>,
    /// Where from.
    #[command(flatten)]
    pub target: TargetArgs,
}

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

/// `kindred forget`
#[derive(Args, Clone, Debug)]
pub struct ForgetArgs {
    /// The member
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Also an id of which nothing is known: what comes of it later counts nowhere
    #[arg(long)]
    pub unknown: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

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

/// From where a replay builds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayFrom {
    /// The first record of the log.
    Beginning,
    /// The merged inputs of the live generation.
    Inputs,
    /// A place in the log or in time.
    At(Bound),
}

impl std::str::FromStr for ReplayFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "inputs" => Ok(Self::Inputs),
            place => place.parse().map(Self::At).map_err(|error| format!("{error}; or beginning, or inputs")),
        }
    }
}

impl std::fmt::Display for ReplayFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::Inputs => f.write_str("inputs"),
            Self::At(bound) => bound.fmt(f),
        }
    }
}

/// `kindred replay`
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// What it is called: small letters, digits, `_`, `-` and `.`
    #[arg(long, value_name = "NAME")]
    pub generation: String,
    /// From where: `beginning` of the log, the merged `inputs` of the live generation, a position, or a time (records of before are
    /// left out)
    #[arg(long, value_name = "WHERE", default_value = "beginning")]
    pub from: ReplayFrom,
    /// Where it ends: a position, or a time (records of then and later are left out)
    #[arg(long, value_name = "WHERE")]
    pub until: Option<Bound>,
    /// End at the end of the log, and do not follow it
    #[arg(long)]
    pub once: bool,
    /// Read at most so many records a second: beside a live pipeline on the same machines, so that its readers do not wait. Such a
    /// replay has a lower priority too, takes ten seconds of records as one epoch, and writes one batch at a time (unless
    /// store.cql.writes_in_flight is set)
    #[arg(long, value_name = "RECORDS")]
    pub rate: Option<std::num::NonZeroU32>,
    /// Begin even where the estimate says that there is no room
    #[arg(long)]
    pub force: bool,
    /// The data directory; without it the setting data.dir (data)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

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

/// What kind of key.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKindArg {
    /// For browsers: no secret. Reads lists, posts events of its own session.
    Publishable,
    /// Secret. Everything.
    Service,
}

/// `kindred keys`
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Make a key and print it once
    #[command(
        long_about = "Makes a key and prints it. A publishable key stands in a shop's pages and is no secret: it is bound to the origins \
                      of the shop, may read lists, and may post events of the visitor's own session. A service key is a secret that \
                      may do everything; it is shown once and stored as a digest.\n\n\
                      Example:\n  kindred keys create publishable --origin https://shop.example --data shop"
    )]
    Create(KeysCreateArgs),
    /// List keys, without secrets: when each was last used, and which are being replaced
    List(KeysListArgs),
    /// Replace a key: the old one stays good for a while
    #[command(
        long_about = "Makes a key in place of another, of the same kind, name, origins, scopes and rate, and prints it. The old one stays \
                      good for the overlap, in which it is replaced wherever it is used; from then on it is refused, and deleted. \
                      Where it is the one in DIR/service.key, the new one is written there.\n\n\
                      Examples:\n  kindred keys rotate 3f9c0a1b2c3d --data shop\n  kindred keys rotate 3f9c0a1b2c3d --overlap 7d --url \
                      http://127.0.0.1:8080 --data shop"
    )]
    Rotate(KeysRotateArgs),
    /// Give a publishable key other origins: its text in the shop's pages stays
    #[command(
        long_about = "Replaces the origins whose pages may use a publishable key. Its text and what else it has stay as they are.\n\n\
                      Example:\n  kindred keys origins 3f9c0a1b2c3d --origin https://shop.example --origin https://www.shop.example \
                      --data shop"
    )]
    Origins(KeysOriginsArgs),
    /// Revoke a key: at once and for good
    Revoke(KeysRevokeArgs),
}

/// `kindred admin`
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// What.
    #[command(subcommand)]
    pub command: AdminCommand,
    /// The server [env: KINDRED_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// The file that its service key is in [env: KINDRED_KEY_FILE]
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Its service key [env: KINDRED_KEY]; whoever lists the processes of the machine sees it: --key-file is better
    #[arg(long, value_name = "KEY", global = true)]
    pub key: Option<String>,
    /// For programs: JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// For people's spreadsheets: lists as CSV, with a header; what a spreadsheet would take for a formula begins with '
    #[arg(long, global = true, conflicts_with = "json")]
    pub csv: bool,
}

/// What `kindred admin` does.
#[derive(Subcommand, Clone, Debug)]
pub enum AdminCommand {
    /// Print a token with which a member becomes staff: once, within the hour
    Create {
        /// The role
        #[arg(long, value_name = "ROLE", default_value = "admin")]
        role: String,
    },
    /// List the tokens of `create` that nobody has entered yet: what each gives, and who made it
    SetupTokens,
    /// Withdraw one of them
    Withdraw {
        /// Its id, as listed
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List members, by what they begin with, or the newest first
    Members {
        /// The beginning of a username, a phone or an e-mail
        #[arg(value_name = "TEXT")]
        q: Option<String>,
        /// registered, activating, activated or suspended
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// A staff role
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        /// normal, vip or svip
        #[arg(long, value_name = "TIER")]
        tier: Option<String>,
        /// Registered on this UTC day or later
        #[arg(long, value_name = "DAY")]
        from: Option<Day>,
        /// Registered on this UTC day or earlier
        #[arg(long, value_name = "DAY")]
        to: Option<Day>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show a member and where they are signed in
    Show {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// Lock a member out: their sessions end at once
    Suspend {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let a member in again
    Activate {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Give a member a staff role, or take it
    Role {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// The role; without it the member's is taken
        #[arg(value_name = "ROLE")]
        role: Option<String>,
    },
    /// Set a member's level: normal, vip or svip
    Tier {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// The level
        #[arg(value_name = "TIER")]
        tier: String,
    },
    /// End all sessions of a member
    EndSessions {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// Send the mail again by which a member proves the address
    Resend {
        /// The member's id
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// List roles and what they may
    Roles,
    /// Show the audit log, the newest first
    Audit {
        /// From this UTC day on
        #[arg(long, value_name = "DAY")]
        from: Option<Day>,
        /// To this UTC day
        #[arg(long, value_name = "DAY")]
        to: Option<Day>,
        /// Who did it
        #[arg(long, value_name = "ID")]
        actor: Option<String>,
        /// To whom
        #[arg(long, value_name = "ID")]
        subject: Option<String>,
        /// What, like member.suspend
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Sign access tokens with a new key; the old one verifies until what it signed has expired
    #[command(visible_alias = "rotate")]
    RotateSigningKeys {
        /// Withdraw the keys before, because one may be known to others: no access token that they signed is taken any more
        #[arg(long)]
        withdraw: bool,
    },
}

/// `kindred keys create`
#[derive(Args, Clone, Debug)]
pub struct KeysCreateArgs {
    /// What kind
    #[arg(value_name = "KIND", default_value = "publishable")]
    pub kind: KeyKindArg,
    /// What it is called, for people; without it its kind
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// An origin whose pages may use it, as in `https://shop.example`; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Requests a minute that a publishable key may make, over all visitors
    #[arg(long, value_name = "N", default_value_t = 6_000)]
    pub rate_limit: u32,
    /// A publishable key may read lists only, and post no events
    #[arg(long)]
    pub read_only: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred keys list`
#[derive(Args, Clone, Debug)]
pub struct KeysListArgs {
    /// For programs: one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred keys rotate`
#[derive(Args, Clone, Debug)]
pub struct KeysRotateArgs {
    /// Its id, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// How long the old one stays good, as in 90m, 24h or 7d; 0 ends it at once, 30d is the most
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    pub overlap: Duration,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred keys origins`
#[derive(Args, Clone, Debug)]
pub struct KeysOriginsArgs {
    /// Its id, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// An origin whose pages may use it from now on, as in `https://shop.example`; may be repeated
    #[arg(long, value_name = "ORIGIN", required = true)]
    pub origin: Vec<String>,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred keys revoke`
#[derive(Args, Clone, Debug)]
pub struct KeysRevokeArgs {
    /// Its id, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `kindred config`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Print the settings that a command would use now, as TOML
    Show(ConfigShowArgs),
    /// Print the documented settings file: every setting with its default, unit and meaning
    Example,
    /// List the names of all settings with their defaults
    Keys,
}

/// `kindred config show`
#[derive(Args, Clone, Debug)]
pub struct ConfigShowArgs {
    /// With what this data directory pins
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `kindred views`
#[derive(Args, Clone, Debug)]
pub struct ViewsArgs {
    /// For programs: one JSON object a line
    #[arg(long)]
    pub json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("field=column is accepted, as in item=StockCode".to_owned()),
    }
}

/// One character of ASCII, or its name.
fn delimiter(text: &str) -> Result<char, String> {
    let named = match text {
        "tab" | "\\t" => "\t",
        "comma" => ",",
        "semicolon" => ";",
        other => other,
    };
    let mut chars = named.chars();
    match (chars.next(), chars.next()) {
        (Some(delimiter), None) if delimiter.is_ascii() && !"\"\r\n".contains(delimiter) => Ok(delimiter),
        _ => Err("one character is accepted, like ; or | or tab".to_owned()),
    }
}

fn status_pair(text: &str) -> Result<(String, OrderStatus), String> {
    // The word is the shop's and may hold anything; a status holds no sign.
    let (word, status) = text.rsplit_once('=').ok_or("word=status is accepted, as in placed=paid")?;
    if word.trim().is_empty() {
        return Err("a word of the files stands before the sign, as in placed=paid".to_owned());
    }
    Ok((word.to_owned(), status.parse().map_err(|error: kindred_model::records::Invalid| error.reason)?))
}

fn day(text: &str) -> Result<Day, String> {
    text.parse().map_err(|error: kindred_model::records::Invalid| error.reason)
}

/// A number of seconds, minutes, hours or days.
fn span(text: &str) -> Result<Duration, String> {
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

    #[test]
    fn words_of_a_status_may_hold_an_equals_sign() {
        assert_eq!(status_pair("a=b=paid").unwrap(), ("a=b".to_owned(), OrderStatus::Paid));
        assert!(status_pair("placed=bought").unwrap_err().contains("none of placed"));
    }
}
