//! Parsers of requests, for `fuzz/edges.rs` only.

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
use crate::routes::{middleware, precondition, with_cursor};

pub fn segment(raw: &str) -> Option<String> {
    params::decoded(raw).ok().map(std::borrow::Cow::into_owned)
}

pub fn query(raw: &str, known: &[&'static str]) -> Option<Vec<(&'static str, String)>> {
    let once: Vec<(&str, bool)> = known.iter().map(|name| (*name, false)).collect();
    let params = Params::parse(raw, &once).ok()?;
    Some(known.iter().filter_map(|name| Some((*name, params.get(name)?.to_owned()))).collect())
}

pub fn next_page(query: &str, cursor: &str) -> String {
    with_cursor(query, cursor)
}

pub fn cursor<T: DeserializeOwned>(query: &str) -> Option<T> {
    Params::parse(query, &[("cursor", false)]).ok()?.cursor().ok().flatten()
}

pub fn opaque<T: serde::Serialize>(cursor: &T) -> String {
    params::opaque(cursor)
}

pub fn trace(header: &str) -> String {
    middleware::trace(header)
}

pub fn hop(text: &str) -> Option<IpAddr> {
    auth::hop(text)
}

pub fn address(peer: Option<IpAddr>, forwarded: &str, trusted: &[IpNet]) -> String {
    auth::address(peer, forwarded, trusted)
}

pub fn language(accepted: &str) -> Option<Language> {
    auth::language(accepted)
}

/// The version of an `If-Match`, `None` for `*`.
pub fn version(if_match: Option<&str>) -> Result<Option<String>, u16> {
    precondition::required_version(if_match).map_err(|problem| problem.code.status().as_u16())
}

pub fn etag(version: &str) -> Option<HeaderValue> {
    precondition::etag(version).ok()
}

pub fn names(list: &str, etag: &HeaderValue) -> bool {
    precondition::names(list, etag)
}

pub fn names_version(list: &str, version: &str) -> bool {
    precondition::names_version(list, version)
}

pub fn refresh_cookie(headers: &HeaderMap) -> Option<String> {
    Some(Browser::of(headers).refresh().ok()?.expose_secret().to_owned())
}

/// `None` for invalid JSON; otherwise JSON pointer and code of the field error.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Option<(String, &'static str)>> {
    read_object(bytes).map_err(|misread| match misread {
        BodyError::NotJson => None,
        BodyError::Field { pointer, code } => Some((pointer, code)),
    })
}

pub fn presented(authorization: Option<&str>, query_key: Option<&str>) -> Option<String> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.parse().ok()?);
    }
    let caller = Caller::of(&headers, None).ok()?;
    auth::presented(&caller, query_key).ok().map(str::to_owned)
}
