//! An installation on services: the log on Kafka, the store on CQL, of which one generation is live.
//!
//! ```text
//! kindred migrate ──▶ topics, schema, generation g1 (settings pinned in its row), promoted, a first service key
//! every other command ──▶ the live generation: its settings inherited, its fingerprint checked
//! ```
//!
//! There is no lock: the incarnation in the store guards what a pipeline writes, everything else may be done beside it.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use kindred_clock::Clock;
use kindred_config::{Loaded, Settings, check_pinned, pinned_toml, read_pinned};
use kindred_log::kafka::{KafkaLog, TopicReport};
use kindred_model::Semantics;
use kindred_store::cql::{CqlGenerations, CqlStore};
use kindred_store::generations::{Generation, Generations};
use kindred_store::keys::{KeyStore, move_from_named_values};
use kindred_store::records::RecordStore;
use kindred_store::{StoreError, ViewReader, ViewStore, ViewWriter};

use crate::app::App;
use crate::changes::Publisher;
use crate::failure::{Failure, exit};
use crate::fingerprint::{Subject, check_fingerprint};
use crate::installation::Open;
use crate::members::records_of_services;

/// What the first generation is called.
const FIRST_GENERATION: &str = "g1";
/// What the key that a migration makes is called.
const FIRST_KEY: &str = "first";

/// Log and store on services.
pub struct Services {
    /// What the generation pins.
    pub semantics: Semantics,
    /// The log.
    pub log: Arc<KafkaLog>,
    /// The store of the generation.
    pub store: Arc<CqlStore>,
    /// The records of members and the keys of the API.
    pub records: Arc<dyn RecordStore>,
    /// The generations beside it.
    pub generations: Arc<CqlGenerations>,
    /// The name of the generation: the live one, unless another was asked for.
    pub generation: String,
    /// Whether it was the live one when this was opened.
    pub is_live: bool,
    keyspace: String,
}

impl Services {
    /// Refuses a command that runs on services alone, where the settings name none.
    ///
    /// # Errors
    /// That, with what helps.
    pub fn required(command: &str, loaded: &Loaded) -> Result<()> {
        if loaded.settings.on_services() {
            return Ok(());
        }
        Err(Failure::usage(format!("kindred {command} runs on services, and log.kind and store.kind are embedded"))
            .help("`kindred serve` runs everything on a data directory; or name the services with --config FILE")
            .into())
    }

    /// Opens log and store, and the live generation.
    ///
    /// # Errors
    /// A [`Failure`] that names what is missing or does not answer, the settings that were given another value than is pinned, or
    /// what the generation does not fit to.
    pub async fn open(loaded: &Loaded, open: Open) -> Result<Self> {
        // Only their pipeline keeps the views, and migrates them.
        let open = if open.creates() { Open::Existing } else { open };
        Self::open_generation(loaded, open, None).await
    }

    /// As [`Services::open`], of the generation of that name in place of the live one.
    ///
    /// # Errors
    /// As [`Services::open`].
    pub async fn open_generation(loaded: &Loaded, open: Open, named: Option<&str>) -> Result<Self> {
        let settings = &loaded.settings;
        let generations = Arc::new(generations(settings).await?);
        let live = generations.live().await.context("could not ask which generation is live")?;
        let live = live.ok_or_else(|| missing("no generation is live"))?;
        let generation = named.map_or_else(|| live.clone(), str::to_owned);
        let is_live = generation == live;
        let row = find(&generations, &generation).await?.ok_or_else(|| unknown(&generation))?;
        let semantics = inherited(&row, loaded)?;
        let log = Arc::new(open_log(settings).await?);
        let store = CqlStore::open_in(&generations, &generation).await.context("could not open the store")?;
        let records = records_of_services(&generations).await?;
        move_from_named_values(&*records, store.named()).await.context("could not move the keys of the API")?;
        let services = Self {
            semantics,
            log,
            store: Arc::new(store),
            records,
            generations,
            generation,
            is_live,
            keyspace: settings.store.cql.keyspace.clone(),
        };
        services.check(open).await?;
        Ok(services)
    }

    async fn check(&self, open: Open) -> Result<()> {
        check_fingerprint(&*self.store, &*self.log, &self.semantics, open, &self.subject(&self.generation)).await
    }

    fn subject(&self, generation: &str) -> Subject {
        let of =
            if generation == self.generation && self.is_live { String::new() } else { format!(" --generation {generation}") };
        Subject {
            shown: shown(generation, &self.keyspace),
            pinned: "its row".to_owned(),
            rebuild: format!("kindred pipeline{of} --from beginning"),
            migrate: format!("kindred pipeline{of}"),
        }
    }

    /// The store of a generation and what it pins.
    ///
    /// # Errors
    /// There is none of that name, or it does not fit to the log.
    pub async fn generation_named(&self, name: &str) -> Result<(Arc<dyn ViewStore>, Semantics)> {
        if name == self.generation {
            return Ok((Arc::clone(&self.store) as _, self.semantics.clone()));
        }
        let row = self.row_of(name).await?.ok_or_else(|| unknown(name))?;
        let semantics = read_pinned(&row.settings).map_err(|error| Failure::new(error.to_string()))?;
        let store = CqlStore::open_in(&self.generations, name).await;
        let store = store.with_context(|| format!("could not open generation {name}"))?;
        check_fingerprint(&store, &*self.log, &semantics, Open::Existing, &self.subject(name)).await?;
        Ok((Arc::new(store), semantics))
    }

    /// The writer of a generation, for its pipeline: what it writes is published to those who follow.
    pub fn publisher(&self, name: &str, writer: Arc<dyn ViewWriter>) -> Arc<dyn ViewWriter> {
        Arc::new(Publisher { writer, broadcast: Arc::new(self.log.broadcast()), generation: name.to_owned() })
    }

    /// The row of a generation, if there is one of that name.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn row_of(&self, name: &str) -> Result<Option<Generation>> {
        find(&self.generations, name).await
    }

    /// The row of the generation: whether its last pipeline ended cleanly.
    ///
    /// # Errors
    /// When the store does not answer, or the generation was dropped.
    pub async fn row(&self) -> Result<Generation> {
        let row = self.row_of(&self.generation).await?;
        Ok(row.ok_or_else(|| missing(format!("{self} was dropped")))?)
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.generation, &self.keyspace))
    }
}

fn shown(generation: &str, keyspace: &str) -> String {
    format!("generation {generation} of keyspace {keyspace}")
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no generation {name}")).help("kindred generations names them")
}

fn missing(what: impl Into<String>) -> Failure {
    Failure::new(what).help("`kindred migrate` makes topics, keyspace, tables and the first generation")
}

async fn generations(settings: &Settings) -> Result<CqlGenerations> {
    let nodes = settings.store.cql.nodes.join(", ");
    let opened = CqlStore::generations_of(settings.store.cql.clone()).await;
    opened.map_err(|error| match error {
        StoreError::Refused(_) => missing(error.to_string()).into(),
        error => anyhow::Error::from(error).context(format!("could not open the store on {nodes} (store.cql.nodes)")),
    })
}

async fn open_log(settings: &Settings) -> Result<KafkaLog> {
    let brokers = &settings.log.kafka.brokers;
    let opened = KafkaLog::open(&settings.log.kafka).await;
    opened.map_err(|error| missing(format!("could not open the log on {brokers} (log.kafka.brokers): {error}")).into())
}

async fn find(generations: &CqlGenerations, name: &str) -> Result<Option<Generation>> {
    let all = generations.list().await.context("could not list the generations")?;
    Ok(all.into_iter().find(|generation| generation.name == name))
}

/// The settings of a generation, which commands may repeat.
fn inherited(generation: &Generation, loaded: &Loaded) -> Result<Semantics> {
    let pinned = read_pinned(&generation.settings).map_err(|error| Failure::new(error.to_string()))?;
    let checked = check_pinned(&pinned, &loaded.explicit, &loaded.settings.semantics);
    Ok(checked.map_err(|error| Failure::usage(error.to_string()))?)
}

/// Runs `kindred migrate`: makes what is missing and says what it did. Repeating it changes nothing.
///
/// # Errors
/// When a service does not answer or refuses, or what is there does not fit.
pub fn migrate(app: &App, loaded: &Loaded) -> Result<u8> {
    if !loaded.settings.on_services() {
        return Err(Failure::usage("there is nothing to migrate: log.kind and store.kind are embedded")
            .help("name the services with --config FILE, or --set log.kind=kafka --set store.kind=cql; a data directory is migrated by its first kindred serve")
            .into());
    }
    app.runtime.block_on(make(loaded, &app.clock))?;
    Ok(exit::FINE)
}

async fn make(loaded: &Loaded, clock: &Clock) -> Result<()> {
    let settings = &loaded.settings;
    let brokers = &settings.log.kafka.brokers;
    let topics = KafkaLog::create_topics(&settings.log.kafka).await;
    let topics = topics.with_context(|| format!("could not make the topics on {brokers} (log.kafka.brokers)"))?;
    for TopicReport { topic, created, partitions, .. } in topics {
        let done = if created { "made" } else { "is there" };
        println!("topic {topic} {done}, partitions: {partitions}");
    }

    let keyspace = &settings.store.cql.keyspace;
    let migrated = CqlStore::migrate(settings.store.cql.clone()).await;
    let nodes = settings.store.cql.nodes.join(", ");
    let migrated = migrated.with_context(|| format!("could not migrate the store on {nodes} (store.cql.nodes)"))?;
    let done = if migrated.applied.is_empty() {
        "is up to date".to_owned()
    } else {
        format!("migrated: {}", migrated.applied.join(", "))
    };
    let buckets = migrated.buckets;
    println!("keyspace {keyspace} {done}; partitions a table: {} of views, {} of inputs", buckets.views, buckets.inputs);

    let generations = generations(settings).await?;
    if generations.live().await.context("could not ask which generation is live")?.is_none() {
        // A migration that was interrupted made the row already: then its settings are the pinned ones.
        if find(&generations, FIRST_GENERATION).await?.is_none() {
            let pinned = pinned_toml(&settings.semantics);
            let created = generations.create(FIRST_GENERATION, &pinned, clock.now()).await;
            created.with_context(|| format!("could not make generation {FIRST_GENERATION}"))?;
            println!("generation {FIRST_GENERATION} made, with its settings pinned");
        }
        let promoted = generations.promote(FIRST_GENERATION).await;
        promoted.with_context(|| format!("could not promote generation {FIRST_GENERATION}"))?;
        println!("generation {FIRST_GENERATION} is live now");
    }
    let services = Services::open(loaded, Open::ToAdd).await?;
    println!("{services} is live, and fits to this log and these settings");

    let keys = KeyStore::open(Arc::clone(&services.records)).await.context("could not read the keys")?;
    if keys.list().is_empty() {
        let made = keys.create_service(FIRST_KEY, clock.now()).await.context("could not make a service key")?;
        println!("service key {} made; it is told this once: {}", made.key.id, made.token);
    }
    Ok(())
}
