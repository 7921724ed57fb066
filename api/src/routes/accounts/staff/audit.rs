//! The audit log, searched (V16.2.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use kindred_members::{AuditQuery, Entry};
use kindred_model::EventTime;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{Asked, asked, days, text};
use crate::api::Api;
use crate::routes::access::need;
use crate::routes::{json, link_next, today};

const LIMIT_DEFAULT: u64 = kindred_members::LIMIT as u64;
const LIMIT_MAX: u64 = kindred_members::LIMIT_MAX as u64;
const KNOWN: &[&str] = &["from", "to", "actor", "subject", "kind", "cursor", "limit"];

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "admin" / "audit").and(warp::get()).and(asked(api)).then(search_audit).boxed()
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPage {
    /// The newest first.
    entries: Vec<AuditEntry>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// What was done. Every text is one line.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: String,
    #[schema(value_type = String)]
    at: EventTime,
    /// A member's id, `operator:NAME`, `key:ID`, `setup`, or `anonymous`.
    actor: String,
    /// A stable word: `member.suspend`.
    kind: String,
    /// About whom or what.
    subject: String,
    /// From where; empty for the machine itself.
    address: String,
    /// Whether it was done.
    ok: bool,
    /// More, by name.
    detail: BTreeMap<String, String>,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { id, at, actor, kind, subject, address, ok, detail } = entry;
        Self { id, at, actor, kind, subject, address, ok, detail }
    }
}

/// GET /v1/admin/audit
///
/// Administrative and security events, the newest first: who did what to whom, when, from where, and whether it was done. A page may
/// come back short, with a cursor: then more has to be looked at.
#[utoipa::path(
    get, path = "/v1/admin/audit", tag = "staff",
    params(
        ("from" = Option<String>, Query, description = "the first UTC day; 400 days are searched at most"),
        ("to" = Option<String>, Query, description = "the last UTC day; today unless given"),
        ("actor" = Option<String>, Query, description = "of this actor"),
        ("subject" = Option<String>, Query, description = "about this member or thing"),
        ("kind" = Option<String>, Query, description = "of this kind, or of those that begin with it and a dot"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "a page; `Link` names the next. Without days: today's", body = AuditPage)),
    security(("service_key" = []), ("access_token" = [])),
)]
async fn search_audit(asked: Asked) -> Response {
    let asked = &asked;
    asked
        .answer(const { need("GET /v1/admin/audit") }, |_, actor| async move {
            let params = asked.params(KNOWN)?;
            let owned = |name| text(&params, name).map(|text| text.map(str::to_owned));
            let query = AuditQuery {
                // Nothing is written beyond today, and every day is looked into.
                days: days(&params)?.map(|(from, to)| (from, to.min(today(&asked.api)))),
                actor: owned("actor")?,
                subject: owned("subject")?,
                kind: owned("kind")?,
                cursor: params.get("cursor").map(str::to_owned),
                limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).ok(),
            };
            let found = asked.search(|members| async move { members.search_audit(&actor, &query).await }).await?;
            let entries = found.items.into_iter().map(Into::into).collect();
            let page = AuditPage { entries, next_cursor: found.next_cursor };
            Ok(link_next(json(StatusCode::OK, &page)?, &asked.query, page.next_cursor.as_deref()))
        })
        .await
}
