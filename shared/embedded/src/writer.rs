//! The one thread that writes to a database: what it is asked for waits in a queue, and each asker for the answer.

use tokio::sync::{mpsc, oneshot};

use crate::Failure;

/// What was asked for, and where the answer goes.
pub type Asked<Request, Answer, Error> = (Request, oneshot::Sender<Result<Answer, Error>>);

/// A thread that writes. When it is dropped it does what is queued, and the database is free afterwards.
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
    /// Starts it. `work` takes requests until there are no more; those beyond `most` wait for their turn to wait.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] where the system has no thread for it.
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

    /// Asks for something, which is done whether or not the answer is waited for.
    ///
    /// # Errors
    /// What is answered; [`Failure::Unavailable`] where the thread has ended.
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
