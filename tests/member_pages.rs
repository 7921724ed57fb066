//! The account pages in headless Chromium: register, with code and mail from the mailbox page, sign in, the account, sign out.
//! Once by mouse and keyboard, once by keyboard only and in zh-CN.
//!
//! `KINDRED_SCREENSHOT=FILE.png` saves FILE-register.png, … of each page: light, dark and narrow.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::browser::{Browser, Demo, has_browser, until};

const PASSWORD: &str = "purple lantern under larches";
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";
const SPACE: &str = " ";
/// More tab stops than any page has.
const STOPS_MAX: usize = 60;

/// A person at a browser.
struct Person {
    browser: Browser,
    demo: Demo,
    /// Uses the keyboard only.
    by_keyboard: bool,
    walk: &'static str,
    _temp: tempfile::TempDir,
}

impl Person {
    fn at_the_demo(walk: &'static str, language: &str, by_keyboard: bool) -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let demo = Demo::start(temp.path());
        let browser = Browser::start(&temp.path().join("profile"), language);
        Self { browser, demo, by_keyboard, walk, _temp: temp }
    }

    fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.demo.url));
    }

    /// Waits for a visible element; returns its text.
    fn sees(&self, selector: &str) -> String {
        let look = format!(
            "const found = document.querySelector({}); if (!found || !('ready' in document.documentElement.dataset) && \
             location.pathname !== '/') return null; const seen = found.checkVisibility({{ visibilityProperty: true }}); \
             return seen ? found.textContent.trim() || ' ' : null",
            json!(selector)
        );
        until(&format!("{}: {selector} on {}", self.walk, self.path()), || self.browser.run(&look).as_str().map(str::to_owned))
    }

    /// Waits for the text of an element.
    fn reads(&self, selector: &str) -> String {
        let text = |text: String| Some(text).filter(|text| !text.trim().is_empty() && text != "–");
        until(&format!("{}: words in {selector}", self.walk), || text(self.sees(selector)))
    }

    fn path(&self) -> String {
        self.browser.run("return location.pathname + location.search").as_str().unwrap_or_default().to_owned()
    }

    fn is_at(&self, path: &str) {
        until(&format!("{}: {path}", self.walk), || (self.path() == path).then_some(()));
    }

    /// Sends keys to the focused element.
    fn keys(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        self.browser.call("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.browser.call("element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str).map(str::to_owned);
        id.unwrap_or_else(|| panic!("{found}"))
    }

    /// Focuses an element: by mouse directly, by keyboard through visible tab stops.
    fn goes_to(&self, selector: &str) {
        self.sees(selector);
        let reached = format!("return document.activeElement === document.querySelector({})", json!(selector));
        for _ in 0..STOPS_MAX {
            if self.browser.run(&reached) == true {
                let outline = "const style = getComputedStyle(document.activeElement); return style.outlineStyle";
                assert_ne!(self.browser.run(outline), "none", "{selector} does not show that it has the focus");
                return;
            }
            self.keys(TAB);
        }
        panic!("{}: the keyboard does not reach {selector} on {}", self.walk, self.path());
    }

    fn presses(&self, selector: &str) {
        if self.by_keyboard {
            self.goes_to(selector);
            let is_box = "return document.activeElement.type === 'checkbox'";
            self.keys(if self.browser.run(is_box) == true { SPACE } else { ENTER });
        } else {
            self.sees(selector);
            let id = self.element(selector);
            self.browser.call(&format!("element/{id}/click"), &json!({}));
        }
    }

    fn types(&self, selector: &str, text: &str) {
        if self.by_keyboard {
            self.goes_to(selector);
            self.keys(text);
        } else {
            self.sees(selector);
            let id = self.element(selector);
            self.browser.call(&format!("element/{id}/value"), &json!({ "text": text }));
        }
    }

    /// Replaces the text of a field.
    fn types_again(&self, selector: &str, text: &str) {
        if self.by_keyboard {
            self.goes_to(selector);
            self.browser.run("document.activeElement.select()"); // what Ctrl+A does
        } else {
            let id = self.element(selector);
            self.browser.call(&format!("element/{id}/clear"), &json!({}));
        }
        self.types(selector, text);
    }

    /// Opens the mailbox page in another window; returns the newest phone code.
    fn code_of_the_phone(&self) -> String {
        let code = "return document.querySelector('#messages .body')?.textContent.match(/\\d{6}/)?.[0]";
        self.in_another_window("/mailbox", || until("a code", || self.browser.run(code).as_str().map(str::to_owned)))
    }

    fn in_another_window<T>(&self, path: &str, work: impl FnOnce() -> T) -> T {
        let first = self.browser.get("window");
        let made = self.browser.call("window/new", &json!({ "type": "tab" }));
        self.browser.call("window", &json!({ "handle": made["handle"] }));
        self.open(path);
        let done = work();
        self.browser.run("window.close()");
        self.browser.call("window", &json!({ "handle": first }));
        done
    }

    /// Checks of every page: every control has a name, and nothing is wider than a phone.
    fn page_is_in_order(&self, name: &str) {
        let tree = self.cdp("Accessibility.getFullAXTree", &json!({}));
        for node in tree["nodes"].as_array().expect("a tree") {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            let operated = ["button", "checkbox", "combobox", "link", "progressbar", "textbox", "group", "navigation"];
            // A disclosure's name is that of its summary.
            let needs_name = operated.contains(&role) && node["ignored"] != true && role != "group";
            let named = node["name"]["value"].as_str().is_some_and(|name| !name.trim().is_empty());
            assert!(!needs_name || named, "{} {name}: a {role} has no name: {node}", self.walk);
        }
        self.picture(name);
        self.cdp("Emulation.setEmulatedMedia", &json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] }));
        self.picture(&format!("{name}-dark"));
        self.cdp("Emulation.setEmulatedMedia", &json!({ "features": [] }));
        let narrow = json!({ "width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", &narrow);
        let over = self.browser.run("return document.documentElement.scrollWidth - innerWidth");
        self.picture(&format!("{name}-narrow"));
        self.cdp("Emulation.clearDeviceMetricsOverride", &json!({}));
        assert!(over.as_i64().is_some_and(|over| over <= 0), "{} {name}: {over} px too wide for a phone", self.walk);
    }

    fn cdp(&self, command: &str, params: &Value) -> Value {
        self.browser.cdp(command, params)
    }

    fn picture(&self, name: &str) {
        let Some(file) = std::env::var_os("KINDRED_SCREENSHOT").map(PathBuf::from) else { return };
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let file = file.with_file_name(format!("{stem}-{}-{name}.png", self.walk));
        // The whole page, not what the window shows of it.
        let shot = self.cdp("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().expect("a picture"));
        std::fs::write(file, bytes.expect("base64")).expect("the picture is written");
    }

    /// A registration from the shop's page, by code and mail.
    fn registers(&self, username: &str, phone: &str, email: &str) {
        self.presses(".links a[href='/register']");
        self.is_at("/register");
        // An empty form names and focuses the missing field.
        self.presses("#step-data .primary");
        self.reads("#username-error");
        assert_eq!(self.browser.run("return document.activeElement.id"), "username");
        self.types("#username", username);
        self.types("#phone", "123");
        self.types("#email", email);
        self.types("#password", PASSWORD);
        self.page_is_in_order("register");
        // An API error is shown at its field.
        self.presses("#step-data .primary");
        self.reads("#phone-error");
        self.types_again("#phone", phone);
        self.presses("#step-data .primary");
        self.reads("#code-sent");
        let code = self.code_of_the_phone();
        self.types("#phone_code", &code);
        self.page_is_in_order("phone");
        self.presses("#step-phone .primary");
        self.presses("#agreement");
        self.page_is_in_order("agreement-step");
        self.presses("#step-agreement .primary");
        self.sees("#accepted");
        self.page_is_in_order("mail-step");

        self.presses(".todo a[href='/mailbox']");
        self.is_at("/mailbox");
        let link = "#messages li a[href*='/verify-email']";
        self.sees(link);
        self.page_is_in_order("mailbox");
        self.presses(link);
        self.is_at("/verify-email");
        self.presses("#confirm .primary");
        self.reads("#done h2");
        assert_eq!(self.browser.run("return location.hash"), "", "the token stays in no address bar");
        self.page_is_in_order("verified");
    }

    /// From a page that needs a sign-in to it, and back.
    fn signs_in(&self, account: &str) {
        self.open("/account?from=walk");
        self.is_at("/sign-in?return=%2Faccount%3Ffrom%3Dwalk");
        self.types("#account", account);
        self.types("#password", "not this one");
        self.presses("#password-form .primary");
        self.reads("#password-form .notice");
        self.types_again("#password", PASSWORD);
        self.page_is_in_order("sign-in");
        self.presses("#password-form .primary");
        self.is_at("/account?from=walk");
    }

    fn finds_account(&self, username: &str, phone: &str, email: &str) {
        self.sees("#member"); // loaded
        assert!(self.reads("#hello").contains(username));
        assert!(self.reads("#profile [data-of='phone']").ends_with(phone));
        assert_eq!(self.reads("#profile [data-of='email']"), email);
        assert_eq!(self.reads("#available"), "0");
        assert_eq!(self.reads("#pending"), "0");
        assert!(self.reads("#next-tier").contains("VIP"));
        assert!(self.reads("#sessions li").contains("Chrome"));
        self.page_is_in_order("account");
        let stored = "return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])";
        let stored = self.browser.run(stored).to_string();
        assert!(!stored.contains("eyJ") && !stored.contains("__Host-"), "a script can read a token: {stored}");
    }

    /// The shop's server posts an order, and the account shows it with its points.
    fn sees_an_order_and_what_it_earns(&self, username: &str) {
        let (member, bearer) = self.member(username);
        let order = crate::support::order("walk-1", 1, "completed", &member, "2026-01-05T10:00:00Z", &["a", "b"]);
        let posted = ureq::post(format!("{}/v1/events/orders", self.demo.url)).header("authorization", &bearer).send_json(order);
        assert_eq!(posted.expect("an answer").status(), 202);
        until("the points of the order", || {
            self.open("/account");
            Some(self.reads("#available")).filter(|available| available == "20")
        });
        self.presses("#statement-of-points summary");
        let line = self.reads("#statement li");
        assert!(line.contains("+20") && line.contains("available since January"), "{line}");
        let order = self.reads("#orders > li");
        for part in ["Order walk-1", "received", "1 × a", "1 × b", "January 5, 2026", "€20.00"] {
            assert!(order.contains(part), "{part}: {order}");
        }
        self.page_is_in_order("statement");
    }

    /// Enrols an authenticator by the QR code, and gets recovery codes.
    fn sets_up_an_authenticator(&self) {
        self.presses("#totp-enrol summary");
        self.types("#totp-password", PASSWORD);
        self.presses("#totp-begin-form .actions button");
        let key = self.reads("#totp-secret");
        self.sees("#totp-qr");
        until("the QR code is drawn", || {
            let drawn =
                self.browser.run("const code = document.querySelector('#totp-qr'); return code.complete && code.naturalWidth");
            drawn.as_i64().filter(|&width| width >= 200)
        });
        self.page_is_in_order("authenticator");
        let app = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(&key).expect("the key"));
        let app = app.with_account_name("ada").build().expect("an app");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        self.types("#totp-code", &app.generate(now).to_string());
        self.presses("#totp-confirm-form .primary");
        self.sees("#recovery-codes li:last-child");
        assert_eq!(self.browser.run("return document.querySelectorAll('#recovery-codes li').length"), 10);
    }

    /// Browses to an item for members; returns its URL.
    fn browses(&self) -> String {
        self.presses(".links a[href='/browse']");
        self.is_at("/browse");
        self.reads("#items li span");
        self.presses("#tags a");
        self.reads("#items li span");
        let tag = self.sees("h1");
        self.presses("#items li:first-child a");
        let tags = self.reads("#own-tags");
        assert!(tags.contains(&tag), "{tag} is none of {tags}");
        self.reads("#similar li span");
        self.page_is_in_order("item");
        self.open("/browse?sort=price");
        self.reads("#items li span");
        // Items for members are at the end of the list, which loads gradually.
        until("an item for members", || {
            if self.browser.run("return document.querySelector('#items .badge') !== null") == true {
                return Some(());
            }
            self.presses("#more");
            None
        });
        self.page_is_in_order("browse");
        assert_eq!(
            self.browser.run(
                "return [...document.querySelectorAll('#items .badge')].every(({ dataset }) => dataset.t === 'for_registered')"
            ),
            true
        );
        self.browser.run("document.querySelector('#items .badge').closest('a').click()");
        self.reads("#description");
        self.sees("#product .badge");
        self.path()
    }

    /// The item is not found until signed in again.
    fn comes_back_to(&self, item: &str, account: &str) {
        self.open(item);
        self.reads("#notice");
        assert_eq!(self.browser.run("return document.getElementById('product').checkVisibility()"), false);
        self.page_is_in_order("item-not-there");
        self.presses("#sight a");
        self.types("#account", account);
        self.types("#password", PASSWORD);
        self.presses("#password-form .primary");
        self.is_at(item);
        self.reads("#description");
    }

    fn signs_out(&self) {
        self.presses("#sign-out");
        self.is_at("/sign-in");
        self.open("/account");
        self.is_at("/sign-in?return=%2Faccount");
    }
}

/// If it failed, nobody could register on the demo's pages.
#[test]
fn a_person_registers_signs_in_and_finds_the_account() {
    if !has_browser() {
        return;
    }
    let person = Person::at_the_demo("mouse", "en-US", false);
    person.open("/");
    person.registers("ada", "13800138000", "ada@example.com");
    person.signs_in("ada");
    assert_eq!(person.browser.run("return document.documentElement.lang"), "en");
    person.finds_account("ada", "13800138000", "ada@example.com");
    // The shop's own page shows the member.
    person.open("/");
    person.sees(".links a[href='/account']");
    person.presses(".links a[href='/account']");
    person.reads("#available");
    let item = person.browses();
    person.open("/account");
    person.reads("#available");
    person.signs_out();
    person.comes_back_to(&item, "ada");
    person.open("/account");
    person.reads("#available");
    person.signs_out();
    // No redirect to another site.
    person.open("/sign-in?return=//evil.example/");
    person.types("#account", "13800138000");
    person.types("#password", PASSWORD);
    person.presses("#password-form .primary");
    person.is_at("/account");
    person.sees_an_order_and_what_it_earns("ada");
    person.sets_up_an_authenticator();
}

/// If it failed, registration would need a mouse, or pages, answers or mails would be in English for a Chinese reader.
#[test]
fn a_person_without_a_mouse_does_the_same_in_chinese() {
    if !has_browser() {
        return;
    }
    let mut person = Person::at_the_demo("zh", "zh-CN", true);
    person.open("/register");
    assert_eq!(person.sees("h1"), "注册");
    assert_eq!(person.browser.run("return document.documentElement.lang"), "zh-CN");
    person.registers("xiaolin", "13700137000", "xiaolin@example.com");
    person.signs_in("13700137000");
    person.finds_account("xiaolin", "13700137000", "xiaolin@example.com");
    assert_eq!(person.sees("#profile-title"), "资料");
    // The switch takes effect at once, and is remembered.
    person.by_keyboard = false;
    person.presses("[data-language='en']");
    assert_eq!(person.sees("#profile-title"), "Profile");
    person.open("/account");
    person.reads("#available");
    assert_eq!(person.sees("#profile-title"), "Profile");
    person.by_keyboard = true;
    person.signs_out();
}

/// The kinds that a shop's server may post of a member; `search` has no item.
const KINDS: [&str; 8] = ["view", "click", "impression", "cart", "favorite", "follow", "comment", "purchase"];

impl Person {
    /// The id of the signed-in member, from the shop's server, and a header with its key.
    fn member(&self, username: &str) -> (String, String) {
        let key = std::fs::read_to_string(self._temp.path().join("demo/service.key")).expect("the service key");
        let bearer = format!("Bearer {}", key.trim());
        let found = ureq::get(format!("{}/v1/admin/members?q={username}", self.demo.url)).header("authorization", &bearer).call();
        let found: Value = found.expect("the members").body_mut().read_json().expect("JSON");
        (found["members"][0]["member"].as_str().expect("a member").to_owned(), bearer)
    }

    /// Waits for words in an element.
    fn reads_words(&self, selector: &str, words: &str) -> String {
        until(&format!("{}: {words:?} in {selector}", self.walk), || {
            Some(self.sees(selector)).filter(|text| text.contains(words))
        })
    }
}

/// If it failed, a new member would have no purchases, no points, or a history that fails on a kind of event.
#[test]
fn whoever_registers_shops_as_oneself() {
    if !has_browser() {
        return;
    }
    let person = Person::at_the_demo("shopping", "en-US", false);
    person.open("/register");
    person.registers("iris", "13800138000", "iris@example.com");
    person.signs_in("iris");

    // On the shop's page they are the buyer.
    person.open("/");
    until("the person among the members", || {
        let chosen = person.browser.run("return document.getElementById('member').selectedOptions[0]?.textContent");
        chosen.as_str().filter(|chosen| chosen.contains("iris (you)")).map(|_| ())
    });
    let ready = "return document.querySelector('kindred-list').shadowRoot?.querySelector('.card .title') && !document.getElementById('buy').disabled";
    until("a list and the buttons", || person.browser.run(ready).as_bool().filter(|ready| *ready));
    person.presses("#view");
    person.reads_words("#effect", "The view is in the log");
    person.presses("#buy");
    person.reads_words("#pending", "0");
    until("pending points", || Some(person.reads("#pending")).filter(|pending| pending != "0"));
    assert_eq!(person.browser.run("return document.activeElement.id"), "buy", "the focus stays where one pressed");
    person.reads_words("#effect", "did not move");
    person.picture("shop");
    // A second product moves the list: they own the first.
    person.open("/browse");
    person.presses("#items li:first-child a");
    person.presses("#favorite");
    person.reads_words("#done", "favourites");
    person.presses("#buy");
    person.reads_words("#done", "Bought");
    person.page_is_in_order("own-item");

    // The account shows all of it, with a text for each kind of event in both languages.
    let (member, bearer) = person.member("iris");
    let events: Vec<Value> = KINDS
        .iter()
        .map(|kind| json!({ "member": member, "kind": kind, "item": "speakers-10", "at": "2026-01-05T10:00:00Z" }))
        .collect();
    let posted =
        ureq::post(format!("{}/v1/events/interactions", person.demo.url)).header("authorization", &bearer).send_json(events);
    assert_eq!(posted.expect("an answer").status(), 202);
    until("the history", || {
        person.open("/account");
        person.reads("#available");
        let rows = "return document.querySelectorAll('#history li').length";
        until("rows", || person.browser.run(rows).as_u64().filter(|rows| *rows > 0));
        let kinds =
            "return new Set([...document.querySelectorAll('#history [data-t^=kind_]')].map(({ dataset }) => dataset.t)).size";
        (person.browser.run(kinds) == KINDS.len()).then_some(())
    });
    let notice = "return document.getElementById('page-notice').textContent";
    for language in ["en", "zh-CN"] {
        person.presses(&format!("[data-language='{language}']"));
        assert_eq!(person.browser.run(notice), "");
        let words = person
            .browser
            .run("return [...document.querySelectorAll('#history [data-t^=kind_]')].map(({ textContent }) => textContent)");
        let words = words.as_array().expect("words").clone();
        let is_chinese = |word: &Value| word.as_str().is_some_and(|word| word.chars().any(|letter| letter > '\u{4e00}'));
        assert!(words.iter().all(|word| is_chinese(word) == (language == "zh-CN")), "{language}: {words:?}");
    }
    assert_eq!(person.browser.run("return document.querySelectorAll('#orders > li').length"), 2);
    person.page_is_in_order("own-account");

    // The token of `kindred admin create` has its field.
    person.presses("[data-language='en']");
    let made = ureq::post(format!("{}/v1/admin/setup-tokens", person.demo.url))
        .header("authorization", &bearer)
        .send_json(json!({ "role": "admin" }));
    let made: Value = made.expect("a token").body_mut().read_json().expect("JSON");
    person.presses("#setup summary");
    person.types("#setup-token", "not this one");
    person.presses("#setup-form button");
    let refused = person.reads("#setup-form .notice");
    // A banner changes its language too.
    person.presses("[data-language='zh-CN']");
    let translated = person.reads("#setup-form .notice");
    assert!(translated != refused && !translated.is_ascii(), "{refused} stays {translated}");
    person.presses("[data-language='en']");
    person.types_again("#setup-token", made["token"].as_str().expect("a token"));
    person.presses("#setup-form button");
    person.reads_words("#appointed", "sign in again");
    person.signs_in("iris");
    person.reads_words("#profile [data-of='role']", "admin");
}
