//! Threads and tasks that others wait for. When one of them panics the rest would wait for it in silence: records would be accepted,
//! readiness would stand, and nothing would be taken in. So the process ends, with an exit code, and its supervisor starts it again;
//! what was acknowledged lies in the log.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::JoinHandle;

/// Beginnings of the names of threads whose panics are answered where they happen: a request's is a 500, a password's is a refusal.
const ANSWERED: [&str; 2] = [IO_THREAD, HASH_THREAD];
/// The threads of the async runtime: requests, and what they have done off it.
pub const IO_THREAD: &str = "kindred-io";
/// The threads that hash passwords and estimate their strength.
pub const HASH_THREAD: &str = "hash-";

/// How long a panic may take to be told before the process ends.
const TELL_MAX: Duration = Duration::from_millis(500);

static EXIT_CODE: OnceLock<i32> = OnceLock::new();

/// From now on a panic ends the process with `code`, on whatever thread it is but those that answer theirs. Tasks of the runtime that
/// nobody answers for are started by [`vital_task`]. For programs: a test that panics must not end the tests.
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
        // A backtrace of a large program takes its time, and is not worth an outage.
        std::thread::spawn(move || {
            std::thread::sleep(TELL_MAX);
            std::process::exit(code);
        });
        tell(panic);
        end(name);
    }));
}

/// Starts a task that runs as long as the process serves. If it panics, the process ends, where [`end_on_panic`] was asked for.
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

/// How the standard library says that it could not print, which is the one panic that is nobody's mistake here.
const UNWRITTEN: &str = "failed printing to stdout: ";

/// Ends a process whose answer nobody reads any more, or cannot be written: `kindred views | head -1`, a full disk.
fn end_unread(why: &str, code: i32) -> ! {
    if why.contains("(os error 32)") {
        std::process::exit(0);
    }
    // Nor may this be a panic.
    let _told = writeln!(std::io::stderr(), "error: the answer could not be written: {why}");
    std::process::exit(code)
}

/// Ends the process, where it is to end.
fn end(name: &str) {
    if let Some(code) = EXIT_CODE.get() {
        tracing::error!("{name} panicked; the process ends, and nothing that was acknowledged is lost");
        std::process::exit(*code);
    }
}
