//! Server-sent events: lists that follow their changes, one or several per stream.
//!
//! ```text
//! row changed ──Watch──▶ at once, coalesced ┐
//! once a second ───────▶ for score changes  ├──▶ body differs? ──▶ event (id: position~digest of each list)
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

/// Parameters of a list in `list`; the key is that of the stream.
const KNOWN_OF_A_LIST: &[(&str, bool)] =
    &[("view", false), ("limit", false), ("fill", false), ("explain", false), ("member", false)];
/// More lists than a page has.
pub(crate) const LISTS_MAX: usize = 20;
/// Reconnection delay of browsers.
const RETRY: Duration = Duration::from_secs(2);
/// Minimum time between two events of a row.
const COALESCE: Duration = Duration::from_millis(100);
/// How often scores are compared.
const SCORES_EVERY: Duration = Duration::from_secs(1);
/// Keep-alive interval, below the idle timeouts of common proxies.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Events buffered for a slow client; later ones wait and are then the newest.
const QUEUE: usize = 2;

pub(super) fn endpoints() -> Vec<Endpoint> {
    tagged(
        "lists",
        [
            get("/v1/items/{item}/similar/stream", ReadLists, follow_similar_items)
                .says(
                    "The list now and after every change: at once when its row changes, at most once a second when only scores \
                    do. The data of each event is a list body. With `Last-Event-ID` unchanged lists are not sent again. The \
                    stream ends when the key is revoked or expires, or with the access token or its session.",
                )
                .query("view", Text, "`also_bought`")
                .query("limit", Whole(1, 50), "default 12")
                .query("fill", Flag, "fill a short list from popularity; default true")
                .query("explain", Flag, "add the counts behind each item")
                .header("Last-Event-ID", "the id of the last received event")
                .answers_as(200, &["text/event-stream"], "events whose data is a SimilarList; `id` begins with the position")
                .fails_as(Code::TooManyStreams, "too many open streams"),
            get("/v1/stream", ReadLists, follow_lists)
                .says(
                    "Several lists in one stream. The data of each event is the body of one list, with `list` as given in the \
                    request. Otherwise as a stream of one list.",
                )
                .needs_query(
                    "list",
                    Texts(1, 20),
                    "path and query of a list without `/v1/`, percent-encoded: `items/tents-01/similar?limit=8`. \
                Repeated for each list, at most 20",
                )
                .header("Last-Event-ID", "the id of the last received event")
                .answers_as(
                    200,
                    &["text/event-stream"],
                    "events whose data is a SimilarList with `list`; `id` begins with the position",
                )
                .fails_as(Code::TooManyStreams, "too many open streams"),
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

fn lists_of(request: &Request) -> Result<Vec<StreamedList>, Problem> {
    let named: Vec<&str> = request.params.all("list").collect();
    if !(1..=LISTS_MAX).contains(&named.len()) {
        return Err(Problem::query("list", format!("is given {} times; accepted: 1 to {LISTS_MAX}", named.len())));
    }
    let mut lists: Vec<StreamedList> = Vec::with_capacity(named.len());
    for given in named {
        if lists.iter().any(|list| list.given.as_deref() == Some(given)) {
            continue;
        }
        let (path, query) = given.split_once('?').unwrap_or((given, ""));
        let item = path.strip_prefix("items/").and_then(|rest| rest.strip_suffix("/similar")).filter(|item| !item.contains('/'));
        let unknown = || Problem::query("list", "is not a list; accepted: items/{item}/similar with its query");
        let of_list = |problem: Problem| Problem::query("list", problem.detail);
        let params = Params::parse(query, KNOWN_OF_A_LIST).map_err(of_list)?;
        let item = decoded(item.ok_or_else(unknown)?).map_err(of_list)?;
        let item = ItemId::parse(&item).map_err(|error| of_list(Problem::path(&error)))?;
        lists.push(StreamedList::of(&request.api, &request.grant, item.as_str(), Some(given), &params)?);
    }
    Ok(lists)
}

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
        Problem::new(Code::TooManyStreams, format!("{whose} {used} streams open, which is the limit")).retry_after(5)
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
    // Turns off buffering in nginx.
    response.headers_mut().insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    Ok(response)
}

struct StreamedList {
    /// Its text in the request, if a stream has several.
    given: Option<Box<str>>,
    item: Box<str>,
    options: ListOptions,
    /// The member on whose behalf it is read; their tier is looked up each time.
    reader: Option<MemberId>,
    /// The digest of the last sent body; empty at first.
    last: Box<str>,
}

impl StreamedList {
    fn of(api: &Api, grant: &Grant, item: &str, given: Option<&str>, params: &Params) -> Result<Self, Problem> {
        let reader = reader(grant, params)?;
        let options = list_options(&api.live().settings, params, Sight::PUBLIC)?;
        Ok(Self { given: given.map(Into::into), item: item.into(), options, reader, last: Box::default() })
    }
}

/// Feeds one stream until the client disconnects or the server stops.
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
                    let open = self.is_authorized() && self.send_if_new(at).await;
                    sleep_until(Instant::now() + COALESCE).await;
                    open
                }
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

    /// Whether the session, the token or the key of the stream is still valid (V7.4.1).
    fn is_authorized(&self) -> bool {
        let Some(claims) = &self.grant.person else { return self.api.ring.is_good(&self.grant) };
        self.api.context.members.as_ref().is_some_and(|members| members.sessions.still_good(claims).is_ok())
    }

    /// Sends all changed lists; whether the stream continues.
    async fn send_all_new(&mut self) -> bool {
        if !self.is_authorized() {
            return false;
        }
        for at in 0..self.lists.len() {
            if !self.send_if_new(at).await {
                return false;
            }
        }
        true
    }

    /// Sends one list if it has changed; whether the stream continues.
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
            // Retried by the next change or tick.
            Err(ListError::Store(error)) => {
                tracing::debug!("could not read a list for a stream: {error}");
                return true;
            }
        };
        let digest = answer.rendered.etag.to_str().unwrap_or_default().trim_matches('"');
        if *list.last == *digest {
            return true;
        }
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

/// Waits for a change; the index of the list, or `None` when the memory is gone.
async fn any_changed(watches: &mut [Watch]) -> Option<usize> {
    let (changed, at, _) = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed.changed()))).await;
    changed.ok().map(|()| at)
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// `<position>~<digest of each list body>`.
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
