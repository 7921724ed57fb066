//! `kindred export`: the rows of a view on standard output, and nothing else.

use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use clap::Args;
use kindred_config::Loaded;
use kindred_model::Day;
use kindred_model::views::ViewName;

use crate::app::App;
use crate::cli::{TargetArgs, day};
use crate::client::Client;
use crate::failure::{Failure, counted, exit};
use crate::import::Format;
use crate::installation::Open;
use crate::remote::segment;

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

/// Bytes written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Runs `kindred export`.
///
/// # Errors
/// When the directory or the server cannot be used. A reader that went away is none.
pub fn run(app: &App, loaded: &Loaded, args: &ExportArgs) -> Result<u8> {
    let view = args.view;
    let client = Client::open(app, loaded, &args.target, Open::Existing, &format!("export {view}"))?;
    let lag = client.lag(app)?;
    if lag > 0 {
        let records = counted(lag, "record of the log is", "records of the log are");
        eprintln!("{records} not taken in yet; the rows are of those before");
        // Services take records in all the while; a directory that nobody serves stays as it is.
        if !args.stale && client.is_on_directory() {
            let help = "run `kindred serve` (on services `kindred pipeline`) until it has caught up, or give --stale";
            return Err(Failure::new("the views are behind the log").code(exit::NOT_NOW).help(help).into());
        }
    }
    let format = if args.format == Format::Csv { "csv" } else { "ndjson" };
    let as_of = args.as_of.map(|day| format!("&as_of={day}")).unwrap_or_default();
    let written = copy(client.stream(&format!("/v1/admin/export/{}?format={format}{as_of}", segment(view.info().name)))?)?;
    match written {
        Ok(()) => Ok(exit::FINE),
        // `kindred export … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::FINE),
        Err(error) => Err(error).context("could not write to standard output"),
    }
}

/// Copies an answer to standard output; tells apart which of the two ends failed.
fn copy(mut answer: impl Read) -> Result<io::Result<()>> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = answer.read(&mut buffer).context("the export broke off; what was written so far is not whole")?;
        if read == 0 {
            return Ok(out.flush());
        }
        if let Err(error) = out.write_all(&buffer[..read]) {
            return Ok(Err(error));
        }
    }
}
