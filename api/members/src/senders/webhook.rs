//! Phone messages as an HTTP POST to a gateway of the operator's choice, signed in the manner of Standard Webhooks.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::{Message, Sender};

/// Longest wait for the gateway.
const TIMEOUT: Duration = Duration::from_secs(10);

/// POSTs `{"to", "text", "language"}` with `webhook-id` (the same for the same message), `webhook-timestamp` and `webhook-signature`
/// (`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` under the secret).
#[derive(Clone)]
pub struct Webhook {
    url: String,
    secret: SecretString,
    agent: ureq::Agent,
}

impl Webhook {
    /// To an address, with a secret that the gateway knows.
    pub fn new(url: String, secret: SecretString) -> Self {
        // No redirects: the operator named one address.
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build();
        Self { url, secret, agent: config.into() }
    }
}

#[async_trait]
impl Sender for Webhook {
    async fn send(&self, message: Message) -> Result<(), String> {
        let body = serde_json::json!({ "to": message.to, "text": message.rendered.body, "language": message.language.tag() })
            .to_string();
        let timestamp = (message.at.0 / 1_000).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.expose_secret().as_bytes()).expect("any length of key is taken");
        mac.update(format!("{}.{timestamp}.{body}", message.id).as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let this = self.clone();
        // ureq blocks: not on a thread of the async runtime.
        let sent = tokio::task::spawn_blocking(move || {
            let request = this
                .agent
                .post(&this.url)
                .header("content-type", "application/json; charset=utf-8")
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", &timestamp)
                .header("webhook-signature", &signature);
            request.send(body).map(|answer| answer.status())
        });
        match sent.await.map_err(|error| error.to_string())? {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("the gateway answered {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}
