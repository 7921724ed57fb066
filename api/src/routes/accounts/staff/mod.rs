//! Member administration: search, suspension, roles, audit log, first administrator.
//!
//! ```text
//! Request ──▶ Actor (key:ID or a member) ──▶ Members ──▶ JSON, audit log
//! ```
//!
//! A service key may do everything; staff what their role allows once confirmed by a second factor. Only data needed for
//! administration is returned (V15.3.1): no postal addresses, no credentials.

pub(crate) mod admin_actions;
pub(crate) mod audit;
pub(crate) mod member_search;
pub(crate) mod roles;
pub(crate) mod setup;

use kindred_model::Day;

use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::routes::endpoint::Endpoint;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let modules =
        [member_search::endpoints(), admin_actions::endpoints(), roles::endpoints(), audit::endpoints(), setup::endpoints()];
    modules.into_iter().flatten().collect()
}

/// Errors of a search are about query parameters: a 400.
fn of_query(mut problem: Problem) -> Problem {
    if problem.code == Code::Invalid {
        problem.code = Code::InvalidParameter;
        problem.errors.iter_mut().for_each(|error| error.place = "query");
    }
    problem
}

/// `from` and `to`, inclusive; missing ones are unbounded. `to` before `from` is a 400 (V2.2.3).
fn days(params: &Params) -> Result<Option<(Day, Day)>, Problem> {
    let (from, to) = (params.day("from")?, params.day("to")?);
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let from = from.unwrap_or_else(|| kindred_model::EventTime::MIN.day());
    let to = to.unwrap_or_else(|| kindred_model::EventTime::END.day());
    if from > to {
        return Err(Problem::query("to", "is before from"));
    }
    Ok(Some((from, to)))
}

/// A non-empty text parameter.
fn text<'a>(params: &'a Params, name: &str) -> Result<Option<&'a str>, Problem> {
    match params.get(name) {
        Some(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX => {
            Err(Problem::query(name, format!("must have 1 to {TEXT_BYTES_MAX} bytes")))
        }
        text => Ok(text),
    }
}

/// The longest searchable text is an e-mail address: 254 bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 320;
