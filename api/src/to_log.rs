//! Where the records that members cause go: the topic `members` of the log.

use std::sync::Arc;

use async_trait::async_trait;
use kindred_log::EventLog;
use kindred_members::EventSink;
use kindred_model::Topic;
use kindred_model::records::MemberRecord;

/// Appends what members do to a log.
pub struct MembersToLog(pub Arc<dyn EventLog>);

#[async_trait]
impl EventSink for MembersToLog {
    async fn append(&self, record: MemberRecord) -> Result<(), String> {
        let appended = self.0.append(Topic::Members, vec![record.canonical()], None).await;
        kindred_telemetry::fail_point("log: members");
        appended.map(drop).map_err(|error| error.to_string())
    }
}
