//! `search`: latency of member search among a million members, beside a thousand, over HTTP.
//!
//! ```text
//! few:  1,000 members     ── kindred serve ──┐ GET /v1/admin/members?q=… of one and of the other, in turns ──▶ medians, their ratio
//! many: 1,000,000 members ── kindred serve ──┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::http::get;
use crate::members::{FEW, Pair, compare, rest};
use crate::options::{Product, quick, seconds};
use crate::pace::closed_loop;
use crate::people::{self, email, phone, username};
use crate::progress;
use crate::report::{Report, number};
use crate::server::{Binary, Preloaded, Server};

/// Prepared requests of a kind, each for another member, sent in turn.
const REQUESTS: usize = 8_192;
/// A kind of search: its name, and the value of `q=` for a member.
type Sort = (&'static str, fn(u32) -> String);

const SORTS: [Sort; 4] = [
    ("a username", username),
    ("a phone", phone),
    ("an e-mail", email),
    ("a username's beginning, a page of 50", |number| username(number)[..1].to_owned()),
];

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Members of the large shop; the small one has 1,000
    #[arg(long = "accounts", default_value_t = 1_000_000)]
    pub members: u32,
    /// Turns of each kind of search and shop
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long a turn lasts
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub turn: Duration,
    /// The product.
    #[command(flatten)]
    pub product: Product,
}

quick!(|options| {
    (options.members, options.rounds) = (5_000, 1);
    options.turn = Duration::from_secs(1);
});

/// A served shop with this many members.
struct Shop {
    count: u32,
    server: Server,
    _data: Preloaded,
}

impl Shop {
    async fn open(count: u32, binary: &Binary, options: &Options) -> Result<Self> {
        let data = Preloaded::empty(Vec::new(), options.product.within.as_deref())?;
        // The first start creates the directory.
        data.serve(binary).await?.kill()?;
        people::fill(&data.data(), count).await?;
        rest().await;
        Ok(Self { count, server: data.serve(binary).await?, _data: data })
    }

    fn requests(&self, text: fn(u32) -> String) -> Arc<Vec<Vec<u8>>> {
        let (address, key) = (self.server.endpoint.address, &self.server.endpoint.key);
        let mut random = StdRng::seed_from_u64(4);
        let path = |number| format!("/v1/admin/members?q={}", text(number).replace('@', "%40"));
        let request = |_| get(&path(random.random_range(0..self.count)), address, Some(key));
        Arc::new((0..REQUESTS).map(request).collect())
    }
}

/// Runs the measurement.
///
/// # Errors
/// When members cannot be written, a server does not start, or an answer is not 2xx.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.members > FEW && options.rounds > 0, "more than {FEW} members, and at least one round");
    let mut report = Report::new("search");
    report.parameter("members", options.members);
    report.parameter("few_members", FEW);
    report.parameter("rounds", options.rounds);
    report.parameter("seconds_a_turn", options.turn.as_secs_f64());
    let binary = options.product.binary()?;
    let shops = [Shop::open(FEW, &binary, options).await?, Shop::open(options.members, &binary, options).await?];
    let bar = progress::bar("searches, in turns", (SORTS.len() * options.rounds * shops.len()) as u64);
    bar.tick();
    let mut pairs = Vec::new();
    for (name, text) in SORTS {
        let requests = [shops[0].requests(text), shops[1].requests(text)];
        let mut pair = Pair::new(name);
        for _ in 0..options.rounds {
            for ((shop, requests), times) in shops.iter().zip(&requests).zip(&mut pair.times) {
                let reads = closed_loop(shop.server.endpoint.address, Arc::clone(requests), 1, options.turn).await?;
                reads.check("searches")?;
                times.add(&reads.latencies).context("the same sort of histogram")?;
                bar.inc(1);
            }
        }
        pairs.push(pair);
    }
    bar.finish_and_clear();
    compare(&mut report, "a search", &pairs)?;
    let header = ["search for", "few, p50 ms", "many, p50 ms", "times", "few, p99 ms", "many, p99 ms"];
    let (few, many) = (number(f64::from(FEW)), number(f64::from(options.members)));
    let rows = pairs.iter().map(Pair::row).collect();
    report.table(format!("{few} members and {many}, one request after the other"), &header, rows);
    Ok(report)
}
