//! Lockstep: the workers of all processes begin at one frontier, open the same epochs, and end together.
//!
//! ```text
//! any worker ──Signal, at the current epoch──▶ every worker: Heard          (a worker with records opens the epoch for all)
//! each process ──epochs its sink has written──▶ durable frontier ──▶ the leader, which commits
//! ```
//!
//! Worker 0 of process 0 is the leader: it holds the incarnation and commits. Signals are data of a separate timely dataflow, so
//! once an epoch has passed on a worker, the worker has received all of that epoch's signals; and perhaps some of the next one's, which
//! another worker has opened already.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kindred_model::Position;
use kindred_store::{Frontier, Incarnation};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::{Broadcast, Input};
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle};
use timely::worker::Worker;

/// A broadcast from one worker to all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Signal {
    /// The leader has begun an incarnation: all workers join it and read the log from here.
    Begun { number: u64, first_epoch: u64, epoch: u64, position: String, unfinished: bool },
    /// The sender has records for this epoch: all workers feed what they have and close it.
    Open(u64),
    /// The position the sender has read up to with this epoch.
    Reached(u64, String),
    /// The sender opens no more epochs; with the reason if it failed.
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

    pub fn reached(epoch: u64, position: &Position) -> Self {
        Self::Reached(epoch, position.to_string())
    }
}

/// The signals a worker has received.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    pub begun: Option<Incarnation>,
    /// The latest epoch opened.
    pub opened: Option<u64>,
    /// The position up to which the records of all passed epochs were read.
    position: Position,
    /// The same of epochs that have not passed here.
    ahead: BTreeMap<u64, Position>,
    /// Workers that are done.
    pub done: usize,
    /// The first failure reported.
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
            Signal::Reached(epoch, position) => self.ahead.entry(*epoch).or_default().join(&read(position)),
            Signal::Done(failure) => {
                self.done += 1;
                if self.failure.is_none() {
                    self.failure.clone_from(failure);
                }
            }
        }
    }
}

/// One worker's part. Epochs start at 0, like those of the main dataflow.
pub(crate) struct Lockstep {
    signals: InputHandleVec<u64, Signal>,
    heard: Rc<RefCell<Heard>>,
    passed: ProbeHandle<u64>,
    written: Option<InputHandleVec<u64, ()>>,
    durable: ProbeHandle<u64>,
}

impl Lockstep {
    /// Builds the signal dataflow; every worker builds its dataflows in the same order. With `writes`, this worker reports what
    /// the sink of its process has written.
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

    /// Broadcasts to all workers, this one included.
    pub fn send(&mut self, signal: Signal) {
        self.signals.send(signal);
        self.signals.flush();
    }

    /// Reads the signals received so far.
    pub fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.borrow())
    }

    /// The position that the records up to an epoch were read to, once it has passed: not beyond, since what a faster worker has read
    /// for the next epoch is not written with this one.
    pub fn read_to(&self, epoch: u64) -> Position {
        let heard = &mut *self.heard.borrow_mut();
        let later = heard.ahead.split_off(&(epoch + 1));
        std::mem::replace(&mut heard.ahead, later).values().for_each(|position| heard.position.join(position));
        heard.position.clone()
    }

    pub fn advance_to(&mut self, epoch: u64) {
        self.signals.advance_to(epoch);
    }

    /// Whether every worker has received all signals up to this epoch.
    pub fn has_passed(&self, epoch: u64) -> bool {
        !self.passed.less_equal(&epoch)
    }

    /// Reports that this process's sink has written every epoch before this one.
    pub fn wrote_before(&mut self, epoch: u64) {
        if let Some(written) = &mut self.written
            && *written.time() < epoch
        {
            written.advance_to(epoch);
        }
    }

    /// Reports that this process writes nothing more.
    pub fn wrote_all(&mut self) {
        self.written = None;
    }

    /// Never releases the capability for what this process did not write: the durable frontier stops, and the dataflow does not
    /// end.
    pub fn keep_silent(mut self) {
        std::mem::forget(self.written.take());
    }

    /// Every process has written every epoch before this one; `None` when all have written everything.
    pub fn durable_before(&self) -> Option<u64> {
        self.durable.with_frontier(|frontier| frontier.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an epoch would be committed with the position of the next one, which a faster worker has opened: a kill between the
    /// two would lose the records of the second.
    #[test]
    fn what_another_worker_read_for_the_next_epoch_is_not_of_this_one() {
        timely::execute_directly(|worker| {
            let mut lockstep = Lockstep::build(worker, false);
            let [first, second] = ["o0.1", "i0.3-o0.2"].map(|position| position.parse::<Position>().expect("a position"));
            lockstep.send(Signal::reached(0, &first));
            lockstep.advance_to(1);
            lockstep.send(Signal::reached(1, &second));
            worker.step_while(|| lockstep.heard(|heard| heard.ahead.len()) < 2 || !lockstep.has_passed(0));
            assert_eq!(lockstep.read_to(0), first);
            lockstep.advance_to(2);
            worker.step_while(|| !lockstep.has_passed(1));
            assert_eq!(lockstep.read_to(1), second);
        });
    }
}
