//! Applied to every response: problem bodies, security headers, access log, metrics. Logs contain routes, never paths, which may
//! identify people.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_SECURITY_POLICY, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request};
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::api::Api;
#[cfg(test)]
use crate::problem::no_route;
use crate::problem::{Code, Problem, from_rejection};

/// The trace id of `traceparent` (W3C); 0 means none.
#[derive(Clone, Copy)]
struct TraceId(u128);

impl FromStr for TraceId {
    type Err = Infallible;
    /// The standard demands that an invalid header is ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trace = text.split('-').nth(1).filter(|id| id.len() == 32 && !id.starts_with('+'));
        Ok(Self(trace.and_then(|id| u128::from_str_radix(id, 16).ok()).unwrap_or(0)))
    }
}

pub(crate) fn trace(header: &str) -> String {
    header.parse::<TraceId>().unwrap_or(TraceId(0)).shown()
}

impl TraceId {
    fn shown(self) -> String {
        let id = if self.0 == 0 { uuid::Uuid::now_v7().as_u128() } else { self.0 };
        format!("{id:032x}")
    }
}

/// Wraps routes with the middleware.
pub(crate) fn finished(
    api: &Arc<Api>,
    routed: impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)> {
    let api = api.clone();
    let trace = warp::header::optional::<TraceId>("traceparent").or_else(|_| async { Ok::<_, Infallible>((None,)) });
    warp::any()
        .map(Instant::now)
        .and(warp::method())
        .and(warp::path::full())
        .and(trace)
        .and(warp::header::optional::<Origin>("origin").or_else(|_| async { Ok::<_, Infallible>((None,)) }))
        .and(routed.recover(rejected).unify())
        .map(move |begun, method, path: FullPath, trace, origin, response| {
            let finish = Exchange { begun, method, path: path.as_str().to_owned(), trace, origin };
            finish.finish(&api, response)
        })
        .boxed()
}

pub(super) async fn rejected(rejection: Rejection) -> Result<Response, Infallible> {
    Ok(from_rejection(&rejection).into_response())
}

/// What the middleware knows of the request.
pub(crate) struct Exchange {
    begun: Instant,
    method: Method,
    path: String,
    trace: Option<TraceId>,
    origin: Option<Origin>,
}

struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = http::header::InvalidHeaderValue;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HeaderValue::from_str(text).map(Self)
    }
}

impl Exchange {
    /// For responses that are made before routing.
    pub fn of<B>(begun: Instant, request: &Request<B>) -> Self {
        let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok()?.parse().ok());
        let origin = request.headers().get(ORIGIN).cloned().map(Origin);
        Self { begun, method: request.method().clone(), path: request.uri().path().to_owned(), trace, origin }
    }

    /// Without a route, for requests refused before routing.
    pub fn unrouted(self) -> Self {
        Self { path: "/".to_owned(), ..self }
    }

    /// Finalizes a response.
    pub fn finish(self, api: &Api, mut response: Response) -> Response {
        let Self { begun, method, path, trace, origin } = self;
        let route = api.table.template_of(&path);
        if method == Method::TRACE {
            response = Problem::new(Code::MethodNotAllowed, "TRACE is not supported").into_response();
        }
        #[cfg(test)]
        let unrouted = response.extensions().get::<Problem>().is_some_and(|problem| problem.detail == no_route().detail);
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let trace_id = trace.unwrap_or(TraceId(0)).shown();
            let allow = (problem.code == Code::MethodNotAllowed).then(|| match (route, &method) {
                (Some(template), _) => &*template.allow,
                // The extra routes (pages of the demo) are GET or POST.
                (None, &Method::GET) => "POST",
                (None, _) => "GET, HEAD",
            });
            let previous = std::mem::take(response.headers_mut());
            if problem.code.status().is_server_error() {
                let route = route.map_or("none", |template| template.path);
                tracing::warn!(trace_id, route, code = problem.code.name(), "server error: {}", problem.code.name());
            }
            response = problem.render(path.as_str(), &trace_id, allow);
            // Keeps the CORS and rate-limit headers.
            for (name, value) in &previous {
                response.headers_mut().append(name, value.clone());
            }
            // Any page may read why it was refused on routes for pages: a problem contains nothing else.
            let for_pages = route.is_none_or(|template| template.is_for_pages);
            if let Some(Origin(origin)) = origin.filter(|_| for_pages && !previous.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)) {
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
                if !previous.contains_key(VARY) {
                    headers.append(VARY, HeaderValue::from_static("Origin"));
                }
            }
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // For this host only; subdomains are up to the proxy. Browsers ignore it without TLS (RFC 6797, 8.1).
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        // /docs and the demo set their own.
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));

        let status = response.status().as_u16();
        let template = route.map_or("none", |template| template.path);
        // Every route test is also a contract test.
        #[cfg(test)]
        assert!(
            unrouted || crate::openapi::describes(route, &method, status),
            "{method} {template}: {status} is not in the contract"
        );
        let took = begun.elapsed();
        api.metrics.record(method_label(&method), template, status, took.as_secs_f64());
        if status >= 400 || method != Method::GET {
            tracing::info!(method = method_label(&method), route = template, status, us = took.as_micros(), "response {status}");
        } else {
            tracing::debug!(method = method_label(&method), route = template, status, us = took.as_micros(), "response {status}");
        }
        response
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_the_callers_or_new() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let Ok(trace) = format!("00-{id}-00f067aa0ba902b7-01").parse::<TraceId>();
        assert_eq!(trace.shown(), id);
        for none in ["", "00", "00-xyz-1-01", "00-00000000000000000000000000000000-1-01"] {
            let Ok(trace) = none.parse::<TraceId>();
            assert_eq!(trace.shown().len(), 32);
            assert_ne!(trace.shown(), "0".repeat(32));
        }
    }
}
