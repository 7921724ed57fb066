//! Open loop: requests are sent on schedule, not after the previous answer. A latency counts from when the request was due, which
//! avoids coordinated omission. A closed loop, for throughput, is beside it.
//!
//! ```text
//! pacer (a thread, as timers of an async runtime are a millisecond coarse) ──Due──▶ one task a connection ──▶ latencies
//! ```

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;

use crate::http::Connection;
use crate::report::{latencies, record};

/// Longest wait for the last answers of an open loop.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// A request that is due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Its number, from 0.
    pub number: u64,
    /// The start of its latency.
    pub at: Instant,
}

/// Sends due requests to `lanes` in turn, at `rate` a second, for `lasting` or until `stop` is set; returns their number.
pub fn pace(rate: f64, lasting: Duration, lanes: Vec<mpsc::UnboundedSender<Due>>, stop: &AtomicBool) -> u64 {
    // Otherwise the kernel may wake us 50 µs late. A failure costs only that accuracy.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    let total = (rate * lasting.as_secs_f64()) as u64;
    let began = Instant::now();
    for number in 0..total {
        let at = began + Duration::from_secs_f64(number as f64 / rate);
        let now = Instant::now();
        if at > now {
            std::thread::sleep(at - now);
        }
        if stop.load(Ordering::Relaxed) {
            return number;
        }
        // A closed lane has failed, which its task reports.
        let _ = lanes[number as usize % lanes.len()].send(Due { number, at });
    }
    total
}

/// Starts [`pace`] on a thread and returns the receivers of its lanes.
///
/// # Errors
/// When no thread can be started.
pub fn start(rate: f64, lasting: Duration, lanes: usize, stop: Arc<AtomicBool>) -> Result<Vec<mpsc::UnboundedReceiver<Due>>> {
    ensure!(rate > 0.0 && rate.is_finite(), "the rate is {rate}; a number above 0 is accepted");
    let (senders, receivers) = (0..lanes.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
    std::thread::Builder::new()
        .name("bench-pacer".to_owned())
        .spawn(move || pace(rate, lasting, senders, &stop))
        .context("could not start the pacer")?;
    Ok(receivers)
}

/// The result of a loop of reads.
#[derive(Debug)]
pub struct Reads {
    /// Latencies in nanoseconds: in an open loop since a request was due, in a closed one since it was sent.
    pub latencies: Histogram<u64>,
    /// Answers other than 2xx.
    pub failed: u64,
    /// The duration.
    pub took: Duration,
}

impl Reads {
    /// Fails if an answer was none of 2xx.
    ///
    /// # Errors
    /// Their number.
    pub fn check(&self, name: &str) -> Result<()> {
        ensure!(self.failed == 0, "{} of {} answers of {name} were no success", self.failed, self.latencies.len());
        Ok(())
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Reads in an open loop over `connections`, with `requests` in turn.
///
/// # Errors
/// When a connection fails, or answers are missing.
pub async fn open_loop(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    connections: usize,
    rate: f64,
    lasting: Duration,
) -> Result<Reads> {
    let began = Instant::now();
    let opened = connect(address, connections).await?;
    let lanes = start(rate, lasting, connections, Arc::new(AtomicBool::new(false)))?;
    let readers = opened
        .into_iter()
        .zip(lanes)
        .map(|(connection, mut lane)| Reader::new(connection, &requests).run(async move || lane.recv().await));
    let reads = tokio::time::timeout(lasting + LAST_ANSWERS, collect(readers, began)).await;
    reads.context("answers stayed out for 30 s after the last request")?
}

/// Reads in a closed loop over `connections`.
///
/// # Errors
/// When a connection fails.
pub async fn closed_loop(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    connections: usize,
    lasting: Duration,
) -> Result<Reads> {
    let opened = connect(address, connections).await?;
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let readers = opened.into_iter().map(|connection| {
        let next = Arc::clone(&next);
        Reader::new(connection, &requests).run(async move || {
            let at = Instant::now();
            (at - began < lasting).then(|| Due { number: next.fetch_add(1, Ordering::Relaxed), at })
        })
    });
    collect(readers, began).await
}

/// One connection of a loop.
struct Reader {
    connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    reads: Reads,
}

impl Reader {
    fn new(connection: Connection, requests: &Arc<Vec<Vec<u8>>>) -> Self {
        let reads = Reads { latencies: latencies(), failed: 0, took: Duration::ZERO };
        Self { connection, requests: Arc::clone(requests), reads }
    }

    /// Sends each request that is due, the next once the last was answered.
    async fn run(mut self, mut next: impl AsyncFnMut() -> Option<Due>) -> Result<Reads> {
        while let Some(due) = next().await {
            let request = &self.requests[due.number as usize % self.requests.len()];
            let status = self.connection.exchange(request).await.context("a loop of reads")?.status;
            self.reads.failed += u64::from(!(200..300).contains(&status));
            record(&mut self.reads.latencies, due.at.elapsed());
        }
        Ok(self.reads)
    }
}

async fn connect(address: SocketAddr, connections: usize) -> Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(address).await.with_context(|| format!("could not connect to {address}"))?);
    }
    Ok(opened)
}

async fn collect(readers: impl Iterator<Item: Future<Output = Result<Reads>> + Send + 'static>, began: Instant) -> Result<Reads> {
    let tasks: Vec<_> = readers.map(tokio::spawn).collect();
    let mut all = Reads { latencies: latencies(), failed: 0, took: Duration::ZERO };
    for task in tasks {
        let reads = task.await.context("a task of the load generator panicked")??;
        all.latencies.add(&reads.latencies).expect("the same bounds");
        all.failed += reads.failed;
    }
    all.took = began.elapsed();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use warp::Filter;

    use super::*;
    use crate::http::get;
    use crate::report::quantile_ms;

    async fn server_that_stalls() -> SocketAddr {
        // The 21st answer takes 200 ms and delays all others.
        let seen = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        let route = warp::any().then(move || {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                let _held = gate.lock().await;
                if seen.fetch_add(1, Ordering::Relaxed) == 20 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                "ok"
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(route).incoming(listener).run());
        address
    }

    /// Coordinated omission: a stall of 200 ms at 200 requests a second delays 40 of them, not the one or two that were under
    /// way. A generator that sends the next request only after the last answer would report a p90 of next to nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_behind_a_slow_answer_counts_as_slow() {
        let address = server_that_stalls().await;
        let requests = Arc::new(vec![get("/", address, None)]);
        let reads = open_loop(address, requests, 2, 200.0, Duration::from_secs(1)).await.unwrap();
        assert_eq!((reads.latencies.len(), reads.failed), (200, 0), "every request that was due was sent and answered");
        assert!(quantile_ms(&reads.latencies, 0.9) > 50.0, "p90 is {} ms", quantile_ms(&reads.latencies, 0.9));
        assert!(quantile_ms(&reads.latencies, 0.5) < 50.0, "p50 is {} ms", quantile_ms(&reads.latencies, 0.5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_loop_counts_answers_and_failures() {
        let address = server_that_stalls().await;
        let requests = Arc::new(vec![get("/", address, None)]);
        let reads = closed_loop(address, requests, 4, Duration::from_millis(300)).await.unwrap();
        assert!(reads.latencies.len() > 20 && reads.failed == 0 && reads.per_second() > 60.0, "{}", reads.per_second());
        assert!(open_loop(address, Arc::new(vec![Vec::new()]), 1, 0.0, Duration::ZERO).await.is_err());
    }
}
