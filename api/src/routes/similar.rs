//! The lists behind the storefront widgets: the hot route.

use kindred_model::Semantics;

use super::catalog::sight;
use super::endpoint::prelude::*;
use super::{list, wait_for_position};
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::recommend::{LIMIT_DEFAULT, LIMIT_MAX, ListOptions, Sight, SimilarList};
use crate::serving::named;

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "lists",
        [get("/v1/items/{item}/similar", ReadLists, show_similar_items)
            .says(
                "The items most often bought by those who bought this one. An item without a list answers 200, with what fills \
                it: the widget hides itself when there is nothing, and a new item is no error. A list shows what its caller may \
                see, and no more.",
            )
            .query("view", Text, "`also_bought`")
            .query("limit", Whole(1, 50), "12 unless given")
            .query("fill", Flag, "fill a short list from popularity; true unless given")
            .query("explain", Flag, "add the counts behind each item")
            .query("generation", Text, "of this generation in place of the live one; with a service key")
            .answers::<SimilarList>(200, "the list")
            .sends("ETag", "strong validator of the body")
            .sends("Kindred-Reco-Id", "the name of this answer; send it as `reco_id` with impressions and clicks")
            .sends("Kindred-As-Of", "`<position>; time=<RFC 3339>`: how far the answer reaches")
            .answers_nothing(304, "the list is what the ETag names")
            .fails(404, "no such generation")],
    )
}

async fn show_similar_items(request: Request) -> Answered {
    let (api, params) = (&request.api, &request.params);
    let item = request.item()?;
    let serving = match params.get("generation") {
        None => api.live(),
        Some(_) if !request.grant.service => {
            return Err(Problem::new(Code::InsufficientScope, "generations are named with a service key alone"));
        }
        Some(name) => named(api, name).await?,
    };
    let options = list_options(&serving.settings, params, sight(&serving.memory, &request.grant, params)?)?;
    wait_for_position(&serving.memory, params.freshness()?).await?;
    let answer = serving.memory.list(item.as_str(), options).await?;
    api.metrics.lists.increment(1);
    let (body, etag) = (answer.rendered.body.clone(), answer.rendered.etag.clone());
    list(&request, body, etag, &answer.published)
}

/// `view`, `limit`, `fill` and `explain`, for a sight.
pub(super) fn list_options(settings: &Semantics, params: &Params, sight: Sight) -> Result<ListOptions, Problem> {
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
