//! Administration: permissions, search, roles, the audit log.

use kindred_members::{Actor, AuditQuery, Kind, MemberError, MemberQuery, Permission, ProfileChange, Role, State};
use kindred_model::units::Tier;

use crate::races::worlds;
use crate::support::World;

async fn shop() -> (World, Vec<String>) {
    filled(World::new().await).await
}

async fn filled(world: World) -> (World, Vec<String>) {
    let mut members = Vec::new();
    for (number, name) in ["mara", "marten", "nora", "olga"].into_iter().enumerate() {
        members.push(world.member(name, &format!("1381234567{number}")).await);
        world.pass(60);
    }
    (world, members)
}

/// V1.2.4: what is searched for is a value, on every store.
#[tokio::test(flavor = "multi_thread")]
async fn v1_2_4_r21_members_are_found_by_what_is_theirs() {
    for (world, _dir) in worlds().await {
        found_by_what_is_theirs(world).await;
    }
}

async fn found_by_what_is_theirs(world: World) {
    let (world, members) = filled(world).await;
    let admin = world.admin();
    let names = async |query: MemberQuery| -> Vec<String> {
        let found = world.staff.search_members(&admin, &query).await.unwrap();
        found.items.into_iter().map(|profile| profile.username).collect()
    };
    let prefix = |kind, text: &str| MemberQuery { prefix: Some((kind, text.into())), ..Default::default() };
    assert_eq!(names(prefix(Kind::Username, "MAR")).await, ["mara", "marten"]);
    for text in ["mar' OR '1'='1", "mar%", "m_ra", "mar*", "mar\\", "'; --", "\"; drop"] {
        assert_eq!(names(prefix(Kind::Username, text)).await, Vec::<String>::new(), "{text}");
    }
    assert_eq!(names(prefix(Kind::Email, "nora@")).await, ["nora"]);
    assert_eq!(names(prefix(Kind::Phone, "13")).await.len(), 4);
    assert_eq!(names(prefix(Kind::Phone, "+8613812345673")).await, ["olga"]);
    assert_eq!(names(MemberQuery::default()).await, ["olga", "nora", "marten", "mara"], "the newest first");
    world.staff.suspend(&admin, &members[0], None, "test").await.unwrap();
    world.staff.set_tier(&admin, &members[1], None, Tier::Vip).await.unwrap();
    world.staff.change_role(&admin, &members[2], None, Some("support")).await.unwrap();
    world.deliver().await;
    assert_eq!(names(MemberQuery { state: Some(State::Suspended), ..Default::default() }).await, ["mara"]);
    assert_eq!(names(MemberQuery { tier: Some(Tier::Vip), ..Default::default() }).await, ["marten"]);
    assert_eq!(names(MemberQuery { role: Some("support".into()), ..Default::default() }).await, ["nora"]);
    let mut query = MemberQuery { limit: Some(1), ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = world.staff.search_members(&admin, &query).await.unwrap();
        paged.extend(page.items.into_iter().map(|profile| profile.username));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, ["olga", "nora", "marten", "mara"]);
    let two = MemberQuery { limit: Some(3), ..Default::default() };
    assert_eq!(world.staff.members_page(&admin, &two, 2).await.unwrap().len(), 1);
    assert!(world.staff.members_page(&admin, &two, 9).await.unwrap().is_empty(), "out of range is empty");
    let forged = MemberQuery { cursor: Some("x.y".into()), ..Default::default() };
    assert!(matches!(world.staff.search_members(&admin, &forged).await, Err(MemberError::Invalid(_))));
}

#[tokio::test]
async fn v8_2_1_nobody_administers_without_the_permission() {
    let (world, members) = shop().await;
    let member = &members[0];
    let none =
        Actor { id: "m".into(), permissions: vec![Permission::CatalogBrowse, Permission::OrderTrade], address: "::1".into() };
    let forbidden = |permission| Some(MemberError::Forbidden(permission));
    use Permission as P;
    assert_eq!(world.staff.search_members(&none, &MemberQuery::default()).await.err(), forbidden(P::MemberRead));
    assert_eq!(world.staff.member(&none, member).await.err(), forbidden(P::MemberRead));
    assert_eq!(world.staff.find(&none, "mara").await.err(), forbidden(P::MemberRead));
    assert_eq!(world.roles.all(&none).await.err(), forbidden(P::MemberRead));
    assert_eq!(world.staff.suspend(&none, member, None, "").await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.staff.activate(&none, member, None, "").await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.staff.set_tier(&none, member, None, Tier::Svip).await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.staff.end_member_sessions(&none, member).await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.staff.resend_verification(&none, member).await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.members.erase_member(&none, member).await.err(), forbidden(P::MemberWrite));
    assert_eq!(world.staff.change_role(&none, member, None, None).await.err(), forbidden(P::RoleManage));
    assert_eq!(world.staff.create_setup_token(&none, "admin").await.err(), forbidden(P::RoleManage));
    assert_eq!(world.sessions.rotate_keys(&none, false).await.err(), forbidden(P::KeyManage));
    assert_eq!(world.audit.search(&none, &AuditQuery::default()).await.err(), forbidden(P::AuditRead));
    // Who may give roles gives no more than they have, and who may not does nothing to those who have one.
    let roles_only = Actor { permissions: vec![P::RoleManage, P::MemberWrite], ..none.clone() };
    let more = world.staff.change_role(&roles_only, member, None, Some("admin")).await;
    assert!(matches!(more, Err(MemberError::Forbidden(_))), "{more:?}");
    world.staff.change_role(&world.admin(), member, None, Some("admin")).await.unwrap();
    let writer = Actor { permissions: vec![P::MemberWrite], ..none };
    assert_eq!(world.staff.suspend(&writer, member, None, "").await.err(), forbidden(P::RoleManage));
    assert_eq!(world.members.erase_member(&writer, member).await.err(), forbidden(P::RoleManage));
}

#[tokio::test]
async fn v16_3_1_what_was_done_is_in_the_audit_log() {
    let (world, members) = shop().await;
    let admin = Actor { address: "192.0.2.9".into(), ..world.admin() };
    world.staff.suspend(&admin, &members[0], None, "asked\nfor").await.unwrap();
    let role = Role { name: "desk".into(), permissions: vec![Permission::MemberRead], built_in: false };
    world.roles.put(&admin, &role, &kindred_members::Seen::Absent).await.unwrap();
    assert!(world.roles.all(&admin).await.unwrap().contains(&role));
    assert!(world.sign_in.first(world.credentials("nora", "wrong password")).await.is_err());
    world.deliver().await;
    let all = async |query: AuditQuery| world.audit.search(&admin, &query).await.unwrap().items;
    let about = all(AuditQuery { subject: Some(members[0].clone()), kind: Some("member".into()), ..Default::default() }).await;
    let [entry] = &about[..] else { panic!("{about:?}") };
    assert_eq!((entry.actor.as_str(), entry.kind.as_str(), entry.ok), ("operator:test", "member.suspend", true));
    assert_eq!((entry.address.as_str(), entry.detail["reason"].as_str()), ("192.0.2.9", "asked\u{fffd}for"), "V16.4.1");
    let failed = all(AuditQuery { kind: Some("sign_in".into()), ..Default::default() }).await;
    assert_eq!((failed.len(), failed[0].ok, failed[0].subject.as_str()), (1, false, members[2].as_str()));
    let everything = all(AuditQuery { limit: Some(200), ..Default::default() }).await;
    assert!(everything.is_sorted_by(|one, next| one.at >= next.at));
    let paged = world.audited(AuditQuery { limit: Some(3), ..Default::default() }).await;
    assert_eq!(paged, everything);
}

#[tokio::test]
async fn a_profile_is_changed_as_it_was_read() {
    let (world, members) = shop().await;
    let before = world.profiles.of(&members[0]).await.unwrap();
    let change = ProfileChange { marketing_consent: Some(true), ..Default::default() };
    let after = world.profiles.update(&members[0], &before.version, &change).await.unwrap();
    assert!(after.marketing_consent && after.version != before.version);
    let late = world.profiles.update(&members[0], &before.version, &change).await;
    assert_eq!(late.err(), Some(MemberError::Changed));
    let export = world.members.export(&members[0]).await.unwrap();
    assert_eq!(export.profile, after);
    assert!(export.audit.iter().any(|entry| entry.kind == "registration"));
}

/// One that may what a permission and a half say: as staff who signed in.
fn actor_with(id: &str, permissions: &[Permission]) -> Actor {
    Actor { id: id.into(), permissions: permissions.to_vec(), address: "192.0.2.9".into() }
}

/// Findings 7, 18: over all pairs of permissions, nothing that somebody makes, gives or changes has more than they have, and nobody acts
/// on somebody who may more.
#[tokio::test]
async fn v8_2_1_what_is_made_has_no_more_power_than_its_maker() {
    let (world, members) = shop().await;
    let admin = world.admin();
    let staff: Vec<Permission> = Permission::ALL.iter().copied().filter(|permission| !permission.is_members()).collect();
    let covers = |actor: &Actor, role: &[Permission]| role.iter().all(|permission| actor.permissions.contains(permission));
    for (number, &has) in staff.iter().enumerate() {
        // A member who has one permission, and a role of one permission to give.
        let name = format!("only-{number}");
        let role = Role { name: name.clone(), permissions: vec![has], built_in: false };
        world.roles.put(&admin, &role, &kindred_members::Seen::Absent).await.unwrap();
        let other = &members[0];
        world.staff.change_role(&admin, other, None, Some(&name)).await.unwrap();
        for &second in &staff {
            for first in [Permission::RoleManage, Permission::MemberWrite] {
                let actor = actor_with("desk", &[first, second]);
                let makes = first == Permission::RoleManage || second == Permission::RoleManage;
                let may = makes && covers(&actor, &[has]);
                let case = format!("{:?} on {has:?}", actor.permissions);
                let made = world.staff.create_setup_token(&actor, &name).await;
                assert_eq!(made.is_ok(), may, "{case}: a token");
                let changed = Role { permissions: vec![], ..role.clone() };
                let emptied = world.roles.put(&actor, &changed, &kindred_members::Seen::Any).await;
                assert_eq!(emptied.is_ok(), may, "{case}: a role is emptied");
                if may {
                    world.roles.put(&admin, &role, &kindred_members::Seen::Any).await.unwrap();
                }
                let writes = actor.permissions.contains(&Permission::MemberWrite) && may;
                let acts = [
                    world.staff.suspend(&actor, other, None, "x").await,
                    world.staff.activate(&actor, other, None, "x").await,
                    world.staff.set_tier(&actor, other, None, Tier::Vip).await,
                    world.staff.end_member_sessions(&actor, other).await,
                ];
                for (act, done) in acts.into_iter().enumerate() {
                    assert_eq!(done.is_ok(), writes, "{case}: act {act}: {done:?}");
                }
                if !writes {
                    assert!(world.members.erase_member(&actor, other).await.is_err(), "{case}");
                    let resent = world.staff.resend_verification(&actor, other).await;
                    assert!(matches!(resent, Err(MemberError::Forbidden(_))), "{case}: {resent:?}");
                }
                let taken = world.staff.change_role(&actor, other, None, None).await;
                assert_eq!(taken.is_ok(), may, "{case}: the role is taken");
                let given = world.staff.change_role(&actor, &members[1], None, Some(&name)).await;
                assert_eq!(given.is_ok(), may, "{case}: the role is given");
                for member in &members[..2] {
                    world.staff.change_role(&admin, member, None, (member == other).then_some(&*name)).await.unwrap();
                }
            }
        }
    }
}

/// Finding 9: a set-up token is worth what its maker is when it is redeemed.
#[tokio::test]
async fn a_set_up_token_does_not_outlive_the_authority_of_its_maker() {
    use secrecy::ExposeSecret;
    for fall in
        ["stands", "demoted", "demoted and raised", "suspended", "erased", "no second factor", "withdrawn", "key", "bad key"]
    {
        let (world, members) = shop().await;
        let (maker, admin) = (&members[0], world.admin());
        let claims = world.claims(&world.sign_in("mara").await);
        let enrolment =
            world.factors.enrol_totp(&claims, &crate::support::PASSWORD.into(), crate::support::ADDRESS).await.unwrap();
        let totp = totp_rs::Builder::new()
            .with_secret(totp_rs::Secret::try_from_base32(enrolment.secret.expose_secret()).unwrap())
            .with_account_name("x")
            .build()
            .unwrap();
        let code = totp.generate((world.clock.now().0 / 1_000).unsigned_abs()).to_string();
        world.factors.confirm_totp(&claims, &code, crate::support::ADDRESS).await.unwrap();
        if fall != "no second factor" {
            world.staff.change_role(&admin, maker, None, Some("admin")).await.unwrap();
        }
        let id = if fall.ends_with("key") { "key:k1" } else { maker };
        let actor = actor_with(id, Permission::ALL);
        let token = world.staff.create_setup_token(&actor, "admin").await.unwrap();
        let listed = world.staff.setup_tokens(&admin).await.unwrap();
        assert_eq!((listed.len(), listed[0].made_by.as_str(), listed[0].role.as_str()), (1, id, "admin"));
        match fall {
            "demoted" => world.staff.change_role(&admin, maker, None, Some("support")).await.unwrap(),
            "demoted and raised" => {
                world.staff.change_role(&admin, maker, None, None).await.unwrap();
                world.staff.change_role(&admin, maker, None, Some("admin")).await.unwrap();
            }
            "suspended" => world.staff.suspend(&admin, maker, None, "x").await.unwrap(),
            "erased" => drop(world.members.erase_member(&admin, maker).await.unwrap()),
            "withdrawn" => world.staff.withdraw_setup_token(&admin, &listed[0].id).await.unwrap(),
            _ => {}
        }
        let heir = world.claims(&world.sign_in("nora").await);
        let is_good = |key: &str| key == "k1" && fall == "key";
        let redeemed = world.staff.redeem_setup_token(&heir, token.expose_secret(), "192.0.2.1", is_good).await;
        world.deliver().await;
        let good = matches!(fall, "stands" | "key");
        assert_eq!(redeemed, if good { Ok(()) } else { Err(MemberError::TokenGone) }, "{fall}");
        assert!(world.staff.setup_tokens(&admin).await.unwrap().is_empty(), "{fall}: none is left");
        let query = AuditQuery { subject: Some(members[2].clone()), kind: Some("role".into()), ..Default::default() };
        let entries = world.audit.search(&admin, &query).await.unwrap().items;
        let made_by = entries.first().map(|entry| entry.detail["made_by"].clone());
        assert_eq!(made_by.as_deref(), good.then_some(id), "{fall}: the log names the maker");
    }
}
