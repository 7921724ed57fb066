//! `kindred keys`: the keys of the API.

use std::sync::Arc;

use anyhow::{Context, Result};
use kindred_config::Loaded;
use kindred_store::keys::{KeyError, KeyStore, Scope};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{KeyKindArg, KeysCommand, KeysCreateArgs, KeysListArgs, KeysRevokeArgs};
use crate::failure::{Failure, exit};
use crate::installation::{Installation, Open};
use crate::remote::{Target, segment, text};

/// Runs `kindred keys`.
///
/// # Errors
/// When a key is not acceptable or not there, or the directory or the server cannot be used.
pub fn run(app: &App, loaded: &Loaded, command: &KeysCommand) -> Result<u8> {
    match command {
        KeysCommand::Create(args) => create(app, loaded, args),
        KeysCommand::List(args) => list(app, loaded, args),
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
            let keys = KeyStore::open(Arc::clone(&installation.keys)).await.context("could not read the keys")?;
            let made = if publishable {
                keys.create_publishable(name, &args.origin, scopes, args.rate_limit, app.clock.now()).await
            } else {
                keys.create_service(name, app.clock.now()).await
            };
            let made = made.map_err(|error| match error {
                KeyError::Invalid(invalid) => anyhow::Error::from(Failure::usage(invalid.to_string())),
                other => other.into(),
            })?;
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
            let keys = KeyStore::open(Arc::clone(&installation.keys)).await.context("could not read the keys")?;
            anyhow::Ok(keys.list().iter().map(|key| serde_json::to_value(&**key).expect("a key serialises")).collect())
        })?,
    };
    for key in keys {
        if args.json {
            println!("{key}");
            continue;
        }
        let origins: Vec<&str> = key["origins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let revoked = if key["revoked"] == true || key["revoked_at"].is_string() { "  (revoked)" } else { "" };
        let fields = [text(&key["id"]), text(&key["kind"]), text(&key["name"]), text(&key["created_at"]), &origins.join(" ")];
        println!("{}{revoked}", fields.join("  ").trim_end());
    }
    Ok(exit::FINE)
}

fn revoke(app: &App, loaded: &Loaded, args: &KeysRevokeArgs) -> Result<u8> {
    match Target::of(&args.target, loaded)? {
        Target::Server(remote) => drop(remote.delete(&format!("/v1/admin/keys/{}", segment(&args.id)))?),
        Target::Here(place) => app.runtime.block_on(async {
            let installation = Installation::open(&place, loaded, Open::Existing, "keys revoke").await?;
            let keys = KeyStore::open(Arc::clone(&installation.keys)).await.context("could not read the keys")?;
            if !keys.revoke(&args.id).await.context("could not revoke the key")? {
                return Err(Failure::new(format!("there is no key {}", args.id)).help("`kindred keys list` shows them").into());
            }
            anyhow::Ok(())
        })?,
    }
    println!("key {} is revoked", args.id);
    Ok(exit::FINE)
}
