//! One encrypted layer in the lean form, both sides in one process: `cargo run --release -p fhe-layers --example one_layer`

use fhe_layers::*;
use std::sync::{Arc, Mutex};

fn main() -> Result<()> {
    // Shared: parameters, shapes, digest, wire form.
    let (d_in, d_out) = (100, 40);
    let rounds = vec![RoundSpec { d_in, matrices: vec![MatrixSpec { rows: d_out, columns: 0..d_in }] }];
    let params = Set::Default.params(64)?;
    let form = WireForm::lean(&params);
    let instance = Arc::new(Instance::new(params, rounds, ModelDigest([7; 32]), "plain")?);
    let blocks = instance.layout().blocks();

    // Server, once: weights and tables.
    let w: Vec<i8> = (0..d_in * d_out).map(|i| (i * 37 % 255) as i8 / 2).collect();
    let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..d_in, weights: &w }] }];
    let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
    let options = PrepareOptions::default();
    let tables = PreparedModel::prepare(instance.clone(), weights.clone(), TableForm::Ntt, &options)?;

    // Once per session: the client's seed up, the shared masks down.
    let seed = SessionSeed::from_os()?;
    let served = ServerSession::new(&instance, form, &[9; 32], b"credential", seed)?;
    let mut download = SessionDownload::new(instance.clone(), form, seed)?;
    for packed in tables.shared_masks(&served, 0..blocks)? {
        download.accept(&packed)?;
    }
    let session = download.finish(&tables.shared_masks_hash(&served)?)?;

    // Ahead of need: the client makes a batch, the server computes and keeps its words.
    let batch = Client::new(instance.clone(), ClientOptions::default()).new_session_batch(&session)?;
    let keys = ExpandedKeys::for_session(&instance, batch.keys());
    let kept = Mutex::new(LeanBatch::new(&instance));
    let job = WordsJob::new(&keys, &served)?;
    tables.mask_words(&[job], 0..blocks, &|| true, &|_, block, words| {
        kept.lock().unwrap().words.store(block, &words).unwrap();
    })?;
    let kept = kept.into_inner().unwrap();

    // Online: encrypt, claim the slot, one integer product and one addition per row, decode.
    let x: Vec<f32> = (0..d_in).map(|i| (i as f32).sin()).collect();
    let norm = |row: &[i8]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let max_row_norm = w.chunks(d_in).map(norm).fold(0.0, f64::max);
    let mut slot = batch.into_slots()?.remove(0);
    let (body, pending) = slot.encrypt_words(0, &x, max_row_norm, &mut NoiseRng::from_os()?)?;
    let (_, words) = kept.claim(instance.layout(), 0, 0, &body.to_bytes())?;
    let query = [WordQuery { body: &body, words: Some(words) }];
    let reply = word_half(&weights, 0, &query, form.widths().expect("lean has widths"))?.remove(0);
    let mut y = vec![0.0; d_out];
    pending.decode_words(&reply, &mut y)?;

    for (row, y) in w.chunks(d_in).zip(&y) {
        let exact: f64 = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        assert!((exact - f64::from(*y)).abs() < 1e-3 * max_row_norm, "{exact} {y}");
    }
    println!("{d_out} outputs, all within 0.1 % of the largest row's norm");
    Ok(())
}
