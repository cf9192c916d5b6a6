//! Softmax regression by full-batch gradient descent: small, deterministic, enough for digits.

use crate::digits::{CLASSES, Image, PIXELS};

const STEPS: usize = 400;
const LEARNING_RATE: f64 = 0.5;
const MOMENTUM: f64 = 0.9;
/// Ridge penalty; also keeps the weights in a range that quantizes well.
const PENALTY: f64 = 1e-4;

/// `logits = weights x + bias`.
pub struct Classifier {
    /// `[CLASSES, PIXELS]`, row-major.
    pub weights: Vec<f64>,
    /// `[CLASSES]`.
    pub bias: Vec<f64>,
}

impl Classifier {
    /// The logits of an image.
    #[must_use]
    pub fn logits(&self, pixels: &[f64]) -> Vec<f64> {
        self.weights
            .chunks_exact(PIXELS)
            .zip(&self.bias)
            .map(|(row, bias)| row.iter().zip(pixels).map(|(w, x)| w * x).sum::<f64>() + bias)
            .collect()
    }
}

/// Index of the largest value.
#[must_use]
pub(super) fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// Trains on `images`; the same images give the same weights.
#[must_use]
pub fn train(images: &[Image]) -> Classifier {
    let mut model = Classifier { weights: vec![0.0; CLASSES * PIXELS], bias: vec![0.0; CLASSES] };
    let (mut speed_w, mut speed_b) = (vec![0.0; CLASSES * PIXELS], vec![0.0; CLASSES]);
    for _ in 0..STEPS {
        let (mut grad_w, mut grad_b) = (vec![0.0; CLASSES * PIXELS], vec![0.0; CLASSES]);
        for image in images {
            let logits = model.logits(&image.pixels);
            let largest = logits[argmax(&logits)];
            let exponentials: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
            let total: f64 = exponentials.iter().sum();
            for (class, e) in exponentials.iter().enumerate() {
                let error = e / total - f64::from(u8::from(class == image.label));
                grad_b[class] += error;
                let row = &mut grad_w[class * PIXELS..(class + 1) * PIXELS];
                row.iter_mut().zip(&image.pixels).for_each(|(g, x)| *g += error * x);
            }
        }
        let scale = LEARNING_RATE / images.len() as f64;
        for ((w, v), g) in model.weights.iter_mut().zip(&mut speed_w).zip(&grad_w) {
            *v = MOMENTUM * *v - scale * g - LEARNING_RATE * PENALTY * *w;
            *w += *v;
        }
        for ((b, v), g) in model.bias.iter_mut().zip(&mut speed_b).zip(&grad_b) {
            *v = MOMENTUM * *v - scale * g;
            *b += *v;
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_two_pixels() {
        let image = |label: usize| {
            let mut pixels = vec![0.0; PIXELS];
            pixels[label] = 1.0;
            Image { pixels, label }
        };
        let images = [image(0), image(1), image(2)];
        let model = train(&images);
        for i in &images {
            assert_eq!(argmax(&model.logits(&i.pixels)), i.label);
        }
    }
}
