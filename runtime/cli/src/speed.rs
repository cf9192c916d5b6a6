//! How fast this machine is at what a server does: one layer of made-up weights, both halves of the work, under a second.

use std::sync::Arc;

use fhe_layers::{
    Client, ClientOptions, ExpandedKeys, Instance, MatrixSpec, ModelDigest, NoiseRng, PrepareOptions,
    PreparedModel, RawMatrix, RawRound, RoundSpec, ServerSession, ServerWeights, SessionDownload,
    SessionSeed, Set, TableForm, WireForm, WordQuery, WordsJob, word_half,
};
use rustix::time::{ClockId, clock_gettime};
use sotto_protocol::error::{Error, Result};

/// Rows and columns of the layer: its NTT tables, 64 MB, are larger than a processor's caches, as those of a model are.
const ROWS: usize = 2048;
const COLUMNS: usize = 1024;
const TAU: usize = 64;

/// Of so many runs the fastest counts.
const RUNS: usize = 3;

/// Seconds of one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    /// Body half: per weight and token.
    pub(crate) body_per_weight: f64,
    /// Mask half of the default set: per row and batch, tables in NTT form and compact.
    pub(crate) default_mask_per_row: [f64; 2],
    /// The same of the light set.
    pub(crate) light_mask_per_row: [f64; 2],
    /// Preparing: per row and column of the matrices, and set.
    pub(crate) prepare_per_weight: f64,
    /// Cores.
    pub(crate) cores: usize,
}

impl Speed {
    /// Seconds of one core per row and batch of the mask half.
    pub(crate) fn mask_per_row(&self, set: Set, form: TableForm) -> f64 {
        let [ntt, compact] = match set {
            Set::Default => self.default_mask_per_row,
            Set::Light => self.light_mask_per_row,
        };
        match form {
            TableForm::Ntt => ntt,
            TableForm::Compact => compact,
        }
    }

    /// Measures this machine.
    ///
    /// # Errors
    /// [`Error::FheLayers`] for a processor that lacks what the layers need, or a system without randomness.
    pub(crate) fn measure() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let [(body_per_weight, prepare_per_weight, default_mask_per_row), (_, _, light_mask_per_row)] =
            [measure_set(Set::Default)?, measure_set(Set::Light)?];
        Ok(Self { body_per_weight, default_mask_per_row, light_mask_per_row, prepare_per_weight, cores })
    }
}

/// Body half per weight, preparing per weight, mask half per row in both forms.
fn measure_set(set: Set) -> Result<(f64, f64, [f64; 2])> {
    let weights: Vec<i8> = (0..ROWS * COLUMNS).map(|i| ((i * 2_654_435_761) >> 7) as i8 / 2).collect();
    let rounds =
        vec![RoundSpec { d_in: COLUMNS, matrices: vec![MatrixSpec { rows: ROWS, columns: 0..COLUMNS }] }];
    let params = set.params(TAU).map_err(fhe_layers::Error::from)?;
    let form = WireForm::lean(&params);
    let widths = form.widths().ok_or_else(|| Error::Internal("the lean form has widths".to_owned()))?;
    let instance = Arc::new(Instance::new(params, rounds, ModelDigest([0; 32]), "speed")?);
    let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..COLUMNS, weights: &weights }] }];
    let packed = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
    let start = cpu_seconds(ClockId::ProcessCPUTime);
    let options = PrepareOptions::default();
    let tables =
        PreparedModel::prepare(Arc::clone(&instance), Arc::clone(&packed), TableForm::Compact, &options)?;
    let prepare = (cpu_seconds(ClockId::ProcessCPUTime) - start) / weights.len() as f64;

    let seed = SessionSeed::from_os()?;
    let served = ServerSession::new(&instance, form, &[0; 32], b"", seed)?;
    let blocks = 0..instance.layout().blocks();
    let mut download = SessionDownload::new(Arc::clone(&instance), form, seed)?;
    for packed in tables.shared_masks(&served, blocks.clone())? {
        download.accept(&packed)?;
    }
    let session = download.finish(&tables.shared_masks_hash(&served)?)?;
    let client = Client::new(Arc::clone(&instance), ClientOptions { cache_a: false });
    let batch = client.new_session_batch(&session)?;
    let keys = ExpandedKeys::for_session(&instance, batch.keys());

    let one_core = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| Error::Internal(format!("a thread for measuring: {error}")))?;
    let mask = || -> Result<f64> {
        let pass = || {
            let job = WordsJob::new(&keys, &served)?;
            tables.mask_words(&[job], blocks.clone(), &|| true, &|_, _, _| {})
        };
        Ok(one_core.install(|| fastest(&pass))? / ROWS as f64)
    };
    let compact = mask()?;
    tables.expand(&|| true)?;
    let ntt = mask()?;

    let mut slot = batch.into_slots()?.remove(0);
    let x: Vec<f32> = (0..COLUMNS).map(|i| (i as f32).sin()).collect();
    let (body, _) = slot.encrypt_words(0, &x, 127.0 * (COLUMNS as f64).sqrt(), &mut NoiseRng::from_os()?)?;
    let query = [WordQuery { body: &body, words: None }];
    let product = || word_half(&packed, 0, &query, widths).map(drop);
    let body = one_core.install(|| fastest(&product))?;
    Ok((body / weights.len() as f64, prepare, [ntt, compact]))
}

/// Processor seconds of the fastest of [`RUNS`] runs, which stay on this thread. The wall's clock would count what else the
/// machine does meanwhile.
fn fastest(run: &(dyn Fn() -> fhe_layers::Result<()> + Sync)) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = cpu_seconds(ClockId::ThreadCPUTime);
        run()?;
        best = best.min(cpu_seconds(ClockId::ThreadCPUTime) - start);
    }
    Ok(best)
}

fn cpu_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_speed_is_measured() {
        let speed = Speed::measure().unwrap();
        let [ntt, compact] = speed.default_mask_per_row;
        for seconds in
            [speed.body_per_weight, ntt, compact, speed.light_mask_per_row[0], speed.prepare_per_weight]
        {
            assert!(seconds > 0.0 && seconds < 1.0, "{speed:?}");
        }
        assert_eq!(speed.mask_per_row(Set::Light, TableForm::Compact), speed.light_mask_per_row[1]);
        assert_eq!(speed.mask_per_row(Set::Default, TableForm::Ntt), ntt);
    }
}
