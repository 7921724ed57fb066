//! The dataflow alone, on the calling thread: the CPU time of an epoch without log, store and HTTP.
//!
//! ```text
//! facts ──EngineInput (one of three)──▶ timely worker on this thread ──outputs──▶ a thread that drops them, like the sink
//! ```
//!
//! NB: outside of `pipeline/dataflow` and the pipeline's worker only this module names timely and differential, to measure
//! operators alone.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use differential_dataflow::input::InputSession;
use kindred_dataflow::also_bought::also_bought;
use kindred_dataflow::update::{InteractionUpdate, Output, OutputFn, Stats, SubjectKey, Update};
use kindred_dataflow::{Dataflow, build, reference};
use kindred_model::intern::{Item, Party};
use kindred_model::views::ViewName;
use kindred_model::{Kind, Semantics};
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::Probe;
use timely::worker::Worker;

use crate::synthetic::{Purchase, item_id, member_id};
use crate::usage::thread_cpu;

/// A purchase with interned identities.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    party: Party,
    item: Item,
    at: i64,
}

impl From<Purchase> for Fact {
    fn from(purchase: Purchase) -> Self {
        Self {
            party: Party::member(member_id(purchase.member).as_str()),
            item: Item::intern(item_id(purchase.item).as_str()),
            at: purchase.at,
        }
    }
}

impl Fact {
    /// As an update of the product's dataflow.
    pub fn update(&self) -> Update {
        Update::Interaction(InteractionUpdate {
            party: self.party,
            subject: SubjectKey::Item(self.item),
            kind: Kind::Purchase.code(),
            retract: false,
            at: self.at,
            scenario: Box::default(),
            payload: Box::default(),
        })
    }
}

/// The implementation under test.
#[derive(Clone, PartialEq, Debug)]
pub enum Engine {
    /// The product's dataflow with these settings, from decoded interactions to changed rows.
    Product(Box<Semantics>),
    /// The operators of `also_bought` alone, on merged facts.
    Operators,
    /// The same view in plain differential, on the same facts.
    Reference,
}

impl Engine {
    /// The product with `also_bought` alone.
    pub fn also_bought_alone() -> Self {
        let mut semantics = Semantics::default();
        semantics.views.keep_only(&[ViewName::AlsoBought]);
        Self::Product(Box::new(semantics))
    }

    /// The product with all its views.
    pub fn all_views() -> Self {
        Self::Product(Box::default())
    }
}

/// The cost of a piece of work.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// The number of events.
    pub events: usize,
    /// CPU time of the dataflow's thread.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
}

impl Cost {
    /// Events per CPU second.
    pub fn events_per_cpu_second(&self) -> f64 {
        self.events as f64 / self.cpu.as_secs_f64().max(1e-9)
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.cpu += more.cpu;
        self.wall += more.wall;
    }
}

/// (owner, (item, at)): the input of the operators.
type Facts = InputSession<u64, (Party, (Item, i64)), isize>;

/// The input of an engine.
enum EngineInput {
    Product(Box<Dataflow>),
    Facts(Box<Facts>, ProbeHandle<u64>),
}

/// A dataflow under measurement.
pub struct Job<'a> {
    worker: &'a mut Worker,
    feed: EngineInput,
    epoch: u64,
    /// The metrics of the operators. The reference has none.
    pub stats: Arc<Stats>,
}

impl Job<'_> {
    /// Feeds facts as one epoch and steps until all its outputs are emitted.
    pub fn epoch(&mut self, facts: impl IntoIterator<Item = Fact>) -> Cost {
        self.feed(facts, |feed, fact| match feed {
            EngineInput::Product(dataflow) => dataflow.send(fact.update()),
            EngineInput::Facts(session, _) => session.update((fact.party, (fact.item, fact.at)), 1),
        })
    }

    /// Feeds any updates as one epoch, as a restart does with the merged inputs. Only for [`Engine::Product`]: the others know
    /// only purchases.
    pub fn updates(&mut self, updates: impl IntoIterator<Item = Update>) -> Cost {
        self.feed(updates, |feed, update| match feed {
            EngineInput::Product(dataflow) => dataflow.send(update),
            EngineInput::Facts(..) => unreachable!("records of all kinds are the product's"),
        })
    }

    fn feed<E>(&mut self, entries: impl IntoIterator<Item = E>, mut send: impl FnMut(&mut EngineInput, E)) -> Cost {
        let (began, cpu) = (Instant::now(), thread_cpu());
        let mut events = 0;
        for entry in entries {
            events += 1;
            send(&mut self.feed, entry);
            // Like the pipeline's worker, to keep queues short.
            if events % 16_384 == 0 {
                self.worker.step();
            }
        }
        let next = self.epoch + 1;
        match &mut self.feed {
            EngineInput::Product(dataflow) => {
                dataflow.advance_to(next);
                while !dataflow.has_passed(self.epoch) {
                    self.worker.step();
                }
            }
            EngineInput::Facts(session, probe) => {
                session.advance_to(next);
                session.flush();
                while probe.less_than(&next) {
                    self.worker.step();
                }
            }
        }
        self.epoch = next;
        Cost { events, cpu: thread_cpu() - cpu, wall: began.elapsed() }
    }

    /// Feeds facts in epochs of `each` until they or `most` CPU time are used up; calls `see` after each epoch.
    pub fn epochs(&mut self, facts: &[Fact], each: usize, most: Duration, mut see: impl FnMut(Cost)) -> Cost {
        let mut total = Cost::default();
        for epoch in facts.chunks(each) {
            let cost = self.epoch(epoch.iter().copied());
            see(cost);
            total += cost;
            if total.cpu >= most {
                break;
            }
        }
        total
    }
}

/// Runs `work` on a fresh dataflow of `engine`, one worker on the calling thread.
pub fn run<T: Send + 'static>(engine: Engine, work: impl FnOnce(&mut Job<'_>) -> T + Send + Sync + 'static) -> T {
    // In the product the sink is another thread: its work is not the dataflow's.
    let (give, take) = channel::<Output>();
    let sink = std::thread::spawn(move || take.into_iter().for_each(drop));
    let give = std::sync::Mutex::new(give);
    // The sink outlives the worker.
    let output: OutputFn = Arc::new(move |output| drop(give.lock().map(|give| give.send(output))));
    let result = run_into(engine, output, work);
    sink.join().expect("the sink drops what it gets");
    result
}

/// The same, with outputs passed to `output` on the dataflow's thread.
pub fn run_into<T: Send + 'static>(
    engine: Engine,
    output: OutputFn,
    work: impl FnOnce(&mut Job<'_>) -> T + Send + Sync + 'static,
) -> T {
    timely::execute_directly(move |worker| {
        let stats = Arc::new(Stats::default());
        let feed = feed(engine, worker, &stats, &output);
        drop(output);
        let mut job = Job { worker, feed, epoch: 0, stats };
        work(&mut job)
    })
}

fn feed(engine: Engine, worker: &mut Worker, stats: &Arc<Stats>, output: &OutputFn) -> EngineInput {
    if let Engine::Product(semantics) = engine {
        return EngineInput::Product(Box::new(build(worker, &semantics, stats, output)));
    }
    let mut session = InputSession::new();
    let probe = ProbeHandle::new();
    let settings = Semantics::default().views.also_bought;
    worker.dataflow::<u64, _, _>(|scope| {
        let held = session.to_collection(scope);
        if engine == Engine::Reference {
            let rows = reference::also_bought(held, &settings);
            rows.lists.probe_with(&probe);
            rows.supports.probe_with(&probe);
        } else {
            let rows = also_bought(held, &settings, stats);
            rows.lists.probe_with(&probe);
            rows.supports.probe_with(&probe);
        }
    });
    EngineInput::Facts(Box::new(session), probe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Plan, purchases};

    /// The engines must have done the same work, or the table compares nothing.
    #[test]
    fn every_engine_takes_all_facts_in() {
        let plan = Plan { members: 60, items: 40, events: 1_500, seed: 7 };
        let facts: Vec<Fact> = purchases(&plan).take(plan.events).map(Fact::from).collect();
        let mut pairs = Vec::new();
        for engine in [Engine::also_bought_alone(), Engine::all_views(), Engine::Operators, Engine::Reference] {
            let facts = facts.clone();
            let (bulk, live, held) = run(engine, move |job| {
                let bulk = job.epoch(facts[..1_000].iter().copied());
                let mut epochs = 0;
                let live = job.epochs(&facts[1_000..], 100, Duration::MAX, |_| epochs += 1);
                assert_eq!(epochs, 5);
                (bulk, live, Stats::get(&job.stats.pairs))
            });
            assert_eq!((bulk.events, live.events), (1_000, 500));
            assert!(bulk.cpu > Duration::ZERO && live.events_per_cpu_second() > 0.0);
            pairs.push(held);
        }
        assert!(pairs[0] > 0 && pairs[..3].iter().all(|held| *held == pairs[0]), "{pairs:?}");
        assert_eq!(pairs[3], 0, "the reference keeps no figures");
    }
}
