//! Serving: accepts connections, bounds them, and lets them end in order.
//!
//! warp's own server binds no timeouts to what a caller sends and leaves Nagle's algorithm on, which holds a small event of a
//! stream back by up to 40 ms; so the filters run as a service on hyper's connections here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::auth::Forwarding;

/// How long a request's head may take to arrive, and a connection may stay idle: a slow one must not hold a place for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head (line and headers).
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long running requests may take once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Before accepting again after the system refused (no file descriptors, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop; returns when the last request has ended, or was given up.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    connections: usize,
    forwarding: Arc<Forwarding>,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let service = TowerToHyperService::new(warp::service(routes.clone()));
        let service = FromPeer { peer: Peer(peer.ip()), forwarding: Arc::clone(&forwarding), service };
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // A caller that went away or spoke no HTTP is nobody's fault here.
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("gave up requests that took longer than {DRAIN_TIMEOUT:?} to end");
    }
}

/// The address at the other end of a connection: an extension of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer(pub IpAddr);

/// A service whose requests say where they come from.
struct FromPeer<S> {
    peer: Peer,
    forwarding: Arc<Forwarding>,
    service: S,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for FromPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if request.headers().contains_key("x-forwarded-for") {
            self.forwarding.note(self.peer.0);
        }
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("could not set TCP_NODELAY: {error}");
            }
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!("could not accept a connection: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
