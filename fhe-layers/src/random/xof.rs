//! Public polynomials from a hash: BLAKE3 in XOF mode, modelled as a random oracle.
//!
//! Input: a domain tag, the protocol version, then the fields, each with its length. Output: words of 8 bytes,
//! little-endian, masked to 50 bits, rejected when not below `q`.

use crate::arith::MODULUS_BITS;

/// Version of the protocol that goes into every hash. 2: the hint carries `phi^-1`; sessions.
pub const PROTOCOL_VERSION: u64 = 2;

/// What is being expanded.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    /// `A`.
    PublicMask,
    /// `ka`.
    KeyMask,
    /// Mask of a batch's public key.
    PublicKey,
    /// Mask of a session's public keys, `pk_a`.
    SessionKey,
}

/// A hash that takes its input field by field.
pub struct Xof(blake3::Hasher);

impl Xof {
    /// Starts with the tag and the protocol version.
    pub fn new(tag: Tag) -> Self {
        let context = match tag {
            Tag::PublicMask => "sotto 2026 public mask A",
            Tag::KeyMask => "sotto 2026 key switch mask ka",
            Tag::PublicKey => "sotto 2026 public key mask",
            Tag::SessionKey => "sotto 2026 session key mask pk_a",
        };
        Self(blake3::Hasher::new_derive_key(context)).word(PROTOCOL_VERSION)
    }

    /// Appends a number.
    pub fn word(mut self, word: u64) -> Self {
        self.0.update(&word.to_le_bytes());
        self
    }

    /// Appends bytes with their length.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Appends text with its length.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Fills `out` with residues below `q <= 2^50`.
    pub fn residues(self, q: u64, out: &mut [u64]) {
        let mut reader = self.0.finalize_xof();
        let mut buffer = [0u8; 4096];
        let mut filled = 0;
        while filled < out.len() {
            reader.fill(&mut buffer);
            for word in buffer.chunks_exact(8) {
                let word =
                    u64::from_le_bytes(word.try_into().expect("chunks of eight")) & ((1 << MODULUS_BITS) - 1);
                if word < q && filled < out.len() {
                    out[filled] = word;
                    filled += 1;
                }
            }
        }
    }
}

/// The public key's mask from its seed, in natural NTT order.
pub(crate) fn public_key_mask(q: u64, seed: &[u8; 32], out: &mut [u64]) {
    Xof::new(Tag::PublicKey).bytes(seed).residues(q, out);
}
