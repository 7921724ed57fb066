//! Administration of members: found and seen, suspended and activated, roles, the audit log, the first administrator.
//!
//! ```text
//! Asked (query, caller, visitor, If-Match) ──need, of the table──▶ Actor (key:ID or a member) ──▶ Members ──▶ JSON, audit log
//! ```
//!
//! A service key may everything here, staff what their role names and their second factor has confirmed. What is told of a member is
//! what is needed to administer (V15.3.1): no addresses to which goods are sent, nothing of the password.

pub(crate) mod acts;
pub(crate) mod audit;
pub(crate) mod found;
pub(crate) mod roles;
pub(crate) mod setup;

use std::future::Future;
use std::sync::Arc;

use kindred_members::{Actor, MemberError, Members};
use kindred_model::Day;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::with_members;
use crate::api::Api;
use crate::auth::{Caller, Grant, Visitor, caller, visitor};
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::routes::access::Need;
use crate::routes::{guarded, query, with};

/// All routes of the modules here.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    found::routes(api)
        .or(acts::routes(api))
        .unify()
        .or(roles::routes(api))
        .unify()
        .or(audit::routes(api))
        .unify()
        .or(setup::routes(api))
        .unify()
        .boxed()
}

/// What a request says beside its path and body.
struct Asked {
    query: String,
    caller: Caller,
    visitor: Visitor,
    if_match: Option<String>,
    if_none_match: Option<String>,
    api: Arc<Api>,
}

fn asked(api: &Arc<Api>) -> impl Filter<Extract = (Asked,), Error = Rejection> + Clone + use<> {
    let header = warp::header::optional::<String>;
    query().and(caller()).and(visitor(api)).and(header("if-match")).and(header("if-none-match")).and(with(api)).map(
        |query, caller, visitor, if_match, if_none_match, api| Asked { query, caller, visitor, if_match, if_none_match, api },
    )
}

impl Asked {
    /// Lets the caller in and answers.
    async fn answer<Handled>(&self, need: Need, handle: impl FnOnce(Arc<Grant>, Actor) -> Handled) -> Response
    where
        Handled: Future<Output = Result<Response, Problem>>,
    {
        guarded(&self.api, &self.caller, None, need, |grant| {
            let actor = grant.actor(&self.visitor.address);
            handle(grant, actor)
        })
        .await
    }

    fn params(&self, known: &[&'static str]) -> Result<Params<'_>, Problem> {
        Params::parse(&self.query, known)
    }

    /// Does something with members.
    async fn members<'a, T, Done>(&'a self, work: impl FnOnce(&'a Members) -> Done) -> Result<T, Problem>
    where
        Done: Future<Output = Result<T, MemberError>>,
    {
        with_members(&self.api, &self.visitor, work).await
    }

    /// As [`Self::members`], where what is not accepted stands in the query: a 400 like that of any other parameter.
    async fn search<'a, T, Done>(&'a self, work: impl FnOnce(&'a Members) -> Done) -> Result<T, Problem>
    where
        Done: Future<Output = Result<T, MemberError>>,
    {
        self.members(work).await.map_err(|mut problem| {
            if problem.code == Code::Invalid {
                problem.code = Code::InvalidParameter;
                problem.errors.iter_mut().for_each(|error| error.place = "query");
            }
            problem
        })
    }
}

/// `from` and `to` of a query, both included. One that is absent lies as far away as can be; `to` before `from` is refused (V2.2.3).
///
/// # Errors
/// A 400 that names the parameter.
fn days(params: &Params<'_>) -> Result<Option<(Day, Day)>, Problem> {
    let (from, to) = (params.day("from")?, params.day("to")?);
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let from = from.unwrap_or_else(|| kindred_model::EventTime::MIN.day());
    let to = to.unwrap_or_else(|| kindred_model::EventTime::END.day());
    if from > to {
        return Err(Problem::query("to", "lies before from"));
    }
    Ok(Some((from, to)))
}

/// A text of a query: not empty, no longer than anything that it could find.
fn text<'a>(params: &'a Params<'_>, name: &str) -> Result<Option<&'a str>, Problem> {
    match params.get(name) {
        Some(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX => {
            Err(Problem::query(name, format!("has not from 1 to {TEXT_BYTES_MAX} bytes")))
        }
        text => Ok(text),
    }
}

/// The longest that is searched for is an e-mail: 254 bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 320;
