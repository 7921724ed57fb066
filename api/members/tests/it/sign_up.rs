//! What people type, what they may take from each other before they have proved anything, and what strangers may cost.

use kindred_members::{Language, MemberError, MemberQuery, Registration, Solution};

use crate::support::{ADDRESS, PASSWORD, World, codes, config};

impl World {
    /// A form with a fresh code to the phone, from an address of its own.
    async fn form_of(&self, name: &str, phone: &str, email: &str, address: &str) -> Registration {
        let solved = async || Solution::find(&self.challenges.draw(address).await.unwrap());
        self.registrations.request_phone_code(phone, [None; 3], Language::En, &solved().await, address).await.unwrap();
        self.deliver().await;
        let form = self.form_without_code(name, phone, &self.inbox.code(&format!("+86{phone}"))).await.unwrap();
        Registration { email: email.into(), address: address.into(), solution: solved().await, ..form }
    }

    async fn registers(&self, name: &str, phone: &str, email: &str) -> Result<(), MemberError> {
        let form = self.form_of(name, phone, email, "203.0.113.77").await;
        let outcome = self.registrations.register(form).await;
        self.deliver().await;
        outcome
    }

    fn mails(&self, to: &str) -> Vec<String> {
        let inbox = self.inbox.0.lock();
        inbox.iter().filter(|message| message.to == to).map(|message| message.rendered.subject.clone()).collect()
    }
}

/// Finding 12, V6.3.8: everything that an asker can try within the day after a registration that names an address, and sees.
async fn asked_about(taken: bool) -> Vec<String> {
    let world = World::of_mara().await;
    world.pass(7_200);
    let asked = if taken { "Mara@example.com" } else { "free@example.com" };
    let mut seen = vec![format!("{:?}", world.registers("asker", "13812345001", asked).await)];
    // The name again, with other phones, at once and just before the day is over; then with the phone that it was registered with.
    for (number, wait) in [(2, 2), (3, 3_700), (4, 80_000)] {
        world.pass(wait);
        let mail = format!("own{number}@example.org");
        seen.push(format!("{:?}", world.registers("ASKER", &format!("1381234500{number}"), &mail).await));
        seen.push(format!("{:?}", world.mails(&mail)));
    }
    seen.push(format!("{:?}", world.registers("asker", "13812345001", "own@example.org").await));
    seen.push(format!("{:?}", world.mails("own@example.org")));
    seen.push(format!("{:?}", world.registrations.verify_email(&world.inbox.token("own@example.org"), ADDRESS).await.is_ok()));
    seen.push(format!("{:?}", world.sign_in("asker").await.scope));
    seen
}

/// If it failed, registering twice would tell who is registered.
#[tokio::test]
async fn v6_3_8_registering_twice_tells_nothing() {
    let (taken, free) = (asked_about(true).await, asked_about(false).await);
    assert_eq!(taken, free);
    assert_eq!(taken.iter().filter(|seen| seen.contains("UsernameTaken")).count(), 3, "{taken:?}");
    // A day later both names are free again.
    for mail in ["mara@example.com", "free@example.com"] {
        let world = World::of_mara().await;
        world.pass(7_200);
        assert_eq!(world.registers("asker", "13812345001", mail).await, Ok(()));
        world.pass(kindred_members::UNVERIFIED_S + 1);
        assert_eq!(world.registers("asker", "13812345002", "own@example.org").await, Ok(()), "{mail}");
    }
}

/// Public bug G: whoever mistypes the address registers again with the same name and phone, and the stranger who has the wrong address
/// gets nothing by its link.
#[tokio::test]
async fn a_mistyped_address_locks_nothing() {
    let world = World::new().await;
    assert_eq!(world.registers("tilda", "13800160005", "tilda@exmaple.com").await, Ok(()));
    let strangers = world.inbox.token("tilda@exmaple.com");
    world.pass(61);
    assert_eq!(world.registers("tilda", "13800160005", "tilda@example.com").await, Ok(()));
    assert_eq!(world.registrations.verify_email(&strangers, ADDRESS).await, Err(MemberError::TokenGone));
    world.deliver().await;
    let member = world.registrations.verify_email(&world.inbox.token("tilda@example.com"), ADDRESS).await.unwrap();
    assert_eq!(world.sign_in("tilda").await.member, member);
    assert_eq!(world.sign_in("13800160005").await.member, member);
    // With another name the phone is the later one's as well.
    assert_eq!(world.registers("bruno", "13800160006", "bruno@exmaple.com").await, Ok(()));
    let strangers = world.inbox.token("bruno@exmaple.com");
    world.pass(61);
    assert_eq!(world.registers("bruno2", "13800160006", "bruno@example.com").await, Ok(()));
    assert_eq!(world.registrations.verify_email(&strangers, ADDRESS).await, Err(MemberError::TokenGone));
    world.registrations.verify_email(&world.inbox.token("bruno@example.com"), ADDRESS).await.unwrap();
    world.sign_in("bruno2").await;
    // What is a member's is nobody's to take.
    world.pass(61);
    assert_eq!(world.registers("tilda", "13800160005", "late@example.com").await, Err(MemberError::UsernameTaken));
    world.pass(61);
    assert_eq!(world.registers("tilda3", "13800160005", "late@example.com").await, Ok(()));
    assert_eq!(world.mails("late@example.com"), ["Your registration at Teahouse"]);
    assert_eq!(world.sign_in("13800160005").await.member, member);
}

/// Finding 14: an address belongs to whoever opens the link, not to whoever named it first.
#[tokio::test]
async fn the_last_to_prove_an_address_has_it() {
    let world = World::new().await;
    assert_eq!(world.registers("squat1", "13800160001", "victim@example.com").await, Ok(()));
    let squatters = world.inbox.token("victim@example.com");
    assert_eq!(world.registers("victim", "13800160002", "victim@example.com").await, Ok(()));
    let victims = world.inbox.token("victim@example.com");
    assert_ne!(squatters, victims);
    let member = world.registrations.verify_email(&victims, ADDRESS).await.unwrap();
    assert_eq!(world.sign_in("victim").await.member, member);
    assert_eq!(world.registrations.verify_email(&squatters, ADDRESS).await, Err(MemberError::TokenGone));
    // And a phone to whoever shows its code last, also by a change.
    assert_eq!(world.registers("squat2", "13800160009", "squat2@example.com").await, Ok(()));
    let claims = world.claims(&world.sign_in("victim").await);
    world.pass(61);
    world.credentials.change_phone(&claims, &PASSWORD.into(), "138 0016 0009", ADDRESS).await.unwrap();
    world.deliver().await;
    let code = world.inbox.code("+8613800160009");
    let code = format!("{} {}", &code[..3], &code[3..]);
    world.credentials.confirm_phone(&claims, &PASSWORD.into(), "+86 138-0016-0009", &code, ADDRESS).await.unwrap();
    assert_eq!(world.sign_in("13800160009").await.member, member);
    let squatters = world.inbox.token("squat2@example.com");
    assert_eq!(world.registrations.verify_email(&squatters, ADDRESS).await, Err(MemberError::TokenGone));
}

/// Finding 14: what a stranger writes into a form reaches no address that has not been proved.
#[tokio::test]
async fn no_text_of_a_form_is_mailed_to_an_address_that_is_not_proved() {
    let world = World::of_mara().await;
    for name in ["https://evil.example/gift", "evil.example/gift", "a<b", "a:b"] {
        let form = world.form_without_code(name, "13812345001", "000000").await.unwrap();
        assert_eq!(codes(world.registrations.register(form).await)[0], ("username", "username_invalid"), "{name}");
    }
    for (language, number) in [(Language::En, 1), (Language::ZhCn, 2)] {
        let name = format!("www.evil-{number}.example");
        for (turn, (phone, mail)) in [
            (format!("1381234510{number}"), format!("new{number}@example.org")),
            (format!("1381234520{number}"), "mara@example.com".to_owned()),
            ("13812345678".to_owned(), format!("other{number}@example.org")),
        ]
        .into_iter()
        .enumerate()
        {
            let mut form = world.form_of(&format!("{name}{turn}"), &phone, &mail, "203.0.113.9").await;
            form.language = Some(language);
            assert_eq!(world.registrations.register(form).await, Ok(()));
            world.deliver().await;
            world.pass(61);
        }
    }
    let claims = world.claims(&world.sign_in("mara").await);
    world.credentials.change_email(&claims, &PASSWORD.into(), "new-mara@example.org", ADDRESS).await.unwrap();
    world.deliver().await;
    let inbox = world.inbox.0.lock();
    let mails: Vec<_> = inbox.iter().filter(|message| message.to.contains('@')).collect();
    assert!(mails.len() >= 8, "{}", mails.len());
    for mail in mails {
        let text = format!("{}\n{}", mail.rendered.subject, mail.rendered.body);
        assert!(!text.contains("evil") && !text.contains("13812345"), "{text}");
        assert!(mail.to != "new-mara@example.org" || !text.contains("Hello mara"), "{text}");
    }
}

/// V2.4.1: each quota refuses: without it robots would send mails and messages at the shop's cost.
#[tokio::test]
async fn v2_4_1_every_quota_refuses() {
    let mut settings = config();
    let limits = &mut settings.limits;
    (limits.challenges_hour, limits.phone_codes_address_hour, limits.phone_codes_all_hour) = (12, 3, 5);
    let mails_hour = limits.mails_hour;
    let world = World::with(settings).await;
    let throttled = |outcome: &Result<(), MemberError>| matches!(outcome, Err(MemberError::Throttled { .. }));
    let ask = async |phone: u32, address: &str| {
        let solution = Solution::find(&world.challenges.draw(address).await.unwrap());
        world.registrations.request_phone_code(&format!("138{phone:08}"), [None; 3], Language::En, &solution, address).await
    };
    let mut outcomes = Vec::new();
    for phone in 0..4 {
        outcomes.push(throttled(&ask(phone, "192.0.2.1").await));
    }
    assert_eq!(outcomes, [false, false, false, true], "codes of an address");
    let mut outcomes = Vec::new();
    for phone in 10..14 {
        outcomes.push(throttled(&ask(phone, &format!("192.0.2.{phone}")).await));
    }
    assert_eq!(outcomes, [false, false, true, true], "codes in all, whoever asks");
    world.pass(3_601);
    assert_eq!(ask(20, "192.0.2.20").await, Ok(()), "an hour later");
    let mut challenges = 0;
    while world.challenges.draw("192.0.2.30").await.is_ok() {
        challenges += 1;
    }
    assert_eq!(challenges, 12);

    // Mails to one address, whoever asks for them and however.
    let world = World::new().await;
    for number in 0..=mails_hour {
        let form = world.form_of(&format!("name-{number}"), &format!("1390000000{number}"), "one@example.com", "192.0.2.1").await;
        assert_eq!(throttled(&world.registrations.register(form).await), number == mails_hour, "{number}");
    }
    world.deliver().await;
    assert_eq!(world.mails("one@example.com").len(), mails_hour as usize);
    let solution = world.solution().await;
    assert!(throttled(&world.registrations.request_verification("one@example.com", &solution, ADDRESS).await));

    let world = World::of_mara().await;
    world.pass(3_601);
    let before = world.mails("mara@example.com").len();
    for account in ["mara", "13812345678", "MARA", "+86 138 1234 5678"] {
        for number in 0..4 {
            let address = format!("198.51.100.{number}");
            let solution = Solution::find(&world.challenges.draw(&address).await.unwrap());
            let _throttled_or_not = world.credentials.request_reset(account, &solution, &address).await;
        }
    }
    world.deliver().await;
    assert_eq!(world.mails("mara@example.com").len() - before, mails_hour as usize, "by all names of an account together");
}

/// Finding 2: what costs comes last. A weak password is judged for nobody who has not solved a challenge.
#[tokio::test]
async fn what_costs_comes_after_what_is_cheap() {
    let world = World::new().await;
    let form = world.form("mara", "13812345678").await.unwrap();
    let weak = |form: &Registration| Registration { password: "password1".into(), ..form.clone() };
    let mut forged = weak(&form);
    forged.solution.token.insert(0, 'A');
    assert_eq!(world.registrations.register(forged).await, Err(MemberError::ChallengeFailed));
    let mut short = form.clone();
    (short.password, short.username) = ("short".into(), "a b".into());
    assert_eq!(
        codes(world.registrations.register(short).await),
        [("username", "username_invalid"), ("password", "password_short")]
    );
    assert_eq!(codes(world.registrations.register(weak(&form)).await), [("password", "password_breached")]);
    // Neither used up the code.
    let solution = world.solution().await;
    assert_eq!(world.registrations.register(Registration { solution, ..form }).await, Ok(()));
    world.deliver().await;
    let token = world.inbox.token("mara@example.com");
    world.registrations.verify_email(&token, ADDRESS).await.unwrap();
    // A step before: an earlier field that is wrong costs no message to a phone.
    let sent = world.inbox.0.lock().len();
    let solution = world.solution().await;
    let fields = [Some("a b"), Some("notamail"), Some("short")];
    let refused = world.registrations.request_phone_code("13812345002", fields, Language::En, &solution, ADDRESS).await;
    let expected = [("username", "username_invalid"), ("email", "email_invalid"), ("password", "password_short")];
    assert_eq!(codes(refused), expected);
    let fields = [Some("nora"), Some("nora@example.com"), Some("password1")];
    let refused = world.registrations.request_phone_code("13812345002", fields, Language::En, &solution, ADDRESS).await;
    assert_eq!(codes(refused), [("password", "password_breached")]);
    let solution = world.solution().await;
    let fields = [Some("mara"), None, None];
    let refused = world.registrations.request_phone_code("13812345002", fields, Language::En, &solution, ADDRESS).await;
    assert_eq!(refused, Err(MemberError::UsernameTaken));
    world.deliver().await;
    assert_eq!(world.inbox.0.lock().len(), sent, "no message was sent");
    let claims = world.claims(&world.sign_in("mara").await);
    let mut outcomes = Vec::new();
    for _ in 0..21 {
        outcomes.push(world.credentials.change_password(&claims, &PASSWORD.into(), "password1".into(), true, ADDRESS).await);
    }
    assert!(matches!(outcomes[20], Err(MemberError::Throttled { .. })), "{:?}", outcomes[20]);
}

/// V6.1.1 behind one address: others' guesses at other accounts lock nobody out who is known here.
#[tokio::test]
async fn v6_1_1_who_shares_the_address_of_a_guesser_signs_in() {
    let world = World::of_mara().await;
    let device = world.sign_in("mara").await.device.unwrap();
    for number in 0..65 {
        let guess = world.credentials(&format!("account{number}"), "wrong password");
        assert!(world.sign_in.first(guess).await.is_err());
    }
    let unknown = world.sign_in.first(world.credentials("nora", PASSWORD)).await.err();
    assert!(matches!(unknown, Some(MemberError::Throttled { .. })), "the guesser waits: {unknown:?}");
    assert!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_ok(), "at a known address");
    let mut guess = world.credentials("mara", "wrong password");
    for _ in 0..20 {
        assert!(world.sign_in.first(guess.clone()).await.is_err(), "at the account itself");
    }
    guess.password = PASSWORD.into();
    guess.device = Some(device);
    assert!(world.sign_in.first(guess).await.is_ok(), "in a known browser");
}

/// Findings 25, F, H, L: what was typed at sign-up is found however it is typed later.
#[tokio::test]
async fn what_is_typed_once_is_found_however_it_is_typed() {
    let mut settings = config();
    settings.registration.phone_regions = vec!["DE".into(), "CN".into()];
    let world = World::with(settings).await;
    let solved = async || Solution::find(&world.challenges.draw(ADDRESS).await.unwrap());
    world.registrations.request_phone_code("0151 23456789", [None; 3], Language::En, &solved().await, ADDRESS).await.unwrap();
    world.deliver().await;
    let code = world.inbox.code("+4915123456789");
    let mut form =
        world.form_without_code("Straße", "(0151) 23456789", &format!(" {}-{} ", &code[..3], &code[3..])).await.unwrap();
    (form.email, form.password) = (" mara@example.com ".into(), "Gru\u{308}ße aus Qzvw 71".into());
    world.registrations.register(form).await.unwrap();
    world.deliver().await;
    let member = world.registrations.verify_email(&world.inbox.token("mara@example.com"), ADDRESS).await.unwrap();
    world.deliver().await;
    for account in
        ["straße", "STRASSE", "ｓｔｒａｓｓｅ", "0151 23456789", "0049151/23456789", "+49 (0)151-23456789", "0151.234.567.89"]
    {
        for password in ["Grüße aus Qzvw 71", "Gru\u{308}ße aus Qzvw 71"] {
            let grant = world.sign_in.first(world.credentials(account, password)).await;
            assert!(grant.is_ok(), "{account} {password}: {grant:?}");
        }
        let found = world.staff.find(&world.admin(), account).await.unwrap();
        assert_eq!(found.map(|profile| profile.member), Some(member.clone()), "{account}");
    }
    for (kind, text) in [
        (kindred_members::Kind::Phone, "0151 2"),
        (kindred_members::Kind::Phone, "+49 151"),
        (kindred_members::Kind::Username, "STRAS"),
        (kindred_members::Kind::Email, "MARA@"),
    ] {
        let query = MemberQuery { prefix: Some((kind, text.into())), ..Default::default() };
        let found = world.staff.search_members(&world.admin(), &query).await.unwrap();
        assert_eq!(found.items.len(), 1, "{kind:?} {text}");
    }
    // Nobody else registers under what looks like it.
    for (number, name) in
        ["strasse", "ＳＴＲＡẞＥ", "Strаsse".replace('\u{430}', "a").as_str(), "5trasse"].into_iter().enumerate()
    {
        world.pass(61);
        let phone = format!("+8613812345{number:03}");
        world.registrations.request_phone_code(&phone, [None; 3], Language::En, &solved().await, ADDRESS).await.unwrap();
        world.deliver().await;
        let form = world.form_without_code(name, &phone, &world.inbox.code(&phone)).await.unwrap();
        let expected = if name == "5trasse" { Ok(()) } else { Err(MemberError::UsernameTaken) };
        assert_eq!(
            world.registrations.register(Registration { email: "x@example.org".into(), ..form }).await,
            expected,
            "{name}"
        );
    }
}
