//! Who may do what: keys, people, scopes, origins (CORS) and rates.
//!
//! ```text
//! Authorization / ?key= ──KeyRing, Members──▶ Grant ──need, origin, rate──▶ Admission ──add_headers──▶ CORS and RateLimit headers
//! ```
//!
//! A service key is a secret: events of any kind, any member's data, administration. A publishable key is none, it stands in
//! pages: it reads lists and posts the browser events of sessions, from its origins, at its rate. An access token is of a person who
//! signed in: what its scope names, and their own.

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

/// Requests a minute that an address has of a key however small its share is: a page makes some.
const ADDRESS_REQUESTS_LEAST: u32 = 60;
/// Streams of it.
const ADDRESS_STREAMS_LEAST: u32 = 16;
/// Addresses that are counted at once for each key; beyond it the least used are forgotten, and may start over.
const ADDRESSES_COUNTED_MAX: u64 = 100_000;
/// After a minute an address has all of its share again.
const ADDRESS_IDLE: Duration = Duration::from_secs(120);
/// What every key starts with, and no access token.
const KEY_PREFIX: &str = "kd_";

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How long a browser keeps the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// `Date` is how a page learns the time of the server, whose clock decides what is too far ahead.
const EXPOSED: &str = "Date, ETag, Kindred-As-Of, Kindred-Reco-Id, Kindred-Session, RateLimit, RateLimit-Policy, Retry-After";

/// What the caller presented.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    authorization: Option<String>,
    origin: Option<String>,
    /// Where it comes from, as far as that is known.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// What the headers present; `address` is where they come from, as far as that is known.
    ///
    /// # Errors
    /// A 400 where one of them is not readable.
    pub fn of(headers: &HeaderMap, address: Option<IpAddr>) -> Result<Self, Problem> {
        let owned = |name| header(headers, name).map(|value| value.map(str::to_owned));
        Ok(Self { authorization: owned("authorization")?, origin: owned("origin")?, address })
    }

    /// Whether there is an `Authorization` header, good or not.
    pub fn presents_anything(&self) -> bool {
        self.authorization.is_some()
    }
}

/// What a key grants.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The key's public name.
    pub id: String,
    /// Everything.
    pub service: bool,
    /// Whether it is the operator's at the machine, by a command in this process, and no key's: then the id is a name.
    operator: bool,
    /// Who signed in, where it is a person.
    pub person: Option<Arc<AccessClaims>>,
    /// `lists:read`.
    pub reads_lists: bool,
    /// `events:write`.
    pub writes_events: bool,
    /// Pages that may use it; of a publishable key.
    pub origins: Vec<String>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    limiter: Limiter,
    per_minute: u32,
    policy: HeaderValue,
    /// What of it one address has.
    per_address: NonZeroU32,
    policy_of_address: HeaderValue,
    addresses: moka::sync::Cache<IpAddr, Arc<Limiter>>,
}

fn limiter(per_minute: NonZeroU32) -> Limiter {
    RateLimiter::direct(Quota::per_minute(per_minute)).with_middleware::<StateInformationMiddleware>()
}

/// Asks a limiter for one request: what is left of it, and how long to wait where there is nothing.
fn ask(limiter: &Limiter) -> (u32, Option<Duration>) {
    match limiter.check() {
        Ok(state) => (state.remaining_burst_capacity(), None),
        Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
    }
}

impl Grant {
    /// A service key's.
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

    /// The operator's, who may everything.
    pub fn operator(name: String) -> Self {
        Self { operator: true, ..Self::service(name) }
    }

    /// Nothing: of whoever asks an endpoint that asks for nothing.
    pub fn nobody() -> Arc<Self> {
        static NOBODY: LazyLock<Arc<Grant>> = LazyLock::new(|| {
            Arc::new(Grant { service: false, reads_lists: false, writes_events: false, ..Grant::service(String::new()) })
        });
        NOBODY.clone()
    }

    /// A person's who signed in.
    pub fn person(claims: Arc<AccessClaims>) -> Self {
        Self {
            service: false,
            reads_lists: claims.permissions().contains(&Permission::CatalogBrowse),
            writes_events: false,
            person: Some(claims.clone()),
            ..Self::service(claims.sub.clone())
        }
    }

    /// A publishable key's, which does `per_minute` requests a minute, and as many at once; one address has one part in `share` of them.
    /// `scopes`: (reads lists, writes events).
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

    /// Whether it reaches as far as a route asks for; what is left to decide, its handler knows.
    pub fn allows(&self, need: Need) -> bool {
        match need {
            Need::Anyone => true,
            Need::ReadLists => self.reads_lists,
            Need::WriteEvents => self.writes_events,
            Need::SignedIn => self.person.is_some(),
            // Whose own it is, the handler knows.
            Need::OwnOr(_) => self.service || self.person.is_some(),
            Need::Staff(permission) => self.service || self.may(permission),
        }
    }

    /// Whether a person who signed in has a permission.
    pub fn may(&self, permission: Permission) -> bool {
        self.person.as_ref().is_some_and(|claims| claims.permissions().contains(&permission))
    }

    /// Refuses whoever may less than everything: for what is made and may everything, like a service key.
    ///
    /// # Errors
    /// A 403 that names the first permission that is missing.
    pub fn needs_everything(&self) -> Result<(), Problem> {
        Ok(self.actor("").covers(Permission::ALL)?)
    }

    /// Who acts, coming from an address. A service key may everything.
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

/// The open streams of each key and each person.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<String, usize>>);

/// Counts a stream for as long as it lives.
pub(crate) struct StreamSlot {
    streams: Arc<Streams>,
    of: Vec<String>,
}

impl Streams {
    /// Takes one of the `most` slots of a key or a person; of a publishable key an address has one part in `share`.
    ///
    /// # Errors
    /// How many there are of what is used up.
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

/// What came of looking at a caller. Granted or refused, the answer has its headers.
pub(crate) struct Admission {
    /// The key, or why not.
    outcome: Result<Arc<Grant>, Problem>,
    allow_origin: Option<HeaderValue>,
    rate: Option<(HeaderValue, HeaderValue)>,
    /// Whether the answer depends on the origin.
    vary: bool,
}

impl Admission {
    /// Looks at a caller. `query_key` is the key of the query, on the routes that take one.
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
                "a service key is a secret and does not belong into a URL: send it as Authorization: Bearer",
            ));
            return admission;
        }
        admission.outcome = admission.admit(grant, caller, need);
        admission
    }

    fn admit(&mut self, grant: Arc<Grant>, caller: &Caller, need: Need) -> Result<Arc<Grant>, Problem> {
        // Also without an origin: a cache must not give that answer to a page.
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
            // In the server's log and not in the store: whoever holds any token could fill that (V16.3.2).
            let permission = need.permission().map_or("", Permission::name);
            tracing::info!(target: "audit", actor = %grant.id, kind = "access.refused", permission, ok = false, "audit");
            return Err(Problem::new(Code::InsufficientScope, Code::InsufficientScope.meaning()));
        }
        if let Some(rate) = &grant.rate {
            let limited = |wait: Duration, detail: &'static str| {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Problem::new(Code::RateLimited, detail).retry_after(seconds.max(1)))
            };
            // First, so that what one address asks for beyond its share takes nothing from the others.
            if let Some(address) = caller.address {
                let share = rate.addresses.get_with(address, || Arc::new(limiter(rate.per_address)));
                if let (_, Some(wait)) = ask(&share) {
                    let header = HeaderValue::from_str(&format!("\"address\";r=0;t={}", wait.as_secs() + 1)).expect("ASCII");
                    self.rate = Some((rate.policy_of_address.clone(), header));
                    return limited(wait, "the share of this key's rate that one address has is used up");
                }
            }
            let (remaining, wait) = ask(&rate.limiter);
            // Seconds until all of it is there again: it comes back evenly.
            let used = u64::from(rate.per_minute.saturating_sub(remaining));
            let reset = (used * 60).div_ceil(u64::from(rate.per_minute));
            let header = HeaderValue::from_str(&format!("\"key\";r={remaining};t={reset}")).expect("ASCII");
            self.rate = Some((rate.policy.clone(), header));
            if let Some(wait) = wait {
                return limited(wait, "the rate of this key is used up");
            }
        }
        Ok(grant)
    }

    /// What was granted, or why nothing was. It is given out once.
    pub fn take_outcome(&mut self) -> Result<Arc<Grant>, Problem> {
        std::mem::replace(&mut self.outcome, Err(no_key()))
    }

    /// Adds the CORS and rate-limit headers to an answer.
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

/// What a key or an access token grants; or why it grants nothing, with the word for the metrics where it is the caller's fault.
fn grant_of(ring: &KeyRing, members: Option<&Members>, token: &str) -> Result<Arc<Grant>, (Option<&'static str>, Problem)> {
    let Some(members) = members.filter(|_| !token.starts_with(KEY_PREFIX)) else {
        let unknown = || (Some("unknown_key"), Problem::new(Code::Unauthorized, "the key is unknown, revoked or has ended"));
        return ring.grant_of(token).ok_or_else(unknown);
    };
    match members.authenticate(token) {
        Ok(claims) => Ok(Arc::new(Grant::person(claims))),
        Err(MemberError::Unauthenticated) => {
            Err((Some("invalid_token"), Problem::new(Code::Unauthorized, "the access token is not good (any more)")))
        }
        // Fail closed: who cannot tell whether a session has ended takes none for good.
        Err(error) => Err((None, error.into())),
    }
}

fn no_key() -> Problem {
    Problem::new(Code::Unauthorized, "no key was presented: send Authorization: Bearer kd_...")
}

/// The key that was presented: of one place, not of two.
pub(crate) fn presented<'c>(caller: &'c Caller, query_key: Option<&'c str>) -> Result<&'c str, Problem> {
    match (&caller.authorization, query_key) {
        (None, None) => Err(no_key()),
        (Some(_), Some(_)) => Err(Problem::query("key", "must not stand beside an Authorization header")),
        (None, Some(key)) => Ok(key),
        (Some(authorization), None) => match authorization.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
            _ => Err(Problem::new(Code::Unauthorized, "the Authorization header is not of the form Bearer kd_...")),
        },
    }
}

/// OPTIONS /v1/...: the preflight has no key, so an origin is allowed that any active publishable key lists.
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
