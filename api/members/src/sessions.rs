//! Sessions, and the refresh tokens by which they live on (V7.2, V7.3, V10.4.5).
//!
//! ```text
//! refresh token = member "." session "." 32 random bytes "." our mark       accounts[member]: session/SID holds the digest of the newest
//! refresh ──▶ newest: a new one takes its place      older, with our mark: it was stolen or repeated ──▶ the session ends
//! ```
//!
//! The mark shows that we gave a token, without keeping the old ones. Of many who present the newest at once, one gets the next; the
//! others have presented an old one, and the session ends: there is no grace (docs/design/0008-sign-in.md says what pages do).

use kindred_model::SessionId;
use kindred_model::records::MemberRecord;
use kindred_model::units::EventTime;
use kindred_store::records::{Effect, Expect, Step};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::account::{ACCOUNT, Account, Extra};
use crate::db::{self, ACCOUNTS, Held, ms};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::tokens::{ACR, AccessClaims};
use crate::validate::one_line;
use crate::{Members, random};

/// Longest refresh token that is looked at.
const REFRESH_BYTES_MAX: usize = 512;

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
}

/// A session as its member sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SessionShown {
    /// Its id: the `sid` of its access tokens.
    pub id: String,
    /// When it began.
    pub created_at: EventTime,
    /// When it was last refreshed.
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
}

fn sort(sid: &str) -> String {
    format!("session/{sid}")
}

/// How a session begins.
pub(crate) struct Beginning {
    pub second_factor: bool,
    pub label: String,
    pub address: String,
    pub anonymous: Option<SessionId>,
    /// A step that belongs to it, and what replaces the account where it changes as well.
    pub known_address: Option<Step>,
}

/// A refresh token as member, session, secret, mark.
pub(crate) fn split_refresh(text: &str) -> Option<[&str; 4]> {
    let mut parts = text.split('.');
    let split = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    (text.len() <= REFRESH_BYTES_MAX && parts.next().is_none()).then_some(split)
}

impl Members {
    /// Begins a session of an account as it was read; [`MemberError::Changed`] if it was changed since.
    pub(crate) async fn begin_session(&self, held: &Held<Account>, beginning: Beginning) -> Result<Grant> {
        let account = &held.value;
        let now = self.db.now();
        let sid = random::text::<16>();
        let secret = random::text::<32>();
        let session = Session {
            created_at: now,
            used_at: now,
            auth_time: now,
            digest: random::digest(&secret),
            second_factor: beginning.second_factor,
            label: one_line(&beginning.label).chars().take(200).collect(),
            address: beginning.address,
        };
        let until = self.session_until(&session);
        let mut steps = vec![
            Step { sort: ACCOUNT.into(), expect: Expect::Version(held.version), effect: Effect::Check },
            Step::insert(sort(&sid), db::encode(&session), Some(until)),
        ];
        steps.extend(beginning.known_address);
        let mut works = Vec::new();
        let mut others = self.db.all::<Session>(ACCOUNTS, &account.member, "session/").await?;
        others.sort_by_key(|(_, held)| held.value.used_at);
        let beyond = (others.len() + 1).saturating_sub(self.config.limits.sessions.max(1));
        let ended: Vec<String> = others[..beyond.min(others.len())]
            .iter()
            .map(|(sort, held)| {
                steps.push(Step::delete(&**sort, held.version));
                sort["session/".len()..].to_owned()
            })
            .collect();
        if !ended.is_empty() {
            works.push(Work::Revoke { sessions: ended });
        }
        if let Some(anonymous) = beginning.anonymous {
            let version = now.0.max(0).unsigned_abs();
            let merged_into = kindred_model::MemberId::trusted(account.member.clone());
            let record = MemberRecord::Session { session: anonymous, version, merged_into };
            works.push(Work::Event { record: String::from_utf8(record.canonical()).expect("JSON is text") });
        }
        let op = match works.is_empty() {
            true => None,
            false => Some(self.point(ACCOUNTS, &account.member).await?),
        };
        if !self.commit(op.as_ref(), ACCOUNTS, &account.member, steps, works, None).await? {
            self.cancel(op).await;
            return Err(MemberError::Changed);
        }
        let mut grant = self.grant(account, &sid, &session, &secret).await?;
        grant.device = Some(self.device_of(&account.member));
        Ok(grant)
    }

    fn session_until(&self, session: &Session) -> EventTime {
        let days = |days: u32| u64::from(days) * 86_400;
        let idle = db::after(session.used_at, days(self.config.tokens.idle_days));
        idle.min(db::after(session.created_at, days(self.config.tokens.absolute_days)))
    }

    async fn grant(&self, account: &Account, sid: &str, session: &Session, secret: &str) -> Result<Grant> {
        let now = self.db.now();
        let seconds = |time: EventTime| time.0.div_euclid(1_000);
        let config = &self.config.tokens;
        let scope = self.scope_of(account, session.second_factor).await?;
        let claims = AccessClaims {
            iss: config.issuer.clone(),
            sub: account.member.clone(),
            aud: config.audience.clone(),
            client_id: config.client_id.clone(),
            exp: seconds(now) + i64::from(config.access_s),
            nbf: seconds(now),
            iat: seconds(now),
            jti: random::text::<16>(),
            scope: scope.clone(),
            sid: sid.to_owned(),
            auth_time: seconds(session.auth_time),
            acr: ACR[usize::from(session.second_factor)].to_owned(),
        };
        let mark = self.refresh_mark(&account.member, sid, secret);
        Ok(Grant {
            member: account.member.clone(),
            session: sid.to_owned(),
            access_token: self.tokens.sign(&claims, now)?.into(),
            access_s: config.access_s,
            refresh_token: format!("{}.{sid}.{secret}.{mark}", account.member).into(),
            refresh_until: self.session_until(session),
            scope,
            device: None,
        })
    }

    fn refresh_mark(&self, member: &str, sid: &str, secret: &str) -> String {
        random::encode(&random::mac(&self.secret, "refresh", &[member, sid, secret])[..16])
    }

    /// A new access token, and a new refresh token in place of this one.
    ///
    /// # Errors
    /// [`MemberError::Unauthenticated`]: it is not ours, its session has ended, or it was used before, which ends the session; what the
    /// store says: then it may be used up, and the person signs in again.
    pub async fn refresh(&self, token: &SecretString, address: &str) -> Result<Grant> {
        let text = token.expose_secret();
        let [member, sid, secret, mark] = split_refresh(text).ok_or(MemberError::Unauthenticated)?;
        if !random::same(mark, &self.refresh_mark(member, sid, secret)) {
            return Err(MemberError::Unauthenticated);
        }
        for tried in db::tries() {
            let held = self.db.read::<Session>(ACCOUNTS, member, &sort(sid)).await?.ok_or(MemberError::Unauthenticated)?;
            if !random::same(&held.value.digest, &random::digest(secret)) {
                tracing::warn!(%member, "a refresh token was used twice; its session ends");
                metrics::counter!("auth_failures_total", "reason" => "refresh_reused").increment(1);
                self.end_session(member, sid, "anonymous", "token.reuse", address).await?;
                return Err(MemberError::Unauthenticated);
            }
            let account = self.account(member).await?.filter(|account| account.value.is_active());
            let account = account.ok_or(MemberError::Unauthenticated)?;
            let next = random::text::<32>();
            let session = Session { digest: random::digest(&next), used_at: self.db.now(), ..held.value };
            let until = self.session_until(&session);
            let steps = [
                Step { sort: ACCOUNT.into(), expect: Expect::Version(account.version), effect: Effect::Check },
                Step::replace(sort(sid), held.version, db::encode(&session), Some(until)),
            ];
            if self.db.transact(ACCOUNTS, member, &steps).await? {
                return self.grant(&account.value, sid, &session, &next).await;
            }
            db::pause(tried).await;
        }
        Err(db::contended(ACCOUNTS))
    }

    /// A member's sessions, the last used first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sessions(&self, member: &str) -> Result<Vec<SessionShown>> {
        let mut found: Vec<SessionShown> = self
            .db
            .all::<Session>(ACCOUNTS, member, "session/")
            .await?
            .into_iter()
            .map(|(sort, held)| SessionShown {
                id: sort["session/".len()..].to_owned(),
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
        self.change(member, &["session/"], |loaded| {
            let Some((_, version)) = loaded.beside.get(&sort(sid)) else { return Ok((None, false)) };
            let steps = vec![Step::delete(sort(sid), *version)];
            let works = vec![Work::Revoke { sessions: vec![sid.to_owned()] }, self.audit(actor, kind, member, address, &[])];
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
        self.change(member, &["session/"], |loaded| {
            let mut extra = Extra::works(vec![self.audit(actor, "session.end_all", member, address, &[])]);
            loaded.end_sessions(except, &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }
}
