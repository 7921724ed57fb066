//! The files of an import, decompressed, counted and hashed while being read.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use kindred_log::file::decompressed;
use sha2::{Digest, Sha256};

use super::convert::Input;

/// Progress and digest of the files.
#[derive(Default)]
pub struct Reading {
    /// Bytes of all regular files.
    pub bytes_total: u64,
    bytes_read: Rc<Cell<u64>>,
    digests: Vec<Rc<RefCell<Sha256>>>,
}

impl Reading {
    /// Bytes read so far, before decompression.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// A digest of the decompressed contents, valid once all files have been read.
    pub fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for digest in &self.digests {
            all.update(digest.borrow().clone().finalize());
        }
        all.finalize().into()
    }
}

struct Counting<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

struct Digesting<R> {
    inner: R,
    digest: Rc<RefCell<Sha256>>,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// Opens the files; `-` is standard input. Compression is detected by the first bytes, not by the name.
///
/// # Errors
/// When one cannot be opened or read.
pub fn open(paths: &[impl AsRef<Path>]) -> Result<(Vec<Input>, Reading)> {
    let mut reading = Reading::default();
    let mut inputs = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let name = path.display().to_string();
        let raw: Box<dyn Read> = if name == "-" {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).with_context(|| format!("could not open {name}"))?;
            let metadata = file.metadata().with_context(|| format!("could not read {name}"))?;
            reading.bytes_total += metadata.len();
            Box::new(file)
        };
        let counting = Counting { inner: raw, bytes: Rc::clone(&reading.bytes_read) };
        let plain = decompressed(counting).with_context(|| format!("could not read {name}"))?;
        let digest = Rc::new(RefCell::new(Sha256::new()));
        reading.digests.push(Rc::clone(&digest));
        inputs.push(Input { name, reader: Box::new(Digesting { inner: plain, digest }) });
    }
    Ok((inputs, reading))
}
