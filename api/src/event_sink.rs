//! Appends the records of the members service to the topic `members`.

use std::sync::Arc;

use async_trait::async_trait;
use kindred_log::EventLog;
use kindred_members::EventSink;
use kindred_model::Topic;
use kindred_model::records::MemberRecord;

/// An [`EventSink`] on an event log.
pub struct LogEventSink(pub Arc<dyn EventLog>);

#[async_trait]
impl EventSink for LogEventSink {
    async fn append(&self, record: MemberRecord) -> Result<(), String> {
        let appended = self.0.append(Topic::Members, vec![record.canonical()], None).await;
        kindred_telemetry::fail_point("log: members");
        appended.map(drop).map_err(|error| error.to_string())
    }
}
