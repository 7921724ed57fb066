//! Maps Kafka errors to log errors.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::LogError;

/// The variant for a code: permanent errors are refused, everything else may be retried.
pub(super) fn from_code(code: RDKafkaErrorCode, doing: &str) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => LogError::Refused(format!(
            "{doing}: too large for the topic; raise its max.message.bytes (kafka-configs.sh), `kindred migrate` names the number"
        )),
        Code::TopicAuthorizationFailed => LogError::Refused(format!(
            "{doing}: not authorized; the user needs Read, Write, Describe and DescribeConfigs on the topics (kafka-acls.sh)"
        )),
        Code::ClusterAuthorizationFailed => {
            LogError::Refused(format!("{doing}: not authorized; the user needs IdempotentWrite or Write (kafka-acls.sh)"))
        }
        Code::PolicyViolation
        | Code::InvalidRecord
        | Code::InvalidTopic
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor => LogError::Refused(format!("{doing}: {code}")),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => LogError::Unavailable(format!(
            "{doing}: there is no such topic or partition; `kindred migrate` creates what is missing"
        )),
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            LogError::Unavailable(format!("{doing}: no broker answered in time"))
        }
        other => LogError::Unavailable(format!("{doing}: {other}")),
    }
}

/// As [`from_code`].
pub(super) fn from_error(error: &KafkaError, doing: &str) -> LogError {
    match error {
        KafkaError::ClientConfig(_, reason, name, _) => LogError::Refused(format!("log.kafka.properties.{name}: {reason}")),
        KafkaError::ClientCreation(reason) => LogError::Refused(format!("{doing}: {reason}")),
        error => match error.rdkafka_error_code() {
            Some(code) => from_code(code, doing),
            None => LogError::Unavailable(format!("{doing}: {error}")),
        },
    }
}

/// Counts an error and returns it.
pub(super) fn counted(error: LogError, call: &'static str) -> LogError {
    let kind = match &error {
        LogError::Unavailable(_) => "unavailable",
        LogError::Full(_) => "full",
        LogError::Refused(_) => "refused",
        LogError::Corrupt(_) => "corrupt",
    };
    metrics::counter!("log_errors_total", "call" => call, "kind" => kind).increment(1);
    error
}

/// Formats a duration.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
