//! `kindred serve` and `kindred demo`: start, print the URL, stop on a signal.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use kindred_config::Loaded;

use crate::app::App;
use crate::failure::{Failure, exit};
use crate::server::{Running, StartConfig, start};

/// `kindred demo`
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// The demo's directory, new or made by an earlier demo; without it kindred-demo in the working directory
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the page and the API listen; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
}

/// From where a start reads the log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// Empty the store and rebuild it from the log alone.
    Beginning,
}

/// `kindred serve`
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The data directory; without it the setting data.dir (data)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the API listens; without it the setting api.listen (127.0.0.1:8080)
    #[arg(long, value_name = "ADDR:PORT", value_parser = kindred_config::listen_address)]
    pub listen: Option<SocketAddr>,
    /// `beginning` empties the store and rebuilds it from the log alone
    #[arg(long, value_name = "WHERE")]
    pub from: Option<From>,
}

/// The default directory of the demo: in the working directory, easy to find and delete.
const DEMO_DATA: &str = "kindred-demo";

/// Runs `kindred serve` until a signal, or until the pipeline ends by itself.
pub fn serve(app: &App, loaded: Loaded, args: &ServeArgs) -> Result<u8> {
    refuse_services(&loaded, "serve")?;
    let api = &loaded.settings.api;
    let config = StartConfig {
        data: args.data.clone().unwrap_or_else(|| loaded.settings.data.dir.clone()),
        listen: args.listen.unwrap_or(api.listen),
        admin_listen: Some(api.admin_listen),
        from_beginning: args.from == Some(From::Beginning),
        demo: false,
        command: "serve".to_owned(),
        clock: app.clock.clone(),
        loaded,
    };
    run(app, config, banner)
}

/// Runs `kindred demo`.
///
/// # Errors
/// As [`serve`].
pub fn demo(app: &App, loaded: Loaded, args: &DemoArgs) -> Result<u8> {
    refuse_services(&loaded, "demo")?;
    let api = &loaded.settings.api;
    let set = |name: &str| loaded.explicit.contains_key(name);
    // Somebody who tries it did not ask for a second address, and must not stumble over it.
    let admin_is_free = std::net::TcpListener::bind(api.admin_listen).is_ok();
    let config = StartConfig {
        // data.dir is where the settings have the shop's own data.
        data: args.data.clone().unwrap_or_else(|| PathBuf::from(DEMO_DATA)),
        listen: args.listen.unwrap_or(api.listen),
        admin_listen: (set("api.admin_listen") || admin_is_free).then_some(api.admin_listen),
        from_beginning: false,
        demo: true,
        command: "demo".to_owned(),
        clock: app.clock.clone(),
        loaded,
    };
    println!("Kindred opens a simulated shop in {} …", config.data.display());
    run(app, config, demo_banner)
}

fn refuse_services(loaded: &Loaded, command: &str) -> Result<()> {
    if !loaded.settings.on_services() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "kindred {command} runs on a data directory, and log.kind=kafka and store.kind=cql name services"
    ))
    .help("on services run `kindred pipeline` and `kindred api`; `kindred migrate` makes what they need")
    .into())
}

fn run(app: &App, config: StartConfig, banner: fn(&Running) -> String) -> Result<u8> {
    app.runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = start(config) => running?,
            // Before anything is served there is nothing to drain, and a second start goes on where this one was.
            () = signals.next() => return Ok(exit::FINE),
        };
        print!("{}", banner(&running));
        tokio::select! {
            () = signals.next() => {}
            error = running.ended() => {
                let _grace = end_after_grace();
                let stopped = running.stop().await;
                if let Err(error) = stopped {
                    tracing::warn!("{error:#}");
                }
                return Err(error);
            }
        }
        signals.end_in_order(running.stop()).await
    })
}

fn banner(running: &Running) -> String {
    let directory = &running.directory;
    let pinned = if directory.created { " (created, with its settings pinned)" } else { "" };
    let admin = running.admin_address.map(|address| format!("  metrics      http://{address}/metrics\n")).unwrap_or_default();
    format!(
        "Kindred serves at {url}\n  data         {data}{pinned}\n  service key  {key}\n{admin}  contract     {url}/openapi.json, to read: {url}/docs\n  \
         status       kindred status --url {url} --data {data}\n",
        url = running.url,
        data = directory.path.display(),
        key = directory.service_key_path().display(),
    )
}

fn demo_banner(running: &Running) -> String {
    let data = running.directory.path.display();
    let url = shown_to_browsers(&running.url);
    format!(
        "\n  Open {url}/ and watch the lists move.\n\n  data         {data} (delete it to start over)\n  service key  {key}\n  \
         look inside  kindred status --url {url} --data {data}\n  end          Ctrl-C\n",
        key = running.directory.service_key_path().display(),
    )
}

/// An address that listens everywhere is opened at this machine's own.
fn shown_to_browsers(url: &str) -> String {
    match url.strip_prefix("http://").and_then(|address| address.parse::<SocketAddr>().ok()) {
        Some(address) if address.ip().is_unspecified() => format!("http://{}:{}", Ipv4Addr::LOCALHOST, address.port()),
        _ => url.to_owned(),
    }
}

/// How long a process may take to end in order: the drain of the API, of the log, and some seconds for threads. What is not done by then
/// hangs, and the next start goes on where the store stands.
const GRACE: Duration = Duration::from_secs(45);

/// Ends the process after [`GRACE`], unless what is returned is dropped before. By a thread of its own: the runtime's may be what hangs.
#[must_use]
fn end_after_grace() -> std::sync::mpsc::Sender<()> {
    let (called_off, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if waiting.recv_timeout(GRACE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "did not end in order within {} s: ended at once, and nothing that was acknowledged is lost",
                GRACE.as_secs()
            );
            std::process::exit(i32::from(exit::FAILED));
        }
    });
    called_off
}

/// SIGTERM and SIGINT, one after another.
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| signal(kind).context("could not listen for signals");
            Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for a process to end in order; another signal ends it at once, and so does the end of its grace time.
    pub async fn end_in_order(&mut self, stop: impl Future<Output = Result<()>>) -> Result<u8> {
        eprintln!("ending in order; once more ends at once, and loses nothing that was acknowledged");
        let _grace = end_after_grace();
        tokio::select! {
            stopped = stop => stopped.map(|()| exit::FINE),
            () = self.next() => {
                eprintln!("ended at once");
                std::process::exit(i32::from(exit::FAILED));
            }
        }
    }

    /// Waits for the next.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
