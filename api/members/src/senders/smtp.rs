//! Mails by SMTP. Headers are built by lettre from parsed values: no text can add a header or a recipient (V1.3.11).

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox as Address, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Message, Sender};
use crate::error::{MemberError, Result};

/// How the connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpSecurity {
    /// TLS from the first byte (port 465).
    Tls,
    /// STARTTLS, required (port 587).
    StartTls,
    /// None: a relay on the same machine, or a test.
    None,
}

/// `members.smtp.*`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: SmtpSecurity,
    /// User and password, where it asks for them.
    #[serde(default)]
    pub user: Option<String>,
    /// The password.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// `From`: `Shop <shop@example.com>`.
    pub from: String,
}

/// Sends by SMTP.
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Address,
}

impl Smtp {
    /// Of the settings; connects when it first sends.
    ///
    /// # Errors
    /// A `from` that is no address, a host that is none.
    pub fn new(config: &SmtpConfig) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| MemberError::Internal(format!("members.smtp: {why}"));
        let from = config.from.parse().map_err(|error| failed(&format_args!("from {:?}: {error}", config.from)))?;
        let builder = match config.security {
            SmtpSecurity::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(&config.host).map_err(|error| failed(&error))?,
            SmtpSecurity::StartTls => {
                AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(&config.host).map_err(|error| failed(&error))?
            }
            SmtpSecurity::None => AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host),
        };
        let mut builder = builder.port(config.port).timeout(Some(Duration::from_secs(15)));
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
        }
        Ok(Self { transport: builder.build(), from })
    }
}

#[async_trait]
impl Sender for Smtp {
    async fn send(&self, message: Message) -> Result<(), String> {
        let to = message.to.parse().map_err(|_| "the address does not parse".to_owned())?;
        let to = Address::new(None, to);
        let domain = self.from.email.domain();
        let mail = MessageBuilder::new()
            .from(self.from.clone())
            .to(to)
            .subject(message.rendered.subject)
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            .header(ContentType::TEXT_PLAIN)
            .body(message.rendered.body)
            .map_err(|error| error.to_string())?;
        self.transport.send(mail).await.map(drop).map_err(|error| error.to_string())
    }
}
