//! "Add a resource" of CONTRIBUTING.md: its wishlist, compiled and tested.

mod resource;

use super::*;
use crate::resources::Resources;

const WISHLIST: Resources = &[&resource::Wishlist];

/// If it failed, following the page would give code that does not build.
#[test]
fn the_page_shows_this_resource() {
    let page = include_str!("../../../../../CONTRIBUTING.md");
    let shown = format!("```rust\n// api/src/resources/wishlist.rs\n{}```\n", include_str!("resource.rs"));
    assert!(
        page.contains(&shown),
        "CONTRIBUTING.md, Add a resource: the code is not api/src/tests/accounts/wishlist/resource.rs"
    );
    for step in ["mod wishlist;", "pub(crate) const RESOURCES: Resources = &[&wishlist::Wishlist];"] {
        assert!(page.contains(step), "{step}");
    }
}

/// If it failed, a resource could lack its endpoints, its part of the export, or its erasure.
#[tokio::test]
async fn a_resource_is_served_given_out_and_erased() {
    let town = Town::with_resources(WISHLIST).await;
    let member = town.member("mara", "13812345678").await;
    let token = town.token("mara").await;
    let wishes = "/v1/members/me/wishlist";
    for item in ["sku-2", "sku-1", "sku-1"] {
        assert_eq!(town.ask(&token, "PUT", &format!("{wishes}/{item}")).await.status(), 204);
    }
    assert_eq!(body(&town.ask(&token, "GET", wishes).await), json!({ "items": ["sku-1", "sku-2"] }));
    assert_problem(&town.reply(town.nobody("GET", wishes)).await, 401, "unauthorized", "nobody");
    assert_problem(&town.ask(&token, "GET", &format!("{wishes}?x=1")).await, 400, "invalid_parameter", "a query");
    let allow = town.ask(&token, "POST", wishes).await;
    assert_eq!((allow.status().as_u16(), header(&allow, "allow")), (405, "GET, HEAD, OPTIONS"));
    assert_eq!(town.ask(&token, "DELETE", &format!("{wishes}/sku-2")).await.status(), 204);
    let exported = serde_json::to_value(town.members.export(&member).await.unwrap()).unwrap();
    assert_eq!(exported["resources"]["wishlist"], json!(["sku-1"]));

    // Of many at once no more are added than fit; what is there may be added again.
    let put = async |at: usize| town.ask(&token, "PUT", &format!("{wishes}/more-{at}")).await.status().as_u16();
    for at in 0..197 {
        assert_eq!(put(at).await, 204);
    }
    let added = futures_util::future::join_all((197..203).map(put)).await;
    assert_eq!(added.iter().filter(|status| **status == 204).count(), 2, "{added:?}");
    assert!(added.iter().all(|status| [204, 409].contains(status)), "{added:?}");
    assert_eq!(put(0).await, 204);

    let closed = town.send(&token, "DELETE", "/v1/members/me", &json!({ "current_password": PASSWORD })).await;
    assert!(closed.status().is_success(), "{}", body(&closed));
    town.deliver().await;
    let held = town.members.records().all::<Value>("wishlists", &member, "").await.unwrap();
    assert!(held.is_empty(), "{held:?}");
    town.bench.stop.send_replace(true);
}

/// If it failed, members would be opened without the API's resources, and an erasure would miss them.
#[tokio::test]
#[should_panic(expected = "without the resources of the API")]
async fn an_api_does_not_start_with_members_who_know_nothing_of_its_resources() {
    let town = Town::new().await;
    let stopping = town.bench.stop.subscribe();
    let _refused = crate::prepare_with(WISHLIST, town.bench.config.clone(), town.bench.context.clone(), stopping).await;
}
