//! Switching the live generation: what is read, what streams send, what a key may ask for.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::completion::run_to_completion;
use crate::context::{GenerationOperations, GenerationShown, GenerationSource, Standing};
use crate::problem::Code;
use crate::routes::in_time;

/// Two stores, g1 and g2, and a third generation that cannot be promoted.
struct Two {
    first: Arc<EmbeddedStore>,
    second: Arc<EmbeddedStore>,
    settings: Arc<Semantics>,
    live: Mutex<String>,
    /// Promotions and drops signal their start, then wait for permission to continue.
    begun: Notify,
    go: Semaphore,
    done: Mutex<Vec<String>>,
}

#[async_trait]
impl GenerationOperations for Two {
    async fn list(&self) -> Result<Vec<GenerationShown>, OperationError> {
        let shown = |name: &str| GenerationShown {
            name: name.to_owned(),
            live: *self.live.lock() == name,
            created_at: NOW.to_string(),
            position: "0".to_owned(),
            events: 0,
            lag: 0,
            from: "beginning".to_owned(),
            until: None,
            complete: true,
            not_promotable: None,
            settings: String::new(),
            differing: BTreeMap::new(),
        };
        Ok(vec![shown("g1"), shown("g2")])
    }

    async fn open(&self, name: &str) -> Result<GenerationSource, OperationError> {
        let store = match name {
            "g1" => &self.first,
            "g2" => &self.second,
            _ => return Err(OperationError::Unknown(format!("there is no generation {name}"))),
        };
        Ok(source(store, &self.settings))
    }

    async fn promotable(&self, name: &str) -> Result<(), OperationError> {
        if name == "rules" { Err(OperationError::Refused("it is a what-if".to_owned())) } else { Ok(()) }
    }

    async fn standing(&self) -> Result<Standing, OperationError> {
        Ok(Standing { live: self.live.lock().clone(), names: ["g1", "g2"].map(str::to_owned).into() })
    }

    fn turned_to(&self, _: &str) {}

    async fn promote(&self, name: &str) -> Result<String, OperationError> {
        self.held(format!("promote {name}")).await;
        Ok(std::mem::replace(&mut *self.live.lock(), name.to_owned()))
    }

    async fn drop_generation(&self, name: &str) -> Result<(), OperationError> {
        self.held(format!("drop {name}")).await;
        if *self.live.lock() == name { Err(OperationError::Refused("it is live".to_owned())) } else { Ok(()) }
    }

    async fn compare(&self, a: &str, b: &str, day: Day) -> Result<Value, OperationError> {
        Ok(json!([a, b, day.to_string()]))
    }
}

impl Two {
    async fn held(&self, what: String) {
        self.begun.notify_one();
        self.go.acquire().await.unwrap().forget();
        self.done.lock().push(what);
    }
}

/// A bench in which `a` goes with `c` in g2, and with `b` in g1.
async fn two() -> (Bench, Arc<Two>, tempfile::TempDir) {
    let mut bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1), ("c", 1)]).await;
    let dir = tempfile::tempdir().unwrap();
    let second = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
    let changes = vec![list("a", &[("c", 1)]), support("a", 1), support("b", 1), support("c", 1)];
    let position = bench.store.frontier().position;
    let unit = EpochChanges { epoch: 1, position, changes: changes.into() };
    second.begin().await.unwrap().apply(unit).await.unwrap();
    let settings = bench.context.settings.clone();
    let operations = Arc::new(Two {
        first: bench.store.clone(),
        second,
        settings,
        live: Mutex::new("g1".to_owned()),
        begun: Notify::new(),
        go: Semaphore::new(Semaphore::MAX_PERMITS >> 1),
        done: Mutex::default(),
    });
    let context = Context { generations: Some(operations.clone()), ..bench.context.clone() };
    let api = crate::prepare(bench.config.clone(), context.clone(), bench.stop.subscribe()).await.unwrap();
    let public = crate::routes::public(&api);
    (bench.context, bench.api, bench.public) = (context, api, public);
    (bench, operations, dir)
}

fn first_item(answer: &http::Response<bytes::Bytes>) -> String {
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    body["items"][0]["item"].as_str().unwrap_or_default().to_owned()
}

/// If it failed, a widget would keep showing lists of a generation that is no longer served.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_reaches_readers_and_open_streams() {
    let (bench, _, _dir) = two().await;
    let path = "/v1/items/a/similar?fill=false";
    let before = bench.get(path).await;
    assert_eq!(first_item(&before), "b");
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut reader = streams::Reader::open(&bench, running.address, "").await;
    assert!(reader.until("data:", 1, streams::SOON).await);
    // Of the running server, which has its own memory.
    let promote = async |name: &str| {
        let client = tokio::net::TcpStream::connect(running.address).await.unwrap();
        let request = format!(
            "POST /v1/admin/generations/{name}/promote HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Length: \
             0\r\nConnection: close\r\n\r\n",
            bench.service
        );
        let mut answer = streams::Reader::on(client, &request).await;
        assert!(answer.until("HTTP/1.1 200", 1, streams::SOON).await, "{}", answer.text);
    };
    promote("g2").await;
    assert!(reader.until(r#""item":"c""#, 1, streams::SOON).await, "the stream stayed with the old one: {}", reader.text);
    promote("g1").await;
    assert!(reader.until(r#""item":"b""#, 2, streams::SOON).await, "{}", reader.text);
    running.shutdown().await;

    assert_eq!(bench.post("/v1/admin/generations/g2/promote", "application/json", "").await.status(), 200);
    assert_eq!(first_item(&bench.get(path).await), "c");
    assert_eq!(bench.post("/v1/admin/generations/g1/promote", "application/json", "").await.status(), 200);
    assert_eq!(bench.get(path).await.body(), before.body(), "rolling back gives the old bytes");
}

/// If it failed, a disconnecting client or proxy would leave a promotion or a drop half done.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_state_ends_though_its_caller_hangs_up() {
    let (bench, operations, _dir) = two().await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let ask = async |request: &str, more: &str| {
        let head = format!("{request} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n{more}", bench.service);
        let socket = tokio::net::TcpStream::connect(running.address).await.unwrap();
        streams::Reader::on(socket, &format!("{head}Content-Length: 0\r\n\r\n")).await
    };
    operations.go.forget_permits(usize::MAX >> 4);
    let (promote, drop_one) = ("POST /v1/admin/generations/g2/promote", "DELETE /v1/admin/generations/g1");
    for request in [promote, promote, drop_one] {
        let before = operations.done.lock().len();
        let caller = ask(request, "").await;
        tokio::time::timeout(streams::SOON, operations.begun.notified()).await.expect("it begins");
        drop(caller);
        // The server has read it once it answers a later request.
        let mut other = ask("GET /livez", "Connection: close\r\n").await;
        assert!(other.until("200", 1, streams::SOON).await);
        operations.go.add_permits(1);
        let ended = async {
            while operations.done.lock().len() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(streams::SOON, ended).await.unwrap_or_else(|_| panic!("{request} was given up"));
    }
    // The next one is not refused as a duplicate.
    operations.go.add_permits(10);
    let mut again = ask("POST /v1/admin/generations/g1/promote", "").await;
    assert!(again.until("HTTP/1.1 200", 1, streams::SOON).await, "{}", again.text);
    running.shutdown().await;
}

/// If it failed, a slow step would be cancelled, or its caller would wait as long.
#[tokio::test]
async fn a_caller_is_answered_in_time_and_what_was_begun_ends() {
    let bench = Bench::limited(|limits| limits.handler_ms = 20).await;
    let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (api, held, told) = (bench.api.clone(), go.clone(), ended.clone());
    let changing = run_to_completion(async move {
        let step = async {
            held.notified().await;
            Ok(())
        };
        in_time(&api, step).await.expect("it goes on");
        told.notify_one();
    });
    assert_eq!(changing.await.expect_err("an early answer").code, Code::Unavailable);
    go.notify_one();
    tokio::time::timeout(streams::SOON, ended.notified()).await.expect("it was given up");
    // A read is cancelled.
    let reading = in_time::<()>(&bench.api, std::future::pending()).await;
    assert_eq!(reading.expect_err("too long").code, Code::Unavailable);
}

/// If it failed, one of several APIs would serve a generation that another process has replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_by_another_process_is_followed() {
    let (bench, operations, _dir) = two().await;
    let running = crate::start(bench.config.clone(), bench.context.clone()).await.unwrap();
    let mut reader = streams::Reader::open(&bench, running.address, "").await;
    assert!(reader.until(r#""item":"b""#, 1, streams::SOON).await);
    for (turn, (name, item)) in [("g2", "c"), ("g1", "b"), ("g2", "c")].into_iter().enumerate() {
        name.clone_into(&mut operations.live.lock());
        let shown = format!(r#""item":"{item}""#);
        assert!(reader.until(&shown, turn / 2 + 1 + usize::from(name == "g1"), streams::SOON).await, "{}", reader.text);
    }
    running.shutdown().await;
}

/// If it failed, a page could read unreleased lists, or a what-if be served.
#[tokio::test(flavor = "multi_thread")]
async fn generations_are_a_service_keys_alone() {
    let (bench, _, _dir) = two().await;
    let other = "/v1/items/a/similar?fill=false&generation=g2";
    assert_eq!(first_item(&bench.get(other).await), "c");
    assert_eq!(first_item(&bench.get("/v1/items/a/similar?fill=false&generation=g1").await), "b");
    assert_eq!(bench.get("/v1/items/a/similar?generation=g9").await.status(), 404);
    let page = warp::test::request().path(&format!("{other}&key={}", bench.publishable)).reply(&bench.public).await;
    assert_eq!(page.status(), 403);
    assert_eq!(bench.post("/v1/admin/generations/rules/promote", "application/json", "").await.status(), 409);
    assert_eq!(bench.post("/v1/admin/generations/g9/promote", "application/json", "").await.status(), 404);
    assert_eq!(bench.request(Method::DELETE, "/v1/admin/generations/g1").reply(&bench.public).await.status(), 409);
    assert_eq!(bench.request(Method::DELETE, "/v1/admin/generations/g2").reply(&bench.public).await.status(), 204);
    let listed = bench.get("/v1/admin/generations").await;
    let listed: Value = serde_json::from_slice(listed.body()).unwrap();
    assert_eq!((&listed["generations"][0]["live"], &listed["generations"][1]["live"]), (&json!(true), &json!(false)));
    let compared = bench.get("/v1/admin/generations/g1/compare?with=g2&as_of=2026-01-05").await;
    assert_eq!(compared.body(), r#"["g1","g2","2026-01-05"]"#);
    assert_eq!(bench.get("/v1/admin/generations/g1/compare").await.status(), 400);
    let one = Bench::new().await;
    assert_eq!(one.get("/v1/admin/generations").await.status(), 404, "a process that keeps one says so");
}
