//! The options that measurements share, as arguments of the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::report::Report;
use crate::server::{Binary, Endpoint, Preloaded, Server};
use crate::synthetic::Plan;

/// Every measurement's.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// A smoke run within seconds, on little data: its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Where results go [default: bench/results, or a temporary folder with --quick]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// A measurement's own options, and every measurement's.
#[derive(Args, Clone, Debug)]
pub struct Measurement<O: Args> {
    #[command(flatten)]
    common: Common,
    /// Its own.
    #[command(flatten)]
    pub options: O,
}

impl<O: Args + Options> Measurement<O> {
    /// Runs the measurement and leaves its results.
    ///
    /// # Errors
    /// Those of the measurement, or when the results cannot be written.
    pub fn run(mut self, run: impl FnOnce(&O) -> Result<Report>) -> Result<()> {
        let Common { quick, results } = self.common;
        if quick {
            self.options.quicken();
        }
        let usual = if quick { std::env::temp_dir().join("kindred-bench-quick") } else { PathBuf::from("bench/results") };
        run(&self.options)?.finish(&results.unwrap_or(usual)).map(drop)
    }
}

/// Those of measurements of the product.
#[derive(Args, Clone, Debug)]
pub struct Product {
    /// The binary to run [default: `kindred` beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where to put the data [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub within: Option<PathBuf>,
}

impl Product {
    /// The binary.
    ///
    /// # Errors
    /// When it is missing.
    pub fn binary(&self) -> Result<Binary> {
        Binary::find(self.binary.as_deref())
    }
}

/// Our own server, or a running one.
#[derive(Args, Clone, Debug)]
pub struct Running {
    /// Our own.
    #[command(flatten)]
    pub product: Product,
    /// A running server instead, like http://127.0.0.1:8080; give the options of the log it holds
    #[arg(long, requires = "key")]
    pub url: Option<String>,
    /// Its service key
    #[arg(long, requires = "url")]
    pub key: Option<String>,
}

impl Running {
    /// The running server, or our own that holds the purchases of `plan`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn or_own(&self, plan: &Plan) -> Result<(Endpoint, Option<(Server, Preloaded)>)> {
        if let (Some(url), Some(key)) = (&self.url, &self.key) {
            return Ok((Endpoint::parse(url, key)?, None));
        }
        let binary = self.product.binary()?;
        let preloaded = Preloaded::make(&binary, plan, None, Vec::new(), self.product.within.as_deref())?;
        let server = preloaded.serve(&binary).await?;
        Ok((server.endpoint.clone(), Some((server, preloaded))))
    }
}

/// The options of a measurement.
pub trait Options {
    /// Makes a smoke run of it.
    fn quicken(&mut self);
}

/// Implements [`Options`] for a module's options with what a smoke run changes.
macro_rules! quick {
    (|$options:ident| $quicken:expr) => {
        impl crate::options::Options for Options {
            fn quicken(&mut self) {
                let $options = self;
                $quicken
            }
        }
    };
}
pub(crate) use quick;

/// Reads seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// Reads a count above zero.
pub(crate) fn at_least_one() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}
