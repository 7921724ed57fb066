//! Generations: list, compare, promote, delete.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::AuditAction;
use super::endpoint::prelude::*;
use super::{done, json, program_today};
use crate::context::GenerationShown;
use crate::problem::Problem;
use crate::serving::{drop_generation, operations, promote};

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "admin",
        [
            get("/v1/admin/generations", Staff(Permission::GenerationManage), list_generations)
                .says("All generations with their settings, positions and which is live.")
                .answers::<GenerationList>(200, "the generations")
                .fails(404, "this server has a single generation"),
            get("/v1/admin/generations/{name}/compare", Staff(Permission::GenerationManage), compare_generations)
                .no_time_limit()
                .says("Compares two generations. May run for minutes; one comparison at a time.")
                .path("name", "the generation to compare")
                .needs_query("with", Text, "the generation to compare it with")
                .query("as_of", Text, "the day of the points; default today in program.tz")
                .answers_object(200, "the differences")
                .fails(404, "no such generation")
                .fails(409, "a comparison is already running"),
            post("/v1/admin/generations/{name}/promote", Staff(Permission::GenerationManage), promote_generation)
                .no_time_limit()
                .says(
                    "Promotes a generation: its memory is loaded first, then all requests switch to it at once. No request \
                    fails, and no response mixes the two.",
                )
                .path("name", "the generation")
                .query("force", Flag, "also one that has not caught up; default false")
                .answers::<Promoted>(200, "it is live, durably")
                .fails(404, "no such generation")
                .fails_as(Code::Refused, "it cannot be promoted: different rules, or built from a part of the events")
                .fails(503, "it has not caught up yet"),
            delete("/v1/admin/generations/{name}", Staff(Permission::GenerationManage), delete_generation)
                .no_time_limit()
                .says("Deletes a generation that is not live, with all its rows.")
                .path("name", "the generation")
                .answers_nothing(204, "deleted")
                .fails(404, "no such generation")
                .fails_as(Code::Refused, "it is live"),
        ],
    )
}

/// All generations.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationList {
    /// Ordered by name.
    generations: Vec<GenerationShown>,
}

async fn list_generations(request: Request) -> Answered {
    json(StatusCode::OK, &GenerationList { generations: operations(&request.api)?.list().await? })
}

async fn compare_generations(request: Request) -> Answered {
    let (api, params) = (&request.api, &request.params);
    let other = params.get("with").ok_or_else(|| Problem::query("with", "is missing: the generation to compare with"))?;
    let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(api, &api.live().settings));
    json(StatusCode::OK, &operations(api)?.compare(&request.segment("name")?, other, as_of).await?)
}

/// The result of a promotion.
#[derive(Serialize, ToSchema)]
pub(crate) struct Promoted {
    /// The live generation.
    live: String,
    /// The previous one; promote it to roll back.
    before: String,
}

async fn promote_generation(request: Request) -> Answered {
    let live = request.segment("name")?.into_owned();
    let action = AuditAction { kind: "generation.promote", subject: &live, detail: &[] };
    let force = request.params.boolean("force", false)?;
    let before = request.audited(action, promote(&request.api, &live, force)).await?;
    json(StatusCode::OK, &Promoted { live, before })
}

async fn delete_generation(request: Request) -> Answered {
    let name = request.segment("name")?;
    let action = AuditAction { kind: "generation.drop", subject: &name, detail: &[] };
    request.audited(action, drop_generation(&request.api, &name)).await?;
    Ok(done())
}
