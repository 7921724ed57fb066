//! `kindred export`: the rows of a view on standard output, and nothing else.

use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use clap::Args;
use kindred_api::export_writer::{ExportWriter, Format as Written};
use kindred_config::Loaded;
use kindred_model::Day;
use kindred_model::views::ViewName;
use kindred_model::views::{ExportContext, ViewInfo};

use crate::app::App;
use crate::cli::{TargetArgs, day};
use crate::failure::{Failure, counted, exit};
use crate::import::Format;
use crate::installation::{Installation, Open};
use crate::remote::{Target, segment};

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
    let view = args.view.info();
    let written = match Target::of(&args.target, loaded)? {
        Target::Here(place) => {
            let installation =
                app.runtime.block_on(Installation::open(&place, loaded, Open::Existing, &format!("export {}", view.name)))?;
            if !(view.enabled)(&installation.semantics) {
                return Err(Failure::new(format!("{installation} pins views.{}.enabled = false", view.name)).into());
            }
            let end = app.runtime.block_on(installation.log.end()).context("could not read the end of the log")?;
            let lag = installation.store.frontier().position.lag_behind(&end);
            if lag > 0 {
                let records = counted(lag, "record of the log is", "records of the log are");
                eprintln!("{records} not taken in yet; the rows are of those before");
                // Services take records in all the while; a directory that nobody serves stays as it is.
                if !args.stale && installation.directory().is_some() {
                    let help = "run `kindred serve` (on services `kindred pipeline`) until it has caught up, or give --stale";
                    return Err(Failure::new(format!("{installation} is behind its log")).code(exit::NOT_NOW).help(help).into());
                }
            }
            from_installation(app, &installation, view, args)?
        }
        Target::Server(remote) => {
            let format = if args.format == Format::Csv { "csv" } else { "ndjson" };
            let as_of = args.as_of.map(|day| format!("&as_of={day}")).unwrap_or_default();
            let answer = remote.stream(&format!("/v1/admin/export/{}?format={format}{as_of}", segment(view.name)))?;
            copy(answer)?
        }
    };
    match written {
        Ok(()) => Ok(exit::FINE),
        // `kindred export … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::FINE),
        Err(error) => Err(error).context("could not write to standard output"),
    }
}

fn from_installation(app: &App, installation: &Installation, view: &ViewInfo, args: &ExportArgs) -> Result<io::Result<()>> {
    let snapshot = installation.store.snapshot().context("could not read the store")?;
    let context = ExportContext {
        settings: &installation.semantics,
        as_of: args.as_of.unwrap_or_else(|| installation.semantics.program.zone().day(app.clock.now())),
    };
    let format = if args.format == Format::Csv { Written::Csv } else { Written::Ndjson };
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let mut writer = match ExportWriter::begin(format, view.columns, out) {
        Ok(writer) => writer,
        Err(error) => return Ok(Err(error)),
    };
    let mut failed = None;
    let rows = &*snapshot.rows;
    (view.export)(rows, None, context, &mut |cells| match writer.row(cells) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })
    .with_context(|| format!("could not read the rows of {}", view.name))?;
    Ok(match failed {
        Some(error) => Err(error),
        None => writer.finish().map(drop),
    })
}

/// Copies an answer to standard output; tells apart which of the two ends failed.
fn copy(mut answer: impl Read) -> Result<io::Result<()>> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = answer.read(&mut buffer).context("the server broke off; what was written so far is not whole")?;
        if read == 0 {
            return Ok(out.flush());
        }
        if let Err(error) = out.write_all(&buffer[..read]) {
            return Ok(Err(error));
        }
    }
}
