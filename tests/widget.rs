//! The widget in headless Chromium, on pages of another origin: every way of loading it, hydration, refusals, no answers, and a
//! wrong clock.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, has_browser, until};
use crate::support::{Server, order};

const WIDGET: &str = include_str!("../api/widget/widget.js");

/// Records what the widget does on a test page: requests, streams, warnings.
const WATCH: &str = r"
  window.asked = []; window.streams = []; window.warned = [];
  const ask = window.fetch;
  window.fetch = async (url, options) => {
    const entry = { url: String(url), method: options?.method ?? 'GET', body: options?.body ?? null, status: null };
    window.asked.push(entry);
    try { const answer = await ask(url, options); entry.status = answer.status; return answer; }
    catch (error) { entry.status = error.name; throw error; }
  };
  window.EventSource = class extends window.EventSource { constructor(url) { super(url); window.streams.push(this); } };
  const warn = console.warn;
  console.warn = (...words) => { window.warned.push(words.join(' ')); warn(...words); };
";

/// The shop's own server: static pages, one connection an answer.
struct Shop {
    url: String,
}

impl Shop {
    /// Serves (content type, content) by path, and `index.html` of a single-page application for all others.
    fn open(listener: TcpListener, pages: BTreeMap<String, (&'static str, String)>) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let pages = pages.clone();
                std::thread::spawn(move || answer(&stream, &pages));
            }
        });
        Self { url }
    }
}

fn answer(mut stream: &TcpStream, pages: &BTreeMap<String, (&'static str, String)>) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(first)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let fallback = ("text/html", "<!doctype html><title>The shop</title>".to_owned());
    let (kind, content) = pages.get(path).unwrap_or(&fallback);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    // The browser may have disconnected.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content.as_bytes()));
}

/// A running server with lists, a key for the shop's origin, the shop, and a browser.
struct Scene {
    kindred: Server,
    shop: Shop,
    key: String,
    browser: Browser,
    _temp: tempfile::TempDir,
}

const ITEMS: [&str; 8] = ["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8"];

fn orders(first: usize, member: &str, items: &[&str]) -> Vec<Value> {
    vec![order(&format!("w{first}"), 1, "paid", member, "2026-01-05T10:00:00Z", items)]
}

impl Scene {
    /// `pages` makes the pages from (address of Kindred, key, address of the shop).
    fn set(pages: impl FnOnce(&str, &str, &str) -> Vec<(&'static str, &'static str, String)>) -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let kindred = Server::start(&temp.path().join("data"), &[]);
        let position = kindred.post_events("orders", &orders(1, "m1", &[&ITEMS[..], &["x"]].concat()));
        assert_eq!(kindred.list_items("x", &position).len(), ITEMS.len());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let shop = format!("http://{}", listener.local_addr().expect("an address"));
        let key = publishable(&kindred, &shop);
        let made = pages(&kindred.url, &key, &shop);
        let pages = made.into_iter().map(|(path, kind, content)| (path.to_owned(), (kind, content))).collect();
        let browser = Browser::start(&temp.path().join("profile"), "en-US");
        browser.before_each_page(WATCH);
        Self { kindred, shop: Shop::open(listener, pages), key, browser, _temp: temp }
    }

    fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.shop.url));
    }

    /// The state of the first element: `shown` with cards, `hidden`, or null while undecided.
    fn outcome(&self, what: &str) -> String {
        let look = "const list = document.querySelector('kindred-list');
            if (!list?.shadowRoot) return null;
            if (list.shadowRoot.querySelector('.card .title')) return 'shown';
            return list.checkVisibility() ? null : 'hidden'";
        until(what, || self.browser.run(look).as_str().map(str::to_owned))
    }

    fn shows(&self, what: &str) {
        until(&format!("cards of {what}"), || Some(self.outcome(what)).filter(|outcome| outcome == "shown"));
    }

    /// Waits for a warning with all of the words.
    fn warns(&self, what: &str, words: &[&str]) -> String {
        until(&format!("a warning of {what} with {words:?}, of {}", self.browser.run("return window.warned")), || {
            let warned = self.browser.run("return window.warned");
            let warned = warned.as_array()?.iter().filter_map(Value::as_str);
            warned.into_iter().find(|said| words.iter().all(|word| said.contains(word))).map(str::to_owned)
        })
    }

    /// The number of requests whose URL contains a text.
    fn asked(&self, part: &str) -> u64 {
        let script = format!("return window.asked.filter(({{ url }}) => url.includes({})).length", json!(part));
        self.browser.run(&script).as_u64().expect("a number")
    }
}

fn publishable(kindred: &Server, origin: &str) -> String {
    let key = json!({ "kind": "publishable", "name": "shop", "origins": [origin], "rate_limit_per_minute": 6000 });
    let made = kindred.post("/v1/admin/keys", "application/json", key.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.body);
    made.json()["token"].as_str().expect("a key").to_owned()
}

const HTML: &str = "text/html";
const SCRIPT: &str = "text/javascript";

fn page(head: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>A product</title>{head}</head><body>{body}</body></html>"
    )
}

fn element(key: &str, more: &str) -> String {
    format!("<kindred-list item=\"x\" public-key=\"{key}\"{more}></kindred-list>")
}

fn classic(kindred: &str) -> String {
    format!("<script async src=\"{kindred}/widget.js\"></script>")
}

/// If it failed, a shop would have to find out how to configure Kindred with its bundler or tag manager.
#[test]
fn the_server_is_found_however_the_script_is_loaded() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, shop| {
        let list = element(key, "");
        let based = element(key, &format!(" base=\"{kindred}\""));
        let inlined = format!("<script>{WIDGET}</script>");
        vec![
            ("/classic", HTML, page(&classic(kindred), &list)),
            ("/module", HTML, page(&format!("<script type=\"module\" src=\"{kindred}/widget.js?v=3\"></script>"), &list)),
            ("/import", HTML, page(&format!("<script type=\"module\">import \"{kindred}/widget.js\";</script>"), &list)),
            ("/dynamic", HTML, page(&format!("<script>import(\"{kindred}/widget.js\")</script>"), &list)),
            (
                "/beside",
                HTML,
                page(
                    &format!(
                        "<script src=\"{shop}/external/widget.js\"></script><script type=\"module\" src=\"{kindred}/widget.js\"></script>"
                    ),
                    &list,
                ),
            ),
            ("/external/widget.js", SCRIPT, "window.another = 'vendor';".to_owned()),
            (
                "/inserted",
                HTML,
                page(
                    &format!(
                        "<script>const s = document.createElement('script'); s.src = \"{kindred}/widget.js\"; document.head.append(s);</script>"
                    ),
                    &list,
                ),
            ),
            ("/late", HTML, page("", &format!("{list}{}", classic(kindred)))),
            ("/inlined", HTML, page(&inlined, &list)),
            ("/inlined-with-base", HTML, page(&inlined, &based)),
            ("/combined", HTML, page("<script src=\"/app.js\"></script>", &list)),
            ("/combined-with-base", HTML, page("<script src=\"/app.js\"></script>", &based)),
            ("/app.js", SCRIPT, format!("window.app = true;\n{WIDGET}")),
            ("/copied", HTML, page("<script src=\"/static/widget.js\"></script>", &list)),
            ("/static/widget.js", SCRIPT, WIDGET.to_owned()),
        ]
    });
    for path in [
        "/classic",
        "/module",
        "/import",
        "/dynamic",
        "/beside",
        "/inserted",
        "/late",
        "/inlined-with-base",
        "/combined-with-base",
    ] {
        scene.open(path);
        scene.shows(path);
        assert_eq!(scene.browser.run("return window.warned.length"), 0, "{path}");
    }
    // Without a known address no request is sent: a guess would send the key to another host.
    for path in ["/inlined", "/combined"] {
        scene.open(path);
        scene.warns(path, &["base", "https://recs.example.com"]);
        assert_eq!(
            (scene.outcome(path).as_str(), scene.browser.run("return window.asked.length")),
            ("hidden", json!(0)),
            "{path}"
        );
    }
    // A copy under the same name asks its own host, which is not Kindred: one request, and a warning.
    scene.open("/copied");
    scene.warns("a copy", &["base", "did not answer as Kindred does"]);
    assert_eq!((scene.outcome("a copy").as_str(), scene.asked("/v1/")), ("hidden", 1));
}

/// If it failed, React and Vue would report a hydration mismatch, and discard the server's HTML.
#[test]
fn nothing_is_set_on_the_element_that_a_framework_hydrates() {
    if !has_browser() {
        return;
    }
    // Like hydration: compares the attributes in the document with the server's.
    let watch = "<script>window.set = []; new MutationObserver((seen) => { for (const { target, attributeName } of seen)
        if (target.localName === 'kindred-list') window.set.push(attributeName); })
        .observe(document, { subtree: true, attributes: true, childList: true });</script>";
    let scene = Scene::set(|kindred, key, _| {
        let sync = format!("{watch}<script src=\"{kindred}/widget.js\"></script>");
        let nothing = format!("<kindred-list item=\"nobody-bought-it\" public-key=\"{key}\"></kindred-list>");
        vec![
            ("/list", HTML, page(&sync, &element(key, ""))),
            ("/empty", HTML, page(&sync, &nothing)),
            ("/refused", HTML, page(&sync, &element("kd_pk_nobodys", ""))),
            ("/no-key", HTML, page(&sync, "<kindred-list item=\"x\"></kindred-list>")),
        ]
    });
    for (path, outcome, attributes) in [
        ("/list", "shown", json!(["item", "public-key"])),
        ("/empty", "hidden", json!(["item", "public-key"])),
        ("/refused", "hidden", json!(["item", "public-key"])),
        ("/no-key", "hidden", json!(["item"])),
    ] {
        scene.open(path);
        until(path, || Some(scene.outcome(path)).filter(|found| found == outcome));
        assert_eq!(scene.browser.run("return document.querySelector('kindred-list').getAttributeNames()"), attributes, "{path}");
        assert_eq!(scene.browser.run("return window.set.filter(Boolean)"), json!([]), "{path}");
        let empty = scene.browser.run("return document.querySelector('kindred-list').matches(':state(empty)')");
        assert_eq!(empty, outcome == "hidden", "{path}");
    }
}

/// If it failed, `el.item = …` of a script or a framework would be ignored silently.
#[test]
fn properties_and_attributes_are_the_same() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, _| {
        let early = format!(
            "<kindred-list></kindred-list><script>Object.assign(document.querySelector('kindred-list'), {{ item: 'x', publicKey: '{key}', limit: 3 }})</script>{}",
            classic(kindred)
        );
        vec![
            ("/early", HTML, page("", &early)),
            ("/older", HTML, page(&classic(kindred), &format!("<kindred-list item=\"x\" key=\"{key}\"></kindred-list>"))),
        ]
    });
    scene.open("/early");
    scene.shows("properties that were set before the script came");
    let cards = "return document.querySelector('kindred-list').shadowRoot.querySelectorAll('.card .title').length";
    assert_eq!(scene.browser.run(cards), 3);
    // A property set later, and its attribute.
    scene.browser.run("document.querySelector('kindred-list').limit = 5");
    until("five cards", || (scene.browser.run(cards) == 5).then_some(()));
    scene.browser.run("document.querySelector('kindred-list').item = 'i1'");
    let first = "return document.querySelector('kindred-list').shadowRoot.querySelector('.card .title')?.textContent";
    until("the list of another item", || scene.browser.run(first).as_str().filter(|title| *title != "i1").map(|_| ()));
    let told = scene.browser.run(
        "const list = document.querySelector('kindred-list');
         list.noTrack = true; list.noStream = true; list.heading = 'Goes with it'; list.noStream = false;
         return [list.getAttribute('item'), list.limit, list.noTrack, list.hasAttribute('no-track'), list.noStream, list.getAttribute('heading'), list.view]",
    );
    assert_eq!(told, json!(["i1", 5, true, true, false, "Goes with it", null]));
    scene.browser.run("document.querySelector('kindred-list').item = null");
    assert_eq!(scene.outcome("no item"), "hidden");
    scene.warns("an element without an item", &["item"]);
    scene.open("/older");
    scene.shows("the attribute key of older pages");
    // As many keys as a name may have: the newer comes first.
    scene.browser.run(&format!(
        "const list = document.querySelector('kindred-list'); list.publicKey = {}; list.key = 'kd_pk_none'",
        json!(scene.key)
    ));
    scene.shows("both names");
}

/// If it failed, the commonest mistakes of a first hour would show an empty page without a warning.
#[test]
fn a_refusal_says_what_to_change_and_is_not_asked_for_again() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, shop| {
        let other = format!("<kindred-list item=\"i1\" public-key=\"{key}\"></kindred-list>");
        vec![
            ("/", HTML, page(&classic(kindred), &format!("{}{other}", element(key, "")))),
            ("/key", HTML, page(&classic(kindred), &element("kd_pk_nobodys", ""))),
            ("/base", HTML, page(&classic(kindred), &element(key, &format!(" base=\"{shop}/shop/\"")))),
            ("/no-address", HTML, page(&classic(kindred), &element(key, " base=\"recs.example.com:80:80\""))),
            ("/framework", HTML, page(&classic(kindred), "<kindred-list item=\"x\"></kindred-list>")),
            ("/view", HTML, page(&classic(kindred), &element(key, " view=\"also_bougth\""))),
        ]
    });
    // localhost is another origin than 127.0.0.1.
    let elsewhere = scene.shop.url.replace("127.0.0.1", "localhost");
    scene.browser.open(&format!("{elsewhere}/"));
    scene.warns("a wrong origin", &["origin", &elsewhere, "kindred keys"]);
    assert_eq!(scene.outcome("a wrong origin"), "hidden");
    scene.open("/key");
    scene.warns("a wrong key", &["key", "public-key", &scene.kindred.url]);
    assert_eq!(scene.outcome("a wrong key"), "hidden");
    scene.open("/base");
    scene.warns("a wrong base", &["base", &format!("{}/shop", scene.shop.url)]);
    assert_eq!(scene.outcome("a wrong base"), "hidden");
    scene.open("/view");
    scene.warns("an unknown view", &["also_bougth"]);
    scene.open("/no-address");
    scene.warns("a base that is no address", &["base", "recs.example.com:80:80"]);
    scene.open("/framework");
    scene.warns("an element whose key went to the framework", &["public-key", "React"]);

    // Neither time nor a returning visitor causes another request.
    for path in ["/key", "/base", "/view"] {
        scene.open(path);
        assert_eq!(scene.outcome(path), "hidden");
        scene.browser.run("dispatchEvent(new Event('online')); document.dispatchEvent(new Event('visibilitychange'))");
        std::thread::sleep(Duration::from_millis(1_500)); // the first pause between two tries is at most 0.6 s
        assert_eq!(scene.asked("/v1/"), 1, "{path}: {}", scene.browser.run("return window.asked"));
    }
}

/// If it failed, a page with several lists would use up the six connections of HTTP/1.1.
#[test]
fn all_lists_of_a_page_share_one_stream() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, _| {
        let lists: String = ITEMS
            .iter()
            .map(|item| format!("<kindred-list item=\"{item}\" public-key=\"{key}\" limit=\"3\" style=\"--kindred-card-width: 3rem; --kindred-image-aspect: 4\"></kindred-list>"))
            .collect();
        vec![(
            "/",
            HTML,
            page(
                &classic(kindred),
                &format!("<div style=\"display: grid; grid-template-columns: repeat(8, 1fr)\">{lists}</div>"),
            ),
        )]
    });
    scene.open("/");
    let shown = "return [...document.querySelectorAll('kindred-list')].filter((list) => list.shadowRoot?.querySelector('.card .title')).length";
    until("eight lists", || (scene.browser.run(shown) == 8).then_some(()));
    until("one open stream", || {
        (scene.browser.run("return window.streams.filter(({ readyState }) => readyState === 1).length") == 1).then_some(())
    });
    // Nothing is blocked: another request is answered, and impressions are sent.
    let livez = scene.browser.run(&format!(
        "return fetch({}, {{ mode: 'no-cors' }}).then(() => 'answered')",
        json!(format!("{}/livez", scene.kindred.url))
    ));
    assert_eq!(livez, "answered");
    let posted = "return window.asked.filter(({ method, status }) => method === 'POST' && status === 202).length";
    until("impressions", || scene.browser.run(posted).as_u64().filter(|posted| *posted > 0));
    // A ninth list, and another item of a list, while the stream is open.
    scene.browser.run(&format!(
        "const list = document.createElement('kindred-list'); Object.assign(list, {{ item: 'x', publicKey: {}, limit: 12 }}); document.body.prepend(list)",
        json!(scene.key)
    ));
    until("nine lists", || (scene.browser.run(shown) == 9).then_some(()));
    // A change is shown in each affected list, by the stream.
    scene.browser.run("window.changed = []; document.addEventListener('kindred:list', ({ target, detail }) => { if (detail.changes.length && detail.source === 'stream') window.changed.push(target.item) })");
    until("a stream that carries the new list", || {
        let carried = "return window.streams.filter(({ readyState, url }) => readyState === 1 && new URL(url).searchParams.getAll('list').length === 9).length";
        (scene.browser.run(carried) == 1).then_some(())
    });
    scene.kindred.post_events("orders", &orders(2, "m2", &["x", "i1", "new"]));
    for item in ["x", "i1"] {
        until(&format!("a change of {item}"), || {
            let changed = scene.browser.run("return window.changed");
            changed.as_array().is_some_and(|changed| changed.iter().any(|of| of == item)).then_some(())
        });
    }
    let open = scene.browser.run("return window.streams.filter(({ readyState }) => readyState !== 2).length");
    assert_eq!(open, 1, "streams that stay open");
}

/// If it failed, further windows of one browser would hang under HTTP/1.1, which counts all their streams together.
#[test]
fn windows_of_one_browser_leave_connections_to_each_other() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, _| vec![("/", HTML, page(&classic(kindred), &element(key, "")))]);
    scene.open("/");
    scene.shows("the first window");
    let mut windows = vec![scene.browser.get("window")];
    for n in 2..=8 {
        let made = scene.browser.call("window/new", &json!({ "type": "window" }));
        scene.browser.call("window", &json!({ "handle": made["handle"] }));
        windows.push(made["handle"].clone());
        scene.browser.before_each_page(WATCH);
        scene.open("/");
        scene.shows(&format!("window {n}"));
    }
    let mut open = 0;
    for handle in &windows {
        scene.browser.call("window", &json!({ "handle": handle }));
        let streams = scene.browser.run("return (window.streams ?? []).filter(({ readyState }) => readyState !== 2).length");
        open += streams.as_u64().expect("a number");
    }
    assert!((1..=3).contains(&open), "{open} streams are open");
}

/// If it failed, a hanging server would leave skeletons on the page forever.
#[test]
fn a_server_that_does_not_answer_leaves_no_skeleton() {
    if !has_browser() {
        return;
    }
    // It accepts connections, in the system's queue, and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", hung.local_addr().expect("an address"));
    let scene = Scene::set(|kindred, key, _| {
        vec![
            ("/hung", HTML, page(&classic(kindred), &element(key, &format!(" base=\"{address}\"")))),
            ("/gone", HTML, page(&classic(kindred), &element(key, " base=\"http://127.0.0.1:9\""))),
        ]
    });
    for path in ["/hung", "/gone"] {
        let begun = std::time::Instant::now();
        scene.open(path);
        assert_eq!(scene.outcome(path), "hidden");
        assert!(begun.elapsed() < Duration::from_secs(20), "{path}: hidden after {:?}", begun.elapsed());
    }
    // Each request ends.
    scene.open("/hung");
    until("a request that was given up", || scene.browser.run("return window.asked[0]?.status").as_str().map(str::to_owned));
    until("a warning", || scene.browser.run("return window.warned.length > 0").as_bool().filter(|warned| *warned));
}

/// If it failed, impressions and clicks under a wrong clock would be refused, or counted on another day.
#[test]
fn impressions_and_clicks_bear_the_time_of_the_server() {
    if !has_browser() {
        return;
    }
    let scene = Scene::set(|kindred, key, _| vec![("/", HTML, page(&classic(kindred), &element(key, "")))]);
    let mut before = scene.browser.before_each_page("");
    for hours in [1, -1, 49, 0] {
        scene.browser.not_before_each_page(&before);
        before = scene.browser.before_each_page(&format!(
            "window.RealDate = Date; window.Date = class extends RealDate {{
               constructor(...given) {{ if (given.length) super(...given); else super(RealDate.now() + {hours} * 3600000); }}
               static now() {{ return RealDate.now() + {hours} * 3600000; }} }};"
        ));
        scene.open("/");
        scene.shows("a list");
        scene.browser.run("document.querySelector('kindred-list').shadowRoot.querySelector('.card').click()");
        let click = until("a click that was answered", || {
            let posts =
                scene.browser.run("return window.asked.filter(({ method, status }) => method === 'POST' && status !== null)");
            posts.as_array()?.iter().find(|post| post["body"].as_str().is_some_and(|body| body.contains("\"click\""))).cloned()
        });
        assert_eq!(click["status"], 202, "{hours} h: {click}");
        let events: Value = serde_json::from_str(click["body"].as_str().expect("a body")).expect("JSON");
        let at = events.as_array().and_then(|events| events.last()).expect("an event")["at"].clone();
        let off = scene.browser.run(&format!("return Math.abs(RealDate.parse({at}) - RealDate.now())"));
        assert!(off.as_f64().is_some_and(|off| off < 30_000.0), "{hours} h: {at} is {off} ms off");
    }
}

/// If it failed, the types would have attributes that the element lacks, or miss one.
#[test]
fn the_types_and_the_document_name_the_attributes_of_the_element() {
    let list = WIDGET.split("static #attributes = [").nth(1).and_then(|rest| rest.split(']').next()).expect("the attributes");
    let attributes: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(attributes.len() > 7, "{attributes:?}");
    assert!(!WIDGET.contains("</script"), "a page that inlines the file would end it there");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a file of the repository");
    let (document, types) = (read("docs/WIDGET.md"), read("clients/typescript/src/widget.ts"));
    for attribute in attributes {
        assert!(document.contains(&format!("\n| `{attribute}` |")), "docs/WIDGET.md has no {attribute}");
        let mut words = attribute.split('-');
        let property = words.next().unwrap_or_default().to_owned()
            + &words.map(|word| word[..1].to_uppercase() + &word[1..]).collect::<String>();
        assert!(types.contains(&format!("  {property}: ")), "clients/typescript/src/widget.ts has no {property}");
    }
}
