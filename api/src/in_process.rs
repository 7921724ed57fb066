//! The API without a server: a command calls it in its own process, as the operator at the machine. It has no address and no key, and
//! what goes on beside requests in a server does not go on here.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Handle;
use tokio::sync::watch;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::auth::Grant;
use crate::context::{ApiConfig, Context};
use crate::{StartError, prepare, routes};

/// Who calls: an extension of a request, which none has that came over a connection.
#[derive(Clone)]
pub(crate) struct Operator(pub Arc<Grant>);

/// An API that is called.
pub struct InProcess {
    routes: BoxedFilter<(Response,)>,
    operator: Operator,
    runtime: Handle,
}

impl InProcess {
    /// Opens it for the operator of this name, on the runtime that it is called in.
    ///
    /// # Errors
    /// [`StartError`], but that of an address.
    pub async fn open(config: ApiConfig, context: Context, operator: String) -> Result<Self, StartError> {
        let api = prepare(config, context, watch::channel(false).1).await?;
        let operator = Operator(Arc::new(Grant::operator(operator)));
        Ok(Self { routes: routes::public(&api), operator, runtime: Handle::current() })
    }

    /// Answers a request. This blocks, and so does reading the body: not for asynchronous code.
    pub fn answer(&self, mut request: http::Request<Vec<u8>>) -> http::Response<impl Read + Send + Sync + use<>> {
        request.extensions_mut().insert(self.operator.clone());
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let Ok(answer) = self.runtime.block_on(service.call(request.map(Full::<Bytes>::from)));
        answer.map(|body| BodyReader { runtime: self.runtime.clone(), body: body.boxed(), left: Bytes::new() })
    }
}

/// Reads a body as it comes.
struct BodyReader {
    runtime: Handle,
    body: BoxBody<Bytes, warp::Error>,
    left: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            let Some(frame) = self.runtime.block_on(self.body.frame()) else { return Ok(0) };
            self.left = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
        }
        let read = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
