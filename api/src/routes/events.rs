//! Event ingestion: `POST /v1/events/{topic}`.
//!
//! ```text
//! body ──limits──▶ records ──decode, clock, rules of the key──▶ accepted ──append (durable)──▶ 202 with a position each
//!                                                      └──▶ rejected, with a reason each
//! ```
//!
//! Records are accepted one by one: an invalid one does not affect the others. Records rejected here never reach the log or the
//! list of rejected records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use kindred_model::records::{Interaction, MemberRecord, OrderRecord, Record, Rules, Subject};
use kindred_model::{EventTime, Invalid, Kind, Owner, Position, SessionId, Topic};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{Body, BodyFormat, UnreadBody};
use super::endpoint::prelude::*;
use super::{in_time, json};
use crate::api::Api;
use crate::auth::Grant;
use crate::conflicts;
use crate::problem::{Code, FieldError, Problem};
use crate::quota::{self, PageLimits, share_of};
use crate::recommend::Memory;

/// How far ahead of our clock a time may be. Only this check reads a clock: what is in the log was accepted.
const AHEAD_MS_MAX: i64 = 5 * 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Lower bound of the per-address share of records per minute: what the widget sends after an hour offline.
const ADDRESS_RECORDS_LEAST: u32 = 200;
/// Errors listed in a 422.
const ERRORS_LISTED_MAX: usize = 100;
/// Smaller bodies are decoded on the async thread (about 100 µs), larger ones on a blocking thread.
const DECODED_IN_PLACE_BYTES: usize = 32 << 10;
/// Kinds accepted from browsers.
const BROWSER_KINDS: &[Kind] =
    &[Kind::View, Kind::Search, Kind::Cart, Kind::Favorite, Kind::Follow, Kind::Impression, Kind::Click, Kind::Dismiss];

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "events",
        [post("/v1/events/{topic}", WriteEvents, post_events)
            .no_time_limit()
            .says(
                "Accepts one record, an array of records, or NDJSON. Returns 202 when they are durable in the log. Posting \
                    records again is harmless: they merge by their natural keys. A publishable key posts browser events of \
                    sessions to `interactions`.",
            )
            .path("topic", "`interactions`, `orders`, `catalog` or `members`")
            .answers::<Receipt>(202, "the records are durable; the result of each")
            .fails(404, "no such topic")
            .fails_as(Code::InvalidRecord, "no record is valid")
            .fails(429, "rate limit of the key, the address or the session exceeded")
            .fails(503, "the log did not respond; retrying is safe")],
    )
}

/// The result of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct Receipt {
    /// Number of records that are durable in the log.
    accepted: usize,
    /// Number of rejected records.
    rejected: usize,
    /// Number of accepted records with the version of a stored record and different content; absent if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts: Option<usize>,
    /// The position after the last accepted record; use it as `min_position` to read your writes.
    position: String,
    /// One result per record, in the order of the request.
    results: Vec<Outcome>,
}

/// The result of one record.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The record is durable in the log.
    Accepted {
        /// The position after the record.
        position: String,
        /// True if a record with this version and different content exists. Which one counts does not depend on their order: send
        /// newer content with a greater version.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        conflict: bool,
    },
    /// The record is not in the log.
    Rejected {
        /// Why.
        error: RecordError,
    },
}

/// An error of one record.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RecordError {
    /// `invalid`, `ahead_of_clock`, `forbidden`, `too_old` or `unknown_item`.
    code: &'static str,
    /// JSON pointer (RFC 6901) within the record; empty for the record as a whole.
    pointer: String,
    /// Human-readable message.
    message: String,
}

async fn post_events(request: Request, posted: UnreadBody) -> Answered {
    let (api, grant) = (&request.api, &request.grant);
    let topic = request.segment("topic")?;
    let written = |topic: Topic| Topic::OF_SHOPS.contains(&topic).then_some(topic);
    let topic = topic.parse().ok().and_then(written).ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no such topic; accepted: interactions, orders, catalog, members")
    })?;
    if !grant.service && topic != Topic::Interactions {
        let detail = "a publishable key posts to interactions only; other topics need a service key";
        return Err(Problem::new(Code::InsufficientScope, detail));
    }
    let form = posted.form()?;
    let limits = &api.config.limits;
    let most = if grant.service { limits.body_bytes } else { limits.page_body_bytes.min(limits.body_bytes) };
    let body = posted.read(api, most).await?;
    // The body stays in the budget until its records are appended: they need as much memory.
    let (batch, _body) = decode_all(api, grant, topic, form, body).await?;
    append(api, grant, request.address, topic, batch).await
}

struct Batch {
    /// Whether the body is a single record, so that errors point into the body.
    single: bool,
    records: Vec<Result<(Record, Vec<u8>), RecordError>>,
}

async fn decode_all(
    api: &Arc<Api>,
    grant: &Arc<Grant>,
    topic: Topic,
    form: BodyFormat,
    body: Body,
) -> Result<(Batch, Body), Problem> {
    let (now, limits) = (api.context.clock.now(), &api.config.limits);
    let check = RecordCheck {
        topic,
        rules: api.context.settings.rules(),
        latest: EventTime(now.0.saturating_add(AHEAD_MS_MAX)),
        browser: (!grant.service).then(|| Browser {
            earliest: EventTime(now.0.saturating_sub(i64::from(limits.page_past_days).saturating_mul(DAY_MS))),
            past_days: limits.page_past_days,
            catalog: (!limits.page_unknown_items).then(|| api.live().memory.clone()),
        }),
    };
    let most = if grant.service { limits.records } else { limits.page_records.min(limits.records) };
    if body.len() <= DECODED_IN_PLACE_BYTES {
        return Ok((check.batch(form, &body, most)?, body));
    }
    super::blocking(move || Ok((check.batch(form, &body, most)?, body))).await
}

async fn append(api: &Arc<Api>, grant: &Grant, address: Option<IpAddr>, topic: Topic, batch: Batch) -> Answered {
    let rejected = batch.records.iter().filter(|record| record.is_err()).count();
    api.metrics.events_rejected.increment(rejected as u64);
    if rejected == batch.records.len() {
        return Err(nothing_acceptable(&batch));
    }
    let counted = count_sessions(api, grant, address, &batch)?;
    let (mut conflicts, keys) = api.versions.note(&accepted_of(&batch));
    if !keys.is_empty() {
        let rows = conflicts::rows(api.live().store.clone(), keys).await;
        conflicts::compare(&mut conflicts, &rows, &accepted_of(&batch), topic, &api.context.settings.rules());
    }
    let mut outcomes = Vec::with_capacity(batch.records.len());
    let mut payloads = Vec::with_capacity(batch.records.len() - rejected);
    for record in batch.records {
        outcomes.push(record.map(|(_, payload)| payloads.push(payload)));
    }
    let accepted = payloads.len();
    let appended = in_time(api, async { Ok(api.context.log.append(topic, payloads, None).await?) }).await;
    let places = appended.inspect_err(|problem| {
        // Usage is given back only if certainly nothing was appended.
        if problem.code != Code::Unavailable
            && let Some(counted) = &counted
        {
            api.quotas.release(counted);
        }
    })?;
    if places.len() != accepted {
        return Err(Problem::internal(format_args!(
            "the log appended {accepted} records but returned {} positions",
            places.len()
        )));
    }
    api.metrics.events_accepted.increment(accepted as u64);
    let mut position = Position::beginning();
    let mut places = places.into_iter().zip(&conflicts);
    let results = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(()) => {
                let (after, conflict) = places.next().map(|(place, conflict)| (place.position(), *conflict)).unwrap_or_default();
                position.join(&after);
                Outcome::Accepted { position: after.to_string(), conflict }
            }
            Err(error) => Outcome::Rejected { error },
        })
        .collect();
    let conflicts = Some(conflicts.into_iter().filter(|conflict| *conflict).count()).filter(|conflicts| *conflicts > 0);
    json(StatusCode::ACCEPTED, &Receipt { accepted, rejected, conflicts, position: position.to_string(), results })
}

fn accepted_of(batch: &Batch) -> Vec<&Record> {
    batch.records.iter().flatten().map(|(record, _)| record).collect()
}

/// Checks the quotas of a publishable key.
fn count_sessions(api: &Api, grant: &Grant, address: Option<IpAddr>, batch: &Batch) -> Result<Option<quota::Usage>, Problem> {
    if grant.service {
        return Ok(None);
    }
    let mut records_of: HashMap<SessionId, u32> = HashMap::new();
    for (record, _) in batch.records.iter().flatten() {
        if let Record::Interaction(Interaction { owner: Owner::Session(session), .. }) = record {
            *records_of.entry(session.clone()).or_default() += 1;
        }
    }
    let limits = &api.config.limits;
    let limits = PageLimits {
        records: limits.page_records_per_minute,
        records_of_address: share_of(limits.page_records_per_minute, limits.address_share, ADDRESS_RECORDS_LEAST),
        new_sessions: limits.page_sessions_per_hour,
        records_of_session: limits.records_per_session_hour,
    };
    api.quotas.count(&grant.id, address, records_of.into_iter().collect(), limits).map(Some)
}

fn nothing_acceptable(batch: &Batch) -> Problem {
    let errors: Vec<&RecordError> = batch.records.iter().filter_map(|record| record.as_ref().err()).collect();
    let Some(first) = errors.first() else {
        return Problem::new(Code::InvalidRecord, "the body contains no records");
    };
    let code = if errors.iter().all(|error| error.code == "forbidden") { Code::InsufficientScope } else { Code::InvalidRecord };
    let detail = match (batch.single, errors.len()) {
        (true, _) => format!("{}{}{}", first.pointer, if first.pointer.is_empty() { "" } else { ": " }, first.message),
        (false, count) => format!("none of the {count} records is valid; the first: {}", first.message),
    };
    let listed = errors.iter().enumerate().take(ERRORS_LISTED_MAX).map(|(n, error)| FieldError {
        place: "body",
        pointer: if batch.single { error.pointer.clone() } else { format!("/{n}{}", error.pointer) },
        code: error.code,
        message: error.message.clone(),
    });
    Problem { errors: listed.collect(), ..Problem::new(code, detail) }.with("rejected", errors.len())
}

/// The checks on incoming records.
struct RecordCheck {
    topic: Topic,
    rules: Rules,
    latest: EventTime,
    /// Additional rules for publishable keys.
    browser: Option<Browser>,
}

struct Browser {
    earliest: EventTime,
    past_days: u32,
    /// The known items; `None` accepts any item.
    catalog: Option<Arc<Memory>>,
}

impl Browser {
    fn check(&self, record: &Record) -> Result<(), RecordError> {
        may_come_from_browsers(record).map_err(|error| RecordError::new("forbidden", &error))?;
        let Record::Interaction(interaction) = record else { return Ok(()) };
        if interaction.at < self.earliest {
            let reason = format!("is more than {} days old, the limit for publishable keys", self.past_days);
            return Err(RecordError::new("too_old", &Invalid::new("at", reason)));
        }
        if let (Some(catalog), Subject::Item(item)) = (&self.catalog, &interaction.subject)
            && !catalog.is_sold(item.as_str())
        {
            let reason = "is in no catalog record and no order; publishable keys may not post unknown items";
            return Err(RecordError::new("unknown_item", &Invalid::new("item", reason)));
        }
        Ok(())
    }
}

impl RecordCheck {
    fn batch(&self, form: BodyFormat, body: &[u8], most: usize) -> Result<Batch, Problem> {
        let too_many =
            || Problem::new(Code::PayloadTooLarge, format!("the body has more than {most} records; nothing was processed"));
        if form == BodyFormat::Ndjson {
            let mut records = Vec::new();
            for line in body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
                if records.len() == most {
                    return Err(too_many());
                }
                records.push(self.record(line));
            }
            return Ok(Batch { single: false, records });
        }
        let body = body.trim_ascii();
        let malformed = |error: serde_json::Error| Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}"));
        if body.first() == Some(&b'[') {
            let mut reader = serde_json::Deserializer::from_slice(body);
            let mut exceeded = false;
            let raw = serde::Deserializer::deserialize_seq(&mut reader, AtMost { most, exceeded: &mut exceeded });
            if exceeded {
                return Err(too_many());
            }
            let raw = raw.map_err(malformed)?;
            reader.end().map_err(malformed)?;
            return Ok(Batch { single: false, records: raw.into_iter().map(|raw| self.record(raw.get().as_bytes())).collect() });
        }
        let raw: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
        Ok(Batch { single: true, records: vec![self.record(raw.get().as_bytes())] })
    }

    /// Checks one record; returns it with the bytes to append.
    fn record(&self, bytes: &[u8]) -> Result<(Record, Vec<u8>), RecordError> {
        let record = Record::decode(self.topic, bytes, &self.rules);
        let record = record.and_then(|record| record.check_members().map(|()| record));
        let record = record.map_err(|error| RecordError::new("invalid", &error))?;
        if let Some(browser) = &self.browser {
            browser.check(&record)?;
        }
        if let Some((field, _)) = times(&record).into_iter().find(|(_, at)| *at > self.latest) {
            let error = Invalid::new(field, "is more than 5 minutes ahead of the server clock");
            return Err(RecordError::new("ahead_of_clock", &error));
        }
        let payload = record.to_json();
        Ok((record, payload))
    }
}

impl RecordError {
    fn new(code: &'static str, error: &Invalid) -> Self {
        Self { code, pointer: error.pointer(), message: error.reason.clone() }
    }
}

/// A publishable key is public, so it posts nothing about members, purchases or the catalog.
fn may_come_from_browsers(record: &Record) -> Result<(), Invalid> {
    let Record::Interaction(interaction) = record else {
        return Err(Invalid::new("", "needs a service key"));
    };
    if matches!(interaction.owner, Owner::Member(_)) {
        return Err(Invalid::new("member", "needs a service key: a publishable key posts for sessions"));
    }
    if !BROWSER_KINDS.contains(&interaction.kind) {
        return Err(Invalid::new("kind", format!("is {}, which needs a service key", interaction.kind)));
    }
    Ok(())
}

/// Times at which something happened. Not `listed_at`: items may be listed in advance.
fn times(record: &Record) -> Vec<(String, EventTime)> {
    let named = |times: &[(&str, Option<EventTime>)]| {
        times.iter().filter_map(|(field, at)| at.map(|at| ((*field).to_owned(), at))).collect::<Vec<_>>()
    };
    match record {
        Record::Interaction(interaction) => named(&[("at", Some(interaction.at))]),
        Record::Order(OrderRecord { placed_at, paid_at, completed_at, cancelled_at, refunds, .. }) => {
            let mut times = named(&[
                ("placed_at", Some(*placed_at)),
                ("paid_at", *paid_at),
                ("completed_at", *completed_at),
                ("cancelled_at", *cancelled_at),
            ]);
            times.extend(refunds.iter().enumerate().map(|(n, refund)| (format!("refunds[{n}].at"), refund.at)));
            times
        }
        Record::Member(MemberRecord::Member(membership)) => named(&[
            ("registered_at", membership.registered_at),
            ("activated_at", membership.activated_at),
            ("qualified_at", membership.qualified_at),
        ]),
        Record::Member(MemberRecord::Session { .. }) | Record::Catalog(_) | Record::Ledger(_) => Vec::new(),
    }
}

/// Reads an array of at most `most` raw values.
struct AtMost<'e> {
    most: usize,
    exceeded: &'e mut bool,
}

impl<'de> serde::de::Visitor<'de> for AtMost<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut taken = Vec::new();
        while let Some(value) = values.next_element::<&'de RawValue>()? {
            if taken.len() == self.most {
                *self.exceeded = true;
                return Err(serde::de::Error::custom("too many records"));
            }
            taken.push(value);
        }
        Ok(taken)
    }
}
