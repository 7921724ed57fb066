//! Authentication and authorization: keys, access tokens, scopes, origins (CORS) and rate limits.
//!
//! ```text
//! Authorization / ?key= ──KeyRing, Members──▶ Grant ──access, origin, rate──▶ Admission ──add_headers──▶ CORS and RateLimit headers
//! ```
//!
//! A service key is a secret and may do everything but act as a person. A publishable key is public: it reads lists and posts
//! browser events of sessions, from its origins, at its rate. An access token grants what its scope names, and access to one's
//! own data.

mod keyring;
mod visitor;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kindred_members::{AccessClaims, Actor, MemberError, Members, Permission};
use parking_lot::Mutex;
use warp::Reply;
use warp::reply::Response;

pub(crate) use keyring::{KeyChange, KeyReplaced, KeyRing, KeyRotation, KeySettings, KeyShown};
pub(crate) use visitor::{Forwarding, Visitor, address, hop, language, language_of};

use crate::problem::{Code, Problem};
use crate::quota::share_of;
use crate::routes::endpoint::Need;
use crate::routes::request::header;

/// Lower bound of the per-address share of the rate of a key: a page makes some requests.
const ADDRESS_REQUESTS_LEAST: u32 = 60;
/// Lower bound of the per-address share of streams.
const ADDRESS_STREAMS_LEAST: u32 = 16;
/// Addresses counted per key; beyond it the least recently used are dropped and start over.
const ADDRESSES_COUNTED_MAX: u64 = 100_000;
/// A counter is dropped when idle for longer than its one-minute window.
const ADDRESS_IDLE: Duration = Duration::from_secs(120);
/// Prefix of every key and of no access token.
const KEY_PREFIX: &str = "kd_";

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How long browsers cache a preflight, seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// Pages read the clock of the server from `Date`.
const EXPOSED: &str = "Date, ETag, Kindred-As-Of, Kindred-Reco-Id, Kindred-Session, RateLimit, RateLimit-Policy, Retry-After";

/// The credentials and the origin of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    authorization: Option<String>,
    origin: Option<String>,
    /// The client address.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Reads the headers; a 400 where one of them is not readable.
    pub fn of(headers: &HeaderMap, address: Option<IpAddr>) -> Result<Self, Problem> {
        let owned = |name| header(headers, name).map(|value| value.map(str::to_owned));
        Ok(Self { authorization: owned("authorization")?, origin: owned("origin")?, address })
    }

    /// Whether there is an `Authorization` header, valid or not.
    pub fn has_authorization(&self) -> bool {
        self.authorization.is_some()
    }
}

/// What the caller may do.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The public id of the key, or the member id.
    pub id: String,
    pub service: bool,
    /// Whether it is the operator of this machine, by a command in this process; then the id is a name.
    operator: bool,
    /// The claims of a person's access token.
    pub person: Option<Arc<AccessClaims>>,
    pub reads_lists: bool,
    pub writes_events: bool,
    /// Allowed origins of a publishable key.
    pub origins: Vec<String>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    limiter: Limiter,
    per_minute: u32,
    policy: HeaderValue,
    /// The share of one address.
    per_address: NonZeroU32,
    policy_of_address: HeaderValue,
    addresses: moka::sync::Cache<IpAddr, Arc<Limiter>>,
}

fn limiter(per_minute: NonZeroU32) -> Limiter {
    RateLimiter::direct(Quota::per_minute(per_minute)).with_middleware::<StateInformationMiddleware>()
}

/// Takes one request from a limiter: what remains, and how long to wait when it is exhausted.
fn check_rate(limiter: &Limiter) -> (u32, Option<Duration>) {
    match limiter.check() {
        Ok(state) => (state.remaining_burst_capacity(), None),
        Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
    }
}

impl Grant {
    pub fn service(id: String) -> Self {
        Self {
            id,
            service: true,
            operator: false,
            person: None,
            reads_lists: true,
            writes_events: true,
            origins: Vec::new(),
            rate: None,
        }
    }

    /// The grant of the operator of this machine: everything.
    pub fn operator(name: String) -> Self {
        Self { operator: true, ..Self::service(name) }
    }

    /// The grant of an unauthenticated request.
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Grant>> = LazyLock::new(|| {
            Arc::new(Grant { service: false, reads_lists: false, writes_events: false, ..Grant::service(String::new()) })
        });
        ANONYMOUS.clone()
    }

    pub fn person(claims: Arc<AccessClaims>) -> Self {
        Self {
            service: false,
            reads_lists: claims.permissions().contains(&Permission::CatalogBrowse),
            writes_events: false,
            person: Some(claims.clone()),
            ..Self::service(claims.sub.clone())
        }
    }

    /// A publishable key with `per_minute` requests a minute, of which one address gets one part in `share`. `scopes`: (reads
    /// lists, writes events).
    pub fn publishable(id: String, scopes: (bool, bool), origins: Vec<String>, per_minute: NonZeroU32, share: u32) -> Self {
        let policy = |of: &str, rate: NonZeroU32| HeaderValue::from_str(&format!("\"{of}\";q={rate};w=60")).expect("ASCII");
        let per_address = share_of(per_minute.get(), share, ADDRESS_REQUESTS_LEAST);
        let per_address = NonZeroU32::new(per_address).unwrap_or(NonZeroU32::MIN);
        let addresses = moka::sync::Cache::builder().max_capacity(ADDRESSES_COUNTED_MAX).time_to_idle(ADDRESS_IDLE).build();
        let rate = Some(Rate {
            limiter: limiter(per_minute),
            per_minute: per_minute.get(),
            policy: policy("key", per_minute),
            per_address,
            policy_of_address: policy("address", per_address),
            addresses,
        });
        let (reads_lists, writes_events) = scopes;
        Self { service: false, reads_lists, writes_events, origins, rate, ..Self::service(id) }
    }

    /// Whether the endpoint may be called; checks on the object are left to the handler.
    pub fn allows(&self, need: Need) -> bool {
        match need {
            Need::Anyone => true,
            Need::ReadLists => self.reads_lists,
            Need::WriteEvents => self.writes_events,
            Need::SignedIn => self.person.is_some(),
            // The handler checks that it is the caller's own.
            Need::OwnOr(_) => self.service || self.person.is_some(),
            Need::Staff(permission) => self.service || self.may(permission),
        }
    }

    pub fn may(&self, permission: Permission) -> bool {
        self.person.as_ref().is_some_and(|claims| claims.permissions().contains(&permission))
    }

    /// A 403 that names the first missing permission, unless the caller has all of them: for creating service keys.
    pub fn require_all_permissions(&self) -> Result<(), Problem> {
        Ok(self.actor("").covers(Permission::ALL)?)
    }

    /// The actor of the audit log. A service key has every permission.
    pub fn actor(&self, address: &str) -> Actor {
        match &self.person {
            Some(claims) => claims.actor(address),
            None if self.operator => Actor::operator(&self.id),
            None => {
                let permissions = if self.service { Permission::ALL.to_vec() } else { Vec::new() };
                Actor { id: format!("key:{}", self.id), permissions, address: address.to_owned() }
            }
        }
    }

    fn lists(&self, origin: &str) -> bool {
        self.origins.iter().any(|listed| listed == origin)
    }
}

/// Open streams by key, by person, and by key and address.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<String, usize>>);

/// Counts a stream until it is dropped.
pub(crate) struct StreamSlot {
    streams: Arc<Streams>,
    of: Vec<String>,
}

impl Streams {
    /// Takes one of the `most` slots of a key or person (of a publishable key an address gets one part in `share`), or returns
    /// the exceeded limit.
    pub fn take(self: &Arc<Self>, grant: &Grant, address: Option<IpAddr>, most: usize, share: u32) -> Result<StreamSlot, usize> {
        let mut of = vec![(grant.id.clone(), most)];
        if let Some(address) = address.filter(|_| grant.rate.is_some()) {
            let share = share_of(u32::try_from(most).unwrap_or(u32::MAX), share, ADDRESS_STREAMS_LEAST);
            of.push((format!("{} {address}", grant.id), share as usize));
        }
        let mut open = self.0.lock();
        if let Some((_, most)) = of.iter().find(|(of, most)| open.get(of).is_some_and(|count| count >= most)) {
            return Err(*most);
        }
        let of: Vec<String> = of.into_iter().map(|(of, _)| of).collect();
        for of in &of {
            *open.entry(of.clone()).or_default() += 1;
        }
        Ok(StreamSlot { streams: self.clone(), of })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        for of in std::mem::take(&mut self.of) {
            if let Entry::Occupied(mut count) = open.entry(of) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

/// The outcome of authentication and authorization, with the headers of the response either way.
pub(crate) struct Admission {
    outcome: Result<Arc<Grant>, Problem>,
    allow_origin: Option<HeaderValue>,
    rate: Option<(HeaderValue, HeaderValue)>,
    /// Whether the response depends on the origin.
    vary: bool,
}

impl Admission {
    /// Authenticates and authorizes a caller. `query_key` is the key of the query, on routes that accept one.
    pub fn of(ring: &KeyRing, members: Option<&Members>, caller: &Caller, query_key: Option<&str>, need: Need) -> Self {
        let mut admission = Self { outcome: Err(no_key()), allow_origin: None, rate: None, vary: caller.origin.is_some() };
        let refused = |reason: &'static str, problem| {
            metrics::counter!("auth_failures_total", "reason" => reason).increment(1);
            Err(problem)
        };
        let token = match presented(caller, query_key) {
            Ok(token) => token,
            Err(problem) => {
                admission.outcome = refused("no_key", problem);
                return admission;
            }
        };
        let people = members.filter(|_| query_key.is_none());
        let grant = match grant_of(ring, people, token) {
            Ok(grant) => grant,
            Err((None, problem)) => {
                admission.outcome = Err(problem);
                return admission;
            }
            Err((Some(reason), problem)) => {
                admission.outcome = refused(reason, problem);
                return admission;
            }
        };
        if query_key.is_some() && grant.service {
            metrics::counter!("auth_failures_total", "reason" => "secret_in_query").increment(1);
            admission.outcome = Err(Problem::new(
                Code::Unauthorized,
                "a service key is a secret and is refused in a URL; send Authorization: Bearer",
            ));
            return admission;
        }
        admission.outcome = admission.admit(grant, caller, need);
        admission
    }

    fn admit(&mut self, grant: Arc<Grant>, caller: &Caller, need: Need) -> Result<Arc<Grant>, Problem> {
        // Also without an origin, so that caches do not serve that response to a page.
        self.vary |= !grant.service;
        if let Some(origin) = caller.origin.as_deref().filter(|_| !grant.service && grant.person.is_none()) {
            if !grant.lists(origin) {
                metrics::counter!("auth_failures_total", "reason" => "origin").increment(1);
                return Err(Problem::new(Code::OriginNotAllowed, Code::OriginNotAllowed.meaning()));
            }
            self.allow_origin = HeaderValue::from_str(origin).ok();
        }
        if !grant.allows(need) {
            metrics::counter!("auth_failures_total", "reason" => "scope").increment(1);
            // Logged, not stored: any token holder could fill the store (V16.3.2).
            let permission = need.permission().map_or("", Permission::name);
            tracing::info!(target: "audit", actor = %grant.id, kind = "access.refused", permission, ok = false, "audit");
            return Err(Problem::new(Code::InsufficientScope, Code::InsufficientScope.meaning()));
        }
        if let Some(rate) = &grant.rate {
            let limited = |wait: Duration, detail: &'static str| {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Problem::new(Code::RateLimited, detail).retry_after(seconds.max(1)))
            };
            // The address first, so that requests over its share do not use up the key.
            if let Some(address) = caller.address {
                let share = rate.addresses.get_with(address, || Arc::new(limiter(rate.per_address)));
                if let (_, Some(wait)) = check_rate(&share) {
                    let header = HeaderValue::from_str(&format!("\"address\";r=0;t={}", wait.as_secs() + 1)).expect("ASCII");
                    self.rate = Some((rate.policy_of_address.clone(), header));
                    return limited(wait, "the per-address rate limit of this key is exceeded");
                }
            }
            let (remaining, wait) = check_rate(&rate.limiter);
            // The quota refills evenly: seconds until it is full.
            let used = u64::from(rate.per_minute.saturating_sub(remaining));
            let reset = (used * 60).div_ceil(u64::from(rate.per_minute));
            let header = HeaderValue::from_str(&format!("\"key\";r={remaining};t={reset}")).expect("ASCII");
            self.rate = Some((rate.policy.clone(), header));
            if let Some(wait) = wait {
                return limited(wait, "the rate limit of this key is exceeded");
            }
        }
        Ok(grant)
    }

    /// Takes the outcome; to be called once.
    pub fn take_outcome(&mut self) -> Result<Arc<Grant>, Problem> {
        std::mem::replace(&mut self.outcome, Err(no_key()))
    }

    pub fn add_headers(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some((policy, rate)) = self.rate {
            headers.insert(RATE_LIMIT_POLICY, policy);
            headers.insert(RATE_LIMIT, rate);
        }
        if let Some(origin) = self.allow_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        if self.vary {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        response
    }
}

/// The grant of a key or an access token; or the problem, with a metrics label where the client is at fault.
fn grant_of(ring: &KeyRing, members: Option<&Members>, token: &str) -> Result<Arc<Grant>, (Option<&'static str>, Problem)> {
    let Some(members) = members.filter(|_| !token.starts_with(KEY_PREFIX)) else {
        let unknown = || (Some("unknown_key"), Problem::new(Code::Unauthorized, "the key is unknown, revoked or expired"));
        return ring.grant_of(token).ok_or_else(unknown);
    };
    match members.sessions.authenticate(token) {
        Ok(claims) => Ok(Arc::new(Grant::person(claims))),
        Err(MemberError::Unauthenticated) => {
            Err((Some("invalid_token"), Problem::new(Code::Unauthorized, "the access token is invalid or expired")))
        }
        // Fails closed while revocations cannot be read.
        Err(error) => Err((None, error.into())),
    }
}

fn no_key() -> Problem {
    Problem::new(Code::Unauthorized, "credentials are missing: send Authorization: Bearer kd_...")
}

/// The presented credentials, from the header or the query.
pub(crate) fn presented<'c>(caller: &'c Caller, query_key: Option<&'c str>) -> Result<&'c str, Problem> {
    match (&caller.authorization, query_key) {
        (None, None) => Err(no_key()),
        (Some(_), Some(_)) => Err(Problem::query("key", "must not be combined with an Authorization header")),
        (None, Some(key)) => Ok(key),
        (Some(authorization), None) => match authorization.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
            _ => Err(Problem::new(Code::Unauthorized, "the Authorization header is not of the form Bearer kd_...")),
        },
    }
}

/// OPTIONS /v1/...: a preflight has no key, so the origins of every active publishable key are allowed.
pub(crate) fn preflight(ring: &KeyRing, origin: &HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
    if origin.to_str().is_ok_and(|origin| ring.lists_origin(origin)) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let allowed = "authorization, content-type, if-none-match, last-event-id, traceparent";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    }
    response
}
