//! Search of the audit log (V16.2.1).

use std::collections::BTreeMap;

use http::StatusCode;
use kindred_members::{AuditQuery, Entry};
use kindred_model::EventTime;
use serde::Serialize;
use utoipa::ToSchema;

use super::{days, of_query, text};
use crate::routes::endpoint::prelude::*;
use crate::routes::{json, link_next, today};

const LIMIT_DEFAULT: u64 = kindred_members::LIMIT as u64;
const LIMIT_MAX: u64 = kindred_members::LIMIT_MAX as u64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [get("/v1/admin/audit", Staff(Permission::AuditRead), search_audit)
            .says(
                "Administrative and security events, newest first. A short page with a cursor means that the search is not \
                    complete.",
            )
            .query("from", Text, "the first UTC day; at most 400 days are searched")
            .query("to", Text, "the last UTC day; default today")
            .query("actor", Text, "filter by actor")
            .query("subject", Text, "filter by subject: a member or an object")
            .query("kind", Text, "filter by kind or by prefix: `member` matches `member.suspend`")
            .query("cursor", Text, "`next_cursor` of the previous page")
            .query("limit", Whole(1, 200), "default 50")
            .answers::<AuditPage>(200, "a page; `Link` names the next. Without days: today only")],
    )
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPage {
    /// Newest first.
    entries: Vec<AuditEntry>,
    /// The cursor of the next page; null on the last.
    next_cursor: Option<String>,
}

/// An audit entry. Every text is a single line.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: String,
    #[schema(value_type = String)]
    at: EventTime,
    /// A member's id, `operator:NAME`, `key:ID`, `setup`, or `anonymous`.
    actor: String,
    /// A stable name: `member.suspend`.
    kind: String,
    /// The member or object concerned.
    subject: String,
    /// The client address; empty for local operations.
    address: String,
    /// Whether it succeeded.
    ok: bool,
    /// Further details by name.
    detail: BTreeMap<String, String>,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { id, at, actor, kind, subject, address, ok, detail } = entry;
        Self { id, at, actor, kind, subject, address, ok, detail }
    }
}

async fn search_audit(request: Request) -> Answered {
    let params = &request.params;
    let owned = |name| text(params, name).map(|text| text.map(str::to_owned));
    let query = AuditQuery {
        // There are no entries after today, and every day costs a read.
        days: days(params)?.map(|(from, to)| (from, to.min(today(&request.api)))),
        actor: owned("actor")?,
        subject: owned("subject")?,
        kind: owned("kind")?,
        cursor: params.get("cursor").map(str::to_owned),
        limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).ok(),
    };
    let found = request.members()?.audit.search(&request.actor(), &query).await;
    let found = found.map_err(|error| of_query(request.told(error.into(), false)))?;
    let page = AuditPage { entries: found.items.into_iter().map(Into::into).collect(), next_cursor: found.next_cursor };
    Ok(link_next(json(StatusCode::OK, &page)?, &request.query, page.next_cursor.as_deref()))
}
