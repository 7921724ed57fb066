//! The data directory: log, store, pinned settings, service key, owner.
//!
//! ```text
//! DIR/pinned.toml    the settings that results depend on, pinned when the directory is created
//! DIR/log  DIR/store two databases; the store has the fingerprint: format, settings, identity of the log
//! DIR/generations    further stores with settings of their own (`kindred_store::embedded_generations`)
//! DIR/lock           locked by the process that owns the directory; names the process and its URL
//! DIR/service.key    the secret of the API's first key
//! DIR/sealing.key    encrypts the secrets of members (`members.sealing`), unless the settings name another key
//! DIR/demo           marks a directory created by the demo, which writes into no other
//! ```
//!
//! It holds personal data and secrets: only the owner of the directory has access.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kindred_config::{Loaded, check_pinned, pinned_toml, read_pinned};
use kindred_log::EventLog;
use kindred_log::embedded::EmbeddedLog;
use kindred_model::{EventTime, Semantics};
use kindred_store::embedded_generations::{EmbeddedGenerations, FIRST};
use kindred_store::keys::{KeyError, KeyStore, id_of, move_from_named_values};
use kindred_store::records::RecordStore;
use kindred_store::{StoreError, ViewStore};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, exit};
use crate::fingerprint::{Subject, check_fingerprint};
use crate::import::shell_word;
use crate::installation::Open;
use crate::members::records_of_directory;

const PINNED: &str = "pinned.toml";
const LOCK: &str = "lock";
const LOG: &str = "log";
const STORE: &str = "store";
const SERVICE_KEY: &str = "service.key";
/// The sealing key, unless the settings name another.
pub(crate) const SEALING_KEY: &str = "sealing.key";
const DEMO: &str = "demo";
/// The name of the key that a start creates.
const FIRST_KEY: &str = "first";

/// The owner of a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// The URL of its API, if it has one.
    pub url: Option<String>,
}

/// A data directory, owned by this process until it is dropped.
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// The pinned settings of the live generation.
    pub semantics: Semantics,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The store of the live generation, until it is released.
    store: Option<Arc<dyn ViewStore>>,
    /// The name of the live generation.
    pub live: String,
    /// All generations.
    pub generations: Arc<EmbeddedGenerations>,
    /// The records of members and the keys of the API, whichever generation is live.
    pub records: Arc<dyn RecordStore>,
    /// Whether this opening created it.
    pub created: bool,
    lock: File,
    command: String,
}

impl Directory {
    /// Whether there is a data directory at a path.
    pub fn is_there(path: &Path) -> bool {
        path.join(PINNED).is_file()
    }

    /// A [`Failure`] that names the process that uses the directory, if any; creates nothing.
    pub fn check_free(path: &Path, command: &str) -> Result<()> {
        if path.join(LOCK).is_file() { lock(path, command).map(drop) } else { Ok(()) }
    }

    /// Locks a directory and opens it. A [`Failure`] says what to do if it is in use or missing, pins other settings, or has a
    /// store of another log or version.
    pub async fn open(path: &Path, loaded: &Loaded, open: Open, command: &str) -> Result<Self> {
        let shown = path.display();
        let pinned_at = path.join(PINNED);
        if open == Open::Demo {
            refuse_other_than_demo(path)?;
        }
        if let Err(error) = pinned_at.metadata()
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Err(Failure::new(format!("the data directory {shown} cannot be read: {error}"))
                .help("run the command as the user whose it is")
                .into());
        }
        if !pinned_at.is_file() {
            if !open.creates() && path.join(LOG).is_dir() {
                return Err(Failure::new(format!("the data directory {shown} has lost {PINNED}, which says what its rows were computed with"))
                    .help(format!(
                        "put it back from a backup; or pin the settings of today and compute everything anew: kindred serve --data {shown} \
                         --from beginning"
                    ))
                    .into());
            }
            if !open.creates() {
                return Err(Failure::new(format!("there is no data directory at {shown}"))
                    .help("name it with --data DIR; `kindred serve` and `kindred import` create one")
                    .into());
            }
            refuse_foreign(path)?;
        }
        private::from_now_on();
        std::fs::create_dir_all(path).with_context(|| format!("could not create the data directory {shown}"))?;
        let lock = lock(path, command)?;
        private::tighten(path).with_context(|| format!("could not read the permissions in {shown}"))?;

        // Under the lock: of two concurrent starts, one pins and the other reads.
        let created = !pinned_at.is_file();
        if open == Open::Demo {
            refuse_other_than_demo(path)?;
            if created {
                // First, so that after a kill the directory is still the demo's.
                write_durably(&path.join(DEMO), DEMO_MARK.as_bytes())?;
            }
        }
        let semantics = if created {
            let semantics = loaded.settings.semantics.clone();
            let text = format!(
                "# Pinned when this data directory was created: results depend on these settings, and results of two settings never \
                 mix.\n# Do not edit; another value means another directory.\n\n{}",
                pinned_toml(&semantics)
            );
            write_durably(&pinned_at, text.as_bytes())?;
            semantics
        } else {
            pinned_settings(path, loaded)?
        };

        let log = open_whole(path, LOG, EmbeddedLog::open).with_context(|| format!("could not open the log in {shown}"))?;
        let opened = |error: StoreError| {
            let damaged = matches!(error, StoreError::Corrupt(_));
            let failure = Failure::new(format!("could not open the store in {shown}: {error}"));
            if !damaged {
                return failure;
            }
            failure.help(format!(
                "restore the backup; without one, move {} away and run `kindred serve --data {shown} --from beginning`, which derives \
                 everything from the log but the keys of the API (service.key stays) and what the log holds no more",
                path.join(STORE).display()
            ))
        };
        let created_at = kindred_clock::Clock::system().now();
        let generations = EmbeddedGenerations::open(path, &pinned_toml(&semantics), created_at).map_err(opened)?;
        let live = EmbeddedGenerations::live_of(path).map_err(opened)?;
        let store = generations.store(&live).map_err(opened)?;
        let records = records_of_directory(path).await?;
        move_from_named_values(&*records, generations.first()).await.context("could not move the keys of the API")?;
        check_fingerprint(&*store, &log, &semantics, open, &subject(path)).await?;
        Ok(Self {
            path: path.to_owned(),
            semantics,
            log: Arc::new(log),
            store: Some(store),
            live,
            generations: Arc::new(generations),
            records,
            created,
            lock,
            command: command.to_owned(),
        })
    }

    /// The store of the live generation.
    ///
    /// # Panics
    /// Once it was given away.
    pub fn store(&self) -> &Arc<dyn ViewStore> {
        self.store.as_ref().expect("it was not given away")
    }

    /// Releases the store of the live generation, so that it can be dropped once another is live.
    pub fn release_store(&mut self) {
        self.store = None;
    }

    /// The store and the settings of a generation that fits the log.
    pub async fn generation(&self, name: &str) -> Result<(Arc<dyn ViewStore>, Semantics)> {
        if name == self.live {
            return Ok((Arc::clone(self.store()), self.semantics.clone()));
        }
        let settings = self.generations.settings(name).map_err(|error| Failure::new(error.to_string()))?;
        let semantics = read_pinned(&settings).map_err(|error| Failure::new(error.to_string()))?;
        let store = self.generations.store(name).with_context(|| format!("could not open generation {name}"))?;
        // If the live generation was migrated, the others were too.
        check_fingerprint(&*store, &*self.log, &semantics, Open::OrCreate, &subject(&self.path)).await?;
        Ok((store, semantics))
    }

    /// Writes the URL of the API into the lock, for other processes.
    pub fn announce(&self, url: &str) -> Result<()> {
        write_holder(&self.lock, &self.command, Some(url)).context("could not write the lock of the data directory")
    }

    /// The path of the service key.
    pub fn service_key_path(&self) -> PathBuf {
        service_key_path(&self.path)
    }

    /// The service key of the directory. If the store has no keys, since it was rebuilt from the log, the key of the file is
    /// created again; if the key of the file is missing, revoked or expired, a new one is.
    pub async fn service_key(&self, keys: &KeyStore, now: EventTime) -> Result<String> {
        if let Some(key) = read_service_key(&self.path)? {
            if keys.verify(&key, now).is_some() {
                return Ok(key);
            }
            if keys.list().is_empty() {
                match keys.adopt_service(FIRST_KEY, &key, now).await {
                    Ok(_) => return Ok(key),
                    Err(KeyError::Invalid(_)) => {}
                    Err(error) => return Err(error).context("could not keep the service key"),
                }
            }
            tracing::warn!("the service key in {} is revoked or expired; creating another", self.service_key_path().display());
        }
        // A kill in between leaves an unused key, never a file with an invalid one.
        let key = keys.create_service(FIRST_KEY, now).await.context("could not make a service key")?.token;
        write_service_key(&self.path, &key)?;
        Ok(key)
    }
}

/// What a fingerprint error is about.
fn subject(path: &Path) -> Subject {
    Subject {
        shown: path.display().to_string(),
        pinned: format!("its {PINNED}"),
        rebuild: format!("kindred serve --data {} --from beginning", shell_word(&path.display().to_string())),
        migrate: format!("kindred serve --data {}", shell_word(&path.display().to_string())),
    }
}

/// The pinned settings of a directory. A [`Failure`] if it is missing, or if the command line, the environment or the file
/// contradict them.
pub fn pinned_settings(directory: &Path, loaded: &Loaded) -> Result<Semantics> {
    let path = directory.join(PINNED);
    let live = EmbeddedGenerations::live_of(directory).context("could not read which generation is live")?;
    let text = if live == FIRST {
        std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?
    } else {
        EmbeddedGenerations::settings_of(directory, &live).context("could not read the settings of the live generation")?
    };
    let pinned = read_pinned(&text).map_err(|error| Failure::new(error.to_string()))?;
    let checked = check_pinned(&pinned, &loaded.explicit, &loaded.settings.semantics);
    Ok(checked.map_err(|error| Failure::usage(error.to_string()))?)
}

/// The path of the service key of a directory.
pub fn service_key_path(directory: &Path) -> PathBuf {
    directory.join(SERVICE_KEY)
}

/// The service key of a directory, if it has one.
pub fn read_service_key(directory: &Path) -> Result<Option<String>> {
    let path = service_key_path(directory);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|key| !key.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read the service key {}", path.display())),
    }
}

/// Replaces the service key in the directory if it is the key with this id; whether it was.
pub fn replace_service_key(directory: &Path, id: &str, successor: &str) -> Result<bool> {
    let is_it = read_service_key(directory)?.is_some_and(|key| id_of(&key) == id);
    if is_it {
        write_service_key(directory, successor)?;
    }
    Ok(is_it)
}

fn write_service_key(directory: &Path, key: &str) -> Result<()> {
    write_durably(&service_key_path(directory), format!("{key}\n").as_bytes())
}

/// Directories are 0700 and files 0600, whatever the umask.
mod private {
    use std::path::Path;

    /// Restricts new files of this process to the owner.
    pub fn from_now_on() {
        #[cfg(unix)]
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }

    /// Removes group and other permissions, with a warning.
    #[cfg(unix)]
    pub fn tighten(directory: &Path) -> std::io::Result<()> {
        let mut open = 0_usize;
        let mut within = vec![directory.to_owned()];
        while let Some(path) = within.pop() {
            let metadata = match std::fs::symlink_metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_symlink() {
                continue;
            }
            open += usize::from(take_away(&path, &metadata));
            if metadata.is_dir() {
                within.extend(std::fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()));
            }
        }
        if open > 0 {
            let shown = directory.display();
            tracing::warn!(
                "{open} files and directories in {shown} could be read by other users of this machine, and cannot any more; if others \
                 have accounts here, withdraw the signing keys (kindred admin rotate-signing-keys --withdraw) and rotate the service key"
            );
        }
        Ok(())
    }

    #[cfg(unix)]
    fn take_away(path: &Path, metadata: &std::fs::Metadata) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode();
        if mode & 0o077 == 0 {
            return false;
        }
        let narrowed = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7700));
        if let Err(error) = narrowed {
            let path = path.display();
            tracing::warn!(%error, "{path} can be read by other users of this machine, and its permissions could not be changed");
        }
        true
    }

    #[cfg(not(unix))]
    pub fn tighten(_: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

/// Opens a database of the directory. A new one is created aside and moved into place, so that a kill leaves no half-created
/// database.
fn open_whole<T, E>(directory: &Path, name: &str, open: impl Fn(&Path) -> Result<T, E>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let at = directory.join(name);
    if !at.exists() {
        let aside = directory.join(format!(".kindred-new-{name}"));
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => drop(open(&aside)?),
        }
        std::fs::rename(&aside, &at)?;
        File::open(directory)?.sync_all()?;
    }
    Ok(open(&at)?)
}

/// Refuses a non-empty directory that is not a data directory.
fn refuse_foreign(path: &Path) -> Result<()> {
    let ours =
        |name: &str| [PINNED, LOCK, LOG, STORE, SERVICE_KEY, SEALING_KEY, DEMO].contains(&name) || name.starts_with(".kindred-");
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if !ours(&entry.file_name().to_string_lossy()) {
            return Err(Failure::new(format!(
                "{} is no data directory of Kindred, and it is not empty: it holds {}",
                path.display(),
                entry.file_name().display()
            ))
            .help("name an empty or a new directory with --data DIR")
            .into());
        }
    }
    Ok(())
}

/// The text of the demo mark.
const DEMO_MARK: &str = "Made by `kindred demo`: its shop is made up. Delete the directory to start over.\n";

/// Refuses a non-empty directory that the demo did not create, since its orders could not be removed again.
fn refuse_other_than_demo(path: &Path) -> Result<()> {
    if path.join(DEMO).is_file() {
        return Ok(());
    }
    // A start that died before the mark leaves only a lock and temporary files.
    let nothing = |name: &str| name == LOCK || name.starts_with(".kindred-");
    let Ok(mut entries) = std::fs::read_dir(path) else { return Ok(()) };
    if entries.all(|entry| entry.is_ok_and(|entry| nothing(&entry.file_name().to_string_lossy()))) {
        return Ok(());
    }
    let shown = path.display();
    Err(Failure::new(format!("{shown} was not made by the demo, which writes made-up orders; nothing was written"))
        .help(format!(
            "name a new directory, as in kindred demo --data NEW; or, if a demo of an earlier version made {shown}, delete it. Your own \
             data is served by kindred serve --data {}",
            shell_word(&shown.to_string())
        ))
        .into())
}

fn lock(path: &Path, command: &str) -> Result<File> {
    let at = path.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&at)
        .with_context(|| format!("could not open {}", at.display()))?;
    match file.try_lock() {
        Ok(()) => {
            write_holder(&file, command, None).with_context(|| format!("could not write {}", at.display()))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(in_use(path, serde_json::from_str(&text).ok()).into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("could not lock {}", at.display())),
    }
}

fn write_holder(mut file: &File, command: &str, url: Option<&str>) -> std::io::Result<()> {
    let holder = Holder { pid: std::process::id(), command: command.to_owned(), url: url.map(Into::into) };
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(&holder)?)?;
    file.flush()
}

/// A [`Failure`] that names the process using the directory, and the command to use instead.
fn in_use(path: &Path, holder: Option<Holder>) -> Failure {
    let shown = path.display();
    let Some(holder) = holder else {
        return Failure::new(format!("{shown} is in use by another process")).code(exit::NOT_NOW).help("try again in a moment");
    };
    let Holder { pid, command, url } = holder;
    let failure = |serves: &str| {
        Failure::new(format!("{shown} is in use by process {pid} (kindred {command}){serves}")).code(exit::NOT_NOW)
    };
    match url {
        Some(url) => failure(&format!(", which answers at {url}")).help(ask_instead(path, &url, std::env::args().skip(1))),
        None => failure("").help("wait until it has ended, or use another directory"),
    }
}

/// The given command line with `--url` in place of `--data`.
fn ask_instead(path: &Path, url: &str, arguments: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    let mut skip = false;
    for argument in arguments {
        if std::mem::take(&mut skip) || argument.starts_with("--data=") {
            continue;
        }
        if argument == "--data" {
            skip = true;
            continue;
        }
        words.push(shell_word(&argument));
    }
    const ASK: [&str; 11] =
        ["import", "export", "verify", "forget", "rejected", "status", "keys", "generations", "compare", "promote", "drop"];
    if words.first().is_some_and(|word| word == "replay") {
        return "end it, replay, and start it again: it then keeps the new generation up to date and can promote it".to_owned();
    }
    if !words.iter().any(|word| ASK.contains(&word.as_str())) {
        return format!("it is being served already, at {url}; use another directory for another server");
    }
    let key = shell_word(&service_key_path(path).display().to_string());
    format!("ask it: kindred {} --url {url} --key-file {key}", words.join(" "))
}

/// Writes a file atomically.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = directory.join(format!(".kindred-{name}-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: EventTime = EventTime(1_767_600_000_000);

    fn loaded(set: &[&str]) -> Loaded {
        let sources = kindred_config::Sources { config: None, set: set.iter().map(|set| (*set).to_owned()).collect() };
        kindred_config::load_from(&sources, std::iter::empty(), Path::new("/nonexistent")).unwrap()
    }

    async fn open(path: &Path, set: &[&str], open: Open) -> Result<Directory> {
        Directory::open(path, &loaded(set), open, "test").await
    }

    #[tokio::test]
    async fn settings_are_pinned_by_the_first_and_inherited_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shop");
        assert!(open(&path, &[], Open::Existing).await.err().unwrap().to_string().contains("no data directory"));
        let first = open(&path, &["views.also_bought.window=7"], Open::OrCreate).await.unwrap();
        assert!(first.created);
        drop(first);
        let next = open(&path, &[], Open::Existing).await.unwrap();
        assert_eq!((next.semantics.views.also_bought.window, next.created), (7, false));
        drop(next);
        let error = open(&path, &["views.also_bought.window=8"], Open::OrCreate).await.err().unwrap();
        assert!(error.to_string().contains("views.also_bought.window is 7 there, 8 was given"), "{error}");
        open(&path, &["views.also_bought.window=7"], Open::Existing).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shop");
        let owner = open(&path, &[], Open::OrCreate).await.unwrap();
        let error = open(&path, &[], Open::OrCreate).await.err().unwrap();
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        owner.announce("http://127.0.0.1:8080").unwrap();
        let error = open(&path, &[], Open::OrCreate).await.err().unwrap();
        assert!(error.to_string().contains("answers at http://127.0.0.1:8080"), "{error}");
        drop(owner);
        open(&path, &[], Open::OrCreate).await.unwrap();
    }

    /// A log created anew under an old store would make the pipeline skip or misread records.
    #[tokio::test]
    async fn a_store_of_another_log_is_refused_and_can_be_rebuilt() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shop");
        drop(open(&path, &[], Open::OrCreate).await.unwrap());
        std::fs::remove_dir_all(path.join(LOG)).unwrap();
        let error = open(&path, &[], Open::Existing).await.err().unwrap();
        assert!(error.to_string().contains("another log"), "{error}");
        drop(open(&path, &[], Open::ToRebuild).await.unwrap());
        open(&path, &[], Open::Existing).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_of_somebody_else_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("thesis.tex"), "x").unwrap();
        let error = open(parent.path(), &[], Open::OrCreate).await.err().unwrap();
        assert!(error.to_string().contains("it holds thesis.tex"), "{error}");
    }

    /// V14.2: if it failed, any user of the machine could read the signing keys and what people entrusted to the shop.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_directory_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        fn modes(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            found.push((path.to_owned(), metadata.permissions().mode() & 0o777));
            if metadata.is_dir() {
                std::fs::read_dir(path).unwrap().for_each(|entry| modes(&entry.unwrap().path(), found));
            }
        }
        let private = |path: &Path| {
            let mut found = Vec::new();
            modes(path, &mut found);
            assert!(found.len() > 5 && found.iter().all(|(_, mode)| mode & 0o077 == 0), "{found:?}");
        };
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shop");
        drop(open(&path, &[], Open::OrCreate).await.unwrap());
        private(&path);
        // One that an earlier version made under a wide umask.
        let mut found = Vec::new();
        modes(&path, &mut found);
        for (path, mode) in found {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o055)).unwrap();
        }
        drop(open(&path, &[], Open::Existing).await.unwrap());
        private(&path);
    }

    /// If it failed, the demo would write made-up orders among a shop's own, from where nothing takes them away.
    #[tokio::test]
    async fn the_demo_opens_what_is_its_own_or_empty() {
        let parent = tempfile::tempdir().unwrap();
        let shop = parent.path().join("shop");
        drop(open(&shop, &[], Open::OrCreate).await.unwrap());
        let error = open(&shop, &[], Open::Demo).await.err().unwrap();
        assert!(error.to_string().contains("was not made by the demo"), "{error}");
        // Without what is pinned it is still somebody's: a directory that is being restored from its log.
        std::fs::remove_file(shop.join(PINNED)).unwrap();
        assert!(open(&shop, &[], Open::Demo).await.is_err());
        std::fs::write(parent.path().join("notes"), "x").unwrap();
        assert!(open(parent.path(), &[], Open::Demo).await.is_err());

        let demo = parent.path().join("demo");
        std::fs::create_dir(&demo).unwrap();
        std::fs::write(demo.join(LOCK), "").unwrap();
        drop(open(&demo, &[], Open::Demo).await.unwrap());
        drop(open(&demo, &[], Open::Demo).await.unwrap());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_service_key_is_made_once_and_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let directory = open(&parent.path().join("shop"), &[], Open::OrCreate).await.unwrap();
        let keys = KeyStore::open(Arc::clone(&directory.records)).await.unwrap();
        let first = directory.service_key(&keys, AT).await.unwrap();
        assert_eq!(directory.service_key(&keys, AT).await.unwrap(), first);
        assert_eq!((read_service_key(&directory.path).unwrap(), keys.list().len()), (Some(first), 1));
        let mode = std::fs::metadata(directory.service_key_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// If it failed, whoever restores a directory from its log, or has replaced its key, would be refused with the key of the file.
    #[tokio::test]
    async fn the_key_of_the_file_is_good_after_every_start() {
        let parent = tempfile::tempdir().unwrap();
        let directory = open(&parent.path().join("shop"), &[], Open::OrCreate).await.unwrap();
        let keys = KeyStore::open(Arc::clone(&directory.records)).await.unwrap();
        let first = directory.service_key(&keys, AT).await.unwrap();
        assert!(keys.revoke(&id_of(&first)).await.unwrap());
        assert_eq!(directory.service_key(&keys, AT).await.unwrap(), first, "a store without keys is one that was built anew");
        assert!(keys.verify(&first, AT).is_some());

        let overlap = std::time::Duration::from_secs(60);
        let made = keys.rotate(keys.draw_successor(&id_of(&first)).unwrap(), AT, overlap).await.unwrap().made;
        assert!(!replace_service_key(&directory.path, &made.key.id, "another's").unwrap());
        let ended = EventTime(AT.0 + 60_000);
        let third = directory.service_key(&keys, ended).await.unwrap();
        assert!(third != first && third != made.token && keys.verify(&third, ended).is_some(), "what has ended is replaced");
        assert!(replace_service_key(&directory.path, &id_of(&third), &made.token).unwrap());
        assert_eq!(directory.service_key(&keys, ended).await.unwrap(), made.token);

        write_service_key(&directory.path, "nothing of ours").unwrap();
        for key in keys.list() {
            keys.revoke(&key.id).await.unwrap();
        }
        let fourth = directory.service_key(&keys, ended).await.unwrap();
        assert!(keys.verify(&fourth, ended).is_some() && read_service_key(&directory.path).unwrap() == Some(fourth));
    }

    #[test]
    fn the_command_that_helps_is_the_one_that_was_given() {
        let arguments = ["export", "also_bought", "--data", "my shop", "--as-of=2026-01-01"].map(str::to_owned);
        assert_eq!(
            ask_instead(Path::new("my shop"), "http://127.0.0.1:8080", arguments.into_iter()),
            "ask it: kindred export also_bought --as-of=2026-01-01 --url http://127.0.0.1:8080 --key-file 'my shop/service.key'"
        );
        assert!(ask_instead(Path::new("x"), "http://a", std::iter::once("serve".to_owned())).contains("served already"));
    }
}
