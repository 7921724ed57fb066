//! Administration: the first administrator, members found and seen, suspended and activated, roles. Each asks for its permission and
//! leaves an entry in the audit log in the transaction of what it did.

use kindred_model::Day;
use kindred_model::units::{EventTime, Tier};
use kindred_store::records::{Range, Step, Version};
use serde::{Deserialize, Serialize};

use crate::account::{Account, CredentialEvent, Extra, State};
use crate::db::{Held, INDEX, ROLES, SETUP};
use crate::error::{MemberError, Result};
use crate::outbox::Work;
use crate::permission::{Actor, Permission, Role};
use crate::profile::{ErasureReceipt, Profile};
use crate::sessions::SessionShown;
use crate::validate::{Identifier, Kind};
use crate::{Members, db, index, random};

/// Items of a page unless told.
pub const LIMIT: usize = 50;
/// Most items of a page.
pub const LIMIT_MAX: usize = 200;
/// Entries of the index looked at for one page, whatever is filtered: a page may come back short, with a cursor.
const LOOKED_AT_MAX: usize = 2_000;
/// Life of a set-up token, seconds.
pub const SETUP_S: u64 = 3_600;
/// Members begin with the first shop: no month before is asked.
const FIRST_DAY: Day = Day(18_262); // 2020-01-01

/// A page, and where the next begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Page<T> {
    /// Its items; fewer than asked for says nothing about the next page.
    pub items: Vec<T>,
    /// Absent on the last page.
    pub next_cursor: Option<String>,
}

pub(crate) fn check_limit(limit: usize) -> Result<usize> {
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(MemberError::field("limit", "limit_invalid")) }
}

/// Which members.
#[derive(Clone, Debug, Default)]
pub struct MemberQuery {
    /// The beginning of a username, of a phone (with `+`, or a Chinese one without) or of an e-mail.
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

/// A set-up token as it is stored.
#[derive(Serialize, Deserialize)]
struct Setup {
    role: String,
}

impl Members {
    /// A token with which one member becomes administrator, once, within the hour (V6.3.2: there is no default account). For the
    /// command line.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_unknown`; what the store says.
    pub async fn create_setup_token(&self, actor: &Actor, role: &str) -> Result<secrecy::SecretString> {
        actor.needs(Permission::RoleManage)?;
        let given = self.role(role).await?.ok_or_else(|| MemberError::field("role", "role_unknown"))?;
        given.permissions.iter().try_for_each(|&permission| actor.needs(permission))?;
        let token = random::text::<32>();
        let until = Some(self.db.in_s(SETUP_S));
        self.db.insert(SETUP, &random::digest(&token), "setup", &Setup { role: role.to_owned() }, until).await?;
        self.record(actor, "setup_token.create", role, true, &[]).await?;
        Ok(token.into())
    }

    /// Gives the token's role to a member. The permissions come with the second factor.
    ///
    /// # Errors
    /// [`MemberError::TokenGone`]; [`MemberError::NotFound`]; what the store says.
    pub async fn redeem_setup_token(&self, claims: &crate::AccessClaims, token: &str, address: &str) -> Result<()> {
        let digest = random::digest(token);
        let held = self.db.read::<Setup>(SETUP, &digest, "setup").await?.ok_or(MemberError::TokenGone)?;
        // Used up first: a crash here costs a token, which the operator makes anew.
        let step = Step::delete("setup", held.version);
        if !self.db.transact(SETUP, &digest, &[step]).await? {
            return Err(MemberError::TokenGone);
        }
        self.give_role(&claims.sub, Some(&held.value.role), "setup", address, None).await
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
            Some(text) => self.unseal("member cursor", text).ok_or_else(|| MemberError::field("cursor", "cursor_invalid"))?,
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
                    return Ok(Page { items, next_cursor: Some(self.seal("member cursor", &cursor)) });
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
            let text = text.trim();
            let canonical = match kind {
                Kind::Username | Kind::Email => text.to_lowercase(),
                Kind::Phone if text.starts_with('+') => text.to_owned(),
                Kind::Phone => format!("+86{text}"),
            };
            if canonical.is_empty() || canonical.contains('\0') || canonical.len() > 512 {
                return Err(short());
            }
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
        Ok((self.profile(member).await?, self.sessions(member).await?))
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
        actor.needs(Permission::MemberWrite)?;
        let event = if to == State::Suspended { CredentialEvent::Suspension } else { CredentialEvent::Activation };
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            if loaded.account.state == State::Erased {
                return Err(MemberError::NotFound);
            }
            if loaded.account.state != from {
                return Err(MemberError::Refused("state_other"));
            }
            self.guards_staff(actor, &loaded.account)?;
            let mut stale: Vec<_> = index::entries(&loaded.account).into_iter().map(|(at, _)| at).collect();
            stale.retain(|(partition, _)| partition.starts_with("state/"));
            loaded.account.state = to;
            loaded.account.suspended_at = (to == State::Suspended).then(|| self.db.now());
            let audit = self.audit(&actor.id, kind, member, &actor.address, &[("reason", reason)]);
            let mut extra = Extra::works(vec![loaded.account.event(), audit, Work::Index { stale }]);
            loaded.raise_epoch(event, None, &mut extra);
            Ok((Some(extra), ()))
        })
        .await
    }

    /// Whoever may not give roles may not act against those who have one either.
    fn guards_staff(&self, actor: &Actor, account: &Account) -> Result<()> {
        if account.role.is_some() { actor.needs(Permission::RoleManage) } else { Ok(()) }
    }

    /// Gives a member a staff role, or takes it; their sessions end, so that no token keeps what was taken.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_unknown`;
    /// [`MemberError::NotFound`], [`MemberError::Changed`]; what the store says.
    pub async fn change_role(&self, actor: &Actor, member: &str, version: Option<&str>, role: Option<&str>) -> Result<()> {
        actor.needs(Permission::RoleManage)?;
        if let Some(name) = role {
            let role = self.role(name).await?.ok_or_else(|| MemberError::field("role", "role_unknown"))?;
            role.permissions.iter().try_for_each(|&permission| actor.needs(permission))?;
        }
        self.give_role(member, role, &actor.id, &actor.address, version).await
    }

    async fn give_role(&self, member: &str, role: Option<&str>, actor: &str, address: &str, version: Option<&str>) -> Result<()> {
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            if !loaded.account.is_active() {
                return Err(MemberError::NotFound);
            }
            let before = loaded.account.role.clone().unwrap_or_default();
            let stale = (!before.is_empty()).then(|| (format!("role/{before}"), member.to_owned())).into_iter().collect();
            loaded.account.role = role.map(str::to_owned);
            let detail = [("from", before.as_str()), ("to", role.unwrap_or_default())];
            let works = vec![self.audit(actor, "role.change", member, address, &detail), Work::Index { stale }];
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
        actor.needs(Permission::MemberWrite)?;
        self.change(member, &[], |loaded| {
            check_version(loaded.version, version)?;
            if !loaded.account.is_active() {
                return Err(MemberError::NotFound);
            }
            loaded.account.tier = Some(tier);
            let audit = self.audit(&actor.id, "tier.change", member, &actor.address, &[("to", tier.name())]);
            Ok((Some(Extra::works(vec![loaded.account.event(), audit])), ()))
        })
        .await
    }

    /// Ends all sessions of a member (V7.4.5).
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`]; what the store says.
    pub async fn end_member_sessions(&self, actor: &Actor, member: &str) -> Result<()> {
        actor.needs(Permission::MemberWrite)?;
        self.end_sessions(member, None, &actor.id, &actor.address).await
    }

    /// Sends the verification mail of a registration again.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`], [`MemberError::Refused`]; what the store says.
    pub async fn resend_verification(&self, actor: &Actor, member: &str) -> Result<()> {
        actor.needs(Permission::MemberWrite)?;
        self.resend(member).await?;
        self.record(actor, "verification.resend", member, true, &[]).await
    }

    /// Forgets a member.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:write`, [`MemberError::NotFound`]; what the store says: repeat it.
    pub async fn erase_member(&self, actor: &Actor, member: &str) -> Result<ErasureReceipt> {
        actor.needs(Permission::MemberWrite)?;
        let account = self.account(member).await?.ok_or(MemberError::NotFound)?.value;
        self.guards_staff(actor, &account)?;
        self.erase(member, None, &actor.id, &actor.address).await
    }

    /// All roles, those of the product first.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`; what the store says.
    pub async fn roles(&self, actor: &Actor) -> Result<Vec<Role>> {
        actor.needs(Permission::MemberRead)?;
        let mut roles = Role::built_in();
        roles.extend(self.db.all::<Role>(ROLES, "all", "").await?.into_iter().map(|(_, held)| held.value));
        Ok(roles)
    }

    pub(crate) async fn role(&self, name: &str) -> Result<Option<Role>> {
        Ok(self.versioned_role(name).await?.map(|(role, _)| role))
    }

    /// One role, with its version; those of the product have none.
    ///
    /// # Errors
    /// As [`Self::roles`].
    pub async fn show_role(&self, actor: &Actor, name: &str) -> Result<Option<(Role, Option<String>)>> {
        actor.needs(Permission::MemberRead)?;
        self.versioned_role(name).await
    }

    async fn versioned_role(&self, name: &str) -> Result<Option<(Role, Option<String>)>> {
        if let Some(role) = Role::built_in().into_iter().find(|role| role.name == name) {
            return Ok(Some((role, None)));
        }
        let held = self.db.read::<Role>(ROLES, "all", name).await?;
        Ok(held.map(|held| (held.value, Some(db::shown(held.version)))))
    }

    /// Makes or changes a role, of which the actor has seen this. What its holders may changes when their tokens are refreshed, within
    /// ten minutes.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `role:manage` or of permissions that the actor lacks; `role_invalid`;
    /// [`MemberError::Changed`]; what the store says.
    pub async fn put_role(&self, actor: &Actor, role: &Role, seen: &Seen) -> Result<()> {
        actor.needs(Permission::RoleManage)?;
        role.permissions.iter().try_for_each(|&permission| actor.needs(permission))?;
        let named = (1..=32).contains(&role.name.len())
            && role.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !named || Role::built_in().iter().any(|own| own.name == role.name) {
            return Err(MemberError::field("role", "role_invalid"));
        }
        let stored = db::encode(&Role { built_in: false, ..role.clone() });
        let held = self.db.read::<Role>(ROLES, "all", &role.name).await?;
        let step = match (held, seen) {
            (None, Seen::Absent) => Step::insert(role.name.as_str(), stored, None),
            (Some(held), Seen::Any) => Step::replace(role.name.as_str(), held.version, stored, None),
            (Some(held), Seen::Version(version)) if db::shown(held.version) == *version => {
                Step::replace(role.name.as_str(), held.version, stored, None)
            }
            _ => return Err(MemberError::Changed),
        };
        if !self.db.transact(ROLES, "all", &[step]).await? {
            return Err(MemberError::Changed);
        }
        let words: Vec<&str> = role.permissions.iter().map(|permission| permission.name()).collect();
        self.record(actor, "role.put", &role.name, true, &[("permissions", &words.join(" "))]).await
    }

    /// Whether an identifier of the index still is the account's is checked when read; this finds a member by a whole identifier.
    ///
    /// # Errors
    /// [`MemberError::Forbidden`] without `member:read`; what the store says.
    pub async fn find(&self, actor: &Actor, account: &str) -> Result<Option<Profile>> {
        actor.needs(Permission::MemberRead)?;
        match Identifier::of_account(account, &self.config.registration.phone_regions) {
            Some(identifier) => Ok(self.member_of(&identifier).await?.map(|held| Profile::of(&held))),
            None => Ok(None),
        }
    }
}

/// What whoever changes something has seen of it (RFC 9110, 13.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// That there is none.
    Absent,
    /// That there is one, whichever.
    Any,
    /// The one of this version.
    Version(String),
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
