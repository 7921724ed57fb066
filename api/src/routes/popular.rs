//! Popularity.

use kindred_model::Kind;

use super::catalog::{category, sight};
use super::endpoint::prelude::*;
use super::{blocking, list, today, wait_for_position};
use crate::problem::{Code, Problem};
use crate::recommend::{DAYS_DEFAULT, KIND_DEFAULT, LIMIT_DEFAULT, LIMIT_MAX, PopularList, PopularOptions, etag_of};

/// Ten years.
const DAYS_MAX: u64 = 3_660;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "lists",
        [get("/v1/popular", ReadLists, show_popular_items)
            .says(
                "Items ranked by the number of owners with an interaction of this kind, summed over days. Deleted and \
                    unavailable items are left out of the list but count in `total`; items that the caller may not see count in \
                    neither.",
            )
            .query("category", Text, "a category path joined by `/`; includes subcategories")
            .query("kind", Text, "a kind of interaction; default `purchase`")
            .query("days", Whole(1, 3_660), "number of days; default 30")
            .query("as_of", Text, "the last day, like 2026-01-05; default today (UTC)")
            .query("limit", Whole(1, 50), "default 12")
            .answers::<PopularList>(200, "the items")
            .answers_nothing(304, "not modified")
            .fails_as(Code::ViewDisabled, "the view is disabled")],
    )
}

async fn show_popular_items(request: Request) -> Answered {
    let params = &request.params;
    let serving = request.api.live();
    if !serving.settings.views.popularity.enabled {
        return Err(Problem::new(Code::ViewDisabled, "views.popularity.enabled is false"));
    }
    let kind = params.parsed::<Kind>("kind")?.unwrap_or(KIND_DEFAULT);
    if kind == Kind::Search {
        return Err(Problem::query("kind", "search is not supported: searches have a query and no item"));
    }
    let options = PopularOptions {
        category: category(params)?,
        kind,
        days: u32::try_from(params.number("days", u64::from(DAYS_DEFAULT), 1..=DAYS_MAX)?).expect("bounded"),
        as_of: params.day("as_of")?.unwrap_or_else(|| today(&request.api)),
        limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).expect("bounded"),
        sight: sight(&serving.memory, &request.grant, params)?,
    };
    wait_for_position(&serving.memory, params.freshness()?).await?;
    let memory = serving.memory.clone();
    let (body, published) = blocking(move || Ok(memory.popular(&options))).await?;
    let etag = etag_of(&body);
    list(&request, body.into(), etag, &published)
}
