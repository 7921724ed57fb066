//! Decodes a file's bytes to UTF-8 and refuses what is no text, with help.

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes per read.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes inspected to detect the file type.
const LOOKED_AT: usize = 64;

/// Signatures of common files that hold no text.
const NO_TEXT: &[(&[u8], &str)] = &[
    (
        b"PK\x03\x04",
        "a zip archive, as Excel workbooks (.xlsx) are: save the sheet as CSV UTF-8, or unpack the archive and import what is in it",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls): save the sheet as CSV UTF-8"),
    (b"BZh", "compressed with bzip2: unpack it, or pack it with gzip or zstd"),
    (b"\xfd7zXZ\x00", "compressed with xz: unpack it, or pack it with gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and import what is in it"),
    (b"PAR1", "a Parquet file: write it as CSV or NDJSON"),
    (b"SQLite format 3\x00", "a database of SQLite: export its tables as CSV"),
    (b"%PDF", "a PDF document: import the CSV that it was made from"),
];

/// The text of a file in UTF-8, without a byte order mark. UTF-16 is detected by its mark; `--encoding` names others.
///
/// # Errors
/// When the file cannot be read, or is no text.
pub fn text_of(mut bytes: Box<dyn Read>, encoding: Option<&'static Encoding>) -> Result<Box<dyn Read>> {
    let mut start = Vec::with_capacity(LOOKED_AT);
    (&mut bytes).take(LOOKED_AT as u64).read_to_end(&mut start).context("could not be read")?;
    for (begins, what) in NO_TEXT {
        if start.starts_with(begins) {
            bail!("the file is {what}");
        }
    }
    let marked = Encoding::for_bom(&start).map(|(encoding, _)| encoding);
    let encoding = marked.or(encoding);
    if encoding.is_none() && start.contains(&0) {
        // In UTF-16 of Latin letters every second byte is zero.
        let zeros = |odd: usize| start.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
        match start.len() / 2 {
            half if half > 1 && zeros(1) * 2 > half && zeros(0) == 0 => {
                bail!("the file is UTF-16: give --encoding {}", UTF_16LE.name())
            }
            half if half > 1 && zeros(0) * 2 > half && zeros(1) == 0 => {
                bail!("the file is UTF-16: give --encoding {}", UTF_16BE.name())
            }
            _ => {}
        }
    }
    let bytes = io::Cursor::new(start).chain(bytes);
    match encoding {
        // Rows that are not UTF-8 are rejected one by one.
        None => Ok(Box::new(bytes)),
        Some(encoding) if encoding == UTF_8 && marked.is_none() => Ok(Box::new(bytes)),
        Some(encoding) => Ok(Box::new(Decoded {
            inner: Box::new(bytes),
            encoding,
            decoder: encoding.new_decoder_with_bom_removal(),
            raw: Vec::new(),
            text: Vec::new(),
            given: 0,
            last: false,
            ended: false,
        })),
    }
}

/// Decodes while reading.
struct Decoded {
    inner: Box<dyn Read>,
    encoding: &'static Encoding,
    decoder: encoding_rs::Decoder,
    /// Bytes not decoded yet.
    raw: Vec<u8>,
    /// Decoded text.
    text: Vec<u8>,
    /// How much of it was returned.
    given: usize,
    /// All bytes were read.
    last: bool,
    /// All text was decoded.
    ended: bool,
}

impl Decoded {
    fn more(&mut self) -> io::Result<()> {
        self.text.clear();
        self.given = 0;
        if self.raw.is_empty() {
            let read = (&mut self.inner).take(CHUNK_BYTES as u64).read_to_end(&mut self.raw)?;
            self.last = read == 0;
        }
        // A byte becomes at most three of UTF-8, and the decoder may hold back one character.
        self.text.resize(self.raw.len() * 3 + 16, 0);
        let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(&self.raw, &mut self.text, self.last);
        self.text.truncate(written);
        self.raw.drain(..read);
        match result {
            DecoderResult::InputEmpty => self.ended = self.last,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                let name = self.encoding.name();
                let error = format!("the file is not {name} to its end: name its encoding with --encoding");
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(())
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() && !self.ended {
            self.more()?;
        }
        let length = buffer.len().min(self.text.len() - self.given);
        buffer[..length].copy_from_slice(&self.text[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], encoding: Option<&str>) -> Result<String> {
        let encoding = encoding.map(|name| Encoding::for_label(name.as_bytes()).unwrap());
        let mut text = String::new();
        text_of(Box::new(io::Cursor::new(bytes.to_vec())), encoding)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_file_is_read_in_its_encoding() {
        let text = "item,title\r\na,Tée 茶 🍵\n".repeat(20_000);
        for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            assert_eq!(read(&utf_16(&format!("\u{feff}{text}"), bytes), None).unwrap(), text);
        }
        assert_eq!(read(&utf_16(&text, u16::to_le_bytes), Some("utf-16le")).unwrap(), text);
        assert_eq!(read(b"caf\xe9 \x80", Some("windows-1252")).unwrap(), "café €");
        assert_eq!(read(b"\xb2\xe8", Some("gbk")).unwrap(), "茶");
        assert_eq!(read(b"plain", Some("utf-8")).unwrap(), "plain");
        assert_eq!(read(b"", None).unwrap(), "");
        assert!(
            read(&utf_16("order_id,member", u16::to_le_bytes), None).unwrap_err().to_string().contains("--encoding UTF-16LE")
        );
        assert!(
            read(&utf_16("order_id,member", u16::to_be_bytes), None).unwrap_err().to_string().contains("--encoding UTF-16BE")
        );
        assert!(format!("{:#}", read(b"\xff\xff\xff", Some("gbk")).unwrap_err()).contains("not GBK"));
        assert!(read(&[0xff, 0xfe, b'a', 0, b'b'], None).is_err(), "half a character at the end");
    }

    #[test]
    fn what_is_no_text_is_refused_with_what_to_do() {
        for (bytes, word) in [
            (&b"PK\x03\x04\x14\x00rest"[..], "save the sheet as CSV UTF-8"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save the sheet as CSV UTF-8"),
            (b"BZh91AY", "gzip or zstd"),
            (b"PAR1\x15", "Parquet"),
        ] {
            assert!(read(bytes, None).unwrap_err().to_string().contains(word));
        }
    }
}
