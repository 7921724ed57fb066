//! The storefront widget: one file without dependencies.

use std::sync::LazyLock;

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::endpoint::prelude::*;
use super::names;
use crate::recommend::etag_of;

const WIDGET: &str = include_str!("../../widget/widget.js");
/// Needed by pages with `Cross-Origin-Embedder-Policy: require-corp`.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
static VALIDATOR: LazyLock<HeaderValue> = LazyLock::new(|| etag_of(WIDGET.as_bytes()));

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "widget",
        [get("/widget.js", Anyone, show_widget)
            .ignores_query()
            .says("The widget `<kindred-list item=\"…\" public-key=\"…\">`. It is public, so any page may load it.")
            .header("If-None-Match", "an ETag: 304 if unchanged")
            .answers_as(200, &["text/javascript"], "the script")
            .answers_nothing(304, "not modified")],
    )
}

async fn show_widget(request: Request) -> Answered {
    let mut response = if request.header("if-none-match")?.is_some_and(|tags| names(tags, &VALIDATOR)) {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(WIDGET.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, VALIDATOR.clone());
    // Short, so that shops get fixes soon; revalidation costs a 304.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300, must-revalidate"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    Ok(response)
}
