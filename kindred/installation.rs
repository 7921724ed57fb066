//! Where log, store and pinned settings are: a data directory of this process, or services that many processes share. What every
//! command works on.
//!
//! ```text
//! --data, data.dir ──▶ Directory (embedded, one owner)  ┐
//! log.kind=kafka, store.kind=cql ──▶ Services (shared)  ┴──▶ Installation { semantics, log, store }
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use kindred_clock::Clock;
use kindred_config::Loaded;
use kindred_log::EventLog;
use kindred_members::Members;
use kindred_model::Semantics;
use kindred_store::ViewStore;
use kindred_store::generations::Generations;
use kindred_store::records::RecordStore;

use crate::directory::Directory;
use crate::failure::Failure;
use crate::members;
use crate::services::Services;

/// Whether what is not there is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// A directory is created, with the settings pinned in it. Services are made by `kindred migrate` alone.
    OrCreate,
    /// As `OrCreate`, for the demo: the directory is marked as one with made-up data, and one without the mark is refused.
    Demo,
    /// That is an error.
    Existing,
    /// As `Existing`; a store that belongs to another log is accepted, since it is about to be rebuilt.
    ToRebuild,
    /// As `Existing`, by the pipeline of services.
    ToKeep,
    /// As `Existing`, whatever the format: something is added beside it.
    ToAdd,
}

impl Open {
    /// Whether a directory that is not there is made.
    pub const fn creates(self) -> bool {
        matches!(self, Self::OrCreate | Self::Demo)
    }

    /// Whether what an older version wrote is brought to today's format: by whoever goes on to keep the views, since nobody else may
    /// write them meanwhile.
    pub const fn migrates(self) -> bool {
        matches!(self, Self::OrCreate | Self::Demo | Self::ToRebuild | Self::ToKeep)
    }
}

/// Where an installation is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// On the services that the settings name.
    Services,
}

impl Place {
    /// What the command line and the settings say: `--data`, or the services of the settings, or `data.dir`.
    ///
    /// # Errors
    /// `--data` beside settings that name services.
    pub fn of(data: Option<&PathBuf>, loaded: &Loaded) -> Result<Self> {
        match data {
            Some(path) if loaded.settings.on_services() => Err(Failure::usage(format!(
                "--data names the directory {}, and log.kind=kafka and store.kind=cql name services",
                path.display()
            ))
            .help("leave --data out, or the settings of the services")
            .into()),
            Some(path) => Ok(Self::Directory(path.clone())),
            None if loaded.settings.on_services() => Ok(Self::Services),
            None => Ok(Self::Directory(loaded.settings.data.dir.clone())),
        }
    }
}

impl Place {
    /// Whether it was made already; services are made by `kindred migrate`.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Directory(path) => Directory::is_there(path),
            Self::Services => true,
        }
    }
}

/// Log, store and pinned settings, open.
pub struct Installation {
    /// What is pinned.
    pub semantics: Semantics,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The store: of services, the live generation.
    pub store: Arc<dyn ViewStore>,
    /// The records of members and the keys of the API, whichever generation is live.
    pub records: Arc<dyn RecordStore>,
    /// What they are.
    pub make: Make,
}

/// What an installation is made of.
pub enum Make {
    /// A directory, owned until this is dropped.
    Directory(Directory),
    /// Services.
    Services(Services),
}

impl Installation {
    /// Opens it for a command; of a directory, takes hold of it.
    ///
    /// # Errors
    /// A [`Failure`] that says what helps: as [`Directory::open`] and [`Services::open`].
    pub async fn open(place: &Place, loaded: &Loaded, open: Open, command: &str) -> Result<Self> {
        Ok(match place {
            Place::Directory(path) => Directory::open(path, loaded, open, command).await?.into(),
            Place::Services => Services::open(loaded, open).await?.into(),
        })
    }

    /// Its members, where it keeps some.
    ///
    /// # Errors
    /// As [`members::open`].
    pub async fn members(&self, loaded: &Loaded, clock: &Clock) -> Result<Option<Arc<Members>>> {
        let directory = self.directory().map(|directory| &*directory.path);
        let (records, log) = (Arc::clone(&self.records), Arc::clone(&self.log));
        members::open(&loaded.settings, directory, records, log, clock, None).await
    }

    /// The generations that lie side by side in it.
    pub fn generations(&self) -> &dyn Generations {
        match &self.make {
            Make::Directory(directory) => &*directory.generations,
            Make::Services(services) => &*services.generations,
        }
    }

    /// The name of the live one.
    pub fn live(&self) -> &str {
        match &self.make {
            Make::Directory(directory) => &directory.live,
            Make::Services(services) => &services.generation,
        }
    }

    /// The store of a generation and what it pins.
    ///
    /// # Errors
    /// There is none of that name, or it does not fit to the log.
    pub async fn generation(&self, name: &str) -> Result<(Arc<dyn ViewStore>, Semantics)> {
        match &self.make {
            Make::Directory(directory) => directory.generation(name).await,
            Make::Services(services) => services.generation_named(name).await,
        }
    }

    /// The directory, where it is in one.
    pub fn directory(&self) -> Option<&Directory> {
        match &self.make {
            Make::Directory(directory) => Some(directory),
            Make::Services(_) => None,
        }
    }

    /// The services, where it is on some.
    pub fn services(&self) -> Option<&Services> {
        match &self.make {
            Make::Services(services) => Some(services),
            Make::Directory(_) => None,
        }
    }
}

impl From<Directory> for Installation {
    fn from(directory: Directory) -> Self {
        let (log, store) = (Arc::clone(&directory.log), Arc::clone(directory.store()));
        Self {
            semantics: directory.semantics.clone(),
            log,
            store,
            records: Arc::clone(&directory.records),
            make: Make::Directory(directory),
        }
    }
}

impl From<Services> for Installation {
    fn from(services: Services) -> Self {
        let (log, store) = (Arc::clone(&services.log) as _, Arc::clone(&services.store) as Arc<dyn ViewStore>);
        let records = Arc::clone(&services.records);
        Self { semantics: services.semantics.clone(), log, records, store, make: Make::Services(services) }
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.make {
            Make::Directory(directory) => directory.path.display().fmt(f),
            Make::Services(services) => services.fmt(f),
        }
    }
}
