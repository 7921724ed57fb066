//! Lists and popularity: bodies, cache validity, and waiting for a position.

use std::time::Duration;

use http::Method;
use kindred_model::{Kind, Position, Topic};
use serde_json::json;

use super::*;
use crate::context::MemoryConfig;
use crate::recommend::{ListOptions, Sight};

const ALL: ListOptions = ListOptions { limit: 50, fill: false, explain: false, sight: Sight::PUBLIC };

#[tokio::test]
async fn a_list_is_ranked_by_exact_supports_and_says_why() {
    let bench = Bench::new().await;
    // By c the item c comes first; by c^2/n_j, the order of the cosine, b does: 9/4 against 16/100.
    bench.apply_list("a", &[("c", 4), ("b", 3)], &[("a", 9), ("b", 4), ("c", 100)]).await;
    bench.apply(vec![baskets(200), card(json!({"item": "b", "version": 1, "kind": "good", "title": "Bee", "price_minor": 1999, "url": "/b", "image": "/b.svg"}))]).await;

    let answer = bench.get("/v1/items/a/similar?fill=false").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8");
    assert_eq!(header(&answer, "cache-control"), "no-cache");
    assert!(header(&answer, "kindred-as-of").ends_with("; time=2026-01-05T10:11:12.123Z"));
    assert_secured(&answer, "a list");
    assert_eq!(
        body(&answer),
        json!({
            "item": "a", "view": "also_bought", "generation": "g1",
            "items": [
                {"item": "b", "score": 0.5, "co_count": 3, "because": [{"item": "a", "view": "also_bought", "co_count": 3}],
                 "title": "Bee", "url": "/b", "image": "/b.svg", "price": {"amount_minor": 1999, "currency": "EUR"}},
                {"item": "c", "score": 0.133333, "co_count": 4, "because": [{"item": "a", "view": "also_bought", "co_count": 4}],
                 "title": null, "url": null, "image": null, "price": null},
            ],
        })
    );

    let explained = bench.get("/v1/items/a/similar?fill=false&explain=true&limit=1").await;
    let explain = &body(&explained)["items"][0]["explain"];
    assert_eq!((&explain["n_i"], &explain["n_j"], &explain["baskets"]), (&json!(9), &json!(4), &json!(200)));
    assert_eq!((&explain["support"], &explain["confidence"]), (&json!(0.015), &json!(0.333_333)));
    assert_eq!(explain["lift"], json!(16.666_667));
    assert!(explain["g2"].as_f64().unwrap() > 10.0);
}

/// A cached body is served only while a render would give the same: any change it depends on shows at once.
#[tokio::test]
async fn every_change_that_matters_shows_at_once_and_no_other_changes_the_body() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 2), ("c", 2)], &[("a", 4), ("b", 4), ("c", 5)]).await;
    let fetch = async || {
        let answer = bench.get("/v1/items/a/similar?explain=true").await;
        (header(&answer, "etag").to_owned(), items(&answer))
    };
    let (mut etag, listed) = fetch().await;
    assert_eq!(listed, ["b", "c"]);
    assert_eq!(fetch().await.0, etag, "the same state gave another body");

    let today = NOW.day();
    let changes: Vec<(&str, Vec<Change>, &[&str])> = vec![
        ("a neighbour's support", vec![support("c", 3)], &["c", "b"]),
        ("the item's support", vec![support("a", 5)], &["c", "b"]),
        ("the number of baskets", vec![baskets(50)], &["c", "b"]),
        ("the row", vec![list("a", &[("b", 3), ("c", 2)])], &["b", "c"]),
        ("a neighbour's title", vec![card(json!({"item": "b", "version": 1, "kind": "good", "title": "B"}))], &["b", "c"]),
        (
            "a neighbour's absence",
            vec![card(json!({"item": "b", "version": 2, "kind": "good", "title": "B", "available": false}))],
            &["c"],
        ),
        ("a popular item", vec![owners("d", Kind::Purchase, today, 3)], &["c", "d"]),
        ("its owners", vec![owners("d", Kind::Purchase, today, 4)], &["c", "d"]),
        ("another popular item", vec![owners("e", Kind::Purchase, today, 9)], &["c", "e", "d"]),
        (
            "the item's category",
            vec![
                card(json!({"item": "a", "version": 1, "kind": "good", "title": "A", "category": ["x", "y"]})),
                card(json!({"item": "d", "version": 1, "kind": "good", "title": "D", "category": ["x", "y", "z"]})),
            ],
            &["c", "d", "e"],
        ),
        (
            "a hidden popular item",
            vec![card(json!({"item": "e", "version": 1, "kind": "good", "title": "E", "visibility": "vip"}))],
            &["c", "d"],
        ),
    ];
    for (what, changes, expected) in changes {
        bench.apply(changes).await;
        let (changed, listed) = fetch().await;
        assert_eq!(listed, expected, "{what}");
        assert_ne!(changed, etag, "{what} did not show");
        etag = changed;
    }
    bench.apply(vec![support("unrelated", 3), owners("d", Kind::View, today, 5), list("unrelated", &[("b", 1)])]).await;
    assert_eq!(fetch().await.0, etag, "what does not matter changed the body");
}

/// Random changes and reads: the cached answer equals that of a freshly loaded memory, and of one that holds a list or two.
#[tokio::test]
async fn the_memory_that_follows_equals_one_that_is_loaded_anew() {
    let bench = Bench::new().await;
    let small = MemoryConfig { lists_bytes_max: 13, answers_bytes_max: 4_096, ..MemoryConfig::default() };
    let small = ApiConfig { memory: small, ..bench.config.clone() };
    let prepare = |config: &ApiConfig| crate::prepare(config.clone(), bench.context.clone(), bench.stop.subscribe());
    let narrow = prepare(&small).await.unwrap();
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let name = |n: u64| format!("i{n}");
    for round in 0..40 {
        let mut changes = Vec::new();
        let mut touched = std::collections::HashSet::new();
        for _ in 0..=random(4) {
            let (i, j, k) = (name(random(8)), name(random(8)), name(random(8)));
            let change = match random(4) {
                0 if j != k => list(&i, &[(&j, random(5) + 1), (&k, random(5) + 1)]),
                0 | 1 => support(&i, random(20)),
                2 => owners(&i, Kind::Purchase, Day(NOW.day().0 - i32::try_from(random(40)).unwrap()), random(3)),
                _ => card(
                    json!({"item": i, "version": 1, "kind": "good", "title": i, "category": ["x", j], "available": random(3) > 0}),
                ),
            };
            if touched.insert((change.table, change.key.clone())) {
                changes.push(change);
            }
        }
        // The supports of all listed items, as the dataflow gives them.
        for n in 0..8 {
            let change = support(&name(n), random(9) + 1);
            if touched.insert((change.table, change.key.clone())) && round % 5 == 0 {
                changes.push(change);
            }
        }
        bench.apply(changes).await;
        if round % 15 == 14 {
            bench.next_day(&[&bench.api.live().memory, &narrow.live().memory]).await;
        }
        let anew = [prepare(&bench.config).await.unwrap(), prepare(&small).await.unwrap(), narrow.clone()];
        for n in 0..9 {
            for options in [ALL, ListOptions { limit: 5, fill: true, explain: true, sight: Sight::PUBLIC }] {
                let followed = bench.api.live().memory.list(&name(n), options).await.unwrap().rendered.body.clone();
                for (which, api) in anew.iter().enumerate() {
                    let loaded = api.live().memory.list(&name(n), options).await.unwrap().rendered.body.clone();
                    assert_eq!(followed, loaded, "round {round}, item {n}, memory {which}");
                    assert!(which == 0 || api.live().memory.held_bytes() <= 13 + 9, "one list beyond the room at most");
                }
            }
        }
    }
    assert!(narrow.live().memory.held_bytes() > 0, "something is held");
}

/// After a crash within a unit the pipeline clears the views and writes every row again: the others must not stay in memory.
#[tokio::test]
async fn rows_that_do_not_come_anew_are_gone() {
    let bench = Bench::new().await;
    let card_of_b = card(json!({"item": "b", "version": 1, "kind": "good", "title": "Bee"}));
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    bench.apply_list("stale", &[("b", 1)], &[("stale", 1)]).await;
    bench.apply(vec![card_of_b, owners("stale", Kind::Purchase, NOW.day(), 7), baskets(9)]).await;
    assert_eq!(items(&bench.get("/v1/items/stale/similar").await), ["b"]);
    bench.api.live().memory.expect_rewrite();
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let kept = bench.get("/v1/items/a/similar?explain=true").await;
    assert_eq!((items(&kept), &body(&kept)["items"][0]["title"]), (vec!["b".to_owned()], &json!("Bee")));
    assert_eq!(body(&kept)["items"][0]["explain"]["baskets"], 0);
    assert_eq!(items(&bench.get("/v1/items/stale/similar").await).len(), 0);
    assert_eq!(items(&bench.get("/v1/popular").await).len(), 0);
    // Only once: the next unit is a difference again.
    bench.apply(vec![support("a", 2)]).await;
    assert_eq!(items(&bench.get("/v1/items/a/similar").await), ["b"]);
}

#[tokio::test]
async fn a_short_list_is_filled_from_its_category_and_then_from_all() {
    let bench = Bench::new().await;
    let today = NOW.day();
    let good = |item: &str, category: &[&str]| {
        card(json!({"item": item, "version": 1, "kind": "good", "title": item, "category": category}))
    };
    bench
        .apply(vec![
            list("a", &[("b", 1)]),
            support("a", 1),
            support("b", 1),
            good("a", &["home", "tea"]),
            good("b", &["home", "tea"]),
            good("c", &["home", "tea"]),
            good("d", &["home"]),
            owners("a", Kind::Purchase, today, 100),
            owners("b", Kind::Purchase, today, 90),
            owners("c", Kind::Purchase, Day(today.0 - 29), 2),
            owners("d", Kind::Purchase, today, 5),
            owners("e", Kind::Purchase, today, 5),
            owners("old", Kind::Purchase, Day(today.0 - 30), 500),
            owners("seen", Kind::View, today, 500),
        ])
        .await;
    let filled = bench.get("/v1/items/a/similar").await;
    assert_eq!(items(&filled), ["b", "c", "d", "e"], "the seed, a duplicate, or what is out of the window is in it");
    let shown = body(&filled);
    assert_eq!(
        shown["items"][1]["because"],
        json!([{"fill": "category_popularity", "category": "home/tea", "days": 30, "owners": 2}])
    );
    assert_eq!(shown["items"][2]["because"], json!([{"fill": "popularity", "days": 30, "owners": 5}]));
    assert_eq!((&shown["items"][1]["score"], &shown["items"][1]["co_count"]), (&json!(null), &json!(null)));
    assert_eq!(items(&bench.get("/v1/items/a/similar?limit=2").await), ["b", "c"]);
    assert_eq!(items(&bench.get("/v1/items/a/similar?fill=false").await), ["b"]);
    // An unknown item is no error: its list is filled, or empty.
    assert_eq!(items(&bench.get("/v1/items/nobody%20knows/similar?limit=1").await), ["a"]);
    let pure = bench.get("/v1/items/nobody/similar?fill=false").await;
    assert_eq!((pure.status().as_u16(), items(&pure).len()), (200, 0));
    // The next day: the oldest day leaves the window.
    bench.next_day(&[&bench.api.live().memory]).await;
    assert_eq!(items(&bench.get("/v1/items/a/similar").await), ["b", "d", "e"]);
}

#[tokio::test]
async fn a_known_validator_answers_304_until_the_list_moves() {
    let bench = Bench::new().await;
    bench.apply_list("a", &[("b", 1)], &[("a", 1), ("b", 1)]).await;
    let first = bench.get("/v1/items/a/similar").await;
    let etag = header(&first, "etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 20);
    for tags in [etag.clone(), format!("\"other\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
        let again = bench.request(Method::GET, "/v1/items/a/similar").header("if-none-match", &tags).reply(&bench.public).await;
        assert_eq!((again.status().as_u16(), again.body().len()), (304, 0), "{tags}");
        assert_eq!(header(&again, "etag"), etag);
        assert_ne!(header(&again, "kindred-reco-id"), header(&first, "kindred-reco-id"));
    }
    bench.apply_list("a", &[("b", 2)], &[("a", 2), ("b", 2)]).await;
    let moved = bench.request(Method::GET, "/v1/items/a/similar").header("if-none-match", &etag).reply(&bench.public).await;
    assert_eq!(moved.status(), 200);
}

#[tokio::test]
async fn a_reader_waits_for_a_position_or_hears_that_it_is_not_reached() {
    let bench = Bench::new().await;
    let mut position = Position::beginning();
    position.passed(Topic::Interactions, 0, 4);
    let path = format!("/v1/items/a/similar?min_position={position}");

    let early = bench.get(&format!("{path}&wait_ms=20")).await;
    let problem = assert_problem(&early, 503, "position_not_reached", "min_position");
    assert_eq!((&problem["position"], &problem["retry_after"]), (&json!("0"), &json!(1)));
    assert_eq!(header(&early, "retry-after"), "1");

    let patient = format!("{path}&wait_ms=5000&fill=false");
    let (answer, ()) = tokio::join!(bench.get(&patient), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        bench.apply_at(position.clone(), vec![list("a", &[("b", 1)]), support("a", 1), support("b", 1)]).await;
    });
    assert_eq!((answer.status().as_u16(), items(&answer)), (200, vec!["b".to_owned()]));
    assert!(header(&answer, "kindred-as-of").starts_with(&format!("{position};")));
    // Reached already: no wait.
    assert_eq!(bench.get(&format!("{path}&wait_ms=0")).await.status(), 200);
}

#[tokio::test]
async fn identities_are_percent_decoded_and_stay_apart() {
    let bench = Bench::new().await;
    bench.apply_list("a/b c ü", &[("x", 1)], &[("a/b c ü", 1), ("x", 1)]).await;
    let answer = bench.get("/v1/items/a%2Fb%20c%20%C3%BC/similar?fill=false").await;
    assert_eq!((body(&answer)["item"].as_str(), items(&answer)), (Some("a/b c ü"), vec!["x".to_owned()]));
    let long = "x".repeat(128);
    assert_eq!(bench.get(&format!("/v1/items/{long}/similar")).await.status(), 200);
}

#[tokio::test]
async fn popularity_sums_days_up_to_the_as_of_day() {
    let bench = Bench::new().await;
    let today = NOW.day();
    let good = |item: &str, category: &[&str]| {
        card(json!({"item": item, "version": 1, "kind": "good", "title": item, "category": category}))
    };
    bench
        .apply(vec![
            owners("a", Kind::Purchase, today, 1),
            owners("a", Kind::Purchase, Day(today.0 - 1), 4),
            owners("b", Kind::Purchase, today, 3),
            owners("c", Kind::Purchase, today, 3),
            owners("gone", Kind::Purchase, today, 70),
            owners("b", Kind::View, today, 40),
            good("a", &["home", "tea"]),
            good("c", &["home"]),
            card(json!({"item": "gone", "version": 1, "kind": "good", "title": "Gone", "deleted": true, "category": ["home"]})),
        ])
        .await;
    let popular = bench.get("/v1/popular").await;
    assert_eq!(items(&popular), ["a", "b", "c"]);
    let shown = body(&popular);
    assert_eq!((&shown["total"], &shown["items"][0]["owners"]), (&json!(81), &json!(5)));
    assert_eq!((&shown["kind"], &shown["days"], &shown["as_of"]), (&json!("purchase"), &json!(30), &json!("2026-01-05")));
    assert_eq!(items(&bench.get("/v1/popular?days=1").await), ["b", "c", "a"]);
    assert_eq!(items(&bench.get("/v1/popular?as_of=2026-01-04").await), ["a"]);
    assert_eq!(items(&bench.get("/v1/popular?kind=view&limit=1").await), ["b"]);
    assert_eq!(items(&bench.get("/v1/popular?category=home").await), ["a", "c"]);
    assert_eq!(items(&bench.get("/v1/popular?category=home%2Ftea").await), ["a"]);
    assert_eq!(items(&bench.get("/v1/popular?category=hom").await).len(), 0);
    let etag = header(&popular, "etag").to_owned();
    let again = bench.request(Method::GET, "/v1/popular").header("if-none-match", etag).reply(&bench.public).await;
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn a_view_that_is_not_kept_says_so() {
    let bench = Bench::with(|_| {}, |settings| settings.views.keep_only(&[])).await;
    for path in [
        "/v1/items/a/similar",
        "/v1/items/a/similar/stream",
        "/v1/popular",
        "/v1/members/m/points",
        "/v1/members/m/history",
        "/v1/members/m/orders",
        "/v1/admin/export/points",
        "/v1/views/points/m",
    ] {
        assert_problem(&bench.get(path).await, 404, "view_disabled", path);
    }
}

/// A debug build is no benchmark; this only catches a factor of a thousand.
#[tokio::test]
async fn a_hit_does_no_work_that_grows_with_the_catalog() {
    let bench = Bench::new().await;
    let changes =
        (0..2_000).flat_map(|n| [support(&format!("i{n}"), 3), owners(&format!("i{n}"), Kind::Purchase, NOW.day(), n + 1)]);
    bench.apply(changes.collect()).await;
    let options = ListOptions { limit: 12, fill: true, explain: false, sight: Sight::PUBLIC };
    bench.api.live().memory.list("i5", options).await.unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..1_000 {
        bench.api.live().memory.list("i5", options).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "1000 hits took {:?}", begun.elapsed());
}
