//! A disk of a few megabytes, for tests of a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of a fixed size, unmounted when dropped.
pub struct SmallDisk {
    at: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one; `None`, with a message, without the permission.
    pub fn mount(megabytes: u32) -> Option<Self> {
        let parent = tempfile::tempdir().ok()?;
        let at = parent.path().join("disk");
        std::fs::create_dir(&at).ok()?;
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at, _parent: parent }),
            other => {
                eprintln!("SKIPPED: a full disk cannot be tested without the right to mount a tmpfs: {other:?}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Fills the disk until at most `left` bytes are free; dropping the result frees them.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn fill(&self, left: u64) -> Ballast {
        let stat = rustix::fs::statvfs(&self.at).expect("a mounted disk");
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        let path = self.at.join("ballast");
        std::fs::write(&path, vec![1; usize::try_from(bytes).expect("megabytes")]).expect("room for the ballast");
        Ballast(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a closing database may still hold a file.
        if !Command::new("umount").arg("-l").arg(&self.at).status().is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.at.display());
        }
    }
}

/// A filler file, deleted when dropped.
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
