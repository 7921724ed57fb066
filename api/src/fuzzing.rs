//! What reads the parts of a request, for `fuzz/edges.rs` alone.

use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use kindred_members::Language;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use crate::auth::{self, Caller};
use crate::params::{self, Params};
use crate::routes::accounts::cookies::Browser;
use crate::routes::body::{BodyError, read_object};
use crate::routes::{linked, middleware, precondition};

/// A segment of a path, decoded.
pub fn segment(raw: &str) -> Option<String> {
    params::decoded(raw).ok().map(std::borrow::Cow::into_owned)
}

/// The parameters of a query, of these names.
pub fn query(raw: &str, known: &[&'static str]) -> Option<Vec<(&'static str, String)>> {
    let once: Vec<(&str, bool)> = known.iter().map(|name| (*name, false)).collect();
    let params = Params::parse(raw, &once).ok()?;
    Some(known.iter().filter_map(|name| Some((*name, params.get(name)?.to_owned()))).collect())
}

/// The query of the page after that of a query.
pub fn next_page(query: &str, cursor: &str) -> String {
    linked(query, cursor)
}

/// A cursor as it comes back.
pub fn cursor<T: DeserializeOwned>(query: &str) -> Option<T> {
    Params::parse(query, &[("cursor", false)]).ok()?.cursor().ok().flatten()
}

/// A cursor as it is given out.
pub fn opaque<T: serde::Serialize>(cursor: &T) -> String {
    params::opaque(cursor)
}

/// The trace that a `traceparent` names; another each time where it names none.
pub fn trace(header: &str) -> String {
    middleware::trace(header)
}

/// The address of one hop of `X-Forwarded-For`.
pub fn hop(text: &str) -> Option<IpAddr> {
    auth::hop(text)
}

/// The address that a request comes from, by its connection and `X-Forwarded-For`.
pub fn address(peer: Option<IpAddr>, forwarded: &str, trusted: &[IpNet]) -> String {
    auth::address(peer, forwarded, trusted)
}

/// The language of an `Accept-Language`.
pub fn language(accepted: &str) -> Option<Language> {
    auth::language(accepted)
}

/// The version that an `If-Match` names, `None` for any.
///
/// # Errors
/// The status of the answer.
pub fn version(if_match: Option<&str>) -> Result<Option<String>, u16> {
    precondition::required_version(if_match).map_err(|problem| problem.code.status().as_u16())
}

/// A version as an `ETag`.
pub fn etag(version: &str) -> Option<HeaderValue> {
    precondition::etag(version).ok()
}

/// Whether an `If-None-Match` names an `ETag`.
pub fn names(list: &str, etag: &HeaderValue) -> bool {
    precondition::names(list, etag)
}

/// Whether an `If-Match` names a version, of several that it may name.
pub fn names_version(list: &str, version: &str) -> bool {
    precondition::names_version(list, version)
}

/// The refresh token of a browser's cookies, as the shop's own page may use it.
pub fn refresh_cookie(headers: &HeaderMap) -> Option<String> {
    Some(Browser::of(headers).refresh().ok()?.expose_secret().to_owned())
}

/// A JSON object.
///
/// # Errors
/// `None` for what is no JSON; otherwise the pointer to what is wrong with it, and its code.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Option<(String, &'static str)>> {
    read_object(bytes).map_err(|misread| match misread {
        BodyError::NotJson => None,
        BodyError::Field { pointer, code } => Some((pointer, code)),
    })
}

/// What is presented in `Authorization` or in the query.
pub fn presented(authorization: Option<&str>, query_key: Option<&str>) -> Option<String> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.parse().ok()?);
    }
    let caller = Caller::of(&headers, None).ok()?;
    auth::presented(&caller, query_key).ok().map(str::to_owned)
}
