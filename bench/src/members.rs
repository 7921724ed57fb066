//! `members`: the cost of sign-in and search with a million members and their sessions, beside a thousand, and of checking an
//! access token. In this process, over the embedded store, so that differences are the store's.
//!
//! ```text
//! few:  1,000 members, a tenth with a session ──┐ the same call on each, in turn ──▶ medians, their ratio
//! many: 1,000,000 members, 100,000 sessions  ───┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use kindred_members::{Actor, Kind, MemberQuery, Members, MembersConfig, PasswordConfig, SignIn, SignedIn};
use kindred_store::records::RecordStore;
use kindred_store::records::embedded::EmbeddedRecords;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use secrecy::{ExposeSecret, SecretString};

use crate::options::quick;
use crate::people::{self, PASSWORD, email, phone, username};
use crate::plot::Panel;
use crate::progress;
use crate::report::{Report, Target, latencies, number, quantile_ms, record};
use crate::usage::{Process, disk_bytes, thread_cpu};

/// Members of the small shop.
pub(crate) const FEW: u32 = 1_000;
/// Concurrent sign-ins while creating sessions.
const SIGN_INS_AT_ONCE: usize = 256;
/// Repeated checks of each token.
const CHECKS_AGAIN: usize = 5;
/// The store is idle when this process uses less of a core for a second.
const AT_REST: f64 = 0.1;
/// Longest wait for that.
const REST_MAX: Duration = Duration::from_secs(180);

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Members of the large shop; the small one has 1,000
    #[arg(long = "accounts", default_value_t = 1_000_000)]
    pub members: u32,
    /// Sessions in it, one a member
    #[arg(long, default_value_t = 100_000)]
    pub sessions: u32,
    /// Sign-ins timed in each shop
    #[arg(long, default_value_t = 500)]
    pub sign_ins: usize,
    /// Searches of each sort timed in each shop
    #[arg(long, default_value_t = 500)]
    pub searches: usize,
    /// Where to put the data [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub within: Option<PathBuf>,
}

quick!(|options| {
    (options.members, options.sessions) = (5_000, FEW);
    (options.sign_ins, options.searches) = (10, 10);
});

/// A shop with members, the first ones with a session.
struct Shop {
    members: Arc<Members>,
    count: u32,
    tokens: Vec<SecretString>,
    written: Duration,
    bytes: u64,
    _folder: tempfile::TempDir,
}

/// The product's settings, but no token expires during the measurement.
fn config() -> MembersConfig {
    let mut config = MembersConfig::default();
    config.tokens.access_s = 3_600;
    config
}

impl Shop {
    /// Members with a session have a cheap hash, so that creating sessions is fast; measured members have the product's.
    async fn open(count: u32, sessions: u32, within: Option<&Path>) -> Result<Self> {
        let folder = within.map_or_else(tempfile::tempdir, tempfile::tempdir_in).context("could not make a temporary folder")?;
        let store = EmbeddedRecords::open(folder.path()).context("could not open the records")?;
        let store: Arc<dyn RecordStore> = Arc::new(store);
        let began = Instant::now();
        let weak = people::open(Arc::clone(&store), config(), true).await?;
        people::write(&weak, 0..sessions, count, &people::hash(&weak.config().password)?).await?;
        people::write(&weak, sessions..count, count, &people::hash(&PasswordConfig::default())?).await?;
        let written = began.elapsed();
        let tokens = begin_sessions(Arc::new(weak), sessions).await?;
        let members = Arc::new(people::open(store, config(), false).await?);
        let bytes = disk_bytes(folder.path());
        Ok(Self { members, count, tokens, written, bytes, _folder: folder })
    }

    /// A random member with the product's hash.
    fn somebody(&self, random: &mut StdRng) -> u32 {
        random.random_range(self.tokens.len() as u32..self.count)
    }
}

async fn begin_sessions(members: Arc<Members>, sessions: u32) -> Result<Vec<SecretString>> {
    let bar = progress::bar("signing members in", u64::from(sessions));
    bar.tick();
    let mut tokens = Vec::with_capacity(sessions as usize);
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0..sessions {
        let members = Arc::clone(&members);
        under_way.spawn(async move { sign_in(&members, number).await.map(|grant| grant.access_token) });
        while under_way.len() >= SIGN_INS_AT_ONCE || (number + 1 == sessions && !under_way.is_empty()) {
            let token = under_way.join_next().await.context("one is under way")?;
            tokens.push(token.context("a sign-in panicked")??);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(tokens)
}

/// Signs in a member by number, from an address of their own.
async fn sign_in(members: &Members, number: u32) -> Result<kindred_members::Grant> {
    let [_, a, b, c] = number.to_be_bytes();
    let sign_in = SignIn {
        account: username(number),
        password: PASSWORD.into(),
        device: None,
        label: "Firefox".into(),
        address: format!("10.{a}.{b}.{c}"),
        session: None,
        browses: false,
    };
    loop {
        match members.sign_in.first(sign_in.clone()).await {
            Ok(SignedIn::Session(grant)) => return Ok(*grant),
            Ok(SignedIn::SecondFactor { .. }) => anyhow::bail!("nobody has a second factor"),
            // The queue of hashes is full: retry.
            Err(kindred_members::MemberError::Busy) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error).with_context(|| format!("{} could not sign in", username(number))),
        }
    }
}

/// Runs the measurement.
///
/// # Errors
/// When members cannot be written, or a call fails or has an unexpected result.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.members > options.sessions && options.sessions >= FEW, "at least {FEW} sessions, and more members than that");
    let mut report = Report::new("members");
    report.parameter("members", options.members);
    report.parameter("sessions", options.sessions);
    report.parameter("few_members", FEW);
    report.parameter("sign_ins", options.sign_ins);
    report.parameter("searches", options.searches);
    let within = options.within.as_deref();
    let few_sessions = (u64::from(FEW) * u64::from(options.sessions) / u64::from(options.members)).max(1) as u32;
    let shops = [Shop::open(FEW, few_sessions, within).await?, Shop::open(options.members, options.sessions, within).await?];
    // As in every process of the product: revocations are polled twice a second, or no token would be accepted.
    let running: Vec<_> = shops
        .iter()
        .map(|shop| {
            let members = Arc::clone(&shop.members);
            tokio::spawn(async move { members.run().await })
        })
        .collect();
    let rested = rest().await;

    token_checks(&mut report, &shops[1])?;
    let mut rows = sign_ins(&mut report, &shops, options.sign_ins).await?;
    rows.extend(searches(&mut report, &shops, options.searches).await?);
    for task in running {
        task.abort();
    }
    let header = ["call", "few, p50 ms", "many, p50 ms", "times", "few, p99 ms", "many, p99 ms"];
    let (few, many) = (number(f64::from(FEW)), number(f64::from(options.members)));
    report.table(format!("{few} members and {many}, the calls in turn"), &header, rows);
    let shops = shops.iter().map(|shop| {
        let (count, sessions) = (number(f64::from(shop.count)), number(shop.tokens.len() as f64));
        vec![count, sessions, number(shop.written.as_secs_f64()), number(shop.bytes as f64 / f64::from(1 << 20))]
    });
    report.table("the shops", &["members", "sessions", "members written in, s", "directory, MiB"], shops.collect());
    report.detail("rested_s", rested.as_secs_f64())?;
    Ok(report)
}

/// Waits until the store is idle; returns how long that took.
pub(crate) async fn rest() -> Duration {
    let bar = progress::bar("waiting for the store's rest", REST_MAX.as_secs());
    let began = Instant::now();
    while began.elapsed() < REST_MAX {
        let cpu = Process::Own.cpu();
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
        if (Process::Own.cpu().saturating_sub(cpu)).as_secs_f64() < AT_REST {
            break;
        }
    }
    bar.finish_and_clear();
    began.elapsed()
}

/// CPU time of a check on its thread: of each token once, then again in random orders.
fn token_checks(report: &mut Report, shop: &Shop) -> Result<()> {
    let mut tokens: Vec<&SecretString> = shop.tokens.iter().collect();
    let bar = progress::bar("checking tokens", (CHECKS_AGAIN as u64 + 1) * tokens.len() as u64);
    let micros = |cpu: Duration, checks: usize| cpu.as_secs_f64() * 1e6 / checks as f64;
    let mut random = StdRng::seed_from_u64(3);
    let mut all = |tokens: &mut Vec<&SecretString>| {
        tokens.shuffle(&mut random);
        let cpu = thread_cpu();
        for token in tokens.iter() {
            shop.members.sessions.authenticate(token.expose_secret()).context("a token that was given is not taken")?;
        }
        bar.inc(tokens.len() as u64);
        anyhow::Ok(thread_cpu() - cpu)
    };
    let first = all(&mut tokens)?;
    let again = (0..CHECKS_AGAIN).map(|_| all(&mut tokens)).sum::<Result<Duration>>()?;
    bar.finish_and_clear();
    let name = format!("check of an access token, of {} in use", number(tokens.len() as f64));
    report.measure(name, micros(again, CHECKS_AGAIN * tokens.len()), "CPU µs", Some(Target::AtMost(25.0)));
    report.measure("its first check in a process, with the signature", micros(first, tokens.len()), "CPU µs", None);
    Ok(())
}

/// Times of one kind of call in both shops.
pub(crate) struct Pair {
    name: String,
    pub times: [Histogram<u64>; 2],
}

impl Pair {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), times: [latencies(), latencies()] }
    }

    fn ratio(&self) -> f64 {
        let [few, many] = &self.times;
        quantile_ms(many, 0.5) / quantile_ms(few, 0.5)
    }

    pub fn row(&self) -> Vec<String> {
        let [few, many] = &self.times;
        let (p50, p99) = (|times| number(quantile_ms(times, 0.5)), |times| number(quantile_ms(times, 0.99)));
        vec![self.name.clone(), p50(few), p50(many), number(self.ratio()), p99(few), p99(many)]
    }
}

async fn sign_ins(report: &mut Report, shops: &[Shop; 2], count: usize) -> Result<Vec<Vec<String>>> {
    let bar = progress::bar("sign-ins, in turn", count as u64);
    bar.tick();
    let mut random = StdRng::seed_from_u64(1);
    let (mut signed_in, mut refreshed) = (Pair::new("sign-in"), Pair::new("session refreshed"));
    for _ in 0..count {
        for (at, shop) in shops.iter().enumerate() {
            let number = shop.somebody(&mut random);
            let began = Instant::now();
            let grant = sign_in(&shop.members, number).await?;
            record(&mut signed_in.times[at], began.elapsed());
            let began = Instant::now();
            let granted = shop.members.sessions.refresh(&grant.refresh_token, "10.0.0.1", "bench").await;
            granted.context("a session could not be refreshed")?;
            record(&mut refreshed.times[at], began.elapsed());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let many = number(f64::from(shops[1].count));
    let name = format!("sign-in with {many} members, of the time with {}", number(f64::from(FEW)));
    report.measure(name, signed_in.ratio(), "times", Some(Target::AtMost(1.5)));
    report.measure("the same of a refresh, which hashes nothing", refreshed.ratio(), "times", None);
    report.histogram("sign-in-few", &signed_in.times[0]);
    report.histogram("sign-in-many", &signed_in.times[1]);
    Ok(vec![signed_in.row(), refreshed.row()])
}

/// The kinds of search, and the expected number of members on a page.
#[derive(Clone, Copy)]
enum Search {
    Whole(Kind),
    Beginning(Kind),
    Newest,
    FurtherOn,
}

impl Search {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Whole(Kind::Username), "a username"),
        (Self::Whole(Kind::Phone), "a phone"),
        (Self::Whole(Kind::Email), "an e-mail"),
        (Self::Beginning(Kind::Username), "a username's beginning"),
        (Self::Beginning(Kind::Phone), "a phone's beginning"),
        (Self::Beginning(Kind::Email), "an e-mail's beginning"),
        (Self::Newest, "the newest"),
        (Self::FurtherOn, "the page behind them"),
    ];

    fn query(self, number: u32, further_on: &str) -> (MemberQuery, usize) {
        let of = |kind| match kind {
            Kind::Username => username(number),
            Kind::Phone => phone(number),
            Kind::Email => email(number),
        };
        let page = kindred_members::LIMIT;
        let query = MemberQuery::default();
        match self {
            Self::Whole(kind) => (MemberQuery { prefix: Some((kind, of(kind))), ..query }, 1),
            Self::Beginning(kind) => {
                let chars = if kind == Kind::Phone { 3 } else { 1 };
                (MemberQuery { prefix: Some((kind, of(kind)[..chars].to_owned())), ..query }, page)
            }
            Self::Newest => (query, page),
            Self::FurtherOn => (MemberQuery { cursor: Some(further_on.to_owned()), ..query }, page),
        }
    }
}

async fn searches(report: &mut Report, shops: &[Shop; 2], count: usize) -> Result<Vec<Vec<String>>> {
    let bar = progress::bar("searches, in turn", (Search::ALL.len() * count) as u64);
    bar.tick();
    let actor = Actor::operator("bench");
    let mut random = StdRng::seed_from_u64(2);
    let mut further_on = Vec::new();
    for shop in shops {
        let newest = shop.members.staff.search_members(&actor, &MemberQuery::default()).await?;
        further_on.push(newest.next_cursor.context("there is more than one page")?);
    }
    let mut pairs = Vec::new();
    for (search, name) in Search::ALL {
        let mut pair = Pair::new(format!("search: {name}"));
        for _ in 0..count {
            for (at, shop) in shops.iter().enumerate() {
                let (query, wanted) = search.query(random.random_range(0..shop.count), &further_on[at]);
                let began = Instant::now();
                let found = shop.members.staff.search_members(&actor, &query).await?.items.len();
                record(&mut pair.times[at], began.elapsed());
                ensure!(found == wanted, "a search for {name} found {found} of {wanted} among {} members", shop.count);
            }
            bar.inc(1);
        }
        pairs.push(pair);
    }
    bar.finish_and_clear();
    compare(report, "admin search", &pairs)?;
    Ok(pairs.iter().map(Pair::row).collect())
}

/// Reports the worst of the searches, and plots all.
pub(crate) fn compare(report: &mut Report, what: &str, pairs: &[Pair]) -> Result<()> {
    let worst = pairs.iter().max_by(|one, other| one.ratio().total_cmp(&other.ratio())).context("there are searches")?;
    report.measure(format!("{what}, of the time with the few, the worst"), worst.ratio(), "times", Some(Target::AtMost(1.5)));
    let name = |pair: &Pair| pair.name.trim_start_matches("search: ").to_owned();
    report.note(name(worst));
    let panel = Panel::bars(format!("{what} with many members, of the time with few"), "times").with_target(1.5);
    report.plot(pairs.iter().fold(panel, |panel, pair| panel.with_bar(name(pair), pair.ratio())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the searches of the two shops would differ in results, and their times could not be compared.
    #[test]
    fn with_few_members_every_search_fills_its_page() {
        let page = kindred_members::LIMIT;
        for (chars, of) in [(1, username as fn(u32) -> String), (3, phone), (1, email)] {
            let beginning = of(17)[..chars].to_owned();
            let found = (0..FEW).filter(|&number| of(number).starts_with(&beginning)).count();
            assert!(found > page, "{found} of {FEW} begin with {beginning}");
        }
        assert!(FEW as usize > 2 * page);
    }
}
