//! Chosen bodies: a client that writes no ciphertext at all.
//!
//! A body is `d_in` words modulo `2^40` and a reply the upper 32 bits of `W v`. With `v = 2^8, 2^16, 2^24, 2^32` in four
//! columns and 0 elsewhere a reply is `w_1 + 2^8 w_2 + 2^16 w_3 + 2^24 w_4` modulo `2^32`: four int8 weights, exactly. No
//! key, no mask and no noise; to the server the body is 40-bit words like any other.

use fhe_layers::{Body, Reply};

use super::layer::LayerServer;
use sotto_protocol::error::Result;

/// Weights of one row that a reply carries.
pub(super) const WEIGHTS_PER_REPLY: usize = 4;

/// Bodies sent together, as a client's prefill frame may hold.
const FRAME: usize = 256;

/// Queries that cover `d_in` columns.
pub(super) fn queries(d_in: usize) -> usize {
    d_in.div_ceil(WEIGHTS_PER_REPLY)
}

/// The layer's weights, `[rows, d_in]`, with the tokens that it took.
///
/// # Errors
/// Of the server.
pub(super) fn recover(server: &LayerServer) -> Result<(usize, Vec<i8>)> {
    let round = server.instance().layout().round(0)?;
    let (d_in, rows) = (round.d_in, round.rows());
    let mut weights = vec![0; rows * d_in];
    let columns: Vec<usize> = (0..d_in).step_by(WEIGHTS_PER_REPLY).collect();
    for frame in columns.chunks(FRAME) {
        let mut bodies = Vec::new();
        for &first in frame {
            bodies.extend(query(d_in, first)?.to_bytes());
        }
        let replies = server.answer(&bodies)?;
        for (&first, reply) in frame.iter().zip(replies.chunks_exact(replies.len() / frame.len())) {
            let reply = Reply::from_bytes(rows, reply)?;
            for (row, &word) in weights.chunks_exact_mut(d_in).zip(reply.words()) {
                let end = d_in.min(first + WEIGHTS_PER_REPLY);
                unpack(word, &mut row[first..end]);
            }
        }
    }
    Ok((columns.len(), weights))
}

fn query(d_in: usize, first: usize) -> Result<Body> {
    let mut words = vec![0; d_in];
    for (place, word) in words[first..].iter_mut().take(WEIGHTS_PER_REPLY).enumerate() {
        *word = 1 << (8 * (place + 1));
    }
    Ok(Body::from_words(words)?)
}

/// Balanced digits to base 256, lowest first.
fn unpack(word: u32, weights: &mut [i8]) {
    let mut rest = word;
    for weight in weights {
        *weight = rest as i8;
        rest = rest.wrapping_sub(i32::from(*weight).cast_unsigned()).cast_signed().wrapping_shr(8) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn four_weights_come_out_of_a_word() {
        for weights in [[-127, 127, -127, 127], [127; 4], [-127; 4], [0, -1, 0, 1], [5, -6, 7, -8]] {
            let places = weights.iter().zip([1i64, 1 << 8, 1 << 16, 1 << 24]);
            let word = places.map(|(&w, place)| i64::from(w) * place).sum::<i64>() as u32;
            let mut got = [0i8; 4];
            unpack(word, &mut got);
            assert_eq!(got, weights);
        }
    }
}
