//! Errors of the pipeline.

use kindred_log::LogError;
use kindred_model::views::ReadError;
use kindred_store::StoreError;

/// A variant exists because callers act differently on it.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A setting cannot be used; the message names it.
    #[error("{0}")]
    Settings(String),
    /// From the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// From the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A thread or its runtime could not be started.
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The position was not reached in time. Waiting again is safe.
    #[error("timed out after {0:?} waiting for the position")]
    Late(std::time::Duration),
    /// The pipeline has ended.
    #[error("the pipeline has ended: {0}")]
    Failed(String),
}
