//! The lists behind the storefront widgets: the hot route.

use std::sync::Arc;

use kindred_model::Semantics;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::access::need;
use super::catalog::sight;
use super::{guarded, in_time, list, query, query_key, reach, with};
use crate::api::Api;
use crate::auth::{Caller, caller};
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};
use crate::recommend::{LIMIT_DEFAULT, LIMIT_MAX, ListOptions, Sight, SimilarList};
use crate::served::named;

const KNOWN: &[&str] = &["view", "limit", "fill", "explain", "member", "min_position", "wait_ms", "key", "generation"];

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "items" / Segment / "similar")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(warp::header::optional::<String>("if-none-match"))
        .and(with(api))
        .then(show_similar_items)
        .boxed()
}

/// GET /v1/items/{item}/similar
///
/// The items most often bought by those who bought this one. An item without a list answers 200, with what fills it: the widget
/// hides itself when there is nothing, and a new item is no error. A list shows what its caller may see, and no more.
#[utoipa::path(
    get, path = "/v1/items/{item}/similar", tag = "lists",
    params(
        ("item" = String, Path, description = "the item, percent-encoded; 1 to 128 bytes"),
        ("view" = Option<String>, Query, description = "`also_bought`"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 50, description = "12 unless given"),
        ("fill" = Option<bool>, Query, description = "fill a short list from popularity; true unless given"),
        ("explain" = Option<bool>, Query, description = "add the counts behind each item"),
        ("generation" = Option<String>, Query, description = "of this generation in place of the live one; with a service key"),
    ),
    responses(
        (status = 200, description = "the list", body = SimilarList, headers(
            ("ETag" = String, description = "strong validator of the body"),
            ("Kindred-Reco-Id" = String, description = "the name of this answer; send it as `reco_id` with impressions and clicks"),
            ("Kindred-As-Of" = String, description = "`<position>; time=<RFC 3339>`: how far the answer reaches"),
        )),
        (status = 304, description = "the list is what the ETag names"),
        (status = 404, description = "no such generation", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn show_similar_items(
    item: Segment,
    query: String,
    caller: Caller,
    if_none_match: Option<String>,
    api: Arc<Api>,
) -> Response {
    let (shared, query) = (&api, &*query);
    guarded(shared, &caller, query_key(query), const { need("GET /v1/items/{item}/similar") }, |grant| async move {
        let params = Params::parse(query, KNOWN)?;
        let item = item.item()?;
        let serving = match params.get("generation") {
            None => shared.live(),
            Some(_) if !grant.service => {
                return Err(Problem::new(Code::InsufficientScope, "generations are named with a service key alone"));
            }
            Some(name) => named(shared, name).await?,
        };
        let options = list_options(&serving.settings, &params, sight(&serving.memory, &grant, &params)?)?;
        if let Some(freshness) = params.freshness()? {
            in_time(shared, reach(&serving.memory, Some(freshness))).await?;
        }
        let answer = in_time(shared, async { Ok(serving.memory.list(item.as_str(), options).await?) }).await?;
        shared.measures.lists.increment(1);
        let (body, etag) = (answer.rendered.body.clone(), answer.rendered.etag.clone());
        Ok(list(shared, body, etag, &answer.published, if_none_match.as_deref()))
    })
    .await
}

/// `view`, `limit`, `fill` and `explain`, for a sight.
pub(super) fn list_options(settings: &Semantics, params: &Params<'_>, sight: Sight) -> Result<ListOptions, Problem> {
    if let Some(view) = params.get("view").filter(|view| *view != "also_bought") {
        let shown: String = view.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Problem::query("view", format!("{shown:?} is no view of lists; accepted: also_bought")));
    }
    if !settings.views.also_bought.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.also_bought.enabled is false"));
    }
    let limit = params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?;
    Ok(ListOptions {
        limit: u8::try_from(limit).expect("bounded"),
        fill: params.boolean("fill", true)?,
        explain: params.boolean("explain", false)?,
        sight,
    })
}
