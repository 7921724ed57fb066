//! The strongest test: the process dies at every call of the store, before or after the call is done, and a new one goes on. No half
//! member, no lost identity, no event lost or told in two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use kindred_members::{Language, State, UNVERIFIED_S};
use kindred_model::records::{MemberRecord, MemberState};
use kindred_store::StoreError;
use kindred_store::records::{Around, Call, Outcome, Surrounded, Write};
use tokio::sync::Notify;

use kindred_members::Kind;
use kindred_members::fuzzing::claim_of;

use crate::support::{ADDRESS, PASSWORD, World, config};

/// Holds of every store at rest.
fn check(world: &World, case: &str) {
    let now = world.clock.now();
    let accounts: BTreeMap<String, serde_json::Value> = world
        .memory
        .table("accounts", now)
        .into_iter()
        .filter(|(_, sort, _, _)| sort == "account")
        .map(|(member, _, value, _)| (member, value))
        .collect();
    let text = |value: &serde_json::Value, path: &str| value.pointer(path).and_then(|value| value.as_str()).map(str::to_owned);
    let claims = world.memory.table("claims", now);
    for (partition, _, claim, expires_at) in &claims {
        let owner = text(claim, "/member").unwrap();
        let (kind, key) = partition.split_once('/').unwrap();
        if expires_at.is_some() {
            continue; // It goes by itself.
        }
        let account = accounts.get(&owner).unwrap_or_else(|| panic!("{case}: {partition} is claimed for good by nobody"));
        let own = match kind {
            "invite" => text(account, "/invite_code").map(|code| format!("invite/{code}")),
            "name" => text(account, "/username/canonical").map(|name| claim_of(Kind::Username, &name)),
            _ => text(account, &format!("/{kind}/canonical")).map(|canonical| format!("{kind}/{canonical}")),
        };
        assert!(!key.is_empty());
        assert_eq!(own.as_ref(), Some(partition), "{case}: {partition} is claimed for good by somebody who does not use it");
    }
    let merged = world.log.merged();
    for (member, account) in &accounts {
        let state = text(account, "/state").unwrap();
        assert!(!["pending", "activating"].contains(&state.as_str()), "{case}: {member} is still {state}");
        assert!(account["changing"].is_null(), "{case}: {member} is half changed");
        let told = merged.get(member).unwrap_or_else(|| panic!("{case}: the log knows nothing of {member}"));
        let told_state = serde_json::to_value(told.state).unwrap();
        assert_eq!(told_state, account["state"], "{case}: the log is behind");
        assert_eq!(told.version, account["event_version"].as_u64().unwrap(), "{case}");
        if state == "activated" {
            for kind in [Kind::Username, Kind::Phone, Kind::Email] {
                let partition = claim_of(kind, &text(account, &format!("/{}/canonical", kind.name())).unwrap());
                let claim = claims.iter().find(|(own, ..)| *own == partition);
                let claim = claim.unwrap_or_else(|| panic!("{case}: a member without the claim on {partition}"));
                assert_eq!((text(&claim.2, "/member").as_deref(), claim.3), (Some(member.as_str()), None), "{case}: {partition}");
            }
        }
    }
    let mut versions = BTreeMap::new();
    for record in world.log.0.lock().iter() {
        if let MemberRecord::Member(membership) = record {
            let first = versions.entry((membership.member.to_string(), membership.version)).or_insert_with(|| record.canonical());
            assert_eq!(*first, record.canonical(), "{case}: one version of two contents");
        }
    }
    assert!(world.memory.table("outbox", now).is_empty(), "{case}: the outbox holds {:?}", world.memory.table("outbox", now));
    let index = world.memory.table("member_index", now);
    for (partition, sort, member, _) in &index {
        let account = accounts.get(member.as_str().unwrap());
        let account = account.unwrap_or_else(|| panic!("{case}: the index holds {partition} of nobody"));
        if let Some(kind) = ["username", "phone", "email"].into_iter().find(|kind| partition.starts_with(kind)) {
            let own = text(account, &format!("/{kind}/canonical")).unwrap();
            assert!(sort.starts_with(&format!("{own}\0")), "{case}: the index holds an old {kind}");
        }
    }
    for (member, account) in &accounts {
        if account["state"] != "erased" {
            let entries = index.iter().filter(|(_, _, owner, _)| owner.as_str() == Some(member)).count();
            assert!(entries >= 4, "{case}: {member} is not found by all that is theirs");
        }
    }
}

/// Runs `flow` with a death at every call of it, in both ways, and `after` on what a new process makes of it.
async fn at_every_call(
    prepare: impl AsyncFn(&World),
    flow: impl AsyncFn(&World) -> kindred_members::Result<()>,
    after: impl AsyncFn(&World, &str),
) {
    let mut deaths = 0;
    for done_before in [false, true] {
        for call in 1.. {
            let case = format!("died at call {call}, {}", if done_before { "done" } else { "not done" });
            let world = World::with(config()).await;
            prepare(&world).await;
            world.memory.die_at(call, done_before);
            let result = flow(&world).await;
            let died = world.memory.revive();
            if !died {
                assert_eq!(result, Ok(()), "{case}");
                break;
            }
            deaths += 1;
            // The process is gone, with its memory; another begins.
            let world = world.another().await;
            world.pass(61);
            world.deliver().await;
            check(&world, &case);
            after(&world, &case).await;
            world.deliver().await;
            check(&world, &format!("{case}, then ended"));
        }
    }
    assert!(deaths > 20, "{deaths} deaths prove little");
}

/// Sweeps with whatever fails, as a process does that runs.
async fn sweep(world: &World) -> kindred_members::Result<()> {
    for _ in 0..6 {
        world.members.sweep().await?;
    }
    Ok(())
}

#[tokio::test]
async fn v2_3_3_a_registration_that_dies_anywhere() {
    at_every_call(
        async |_| (),
        async |world| {
            let solution = kindred_members::Solution::find(&world.challenges.draw(ADDRESS).await?);
            world.registrations.request_phone_code("13812345678", [None; 3], Language::En, &solution, ADDRESS).await?;
            sweep(world).await?;
            if world.inbox.last("+8613812345678").is_none() {
                return Err(kindred_members::MemberError::Busy); // The sweeps failed one by one.
            }
            let code = world.inbox.code("+8613812345678");
            world.registrations.register(world.form_without_code("mara", "13812345678", &code).await?).await?;
            sweep(world).await?;
            if world.inbox.last("mara@example.com").is_none() {
                return Err(kindred_members::MemberError::Busy);
            }
            world.registrations.verify_email(&world.inbox.token("mara@example.com"), ADDRESS).await?;
            sweep(world).await
        },
        async |world, case| {
            // The person comes back a day later at the latest: the account is theirs, or everything is free.
            if world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_err() {
                world.pass(UNVERIFIED_S + 3_600);
                world.member("mara", "13812345678").await;
            }
            assert!(world.sign_in.first(world.credentials("13812345678", PASSWORD)).await.is_ok(), "{case}");
            let active = world.log.merged().values().filter(|member| member.state == MemberState::Activated).count();
            assert_eq!(active, 1, "{case}");
        },
    )
    .await;
}

/// A code that is asked for once may come twice, but then it is the same: a person who takes the first is not told that it is wrong.
#[tokio::test]
async fn a_code_that_comes_twice_is_one_code() {
    let twice = std::cell::Cell::new(0);
    at_every_call(
        async |_| (),
        async |world| {
            let solution = kindred_members::Solution::find(&world.challenges.draw(ADDRESS).await?);
            world.registrations.request_phone_code("13812345678", [None; 3], Language::En, &solution, ADDRESS).await?;
            sweep(world).await
        },
        async |world, case| {
            let sent: Vec<String> = world.inbox.0.lock().iter().map(|message| message.rendered.body.clone()).collect();
            let Some(first) = sent.first() else { return };
            twice.set(twice.get() + usize::from(sent.len() > 1));
            assert!(sent.iter().all(|body| body == first), "{case}: {sent:?}");
            let form = world.form_without_code("mara", "13812345678", &world.inbox.code("+8613812345678")).await.unwrap();
            assert_eq!(world.registrations.register(form).await, Ok(()), "{case}");
        },
    )
    .await;
    assert!(twice.get() > 0, "no code comes twice, and the test proves nothing");
}

/// Whoever sends the form again, with the code or with a new one, becomes a member at once: no name is held by nobody.
#[tokio::test]
async fn v2_3_3_a_registration_that_died_is_sent_again() {
    at_every_call(
        async |world| {
            let solution = world.solution().await;
            let english = Language::En;
            world.registrations.request_phone_code("13812345678", [None; 3], english, &solution, ADDRESS).await.unwrap();
            world.deliver().await;
        },
        async |world| {
            let code = world.inbox.code("+8613812345678");
            world.registrations.register(world.form_without_code("mara", "13812345678", &code).await?).await?;
            sweep(world).await
        },
        async |world, case| {
            if world.inbox.last("mara@example.com").is_none() {
                let mut form = world.form_without_code("mara", "13812345678", &world.inbox.code("+8613812345678")).await.unwrap();
                let mut sent = world.registrations.register(form.clone()).await;
                if sent == Err(kindred_members::MemberError::CodeWrong) {
                    form = world.form("mara", "13812345678").await.expect(case);
                    sent = world.registrations.register(form).await;
                }
                assert_eq!(sent, Ok(()), "{case}");
                world.deliver().await;
            }
            world.registrations.verify_email(&world.inbox.token("mara@example.com"), ADDRESS).await.expect(case);
            world.deliver().await;
            assert!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_ok(), "{case}");
            assert_eq!(world.log.merged().len(), 1, "{case}: one member of one form");
        },
    )
    .await;
}

/// A form that is sent twice at once, or again because its answer got lost, makes one member and is answered as the first.
#[tokio::test]
async fn of_a_form_sent_twice_one_registration_comes_about() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    let twin = kindred_members::Registration { solution: world.solution().await, ..form.clone() };
    let (one, two) = tokio::join!(world.registrations.register(form), world.registrations.register(twin));
    assert!(one.is_ok() || two.is_ok(), "{one:?}, {two:?}");
    for outcome in [one, two] {
        // The second came when the code had been used up, or was the same registration.
        assert!([Ok(()), Err(kindred_members::MemberError::CodeWrong)].contains(&outcome), "{outcome:?}");
    }
    world.deliver().await;
    world.registrations.verify_email(&world.inbox.token("mara@example.com"), ADDRESS).await.unwrap();
    world.pass(UNVERIFIED_S + 3_600);
    world.deliver().await;
    assert!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_ok(), "the name is theirs for good");
    world.deliver().await;
    check(&world, "sent twice");
}

const NEW: &str = "vextro jumbles 93 quip";

#[tokio::test]
async fn a_password_change_that_dies_anywhere() {
    at_every_call(
        async |world| drop(world.member("mara", "13812345678").await),
        async |world| {
            let kindred_members::SignedIn::Session(grant) = world.sign_in.first(world.credentials("mara", PASSWORD)).await?
            else {
                panic!("no second factor")
            };
            let claims = world.claims(&grant);
            world.credentials.change_password(&claims, &PASSWORD.into(), NEW.into(), true, ADDRESS).await?;
            sweep(world).await
        },
        async |world, case| {
            let old = world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_ok();
            let new = world.sign_in.first(world.credentials("mara", NEW)).await.is_ok();
            assert!(old != new, "{case}: one of the two passwords is good (old {old}, new {new})");
            let told = world.inbox.last("mara@example.com").is_some_and(|mail| mail.rendered.subject.contains("changed"));
            assert_eq!(told, new, "{case}: the mail goes with the change");
        },
    )
    .await;
}

#[tokio::test]
async fn an_email_change_that_dies_anywhere() {
    at_every_call(
        async |world| {
            world.member("mara", "13812345678").await;
            let claims = world.claims(&world.sign_in("mara").await);
            world.credentials.change_email(&claims, &PASSWORD.into(), "new@example.com", ADDRESS).await.unwrap();
            world.deliver().await;
        },
        async |world| {
            world.credentials.confirm_email(&world.inbox.token("new@example.com"), ADDRESS).await?;
            sweep(world).await
        },
        async |world, case| {
            let found = world.staff.find(&world.admin(), "new@example.com").await.unwrap();
            if found.is_none() {
                world.credentials.confirm_email(&world.inbox.token("new@example.com"), ADDRESS).await.expect(case);
                world.deliver().await;
            }
            let before = world.staff.find(&world.admin(), "mara@example.com").await.unwrap();
            assert_eq!(before, None, "{case}");
        },
    )
    .await;
}

#[tokio::test]
async fn an_erasure_that_dies_anywhere() {
    at_every_call(
        async |world| {
            world.member("mara", "13812345678").await;
            world.sign_in("mara").await;
        },
        async |world| {
            let member = world.log.merged().keys().next().cloned().unwrap();
            world.members.erase_member(&world.admin(), &member).await?;
            sweep(world).await
        },
        async |world, case| {
            let member = world.log.merged().keys().next().cloned().unwrap();
            let receipt = world.members.erase_member(&world.admin(), &member).await.expect(case);
            assert_eq!(world.members.erase_member(&world.admin(), &member).await, Ok(receipt), "{case}: the same receipt");
            world.deliver().await;
            let left: BTreeSet<String> = ["accounts", "claims", "member_index", "outbox", "codes"]
                .into_iter()
                .flat_map(|table| world.memory.table(table, world.clock.now()))
                .map(|(partition, sort, value, _)| format!("{partition} {sort} {value}"))
                .filter(|record| ["mara", "13812345678"].iter().any(|word| record.contains(word)))
                .collect();
            assert_eq!(left, BTreeSet::new(), "{case}: the person is still there");
            assert_eq!(world.log.merged()[&member].state, MemberState::Erased, "{case}");
            assert_eq!(world.log.merged()[&member].registered_at, None);
            world.member("mara", "13812345678").await; // The identifiers are free.
        },
    )
    .await;
}

#[tokio::test]
async fn a_suspension_that_dies_anywhere_ends_sessions_or_nothing() {
    at_every_call(
        async |world| {
            world.member("mara", "13812345678").await;
            world.sign_in("mara").await;
            world.sign_in("mara").await;
        },
        async |world| {
            let member = world.log.merged().keys().next().cloned().unwrap();
            world.staff.suspend(&world.admin(), &member, None, "test").await?;
            sweep(world).await
        },
        async |world, case| {
            let member = world.log.merged().keys().next().cloned().unwrap();
            let (profile, sessions) = world.staff.member(&world.admin(), &member).await.unwrap();
            let revoked = world.memory.table("revocations", world.clock.now()).len();
            match profile.state {
                State::Suspended => {
                    assert_eq!(sessions.len(), 0, "{case}");
                    assert!(revoked >= 2, "{case}: {revoked}");
                }
                State::Activated => assert_eq!((sessions.len(), revoked), (2, 0), "{case}"),
                other => panic!("{case}: {other:?}"),
            }
        },
    )
    .await;
}

/// Lets one change of accounts wait between its pointer and itself, as in a process that stands still.
struct Standing {
    stands: AtomicBool,
    reached: Notify,
    goes_on: Notify,
}

#[async_trait]
impl Around for Standing {
    async fn writes(&self, call: Call<'_>, write: Write<'_>) -> Result<Outcome, StoreError> {
        if call.table == "accounts" && self.stands.swap(false, Ordering::SeqCst) {
            self.reached.notify_one();
            self.goes_on.notified().await;
        }
        write.await
    }
}

/// A process that stood still between its pointer and its change must not make a change that nobody follows.
#[tokio::test]
async fn a_pointer_that_was_given_up_makes_its_change_begin_again() {
    let world = World::new().await;
    let member = world.member("mara", "13812345678").await;
    world.sign_in("mara").await;
    let around = Standing { stands: AtomicBool::new(true), reached: Notify::new(), goes_on: Notify::new() };
    let standing = Arc::new(Surrounded { store: world.memory.clone(), around });
    let stands = World { store: standing.clone(), ..world.clone() }.another().await;
    let admin = world.admin();
    let suspended = async { stands.members.staff.suspend(&admin, &member, None, "test").await };
    let meanwhile = async {
        standing.around.reached.notified().await;
        world.pass(61);
        assert_eq!(world.members.sweep().await.unwrap(), 0, "the pointer is given up");
        assert!(world.memory.table("outbox", world.clock.now()).is_empty());
        standing.around.goes_on.notify_one();
    };
    let (suspended, ()) = tokio::join!(suspended, meanwhile);
    assert_eq!(suspended, Ok(()));
    world.deliver().await;
    assert_eq!(world.log.merged()[&member].state, MemberState::Suspended);
    check(&world, "given up");
}
