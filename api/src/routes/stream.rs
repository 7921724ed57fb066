//! Server-sent events: lists that move on the page, one of them or all of a page in one stream.
//!
//! ```text
//! row changed ──Watch──▶ at once, coalesced ┐
//! once a second ───────▶ only scores did    ├──▶ body differs? ──▶ event (id: position~digest, of each list)
//! 15 s ────────────────▶ a comment          ┘
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use http::header::CACHE_CONTROL;
use kindred_model::{ItemId, MemberId, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use warp::Reply;
use warp::sse::Event;

use super::catalog::reader;
use super::endpoint::prelude::*;
use super::similar::list_options;
use super::{AS_OF, NO_STORE};
use crate::api::Api;
use crate::auth::{Grant, StreamSlot};
use crate::params::{Params, decoded};
use crate::problem::{Code, Problem};
use crate::recommend::{ListError, ListOptions, Sight, Watch};

/// What a list of a page's stream may say; the key is the stream's.
const KNOWN_OF_A_LIST: &[(&str, bool)] =
    &[("view", false), ("limit", false), ("fill", false), ("explain", false), ("member", false)];
/// Lists of one stream: more than a page has. Beyond it the request is refused.
pub(crate) const LISTS_MAX: usize = 20;
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

/// All endpoints of this module.
pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "lists",
        [
            get("/v1/items/{item}/similar/stream", ReadLists, follow_similar_items)
                .says("The list now, and again whenever it changes: at once when its row does, at most once a second when only scores \
                do. Each event's data is a body of the list. A reader who comes back with `Last-Event-ID` is not sent what it \
                has. The stream ends when the key is revoked or ends; with an access token, when the token does, or its session.")
                .query("view", Text, "`also_bought`")
                .query("limit", Whole(1, 50), "12 unless given")
                .query("fill", Flag, "fill a short list from popularity; true unless given")
                .query("explain", Flag, "add the counts behind each item")
                .header("Last-Event-ID", "the id of the last event seen")
                .answers_as(200, &["text/event-stream"], "events whose data is a SimilarList; `id` begins with the position")
                .fails(429, "too many streams of the key"),
            get("/v1/stream", ReadLists, follow_lists)
                .says("Several lists in one stream, each now and again whenever it changes. Each event's data is the body of one list, \
                with the list's text as it was asked for in `list`. Everything else is as in a stream of one list.")
                .needs_query("list", Texts(1, 20), "the path of a list without `/v1/` and with its query, percent-encoded as a value: \
                `items/tents-01/similar?limit=8`. Given once for each list, at most 20")
                .header("Last-Event-ID", "the id of the last event seen")
                .answers_as(200, &["text/event-stream"], "events whose data is a SimilarList and `list`, the list it is of; `id` begins with the position")
                .fails(429, "too many streams of the key"),
        ],
    )
}

async fn follow_similar_items(request: Request) -> Answered {
    let followed = StreamedList::of(&request.api, &request.grant, request.item()?.as_str(), None, &request.params)?;
    open(&request, vec![followed])
}

async fn follow_lists(request: Request) -> Answered {
    let lists = lists_of(&request)?;
    open(&request, lists)
}

/// The lists that a query names.
fn lists_of(request: &Request) -> Result<Vec<StreamedList>, Problem> {
    let named: Vec<&str> = request.params.all("list").collect();
    if !(1..=LISTS_MAX).contains(&named.len()) {
        return Err(Problem::query("list", format!("is given {} times; from 1 to {LISTS_MAX} lists are followed", named.len())));
    }
    let mut lists: Vec<StreamedList> = Vec::with_capacity(named.len());
    for given in named {
        if lists.iter().any(|list| list.given.as_deref() == Some(given)) {
            continue;
        }
        let (path, query) = given.split_once('?').unwrap_or((given, ""));
        let item = path.strip_prefix("items/").and_then(|rest| rest.strip_suffix("/similar")).filter(|item| !item.contains('/'));
        let unknown = || Problem::query("list", "names no list; accepted: items/{item}/similar, and its query");
        let of_list = |problem: Problem| Problem::query("list", problem.detail);
        let params = Params::parse(query, KNOWN_OF_A_LIST).map_err(of_list)?;
        let item = decoded(item.ok_or_else(unknown)?).map_err(of_list)?;
        let item = ItemId::parse(&item).map_err(|error| of_list(Problem::path(&error)))?;
        lists.push(StreamedList::of(&request.api, &request.grant, item.as_str(), Some(given), &params)?);
    }
    Ok(lists)
}

/// Begins a stream.
fn open(request: &Request, mut lists: Vec<StreamedList>) -> Answered {
    let (api, grant, address) = (&request.api, &request.grant, request.address);
    let last_event_id = request.header("last-event-id")?;
    let limits = &api.config.limits;
    let (most, whose) = match grant.person {
        Some(_) => (limits.streams_per_person, "you have"),
        None => (limits.streams_per_key, "this key has"),
    };
    let slot = api.streams.take(grant, address, most, limits.address_share).map_err(|used| {
        let whose = if used == most { whose } else { "your address has" };
        Problem::new(Code::TooManyStreams, format!("{whose} {used} streams open, which is the most")).retry_after(5)
    })?;
    if let Some(digests) = last_event_id.and_then(digests_of).filter(|digests| digests.len() == lists.len()) {
        for (list, digest) in lists.iter_mut().zip(digests) {
            list.last = digest.into();
        }
    }
    let (events, receiver) = mpsc::channel(QUEUE);
    let task = StreamTask { api: api.clone(), lists, grant: grant.clone(), events, _slot: slot };
    tokio::spawn(task.run());
    let stream = ReceiverStream::new(receiver).map(Ok::<Event, Infallible>);
    let mut response = warp::sse::reply(stream).into_response();
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.headers_mut().insert(AS_OF, api.live().memory.published().as_of.clone());
    // Proxies that would hold events back (nginx) are told not to.
    response.headers_mut().insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    Ok(response)
}

/// One list of a stream.
struct StreamedList {
    /// How it was asked for, where a stream has several.
    given: Option<Box<str>>,
    item: Box<str>,
    options: ListOptions,
    /// As whom it is seen: looked up each time, a level may change meanwhile.
    reader: Option<MemberId>,
    /// The digest of what the reader has of it; empty before there is anything.
    last: Box<str>,
}

impl StreamedList {
    fn of(api: &Api, grant: &Grant, item: &str, given: Option<&str>, params: &Params) -> Result<Self, Problem> {
        let reader = reader(grant, params)?;
        let options = list_options(&api.live().settings, params, Sight::PUBLIC)?;
        Ok(Self { given: given.map(Into::into), item: item.into(), options, reader, last: Box::default() })
    }
}

/// Feeds one stream until its reader leaves or the server stops.
struct StreamTask {
    api: Arc<Api>,
    lists: Vec<StreamedList>,
    grant: Arc<Grant>,
    events: mpsc::Sender<Event>,
    _slot: StreamSlot,
}

impl StreamTask {
    async fn run(mut self) {
        metrics::gauge!("api_streams").increment(1.0);
        self.follow().await;
        metrics::gauge!("api_streams").decrement(1.0);
    }

    async fn follow(&mut self) {
        let mut promotions = self.api.served.promotions();
        let mut watches = self.watches();
        let mut stopping = self.api.stopping.clone();
        let mut scores = interval_at(Instant::now() + SCORES_EVERY, SCORES_EVERY);
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
        scores.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.events.send(Event::default().retry(RETRY).comment("")).await.is_err() || !self.send_all_new().await {
            return;
        }
        loop {
            let open = tokio::select! {
                () = stopped(&mut stopping) => return,
                () = self.events.closed() => return,
                changed = any_changed(&mut watches) => {
                    let Some(at) = changed else { return };
                    let open = self.is_admitted() && self.send_if_new(at).await;
                    sleep_until(Instant::now() + COALESCE).await;
                    open
                }
                // The sender lives in the API, which this stream holds.
                _ = promotions.changed() => {
                    watches = self.watches();
                    self.send_all_new().await
                }
                _ = scores.tick() => self.send_all_new().await,
                _ = heartbeat.tick() => self.events.send(Event::default().comment("")).await.is_ok(),
            };
            if !open {
                return;
            }
        }
    }

    fn watches(&self) -> Vec<Watch> {
        let memory = &self.api.live().memory;
        self.lists.iter().map(|list| memory.watch(&list.item)).collect()
    }

    /// Whether who opened the stream may still read: a session that has ended, or whose token has, reads no further (V7.4.1), nor does
    /// a key that was revoked or has ended.
    fn is_admitted(&self) -> bool {
        let Some(claims) = &self.grant.person else { return self.api.ring.is_good(&self.grant) };
        self.api.context.members.as_ref().is_some_and(|members| members.still_good(claims).is_ok())
    }

    /// Sends each list that the reader has not; whether the stream goes on.
    async fn send_all_new(&mut self) -> bool {
        if !self.is_admitted() {
            return false;
        }
        for at in 0..self.lists.len() {
            if !self.send_if_new(at).await {
                return false;
            }
        }
        true
    }

    /// Sends one list unless the reader has it; whether the stream goes on.
    async fn send_if_new(&mut self, at: usize) -> bool {
        let list = &self.lists[at];
        let memory = self.api.live().memory.clone();
        let options = ListOptions { sight: memory.sight(list.reader.as_ref()), ..list.options };
        let answer = match memory.list(&list.item, options).await {
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
        let digest = answer.rendered.etag.to_str().unwrap_or_default().trim_matches('"');
        if *list.last == *digest {
            return true;
        }
        // A list is JSON and UTF-8 by construction.
        let mut body = String::from_utf8_lossy(&answer.rendered.body).into_owned();
        if let Some(given) = &list.given {
            let given = serde_json::to_string(given).unwrap_or_default();
            body.replace_range(..1, &format!("{{\"list\":{given},"));
        }
        self.lists[at].last = digest.into();
        let digests: Vec<&str> = self.lists.iter().map(|list| &*list.last).collect();
        let id = event_id(&answer.published.position, &digests);
        self.api.metrics.lists.increment(1);
        self.events.send(Event::default().id(id).data(body)).await.is_ok()
    }
}

/// Waits until the row of a list changes, and says which; `None` when there is nobody to say so any more.
async fn any_changed(watches: &mut [Watch]) -> Option<usize> {
    let (changed, at, _) = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed.changed()))).await;
    changed.ok().map(|()| at)
}

/// Returns when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error is a server that is gone.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// `<position>~<digest of each list's body>`: where the state stood, and what was shown of it.
fn event_id(position: &Position, digests: &[&str]) -> String {
    format!("{position}~{}", digests.join("."))
}

fn digests_of(id: &str) -> Option<Vec<&str>> {
    id.split_once('~').map(|(_, digests)| digests.split('.').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_what_was_shown_of_each_list() {
        let id = event_id(&Position::beginning(), &["abc", "", "d-_"]);
        assert_eq!(digests_of(&id), Some(vec!["abc", "", "d-_"]));
        assert_eq!(digests_of("i0.3"), None);
    }
}
