//! A backend for one shop, so that one test body runs on both: a data directory, or topics and a keyspace on real services.
//!
//! ```text
//! Place ──start──▶ Server:  kindred serve --data DIR                                  (embedded)
//!                           kindred pipeline + kindred api --config FILE              (on services, after kindred migrate)
//!       ──ok─────▶ commands on it, with --data or --config
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::{Installation, Running};
use crate::support::{AS_OF, PATIENCE, Server, VIEWS, command, kindred, kindred_ok, output};

/// The backend of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// One process on a directory.
    Embedded,
    /// Kafka and Cassandra.
    Services,
}

/// Makes two tests of one body: `NAME::embedded` and `NAME::on_services`. Without services the second prints that it did not run.
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

/// One shop. Dropping it deletes its files; its topics and keyspace go with the services.
pub struct Place {
    on: On,
    /// The settings of every command.
    set: Vec<String>,
    temp: tempfile::TempDir,
}

enum On {
    Directory(PathBuf),
    Services { on: Installation, key: String },
}

impl Place {
    /// A shop with this unique name (lower case and underscores) under these settings, as `path=value`. `None` without services.
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

    /// Its directory, where it has one.
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("shop")
    }

    /// What holds one of some texts: files of the directory, rows of the keyspace.
    pub fn with_texts(&self, texts: &[&str]) -> Vec<String> {
        match &self.on {
            On::Directory(dir) => {
                let of = |text: &&str| {
                    let files = kindred_embedded::files_with(dir, text.as_bytes()).into_iter();
                    files.map(|path| format!("{text} in {}", path.display())).collect::<Vec<_>>()
                };
                texts.iter().flat_map(of).collect()
            }
            On::Services { on, .. } => on.rows_with(texts),
        }
    }

    fn set(&self) -> Vec<&str> {
        self.set.iter().map(String::as_str).collect()
    }

    /// The arguments of every command on it.
    fn common(&self) -> Vec<&str> {
        let mut common = self.set();
        match &self.on {
            On::Directory(dir) => common.extend(["--data", dir.to_str().expect("a path")]),
            On::Services { on, .. } => common.extend(["--config", on.config()]),
        }
        common
    }

    /// Starts the whole product and waits until it is ready; `more` are arguments of the pipeline.
    pub fn start(&self, more: &[&str]) -> Server {
        self.start_with(|| command(&[]), more)
    }

    /// The same with prepared commands (environment).
    pub fn start_with(&self, command: impl Fn() -> Command, more: &[&str]) -> Server {
        let set = self.set();
        match &self.on {
            On::Directory(dir) => Server::start_with(command(), dir, &[&set[..], more].concat()),
            On::Services { on, key } => {
                let pipeline = on.start_with(command(), "pipeline", &[&["pipeline"], &set[..], more].concat());
                on.api_with(command(), "api", key, &set).with(pipeline)
            }
        }
    }

    /// Another API on services, beside the one that was started.
    pub fn another_api(&self) -> Option<Server> {
        match &self.on {
            On::Directory(_) => None,
            On::Services { on, key } => Some(on.api("other", key, &self.set())),
        }
    }

    /// Rebuilds everything from the log with a prepared command (environment); `None` if killed before it was ready.
    pub fn rebuild_with(&self, command: Command) -> Option<Server> {
        let set = self.set();
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

    /// Runs beside commands that write to the log: the pipeline on services, nothing on a directory.
    pub fn beside_commands(&self) -> Option<Running> {
        match &self.on {
            On::Directory(_) => None,
            On::Services { on, .. } => Some(on.start("pipeline", &[&["pipeline"], &self.set()[..]].concat())),
        }
    }

    /// Runs a command on it.
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        kindred(&[args, &self.common()].concat())
    }

    /// Runs a prepared command on it (environment).
    pub fn run_with(&self, mut command: Command, args: &[&str]) -> std::process::Output {
        command.args(args).args(self.common());
        output(command, PATIENCE)
    }

    /// Runs a command on it that must succeed; returns its output.
    pub fn ok(&self, args: &[&str]) -> String {
        kindred_ok(&[args, &self.common()].concat())
    }

    /// All exports.
    pub fn exports(&self) -> [String; VIEWS.len()] {
        VIEWS.map(|view| self.ok(&["export", view, "--format", "csv", "--as-of", AS_OF]))
    }
}
