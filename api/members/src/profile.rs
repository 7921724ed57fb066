//! What a member sees and changes of the own account, what is given out of it, and how it is forgotten.
//!
//! ```text
//! erase: password again ─▶ one transaction: document emptied, epoch raised ─▶ outbox: `erased` event, claims and index freed, the rest deleted
//! ```

use kindred_model::units::{EventTime, Tier};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::account::{ADDRESSES_MAX, Account, Address, Agreement, CredentialEvent, Extra, Loaded, State};
use crate::base::Profiles;
use crate::codes::TokenKind;
use crate::db::{ACCOUNTS, Held};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::permission::{Actor, Permission};
use crate::sessions::{KNOWN, SessionShown};
use crate::throttle::HOUR_S;
use crate::tokens::AccessClaims;
use crate::{Members, db, index};
use kindred_config::members::Language;

/// The account of the caller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = ProfileShown)]
pub struct Profile {
    /// The member id.
    pub member: String,
    /// `activated`; members in other states cannot sign in.
    #[schema(value_type = String)]
    pub state: State,
    /// Username.
    pub username: String,
    /// E.164.
    pub phone: String,
    /// Verified e-mail.
    pub email: String,
    /// The tier.
    #[schema(value_type = String)]
    pub tier: Tier,
    /// The staff role.
    pub role: Option<String>,
    /// Language of messages.
    pub language: Language,
    /// Consent to marketing messages.
    pub marketing_consent: bool,
    /// Postal addresses.
    pub addresses: Vec<Address>,
    /// The accepted user agreement.
    #[serde(serialize_with = "Agreement::shown")]
    pub agreement: Agreement,
    /// The code that invites others.
    pub invite_code: String,
    /// Whether a second factor is set up.
    pub second_factor: bool,
    /// When the account was created.
    #[schema(value_type = String)]
    pub registered_at: EventTime,
    /// When it was verified.
    #[schema(value_type = Option<String>)]
    pub activated_at: Option<EventTime>,
    /// Changes with every change: the ETag.
    #[serde(skip)]
    pub version: String,
}

/// Changes of the account; absent fields stay as they are. Tier and role cannot be changed (V8.2.3).
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProfilePatch)]
pub struct ProfileChange {
    /// Language of messages.
    pub language: Option<Language>,
    /// Consent to marketing messages.
    pub marketing_consent: Option<bool>,
    /// Replaces all addresses; at most 20.
    pub addresses: Option<Vec<Address>>,
    /// Accepts this version of the user agreement.
    pub agreement_version: Option<String>,
}

/// Everything that is held here about a member, but secrets: their digests say nothing to the person.
#[derive(Clone, Debug, Serialize)]
pub struct MemberExport {
    /// The profile.
    pub profile: Profile,
    /// The member who invited them.
    pub invited_by: Option<String>,
    /// When the password was last changed.
    pub password_changed_at: EventTime,
    /// Recovery codes that are left.
    pub recovery_codes_left: usize,
    /// Sessions.
    pub sessions: Vec<SessionShown>,
    /// Addresses from which they signed in are kept as keyed digests, so many.
    pub known_addresses: usize,
    /// What the audit log says of them in the time that it is kept.
    pub audit: Vec<crate::audit::Entry>,
    /// What else is kept of them, by resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<&'static str, serde_json::Value>,
}

/// What became of the account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = AccountErased)]
pub struct ErasureReceipt {
    /// The member id.
    #[serde(skip)]
    pub member: String,
    /// When the account was erased and its username, phone and e-mail became free.
    #[schema(value_type = String)]
    pub erased_at: EventTime,
    /// When the last audit entry with the member id expires.
    #[schema(value_type = String)]
    pub audit_until: EventTime,
}

impl Profile {
    pub(crate) fn of(held: &Held<Account>) -> Self {
        let account = &held.value;
        let shown = |identifier: &Option<crate::validate::Identifier>| {
            identifier.as_ref().map(|identifier| identifier.shown.clone()).unwrap_or_default()
        };
        Self {
            member: account.member.clone(),
            state: account.state,
            username: shown(&account.username),
            phone: shown(&account.phone),
            email: shown(&account.email),
            tier: account.tier.unwrap_or(Tier::Normal),
            role: account.role.clone(),
            language: account.language,
            marketing_consent: account.marketing_consent,
            addresses: account.addresses.clone(),
            agreement: account.agreement.clone(),
            invite_code: account.invite_code.clone(),
            second_factor: account.factor.secret.is_some(),
            registered_at: account.registered_at,
            activated_at: account.activated_at,
            version: db::shown(held.version),
        }
    }
}

impl Profiles {
    /// The profile of a member.
    ///
    /// # Errors
    /// [`MemberError::NotFound`]; what the store says.
    pub async fn of(&self, member: &str) -> Result<Profile> {
        Ok(Profile::of(&self.living(member).await?))
    }

    /// Changes the profile as it was read (`version`).
    ///
    /// # Errors
    /// [`MemberError::Changed`] where it was changed since; `address_invalid`, `addresses_many`, `agreement_stale`; what the store says.
    pub async fn update(&self, member: &str, version: &str, change: &ProfileChange) -> Result<Profile> {
        if let Some(addresses) = &change.addresses {
            if addresses.len() > ADDRESSES_MAX {
                return Err(MemberError::field("addresses", "addresses_many"));
            }
            let fits = |text: &String| text.chars().count() <= 200 && !text.chars().any(char::is_control);
            let valid = |address: &Address| {
                let Address { name, phone, country, region, city, lines, postal_code } = address;
                [name, phone, country, region, city, lines, postal_code].into_iter().all(fits)
                    && !name.is_empty()
                    && !lines.is_empty()
            };
            if !addresses.iter().all(valid) {
                return Err(MemberError::field("addresses", "address_invalid"));
            }
        }
        if change.agreement_version.as_ref().is_some_and(|accepted| *accepted != self.config.agreement_version) {
            return Err(MemberError::field("agreement_version", "agreement_stale"));
        }
        self.change(member, &[], |loaded| {
            if db::shown(loaded.version) != version {
                return Err(MemberError::Changed);
            }
            let account = &mut loaded.account;
            if !account.is_active() {
                return Err(MemberError::NotFound);
            }
            account.language = change.language.unwrap_or(account.language);
            account.marketing_consent = change.marketing_consent.unwrap_or(account.marketing_consent);
            if let Some(addresses) = &change.addresses {
                account.addresses.clone_from(addresses);
            }
            if let Some(accepted) = &change.agreement_version {
                account.agreement = Agreement { version: accepted.clone(), accepted_at: self.db.now() };
            }
            Ok((Some(Extra::default()), ()))
        })
        .await?;
        self.of(member).await
    }
}

/// What is about all that is kept of a member, and so of every service and resource.
impl Members {
    /// Everything that is held here about a member.
    ///
    /// # Errors
    /// [`MemberError::NotFound`]; [`MemberError::Throttled`] after `members.limits.exports_hour`; what the store says.
    pub async fn export(&self, member: &str) -> Result<MemberExport> {
        let held = self.core.living(member).await?;
        self.core.throttle.quota("export", member, self.core.config.limits.exports_hour, HOUR_S).await?;
        let known = self.core.db.all::<()>(ACCOUNTS, member, KNOWN).await?;
        let today = self.core.db.now().day();
        let auditor = Actor::operator("export");
        let mut query = crate::AuditQuery {
            days: Some((kindred_model::Day(today.0 - self.core.config.audit_days as i32), today)),
            subject: Some(member.to_owned()),
            limit: Some(200),
            ..Default::default()
        };
        let mut audit = Vec::new();
        loop {
            let page = self.audit.search(&auditor, &query).await?;
            audit.extend(page.items);
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        let mut resources = BTreeMap::new();
        for resource in &self.resources {
            resources.insert(resource.name(), resource.export(self, member).await?);
        }
        Ok(MemberExport {
            profile: Profile::of(&held),
            invited_by: held.value.invited_by.clone(),
            password_changed_at: held.value.password_changed_at,
            recovery_codes_left: held.value.factor.recovery.len(),
            sessions: self.sessions.of(member).await?,
            known_addresses: known.len(),
            audit,
            resources,
        })
    }

    /// Closes and forgets the own account.
    ///
    /// # Errors
    /// [`MemberError::ReauthenticationFailed`], [`MemberError::Throttled`]; what the store says: repeat it.
    pub async fn erase_own(&self, claims: &AccessClaims, password: &SecretString, address: &str) -> Result<ErasureReceipt> {
        let shown = self.core.passwords.reauthenticate(&claims.sub, password, address).await?.value;
        self.erase(&claims.sub, Some(&shown), &claims.sub, address).await
    }

    /// Forgets a member.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`]; what the store says: repeat it.
    pub async fn erase_member(&self, actor: &Actor, member: &str) -> Result<ErasureReceipt> {
        self.staff.guard(actor, Permission::MemberWrite, member).await?;
        self.erase(member, None, &actor.id, &actor.address).await
    }

    /// Empties the account and ends all that belongs to it; what lies beside it leaves by the outbox. Again on an erased account: the
    /// same receipt. `shown` is the account whose password was shown for it.
    pub(crate) async fn erase(
        &self,
        member: &str,
        shown: Option<&Account>,
        actor: &str,
        address: &str,
    ) -> Result<ErasureReceipt> {
        let erased_at = self
            .core
            .change(member, &[TokenKind::Phone.sort().as_str()], |loaded| {
                if let Some(erased_at) = loaded.account.erased_at {
                    return Ok((None, erased_at));
                }
                shown.map_or(Ok(()), |shown| loaded.same_epoch(shown))?;
                let now = self.core.db.now();
                let mut extra = Extra::works(vec![self.audit.work(actor, "member.erase", member, address, &[])]);
                loaded.raise_epoch(CredentialEvent::Erasure, None, &mut extra);
                let index = index::follow(&loaded.account);
                let mut identifiers: Vec<_> = loaded.account.identifiers().cloned().collect();
                // A code went to a phone that the member wanted to change to.
                identifiers.extend(loaded.pending_phone()?);
                let account = &loaded.account;
                if account.activated_at.is_some() && (account.invited_by.is_some() || account.invited_before) {
                    extra.works.push(Work::Invitee { identifiers: identifiers.clone() });
                }
                let invite = loaded.account.invite_code.clone();
                forget(loaded, now);
                extra.works.extend([loaded.account.event(), Work::Release { identifiers }, index]);
                extra.works.push(Work::ReleaseInvite { code: invite });
                for (resource, late) in self.resources.iter().flat_map(|resource| [(resource, false), (resource, true)]) {
                    extra.works.push(Work::Erase { resource: resource.name().to_owned(), late });
                }
                Ok((Some(extra), now))
            })
            .await?;
        let audit_until = db::after(erased_at, u64::from(self.core.config.audit_days) * 86_400);
        Ok(ErasureReceipt { member: member.to_owned(), erased_at, audit_until })
    }
}

/// Leaves of an account its id, its version, and what the inviter's points rest on.
fn forget(loaded: &mut Loaded, now: EventTime) {
    let account = &mut loaded.account;
    loaded.expires_at = None;
    *account = Account {
        invited_by: account.invited_by.take(),
        activated_at: account.activated_at,
        erased_at: Some(now),
        event_version: account.event_version,
        epoch: account.epoch,
        sessions_from: account.sessions_from,
        ..Account::blank(std::mem::take(&mut account.member), State::Erased, account.language, now)
    };
}
