//! The API as a command asks it: that of a running server, or one of this process, on a directory or on services. So a command is
//! written once, and what it changes passes the same checks and the same audit log.
//!
//! ```text
//! --url          ──HTTP──▶ kindred serve, kindred api
//! --data, config ──call──▶ InProcess ──▶ Installation (held until the command ends)
//! ```

use std::ops::Deref;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kindred_api::{Context, GenerationSource, InProcess};
use kindred_config::Loaded;
use kindred_members::Members;
use kindred_store::keys::KeyStore;

use crate::app::App;
use crate::audit::operator;
use crate::cli::TargetArgs;
use crate::generations::AtRest;
use crate::installation::{Installation, Open, Place};
use crate::local::Local;
use crate::operations::{Process, Views};
use crate::remote::{Remote, Target};
use crate::server::{api_config, explain_start};

/// How long a request of a command may take: nobody else waits.
const REQUEST_MS_MAX: u64 = 3_600_000;
/// How long an erasure waits for views that stood at the end of the log just before.
const ERASURE_WAIT_MS: u64 = 60_000;
/// How often what follows from an erased account is tried; the next server goes on with what is left.
const SWEEPS: usize = 5;

/// An API to ask.
pub struct Client {
    remote: Remote,
    here: Option<Here>,
}

/// What an API of this process is on.
struct Here {
    installation: Arc<Installation>,
    members: Option<Arc<Members>>,
}

impl Client {
    /// What the command line and the settings name.
    ///
    /// # Errors
    /// As [`Target::of`] and [`Installation::open`].
    pub fn open(app: &App, loaded: &Loaded, args: &TargetArgs, open: Open, command: &str) -> Result<Self> {
        match Target::of(args, loaded)? {
            Target::Server(remote) => Ok(Self { remote, here: None }),
            Target::Here(place) => app.runtime.block_on(Self::here(app, loaded, &place, open, command)),
        }
    }

    async fn here(app: &App, loaded: &Loaded, place: &Place, open: Open, command: &str) -> Result<Self> {
        let installation = Arc::new(Installation::open(place, loaded, open, command).await?);
        let keys = KeyStore::open(Arc::clone(&installation.records)).await.context("could not read the keys")?;
        let members = installation.members(loaded, &app.clock).await?;
        let settings = Arc::new(installation.semantics.clone());
        let context = Context {
            log: Arc::clone(&installation.log),
            // Without changes: no command asks for lists, and most would wait for them.
            live: Some(GenerationSource {
                store: Arc::clone(&installation.store) as _,
                changes: None,
                settings: Arc::clone(&settings),
            }),
            keys: Arc::new(keys),
            settings,
            operations: Arc::new(Process::new(Arc::clone(&installation.log), Views::AtRest(Arc::clone(&installation)))),
            generations: Some(Arc::new(AtRest::new(Arc::clone(&installation)))),
            members: members.clone(),
            clock: app.clock.clone(),
            render_metrics: None,
            extra: None,
        };
        let mut config = api_config(&loaded.settings, loaded.settings.api.listen, None, installation.live());
        (config.limits.handler_ms, config.limits.erasure_wait_ms) = (REQUEST_MS_MAX, ERASURE_WAIT_MS);
        let api = InProcess::open(config, context, operator()).await.map_err(explain_start)?;
        Ok(Self { remote: Remote::in_process(api), here: Some(Here { installation, members }) })
    }

    /// What an API of this process is on; none of a running server.
    pub fn installation(&self) -> Option<&Installation> {
        self.here.as_ref().map(|here| &*here.installation)
    }

    /// The same, where it is in a directory.
    pub fn is_on_directory(&self) -> bool {
        self.installation().is_some_and(|installation| installation.directory().is_some())
    }

    /// Records of the log that the views have not taken in, where no server does it meanwhile.
    ///
    /// # Errors
    /// When the log does not answer.
    pub fn lag(&self, app: &App) -> Result<u64> {
        let Some(installation) = self.installation() else { return Ok(0) };
        let end = app.runtime.block_on(installation.log.end()).context("could not read the end of the log")?;
        Ok(installation.store.frontier().position.lag_behind(&end))
    }

    /// Asks while the views follow the log: they have taken in all of it before, and what comes of it, durably, after. A running
    /// server's do by themselves.
    ///
    /// # Errors
    /// What is asked says; when the views do not move.
    pub fn while_views_follow<T>(&self, app: &App, loaded: &Loaded, ask: impl FnOnce(&Remote) -> Result<T>) -> Result<T> {
        let Some(here) = &self.here else { return ask(&self.remote) };
        let local = Local::start(app, loaded, Arc::clone(&here.installation))?;
        local.catch_up(app)?;
        let answer = ask(&self.remote);
        if let Some(members) = &here.members {
            for _ in 0..SWEEPS {
                let left =
                    app.runtime.block_on(members.sweep()).context("could not finish what follows from a change of members")?;
                if left == 0 {
                    break;
                }
            }
        }
        local.stop(app)?;
        answer
    }
}

impl Deref for Client {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}
