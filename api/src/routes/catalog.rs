//! The catalog: product, category and tag pages (R19), filtered by visibility (R7).

use kindred_model::MemberId;
use kindred_model::records::ItemKind;

use super::endpoint::prelude::*;
use super::{blocking, link_next, list, wait_for_position};
use crate::auth::Grant;
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::recommend::{
    Categories, Cursor, Found, LIMIT_DEFAULT, LIMIT_MAX, Memory, Page, PageOptions, Product, Sight, Sort, Tags, etag_of,
};

/// 16 labels of 128 bytes.
pub(crate) const CATEGORY_BYTES_MAX: usize = 2_063;
pub(crate) const TAG_BYTES_MAX: usize = 128;
/// Default number of tags.
const TAGS_DEFAULT: u64 = 50;
const TAGS_MAX: u64 = 1_000;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "catalog",
        [
            get("/v1/items/{item}", ReadLists, show_product)
                .says(
                    "The page of an item. Items that the caller may not see return 404. Unlike lists, it includes unavailable \
                    items and says so.",
                )
                .answers::<Product>(200, "the item")
                .answers_nothing(304, "not modified")
                .fails(404, "there is no such item, or the caller may not see it"),
            get("/v1/items", ReadLists, find_products)
                .says("Available items that the caller may see: of a category, of a tag, or all. `Link` names the next page.")
                .query("category", Text, "a category path joined by `/`; includes subcategories")
                .query("tag", Text, "a tag")
                .query("kind", Text, "`good`, `service` or `activity`")
                .query("sort", Text, "`popular` (default), `newest`, `price` or `-price`")
                .query("limit", Whole(1, 50), "default 12")
                .query("cursor", Text, "`next_cursor` of the previous page")
                .answers::<Found>(200, "a page; `Link` names the next")
                .answers_nothing(304, "not modified"),
            get("/v1/categories", ReadLists, list_categories)
                .says("The categories with items that the caller may see, and their counts; parents before children.")
                .answers::<Categories>(200, "the categories")
                .answers_nothing(304, "not modified"),
            get("/v1/tags", ReadLists, list_tags)
                .says("The tags of items that the caller may see, most items first.")
                .query("limit", Whole(1, 1_000), "default 50")
                .answers::<Tags>(200, "the tags")
                .answers_nothing(304, "not modified"),
        ],
    )
}

/// The member on whose behalf is read: the signed-in one, or that of `member` with a service key.
pub(super) fn reader(grant: &Grant, params: &Params) -> Result<Option<MemberId>, Problem> {
    match (params.get("member"), &grant.person) {
        (None, None) => Ok(None),
        (None, Some(claims)) => MemberId::parse(&claims.sub).map(Some).map_err(Problem::internal),
        (Some(member), _) if grant.service => {
            let named = MemberId::parse(member).and_then(MemberId::check_named);
            named.map(Some).map_err(|error| Problem::query("member", error.reason))
        }
        (Some(_), _) => Err(Problem::new(Code::InsufficientScope, "the parameter `member` needs a service key")),
    }
}

pub(super) fn sight(memory: &Memory, grant: &Grant, params: &Params) -> Result<Sight, Problem> {
    Ok(memory.sight(reader(grant, params)?.as_ref()))
}

pub(super) fn category(params: &Params) -> Result<Option<Box<str>>, Problem> {
    text(params, "category", CATEGORY_BYTES_MAX)
}

fn text(params: &Params, name: &str, most: usize) -> Result<Option<Box<str>>, Problem> {
    let text = params.get(name);
    if text.is_some_and(|text| text.is_empty() || text.len() > most) {
        return Err(Problem::query(name, format!("must have 1 to {most} bytes")));
    }
    Ok(text.map(Into::into))
}

/// Responds with a page made from the memory, on a blocking thread.
async fn page<Options: Send + 'static>(
    request: &Request,
    options: impl FnOnce(&Params, Sight) -> Result<Options, Problem>,
    make: impl FnOnce(&Memory, Options) -> Page + Send + 'static,
) -> Answered {
    let (params, serving) = (&request.params, request.api.live());
    let options = options(params, sight(&serving.memory, &request.grant, params)?)?;
    wait_for_position(&serving.memory, params.freshness()?).await?;
    let memory = serving.memory.clone();
    let Page { body, next_cursor, published } = blocking(move || Ok(make(&memory, options))).await?;
    let etag = etag_of(&body);
    Ok(link_next(list(request, body.into(), etag, &published)?, &request.query, next_cursor.as_deref()))
}

async fn show_product(request: Request) -> Answered {
    let (item, serving) = (request.item()?, request.api.live());
    let memory = &serving.memory;
    let sight = sight(memory, &request.grant, &request.params)?;
    wait_for_position(memory, request.params.freshness()?).await?;
    // Read before the row, so the response reaches at least this position.
    let published = memory.published();
    let body = memory.product(&item, sight).await?;
    let body = body.ok_or_else(|| Problem::new(Code::NotFound, "there is no such item"))?;
    let etag = etag_of(&body);
    list(&request, body.into(), etag, &published)
}

async fn find_products(request: Request) -> Answered {
    let options = |params: &Params, sight| {
        let names = || Sort::ALL.map(|(name, _)| name).join(", ");
        let sort = match params.get("sort") {
            None => Sort::Popular,
            Some(sort) => {
                let known = Sort::ALL.into_iter().find(|(name, _)| *name == sort);
                known.ok_or_else(|| Problem::query("sort", format!("must be one of {}", names())))?.1
            }
        };
        let after = params.cursor::<Cursor>()?;
        if after.as_ref().is_some_and(|after| after.sort != sort) {
            return Err(Problem::query("cursor", "is of a different `sort`"));
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
    page(&request, options, |memory, options| memory.found(&options)).await
}

async fn list_categories(request: Request) -> Answered {
    page(&request, |_, sight| Ok(sight), Memory::categories).await
}

async fn list_tags(request: Request) -> Answered {
    let options = |params: &Params, sight| {
        Ok((sight, usize::try_from(params.number("limit", TAGS_DEFAULT, 1..=TAGS_MAX)?).expect("bounded")))
    };
    page(&request, options, |memory, (sight, limit)| memory.tags(sight, limit)).await
}
