//! Administration: the first administrator, members found and seen, suspended and activated, roles. Each asks for its permission and
//! leaves an entry in the audit log in the transaction of what it did.

use kindred_model::Day;
use kindred_model::units::{EventTime, Tier};
use kindred_store::records::{Range, Step, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::{Account, CredentialEvent, Extra, Loaded, State};
use crate::audit::{LIMIT, Page, check_limit};
use crate::base::Staff;
use crate::db::{Held, INDEX, SETUP};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::permission::{Actor, Permission};
use crate::profile::Profile;
use crate::sessions::SessionShown;
use crate::validate::{self, Identifier, Kind};
use crate::{db, index, random};

/// Entries of the index looked at for one page, whatever is filtered: a page may come back short, with a cursor.
const LOOKED_AT_MAX: usize = 2_000;
/// Life of a set-up token, seconds.
pub const SETUP_S: u64 = 3_600;
/// Members begin with the first shop: no month before is asked.
const FIRST_DAY: Day = Day(18_262); // 2020-01-01

/// Which members.
#[derive(Clone, Debug, Default)]
pub struct MemberQuery {
    /// The beginning of a username, of a phone (of the first region without `+`) or of an e-mail.
    pub prefix: Option<(Kind, String)>,
    /// In this state.
    pub state: Option<State>,
    /// With this staff role.
    pub role: Option<String>,
    /// Of this tier.
    pub tier: Option<Tier>,
    /// Registered on these UTC days.
    pub registered: Option<(Day, Day)>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// 1 to 200; 50 unless told.
    pub limit: Option<usize>,
}

/// Where a search goes on: which partition of those it asks, behind which entry of it.
#[derive(Serialize, Deserialize)]
struct Cursor {
    partition: usize,
    after: Option<String>,
    /// The partitions of a cursor are those of its own time.
    newest: Option<i64>,
}

/// Under which all set-up tokens lie, by the digest of their texts: there are few, for an hour.
const SETUPS: &str = "all";

/// A set-up token as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct Setup {
    role: String,
    /// Who made it: a member's id, `key:ID` or `operator:NAME`.
    made_by: String,
    #[serde(with = "db::ms")]
    made_at: EventTime,
}

/// A set-up token that nobody has redeemed; without its text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = SetupTokenShown)]
pub struct SetupShown {
    /// By which it is withdrawn.
    pub id: String,
    /// What it gives.
    pub role: String,
    /// Who made it: a member's id, `key:ID` or `operator:NAME`.
    pub made_by: String,
    /// When.
    #[schema(value_type = String)]
    pub made_at: EventTime,
    /// When it is worthless.
    #[schema(value_type = String)]
    pub expires_at: EventTime,
}

/// A set-up token's id: the beginning of its digest, which says nothing about its text.
fn setup_id(digest: &str) -> &str {
    &digest[..digest.len().min(16)]
}

impl Staff {
    /// A token with which one member becomes administrator, once, within the hour (V6.3.2: there is no default account). For the
    /// command line.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_unknown`; what the store says.
    pub async fn create_setup_token(&self, actor: &Actor, role: &str) -> Result<secrecy::SecretString> {
        actor.needs(Permission::RoleManage)?;
        let given = self.roles.get(role).await?.ok_or_else(|| MemberError::field("role", "role_unknown"))?;
        actor.covers(&given.permissions)?;
        let token = random::text::<32>();
        let digest = random::digest(&token);
        let setup = Setup { role: role.to_owned(), made_by: actor.id.clone(), made_at: self.db.now() };
        self.audit.record(actor, "setup_token.create", role, true, &[("id", setup_id(&digest))]).await?;
        self.db.insert(SETUP, SETUPS, &digest, &setup, Some(self.db.in_s(SETUP_S))).await?;
        Ok(token.into())
    }

    /// The set-up tokens that may still be redeemed, the oldest first.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage`; what the store says.
    pub async fn setup_tokens(&self, actor: &Actor) -> Result<Vec<SetupShown>> {
        actor.needs(Permission::RoleManage)?;
        let all = self.db.all::<Setup>(SETUP, SETUPS, "").await?;
        let shown = |(digest, held): (String, Held<Setup>)| SetupShown {
            id: setup_id(&digest).to_owned(),
            role: held.value.role,
            made_by: held.value.made_by,
            made_at: held.value.made_at,
            expires_at: held.expires_at.unwrap_or(held.value.made_at),
        };
        let mut all: Vec<SetupShown> = all.into_iter().map(shown).collect();
        all.sort_by(|one, other| (one.made_at, &one.id).cmp(&(other.made_at, &other.id)));
        Ok(all)
    }

    /// Withdraws a set-up token.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of what the token's role may and the actor may not;
    /// [`MemberError::NotFound`]; what the store says.
    pub async fn withdraw_setup_token(&self, actor: &Actor, id: &str) -> Result<()> {
        actor.needs(Permission::RoleManage)?;
        let all = self.db.all::<Setup>(SETUP, SETUPS, id).await?;
        let found = all.into_iter().find(|(digest, _)| setup_id(digest) == id);
        let (digest, held) = found.ok_or(MemberError::NotFound)?;
        if let Some(role) = self.roles.get(&held.value.role).await? {
            actor.covers(&role.permissions)?;
        }
        self.audit.record(actor, "setup_token.withdraw", &held.value.role, true, &[("id", id)]).await?;
        self.db.remove(SETUP, SETUPS, &digest).await
    }

    /// Withdraws what a member made whose role changes or who is locked out.
    async fn withdraw_setup_tokens_of(&self, member: &str) -> Result<()> {
        for (digest, held) in self.db.all::<Setup>(SETUP, SETUPS, "").await? {
            if held.value.made_by == member {
                self.db.remove(SETUP, SETUPS, &digest).await?;
            }
        }
        Ok(())
    }

    /// Gives the token's role to a member. The permissions come with the second factor. The token is worth as much as its maker is now:
    /// a member has to be staff who may give the role, a key has to be good (`key_is_good` says so of its id).
    ///
    /// # Errors
    /// [`MemberError::TokenGone`]; [`MemberError::NotFound`]; what the store says.
    pub async fn redeem_setup_token(
        &self,
        claims: &crate::AccessClaims,
        token: &str,
        address: &str,
        key_is_good: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let digest = random::digest(token);
        let held = self.db.read::<Setup>(SETUP, SETUPS, &digest).await?.ok_or(MemberError::TokenGone)?;
        // Used up first: a crash here costs a token, which the operator makes anew.
        let step = Step::delete(digest.as_str(), held.version);
        if !self.db.transact(SETUP, SETUPS, &[step]).await? {
            return Err(MemberError::TokenGone);
        }
        let Setup { role, made_by, .. } = held.value;
        let detail = [("made_by", made_by.as_str()), ("id", setup_id(&digest))];
        let given = self.roles.get(&role).await?.ok_or(MemberError::TokenGone)?;
        let stands = match made_by.split_once(':') {
            Some(("operator", _)) => true,
            Some(("key", id)) => key_is_good(id),
            _ => self.permissions_of(&made_by).await?.is_some_and(|may| {
                let maker = Actor { id: made_by.clone(), permissions: may, address: String::new() };
                maker.needs(Permission::RoleManage).and(maker.covers(&given.permissions)).is_ok()
            }),
        };
        if !stands {
            self.audit.record(&claims.actor(address), "setup_token.redeem", &role, false, &detail).await?;
            return Err(MemberError::TokenGone);
        }
        self.give_role(&claims.sub, None, Some(&role), "setup", address, None, &detail).await
    }

    /// What a member may as staff now, who signs in with everything that it takes; `None` of who is no member who can sign in.
    async fn permissions_of(&self, member: &str) -> Result<Option<Vec<Permission>>> {
        let Some(held) = self.account(member).await?.filter(|held| held.value.is_active()) else { return Ok(None) };
        let counts = held.value.factor.secret.is_some() && held.value.password_for_staff;
        let role = held.value.role.as_deref().filter(|_| counts);
        Ok(Some(self.roles.permissions(role).await?))
    }

    /// Asks whether an actor may do something to a member: the one way to every act about another. Who may not give roles does nothing
    /// to those who have one, and nobody does anything to somebody who may more. Gives the role that was looked at; the change refuses
    /// if it is another by then ([`same_role`]).
    pub(crate) async fn guard(&self, actor: &Actor, permission: Permission, member: &str) -> Result<Option<String>> {
        actor.needs(permission)?;
        let role = self.account(member).await?.ok_or(MemberError::NotFound)?.value.role;
        if role.is_some() {
            actor.needs(Permission::RoleManage)?;
            actor.covers(&self.roles.permissions(role.as_deref()).await?)?;
        }
        Ok(role)
    }

    /// Members that match, by what was searched, or the newest first.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`; `query_short`, `limit_invalid`, `cursor_invalid`; what the store says.
    pub async fn search_members(&self, actor: &Actor, query: &MemberQuery) -> Result<Page<Profile>> {
        actor.needs(Permission::MemberRead)?;
        let limit = check_limit(query.limit.unwrap_or(LIMIT))?;
        let cursor = match &query.cursor {
            None => Cursor { partition: 0, after: None, newest: Some(self.db.now().0) },
            Some(text) => {
                self.marks.unseal("member cursor", text).ok_or_else(|| MemberError::field("cursor", "cursor_invalid"))?
            }
        };
        let newest = EventTime(cursor.newest.unwrap_or_else(|| self.db.now().0));
        let (partitions, prefix, descending) = self.partitions_of(query, newest)?;
        let (mut at, mut after) = (cursor.partition, cursor.after);
        let mut items: Vec<Profile> = Vec::new();
        let mut looked_at = 0;
        while at < partitions.len() {
            let range = Range { prefix: prefix.clone().into_bytes(), after: after.take().map(String::into_bytes), descending };
            // As many as are wanted: more would be read for nothing.
            let asked = (limit + 1 - items.len()).max(50);
            let page: Vec<(String, Held<String>)> = self.db.page(INDEX, &partitions[at], &range, asked).await?;
            let full = page.len() == asked;
            for (sort, held) in page {
                if items.len() == limit || looked_at == LOOKED_AT_MAX {
                    let cursor = Cursor { partition: at, after, newest: Some(newest.0) };
                    return Ok(Page { items, next_cursor: Some(self.marks.seal("member cursor", &cursor)) });
                }
                looked_at += 1;
                if let Some(account) = self.account(&held.value).await?
                    && is_of(&account.value, &partitions[at], &sort)
                    && query.matches(&account.value)
                {
                    items.push(Profile::of(&account));
                }
                after = Some(sort);
            }
            if !full {
                at += 1;
                after = None;
            }
        }
        Ok(Page { items, next_cursor: None })
    }

    /// A page by its number from 1, as the seed counts them (R21): one beyond the last is empty. The cost grows with the number.
    ///
    /// # Errors
    /// As [`Self::search_members`].
    pub async fn members_page(&self, actor: &Actor, query: &MemberQuery, page: usize) -> Result<Vec<Profile>> {
        let limit = check_limit(query.limit.unwrap_or(LIMIT))?;
        let mut query = query.clone();
        let mut items = Vec::new();
        let mut skip = page.max(1).saturating_sub(1).saturating_mul(limit);
        loop {
            let found = self.search_members(actor, &query).await?;
            let skipped = skip.min(found.items.len());
            skip -= skipped;
            items.extend(found.items.into_iter().skip(skipped));
            query.cursor = found.next_cursor;
            if items.len() >= limit || query.cursor.is_none() {
                items.truncate(limit);
                return Ok(items);
            }
        }
    }

    /// The partitions that a search asks, the prefix within them, and in which order.
    fn partitions_of(&self, query: &MemberQuery, newest: EventTime) -> Result<(Vec<String>, String, bool)> {
        if let Some((kind, text)) = &query.prefix {
            let short = || MemberError::field("q", "query_short");
            let canonical = validate::beginning(*kind, text, &self.config.registration.phone_regions).ok_or_else(short)?;
            if *kind != Kind::Phone {
                return Ok((vec![index::partition(*kind, &canonical)], canonical, false));
            }
            let missing = index::PHONE_PREFIX.saturating_sub(canonical.chars().count());
            if missing > 2 {
                return Err(short()); // A thousand partitions and more.
            }
            let mut partitions = vec![canonical.clone()];
            for _ in 0..missing {
                partitions = partitions.iter().flat_map(|begin| (0..10).map(move |digit| format!("{begin}{digit}"))).collect();
            }
            let partitions = partitions.into_iter().map(|begin| index::partition(Kind::Phone, &begin)).collect();
            return Ok((partitions, canonical, false));
        }
        if let Some(role) = &query.role {
            return Ok((vec![format!("role/{role}")], String::new(), false));
        }
        if query.state == Some(State::Suspended) {
            return Ok((vec!["state/suspended".into()], String::new(), false));
        }
        let (first, last) = query.registered.unwrap_or((FIRST_DAY, newest.day()));
        let mut months = Vec::new();
        for day in first.0.max(FIRST_DAY.0)..=last.0.min(newest.day().0) {
            let month = format!("month/{}", &Day(day).to_string()[..7]);
            if months.last() != Some(&month) {
                months.push(month);
            }
        }
        months.reverse();
        Ok((months, String::new(), true))
    }

    /// A member in detail: (profile, sessions).
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`, [`MemberError::NotFound`]; what the store says.
    pub async fn member(&self, actor: &Actor, member: &str) -> Result<(Profile, Vec<SessionShown>)> {
        actor.needs(Permission::MemberRead)?;
        Ok((Profile::of(&self.living(member).await?), self.sessions.of(member).await?))
    }

    /// Locks a member out: all sessions end and their tokens stop working, at once (V7.4.2).
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::Refused`], [`MemberError::NotFound`],
    /// [`MemberError::Changed`] where `version` is given and not that of the profile; what the store says.
    pub async fn suspend(&self, actor: &Actor, member: &str, version: Option<&str>, reason: &str) -> Result<()> {
        self.set_state(actor, member, version, reason, (State::Activated, State::Suspended), "member.suspend").await
    }

    /// Lets a suspended member in again.
    ///
    /// # Errors
    /// As [`Self::suspend`].
    pub async fn activate(&self, actor: &Actor, member: &str, version: Option<&str>, reason: &str) -> Result<()> {
        self.set_state(actor, member, version, reason, (State::Suspended, State::Activated), "member.activate").await
    }

    async fn set_state(
        &self,
        actor: &Actor,
        member: &str,
        version: Option<&str>,
        reason: &str,
        (from, to): (State, State),
        kind: &str,
    ) -> Result<()> {
        let role = self.guard(actor, Permission::MemberWrite, member).await?;
        let event = if to == State::Suspended { CredentialEvent::Suspension } else { CredentialEvent::Activation };
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            same_role(loaded, &role)?;
            if loaded.account.state == State::Erased {
                return Err(MemberError::NotFound);
            }
            if loaded.account.state != from {
                return Err(MemberError::Refused("state_other"));
            }
            let mut stale: Vec<_> = index::entries(&loaded.account).into_iter().map(|(at, _)| at).collect();
            stale.retain(|(partition, _)| partition.starts_with("state/"));
            loaded.account.state = to;
            loaded.account.suspended_at = (to == State::Suspended).then(|| self.db.now());
            let audit = self.audit.work(&actor.id, kind, member, &actor.address, &[("reason", reason)]);
            let mut extra = Extra::works(vec![loaded.account.event(), audit, Work::Index { stale }]);
            loaded.raise_epoch(event, None, &mut extra);
            Ok((Some(extra), ()))
        })
        .await?;
        self.withdraw_setup_tokens_of(member).await
    }

    /// Gives a member a staff role, or takes it; their sessions end, so that no token keeps what was taken.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_unknown`;
    /// [`MemberError::NotFound`], [`MemberError::Changed`]; what the store says.
    pub async fn change_role(&self, actor: &Actor, member: &str, version: Option<&str>, role: Option<&str>) -> Result<()> {
        let has = self.guard(actor, Permission::RoleManage, member).await?;
        if let Some(name) = role {
            let role = self.roles.get(name).await?.ok_or_else(|| MemberError::field("role", "role_unknown"))?;
            actor.covers(&role.permissions)?;
        }
        self.give_role(member, Some(&has), role, &actor.id, &actor.address, version, &[]).await?;
        self.withdraw_setup_tokens_of(member).await
    }

    /// `has`: the role that was looked at before.
    #[expect(clippy::too_many_arguments, reason = "of two callers")]
    async fn give_role(
        &self,
        member: &str,
        has: Option<&Option<String>>,
        role: Option<&str>,
        actor: &str,
        address: &str,
        version: Option<&str>,
        more: &[(&str, &str)],
    ) -> Result<()> {
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            has.map_or(Ok(()), |has| same_role(loaded, has))?;
            if !loaded.account.is_active() {
                return Err(MemberError::NotFound);
            }
            let before = loaded.account.role.clone().unwrap_or_default();
            let stale = (!before.is_empty()).then(|| (format!("role/{before}"), member.to_owned())).into_iter().collect();
            loaded.account.role = role.map(str::to_owned);
            let mut detail = vec![("from", before.as_str()), ("to", role.unwrap_or_default())];
            detail.extend(more);
            let works = vec![self.audit.work(actor, "role.change", member, address, &detail), Work::Index { stale }];
            let mut extra = Extra::works(works);
            loaded.raise_epoch(CredentialEvent::RoleChange, None, &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }

    /// Sets a member's tier.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`], [`MemberError::Changed`]; what the store says.
    pub async fn set_tier(&self, actor: &Actor, member: &str, version: Option<&str>, tier: Tier) -> Result<()> {
        let role = self.guard(actor, Permission::MemberWrite, member).await?;
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            same_role(loaded, &role)?;
            if !loaded.account.is_active() {
                return Err(MemberError::NotFound);
            }
            loaded.account.tier = Some(tier);
            let audit = self.audit.work(&actor.id, "tier.change", member, &actor.address, &[("to", tier.name())]);
            Ok((Some(Extra::works(vec![loaded.account.event(), audit])), ()))
        })
        .await
    }

    /// Ends all sessions of a member (V7.4.5).
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`]; what the store says.
    pub async fn end_member_sessions(&self, actor: &Actor, member: &str) -> Result<()> {
        self.guard(actor, Permission::MemberWrite, member).await?;
        self.sessions.end_sessions(member, None, &actor.id, &actor.address).await
    }

    /// Sends the verification mail of a registration again.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`], [`MemberError::Refused`]; what the store says.
    pub async fn resend_verification(&self, actor: &Actor, member: &str) -> Result<()> {
        self.guard(actor, Permission::MemberWrite, member).await?;
        self.throttle.quota("mail member", member, self.config.limits.mails_hour, crate::throttle::HOUR_S).await?;
        self.registrations.resend(member).await?;
        self.audit.record(actor, "verification.resend", member, true, &[]).await
    }

    /// Whether an identifier of the index still is the account's is checked when read; this finds a member by a whole identifier.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`; what the store says.
    pub async fn find(&self, actor: &Actor, account: &str) -> Result<Option<Profile>> {
        actor.needs(Permission::MemberRead)?;
        match Identifier::of_account(account, &self.config.registration.phone_regions) {
            Some(identifier) => Ok(self.claims.member_of(&identifier).await?.map(|held| Profile::of(&held))),
            None => Ok(None),
        }
    }
}

/// The member has the role still that was looked at when it was asked who may act.
fn same_role(loaded: &Loaded, role: &Option<String>) -> Result<()> {
    if loaded.account.role == *role { Ok(()) } else { Err(MemberError::Changed) }
}

fn check_version(have: Version, wanted: Option<&str>) -> Result<()> {
    match wanted {
        Some(wanted) if db::shown(have) != wanted => Err(MemberError::Changed),
        _ => Ok(()),
    }
}

/// Whether an entry of the index still says what the account says.
fn is_of(account: &Account, partition: &str, sort: &str) -> bool {
    index::entries(account).iter().any(|((own, sorted), _)| own == partition && sorted == sort)
}

impl MemberQuery {
    fn matches(&self, account: &Account) -> bool {
        let state = self.state.is_none_or(|state| state == account.state);
        let role = self.role.as_ref().is_none_or(|role| account.role.as_ref() == Some(role));
        let tier = self.tier.is_none_or(|tier| tier == account.tier.unwrap_or(Tier::Normal));
        let day = account.registered_at.day();
        state && role && tier && self.registered.is_none_or(|(first, last)| first <= day && day <= last)
    }
}
