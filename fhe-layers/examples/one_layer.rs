//! One encrypted layer, both sides in one process: `cargo run --release -p fhe-layers --example one_layer`

use fhe_layers::*;
use std::sync::{Arc, Mutex};

fn main() -> Result<()> {
    // Shared: parameters, shapes, digest.
    let (d_in, d_out) = (100, 40);
    let rounds = vec![RoundSpec { d_in, matrices: vec![MatrixSpec { rows: d_out, columns: 0..d_in }] }];
    let params = params::sets::n2048_q50_tau(64)?;
    let instance = Arc::new(Instance::new(params, rounds, ModelDigest([7; 32]), "plain")?);

    // Server, once: weights and tables.
    let w: Vec<i8> = (0..d_in * d_out).map(|i| (i * 37 % 255) as i8 / 2).collect();
    let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..d_in, weights: &w }] }];
    let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
    let tables = PreparedModel::prepare(
        instance.clone(),
        weights.clone(),
        TableForm::Ntt,
        &PrepareOptions::default(),
    )?;

    // Ahead of need: the client makes a batch, the server its masks.
    let mut batch = Client::new(instance.clone(), ClientOptions::default()).new_batch()?;
    let keys = ExpandedKeys::new(&instance, batch.keys());
    let masks = Mutex::new(Vec::new());
    let job = MaskJob { keys: &keys, seed: [9; 32] };
    tables.mask_half(&[job], 0..instance.layout().blocks(), &|| true, &|_, block, mask| {
        masks.lock().unwrap().push((block, mask));
    })?;
    for (block, mask) in masks.into_inner().unwrap() {
        batch.accept_masks(block, &[mask])?;
    }

    // Online: encrypt, one integer product, decode.
    let x: Vec<f32> = (0..d_in).map(|i| (i as f32).sin()).collect();
    let norm = |row: &[i8]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let max_row_norm = w.chunks(d_in).map(norm).fold(0.0, f64::max);
    let mut slot = batch.into_slots()?.remove(0);
    let (body, pending) = slot.encrypt(0, &x, max_row_norm, &mut NoiseRng::from_os()?)?;
    let reply = weights.answer(0, &[body])?.remove(0);
    let mut y = vec![0.0; d_out];
    pending.decode(&reply, &mut y)?;

    for (row, y) in w.chunks(d_in).zip(&y) {
        let exact: f64 = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        assert!((exact - f64::from(*y)).abs() < 1e-3 * max_row_norm, "{exact} {y}");
    }
    println!("{d_out} outputs, all within 0.1 % of the largest row's norm");
    Ok(())
}
