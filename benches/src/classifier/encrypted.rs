//! The classifier under encryption: every image takes two slots (its high and its low limbs) of a batch.

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use fhe_layers::{
    Client, ClientOptions, ExactMode, ExpandedKeys, Instance, LinearServer as _, MaskJob, MatrixSpec,
    ModelDigest, NoiseRng, PrepareOptions, PreparedModel, RawMatrix, RawRound, RoundSpec, ServerWeights,
    Slot, TableForm, params::sets,
};
use rand::Rng as _;
use serde::Serialize;

use super::{
    quantized::{Affine, QuantizedClassifier, limbs},
    regression::{argmax, train},
};
use crate::{
    check::Checks,
    digits::{CLASSES, Digits, Image, PIXELS},
    stats::{median, time_ms},
};

/// Tokens (slots) per batch of masks.
const TAU: usize = 64;
/// Slots of one prediction: a high and a low limb.
const SLOTS: usize = 2;

/// Figures of `--bin classifier`.
#[derive(Debug, Serialize)]
pub struct Encrypted {
    /// Share of test images that the float classifier gets right.
    pub accuracy_float: f64,
    /// The same for the quantized classifier in clear.
    pub accuracy_quantized: f64,
    /// The same for the quantized classifier under encryption.
    pub accuracy_encrypted: f64,
    /// Encrypted predictions made.
    pub predictions: usize,
    /// Milliseconds per prediction, its share of keys and masks included.
    pub ms_per_prediction: f64,
    /// Milliseconds per prediction once its masks are there.
    pub online_ms_per_prediction: f64,
    /// Milliseconds of one batch ahead: keys, pads, mask half, decryption of masks.
    pub batch_ms: f64,
    /// Milliseconds to prepare the server's tables, once per model.
    pub prepare_ms: f64,
    /// log2 of what the exact mode holds (exclusive).
    pub exact_bound_log2: f64,
    /// log2 of the largest `sum |q_w| 15` of a row: what a limb can reach.
    pub largest_product_log2: f64,
    /// Quantizer of the pixels.
    pub input: Affine,
    /// Quantizer of the weights.
    pub weight: Affine,
    /// Checks of the run.
    #[serde(skip)]
    pub checks: Checks,
}

/// Trains, quantizes, and classifies the test images in clear and under encryption.
///
/// # Errors
/// If the layer refuses its inputs; wrong answers are failed checks.
pub fn evaluate(digits: &Digits, limit: usize) -> anyhow::Result<Encrypted> {
    let float = train(&digits.train);
    let quantized = QuantizedClassifier::new(&float, 0.0, 1.0);
    let images = &digits.test[..limit.min(digits.test.len())];
    let share = |right: usize| right as f64 / images.len() as f64;
    let right = |classify: &dyn Fn(&Image) -> usize| images.iter().filter(|i| classify(i) == i.label).count();
    let accuracy_float = share(right(&|i| argmax(&float.logits(&i.pixels))));
    let accuracy_quantized = share(right(&|i| {
        let q = quantized.quantize(&i.pixels);
        argmax(&quantized.logits(&quantized.products(&q), &q))
    }));

    // The largest product of a row with integers up to 15 (a limb) and up to 255 (a whole input of any data set).
    let reach = |q: i64| -> i64 {
        let rows = quantized.weights.chunks_exact(PIXELS);
        rows.map(|row| row.iter().map(|w| q * i64::from(w.unsigned_abs())).sum()).max().unwrap_or(0)
    };
    let mut both = Both::prepare(&quantized, reach(15))?;
    let (mut batch_ms, mut online_ms) = (Vec::new(), Vec::new());
    let (mut correct, mut exact) = (0, 0);
    for images in images.chunks(TAU / SLOTS) {
        let (slots, ms) = time_ms(|| both.batch());
        batch_ms.push(ms);
        let mut slots = slots?.into_iter();
        for image in images {
            let q = quantized.quantize(&image.pixels);
            let pair = slots.next().zip(slots.next()).context("the batch ran out of slots")?;
            let (products, ms) = time_ms(|| both.products(pair, &q));
            online_ms.push(ms);
            let products = products?;
            exact += usize::from(products == quantized.products(&q));
            correct += usize::from(argmax(&quantized.logits(&products, &q)) == image.label);
        }
    }
    let (batch_ms, online) = (median(&batch_ms), median(&online_ms));
    let mut checks = Checks::new();
    checks.that(
        "every encrypted product is the exact integer",
        exact == images.len(),
        format!("{exact} of {}", images.len()),
    );
    checks.at_least("accuracy of float", accuracy_float, 0.9);
    checks.at_most("accuracy lost to quantization", accuracy_float - accuracy_quantized, 0.015);
    let whole = reach(255);
    checks.that(
        "8-bit inputs in one slot are refused when they do not fit",
        both.refuses(whole) == (whole.unsigned_abs() >= both.exact.limit()),
        format!("largest product {whole}, exact mode holds {}", both.exact.limit()),
    );
    let accuracy_encrypted = share(correct);
    checks.that(
        "encryption changes no prediction",
        (accuracy_encrypted - accuracy_quantized).abs() < 1e-12,
        format!("{accuracy_encrypted} against {accuracy_quantized}"),
    );
    Ok(Encrypted {
        accuracy_float,
        accuracy_quantized,
        accuracy_encrypted,
        predictions: images.len(),
        ms_per_prediction: online + batch_ms * SLOTS as f64 / TAU as f64,
        online_ms_per_prediction: online,
        batch_ms,
        prepare_ms: both.prepare_ms,
        exact_bound_log2: (both.exact.limit() as f64).log2(),
        largest_product_log2: (reach(15) as f64).log2(),
        input: quantized.input,
        weight: quantized.weight,
        checks,
    })
}

/// Both sides of the layer in one process.
struct Both {
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    tables: PreparedModel,
    client: Client,
    exact: ExactMode,
    max_row_norm: f64,
    noise: NoiseRng,
    prepare_ms: f64,
}

impl Both {
    fn prepare(quantized: &QuantizedClassifier, largest: i64) -> anyhow::Result<Self> {
        let rounds = vec![RoundSpec {
            d_in: PIXELS,
            matrices: vec![MatrixSpec { rows: CLASSES, columns: 0..PIXELS }],
        }];
        // A classifier of one process pins itself: its digest only has to differ from other models'.
        let digest = ModelDigest(*b"sotto benches: digits classifier");
        let instance = Arc::new(Instance::new(sets::n2048_q50_tau(TAU)?, rounds, digest, "classifier")?);
        let raw =
            [RawRound { matrices: vec![RawMatrix { columns: 0..PIXELS, weights: &quantized.weights }] }];
        let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
        let options = PrepareOptions::default();
        let (tables, prepare_ms) =
            time_ms(|| PreparedModel::prepare(instance.clone(), weights.clone(), TableForm::Ntt, &options));
        let norm = |row: &[i8]| row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
        let max_row_norm = quantized.weights.chunks_exact(PIXELS).map(norm).fold(0.0, f64::max);
        let exact = ExactMode::new(&instance, 0, max_row_norm, largest.unsigned_abs())?;
        let client = Client::new(instance.clone(), ClientOptions::default());
        let (tables, noise) = (tables?, NoiseRng::from_os()?);
        Ok(Self { instance, weights, tables, client, exact, max_row_norm, noise, prepare_ms })
    }

    /// A batch of slots: keys, pads, the server's mask half, decryption of the masks.
    fn batch(&self) -> anyhow::Result<Vec<Slot>> {
        let mut batch = self.client.new_batch()?;
        let keys = ExpandedKeys::new(&self.instance, batch.keys());
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let masks = Mutex::new(Vec::new());
        self.tables.mask_half(
            &[MaskJob { keys: &keys, seed }],
            0..self.instance.layout().blocks(),
            &|| true,
            &|_, block, mask| {
                if let Ok(mut masks) = masks.lock() {
                    masks.push((block, mask));
                }
            },
        )?;
        for (block, mask) in masks.into_inner().map_err(|_| anyhow::anyhow!("a mask thread panicked"))? {
            batch.accept_masks(block, &[mask])?;
        }
        Ok(batch.into_slots()?)
    }

    /// `sum q_w q_x` of every row: both limbs encrypted, multiplied by the server, decoded and joined.
    fn products(&mut self, (mut high, mut low): (Slot, Slot), q: &[i64]) -> anyhow::Result<Vec<i64>> {
        let (q_high, q_low) = limbs(q);
        let (body_high, wait_high) = high.encrypt_exact(0, &q_high, &self.exact, &mut self.noise)?;
        let (body_low, wait_low) = low.encrypt_exact(0, &q_low, &self.exact, &mut self.noise)?;
        let replies = self.weights.answer(0, &[body_high, body_low])?;
        let [reply_high, reply_low] = &replies[..] else { anyhow::bail!("expected two replies") };
        let (high, low) = (wait_high.decode_exact(reply_high)?, wait_low.decode_exact(reply_low)?);
        Ok(high.iter().zip(&low).map(|(h, l)| 16 * h + l).collect())
    }

    /// Whether the exact mode refuses products as large as `largest`.
    fn refuses(&self, largest: i64) -> bool {
        ExactMode::new(&self.instance, 0, self.max_row_norm, largest.unsigned_abs()).is_err()
    }
}
