//! What every command has: a runtime for the async ports, and the clock.

use anyhow::{Context, Result};
use kindred_clock::Clock;
use tokio::runtime::Runtime;

/// The process's own things.
pub struct App {
    /// Drives the async ports and the API.
    pub runtime: Runtime,
    /// What time it is.
    pub clock: Clock,
}

impl App {
    /// On the machine's clock, with a thread a core.
    ///
    /// # Errors
    /// When the machine gives no threads.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name(kindred_telemetry::IO_THREAD)
            .enable_all()
            .build()
            .context("could not start the threads of the runtime")?;
        Ok(Self { runtime, clock: Clock::system() })
    }
}
