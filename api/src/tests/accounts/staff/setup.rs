//! The first administrator, and roles.

use super::*;

/// V6.3.2, V6.3.3: a new installation has no account; the operator's token makes one member administrator, once, and the role
/// needs a second factor.
#[tokio::test]
async fn v6_3_2_v6_3_3_no_default_account_and_no_staff_without_a_second_factor() {
    let shop = Shop::new().await;
    assert_eq!(body(&shop.get("/v1/admin/members").await), json!({"members": [], "next_cursor": null}));
    let made = shop.send(&shop.bench.service, "POST", "/v1/admin/setup-tokens", json!({"role": "admin"})).await;
    assert_eq!((made.status().as_u16(), &body(&made)["expires_in_s"]), (201, &json!(3_600)));
    let setup = body(&made)["token"].as_str().unwrap().to_owned();
    assert_eq!(setup.len(), 43, "32 random bytes");
    let member = shop.member("mara").await;
    let redeem = async |token: &str, setup: &str| shop.send(token, "POST", "/v1/admin/setup", json!({ "token": setup })).await;
    let token = shop.token("mara").await;
    assert_problem(&redeem(&token, "nonsense").await, 410, "token_gone", "no token");
    assert_problem(&redeem(&shop.bench.service, &setup).await, 403, "insufficient_scope", "a key is nobody");
    assert_eq!(redeem(&token, &setup).await.status(), 204);
    assert_problem(&redeem(&token, &setup).await, 401, "unauthorized", "the role ends the sessions");

    let token = shop.token("mara").await;
    assert_problem(&redeem(&token, &setup).await, 410, "token_gone", "once");
    for (method, path) in [("GET", "/v1/admin/members"), ("GET", "/v1/admin/audit"), ("POST", "/v1/admin/signing-keys/rotate")] {
        assert_problem(&shop.ask(&token, method, path).await, 403, "insufficient_scope", "V6.3.3");
    }
    let secret = shop.enrol("mara").await;
    let token = shop.token_by_both("mara", &secret).await;
    assert_eq!(shop.ask(&token, "GET", "/v1/admin/members").await.status(), 200);
    let shown = body(&shop.ask(&token, "GET", &format!("/v1/admin/members/{member}")).await);
    assert_eq!((&shown["role"], &shown["second_factor"]), (&json!("admin"), &json!(true)));

    let late = shop.send(&token, "POST", "/v1/admin/setup-tokens", json!({"role": "support"})).await;
    let late = body(&late)["token"].as_str().unwrap().to_owned();
    shop.member("nora").await;
    shop.bench.clock.advance(Duration::from_secs(3_600));
    assert_problem(&redeem(&shop.token("nora").await, &late).await, 410, "token_gone", "an hour later");
    for bad in [json!({"role": "nothing"}), json!({}), json!({"role": "admin", "member": "m"})] {
        let answer = shop.send(&shop.bench.service, "POST", "/v1/admin/setup-tokens", bad.clone()).await;
        assert_eq!(answer.status(), 422, "{bad}");
    }
}

/// R18 to R20: roles are sets of permissions; built-in ones cannot be changed.
#[tokio::test]
async fn r20_roles_are_made_and_shown() {
    let shop = Shop::new().await;
    let put_seen = async |name: &str, json: Value, header: &str, seen: &str| {
        let request = shop.request(&shop.bench.service, "PUT", &format!("/v1/admin/roles/{name}"));
        request.header(header, seen).json(&json).reply(&shop.bench.public).await
    };
    let make = async |name: &str, json: Value| put_seen(name, json, "if-none-match", "*").await;
    let listed = async || body(&shop.get("/v1/admin/roles").await)["roles"].as_array().unwrap().clone();
    assert_eq!(listed().await.len(), 4);
    assert_eq!(make("desk", json!({"permissions": ["member:write", "member:read", "member:read"]})).await.status(), 204);
    let desk = json!({"name": "desk", "permissions": ["member:read", "member:write"], "built_in": false});
    assert_eq!(body(&shop.get("/v1/admin/roles/desk").await), desk);
    assert!(listed().await.contains(&desk));
    // A change needs the version it is based on.
    let none = json!({"permissions": []});
    let unseen = shop.send(&shop.bench.service, "PUT", "/v1/admin/roles/desk", none.clone()).await;
    assert_problem(&unseen, 428, "precondition_required", "neither header");
    assert_problem(&make("desk", none.clone()).await, 412, "changed", "there is one");
    assert_problem(&put_seen("till", none.clone(), "if-match", "*").await, 412, "changed", "there is none");
    let seen = header(&shop.get("/v1/admin/roles/desk").await, "etag").to_owned();
    assert_eq!(put_seen("desk", none.clone(), "if-match", &seen).await.status(), 204);
    assert_problem(
        &put_seen("desk", json!({"permissions": ["member:read"]}), "if-match", &seen).await,
        412,
        "changed",
        "seen before",
    );
    assert!(!shop.get("/v1/admin/roles/admin").await.headers().contains_key("etag"));
    assert_eq!(body(&shop.get("/v1/admin/roles/desk").await)["permissions"], json!([]));
    for (name, json, pointer) in [
        ("admin", json!({"permissions": []}), "/role"),
        ("Desk", json!({"permissions": []}), "/role"),
        ("a%0Ab", json!({"permissions": []}), "/role"),
        ("desk", json!({"permissions": ["member:read", "root"]}), "/permissions/1"),
        ("desk", json!({"permission": []}), "/permission"),
    ] {
        let answer = put_seen(name, json, "if-match", "*").await;
        assert_eq!((answer.status().as_u16(), &body(&answer)["errors"][0]["pointer"]), (422, &json!(pointer)), "{name}");
    }
    assert_problem(&shop.get("/v1/admin/roles/nothing").await, 404, "not_found", "no role");

    let permissions = body(&shop.get("/v1/admin/permissions").await);
    let permissions = permissions["permissions"].as_array().unwrap();
    assert_eq!(permissions.len(), kindred_members::Permission::ALL.len());
    let audit = permissions.iter().find(|permission| permission["name"] == "audit:read").unwrap();
    assert_eq!(*audit, json!({"name": "audit:read", "members": false, "routes": ["GET /v1/admin/audit"]}));
}
