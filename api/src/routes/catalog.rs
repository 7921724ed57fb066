//! What is sold: product, category and tag pages (R19), each as far as the caller may see it (R7).

use std::sync::Arc;

use kindred_model::MemberId;
use kindred_model::records::ItemKind;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::access::{Need, need};
use super::{blocking, guarded, in_time, link_next, list, query, query_key, reach, with};
use crate::api::Api;
use crate::auth::{Caller, Grant, caller};
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};
use crate::recommend::{
    Categories, Cursor, Found, LIMIT_DEFAULT, LIMIT_MAX, Memory, Page, PageOptions, Product, Sight, Sort, Tags, etag_of,
};

/// The longest category: 16 labels of 128 bytes.
pub(crate) const CATEGORY_BYTES_MAX: usize = 2_063;
/// The longest tag.
pub(crate) const TAG_BYTES_MAX: usize = 128;
/// Tags unless asked otherwise: a cloud on a page.
const TAGS_DEFAULT: u64 = 50;
/// The most tags.
const TAGS_MAX: u64 = 1_000;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let asked = || {
        warp::get()
            .and(query())
            .and(caller())
            .and(warp::header::optional::<String>("if-none-match"))
            .and(with(api))
            .map(|query, caller, if_none_match, api| Asked { query, caller, if_none_match, api })
    };
    let product = warp::path!("v1" / "items" / Segment).and(asked()).then(show_product);
    let products = warp::path!("v1" / "items").and(asked()).then(find_products);
    let categories = warp::path!("v1" / "categories").and(asked()).then(list_categories);
    let tags = warp::path!("v1" / "tags").and(asked()).then(list_tags);
    product.or(products).unify().or(categories).unify().or(tags).unify().boxed()
}

/// A request for one of these pages.
struct Asked {
    query: String,
    caller: Caller,
    if_none_match: Option<String>,
    api: Arc<Api>,
}

/// Who reads: whoever signed in, or the member that a service key reads for; `None` is anybody.
pub(super) fn reader(grant: &Grant, params: &Params<'_>) -> Result<Option<MemberId>, Problem> {
    match (params.get("member"), &grant.person) {
        (None, None) => Ok(None),
        (None, Some(claims)) => MemberId::parse(&claims.sub).map(Some).map_err(Problem::internal),
        (Some(member), _) if grant.service => {
            let named = MemberId::parse(member).and_then(MemberId::check_named);
            named.map(Some).map_err(|error| Problem::query("member", error.reason))
        }
        (Some(_), _) => {
            Err(Problem::new(Code::InsufficientScope, "a service key alone reads for a member; whoever signed in reads as one"))
        }
    }
}

/// What a reader may see.
pub(super) fn sight(memory: &Memory, grant: &Grant, params: &Params<'_>) -> Result<Sight, Problem> {
    Ok(memory.sight(reader(grant, params)?.as_ref()))
}

/// A path of categories that is asked for.
pub(super) fn category(params: &Params<'_>) -> Result<Option<Box<str>>, Problem> {
    text(params, "category", CATEGORY_BYTES_MAX)
}

fn text(params: &Params<'_>, name: &str, most: usize) -> Result<Option<Box<str>>, Problem> {
    let text = params.get(name);
    if text.is_some_and(|text| text.is_empty() || text.len() > most) {
        return Err(Problem::query(name, format!("has not from 1 to {most} bytes")));
    }
    Ok(text.map(Into::into))
}

impl Asked {
    /// Answers with what is made of the memory for a sight: on a thread that may block, once it is as fresh as demanded.
    async fn page<Options: Send + 'static>(
        &self,
        need: Need,
        known: &[&'static str],
        options: impl FnOnce(&Params<'_>, Sight) -> Result<Options, Problem>,
        make: impl FnOnce(&Memory, Options) -> Page + Send + 'static,
    ) -> Response {
        let (shared, query) = (&self.api, &*self.query);
        guarded(shared, &self.caller, query_key(query), need, |grant| async move {
            let params = Params::parse(query, known)?;
            let serving = shared.live();
            let options = options(&params, sight(&serving.memory, &grant, &params)?)?;
            let freshness = params.freshness()?;
            let memory = serving.memory.clone();
            let Page { body, next_cursor, published } = in_time(shared, async {
                reach(&serving.memory, freshness).await?;
                blocking(move || Ok(make(&memory, options))).await
            })
            .await?;
            let etag = etag_of(&body);
            let response = list(shared, body.into(), etag, &published, self.if_none_match.as_deref());
            Ok(link_next(response, query, next_cursor.as_deref()))
        })
        .await
    }
}

/// GET /v1/items/{item}
///
/// The page of an item. What the caller may not see is as good as not there. Unlike lists, it also shows what cannot be had now, and says
/// so.
#[utoipa::path(
    get, path = "/v1/items/{item}", tag = "catalog",
    params(
        ("item" = String, Path, description = "the item, percent-encoded; 1 to 128 bytes"),
    ),
    responses(
        (status = 200, description = "the item", body = Product),
        (status = 304, description = "the item is what the ETag names"),
        (status = 404, description = "there is no such item, or the caller may not see it", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn show_product(item: Segment, asked: Asked) -> Response {
    let (shared, query) = (&asked.api, &*asked.query);
    let if_none_match = asked.if_none_match.as_deref();
    guarded(shared, &asked.caller, query_key(query), const { need("GET /v1/items/{item}") }, |grant| async move {
        let params = Params::parse(query, &["member", "min_position", "wait_ms", "key"])?;
        let item = item.item()?;
        let serving = shared.live();
        let memory = &serving.memory;
        let sight = sight(memory, &grant, &params)?;
        let freshness = params.freshness()?;
        let (body, published) = in_time(shared, async {
            reach(memory, freshness).await?;
            // Looked at before the row: the answer reaches at least so far.
            let published = memory.published();
            Ok((memory.product(&item, sight).await?, published))
        })
        .await?;
        let body = body.ok_or_else(|| Problem::new(Code::NotFound, "there is no such item"))?;
        let etag = etag_of(&body);
        Ok(list(shared, body.into(), etag, &published, if_none_match))
    })
    .await
}

/// GET /v1/items
///
/// The items of a category, of a tag, or all: what can be had and the caller may see. `Link` names the next page.
#[utoipa::path(
    get, path = "/v1/items", tag = "catalog",
    params(
        ("category" = Option<String>, Query, description = "a category path joined by `/`; items below it count"),
        ("tag" = Option<String>, Query, description = "a tag"),
        ("kind" = Option<String>, Query, description = "`good`, `service` or `activity`"),
        ("sort" = Option<String>, Query, description = "`popular` (unless given), `newest`, `price` or `-price`"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 50, description = "12 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "a page; `Link` names the next", body = Found),
        (status = 304, description = "the page is what the ETag names"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn find_products(asked: Asked) -> Response {
    const KNOWN: &[&str] = &["category", "tag", "kind", "sort", "limit", "cursor", "member", "min_position", "wait_ms", "key"];
    let options = |params: &Params<'_>, sight| {
        let names = || Sort::ALL.map(|(name, _)| name).join(", ");
        let sort = match params.get("sort") {
            None => Sort::Popular,
            Some(asked) => {
                let known = Sort::ALL.into_iter().find(|(name, _)| *name == asked);
                known.ok_or_else(|| Problem::query("sort", format!("is none of {}", names())))?.1
            }
        };
        let after = params.cursor::<Cursor>()?;
        if after.as_ref().is_some_and(|after| after.sort != sort) {
            return Err(Problem::query("cursor", "is of another order than `sort`"));
        }
        Ok(PageOptions {
            category: category(params)?,
            tag: text(params, "tag", TAG_BYTES_MAX)?,
            kind: params.parsed::<ItemKind>("kind")?,
            sort,
            after,
            limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).expect("bounded"),
            sight,
        })
    };
    asked.page(const { need("GET /v1/items") }, KNOWN, options, |memory, options| memory.found(&options)).await
}

/// GET /v1/categories
///
/// The categories with something that the caller may see, and how much; each stands before those below it.
#[utoipa::path(
    get, path = "/v1/categories", tag = "catalog",
    responses(
        (status = 200, description = "the categories", body = Categories),
        (status = 304, description = "they are what the ETag names"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn list_categories(asked: Asked) -> Response {
    let known = &["member", "min_position", "wait_ms", "key"];
    asked.page(const { need("GET /v1/categories") }, known, |_, sight| Ok(sight), Memory::categories).await
}

/// GET /v1/tags
///
/// The tags with something that the caller may see, those of most items first.
#[utoipa::path(
    get, path = "/v1/tags", tag = "catalog",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, description = "50 unless given"),
    ),
    responses(
        (status = 200, description = "the tags", body = Tags),
        (status = 304, description = "they are what the ETag names"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn list_tags(asked: Asked) -> Response {
    let known = &["limit", "member", "min_position", "wait_ms", "key"];
    let options = |params: &Params<'_>, sight| {
        Ok((sight, usize::try_from(params.number("limit", TAGS_DEFAULT, 1..=TAGS_MAX)?).expect("bounded")))
    };
    asked.page(const { need("GET /v1/tags") }, known, options, |memory, (sight, limit)| memory.tags(sight, limit)).await
}
