//! `kindred keys`: the keys of the API.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use kindred_config::Loaded;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{TargetArgs, span};
use crate::client::Client;
use crate::directory::{replace_service_key, service_key_path};
use crate::failure::{Failure, exit};
use crate::installation::{Installation, Open};
use crate::remote::{helped, segment, text};
use crate::table;

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

/// What helps where there is no such key.
const LISTED: &str = "`kindred keys list` shows the keys";

/// Runs `kindred keys`.
///
/// # Errors
/// When a key is not acceptable or not there, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, command: &KeysCommand) -> Result<u8> {
    match command {
        KeysCommand::Create(args) => create(app, loaded, args),
        KeysCommand::List(args) => list(app, loaded, args),
        KeysCommand::Rotate(args) => rotate(app, loaded, args),
        KeysCommand::Origins(args) => change_origins(app, loaded, args),
        KeysCommand::Revoke(args) => revoke(app, loaded, args),
    }
}

fn create(app: &App, loaded: &Loaded, args: &KeysCreateArgs) -> Result<u8> {
    let publishable = args.kind == KeyKindArg::Publishable;
    if publishable && args.origin.is_empty() {
        return Err(Failure::usage("a publishable key is bound to the origins of the shop's pages")
            .help("name them, as in --origin https://shop.example")
            .into());
    }
    if !publishable && (!args.origin.is_empty() || args.read_only) {
        return Err(Failure::usage("--origin and --read-only are for publishable keys: a service key may do everything").into());
    }
    let kind = if publishable { "publishable" } else { "service" };
    let name = args.name.as_deref().unwrap_or(kind);
    let mut body = json!({ "kind": kind, "name": name });
    if publishable {
        let scopes: &[&str] = if args.read_only { &["lists:read"] } else { &["lists:read", "events:write"] };
        body["origins"] = json!(args.origin);
        body["scopes"] = json!(scopes);
        body["rate_limit_per_minute"] = json!(args.rate_limit);
    }
    let made = Client::open(app, loaded, &args.target, Open::OrCreate, "keys create")?.post("/v1/admin/keys", &body)?;
    let (id, token) = (text(&made["id"]), text(&made["key"]));
    println!("{token}");
    let once = if publishable { "" } else { "; it is told this once" };
    eprintln!("key {id} ({name}){once}; `kindred keys revoke {id}` ends it");
    Ok(exit::FINE)
}

fn list(app: &App, loaded: &Loaded, args: &KeysListArgs) -> Result<u8> {
    let listed = Client::open(app, loaded, &args.target, Open::Existing, "keys list")?.get("/v1/admin/keys")?;
    let mut rows = Vec::new();
    for key in listed["keys"].as_array().into_iter().flatten() {
        if args.json {
            println!("{key}");
            continue;
        }
        let origins: Vec<&str> = key["origins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let used = key["last_used_at"].as_str().map_or("never used".to_owned(), |at| format!("used {at}"));
        let ending = match (key["replaced_by"].as_str(), key["expires_at"].as_str()) {
            (Some(by), Some(at)) => format!("(replaced by {by}, good until {at})"),
            _ => String::new(),
        };
        let origins = [origins.join(" "), ending].join("  ").trim().to_owned();
        let fields = [text(&key["id"]), text(&key["kind"]), text(&key["name"]), text(&key["created_at"]), &used, &origins];
        rows.push(fields.map(str::to_owned).to_vec());
    }
    table::print(&["id", "kind", "name", "created", "last used", "origins"], &rows)
        .context("could not write to standard output")?;
    Ok(exit::FINE)
}

fn rotate(app: &App, loaded: &Loaded, args: &KeysRotateArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "keys rotate")?;
    let path = format!("/v1/admin/keys/{}/rotate", segment(&args.id));
    let rotated = client.post(&path, &json!({ "overlap_seconds": args.overlap.as_secs() }));
    let ends = format!("`kindred keys revoke {}` ends it now", args.id);
    let rotated = rotated.map_err(helped(404, LISTED)).map_err(helped(409, ends))?;
    let of_installation = client.installation().and_then(Installation::directory).map(|directory| directory.path.clone());
    let directory = of_installation.or_else(|| args.target.data.clone());
    let [token, id, name, kind] = ["key", "id", "name", "kind"].map(|field| text(&rotated[field]));
    println!("{token}");
    let once = if kind == "publishable" { "" } else { "; it is told this once" };
    eprintln!(
        "key {id} ({name}){once}; it replaces {}, which is good until {}",
        args.id,
        text(&rotated["replaces"]["expires_at"])
    );
    if let Some(directory) = directory
        && replace_service_key(&directory, &args.id, token)?
    {
        eprintln!("it was the key in {}, and the new one is there now", service_key_path(&directory).display());
    }
    Ok(exit::FINE)
}

fn change_origins(app: &App, loaded: &Loaded, args: &KeysOriginsArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "keys origins")?;
    let changed = client.patch(&format!("/v1/admin/keys/{}", segment(&args.id)), &json!({ "origins": args.origin }));
    changed.map_err(helped(404, LISTED))?;
    println!("key {} is for pages of {}", args.id, args.origin.join(" "));
    Ok(exit::FINE)
}

fn revoke(app: &App, loaded: &Loaded, args: &KeysRevokeArgs) -> Result<u8> {
    let client = Client::open(app, loaded, &args.target, Open::Existing, "keys revoke")?;
    client.delete(&format!("/v1/admin/keys/{}", segment(&args.id))).map_err(helped(404, LISTED))?;
    println!("key {} is revoked", args.id);
    Ok(exit::FINE)
}
