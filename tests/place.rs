//! A place for one shop, so that one test body runs on both back-ends: a data directory, or topics and a keyspace on real services.
//!
//! ```text
//! Place ──start──▶ Server:  kindred serve --data DIR                                  (embedded)
//!                           kindred pipeline + kindred api --config FILE              (on services, after kindred migrate)
//!       ──ok─────▶ commands on it, with --data or --config
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::{Installation, Running};
use crate::support::{AS_OF, PATIENCE, Server, VIEWS, kindred, kindred_ok, output};

/// Which of the two a test runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// One process on a directory.
    Embedded,
    /// Kafka and Cassandra.
    Services,
}

/// Makes two tests of one body: `NAME::embedded` and `NAME::on_services`. Without services the second says that it was not run.
macro_rules! on_both_back_ends {
    ($body:ident) => {
        mod $body {
            #[test]
            fn embedded() {
                super::$body($crate::place::Backend::Embedded);
            }

            #[test]
            fn on_services() {
                super::$body($crate::place::Backend::Services);
            }
        }
    };
}
pub(crate) use on_both_back_ends;

/// One shop. Dropping it leaves nothing on disk; its topics and keyspace go with the services.
pub struct Place {
    on: On,
    /// Given to every command: the settings that results depend on.
    set: Vec<String>,
    temp: tempfile::TempDir,
}

enum On {
    Directory(PathBuf),
    Services { on: Installation, key: String },
}

impl Place {
    /// A place of that name (lower case and underlines, its own in the whole run) under these settings, as `path=value`. `None`
    /// where there are no services.
    pub fn new(backend: Backend, name: &str, set: &[String]) -> Option<Self> {
        let temp = tempfile::tempdir().expect("a directory");
        let set: Vec<String> = set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]).collect();
        let on = match backend {
            Backend::Embedded => {
                let dir = temp.path().join("shop");
                std::fs::create_dir(&dir).expect("a directory");
                On::Directory(dir)
            }
            Backend::Services => {
                let on = Installation::with(name, "")?;
                let set: Vec<&str> = set.iter().map(String::as_str).collect();
                let key = crate::installation::key_in(&on.ok(&[&["migrate"], &set[..]].concat()));
                On::Services { on, key }
            }
        };
        Some(Self { on, set, temp })
    }

    /// A directory for files of the test.
    pub fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// The arguments of every command on it.
    fn common(&self) -> Vec<&str> {
        let mut common: Vec<&str> = self.set.iter().map(String::as_str).collect();
        match &self.on {
            On::Directory(dir) => common.extend(["--data", dir.to_str().expect("a path")]),
            On::Services { on, .. } => common.extend(["--config", on.config()]),
        }
        common
    }

    /// Starts the whole product and waits until it is ready; `more` are arguments of what keeps the views.
    pub fn start(&self, more: &[&str]) -> Server {
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        match &self.on {
            On::Directory(dir) => Server::start(dir, &[&set[..], more].concat()),
            On::Services { on, key } => {
                let pipeline = on.start("pipeline", &[&["pipeline"], &set[..], more].concat());
                on.api("api", key, &set).with(pipeline)
            }
        }
    }

    /// Rebuilds everything from the log, by a prepared command (environment); `None` where that was killed before it was ready.
    pub fn rebuild_with(&self, command: Command) -> Option<Server> {
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        let more = ["--from", "beginning"];
        match &self.on {
            On::Directory(dir) => Server::try_start_with(command, dir, &[&set[..], &more].concat()).ok(),
            On::Services { on, key } => {
                let args = [&["pipeline"], &set[..], &more].concat();
                let pipeline = on.try_start_with(command, "pipeline", &args).ok()?;
                Some(on.api("api", key, &set).with(pipeline))
            }
        }
    }

    /// What has to run beside commands that write to the log: the pipeline on services, nothing on a directory.
    pub fn beside_commands(&self) -> Option<Running> {
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        match &self.on {
            On::Directory(_) => None,
            On::Services { on, .. } => Some(on.start("pipeline", &[&["pipeline"], &set[..]].concat())),
        }
    }

    /// Runs a command on it.
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        kindred(&[args, &self.common()].concat())
    }

    /// Runs a command on it that was prepared (environment).
    pub fn run_with(&self, mut command: Command, args: &[&str]) -> std::process::Output {
        command.args(args).args(self.common());
        output(command, PATIENCE)
    }

    /// Runs a command on it, demands that it succeeds, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        kindred_ok(&[args, &self.common()].concat())
    }

    /// All exports.
    pub fn exports(&self) -> [String; VIEWS.len()] {
        VIEWS.map(|view| self.ok(&["export", view, "--format", "csv", "--as-of", AS_OF]))
    }
}
