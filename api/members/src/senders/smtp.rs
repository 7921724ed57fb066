//! Mails by SMTP. Headers are built by lettre from parsed values: no text can add a header or a recipient (V1.3.11).

use std::time::Duration;

use async_trait::async_trait;
use kindred_config::members::{MailConfig, MailSecurity};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox as Address, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::{Message, Sender};
use crate::error::{MemberError, Result};

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
    pub fn new(config: &MailConfig) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| MemberError::Internal(format!("members.mail: {why}"));
        let from = config.from.parse().map_err(|error| failed(&format_args!("from {:?}: {error}", config.from)))?;
        let builder = match config.security {
            MailSecurity::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(&config.host).map_err(|error| failed(&error))?,
            MailSecurity::StartTls => {
                AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(&config.host).map_err(|error| failed(&error))?
            }
            MailSecurity::None => AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host),
        };
        let mut builder = builder.port(config.port).timeout(Some(Duration::from_secs(15)));
        if !config.user.is_empty() {
            builder = builder.credentials(Credentials::new(config.user.clone(), config.password.clone()));
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
