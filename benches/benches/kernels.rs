//! Criterion micro-benchmarks of the kernels. Each answer is checked against plain arithmetic before it is timed; a
//! wrong kernel panics and is not timed.

use std::sync::{Arc, Mutex};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fhe_layers::{
    Client, ClientOptions, ExpandedKeys, Instance, LinearServer as _, MaskJob, MatrixSpec, ModelDigest,
    NoiseRng, PrepareOptions, PreparedModel, RawMatrix, RawRound, RoundSpec, ServerWeights, Slot, TableForm,
    arith::Modulus,
    kernels::{
        AlignedWords, Isa, PackedWeights,
        hint::{HintPanel, PANEL_POINTS, StridedRows, hint_panel_product},
        mask_mac::{MacKey, MacShape, mask_mac},
        planes::{BODY_PLANES, Planes, gemm},
    },
    params::sets,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The modulus of the shipped parameters: prime, `1 mod 4096`, just under `2^50`.
const Q: u64 = 1_125_899_906_826_241;
const N: usize = 2048;
const TAU: usize = 64;
const LEVELS: usize = 2;

fn modulus() -> Modulus {
    Modulus::new(Q).expect("a valid modulus")
}

fn residues(random: &mut StdRng, count: usize) -> Vec<u64> {
    (0..count).map(|_| random.random_range(0..Q)).collect()
}

fn weights(random: &mut StdRng, rows: usize, cols: usize) -> Vec<i8> {
    (0..rows * cols).map(|_| random.random_range(-127..=127)).collect()
}

fn ntt(c: &mut Criterion) {
    let plan = tfhe_ntt::prime64::Plan::try_new(N, Q).expect("a plan for the modulus");
    let mut random = StdRng::seed_from_u64(1);
    let values = residues(&mut random, N);
    let mut buffer = values.clone();
    plan.fwd(&mut buffer);
    plan.inv(&mut buffer);
    plan.normalize(&mut buffer);
    assert_eq!(buffer, values, "inverse of forward");
    let mut group = c.benchmark_group("ntt");
    group.bench_function("forward 2048", |b| b.iter(|| plan.fwd(&mut buffer)));
    group.bench_function("inverse 2048", |b| b.iter(|| plan.inv(&mut buffer)));
    group.finish();
}

/// Body half (five planes) and clear int8 (one plane), one token and eight.
fn planes(c: &mut Criterion) {
    let mut random = StdRng::seed_from_u64(2);
    let (rows, cols) = (2048, 2048);
    let plain = weights(&mut random, rows, cols);
    let packed = PackedWeights::new(rows, cols, &plain);
    let mut group = c.benchmark_group("planes 2048x2048");
    for isa in Isa::supported() {
        for (planes, tokens) in [(BODY_PLANES, 1), (BODY_PLANES, 8), (1, 1)] {
            let words: Vec<Vec<u64>> = (0..tokens)
                .map(|_| (0..cols).map(|_| random.random_range(0..1u64 << (8 * planes))).collect())
                .collect();
            let input = Planes::from_tokens(&words, planes);
            let mut out = vec![0i64; rows * tokens];
            gemm(isa, &packed, 0..rows, &input, &mut out);
            for (row, out) in plain.chunks_exact(cols).zip(out.chunks_exact(tokens)) {
                for (words, got) in words.iter().zip(out) {
                    let want: i64 = row.iter().zip(words).map(|(w, v)| i64::from(*w) * v.cast_signed()).sum();
                    assert_eq!(*got, want, "{isa:?} product of planes");
                }
            }
            group.throughput(Throughput::Elements((rows * cols * tokens) as u64));
            let id = BenchmarkId::new(format!("{isa:?}"), format!("{planes} planes, {tokens} tokens"));
            group.bench_function(id, |b| b.iter(|| gemm(isa, &packed, 0..rows, &input, &mut out)));
        }
    }
    group.finish();
}

/// One panel of the hint's product: what preparing spends its time on.
fn hint(c: &mut Criterion) {
    let (mut random, modulus) = (StdRng::seed_from_u64(3), modulus());
    let (rows, cols) = (512, 1024);
    let plain = weights(&mut random, rows, cols);
    let packed = PackedWeights::new(rows, cols, &plain);
    let values = residues(&mut random, PANEL_POINTS * cols);
    let mut panel = HintPanel::new(cols);
    panel.fill(&values);
    let mut out = vec![0u64; rows * PANEL_POINTS];
    let mut group = c.benchmark_group("hint panel 512x1024x16");
    group.throughput(Throughput::Elements((rows * cols * PANEL_POINTS * 7) as u64));
    for isa in Isa::supported() {
        let product = |out: &mut [u64]| {
            let strided = StridedRows { values: out, stride: PANEL_POINTS };
            hint_panel_product(isa, &packed, 0..rows, &panel, &modulus, strided);
        };
        product(&mut out);
        for (row, got) in plain.chunks_exact(cols).zip(out.chunks_exact(PANEL_POINTS)).step_by(37) {
            for (k, got) in got.iter().enumerate() {
                let want: i128 = row
                    .iter()
                    .enumerate()
                    .map(|(i, w)| i128::from(*w) * i128::from(values[i * PANEL_POINTS + k]))
                    .sum();
                assert_eq!(*got, want.rem_euclid(i128::from(Q)) as u64, "{isa:?} hint product");
            }
        }
        group.bench_function(format!("{isa:?}"), |b| b.iter(|| product(&mut out)));
    }
    group.finish();
}

/// The key switch of a whole mask block: prepared digits times the batch's key, `2 (phi - 1)` terms.
fn key_switch(c: &mut Criterion) {
    let (mut random, modulus) = (StdRng::seed_from_u64(4), modulus());
    let shape = MacShape::new(N, TAU, LEVELS);
    let mut table = AlignedWords::zeroed(shape.table_words());
    let mut terms = Vec::new();
    for j in 0..shape.phi() - 1 {
        for level in 0..LEVELS {
            let poly = residues(&mut random, N);
            shape.store_term(&mut table, j, level, &poly);
            terms.push((j, level, poly));
        }
    }
    let polys: Vec<Vec<u64>> = (0..LEVELS).map(|_| residues(&mut random, N)).collect();
    let key = MacKey::new(shape, &polys);
    let mut want = vec![0u128; N];
    for (j, level, poly) in &terms {
        for orbit in 0..TAU {
            for e in 0..shape.phi() {
                // The j-th power of the automorphism moves a point j places along its orbit.
                let from = shape.position((e + j) % shape.phi(), orbit);
                let at = shape.position(e, orbit);
                want[at] =
                    (want[at] + u128::from(poly[at]) * u128::from(polys[*level][from])) % u128::from(Q);
            }
        }
    }
    let mut group = c.benchmark_group("mask half, one block of 32 rows");
    group.throughput(Throughput::Elements(shape.phi() as u64));
    let mut out = vec![0u64; N];
    for isa in Isa::supported() {
        mask_mac(isa, &table, &[&key], &modulus, &mut [&mut out]);
        assert!(out.iter().zip(&want).all(|(g, w)| u128::from(*g) == *w), "{isa:?} dot product with the key");
        group.bench_function(format!("{isa:?}"), |b| {
            b.iter(|| mask_mac(isa, &table, &[&key], &modulus, &mut [&mut out]));
        });
    }
    group.finish();
}

/// A 1024 x 1024 layer with both sides in one process, and a stock of slots: each benchmark iteration uses one up.
struct Layer {
    instance: Arc<Instance>,
    client: Client,
    weights: Arc<ServerWeights>,
    tables: PreparedModel,
    plain: Vec<i8>,
    stock: Vec<Slot>,
}

const WIDTH: usize = 1024;

impl Layer {
    fn new() -> fhe_layers::Result<Self> {
        let rounds =
            vec![RoundSpec { d_in: WIDTH, matrices: vec![MatrixSpec { rows: WIDTH, columns: 0..WIDTH }] }];
        let params = sets::n2048_q50_tau(TAU)?;
        let instance = Arc::new(Instance::new(params, rounds, ModelDigest([6; 32]), "kernels")?);
        let plain = weights(&mut StdRng::seed_from_u64(6), WIDTH, WIDTH);
        let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..WIDTH, weights: &plain }] }];
        let weights = Arc::new(ServerWeights::new(instance.layout(), &raw)?);
        let (form, options) = (TableForm::Ntt, PrepareOptions::default());
        let tables = PreparedModel::prepare(instance.clone(), weights.clone(), form, &options)?;
        let client = Client::new(instance.clone(), ClientOptions::default());
        Ok(Self { instance, client, weights, tables, plain, stock: Vec::new() })
    }

    fn slot(&mut self) -> fhe_layers::Result<Slot> {
        if self.stock.is_empty() {
            let mut batch = self.client.new_batch()?;
            let keys = ExpandedKeys::new(&self.instance, batch.keys());
            let masks = Mutex::new(Vec::new());
            // The seed of the server's re-randomisation: fresh for every batch that leaves a process, fixed in a bench.
            let job = MaskJob { keys: &keys, seed: [1; 32] };
            self.tables.mask_half(
                &[job],
                0..self.instance.layout().blocks(),
                &|| true,
                &|_, block, mask| {
                    masks.lock().expect("no thread panicked").push((block, mask));
                },
            )?;
            for (block, mask) in masks.into_inner().expect("no thread panicked") {
                batch.accept_masks(block, &[mask])?;
            }
            self.stock = batch.into_slots()?;
        }
        Ok(self.stock.pop().expect("a batch has slots"))
    }
}

/// Client, online: encrypting one token's input, decoding its reply.
fn client(c: &mut Criterion) {
    let mut layer = Layer::new().expect("a layer");
    let mut noise = NoiseRng::from_os().expect("entropy");
    let x: Vec<f32> = (0..WIDTH).map(|i| (i as f32 * 0.37).sin()).collect();
    let rows = layer.plain.chunks_exact(WIDTH);
    let norm =
        rows.map(|row| row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt()).fold(0.0, f64::max);
    let mut out = vec![0f32; WIDTH];
    let mut slot = layer.slot().expect("a slot");
    let (body, pending) = slot.encrypt(0, &x, norm, &mut noise).expect("encrypts");
    let reply = layer.weights.answer(0, &[body]).expect("answers").remove(0);
    pending.decode(&reply, &mut out).expect("decodes");
    for (row, got) in layer.plain.chunks_exact(WIDTH).zip(&out) {
        let want: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        assert!((want - f64::from(*got)).abs() < 1e-3 * norm, "decoded {got}, expected {want}");
    }
    let mut group = c.benchmark_group("client, 1024 x 1024");
    group.bench_function("encrypt", |b| {
        b.iter_batched(
            || layer.slot().expect("a slot"),
            |mut slot| slot.encrypt(0, &x, norm, &mut noise).expect("encrypts"),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decode", |b| {
        b.iter_batched(
            || {
                let mut slot = layer.slot().expect("a slot");
                let (body, pending) = slot.encrypt(0, &x, norm, &mut noise).expect("encrypts");
                (pending, layer.weights.answer(0, &[body]).expect("answers").remove(0))
            },
            |(pending, reply)| pending.decode(&reply, &mut out).expect("decodes"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(kernels, ntt, planes, hint, key_switch, client);
criterion_main!(kernels);
