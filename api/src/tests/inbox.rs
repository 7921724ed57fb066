//! Messages and log lines of the API, captured for tests.

use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use kindred_members::Sender;
use kindred_members::senders::Message;
use parking_lot::Mutex;

/// Captures messages.
#[derive(Default)]
pub(super) struct Inbox(pub Mutex<Vec<Message>>);

#[async_trait]
impl Sender for Inbox {
    async fn send(&self, message: Message) -> Result<(), String> {
        self.0.lock().push(message);
        Ok(())
    }
}

impl Inbox {
    /// The last message to an address.
    pub fn last(&self, to: &str) -> Message {
        self.0.lock().iter().rev().find(|message| message.to == to).cloned().unwrap_or_else(|| panic!("nothing was sent to {to}"))
    }

    /// The number of messages to an address.
    pub fn sent(&self, to: &str) -> usize {
        self.0.lock().iter().filter(|message| message.to == to).count()
    }

    /// The digits of the last message to a phone.
    pub fn code(&self, phone: &str) -> String {
        let digits: String = self.last(phone).rendered.body.chars().filter(char::is_ascii_digit).collect();
        digits[..6].to_owned()
    }

    /// The fragment of the link in the last mail.
    pub fn token(&self, mail: &str) -> String {
        let body = self.last(mail).rendered.body;
        body.split_once('#').expect("a link").1.split_whitespace().next().unwrap().to_owned()
    }
}

/// Captured log lines.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// All of them so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
