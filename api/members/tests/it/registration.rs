//! R8 to R15: the five steps, each rule, and what an outsider may learn.

use kindred_members::{Language, MemberError, Solution, messages};
use kindred_model::records::MemberState;

use crate::support::{ADDRESS, PASSWORD, World, codes};

#[tokio::test]
async fn r8_five_steps_make_a_member() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    world.registrations.register(form).await.unwrap();
    world.deliver().await;
    let states = |world: &World| world.log.merged().values().map(|member| member.state).collect::<Vec<_>>();
    assert_eq!(states(&world), [MemberState::Registered]);
    let refused = world.sign_in.first(world.credentials("mara", PASSWORD)).await;
    assert_eq!(refused.err(), Some(MemberError::Unauthenticated), "only verified identifiers sign in");
    let token = world.inbox.token("mara@example.com");
    let member = world.registrations.verify_email(&token, ADDRESS).await.unwrap();
    let profile = world.profiles.of(&member).await.unwrap();
    assert_eq!((profile.agreement.version.as_str(), profile.agreement.accepted_at), ("1", world.clock.now()));
    world.deliver().await;
    assert_eq!(states(&world), [MemberState::Activated]);
    assert_eq!(profile.phone, "+8613812345678");
    for account in ["mara", "MARA", "13812345678", "+8613812345678"] {
        assert_eq!(world.sign_in(account).await.member, member);
    }
    let by_mail = world.sign_in.first(world.credentials("mara@example.com", PASSWORD)).await;
    assert_eq!(by_mail.err(), Some(MemberError::Unauthenticated), "not by e-mail unless the settings say so");
    assert_eq!(world.registrations.verify_email(&token, ADDRESS).await, Err(MemberError::TokenGone), "once");
}

/// R9 to R12, R15: every field that is wrong is named, with the seed's messages.
#[tokio::test]
async fn v2_2_1_every_field_is_judged() {
    let world = World::new().await;
    let mut form = world.form_without_code("mara", "13812345678", "000000").await.unwrap();
    (form.username, form.phone, form.email) = (" a ".into(), "12812345678".into(), "a@b.c\r\nBcc: x@y.zz".into());
    (form.password, form.agreement_version) = ("short".into(), "0".into());
    let errors = codes(world.registrations.register(form).await);
    assert_eq!(
        errors,
        [
            ("username", "username_invalid"),
            ("phone", "phone_invalid"),
            ("email", "email_invalid"),
            ("password", "password_short"),
            ("agreement_version", "agreement_stale"),
        ]
    );
    let zh = |code| messages::text_with_min(code, Language::ZhCn, 6).unwrap();
    assert_eq!(zh("username_invalid"), "用户名不能为空且长度不能小于2");
    assert_eq!(zh("phone_invalid"), "手机号码不合法");
    assert_eq!(zh("email_invalid"), "邮箱格式不正确");
    assert_eq!(zh("password_short"), "密码不能为空且长度不能小于6");
    assert_eq!(zh("registered"), "注册成功");
    assert_eq!(zh("identifier_taken"), "用户名或手机号码或邮箱已经存在");
}

#[tokio::test]
async fn v2_3_1_no_step_is_skipped() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    let mut unsolved = form.clone();
    unsolved.solution.token.insert(0, 'A');
    assert_eq!(world.registrations.register(unsolved).await, Err(MemberError::ChallengeFailed));
    let mut wrong = form.clone();
    wrong.solution = world.solution().await;
    wrong.phone_code = if form.phone_code == "000000" { "000001".into() } else { "000000".into() };
    assert_eq!(world.registrations.register(wrong).await, Err(MemberError::CodeWrong));
    assert_eq!(world.registrations.register(form.clone()).await, Ok(()));
    let mut again = form;
    (again.username, again.email) = ("other".into(), "other@example.com".into());
    assert_eq!(world.registrations.register(again.clone()).await, Err(MemberError::ChallengeFailed), "a solution is good once");
    again.solution = world.solution().await;
    assert_eq!(world.registrations.register(again).await, Err(MemberError::CodeWrong), "a code is good once");
    let forged = Solution { token: "forged".into(), nonce: "0".into() };
    assert_eq!(world.registrations.request_verification("a@b.cc", &forged, ADDRESS).await, Err(MemberError::ChallengeFailed));
    assert_eq!(world.credentials.request_reset("mara", &forged, ADDRESS).await, Err(MemberError::ChallengeFailed));
    assert_eq!(world.registrations.verify_email("x.y", ADDRESS).await, Err(MemberError::TokenGone), "a forged link");
    let late = Solution::find(&world.challenges.draw(ADDRESS).await.unwrap());
    world.pass(kindred_members::CHALLENGE_S);
    let asked = world.registrations.request_phone_code("13800000000", [None; 3], Language::En, &late, ADDRESS).await;
    assert_eq!(asked, Err(MemberError::ChallengeFailed), "expired");
}

/// V2.4.1 and the limits on codes: per address, per phone.
#[tokio::test]
async fn v2_4_1_registrations_and_codes_are_limited() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    let mut form = form;
    for number in 0..world.config.limits.registrations_hour {
        let expected = if number == 0 { Ok(()) } else { Err(MemberError::ChallengeFailed) };
        assert_eq!(world.registrations.register(form.clone()).await, expected);
    }
    form.solution = world.solution().await;
    let refused = world.registrations.register(form.clone()).await;
    assert!(matches!(refused, Err(MemberError::Throttled { retry_after_s: 3_400..=3_600 })), "{refused:?}");
    form.address = "192.0.2.8".into();
    assert!(!matches!(world.registrations.register(form).await, Err(MemberError::Throttled { .. })), "another address");
    let ask = async |phone: &str| {
        let solution = world.solution().await;
        world.registrations.request_phone_code(phone, [None; 3], Language::En, &solution, ADDRESS).await
    };
    assert_eq!(ask("13900000000").await, Ok(()));
    assert!(matches!(ask("13900000000").await, Err(MemberError::Throttled { retry_after_s: 60 })), "one a minute");
    for _ in 1..5 {
        world.pass(60);
        assert_eq!(ask("13900000000").await, Ok(()));
    }
    world.pass(60);
    assert!(matches!(ask("13900000000").await, Err(MemberError::Throttled { .. })), "five an hour");
}

/// V6.3.8: what exists makes no difference to an answer, nor to what is written before it is given.
#[tokio::test]
async fn v6_3_8_nobody_learns_who_is_registered() {
    let world = World::of_mara().await;
    world.pass(7_200);
    let mut calls = Vec::new();
    for (name, phone, email) in [
        ("nora", "13812345679", "nora@example.com"),
        ("olga", "13812345678", "olga@example.com"),
        ("pia", "13812345677", "Mara@Example.com"),
    ] {
        let mut form = world.form(name, phone).await.unwrap();
        form.email = email.into();
        let before = world.memory.calls();
        assert_eq!(world.registrations.register(form).await, Ok(()));
        calls.push(world.memory.calls() - before);
        world.pass(100);
        world.deliver().await;
    }
    assert_eq!(calls, vec![calls[0]; 3], "as many steps before the answer");
    assert!(world.inbox.last("olga@example.com").unwrap().rendered.subject.contains("Your registration"));
    assert!(world.inbox.last("Mara@Example.com").unwrap().rendered.subject.contains("already have an account"));
    // Of those who were turned away the names stay held, as of those who were not (sign_up.rs tries all of it).
    world.pass(3_600);
    for (name, phone) in [("nora", "13812345671"), ("olga", "13812345670"), ("pia", "13812345672")] {
        let form = world.form(name, phone).await.unwrap();
        assert_eq!(world.registrations.register(form).await, Err(MemberError::UsernameTaken), "{name}");
    }
    let mut resets = Vec::new();
    for account in ["mara", "nobody", "13812345678", "13999999999"] {
        let solution = world.solution().await;
        let before = world.memory.calls();
        assert_eq!(world.credentials.request_reset(account, &solution, ADDRESS).await, Ok(()));
        resets.push(world.memory.calls() - before);
    }
    assert_eq!(resets, vec![resets[0]; 4]);
    let mut sign_ins = Vec::new();
    for account in ["mara", "nobody", "13812345678", "13999999999"] {
        let before = world.memory.calls();
        let mut credentials = world.credentials(account, "wrong password");
        credentials.address = "198.51.100.1".into();
        assert_eq!(world.sign_in.first(credentials).await.err(), Some(MemberError::Unauthenticated));
        sign_ins.push(world.memory.calls() - before);
    }
    // Of a name more places are looked at than of a phone; of one that exists, as many as of one that does not.
    for kind in sign_ins.chunks(2) {
        assert!(kind[0].abs_diff(kind[1]) <= 1, "{sign_ins:?}: the account itself is read");
    }
}

/// R13: what is not verified within 24 h is free again; what is verified never is.
#[tokio::test]
async fn r13_claims_expire_unless_verified() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    world.registrations.register(form).await.unwrap();
    world.deliver().await;
    world.pass(3_600);
    let again = world.form("mara", "13812345670").await.unwrap();
    assert_eq!(world.registrations.register(again).await, Err(MemberError::UsernameTaken));
    let late = world.inbox.token("mara@example.com");
    world.pass(kindred_members::UNVERIFIED_S);
    assert_eq!(world.registrations.verify_email(&late, ADDRESS).await, Err(MemberError::TokenGone));
    let member = world.member("mara", "13812345678").await;
    world.pass(400 * 86_400);
    let solution = world.solution().await;
    world.registrations.request_phone_code("13812345699", [None; 3], Language::En, &solution, ADDRESS).await.unwrap();
    world.deliver().await;
    let code = world.inbox.code("+8613812345699");
    let late = world.form_without_code("mara", "13812345699", &code).await.unwrap();
    assert_eq!(world.registrations.register(late).await, Err(MemberError::UsernameTaken));
    assert_eq!(world.sign_in("mara").await.member, member);
}

/// R22, R24: the invite code binds the inviter, for the dataflow to count.
#[tokio::test]
async fn r22_an_invite_binds_the_inviter() {
    let world = World::new().await;
    let inviter = world.member("mara", "13812345678").await;
    let code = world.profiles.of(&inviter).await.unwrap().invite_code;
    let mut form = world.form("nora", "13812345679").await.unwrap();
    form.invite_code = Some("ZZZZZZZZ".into());
    assert_eq!(codes(world.registrations.register(form.clone()).await), [("invite_code", "invite_unknown")]);
    (form.invite_code, form.solution) = (Some(code.to_lowercase()), world.solution().await);
    world.registrations.register(form).await.unwrap();
    world.deliver().await;
    let invitee = world.registrations.verify_email(&world.inbox.token("nora@example.com"), ADDRESS).await.unwrap();
    world.deliver().await;
    let merged = world.log.merged();
    assert_eq!(merged[&invitee].invited_by.as_ref().map(|by| by.as_str().to_owned()), Some(inviter));
    assert!(merged[&invitee].activated_at.is_some());
}

/// An invitation pays once a person, also after an erasure and a new registration, with either identifier, or one that was changed to.
#[tokio::test]
async fn an_invite_pays_once_a_person() {
    let world = World::new().await;
    let inviter = world.member("mara", "13812345678").await;
    let code = world.profiles.of(&inviter).await.unwrap().invite_code;
    let join = async |name: &str, phone: &str, email: &str| {
        world.pass(3_600);
        let mut form = world.form(name, phone).await.unwrap();
        (form.invite_code, form.email) = (Some(code.clone()), email.into());
        world.registrations.register(form).await.unwrap();
        world.deliver().await;
        let member = world.registrations.verify_email(&world.inbox.token(email), ADDRESS).await.unwrap();
        world.deliver().await;
        let paid = world.log.merged()[&member].invited_by.is_some();
        (member, paid)
    };
    let (first, paid) = join("nora", "13812345679", "nora@example.com").await;
    assert!(paid);
    // She changes her phone before she leaves.
    let claims = world.claims(&world.sign_in("nora").await);
    world.credentials.change_phone(&claims, &PASSWORD.into(), "13800000001", ADDRESS).await.unwrap();
    world.deliver().await;
    let sent = world.inbox.code("+8613800000001");
    world.credentials.confirm_phone(&claims, &PASSWORD.into(), "13800000001", &sent, ADDRESS).await.unwrap();
    world.deliver().await;
    let leave = async |member: &str| {
        world.members.erase_member(&world.admin(), member).await.unwrap();
        world.deliver().await;
    };
    leave(&first).await;
    assert!(world.log.merged()[&first].invited_by.is_some(), "what was paid stays");
    for (name, phone, email) in [
        ("nora", "13812345679", "nora@example.com"),
        ("norah", "13812345679", "other@example.com"),
        ("norabel", "13800000002", "nora@example.com"),
        ("leonora", "13800000001", "third@example.com"),
        ("eleonora", "13800000003", "third@example.com"),
    ] {
        let (member, paid) = join(name, phone, email).await;
        assert!(!paid, "{name}: paid for again");
        assert_eq!(world.members.export(&member).await.unwrap().invited_by, None);
        leave(&member).await;
    }
    let (_, paid) = join("olga", "13800000009", "olga@example.com").await;
    assert!(paid, "another person");
    let left: Vec<String> =
        world.memory.table("invitees", world.clock.now()).iter().map(|record| format!("{record:?}")).collect();
    assert!(
        left.len() >= 6 && left.iter().all(|record| !record.contains("example.com") && !record.contains("13812345679")),
        "{left:?}"
    );
}
