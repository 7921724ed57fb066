//! Lists of similar items: the hot route.

use kindred_model::Semantics;

use super::catalog::sight;
use super::endpoint::prelude::*;
use super::{list, wait_for_position};
use crate::params::Params;
use crate::problem::{Code, Problem};
use crate::recommend::{LIMIT_DEFAULT, LIMIT_MAX, ListOptions, Sight, SimilarList};
use crate::serving::named;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "lists",
        [get("/v1/items/{item}/similar", ReadLists, show_similar_items)
            .says(
                "Items most often bought by the buyers of this item. An item without a list returns 200, filled from popularity \
                    unless `fill=false`. Contains only items that the caller may see.",
            )
            .query("view", Text, "`also_bought`")
            .query("limit", Whole(1, 50), "default 12")
            .query("fill", Flag, "fill a short list from popularity; default true")
            .query("explain", Flag, "add the counts behind each item")
            .query("generation", Text, "a generation other than the live one; needs a service key")
            .answers::<SimilarList>(200, "the list")
            .sends("ETag", "strong validator of the body")
            .sends("Kindred-Reco-Id", "the id of this response; send it as `reco_id` with impressions and clicks")
            .sends("Kindred-As-Of", "`<position>; time=<RFC 3339>`: the state that the response reflects")
            .answers_nothing(304, "not modified")
            .fails(404, "no such generation")],
    )
}

async fn show_similar_items(request: Request) -> Answered {
    let (api, params) = (&request.api, &request.params);
    let item = request.item()?;
    let serving = match params.get("generation") {
        None => api.live(),
        Some(_) if !request.grant.service => {
            return Err(Problem::new(Code::InsufficientScope, "the parameter `generation` needs a service key"));
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

/// Reads `view`, `limit`, `fill` and `explain`.
pub(super) fn list_options(settings: &Semantics, params: &Params, sight: Sight) -> Result<ListOptions, Problem> {
    if let Some(view) = params.get("view").filter(|view| *view != "also_bought") {
        let shown: String = view.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Problem::query("view", format!("{shown:?} is not a list view; accepted: also_bought")));
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
