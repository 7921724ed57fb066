//! What is popular.

use std::sync::Arc;

use kindred_model::Kind;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::access::need;
use super::catalog::{category, sight};
use super::{blocking, guarded, in_time, list, query, query_key, reach, today, with};
use crate::api::Api;
use crate::auth::{Caller, caller};
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::recommend::{DAYS_DEFAULT, KIND_DEFAULT, LIMIT_DEFAULT, LIMIT_MAX, PopularList, PopularOptions, etag_of};

const KNOWN: &[&str] = &["category", "kind", "days", "as_of", "limit", "member", "min_position", "wait_ms", "key"];
/// The longest window: ten years of days.
const DAYS_MAX: u64 = 3_660;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "popular")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(warp::header::optional::<String>("if-none-match"))
        .and(with(api))
        .then(show_popular_items)
        .boxed()
}

/// GET /v1/popular
///
/// The items by how many owners did a thing with them, summed over days, most first. Deleted and unavailable items are
/// left out of the list, not of the total; what the caller may not see, of both.
#[utoipa::path(
    get, path = "/v1/popular", tag = "lists",
    params(
        ("category" = Option<String>, Query, description = "a category path joined by `/`; items below it count"),
        ("kind" = Option<String>, Query, description = "a kind of interaction; `purchase` unless given"),
        ("days" = Option<u64>, Query, minimum = 1, maximum = 3_660, description = "over so many days; 30 unless given"),
        ("as_of" = Option<String>, Query, description = "the last of them, like 2026-01-05; today (UTC) unless given"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 50, description = "12 unless given"),
    ),
    responses(
        (status = 200, description = "the items", body = PopularList),
        (status = 304, description = "the list is what the ETag names"),
        (status = 404, description = "the view is not kept", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn show_popular_items(query: String, caller: Caller, if_none_match: Option<String>, api: Arc<Api>) -> Response {
    let (shared, query) = (&api, &*query);
    guarded(shared, &caller, query_key(query), const { need("GET /v1/popular") }, |grant| async move {
        let params = Params::parse(query, KNOWN)?;
        let serving = shared.live();
        if !serving.settings.views.popularity.enabled {
            return Err(Problem::new(Code::ViewDisabled, "views.popularity.enabled is false"));
        }
        let kind = params.parsed::<Kind>("kind")?.unwrap_or(KIND_DEFAULT);
        if kind == Kind::Search {
            return Err(Problem::query("kind", "is search: searches are keyed by their query, and in no popularity"));
        }
        let options = PopularOptions {
            category: category(&params)?,
            kind,
            days: u32::try_from(params.number("days", u64::from(DAYS_DEFAULT), 1..=DAYS_MAX)?).expect("bounded"),
            as_of: params.day("as_of")?.unwrap_or_else(|| today(shared)),
            limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).expect("bounded"),
            sight: sight(&serving.memory, &grant, &params)?,
        };
        let freshness = params.freshness()?;
        let memory = serving.memory.clone();
        let (body, published) = in_time(shared, async {
            reach(&serving.memory, freshness).await?;
            blocking(move || Ok(memory.popular(&options))).await
        })
        .await?;
        let etag = etag_of(&body);
        Ok(list(shared, body.into(), etag, &published, if_none_match.as_deref()))
    })
    .await
}
