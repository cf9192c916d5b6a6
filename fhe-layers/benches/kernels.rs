//! Micro-benchmarks of the kernels, each checked against the scalar form before it is timed.
//!
//! `cargo bench -p fhe-layers --bench kernels [-- FILTER]`; `SOTTO_ISA` chooses the instruction set. Throughput is in
//! int8 multiply-adds (`elem/s`) for the products and in table or weight bytes for what streams memory.
#![allow(missing_docs, reason = "criterion's macros define undocumented functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fhe_layers::arith::Modulus;
use fhe_layers::kernels::hint::{HINT_PLANES, HintPanel, PANEL_POINTS, StridedRows, hint_panel_product};
use fhe_layers::kernels::mask_mac::{MacAccumulator, MacKey, MacShape, mask_mac};
use fhe_layers::kernels::ntt::Ntt;
use fhe_layers::kernels::planes::{BODY_PLANES, Planes, WORD_PLANES, gemm, gemv};
use fhe_layers::kernels::pointwise::{self, Gadget};
use fhe_layers::kernels::{AlignedWords, Isa, PackedWeights};

const Q: u64 = 1125899906826241;
const N: usize = 2048;

fn isa() -> Isa {
    Isa::active().expect("SOTTO_ISA names an instruction set of this processor")
}

fn modulus() -> Modulus {
    Modulus::new(Q).expect("q is in range")
}

/// Seeded words in `0..limit` (splitmix64).
fn words(len: usize, limit: u64, mut state: u64) -> Vec<u64> {
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    };
    (0..len).map(|_| next()).collect()
}

fn weights(rows: usize, cols: usize) -> PackedWeights {
    let values: Vec<i8> = words(rows * cols, 255, 5).into_iter().map(|v| (v as i64 - 127) as i8).collect();
    PackedWeights::new(rows, cols, &values)
}

/// The transform in use next to that of `tfhe-ntt`, which it is or replaces.
fn ntt(c: &mut Criterion) {
    let ntt = Ntt::new(isa(), N, &modulus()).expect("the ring has an NTT");
    let plan = tfhe_ntt::prime64::Plan::try_new(N, Q).expect("the ring has an NTT");
    let input = words(N, Q, 1);
    let (mut buffer, mut expected) = (AlignedWords::from(&input[..]), input.clone());
    ntt.forward(&mut buffer);
    plan.fwd(&mut expected);
    assert_eq!(buffer[..], expected, "transform");
    ntt.inverse(&mut buffer);
    assert_eq!(buffer[..], input, "inverse of the transform");
    c.bench_function("ntt/forward", |b| b.iter(|| ntt.forward(&mut buffer)));
    c.bench_function("ntt/forward_tfhe_ntt", |b| b.iter(|| plan.fwd(&mut buffer)));
    c.bench_function("ntt/inverse", |b| b.iter(|| ntt.inverse(&mut buffer)));
    c.bench_function("ntt/inverse_tfhe_ntt", |b| {
        b.iter(|| {
            plan.inv(&mut buffer);
            plan.normalize(&mut buffer);
        });
    });
}

/// A table of many blocks, as in a model, so that it comes from memory; time per pass over all rows.
fn mask(c: &mut Criterion) {
    let (isa, modulus) = (isa(), modulus());
    let mut group = c.benchmark_group("mask_mac");
    for tau in [8, 64, 256] {
        let shape = MacShape::new(N, tau, 2);
        let blocks = (2048 / shape.phi()).max(1);
        let table = AlignedWords::from(words(blocks * shape.table_words(), Q, 2).as_slice());
        let keys: Vec<_> =
            (0..4).map(|b| MacKey::new(shape, &[words(N, Q, 10 + b), words(N, Q, 20 + b)])).collect();
        let keys: Vec<_> = keys.iter().collect();
        for batches in [1, 2, 4] {
            let pass = |isa, table: &[u64], outs: &mut [Vec<u64>]| {
                for block in table.chunks_exact(shape.table_words()) {
                    let mut views: Vec<&mut [u64]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                    mask_mac(isa, block, &keys[..batches], &modulus, &mut views);
                }
            };
            let mut outs = vec![vec![0; N]; batches];
            let mut expected = outs.clone();
            pass(isa, &table[..shape.table_words()], &mut outs);
            pass(Isa::Scalar, &table[..shape.table_words()], &mut expected);
            assert_eq!(outs, expected, "mask MAC");
            group.throughput(Throughput::Bytes(table.len() as u64 * 8));
            let id = BenchmarkId::new(format!("2048_rows_tau_{tau}"), format!("{batches}_batches"));
            group.bench_function(id, |b| b.iter(|| pass(isa, &table, &mut outs)));
        }
    }
    group.finish();
}

fn body(c: &mut Criterion) {
    let isa = isa();
    let mut group = c.benchmark_group("gemv");
    for size in [2048, 8192] {
        let weights = weights(size, size);
        for planes in [1, WORD_PLANES, BODY_PLANES] {
            let input = Planes::from_words(&words(size, 1 << (8 * planes), 3), planes);
            let (mut out, mut expected) = (vec![0; size], vec![0; size]);
            gemv(isa, &weights, 0..size, &input, &mut out);
            gemv(Isa::Scalar, &weights, 0..size, &input, &mut expected);
            assert_eq!(out, expected, "matrix-vector product");
            group.throughput(Throughput::Bytes(weights.bytes() as u64));
            let id = BenchmarkId::new(format!("{size}x{size}"), format!("{planes}_planes"));
            group.bench_function(id, |b| b.iter(|| gemv(isa, &weights, 0..size, &input, &mut out)));
        }
    }
    group.finish();

    let mut group = c.benchmark_group("gemm");
    let (size, tokens) = (2048, 64);
    let weights = weights(size, size);
    let inputs: Vec<_> = (0..tokens).map(|t| words(size, 1 << 40, t as u64)).collect();
    let planes = Planes::from_tokens(&inputs, BODY_PLANES);
    let (mut out, mut expected) = (vec![0; size * tokens], vec![0; 8 * tokens]);
    gemm(isa, &weights, 0..size, &planes, &mut out);
    gemm(Isa::Scalar, &weights, 0..8, &planes, &mut expected);
    assert_eq!(out[..8 * tokens], expected, "matrix product");
    group.throughput(Throughput::Elements((size * size * tokens * BODY_PLANES) as u64));
    group.bench_function("2048x2048_64_tokens_5_planes", |b| {
        b.iter(|| gemm(isa, &weights, 0..size, &planes, &mut out));
    });
    group.finish();
}

fn hint(c: &mut Criterion) {
    let (isa, modulus) = (isa(), modulus());
    let mut group = c.benchmark_group("hint");
    for d_in in [64, 576, 2048, 8192] {
        let rows = 512;
        let weights = weights(rows, d_in);
        let values = words(d_in * PANEL_POINTS, Q, 4);
        let mut panel = HintPanel::new(d_in);
        panel.fill(&values);
        let product = |isa, out: &mut [u64]| {
            let out = StridedRows { values: out, stride: PANEL_POINTS };
            hint_panel_product(isa, &weights, 0..rows, &panel, &modulus, out);
        };
        let mut out = vec![0; rows * PANEL_POINTS];
        let mut expected = out.clone();
        product(isa, &mut out);
        product(Isa::Scalar, &mut expected);
        assert_eq!(out, expected, "hint product");
        group.throughput(Throughput::Elements((rows * d_in * PANEL_POINTS * HINT_PLANES) as u64));
        group.bench_function(BenchmarkId::new("512_rows", d_in), |b| b.iter(|| product(isa, &mut out)));
        let mut refilled = HintPanel::new(d_in);
        group.bench_function(BenchmarkId::new("fill", d_in), |b| b.iter(|| refilled.fill(&values)));
    }
    group.finish();
}

fn polynomials(c: &mut Criterion) {
    let (isa, modulus) = (isa(), modulus());
    let mut group = c.benchmark_group("poly");
    let (a, b, mut acc) = (words(N, Q, 6), words(N, Q, 7), words(N, Q, 8));
    let mut expected = acc.clone();
    pointwise::mul_sub(isa, &modulus, &a, &b, &mut acc);
    pointwise::mul_sub(Isa::Scalar, &modulus, &a, &b, &mut expected);
    assert_eq!(acc, expected, "pointwise product");
    group.bench_function("mul_sub", |x| x.iter(|| pointwise::mul_sub(isa, &modulus, &a, &b, &mut acc)));
    group.bench_function("add", |x| x.iter(|| pointwise::add_assign(isa, &modulus, &mut acc, &a)));

    let gadget = Gadget::new(2, 15, 20);
    let (mut digits, mut scalar_digits) = (vec![0i32; 2 * N], vec![0i32; 2 * N]);
    gadget.digits(isa, &modulus, &a, &mut digits);
    gadget.digits(Isa::Scalar, &modulus, &a, &mut scalar_digits);
    assert_eq!(digits, scalar_digits, "digits");
    group.bench_function("digits", |x| x.iter(|| gadget.digits(isa, &modulus, &a, &mut digits)));
    let mut residues = vec![0; N];
    group.bench_function("residues", |x| {
        x.iter(|| pointwise::residues(isa, &modulus, &digits[..N], &mut residues));
    });
    let order: Vec<u32> = (0..N as u32).map(|i| i * 17 % N as u32).collect();
    group.bench_function("permute", |x| x.iter(|| pointwise::permute(&order, &a, &mut residues)));

    let shape = MacShape::new(N, 64, 2);
    let key = MacKey::new(shape, &[&a, &b]);
    let mut sum = MacAccumulator::new(isa, shape);
    group.bench_function("accumulate", |x| {
        x.iter(|| {
            sum.clear();
            (0..8).for_each(|j| sum.add(&a, &key, j, 1));
        });
    });
    group.bench_function("accumulator_reduce", |x| x.iter(|| sum.reduce(&modulus, &mut residues)));
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = ntt, mask, body, hint, polynomials
}
criterion_main!(kernels);
