//! Server-sent events: a list that moves on the page.
//!
//! ```text
//! row changed ──Watch──▶ at once, coalesced ┐
//! once a second ───────▶ only scores did    ├──▶ body differs? ──▶ event (id: position~digest)
//! 15 s ────────────────▶ a comment          ┘
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use kindred_model::MemberId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::sse::Event;
use warp::{Filter, Reply};

use super::access::need;
use super::catalog::reader;
use super::similar::list_options;
use super::{AS_OF, NO_STORE, guarded, query, query_key, with};
use crate::api::Api;
use crate::auth::{Caller, Grant, StreamSlot, caller};
use crate::params::{Params, Segment};
use crate::problem::{Code, Problem};
use crate::recommend::{Answer, ListError, ListOptions, Sight};

const KNOWN: &[&str] = &["view", "limit", "fill", "explain", "member", "key"];
/// After how long a browser comes back when the stream broke.
const RETRY: Duration = Duration::from_secs(2);
/// Between two events of a row that keeps changing: ten a second are more than a person sees.
const COALESCE: Duration = Duration::from_millis(100);
/// How often scores are looked at.
const SCORES_EVERY: Duration = Duration::from_secs(1);
/// How often a quiet stream says that it lives: below the idle timeouts of common proxies.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Events on the way to a slow reader; the next waits, and is then the newest.
const QUEUE: usize = 2;

/// All routes of this module.
pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "items" / Segment / "similar" / "stream")
        .and(warp::get())
        .and(query())
        .and(caller())
        .and(warp::header::optional::<String>("last-event-id"))
        .and(with(api))
        .then(follow_similar_items)
        .boxed()
}

/// GET /v1/items/{item}/similar/stream
///
/// The list now, and again whenever it changes: at once when its row does, at most once a second when only scores do. Each
/// event's data is a body of the list. A reader who comes back with `Last-Event-ID` is not sent what it has. The stream ends when the key
/// is revoked or ends; with an access token, when the token does, or its session.
#[utoipa::path(
    get, path = "/v1/items/{item}/similar/stream", tag = "lists",
    params(
        ("item" = String, Path, description = "the item, percent-encoded; 1 to 128 bytes"),
        ("view" = Option<String>, Query, description = "`also_bought`"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 50, description = "12 unless given"),
        ("fill" = Option<bool>, Query, description = "fill a short list from popularity; true unless given"),
        ("explain" = Option<bool>, Query, description = "add the counts behind each item"),
        ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event seen"),
    ),
    responses(
        (status = 200, description = "events whose data is a SimilarList; `id` begins with the position", content_type = "text/event-stream", body = String),
        (status = 429, description = "too many streams of the key", body = crate::problem::Body, content_type = "application/problem+json"),
    ),
    security(("service_key" = []), ("publishable_key" = []), ("publishable_key_in_query" = []), ("access_token" = [])),
)]
async fn follow_similar_items(
    item: Segment,
    query: String,
    caller: Caller,
    last_event_id: Option<String>,
    api: Arc<Api>,
) -> Response {
    let (shared, query) = (&api, &*query);
    guarded(shared, &caller, query_key(query), const { need("GET /v1/items/{item}/similar/stream") }, |grant| async move {
        let params = Params::parse(query, KNOWN)?;
        let item = item.item()?;
        let reader = reader(&grant, &params)?;
        let options = list_options(&shared.live().settings, &params, Sight::PUBLIC)?;
        let limits = &shared.config.limits;
        let (most, whose) = match grant.person {
            Some(_) => (limits.streams_per_person, "you have"),
            None => (limits.streams_per_key, "this key has"),
        };
        let slot = shared.streams.take(&grant, most).ok_or_else(|| {
            Problem::new(Code::TooManyStreams, format!("{whose} {most} streams open, which is the most")).retry_after(5)
        })?;
        let (events, receiver) = mpsc::channel(QUEUE);
        let (api, item) = (shared.clone(), item.as_str().into());
        let follower = Follower { api, item, options, reader, grant, last: last_event_id, events, _slot: slot };
        tokio::spawn(follower.run());
        let stream = ReceiverStream::new(receiver).map(Ok::<Event, Infallible>);
        let mut response = warp::sse::reply(stream).into_response();
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response.headers_mut().insert(AS_OF, shared.live().memory.published().as_of.clone());
        // Proxies that would hold events back (nginx) are told not to.
        response.headers_mut().insert("x-accel-buffering", http::HeaderValue::from_static("no"));
        Ok(response)
    })
    .await
}

/// Feeds one stream until its reader leaves or the server stops.
struct Follower {
    api: Arc<Api>,
    item: Box<str>,
    options: ListOptions,
    /// As whom it is seen: looked up each time, a level may change meanwhile.
    reader: Option<MemberId>,
    grant: Arc<Grant>,
    /// The id of the last event that the reader has.
    last: Option<String>,
    events: mpsc::Sender<Event>,
    _slot: StreamSlot,
}

impl Follower {
    async fn run(mut self) {
        metrics::gauge!("api_streams").increment(1.0);
        self.follow().await;
        metrics::gauge!("api_streams").decrement(1.0);
    }

    async fn follow(&mut self) {
        let mut promotions = self.api.served.promotions();
        let mut watch = self.api.live().memory.watch(&self.item);
        let mut stopping = self.api.stopping.clone();
        let mut scores = interval_at(Instant::now() + SCORES_EVERY, SCORES_EVERY);
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
        scores.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.events.send(Event::default().retry(RETRY).comment("")).await.is_err() || !self.send_if_new().await {
            return;
        }
        loop {
            let open = tokio::select! {
                () = stopped(&mut stopping) => return,
                () = self.events.closed() => return,
                changed = watch.changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let open = self.send_if_new().await;
                    sleep_until(Instant::now() + COALESCE).await;
                    open
                }
                // The sender lives in the API, which this stream holds.
                _ = promotions.changed() => {
                    watch = self.api.live().memory.watch(&self.item);
                    self.send_if_new().await
                }
                _ = scores.tick() => self.send_if_new().await,
                _ = heartbeat.tick() => self.events.send(Event::default().comment("")).await.is_ok(),
            };
            if !open {
                return;
            }
        }
    }

    /// Whether who opened the stream may still read: a session that has ended, or whose token has, reads no further (V7.4.1), nor does
    /// a key that was revoked or has ended.
    fn is_admitted(&self) -> bool {
        let Some(claims) = &self.grant.person else { return self.api.ring.is_good(&self.grant) };
        self.api.context.members.as_ref().is_some_and(|members| members.still_good(claims).is_ok())
    }

    /// Sends the list unless the reader has it; whether the reader is still there.
    async fn send_if_new(&mut self) -> bool {
        if !self.is_admitted() {
            return false;
        }
        let memory = self.api.live().memory.clone();
        let options = ListOptions { sight: memory.sight(self.reader.as_ref()), ..self.options };
        let answer = match memory.list(&self.item, options).await {
            Ok(answer) => answer,
            Err(ListError::Corrupt(corrupt)) => {
                tracing::error!("could not render a list for a stream: {corrupt}");
                return false;
            }
            // The next change or the next look tries again.
            Err(ListError::Store(error)) => {
                tracing::debug!("could not read a list for a stream: {error}");
                return true;
            }
        };
        let id = event_id(&answer);
        if self.last.as_deref().is_some_and(|last| digest_of(last) == digest_of(&id)) {
            return true;
        }
        // A list is JSON and UTF-8 by construction.
        let body = String::from_utf8_lossy(&answer.rendered.body).into_owned();
        self.api.measures.lists.increment(1);
        let sent = self.events.send(Event::default().id(id.clone()).data(body)).await.is_ok();
        self.last = Some(id);
        sent
    }
}

/// Returns when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error is a server that is gone.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// `<position>~<digest of the body>`: where the state stood, and what was shown of it.
fn event_id(answer: &Answer) -> String {
    let digest = answer.rendered.etag.to_str().unwrap_or_default().trim_matches('"');
    format!("{}~{digest}", answer.published.position)
}

fn digest_of(id: &str) -> Option<&str> {
    id.split_once('~').map(|(_, digest)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_by_what_was_shown() {
        assert_eq!(digest_of("i0.3~abc"), digest_of("i0.9~abc"));
        assert_ne!(digest_of("i0.3~abc"), digest_of("i0.3~abd"));
        assert_eq!(digest_of("i0.3"), None);
    }
}
