//! A request as a handler sees it: matched, let in, its parameters read.

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

/// What is known of a request, but for its body.
pub(crate) struct Request {
    pub api: Arc<Api>,
    pub endpoint: Arc<Endpoint>,
    /// What who asks may do; nothing where the endpoint asks for nothing.
    pub grant: Arc<Grant>,
    pub params: Params,
    pub path: String,
    /// The query as it came.
    pub query: String,
    pub headers: HeaderMap,
    /// What requests are counted by.
    pub address: Option<IpAddr>,
    pub(super) segments: Segments,
    pub(super) peer: Option<Peer>,
    pub(super) visitor: OnceLock<Visitor>,
}

impl Request {
    /// A segment of the path, percent-decoded.
    ///
    /// # Errors
    /// A 400 where that is no UTF-8.
    pub fn segment(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        let segment = self.segments.iter().find(|(other, _)| other == name);
        decoded(&segment.unwrap_or_else(|| panic!("{} has no {name}", self.endpoint.path)).1)
    }

    /// The item of the path.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn item(&self) -> Result<ItemId, Problem> {
        ItemId::parse(&self.segment("item")?).map_err(|error| Problem::path(&error))
    }

    /// The member of the path.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn member(&self) -> Result<MemberId, Problem> {
        MemberId::parse(&self.segment("member")?).map_err(|error| Problem::path(&error))
    }

    /// A header.
    ///
    /// # Errors
    /// A 400 where it is not of visible ASCII.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        header(&self.headers, name)
    }

    /// Who asks, before anybody knows who it is.
    pub fn visitor(&self) -> &Visitor {
        self.visitor.get_or_init(|| Visitor::of(&self.api, self.peer, &self.headers))
    }

    /// The language that who asks is spoken to in.
    pub fn language(&self) -> Language {
        self.visitor().language
    }

    /// The address that the audit log and limits have of who asks.
    pub fn from(&self) -> &str {
        &self.visitor().address
    }

    /// The browser's cookies.
    pub fn browser(&self) -> Browser {
        Browser::of(&self.headers)
    }

    /// Who acts, for the audit log.
    pub fn actor(&self) -> Actor {
        self.grant.actor(self.from())
    }

    /// Who signed in: an endpoint that needs it has one.
    ///
    /// # Errors
    /// A 403.
    pub fn person(&self) -> Result<&Arc<AccessClaims>, Problem> {
        self.grant.person.as_ref().ok_or_else(|| Problem::new(Code::InsufficientScope, Code::InsufficientScope.meaning()))
    }

    /// Members of this installation.
    ///
    /// # Errors
    /// A 404 where it keeps none.
    pub fn members(&self) -> Result<&Members, Problem> {
        let none = || Problem::new(Code::NotFound, "this installation keeps no members");
        self.api.context.members.as_deref().ok_or_else(none)
    }

    /// A problem in the language of who asks; `staff` has another least length of passwords.
    pub fn told(&self, problem: Problem, staff: bool) -> Problem {
        problem.told(&self.api, self.language(), staff)
    }

    /// A field that is not accepted.
    pub fn invalid(&self, pointer: String, code: &'static str, message: impl Into<String>) -> Problem {
        Problem { errors: vec![FieldError::body(pointer, code, message)], ..Problem::new(Code::Invalid, self.text("invalid")) }
    }

    /// What a person is told, in their language.
    pub fn text(&self, code: &'static str) -> &'static str {
        messages::text(code, self.language()).unwrap_or(code)
    }
}

/// The password that is asked for again: without it the answer is as for a wrong one (V6.2.2, V7.5.1).
///
/// # Errors
/// A 403.
pub(crate) fn current(password: Option<SecretString>) -> Result<SecretString, Problem> {
    password.ok_or_else(|| MemberError::ReauthenticationFailed.into())
}

/// A header of a request.
///
/// # Errors
/// A 400 where it is not of visible ASCII.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Problem> {
    let unreadable = |_| Problem::new(Code::MalformedRequest, format!("the header {name} is not readable"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}
