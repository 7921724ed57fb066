//! What leaves this crate: records of `members` to the log, mails and phone messages to people. Each goes through a trait, so that the
//! log is Kafka or embedded, and a mail goes by SMTP, to the demo's mailbox page, or to a test.

mod mailbox;
mod smtp;
mod templates;
mod webhook;

use async_trait::async_trait;
use kindred_model::records::MemberRecord;
use kindred_model::units::EventTime;
use serde::{Deserialize, Serialize};

pub use mailbox::{Kept, Mailbox};
pub use smtp::Smtp;
pub use webhook::Webhook;

pub(crate) use templates::{Template, Templates};

use kindred_config::members::Language;

/// Where the records of `members` go.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Appends a record, durably when it returns. The same record may come twice: it has its version, and the merge takes one of them.
    ///
    /// # Errors
    /// Why not; it comes again later.
    async fn append(&self, record: MemberRecord) -> Result<(), String>;
}

/// How a message reaches a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A mail.
    Mail,
    /// A message to a phone.
    Phone,
}

/// A text that is ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rendered {
    /// Of a mail; empty for a phone.
    pub subject: String,
    /// Plain text.
    pub body: String,
}

/// A message to a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The same however often it is sent: the Message-ID of a mail, the id of a webhook.
    pub id: String,
    /// An e-mail address, or a phone as E.164.
    pub to: String,
    /// How.
    pub channel: Channel,
    /// In which language it is.
    pub language: Language,
    /// When it was sent.
    pub at: EventTime,
    /// The text.
    pub rendered: Rendered,
}

/// What carries messages to people.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Hands a message over. It may come twice, under one id.
    ///
    /// # Errors
    /// Why not, without the message's text; it comes again later.
    async fn send(&self, message: Message) -> Result<(), String>;
}

/// Mails one way, phone messages another.
pub struct ByChannel<M, P> {
    /// Carries mails.
    pub mail: M,
    /// Carries phone messages.
    pub phone: P,
}

#[async_trait]
impl<M: Sender, P: Sender> Sender for ByChannel<M, P> {
    async fn send(&self, message: Message) -> Result<(), String> {
        match message.channel {
            Channel::Mail => self.mail.send(message).await,
            Channel::Phone => self.phone.send(message).await,
        }
    }
}

#[async_trait]
impl<S: Sender + ?Sized> Sender for std::sync::Arc<S> {
    async fn send(&self, message: Message) -> Result<(), String> {
        (**self).send(message).await
    }
}
