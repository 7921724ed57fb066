//! Administration: status, export, rejected records, verification.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use kindred_log::Rejected;
use kindred_members::MemberError;
use kindred_model::Topic;
use kindred_model::records::Record;
use kindred_model::views::{ExportContext, ViewName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use warp::Reply;

use super::audit::AuditAction;
use super::endpoint::prelude::*;
use super::{AS_OF, NO_STORE, done, json, program_today};
use crate::api::Api;
use crate::context::VerifyReport;
use crate::export_writer::{Format, write_view};
use crate::problem::{Code, Problem};

/// Bytes of a chunk of an export.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks buffered for a slow client; then the export waits.
const CHUNKS_WAITING: usize = 4;
/// Default page size of rejected records.
const PAGE_DEFAULT: u64 = 100;
/// Maximum page size, and of a retry.
const PAGE_MAX: u64 = 1_000;
/// Differences that `verify` names unless asked otherwise.
const FIRST_DEFAULT: u64 = 10;
/// The most of them: each is a line for a person.
const FIRST_MAX: u64 = 10_000;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "admin",
        [
            get("/v1/admin/status", Staff(Permission::ReportRead), show_status)
                .says("Status: topics, positions, durable frontier, lag, rows per view, memory, disk.")
                .answers_object(200, "the status"),
            get("/v1/admin/export/{view}", Staff(Permission::ReportRead), export_view)
                .no_time_limit()
                .says(
                    "All rows of a view, sorted, from one snapshot. Views with member data also need `member:read`. Exports \
                    compare with `diff`. A failed export closes the connection without the last chunk, so that clients notice \
                    that it is incomplete.",
                )
                .path("view", "the name of a view")
                .query("format", Text, "`ndjson` or `csv`; default ndjson")
                .query("as_of", Text, "a day like 2026-01-05; default today in program.tz")
                .answers_as(200, &["application/x-ndjson", "text/csv"], "the rows")
                .fails(404, "no such view, or it is disabled"),
            get("/v1/views/{view}/{key}", Staff(Permission::ReportRead), show_rows)
                .no_time_limit()
                .says(
                    "The rows of a view for one item, member or session, in the format of its export. Views with member data \
                    also need `member:read`.",
                )
                .path("view", "the name of a view")
                .path("key", "an item, a member or a session: the key of the view")
                .query("format", Text, "`ndjson` or `csv`; default ndjson")
                .query("as_of", Text, "a day like 2026-01-05; default today in program.tz")
                .answers_as(200, &["application/x-ndjson", "text/csv"], "the rows")
                .fails(404, "no such view, or it is disabled"),
            get("/v1/admin/rejected", Staff(Permission::MemberRead), list_rejected)
                .says("Rejected records with their reasons. They may contain personal data: staff needs `member:read`.")
                .query("cursor", Text, "`next_cursor` of the previous page")
                .query("limit", Whole(1, 1_000), "default 100")
                .answers::<RejectedPage>(200, "a page"),
            get("/v1/admin/rejected/{id}", Staff(Permission::MemberRead), show_rejected)
                .says("One rejected record.")
                .path("id", "the record id, percent-encoded")
                .answers::<RejectedShown>(200, "the record")
                .fails(404, "no such record"),
            delete("/v1/admin/rejected/{id}", Staff(Permission::GenerationManage), drop_rejected)
                .says("Deletes a rejected record.")
                .path("id", "the record id, percent-encoded")
                .answers_nothing(204, "deleted, or it did not exist"),
            post("/v1/admin/rejected/delete", Staff(Permission::GenerationManage), delete_rejected)
                .says("Deletes the named rejected records.")
                .answers::<RejectedDeleted>(200, "how many were deleted"),
            post("/v1/admin/rejected/retry", Staff(Permission::GenerationManage), retry_rejected)
                .says("Validates rejected records again (a newer version may accept them) and appends those that pass.")
                .answers::<Retried>(200, "the result of each record"),
            post("/v1/admin/verify", Staff(Permission::GenerationManage), verify_views)
                .no_time_limit()
                .says(
                    "Recomputes the merged inputs from the log, as far as it reaches back, and every view from the merged \
                    inputs, and compares. `repair=true` rewrites view rows that differ. May run for minutes.",
                )
                .query("repair", Flag, "repair differences; default false")
                .query("first", Whole(0, FIRST_MAX), "how many differences to name; default 10")
                .answers::<VerifyReport>(200, "the differences")
                .fails(409, "a verification is already running")
                .fails(503, "not available now"),
        ],
    )
}

async fn show_status(request: Request) -> Answered {
    json(StatusCode::OK, &request.api.context.operations.status().await)
}

async fn export_view(request: Request) -> Answered {
    rows_of(&request, None).await
}

async fn show_rows(request: Request) -> Answered {
    rows_of(&request, Some(request.segment("key")?.into_owned())).await
}

async fn rows_of(request: &Request, key: Option<String>) -> Answered {
    let (params, grant, serving) = (&request.params, &request.grant, request.api.live());
    let view =
        request.segment("view")?.parse::<ViewName>().map_err(|none| Problem::new(Code::NotFound, none.to_string()))?.info();
    let format = params.parsed::<Format>("format")?.unwrap_or_default();
    let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(&request.api, &serving.settings));
    if !(view.enabled)(&serving.settings) {
        return Err(Problem::new(Code::ViewDisabled, format!("views.{}.enabled is false", view.name)));
    }
    if view.is_about_persons() && !grant.service && !grant.may(Permission::MemberRead) {
        return Err(MemberError::Forbidden(Permission::MemberRead).into());
    }
    let snapshot = async { Ok(serving.store.snapshot()?) };
    let snapshot = match &key {
        Some(key) => {
            if view.is_about_persons() {
                request.audit_read(view.name, key).await?;
            }
            snapshot.await?
        }
        None => {
            let action = AuditAction { kind: "view.export", subject: view.name, detail: &[] };
            request.audited(action, snapshot).await?
        }
    };
    let reached = snapshot.frontier.position.to_string();
    let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
    let settings = serving.settings.clone();
    tokio::task::spawn_blocking(move || {
        let context = ExportContext { settings: &settings, as_of };
        let out = ChunkWriter { chunks: chunks.clone(), waiting: Vec::new() };
        if let Err(error) = write_view(view, &*snapshot.rows, key.as_deref(), context, format, out)
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            tracing::error!(view = view.name, "export failed: {error}");
            // Aborts the connection, so that the client notices; fails if it is gone.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    let mut response = warp::reply::stream(ReceiverStream::new(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(AS_OF, HeaderValue::from_str(&reached).map_err(Problem::internal)?);
    Ok(response)
}

type Chunks = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Sends written bytes in chunks; `BrokenPipe` when the client is gone.
struct ChunkWriter {
    chunks: Chunks,
    waiting: Vec<u8>,
}

impl std::io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.waiting, Vec::with_capacity(CHUNK_BYTES + 512));
        self.chunks.blocking_send(Ok(chunk.into())).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A rejected record.
#[derive(Serialize, ToSchema)]
pub(crate) struct RejectedShown {
    /// Source, partition and offset.
    id: String,
    /// A topic of the log, or `import:FILE@IMPORT`.
    source: String,
    /// The target topic.
    #[schema(value_type = String)]
    topic: Topic,
    partition: u32,
    /// The offset in the log, or the line in the file.
    offset: u64,
    /// Human-readable reason.
    reason: String,
    /// The record as received, truncated to 64 KiB.
    payload: String,
}

impl From<Rejected> for RejectedShown {
    fn from(rejected: Rejected) -> Self {
        let id = rejected.id();
        let Rejected { source, topic, partition, offset, reason, payload } = rejected;
        Self { id, source, topic, partition, offset, reason, payload }
    }
}

/// A page of rejected records.
#[derive(Serialize, ToSchema)]
pub(crate) struct RejectedPage {
    /// Ordered by id.
    rejected: Vec<RejectedShown>,
    /// The cursor of the next page; null on the last.
    next_cursor: Option<String>,
}

async fn list_rejected(request: Request) -> Answered {
    let params = &request.params;
    let limit = usize::try_from(params.number("limit", PAGE_DEFAULT, 1..=PAGE_MAX)?).expect("bounded");
    let after = params.get("cursor");
    if after.is_some_and(|id| !Rejected::is_id(id)) {
        return Err(Problem::query("cursor", "is not a cursor of this server"));
    }
    request.audit_read("rejected", "").await?;
    let mut rejected = request.api.context.log.rejected(after, limit + 1).await?;
    let more = rejected.len() > limit;
    rejected.truncate(limit);
    let next_cursor = rejected.last().filter(|_| more).map(Rejected::id);
    json(StatusCode::OK, &RejectedPage { rejected: rejected.into_iter().map(Into::into).collect(), next_cursor })
}

async fn show_rejected(request: Request) -> Answered {
    let id = request.segment("id")?;
    request.audit_read("rejected", "").await?;
    let rejected = request.api.context.log.rejected_one(&id).await?;
    let rejected = rejected.ok_or_else(|| Problem::new(Code::NotFound, "there is no rejected record with this id"))?;
    json(StatusCode::OK, &RejectedShown::from(rejected))
}

async fn drop_rejected(request: Request) -> Answered {
    let id = request.segment("id")?.into_owned();
    let action = AuditAction { kind: "rejected.drop", subject: &id, detail: &[] };
    let dropped = async { Ok(request.api.context.log.rejected_remove(std::slice::from_ref(&id)).await?) };
    request.audited(action, dropped).await?;
    Ok(done())
}

/// Rejected records that were dropped.
#[derive(Serialize, ToSchema)]
pub(crate) struct RejectedDeleted {
    /// How many.
    deleted: usize,
    /// There were no rejected records of these ids.
    unknown: Vec<String>,
}

async fn delete_rejected(request: Request, RejectedIds { ids }: RejectedIds) -> Answered {
    at_most_a_page(&ids)?;
    let log = &request.api.context.log;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for id in ids {
        let is_there = log.rejected_one(&id).await?.is_some();
        if is_there { &mut known } else { &mut unknown }.push(id);
    }
    if !known.is_empty() {
        let (subject, records) = (if known.len() == 1 { known[0].as_str() } else { "" }, known.len().to_string());
        let action = AuditAction { kind: "rejected.drop", subject, detail: &[("records", &records)] };
        request.audited(action, async { Ok(log.rejected_remove(&known).await?) }).await?;
    }
    json(StatusCode::OK, &RejectedDeleted { deleted: known.len(), unknown })
}

fn at_most_a_page(ids: &[String]) -> Result<(), Problem> {
    let too_many = || Problem::new(Code::PayloadTooLarge, format!("at most {PAGE_MAX} ids are accepted at once"));
    if ids.len() as u64 > PAGE_MAX { Err(too_many()) } else { Ok(()) }
}

/// Which rejected records are meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RejectedIds {
    /// At most 1,000.
    ids: Vec<String>,
}

/// The result of a retry.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retried {
    /// Ids of records that are now durable in the log and no longer rejected.
    accepted: Vec<String>,
    /// Records that are still rejected.
    rejected: Vec<StillRejected>,
    /// Ids without a rejected record.
    unknown: Vec<String>,
}

/// A record that is still rejected.
#[derive(Serialize, ToSchema)]
pub(crate) struct StillRejected {
    id: String,
    /// Why.
    reason: String,
}

async fn retry_rejected(request: Request, RejectedIds { ids }: RejectedIds) -> Answered {
    at_most_a_page(&ids)?;
    let records = ids.len().to_string();
    let action = AuditAction { kind: "rejected.retry", subject: "", detail: &[("records", &records)] };
    json(StatusCode::OK, &request.audited(action, retry_all(&request.api, ids)).await?)
}

/// Appends before deleting: after a crash in between a retry appends the same record, which merges into itself.
async fn retry_all(api: &Api, ids: Vec<String>) -> Result<Retried, Problem> {
    let (log, rules) = (&api.context.log, api.context.settings.rules());
    let mut retried = Retried { accepted: Vec::new(), rejected: Vec::new(), unknown: Vec::new() };
    let mut passed: Vec<(Topic, String, Vec<u8>)> = Vec::new();
    for id in ids {
        let Some(rejected) = log.rejected_one(&id).await? else {
            retried.unknown.push(id);
            continue;
        };
        match Record::decode(rejected.topic, rejected.payload.as_bytes(), &rules) {
            Ok(record) => passed.push((rejected.topic, id, record.to_json())),
            Err(error) => retried.rejected.push(StillRejected { id, reason: error.to_string() }),
        }
    }
    for topic in Topic::ALL {
        let (ids, payloads): (Vec<String>, Vec<Vec<u8>>) =
            passed.iter().filter(|(of, ..)| of == topic).map(|(_, id, payload)| (id.clone(), payload.clone())).unzip();
        if !ids.is_empty() {
            log.append(*topic, payloads, None).await?;
            log.rejected_remove(&ids).await?;
            retried.accepted.extend(ids);
        }
    }
    Ok(retried)
}

async fn verify_views(request: Request) -> Answered {
    let repair = request.params.boolean("repair", false)?;
    let first = usize::try_from(request.params.number("first", FIRST_DEFAULT, 0..=FIRST_MAX)?).expect("bounded");
    let action = AuditAction { kind: "views.verify", subject: "", detail: &[("repair", if repair { "true" } else { "false" })] };
    let verified = async { Ok(request.api.context.operations.verify(repair, first).await?) };
    json(StatusCode::OK, &request.audited(action, verified).await?)
}
