//! Work that runs to completion even if the client disconnects.
//!
//! ```text
//! request that changes state ──spawn──▶ task ──▶ the response, if the client is still there
//!                                         └── a step times out ──▶ the client gets a 503, and the task continues
//! ```
//!
//! A dropped future stops at its current `await`, which could leave an operation half done.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::problem::Problem;

tokio::task_local! {
    /// Sends the client of the running task an early response.
    static CALLER: Mutex<Option<oneshot::Sender<Problem>>>;
}

/// Runs `work` in a task of its own; within such a task, as part of it. Returns early with what [`respond_early`] was given, or
/// with a 500 after a panic.
pub(crate) async fn run_to_completion<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
    if CALLER.try_with(|_| ()).is_ok() {
        return Ok(work.await);
    }
    let (caller, early) = oneshot::channel();
    let task = tokio::spawn(CALLER.scope(Mutex::new(Some(caller)), work));
    tokio::select! {
        biased;
        Ok(problem) = early => Err(problem),
        done = task => done.map_err(Problem::internal),
    }
}

/// Responds to the client now, unless that happened before. False outside of [`run_to_completion`], where the caller has to
/// respond.
pub(crate) fn respond_early(problem: Problem) -> bool {
    let answered = CALLER.try_with(|caller| {
        if let Some(caller) = caller.lock().take() {
            // Fails if the client is gone.
            let _ = caller.send(problem);
        }
    });
    answered.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;
    use crate::problem::Code;

    /// If it failed, a client that hangs up would leave an operation half done.
    #[tokio::test]
    async fn work_goes_on_when_its_caller_is_gone() {
        let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = {
            let (go, ended) = (go.clone(), ended.clone());
            run_to_completion(async move {
                go.notified().await;
                ended.notify_one();
            })
        };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), work).await.is_err());
        go.notify_one();
        ended.notified().await;
    }

    #[tokio::test]
    async fn a_caller_is_answered_once_and_the_work_goes_on() {
        let ended = Arc::new(Notify::new());
        let told = ended.clone();
        let answered = run_to_completion(async move {
            assert!(
                respond_early(Problem::new(Code::Unavailable, "too long")) && respond_early(Problem::new(Code::Busy, "never"))
            );
            run_to_completion(async {}).await.expect("within the task it is a part of it");
            told.notify_one();
            std::future::pending::<()>().await;
        });
        assert_eq!(answered.await.expect_err("an early answer").code, Code::Unavailable);
        ended.notified().await;
        assert!(!respond_early(Problem::new(Code::Busy, "no task")));
        let panicked = run_to_completion(async { panic!("on purpose") }).await;
        assert_eq!(panicked.expect_err("an answer").code, Code::Internal);
    }
}
