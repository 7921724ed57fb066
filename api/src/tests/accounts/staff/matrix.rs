//! Every route against every kind of caller: access follows from the table alone.

use kindred_members::{Permission, Role};
use kindred_model::units::Tier;

use super::*;
use crate::routes::endpoint::{Need, endpoints};

/// The caller.
enum Who {
    Nobody,
    Key(String),
    Person { name: String, secret: Option<String> },
}

/// The permissions by the design, independent of the code under test.
enum May {
    Nothing,
    AsPage,
    Everything,
    AsPerson(Vec<Permission>),
}

impl May {
    fn has(&self, need: Need) -> bool {
        match (self, need) {
            (_, Need::Anyone) => true,
            (Self::Nothing, _) | (Self::AsPage | Self::Everything, Need::SignedIn) => false,
            (Self::Everything, _) => true,
            (Self::AsPage, need) => matches!(need, Need::ReadLists | Need::WriteEvents),
            (Self::AsPerson(permissions), Need::ReadLists) => permissions.contains(&Permission::CatalogBrowse),
            (Self::AsPerson(_), Need::WriteEvents) => false,
            // Ownership is checked by the handler: 404.
            (Self::AsPerson(_), Need::SignedIn | Need::OwnOr(_)) => true,
            (Self::AsPerson(permissions), Need::Staff(permission)) => permissions.contains(&permission),
        }
    }
}

impl Shop {
    async fn token_of(&self, who: &Who) -> Option<String> {
        match who {
            Who::Nobody => None,
            Who::Key(key) => Some(key.clone()),
            Who::Person { name, secret: None } => Some(self.token(name).await),
            Who::Person { name, secret: Some(secret) } => Some(self.token_by_both(name, secret).await),
        }
    }
}

/// V8.2.1 (and V6.3.3: staff without a second factor have a member's permissions): if it failed, a route would allow or deny a
/// caller against the table.
#[tokio::test]
async fn v8_2_1_every_route_for_everybody_as_the_table_says() {
    let shop = Shop::new().await;
    let operator = Actor::operator("test");
    let of_members = || Permission::ALL.iter().copied().filter(|permission| permission.is_members()).collect::<Vec<_>>();
    let mut everybody = vec![
        ("nobody".to_owned(), Who::Nobody, May::Nothing),
        ("a publishable key".to_owned(), Who::Key(shop.bench.publishable.clone()), May::AsPage),
        ("a service key".to_owned(), Who::Key(shop.bench.service.clone()), May::Everything),
    ];
    for tier in [Tier::Normal, Tier::Vip, Tier::Svip] {
        let name = format!("shopper-{}", tier.name());
        let member = shop.member(&name).await;
        shop.members.staff.set_tier(&operator, &member, None, tier).await.unwrap();
        everybody.push((name.clone(), Who::Person { name, secret: None }, May::AsPerson(of_members())));
    }
    for role in Role::built_in() {
        for second_factor in [false, true] {
            let name = format!("{}-{second_factor}", role.name);
            let member = shop.member(&name).await;
            let secret = if second_factor { Some(shop.enrol(&name).await) } else { None };
            shop.members.staff.change_role(&operator, &member, None, Some(&role.name)).await.unwrap();
            let mut permissions = of_members();
            if second_factor {
                permissions.extend(&role.permissions);
            }
            everybody.push((format!("{name} with {role:?}"), Who::Person { name, secret }, May::AsPerson(permissions)));
        }
    }
    let mut checked = 0;
    for (called, who, may) in &everybody {
        let mut token = shop.token_of(who).await;
        for route in endpoints().filter(|route| route.path != "/metrics") {
            let path = route.path.replace("{topic}", "interactions").replace("{view}", "points").replace(['{', '}'], "");
            // An allowed request fails without effect: no route knows this parameter, and there is no body.
            let mut request = warp::test::request().method(route.method_name()).path(&format!("{path}?matrix=1"));
            if let Some(token) = &token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let answer = request.reply(&shop.bench.public).await;
            let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let refusal = problem["code"].as_str().filter(|code| matches!(*code, "unauthorized" | "insufficient_scope"));
            let expected = match (may.has(route.need), &token) {
                (true, _) => None,
                (false, None) => Some("unauthorized"),
                (false, Some(_)) => Some("insufficient_scope"),
            };
            assert_eq!(refusal, expected, "{} as {called}: {} {problem}", route.name, answer.status());
            checked += 1;
            // A route may have ended the session.
            if matches!(who, Who::Person { .. }) && shop.members.sessions.authenticate(token.as_ref().unwrap()).is_err() {
                token = shop.token_of(who).await;
            }
        }
    }
    assert_eq!(checked, everybody.len() * (endpoints().count() - 1));
}

/// V8.2.2: another member's resources return 404.
#[tokio::test]
async fn v8_2_2_a_member_sees_no_other() {
    let shop = Shop::new().await;
    let (mara, nora) = (shop.member("mara").await, shop.member("nora").await);
    let token = shop.token("mara").await;
    for route in endpoints().filter(|route| matches!(route.need, Need::OwnOr(_))) {
        let path = |member: &str| route.path.replace("{member}", member);
        let own = shop.ask(&token, route.method_name(), &path(&mara)).await;
        assert_eq!(own.status(), 200, "{}: {:?}", route.name, own.body());
        for other in [nora.as_str(), "nobody"] {
            assert_problem(&shop.ask(&token, route.method_name(), &path(other)).await, 404, "not_found", route.name);
        }
    }
}
