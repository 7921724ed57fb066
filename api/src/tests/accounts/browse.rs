//! Browsing the catalog (R7, R19): each level sees what it may, in lists, streams, popularity and pages.

use kindred_model::Tier;
use kindred_model::records::{MemberState, Membership};

use super::*;
use crate::context::MemoryConfig;
use crate::tests::streams::{Reader, SOON};

const LEVELS: [&str; 4] = ["public", "registered", "vip", "svip"];
const PAGES: [&str; 3] = ["/v1/items", "/v1/popular", "/v1/items/seed/similar"];

/// The record of a member, as the pipeline merged it.
fn standing(of: &str, tier: Tier, registered_at: &str) -> Change {
    let record = MemberRecord::Member(Membership {
        tier: Some(tier),
        registered_at: Some(EventTime::parse("registered_at", registered_at).unwrap()),
        ..Membership::new(member(of), 9, MemberState::Activated)
    });
    change::<Members>(&record.key(), Some(&Canonical(record.canonical().into())))
}

/// An item for each level, higher levels bought more, and a list of all of them.
async fn shelves(bench: &Bench) {
    let good = |item: &str, more: Value| {
        let mut record = json!({ "item": item, "version": 1, "kind": "good", "title": item, "category": ["home", item] });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        card(record)
    };
    let mut changes = vec![
        list("seed", &[("svip", 4), ("vip", 3), ("registered", 2), ("public", 1), ("old", 1)]),
        support("seed", 5),
        good("old", json!({ "visibility": "registered", "listed_at": "2025-01-01T00:00:00Z" })),
        good("gone", json!({ "deleted": true })),
        good("sold out", json!({ "available": false, "tags": ["rare"] })),
    ];
    for (n, level) in (1u32..).zip(LEVELS) {
        let more = json!({
            "visibility": level, "listed_at": format!("2026-01-0{n}T00:00:00Z"), "price_minor": 100 * n, "tags": ["tea", level],
        });
        changes.extend([good(level, more), support(level, 5), owners(level, Kind::Purchase, NOW.day(), u64::from(n))]);
    }
    changes.extend([support("old", 5), owners("old", Kind::Purchase, NOW.day(), 9)]);
    bench.apply(changes).await;
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort();
    items
}

/// If it failed, a caller would see hidden items.
#[tokio::test]
async fn v8_2_1_r7_each_level_sees_what_it_may() {
    let town = Town::of_mara().await;
    shelves(&town.bench).await;
    let signed_in = town.sign_in("mara").await;
    let (token, mara) = (text(&signed_in, "access_token"), text(&signed_in, "member"));
    let key = town.bench.publishable.clone();
    for (n, tier) in (1..).zip([None, Some(Tier::Normal), Some(Tier::Vip), Some(Tier::Svip)]) {
        if let Some(tier) = tier {
            town.bench.apply(vec![standing(&mara, tier, "2026-01-01T00:00:00Z")]).await;
        }
        let mut allowed: Vec<String> = LEVELS[..n].iter().map(|level| (*level).to_owned()).collect();
        if n > 1 {
            allowed.push("old".into());
        }
        let allowed = sorted(allowed);
        for page in PAGES {
            let answer = match tier {
                None => town.reply(town.nobody("GET", page).header("authorization", format!("Bearer {key}"))).await,
                Some(_) => town.ask(&token, "GET", page).await,
            };
            assert_eq!(answer.status(), 200, "{page}");
            assert_eq!(sorted(items(&answer)), allowed, "{page} for {tier:?}");
            if tier.is_some() {
                let named = format!("{page}?member={mara}");
                assert_eq!(sorted(items(&town.bench.get(&named).await)), allowed, "a service key reads for her");
                assert_eq!(sorted(items(&town.bench.get(page).await)), ["public"], "a service key that names nobody");
            }
        }
        for level in LEVELS {
            let path = format!("/v1/items/{level}");
            let answer = match tier {
                None => town.reply(town.nobody("GET", &path).header("authorization", format!("Bearer {key}"))).await,
                Some(_) => town.ask(&token, "GET", &path).await,
            };
            if allowed.contains(&level.to_owned()) {
                assert_eq!((answer.status().as_u16(), &body(&answer)["visibility"]), (200, &json!(level)));
            } else {
                assert_problem(&answer, 404, "not_found", "what may not be seen is as good as not there");
            }
        }
        // Sums and names of hidden items are hidden too.
        if tier.is_none() {
            let public = |path: &str| town.nobody("GET", path).header("authorization", format!("Bearer {key}"));
            let categories = body(&town.reply(public("/v1/categories")).await);
            assert_eq!(
                categories["categories"],
                json!([
                    { "category": "home", "label": "home", "items": 1 }, { "category": "home/public", "label": "public", "items": 1 },
                ])
            );
            let tags = body(&town.reply(public("/v1/tags")).await);
            assert_eq!(tags["tags"], json!([{ "tag": "public", "items": 1 }, { "tag": "tea", "items": 1 }]));
            assert_eq!(body(&town.reply(public("/v1/popular?category=home%2Fsvip")).await)["total"], 0);
            let filled = town.reply(public("/v1/items/svip/similar")).await;
            assert_eq!(body(&filled)["items"][0]["because"][0]["fill"], "popularity", "the category of a hidden seed is told");
        }
    }
    for path in PAGES {
        let as_another = town.ask(&token, "GET", &format!("{path}?member={mara}")).await;
        assert_problem(&as_another, 403, "insufficient_scope", path);
    }
}

/// `catalog.strict_listed_after`: the literal reading of R7.
#[tokio::test]
async fn r7_strictly_a_free_member_sees_what_was_listed_since_they_came() {
    let mut town = Town::of_mara().await;
    let memory = MemoryConfig { strict_listed_after: true, ..MemoryConfig::default() };
    let config = ApiConfig { memory, ..town.bench.config.clone() };
    town.bench.api = crate::prepare(config, town.bench.context.clone(), town.bench.stop.subscribe()).await.unwrap();
    town.bench.public = crate::routes::public(&town.bench.api);
    shelves(&town.bench).await;
    let signed_in = town.sign_in("mara").await;
    let (token, mara) = (text(&signed_in, "access_token"), text(&signed_in, "member"));
    for (tier, came, seen) in [
        (Tier::Normal, "2026-01-02T00:00:00Z", vec!["public", "registered"]),
        (Tier::Normal, "2026-01-02T00:00:01Z", vec!["public"]),
        (Tier::Normal, "2024-01-01T00:00:00Z", vec!["old", "public", "registered"]),
        (Tier::Vip, "2026-01-04T00:00:00Z", vec!["old", "public", "registered", "vip"]),
    ] {
        town.bench.apply(vec![standing(&mara, tier, came)]).await;
        for page in PAGES {
            assert_eq!(sorted(items(&town.ask(&token, "GET", page).await)), seen, "{page}, {tier:?} since {came}");
        }
    }
}

/// If it failed, pages would overlap, miss an item, or be out of order.
#[tokio::test]
async fn r19_pages_of_items_follow_one_another() {
    let bench = Bench::new().await;
    let good = |n: u32| {
        card(json!({
            "item": format!("i{n:02}"), "version": 1, "kind": if n.is_multiple_of(7) { "service" } else { "good" }, "title": "x",
            "category": ["all", if n.is_multiple_of(2) { "even" } else { "odd" }], "tags": ["t"],
            "price_minor": 1_000 - 10 * (n / 2), "listed_at": format!("2026-01-{:02}T00:00:00Z", 1 + n),
        }))
    };
    let bought = (0..30u32).map(|n| owners(&format!("i{n:02}"), Kind::Purchase, NOW.day(), u64::from(n % 5) + 1));
    bench.apply((0..30).map(good).chain(bought).collect()).await;
    let whole = async |query: &str| {
        let (mut all, mut total) = (Vec::new(), Value::Null);
        let get = async |path: &str| bench.get(path).await;
        pages(&format!("/v1/items?limit=4{query}"), get, async |page| {
            all.extend(items(page));
            total = body(page)["total"].clone();
        })
        .await;
        assert_eq!(total, all.len(), "{query}");
        all
    };
    let by = |key: &dyn Fn(u32) -> i64, keep: &dyn Fn(u32) -> bool| {
        let mut numbers: Vec<u32> = (0..30).filter(|n| keep(*n)).collect();
        numbers.sort_by_key(|n| (key(*n), *n));
        numbers.into_iter().map(|n| format!("i{n:02}")).collect::<Vec<_>>()
    };
    assert_eq!(whole("").await, by(&|n| -i64::from(n % 5), &|_| true));
    assert_eq!(whole("&sort=newest").await, by(&|n| -i64::from(n), &|_| true));
    assert_eq!(whole("&sort=price").await, by(&|n| -i64::from(n / 2), &|_| true));
    assert_eq!(whole("&sort=-price&category=all%2Fodd").await, by(&|n| i64::from(n / 2), &|n| n % 2 == 1));
    assert_eq!(whole("&kind=service&tag=t").await, by(&|n| -i64::from(n % 5), &|n| n % 7 == 0));
    assert_eq!(whole("&tag=none").await, Vec::<String>::new());
    let first = body(&bench.get("/v1/items?limit=1").await)["next_cursor"].as_str().unwrap().to_owned();
    for wrong in ["sort=cheap", "kind=thing", "cursor=x", "limit=51", "tag=", &format!("sort=price&cursor={first}")] {
        assert_problem(&bench.get(&format!("/v1/items?{wrong}")).await, 400, "invalid_parameter", wrong);
    }
}

#[tokio::test]
async fn r19_the_page_of_an_item() {
    let bench = Bench::new().await;
    shelves(&bench).await;
    let shown = bench.get("/v1/items/sold%20out").await;
    assert_eq!(
        body(&shown),
        json!({
            "item": "sold out", "kind": "good", "title": "sold out", "description": null, "category": ["home", "sold out"],
            "tags": ["rare"], "price": null, "url": null, "image": null, "available": false, "visibility": "public", "listed_at": null,
        })
    );
    let etag = header(&shown, "etag").to_owned();
    let again = bench.request(Method::GET, "/v1/items/sold%20out").header("if-none-match", etag).reply(&bench.public).await;
    assert_eq!(again.status(), 304);
    for none in ["gone", "never heard of"] {
        let path = format!("/v1/items/{}", none.replace(' ', "%20"));
        assert_problem(&bench.get(&path).await, 404, "not_found", none);
    }
}

/// If it failed, a stream would outlive its session, or show the former level.
#[tokio::test]
async fn v7_4_1_a_stream_follows_the_level_and_ends_with_the_session() {
    let town = Town::of_mara().await;
    shelves(&town.bench).await;
    let signed_in = town.sign_in("mara").await;
    let (token, mara) = (text(&signed_in, "access_token"), text(&signed_in, "member"));
    let running = crate::start(town.bench.config.clone(), town.bench.context.clone()).await.unwrap();
    let socket = tokio::net::TcpStream::connect(running.address).await.unwrap();
    let request =
        format!("GET /v1/items/seed/similar/stream?fill=false HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut reader = Reader::on(socket, &request).await;
    assert!(reader.until(r#""item":"registered""#, 1, SOON).await, "{}", reader.text);
    assert!(!reader.text.contains(r#""item":"vip""#));
    town.bench.apply(vec![standing(&mara, Tier::Vip, "2026-01-01T00:00:00Z")]).await;
    assert!(reader.until(r#""item":"vip""#, 1, SOON).await, "a new level does not show: {}", reader.text);
    assert_eq!(town.ask(&token, "DELETE", CURRENT).await.status(), 204);
    town.bench.apply_list("seed", &[("public", 9)], &[("seed", 9)]).await;
    assert!(!reader.until(r#""co_count":9"#, 1, SOON).await, "a stream goes on after signing out");
    running.shutdown().await;
}

/// If it failed, one member could open unlimited streams: each request has its own grant.
#[tokio::test]
async fn streams_of_a_person_are_capped() {
    let mut town = Town::of_mara().await;
    town.bench.config.limits.streams_per_person = 1;
    let running = crate::start(town.bench.config.clone(), town.bench.context.clone()).await.unwrap();
    let token = town.token("mara").await;
    let open = async || {
        let socket = tokio::net::TcpStream::connect(running.address).await.unwrap();
        let request = format!("GET /v1/items/a/similar/stream HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\r\n");
        Reader::on(socket, &request).await
    };
    let mut first = open().await;
    assert!(first.until("data:", 1, SOON).await, "{}", first.text);
    let mut second = open().await;
    assert!(second.until("too_many_streams", 1, SOON).await, "{}", second.text);
    running.shutdown().await;
}
