//! What travels in the session forms: seeds, bodies, replies, shared masks, mask bodies; and their bytes.
//!
//! Words are left-aligned in 32 bits in memory and packed without gaps on the wire, lowest bit first; the layout fixes how
//! many there are, so no form carries a length. Bits after the last word must be zero.

use crate::bits;
use crate::error::{Error, Result};
use crate::form::{WORD_BITS, Widths, WireForm};
use crate::params::Params;
use crate::random::noise::fill_from_os;

/// The public seed of a session: what `pk_a` is expanded from.
///
/// A client draws one per credential, model and plan, and deletes it with the credential: who sees it twice knows that it
/// is the same client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSeed([u8; 32]);

impl SessionSeed {
    /// A fresh seed, by a separate call to the operating system.
    ///
    /// # Errors
    /// [`Error::Entropy`] when it gives none.
    pub fn from_os() -> Result<Self> {
        let mut seed = [0; 32];
        fill_from_os(&mut seed)?;
        Ok(Self(seed))
    }

    /// A seed from a peer or a cache.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// One encrypted input in a session form, `[d_in]` words of `B` bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WordBody {
    words: Vec<u32>,
    bits: u32,
}

impl WordBody {
    pub(crate) fn new(words: Vec<u32>, widths: Widths) -> Self {
        Self { words, bits: widths.body() }
    }

    /// A body of given words, left-aligned, as a peer may send.
    ///
    /// # Errors
    /// [`Error::WordOutOfRange`] for a word with more than `B` bits.
    pub fn from_words(words: Vec<u32>, widths: Widths) -> Result<Self> {
        let bits = widths.body();
        let below = |word: &u32| u64::from(*word) & ((1 << (WORD_BITS - bits)) - 1) != 0;
        match words.iter().position(below) {
            Some(index) => Err(Error::WordOutOfRange { what: "body", index, limit: 1 << bits }),
            None => Ok(Self { words, bits }),
        }
    }

    /// The words, left-aligned in 32 bits.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Appends the packed words: `ceil(d_in B / 8)` bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        bits::pack(&self.words, self.bits, out);
    }

    /// The packed words.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a body of `d_in` features.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of bytes, [`Error::Malformed`] for bits after the last word.
    pub fn from_bytes(widths: Widths, d_in: usize, bytes: &[u8]) -> Result<Self> {
        let words = bits::unpack("bytes of a body", bytes, d_in, widths.body())?;
        Ok(Self { words, bits: widths.body() })
    }
}

/// One reply in a session form, `[rows]` words of `R` bits, all rows of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WordReply {
    words: Vec<u32>,
    bits: u32,
}

impl WordReply {
    pub(crate) fn new(words: Vec<u32>, widths: Widths) -> Self {
        Self { words, bits: widths.reply() }
    }

    /// The words, left-aligned in 32 bits.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Appends the packed words: `ceil(rows R / 8)` bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        bits::pack(&self.words, self.bits, out);
    }

    /// The packed words.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a reply of `rows` rows.
    ///
    /// # Errors
    /// As [`WordBody::from_bytes`].
    pub fn from_bytes(widths: Widths, rows: usize, bytes: &[u8]) -> Result<Self> {
        let words = bits::unpack("bytes of a reply", bytes, rows, widths.reply())?;
        Ok(Self { words, bits: widths.reply() })
    }
}

/// `b'` of one block in a batch: `[n]` words, left-aligned, already rounded to what is kept or sent.
///
/// Coefficient `r + phi t` belongs to row `r` of the block and slot `t`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaskWords {
    words: Vec<u32>,
    bits: u32,
}

impl MaskWords {
    pub(crate) fn new(words: Vec<u32>, form: WireForm) -> Self {
        Self { words, bits: form.mask_body_bits() }
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Appends the packed words, [`WireForm::batch_block_bytes`] of them in the stateless form.
    pub fn write(&self, out: &mut Vec<u8>) {
        bits::pack(&self.words, self.bits, out);
    }

    /// Reads consecutive blocks, as they travel in the stateless form.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless `bytes` is a whole number of blocks, [`Error::WrongForm`] for a form that sends none.
    pub fn read_all(params: &Params, form: WireForm, bytes: &[u8]) -> Result<Vec<Self>> {
        let WireForm::Stateless(_) = form else {
            return Err(Error::WrongForm { expected: "stateless", got: form.name() });
        };
        let size = form.batch_block_bytes(params);
        Error::check("bytes of mask bodies", bytes.len().next_multiple_of(size), bytes.len())?;
        let read = |block| {
            let words = bits::unpack("bytes of mask bodies", block, params.n(), form.mask_body_bits())?;
            Ok(Self::new(words, form))
        };
        bytes.chunks_exact(size).map(read).collect()
    }
}

/// Hashes shared masks, block after block: what client and server compare.
pub struct SharedMaskHasher(blake3::Hasher);

impl SharedMaskHasher {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(blake3::Hasher::new_derive_key("sotto 2026 shared masks"))
    }

    /// Appends packed blocks, in order.
    pub fn update(&mut self, packed: &[u8]) {
        self.0.update(packed);
    }

    /// The hash of all blocks.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl Default for SharedMaskHasher {
    fn default() -> Self {
        Self::new()
    }
}
