//! The single writer thread of a database: requests wait in its queue, callers for their answers.

use tokio::sync::{mpsc, oneshot};

use crate::Failure;

/// A request and the channel of its answer.
pub type Asked<Request, Answer, Error> = (Request, oneshot::Sender<Result<Answer, Error>>);

/// A writer thread. Dropping it processes the queue, after which the database is free.
pub struct Writer<Request, Answer, Error> {
    name: &'static str,
    queue: Option<mpsc::Sender<Asked<Request, Answer, Error>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<Request, Answer, Error> Writer<Request, Answer, Error>
where
    Request: Send + 'static,
    Answer: Send + 'static,
    Error: From<Failure> + Send + 'static,
{
    /// Starts the thread. `work` processes requests until there are no more; `most` is the queue's capacity.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the thread cannot be started.
    pub fn start(
        name: &'static str,
        most: usize,
        work: impl FnOnce(mpsc::Receiver<Asked<Request, Answer, Error>>) + Send + 'static,
    ) -> Result<Self, Failure> {
        let (queue, requests) = mpsc::channel(most);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(requests));
        let thread = thread.map_err(|error| Failure::Unavailable(format!("could not start the {name}: {error}")))?;
        Ok(Self { name, queue: Some(queue), thread: Some(thread) })
    }

    /// Sends a request, which is processed even if the caller stops waiting.
    ///
    /// # Errors
    /// Those of the answer; [`Failure::Unavailable`] when the thread has ended.
    pub async fn ask(&self, request: Request) -> Result<Answer, Error> {
        let gone = || Error::from(Failure::Unavailable(format!("the {} has stopped", self.name)));
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().expect("present until dropped");
        queue.send((request, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl<Request, Answer, Error> Drop for Writer<Request, Answer, Error> {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the {} panicked", self.name);
        }
    }
}
