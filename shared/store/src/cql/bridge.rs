//! A runtime of the store's own, so that it can be asked from any thread: from async code on whatever runtime, and from code that
//! is not async at all, which then waits.
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

pub(super) struct Bridge(Option<Runtime>);

impl Bridge {
    pub fn new() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("kindred-cql").enable_all().build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| StoreError::Unavailable(format!("could not start the threads of the store: {error}")))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("present until dropped")
    }

    /// Starts a task and does not wait for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(task);
    }

    /// Runs a task to its end, also when the caller goes away: a write is never left half by a dropped future.
    pub async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.runtime().spawn(task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(StoreError::Unavailable(format!("a request ended early: {error}"))),
        }
    }

    /// Starts a task; its answer is taken from the channel by a thread that may wait. The channel is a plain one on purpose: those of
    /// tokio refuse to wait on the threads of a runtime.
    pub fn ask<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Receiver<Result<T, StoreError>> {
        let (answer, receiver) = channel();
        self.runtime().spawn(async move {
            // Who asked may have gone.
            let _ = answer.send(task.await);
        });
        receiver
    }

    /// Waits for a task on the calling thread.
    pub fn wait<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        received(&self.ask(task))
    }
}

/// The answer of [`Bridge::ask`].
pub(super) fn received<T>(answer: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.recv().unwrap_or_else(|_| Err(StoreError::Unavailable("a request ended early".into())))
}

impl Drop for Bridge {
    /// Does not wait: the last owner may be async code, where waiting is not allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
