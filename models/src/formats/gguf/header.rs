//! A first walk over a GGUF header, before Candle parses it.
//!
//! Candle's reader is safe on damaged files but says only that bytes ran out, and it divides by the alignment without
//! looking at it. This walk keeps nothing; it names the field at which a header goes wrong.

use crate::{Error, Result};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The first bytes of every GGUF file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Metadata entries; real files have some dozens.
const MAX_ENTRIES: u64 = 1 << 16;
/// Tensors; the largest models have some thousands.
const MAX_TENSORS: u64 = 1 << 18;
/// Elements of an array; a vocabulary has up to a million.
const MAX_ELEMENTS: u64 = 1 << 24;
/// Bytes of a key or tensor name; GGUF allows 65,535.
const MAX_NAME: u64 = 65_535;
/// Bytes of a string value; the longest are chat templates and licences.
const MAX_STRING: u64 = 16 << 20;

/// Types of tensors that Candle reads, by their numbers in GGUF.
const TENSOR_TYPES: [u32; 13] = [0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30];

/// Types of metadata values.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Walks over the header in `reader`, whose file has `length` bytes.
///
/// # Errors
/// If a field is cut off or out of range; the error names it.
pub(super) fn check<R: Read + Seek>(reader: &mut R, length: u64, path: &Path) -> Result<()> {
    let mut walk = Walk { reader, length, path, at: 0, wide: true };
    walk.seek(0, "magic")?;
    if walk.bytes::<4>("magic")? != MAGIC {
        return Err(
            walk.wrong("magic", "this is not a GGUF file; a model of safetensors is opened by its directory")
        );
    }
    let version = walk.u32("version")?;
    if !(1..=3).contains(&version) {
        return Err(walk.wrong("version", format!("expected 1, 2 or 3, got {version}")));
    }
    walk.wide = version > 1;
    let tensors = walk.count("tensor count", MAX_TENSORS)?;
    let entries = walk.count("metadata count", MAX_ENTRIES)?;
    for index in 0..entries {
        let key = walk.name(&format!("key of metadata entry {index}"))?;
        let kind = walk.u32(&key)?;
        if key == "general.alignment" {
            walk.alignment(&key, kind)?;
        } else {
            walk.value(&key, kind, true)?;
        }
    }
    for index in 0..tensors {
        let name = walk.name(&format!("name of tensor {index}"))?;
        let dimensions = walk.u32(&name)?;
        if dimensions > 4 {
            return Err(walk.wrong(&name, format!("expected at most 4 dimensions, got {dimensions}")));
        }
        let width = if walk.wide { 8 } else { 4 };
        walk.skip(&name, u64::from(dimensions) * width)?;
        let kind = walk.u32(&name)?;
        if !TENSOR_TYPES.contains(&kind) {
            return Err(walk.wrong(
                &name,
                format!(
                    "has type {kind}, which is not supported; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K are"
                ),
            ));
        }
        // The offset.
        walk.skip(&name, 8)?;
    }
    walk.seek(0, "magic")
}

struct Walk<'a, R> {
    reader: &'a mut R,
    length: u64,
    path: &'a Path,
    at: u64,
    /// Whether counts have 64 bits (from version 2 on) or 32.
    wide: bool,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn wrong(&self, field: &str, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.path, field, reason)
    }

    fn cut_off(&self, field: &str, needed: u64) -> Error {
        let left = self.length.saturating_sub(self.at);
        self.wrong(
            field,
            format!("needs {needed} bytes where the file has {left} left: it is truncated, fetch it again"),
        )
    }

    fn seek(&mut self, at: u64, field: &str) -> Result<()> {
        self.reader.seek(SeekFrom::Start(at)).map_err(|source| self.wrong(field, source))?;
        self.at = at;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        if self.length.saturating_sub(self.at) < N as u64 {
            return Err(self.cut_off(field, N as u64));
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|source| self.wrong(field, source))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, field: &str, bytes: u64) -> Result<()> {
        if self.length.saturating_sub(self.at) < bytes {
            return Err(self.cut_off(field, bytes));
        }
        // Below the file's length, so it fits; relative, so that a buffered reader keeps its buffer.
        self.reader.seek_relative(bytes as i64).map_err(|source| self.wrong(field, source))?;
        self.at += bytes;
        Ok(())
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(field)?))
    }

    fn count(&mut self, field: &str, limit: u64) -> Result<u64> {
        let count = if self.wide { u64::from_le_bytes(self.bytes(field)?) } else { self.u32(field)?.into() };
        if count > limit {
            return Err(self.wrong(field, format!("expected at most {limit}, got {count}")));
        }
        Ok(count)
    }

    fn name(&mut self, field: &str) -> Result<String> {
        let length = self.count(field, MAX_NAME)?;
        if self.length.saturating_sub(self.at) < length {
            return Err(self.cut_off(field, length));
        }
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes).map_err(|source| self.wrong(field, source))?;
        self.at += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Skips a value; arrays hold no arrays in any file in use.
    fn value(&mut self, key: &str, kind: u32, arrays: bool) -> Result<()> {
        match kind {
            STRING => {
                let length = self.count(key, MAX_STRING)?;
                self.skip(key, length)
            }
            ARRAY if arrays => {
                let element = self.u32(key)?;
                let elements = self.count(key, MAX_ELEMENTS)?;
                match width(element) {
                    Some(width) => self.skip(key, elements * width),
                    None => (0..elements).try_for_each(|_| self.value(key, element, false)),
                }
            }
            kind => match width(kind) {
                Some(width) => self.skip(key, width),
                None => Err(self.wrong(key, format!("has the unknown type {kind}"))),
            },
        }
    }

    fn alignment(&mut self, key: &str, kind: u32) -> Result<()> {
        const UINT32: u32 = 4;
        if kind != UINT32 {
            return Err(self.wrong(key, format!("expected a 32-bit number, got type {kind}")));
        }
        let alignment = self.u32(key)?;
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(self.wrong(key, format!("expected a power of two up to 65536, got {alignment}")));
        }
        Ok(())
    }
}

/// Bytes of a number or flag.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
