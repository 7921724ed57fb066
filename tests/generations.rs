//! Generations: replay, compare, promote, roll back, drop; on a directory and on a running server.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kindred_model::Semantics;
use serde_json::{Value, json};

use crate::installation::{Installation, key_in};
use crate::law::oracle_export;
use crate::place::{Backend, Place, on_both_back_ends};
use crate::running::some_order;
use crate::support::{
    AS_OF, Points, Server, VIEWS, command, interaction, kindred, kindred_ok, lines_by_topic, order, text, until_so,
};

/// The settings of the second generation.
const OTHER: [&str; 4] = ["--set", "views.also_bought.window=3", "--set", "views.also_bought.top=4"];

struct Shop {
    temp: tempfile::TempDir,
}

impl Shop {
    /// A shop of some hundred orders, views and titles, under given settings.
    fn new(set: &[&str], members: u64) -> Self {
        let shop = Self { temp: tempfile::tempdir().expect("a directory") };
        let mut dice = 7_u64;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let catalog =
            (0..30).map(|n| json!({ "item": format!("i{n}"), "version": 1, "kind": "good", "title": format!("Thing {n}") }));
        shop.import("catalog", &catalog.collect::<Vec<_>>(), set);
        let mut orders = Vec::new();
        let mut views = Vec::new();
        for n in 0..members * 4 {
            let (member, day) = (format!("m{}", roll(members)), 1 + roll(28));
            let items: Vec<String> = (0..1 + roll(5)).map(|_| format!("i{}", roll(30) * roll(30) / 30)).collect();
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            orders.push(order(
                &format!("o{n}"),
                1,
                "completed",
                &member,
                &format!("2026-02-{day:02}T10:00:{:02}Z", n % 60),
                &items,
            ));
            views.push(interaction(&member, items[0], "view", &format!("2026-02-{day:02}T09:00:00Z")));
        }
        shop.import("orders", &orders, set);
        shop.import("interactions", &views, set);
        shop
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().expect("a path").to_owned()
    }

    fn data(&self) -> String {
        self.path("shop")
    }

    fn import(&self, topic: &str, records: &[Value], set: &[&str]) {
        let file = self.path(&format!("{topic}.ndjson"));
        let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
        std::fs::write(&file, lines).expect("a file");
        let data = self.data();
        kindred_ok(&[&["import", topic, &file, "--data", &data], set].concat());
    }

    /// All rows of all views.
    fn exports(&self) -> Vec<String> {
        let data = self.data();
        VIEWS.iter().map(|view| kindred_ok(&["export", view, "--as-of", AS_OF, "--data", &data])).collect()
    }

    fn run(&self, args: &[&str]) -> String {
        let data = self.data();
        kindred_ok(&[args, &["--data", &data]].concat())
    }

    fn replay(&self, name: &str, more: &[&str]) -> String {
        self.run(&[&["replay", "--generation", name, "--once"], more].concat())
    }

    fn compare(&self, a: &str, b: &str) -> Value {
        serde_json::from_str(&self.run(&["compare", a, b, "--as-of", AS_OF, "--json"])).expect("JSON")
    }

    /// Asserts that it fails with these words.
    #[track_caller]
    fn fails(&self, args: &[&str], words: &str) {
        let data = self.data();
        let output = kindred(&[args, &["--data", &data]].concat());
        let stderr = text(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "kindred {args:?}: {words:?} is not in: {stderr}");
    }
}

/// If it failed, a replay would differ from an installation with those settings, or a rollback from the state before.
#[test]
fn a_replay_equals_an_installation_with_its_settings_and_rolling_back_gives_the_old_bytes() {
    let (shop, scratch) = (Shop::new(&[], 60), Shop::new(&OTHER, 60));
    let (old, new) = (shop.exports(), scratch.exports());
    assert_ne!(old[0], new[0]);
    let told = shop.replay("g2", &OTHER);
    assert!(told.contains("estimate: ") && told.contains("of memory"), "{told}");
    shop.replay("g3", &[&["--from", "inputs"], &OTHER[..]].concat());
    assert_eq!(shop.exports(), old, "the live one is not touched");

    let listed: Value = serde_json::from_str(&shop.run(&["generations", "--json"])).expect("JSON");
    let listed = listed["generations"].as_array().expect("a list");
    let names: Vec<_> = listed.iter().map(|g| (g["name"].as_str().expect("a name"), g["live"] == true, g["lag"] == 0)).collect();
    assert_eq!(names, [("g1", true, true), ("g2", false, true), ("g3", false, true)]);
    assert_eq!(listed[1]["differing"], json!({ "views.also_bought.top": "4", "views.also_bought.window": "3" }));
    assert!(shop.run(&["generations"]).contains("views.also_bought.window = 3"));

    let same = shop.compare("g2", "g3");
    assert_eq!((&same["lists"]["moved"], &same["settings"]), (&json!(0), &json!([])));
    assert!(same["tables"].as_array().expect("tables").iter().all(|table| table["different"] == 0), "{same}");
    let moved = shop.compare("g1", "g2");
    assert!(moved["lists"]["moved"].as_u64() > Some(0) && moved["lists"]["moved_share_by_views"].as_f64() > Some(0.0));
    assert!(moved["inputs"].as_array().expect("inputs").iter().all(|table| table["equal"] == true), "{moved}");
    let page = shop.path("compared.html");
    assert!(shop.run(&["compare", "g1", "g2", "--html", &page]).contains("overlap@10"));
    assert!(std::fs::read_to_string(&page).expect("a page").contains("Thing "));

    for name in ["g2", "g3"] {
        shop.run(&["promote", name]);
        assert_eq!(shop.exports(), new, "{name} is what an installation with its settings gives");
        assert!(shop.run(&["verify"]).contains("verified"));
    }
    shop.fails(&["drop", "g3", "--yes"], "is live");
    // New events reach the live generation; the others apply them when started.
    shop.run(&["promote", "g1"]);
    assert_eq!(shop.exports(), old, "rolling back gives the old bytes");
    shop.fails(&["drop", "g2"], "--yes");
    shop.run(&["drop", "g2", "--yes"]);
    shop.fails(&["promote", "g2"], "there is no generation g2");
    shop.fails(&["replay", "--generation", "g3", "--once"], "another");
    shop.fails(&["replay", "--generation", "../g4", "--once"], "cannot name a generation");
}

/// If it failed, a what-if could change members' points, or a part of the events be served as all.
#[test]
fn a_what_if_is_compared_and_never_promoted() {
    let shop = Shop::new(&[], 40);
    shop.replay("rules", &["--set", "program.earn_item=11", "--from", "inputs"]);
    shop.fails(&["promote", "rules"], "never promotable");
    let told = shop.compare("g1", "rules");
    let available = |side: &str| told["points"][side]["available"].as_i64().expect("points");
    assert_eq!(available("a") * 11, available("b") * 10, "{}", told["points"]);
    assert_eq!(told["lists"]["moved"], 0);

    let before = |table: &str, side: &str, told: &Value| {
        let tables = told["inputs"].as_array().expect("inputs").clone();
        tables.iter().find(|t| t["table"] == table).expect("a table")[side].as_u64().expect("rows")
    };
    shop.replay("half", &["--until", "2026-02-15"]);
    shop.fails(&["promote", "half"], "part of the events");
    let told = shop.compare("g1", "half");
    let file = std::fs::read_to_string(shop.path("orders.ndjson")).expect("orders");
    let placed =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["placed_at"].as_str().expect("a time").to_owned();
    let early = file.lines().filter(|line| &*placed(line) < "2026-02-15").count() as u64;
    assert_eq!((before("inputs_orders", "rows_a", &told), before("inputs_orders", "rows_b", &told)), (160, early));

    shop.replay("late", &["--from", "2026-02-15"]);
    assert_eq!(before("inputs_orders", "rows_b", &shop.compare("g1", "late")), 160 - early);
    shop.replay("first", &["--until", "o0.10"]);
    assert_eq!(before("inputs_orders", "rows_b", &shop.compare("g1", "first")), 10);
    shop.replay("rest", &["--from", "o0.10"]);
    assert_eq!(before("inputs_orders", "rows_b", &shop.compare("g1", "rest")), 150);
}

/// If it failed, a killed replay would leave wrong rows, or could not be resumed.
#[test]
fn a_replay_that_is_killed_goes_on_and_gives_the_same_bytes() {
    let (shop, scratch) = (Shop::new(&[], 500), Shop::new(&OTHER, 500));
    let data = shop.data();
    for from in ["beginning", "inputs"] {
        let args = [&["replay", "--generation", from, "--from", from, "--once", "--data", &data], &OTHER[..]].concat();
        for pause in [30, 120, 250, 400] {
            let mut replay = command(&args).stdout(std::process::Stdio::null()).spawn().expect("it starts");
            std::thread::sleep(Duration::from_millis(pause));
            replay.kill().expect("it can be killed");
            replay.wait().expect("it ends");
        }
        kindred_ok(&args);
        shop.run(&["promote", from]);
        let scratch = scratch.exports();
        assert!(shop.exports() == scratch, "from {from}: the exports are not those of an installation with its settings");
        shop.run(&["promote", "g1"]);
    }
}

/// If it failed, a crash during create, promote or drop would leave a generation that cannot be dropped, orphaned rows, or a
/// third generation live.
fn a_change_of_generations_that_is_killed_in_any_step_is_done_again(backend: Backend) {
    let Some(place) = Place::new(backend, "killed_generations", &[]) else { return };
    let server = place.start(&[]);
    server.post_events("orders", &(0..6).map(|n| some_order(n, 1, "completed")).collect::<Vec<_>>());
    server.stop();
    let (expected, points) = (place.exports(), Points::new(place.temp()));
    let shown = || -> Value { serde_json::from_str(&place.ok(&["generations", "--json"])).expect("JSON") };
    let names = || -> Vec<(String, bool)> {
        let all = shown()["generations"].as_array().expect("a list").clone();
        all.iter().map(|g| (g["name"].as_str().expect("a name").to_owned(), g["live"] == true)).collect()
    };
    let live = || names().into_iter().find(|(_, live)| *live).expect("one is live").0;
    let replay = |name| ["replay", "--generation", name, "--from", "inputs", "--once"];
    // The commands, and their preparation before a repetition.
    let acts: [(&[&str], &[&str]); 3] = [
        (&replay("g2"), &["drop", "g2", "--yes"]),
        (&["promote", "g2"], &["promote", "g1"]),
        (&["drop", "g3", "--yes"], &replay("g3")),
    ];
    place.ok(&replay("g3"));
    for (act, back) in acts {
        points.arm("never");
        let done = place.run_with(points.command(), act);
        assert!(done.status.success(), "kindred {act:?}: {}", text(&done.stderr));
        let steps: Vec<String> = points.trace().into_iter().filter(|step| step.starts_with("generations: ")).collect();
        points.disarm();
        assert!(!steps.is_empty(), "kindred {act:?} passes no fail point");
        let after = names();
        for step in steps {
            place.ok(back);
            let before = live();
            points.arm(&format!("kill {step}"));
            let killed = place.run_with(points.command(), act);
            points.disarm();
            assert!(killed.status.code().is_none(), "kindred {act:?} passed {step} alive: {}", text(&killed.stderr));
            let now = live();
            assert!(now == before || after.contains(&(now.clone(), true)), "{now} is live, killed at {step} of {act:?}");
            assert_eq!(place.exports(), expected, "killed at {step} of {act:?}");
            // Done, or repeated.
            if names() != after || act[0] == "replay" {
                place.ok(act);
            }
            assert_eq!((names(), place.exports()), (after.clone(), expected.clone()), "after {step} of {act:?}");
        }
    }
    // The generation is created once: its drop is killed in one step after another, until it is gone.
    let drop = ["drop", "g1", "--yes"];
    let steps = match backend {
        Backend::Embedded => ["emptied", "forgotten", "removing", "renamed"],
        Backend::Services => ["dropping", "turned", "emptied", "forgotten"],
    };
    for step in steps {
        points.arm(&format!("kill generations: {step}#1"));
        let killed = place.run_with(points.command(), &drop);
        points.disarm();
        assert!(killed.status.code().is_none(), "kindred {drop:?} passed {step} alive: {}", text(&killed.stderr));
        assert_eq!((live(), place.exports()), ("g2".to_owned(), expected.clone()), "killed at {step} of {drop:?}");
    }
    if names().iter().any(|(name, _)| name == "g1") {
        place.ok(&drop);
    }
    place.ok(&["verify"]);
}
on_both_back_ends!(a_change_of_generations_that_is_killed_in_any_step_is_done_again);

/// If it failed, a generation without a pipeline would keep an erased member's data.
fn a_generation_that_stands_still_goes_when_somebody_in_it_is_forgotten(backend: Backend) {
    let Some(place) = Place::new(backend, "forgotten_generations", &["erasure.raw_days=0".to_owned()]) else { return };
    let server = place.start(&[]);
    server.post_events("orders", &[some_order(1, 1, "completed")]);
    server.post_events("orders", &[order("late", 1, "completed", "lena", "2026-05-20T10:00:00Z", &["i1", "i2"])]);
    server.stop();
    place.ok(&["replay", "--generation", "half", "--until", "2026-05-15", "--once"]);
    place.ok(&["replay", "--generation", "rest", "--from", "2026-05-15", "--once"]);
    let server = place.start(&[]);
    assert_eq!(server.delete("/v1/members/lena").status, 200);
    let names = || -> Vec<String> {
        let shown = server.get_json("/v1/admin/generations");
        shown["generations"].as_array().expect("a list").iter().map(|g| g["name"].as_str().expect("a name").to_owned()).collect()
    };
    until_so(|| format!("it stays: {}", server.log()), || !names().contains(&"rest".to_owned()));
    assert_eq!(names(), ["g1", "half"], "who was forgotten is in the one alone");
    server.stop();
}
on_both_back_ends!(a_generation_that_stands_still_goes_when_somebody_in_it_is_forgotten);

/// If it failed, a promotion would lose an answer, or an answer would mix two generations.
#[test]
fn a_running_server_turns_to_another_generation_without_a_failed_or_mixed_answer() {
    let (shop, scratch) = (Shop::new(&[], 60), Shop::new(&OTHER, 60));
    shop.replay("g2", &OTHER);
    shop.replay("rules", &["--set", "program.earn_item=11"]);
    let data = shop.data();
    let server = Server::start(Path::new(&data), &[]);
    let expected = {
        let other = Server::start(Path::new(&scratch.data()), &[]);
        let lists: Vec<Value> = (0..5).map(|n| other.get_json(&path(n))["items"].clone()).collect();
        other.stop();
        lists
    };
    let old: Vec<String> = (0..5).map(|n| server.get(&path(n)).body).collect();
    for (n, list) in expected.iter().enumerate() {
        assert_eq!(&server.get_json(&format!("{}&generation=g2", path(n)))["items"], list);
    }
    assert_eq!(server.get(&format!("{}&generation=none", path(0))).status, 404);
    let promote = |name: &str| server.post(&format!("/v1/admin/generations/{name}/promote"), "application/json", b"{}");
    assert_eq!(promote("rules").status, 409);
    assert_eq!(promote("none").status, 404);
    let told = kindred_ok(&["compare", "g1", "g2", "--url", &server.url, "--key", &server.key]);
    assert!(told.contains("views.also_bought.window"), "{told}");

    let new: Vec<String> = {
        assert_eq!(promote("g2").json(), json!({ "live": "g2", "before": "g1" }));
        let new = (0..5).map(|n| server.get(&path(n)).body).collect();
        assert_eq!(promote("g1").status, 200);
        new
    };
    assert_ne!(old, new);
    let asked: Vec<String> = (0..5).map(path).collect();
    under_readers(&[&server], &asked, [&old, &new], || {
        for turn in 0..20 {
            assert_eq!(promote(["g2", "g1"][turn % 2]).status, 200);
        }
    });
    assert_eq!((0..5).map(|n| server.get(&path(n)).body).collect::<Vec<_>>(), old, "rolling back gives the old bytes");

    // Both follow the log: new events are in either.
    let placed = server.post_events("orders", &[order("new", 1, "completed", "x", "2026-03-01T00:00:00Z", &["p", "q"])]);
    for generation in ["g1", "g2"] {
        let at = format!("/v1/items/p/similar?fill=false&generation={generation}&min_position={placed}&wait_ms=10000");
        assert_eq!(server.get_json(&at)["items"][0]["item"], "q");
    }
    // A key created under one works under the other, and a restart keeps the promotion.
    assert_eq!(promote("g2").status, 200);
    assert_eq!(server.delete("/v1/admin/generations/g2").status, 409);
    server.stop();
    let server = Server::start(Path::new(&data), &[]);
    assert_eq!(server.list_items("p", &placed), ["q"]);
    let listed = server.get_json("/v1/admin/generations");
    let live: Vec<_> = listed["generations"].as_array().expect("a list").iter().filter(|g| g["live"] == true).collect();
    assert_eq!((live.len(), &live[0]["name"]), (1, &json!("g2")));
    // Also the one that the process started with.
    assert_eq!(
        server.post("/v1/admin/generations/g1/promote", "application/json", b"{}").json(),
        json!({ "live": "g1", "before": "g2" })
    );
    assert_eq!(server.list_items("p", &placed), ["q"]);
    let in_use = kindred(&["generations", "--data", &data]);
    assert!(text(&in_use.stderr).contains("kindred generations --url"), "{}", text(&in_use.stderr));
    let in_use = kindred(&["replay", "--generation", "g3", "--data", &data]);
    assert!(text(&in_use.stderr).contains("end it, replay, and start it again"), "{}", text(&in_use.stderr));
    for dropped in ["g2", "rules"] {
        let answer = server.delete(&format!("/v1/admin/generations/{dropped}"));
        assert_eq!(answer.status, 204, "{}", answer.body);
    }
    assert_eq!(server.get(&format!("{}&generation=g2", path(0))).status, 404);
    assert!(!Path::new(&data).join("generations/g2").exists());
    assert_eq!(server.list_items("p", &placed), ["q"]);
    let exports: Vec<String> = VIEWS.iter().map(|view| server.export(view)).collect();
    server.stop();
    assert!(shop.run(&["verify"]).contains("verified"));
    let anew = Shop::new(&[], 60);
    anew.import("orders", &[order("new", 1, "completed", "x", "2026-03-01T00:00:00Z", &["p", "q"])], &[]);
    assert!(anew.exports() == exports, "the exports are not those of an installation with these settings");
}

/// Runs `act` while four readers ask: each answer is that of one of two generations.
fn under_readers(apis: &[&Server], asked: &[String], [old, new]: [&[String]; 2], act: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let done = &done;
        let read = move |reader: usize| {
            let mut answers = 0;
            while !done.load(Ordering::Acquire) {
                let n = (reader + answers) % asked.len();
                let answer = apis[reader % apis.len()].get(&asked[n]);
                assert_eq!(answer.status, 200, "{}", answer.body);
                let (body, old, new) = (&answer.body, &old[n], &new[n]);
                assert!(body == old || body == new, "an answer of neither: {body}\nold {old}\nnew {new}");
                answers += 1;
            }
            answers
        };
        let readers: Vec<_> = (0..4).map(|reader| scope.spawn(move || read(reader))).collect();
        act();
        done.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().expect("no reader failed")).sum::<usize>()
    });
    assert!(answers > 20, "there was load: {answers}");
}

fn path(n: usize) -> String {
    format!("/v1/items/i{n}/similar?fill=false&explain=true")
}

/// If it failed, a replay on services would disturb the live pipeline or give wrong lists; or a promotion would cause errors or
/// mixed answers at one of several APIs, or could not be rolled back.
#[test]
fn generations_on_services_are_what_the_oracle_says() {
    let Some(on) = Installation::with("generations", "") else { return };
    let key = key_in(&on.ok(&["migrate"]));
    let records = kindred_oracle::testing::random_log(21, 500, &kindred_oracle::testing::Shape::default());
    let live = on.pipeline();
    for (topic, lines) in lines_by_topic(&records.iter().collect::<Vec<_>>()) {
        let file = on.dir().join(format!("{topic}.ndjson"));
        std::fs::write(&file, lines).expect("a file");
        on.import(topic.name(), &file);
    }
    let of = |semantics: &Semantics| VIEWS.map(|view| oracle_export(view, &records, semantics));
    let usual = Semantics::default();
    assert_eq!(on.exports(), of(&usual), "{}", live.log());

    let mut narrow = Semantics::default();
    narrow.views.also_bought.window = 3;
    narrow.views.also_bought.top = 4;
    let begin = Instant::now();
    let told = on.ok(&[&["replay", "--generation", "g2", "--once", "--rate", "300"][..], &OTHER].concat());
    // Some 500 records; the first tenths of a second's are free.
    assert!(begin.elapsed() > Duration::from_secs(1), "it was not held back");
    assert!(told.contains("estimate:") && told.contains("g2 reaches"), "{told}");
    assert_eq!(on.exports(), of(&usual), "the replay disturbed the live generation");
    let compared = on.ok(&["compare", "g1", "g2"]);
    assert!(compared.contains("views.also_bought.window"), "{compared}");

    // Two APIs, the second with almost no lists in memory.
    let apis = [
        on.api("one", &key, &[]),
        on.api("other", &key, &["--set", "api.lists_bytes_max=100", "--set", "api.answers_bytes_max=0"]),
    ];
    let items: Vec<String> = {
        let known: std::collections::BTreeSet<String> = on
            .ok(&["export", "also_bought", "--format", "csv"])
            .lines()
            .skip(1)
            .filter_map(|line| Some(line.split(',').next()?.trim_matches('"').to_owned()))
            .filter(|item| item.chars().all(|c| c.is_ascii_alphanumeric()))
            .collect();
        known.into_iter().take(6).collect()
    };
    assert!(items.len() > 2, "{items:?}");
    let path = |item: &str| format!("/v1/items/{item}/similar?fill=false&explain=true");
    let all = |more: &str| {
        let of = |api: &Server| items.iter().map(|item| api.get(&format!("{}{more}", path(item))).body).collect::<Vec<_>>();
        let bodies = apis.each_ref().map(of);
        assert_eq!(bodies[0], bodies[1], "the APIs differ");
        bodies.into_iter().next().expect("two")
    };
    // A promotion requires a pipeline that follows.
    let extra = order("late", 1, "completed", "late-buyer", "2026-01-03T00:00:00Z", &["only-a", "only-b"]);
    let placed = apis[0].post_events("orders", std::slice::from_ref(&extra));
    let late = |api: &Server, more: &str| {
        api.get_json(&format!("/v1/items/only-a/similar?fill=false&min_position={placed}&wait_ms=10000{more}"))["items"][0]["item"].clone()
    };
    assert_eq!(late(&apis[0], ""), "only-b");
    let refused = on.fails(3, &["promote", "g2"]);
    assert!(refused.contains("kindred pipeline --generation g2"), "{refused}");
    let follows = on.start("pipeline-g2", &["pipeline", "--generation", "g2"]);
    assert_eq!(late(&apis[1], "&generation=g2"), "only-b");

    for api in &apis {
        for generation in ["", "&generation=g2"] {
            assert_eq!(late(api, generation), "only-b");
        }
    }
    let (old, new) = (all("&generation=g1"), all("&generation=g2"));
    assert_eq!(all(""), old);
    assert_ne!(old, new);

    let asked: Vec<String> = items.iter().map(|item| path(item)).collect();
    under_readers(&apis.each_ref(), &asked, [&old, &new], || {
        for turn in 0..6 {
            let (name, bodies) = [("g2", &new), ("g1", &old)][turn % 2];
            // By the command, and by one of the APIs.
            if turn < 3 {
                on.ok(&["promote", name]);
            } else {
                let answer = apis[turn % 2].post(&format!("/v1/admin/generations/{name}/promote"), "application/json", b"{}");
                assert_eq!(answer.status, 200, "{}", answer.body);
                assert_eq!(&apis[turn % 2].get(&asked[0]).body, &bodies[0], "whoever promoted has turned");
            }
            for api in &apis {
                let serves = || asked.iter().zip(bodies).all(|(path, body)| &api.get(path).body == body);
                until_so(|| format!("{name} is not served: {}", api.log()), serves);
            }
        }
    });

    on.ok(&["promote", "g2"]);
    let extra = kindred_model::Record::decode(
        kindred_model::Topic::Orders,
        &serde_json::to_vec(&extra).expect("JSON"),
        &Default::default(),
    );
    let records: Vec<_> = records.iter().cloned().chain([extra.expect("an order")]).collect();
    assert_eq!(on.exports(), VIEWS.map(|view| oracle_export(view, &records, &narrow)));
    on.ok(&["promote", "g1"]);
    assert_eq!(on.exports(), VIEWS.map(|view| oracle_export(view, &records, &usual)));
    assert_eq!(follows.stop().code(), Some(0));
    on.ok(&["drop", "g2", "--yes"]);
    assert!(!on.ok(&["generations"]).contains("g2"));
    let dropped = |api: &Server| api.get(&format!("{}&generation=g2", path(&items[0]))).status == 404;
    until_so(|| "an API keeps what was dropped".to_owned(), || apis.iter().all(dropped));
    assert_eq!(all(""), old);
    live.stop();
}
