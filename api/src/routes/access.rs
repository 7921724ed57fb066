//! Every route and what it asks for, in one place: `Allow`, the label of the metrics, what a handler admits, the table of
//! docs/SECURITY.md and the matrix test all come from here.
//!
//! ```text
//! ROUTES ──need("GET /v1/…"), at compile time──▶ guarded ──▶ 401, 403 or the handler
//! ```

use std::sync::LazyLock;

use kindred_members::Permission;

/// What a route asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Nothing.
    Anyone,
    /// To read lists: a key with `lists:read`, or a member, who has `catalog:browse`.
    ReadLists,
    /// To post events: a key with `events:write`; what a publishable key may post is checked by the record.
    WriteEvents,
    /// To be signed in.
    SignedIn,
    /// A service key; or the member that the path names, or staff with this permission.
    OwnOr(Permission),
    /// A service key; or staff with this permission.
    Staff(Permission),
}

impl Need {
    /// The permission that staff needs.
    pub const fn permission(self) -> Option<Permission> {
        match self {
            Self::OwnOr(permission) | Self::Staff(permission) => Some(permission),
            Self::ReadLists => Some(Permission::CatalogBrowse),
            Self::Anyone | Self::WriteEvents | Self::SignedIn => None,
        }
    }

    /// Whether pages of other origins may ask: with a publishable key.
    const fn is_for_pages(self) -> bool {
        matches!(self, Self::ReadLists | Self::WriteEvents)
    }
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Method and template: `GET /v1/members/{member}`.
    pub name: &'static str,
    /// What it asks for.
    pub need: Need,
}

impl Route {
    /// Its method.
    pub fn method(&self) -> &'static str {
        self.name.split_once(' ').expect("a method and a template").0
    }

    /// Its path, with names for what differs.
    pub fn template(&self) -> &'static str {
        self.name.split_once(' ').expect("a method and a template").1
    }

    /// Whether it is done once under an `Idempotency-Key`: what a known caller posts, but events, which merge by their natural keys.
    pub fn takes_idempotency_keys(&self) -> bool {
        self.method() == "POST" && !matches!(self.need, Need::Anyone | Need::ReadLists | Need::WriteEvents)
    }
}

const fn route(name: &'static str, need: Need) -> Route {
    Route { name, need }
}

/// All of them. Where two templates fit to a path, the first is meant.
pub(crate) const ROUTES: &[Route] = {
    use Need::{Anyone, OwnOr, ReadLists, SignedIn, Staff, WriteEvents};
    use Permission as P;
    &[
        route("GET /v1/items/{item}/similar", ReadLists),
        route("GET /v1/items/{item}/similar/stream", ReadLists),
        route("GET /v1/stream", ReadLists),
        route("POST /v1/events/{topic}", WriteEvents),
        route("GET /v1/popular", ReadLists),
        route("GET /v1/items", ReadLists),
        route("GET /v1/items/{item}", ReadLists),
        route("GET /v1/categories", ReadLists),
        route("GET /v1/tags", ReadLists),
        // People's own side. `me` stands before `{member}`.
        route("GET /v1/members/me", SignedIn),
        route("PATCH /v1/members/me", SignedIn),
        route("DELETE /v1/members/me", SignedIn),
        route("GET /v1/members/me/export", SignedIn),
        route("GET /v1/members/me/sessions", SignedIn),
        route("DELETE /v1/members/me/sessions", SignedIn),
        route("DELETE /v1/members/me/sessions/{id}", SignedIn),
        route("POST /v1/members/me/password", SignedIn),
        route("POST /v1/members/me/email", SignedIn),
        route("POST /v1/members/me/phone", SignedIn),
        route("POST /v1/members/me/phone/confirm", SignedIn),
        route("POST /v1/members/me/totp", SignedIn),
        route("DELETE /v1/members/me/totp", SignedIn),
        route("POST /v1/members/me/totp/confirm", SignedIn),
        route("POST /v1/members/me/recovery-codes", SignedIn),
        route("DELETE /v1/members/{member}", Staff(P::MemberWrite)),
        route("GET /v1/members/{member}/points", OwnOr(P::MemberRead)),
        route("GET /v1/members/{member}/history", OwnOr(P::MemberRead)),
        route("GET /v1/members/{member}/orders", OwnOr(P::MemberRead)),
        route("POST /v1/captcha/challenges", Anyone),
        route("POST /v1/phone-codes", Anyone),
        route("GET /v1/registrations/rules", Anyone),
        route("POST /v1/registrations", Anyone),
        route("POST /v1/email-verifications", Anyone),
        route("POST /v1/email-verifications/resend", Anyone),
        route("POST /v1/email-changes/confirm", Anyone),
        route("POST /v1/password-resets", Anyone),
        route("POST /v1/password-resets/redeem", Anyone),
        route("POST /v1/sessions", Anyone),
        route("POST /v1/sessions/second-factor", Anyone),
        // By the refresh token, in the body or in a cookie.
        route("POST /v1/sessions/refresh", Anyone),
        route("DELETE /v1/sessions/current", SignedIn),
        route("GET /.well-known/jwks.json", Anyone),
        route("GET /v1/admin/status", Staff(P::ReportRead)),
        route("GET /v1/admin/export/{view}", Staff(P::ReportRead)),
        route("GET /v1/views/{view}/{key}", Staff(P::ReportRead)),
        route("GET /v1/admin/rejected", Staff(P::MemberRead)),
        route("POST /v1/admin/rejected/retry", Staff(P::GenerationManage)),
        route("GET /v1/admin/rejected/{id}", Staff(P::MemberRead)),
        route("DELETE /v1/admin/rejected/{id}", Staff(P::GenerationManage)),
        route("POST /v1/admin/verify", Staff(P::GenerationManage)),
        route("GET /v1/admin/generations", Staff(P::GenerationManage)),
        route("DELETE /v1/admin/generations/{name}", Staff(P::GenerationManage)),
        route("GET /v1/admin/generations/{name}/compare", Staff(P::GenerationManage)),
        route("POST /v1/admin/generations/{name}/promote", Staff(P::GenerationManage)),
        route("GET /v1/admin/keys", Staff(P::KeyManage)),
        route("POST /v1/admin/keys", Staff(P::KeyManage)),
        route("PATCH /v1/admin/keys/{id}", Staff(P::KeyManage)),
        route("DELETE /v1/admin/keys/{id}", Staff(P::KeyManage)),
        route("POST /v1/admin/keys/{id}/rotate", Staff(P::KeyManage)),
        // The administration of members.
        route("GET /v1/admin/members", Staff(P::MemberRead)),
        route("GET /v1/admin/members/{member}", Staff(P::MemberRead)),
        route("GET /v1/admin/members/{member}/sessions", Staff(P::MemberRead)),
        route("DELETE /v1/admin/members/{member}/sessions", Staff(P::MemberWrite)),
        route("POST /v1/admin/members/{member}/suspend", Staff(P::MemberWrite)),
        route("POST /v1/admin/members/{member}/activate", Staff(P::MemberWrite)),
        route("POST /v1/admin/members/{member}/resend-verification", Staff(P::MemberWrite)),
        route("PUT /v1/admin/members/{member}/tier", Staff(P::MemberWrite)),
        route("PUT /v1/admin/members/{member}/role", Staff(P::RoleManage)),
        route("GET /v1/admin/roles", Staff(P::MemberRead)),
        route("GET /v1/admin/roles/{name}", Staff(P::MemberRead)),
        route("PUT /v1/admin/roles/{name}", Staff(P::RoleManage)),
        route("GET /v1/admin/permissions", Staff(P::MemberRead)),
        route("GET /v1/admin/audit", Staff(P::AuditRead)),
        route("GET /v1/admin/setup-tokens", Staff(P::RoleManage)),
        route("POST /v1/admin/setup-tokens", Staff(P::RoleManage)),
        route("DELETE /v1/admin/setup-tokens/{id}", Staff(P::RoleManage)),
        route("POST /v1/admin/setup", SignedIn),
        route("POST /v1/admin/signing-keys/rotate", Staff(P::KeyManage)),
        // For machines.
        route("GET /livez", Anyone),
        route("GET /readyz", Anyone),
        route("GET /openapi.json", Anyone),
        route("GET /docs", Anyone),
        route("GET /problems/{code}", Anyone),
        route("GET /widget.js", Anyone),
        route("GET /metrics", Anyone),
    ]
};

/// What a route asks for. Evaluated by the compiler: a route that does not stand in [`ROUTES`] does not compile.
pub(crate) const fn need(name: &str) -> Need {
    let mut at = 0;
    while at < ROUTES.len() {
        if same(ROUTES[at].name.as_bytes(), name.as_bytes()) {
            return ROUTES[at].need;
        }
        at += 1;
    }
    panic!("there is no such route in ROUTES")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A template and the methods that it takes, for `Allow`.
pub(crate) struct Template {
    /// The path, with names for what differs.
    pub path: &'static str,
    /// Its methods, with commas between.
    pub allow: String,
    /// Whether pages of other origins ask for it, with a publishable key.
    pub is_for_pages: bool,
}

/// All templates, in the order of [`ROUTES`].
pub(crate) static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let mut templates: Vec<Template> = Vec::new();
    for route in ROUTES {
        match templates.iter_mut().find(|template| template.path == route.template()) {
            Some(template) => template.allow = format!("{}, {}", template.allow, route.method()),
            None => templates.push(Template { path: route.template(), allow: route.method().to_owned(), is_for_pages: false }),
        }
    }
    for template in &mut templates {
        template.allow = format!("{}, OPTIONS", template.allow.replace("GET", "GET, HEAD"));
        template.is_for_pages = ROUTES.iter().any(|route| route.template() == template.path && route.need.is_for_pages());
    }
    templates
});

/// The template that a path belongs to.
pub(crate) fn template_of(path: &str) -> Option<&'static Template> {
    // warp takes one slash more at the end for nothing, and so do we.
    let path = path.strip_suffix('/').unwrap_or(path);
    TEMPLATES.iter().find(|template| {
        let mut segments = path.split('/');
        let matches = template.path.split('/').all(|wanted| {
            segments.next().is_some_and(|segment| if wanted.starts_with('{') { !segment.is_empty() } else { wanted == segment })
        });
        matches && segments.next().is_none()
    })
}

/// The route that a POST to a path is of.
pub(crate) fn posted_to(path: &str) -> Option<&'static Route> {
    let template = template_of(path)?.path;
    ROUTES.iter().find(|route| route.method() == "POST" && route.template() == template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_templates() {
        let template = |path| template_of(path).map(|template| template.path);
        assert_eq!(template("/v1/items/a%2Fb/similar"), Some(crate::measure::SIMILAR));
        assert_eq!(template("/v1/admin/rejected/retry"), Some("/v1/admin/rejected/retry"));
        assert_eq!(template("/v1/admin/rejected/x"), Some("/v1/admin/rejected/{id}"));
        assert_eq!(template("/v1/items/a/similar/"), Some(crate::measure::SIMILAR));
        for none in ["/", "", "/v1", "/v1/items//similar", "/v1/items/a/similar//", "/v1/items/a/similar/stream/x"] {
            assert_eq!(template(none), None, "{none}");
        }
    }

    #[test]
    fn a_template_allows_its_methods() {
        let allow = |path| template_of(path).map(|template| template.allow.as_str());
        assert_eq!(allow("/v1/admin/rejected/x"), Some("GET, HEAD, DELETE, OPTIONS"));
        assert_eq!(allow("/v1/popular"), Some("GET, HEAD, OPTIONS"));
    }
}
