//! Chosen bodies in the lean and stateless forms: 2.5 int8 weights per slot.
//!
//! A reply is the upper 20 of the 32 bits of `W v + b'`, so `v = 2^12, 2^20` in two columns and `2^28` in a third give two
//! weights and the lower half of a third; another slot gives its upper half with two more. In the stateless form `b'` is not in
//! the reply. In the lean form the client sends keys that are zero throughout: then `b'` is what the server folds in of its own
//! rounding errors, which is far below half a step of the reply. To the server keys and bodies are words like any other.

use fhe_layers::{SessionSeed, Widths, WireForm, WordBody, WordReply};

use super::layer::LayerServer;
use sotto_protocol::error::Result;

/// Columns that two slots cover.
const COLUMNS: usize = 5;

/// Bits of a reply that the attack reads.
const REPLY_BITS: u32 = 20;

/// Exponents of the columns' words in the first and the second slot.
const PLACES: [[Option<u32>; COLUMNS]; 2] =
    [[Some(12), Some(20), None, None, Some(28)], [None, None, Some(12), Some(20), Some(24)]];

/// Slots that cover `d_in` columns.
pub(super) fn queries(d_in: usize) -> usize {
    2 * (d_in / COLUMNS) + slots_for(d_in % COLUMNS)
}

/// Slots that cover up to five columns: one is enough for two.
fn slots_for(columns: usize) -> usize {
    match columns {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    }
}

/// The layer's weights, `[rows, d_in]`, with the slots that it took.
///
/// # Errors
/// Of the server.
pub(super) fn recover(server: &LayerServer, form: WireForm, widths: Widths) -> Result<(usize, Vec<i8>)> {
    let round = server.instance().layout().round(0)?;
    let (d_in, rows) = (round.d_in, round.rows());
    let mut bodies = Vec::new();
    for first in (0..d_in).step_by(COLUMNS) {
        for places in PLACES.iter().take(slots_for(d_in - first)) {
            bodies.push(body(d_in, first, places, widths)?);
        }
    }
    let mut replies = Vec::with_capacity(bodies.len());
    for bodies in bodies.chunks(server.instance().params().tau()) {
        let kept = if form.keeps_words() {
            Some(server.kept_words(form, SessionSeed::from_os()?, &zero_keys(server))?)
        } else {
            None
        };
        replies.extend(server.answer_words(widths, bodies, kept.as_ref())?);
    }
    let mut weights = vec![0; rows * d_in];
    let mut replies = replies.iter();
    for first in (0..d_in).step_by(COLUMNS) {
        let slots: Vec<&WordReply> = replies.by_ref().take(slots_for(d_in - first)).collect();
        for (row, weights) in weights.chunks_exact_mut(d_in).enumerate() {
            let words = slots.iter().map(|reply| reply.words()[row] >> (32 - REPLY_BITS));
            unpack(&words.collect::<Vec<_>>(), &mut weights[first..d_in.min(first + COLUMNS)]);
        }
    }
    Ok((bodies.len(), weights))
}

/// The polynomials of a batch's keys, all zero, as they travel after their header.
fn zero_keys(server: &LayerServer) -> Vec<u8> {
    let params = server.instance().params();
    let head = 8 + params.id().len() + 32;
    vec![0; fhe_layers::EvaluationKeys::byte_len(params) - head]
}

fn body(d_in: usize, first: usize, places: &[Option<u32>; COLUMNS], widths: Widths) -> Result<WordBody> {
    let mut words = vec![0; d_in];
    for (word, place) in words[first..].iter_mut().zip(places) {
        *word = place.map_or(0, |place| 1 << place);
    }
    Ok(WordBody::from_words(words, widths)?)
}

/// The weights of up to five columns from the words of up to two slots.
fn unpack(words: &[u32], weights: &mut [i8]) {
    let mut whole = [0i8; COLUMNS];
    let mut first = words[0];
    let low = digit(&mut first, &mut whole[..2]);
    if let Some(&word) = words.get(1) {
        let high = digit(&mut word.wrapping_sub(low << 12), &mut whole[2..4]);
        // A nibble with its sign, above one without.
        whole[4] = ((high << 4) as i8).wrapping_add(low as i8);
    }
    weights.copy_from_slice(&whole[..weights.len()]);
}

/// Takes balanced digits to base 256 off `word`, lowest first; returns the four bits above them.
fn digit(word: &mut u32, digits: &mut [i8]) -> u32 {
    for digit in digits {
        *digit = *word as i8;
        *word = word.wrapping_sub(i32::from(*digit).cast_unsigned()).cast_signed().wrapping_shr(8) as u32;
    }
    *word & 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_weights_come_out_of_two_words() {
        for weights in
            [[-127, 127, -127, 127, -127], [127; 5], [-1; 5], [0, -1, 0, 1, 15], [5, -6, 7, -8, -128]]
        {
            let words = PLACES.map(|places| {
                let terms = weights.iter().zip(places).filter_map(|(&w, place)| Some(i64::from(w) << place?));
                (terms.sum::<i64>() as u32) >> (32 - REPLY_BITS)
            });
            let mut got = [0i8; COLUMNS];
            unpack(&words, &mut got);
            assert_eq!(got.map(i64::from), weights.map(|w: i32| i64::from(w)));
        }
        let mut got = [0i8; 2];
        unpack(&[(3 + (250 << 8)) & 0xf_ffff], &mut got);
        assert_eq!(got, [3, -6]);
        assert_eq!([1, 2, 3, 5, 576, 1536, 2112].map(queries), [1, 1, 2, 2, 231, 615, 845]);
    }
}
