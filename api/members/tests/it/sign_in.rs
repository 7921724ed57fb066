//! Signing in, tokens, sessions, second factor, reset and change: the rows of the security table that are decided here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use kindred_members::{MemberError, SignedIn};
use secrecy::ExposeSecret;
use totp_rs::{Builder, Secret};

use crate::support::{ADDRESS, PASSWORD, World, config};

const NEW: &str = "vextro jumbles 93 quip";

/// V6.1.1: 50 wrong tries from elsewhere do not lock the owner out of a browser or an address that is known.
#[tokio::test]
async fn v6_1_1_a_guesser_does_not_lock_the_owner_out() {
    let world = World::of_mara().await;
    let device = world.sign_in("mara").await.device.unwrap();
    for number in 0..50 {
        let mut guess = world.credentials("mara", "wrong password");
        guess.address = format!("198.51.100.{number}");
        assert!(world.sign_in.first(guess).await.is_err());
    }
    let mut elsewhere = world.credentials("mara", PASSWORD);
    elsewhere.address = "203.0.113.1".into();
    let refused = world.sign_in.first(elsewhere.clone()).await.err();
    assert!(matches!(refused, Some(MemberError::Throttled { .. })), "an unknown browser waits: {refused:?}");
    elsewhere.device = Some(device.clone());
    assert!(world.sign_in.first(elsewhere.clone()).await.is_ok(), "a known browser does not");
    assert!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_ok(), "nor a known address");
    let mut stranger = elsewhere;
    (stranger.account, stranger.address) = ("nobody".into(), "203.0.113.2".into());
    assert_eq!(world.sign_in.first(stranger).await.err(), Some(MemberError::Unauthenticated));
}

/// V6.3.1: over 100 accounts from one address 60 are checked; on one account the wait doubles.
#[tokio::test]
async fn v6_3_1_guessing_is_slow() {
    let world = World::new().await;
    let mut checked = 0;
    for number in 0..1_000 {
        let guess = world.credentials(&format!("account{}", number % 100), "wrong password");
        checked += usize::from(world.sign_in.first(guess).await.err() == Some(MemberError::Unauthenticated));
    }
    assert_eq!(checked, 60);
    let mut waits = Vec::new();
    for number in 0..200 {
        let mut guess = world.credentials("mara", "wrong password");
        guess.address = format!("198.51.{number}.1");
        match world.sign_in.first(guess).await.err() {
            Some(MemberError::Throttled { retry_after_s }) => {
                waits.push(retry_after_s);
                world.pass(retry_after_s.into());
            }
            other => assert_eq!(other, Some(MemberError::Unauthenticated)),
        }
        if waits.len() == 12 {
            break;
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
}

/// V7.2.3, V7.2.4, V10.4.5: refresh tokens are random, new each time, and good once.
#[tokio::test]
async fn v10_4_5_a_refresh_token_used_twice_ends_the_session() {
    let world = World::of_mara().await;
    let first = world.sign_in("mara").await;
    let secret = first.refresh_token.expose_secret().split('.').nth(2).unwrap().to_owned();
    assert_eq!(B64.decode(&secret).unwrap().len(), 32);
    let second = world.sessions.refresh(&first.refresh_token, ADDRESS, "Firefox").await.unwrap();
    assert_ne!(first.refresh_token.expose_secret(), second.refresh_token.expose_secret());
    let mut forged = second.refresh_token.expose_secret().to_owned();
    forged.replace_range(forged.len() - 3.., "AAA");
    assert_eq!(world.sessions.refresh(&forged.into(), ADDRESS, "Firefox").await.err(), Some(MemberError::Unauthenticated));
    assert_eq!(world.sessions.of(&first.member).await.unwrap().len(), 1, "a forged token ends nothing");
    let third = world.sessions.refresh(&second.refresh_token, ADDRESS, "Firefox").await.unwrap();
    for old in [&first, &third] {
        assert_eq!(
            world.sessions.refresh(&old.refresh_token, ADDRESS, "Firefox").await.err(),
            Some(MemberError::Unauthenticated)
        );
    }
    assert_eq!(world.sessions.authenticate(third.access_token.expose_secret()).err(), Some(MemberError::Unauthenticated));
    world.deliver().await;
    let query = kindred_members::AuditQuery { kind: Some("token".into()), ..Default::default() };
    let audit = world.audit.search(&world.admin(), &query).await.unwrap();
    assert_eq!(audit.items.iter().map(|entry| entry.kind.as_str()).collect::<Vec<_>>(), ["token.reuse"]);
}

/// V7.3.1, V7.3.2: 30 days idle, 90 days whatever is done.
#[tokio::test]
async fn v7_3_1_v7_3_2_sessions_end_by_themselves() {
    let world = World::of_mara().await;
    let grant = world.sign_in("mara").await;
    world.pass(30 * 86_400);
    assert_eq!(world.sessions.refresh(&grant.refresh_token, ADDRESS, "Firefox").await.err(), Some(MemberError::Unauthenticated));
    let mut grant = world.sign_in("mara").await;
    for _ in 0..3 {
        world.pass(29 * 86_400);
        grant = world.sessions.refresh(&grant.refresh_token, ADDRESS, "Firefox").await.unwrap();
    }
    world.pass(3 * 86_400);
    assert_eq!(world.sessions.refresh(&grant.refresh_token, ADDRESS, "Firefox").await.err(), Some(MemberError::Unauthenticated));
}

/// V7.4.1, V7.4.2, V7.5.2: signing out and suspension end access tokens at once, in other processes when they look.
#[tokio::test]
async fn v7_4_1_v7_4_2_ended_sessions_take_their_access_tokens_along() {
    let world = World::of_mara().await;
    let other = world.another().await;
    let (one, two) = (world.sign_in("mara").await, world.sign_in("mara").await);
    let good =
        |world: &World, grant: &kindred_members::Grant| world.sessions.authenticate(grant.access_token.expose_secret()).is_ok();
    assert!(good(&world, &one) && good(&other, &one) && good(&other, &two));
    world.sessions.sign_out(&world.claims(&one), ADDRESS).await.unwrap();
    assert!(!good(&world, &one) && good(&world, &two));
    other.members.refresh_revocations().await.unwrap();
    assert!(!good(&other, &one) && good(&other, &two));
    world.staff.suspend(&world.admin(), &two.member, None, "test").await.unwrap();
    assert!(!good(&world, &two));
    assert_eq!(world.sessions.refresh(&two.refresh_token, ADDRESS, "Firefox").await.err(), Some(MemberError::Unauthenticated));
    assert_eq!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.err(), Some(MemberError::Unauthenticated));
    let late = world.another().await;
    assert!(!good(&late, &two), "a process that starts knows it");
    world.staff.activate(&world.admin(), &two.member, None, "test").await.unwrap();
    world.sign_in("mara").await;
}

/// V9.1.1 to V9.1.3, V9.2.1 to V9.2.3.
#[tokio::test]
async fn v9_1_v9_2_what_is_no_access_token() {
    let world = World::of_mara().await;
    let other = World::new().await;
    other.member("mara", "13812345678").await;
    let token = world.sign_in("mara").await.access_token.expose_secret().to_owned();
    let good = |token: &str| world.sessions.authenticate(token).is_ok();
    assert!(good(&token));
    let parts: Vec<&str> = token.split('.').collect();
    let json = |part: &str| -> serde_json::Value { serde_json::from_slice(&B64.decode(part).unwrap()).unwrap() };
    let (header, claims) = (json(parts[0]), json(parts[1]));
    assert_eq!((header["typ"].as_str(), header["alg"].as_str()), (Some("at+jwt"), Some("EdDSA")));
    for claim in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope", "sid", "auth_time", "acr"] {
        assert!(!claims[claim].is_null(), "RFC 9068: {claim}");
    }
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let part = |value: &serde_json::Value| B64.encode(value.to_string());
    let with = |value: &serde_json::Value, field: &str, new: serde_json::Value| {
        let mut value = value.clone();
        value[field] = new;
        value
    };
    // What is signed by whoever holds the ring, and still is not for us.
    let stored = world.memory.table("secrets", world.clock.now());
    let seed = stored.iter().find(|(partition, ..)| partition == "keys").unwrap().2["seed"].as_str().unwrap().to_owned();
    let signing = ed25519_dalek::SigningKey::from_bytes(&B64.decode(seed).unwrap().try_into().unwrap());
    let by = |key: &ed25519_dalek::SigningKey, header: &serde_json::Value, claims: &serde_json::Value| {
        use ed25519_dalek::Signer;
        let text = format!("{}.{}", part(header), part(claims));
        format!("{text}.{}", B64.encode(key.sign(text.as_bytes()).to_bytes()))
    };
    let signed = |header: &serde_json::Value, claims: &serde_json::Value| by(&signing, header, claims);
    let foreign = |header: &serde_json::Value| by(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]), header, &claims);
    assert!(good(&signed(&header, &claims)), "the table below is about what it changes");
    let now = world.clock.now().0 / 1_000;
    let x = world.sessions.jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
    let hmac = {
        use hmac::Mac;
        let text = format!("{}.{}", part(&with(&header, "alg", "HS256".into())), parts[1]);
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&B64.decode(&x).unwrap()).unwrap();
        mac.update(text.as_bytes());
        format!("{text}.{}", B64.encode(mac.finalize().into_bytes()))
    };
    let bad = [
        ("alg none", format!("{}.{}.", part(&with(&header, "alg", "none".into())), parts[1])),
        ("alg none, signed", format!("{}.{}.{}", part(&with(&header, "alg", "none".into())), parts[1], parts[2])),
        ("HS256 with the public key", hmac),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("another's signature", format!("{}.{}.{}", parts[0], part(&with(&claims, "scope", "member:read".into())), parts[2])),
        ("foreign kid", signed(&with(&header, "kid", "other".into()), &claims)),
        ("typ JWT", signed(&with(&header, "typ", "JWT".into()), &claims)),
        ("no typ", signed(&with(&header, "typ", serde_json::Value::Null), &claims)),
        ("wrong aud", signed(&header, &with(&claims, "aud", "other".into()))),
        ("wrong iss", signed(&header, &with(&claims, "iss", "other".into()))),
        ("wrong client", signed(&header, &with(&claims, "client_id", "other".into()))),
        ("expired", signed(&header, &with(&claims, "exp", (now - 6).into()))),
        ("nbf future", signed(&header, &with(&claims, "nbf", (now + 6).into()))),
        ("an hour more than its life", signed(&header, &with(&claims, "exp", (now + 600 + 3_600).into()))),
        ("a second more", signed(&header, &with(&claims, "exp", (now + 601).into()))),
        (
            "73 years",
            signed(&header, &with(&with(&claims, "exp", (now + 73 * 31_557_600).into()), "iat", (now + 73 * 31_557_000).into())),
        ),
        ("made in the future", signed(&header, &with(&with(&claims, "exp", (now + 606).into()), "iat", (now + 6).into()))),
        ("the end of time", signed(&header, &with(&claims, "exp", i64::MAX.into()))),
        ("before time", signed(&header, &with(&with(&claims, "iat", i64::MIN.into()), "nbf", i64::MIN.into()))),
        (
            "a key of the header's own",
            foreign(&with(&header, "jwk", serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }))),
        ),
        ("a foreign key under our kid", foreign(&header)),
        ("a refresh token", world.sign_in("mara").await.refresh_token.expose_secret().to_owned()),
        ("another shop's", other.sign_in("mara").await.access_token.expose_secret().to_owned()),
        ("empty", String::new()),
        ("dots", "..".into()),
        ("long", "x".repeat(100_000)),
    ];
    for (what, token) in &bad {
        assert!(!good(token), "{what}");
    }
    world.pass(604);
    assert!(good(&token), "five seconds of leeway");
    world.pass(1);
    assert!(!good(&token), "expired, although it was remembered");
}

/// V9.1.3: a key that left the ring ends what it signed, in every process, what was checked and remembered and what goes on included.
#[tokio::test]
async fn v9_1_3_a_key_that_left_the_ring_ends_what_it_signed() {
    let world = World::of_mara().await;
    let other = world.another().await;
    let before = world.sign_in("mara").await;
    let good =
        |world: &World, grant: &kindred_members::Grant| world.sessions.authenticate(grant.access_token.expose_secret()).is_ok();
    assert!(good(&world, &before) && good(&other, &before), "both remember it");
    let (claims, of_other) = (world.claims(&before), other.claims(&before));
    assert_eq!(world.sessions.still_good(&claims), Ok(()));
    let forbidden = world.sessions.rotate_keys(&kindred_members::Actor { permissions: Vec::new(), ..world.admin() }, true).await;
    assert!(matches!(forbidden, Err(MemberError::Forbidden(_))), "{forbidden:?}");
    world.sessions.rotate_keys(&world.admin(), true).await.unwrap();
    assert!(!good(&world, &before));
    assert_eq!(world.sessions.still_good(&claims), Err(MemberError::Unauthenticated), "a stream ends");
    assert_eq!(world.sessions.jwks()["keys"].as_array().unwrap().len(), 1);
    other.members.refresh_revocations().await.unwrap();
    assert!(!good(&other, &before));
    assert_eq!(other.members.sessions.still_good(&of_other), Err(MemberError::Unauthenticated));
    // The session goes on, by a token of the new key, which every process knows.
    let after = world.sessions.refresh(&before.refresh_token, ADDRESS, "Firefox").await.unwrap();
    assert!(good(&world, &after) && good(&other, &after));
    let late = world.another().await;
    assert!(good(&late, &after) && !good(&late, &before));
    // Without withdrawal a key leaves the ring when the last token that it signed has expired.
    world.sessions.rotate_keys(&world.admin(), false).await.unwrap();
    world.pass(300 + 600 + 3_601);
    let last = world.another().await;
    assert_eq!(last.members.sessions.jwks()["keys"].as_array().unwrap().len(), 1);
}

/// V13.3.1, V14.2: signing seeds, secrets of authenticators and the secret of all marks lie sealed where there is a key. What lay there
/// unsealed, or under another key, is read on, and sealed with the next write. If it failed, a copy of the database could sign in as anybody.
#[tokio::test]
async fn v13_3_1_secrets_lie_sealed_in_the_database() {
    let plain = World::of_mara().await;
    let claims = plain.claims(&plain.sign_in("mara").await);
    let enrolment = plain.members.factors.enrol_totp(&claims, &PASSWORD.into(), ADDRESS).await.unwrap();
    let secret = enrolment.secret.expose_secret().to_owned();
    let recovery = plain.members.factors.confirm_totp(&claims, &code(&plain, &secret, 0), ADDRESS).await.unwrap();
    let stored = |world: &World| {
        let records = ["secrets", "accounts"].map(|table| world.memory.table(table, world.clock.now()));
        records.concat().into_iter().map(|(_, _, value, _)| value.to_string()).collect::<Vec<_>>().join("\n")
    };
    let marks = plain.memory.table("secrets", plain.clock.now());
    let seed = marks.iter().find(|(of, ..)| of == "keys").unwrap().2["seed"].as_str().unwrap().to_owned();
    let mark = marks.iter().find(|(of, ..)| of == "marks").unwrap().2.as_str().unwrap().to_owned();
    for secret in [&secret, &seed, &mark] {
        assert!(stored(&plain).contains(secret.as_str()), "the test looks for what is there");
    }
    let with_keys = async |keys: String| {
        let mut config = config();
        config.sealing.key = keys;
        World { config, ..plain.clone() }
    };
    let (one, two) = (kindred_members::draw_sealing_key(), kindred_members::draw_sealing_key());
    for keys in [one.clone(), format!("{two} {one}"), two.clone()] {
        let sealed = with_keys(keys).await.another().await;
        sealed.pass(30);
        let challenge = second(&sealed).await;
        let grant = sealed.members.sign_in.second(&challenge, &code(&sealed, &secret, 0)).await.unwrap();
        assert!(sealed.members.sessions.authenticate(grant.access_token.expose_secret()).is_ok());
        for secret in [&secret, &seed, &mark] {
            assert!(!stored(&sealed).contains(secret.as_str()), "{secret} lies there in clear");
        }
    }
    for keys in [String::new(), one] {
        let config = with_keys(keys).await.config;
        let opened = plain.open(&config, plain.inbox.clone()).await;
        let refused = opened.err().expect("no process starts that cannot read them").to_string();
        assert!(refused.contains("members.sealing.key"), "{refused}");
    }
    assert_eq!(recovery.len(), 10);
}

/// The ring turns without a gap.
#[tokio::test]
async fn keys_rotate_with_overlap() {
    let world = World::of_mara().await;
    let before = world.sign_in("mara").await;
    let kids = || world.sessions.jwks()["keys"].as_array().unwrap().len();
    world.sessions.rotate_keys(&world.admin(), false).await.unwrap();
    assert_eq!(kids(), 2);
    let kid = |grant: &kindred_members::Grant| grant.access_token.expose_secret().split('.').next().unwrap().to_owned();
    assert_eq!(kid(&before), kid(&world.sign_in("mara").await), "not before every process knows the new one");
    world.pass(300);
    let after = world.sign_in("mara").await;
    assert_ne!(kid(&before), kid(&after));
    for grant in [&before, &after] {
        assert!(world.sessions.authenticate(grant.access_token.expose_secret()).is_ok());
    }
}

pub fn code(world: &World, secret: &str, steps_ago: u64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).with_account_name("x").build().unwrap();
    totp.generate((world.clock.now().0 / 1_000) as u64 - 30 * steps_ago).to_string()
}

async fn second(world: &World) -> String {
    match world.sign_in.first(world.credentials("mara", PASSWORD)).await.unwrap() {
        SignedIn::SecondFactor { challenge, .. } => challenge,
        SignedIn::Session(_) => panic!("the second factor was not asked for"),
    }
}

/// V6.3.3, V6.5.1, V6.5.5, V6.6.3: a code once, none of an earlier step, wrong ones limited through new sign-ins; staff need it.
#[tokio::test]
async fn v6_5_1_v6_5_5_v6_6_3_second_factor() {
    let world = World::of_mara().await;
    let grant = world.sign_in("mara").await;
    let claims = world.claims(&grant);
    let wrong = world.factors.enrol_totp(&claims, &"wrong password".into(), ADDRESS).await;
    assert_eq!(wrong.err(), Some(MemberError::ReauthenticationFailed), "V7.5.1");
    let enrolment = world.factors.enrol_totp(&claims, &PASSWORD.into(), ADDRESS).await.unwrap();
    let secret = enrolment.secret.expose_secret().to_owned();
    assert!(enrolment.uri.expose_secret().starts_with("otpauth://totp/Teahouse"));
    let recovery = world.factors.confirm_totp(&claims, &code(&world, &secret, 0), ADDRESS).await.unwrap();
    assert_eq!(recovery.len(), 10);
    let token = world.staff.create_setup_token(&world.admin(), "admin").await.unwrap();
    world.staff.redeem_setup_token(&claims, token.expose_secret(), ADDRESS, |_| false).await.unwrap();
    let again = world.staff.redeem_setup_token(&claims, token.expose_secret(), ADDRESS, |_| false).await;
    assert_eq!(again, Err(MemberError::TokenGone), "V6.3.2: once");
    let challenge = second(&world).await;
    let used = world.sign_in.second(&challenge, &code(&world, &secret, 0)).await;
    assert_eq!(used.err(), Some(MemberError::CodeWrong), "that step was used to enrol");
    world.pass(90);
    let older = world.sign_in.second(&challenge, &code(&world, &secret, 2)).await;
    assert_eq!(older.err(), Some(MemberError::CodeWrong), "two steps late");
    let previous = code(&world, &secret, 1);
    assert!(world.sign_in.second(&challenge, &previous).await.is_ok(), "one step late");
    assert_eq!(world.sign_in.second(&challenge, &previous).await.err(), Some(MemberError::CodeWrong), "once");
    let now = code(&world, &secret, 0);
    let now = format!(" {} {} ", &now[..3], &now[3..]);
    let grant = world.sign_in.second(&challenge, &now).await.unwrap();
    assert!(grant.scope.contains("member:write") && grant.scope.contains("order:trade"), "{}", grant.scope);
    let staff =
        world.credentials.change_password(&world.claims(&grant), &PASSWORD.into(), "vextro 93 quip".into(), true, ADDRESS).await;
    assert_eq!(crate::support::codes(staff), [("password", "password_short")], "staff needs 15");
    assert_eq!(world.claims(&grant).acr, "aal2");
    assert_eq!(world.sign_in.second(&challenge, &now).await.err(), Some(MemberError::CodeWrong), "once");
    let spare = recovery[0].expose_secret().to_uppercase();
    assert!(world.sign_in.second(&second(&world).await, &spare).await.is_ok());
    assert_eq!(world.sign_in.second(&second(&world).await, &spare).await.err(), Some(MemberError::CodeWrong));
    for _ in 0..4 {
        let failed = world.sign_in.second(&second(&world).await, "000000").await.err();
        assert_eq!(failed, Some(MemberError::CodeWrong));
    }
    world.pass(30);
    for _ in 0..2 {
        let _wait_grows = world.sign_in.second(&second(&world).await, "000000").await;
    }
    let limited = world.sign_in.second(&second(&world).await, &code(&world, &secret, 0)).await.err();
    assert!(matches!(limited, Some(MemberError::Throttled { .. })), "a new sign-in does not help: {limited:?}");
    let late = second(&world).await;
    world.pass(301);
    assert_eq!(world.sign_in.second(&late, &code(&world, &secret, 0)).await.err(), Some(MemberError::Unauthenticated));
}

/// V6.3.3: the role alone gives nothing.
#[tokio::test]
async fn v6_3_3_staff_without_a_second_factor_has_no_permission() {
    let world = World::of_mara().await;
    let member = world.sign_in("mara").await.member;
    world.staff.change_role(&world.admin(), &member, None, Some("admin")).await.unwrap();
    assert_eq!(world.sign_in("mara").await.scope, "catalog:browse order:trade");
}

/// V6.4.1, V6.4.3: a reset token once, for half an hour; it ends sessions and does not go round the second factor.
#[tokio::test]
async fn v6_4_1_v6_4_3_reset() {
    let world = World::of_mara().await;
    let grant = world.sign_in("mara").await;
    let claims = world.claims(&grant);
    let enrolment = world.factors.enrol_totp(&claims, &PASSWORD.into(), ADDRESS).await.unwrap();
    world.factors.confirm_totp(&claims, &code(&world, enrolment.secret.expose_secret(), 0), ADDRESS).await.unwrap();
    let ask = async || {
        world.credentials.request_reset("13812345678", &world.solution().await, ADDRESS).await.unwrap();
        world.deliver().await;
        world.inbox.token("mara@example.com")
    };
    let late = ask().await;
    world.pass(1_800);
    assert_eq!(world.credentials.reset_password(&late, NEW.into(), ADDRESS).await, Err(MemberError::TokenGone));
    let token = ask().await;
    let weak = world.credentials.reset_password(&token, "password1".into(), ADDRESS).await;
    assert!(matches!(weak, Err(MemberError::Invalid(_))), "{weak:?}");
    world.credentials.reset_password(&token, NEW.into(), ADDRESS).await.unwrap();
    assert_eq!(world.credentials.reset_password(&token, NEW.into(), ADDRESS).await, Err(MemberError::TokenGone));
    assert!(world.sessions.authenticate(grant.access_token.expose_secret()).is_err(), "the old session is over");
    assert!(world.sign_in.first(world.credentials("mara", PASSWORD)).await.is_err());
    let signed_in = world.sign_in.first(world.credentials("mara", NEW)).await.unwrap();
    assert!(matches!(signed_in, SignedIn::SecondFactor { .. }));
}

/// V7.5.1: a new phone or e-mail needs the password, its own proof, and belongs to nobody else.
#[tokio::test]
async fn v7_5_1_new_phone_and_email() {
    let world = World::of_mara().await;
    world.member("nora", "13812345679").await;
    let claims = world.claims(&world.sign_in("mara").await);
    let password = PASSWORD.into();
    let wrong = world.credentials.change_email(&claims, &"wrong password".into(), "new@example.com", ADDRESS).await;
    assert_eq!(wrong, Err(MemberError::ReauthenticationFailed));
    world.credentials.change_email(&claims, &password, "Nora@example.com", ADDRESS).await.unwrap();
    world.deliver().await;
    let taken = world.credentials.confirm_email(&world.inbox.token("Nora@example.com"), ADDRESS).await;
    assert_eq!(taken, Err(MemberError::IdentifierTaken));
    world.credentials.change_phone(&claims, &password, "13800000001", ADDRESS).await.unwrap();
    world.deliver().await;
    let code = world.inbox.code("+8613800000001");
    world.credentials.confirm_phone(&claims, &password, "13800000001", &code, ADDRESS).await.unwrap();
    world.deliver().await;
    assert!(world.sign_in.first(world.credentials("13800000001", PASSWORD)).await.is_ok());
    assert!(world.sign_in.first(world.credentials("13812345678", PASSWORD)).await.is_err());
    let told = world.inbox.last("mara@example.com").unwrap();
    assert!(told.rendered.subject.contains("phone"), "{}", told.rendered.subject);
    let by_mail = World::with({
        let mut config = config();
        config.sign_in.email = true;
        config
    });
    let by_mail = by_mail.await;
    by_mail.member("mara", "13812345678").await;
    by_mail.sign_in("Mara@Example.com").await;
}

/// V6.6.3: a new code does not give new tries.
#[tokio::test]
async fn v6_6_3_wrong_phone_codes_are_limited_through_new_codes() {
    let world = World::new().await;
    let mut form = world.form("mara", "13812345678").await.unwrap();
    let right = form.phone_code.clone();
    form.phone_code = if right == "000000" { "000001".into() } else { "000000".into() };
    for _ in 0..5 {
        form.solution = world.solution().await;
        assert_eq!(world.registrations.register(form.clone()).await, Err(MemberError::CodeWrong));
    }
    world.pass(60);
    let mut fresh = world.form("mara", "13812345678").await.unwrap();
    fresh.phone_code = "000002".into();
    assert_eq!(world.registrations.register(fresh.clone()).await, Err(MemberError::CodeWrong), "one more, after its wait");
    (fresh.phone_code, fresh.solution) = (world.inbox.code("+8613812345678"), world.solution().await);
    let limited = world.registrations.register(fresh.clone()).await;
    assert!(matches!(limited, Err(MemberError::Throttled { .. })), "{limited:?}");
    world.pass(3);
    fresh.solution = world.solution().await;
    assert_eq!(world.registrations.register(fresh).await, Ok(()), "the right one, after the wait");
}

/// V11.4.2: a hash of weaker settings is made anew when its member signs in.
#[tokio::test]
async fn v11_4_2_old_hashes_are_made_anew() {
    let world = World::of_mara().await;
    let stored = |world: &World| {
        let accounts = world.memory.table("accounts", world.clock.now());
        let account = accounts.into_iter().find(|(_, sort, ..)| sort == "account").unwrap().2;
        account["password"].as_str().unwrap().to_owned()
    };
    assert!(stored(&world).starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    let strong = kindred_members::Members::open(
        world.store.clone(),
        world.clock.clone(),
        config(),
        world.log.clone(),
        world.inbox.clone(),
        kindred_members::Hashes::Strong,
    );
    let strong = strong.await.unwrap();
    strong.sign_in.first(world.credentials("mara", PASSWORD)).await.unwrap();
    assert!(stored(&world).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    strong.sign_in.first(world.credentials("mara", PASSWORD)).await.unwrap();
}

/// A member who is erased while something of theirs is under way leaves no claim behind.
#[tokio::test]
async fn an_erasure_in_the_midst_of_an_activation_leaves_no_claim() {
    for calls in 1..40 {
        let world = World::new().await;
        let form = world.form("mara", "13812345678").await.unwrap();
        world.registrations.register(form).await.unwrap();
        world.deliver().await;
        let token = world.inbox.token("mara@example.com");
        let member = token.split('.').next().unwrap().to_owned();
        // The activation stops at some call, the erasure happens, and the outbox goes on with the activation.
        world.memory.die_at(calls, true);
        let _stopped = world.registrations.verify_email(&token, ADDRESS).await;
        world.memory.revive();
        world.members.erase_member(&world.admin(), &member).await.unwrap();
        world.pass(61);
        world.deliver().await;
        let claims = world.memory.table("claims", world.clock.now());
        assert!(claims.is_empty(), "stopped at call {calls}: {claims:?}");
    }
}

/// R12: a role given to whoever has a short password counts when the password is long.
#[tokio::test]
async fn r12_staff_with_a_short_password_has_no_permission() {
    let world = World::new().await;
    let mut form = world.form("mara", "13812345678").await.unwrap();
    form.password = "vextro 93 quip".into();
    world.registrations.register(form).await.unwrap();
    world.deliver().await;
    let member = world.registrations.verify_email(&world.inbox.token("mara@example.com"), ADDRESS).await.unwrap();
    world.staff.change_role(&world.admin(), &member, None, Some("admin")).await.unwrap();
    let SignedIn::Session(grant) = world.sign_in.first(world.credentials("mara", "vextro 93 quip")).await.unwrap() else {
        panic!("no second factor yet")
    };
    let claims = world.claims(&grant);
    let enrolment = world.factors.enrol_totp(&claims, &"vextro 93 quip".into(), ADDRESS).await.unwrap();
    world.factors.confirm_totp(&claims, &code(&world, enrolment.secret.expose_secret(), 0), ADDRESS).await.unwrap();
    for (password, staff) in [("vextro 93 quip", false), (NEW, true)] {
        world.pass(30);
        let signed_in = world.sign_in.first(world.credentials("mara", password)).await.unwrap();
        let SignedIn::SecondFactor { challenge, .. } = signed_in else { panic!("the second factor is asked for") };
        let code = code(&world, enrolment.secret.expose_secret(), 0);
        let grant = world.sign_in.second(&challenge, &code).await.unwrap();
        assert_eq!(grant.scope.contains("member:write"), staff, "{}", grant.scope);
        if !staff {
            let claims = world.claims(&grant);
            world.credentials.change_password(&claims, &password.into(), NEW.into(), true, ADDRESS).await.unwrap();
        }
    }
}
