//! Threads and tasks that others depend on. If one panicked alone, the others would wait forever: records would be accepted and
//! readiness reported, but nothing processed. So a panic ends the process, and its supervisor restarts it; acknowledged records
//! are in the log.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::JoinHandle;

/// Name prefixes of threads that handle their panics: a request becomes a 500, a password a refusal.
const ANSWERED: [&str; 2] = [IO_THREAD, HASH_THREAD];
/// The threads of the async runtime and its blocking pool.
pub const IO_THREAD: &str = "kindred-io";
/// The threads that hash passwords and estimate their strength.
pub const HASH_THREAD: &str = "hash-";

/// Time for a panic to be logged before the process ends.
const TELL_MAX: Duration = Duration::from_millis(500);

static EXIT_CODE: OnceLock<i32> = OnceLock::new();

/// Makes a panic end the process with `code`, except on threads that handle theirs. Runtime tasks that nobody awaits are started
/// by [`vital_task`]. For programs only: a test that panics must not end the test run.
pub fn end_on_panic(code: i32) {
    if EXIT_CODE.set(code).is_err() {
        return;
    }
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(why) = panic.payload_as_str().and_then(|text| text.strip_prefix(UNWRITTEN)) {
            end_unread(why, code);
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if ANSWERED.iter().any(|answered| name.starts_with(answered)) {
            return tell(panic);
        }
        // A backtrace of a large program takes too long.
        std::thread::spawn(move || {
            std::thread::sleep(TELL_MAX);
            std::process::exit(code);
        });
        tell(panic);
        end(name);
    }));
}

/// Starts a task that runs as long as the process serves. Its panic ends the process after [`end_on_panic`].
pub fn vital_task<T: Send + 'static>(name: &'static str, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let running = tokio::spawn(task);
    let abort = running.abort_handle();
    tokio::spawn(async move {
        // Aborting the outer task ends the inner one.
        let _aborts = AbortOnDrop(abort);
        match running.await {
            Ok(value) => value,
            Err(error) if error.is_panic() => {
                end(name);
                std::panic::resume_unwind(error.into_panic())
            }
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        }
    })
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The standard library's panic message when it cannot print, the one panic that is no bug.
const UNWRITTEN: &str = "failed printing to stdout: ";

/// Ends a process whose output cannot be written: `kindred views | head -1`, a full disk.
fn end_unread(why: &str, code: i32) -> ! {
    if why.contains("(os error 32)") {
        std::process::exit(0);
    }
    // This must not panic either.
    let _told = writeln!(std::io::stderr(), "error: the answer could not be written: {why}");
    std::process::exit(code)
}

/// Ends the process if so configured.
fn end(name: &str) {
    if let Some(code) = EXIT_CODE.get() {
        tracing::error!("{name} panicked; the process ends, and nothing that was acknowledged is lost");
        std::process::exit(*code);
    }
}
