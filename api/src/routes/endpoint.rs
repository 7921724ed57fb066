//! What the API offers: each endpoint is stated once, beside its handler. Matching, `Allow`, the labels of the metrics, what a
//! caller is asked for, which parameters are known, the contract and the matrix of docs/SECURITY.md all read it from here.
//!
//! ```text
//! path ──router──▶ Template ──method──▶ Endpoint ──need──▶ Grant ──parameters──▶ Request ──body──▶ handler ──▶ Response or Problem
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
use crate::problem::Problem;
use crate::resources::Resources;

/// What a module of endpoints needs of this one.
pub(crate) mod prelude {
    pub(crate) use kindred_members::Permission;

    pub(crate) use super::Need::{Anyone, OwnOr, ReadLists, SignedIn, Staff, WriteEvents};
    pub(crate) use super::Shape::{Flag, Text, Texts, Whole};
    pub(crate) use super::{Answered, Endpoint, delete, get, patch, post, put, tagged};
    pub(crate) use crate::routes::request::Request;
}

/// What a handler answers.
pub(crate) type Answered = Result<Response, Problem>;

/// The schemas of the contract, by name.
pub(crate) type Schemas = Map<String, Value>;

/// A schema, or a reference to one that it puts among the named ones.
pub(crate) type SchemaOf = fn(&mut Schemas) -> Value;

/// What an endpoint asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Nothing.
    Anyone,
    /// To read lists: a key with `lists:read`, or a member, who has `catalog:browse`.
    ReadLists,
    /// To post events: a key with `events:write`; what a publishable key may post is checked by the record.
    WriteEvents,
    /// To be signed in.
    SignedIn,
    /// A service key; or the member that the path names, or staff with this permission.
    OwnOr(Permission),
    /// A service key; or staff with this permission.
    Staff(Permission),
}

impl Need {
    /// The permission that staff needs.
    pub const fn permission(self) -> Option<Permission> {
        match self {
            Self::OwnOr(permission) | Self::Staff(permission) => Some(permission),
            Self::ReadLists => Some(Permission::CatalogBrowse),
            Self::Anyone | Self::WriteEvents | Self::SignedIn => None,
        }
    }

    /// Whether pages of other origins may ask: with a publishable key.
    pub const fn is_for_pages(self) -> bool {
        matches!(self, Self::ReadLists | Self::WriteEvents)
    }
}

/// What a parameter may be; the contract says more by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from one to another.
    Whole(u64, u64),
    /// Given from so many to so many times.
    Texts(u64, u64),
}

/// Where a parameter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A segment of the path.
    Path,
    /// The query.
    Query,
    /// A header.
    Header,
}

/// What may be said of a request beside its body.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Parameter {
    pub place: Place,
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    pub description: &'static str,
}

/// An answer of the contract.
#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Answer {
    pub status: u16,
    pub description: &'static str,
    /// Media types, and what each is.
    pub content: Vec<(&'static str, SchemaOf)>,
    /// Headers with their descriptions.
    pub headers: Vec<(&'static str, &'static str)>,
}

type HandlerFuture = Pin<Box<dyn Future<Output = Answered> + Send>>;
type Handler = Box<dyn Fn(Request, UnreadBody) -> HandlerFuture + Send + Sync>;

/// One endpoint.
#[cfg_attr(not(test), expect(dead_code, reason = "tests generate the contract from it"))]
pub(crate) struct Endpoint {
    /// Method and path: `GET /v1/members/{member}`.
    pub name: &'static str,
    pub method: Method,
    /// With names for what differs.
    pub path: &'static str,
    /// What it asks for.
    pub need: Need,
    /// Under which the contract has it.
    pub tag: &'static str,
    /// The name of its handler: what a generated client calls it.
    pub operation: &'static str,
    pub description: &'static str,
    pub parameters: Vec<Parameter>,
    /// The names of what its query may say, and whether each may be said again.
    pub known: Vec<(&'static str, bool)>,
    /// The body that it takes, if it takes one.
    pub body: Option<SchemaOf>,
    pub answers: Vec<Answer>,
    /// Whether it is answered whatever its query says.
    pub ignores_query: bool,
    /// Whether a caller waits for as long as it takes.
    pub no_time_limit: bool,
    /// Whether the cookie of the shop's own page will do in place of an access token.
    pub by_cookie: bool,
    /// Whether it is on the admin address alone.
    pub on_admin_address: bool,
    handler: Handler,
}

/// A handler: of a request alone, or of one with a body.
pub(crate) trait Handle<Taken>: Copy + Send + Sync + 'static {
    /// What it takes, for the contract.
    fn body() -> Option<SchemaOf>;
    /// Reads the body and answers.
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

/// What a handler may take as a body.
pub(crate) trait FromBody: Sized + Send + 'static {
    /// The request body of the contract.
    fn body(schemas: &mut Schemas) -> Value;
    /// Reads it.
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

/// Not read yet: records, which their handler reads by itself.
impl FromBody for UnreadBody {
    fn body(_: &mut Schemas) -> Value {
        json!({
            "description": "a record as in schemas/events: one object, an array, or one object a line; at most 10 MB and 10,000 records",
            "content": { "application/json": {}, "application/x-ndjson": { "schema": { "type": "string" } } },
            "required": true,
        })
    }

    async fn take(posted: UnreadBody, _: &Request) -> Result<Self, Problem> {
        Ok(posted)
    }
}

/// A reference to the schema of a type, which it puts among the named ones with all that it refers to.
pub(crate) fn schema_of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut named = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut named);
    for (name, schema) in named {
        schemas.insert(name, serde_json::to_value(schema).expect("a schema serialises"));
    }
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

/// An endpoint of `GET`.
pub(crate) fn get<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::GET, path, need, handle)
}

/// An endpoint of `POST`.
pub(crate) fn post<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::POST, path, need, handle)
}

/// An endpoint of `PUT`.
pub(crate) fn put<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::PUT, path, need, handle)
}

/// An endpoint of `PATCH`.
pub(crate) fn patch<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::PATCH, path, need, handle)
}

/// An endpoint of `DELETE`.
pub(crate) fn delete<Taken>(path: &'static str, need: Need, handle: impl Handle<Taken>) -> Endpoint {
    endpoint(Method::DELETE, path, need, handle)
}

fn endpoint<Taken, H: Handle<Taken>>(method: Method, path: &'static str, need: Need, handle: H) -> Endpoint {
    let operation = std::any::type_name::<H>();
    Endpoint {
        // Once, for the table that stands as long as the process.
        name: format!("{method} {path}").leak(),
        method,
        path,
        need,
        tag: "",
        operation: operation.rsplit("::").next().unwrap_or(operation),
        description: "",
        parameters: Vec::new(),
        known: Vec::new(),
        body: H::body(),
        answers: Vec::new(),
        ignores_query: false,
        no_time_limit: false,
        by_cookie: false,
        on_admin_address: false,
        handler: handle.handler(),
    }
}

/// Endpoints of one tag of the contract.
pub(crate) fn tagged(tag: &'static str, endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Endpoint> {
    endpoints.into_iter().map(|endpoint| Endpoint { tag, ..endpoint }).collect()
}

impl Endpoint {
    /// Its method as text.
    #[cfg(test)]
    pub fn method_name(&self) -> &str {
        self.method.as_str()
    }

    /// What it does: the first sentence is its summary.
    pub fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    fn parameter(mut self, place: Place, name: &'static str, shape: Shape, required: bool, description: &'static str) -> Self {
        self.parameters.push(Parameter { place, name, shape, required, description });
        self
    }

    /// A segment of the path. What is called `item` or `member` says so by itself.
    pub fn path(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(Place::Path, name, Shape::Text, true, description)
    }

    /// A parameter of the query.
    pub fn query(self, name: &'static str, shape: Shape, description: &'static str) -> Self {
        self.parameter(Place::Query, name, shape, false, description)
    }

    /// One that has to be given.
    pub fn needs_query(self, name: &'static str, shape: Shape, description: &'static str) -> Self {
        self.parameter(Place::Query, name, shape, true, description)
    }

    /// A header of the request.
    pub fn header(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(Place::Header, name, Shape::Text, false, description)
    }

    /// One that has to be sent.
    pub fn needs_header(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(Place::Header, name, Shape::Text, true, description)
    }

    /// It changes what has a version, as it was read: `If-Match` names that version.
    pub fn needs_if_match(self) -> Self {
        self.needs_header("If-Match", "the ETag of what was read, or * for whatever is there")
            .fails(412, "it was changed meanwhile")
            .fails(428, "there is no If-Match")
    }

    /// The same where any version will do unless one is named.
    pub fn if_match(self) -> Self {
        self.header("If-Match", "the ETag of what was read; any unless given").fails(412, "it was changed meanwhile")
    }

    fn answer(mut self, status: u16, description: &'static str, content: Vec<(&'static str, SchemaOf)>) -> Self {
        self.answers.push(Answer { status, description, content, headers: Vec::new() });
        self
    }

    /// Answers with JSON.
    pub fn answers<T: ToSchema>(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, vec![("application/json", schema_of::<T>)])
    }

    /// Answers with a JSON object that the contract says no more of.
    pub fn answers_object(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, vec![("application/json", |_| json!({ "type": "object" }))])
    }

    /// Answers with text of one of these media types.
    pub fn answers_as(self, status: u16, media_types: &[&'static str], description: &'static str) -> Self {
        let text: SchemaOf = |_| json!({ "type": "string" });
        self.answer(status, description, media_types.iter().map(|media_type| (*media_type, text)).collect())
    }

    /// Answers with bytes.
    pub fn answers_bytes(self, status: u16, media_type: &'static str, description: &'static str) -> Self {
        self.answer(status, description, vec![(media_type, |_| json!({ "type": "string", "format": "binary" }))])
    }

    /// Answers without a body.
    pub fn answers_nothing(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, Vec::new())
    }

    /// Answers with a problem, for a reason of its own; those that many endpoints have are added by the contract.
    pub fn fails(self, status: u16, description: &'static str) -> Self {
        self.answer(
            status,
            description,
            vec![("application/problem+json", |_| json!({ "$ref": "#/components/schemas/Problem" }))],
        )
    }

    /// A header of the answer that was stated last.
    pub fn sends(mut self, name: &'static str, description: &'static str) -> Self {
        self.answers.last_mut().expect("an answer stands before it").headers.push((name, description));
        self
    }

    /// Whatever its query says: what is fetched by pages and probes, which may add something of their own.
    pub fn ignores_query(self) -> Self {
        Self { ignores_query: true, ..self }
    }

    /// No caller is answered 503 because it takes long.
    pub fn no_time_limit(self) -> Self {
        Self { no_time_limit: true, ..self }
    }

    /// The cookie of the shop's own page will do in place of an access token; its handler looks at it.
    pub fn by_cookie(self) -> Self {
        Self { by_cookie: true, ..self }
    }

    /// It is on the admin address alone.
    pub fn on_admin_address(self) -> Self {
        Self { on_admin_address: true, ..self }
    }

    /// Whether it is done once under an `Idempotency-Key`: what a known caller posts, but events, which merge by their natural keys.
    pub fn takes_idempotency_keys(&self) -> bool {
        self.method == Method::POST && !matches!(self.need, Need::Anyone | Need::ReadLists | Need::WriteEvents)
    }

    /// What is read of lists and the catalog, and not followed.
    pub fn is_read_at_once(&self) -> bool {
        self.need == Need::ReadLists && !self.path.ends_with("/stream")
    }

    /// Whether it can be asked for as of what was written just now.
    pub fn waits_for_a_position(&self) -> bool {
        self.is_read_at_once() || self.method == Method::GET && matches!(self.need, Need::OwnOr(_))
    }

    /// All parameters: its own, and those that all endpoints of its kind have.
    pub fn all_parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().chain(SHARED.iter().filter(|(of, _)| of(self)).map(|(_, parameter)| parameter))
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request, posted: UnreadBody) -> Answered {
        (self.handler)(request, posted).await
    }
}

/// A parameter that many endpoints take, and which.
type Shared = (fn(&Endpoint) -> bool, Parameter);

const fn shared(place: Place, name: &'static str, shape: Shape, description: &'static str) -> Parameter {
    Parameter { place, name, shape, required: false, description }
}

const SHARED: &[Shared] = &[
    (
        |endpoint| endpoint.need == Need::ReadLists && endpoint.path != "/v1/stream",
        shared(Place::Query, "member", Shape::Text, "as this member sees it; with a service key"),
    ),
    (
        Endpoint::waits_for_a_position,
        shared(Place::Query, "min_position", Shape::Text, "answer only once the views reach this position"),
    ),
    (
        Endpoint::waits_for_a_position,
        shared(
            Place::Query,
            "wait_ms",
            Shape::Whole(0, crate::params::WAIT_MS_MAX),
            "how long to wait for it; 1000 unless given",
        ),
    ),
    (
        |endpoint| endpoint.need == Need::ReadLists,
        shared(Place::Query, "key", Shape::Text, "a publishable key, in place of the header: an EventSource can send none"),
    ),
    (
        Endpoint::is_read_at_once,
        shared(Place::Header, "If-None-Match", Shape::Text, "an ETag: 304 when the answer is still that"),
    ),
    (
        Endpoint::takes_idempotency_keys,
        shared(
            Place::Header,
            "Idempotency-Key",
            Shape::Text,
            "names the request, a UUID for one: asked for again under it within a day, it is not done again, and the answer is that \
             of the first time, with `Idempotency-Replayed: true`. Only a success is kept",
        ),
    ),
];

/// A path and its endpoints, one a method.
pub(crate) struct Template {
    /// With names for what differs.
    pub path: &'static str,
    /// For `Allow`: the methods, with commas between.
    pub allow: String,
    /// Whether pages of other origins ask for it, with a publishable key.
    pub is_for_pages: bool,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Template {
    /// All of its endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint of a method.
    pub fn endpoint(&self, method: &Method) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.method == *method)
    }
}

/// All that an API offers.
pub(crate) struct Table {
    templates: Vec<Template>,
    router: matchit::Router<usize>,
}

/// The endpoints beside those of resources, in the order in which documents list them.
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
    /// Of the product with these resources.
    pub fn of(resources: Resources) -> Self {
        let endpoints = own().into_iter().chain(resources.iter().flat_map(|resource| resource.endpoints()));
        let mut templates: Vec<Template> = Vec::new();
        let mut router = matchit::Router::new();
        for mut endpoint in endpoints {
            let of_query = endpoint.all_parameters().filter(|parameter| parameter.place == Place::Query);
            endpoint.known = of_query.map(|it| (it.name, matches!(it.shape, Shape::Texts(..)))).collect();
            let at = templates.iter().position(|template| template.path == endpoint.path).unwrap_or_else(|| {
                router.insert(endpoint.path, templates.len()).unwrap_or_else(|error| panic!("{}: {error}", endpoint.name));
                let path = endpoint.path;
                templates.push(Template { path, allow: String::new(), is_for_pages: false, endpoints: Vec::new() });
                templates.len() - 1
            });
            let template = &mut templates[at];
            assert!(template.endpoint(&endpoint.method).is_none(), "{} is stated twice", endpoint.name);
            let method = if endpoint.method == Method::GET { "GET, HEAD" } else { endpoint.method.as_str() };
            template.allow.push_str(method);
            template.allow.push_str(", ");
            template.is_for_pages |= endpoint.need.is_for_pages();
            template.endpoints.push(Arc::new(endpoint));
        }
        templates.iter_mut().for_each(|template| template.allow.push_str("OPTIONS"));
        Self { templates, router }
    }

    /// The template that a path belongs to, and what differs in it. One slash more at the end is taken for nothing.
    pub fn matched(&self, path: &str) -> Option<(&Template, Segments)> {
        let found = self.router.at(path.strip_suffix('/').unwrap_or(path)).ok()?;
        let segments = found.params.iter().map(|(name, segment)| (name.to_owned(), segment.to_owned())).collect();
        Some((&self.templates[*found.value], segments))
    }

    /// The template that a path belongs to.
    pub fn template_of(&self, path: &str) -> Option<&Template> {
        self.router.at(path.strip_suffix('/').unwrap_or(path)).ok().map(|found| &self.templates[*found.value])
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.templates.iter().flat_map(|template| &template.endpoints).map(|endpoint| &**endpoint)
    }
}

/// Segments of a path that differ, by the names that the template gives them; percent-encoded as they came.
pub(crate) type Segments = Vec<(String, String)>;

/// What the product offers, for tests of all of it.
#[cfg(test)]
static PRODUCT: std::sync::LazyLock<Table> = std::sync::LazyLock::new(|| Table::of(crate::resources::RESOURCES));

/// All templates of the product.
#[cfg(test)]
pub(crate) fn templates() -> &'static [Template] {
    &PRODUCT.templates
}

/// All endpoints of the product.
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
