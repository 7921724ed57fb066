//! `kindred keys`: the keys of the API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use kindred_config::Loaded;
use kindred_store::keys::{Key, KeyError, KeyStore, Rotated, Scope};
use serde_json::{Value, json};

use crate::app::App;
use crate::audit::Audit;
use crate::cli::{TargetArgs, span};
use crate::directory::{replace_service_key, service_key_path};
use crate::failure::{Failure, exit};
use crate::installation::{Installation, Open, Place};
use crate::remote::{Target, segment, text};
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
    let name = args.name.as_deref().unwrap_or(if publishable { "publishable" } else { "service" });
    let scopes: &[Scope] = if args.read_only { &[Scope::ListsRead] } else { &[Scope::ListsRead, Scope::EventsWrite] };
    let (id, token) = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => {
            let mut body = json!({ "kind": if publishable { "publishable" } else { "service" }, "name": name });
            if publishable {
                body["origins"] = json!(args.origin);
                body["scopes"] = json!(scopes);
                body["rate_limit_per_minute"] = json!(args.rate_limit);
            }
            let made = remote.post("/v1/admin/keys", &body)?;
            (text(&made["id"]).to_owned(), text(&made["key"]).to_owned())
        }
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::OrCreate, "keys create").await?;
            let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
            let audit = Audit::open(&installation, loaded, &app.clock).await?;
            let make = async {
                let made = if publishable {
                    keys.create_publishable(name, &args.origin, scopes, args.rate_limit, app.clock.now()).await
                } else {
                    keys.create_service(name, app.clock.now()).await
                };
                made.map_err(|error| match error {
                    KeyError::Invalid(invalid) => anyhow::Error::from(Failure::usage(invalid.to_string())),
                    other => other.into(),
                })
            };
            // Its id is drawn when it is made: the entry is of its name.
            let kind = if publishable { "publishable" } else { "service" };
            let made = audit.noted("key.create", name, &[("name", name), ("kind", kind)], make).await?;
            anyhow::Ok((made.key.id.clone(), made.token))
        })?,
    };
    println!("{token}");
    let once = if publishable { "" } else { "; it is told this once" };
    eprintln!("key {id} ({name}){once}; `kindred keys revoke {id}` ends it");
    Ok(exit::FINE)
}

fn list(app: &App, loaded: &Loaded, args: &KeysListArgs) -> Result<u8> {
    let keys: Vec<Value> = match Target::of(&args.target, loaded)? {
        Target::Server(remote) => remote.get("/v1/admin/keys")?["keys"].as_array().cloned().unwrap_or_default(),
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "keys list").await?;
            let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
            let shown = |key: Arc<Key>| {
                let mut shown = serde_json::to_value(&*key).expect("a key serialises");
                shown["last_used_at"] = json!(keys.last_use(&key.id).and_then(|used| used.at()));
                shown
            };
            anyhow::Ok(keys.list().into_iter().map(shown).collect())
        })?,
    };
    let mut rows = Vec::new();
    for key in keys {
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
    let target = Target::of(&args.target, loaded)?;
    let directory = match &target {
        Target::Server(_) => args.target.data.clone(),
        Target::Here(Place::Directory(path)) => Some(path.clone()),
        Target::Here(Place::Services) => None,
    };
    let rotated = match target {
        Target::Server(remote) => {
            let path = format!("/v1/admin/keys/{}/rotate", segment(&args.id));
            remote.post(&path, &json!({ "overlap_seconds": args.overlap.as_secs() }))?
        }
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "keys rotate").await?;
            let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
            let audit = Audit::open(&installation, loaded, &app.clock).await?;
            let rotate = async {
                let rotated = async { keys.rotate(keys.draw_successor(&args.id)?, app.clock.now(), args.overlap).await };
                rotated.await.map_err(|error| not_rotated(&args.id, error))
            };
            let overlap = args.overlap.as_secs().to_string();
            let Rotated { made, expires_at, .. } =
                audit.noted("key.rotate", &args.id, &[("overlap_seconds", &overlap)], rotate).await?;
            let mut shown = serde_json::to_value(&*made.key).expect("a key serialises");
            shown["key"] = json!(made.token);
            shown["replaces"] = json!({ "expires_at": expires_at });
            anyhow::Ok(shown)
        })?,
    };
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

fn not_rotated(id: &str, error: KeyError) -> anyhow::Error {
    match error {
        KeyError::Invalid(_) => Failure::usage("the old key stays good for thirty days (30d) at most").into(),
        KeyError::Unknown(_) => unknown(id).into(),
        KeyError::Replaced(by) => Failure::new(format!("key {id} is being replaced by {by} already"))
            .help(format!("`kindred keys revoke {id}` ends it now"))
            .into(),
        other => anyhow::Error::from(other).context("could not rotate the key"),
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(format!("there is no key {id}")).help("`kindred keys list` shows them")
}

fn change_origins(app: &App, loaded: &Loaded, args: &KeysOriginsArgs) -> Result<u8> {
    match Target::of(&args.target, loaded)? {
        Target::Server(remote) => {
            remote.patch(&format!("/v1/admin/keys/{}", segment(&args.id)), &json!({ "origins": args.origin }))?;
        }
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "keys origins").await?;
            let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
            keys.set_origins(&args.id, &args.origin).await.map(drop).map_err(|error| match error {
                KeyError::Invalid(invalid) => anyhow::Error::from(Failure::usage(invalid.to_string())),
                KeyError::Unknown(id) => unknown(&id).into(),
                other => anyhow::Error::from(other).context("could not change the key"),
            })
        })?,
    }
    println!("key {} is for pages of {}", args.id, args.origin.join(" "));
    Ok(exit::FINE)
}

fn revoke(app: &App, loaded: &Loaded, args: &KeysRevokeArgs) -> Result<u8> {
    match Target::of(&args.target, loaded)? {
        Target::Server(remote) => drop(remote.delete(&format!("/v1/admin/keys/{}", segment(&args.id)))?),
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "keys revoke").await?;
            let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
            let audit = Audit::open(&installation, loaded, &app.clock).await?;
            let revoke = async {
                let revoked = keys.revoke(&args.id).await.context("could not revoke the key")?;
                if revoked { Ok(()) } else { Err(unknown(&args.id).into()) }
            };
            audit.noted("key.revoke", &args.id, &[], revoke).await
        })?,
    }
    println!("key {} is revoked", args.id);
    Ok(exit::FINE)
}
