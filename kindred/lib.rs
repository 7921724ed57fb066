//! The program `kindred`. Pipeline and API in one process over an embedded log and store in one directory, or in processes of their
//! own over services; and the commands around them.
//!
//! ```text
//! main ──▶ cli ──▶ serve, demo ──▶ start(config) -> Running { pipeline, API, the demo's shop }
//!             ├──▶ migrate, pipeline, api ──▶ services: Kafka, CQL
//!             ├──▶ import, export, verify, forget, rejected, status, keys ──▶ a directory, services, or a running server
//!             └──▶ replay, generations, compare, promote, drop ──▶ a directory's generations
//! ```

#[cfg(test)]
extern crate self as kindred;

mod admin;
mod api;
pub mod app;
mod ask;
mod audit;
pub mod changes;
pub mod cli;
pub mod directory;
mod export;
pub mod failure;
mod fingerprint;
mod forget;
mod generations;
pub mod import;
pub mod installation;
mod keys;
mod local;
mod members;
mod operations;
mod pipeline;
mod rejected;
mod remote;
mod serve;
mod server;
pub mod services;
mod settings;
mod status;
mod table;
mod verify;

use anyhow::{Context as _, Result};
use clap::CommandFactory;
use kindred_config::{Sources, load};

pub use server::{Running, StartConfig, start};

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Log lines of a command that ends by itself, unless the settings say otherwise: it tells its result on stdout.
const QUIET: &str = "warn";

/// The storage engine tells of every file it writes, the driver of every connection; a filter that names them hears that again.
const ENGINE_QUIET: &str = "fjall=warn,lsm_tree=warn,scylla=off";

/// Runs one command line; returns the exit code ([`failure::exit`]).
///
/// # Errors
/// What a person has to know, for [`failure::report`].
pub fn run(cli: Cli) -> Result<u8> {
    let Some(command) = cli.command else {
        Cli::command().print_help().context("could not write to standard output")?;
        return Ok(failure::exit::FINE);
    };
    if let Command::Views(args) = &command {
        return Ok(settings::views(args));
    }
    let sources = Sources { config: cli.settings.config, set: cli.settings.set };
    let loaded = load(&sources).map_err(|error| {
        Failure::usage(error.to_string())
            .help("`kindred config keys` lists the settings, `kindred config example` documents them")
    })?;
    if let Command::Config(command) = &command {
        return settings::config(&loaded, command);
    }
    let serves = matches!(command, Command::Serve(_) | Command::Demo(_) | Command::Pipeline(_) | Command::Api(_));
    let telemetry = &loaded.settings.telemetry;
    let filter = if serves || loaded.explicit.contains_key("telemetry.log") { telemetry.log.as_str() } else { QUIET };
    kindred_telemetry::init(&format!("{ENGINE_QUIET},{filter}"), telemetry.format)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let app = App::new()?;
    match command {
        Command::Demo(args) => serve::demo(&app, loaded, &args),
        Command::Serve(args) => serve::serve(&app, loaded, &args),
        Command::Migrate => services::migrate(&app, &loaded),
        Command::Pipeline(args) => pipeline::run(&app, &loaded, &args),
        Command::Api(args) => api::run(&app, &loaded, &args),
        Command::Import(args) => import::run(&app, &loaded, &args),
        Command::Export(args) => export::run(&app, &loaded, &args),
        Command::Verify(args) => verify::run(&app, &loaded, &args),
        Command::Forget(args) => forget::run(&app, &loaded, &args),
        Command::Rejected(command) => rejected::run(&app, &loaded, &command),
        Command::Status(args) => status::run(&app, &loaded, &args),
        Command::Replay(args) => generations::replay(&app, &loaded, &args),
        Command::Generations(args) => generations::list(&app, &loaded, &args),
        Command::Compare(args) => generations::compare(&app, &loaded, &args),
        Command::Promote(args) => generations::promote(&app, &loaded, &args),
        Command::Drop(args) => generations::drop_one(&app, &loaded, &args),
        Command::Keys(command) => keys::run(&app, &loaded, &command),
        Command::Admin(args) => admin::run(&args, &loaded),
        Command::Config(_) | Command::Views(_) => unreachable!("answered above, without a runtime"),
    }
}
