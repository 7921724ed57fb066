//! The audit log, searched (V16.2.1).

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

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "staff",
        [
            get("/v1/admin/audit", Staff(Permission::AuditRead), search_audit)
                .says("Administrative and security events, the newest first: who did what to whom, when, from where, and whether it was \
                done. A page may come back short, with a cursor: then more has to be looked at.")
                .query("from", Text, "the first UTC day; 400 days are searched at most")
                .query("to", Text, "the last UTC day; today unless given")
                .query("actor", Text, "of this actor")
                .query("subject", Text, "about this member or thing")
                .query("kind", Text, "of this kind, or of those that begin with it and a dot")
                .query("cursor", Text, "`next_cursor` of the page before")
                .query("limit", Whole(1, 200), "50 unless given")
                .answers::<AuditPage>(200, "a page; `Link` names the next. Without days: today's"),
        ],
    )
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

async fn search_audit(request: Request) -> Answered {
    let params = &request.params;
    let owned = |name| text(params, name).map(|text| text.map(str::to_owned));
    let query = AuditQuery {
        // Nothing is written beyond today, and every day is looked into.
        days: days(params)?.map(|(from, to)| (from, to.min(today(&request.api)))),
        actor: owned("actor")?,
        subject: owned("subject")?,
        kind: owned("kind")?,
        cursor: params.get("cursor").map(str::to_owned),
        limit: usize::try_from(params.number("limit", LIMIT_DEFAULT, 1..=LIMIT_MAX)?).ok(),
    };
    let found = request.members()?.search_audit(&request.actor(), &query).await;
    let found = found.map_err(|error| of_query(request.told(error.into(), false)))?;
    let page = AuditPage { entries: found.items.into_iter().map(Into::into).collect(), next_cursor: found.next_cursor };
    Ok(link_next(json(StatusCode::OK, &page)?, &request.query, page.next_cursor.as_deref()))
}
