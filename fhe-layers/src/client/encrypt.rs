//! Pad, message and noise to words; and replies back to integers. Nothing here branches on a secret.

use crate::form::WireForm;
use crate::instance::Instance;
use crate::kernels::pointwise;
use crate::random::noise::NoiseRng;
use crate::secret::SecretWords;
use crate::switch::Switch;
use zeroize::Zeroizing;

/// `round(pad + noise + message, from q to 2^bits)` for fresh noise, `bits` as `form` says, right-aligned.
///
/// `pads`: no fewer words than `message` has integers, each of magnitude below `q - 2^7`.
pub(super) fn encrypt_words(
    instance: &Instance,
    form: WireForm,
    pads: &SecretWords,
    message: impl ExactSizeIterator<Item = i64>,
    rng: &mut NoiseRng,
) -> SecretWords {
    let mut noise = Zeroizing::new(vec![0i8; message.len()]);
    rng.fill_small_noise(instance.params(), &mut noise);
    masked(instance, form, pads, message, &noise)
}

/// As [`encrypt_words`] with given noise.
pub(crate) fn masked(
    instance: &Instance,
    form: WireForm,
    pads: &[u64],
    message: impl ExactSizeIterator<Item = i64>,
    noise: &[i8],
) -> SecretWords {
    let ring = instance.ring();
    let switch = Switch::new(ring.modulus(), form.body_bits());
    let mut words = SecretWords::zeroed(message.len());
    for ((word, message), &pad) in words.iter_mut().zip(message).zip(pads) {
        // |message| < q - 2^7 and pad < q: with noise the sum is above -q and below 2q.
        *word = pad.wrapping_add_signed(message);
    }
    pointwise::switch_noisy(ring.isa(), &switch, &mut words, noise);
    words
}

/// Decoded results on a scale of `2^32 / q`: `reply + correction` in wrapping 32-bit words, both left-aligned.
pub(crate) fn decode_words<'a>(reply: &'a [u32], corrections: &'a [u32]) -> impl Iterator<Item = i32> + 'a {
    reply.iter().zip(corrections).map(|(&word, &correction)| word.wrapping_add(correction) as i32)
}

/// What one step of [`decode_words`] is worth: `q / 2^32`.
pub(crate) fn word_step(instance: &Instance) -> f64 {
    instance.params().q() as f64 / 2f64.powi(32)
}
