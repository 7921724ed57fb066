//! One request to the database: timeout, retries, metrics, and the error for the caller.
//!
//! ```text
//! call ──▶ driver (token-aware, one attempt a node) ──▶ answer, or wait a moment and again, or StoreError
//! ```
//!
//! Writes of rows carry timestamps and transactions conditions, so both are idempotent and retried after a missing answer.

use std::future::Future;
use std::time::{Duration, Instant};

use rand::Rng;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};

use super::config::CqlConfig;
use crate::StoreError;

/// The first back-off; it doubles with each retry, up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Timeout for connecting to a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A session without prepared statements.
pub(super) async fn connect(config: &CqlConfig) -> Result<Session, StoreError> {
    config.check()?;
    let mut balancing = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &config.datacenter {
        balancing = balancing.prefer_datacenter(datacenter.clone()).permit_dc_failover(true);
    }
    let profile = ExecutionProfile::builder()
        .consistency(config.consistency.level())
        .serial_consistency(Some(config.consistency.serial()))
        .request_timeout(Some(config.request_timeout()))
        .load_balancing_policy(balancing.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .connection_timeout(CONNECT_TIMEOUT)
        // Enough for token-awareness.
        .keyspaces_to_fetch([&config.keyspace])
        .default_execution_profile_handle(profile.into_handle());
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        builder = builder.user(user, password);
    }
    builder.build().await.map_err(|error| {
        StoreError::Unavailable(format!("could not connect to the database at {}: {error}", config.nodes.join(", ")))
    })
}

/// Retries a request, with at most `attempts` attempts. `statement` labels the metrics.
pub(super) async fn answered<T, F>(attempts: u32, statement: &'static str, mut send: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, ExecutionError>>,
{
    let mut wait = WAIT_FIRST;
    let mut attempt = 1;
    loop {
        let began = Instant::now();
        let outcome = send().await;
        metrics::histogram!("store_request_duration_seconds", "statement" => statement).record(began.elapsed().as_secs_f64());
        match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) if is_refusal(&error) => return Err(StoreError::Refused(format!("{statement}: {error}"))),
            Err(error) if attempt >= attempts => {
                metrics::counter!("store_request_failures_total", "statement" => statement).increment(1);
                return Err(StoreError::Unavailable(format!("{statement}, tried {attempt} times: {error}")));
            }
            Err(_) => {
                metrics::counter!("store_retries_total", "statement" => statement).increment(1);
                // Jitter: many callers may wait for the same node.
                let share = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(wait.mul_f64(share)).await;
                wait = (wait * 2).min(WAIT_MAX);
                attempt += 1;
            }
        }
    }
}

/// Whether the database understood the request and rejects it, so that a retry cannot help.
fn is_refusal(error: &ExecutionError) -> bool {
    let attempt = match error {
        ExecutionError::BadQuery(_) => return true,
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt: attempt })
        | ExecutionError::LastAttemptError(attempt) => attempt,
        _ => return false,
    };
    match attempt {
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => true,
        RequestAttemptError::DbError(error, _) => matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::AlreadyExists { .. }
                | DbError::AuthenticationError
                | DbError::Unauthorized
                | DbError::ConfigError
        ),
        _ => false,
    }
}

/// Prepares a statement. The driver may send an idempotent one to another node.
pub(super) async fn prepare(session: &Session, text: String, idempotent: bool) -> Result<PreparedStatement, StoreError> {
    let mut prepared = session.prepare(text).await.map_err(|error| match error {
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(_, reason) } => {
            StoreError::Refused(format!("the database rejects a statement of this version: {reason}"))
        }
        error => StoreError::Unavailable(format!("could not prepare a statement: {error}")),
    })?;
    prepared.set_is_idempotent(idempotent);
    Ok(prepared)
}

/// Whether a lightweight transaction was applied: the first column. Cassandra returns the row only if it was not, `ScyllaDB`
/// always.
pub(super) fn was_applied(result: QueryResult) -> Result<bool, StoreError> {
    let rows = result.into_rows_result().map_err(|error| unreadable(&error))?;
    let row = rows.first_row::<Row>().map_err(|error| unreadable(&error))?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        other => Err(StoreError::Corrupt(format!("a transaction was answered with {other:?}"))),
    }
}

/// An answer that does not match the schema.
pub(super) fn unreadable(error: &dyn std::error::Error) -> StoreError {
    StoreError::Corrupt(format!("could not decode an answer of the database: {error}"))
}
