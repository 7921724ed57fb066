//! The lockstep: how the workers of all processes begin at one frontier, open the same epochs, and end together.
//!
//! ```text
//! any worker ──Signal, at the current epoch──▶ every worker: Heard          (who has records opens the epoch for all)
//! each process ──epochs its sink has written──▶ durable frontier ──▶ the leader, which commits
//! ```
//!
//! There is no coordinator beyond worker 0 of process 0, the leader, which holds the incarnation and commits. Signals travel as
//! data of a timely dataflow of their own, so an epoch has passed on a worker only after all signals of that epoch were heard.

use std::cell::RefCell;
use std::rc::Rc;

use kindred_model::Position;
use kindred_store::{Frontier, Incarnation};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::{Broadcast, Input};
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle};
use timely::worker::Worker;

/// What one worker tells all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Signal {
    /// The leader has begun: everybody joins, and reads on from here.
    Begun { number: u64, first_epoch: u64, epoch: u64, position: String, unfinished: bool },
    /// There are records for this epoch: everybody takes in what is there and closes it.
    Open(u64),
    /// How far the records are read that the sender has taken in.
    Reached(String),
    /// The sender will open no epoch any more; with why, if it did not end in order.
    Done(Option<String>),
}

impl Signal {
    pub fn begun(incarnation: &Incarnation) -> Self {
        let Incarnation { number, first_epoch, frontier } = incarnation;
        let position = frontier.position.to_string();
        Self::Begun {
            number: *number,
            first_epoch: *first_epoch,
            epoch: frontier.epoch,
            position,
            unfinished: frontier.unfinished,
        }
    }

    pub fn reached(position: &Position) -> Self {
        Self::Reached(position.to_string())
    }
}

/// What a worker has heard.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    pub begun: Option<Incarnation>,
    /// The latest epoch that somebody opened.
    pub opened: Option<u64>,
    /// How far all records are read that anybody has taken in.
    pub position: Position,
    /// Workers that are done.
    pub done: usize,
    /// Why the first of them ended that did not end in order.
    pub failure: Option<String>,
}

impl Heard {
    fn hear(&mut self, signal: &Signal) {
        let read = |position: &str| position.parse::<Position>().expect("a worker of this version wrote the position");
        match signal {
            Signal::Begun { number, first_epoch, epoch, position, unfinished } => {
                self.position = read(position);
                let frontier = Frontier { epoch: *epoch, position: self.position.clone(), unfinished: *unfinished };
                self.begun = Some(Incarnation { number: *number, first_epoch: *first_epoch, frontier });
            }
            Signal::Open(epoch) => self.opened = self.opened.max(Some(*epoch)),
            Signal::Reached(position) => self.position.join(&read(position)),
            Signal::Done(failure) => {
                self.done += 1;
                if self.failure.is_none() {
                    self.failure.clone_from(failure);
                }
            }
        }
    }
}

/// One worker's part. Epochs start at 0, as those of the dataflow that it goes along with.
pub(crate) struct Lockstep {
    signals: InputHandleVec<u64, Signal>,
    heard: Rc<RefCell<Heard>>,
    passed: ProbeHandle<u64>,
    written: Option<InputHandleVec<u64, ()>>,
    durable: ProbeHandle<u64>,
}

impl Lockstep {
    /// Builds the dataflow of the signals; every worker does, in the same order as its other dataflows. `writes` says whether this
    /// worker tells what the sink of its process has written.
    pub fn build(worker: &mut Worker, writes: bool) -> Self {
        let heard = Rc::new(RefCell::new(Heard::default()));
        let (passed, durable) = (ProbeHandle::new(), ProbeHandle::new());
        let hears = Rc::clone(&heard);
        let (signals, written) = worker.dataflow_named::<u64, _, _>("Lockstep", |scope| {
            let (signals, told) = scope.new_input::<Signal>();
            told.broadcast().inspect(move |signal| hears.borrow_mut().hear(signal)).probe_with(&passed);
            let (written, telling) = scope.new_input::<()>();
            telling.probe_with(&durable);
            (signals, written)
        });
        Self { signals, heard, passed, written: writes.then_some(written), durable }
    }

    /// Tells all workers, this one among them.
    pub fn send(&mut self, signal: Signal) {
        self.signals.send(signal);
        self.signals.flush();
    }

    /// Looks at what was heard so far.
    pub fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.borrow())
    }

    pub fn advance_to(&mut self, epoch: u64) {
        self.signals.advance_to(epoch);
    }

    /// Whether every signal of this and earlier epochs has been heard by every worker.
    pub fn has_passed(&self, epoch: u64) -> bool {
        !self.passed.less_equal(&epoch)
    }

    /// Tells that the sink of this process has written every epoch before this one.
    pub fn wrote_before(&mut self, epoch: u64) {
        if let Some(written) = &mut self.written
            && *written.time() < epoch
        {
            written.advance_to(epoch);
        }
    }

    /// Tells that this process will write nothing any more.
    pub fn wrote_all(&mut self) {
        self.written = None;
    }

    /// Never tells what this process did not write: the frontier stays where it is, and so does the dataflow.
    pub fn keep_silent(mut self) {
        std::mem::forget(self.written.take());
    }

    /// Every epoch before this one is written by every process; nothing when all have written all.
    pub fn durable_before(&self) -> Option<u64> {
        self.durable.with_frontier(|frontier| frontier.first().copied())
    }
}
