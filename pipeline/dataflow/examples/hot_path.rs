//! Cost of `also_bought`: a synthetic log of purchases in one epoch, then live at several epoch sizes.
//!
//! ```text
//! cargo run --release -p kindred-dataflow --example hot_path -- [members] [items] [events] [workers] [--reference]
//! ```
//!
//! The first nine tenths of the log are one epoch; the rest is fed live. Times are CPU time of the process without generating the
//! log, so that other load on the machine does not count. `--reference` runs the same view in plain differential.

use std::sync::Arc;
use std::time::Duration;

use differential_dataflow::input::InputSession;
use kindred_dataflow::also_bought::also_bought;
use kindred_dataflow::reference;
use kindred_dataflow::update::Stats;
use kindred_model::intern::{Item, Party};
use kindred_model::settings::Similarity;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal, Zipf};
use rustix::time::{ClockId, clock_gettime};
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::probe::{self, Probe};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fact = (Party, (Item, i64));

/// Live runs: (events per epoch, share of the live part of the log).
const LIVE: [(usize, f64); 4] = [(1_000, 0.4), (100, 0.4), (10, 0.1), (1, 0.1)];

/// Members of log-normal activity buy items of Zipf popularity (exponent 1.05), one every five seconds.
fn log(members: usize, items: usize, events: usize) -> Vec<Fact> {
    let mut rng = StdRng::seed_from_u64(7);
    let activity = LogNormal::new(0.0f64, 1.0).expect("a distribution");
    let mut total = 0.0;
    let up_to: Vec<f64> = (0..members)
        .map(|_| {
            total += activity.sample(&mut rng);
            total
        })
        .collect();
    let popularity = Zipf::new(items as f64, 1.05).expect("a distribution");
    let parties: Vec<Party> = (0..members).map(|n| Party::member(&format!("m{n}"))).collect();
    (0..events)
        .map(|event| {
            let drawn = rng.random::<f64>() * total;
            let member = up_to.partition_point(|&sum| sum <= drawn).min(members - 1);
            let item = Item::intern(&format!("item-{}", popularity.sample(&mut rng) as u64));
            (parties[member], (item, 1_700_000_000_000 + event as i64 * 5_000))
        })
        .collect()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A value of `/proc/self/status` in MB.
fn memory_mb(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e3
}

fn main() {
    let (flags, numbers): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let number = |place: usize, default| numbers.get(place).map_or(default, |text| text.parse().expect("a number"));
    let (members, items, events, workers) = (number(0, 100_000), number(1, 20_000), number(2, 2_000_000), number(3, 1));
    let plain = flags.iter().any(|flag| flag == "--reference");

    let log = Arc::new(log(members, items, events));
    println!("{events} events, {members} members, {items} items; {workers} workers; log and names {:.0} MB", memory_mb("VmRSS:"));
    let stats = Arc::new(Stats::default());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut input = InputSession::<u64, Fact, isize>::new();
        let probe = probe::Handle::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let held = input.to_collection(scope);
            if plain {
                let reference = reference::also_bought(held, &Similarity::default());
                reference.lists.probe_with(&probe);
                reference.supports.probe_with(&probe);
            } else {
                let rows = also_bought(held, &Similarity::default(), &stats);
                rows.lists.inspect(|_| {}).probe_with(&probe);
                rows.supports.probe_with(&probe);
            }
        });
        if worker.index() > 0 {
            return;
        }

        let mut fed = 0;
        let mut epoch = 0;
        let mut feed = |count: usize, an_epoch: usize| {
            let count = count.min(log.len() - fed);
            let (start, lists, pairs) = (cpu_time(), Stats::get(&stats.lists_changed), Stats::get(&stats.pair_updates));
            let mut slowest = Duration::ZERO;
            for events in log[fed..fed + count].chunks(an_epoch) {
                let began = std::time::Instant::now();
                events.iter().for_each(|&fact| input.update(fact, 1));
                epoch += 1;
                input.advance_to(epoch);
                input.flush();
                worker.step_while(|| probe.less_than(&epoch));
                slowest = slowest.max(began.elapsed());
            }
            fed += count;
            let seconds = (cpu_time() - start).as_secs_f64();
            let per_event = |figure, before| (Stats::get(figure) - before) as f64 / count as f64;
            println!(
                "{count:>8} events, {an_epoch:>8} an epoch: {seconds:>7.3} CPU-s, {:>9.0} events/CPU-s; an event: {:>5.1} lists, {:>6.1} \
                 pair updates; slowest epoch {:.1} ms",
                count as f64 / seconds,
                per_event(&stats.lists_changed, lists),
                per_event(&stats.pair_updates, pairs),
                slowest.as_secs_f64() * 1e3,
            );
            let (pairs, bytes) = (Stats::get(&stats.pairs), Stats::get(&stats.similarity_bytes));
            if an_epoch > 1_000 && pairs > 0 {
                println!("         {pairs} directed pairs, {:.2} bytes a pair", bytes as f64 / pairs as f64);
            }
        };
        let bulk = log.len() * 9 / 10;
        feed(bulk, bulk);
        for (an_epoch, share) in LIVE {
            // Plain differential takes minutes where the operators take seconds.
            let share = if plain { share / 20.0 } else { share };
            feed(((log.len() - bulk) as f64 * share) as usize, an_epoch);
        }
        let (pairs, bytes) = (Stats::get(&stats.pairs), Stats::get(&stats.similarity_bytes));
        println!(
            "{pairs} directed pairs, {:.2} bytes a pair; peak RSS {:.0} MB",
            bytes as f64 / pairs as f64,
            memory_mb("VmHWM:")
        );
    });
    guards.expect("workers start").join().into_iter().for_each(|result| result.expect("a worker ends well"));
}
