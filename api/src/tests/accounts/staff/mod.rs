//! The administration of members over HTTP: a shop with members, staff, and two processes.

mod acts;
mod asvs;
mod audit;
mod matrix;
mod power;
mod search;
mod setup;

use std::ops::Deref;
use std::sync::atomic::AtomicU32;

use super::*;

/// A town with staff.
struct Shop {
    town: Town,
    registered: AtomicU32,
}

impl Deref for Shop {
    type Target = Town;

    fn deref(&self) -> &Town {
        &self.town
    }
}

impl Shop {
    async fn new() -> Self {
        let town = Town::with(|config| {
            let limits = &mut config.limits;
            (limits.registrations_hour, limits.challenges_hour, limits.phone_codes_address_hour) = (1_000, 1_000, 1_000);
        });
        Self { town: town.await, registered: AtomicU32::new(0) }
    }

    fn phone(&self) -> String {
        format!("138{:08}", self.registered.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers all; the e-mails are unverified.
    async fn register(&self, names: &[String]) {
        for name in names {
            self.town.register(name, &self.phone()).await;
        }
    }

    /// A member, verified.
    async fn member(&self, name: &str) -> String {
        self.town.member(name, &self.phone()).await
    }

    /// Sets up a second factor; its secret.
    async fn enrol(&self, name: &str) -> String {
        self.town.enrol(&self.token(name).await).await.0
    }

    /// An access token by password and second factor. Advances half a minute: a code works once.
    async fn token_by_both(&self, name: &str, secret: &str) -> String {
        self.pass(30);
        let granted = self.second(&self.first(name).await, &self.code(secret)).await;
        text(&body(&granted), "access_token")
    }

    /// A member with a staff role and a second factor, signed in: (member, access token).
    async fn staff(&self, name: &str, role: &str) -> (String, String) {
        let member = self.member(name).await;
        let secret = self.enrol(name).await;
        self.members.staff.change_role(&Actor::operator("test"), &member, None, Some(role)).await.unwrap();
        self.deliver().await;
        (member, self.token_by_both(name, &secret).await)
    }

    /// A request with a token or a key.
    fn request(&self, token: &str, method: &str, path: &str) -> warp::test::RequestBuilder {
        self.nobody(method, path).header("authorization", format!("Bearer {token}"))
    }

    async fn send(&self, token: &str, method: &str, path: &str, json: Value) -> Answer {
        self.request(token, method, path).json(&json).reply(&self.bench.public).await
    }

    /// Creates or changes a role.
    async fn put_role(&self, token: &str, name: &str, permissions: Value) -> Answer {
        let path = format!("/v1/admin/roles/{name}");
        let there = self.get(&path).await;
        let request = self.request(token, "PUT", &path).json(&json!({ "permissions": permissions }));
        let request = match there.headers().get("etag") {
            Some(etag) => request.header("if-match", etag),
            None => request.header("if-none-match", "*"),
        };
        request.reply(&self.bench.public).await
    }

    /// With the service key.
    async fn get(&self, path: &str) -> Answer {
        self.ask(&self.bench.service, "GET", path).await
    }

    /// The matching audit entries of these days, newest first.
    async fn audited(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/admin/audit?limit=200&from=2026-01-05{query}")).await;
        assert_eq!(answer.status(), 200, "{query}: {:?}", answer.body());
        body(&answer)["entries"].as_array().unwrap().clone()
    }
}
