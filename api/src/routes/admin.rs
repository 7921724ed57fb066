//! Administration: status, export, rejected records, verify. A service key's; what the commands do on a running server.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use kindred_log::Rejected;
use kindred_members::{MemberError, Permission};
use kindred_model::Topic;
use kindred_model::records::Record;
use kindred_model::views::{ExportContext, ViewInfo, ViewName};
use kindred_store::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::access::{Need, need};
use super::body::Posted;
use super::noted::{Act, note_reading, noted};
use super::{AS_OF, NO_STORE, acting, acting_with_body, guarded, in_time, json, program_today, query, with};
use crate::api::Api;
use crate::auth::{Caller, Visitor, caller};
use crate::context::VerifyReport;
use crate::export_writer::{ExportWriter, Format};
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};

/// Bytes of an export that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader; then the export waits.
const CHUNKS_WAITING: usize = 4;
/// Rejected records of a page unless asked otherwise.
const PAGE_DEFAULT: u64 = 100;
/// The most rejected records of a page, and of a retry.
const PAGE_MAX: u64 = 1_000;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let status =
        warp::path!("v1" / "admin" / "status").and(warp::get()).and(query()).and(caller()).and(with(api)).then(show_status);
    let export = warp::path!("v1" / "admin" / "export" / Segment).and(warp::get()).and(acting(api)).then(export_view);
    let rows = warp::path!("v1" / "views" / Segment / Segment).and(warp::get()).and(acting(api)).then(show_rows);
    let listed = warp::path!("v1" / "admin" / "rejected").and(warp::get()).and(acting(api)).then(list_rejected);
    let retry =
        warp::path!("v1" / "admin" / "rejected" / "retry").and(warp::post()).and(acting_with_body(api)).then(retry_rejected);
    let shown = warp::path!("v1" / "admin" / "rejected" / Segment).and(warp::get()).and(acting(api)).then(show_rejected);
    let dropped = warp::path!("v1" / "admin" / "rejected" / Segment).and(warp::delete()).and(acting(api)).then(drop_rejected);
    let verify = warp::path!("v1" / "admin" / "verify").and(warp::post()).and(acting(api)).then(verify_views);
    let rejected = listed.or(retry).unify().or(shown).unify().or(dropped).unify();
    status.or(export).unify().or(rows).unify().or(rejected).unify().or(verify).unify().boxed()
}

/// GET /v1/admin/status
///
/// Topics, positions, the durable frontier, lag, rows a view, memory, disk.
#[utoipa::path(
    get, path = "/v1/admin/status", tag = "admin",
    responses(
        (status = 200, description = "the status", body = Object),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn show_status(query: String, caller: Caller, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/status") }, |_| async {
        Params::parse(&query, &[])?;
        let status = in_time(shared, async { Ok(shared.context.operations.status().await) }).await?;
        json(StatusCode::OK, &status)
    })
    .await
}

/// GET /v1/admin/export/{view}
///
/// All rows of a view, sorted, as of one applied unit. A view that names members needs `member:read` as well. Two exports compare with `diff`. An export that breaks off ends the
/// connection and not the chunks, so that half of it is not taken for the whole.
#[utoipa::path(
    get, path = "/v1/admin/export/{view}", tag = "admin",
    params(
        ("view" = String, Path, description = "the name of a view"),
        ("format" = Option<String>, Query, description = "`ndjson` or `csv`; ndjson unless given"),
        ("as_of" = Option<String>, Query, description = "a day like 2026-01-05; today in program.tz unless given"),
    ),
    responses(
        (status = 200, description = "the rows", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 404, description = "no such view, or it is not kept", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn export_view(view: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    rows_of(const { need("GET /v1/admin/export/{view}") }, view, None, query, caller, visitor, api).await
}

/// GET /v1/views/{view}/{key}
///
/// The rows of a view of one item, member or session, as its export has them; none where there are none. A view that names members
/// needs `member:read` as well.
#[utoipa::path(
    get, path = "/v1/views/{view}/{key}", tag = "admin",
    params(
        ("view" = String, Path, description = "the name of a view"),
        ("key" = String, Path, description = "an item, a member or a session, as the first columns of the view have it"),
        ("format" = Option<String>, Query, description = "`ndjson` or `csv`; ndjson unless given"),
        ("as_of" = Option<String>, Query, description = "a day like 2026-01-05; today in program.tz unless given"),
    ),
    responses(
        (status = 200, description = "the rows", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 404, description = "no such view, or it is not kept", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn show_rows(view: Segment, key: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    rows_of(const { need("GET /v1/views/{view}/{key}") }, view, Some(key), query, caller, visitor, api).await
}

/// The rows of a view, or of one of its keys.
async fn rows_of(
    need: Need,
    view: Segment,
    key: Option<Segment>,
    query: String,
    caller: Caller,
    visitor: Visitor,
    api: Arc<Api>,
) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, need, |grant| async move {
        let view = view.decoded()?.parse::<ViewName>().map_err(|none| Problem::new(Code::NotFound, none.to_string()))?.info();
        let key = key.as_ref().map(Segment::decoded).transpose()?.map(String::from);
        let params = Params::parse(&query, &["format", "as_of"])?;
        let format = params.parsed::<Format>("format")?.unwrap_or_default();
        let as_of = params.day("as_of")?.unwrap_or_else(|| program_today(shared, &shared.live().settings));
        let serving = shared.live();
        if !(view.enabled)(&serving.settings) {
            return Err(Problem::new(Code::ViewDisabled, format!("views.{}.enabled is false", view.name)));
        }
        if view.is_about_persons() && !grant.service && !grant.may(Permission::MemberRead) {
            return Err(Problem::of_member(&MemberError::Forbidden(Permission::MemberRead), visitor.language, 0));
        }
        let snapshot = async { Ok(serving.store.snapshot()?) };
        let snapshot = match &key {
            Some(key) => {
                if view.is_about_persons() {
                    note_reading(shared, &grant, &visitor, view.name, key).await?;
                }
                snapshot.await?
            }
            None => {
                let act = Act { kind: "view.export", subject: view.name, detail: &[] };
                noted(shared, &grant, &visitor, act, snapshot).await?
            }
        };
        let reached = snapshot.frontier.position.to_string();
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let settings = serving.settings.clone();
        tokio::task::spawn_blocking(move || {
            let context = ExportContext { settings: &settings, as_of };
            write_rows(view, key.as_deref(), &snapshot, context, format, chunks);
        });
        let mut response = warp::reply::stream(ReceiverStream::new(receiver)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        headers.insert(AS_OF, HeaderValue::from_str(&reached).map_err(Problem::internal)?);
        Ok(response)
    })
    .await
}

type Chunks = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Sends what is written in chunks; a reader who left is a broken pipe.
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

fn write_rows(
    view: &ViewInfo,
    of: Option<&str>,
    snapshot: &Snapshot,
    context: ExportContext<'_>,
    format: Format,
    chunks: Chunks,
) {
    let failed = chunks.clone();
    let out = ChunkWriter { chunks, waiting: Vec::new() };
    let written = ExportWriter::begin(format, view.columns, out).and_then(|mut writer| {
        let mut broken = None;
        let read = (view.export)(&*snapshot.rows, of, context, &mut |cells| match writer.row(cells) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        });
        match (broken, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(std::io::Error::other(error.to_string())),
            (None, Ok(())) => writer.finish().map(drop),
        }
    });
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tracing::error!(view = view.name, "could not finish an export: {error}");
        // The reader may have left meanwhile; then nobody is misled.
        let _ = failed.blocking_send(Err(error));
    }
}

/// A record that could not be accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct RejectedShown {
    /// (source, partition, offset).
    id: String,
    /// A topic of the log, or `import:FILE@IMPORT`.
    source: String,
    /// The topic it was meant for.
    #[schema(value_type = String)]
    topic: Topic,
    partition: u32,
    /// Its offset, or the line of the file.
    offset: u64,
    /// What is wrong, for a person.
    reason: String,
    /// The record as it came; cut at 64 KiB.
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
    /// In the order of their ids.
    rejected: Vec<RejectedShown>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// GET /v1/admin/rejected
///
/// Records that could not be accepted, each with its reason. They may be about persons: staff needs `member:read`.
#[utoipa::path(
    get, path = "/v1/admin/rejected", tag = "admin",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, description = "100 unless given"),
    ),
    responses(
        (status = 200, description = "a page", body = RejectedPage),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn list_rejected(query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/rejected") }, |grant| async move {
        let params = Params::parse(&query, &["cursor", "limit"])?;
        let limit = usize::try_from(params.number("limit", PAGE_DEFAULT, 1..=PAGE_MAX)?).expect("bounded");
        let after = params.get("cursor");
        if after.is_some_and(|id| !Rejected::is_id(id)) {
            return Err(Problem::query("cursor", "is not one that this server gave out"));
        }
        note_reading(shared, &grant, &visitor, "rejected", "").await?;
        let mut rejected = in_time(shared, async { Ok(shared.context.log.rejected(after, limit + 1).await?) }).await?;
        let more = rejected.len() > limit;
        rejected.truncate(limit);
        let next_cursor = rejected.last().filter(|_| more).map(Rejected::id);
        json(StatusCode::OK, &RejectedPage { rejected: rejected.into_iter().map(Into::into).collect(), next_cursor })
    })
    .await
}

/// GET /v1/admin/rejected/{id}
///
/// One rejected record.
#[utoipa::path(
    get, path = "/v1/admin/rejected/{id}", tag = "admin",
    params(("id" = String, Path, description = "its id, percent-encoded")),
    responses(
        (status = 200, description = "the record", body = RejectedShown),
        (status = 404, description = "no such record", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn show_rejected(id: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("GET /v1/admin/rejected/{id}") }, |grant| async move {
        Params::parse(&query, &[])?;
        let id = id.decoded()?;
        note_reading(shared, &grant, &visitor, "rejected", "").await?;
        let rejected = in_time(shared, async { Ok(shared.context.log.rejected_one(&id).await?) }).await?;
        let rejected = rejected.ok_or_else(|| Problem::new(Code::NotFound, "there is no rejected record of this id"))?;
        json(StatusCode::OK, &RejectedShown::from(rejected))
    })
    .await
}

/// DELETE /v1/admin/rejected/{id}
///
/// Drops a rejected record for good.
#[utoipa::path(
    delete, path = "/v1/admin/rejected/{id}", tag = "admin",
    params(("id" = String, Path, description = "its id, percent-encoded")),
    responses(
        (status = 204, description = "it is gone, or never was"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn drop_rejected(id: Segment, query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("DELETE /v1/admin/rejected/{id}") }, |grant| async move {
        Params::parse(&query, &[])?;
        let id = id.decoded()?.into_owned();
        let act = Act { kind: "rejected.drop", subject: &id, detail: &[] };
        let dropped = async { Ok(shared.context.log.rejected_remove(std::slice::from_ref(&id)).await?) };
        in_time(shared, noted(shared, &grant, &visitor, act, dropped)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Which rejected records to try again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// At most 1,000.
    ids: Vec<String>,
}

/// What became of the records that were tried again.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retried {
    /// They are durable in the log now, and no longer rejected.
    accepted: Vec<String>,
    /// They are still rejected.
    rejected: Vec<StillRejected>,
    /// There are no rejected records of these ids.
    unknown: Vec<String>,
}

/// A record that was tried again in vain.
#[derive(Serialize, ToSchema)]
pub(crate) struct StillRejected {
    id: String,
    /// What is wrong now.
    reason: String,
}

/// POST /v1/admin/rejected/retry
///
/// Validates rejected records again (a newer version may accept them), appends those that pass and drops them from `rejected`.
#[utoipa::path(
    post, path = "/v1/admin/rejected/retry", tag = "admin",
    request_body = Retry,
    responses(
        (status = 200, description = "what became of each", body = Retried),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn retry_rejected(query: String, caller: Caller, posted: Posted, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("POST /v1/admin/rejected/retry") }, |grant| async move {
        Params::parse(&query, &[])?;
        let Retry { ids } = posted.json(shared).await?;
        if ids.len() as u64 > PAGE_MAX {
            return Err(Problem::new(Code::PayloadTooLarge, format!("at most {PAGE_MAX} ids are accepted at once")));
        }
        let records = ids.len().to_string();
        let act = Act { kind: "rejected.retry", subject: "", detail: &[("records", &records)] };
        json(StatusCode::OK, &in_time(shared, noted(shared, &grant, &visitor, act, retry_all(shared, ids))).await?)
    })
    .await
}

/// First the log, then `rejected`: a crash between leaves a record in both, and trying it again merges into itself.
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

/// POST /v1/admin/verify
///
/// Recomputes the merged inputs from the log, as far as it reaches back, and every view from the merged inputs, by brute force, and
/// compares; `repair=true` mends rows of views that differ. It takes as long as it takes.
#[utoipa::path(
    post, path = "/v1/admin/verify", tag = "admin",
    params(("repair" = Option<bool>, Query, description = "mend what differs; false unless given")),
    responses(
        (status = 200, description = "what was found", body = VerifyReport),
        (status = 409, description = "it is being verified already", body = crate::problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "not now", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn verify_views(query: String, caller: Caller, visitor: Visitor, api: Arc<Api>) -> Response {
    let shared = &api;
    guarded(shared, &caller, None, const { need("POST /v1/admin/verify") }, |grant| async move {
        let repair = Params::parse(&query, &["repair"])?.boolean("repair", false)?;
        let act = Act { kind: "views.verify", subject: "", detail: &[("repair", if repair { "true" } else { "false" })] };
        let verified = async { Ok(shared.context.operations.verify(repair).await?) };
        let report = noted(shared, &grant, &visitor, act, verified).await?;
        json(StatusCode::OK, &report)
    })
    .await
}
