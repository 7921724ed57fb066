//! Fail points: named steps at which a test makes a debug build kill itself, as `kill -9` would, or panic. Absent from release
//! builds.
//!
//! `KINDRED_FAIL_POINTS=DIR` names the directory at the start. It is read at every step, so that a running process can be armed:
//! `DIR/armed` holds `before NAME#N`, `after NAME#N`, `panic NAME#N` or `hang NAME#N`, where N counts the steps of this name from
//! 1 since the file was written, or `never`, which only traces. `DIR/trace` gets a line for each step while something is armed.

/// A step without a write: the thread can die or panic here.
#[cfg(not(debug_assertions))]
#[inline]
pub fn fail_point(_name: &str) {}

#[cfg(debug_assertions)]
pub use armed::{Step, fail_point, fail_points_armed, watched_step};

#[cfg(debug_assertions)]
mod armed {
    use std::collections::{HashMap, HashSet};
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static POINTS: LazyLock<Option<Points>> = LazyLock::new(|| {
        let directory = PathBuf::from(std::env::var_os("KINDRED_FAIL_POINTS")?);
        Some(Points { directory, passed: Mutex::default() })
    });

    struct Points {
        directory: PathBuf,
        passed: Mutex<Passed>,
    }

    /// The steps passed since arming.
    #[derive(Default)]
    struct Passed {
        armed: String,
        times: HashMap<String, u32>,
        /// The changes begun by this process; other outbox work is an earlier process's.
        begun: HashSet<String>,
    }

    /// A step about to be done.
    pub struct Step {
        /// Its name.
        pub name: String,
        /// The outbox change it belongs to, if known, and whether it begins it. Steps of a change that an earlier process began
        /// are traced as `earlier: NAME` and not counted.
        pub change: Option<(String, bool)>,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fails {
        Before,
        After,
        Panics,
        Hangs,
        Not,
    }

    impl Points {
        fn pass(&self, step: Step) -> Fails {
            // An intended panic poisons nothing here.
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(armed) = std::fs::read_to_string(self.directory.join("armed")) else {
                passed.armed.clear();
                return Fails::Not;
            };
            if passed.armed != armed {
                *passed = Passed { armed: armed.clone(), ..Passed::default() };
            }
            match step.change {
                Some((change, true)) => drop(passed.begun.insert(change)),
                Some((change, false)) if !passed.begun.contains(&change) => {
                    self.trace(&format!("earlier: {}", step.name));
                    return Fails::Not;
                }
                _ => {}
            }
            let times = passed.times.entry(step.name.clone()).or_default();
            *times += 1;
            let line = format!("{}#{times}", step.name);
            self.trace(&line);
            match armed.trim().split_once(' ') {
                Some(("before", name)) if name == line => Fails::Before,
                Some(("after", name)) if name == line => Fails::After,
                Some(("panic", name)) if name == line => Fails::Panics,
                Some(("hang", name)) if name == line => Fails::Hangs,
                _ => Fails::Not,
            }
        }

        fn trace(&self, line: &str) {
            let trace = OpenOptions::new().create(true).append(true).open(self.directory.join("trace"));
            let written = trace.and_then(|mut trace| writeln!(trace, "{line}"));
            written.expect("a test that arms a fail point can be told of what is passed");
        }
    }

    /// Like `kill -9`: no destructor runs, nothing is flushed.
    fn die() -> ! {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }

    fn pass(step: impl FnOnce() -> Step) -> Fails {
        POINTS.as_ref().map_or(Fails::Not, |points| points.pass(step()))
    }

    fn fail(fails: Fails) {
        match fails {
            Fails::Panics => panic!("a fail point was armed"),
            Fails::Hangs => loop {
                std::thread::park();
            },
            Fails::Before | Fails::After => die(),
            Fails::Not => {}
        }
    }

    /// Whether this process can be armed.
    pub fn fail_points_armed() -> bool {
        POINTS.is_some()
    }

    /// A step without a write: the thread can die or panic here.
    pub fn fail_point(name: &str) {
        fail(pass(|| Step { name: name.to_owned(), change: None }));
    }

    /// Runs a write, or dies before it, or after it and before anybody sees its result.
    pub async fn watched_step<T>(step: impl FnOnce() -> Step, write: impl Future<Output = T>) -> T {
        let fails = pass(step);
        if fails != Fails::After {
            fail(fails);
        }
        let done = write.await;
        fail(fails);
        done
    }
}
