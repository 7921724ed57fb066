//! `kindred config` and `kindred views`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kindred_config::{EXAMPLE, Loaded, Settings};
use kindred_model::views::ALL;
use serde_json::json;

use crate::directory::pinned_settings;
use crate::failure::exit;

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

/// Runs `kindred config`.
pub fn config(loaded: &Loaded, command: &ConfigCommand) -> Result<u8> {
    match command {
        ConfigCommand::Example => print!("{EXAMPLE}"),
        ConfigCommand::Show(args) => {
            let mut settings = loaded.settings.clone();
            if let Some(path) = &args.data {
                settings.semantics = pinned_settings(path, loaded)?;
                settings.data.dir.clone_from(path);
            }
            if let Some(file) = &loaded.file {
                println!("# from {}", file.display());
            }
            for (name, origin) in &loaded.origins {
                println!("# {name}: {origin}");
            }
            print!("{}", settings.to_toml());
        }
        ConfigCommand::Keys => {
            for (name, default) in leaves(&Settings::default())? {
                println!("{name} = {default}");
            }
        }
    }
    Ok(exit::FINE)
}

/// Every setting's dotted name and default.
fn leaves(settings: &Settings) -> Result<Vec<(String, toml::Value)>> {
    fn walk(above: &str, value: toml::Value, into: &mut Vec<(String, toml::Value)>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let name = if above.is_empty() { key } else { format!("{above}.{key}") };
                    walk(&name, value, into);
                }
            }
            leaf => into.push((above.to_owned(), leaf)),
        }
    }
    let mut names = Vec::new();
    walk("", toml::Value::try_from(settings).context("the settings do not serialise")?, &mut names);
    Ok(names)
}

/// Runs `kindred views`.
pub fn views(args: &ViewsArgs) -> u8 {
    for view in ALL {
        if args.json {
            let tables: Vec<&str> = (view.tables)().iter().map(|table| table.name).collect();
            let value = json!({
                "view": view.name, "summary": view.summary, "columns": view.columns, "route": view.route, "tables": tables,
            });
            println!("{value}");
        } else {
            println!("{}\n  {}\n  columns  {}\n  route    {}", view.name, view.summary, view.columns.join(", "), view.route);
        }
    }
    exit::FINE
}
