//! 64 at once for one thing, over two processes: exactly one gets it. On the store in memory, on the embedded one, and on CQL where
//! `KINDRED_TEST_CASSANDRA` (host:port) names a database; `tests/run` starts one.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kindred_members::{Language, LimitsConfig, MembersConfig, Once, Solution};
use kindred_store::cql::{CqlConfig, CqlRecords, CqlStore};
use kindred_store::records::embedded::EmbeddedRecords;
use kindred_store::records::{Around, Surrounded};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use crate::support::{ADDRESS, MemberError, Memory, PASSWORD, World, config};

/// Without the limits that would end a race early.
pub fn unlimited() -> MembersConfig {
    let many = 1_000_000;
    let limits = LimitsConfig {
        registrations_hour: many,
        challenges_hour: many,
        sign_in_failures_hour: many,
        free_failures: many,
        phone_codes_hour: many,
        phone_codes_address_hour: many,
        mails_hour: many,
        ..LimitsConfig::default()
    };
    let mut config = MembersConfig { limits, ..config() };
    config.password.queue = 1_000;
    config
}

/// Runs `one` 64 times at once over two processes, and counts those that succeed.
pub async fn race<F>(world: &World, one: impl Fn(Arc<kindred_members::Members>, usize) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let other = world.another().await;
    let processes = [world.members.clone(), other.members.clone()];
    let tasks: Vec<_> = (0..64).map(|number| tokio::spawn(one(processes[number % 2].clone(), number))).collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    won
}

pub async fn worlds() -> Vec<(World, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Arc::new(EmbeddedRecords::open(dir.path()).unwrap());
    let mut worlds = vec![
        (World::with(unlimited()).await, None),
        (World::over(Arc::new(Memory::default()), embedded, unlimited()).await, Some(dir)),
    ];
    if let Some(records) = Apart::open().await {
        worlds.push((World::over(Arc::new(Memory::default()), Arc::new(records), unlimited()).await, None));
    }
    worlds
}

/// The records of one world among those of others in one keyspace, since changes of the schema are slow: its tables have a name of
/// their own.
struct Apart(usize);

impl Apart {
    async fn open() -> Option<Surrounded<Self>> {
        static MADE: OnceCell<()> = OnceCell::const_new();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let Ok(node) = std::env::var("KINDRED_TEST_CASSANDRA") else {
            eprintln!("NOT RUN: races of members on CQL: KINDRED_TEST_CASSANDRA names no Cassandra (host:port)");
            return None;
        };
        let config =
            CqlConfig { nodes: vec![node], keyspace: format!("kindred_races_{}", std::process::id()), ..CqlConfig::default() };
        MADE.get_or_init(async || drop(CqlStore::migrate(config.clone()).await.expect("migrated"))).await;
        let records = CqlRecords::open(config).await.expect("opened");
        Some(Surrounded { store: Arc::new(records), around: Self(NUMBER.fetch_add(1, Ordering::Relaxed)) })
    }
}

impl Around for Apart {
    fn table<'a>(&self, table: &'a str) -> Cow<'a, str> {
        Cow::Owned(format!("{}_{table}", self.0))
    }
}

async fn forms(
    world: &World,
    name: impl Fn(usize) -> String,
    phone: impl Fn(usize) -> String,
) -> Vec<kindred_members::Registration> {
    let mut forms = Vec::new();
    for number in 0..64 {
        if forms.is_empty() || phone(number) != phone(number - 1) {
            forms.push(world.form(&name(number), &phone(number)).await.unwrap());
        } else {
            let code = world.inbox.code(&format!("+86{}", phone(number)));
            forms.push(world.form_without_code(&name(number), &phone(number), &code).await.unwrap());
        }
    }
    forms
}

/// How many accounts there are when all is delivered and every mail's token was used.
async fn activated(world: &World) -> usize {
    world.deliver().await;
    let tokens: Vec<String> = world
        .inbox
        .0
        .lock()
        .iter()
        .filter_map(|message| {
            message.rendered.body.split_once("verify-email#").map(|(_, rest)| rest.split_whitespace().next().unwrap().into())
        })
        .collect();
    let mut active = 0;
    for token in tokens {
        active += usize::from(world.registrations.verify_email(&token, ADDRESS).await.is_ok());
    }
    active
}

fn number(base: u64, number: usize) -> String {
    (base + number as u64).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_64_gets_a_username() {
    for (world, _dir) in worlds().await {
        let forms =
            forms(&world, |n| if n % 2 == 0 { "Mara".into() } else { "ｍara".into() }, |n| number(13_800_000_000, n)).await;
        let forms: Vec<_> = forms
            .into_iter()
            .enumerate()
            .map(|(n, form)| kindred_members::Registration { email: format!("m{n}@example.com"), ..form })
            .collect();
        let forms = Arc::new(forms);
        let won = race(&world, |members, n| {
            let form = forms[n].clone();
            async move {
                match members.registrations.register(form).await {
                    Ok(()) => true,
                    Err(MemberError::UsernameTaken) => false,
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await;
        assert_eq!((won, activated(&world).await), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_64_gets_a_phone_or_an_email() {
    for by_mail in [false, true] {
        for (world, _dir) in worlds().await {
            let phone = |n| if by_mail { number(13_800_000_000, n) } else { "13800000000".to_owned() };
            let mut forms = forms(&world, |n| format!("mara{n}"), phone).await;
            if by_mail {
                forms.iter_mut().for_each(|form| form.email = "mara@example.com".into());
            }
            let forms = Arc::new(forms);
            let won = race(&world, |members, n| {
                let form = forms[n].clone();
                async move { members.registrations.register(form).await.is_ok() }
            })
            .await;
            // With one code for one phone, the code itself is good once; with 64 phones nobody learns who was first.
            assert_eq!(won, if by_mail { 64 } else { 1 });
            assert_eq!(activated(&world).await, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_64_redeems_a_challenge() {
    for (world, _dir) in worlds().await {
        let solution = Solution::find(&world.challenges.draw(ADDRESS).await.unwrap());
        let won =
            race(&world, |members, n| {
                let (solution, phone) = (solution.clone(), number(13_800_000_000, n));
                async move {
                    members.registrations.request_phone_code(&phone, [None; 3], Language::En, &solution, ADDRESS).await.is_ok()
                }
            })
            .await;
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v10_4_5_64_refreshes_give_one_successor() {
    for (world, _dir) in worlds().await {
        world.member("mara", "13812345678").await;
        let token = world.sign_in("mara").await.refresh_token.expose_secret().to_owned();
        let next: Arc<parking_lot::Mutex<std::collections::BTreeSet<String>>> = Arc::default();
        let won = race(&world, |members, _| {
            let (token, next) = (token.clone().into(), next.clone());
            async move {
                let grant = members.sessions.refresh(&token, ADDRESS, "Firefox").await;
                grant.is_ok_and(|grant| {
                    next.lock().insert(grant.refresh_token.expose_secret().to_owned());
                    true
                })
            }
        })
        .await;
        // Whoever asks within 30 s from the same device gets the same next one: it is one family.
        assert_eq!(won, 64);
        let next: std::collections::BTreeSet<String> = std::mem::take(&mut *next.lock());
        assert_eq!(next.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v6_4_1_one_of_64_resets() {
    for (world, _dir) in worlds().await {
        world.member("mara", "13812345678").await;
        world.credentials.request_reset("mara", &world.solution().await, ADDRESS).await.unwrap();
        world.deliver().await;
        let token = world.inbox.token("mara@example.com");
        let password = |n: usize| format!("{PASSWORD} {n}");
        let won = race(&world, |members, n| {
            let (token, password) = (token.clone(), password(n));
            async move { members.credentials.reset_password(&token, password.into(), ADDRESS).await.is_ok() }
        })
        .await;
        assert_eq!(won, 1);
        let mut good = 0;
        for n in 0..64 {
            good += usize::from(world.sign_in.first(world.credentials("mara", &password(n))).await.is_ok());
        }
        assert_eq!(good, 1, "the password is the winner's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_64_does_what_an_idempotency_key_names() {
    for (world, _dir) in worlds().await {
        let won = race(&world, |members, _| async move {
            let begun =
                members.idempotency.begin_once("key:1", "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46", &["/v1/x", "body"], 60).await;
            match begun.unwrap() {
                Once::First(attempt) => {
                    members.idempotency.keep_answer(&attempt, b"done").await.unwrap();
                    true
                }
                Once::Answered(answer) => {
                    assert_eq!(answer, b"done");
                    false
                }
                Once::UnderWay => false,
                Once::AnotherRequest => panic!("it is the same"),
            }
        })
        .await;
        assert_eq!(won, 1);
    }
}

/// The process that began it died: after its lease another does it, and what the dead one wrote late changes nothing.
#[tokio::test]
async fn what_a_dead_process_began_is_begun_anew() {
    let world = World::new().await;
    let begin = || world.idempotency.begin_once("key:1", "019ac2c4-8f6e-7b1e-9d55-2f7a3c1e0b46", &["body"], 60);
    let Once::First(dead) = begin().await.unwrap() else { panic!("it is the first") };
    world.clock.advance(std::time::Duration::from_secs(59));
    assert!(matches!(begin().await.unwrap(), Once::UnderWay));
    world.clock.advance(std::time::Duration::from_secs(1));
    let Once::First(second) = begin().await.unwrap() else { panic!("the lease is over") };
    world.idempotency.keep_answer(&dead, b"late").await.unwrap();
    world.idempotency.free_key(&dead).await.unwrap();
    assert!(matches!(begin().await.unwrap(), Once::UnderWay));
    world.idempotency.keep_answer(&second, b"done").await.unwrap();
    world.idempotency.free_key(&dead).await.unwrap();
    assert!(matches!(begin().await.unwrap(), Once::Answered(answer) if answer == b"done"));
    let large = vec![0; kindred_members::ANSWER_BYTES_MAX + 1];
    let Once::First(third) = world.idempotency.begin_once("key:1", "another key", &["body"], 60).await.unwrap() else { panic!() };
    world.idempotency.keep_answer(&third, &large).await.unwrap();
    let anew = world.idempotency.begin_once("key:1", "another key", &["body"], 60).await.unwrap();
    assert!(matches!(anew, Once::First(_)), "what is too large is not kept");
}
