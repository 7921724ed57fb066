//! Import files: a file or standard input, decompressed by its content, not its name.
//!
//! ```text
//! file or stdin ──first bytes: plain, gzip, zstd──▶ bytes without a byte order mark ──▶ rows (the command `import`)
//! ```
//!
//! A source of appends, not a log. Memory is bounded for any file: zstd refuses a window above 128 MiB.

use std::io::{self, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Magic of a skippable frame, with which a zstd file may begin: 0x184D2A50 to 0x184D2A5F, little-endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Decompresses `inner` if its first bytes are gzip (any number of members) or zstd (any number of frames), and strips a UTF-8
/// byte order mark.
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

/// The first up to `N` bytes, and a reader of the whole.
fn peek<const N: usize>(mut inner: impl Read) -> io::Result<(Vec<u8>, impl Read)> {
    let mut start = Vec::with_capacity(N);
    (&mut inner).take(N as u64).read_to_end(&mut start)?;
    Ok((start.clone(), io::Cursor::new(start).chain(inner)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn read(file: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        decompressed(io::Cursor::new(file.to_vec()))?.read_to_end(&mut read)?;
        Ok(read)
    }

    /// If this failed, a file of two joined parts would silently end after the first.
    #[test]
    fn a_file_of_several_parts_is_read_to_its_end() {
        let (one, two) = (b"item,title\n1,a\n".repeat(10_000), b"2,b\r\n".repeat(10_000));
        let whole = [one.as_slice(), &two].concat();
        assert_eq!(read(&whole).unwrap(), whole);
        assert_eq!(read(&[gzip(&one), gzip(&two)].concat()).unwrap(), whole);
        assert_eq!(read(&[zstd(&one), zstd(&two)].concat()).unwrap(), whole);
        let skippable = [&0x184d_2a53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
        assert_eq!(read(&[skippable, zstd(&whole)].concat()).unwrap(), whole);
    }

    #[test]
    fn the_byte_order_mark_is_left_out_and_short_files_are_files() {
        for text in ["", "a", "ab", "abc", "{}", "\u{e9}t\u{e9}"] {
            for marked in [text.to_owned(), format!("\u{feff}{text}")] {
                for file in [marked.as_bytes().to_vec(), gzip(marked.as_bytes()), zstd(marked.as_bytes())] {
                    assert_eq!(read(&file).unwrap(), text.as_bytes());
                }
            }
        }
        assert_eq!(read(b"a\xef\xbb\xbfb").unwrap(), b"a\xef\xbb\xbfb", "only at the beginning");
    }

    /// If this failed, an aborted download would count as a whole file.
    #[test]
    fn a_cut_or_broken_file_is_an_error() {
        let whole = b"1,a\n".repeat(50_000);
        for file in [gzip(&whole), zstd(&whole)] {
            assert!(read(&file[..file.len() / 2]).is_err());
            let mut broken = file.clone();
            let middle = broken.len() / 2;
            broken[middle..].fill(0xaa);
            assert!(read(&broken).is_err());
        }
    }

    proptest! {
        /// If this failed, a hostile file would end the import with a panic.
        #[test]
        fn no_bytes_panic(magic in prop::sample::select(vec![&b""[..], &GZIP, &ZSTD, &BOM]), rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = [magic, &rest].concat();
            if let Ok(read) = read(&file) && !file.starts_with(&GZIP) && magic != ZSTD {
                prop_assert!(file.ends_with(&read) && file.len() - read.len() <= BOM.len());
            }
        }
    }
}
