//! Endpoints: each is declared once, beside its handler. Routing, `Allow`, metric labels, authorization, accepted parameters, the
//! contract and the access matrix of docs/SECURITY.md read the declaration.
//!
//! ```text
//! path ──router──▶ Template ──method──▶ Endpoint ──access──▶ Grant ──parameters──▶ Request ──body──▶ handler ──▶ Response or Problem
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use kindred_members::Permission;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use warp::reply::Response;

use super::body::UnreadBody;
use super::request::Request;
use super::{
    accounts, admin, admin_keys, catalog, events, generations, health, in_time, members, orders, popular, similar, stream,
};
use crate::problem::{Code, Problem};
use crate::resources::Resources;

/// For modules that declare endpoints.
pub(crate) mod prelude {
    pub(crate) use kindred_members::Permission;

    pub(crate) use super::Need::{Anyone, OwnOr, ReadLists, SignedIn, Staff, WriteEvents};
    pub(crate) use super::Shape::{Flag, Text, Texts, Whole};
    pub(crate) use super::{Answered, Endpoint, delete, get, patch, post, put, tagged};
    pub(crate) use crate::problem::Code;
    pub(crate) use crate::routes::request::Request;
}

/// The result of a handler.
pub(crate) type Answered = Result<Response, Problem>;

/// Named schemas of the contract.
pub(crate) type Schemas = Map<String, Value>;

/// Returns a schema, or adds it to the named ones and returns a reference.
pub(crate) type SchemaOf = fn(&mut Schemas) -> Value;

/// Who may call an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// No authentication.
    Anyone,
    /// A key with `lists:read`, or a member, who has `catalog:browse`.
    ReadLists,
    /// A key with `events:write`; what a publishable key may post is checked per record.
    WriteEvents,
    /// A signed-in member.
    SignedIn,
    /// A service key, the member in the path, or staff with this permission.
    OwnOr(Permission),
    /// A service key, or staff with this permission.
    Staff(Permission),
}

impl Need {
    pub const fn permission(self) -> Option<Permission> {
        match self {
            Self::OwnOr(permission) | Self::Staff(permission) => Some(permission),
            Self::ReadLists => Some(Permission::CatalogBrowse),
            Self::Anyone | Self::WriteEvents | Self::SignedIn => None,
        }
    }

    /// Whether pages of other origins may call it, with a publishable key.
    pub const fn is_for_pages(self) -> bool {
        matches!(self, Self::ReadLists | Self::WriteEvents)
    }
}

/// The type of a parameter; the contract refines it by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Text,
    Flag,
    /// An integer in this range.
    Whole(u64, u64),
    /// Repeated; minimum and maximum count.
    Texts(u64, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ParameterIn {
    Path,
    Query,
    Header,
}

#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Parameter {
    pub location: ParameterIn,
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    pub description: &'static str,
}

/// A declared response.
#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Answer {
    pub status: u16,
    pub description: &'static str,
    /// Of a problem, where the status has several.
    pub code: Option<Code>,
    /// Media types and their schemas.
    pub content: Vec<(&'static str, SchemaOf)>,
    /// Names and descriptions.
    pub headers: Vec<(&'static str, &'static str)>,
}

type HandlerFuture = Pin<Box<dyn Future<Output = Answered> + Send>>;
type Handler = Box<dyn Fn(Request, UnreadBody) -> HandlerFuture + Send + Sync>;

#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Endpoint {
    /// Method and path: `GET /v1/members/{member}`.
    pub name: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub need: Need,
    /// Its group in the contract.
    pub tag: &'static str,
    /// The name of the handler, and of the function in generated clients.
    pub operation: &'static str,
    pub description: &'static str,
    pub parameters: Vec<Parameter>,
    /// Names of its query parameters and whether each may be repeated.
    pub query_names: Vec<(&'static str, bool)>,
    pub body: Option<SchemaOf>,
    pub answers: Vec<Answer>,
    pub ignores_query: bool,
    /// Whether it is exempt from the handler timeout.
    pub no_time_limit: bool,
    /// Whether the cookie of the shop's own pages is accepted in place of an access token.
    pub by_cookie: bool,
    pub on_admin_address: bool,
    handler: Handler,
}

/// A handler with or without a body.
pub(crate) trait Handle<Taken>: Copy + Send + Sync + 'static {
    fn body() -> Option<SchemaOf>;
    fn handler(self) -> Handler;
}

impl<F, Fut> Handle<()> for F
where
    F: Fn(Request) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answered> + Send + 'static,
{
    fn body() -> Option<SchemaOf> {
        None
    }

    fn handler(self) -> Handler {
        Box::new(move |request, posted| {
            Box::pin(async move {
                if request.endpoint.method != Method::GET {
                    posted.ignore(&request.api).await?;
                }
                bounded(request, self).await
            })
        })
    }
}

impl<F, Fut, B: FromBody> Handle<(B,)> for F
where
    F: Fn(Request, B) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answered> + Send + 'static,
{
    fn body() -> Option<SchemaOf> {
        Some(B::body)
    }

    fn handler(self) -> Handler {
        Box::new(move |request, posted| {
            Box::pin(async move {
                let body = B::take(posted, &request).await?;
                bounded(request, |request| self(request, body)).await
            })
        })
    }
}

async fn bounded<Fut: Future<Output = Answered>>(request: Request, handle: impl FnOnce(Request) -> Fut) -> Answered {
    if request.endpoint.no_time_limit {
        return handle(request).await;
    }
    let api = request.api.clone();
    in_time(&api, handle(request)).await
}

/// A body that a handler can take.
pub(crate) trait FromBody: Sized + Send + 'static {
    fn body(schemas: &mut Schemas) -> Value;
    fn take(posted: UnreadBody, request: &Request) -> impl Future<Output = Result<Self, Problem>> + Send;
}

impl<T: DeserializeOwned + ToSchema + Send + 'static> FromBody for T {
    fn body(schemas: &mut Schemas) -> Value {
        json!({ "content": { "application/json": { "schema": schema_of::<T>(schemas) } }, "required": true })
    }

    async fn take(posted: UnreadBody, request: &Request) -> Result<Self, Problem> {
        posted.json(request).await
    }
}

/// Records, which their handler reads by itself.
impl FromBody for UnreadBody {
    fn body(_: &mut Schemas) -> Value {
        json!({
            "description": "records as in schemas/events: one object, an array, or NDJSON; at most 10 MB and 10,000 records",
            "content": { "application/json": {}, "application/x-ndjson": { "schema": { "type": "string" } } },
            "required": true,
        })
    }

    async fn take(posted: UnreadBody, _: &Request) -> Result<Self, Problem> {
        Ok(posted)
    }
}

/// Adds the schema of a type and all that it refers to; returns a reference.
pub(crate) fn schema_of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut named = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut named);
    for (name, schema) in named {
        schemas.insert(name, serde_json::to_value(schema).expect("a schema serialises"));
    }
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

pub(crate) fn get<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::GET, path, need, handle)
}

pub(crate) fn post<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::POST, path, need, handle)
}

pub(crate) fn put<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::PUT, path, need, handle)
}

pub(crate) fn patch<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::PATCH, path, need, handle)
}

pub(crate) fn delete<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::DELETE, path, need, handle)
}

fn endpoint<Taken, H: Handle<Taken>>(method: Method, path: &'static str, need: Need, handle: H) -> Endpoint {
    let operation = std::any::type_name::<H>();
    Endpoint {
        // Leaked once per endpoint; the table lives as long as the process.
        name: format!("{method} {path}").leak(),
        method,
        path,
        need,
        tag: "",
        operation: operation.rsplit("::").next().unwrap_or(operation),
        description: "",
        parameters: Vec::new(),
        query_names: Vec::new(),
        body: H::body(),
        answers: Vec::new(),
        ignores_query: false,
        no_time_limit: false,
        by_cookie: false,
        on_admin_address: false,
        handler: handle.handler(),
    }
}

/// Puts endpoints into one group of the contract.
pub(crate) fn tagged(tag: &'static str, endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Endpoint> {
    endpoints.into_iter().map(|endpoint| Endpoint { tag, ..endpoint }).collect()
}

impl Endpoint {
    #[cfg(test)]
    pub fn method_name(&self) -> &str {
        self.method.as_str()
    }

    /// The description; its first sentence is the summary.
    pub fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    fn parameter(
        mut self,
        location: ParameterIn,
        name: &'static str,
        shape: Shape,
        required: bool,
        description: &'static str,
    ) -> Self {
        self.parameters.push(Parameter { location, name, shape, required, description });
        self
    }

    /// A path parameter; `item` and `member` are described already.
    pub fn path(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(ParameterIn::Path, name, Shape::Text, true, description)
    }

    pub fn query(self, name: &'static str, shape: Shape, description: &'static str) -> Self {
        self.parameter(ParameterIn::Query, name, shape, false, description)
    }

    /// A required query parameter.
    pub fn needs_query(self, name: &'static str, shape: Shape, description: &'static str) -> Self {
        self.parameter(ParameterIn::Query, name, shape, true, description)
    }

    pub fn header(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(ParameterIn::Header, name, Shape::Text, false, description)
    }

    /// A required header.
    pub fn needs_header(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(ParameterIn::Header, name, Shape::Text, true, description)
    }

    /// Requires `If-Match` with the version that was read.
    pub fn needs_if_match(self) -> Self {
        self.needs_header("If-Match", "the ETag that was read, or * for any version")
            .fails(412, "the version has changed")
            .fails(428, "If-Match is missing")
    }

    /// Accepts `If-Match`.
    pub fn if_match(self) -> Self {
        self.header("If-Match", "the ETag that was read; default any version").fails(412, "the version has changed")
    }

    fn answer(mut self, status: u16, description: &'static str, content: Vec<(&'static str, SchemaOf)>) -> Self {
        self.answers.push(Answer { status, description, code: None, content, headers: Vec::new() });
        self
    }

    /// A JSON response.
    pub fn answers<T: ToSchema>(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, vec![("application/json", schema_of::<T>)])
    }

    /// A JSON response of any object.
    pub fn answers_object(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, vec![("application/json", |_| json!({ "type": "object" }))])
    }

    /// A text response of one of these media types.
    pub fn answers_as(self, status: u16, media_types: &[&'static str], description: &'static str) -> Self {
        let text: SchemaOf = |_| json!({ "type": "string" });
        self.answer(status, description, media_types.iter().map(|media_type| (*media_type, text)).collect())
    }

    /// A binary response.
    pub fn answers_bytes(self, status: u16, media_type: &'static str, description: &'static str) -> Self {
        self.answer(status, description, vec![(media_type, |_| json!({ "type": "string", "format": "binary" }))])
    }

    /// A response without a body.
    pub fn answers_nothing(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, Vec::new())
    }

    /// A problem with a reason of its own; shared ones are added by the contract.
    pub fn fails(self, status: u16, description: &'static str) -> Self {
        self.answer(
            status,
            description,
            vec![("application/problem+json", |_| json!({ "$ref": "#/components/schemas/Problem" }))],
        )
    }

    /// The same, with its code where the status has several and this is not the first.
    pub fn fails_as(self, code: Code, description: &'static str) -> Self {
        let mut failing = self.fails(code.status().as_u16(), description);
        failing.answers.last_mut().expect("it was added").code = Some(code);
        failing
    }

    /// A header of the last declared response.
    pub fn sends(mut self, name: &'static str, description: &'static str) -> Self {
        self.answers.last_mut().expect("a response is declared before it").headers.push((name, description));
        self
    }

    /// Ignores unknown parameters: pages and probes may add their own.
    pub fn ignores_query(self) -> Self {
        Self { ignores_query: true, ..self }
    }

    /// Exempts it from the handler timeout.
    pub fn no_time_limit(self) -> Self {
        Self { no_time_limit: true, ..self }
    }

    /// Accepts the cookie of the shop's own pages, which the handler checks.
    pub fn by_cookie(self) -> Self {
        Self { by_cookie: true, ..self }
    }

    /// Serves it on the admin address only.
    pub fn on_admin_address(self) -> Self {
        Self { on_admin_address: true, ..self }
    }

    /// Whether it takes an `Idempotency-Key`: authenticated POSTs except events, which merge by their natural keys.
    pub fn takes_idempotency_keys(&self) -> bool {
        self.method == Method::POST && !matches!(self.need, Need::Anyone | Need::ReadLists | Need::WriteEvents)
    }

    pub fn is_plain_list(&self) -> bool {
        self.need == Need::ReadLists && !self.path.ends_with("/stream")
    }

    /// Whether it takes `min_position`.
    pub fn takes_min_position(&self) -> bool {
        self.is_plain_list() || self.method == Method::GET && matches!(self.need, Need::OwnOr(_))
    }

    /// Its own and the shared parameters.
    pub fn all_parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().chain(SHARED.iter().filter(|(of, _)| of(self)).map(|(_, parameter)| parameter))
    }

    pub async fn handle(&self, request: Request, posted: UnreadBody) -> Answered {
        (self.handler)(request, posted).await
    }
}

/// A shared parameter and the endpoints that take it.
type Shared = (fn(&Endpoint) -> bool, Parameter);

const fn shared(location: ParameterIn, name: &'static str, shape: Shape, description: &'static str) -> Parameter {
    Parameter { location, name, shape, required: false, description }
}

const SHARED: &[Shared] = &[
    (
        |endpoint| endpoint.need == Need::ReadLists && endpoint.path != "/v1/stream",
        shared(ParameterIn::Query, "member", Shape::Text, "read on behalf of this member; needs a service key"),
    ),
    (
        Endpoint::takes_min_position,
        shared(ParameterIn::Query, "min_position", Shape::Text, "wait until the views have reached this position"),
    ),
    (
        Endpoint::takes_min_position,
        shared(
            ParameterIn::Query,
            "wait_ms",
            Shape::Whole(0, crate::params::WAIT_MS_MAX),
            "how long to wait, milliseconds; default 1000",
        ),
    ),
    (
        |endpoint| endpoint.need == Need::ReadLists,
        shared(ParameterIn::Query, "key", Shape::Text, "a publishable key, for clients that cannot send headers (EventSource)"),
    ),
    (
        Endpoint::is_plain_list,
        shared(ParameterIn::Header, "If-None-Match", Shape::Text, "an ETag: 304 if the response is unchanged"),
    ),
    (
        Endpoint::takes_idempotency_keys,
        shared(
            ParameterIn::Header,
            "Idempotency-Key",
            Shape::Text,
            "identifies the request, for example a UUID: a repetition within a day is not executed again and returns the first \
                response, with `Idempotency-Replayed: true`. Only successes are stored",
        ),
    ),
];

/// A path and its endpoints, one per method.
pub(crate) struct Template {
    pub path: &'static str,
    /// The `Allow` header.
    pub allow: String,
    /// Whether pages of other origins may call it, with a publishable key.
    pub is_for_pages: bool,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Template {
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub fn endpoint(&self, method: &Method) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.method == *method)
    }
}

/// The routing table.
pub(crate) struct Table {
    templates: Vec<Arc<Template>>,
    router: matchit::Router<usize>,
}

/// The endpoints without those of resources, in the order of the documentation.
fn own() -> Vec<Endpoint> {
    let modules = [
        similar::endpoints(),
        stream::endpoints(),
        events::endpoints(),
        popular::endpoints(),
        catalog::endpoints(),
        accounts::endpoints(),
        members::endpoints(),
        orders::endpoints(),
        admin::endpoints(),
        generations::endpoints(),
        admin_keys::endpoints(),
        accounts::staff::endpoints(),
        health::endpoints(),
        super::widget::endpoints(),
    ];
    modules.into_iter().flatten().collect()
}

impl Table {
    pub fn of(resources: Resources) -> Self {
        let endpoints = own().into_iter().chain(resources.iter().flat_map(|resource| resource.endpoints()));
        let mut templates: Vec<Template> = Vec::new();
        let mut router = matchit::Router::new();
        for mut endpoint in endpoints {
            let of_query = endpoint.all_parameters().filter(|parameter| parameter.location == ParameterIn::Query);
            endpoint.query_names = of_query.map(|it| (it.name, matches!(it.shape, Shape::Texts(..)))).collect();
            let at = templates.iter().position(|template| template.path == endpoint.path).unwrap_or_else(|| {
                router.insert(endpoint.path, templates.len()).unwrap_or_else(|error| panic!("{}: {error}", endpoint.name));
                let path = endpoint.path;
                templates.push(Template { path, allow: String::new(), is_for_pages: false, endpoints: Vec::new() });
                templates.len() - 1
            });
            let template = &mut templates[at];
            assert!(template.endpoint(&endpoint.method).is_none(), "{} is declared twice", endpoint.name);
            let method = if endpoint.method == Method::GET { "GET, HEAD" } else { endpoint.method.as_str() };
            template.allow.push_str(method);
            template.allow.push_str(", ");
            template.is_for_pages |= endpoint.need.is_for_pages();
            template.endpoints.push(Arc::new(endpoint));
        }
        templates.iter_mut().for_each(|template| template.allow.push_str("OPTIONS"));
        Self { templates: templates.into_iter().map(Arc::new).collect(), router }
    }

    /// The template of a path and its parameters. One trailing slash is ignored.
    pub fn matched(&self, path: &str) -> Option<(Arc<Template>, Segments)> {
        let found = self.router.at(path.strip_suffix('/').unwrap_or(path)).ok()?;
        let segments = found.params.iter().map(|(name, segment)| (name.to_owned(), segment.to_owned())).collect();
        Some((self.templates[*found.value].clone(), segments))
    }

    pub fn template_of(&self, path: &str) -> Option<&Template> {
        self.router.at(path.strip_suffix('/').unwrap_or(path)).ok().map(|found| &*self.templates[*found.value])
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.templates.iter().flat_map(|template| &template.endpoints).map(|endpoint| &**endpoint)
    }
}

/// Path parameters by name, percent-encoded as received.
pub(crate) type Segments = Vec<(String, String)>;

#[cfg(test)]
static PRODUCT: std::sync::LazyLock<Table> = std::sync::LazyLock::new(|| Table::of(crate::resources::RESOURCES));

#[cfg(test)]
pub(crate) fn templates() -> &'static [Arc<Template>] {
    &PRODUCT.templates
}

#[cfg(test)]
pub(crate) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    PRODUCT.endpoints()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_templates() {
        let template = |path| PRODUCT.template_of(path).map(|template| template.path);
        assert_eq!(template("/v1/items/a%2Fb/similar"), Some(crate::request_metrics::SIMILAR));
        assert_eq!(template("/v1/admin/rejected/retry"), Some("/v1/admin/rejected/retry"));
        assert_eq!(template("/v1/admin/rejected/x"), Some("/v1/admin/rejected/{id}"));
        assert_eq!(template("/v1/items/a/similar/"), Some(crate::request_metrics::SIMILAR));
        for none in ["/", "", "/v1", "/v1/items//similar", "/v1/items/a/similar//", "/v1/items/a/similar/stream/x"] {
            assert_eq!(template(none), None, "{none}");
        }
    }

    #[test]
    fn a_template_allows_its_methods() {
        let allow = |path| PRODUCT.template_of(path).map(|template| template.allow.as_str());
        assert_eq!(allow("/v1/admin/rejected/x"), Some("GET, HEAD, DELETE, OPTIONS"));
        assert_eq!(allow("/v1/popular"), Some("GET, HEAD, OPTIONS"));
    }
}
