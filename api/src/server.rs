//! Accepts connections, limits them and drains them at shutdown.
//!
//! ```text
//! accept ──per-address limit──▶ connection (write timeout) ──▶ request ──GET, HEAD, OPTIONS──▶ routes, dropped when the client goes away
//!                                                               └──other methods──▶ a task of its own, which runs to completion
//! ```
//!
//! warp's own server has no timeouts on reads and writes and leaves Nagle's algorithm on, which delays small events of a stream
//! by up to 40 ms; so the filters run as a service on hyper's connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use ipnet::Ipv6Net;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use warp::Reply;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::api::Api;
use crate::auth;
use crate::completion::run_to_completion;
use crate::compression::{accepts_gzip, compress};
use crate::problem::{Code, Problem};
use crate::routes::middleware::Exchange;
use crate::write_timeout::WriteTimeout;

/// How long a request head may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request head (request line and headers).
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long running requests may take after shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after `accept` failed, for example because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping` is true; returns when the last request has ended or the drain timed out.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    routes: BoxedFilter<(Response,)>,
    mut stopping: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(api.config.limits.connections));
    // Every task of a request that changes state holds a sender: when all are dropped, none is running.
    let (running, mut ended) = mpsc::channel::<Infallible>(1);
    let addresses = Arc::new(ConnectionsByAddress::default());
    let stall = Duration::from_millis(api.config.limits.write_stall_ms);
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let Some(address_permit) = addresses.take(peer.ip(), &api) else {
            metrics::counter!("api_connections_refused_total").increment(1);
            // Best effort: written only if the socket takes it at once.
            let _ = stream.try_write(TOO_MANY_CONNECTIONS);
            continue;
        };
        let service = ConnectionService {
            api: api.clone(),
            peer: Peer(peer.ip()),
            routes: TowerToHyperService::new(warp::service(routes.clone())),
            running: running.clone(),
        };
        let connection = graceful.watch(http.serve_connection(TokioIo::new(WriteTimeout::new(stream, stall)), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients that disconnect or speak no HTTP.
                tracing::debug!("connection error: {error}");
            }
            drop((permit, address_permit));
        });
    }
    drop(listener);
    drop(running);
    let drained = async {
        graceful.shutdown().await;
        ended.recv().await;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("shutdown: aborted requests that were still running after {DRAIN_TIMEOUT:?}");
    }
}

/// The peer address of the connection: an extension of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer(pub IpAddr);

/// The client address that limits are counted by: an extension of every request. IPv6 addresses count by their /64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address(pub IpAddr);

impl Address {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).network().into(),
            address => address,
        })
    }

    fn of_request<B>(api: &Api, peer: IpAddr, request: &Request<B>) -> Self {
        let trusted = &api.config.trusted_proxies;
        let forwarded = request.headers().get_all("x-forwarded-for");
        if trusted.is_empty() || forwarded.iter().next().is_none() {
            return Self::of(peer);
        }
        let forwarded: Vec<&str> = forwarded.iter().filter_map(|value| value.to_str().ok()).collect();
        let client = auth::address(Some(peer), &forwarded.join(","), trusted);
        Self::of(client.parse().unwrap_or(peer))
    }
}

/// Open connections by address.
#[derive(Default)]
struct ConnectionsByAddress(Mutex<HashMap<IpAddr, usize>>);

struct AddressPermit {
    addresses: Arc<ConnectionsByAddress>,
    /// `None` for connections that are not counted.
    address: Option<IpAddr>,
}

impl ConnectionsByAddress {
    /// `None` when the address is at its limit. Connections of trusted proxies are not counted: they carry all visitors.
    fn take(self: &Arc<Self>, peer: IpAddr, api: &Api) -> Option<AddressPermit> {
        let Address(address) = Address::of(peer);
        let permit = |address| Some(AddressPermit { addresses: self.clone(), address });
        if api.config.trusted_proxies.iter().any(|proxies| proxies.contains(&peer.to_canonical())) {
            return permit(None);
        }
        let mut open = self.0.lock();
        let count = open.entry(address).or_default();
        if *count >= api.config.limits.connections_per_address {
            return None;
        }
        *count += 1;
        permit(Some(address))
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.addresses.0.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// The response to a connection over the limit, whose request is not read.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n\
    Retry-After: 5\r\nConnection: close\r\nContent-Length: 147\r\n\r\n\
    {\"type\":\"/problems/busy\",\"title\":\"Over capacity\",\"status\":503,\"code\":\"busy\",\"detail\":\"too many open connections from this address\",\"retry_after\":5}";

/// Handles the requests of one connection before routing.
struct ConnectionService<S> {
    api: Arc<Api>,
    peer: Peer,
    routes: S,
    running: mpsc::Sender<Infallible>,
}

impl<S> Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if request.version() == http::Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
            // Several Host headers allow request smuggling (RFC 9112, 3.2).
            return self.refuse(&request, Problem::new(Code::MalformedRequest, "a request has exactly one Host header"));
        }
        if *request.method() == Method::CONNECT {
            return self.refuse(&request, Problem::new(Code::MethodNotAllowed, "CONNECT is not supported"));
        }
        if request.headers().contains_key("x-forwarded-for") {
            self.api.forwarding.note(self.peer.0);
        }
        let address = Address::of_request(&self.api, self.peer.0, &request);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(address);
        let gzip = accepts_gzip(request.headers());
        match *request.method() {
            // hyper omits the body of a HEAD response; streams are not started for it.
            Method::HEAD => *request.method_mut() = Method::GET,
            Method::GET | Method::OPTIONS => {}
            _ => return self.run_detached(request),
        }
        let answered = self.routes.call(request);
        Box::pin(async move { answered.await.map(|response| compress(gzip, response)) })
    }
}

impl<S> ConnectionService<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    fn refuse(
        &self,
        request: &Request<Incoming>,
        problem: Problem,
    ) -> Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> {
        let answer = Exchange::of(Instant::now(), request).unrouted().finish(&self.api, problem.into_response());
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn run_detached(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> {
        let finish = Exchange::of(Instant::now(), &request);
        let (api, running, answered) = (self.api.clone(), self.running.clone(), self.routes.call(request));
        Box::pin(async move {
            let work = async move {
                let answered = answered.await;
                drop(running);
                answered
            };
            match run_to_completion(work).await {
                Ok(answered) => answered,
                Err(problem) => Ok(finish.finish(&api, Problem::into_response(problem))),
            }
        })
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("could not set TCP_NODELAY: {error}");
            }
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!("could not accept a connection: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
