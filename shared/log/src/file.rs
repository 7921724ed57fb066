//! Files for imports: decompressed by what they are, read row by row within bounds.
//!
//! ```text
//! file or stdin ──first bytes: plain, gzip, zstd──▶ bytes ──NDJSON: lines, CSV: rows under a header──▶ (line number, row or why not)
//! ```
//!
//! It is a source of appends, not a log. Nothing that a file holds makes it use memory without bound or panic: a row longer than
//! [`RECORD_BYTES_MAX`] is read to its end and told with its line number, and so is one that is not UTF-8.

use std::io::{self, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A skippable frame, with which a zstd file may begin: 0x184D2A50 to 0x184D2A5F, little-endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// What `inner` holds, decompressed if its first bytes say that it is gzip (of any number of members) or zstd (of any number of
/// frames), and without the byte order mark that some programs put before UTF-8.
///
/// # Errors
/// When the first bytes cannot be read.
pub fn decompressed(inner: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let (start, inner) = peek::<4>(inner)?;
    let plain: Box<dyn Read> = if start.starts_with(&GZIP) {
        Box::new(flate2::read::MultiGzDecoder::new(inner))
    } else if start == ZSTD || (start.len() == 4 && start[0] & 0xf0 == 0x50 && start[1..] == ZSTD_SKIPPABLE) {
        Box::new(zstd::stream::read::Decoder::new(inner)?)
    } else {
        Box::new(inner)
    };
    let (start, mut plain) = peek::<3>(plain)?;
    if start == BOM {
        plain.read_exact(&mut [0; BOM.len()])?;
    }
    Ok(Box::new(plain))
}

/// The first up to `N` bytes, and the whole.
fn peek<const N: usize>(mut inner: impl Read) -> io::Result<(Vec<u8>, impl Read)> {
    let mut start = Vec::with_capacity(N);
    (&mut inner).take(N as u64).read_to_end(&mut start)?;
    Ok((start.clone(), io::Cursor::new(start).chain(inner)))
}
