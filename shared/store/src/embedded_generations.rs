//! The generations of a data directory: each is an embedded store of its own.
//!
//! ```text
//! DIR/store                        the store of the first generation, g1; the API's keys stay in it, whichever is live
//! DIR/generations/NAME/about.json  settings, created at: a generation is there when this is
//! DIR/generations/NAME/store       its store (g1's is DIR/store)
//! DIR/live.json                    which is live, replaced in one step
//! ```
//!
//! A directory from before there were generations has no `generations`; its store is g1, and live.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use kindred_model::Position;
use kindred_model::units::EventTime;
use kindred_model::views::{input_tables, view_tables};
use kindred_telemetry::fail_point;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::embedded::EmbeddedStore;
use crate::generations::{Generation, Generations, check_name};
use crate::{StoreError, ViewReader, ViewWriter};

/// The first generation of every directory.
pub const FIRST: &str = "g1";
const STORE: &str = "store";
const GENERATIONS: &str = "generations";
const ABOUT: &str = "about.json";
const LIVE: &str = "live.json";
/// What is made aside, and what is being thrown away: a crash leaves it, the next opening removes it.
const ASIDE: &str = ".kindred-";

/// What is known of a generation besides its rows.
#[derive(Serialize, Deserialize)]
struct About {
    settings: String,
    created_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Live {
    live: String,
}

/// The generations of a directory that this process owns. Stores are opened once and shared.
pub struct EmbeddedGenerations {
    dir: PathBuf,
    /// Open as long as this is: it is what an installation of one generation has.
    first: Arc<EmbeddedStore>,
    open: Mutex<HashMap<String, Weak<EmbeddedStore>>>,
    /// Changes of what is there come one after another.
    changing: tokio::sync::Mutex<()>,
}

fn unavailable(what: &Path) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full(format!("{}: {error}", what.display())),
        _ => StoreError::Unavailable(format!("{}: {error}", what.display())),
    }
}

fn unknown(name: &str) -> StoreError {
    StoreError::Refused(format!("there is no generation {name}; `kindred generations` lists them"))
}

impl EmbeddedGenerations {
    /// The generations of a directory. `settings` and `created_at` are the first one's, noted where it is not described yet.
    ///
    /// # Errors
    /// When the first one's store cannot be opened, or a file cannot be written.
    pub fn open(dir: &Path, settings: &str, created_at: EventTime) -> Result<Self, StoreError> {
        let first = Arc::new(Self::open_whole(dir)?);
        let generations = Self { dir: dir.to_owned(), first, open: Mutex::default(), changing: tokio::sync::Mutex::default() };
        let all = generations.dir.join(GENERATIONS);
        if !all.exists() {
            // Renamed into place with the first one in it: from then on what is there is what is described there.
            let aside = dir.join(format!("{ASIDE}{GENERATIONS}"));
            remove(&aside)?;
            fs::create_dir_all(aside.join(FIRST)).map_err(unavailable(&aside))?;
            describe(&aside.join(FIRST), settings, created_at)?;
            rename(&aside, &all)?;
        }
        // What a crash left of one that was made or dropped.
        for entry in fs::read_dir(&all).map_err(unavailable(&all))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                remove(&entry.path())?;
            }
        }
        Ok(generations)
    }

    /// The store of a generation.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is none of that name.
    pub fn store(&self, name: &str) -> Result<Arc<EmbeddedStore>, StoreError> {
        self.about(name)?;
        if name == FIRST {
            return Ok(Arc::clone(&self.first));
        }
        let mut open = self.open.lock();
        if let Some(store) = open.get(name).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let store = Arc::new(Self::open_whole(&self.dir.join(GENERATIONS).join(name))?);
        open.insert(name.to_owned(), Arc::downgrade(&store));
        Ok(store)
    }

    /// The store of the first one, whether or not that is still a generation: earlier versions kept the API's keys there.
    pub fn first(&self) -> &EmbeddedStore {
        &self.first
    }

    /// The settings of a generation, as they were given.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is none of that name.
    pub fn settings(&self, name: &str) -> Result<String, StoreError> {
        check_name(name)?;
        Self::settings_of(&self.dir, name)
    }

    /// The name of the live one. Needs no open store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: the file does not say.
    pub fn live_of(dir: &Path) -> Result<String, StoreError> {
        let path = dir.join(LIVE);
        let live: Option<Live> = read(&path)?;
        Ok(live.map_or_else(|| FIRST.to_owned(), |live| live.live))
    }

    /// The settings of a generation of a directory that may be in use.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: there is none of that name.
    pub fn settings_of(dir: &Path, name: &str) -> Result<String, StoreError> {
        let about: Option<About> = read(&dir.join(GENERATIONS).join(name).join(ABOUT))?;
        Ok(about.ok_or_else(|| unknown(name))?.settings)
    }

    fn open_whole(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        open_whole(&dir.join(STORE), EmbeddedStore::open)
    }

    fn about(&self, name: &str) -> Result<About, StoreError> {
        check_name(name)?;
        read(&self.dir.join(GENERATIONS).join(name).join(ABOUT))?.ok_or_else(|| unknown(name))
    }

    /// Empties the first one, whose store lies beside the folder of the others.
    async fn empty_first(&self) -> Result<(), StoreError> {
        let tables: Vec<&'static str> = input_tables().into_iter().chain(view_tables()).map(|table| table.name).collect();
        let session = self.first.begin().await?;
        session.clear(&tables).await?;
        fail_point("generations: emptied");
        // A commit lifts the mark that emptying sets. What stands at the beginning needs not say what it was computed from.
        session.commit(session.incarnation().first_epoch, Position::beginning()).await?;
        for (name, _) in self.first.named().scan("").await? {
            self.first.named().delete(&name).await?;
        }
        fail_point("generations: forgotten");
        self.first.sync().await?;
        self.first.shed().await
    }
}

#[async_trait]
impl Generations for EmbeddedGenerations {
    async fn list(&self) -> Result<Vec<Generation>, StoreError> {
        let all = self.dir.join(GENERATIONS);
        let mut found = Vec::new();
        for entry in fs::read_dir(&all).map_err(unavailable(&all))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_err() {
                continue;
            }
            let Ok(about) = self.about(&name) else { continue };
            let frontier = self.store(&name)?.frontier();
            let created_at = EventTime(about.created_at_ms);
            // A directory has one process, and a unit that was not finished is marked: there are no incarnations to tell apart.
            found.push(Generation {
                name,
                settings: about.settings,
                created_at,
                incarnation: 0,
                frontier,
                clean: true,
                dropping: false,
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn create(&self, name: &str, settings: &str, created_at: EventTime) -> Result<(), StoreError> {
        check_name(name)?;
        let _one_at_a_time = self.changing.lock().await;
        let at = self.dir.join(GENERATIONS).join(name);
        if at.exists() {
            return Err(StoreError::Refused(format!(
                "there is a generation {name} already; choose another name, or drop it first"
            )));
        }
        let aside = self.dir.join(GENERATIONS).join(format!("{ASIDE}new-{name}"));
        remove(&aside)?;
        fs::create_dir_all(&aside).map_err(unavailable(&aside))?;
        describe(&aside, settings, created_at)?;
        rename(&aside, &at)
    }

    async fn live(&self) -> Result<Option<String>, StoreError> {
        Self::live_of(&self.dir).map(Some)
    }

    async fn promote(&self, name: &str) -> Result<Option<String>, StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        self.about(name)?;
        let before = Self::live_of(&self.dir)?;
        write(&self.dir.join(LIVE), &Live { live: name.to_owned() })?;
        Ok(Some(before))
    }

    async fn drop(&self, name: &str) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        self.about(name)?;
        if Self::live_of(&self.dir)? == name {
            return Err(StoreError::Refused(format!("generation {name} is live; promote another one first")));
        }
        {
            let mut open = self.open.lock();
            if open.get(name).is_some_and(|store| store.strong_count() > 0) {
                return Err(StoreError::Refused(format!("generation {name} is in use by this process; end what reads it first")));
            }
            open.remove(name);
        }
        if name == FIRST {
            // First, while it is still there to be dropped again: nothing that is gone keeps rows.
            self.empty_first().await?;
        }
        let all = self.dir.join(GENERATIONS);
        let aside = all.join(format!("{ASIDE}dropped-{name}"));
        remove(&aside)?;
        // From here on it is gone, whatever happens.
        rename(&all.join(name), &aside)?;
        remove(&aside)
    }
}

fn describe(dir: &Path, settings: &str, created_at: EventTime) -> Result<(), StoreError> {
    write(&dir.join(ABOUT), &About { settings: settings.to_owned(), created_at_ms: created_at.0 })
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Corrupt(format!("{} does not read: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(path)(error)),
    }
}

/// Writes a file so that after a crash at any moment it is there whole, or as it was.
fn write(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let aside = path.with_extension("new");
    let bytes = serde_json::to_vec(value).expect("plain data");
    let written = File::create(&aside).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(unavailable(&aside))?;
    fail_point("generations: written");
    rename(&aside, path)
}

/// Opens a database whole: one that is not there is made aside, so that a kill leaves none that is half made.
pub(crate) fn open_whole<T>(at: &Path, open: impl Fn(&Path) -> Result<T, StoreError>) -> Result<T, StoreError> {
    if !at.exists() {
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        let aside = at.with_file_name(format!("{ASIDE}new-{name}"));
        remove(&aside)?;
        drop(open(&aside)?);
        rename(&aside, at)?;
    }
    open(at)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let durable = || {
        fs::rename(from, to)?;
        File::open(to.parent().expect("below the data directory"))?.sync_all()
    };
    durable().map_err(unavailable(to))?;
    fail_point("generations: renamed");
    Ok(())
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    fail_point("generations: removing");
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, EpochChanges};

    fn open(dir: &Path) -> EmbeddedGenerations {
        EmbeddedGenerations::open(dir, "pinned", EventTime(1)).unwrap()
    }

    async fn put(store: &EmbeddedStore, epoch: u64) {
        let change = Change { table: view_tables()[0].name, key: vec![1], row: Some(vec![u8::try_from(epoch).unwrap()]) };
        let unit = EpochChanges { epoch, changes: vec![change].into(), ..EpochChanges::default() };
        store.begin().await.unwrap().apply(unit).await.unwrap();
    }

    async fn got(store: &EmbeddedStore) -> Option<Vec<u8>> {
        store.get(view_tables()[0].name, &[1]).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_conforms() {
        let dir = tempfile::tempdir().unwrap();
        crate::conformance::run_generations(&open(dir.path())).await;
    }

    /// A directory from before there were generations goes on with its rows, and a generation made beside them shares none.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_old_directory_is_the_first_generation() {
        let dir = tempfile::tempdir().unwrap();
        put(&EmbeddedStore::open(&dir.path().join(STORE)).unwrap(), 7).await;
        let generations = open(dir.path());
        assert_eq!(got(&generations.store(FIRST).unwrap()).await, Some(vec![7]));
        assert_eq!(generations.list().await.unwrap()[0].settings, "pinned");
        generations.create("g2", "other", EventTime(2)).await.unwrap();
        let second = generations.store("g2").unwrap();
        assert_eq!(got(&second).await, None);
        put(&second, 8).await;
        generations.promote("g2").await.unwrap();
        drop((second, generations));
        // Also what a crash within a creation or a drop leaves is no generation.
        fs::create_dir_all(dir.path().join(GENERATIONS).join(".kindred-new-g3/store")).unwrap();
        let generations = open(dir.path());
        assert_eq!(generations.live().await.unwrap().as_deref(), Some("g2"));
        assert_eq!(got(&generations.store("g2").unwrap()).await, Some(vec![8]));
        assert_eq!(got(&generations.store(FIRST).unwrap()).await, Some(vec![7]));
        assert_eq!(generations.list().await.unwrap().len(), 2);
        assert!(!dir.path().join(GENERATIONS).join(".kindred-new-g3").exists());
    }

    /// If it failed, a generation that was dropped would leave rows behind.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_of_the_first_generation_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let generations = open(dir.path());
        put(generations.first(), 7).await;
        generations.first().named().put("fingerprint", b"x").await.unwrap();
        generations.create("g2", "other", EventTime(2)).await.unwrap();
        generations.promote("g2").await.unwrap();
        generations.drop(FIRST).await.unwrap();
        assert_eq!(generations.list().await.unwrap().len(), 1);
        assert!(generations.store(FIRST).is_err());
        assert_eq!(generations.first().named().scan("").await.unwrap(), []);
        generations.create(FIRST, "again", EventTime(3)).await.unwrap();
        let first = generations.store(FIRST).unwrap();
        assert_eq!((got(&first).await, first.frontier().unfinished), (None, false));
    }

    /// One that is in use is not pulled away from under whoever reads it.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_in_use_is_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let generations = open(dir.path());
        generations.create("g2", "", EventTime(2)).await.unwrap();
        let used = generations.store("g2").unwrap();
        assert!(matches!(generations.drop("g2").await, Err(StoreError::Refused(_))));
        drop(used);
        generations.drop("g2").await.unwrap();
        assert!(!dir.path().join(GENERATIONS).join("g2").exists());
    }
}
