//! The audit log: every administrative and security event with who, what, about whom, when, from where and how it ended; appended to,
//! never changed (V16.2.1, V16.3).
//!
//! ```text
//! audit[UTC day "/" shard] ──▶ milliseconds "-" random ──▶ entry      the shard: by the last character of the entry's id
//! ```
//!
//! Entries are appended without a condition and lie in several partitions a day, so that sign-ins do not wait for one another.

use std::collections::BTreeMap;

use kindred_model::Day;
use kindred_model::units::EventTime;
use kindred_store::records::Range;
use serde::{Deserialize, Serialize};

use crate::db::{self, AUDIT, Db, Held, ms};
use crate::error::{MemberError, Result};
use crate::marks::Marks;
use crate::outbox::Work;
use crate::permission::{Actor, Permission};
use crate::random;
use crate::validate::one_line;

/// Items of a page unless told.
pub const LIMIT: usize = 50;
/// Most items of a page.
pub const LIMIT_MAX: usize = 200;
/// Entries looked at for one page: a rare kind over many days is found over several pages, none of which takes long.
const LOOKED_AT_MAX: usize = 5_000;
/// Partitions of a day. The entries of earlier versions lie in one that is named by the day alone.
const SHARDS: u8 = 8;
/// Entries that are read of a partition at once.
const PAGE: usize = 500;
/// Most days of one search.
const DAYS_MAX: i32 = 400;

/// An entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its place within its day.
    pub id: String,
    /// When.
    #[serde(with = "ms")]
    pub at: EventTime,
    /// Who: a member's id, `operator:NAME`, `key:ID`, or `anonymous`.
    pub actor: String,
    /// What, as a stable word: `sign_in`, `role.change`.
    pub kind: String,
    /// About whom or what.
    pub subject: String,
    /// From where.
    pub address: String,
    /// Whether it was done.
    pub ok: bool,
    /// More, by name. No passwords, codes or tokens.
    pub detail: BTreeMap<String, String>,
}

/// A page, and where the next begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Page<T> {
    /// Its items; fewer than asked for says nothing about the next page.
    pub items: Vec<T>,
    /// Absent on the last page.
    pub next_cursor: Option<String>,
}

pub(crate) fn check_limit(limit: usize) -> Result<usize> {
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(MemberError::field("limit", "limit_invalid")) }
}

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// First and last UTC day; without one, today.
    pub days: Option<(Day, Day)>,
    /// Of this actor.
    pub actor: Option<String>,
    /// About this subject.
    pub subject: Option<String>,
    /// Of this kind, or of the kinds that begin with it and a dot.
    pub kind: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// Entries of a page, 1 to 200; 50 unless told.
    pub limit: Option<usize>,
}

/// The log.
#[derive(Clone)]
pub struct Audit {
    pub(crate) db: Db,
    pub(crate) marks: Marks,
    /// How long entries are kept, days.
    pub(crate) days: u32,
}

impl Audit {
    /// An entry about now. Every text is made one line.
    fn entry(&self, actor: &str, kind: &str, subject: &str, address: &str, ok: bool, detail: &[(&str, &str)]) -> Entry {
        let at = self.db.now();
        Entry {
            id: format!("{:015}-{}", at.0.max(0), random::text::<9>()),
            at,
            actor: one_line(actor),
            kind: kind.to_owned(),
            subject: one_line(subject),
            address: one_line(address),
            ok,
            detail: detail.iter().map(|(name, value)| ((*name).to_owned(), one_line(value))).collect(),
        }
    }

    /// The work of writing such an entry, for the transaction that it is about.
    pub(crate) fn work(&self, actor: &str, kind: &str, subject: &str, address: &str, detail: &[(&str, &str)]) -> Work {
        Work::Audit { entry: Box::new(self.entry(actor, kind, subject, address, true, detail)) }
    }

    /// Appends an entry, and says in the logs that there is one: who, about whom and from where is in the entry alone, which is read with
    /// a permission and ends after `audit_days`. Lines of a log go where no erasure comes. The same entry again changes nothing.
    pub(crate) async fn append(&self, entry: &Entry) -> Result<()> {
        let expires_at = db::after(entry.at, u64::from(self.days) * 86_400);
        self.db.append(AUDIT, &partition_of(entry), &entry.id, entry, Some(expires_at)).await?;
        tracing::info!(target: "audit", entry = %entry.id, kind = %entry.kind, ok = entry.ok, at = %entry.at, "audit");
        Ok(())
    }

    /// Writes an entry now, of what no transaction goes with.
    pub(crate) async fn write(&self, actor: &str, kind: &str, subject: &str, address: &str, ok: bool) -> Result<()> {
        self.append(&self.entry(actor, kind, subject, address, ok, &[])).await
    }

    /// Writes an entry of something that an administrator or the machine did, for whoever calls this crate.
    ///
    /// # Errors
    /// What the store says.
    pub async fn record(&self, actor: &Actor, kind: &str, subject: &str, ok: bool, detail: &[(&str, &str)]) -> Result<()> {
        self.append(&self.entry(&actor.id, kind, subject, &actor.address, ok, detail)).await
    }

    /// Entries, the newest first.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `audit:read`; `cursor_invalid`, `limit_invalid`; what the store says.
    pub async fn search(&self, actor: &Actor, query: &AuditQuery) -> Result<Page<Entry>> {
        actor.needs(Permission::AuditRead)?;
        let limit = check_limit(query.limit.unwrap_or(LIMIT))?;
        let today = self.db.now().day();
        let (first, last) = query.days.unwrap_or((today, today));
        let first = Day(first.0.max(last.0.saturating_sub(DAYS_MAX)));
        let (mut day, mut after) = match &query.cursor {
            None => (last, None),
            Some(cursor) => {
                let (day, after): (String, String) =
                    self.marks.unseal("audit cursor", cursor).ok_or_else(|| MemberError::field("cursor", "cursor_invalid"))?;
                (day.parse().map_err(|_| MemberError::field("cursor", "cursor_invalid"))?, Some(after))
            }
        };
        let mut items = Vec::new();
        let mut looked_at = 0;
        while day >= first {
            let (page, full) = self.entries_of(day, after.as_deref()).await?;
            for entry in page {
                looked_at += 1;
                after = Some(entry.id.clone());
                if query.matches(&entry) {
                    items.push(entry);
                }
                if items.len() == limit || looked_at >= LOOKED_AT_MAX {
                    let next_cursor = Some(self.marks.seal("audit cursor", &(day.to_string(), after)));
                    return Ok(Page { items, next_cursor });
                }
            }
            if !full {
                day = Day(day.0 - 1);
                after = None;
            }
        }
        Ok(Page { items, next_cursor: None })
    }

    /// Entries of a day behind one of them, the newest first, and whether there may be more.
    async fn entries_of(&self, day: Day, after: Option<&str>) -> Result<(Vec<Entry>, bool)> {
        let range = Range { after: after.map(|after| after.as_bytes().to_vec()), descending: true, ..Range::default() };
        let partitions = std::iter::once(day.to_string()).chain((0..SHARDS).map(|shard| format!("{day}/{shard}")));
        let mut entries: Vec<Entry> = Vec::new();
        // Behind the last entry of a full page there may be others of its partition.
        let mut whole_from: Option<String> = None;
        for partition in partitions {
            let page: Vec<(String, Held<Entry>)> = self.db.page(AUDIT, &partition, &range, PAGE).await?;
            if page.len() == PAGE {
                whole_from = whole_from.max(page.last().map(|(id, _)| id.clone()));
            }
            entries.extend(page.into_iter().map(|(_, held)| held.value));
        }
        entries.retain(|entry| whole_from.as_ref().is_none_or(|from| entry.id >= *from));
        entries.sort_unstable_by(|one, other| other.id.cmp(&one.id));
        Ok((entries, whole_from.is_some()))
    }
}

fn partition_of(entry: &Entry) -> String {
    let shard = entry.id.bytes().last().unwrap_or_default() % SHARDS;
    format!("{}/{shard}", entry.at.day())
}

impl AuditQuery {
    fn matches(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let of_kind = self.kind.as_ref().is_none_or(|kind| {
            entry.kind.strip_prefix(kind.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        is(&self.actor, &entry.actor) && is(&self.subject, &entry.subject) && of_kind
    }
}
