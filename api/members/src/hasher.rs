//! Password hashes on threads of their own, at low priority, behind a bounded queue: a burst of sign-ins waits, the lists do not.
//!
//! ```text
//! hash, verify ──▶ queue (bounded; full: Busy) ──▶ threads at nice 10 ──▶ answer
//! ```

use std::sync::Arc;
use std::time::Instant;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use crossbeam_channel::{Sender, TrySendError, bounded};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use crate::error::{MemberError, Result};
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

/// The threads. Dropping the last clone ends them.
#[derive(Clone)]
pub(crate) struct Hasher {
    jobs: Sender<Job>,
    /// Checked in place of the hash of somebody who does not exist, so that the answer takes as long (V6.3.8).
    dummy: Arc<str>,
}

impl Hasher {
    /// Starts the threads.
    ///
    /// # Errors
    /// Settings below ASVS appendix C; no thread.
    pub fn start(config: &PasswordConfig) -> Result<Self> {
        let strong = ASVS_MIN.iter().any(|&(passes, memory)| config.passes >= passes && config.memory_kib >= memory);
        if !strong {
            let text = "members.password: at one pass memory_kib must be at least 47104, at two 19456 (ASVS V11.4.2)";
            return Err(MemberError::Internal(text.into()));
        }
        Self::start_unchecked(config)
    }

    /// As [`Self::start`] with settings of any strength: a test hashes often.
    pub(crate) fn start_unchecked(config: &PasswordConfig) -> Result<Self> {
        let internal = |error: &dyn std::fmt::Display| MemberError::Internal(format!("could not start hashing: {error}"));
        let params = Params::new(config.memory_kib, config.passes, 1, None).map_err(|error| internal(&error))?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = argon.hash_password(&crate::random::bytes::<32>()).map_err(|error| internal(&error))?.to_string();
        let (jobs, waiting) = bounded::<Job>(config.queue.max(1));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..if config.threads == 0 { cores } else { config.threads } {
            let (argon, waiting) = (argon.clone(), waiting.clone());
            let work = move || {
                // Of this thread alone, on Linux. Where it is refused, hashing competes as an equal: slower lists, nothing wrong.
                if let Err(error) = rustix::process::nice(NICENESS) {
                    tracing::warn!(%error, "could not lower the priority of password hashing");
                }
                for job in waiting {
                    job(&argon);
                }
            };
            std::thread::Builder::new()
                .name(format!("{}{number}", kindred_telemetry::HASH_THREAD))
                .spawn(work)
                .map_err(|error| internal(&error))?;
        }
        Ok(Self { jobs, dummy: dummy.into() })
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// [`MemberError::Busy`].
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.run(move |argon| argon.hash_password(password.expose_secret().as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| {
                tracing::error!(%error, "could not hash a password");
                MemberError::Internal("hashing".into())
            })
    }

    /// Whether the password is that of `hash`; without one, as long as it takes to find that it is not.
    ///
    /// # Errors
    /// [`MemberError::Busy`].
    pub async fn verify(&self, password: SecretString, hash: Option<&str>) -> Result<Checked> {
        let known = hash.is_some();
        let hash = hash.map_or_else(|| self.dummy.to_string(), str::to_owned);
        self.run(move |argon| {
            let Ok(hash) = PasswordHash::new(&hash) else {
                tracing::error!("a stored password hash does not parse");
                return Checked::Wrong;
            };
            let right = argon.verify_password(password.expose_secret().as_bytes(), &hash).is_ok();
            let current = Params::try_from(&hash).is_ok_and(|params| {
                (params.m_cost(), params.t_cost(), params.p_cost())
                    == (argon.params().m_cost(), argon.params().t_cost(), argon.params().p_cost())
            });
            if right && known { Checked::Right { outdated: !current } } else { Checked::Wrong }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static) -> Result<T> {
        let (answer, done) = oneshot::channel();
        let queued = Instant::now();
        let job: Job = Box::new(move |argon| {
            metrics::histogram!("password_hash_wait_seconds").record(queued.elapsed().as_secs_f64());
            // Whoever has given up waiting is not worked for.
            if !answer.is_closed() {
                let _gone = answer.send(work(argon));
            }
        });
        let sent = self.jobs.try_send(job);
        metrics::gauge!("argon2_queue_depth").set(self.jobs.len() as f64);
        match sent {
            Ok(()) => done.await.map_err(|_| MemberError::Internal("a hashing thread ended".into())),
            Err(TrySendError::Full(_)) => Err(MemberError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(MemberError::Internal("the hashing threads ended".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V11.4.2: what is stored says argon2id with parameters of appendix C, and weaker settings do not start.
    #[tokio::test]
    async fn v11_4_2_hashes_are_argon2id() {
        let hasher = Hasher::start(&PasswordConfig::default()).unwrap();
        let hash = hasher.hash("secret".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("secret".into()).await.unwrap(), "a salt of its own");
        let weak = PasswordConfig { memory_kib: 19_455, ..PasswordConfig::default() };
        assert!(Hasher::start(&weak).is_err());
        assert!(Hasher::start(&PasswordConfig { passes: 1, ..PasswordConfig::default() }).is_err());
        let other = Hasher::start(&PasswordConfig { passes: 3, ..PasswordConfig::default() }).unwrap();
        assert_eq!(other.verify("secret".into(), Some(&hash)).await, Ok(Checked::Right { outdated: true }));
        assert_eq!(hasher.verify("secret".into(), Some(&hash)).await, Ok(Checked::Right { outdated: false }));
        assert_eq!(hasher.verify("secret".into(), None).await, Ok(Checked::Wrong));
    }

    /// V6.2.8: the 73rd byte counts, and so does the case.
    #[tokio::test]
    async fn v6_2_8_nothing_is_cut_or_folded() {
        let hasher = Hasher::start(&PasswordConfig::default()).unwrap();
        let password = "x".repeat(72) + "y";
        let hash = hasher.hash(password.clone().into()).await.unwrap();
        for other in ["x".repeat(72) + "z", "x".repeat(72), "X".repeat(72) + "y", password.clone() + " "] {
            assert_eq!(hasher.verify(other.into(), Some(&hash)).await, Ok(Checked::Wrong));
        }
        assert_eq!(hasher.verify(password.into(), Some(&hash)).await, Ok(Checked::Right { outdated: false }));
    }

    /// If it failed, a burst of sign-ins would queue without end, or hash at the priority of the lists.
    #[tokio::test]
    async fn a_full_queue_is_busy_and_hashing_is_nice() {
        let hasher = Hasher::start(&PasswordConfig { threads: 1, queue: 2, ..PasswordConfig::default() }).unwrap();
        let (_all, results) = (0, futures_util::future::join_all((0..16).map(|_| hasher.hash("secret".into()))).await);
        let busy = results.iter().filter(|result| **result == Err(MemberError::Busy)).count();
        assert!((10..16).contains(&busy), "{busy} of 16 were refused");
        let niceness = hasher.run(|_| rustix::process::nice(0).unwrap()).await.unwrap();
        assert!(niceness >= NICENESS, "{niceness}");
    }
}
