//! Sessions, and the refresh tokens by which they live on (V7.2, V7.3, V10.4.5).
//!
//! ```text
//! refresh token = member "." session "." 32 random bytes "." our mark       accounts[member]: session/SID holds the digest of the newest
//! refresh ──▶ newest: a new one takes its place
//!         ──▶ the one before, within 30 s, from the same device: its answer got lost ──▶ the same new one again
//!         ──▶ any other with our mark: it was stolen or repeated ──▶ the session ends
//! ```
//!
//! The mark shows that we gave a token, without keeping the old ones. The next token is derived from the one before, a random value of
//! the session, and the secret of the installation, so that it can be answered again without being stored.
//!
//! A session belongs to the epoch of its account in which it began: see [`crate::account::Loaded::raise_epoch`].

use std::sync::Arc;

use kindred_model::SessionId;
use kindred_model::records::MemberRecord;
use kindred_model::units::EventTime;
use kindred_store::records::{Effect, Expect, KEY_BYTES_MAX, Step, Version};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::{ACCOUNT, Account, CredentialEvent, Extra, State};
use crate::base::Sessions;
use crate::challenge::address_group;
use crate::codes::Token;
use crate::db::{self, ACCOUNTS, Held, ms};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::permission::{Actor, Permission};
use crate::random;
use crate::tokens::{ACR, AccessClaims, Rotation};
use crate::validate::one_line;

/// Longest refresh token that is looked at.
const REFRESH_BYTES_MAX: usize = 512;
/// For how long the answer to a refresh is given again, milliseconds: a browser notices a lost one and repeats it by then.
const REPEATED_MS: i64 = 30_000;
/// How long a mark of a browser is good: as long as browsers keep a cookie (400 days).
pub const DEVICE_S: u64 = 400 * 86_400;
/// Most addresses from which a member is known to sign in; one more forgets the oldest.
pub const KNOWN_MAX: usize = 20;
/// Most records of one kind that beginning a session takes away in its own transaction. What is beyond it is left to the outbox.
const OUSTED_MAX: usize = 8;

/// A session as it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    #[serde(with = "ms")]
    pub created_at: EventTime,
    #[serde(with = "ms")]
    pub used_at: EventTime,
    /// When the person last proved who they are.
    #[serde(with = "ms")]
    pub auth_time: EventTime,
    /// Digest of the newest refresh token's secret.
    pub digest: String,
    /// Whether a second factor was shown.
    pub second_factor: bool,
    /// What the browser calls itself.
    pub label: String,
    /// From where it was begun.
    pub address: String,
    /// The epoch of the account that it belongs to.
    #[serde(default)]
    pub epoch: u64,
    /// The last refresh.
    #[serde(default)]
    pub refreshed: Option<Refreshed>,
}

/// How the newest refresh token came about, for whoever did not get the answer.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Refreshed {
    /// Digest of the secret that was presented.
    from: String,
    /// What the new secret was derived with.
    nonce: String,
    #[serde(with = "ms")]
    at: EventTime,
    /// Keyed digest of the device that asked.
    device: String,
}

impl Session {
    /// Whether it belongs to what the account is now, and has not reached the end of its life as the settings have it now.
    fn is_alive(&self, account: &Account, until: EventTime, now: EventTime) -> bool {
        self.epoch >= account.sessions_from && until > now
    }
}

/// A session as its member sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = MemberSession)]
pub struct SessionShown {
    /// Its id: the `sid` of its access tokens.
    pub id: String,
    /// When it began.
    #[schema(value_type = String)]
    pub created_at: EventTime,
    /// When it was last refreshed.
    #[schema(value_type = String)]
    pub used_at: EventTime,
    /// What the browser called itself.
    pub label: String,
    /// From where it was begun.
    pub address: String,
    /// Whether a second factor was shown.
    pub second_factor: bool,
}

/// What signing in and refreshing give.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The member.
    pub member: String,
    /// The session.
    pub session: String,
    /// A JWT.
    pub access_token: SecretString,
    /// Its life, seconds.
    pub access_s: u32,
    /// Good once.
    pub refresh_token: SecretString,
    /// When the refresh token expires.
    pub refresh_until: EventTime,
    /// What may be done, as in the access token.
    pub scope: String,
    /// Marks the browser as one in which the member has signed in: kept in a long-lived cookie, presented when signing in, so that
    /// nobody's guessing elsewhere locks the member out here (V6.1.1). Absent when refreshing.
    pub device: Option<String>,
    /// The browsing session with which the browser goes on: the member's, where the browser had one before. Absent when refreshing.
    pub browsing: Option<SessionId>,
}

pub(crate) fn sort(sid: &str) -> String {
    format!("{SESSIONS}{sid}")
}

/// The prefix of sessions beside the account.
const SESSIONS: &str = "session/";
/// The prefix of addresses from which the member signed in.
pub(crate) const KNOWN: &str = "known/";
/// The prefix of [`crate::TokenKind`].
const TOKENS: &str = "token/";

/// Marks a browser in which a member has signed in.
#[derive(Serialize, Deserialize)]
pub(crate) struct Device {
    member: String,
    pub id: String,
    /// A credential event makes it worthless.
    epoch: u64,
    until: i64,
}

impl Device {
    pub fn is_of(&self, account: &Account, now: EventTime) -> bool {
        self.member == account.member && self.epoch == account.epoch && self.until > now.0
    }
}

/// The first factor was shown.
#[derive(Serialize, Deserialize)]
pub(crate) struct FirstFactor {
    pub member: String,
    pub until: i64,
    /// A credential event makes it worthless.
    pub epoch: u64,
    pub label: String,
    pub address: String,
    pub session: Option<SessionId>,
    pub browses: bool,
}

impl FirstFactor {
    pub fn is_of(&self, account: &Account) -> bool {
        self.epoch == account.epoch && account.is_active()
    }
}

/// A browsing session that nobody has had: a random id that says nothing about the visitor.
pub fn new_browsing_session() -> SessionId {
    SessionId::parse(&format!("s-{}", random::hex(&random::bytes::<16>()))).expect("an id of 34 letters and digits")
}

fn sid_of(sort: &str) -> String {
    sort[SESSIONS.len()..].to_owned()
}

/// A refresh token as member, session, secret, mark.
pub(crate) fn split_refresh(text: &str) -> Option<[&str; 4]> {
    let mut parts = text.split('.');
    let split = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    (text.len() <= REFRESH_BYTES_MAX && parts.next().is_none()).then_some(split)
}

impl Sessions {
    /// Begins a session of an account as it was read; [`MemberError::Changed`] if it was changed since.
    pub(crate) async fn begin_session(
        &self,
        held: &Held<Account>,
        factor: &FirstFactor,
        second_factor: bool,
        known_address: Option<Step>,
    ) -> Result<Grant> {
        let account = &held.value;
        let now = self.db.now();
        let sid = random::text::<16>();
        let secret = random::text::<32>();
        let session = Session {
            created_at: now,
            used_at: now,
            auth_time: now,
            digest: random::digest(&secret),
            second_factor,
            label: one_line(&factor.label).chars().take(200).collect(),
            address: factor.address.clone(),
            epoch: account.epoch,
            refreshed: None,
        };
        let until = self.session_until(&session);
        let mut steps = vec![
            Step { sort: ACCOUNT.into(), expect: Expect::Version(held.version), effect: Effect::Check },
            Step::insert(sort(&sid), db::encode(&session), Some(until)),
        ];
        let mut works = Vec::new();
        let others = self.ousted_sessions(account, 1).await?;
        if !others.is_empty() {
            // From the end: those that have not ended by themselves are there.
            works.push(Work::Revoke { sessions: others.iter().rev().take(OUSTED_MAX).map(|(sort, _)| sid_of(sort)).collect() });
        }
        let known = match &known_address {
            Some(Step { expect: Expect::Absent, .. }) => self.ousted_addresses(account, 1).await?,
            _ => Vec::new(),
        };
        if others.len().max(known.len()) > OUSTED_MAX {
            works.push(Work::Tidy);
        }
        let ousted = others.into_iter().rev().take(OUSTED_MAX).chain(known.into_iter().take(OUSTED_MAX));
        steps.extend(ousted.map(|(sort, version)| Step::delete(sort, version)));
        steps.extend(known_address);
        // What was browsed until now becomes the member's; what is browsed from now on has a session of its own, so that it is nobody
        // else's who browses here later.
        let browsing = new_browsing_session();
        for session in factor.session.clone().into_iter().chain(factor.browses.then(|| browsing.clone())) {
            let version = now.0.max(0).unsigned_abs();
            let merged_into = kindred_model::MemberId::trusted(account.member.clone());
            let record = MemberRecord::Session { session, version, merged_into };
            works.push(Work::Event { record: String::from_utf8(record.canonical()).expect("JSON is text") });
        }
        if !self.outbox.transact(ACCOUNTS, &account.member, steps, works, None).await? {
            return Err(MemberError::Changed);
        }
        let mut grant = self.grant(account, &sid, &session, &secret, now).await?;
        grant.device = Some(self.device_of(&account.member, account.epoch));
        grant.browsing = Some(browsing);
        Ok(grant)
    }

    /// The sessions that have ended, and the longest unused beyond those that a member may have when `more` begin.
    async fn ousted_sessions(&self, account: &Account, more: usize) -> Result<Vec<(String, Version)>> {
        let mut sessions = self.db.all::<Session>(ACCOUNTS, &account.member, SESSIONS).await?;
        let now = self.db.now();
        let alive =
            |session: &Session| account.state != State::Erased && session.is_alive(account, self.session_until(session), now);
        sessions.sort_by_key(|(_, held)| (alive(&held.value), held.value.used_at));
        let dead = sessions.iter().filter(|(_, held)| !alive(&held.value)).count();
        let beyond = (sessions.len() + more).saturating_sub(self.config.limits.sessions.max(1)).min(sessions.len());
        sessions.truncate(dead.max(beyond));
        Ok(sessions.into_iter().map(|(sort, held)| (sort, held.version)).collect())
    }

    /// The addresses beyond those that are kept when `more` come, the oldest first.
    async fn ousted_addresses(&self, account: &Account, more: usize) -> Result<Vec<(String, Version)>> {
        let mut known = self.db.all::<()>(ACCOUNTS, &account.member, KNOWN).await?;
        known.sort_by_key(|(_, held)| held.expires_at);
        let most = if account.state == State::Erased { 0 } else { KNOWN_MAX };
        known.truncate((known.len() + more).saturating_sub(most).min(known.len()));
        Ok(known.into_iter().map(|(sort, held)| (sort, held.version)).collect())
    }

    /// Deletes what lies beside an account and is worth nothing any more, in pieces. It may be done again, and what begins meanwhile is
    /// of the account's present epoch and stays.
    pub(crate) async fn tidy(&self, member: &str) -> Result<()> {
        for tried in db::tries() {
            // Of an account that is gone whatever may be left is an erased one's.
            let Some(account) = self.account(member).await?.map(|held| held.value) else { return Ok(()) };
            let sessions = self.ousted_sessions(&account, 0).await?;
            let mut gone = self.ousted_addresses(&account, 0).await?;
            let tokens = self.db.all::<Token>(ACCOUNTS, member, TOKENS).await?;
            let over = |token: &Token| token.epoch != account.epoch || account.state == State::Erased;
            gone.extend(tokens.into_iter().filter(|(_, held)| over(&held.value)).map(|(sort, held)| (sort, held.version)));
            let ended: Vec<String> = sessions.iter().map(|(sort, _)| sid_of(sort)).collect();
            self.revocations.revoke(&ended).await?;
            gone.extend(sessions);
            if self.db.delete_all(ACCOUNTS, member, &gone).await? {
                return Ok(());
            }
            db::pause(tried).await;
        }
        Err(db::contended(ACCOUNTS))
    }

    fn session_until(&self, session: &Session) -> EventTime {
        let days = |days: u32| u64::from(days) * 86_400;
        let idle = db::after(session.used_at, days(self.config.tokens.idle_days));
        idle.min(db::after(session.created_at, days(self.config.tokens.absolute_days)))
    }

    /// The tokens of a session as it was written at `at`: what is revoked after that outlives them.
    async fn grant(&self, account: &Account, sid: &str, session: &Session, secret: &str, at: EventTime) -> Result<Grant> {
        let seconds = |time: EventTime| time.0.div_euclid(1_000);
        let config = &self.config.tokens;
        let scope = self.scope_of(account, session.second_factor).await?;
        let claims = AccessClaims {
            iss: config.issuer.clone(),
            sub: account.member.clone(),
            aud: config.audience.clone(),
            client_id: config.client_id.clone(),
            exp: seconds(at) + i64::from(config.access_s),
            nbf: seconds(at),
            iat: seconds(at),
            jti: random::text::<16>(),
            scope: scope.clone(),
            sid: sid.to_owned(),
            auth_time: seconds(session.auth_time),
            acr: ACR[usize::from(session.second_factor)].to_owned(),
            epoch: session.epoch,
            kid: String::new(),
        };
        let mark = self.refresh_mark(&account.member, sid, secret);
        Ok(Grant {
            member: account.member.clone(),
            session: sid.to_owned(),
            access_token: self.tokens.sign(&claims, at)?.into(),
            access_s: config.access_s,
            refresh_token: format!("{}.{sid}.{secret}.{mark}", account.member).into(),
            refresh_until: self.session_until(session),
            scope,
            device: None,
            browsing: None,
        })
    }

    fn refresh_mark(&self, member: &str, sid: &str, secret: &str) -> String {
        self.marks.key("refresh", &[member, sid, secret])
    }

    fn next_secret(&self, member: &str, sid: &str, secret: &str, nonce: &str) -> String {
        self.marks.digest("refresh successor", &[member, sid, secret, nonce])
    }

    /// A new access token, and a new refresh token in place of this one. Again within 30 s from the same device (address and `label`,
    /// what the browser calls itself): the same refresh token, since the answer may have been lost.
    ///
    /// # Errors
    /// [`MemberError::Unauthenticated`]: it is not ours, its session has ended, or it was used before, which ends the session; what the
    /// store says: then it may be used up, and the same one is given again.
    pub async fn refresh(&self, token: &SecretString, address: &str, label: &str) -> Result<Grant> {
        let text = token.expose_secret();
        let [member, sid, secret, mark] = split_refresh(text).ok_or(MemberError::Unauthenticated)?;
        if !random::same(mark, &self.refresh_mark(member, sid, secret)) {
            return Err(MemberError::Unauthenticated);
        }
        let (presented, device) = (random::digest(secret), self.marks.key("refresh device", &[&address_group(address), label]));
        for tried in db::tries() {
            let held = self.db.read::<Session>(ACCOUNTS, member, &sort(sid)).await?.ok_or(MemberError::Unauthenticated)?;
            let account = self.account(member).await?.filter(|account| account.value.is_active());
            let account = account.ok_or(MemberError::Unauthenticated)?;
            let now = self.db.now();
            if !held.value.is_alive(&account.value, self.session_until(&held.value), now) {
                return Err(MemberError::Unauthenticated);
            }
            if !random::same(&held.value.digest, &presented) {
                let repeats = |last: &&Refreshed| {
                    let from = random::same(&last.from, &presented) && random::same(&last.device, &device);
                    from && (0..REPEATED_MS).contains(&(now.0 - last.at.0))
                };
                if let Some(last) = held.value.refreshed.as_ref().filter(repeats) {
                    let next = self.next_secret(member, sid, secret, &last.nonce);
                    return self.grant(&account.value, sid, &held.value, &next, now).await;
                }
                tracing::warn!("a refresh token was used twice; its session ends, and the audit log has whose (token.reuse)");
                metrics::counter!("auth_failures_total", "reason" => "refresh_reused").increment(1);
                self.end_session(member, sid, "anonymous", "token.reuse", address).await?;
                return Err(MemberError::Unauthenticated);
            }
            let nonce = random::text::<32>();
            let next = self.next_secret(member, sid, secret, &nonce);
            let refreshed = Some(Refreshed { from: presented.clone(), nonce, at: now, device: device.clone() });
            let session = Session { digest: random::digest(&next), used_at: now, refreshed, ..held.value };
            let until = self.session_until(&session);
            let steps = [
                Step { sort: ACCOUNT.into(), expect: Expect::Version(account.version), effect: Effect::Check },
                Step::replace(sort(sid), held.version, db::encode(&session), Some(until)),
            ];
            if self.db.transact(ACCOUNTS, member, &steps).await? {
                return self.grant(&account.value, sid, &session, &next, now).await;
            }
            db::pause(tried).await;
        }
        Err(db::contended(ACCOUNTS))
    }

    /// A member's sessions, the last used first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn of(&self, member: &str) -> Result<Vec<SessionShown>> {
        let Some(account) = self.account(member).await? else { return Ok(Vec::new()) };
        let (account, now) = (account.value, self.db.now());
        let mut found: Vec<SessionShown> = self
            .db
            .all::<Session>(ACCOUNTS, member, SESSIONS)
            .await?
            .into_iter()
            .filter(|(_, held)| held.value.is_alive(&account, self.session_until(&held.value), now))
            .map(|(sort, held)| SessionShown {
                id: sid_of(&sort),
                created_at: held.value.created_at,
                used_at: held.value.used_at,
                label: held.value.label,
                address: held.value.address,
                second_factor: held.value.second_factor,
            })
            .collect();
        found.sort_by(|one, other| other.used_at.cmp(&one.used_at).then(one.id.cmp(&other.id)));
        Ok(found)
    }

    /// Ends one session; its access tokens stop working at once. One that has ended is no error.
    pub(crate) async fn end_session(&self, member: &str, sid: &str, actor: &str, kind: &str, address: &str) -> Result<bool> {
        let at = sort(sid);
        if at.len() > KEY_BYTES_MAX {
            return Ok(false);
        }
        self.change(member, &[&at], |loaded| {
            let Some(held) = loaded.beside.get(&at) else { return Ok((None, false)) };
            let steps = vec![Step::delete(&*at, held.version)];
            let works = vec![Work::Revoke { sessions: vec![sid.to_owned()] }, self.audit.work(actor, kind, member, address, &[])];
            Ok((Some(Extra { steps, works }), true))
        })
        .await
    }

    /// Signs out: the session of an access token ends.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sign_out(&self, claims: &AccessClaims, address: &str) -> Result<()> {
        self.end_session(&claims.sub, &claims.sid, &claims.sub, "sign_out", address).await.map(drop)
    }

    /// Ends one of the member's own sessions (V7.5.2).
    ///
    /// # Errors
    /// [`MemberError::NotFound`]; what the store says.
    pub async fn end_own_session(&self, claims: &AccessClaims, session: &str, address: &str) -> Result<()> {
        let ended = self.end_session(&claims.sub, session, &claims.sub, "session.end", address).await?;
        if ended { Ok(()) } else { Err(MemberError::NotFound) }
    }

    /// Ends all of the member's sessions, or all but the one that asks (V7.4.3).
    ///
    /// # Errors
    /// What the store says.
    pub async fn end_own_sessions(&self, claims: &AccessClaims, keep_this: bool, address: &str) -> Result<()> {
        self.end_sessions(&claims.sub, keep_this.then_some(claims.sid.as_str()), &claims.sub, address).await
    }

    pub(crate) async fn end_sessions(&self, member: &str, except: Option<&str>, actor: &str, address: &str) -> Result<()> {
        let kept = except.map(sort);
        self.change(member, kept.as_deref().as_slice(), |loaded| {
            if loaded.account.state == State::Erased {
                return Ok((None, ()));
            }
            let mut extra = Extra::works(vec![self.audit.work(actor, "session.end_all", member, address, &[])]);
            loaded.raise_epoch(CredentialEvent::SignOutEverywhere, except, &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }

    /// The scope of a token of an account: a staff role counts with a second factor and a password as long as staff's has to be.
    pub(crate) async fn scope_of(&self, account: &Account, second_factor: bool) -> Result<String> {
        let mut words = vec!["catalog:browse", "order:trade"];
        if let Some(role) = account.role.as_deref().filter(|_| second_factor && account.password_for_staff)
            && let Some(role) = self.roles.get(role).await?
        {
            words.extend(role.permissions.iter().map(|permission| permission.name()));
        }
        words.sort_unstable();
        words.dedup();
        Ok(words.join(" "))
    }

    /// A mark of a browser for a member, in an epoch of the account.
    pub(crate) fn device_of(&self, member: &str, epoch: u64) -> String {
        let until = self.db.in_s(DEVICE_S).0;
        self.marks.seal("device", &Device { member: member.to_owned(), id: random::text::<12>(), epoch, until })
    }

    /// A mark of a browser that we gave.
    pub(crate) fn device(&self, text: &str) -> Option<Device> {
        self.marks.unseal("device", text)
    }

    /// The claims of an access token that is ours, good now, and whose session has not ended (V9.1, V9.2, V7.4.1). No I/O.
    ///
    /// # Errors
    /// [`MemberError::Unauthenticated`], whatever is wrong with it; [`MemberError::Store`] where what was revoked is not known.
    pub fn authenticate(&self, token: &str) -> Result<Arc<AccessClaims>> {
        let claims = self.tokens.check(token, self.db.now()).ok_or(MemberError::Unauthenticated)?;
        self.still_good(&claims)?;
        Ok(claims)
    }

    /// Whether what an access token claimed when it was checked still holds: for what goes on long after, a stream.
    ///
    /// # Errors
    /// As [`Sessions::authenticate`].
    pub fn still_good(&self, claims: &AccessClaims) -> Result<()> {
        if !self.revocations.is_fresh() {
            let text = "ended sessions could not be read for a minute";
            return Err(kindred_store::StoreError::Unavailable(text.into()).into());
        }
        let revoked = self.revocations.is_revoked(&claims.sub, &claims.sid, claims.epoch);
        let good = self.tokens.hold(claims, self.db.now()) && !revoked;
        if good { Ok(()) } else { Err(MemberError::Unauthenticated) }
    }

    /// The public keys, for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> serde_json::Value {
        self.tokens.jwks()
    }

    /// Makes the next signing key now; it signs in five minutes, when every process knows it. Or `withdraw`s all, because one may be known
    /// to others, for one that signs at once. No access token of before is taken any more then: here at once, in other processes within a
    /// second. Sessions go on; everybody refreshes.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `key:manage`; what the store says.
    pub async fn rotate_keys(&self, actor: &Actor, withdraw: bool) -> Result<()> {
        actor.needs(Permission::KeyManage)?;
        self.tokens.refresh(if withdraw { Rotation::Withdraw } else { Rotation::Now }).await?;
        if withdraw {
            self.revocations.announce_ring().await?;
        }
        let kind = if withdraw { "signing_key.withdraw" } else { "signing_key.rotate" };
        self.audit.record(actor, kind, "", true, &[]).await
    }
}
