//! What every route here knows of a request, and what every one of them does with it: the form read, the members asked, in time, and
//! what went wrong told in the visitor's language.

use std::future::Future;
use std::sync::Arc;

use http::StatusCode;
use http::header::CACHE_CONTROL;
use kindred_members::{AccessClaims, MemberError, Members, messages};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::cookies::{Browser, browser};
use super::{person, with_members};
use crate::api::Api;
use crate::auth::{Caller, Grant, Visitor, caller, visitor};
use crate::params::Params;
use crate::problem::{Code, FieldError, Problem};
use crate::routes::access::Need;
use crate::routes::body::{Form, Misread, Posted, read_object};
use crate::routes::{NO_STORE, guarded, json, query, with};

/// Bytes of a form: the largest has 20 addresses.
const FORM_BYTES_MAX: usize = 64 << 10;

/// A request, but for its body.
pub(crate) struct Asked {
    /// The query as it came.
    pub query: String,
    /// What is presented.
    pub caller: Caller,
    /// Who asks.
    pub visitor: Visitor,
    /// Its cookies.
    pub browser: Browser,
    /// The API.
    pub api: Arc<Api>,
}

/// Reads it.
pub(super) fn asked(api: &Arc<Api>) -> BoxedFilter<(Asked,)> {
    query()
        .and(caller())
        .and(visitor(api))
        .and(browser())
        .and(with(api))
        .map(|query, caller, visitor, browser, api| Asked { query, caller, visitor, browser, api })
        .boxed()
}

impl Asked {
    /// The parameters of the query; nothing secret is ever among them (V14.2.1).
    ///
    /// # Errors
    /// A 400 that names what is not known or given twice.
    pub fn params(&self, known: &[&'static str]) -> Result<Params<'_>, Problem> {
        Params::parse(&self.query, known)
    }

    /// Answers a route that asks for nothing.
    pub async fn open(&self, handled: impl Future<Output = Result<Response, Problem>>) -> Response {
        handled.await.unwrap_or_else(Problem::into_response)
    }

    /// Answers a route that is for whoever signed in.
    pub async fn signed_in<Handled>(&self, need: Need, handle: impl FnOnce(Arc<AccessClaims>) -> Handled) -> Response
    where
        Handled: Future<Output = Result<Response, Problem>>,
    {
        let handled = |grant: Arc<Grant>| async move { handle(Arc::clone(person(&grant)?)).await };
        guarded(&self.api, &self.caller, None, need, handled).await
    }

    /// Does something with members.
    ///
    /// # Errors
    /// What the members' side says, in the visitor's language.
    pub async fn members<'a, T, Done>(&'a self, work: impl FnOnce(&'a Members) -> Done) -> Result<T, Problem>
    where
        Done: Future<Output = Result<T, MemberError>>,
    {
        with_members(&self.api, &self.visitor, work).await
    }

    /// Reads a form: fields that are not known or given twice are refused, what was sent is never repeated in the answer.
    ///
    /// # Errors
    /// A 415 for anything but JSON, a 400 for what is no JSON, a 422 that names the field.
    pub async fn form<T: DeserializeOwned>(&self, posted: Posted) -> Result<T, Problem> {
        self.params(&[])?;
        if posted.form()? != Form::Json {
            return Err(Problem::new(Code::UnsupportedMediaType, "this body is application/json"));
        }
        let bytes = posted.read(&self.api, FORM_BYTES_MAX).await?;
        read_object(&bytes).map_err(|misread| match misread {
            Misread::NotJson(_) => Problem::new(Code::MalformedJson, "the body is not one JSON value"),
            // serde quotes values of a wrong type, which may be a password; of the names of fields alone is anything repeated.
            Misread::Field { pointer, code, .. } => {
                let message = match code {
                    "unknown_field" => "this field is not known here",
                    "missing_field" => "this field is needed",
                    "duplicate_field" => "this field is given twice",
                    _ => "the value is of another type or not one of those accepted",
                };
                self.invalid(pointer, code, message)
            }
        })
    }

    /// A field that is not accepted.
    pub fn invalid(&self, pointer: String, code: &'static str, message: impl Into<String>) -> Problem {
        let error = FieldError { place: "body", pointer, code, message: message.into() };
        Problem { errors: vec![error], ..Problem::new(Code::Invalid, self.text("invalid")) }
    }

    /// The password that is asked for again: without it the answer is as for a wrong one (V6.2.2, V7.5.1).
    ///
    /// # Errors
    /// A 403.
    pub fn current(&self, password: Option<SecretString>) -> Result<SecretString, Problem> {
        password.ok_or_else(|| Problem::of_member(&MemberError::ReauthenticationFailed, self.visitor.language, 0))
    }

    /// What a person is told, in their language.
    pub fn text(&self, code: &'static str) -> &'static str {
        messages::text(code, self.visitor.language).unwrap_or(code)
    }

    /// It was taken; what comes of it is found out after this answer, which is therefore always the same (V6.3.8).
    ///
    /// # Errors
    /// It has none that a caller could mend.
    pub fn accepted(&self) -> Result<Response, Problem> {
        json(StatusCode::ACCEPTED, &Accepted { status: "accepted" })
    }
}

/// Done, and there is nothing to say about it.
pub(super) fn done() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// It was taken and is looked into. The answer is the same whatever will be found.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Always `accepted`.
    status: &'static str,
}
