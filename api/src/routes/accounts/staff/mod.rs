//! Administration of members: found and seen, suspended and activated, roles, the audit log, the first administrator.
//!
//! ```text
//! Request ──▶ Actor (key:ID or a member) ──▶ Members ──▶ JSON, audit log
//! ```
//!
//! A service key may everything here, staff what their role names and their second factor has confirmed. What is told of a member is
//! what is needed to administer (V15.3.1): no addresses to which goods are sent, nothing of the password.

pub(crate) mod admin_actions;
pub(crate) mod audit;
pub(crate) mod member_search;
pub(crate) mod roles;
pub(crate) mod setup;

use kindred_model::Day;

use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::routes::endpoint::Endpoint;

/// All endpoints of the modules here.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let modules =
        [member_search::endpoints(), admin_actions::endpoints(), roles::endpoints(), audit::endpoints(), setup::endpoints()];
    modules.into_iter().flatten().collect()
}

/// What is not accepted of a search stands in the query: a 400 like that of any other parameter.
fn of_query(mut problem: Problem) -> Problem {
    if problem.code == Code::Invalid {
        problem.code = Code::InvalidParameter;
        problem.errors.iter_mut().for_each(|error| error.place = "query");
    }
    problem
}

/// `from` and `to` of a query, both included. One that is absent lies as far away as can be; `to` before `from` is refused (V2.2.3).
///
/// # Errors
/// A 400 that names the parameter.
fn days(params: &Params) -> Result<Option<(Day, Day)>, Problem> {
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
fn text<'a>(params: &'a Params, name: &str) -> Result<Option<&'a str>, Problem> {
    match params.get(name) {
        Some(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX => {
            Err(Problem::query(name, format!("has not from 1 to {TEXT_BYTES_MAX} bytes")))
        }
        text => Ok(text),
    }
}

/// The longest that is searched for is an e-mail: 254 bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 320;
