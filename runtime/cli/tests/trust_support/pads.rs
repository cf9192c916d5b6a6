//! Two messages under one pad, found among what passed on the wire.
//!
//! A body is `round(A s + e + X)`, in 40 bits or as many as the wire form has, with `|X|` far below the modulus: two bodies under one pad differ by
//! little in *every* word, two under different pads by uniform words. So the proof that no slot served two messages
//! needs nothing from the client: it holds for whatever reached the network.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

/// Bits that words are compared in: those of a shorter word are its upper ones.
const WORD_BITS: u32 = 40;

/// Bytes that chi-squared takes together.
const WORD_BYTES: usize = 5;

/// A difference up to this is small: messages stay below `2^39 / |w|` times 1.6, and no row has a norm below 127, so they
/// differ by less than 2^34. Uniform words fall below it once in 32, and a body has dozens of them.
const SMALL: u64 = 1 << 34;

/// A frame of bodies as it passed.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The round.
    pub(crate) round: u32,
    /// Bodies in it.
    pub(crate) tokens: u32,
    /// Bits of a word, packed without gaps.
    pub(crate) bits: u32,
    /// The bodies.
    pub(crate) bodies: Bytes,
}

/// What [`examine`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Different bodies.
    pub(crate) distinct: usize,
    /// Bodies that had been sent before, byte for byte.
    pub(crate) repeated: usize,
    /// Bodies under a pad that also hid another message.
    pub(crate) reused: usize,
    /// Different bodies of the first round: one per token sent.
    pub(crate) tokens: usize,
}

/// Looks at every pair of bodies of one round.
pub(crate) fn examine(frames: &[Frame]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rounds: BTreeMap<(u32, u32), HashSet<&[u8]>> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| frame.tokens > 0) {
        let size = frame.bodies.len() / frame.tokens as usize;
        for body in frame.bodies.chunks_exact(size) {
            verdict.repeated +=
                usize::from(!rounds.entry((frame.round, frame.bits)).or_default().insert(body));
        }
    }
    let first = rounds.iter().filter(|((round, _), _)| *round == 0);
    verdict.tokens = first.map(|(_, bodies)| bodies.len()).sum();
    for ((_, bits), bodies) in &rounds {
        let mut sorted: Vec<(u64, &[u8])> = bodies.iter().map(|body| (word(body, *bits, 0), *body)).collect();
        sorted.sort_unstable();
        verdict.distinct += sorted.len();
        for (at, &(first, body)) in sorted.iter().enumerate() {
            // Those whose first word is close above; around the modulus too.
            let above = sorted[at + 1..].iter().chain(&sorted[..at]);
            let close = above.take_while(|(other, _)| distance(first, *other) <= SMALL);
            verdict.reused += usize::from(close.into_iter().any(|(_, other)| same_pad(body, other, *bits)));
        }
    }
    verdict
}

/// Whether two different bodies of one round hide messages under one pad.
fn same_pad(one: &[u8], other: &[u8], bits: u32) -> bool {
    let close = |at| distance(word(one, bits, at), word(other, bits, at)) <= SMALL;
    one.len() == other.len() && (0..words(one, bits)).all(close)
}

fn words(body: &[u8], bits: u32) -> usize {
    body.len() * 8 / bits as usize
}

/// Word `at`, its upper bit at that of [`WORD_BITS`].
fn word(body: &[u8], bits: u32, at: usize) -> u64 {
    let first = at * bits as usize;
    let bytes = &body[first / 8..(first + bits as usize).div_ceil(8)];
    let whole = bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    (whole >> (first % 8) & ((1 << bits) - 1)) << (WORD_BITS - bits)
}

/// Absolute value of the centred difference.
fn distance(one: u64, other: u64) -> u64 {
    let difference = one.wrapping_sub(other) & ((1 << WORD_BITS) - 1);
    difference.min((1 << WORD_BITS) - difference)
}

/// The body that encrypts, under the pad of `body`, a message that differs by `differences`; what reuse looks like.
pub(crate) fn under_the_same_pad(body: &[u8], bits: u32, differences: impl Fn(usize) -> i64) -> Vec<u8> {
    let mut out = vec![0; body.len()];
    for at in 0..words(body, bits) {
        let sum = word(body, bits, at).wrapping_add_signed(differences(at)) & ((1 << WORD_BITS) - 1);
        let first = at * bits as usize;
        let shifted = (sum >> (WORD_BITS - bits)) << (first % 8);
        for (out, byte) in out[first / 8..].iter_mut().zip(shifted.to_le_bytes()) {
            *out |= byte;
        }
    }
    out
}

/// Chi-squared of each byte position of the words against the uniform distribution, 255 degrees of freedom each.
pub(crate) fn chi_squared<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> ([f64; WORD_BYTES], usize) {
    let mut counts = [[0_u64; 256]; WORD_BYTES];
    let mut words = 0;
    for body in bodies {
        for word in body.chunks_exact(WORD_BYTES) {
            words += 1;
            for (counts, &byte) in counts.iter_mut().zip(word) {
                counts[usize::from(byte)] += 1;
            }
        }
    }
    let expected = words as f64 / 256.0;
    (counts.map(|counts| counts.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum()), words)
}

/// What chi-squared of uniform bytes stays below but once in some ten million times.
pub(crate) const CHI_SQUARED_BOUND: f64 = 255.0 + 6.0 * 22.6;
