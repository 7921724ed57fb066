//! The store's own runtime, so that any thread can call it: async code on any runtime, and blocking code.
//!
//! ```text
//! async caller ──run──▶ task here ──▶ answer            thread ──wait──▶ task here ──▶ answer through a plain channel
//! ```

use std::future::Future;
use std::sync::mpsc::{Receiver, channel};

use tokio::runtime::{Builder, Runtime};

use crate::StoreError;

/// Threads that drive the connections; the database does the work.
const THREADS: usize = 2;

pub(super) struct StoreRuntime(Option<Runtime>);

impl StoreRuntime {
    pub fn new() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("kindred-cql").enable_all().build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| StoreError::Unavailable(format!("could not start the threads of the store: {error}")))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("present until dropped")
    }

    /// Spawns a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(task);
    }

    /// Runs a task to its end, even if the caller is cancelled: a dropped future never leaves half a write.
    pub async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.runtime().spawn(task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(StoreError::Unavailable(format!("a request ended early: {error}"))),
        }
    }

    /// Spawns a task for a thread that may block on the channel, which is of `std`: those of tokio refuse to block on a runtime's
    /// threads.
    pub fn ask<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Receiver<Result<T, StoreError>> {
        let (answer, receiver) = channel();
        self.runtime().spawn(async move {
            // The receiver may be gone.
            let _ = answer.send(task.await);
        });
        receiver
    }

    /// Blocks on a task.
    pub fn wait<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        received(&self.ask(task))
    }
}

/// The answer of [`StoreRuntime::ask`].
pub(super) fn received<T>(answer: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.recv().unwrap_or_else(|_| Err(StoreError::Unavailable("a request ended early".into())))
}

impl Drop for StoreRuntime {
    /// Does not block: the last owner may be async code.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
