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
#[derive(Args, Clone, Debug)]
pub struct KeysArgs {
    /// What.
    #[command(subcommand)]
    pub command: KeysCommand,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What `kindred keys` does.
#[derive(Subcommand, Clone, Debug)]
pub enum KeysCommand {
    /// Make a key and print it once
    #[command(
        long_about = "Makes a key and prints it. A publishable key stands in a shop's pages and is no secret: it is bound to the origins \
                      of the shop, may read lists, and may post events of the visitor's own session. A service key is a secret that \
                      may do everything; it is shown once and stored as a digest.\n\n\
                      Example:\n  kindred keys create publishable --origin https://shop.example --data shop"
    )]
    Create {
        /// What kind
        #[arg(value_name = "KIND", default_value = "publishable")]
        kind: KeyKindArg,
        /// What it is called, for people; without it its kind
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// An origin whose pages may use it, as in `https://shop.example`; may be repeated
        #[arg(long, value_name = "ORIGIN")]
        origin: Vec<String>,
        /// Requests a minute that a publishable key may make, over all visitors
        #[arg(long, value_name = "N", default_value_t = 6_000)]
        rate_limit: u32,
        /// A publishable key may read lists only, and post no events
        #[arg(long)]
        read_only: bool,
    },
    /// List keys, without secrets: when each was last used, and which are being replaced
    List {
        /// For programs: one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Replace a key: the old one stays good for a while
    #[command(
        long_about = "Makes a key in place of another, of the same kind, name, origins, scopes and rate, and prints it. The old one stays \
                      good for the overlap, in which it is replaced wherever it is used; from then on it is refused, and deleted. \
                      Where it is the one in DIR/service.key, the new one is written there.\n\n\
                      Examples:\n  kindred keys rotate 3f9c0a1b2c3d --data shop\n  kindred keys rotate 3f9c0a1b2c3d --overlap 7d --url \
                      http://127.0.0.1:8080 --data shop"
    )]
    Rotate {
        /// Its id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
        /// How long the old one stays good, as in 90m, 24h or 7d; 0 ends it at once, 30d is the most
        #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
        overlap: Duration,
    },
    /// Give a publishable key other origins: its text in the shop's pages stays
    #[command(
        long_about = "Replaces the origins whose pages may use a publishable key. Its text and what else it has stay as they are.\n\n\
                      Example:\n  kindred keys origins 3f9c0a1b2c3d --origin https://shop.example --origin https://www.shop.example \
                      --data shop"
    )]
    Origins {
        /// Its id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
        /// An origin whose pages may use it from now on, as in `https://shop.example`; may be repeated
        #[arg(long, value_name = "ORIGIN", required = true)]
        origin: Vec<String>,
    },
    /// Revoke a key: at once and for good
    Revoke {
        /// Its id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Runs `kindred keys`.
///
/// # Errors
/// When a key is not acceptable or not there, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, KeysArgs { command, target }: &KeysArgs) -> Result<u8> {
    let client = |open| Client::open(app, loaded, target, open, "keys");
    let path = |id: &str, rest: &str| format!("/v1/admin/keys/{}{rest}", segment(id));
    let unknown = || helped(404, "`kindred keys list` shows the keys");
    match command {
        KeysCommand::Create { kind, name, origin, rate_limit, read_only } => {
            let (kind, publishable) = match kind {
                KeyKindArg::Publishable => ("publishable", true),
                KeyKindArg::Service => ("service", false),
            };
            if publishable && origin.is_empty() {
                return Err(Failure::usage("a publishable key is bound to the origins of the shop's pages")
                    .help("name them, as in --origin https://shop.example")
                    .into());
            }
            if !publishable && (!origin.is_empty() || *read_only) {
                let message = "--origin and --read-only are for publishable keys: a service key may do everything";
                return Err(Failure::usage(message).into());
            }
            let mut body = json!({ "kind": kind, "name": name.as_deref().unwrap_or(kind) });
            if publishable {
                let scopes: &[&str] = if *read_only { &["lists:read"] } else { &["lists:read", "events:write"] };
                body["origins"] = json!(origin);
                body["scopes"] = json!(scopes);
                body["rate_limit_per_minute"] = json!(rate_limit);
            }
            let made = client(Open::OrCreate)?.post("/v1/admin/keys", &body)?;
            told(&made, &format!("`kindred keys revoke {}` ends it", text(&made["id"])));
        }
        KeysCommand::List { json } => {
            let listed = client(Open::Existing)?.get("/v1/admin/keys")?;
            let keys = listed["keys"].as_array().into_iter().flatten();
            if *json {
                keys.for_each(|key| println!("{key}"));
            } else {
                let rows: Vec<Vec<String>> = keys.map(row).collect();
                table::print(&["id", "kind", "name", "created", "last used", "origins"], &rows)
                    .context("could not write to standard output")?;
            }
        }
        KeysCommand::Rotate { id, overlap } => {
            let client = client(Open::Existing)?;
            let rotated = client.post(&path(id, "/rotate"), &json!({ "overlap_seconds": overlap.as_secs() }));
            let ends = format!("`kindred keys revoke {id}` ends it now");
            let made = rotated.map_err(unknown()).map_err(helped(409, ends))?;
            told(&made, &format!("it replaces {id}, which is good until {}", text(&made["replaces"]["expires_at"])));
            let directory = client.installation().and_then(Installation::directory).map(|directory| &directory.path);
            if let Some(directory) = directory.or(target.data.as_ref())
                && replace_service_key(directory, id, text(&made["key"]))?
            {
                eprintln!("it was the key in {}, and the new one is there now", service_key_path(directory).display());
            }
        }
        KeysCommand::Origins { id, origin } => {
            client(Open::Existing)?.patch(&path(id, ""), &json!({ "origins": origin })).map_err(unknown())?;
            println!("key {id} is for pages of {}", origin.join(" "));
        }
        KeysCommand::Revoke { id } => {
            client(Open::Existing)?.delete(&path(id, "")).map_err(unknown())?;
            println!("key {id} is revoked");
        }
    }
    Ok(exit::FINE)
}

/// Prints a key that was made, and for whoever reads, what there is to know of it.
fn told(made: &Value, more: &str) {
    let [token, id, name, kind] = ["key", "id", "name", "kind"].map(|field| text(&made[field]));
    println!("{token}");
    let once = if kind == "publishable" { "" } else { "; it is told this once" };
    eprintln!("key {id} ({name}){once}; {more}");
}

/// A key as it is listed.
fn row(key: &Value) -> Vec<String> {
    let origins: Vec<&str> = key["origins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let used = key["last_used_at"].as_str().map_or("never used".to_owned(), |at| format!("used {at}"));
    let ending = match (key["replaced_by"].as_str(), key["expires_at"].as_str()) {
        (Some(by), Some(at)) => format!("(replaced by {by}, good until {at})"),
        _ => String::new(),
    };
    let origins = [origins.join(" "), ending].join("  ").trim().to_owned();
    let fields = [text(&key["id"]), text(&key["kind"]), text(&key["name"]), text(&key["created_at"]), &used, &origins];
    fields.map(str::to_owned).to_vec()
}
