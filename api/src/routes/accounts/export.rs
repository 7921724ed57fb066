//! Export of all data of a member as a ZIP of JSON files.
//!
//! ```text
//! Members::export ──▶ account.json │ merged record ──▶ membership.json │ views about persons ──▶ points.json, history.json, orders.json
//!                                                          merged records ──▶ interactions.json                   │ NAME.ndjson
//! ```

use std::borrow::Cow;
use std::io::{Cursor, Write};

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use kindred_model::codec::{KeyCodec, RowCodec};
use kindred_model::records::{InteractionKey, MemberRecord, SCENARIO, Subject};
use kindred_model::views::histories::read_history;
use kindred_model::views::inputs::{Interactions, StoredInteraction};
use kindred_model::views::points::{AsOf, Earned, Points};
use kindred_model::views::{ALL, ExportContext, ReadError, Rows, Table, ViewInfo, ViewName, scan};
use kindred_model::{Day, MemberId, Owner, SessionId};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use warp::reply::Response;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::api::Api;
use crate::export_writer::{Format, write_view};
use crate::problem::Problem;
use crate::routes::endpoint::prelude::*;
use crate::routes::members::{HistoryItem, history_key, merged_record, with_sessions};
use crate::routes::orders::{OrderShown, orders};
use crate::routes::{NO_STORE, blocking, program_today};
use crate::serving::Serving;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "account",
        [get("/v1/members/me/export", SignedIn, export_own)
            .says(
                "All data of the caller as a ZIP of JSON: the account with its sessions and audit log, the merged member record, \
                    points, history, orders, and all interactions including searches and ratings.",
            )
            .fails(429, "hourly limit of exports exceeded (`members.limits.exports_hour`)")
            .answers_bytes(
                200,
                "application/zip",
                "account.json, membership.json, points.json, history.json, orders.json, interactions.json",
            )],
    )
}

async fn export_own(request: Request) -> Answered {
    let member = &request.person()?.sub;
    let account = request.members()?.export(member).await?;
    let mut files = vec![("account.json".into(), file(&account)?)];
    files.extend(derived(&request.api, MemberId::parse(member).map_err(Problem::internal)?).await?);
    zipped(blocking(move || archive(&files)).await?)
}

/// Name and content.
type File = (Cow<'static, str>, Vec<u8>);

/// The files with data of the pipeline: of every view about persons, so that none is forgotten.
async fn derived(api: &Api, member: MemberId) -> Result<Vec<File>, Problem> {
    let serving = api.live();
    let merged = merged_record(&serving, Owner::Member(member.clone())).await?;
    let merged =
        merged.map(|record: MemberRecord| RawValue::from_string(String::from_utf8_lossy(&record.canonical()).into_owned()));
    let mut files = vec![("membership.json".into(), file(&merged.transpose().map_err(Problem::internal)?)?)];
    // Read from one snapshot.
    let activity = |rows: &dyn Rows, owner: &Owner, sessions: &[SessionId]| {
        Ok((read_history(rows, owner, sessions)?, read_interactions(rows, owner, sessions)?))
    };
    let ((mut entries, interactions), _) = with_sessions(&serving, &member, activity).await?;
    entries.sort_by_cached_key(history_key);
    files.push(("interactions.json".into(), file(&interactions)?));
    let as_of = program_today(api, &serving.settings);
    for view in ALL.iter().filter(|view| view.is_about_persons() && (view.enabled)(&serving.settings)) {
        files.push(match view.view {
            ViewName::Points => ("points.json".into(), file(&points(&serving, &member, as_of).await?)?),
            ViewName::Histories => ("history.json".into(), file(&entries.iter().map(HistoryItem::of).collect::<Vec<_>>())?),
            ViewName::MemberOrders => {
                let (page, _) = orders(&serving, &member, None, usize::MAX).await?;
                ("orders.json".into(), file(&page.orders.into_iter().map(OrderShown::of).collect::<Vec<_>>())?)
            }
            // Without a form of its own: the rows of its export.
            _ => (format!("{}.ndjson", view.name).into(), rows(&serving, view, &member, as_of).await?),
        });
    }
    Ok(files)
}

async fn points(serving: &Serving, member: &MemberId, as_of: Day) -> Result<Value, Problem> {
    let row = serving.store.get(Points::NAME, &member.to_bytes()).await?;
    let earned = row.map_or(Ok(Earned::default()), |row| Earned::decode(&row)).map_err(Problem::internal)?;
    let AsOf { pending, available, from_invites, .. } = earned.as_of(as_of);
    let items = earned.items_as_of(as_of).into_iter();
    Ok(serde_json::json!({
        "as_of": as_of, "pending": pending, "available": available, "from_invites": from_invites,
        "from_items": items.map(|(day, points)| serde_json::json!({ "from": day, "points": points })).collect::<Vec<Value>>(),
    }))
}

async fn rows(serving: &Serving, view: &'static ViewInfo, member: &MemberId, as_of: Day) -> Result<Vec<u8>, Problem> {
    let (store, settings, member) = (serving.store.clone(), serving.settings.clone(), member.clone());
    blocking(move || {
        let (snapshot, context) = (store.snapshot()?, ExportContext { settings: &settings, as_of });
        write_view(view, &*snapshot.rows, Some(member.as_str()), context, Format::Ndjson, Vec::new()).map_err(Problem::internal)
    })
    .await
}

/// The merged interactions of a member and their sessions, as in `schemas/events/interactions.json`.
fn read_interactions(rows: &dyn Rows, member: &Owner, sessions: &[SessionId]) -> Result<Vec<Value>, ReadError> {
    let mut found = Vec::new();
    for owner in std::iter::once(member.clone()).chain(sessions.iter().cloned().map(Owner::Session)) {
        scan::<Interactions, _>(rows, &owner.to_bytes(), |(owner, key), held| found.push(interaction(&owner, &key, &held)))?;
    }
    Ok(found)
}

fn interaction(owner: &Owner, key: &InteractionKey, held: &StoredInteraction) -> Value {
    let whose = if matches!(owner, Owner::Member(_)) { "member" } else { "session" };
    let about = match &key.subject {
        Subject::Item(item) => ("item", item.as_str()),
        Subject::Query(query) => ("query", &**query),
    };
    let mut record = serde_json::json!({ whose: owner.id(), "kind": key.kind, about.0: about.1, "at": held.at });
    let fields = record.as_object_mut().expect("an object");
    if key.day.is_none() {
        fields.insert("retract".to_owned(), Value::Bool(true));
    }
    if !key.scenario.is_empty() && *key.scenario != *SCENARIO {
        fields.insert("scenario".to_owned(), Value::from(&*key.scenario));
    }
    // Contains the query of a search as it was typed.
    if let Ok(Value::Object(payload)) = serde_json::from_slice(&held.payload) {
        fields.extend(payload);
    }
    record
}

fn file(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec_pretty(value).map_err(Problem::internal)
}

fn archive(files: &[File]) -> Result<Vec<u8>, Problem> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in files {
        archive.start_file(&**name, options).map_err(Problem::internal)?;
        archive.write_all(bytes).map_err(Problem::internal)?;
    }
    Ok(archive.finish().map_err(Problem::internal)?.into_inner())
}

fn zipped(bytes: Vec<u8>) -> Answered {
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"kindred-export.zip\""));
    headers.insert(CACHE_CONTROL, NO_STORE);
    Ok(response)
}
