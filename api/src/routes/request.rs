//! The request as seen by handlers: routed, authorized, with parsed parameters.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use kindred_members::{AccessClaims, Actor, Language, MemberError, Members, messages};
use kindred_model::{ItemId, MemberId};
use secrecy::SecretString;

use super::accounts::cookies::Browser;
use super::endpoint::{Endpoint, Segments};
use crate::api::Api;
use crate::auth::{Grant, Visitor};
use crate::params::{Params, decoded};
use crate::problem::{Code, FieldError, Problem};
use crate::server::Peer;

pub(crate) struct Request {
    pub api: Arc<Api>,
    pub endpoint: Arc<Endpoint>,
    /// What the caller may do; nothing on public endpoints.
    pub grant: Arc<Grant>,
    pub params: Params,
    pub path: String,
    /// The raw query.
    pub query: String,
    pub headers: HeaderMap,
    /// The client address for limits.
    pub address: Option<IpAddr>,
    pub(super) segments: Segments,
    pub(super) peer: Option<Peer>,
    pub(super) visitor: OnceLock<Visitor>,
}

impl Request {
    /// A percent-decoded path parameter, or a 400 if it is not UTF-8.
    pub fn segment(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        let segment = self.segments.iter().find(|(other, _)| other == name);
        decoded(&segment.unwrap_or_else(|| panic!("{} has no {name}", self.endpoint.path)).1)
    }

    pub fn item(&self) -> Result<ItemId, Problem> {
        ItemId::parse(&self.segment("item")?).map_err(|error| Problem::path(&error))
    }

    pub fn member(&self) -> Result<MemberId, Problem> {
        MemberId::parse(&self.segment("member")?).map_err(|error| Problem::path(&error))
    }

    /// A header, or a 400 if it is not visible ASCII.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        header(&self.headers, name)
    }

    pub fn visitor(&self) -> &Visitor {
        self.visitor.get_or_init(|| Visitor::of(&self.api, self.peer, &self.headers))
    }

    pub fn language(&self) -> Language {
        self.visitor().language
    }

    /// The client address for the audit log.
    pub fn from(&self) -> &str {
        &self.visitor().address
    }

    pub fn browser(&self) -> Browser {
        Browser::of(&self.headers)
    }

    pub fn actor(&self) -> Actor {
        self.grant.actor(self.from())
    }

    /// The claims of the signed-in person, or a 403.
    pub fn person(&self) -> Result<&Arc<AccessClaims>, Problem> {
        self.grant.person.as_ref().ok_or_else(|| Problem::new(Code::InsufficientScope, Code::InsufficientScope.meaning()))
    }

    /// The members service, or a 404 where accounts are disabled.
    pub fn members(&self) -> Result<&Members, Problem> {
        let none = || Problem::new(Code::NotFound, "this installation has no member accounts");
        self.api.context.members.as_deref().ok_or_else(none)
    }

    /// Localizes a problem; `staff` have another minimum password length.
    pub fn told(&self, problem: Problem, staff: bool) -> Problem {
        problem.told(&self.api, self.language(), staff)
    }

    /// A 422 about one field.
    pub fn invalid(&self, pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Problem {
        Problem { errors: vec![FieldError::body(pointer, code, message)], ..Problem::new(Code::Invalid, self.text("invalid")) }
    }

    /// A message in the language of the client.
    pub fn text(&self, code: &'static str) -> &'static str {
        messages::text(code, self.language()).unwrap_or(code)
    }
}

/// The current password; without it the response is that for a wrong one (V6.2.2, V7.5.1).
pub(crate) fn current(password: Option<SecretString>) -> Result<SecretString, Problem> {
    password.ok_or_else(|| MemberError::ReauthenticationFailed.into())
}

/// A header, or a 400 if it is not visible ASCII.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Problem> {
    let unreadable = |_| Problem::new(Code::MalformedRequest, format!("the header {name} is not readable"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}
