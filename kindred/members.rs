//! The members of an installation: their records, where their events go and how messages reach them.
//!
//! ```text
//! DIR/records or CQL ◀── Members ──▶ outbox ──▶ the topic members
//!                                          └──▶ SMTP and a gateway for phones, or the demo's mailbox
//! ```

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use kindred_api::LogEventSink;
use kindred_clock::Clock;
use kindred_config::Settings;
use kindred_config::members::MembersConfig;
use kindred_log::EventLog;
use kindred_members::senders::{ByChannel, Mailbox, Message, Sender, Smtp, Webhook};
use kindred_members::{Hashes, Members};
use kindred_store::cql::{CqlGenerations, CqlRecords};
use kindred_store::records::RecordStore;
use kindred_store::records::embedded::EmbeddedRecords;
use secrecy::SecretString;

use crate::directory::{SEALING_KEY, write_durably};
use crate::failure::Failure;

/// Where the records of a data directory are.
const RECORDS: &str = "records";

/// The settings with the keys that seal: those of the settings, then the one of the directory, which is made where there is none at all.
/// So what was sealed under the directory's key opens when another is set.
///
/// # Errors
/// When a file cannot be read or written.
pub fn with_sealing_keys(mut config: MembersConfig, directory: Option<&Path>) -> Result<MembersConfig> {
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("could not read the sealing key {}", path.display()));
    let mut keys = vec![config.sealing.key.clone()];
    if !config.sealing.key_file.as_os_str().is_empty() {
        keys.push(read(&config.sealing.key_file)?);
    }
    let is_set = keys.iter().any(|key| !key.trim().is_empty());
    if let Some(directory) = directory {
        let own = directory.join(SEALING_KEY);
        if !is_set && !own.exists() {
            write_durably(&own, format!("{}\n", kindred_members::draw_sealing_key()).as_bytes())?;
        }
        if own.exists() {
            keys.push(read(&own)?);
        }
    } else if !is_set {
        tracing::warn!(
            "signing keys, secrets of authenticators and the secret of refresh tokens lie unsealed in the database: set \
             members.sealing.key or members.sealing.key_file"
        );
    }
    config.sealing.key = keys.join(" ");
    Ok(config)
}

/// The records of a data directory, which this process owns.
///
/// # Errors
/// When they cannot be opened.
pub async fn records_of_directory(directory: &Path) -> Result<Arc<dyn RecordStore>> {
    let path = directory.join(RECORDS);
    let opened = tokio::task::spawn_blocking(move || EmbeddedRecords::open(&path)).await.context("could not open the records")?;
    Ok(Arc::new(opened.context("could not open the records of members")?))
}

/// The records beside the generations of a keyspace.
///
/// # Errors
/// When the database does not answer, or was not migrated.
pub async fn records_of_services(generations: &CqlGenerations) -> Result<Arc<dyn RecordStore>> {
    Ok(Arc::new(CqlRecords::open_in(generations).await.context("could not open the records of members")?))
}

/// The members, where the installation keeps some. `mailbox` takes what would be sent, in place of SMTP and the gateway.
///
/// # Errors
/// A setting that is not accepted; what the store says.
pub async fn open(
    settings: &Settings,
    directory: Option<&Path>,
    records: Arc<dyn RecordStore>,
    log: Arc<dyn EventLog>,
    clock: &Clock,
    mailbox: Option<Mailbox>,
) -> Result<Option<Arc<Members>>> {
    if !settings.members.enabled {
        return Ok(None);
    }
    let config = with_sealing_keys(settings.members.clone(), directory)?;
    let sender: Arc<dyn Sender> = match mailbox {
        Some(mailbox) => Arc::new(mailbox),
        None => {
            let mail: Arc<dyn Sender> = if config.mail.host.is_empty() {
                Arc::new(Nowhere("members.mail.host"))
            } else {
                Arc::new(Smtp::new(&config.mail).map_err(|error| Failure::usage(error.to_string()))?)
            };
            let phone: Arc<dyn Sender> = if config.phone.url.is_empty() {
                Arc::new(Nowhere("members.phone.url"))
            } else {
                let secret = SecretString::from(config.phone.signing_password.clone());
                Arc::new(Webhook::new(config.phone.url.clone(), secret))
            };
            Arc::new(ByChannel { mail, phone })
        }
    };
    let opened = Members::open(records, clock.clone(), config, Arc::new(LogEventSink(log)), sender, Hashes::Strong).await;
    let opened = opened.map_err(|error| Failure::new(format!("could not open the members: {error}")))?;
    Ok(Some(Arc::new(opened.with_resources(kindred_api::member_resources()))))
}

/// Where messages wait that there is no way for: what names the setting is told with each try.
struct Nowhere(&'static str);

#[async_trait]
impl Sender for Nowhere {
    async fn send(&self, _: Message) -> Result<(), String> {
        Err(format!("{} names nothing: set it, and the message is sent", self.0))
    }
}
