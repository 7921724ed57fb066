//! Generations: which there are, what moved between two, which is live. A service key's.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::Act;
use super::endpoint::prelude::*;
use super::{done, json, program_today};
use crate::context::GenerationShown;
use crate::problem::Problem;
use crate::served::{drop_generation, operations, promote};

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "admin",
        [
            get("/v1/admin/generations", Staff(Permission::GenerationManage), list_generations)
                .says("All generations: settings, events, as of, which is live.")
                .answers::<GenerationList>(200, "all of them")
                .fails(404, "this server keeps one generation and cannot turn to another"),
            get("/v1/admin/generations/{name}/compare", Staff(Permission::GenerationManage), compare_generations)
                .takes_its_time()
                .says("What moved from this one to another. It takes as long as it takes; one is compared at a time.")
                .path("name", "the one")
                .needs_query("with", Text, "the other")
                .query("as_of", Text, "points are told for this day; today in program.tz unless given")
                .answers_object(200, "what moved")
                .fails(404, "no such generation")
                .fails(409, "two are being compared already"),
            post("/v1/admin/generations/{name}/promote", Staff(Permission::GenerationManage), promote_generation)
                .takes_its_time()
                .says("Makes a generation the live one: its memory is loaded aside, then all readers turn to it in one step. No request \
                fails, and no answer is of both.")
                .path("name", "the generation")
                .query("force", Flag, "also one that has not caught up: readers go back to what it has taken in; false unless given")
                .answers::<Promoted>(200, "it is live, and durably so")
                .fails(404, "no such generation")
                .fails(409, "it cannot be promoted: other rules, or a part of the events")
                .fails(503, "it has not caught up yet"),
            delete("/v1/admin/generations/{name}", Staff(Permission::GenerationManage), delete_generation)
                .takes_its_time()
                .says("Deletes a generation that is not live, with all of its rows.")
                .path("name", "the generation")
                .answers_nothing(204, "it is gone")
                .fails(404, "no such generation")
                .fails(409, "it is live"),
        ],
    )
}

/// All generations.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationList {
    /// By name.
    generations: Vec<GenerationShown>,
}

async fn list_generations(request: Request) -> Answered {
    json(StatusCode::OK, &GenerationList { generations: operations(&request.api)?.list().await? })
}

async fn compare_generations(request: Request) -> Answered {
    let (api, params) = (&request.api, &request.params);
    let other = params.get("with").ok_or_else(|| Problem::query("with", "is missing: name the other generation"))?;
    let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(api, &api.live().settings));
    json(StatusCode::OK, &operations(api)?.compare(&request.segment("name")?, other, as_of).await?)
}

/// What was live before a promotion.
#[derive(Serialize, ToSchema)]
pub(crate) struct Promoted {
    /// What is live now.
    live: String,
    /// Promoting this one again rolls back.
    before: String,
}

async fn promote_generation(request: Request) -> Answered {
    let live = request.segment("name")?.into_owned();
    let act = Act { kind: "generation.promote", subject: &live, detail: &[] };
    let force = request.params.boolean("force", false)?;
    let before = request.audited(act, promote(&request.api, &live, force)).await?;
    json(StatusCode::OK, &Promoted { live, before })
}

async fn delete_generation(request: Request) -> Answered {
    let name = request.segment("name")?;
    let act = Act { kind: "generation.drop", subject: &name, detail: &[] };
    request.audited(act, drop_generation(&request.api, &name)).await?;
    Ok(done())
}
