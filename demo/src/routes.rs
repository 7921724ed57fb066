//! The shop's own HTTP: the page, its files, and the calls of its buttons. They stand for a shop's backend, so they need no key.
//!
//! Against foreign pages: writes are JSON (which a form cannot send), come from the same origin, and name a known host (against
//! DNS rebinding).

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use kindred_members::senders::Mailbox;
use kindred_model::{ItemId, Kind, MemberId, OrderId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use warp::http::{HeaderMap, Response, StatusCode};
use warp::path::FullPath;
use warp::{Filter, Reply};

use crate::member_pages::{self, File};
use crate::pictures::picture;
use crate::shop::{Buyer, RATE_MAX, Shop, ShopError, Written};

/// Longest body of a write; two ids fit.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Members offered on the page.
const REGULARS: usize = 16;
/// Units a click may buy.
const QUANTITY_MAX: i64 = 100;
/// Messages shown in the mailbox.
const MESSAGES_MAX: usize = 100;
/// Keeps proxies from closing the stream.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(15);

/// A page loads only from here, and forms are submitted only by its scripts.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const NOTHING_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// All replies have this type.
type Body = warp::reply::Response;
/// `None` is no path of the shop.
type Answer = Result<Option<Body>, Refusal>;

/// All routes of the shop, boxed. `mailbox` has the messages to members.
pub fn routes(shop: Arc<Shop>, mailbox: Mailbox) -> BoxedFilter<(impl Reply,)> {
    let finished = |answer: Answer| match answer {
        Ok(found) => found.ok_or_else(warp::reject::not_found),
        Err(Refusal(status, detail)) => Ok(problem(status, &detail)),
    };
    let shown = shop.clone();
    let reads = warp::get().and(warp::path::full()).and(warp::header::headers_cloned()).and_then(
        move |path: FullPath, headers: HeaderMap| {
            let (shop, mailbox) = (shown.clone(), mailbox.clone());
            async move { finished(show(&shop, &mailbox, path.as_str(), &headers).await) }
        },
    );
    let writes = warp::post().and(warp::path::full()).and(warp::header::headers_cloned()).and(warp::body::stream()).and_then(
        move |path: FullPath, headers: HeaderMap, body| {
            let shop = shop.clone();
            async move { finished(press(&shop, path.as_str(), &headers, body).await) }
        },
    );
    reads.or(writes).unify().boxed()
}

/// The reads:
/// - `/`, `/register`, `/sign-in`, … and the files of [`member_pages`]; `/demo/pictures/{item}.svg`
/// - `/demo/catalog.json`; `/demo/shop.json`: the page's initial state
/// - `/demo/points/{member}`, `/demo/history/{member}`, `/demo/orders/{member}` (the last orders of the book, latest first): of
///   simulated members only; a signed-in person asks the API
/// - `/demo/mailbox.json`: the messages to members, newest first, with codes and links: only for the shop's own page
/// - `/demo/stream`: appended events, one a message, with the position as id
async fn show(shop: &Shop, mailbox: &Mailbox, path: &str, headers: &HeaderMap) -> Answer {
    if let Some(found) = member_pages::file(path) {
        return Ok(Some(page(StatusCode::OK, found)));
    }
    let Some(name) = path.strip_prefix("/demo/") else { return Ok(no_page(path, headers)) };
    if let Some(file) = name.strip_prefix("pictures/") {
        return show_picture(shop, file).map(Some);
    }
    check_host(headers, &shop.config().hosts)?;
    let (name, member) = name.split_once('/').map_or((name, None), |(name, member)| (name, Some(member)));
    let member = member.map(|member| MemberId::parse(&percent_encoding::percent_decode_str(member).decode_utf8_lossy()));
    let member = member.transpose()?;
    Ok(Some(answer(match (name, member) {
        ("catalog.json", None) => json!({ "items": catalog(shop) }),
        ("shop.json", None) => page_state(shop),
        ("points", Some(member)) => shop.points(&member).await?,
        ("history", Some(member)) => shop.history(&member).await?,
        ("orders", Some(member)) => {
            let member = shop.simulated(&member)?.member;
            json!({ "orders": shop.orders_of(&member) })
        }
        ("mailbox.json", None) => {
            check_own_page(headers)?;
            let messages = mailbox
                .newest(MESSAGES_MAX)
                .await
                .map_err(|error| Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("the mailbox could not be read: {error}")))?;
            json!({ "messages": messages })
        }
        ("stream", None) => return Ok(Some(stream(shop))),
        _ => return Ok(no_page(path, headers)),
    })))
}

/// GET of another path: an HTML page for browsers, the API's problem for programs.
fn no_page(path: &str, headers: &HeaderMap) -> Option<Body> {
    let is_page = text_of(headers, "accept").is_some_and(|accept| accept.contains("text/html")) && !path.starts_with("/v1");
    member_pages::file("/not-found").filter(|_| is_page).map(|found| page(StatusCode::NOT_FOUND, found))
}

fn catalog(shop: &Shop) -> Vec<Value> {
    let currency = &shop.config().currency;
    let product = |product: &crate::catalog::Product| {
        json!({
            "item": product.item,
            "title": product.title,
            "description": product.description,
            "category": product.category,
            "tags": product.tags,
            "price": { "amount_minor": product.price_minor, "currency": currency },
            "image": format!("/demo/pictures/{}.svg", product.item),
        })
    };
    shop.catalog().products.iter().filter(|product| product.is_public()).map(product).collect()
}

fn show_picture(shop: &Shop, file: &str) -> Result<Body, Refusal> {
    let item = file.strip_suffix(".svg").and_then(|item| ItemId::parse(item).ok());
    let number = item.and_then(|item| shop.catalog().number(&item));
    let number = number.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, "no such picture".to_owned()))?;
    let svg = picture(number, shop.catalog().products[number].shape);
    let mut reply = reply(StatusCode::OK, "image/svg+xml", NOTHING_POLICY, svg);
    reply.headers_mut().insert(CACHE_CONTROL, "max-age=86400".parse().expect("a header"));
    Ok(reply)
}

/// The widget's key, the rate, members.
fn page_state(shop: &Shop) -> Value {
    let members: Vec<Value> = shop
        .regulars(REGULARS)
        .into_iter()
        .map(|shopper| json!({ "member": shopper.member, "name": shopper.name, "tier": shopper.tier.name() }))
        .collect();
    let config = shop.config();
    json!({
        "key": config.publishable_key, "currency": config.currency, "rate": shop.rate(), "rate_max": RATE_MAX, "members": members,
    })
}

fn stream(shop: &Shop) -> Body {
    // A slow page misses some events.
    let ticks = BroadcastStream::new(shop.ticks()).filter_map(|tick| async move {
        let tick = tick.ok()?;
        let event = warp::sse::Event::default().event("tick").id(tick.position.clone());
        event.json_data(&*tick).ok().map(Ok::<_, Infallible>)
    });
    let reply = warp::sse::reply(warp::sse::keep_alive().interval(HEARTBEAT).stream(ticks));
    warp::reply::with_header(reply, CACHE_CONTROL, "no-store").into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Interact {
    member: Option<String>,
    item: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Buy {
    member: Option<String>,
    item: String,
    #[serde(default = "one")]
    quantity: i64,
}

const fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refund {
    order: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    member: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Speed {
    rate: u32,
}

/// The buttons: POST /demo/view, /demo/favorite, /demo/buy, /demo/refund, /demo/forget, /demo/speed. The first four act for the
/// simulated `member` of the body or, with an access token, for its owner.
async fn press(
    shop: &Shop,
    path: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Answer {
    const BUTTONS: [&str; 6] = ["view", "favorite", "buy", "refund", "forget", "speed"];
    let Some(button) = path.strip_prefix("/demo/").filter(|name| BUTTONS.contains(name)) else { return Ok(None) };
    check_host(headers, &shop.config().hosts)?;
    check_own_page(headers)?;
    let kind = text_of(headers, "content-type").and_then(|value| value.split(';').next());
    if kind.is_none_or(|kind| kind.trim() != "application/json") {
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send it as application/json".to_owned()));
    }
    let sent = Sent { button, bytes: collect(body).await? };
    let token = text_of(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    Ok(Some(answer(match button {
        "view" | "favorite" => {
            let Interact { member, item } = sent.read()?;
            let buyer = buyer(shop, token, member.as_deref()).await?;
            let kind = if button == "view" { Kind::View } else { Kind::Favorite };
            written(&shop.interact(&buyer, kind, &ItemId::parse(&item)?).await?)
        }
        "buy" => {
            let Buy { member, item, quantity } = sent.read()?;
            if !(1..=QUANTITY_MAX).contains(&quantity) {
                return Err(invalid(format!("quantity: is {quantity}; from 1 to {QUANTITY_MAX} is accepted")));
            }
            let buyer = buyer(shop, token, member.as_deref()).await?;
            written(&shop.buy(&buyer, &ItemId::parse(&item)?, quantity).await?)
        }
        "refund" => {
            let Refund { order } = sent.read()?;
            let person = match token {
                Some(token) => Some(shop.signed_in(token).await?),
                None => None,
            };
            written(&shop.refund(&OrderId::parse(&order)?, person.as_ref()).await?)
        }
        "forget" => shop.forget(&MemberId::parse(&sent.read::<Forget>()?.member)?).await?,
        _ => json!({ "rate": shop.set_rate(sent.read::<Speed>()?.rate) }),
    })))
}

/// The body of a button.
struct Sent<'a> {
    button: &'a str,
    bytes: Vec<u8>,
}

impl Sent<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let wrong = |error| format!("the body is not what /demo/{} takes: {error}", self.button);
        serde_json::from_slice(&self.bytes).map_err(|error| Refusal(StatusCode::BAD_REQUEST, wrong(error)))
    }
}

fn written(written: &Written) -> Value {
    let mut body = json!({ "position": written.position.to_string() });
    if let Some(order) = &written.order {
        body["order"] = json!(order);
    }
    body
}

/// The member of a button.
async fn buyer(shop: &Shop, token: Option<&str>, member: Option<&str>) -> Result<Buyer, Refusal> {
    match (token, member) {
        (Some(token), None) => Ok(shop.signed_in(token).await?),
        (None, Some(member)) => Ok(shop.simulated(&MemberId::parse(member)?)?),
        (Some(_), Some(_)) => Err(invalid("member: must not accompany an access token".to_owned())),
        (None, None) => Err(invalid("member: is missing, and nobody is signed in".to_owned())),
    }
}

/// Why a request is refused: the status and the detail of the problem.
struct Refusal(StatusCode, String);

fn invalid(detail: String) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

impl From<ShopError> for Refusal {
    fn from(error: ShopError) -> Self {
        let status = match &error {
            ShopError::NotFound(_) => StatusCode::NOT_FOUND,
            ShopError::Conflict(_) => StatusCode::CONFLICT,
            ShopError::Log(kindred_log::LogError::Full(_)) => StatusCode::INSUFFICIENT_STORAGE,
            ShopError::Log(_) => StatusCode::SERVICE_UNAVAILABLE,
            // Our own wrong request is not the visitor's error.
            ShopError::Backend(error) if error.status == 404 => StatusCode::NOT_FOUND,
            ShopError::Backend(error) if error.status == 401 => StatusCode::UNAUTHORIZED,
            ShopError::Backend(_) => StatusCode::BAD_GATEWAY,
        };
        Self(status, error.to_string())
    }
}

impl From<kindred_model::Invalid> for Refusal {
    fn from(error: kindred_model::Invalid) -> Self {
        invalid(error.to_string())
    }
}

/// Reads a body up to its limit: `warp::body::bytes` would read without bound.
async fn collect(body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Refusal(StatusCode::BAD_REQUEST, "the body ended too early".to_owned()))?;
        if bytes.len() + chunk.remaining() > BODY_BYTES_MAX {
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {BODY_BYTES_MAX} bytes")));
        }
        bytes::BufMut::put(&mut bytes, chunk);
    }
    Ok(bytes)
}

fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Refuses requests from another site's page. Browsers send one of the two headers with every POST, and the first with every GET
/// to this machine; without either it is no browser.
fn check_own_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_foreign = match (text_of(headers, "sec-fetch-site"), text_of(headers, "origin")) {
        (Some(site), _) => site != "same-origin",
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != text_of(headers, "host"),
        (None, None) => false,
    };
    if is_foreign { Err(Refusal(StatusCode::FORBIDDEN, "only the shop's own page may ask for this".to_owned())) } else { Ok(()) }
}

/// Only known host names are served; an IP address cannot be rebound.
fn check_host(headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    let Some(host) = headers.get("host") else { return Ok(()) }; // HTTP/2 and tests: no browser leaves it out
    let host = host.to_str().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let is_known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    let unknown = || Refusal(StatusCode::MISDIRECTED_REQUEST, "this shop does not go by that host name".to_owned());
    if is_known { Ok(()) } else { Err(unknown()) }
}

fn page(status: StatusCode, file: File) -> Body {
    reply(status, file.content_type, PAGE_POLICY, file.content.into_owned())
}

fn answer(body: Value) -> Body {
    reply(StatusCode::OK, "application/json; charset=utf-8", NOTHING_POLICY, body.to_string())
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Body {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    reply(status, "application/problem+json", NOTHING_POLICY, body.to_string())
}

fn reply(status: StatusCode, content_type: &str, policy: &str, body: String) -> Body {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, if content_type.starts_with("application/json") { "no-store" } else { "no-cache" })
        .header(CONTENT_SECURITY_POLICY, policy)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(REFERRER_POLICY, "no-referrer")
        .body(body)
        .expect("headers are constants")
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kindred_model::records::{OrderRecord, OrderStatus, Record, Rules};
    use kindred_model::{Position, Topic};

    use super::*;
    use crate::shop::ShopConfig;
    use crate::testing::{MemoryLog, Notebook, SIGNED_IN, mailbox};

    /// A shop without simulation, its log, and its recorded backend calls.
    async fn open(log: &MemoryLog) -> (Arc<Shop>, Notebook) {
        let kindred = Notebook::default();
        let config = ShopConfig { publishable_key: "kd_pk_test".to_owned(), rate: 0, ..ShopConfig::default() };
        (Shop::open(Arc::new(log.clone()), Arc::new(kindred.clone()), config).await.unwrap(), kindred)
    }

    fn routes_of(shop: &Arc<Shop>) -> BoxedFilter<(impl Reply + use<>,)> {
        routes(shop.clone(), mailbox().0)
    }

    fn post(path: &str, body: &Value) -> warp::test::RequestBuilder {
        let request = warp::test::request().method("POST").path(path).header("host", "127.0.0.1:8080");
        request.header("sec-fetch-site", "same-origin").header("content-type", "application/json").body(body.to_string())
    }

    fn body(reply: &Response<bytes::Bytes>) -> Value {
        serde_json::from_slice(reply.body()).unwrap()
    }

    fn orders(log: &MemoryLog) -> Vec<OrderRecord> {
        let decode = |bytes: &Vec<u8>| match Record::decode(Topic::Orders, bytes, &Rules::default()) {
            Ok(Record::Order(order)) => order,
            other => panic!("{other:?}"),
        };
        log.records(Topic::Orders).iter().map(decode).collect()
    }

    #[tokio::test]
    async fn the_page_and_its_files_load_nothing_from_elsewhere() {
        let (shop, _) = open(&MemoryLog::default()).await;
        let routes = routes_of(&shop);
        for (path, kind) in [
            ("/", "text/html"),
            ("/demo/shop.css", "text/css"),
            ("/demo/shop.js", "text/javascript"),
            ("/demo/pictures/tents-01.svg", "image/svg+xml"),
            ("/register", "text/html"),
            ("/verify-email", "text/html"),
            ("/verify-new-email", "text/html"),
            ("/sign-in", "text/html"),
            ("/reset-password", "text/html"),
            ("/account", "text/html"),
            ("/agreement", "text/html"),
            ("/mailbox", "text/html"),
            ("/demo/members/work.js", "text/javascript"),
            ("/demo/members/members.css", "text/css"),
            ("/demo/members/texts.json", "application/json"),
        ] {
            let reply = warp::test::request().path(path).reply(&routes).await;
            assert_eq!(reply.status(), 200, "{path}");
            assert!(reply.headers()["content-type"].to_str().unwrap().starts_with(kind));
            assert!(reply.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
            let text = std::str::from_utf8(reply.body()).unwrap().replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another host");
        }
        assert_eq!(warp::test::request().path("/demo/pictures/none.svg").reply(&routes).await.status(), 404);
        let browser = |path: &str| warp::test::request().path(path).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let lost = browser("/nowhere").reply(&routes).await;
        assert_eq!(
            (lost.status().as_u16(), &lost.headers()["content-type"]),
            (404, &"text/html; charset=utf-8".parse().unwrap())
        );
        assert_eq!(body(&browser("/demo/shop.json").reply(&routes).await)["key"], "kd_pk_test", "what is there comes first");
        for program in [warp::test::request().path("/nowhere"), browser("/v1/nowhere")] {
            assert_ne!(
                program.reply(&routes).await.headers().get("content-type").map(|kind| kind.as_bytes()),
                Some(&b"text/html; charset=utf-8"[..])
            );
        }
        let reply = warp::test::request().path("/demo/catalog.json").reply(&routes).await;
        // Hidden products are only on members' pages: one of ten of a shelf.
        assert_eq!(body(&reply)["items"].as_array().unwrap().len(), 216);
    }

    /// A second start on the same log, whole or truncated, must end with the same records, or the shop would double its sales.
    #[tokio::test]
    async fn a_history_is_written_once_and_an_interrupted_one_is_gone_on_with() {
        let log = MemoryLog::default();
        drop(open(&log).await);
        let all: Vec<_> = Topic::OF_SHOPS.iter().map(|&topic| log.records(topic)).collect();
        assert!(all.iter().all(|records| records.len() > 200));
        for cut in [usize::MAX, 5_000, 100] {
            log.cut(cut);
            drop(open(&log).await);
            assert_eq!(all, Topic::OF_SHOPS.iter().map(|&topic| log.records(topic)).collect::<Vec<_>>(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_purchase_is_an_order_in_the_log_and_a_refund_its_next_version() {
        let log = MemoryLog::default();
        let (shop, _) = open(&log).await;
        let routes = routes_of(&shop);
        let before = orders(&log).len();
        let reply = post("/demo/buy", &json!({ "member": "m0003", "item": "tents-02", "quantity": 2 })).reply(&routes).await;
        assert_eq!(reply.status(), 200, "{:?}", reply.body());
        let bought = orders(&log).pop().unwrap();
        assert_eq!((bought.status, bought.version, bought.lines[0].quantity), (OrderStatus::Paid, 1, 2));
        assert_eq!(bought.member.as_ref().map(MemberId::as_str), Some("m0003"));
        assert_eq!(body(&reply)["order"], bought.order.as_str());
        let position: Position = body(&reply)["position"].as_str().unwrap().parse().unwrap();
        assert_eq!(position.next_offset(Topic::Orders, 0), before as u64 + 1);

        let listed = body(&warp::test::request().path("/demo/orders/m0003").reply(&routes).await);
        assert_eq!(listed["orders"][0]["order"], bought.order.as_str(), "the latest order stands first");

        let refund = json!({ "order": bought.order });
        assert_eq!(post("/demo/refund", &refund).reply(&routes).await.status(), 200);
        let refunded = orders(&log).pop().unwrap();
        assert_eq!((refunded.order, refunded.status, refunded.version), (bought.order, OrderStatus::Refunded, 2));
        let again = post("/demo/refund", &refund).reply(&routes).await;
        assert_eq!(again.status(), 409);
        assert!(body(&again)["detail"].as_str().unwrap().contains("refunded"));
    }

    /// If it failed, a registered person could not buy, or others could act for them.
    #[tokio::test]
    async fn whoever_signed_in_shops_as_oneself_and_nobody_else_does() {
        let log = MemoryLog::default();
        let (shop, _) = open(&log).await;
        let routes = routes_of(&shop);
        let own = |path: &str, sent: &Value| post(path, sent).header("authorization", format!("Bearer {SIGNED_IN}"));
        let item = json!({ "item": "tents-02" });
        for path in ["/demo/view", "/demo/favorite", "/demo/buy"] {
            assert_eq!(own(path, &item).reply(&routes).await.status(), 200, "{path}");
        }
        let bought = orders(&log).pop().unwrap();
        assert_eq!(
            (bought.member.as_ref().map(MemberId::as_str), bought.tier),
            (Some("a-person"), Some(kindred_model::Tier::Vip))
        );
        let interactions = log.records(Topic::Interactions);
        let kinds: Vec<Value> = interactions[interactions.len() - 2..]
            .iter()
            .map(|record| serde_json::from_slice::<Value>(record).unwrap())
            .map(|record| json!([record["member"], record["kind"]]))
            .collect();
        assert_eq!(kinds, [json!(["a-person", "view"]), json!(["a-person", "favorite"])]);

        // Another token, no token, or the person's id alone do nothing for them.
        let refund = json!({ "order": bought.order });
        let before = (orders(&log).len(), log.records(Topic::Interactions).len());
        let named = json!({ "member": "a-person", "item": "tents-02" });
        for (path, sent, token, status) in [
            ("/demo/buy", &item, Some("another"), 401),
            ("/demo/buy", &item, None, 422),
            ("/demo/buy", &named, None, 404),
            ("/demo/view", &named, None, 404),
            ("/demo/buy", &named, Some(SIGNED_IN), 422),
            ("/demo/refund", &refund, None, 404),
            ("/demo/refund", &refund, Some("another"), 401),
        ] {
            let request = post(path, sent);
            let request = match token {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            assert_eq!(request.reply(&routes).await.status(), status, "{path} {sent} {token:?}");
        }
        assert_eq!((orders(&log).len(), log.records(Topic::Interactions).len()), before);
        for what in ["points", "history", "orders"] {
            let path = format!("/demo/{what}/a-person");
            assert_eq!(warp::test::request().path(&path).reply(&routes).await.status(), 404, "{path}");
        }
        assert_eq!(own("/demo/refund", &refund).reply(&routes).await.status(), 200);
        assert_eq!(orders(&log).pop().unwrap().status, OrderStatus::Refunded);
    }

    /// A refund that the log refused must be possible later.
    #[tokio::test]
    async fn a_full_log_is_said_and_nothing_is_half_done() {
        let log = MemoryLog::default();
        let (shop, _) = open(&log).await;
        let routes = routes_of(&shop);
        let buy = json!({ "member": "m0003", "item": "tents-02" });
        let order = body(&post("/demo/buy", &buy).reply(&routes).await)["order"].clone();
        log.set_full(true);
        assert_eq!(post("/demo/buy", &buy).reply(&routes).await.status(), 507);
        assert_eq!(post("/demo/refund", &json!({ "order": order })).reply(&routes).await.status(), 507);
        log.set_full(false);
        assert_eq!(post("/demo/refund", &json!({ "order": order })).reply(&routes).await.status(), 200);
    }

    #[tokio::test]
    async fn a_forgotten_member_is_told_to_kindred_and_can_do_nothing_more() {
        let log = MemoryLog::default();
        let (shop, kindred) = open(&log).await;
        let routes = routes_of(&shop);
        let member = shop.regulars(1)[0].member.clone();
        assert!(shop.name(&member).is_some());
        assert_eq!(post("/demo/forget", &json!({ "member": member })).reply(&routes).await.status(), 200);
        assert_eq!(*kindred.0.lock(), std::slice::from_ref(&member));
        assert!(shop.name(&member).is_none() && shop.orders_of(&member).is_empty());
        assert_ne!(shop.regulars(1)[0].member, member);
        assert_eq!(post("/demo/buy", &json!({ "member": member, "item": "tents-02" })).reply(&routes).await.status(), 404);
        assert_eq!(post("/demo/view", &json!({ "member": member, "item": "tents-02" })).reply(&routes).await.status(), 404);
    }

    #[tokio::test]
    async fn what_kindred_says_is_passed_on_and_its_silence_is_a_502() {
        let (shop, _) = open(&MemoryLog::default()).await;
        let routes = routes_of(&shop);
        let points = body(&warp::test::request().path("/demo/points/m0003").reply(&routes).await);
        assert_eq!((&points["pending"], &points["available"]), (&json!(20), &json!(130)));
        assert_eq!(warp::test::request().path("/demo/history/m0003").reply(&routes).await.status(), 502);
    }

    /// The mailbox allows signing in as anybody: no other site's page may read it.
    #[tokio::test]
    async fn the_mailbox_is_the_own_pages_alone() {
        use kindred_members::senders::{Channel, Message, Rendered, Sender};
        let (shop, _) = open(&MemoryLog::default()).await;
        let (mailbox, _records) = mailbox();
        let routes = routes(shop, mailbox.clone());
        for (id, minute) in [("first", 1), ("second", 2)] {
            let rendered = Rendered { subject: String::new(), body: format!("your code is {minute}") };
            let at = kindred_model::EventTime(1_800_000_000_000 + minute);
            let (to, language) = ("+8613800138000".to_owned(), kindred_members::Language::En);
            mailbox.send(Message { id: id.to_owned(), to, channel: Channel::Phone, language, at, rendered }).await.unwrap();
        }
        let ask = |headers: &[(&'static str, &'static str)]| {
            let request = warp::test::request().path("/demo/mailbox.json");
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let host = ("host", "127.0.0.1:8080");
        let reply = ask(&[host, ("sec-fetch-site", "same-origin")]).reply(&routes).await;
        assert_eq!(reply.headers()["cache-control"], "no-store");
        let bodies: Vec<_> = body(&reply)["messages"].as_array().unwrap().iter().map(|message| message["body"].clone()).collect();
        assert_eq!(bodies, ["your code is 2", "your code is 1"]);
        for (headers, status) in [
            (vec![host, ("sec-fetch-site", "cross-site")], 403),
            (vec![host, ("sec-fetch-site", "same-site")], 403),
            (vec![host, ("origin", "https://evil.example")], 403),
            (vec![("host", "evil.example:8080"), ("sec-fetch-site", "same-origin")], 421),
        ] {
            assert_eq!(ask(&headers).reply(&routes).await.status(), status, "{headers:?}");
        }
    }

    /// A foreign page cannot press a button.
    #[tokio::test]
    async fn writes_from_elsewhere_are_refused() {
        let log = MemoryLog::default();
        let (shop, _) = open(&log).await;
        let routes = routes_of(&shop);
        let buy = json!({ "member": "m0003", "item": "tents-02" });
        let before = orders(&log).len();
        let plain = || warp::test::request().method("POST").path("/demo/buy").body(buy.to_string());
        let json_type = ("content-type", "application/json");
        for (headers, status) in [
            (vec![json_type, ("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")], 403),
            (vec![json_type, ("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-site")], 403),
            (vec![json_type, ("host", "127.0.0.1:8080"), ("origin", "https://evil.example")], 403),
            (vec![json_type, ("host", "127.0.0.1:8080"), ("origin", "null")], 403),
            (vec![json_type, ("host", "evil.example:8080"), ("sec-fetch-site", "same-origin")], 421),
            (vec![("content-type", "text/plain"), ("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], 415),
            (vec![("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], 415),
        ] {
            let request = headers.iter().fold(plain(), |request, (name, value)| request.header(*name, *value));
            assert_eq!(request.reply(&routes).await.status(), status, "{headers:?}");
        }
        assert_eq!(orders(&log).len(), before);
        for host in ["localhost:8080", "[::1]:8080", "127.0.0.1"] {
            let request = plain()
                .header("host", host)
                .header("origin", format!("http://{host}"))
                .header("content-type", "application/json");
            assert_eq!(request.reply(&routes).await.status(), 200, "{host}");
        }
        let points = warp::test::request().path("/demo/points/m0003").header("host", "evil.example").reply(&routes).await;
        assert_eq!(points.status(), 421);
    }

    #[tokio::test]
    async fn wrong_bodies_get_an_answer_that_says_what_is_wrong() {
        let (shop, _) = open(&MemoryLog::default()).await;
        let routes = routes_of(&shop);
        for (path, sent, status, says) in [
            ("/demo/buy", json!({ "member": "m0003", "item": "tents-02", "quantity": 0 }), 422, "quantity"),
            ("/demo/buy", json!({ "member": "m0003", "item": "tents-02", "quantity": 101 }), 422, "quantity"),
            ("/demo/buy", json!({ "member": "", "item": "tents-02" }), 422, "member"),
            ("/demo/buy", json!({ "member": "m0003", "item": "nothing" }), 404, "nothing"),
            ("/demo/buy", json!({ "member": "m0003" }), 400, "item"),
            ("/demo/buy", json!({ "member": "m0003", "item": "tents-02", "price": 0 }), 400, "price"),
            ("/demo/refund", json!({ "order": "none" }), 404, "none"),
            ("/demo/speed", json!({ "rate": -1 }), 400, "/demo/speed"),
            ("/demo/forget", json!([]), 400, "forget"),
        ] {
            let reply = post(path, &sent).reply(&routes).await;
            assert_eq!(reply.status(), status, "{path} {sent}");
            assert_eq!(reply.headers()["content-type"], "application/problem+json");
            assert!(body(&reply)["detail"].as_str().unwrap().contains(says), "{:?}", reply.body());
        }
        let long = post("/demo/buy", &json!({ "member": "m".repeat(BODY_BYTES_MAX) })).reply(&routes).await;
        assert_eq!(long.status(), 413);
        assert_eq!(body(&post("/demo/speed", &json!({ "rate": 100_000 })).reply(&routes).await)["rate"], RATE_MAX);
    }

    /// Every append must appear in the stream of the page; the simulation keeps its rate.
    #[tokio::test]
    async fn the_shop_lives_and_its_events_are_told() {
        let log = MemoryLog::default();
        let (shop, _) = open(&log).await;
        let mut ticks = shop.ticks();
        let count = || Topic::ALL.iter().map(|&topic| log.records(topic).len()).sum::<usize>();
        let quiet = count();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(count(), quiet, "a paused shop is quiet");
        shop.set_rate(RATE_MAX);
        for _ in 0..40 {
            let tick = tokio::time::timeout(Duration::from_secs(5), ticks.recv()).await.expect("events arrive").unwrap();
            assert!(!tick.text.is_empty() && tick.position.parse::<Position>().is_ok());
        }
        assert!(count() >= quiet + 40);
    }
}
