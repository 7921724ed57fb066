//! Passwords are hashed, checked and judged on threads of their own, at low priority, behind a bounded queue: a burst of sign-ins waits,
//! the lists do not.
//!
//! ```text
//! hash, verify, judge ──▶ queue: a turn for each caller (a member, an address) ──▶ threads at nice 10 ──▶ answer
//!                           full: the newest of the longest turn is Busy
//! ```
//!
//! However much one caller asks for, another one's next password is hashed after one of theirs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use parking_lot::{Condvar, Mutex};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use crate::error::{MemberError, Result};
use crate::password::Policy;
use crate::validate;
use kindred_config::members::PasswordConfig;

/// How much lower than the rest of the process: half of 20, a twentieth of the share of a thread at 0 on a machine that is full.
const NICENESS: i32 = 10;
/// The least that ASVS appendix C takes: (passes, memory in KiB).
const ASVS_MIN: [(u32, u32); 2] = [(1, 47_104), (2, 19_456)];

/// What came of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Checked {
    /// The password is another.
    Wrong,
    /// It is this one.
    Right {
        /// Its hash was made with other settings than now: make it anew.
        outdated: bool,
    },
}

type Job = Box<dyn FnOnce(&Argon2<'static>) + Send>;

/// What waits: callers in the order of their turns, and the jobs of each.
#[derive(Default)]
struct Waiting {
    turns: VecDeque<(Box<str>, VecDeque<Job>)>,
    jobs: usize,
    closed: bool,
}

/// The queue before the threads.
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    jobs_max: usize,
}

impl Queue {
    /// Whether a job of a caller waits now. Where the queue is full, whoever has most jobs in it loses the newest of them to a caller
    /// with fewer.
    fn push(&self, of: &str, job: Job) -> bool {
        let mut waiting = self.waiting.lock();
        let own = waiting.turns.iter().position(|(caller, _)| **caller == *of);
        if waiting.jobs >= self.jobs_max {
            let have = own.map_or(0, |at| waiting.turns[at].1.len());
            let most = waiting.turns.iter_mut().map(|(_, jobs)| jobs).max_by_key(|jobs| jobs.len());
            let Some(most) = most.filter(|jobs| jobs.len() > have + 1) else { return false };
            most.pop_back();
            waiting.jobs -= 1;
        }
        match own {
            Some(at) => waiting.turns[at].1.push_back(job),
            None => waiting.turns.push_back((of.into(), VecDeque::from([job]))),
        }
        waiting.jobs += 1;
        metrics::gauge!("argon2_queue_depth").set(waiting.jobs as f64);
        self.changed.notify_one();
        true
    }

    /// The next job, of the caller whose turn it is; `None` once nobody can ask any more.
    fn pop(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some((caller, mut jobs)) = waiting.turns.pop_front() {
                let job = jobs.pop_front();
                if !jobs.is_empty() {
                    waiting.turns.push_back((caller, jobs));
                }
                waiting.jobs -= 1;
                metrics::gauge!("argon2_queue_depth").set(waiting.jobs as f64);
                return job;
            }
            if waiting.closed {
                return None;
            }
            self.changed.wait(&mut waiting);
        }
    }
}

/// Ends the threads with the last handle.
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.changed.notify_all();
    }
}

/// How passwords are hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashes {
    /// As the settings say, which may not be too weak.
    Strong,
    /// Quickly: tests and measurements hash often.
    WeakForTests,
}

/// The threads. Dropping the last clone ends them.
#[derive(Clone)]
pub(crate) struct Hasher {
    queue: Arc<Handle>,
    /// Checked in place of the hash of somebody who does not exist, so that the answer takes as long (V6.3.8).
    dummy: Arc<str>,
}

impl Hasher {
    /// Starts the threads.
    ///
    /// # Errors
    /// Settings below ASVS appendix C; no thread.
    pub fn start(config: &PasswordConfig, hashes: Hashes) -> Result<Self> {
        let strong = ASVS_MIN.iter().any(|&(passes, memory)| config.passes >= passes && config.memory_kib >= memory);
        let (memory, passes) = match hashes {
            Hashes::WeakForTests => (64, 1),
            Hashes::Strong if strong => (config.memory_kib, config.passes),
            Hashes::Strong => {
                let text = "members.password: at one pass memory_kib must be at least 47104, at two 19456 (ASVS V11.4.2)";
                return Err(MemberError::Internal(text.into()));
            }
        };
        let internal = |error: &dyn std::fmt::Display| MemberError::Internal(format!("could not start hashing: {error}"));
        let params = Params::new(memory, passes, 1, None).map_err(|error| internal(&error))?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = argon.hash_password(&crate::random::bytes::<32>()).map_err(|error| internal(&error))?.to_string();
        let waiting = Waiting::default();
        let queue = Arc::new(Queue { waiting: Mutex::new(waiting), changed: Condvar::new(), jobs_max: config.queue.max(1) });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..if config.threads == 0 { cores } else { config.threads } {
            let (argon, queue) = (argon.clone(), queue.clone());
            let work = move || {
                // Of this thread alone, on Linux. Where it is refused, hashing competes as an equal: slower lists, nothing wrong.
                if let Err(error) = rustix::process::nice(NICENESS) {
                    tracing::warn!(%error, "could not lower the priority of password hashing");
                }
                while let Some(job) = queue.pop() {
                    // One job's panic is its caller's error; the thread goes on.
                    let _told_by_the_hook = catch_unwind(AssertUnwindSafe(|| job(&argon)));
                }
            };
            std::thread::Builder::new()
                .name(format!("{}{number}", kindred_telemetry::HASH_THREAD))
                .spawn(work)
                .map_err(|error| internal(&error))?;
        }
        Ok(Self { queue: Arc::new(Handle(queue)), dummy: dummy.into() })
    }

    /// Whether a policy accepts a new password of somebody with these words of their own.
    ///
    /// # Errors
    /// As [`Policy::check`]; [`MemberError::Busy`].
    pub async fn judge(
        &self,
        policy: Arc<Policy>,
        password: SecretString,
        own: Vec<String>,
        staff: bool,
        of: &str,
    ) -> Result<()> {
        let judged = move |_: &Argon2<'_>| policy.check(&password, &own.iter().map(String::as_str).collect::<Vec<_>>(), staff);
        self.run(of, judged).await?
    }

    /// The PHC string of a password, in its one form. `of` is whose turn it is: a member or an address.
    ///
    /// # Errors
    /// [`MemberError::Busy`].
    pub async fn hash(&self, password: SecretString, of: &str) -> Result<String> {
        let password = validate::password(password);
        self.run(of, move |argon| argon.hash_password(password.expose_secret().as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| {
                tracing::error!(%error, "could not hash a password");
                MemberError::Internal("hashing".into())
            })
    }

    /// Whether the password is that of `hash`; without one, as long as it takes to find that it is not. What was typed in another form
    /// than the one that is hashed is tried as it is as well: it was hashed so once.
    ///
    /// # Errors
    /// [`MemberError::Busy`].
    pub async fn verify(&self, password: SecretString, hash: Option<&str>, of: &str) -> Result<Checked> {
        let known = hash.is_some();
        let hash = hash.map_or_else(|| self.dummy.to_string(), str::to_owned);
        self.run(of, move |argon| {
            let Ok(hash) = PasswordHash::new(&hash) else {
                tracing::error!("a stored password hash does not parse");
                return Checked::Wrong;
            };
            let is = |text: &SecretString| argon.verify_password(text.expose_secret().as_bytes(), &hash).is_ok();
            let composed = validate::password(password.clone());
            let right = is(&composed);
            let as_typed = !right && composed.expose_secret() != password.expose_secret() && is(&password);
            let current = Params::try_from(&hash).is_ok_and(|params| {
                (params.m_cost(), params.t_cost(), params.p_cost())
                    == (argon.params().m_cost(), argon.params().t_cost(), argon.params().p_cost())
            });
            if (right || as_typed) && known { Checked::Right { outdated: as_typed || !current } } else { Checked::Wrong }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, of: &str, work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static) -> Result<T> {
        let (answer, done) = oneshot::channel();
        let queued = Instant::now();
        let job: Job = Box::new(move |argon| {
            metrics::histogram!("password_hash_wait_seconds").record(queued.elapsed().as_secs_f64());
            // Whoever has given up waiting is not worked for.
            if !answer.is_closed() {
                let _gone = answer.send(work(argon));
            }
        });
        if !self.queue.0.push(of, job) {
            return Err(MemberError::Busy);
        }
        // It gave way to another's.
        done.await.map_err(|_| MemberError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V11.4.2: what is stored says argon2id with parameters of appendix C, and weaker settings do not start.
    #[tokio::test]
    async fn v11_4_2_hashes_are_argon2id() {
        let hasher = Hasher::start(&PasswordConfig::default(), Hashes::Strong).unwrap();
        let hash = hasher.hash("secret".into(), "a").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("secret".into(), "a").await.unwrap(), "a salt of its own");
        let weak = PasswordConfig { memory_kib: 19_455, ..PasswordConfig::default() };
        assert!(Hasher::start(&weak, Hashes::Strong).is_err());
        assert!(Hasher::start(&PasswordConfig { passes: 1, ..PasswordConfig::default() }, Hashes::Strong).is_err());
        let other = Hasher::start(&PasswordConfig { passes: 3, ..PasswordConfig::default() }, Hashes::Strong).unwrap();
        assert_eq!(other.verify("secret".into(), Some(&hash), "a").await, Ok(Checked::Right { outdated: true }));
        assert_eq!(hasher.verify("secret".into(), Some(&hash), "a").await, Ok(Checked::Right { outdated: false }));
        assert_eq!(hasher.verify("secret".into(), None, "a").await, Ok(Checked::Wrong));
    }

    /// V6.2.8: the 73rd byte counts, and so does the case.
    #[tokio::test]
    async fn v6_2_8_nothing_is_cut_or_folded() {
        let hasher = Hasher::start(&PasswordConfig::default(), Hashes::Strong).unwrap();
        let password = "x".repeat(72) + "y";
        let hash = hasher.hash(password.clone().into(), "a").await.unwrap();
        for other in ["x".repeat(72) + "z", "x".repeat(72), "X".repeat(72) + "y", password.clone() + " "] {
            assert_eq!(hasher.verify(other.into(), Some(&hash), "a").await, Ok(Checked::Wrong));
        }
        assert_eq!(hasher.verify(password.into(), Some(&hash), "a").await, Ok(Checked::Right { outdated: false }));
    }

    /// If it failed, a burst of sign-ins would queue without end, or hash at the priority of the lists.
    #[tokio::test]
    async fn a_full_queue_is_busy_and_hashing_is_nice() {
        let hasher =
            Hasher::start(&PasswordConfig { threads: 1, queue: 2, ..PasswordConfig::default() }, Hashes::Strong).unwrap();
        let (_all, results) = (0, futures_util::future::join_all((0..16).map(|_| hasher.hash("secret".into(), "a"))).await);
        let busy = results.iter().filter(|result| **result == Err(MemberError::Busy)).count();
        assert!((10..16).contains(&busy), "{busy} of 16 were refused");
        let niceness = hasher.run("a", |_| rustix::process::nice(0).unwrap()).await.unwrap();
        assert!(niceness >= NICENESS, "{niceness}");
    }

    /// NIST SP 800-63B 3.1.1.2: if it failed, a password with `ü` would be wrong from another keyboard, or one that was hashed as it
    /// was typed would be wrong for good.
    #[tokio::test]
    async fn a_password_is_one_however_it_is_composed() {
        let hasher = Hasher::start(&PasswordConfig::default(), Hashes::WeakForTests).unwrap();
        let (composed, apart) = ("Grüße aus München", "Gru\u{308}ße aus Mu\u{308}nchen");
        let right = |outdated| Ok(Checked::Right { outdated });
        for first in [composed, apart] {
            let hash = hasher.hash(first.into(), "a").await.unwrap();
            for typed in [composed, apart] {
                assert_eq!(hasher.verify(typed.into(), Some(&hash), "a").await, right(false), "{first} {typed}");
            }
        }
        let old = hasher.run("a", move |argon| argon.hash_password(apart.as_bytes()).unwrap().to_string()).await.unwrap();
        assert_eq!(hasher.verify(apart.into(), Some(&old), "a").await, right(true), "as it was hashed before, once");
        assert_eq!(hasher.verify("Grüße aus Bremen".into(), Some(&old), "a").await, Ok(Checked::Wrong));
    }

    /// If it failed, one address or member would keep all others from signing in.
    #[tokio::test]
    async fn nobody_uses_up_the_queue() {
        let config = PasswordConfig { threads: 1, queue: 16, memory_kib: 64, passes: 1, ..PasswordConfig::default() };
        let hasher = Hasher::start(&config, Hashes::WeakForTests).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (begins, begun_first) = oneshot::channel();
        let first = {
            let hasher = hasher.clone();
            let work = move |_: &Argon2<'_>| {
                let _ = begins.send(());
                wait.lock().recv()
            };
            tokio::spawn(async move { hasher.run("greedy", work).await })
        };
        begun_first.await.unwrap();
        let begun = |jobs: usize| {
            let queue = hasher.queue.0.clone();
            async move {
                while queue.waiting.lock().jobs != jobs {
                    tokio::task::yield_now().await;
                }
            }
        };
        let job = |of: &'static str| {
            let (hasher, order) = (hasher.clone(), order.clone());
            tokio::spawn(async move { hasher.run(of, move |_| order.lock().push(of)).await })
        };
        let greedy: Vec<_> = (0..40).map(|_| job("greedy")).collect();
        begun(16).await;
        let others = [job("one"), job("two")];
        let waiting = |of: &str| hasher.queue.0.waiting.lock().turns.iter().any(|(caller, _)| **caller == *of);
        while !(waiting("one") && waiting("two")) {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        for other in others {
            assert_eq!(other.await.unwrap(), Ok(()), "the others are not refused");
        }
        let mut busy = 0;
        for job in greedy {
            busy += usize::from(job.await.unwrap() == Err(MemberError::Busy));
        }
        assert_eq!(busy, 40 - 14, "the greedy one's newest gave way");
        let place = |of| order.lock().iter().position(|done| *done == of).unwrap();
        assert!(place("one") <= 2 && place("two") <= 3, "each has a turn: {:?}", order.lock());
        assert!(first.await.unwrap().unwrap().is_ok());
    }
}
