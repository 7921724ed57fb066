//! Streams: the list now, and every change. Over a real socket, as a browser reads them.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A reader of one stream: the received text, dechunked as far as tests need.
pub(super) struct Reader {
    socket: TcpStream,
    pub text: String,
}

impl Reader {
    pub async fn open(bench: &Bench, address: std::net::SocketAddr, headers: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let key = &bench.publishable;
        Self::on(socket, &asked(&format!("/v1/items/a/similar/stream?fill=false&key={key}"), headers)).await
    }

    /// Of a page, for the lists of a query.
    async fn of_page(bench: &Bench, address: std::net::SocketAddr, lists: &str, headers: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        Self::on(socket, &asked(&format!("/v1/stream?{lists}&key={}", bench.publishable), headers)).await
    }

    /// Sends a request verbatim.
    pub async fn on(mut socket: TcpStream, request: &str) -> Self {
        socket.write_all(request.as_bytes()).await.unwrap();
        Self { socket, text: String::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Reads until the text contains `wanted` this often; false on timeout or at the end.
    pub async fn until(&mut self, wanted: &str, times: usize, within: Duration) -> bool {
        let reading = async {
            let mut buffer = [0; 4_096];
            while self.text.matches(wanted).count() < times {
                match self.socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return false,
                    Ok(read) => self.text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                }
            }
            true
        };
        tokio::time::timeout(within, reading).await.unwrap_or(false)
    }

    fn ids(&self) -> Vec<String> {
        self.text.lines().filter_map(|line| line.strip_prefix("id:")).map(|id| id.trim().to_owned()).collect()
    }
}

fn asked(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n{headers}\r\n")
}

pub(super) const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_stream_shows_the_list_and_each_move_at_once() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut reader = Reader::open(&bench, running.address, "Origin: https://shop.example\r\n").await;
    assert!(reader.until("data:", 1, SOON).await, "{}", reader.text);
    let head = reader.text.to_lowercase();
    for wanted in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "access-control-allow-origin: https://shop.example",
        "retry:2000",
    ] {
        assert!(head.contains(wanted), "{wanted} is missing: {head}");
    }
    assert!(reader.text.contains(r#""items":[{"item":"b""#));

    let begun = Instant::now();
    bench.apply_list("a", &[("c", 1), ("b", 1)], &[("c", 1)]).await;
    assert!(reader.until("data:", 2, SOON).await);
    assert!(begun.elapsed() < Duration::from_millis(800), "a changed row waited for the tick of scores: {:?}", begun.elapsed());
    assert!(reader.text.contains(r#"{"item":"c""#));

    // A changed score: within about a second.
    bench.apply(vec![support("b", 9)]).await;
    assert!(reader.until("data:", 3, SOON).await, "a score did not move");
    // No event without a changed body.
    bench.apply(vec![support("unrelated", 9), list("a", &[("b", 1), ("c", 1)])]).await;
    assert!(!reader.until("data:", 4, Duration::from_millis(1_300)).await, "{}", reader.text);
    running.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_comes_back_is_not_sent_what_it_has() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut first = Reader::open(&bench, running.address, "").await;
    assert!(first.until("\n\n", 2, SOON).await);
    let id = first.ids().pop().unwrap();
    drop(first);
    let mut again = Reader::open(&bench, running.address, &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(!again.until("data:", 1, Duration::from_millis(300)).await, "{}", again.text);
    bench.apply_list("a", &[("b", 2)], &[("a", 2), ("b", 2)]).await;
    assert!(again.until("data:", 1, SOON).await);
    let mut stale = Reader::open(&bench, running.address, &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(stale.until("data:", 1, SOON).await, "what changed meanwhile was not sent");
    running.shutdown().await;
}

/// If it failed, every widget of a page would need its own connection: browsers open six.
#[tokio::test]
async fn one_stream_follows_the_lists_of_a_page() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    bench.apply_list("x/y", &[("b", 1), ("a", 1)], &[("x/y", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let lists = "list=items%2Fa%2Fsimilar%3Ffill%3Dfalse&list=items/x%252Fy/similar%3Flimit%3D1%26fill%3Dfalse";
    let mut reader = Reader::of_page(&bench, running.address, lists, "Origin: https://shop.example\r\n").await;
    assert!(reader.until("data:", 2, SOON).await, "{}", reader.text);
    let event = |text: &str, list: &str| -> Option<Value> {
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok());
        events.rfind(|event| event["list"] == list)
    };
    let (first, second) = ("items/a/similar?fill=false", "items/x%2Fy/similar?limit=1&fill=false");
    let shown = event(&reader.text, second).unwrap();
    assert_eq!((&shown["item"], shown["items"].as_array().unwrap().len()), (&json!("x/y"), 1), "{shown}");
    assert_eq!(event(&reader.text, first).unwrap()["items"][0]["item"], "b");
    assert!(reader.text.to_lowercase().contains("access-control-allow-origin: https://shop.example"));

    // Only the changed list is sent.
    bench.apply_list("a", &[("c", 1), ("b", 1)], &[("c", 1)]).await;
    assert!(reader.until("data:", 3, SOON).await, "{}", reader.text);
    assert!(event(&reader.text, first).unwrap()["items"].to_string().contains(r#""item":"c""#), "{}", reader.text);
    let id = reader.ids().pop().unwrap();
    drop(reader);
    bench.apply_list("x/y", &[("a", 2)], &[("a", 2), ("x/y", 2)]).await;
    let mut again = Reader::of_page(&bench, running.address, lists, &format!("Last-Event-ID: {id}\r\n")).await;
    assert!(again.until(r#""list":"items/x%2Fy"#, 1, SOON).await, "{}", again.text);
    let of_a = event(&again.text, first).map(|event| event["items"][0]["explain"].clone());
    assert!(of_a.is_none() || !again.until("items/a/similar", 2, Duration::from_millis(200)).await, "{}", again.text);

    let wrong = [
        "",
        "list=",
        "list=popular",
        "list=items/a/similar/stream",
        "list=items/a/b/similar",
        "list=items//similar",
        "list=items/a/similar%3Flimit%3D0",
        "list=items/a/similar%3Fkey%3Dk",
        "list=items/a/similar%3Fmin_position%3D0",
        "list=items/a/similar&limit=3",
        "list=items/%FF/similar",
        "list=items/a/similar&key=k&key=k",
    ];
    for query in wrong {
        let refused = bench.get(&format!("/v1/stream?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}: {:?}", refused.body());
    }
    let many: Vec<String> = (0..21).map(|n| format!("list=items/i{n}/similar")).collect();
    assert_eq!(bench.get(&format!("/v1/stream?{}", many.join("&"))).await.status(), 400);
    let most = Reader::of_page(&bench, running.address, &many[..20].join("&"), "").await;
    let mut most = most;
    assert!(most.until("data:", 20, SOON).await, "{}", most.text);
    let member = warp::test::request().path(&format!("/v1/stream?list=items/a/similar%3Fmember%3Dm&key={}", bench.publishable));
    assert_problem(&member.reply(&bench.public).await, 403, "insufficient_scope", "a page reads for nobody");
    running.shutdown().await;
}

/// Frequent changes are coalesced: the reader gets the last state.
#[tokio::test]
async fn a_busy_row_is_coalesced() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut reader = Reader::open(&bench, running.address, "").await;
    assert!(reader.until("data:", 1, SOON).await);
    for c in 2..=200 {
        bench.apply_list("a", &[("b", c)], &[("a", c), ("b", c)]).await;
    }
    assert!(reader.until(r#""co_count":200"#, 1, SOON).await, "the last state did not come");
    assert!(reader.text.matches("data:").count() < 60, "every state was sent");
    running.shutdown().await;
}

#[tokio::test]
async fn streams_of_a_key_are_capped_and_end_with_their_readers_and_the_server() {
    let bench = Bench::limited(|limits| limits.streams_per_key = 2).await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut reader = Reader::open(&bench, running.address, "").await;
        assert!(reader.until("data:", 1, SOON).await);
        open.push(reader);
    }
    let mut refused = Reader::open(&bench, running.address, "").await;
    assert!(refused.until("too_many_streams", 1, SOON).await);
    assert!(refused.text.starts_with("HTTP/1.1 429"));
    drop(open.pop());
    let mut reader = None;
    for _ in 0..50 {
        let mut next = Reader::open(&bench, running.address, "").await;
        next.until("\r\n\r\n", 1, SOON).await;
        if next.text.starts_with("HTTP/1.1 200") {
            reader = Some(next);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut reader = reader.expect("the place of a reader that left was not given back");
    let begun = Instant::now();
    running.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "streams held up the shutdown");
    assert!(!reader.until("never", 1, SOON).await && !open[0].until("never", 1, SOON).await);
}

#[tokio::test]
async fn a_watch_that_is_dropped_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let one = bench.api.live().memory.watch("a");
    let other = bench.api.live().memory.watch("a");
    assert_eq!(bench.api.live().memory.watched_items(), 1);
    drop(one);
    assert_eq!(bench.api.live().memory.watched_items(), 1);
    drop(other);
    assert_eq!(bench.api.live().memory.watched_items(), 0);
}

/// If this failed, an API after a gap would serve deleted rows, mix two states in one answer, or stall open streams.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_anew_takes_the_place_of_everything_in_one_step() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    bench.apply_list("gone", &[("b", 1)], &[("gone", 1)]).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
    let mut position = Position::beginning();
    position.passed(Topic::Orders, 0, 6);
    let changes = vec![list("a", &[("c", 2)]), support("a", 2), support("c", 2)];
    let unit = EpochChanges { epoch: 1, position: position.clone(), changes: changes.into() };
    other.begin().await.unwrap().apply(unit).await.unwrap();
    let before = bench.get("/v1/items/a/similar?fill=false&explain=true").await.into_body();

    let memory = bench.api.live().memory.clone();
    let mine = bench.store.clone();
    let (first, turning) = (other.clone(), memory.clone());
    tokio::task::spawn_blocking(move || turning.reload(&first.snapshot().unwrap()).unwrap()).await.unwrap();
    let answer = bench.get("/v1/items/a/similar?fill=false&explain=true").await;
    assert!(header(&answer, "kindred-as-of").starts_with(&position.to_string()));
    assert_eq!(items(&answer), ["c"]);
    assert_eq!(items(&bench.get("/v1/items/gone/similar?fill=false").await).len(), 0);
    let after = answer.into_body();

    // Alternating under load: every answer is of one or the other.
    let enough = Arc::new(AtomicBool::new(false));
    let stop = enough.clone();
    let turning = tokio::task::spawn_blocking(move || {
        for turn in 0.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let store = if turn % 2 == 0 { &mine } else { &other };
            memory.reload(&store.snapshot().unwrap()).unwrap();
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 2 || begun.elapsed() < Duration::from_millis(500) {
        assert!(begun.elapsed() < SOON && !turning.is_finished(), "readers did not meet both");
        let body = bench.get("/v1/items/a/similar?fill=false&explain=true").await.into_body();
        assert!(body == before || body == after, "{body:?}");
        seen.insert(body);
    }
    enough.store(true, Ordering::Release);
    turning.await.unwrap();
}

/// A stream survives it: the reader gets the list if it differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sends_what_is_read_anew() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(crate::server::serve(listener, bench.api.clone(), bench.public.clone(), bench.stop.subscribe()));
    let mut reader = Reader::open(&bench, address, "").await;
    assert!(reader.until("data:", 1, SOON).await);
    let dir = tempfile::tempdir().unwrap();
    let other = EmbeddedStore::open(&dir.path().join("store")).unwrap();
    let changes = vec![list("a", &[("c", 2)]), support("a", 2), support("c", 2)];
    let unit = EpochChanges { epoch: 1, position: Position::beginning(), changes: changes.into() };
    other.begin().await.unwrap().apply(unit).await.unwrap();
    let reload = async |store: &EmbeddedStore| {
        let snapshot = store.snapshot().unwrap();
        tokio::task::block_in_place(|| bench.api.live().memory.reload(&snapshot).unwrap());
    };
    reload(&*bench.store).await;
    assert!(!reader.until("data:", 2, Duration::from_millis(300)).await, "the same list was sent again: {}", reader.text);
    reload(&other).await;
    assert!(reader.until(r#"{"item":"c""#, 1, SOON).await, "{}", reader.text);
    bench.stop.send_replace(true);
}
