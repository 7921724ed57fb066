//! No escalation over HTTP: keys, set-up tokens, actions on members and exports have no more power than their creator.

use kindred_members::{Permission, Role};
use kindred_model::views;

use super::*;
use crate::routes::endpoint::{Need, endpoints};

impl Shop {
    /// Staff with exactly these permissions: (member, access token by both factors).
    async fn staff_with(&self, name: &str, permissions: &[Permission]) -> (String, String) {
        let operator = Actor::operator("test");
        let role = Role { name: format!("of-{name}"), permissions: permissions.to_vec(), built_in: false };
        self.members.roles.put(&operator, &role, &kindred_members::Seen::Absent).await.unwrap();
        let member = self.member(name).await;
        let secret = self.enrol(name).await;
        self.members.staff.change_role(&operator, &member, None, Some(&role.name)).await.unwrap();
        self.deliver().await;
        (member, self.token_by_both(name, &secret).await)
    }
}

/// Finding 7: a service key has all permissions, so only callers with all of them may create or rotate one.
#[tokio::test]
async fn v8_2_1_a_service_key_is_made_by_who_may_everything() {
    let shop = Shop::new().await;
    let staff: Vec<Permission> = Permission::ALL.iter().copied().filter(|permission| !permission.is_members()).collect();
    let made = shop.send(&shop.bench.service, "POST", "/v1/admin/keys", json!({"kind": "service", "name": "till"})).await;
    let till = body(&made)["id"].as_str().unwrap().to_owned();
    for (number, left_out) in staff.iter().map(Some).chain([None]).enumerate() {
        let has: Vec<Permission> = staff.iter().copied().filter(|permission| Some(permission) != left_out).collect();
        let (_, token) = shop.staff_with(&format!("staff-{number}"), &has).await;
        let may_keys = left_out != Some(&Permission::KeyManage);
        let service = shop.send(&token, "POST", "/v1/admin/keys", json!({"kind": "service", "name": "mine"})).await;
        let rotated = shop.send(&token, "POST", &format!("/v1/admin/keys/{till}/rotate"), json!({})).await;
        let page = json!({"kind": "publishable", "name": "page", "origins": ["https://shop.example"]});
        let publishable = shop.send(&token, "POST", "/v1/admin/keys", page).await;
        assert_eq!(publishable.status(), if may_keys { 201 } else { 403 }, "without {left_out:?}");
        let own = body(&publishable)["id"].as_str().unwrap_or_default().to_owned();
        if may_keys {
            let rotated = shop.send(&token, "POST", &format!("/v1/admin/keys/{own}/rotate"), json!({})).await;
            assert_eq!(rotated.status(), 201, "a key for pages is key:manage's");
        }
        let revoked = match left_out {
            Some(_) => Some(shop.ask(&token, "DELETE", &format!("/v1/admin/keys/{till}")).await),
            None => None,
        };
        match left_out {
            Some(_) => {
                assert_problem(&revoked.unwrap(), 403, "insufficient_scope", &format!("without {left_out:?}"));
                assert_problem(&service, 403, "insufficient_scope", &format!("without {left_out:?}"));
                assert_problem(&rotated, 403, "insufficient_scope", &format!("without {left_out:?}"));
            }
            None => assert_eq!((service.status().as_u16(), rotated.status().as_u16()), (201, 201)),
        }
    }
}

/// Finding 18: for every route that changes a member, from the table: fewer permissions cannot act on more.
#[tokio::test]
async fn v8_2_1_nobody_acts_on_who_may_more() {
    use Permission as P;
    let shop = Shop::new().await;
    let operator = Actor::operator("test");
    let lesser = [P::MemberRead, P::MemberWrite, P::RoleManage];
    let (_, token) = shop.staff_with("lesser", &lesser).await;
    let (boss, _) = shop.staff_with("boss", &[P::MemberRead, P::AuditRead]).await;
    let plain = shop.member("plain").await;
    let mut routes = 0;
    for route in endpoints().filter(|route| route.method_name() != "GET" && route.path.contains("/{member}")) {
        let Need::Staff(_) = route.need else { panic!("{}: who may do it?", route.name) };
        let ask = async |member: &str| {
            let path = route.path.replace("{member}", member);
            let seen = header(&shop.get(&format!("/v1/admin/members/{member}")).await, "etag").to_owned();
            let form = match route.path.rsplit('/').next() {
                Some("role") => json!({"role": null}),
                Some("tier") => json!({"tier": "vip"}),
                Some("suspend" | "activate") => json!({"reason": "test"}),
                _ => json!({}),
            };
            let request = shop.request(&token, route.method_name(), &path).header("if-match", seen);
            let request = if route.method_name() == "DELETE" { request } else { request.json(&form) };
            request.reply(&shop.bench.public).await
        };
        assert_problem(&ask(&boss).await, 403, "insufficient_scope", route.name);
        // The refusal depends on the member, not on the action. Nobody is erased here.
        if route.name != "DELETE /v1/members/{member}" {
            assert!(![401, 403].contains(&ask(&plain).await.status().as_u16()), "{}", route.name);
            if route.path.ends_with("/suspend") {
                shop.members.staff.activate(&operator, &plain, None, "test").await.unwrap();
            }
        }
        routes += 1;
    }
    assert!(routes >= 7, "{routes}");
    let shown = body(&shop.get(&format!("/v1/admin/members/{boss}")).await);
    assert_eq!((&shown["role"], &shown["tier"], &shown["state"]), (&json!("of-boss"), &json!("normal"), &json!("activated")));
}

/// Finding 19: report permissions do not expose all data.
#[tokio::test]
async fn v8_2_1_exports_of_persons_need_member_read() {
    use Permission as P;
    let shop = Shop::new().await;
    let (_, marketing) = shop.staff_with("campaigns", &[P::ReportRead, P::PromoManage]).await;
    let (_, desk) = shop.staff_with("reports", &[P::ReportRead, P::MemberRead]).await;
    let mut of_persons = 0;
    let paths = |view: &views::ViewInfo| [format!("/v1/admin/export/{}", view.name), format!("/v1/views/{}/m1", view.name)];
    for (view, path) in views::ALL.iter().flat_map(|view| paths(view).map(|path| (view, path))) {
        assert_eq!(shop.ask(&desk, "GET", &path).await.status(), 200, "{path}");
        let answer = shop.ask(&marketing, "GET", &path).await;
        if view.columns.contains(&"member") {
            let problem = assert_problem(&answer, 403, "insufficient_scope", &path);
            assert_eq!(problem["permission"], "member:read");
            of_persons += 1;
        } else {
            assert_eq!(answer.status(), 200, "{path}");
        }
        assert_eq!(shop.get(&path).await.status(), 200, "a service key");
    }
    assert!(of_persons >= 6, "{of_persons} paths are about persons");
}

/// Finding 9: tokens are listed without their texts, revocable, and limited to their creator's permissions.
#[tokio::test]
async fn set_up_tokens_are_listed_and_withdrawn() {
    let shop = Shop::new().await;
    let make = async |token: &str| {
        let made = shop.send(token, "POST", "/v1/admin/setup-tokens", json!({"role": "support"})).await;
        assert_eq!(made.status(), 201);
        body(&made)["token"].as_str().unwrap().to_owned()
    };
    let listed = async || body(&shop.get("/v1/admin/setup-tokens").await)["setup_tokens"].as_array().unwrap().clone();
    let made = shop.send(&shop.bench.service, "POST", "/v1/admin/keys", json!({"kind": "service", "name": "till"})).await;
    let (till, till_id) = (body(&made)["key"].as_str().unwrap().to_owned(), body(&made)["id"].as_str().unwrap().to_owned());
    let (first, second) = (make(&till).await, make(&till).await);
    let tokens = listed().await;
    assert_eq!(tokens.len(), 2);
    for token in &tokens {
        assert_eq!((&token["role"], &token["made_by"]), (&json!("support"), &json!(format!("key:{till_id}"))));
        let text = token.to_string();
        assert!(!text.contains(&first) && !text.contains(&second), "{text}");
    }
    let path = |token: &Value| format!("/v1/admin/setup-tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(shop.ask(&shop.bench.service, "DELETE", &path(&tokens[0])).await.status(), 204);
    assert_problem(&shop.ask(&shop.bench.service, "DELETE", &path(&tokens[0])).await, 404, "not_found", "again");
    assert_eq!(listed().await, tokens[1..]);
    assert_eq!(shop.ask(&shop.bench.service, "DELETE", &format!("/v1/admin/keys/{till_id}")).await.status(), 204);
    shop.member("mara").await;
    for text in [&first, &second] {
        let redeemed = shop.send(&shop.token("mara").await, "POST", "/v1/admin/setup", json!({ "token": text })).await;
        assert_problem(&redeemed, 410, "token_gone", "withdrawn, or of a key that is none any more");
    }
    assert!(listed().await.is_empty());
    let kinds: Vec<Value> = shop.audited("&kind=setup_token").await.into_iter().map(|entry| entry["kind"].clone()).collect();
    assert!(kinds.contains(&json!("setup_token.withdraw")) && kinds.contains(&json!("setup_token.redeem")), "{kinds:?}");
}
