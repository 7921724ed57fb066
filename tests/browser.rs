//! The demo's page in headless Chromium, driven over WebDriver: a purchase by button appears in the widget without a reload.
//! `KINDRED_SCREENSHOT=FILE` saves a screenshot. The account pages are in [`crate::member_pages`].

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{PATIENCE, command, free_port};

/// A browser with one page. Dropping it ends both.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
}

/// Polls until there is a value, or panics.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    crate::support::until(PATIENCE, || format!("{what} did not come"), look)
}

impl Browser {
    /// `language` is the browser's preferred one.
    pub fn start(profile: &std::path::Path, language: &str) -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts: tests/run checks that it is there");
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let base = format!("http://127.0.0.1:{port}/session");
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1440,900",
        ];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.display()));
        args.push(format!("--lang={language}"));
        args.push(format!("--accept-lang={language}"));
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": args } } } });
        let made = until("a browser", || {
            let mut answer = agent.post(&base).send_json(&wanted).ok()?;
            answer.body_mut().read_json::<Value>().ok()
        });
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}"));
        Self { driver, session: format!("{base}/{id}"), agent }
    }

    /// A WebDriver command and its answer.
    pub fn call(&self, command: &str, body: &Value) -> Value {
        let mut answer = self.agent.post(format!("{}/{command}", self.session)).send_json(body).expect("the driver answers");
        let answer: Value = answer.body_mut().read_json().expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    /// Navigates to a page.
    pub fn open(&self, url: &str) {
        self.call("url", &json!({ "url": url }));
    }

    /// Runs a function body in the page.
    pub fn run(&self, script: &str) -> Value {
        self.call("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// A property from the driver.
    pub fn get(&self, what: &str) -> Value {
        let mut answer = self.agent.get(format!("{}/{what}", self.session)).call().expect("the driver answers");
        let answer: Value = answer.body_mut().read_json().expect("JSON");
        answer["value"].clone()
    }

    /// A command of the browser's own protocol.
    pub fn cdp(&self, command: &str, params: &Value) -> Value {
        self.call("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Runs a script before each page's own; returns its id for removal.
    pub fn before_each_page(&self, script: &str) -> Value {
        self.cdp("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }))["identifier"].clone()
    }

    /// Removes such a script.
    pub fn not_before_each_page(&self, script: &Value) {
        self.cdp("Page.removeScriptToEvaluateOnNewDocument", &json!({ "identifier": script }));
    }

    /// A PNG of the window.
    pub fn screenshot(&self) -> Vec<u8> {
        let picture = self.get("screenshot");
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(picture.as_str().expect("a picture")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A running demo. Dropping it kills it.
pub struct Demo {
    child: Child,
    /// The page's URL, without a trailing slash.
    pub url: String,
}

impl Demo {
    /// Its own demo in a directory.
    pub fn start(temp: &std::path::Path) -> Self {
        let dir = temp.join("demo");
        let port = free_port();
        let child = command(&["demo", "--data", dir.to_str().expect("a path"), "--listen", &format!("127.0.0.1:{port}")])
            .env("KINDRED_API__ADMIN_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let demo = Self { child, url: format!("http://127.0.0.1:{port}") };
        until("the page", || ureq::get(format!("{}/", demo.url)).call().ok());
        demo
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a browser; prints when there is none.
pub fn has_browser() -> bool {
    let has = std::env::var_os("KINDRED_BROWSER").is_some();
    if !has {
        eprintln!("not run: KINDRED_BROWSER is not set (tests/run sets it where chromium and chromedriver are)");
    }
    has
}

/// A demo and a browser, and their directory; `None` without a browser.
fn demo_in_a_browser() -> Option<(tempfile::TempDir, Demo, Browser)> {
    let temp = has_browser().then(|| tempfile::tempdir().expect("a directory"))?;
    let demo = Demo::start(temp.path());
    let browser = Browser::start(&temp.path().join("profile"), "en-US");
    Some((temp, demo, browser))
}

/// There is a list, and something can be bought.
const READY: &str = "return document.querySelector('kindred-list')?.shadowRoot?.querySelector('.card .title') && !document.getElementById('buy').disabled";

impl Browser {
    /// Waits until a script returns true.
    fn until_true(&self, what: &str, script: &str) {
        until(what, || self.run(script).as_bool().filter(|is_so| *is_so));
    }

    /// What the page says of a click, with the class of its box.
    fn effect(&self) -> String {
        until("an effect", || {
            let text = self.run("const box = document.getElementById('effect'); return box.className + '|' + box.textContent");
            let text = text.as_str().unwrap_or_default().to_owned();
            (text.contains("moved|") || text.contains("did not move") || text.contains("failed|")).then_some(text)
        })
    }
}

/// If this fails, the page does not show what the product does.
#[test]
fn a_purchase_made_with_the_button_appears_in_the_widget_without_a_reload() {
    let Some((_temp, demo, browser)) = demo_in_a_browser() else { return };
    browser.open(&demo.url);
    let entries = "return document.querySelector('kindred-list')?.shadowRoot?.querySelectorAll('li').length ?? 0";
    until("a list in the widget", || browser.run(entries).as_u64().filter(|&entries| entries > 2));
    // Without simulation, so that only the button moves the list. The marker would not survive a reload.
    browser.run(
        "window.notReloaded = true;
         const slider = document.getElementById('speed'); slider.value = slider.min;
         slider.dispatchEvent(new Event('input', { bubbles: true })); slider.dispatchEvent(new Event('change', { bubbles: true }));",
    );
    browser.until_true("an enabled button", "return !document.getElementById('buy').disabled");
    let widget = "return document.querySelector('kindred-list').shadowRoot.textContent";
    // The page proposes a product that would move a list; retry where the member's list is not affected.
    let (before, effect) = until("a list that moves", || {
        let before = browser.run(widget);
        browser.run("document.getElementById('buy').click()");
        let effect = browser.effect();
        if effect.contains("moved|") {
            return Some((before, effect));
        }
        assert!(!effect.contains("failed|"), "{effect}");
        browser.run("document.querySelector('#effect button')?.click()");
        std::thread::sleep(Duration::from_millis(700));
        None
    });
    assert!(effect.contains(" ms after the click"), "the page shows no latency: {effect}");
    assert_ne!(browser.run(widget), before, "the widget shows what it showed before");
    assert_eq!(browser.run("return window.notReloaded === true"), true, "the page was loaded again");
    if let Some(file) = std::env::var_os("KINDRED_SCREENSHOT") {
        std::thread::sleep(Duration::from_millis(1_500));
        std::fs::write(file, browser.screenshot()).expect("the picture is written");
    }
}

/// If it failed, the demo would attribute other shoppers' changes to a click.
#[test]
fn the_demo_measures_its_own_click_alone() {
    let Some((_temp, demo, browser)) = demo_in_a_browser() else { return };
    browser.open(&format!("{}/?item=blankets-09", demo.url));
    browser.until_true("a list and the buttons", READY);
    // The maximum rate: this list moves many times a second.
    browser.run(
        "window.moved = 0; document.addEventListener('kindred:list', ({ detail }) => { window.moved += detail.changes.length });
         const slider = document.getElementById('speed'); slider.value = slider.max;
         slider.dispatchEvent(new Event('input', { bubbles: true })); slider.dispatchEvent(new Event('change', { bubbles: true }));",
    );
    browser.run("document.getElementById('buy').click()");
    browser.effect();
    let last = browser.run("return document.getElementById('last').textContent");
    // A member who owns it moves nothing by buying it again.
    for _ in 0..4 {
        let moved = browser.run("return window.moved").as_u64().expect("a number");
        browser.run("document.getElementById('buy').click()");
        // The effect of the previous click is hidden at once.
        assert_eq!(browser.run("return document.getElementById('effect').classList.contains('moved')"), false);
        let told = browser.effect();
        assert!(told.contains("did not move") && told.contains("each buyer counts once"), "{told}");
        until("another change of the list", || browser.run("return window.moved").as_u64().filter(|now| *now > moved));
        let told = browser.run("return document.getElementById('effect').textContent");
        assert!(told.as_str().is_some_and(|told| told.contains("did not move")), "{told}");
    }
    assert_eq!(
        browser.run("return document.getElementById('last').textContent"),
        last,
        "a click that moved nothing was measured"
    );
    // The first is a measurement of the click, or absent.
    let last = last.as_str().unwrap_or_default().replace('–', "0");
    assert!(last.parse::<f64>().is_ok_and(|ms| ms < 5_000.0), "{last}");
}

/// If it failed, keyboard users would need two hundred Tabs, and lose their place with each action.
#[test]
fn the_demo_is_walked_by_keyboard() {
    let Some((_temp, demo, browser)) = demo_in_a_browser() else { return };
    browser.open(&demo.url);
    browser.until_true("a list and the buttons", READY);
    let press = |key: &str| {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        browser.call("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] }));
    };
    let focus = || {
        browser
            .run("const at = document.activeElement; return at.id || at.className || at.localName")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (tab, enter, right) = ("\u{E004}", "\u{E007}", "\u{E014}");
    press(tab);
    assert_eq!(focus(), "skip");
    press(enter);
    press(tab);
    assert_eq!(focus(), "view", "the skip link leads to the product's buttons");
    press(tab);
    press(enter);
    until("an effect", || {
        let told = browser.run("return document.getElementById('effect').textContent");
        told.as_str().filter(|told| told.contains("after the click") || told.contains("did not move")).map(|_| ())
    });
    assert_eq!(focus(), "buy", "the focus stays where one pressed");
    // Without the skip link it is a few stops, not one per product; arrow keys move between products.
    browser.run("document.activeElement.blur(); document.querySelector('.skip').focus()");
    let stops = (1..=60).find(|_| {
        press(tab);
        focus() == "buy"
    });
    assert!(stops.is_some_and(|stops| stops < 40), "{stops:?} stops before the button");
    browser.run("document.querySelector('#grid button').focus()");
    let item = || browser.run("return document.activeElement.dataset.item").as_str().unwrap_or_default().to_owned();
    let first = item();
    press(right);
    assert!(!item().is_empty() && item() != first);
    let spoken = browser.run("return document.getElementById('speed').getAttribute('aria-valuetext')");
    assert_eq!(spoken, "5 events a second");
}

/// If it failed, the API reference would be unusable by keyboard, or wider than a phone.
#[test]
fn the_pages_for_reading_fit_a_phone_and_a_keyboard() {
    let Some((_temp, demo, browser)) = demo_in_a_browser() else { return };
    for width in [320, 390, 700, 1440] {
        let size = json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": false });
        browser.cdp("Emulation.setDeviceMetricsOverride", &size);
        for path in ["/docs", "/browse", "/"] {
            browser.open(&format!("{}{path}", demo.url));
            let over = browser.run("return document.documentElement.scrollWidth - innerWidth");
            assert!(over.as_i64().is_some_and(|over| over <= 0), "{path}: {over} px too wide for {width} px");
        }
    }
    browser.open(&format!("{}/docs", demo.url));
    let stuck = "return [...document.querySelectorAll('body *')].filter((block) => {
        const style = getComputedStyle(block);
        const scrolls = /auto|scroll/.test(style.overflowX + style.overflowY)
          && (block.scrollWidth > block.clientWidth + 1 || block.scrollHeight > block.clientHeight + 1);
        return scrolls && block.tabIndex < 0 && !block.querySelector('a[href], button, [tabindex=\"0\"]');
      }).map((block) => block.outerHTML.slice(0, 120))";
    assert_eq!(browser.run(stuck), json!([]), "blocks that scroll and that the keyboard does not reach");
    let empty = "return [...document.querySelectorAll('th')].filter((head) => !head.textContent.trim()).length";
    assert_eq!(browser.run(empty), 0, "heads of columns that say nothing");
}

/// If it failed, the demo's fourth window would hang: HTTP/1.1 allows six connections for all windows of a browser.
#[test]
fn many_windows_of_the_demo_work_at_once() {
    let Some((_temp, demo, browser)) = demo_in_a_browser() else { return };
    for n in 1..=6 {
        if n > 1 {
            let made = browser.call("window/new", &json!({ "type": "window" }));
            browser.call("window", &json!({ "handle": made["handle"] }));
        }
        browser.open(&demo.url);
        let shown = "return Boolean(document.querySelector('kindred-list')?.shadowRoot?.querySelector('.card .title'))
            && document.getElementById('available').textContent !== '–'";
        browser.until_true(&format!("window {n}"), shown);
    }
}
