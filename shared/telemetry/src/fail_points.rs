//! Fail points: named steps at which a test makes a debug build kill itself, as `kill -9` would, or panic. Absent from release
//! builds.
//!
//! `KINDRED_FAIL_POINTS=DIR` names the directory at the start. It is read at every step, so that a running process can be armed:
//! `DIR/armed` holds `kill NAME#N`, `panic NAME#N` or `hang NAME#N`, where N counts the steps of this name from
//! 1 since the file was written, or `never`, which only traces. `DIR/trace` gets a line for each step while something is armed.

/// A step at which the thread can die, panic or hang.
#[cfg(not(debug_assertions))]
#[inline]
pub fn fail_point(_name: &str) {}

#[cfg(debug_assertions)]
pub use armed::fail_point;

#[cfg(debug_assertions)]
mod armed {
    use std::collections::HashMap;
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
        /// What is armed, and how often each step was passed since.
        passed: Mutex<(String, HashMap<String, u32>)>,
    }

    impl Points {
        /// Notes a step; what is to happen at it.
        fn pass(&self, step: &str) -> Option<String> {
            // An intended panic poisons nothing here.
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let armed = std::fs::read_to_string(self.directory.join("armed")).unwrap_or_default();
            if passed.0 != armed {
                *passed = (armed.clone(), HashMap::new());
            }
            if armed.is_empty() {
                return None;
            }
            let times = passed.1.entry(step.to_owned()).or_default();
            *times += 1;
            let line = format!("{step}#{times}");
            let trace = OpenOptions::new().create(true).append(true).open(self.directory.join("trace"));
            let written = trace.and_then(|mut trace| writeln!(trace, "{line}"));
            written.expect("a test that arms a fail point can be told of what is passed");
            let (does, name) = armed.trim().split_once(' ')?;
            (name == line).then(|| does.to_owned())
        }
    }

    /// A step at which the thread can die, panic or hang.
    pub fn fail_point(name: &str) {
        match POINTS.as_ref().and_then(|points| points.pass(name)).as_deref() {
            None => {}
            Some("panic") => panic!("a fail point was armed"),
            Some("hang") => loop {
                std::thread::park();
            },
            // Like `kill -9`: no destructor runs, nothing is flushed.
            Some(_) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                std::process::abort();
            }
        }
    }
}
