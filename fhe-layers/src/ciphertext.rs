//! What travels: keys in every form; masks, bodies and replies of the full form; and their bytes.
//!
//! All are little-endian. Keys carry a version and the parameters' id, since they are made once per batch;
//! masks, bodies and replies are bare words whose count the layout fixes, so that traffic is exactly
//! 8 bytes per row (masks), 5 per feature (bodies) and 4 per row (replies).

use crate::error::{Error, Result};
use crate::params::{BODY_BITS, Params};
use std::borrow::Cow;

/// Version of the serialized forms. 2: the hint carries `phi^-1`, so that older peers would decode wrongly.
pub const WIRE_VERSION: u16 = 2;
const KEYS_MAGIC: [u8; 4] = *b"SKY1";
/// Bytes of a body word.
pub const BODY_WORD_BYTES: usize = 5;
/// Bytes of a reply word.
pub const REPLY_WORD_BYTES: usize = 4;
/// Bits of a packed residue.
const RESIDUE_BITS: usize = 50;

/// A batch's public keys: key-switch bodies and a public key; masks are seeds that the server expands itself.
#[derive(Clone)]
pub struct EvaluationKeys {
    /// `kb_i` as values in natural NTT order, `[levels][n]`.
    pub(crate) key_bodies: Vec<Vec<u64>>,
    pub(crate) public_key_seed: [u8; 32],
    /// As values in natural NTT order, `[n]`.
    pub(crate) public_key_body: Vec<u64>,
}

impl EvaluationKeys {
    /// Length of [`EvaluationKeys::to_bytes`] under `params`.
    pub fn byte_len(params: &Params) -> usize {
        4 + 2 + 2 + params.id().len() + 32 + (params.levels() + 1) * (params.n() * RESIDUE_BITS).div_ceil(8)
    }

    /// Magic, version, length and text of the parameters' id, seed, then `levels + 1` polynomials of 50-bit words.
    pub fn to_bytes(&self, params: &Params) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::byte_len(params));
        out.extend_from_slice(&KEYS_MAGIC);
        out.extend_from_slice(&WIRE_VERSION.to_le_bytes());
        out.extend_from_slice(&(params.id().len() as u16).to_le_bytes());
        out.extend_from_slice(params.id().as_bytes());
        out.extend_from_slice(&self.public_key_seed);
        for poly in self.key_bodies.iter().chain([&self.public_key_body]) {
            pack_residues(poly, &mut out);
        }
        out
    }

    /// Checks version, parameters, length and the range of every word.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Foreign`], [`Error::Mismatch`] or [`Error::WordOutOfRange`].
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "keys";
        let head =
            bytes.get(..8).ok_or(Error::Malformed { what: WHAT, problem: "shorter than its header" })?;
        if head[..4] != KEYS_MAGIC {
            return Err(Error::Malformed { what: WHAT, problem: "does not start with the magic of keys" });
        }
        if head[4..6] != WIRE_VERSION.to_le_bytes() {
            return Err(Error::Foreign { what: WHAT, of: "version" });
        }
        let id = params.id().as_bytes();
        if head[6..8] != (id.len() as u16).to_le_bytes() || bytes.get(8..8 + id.len()) != Some(id) {
            return Err(Error::Foreign { what: WHAT, of: "parameter set" });
        }
        Error::check("bytes of keys", Self::byte_len(params), bytes.len())?;
        let (seed, polys) = bytes[8 + id.len()..].split_at(32);
        let poly_bytes = (params.n() * RESIDUE_BITS).div_ceil(8);
        let mut read = polys.chunks_exact(poly_bytes).map(|poly| unpack_residues(params, poly));
        let mut key_bodies = Vec::with_capacity(params.levels());
        for poly in read.by_ref().take(params.levels()) {
            key_bodies.push(poly?);
        }
        let public_key_body =
            read.next().ok_or(Error::Malformed { what: WHAT, problem: "no public key" })??;
        let public_key_seed =
            seed.try_into().map_err(|_| Error::Malformed { what: WHAT, problem: "seed" })?;
        Ok(Self { key_bodies, public_key_seed, public_key_body })
    }
}

fn pack_residues(words: &[u64], out: &mut Vec<u8>) {
    let (mut buffer, mut bits) = (0u128, 0);
    for &word in words {
        buffer |= u128::from(word) << bits;
        bits += RESIDUE_BITS;
        while bits >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(buffer as u8);
    }
}

fn unpack_residues(params: &Params, bytes: &[u8]) -> Result<Vec<u64>> {
    let (mut buffer, mut bits) = (0u128, 0);
    let mut words = Vec::with_capacity(params.n());
    for &byte in bytes {
        buffer |= u128::from(byte) << bits;
        bits += 8;
        if bits >= RESIDUE_BITS && words.len() < params.n() {
            let word = buffer as u64 & ((1 << RESIDUE_BITS) - 1);
            if word >= params.q() {
                return Err(Error::WordOutOfRange { what: "keys", index: words.len(), limit: params.q() });
            }
            words.push(word);
            buffer >>= RESIDUE_BITS;
            bits -= RESIDUE_BITS;
        }
    }
    Ok(words)
}

/// One mask ciphertext: `a` then `b`, 32-bit words, `[2 n]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaskBlock(Vec<u32>);

impl MaskBlock {
    pub(crate) fn new(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// `a` then `b`.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// Bytes of a block: `8 n`, that is 8 per row of `phi` rows and `tau` tokens.
    pub fn byte_len(params: &Params) -> usize {
        8 * params.n()
    }

    /// The block's bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        le_bytes(&self.0)
    }

    /// Reads consecutive blocks.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless `bytes` is a whole number of blocks.
    pub fn read_all(params: &Params, bytes: &[u8]) -> Result<Vec<Self>> {
        let size = Self::byte_len(params);
        if !bytes.len().is_multiple_of(size) {
            let expected = bytes.len().next_multiple_of(size) as u64;
            return Err(Error::Mismatch { what: "bytes of masks", expected, got: bytes.len() as u64 });
        }
        Ok(bytes.chunks_exact(size).map(|block| Self(from_le(block))).collect())
    }
}

/// 40-bit words of one encrypted input, `[d_in]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body(Vec<u64>);

impl Body {
    pub(crate) fn new(words: Vec<u64>) -> Self {
        Self(words)
    }

    /// A body of given words, as a peer may send.
    ///
    /// # Errors
    /// [`Error::WordOutOfRange`] for a word of more than 40 bits.
    pub fn from_words(words: Vec<u64>) -> Result<Self> {
        match words.iter().position(|&word| word >> BODY_BITS != 0) {
            Some(index) => Err(Error::WordOutOfRange { what: "body", index, limit: 1 << BODY_BITS }),
            None => Ok(Self(words)),
        }
    }

    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Bytes of this body: 5 per word.
    pub fn byte_len(&self) -> usize {
        self.0.len() * BODY_WORD_BYTES
    }

    /// Writes 5 bytes per word.
    ///
    /// # Panics
    /// Unless `out` has [`Body::byte_len`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.byte_len(), "bytes of a body");
        for (out, word) in out.chunks_exact_mut(BODY_WORD_BYTES).zip(&self.0) {
            out.copy_from_slice(&word.to_le_bytes()[..BODY_WORD_BYTES]);
        }
    }

    /// The bytes of this body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; self.byte_len()];
        self.write(&mut out);
        out
    }

    /// Reads a body of `d_in` features.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless there are `5 d_in` bytes.
    pub fn from_bytes(d_in: usize, bytes: &[u8]) -> Result<Self> {
        Error::check("bytes of a body", d_in * BODY_WORD_BYTES, bytes.len())?;
        let words = bytes
            .chunks_exact(BODY_WORD_BYTES)
            .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) | u64::from(b[4]) << 32);
        Ok(Self(words.collect()))
    }
}

/// 32-bit words of one reply, all rows of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply(Vec<u32>);

impl Reply {
    /// A reply of given words.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// Appends 4 bytes per word.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&le_bytes(&self.0));
    }

    /// The bytes of this reply.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a reply of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless there are `4 rows` bytes.
    pub fn from_bytes(rows: usize, bytes: &[u8]) -> Result<Self> {
        Error::check("bytes of a reply", rows * REPLY_WORD_BYTES, bytes.len())?;
        Ok(Self(from_le(bytes)))
    }
}

/// The words in little-endian order: their memory, where the processor has that order.
fn le_bytes(words: &[u32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(words))
    } else {
        Cow::Owned(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

fn from_le(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
