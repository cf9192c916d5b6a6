//! The modular kernels against wide integers, and every instruction set against the scalar form, bit for bit.

mod kernels_support;

use fhe_layers::arith::Modulus;
use fhe_layers::kernels::AlignedWords;
use fhe_layers::kernels::mask_mac::{MacAccumulator, MacKey, MacShape, mask_mac};
use fhe_layers::kernels::ntt::Ntt;
use fhe_layers::kernels::pointwise::{self, Gadget};
use kernels_support::{Q, Stream, isas};
use proptest::prelude::*;

/// Digit polynomials `[j][level]`, key polynomials `[batch][level]`, each `[n]` in orbit order.
struct Case {
    shape: MacShape,
    digits: Vec<Vec<u64>>,
    keys: Vec<Vec<Vec<u64>>>,
}

impl Case {
    fn new(shape: MacShape, batches: usize, mut poly: impl FnMut() -> Vec<u64>) -> Self {
        let digits = (0..shape.terms()).map(|_| poly()).collect();
        let keys = (0..batches).map(|_| (0..shape.levels()).map(|_| poly()).collect()).collect();
        Self { shape, digits, keys }
    }

    /// The definition: a rotation by `j` reads the point `j` further in its orbit.
    fn schoolbook(&self, batch: usize) -> Vec<u64> {
        let shape = self.shape;
        let mut out = vec![0; shape.n()];
        for o in 0..shape.tau() {
            for e in 0..shape.phi() {
                let at = shape.position(e, o);
                let sum = self.digits.iter().enumerate().fold(0u128, |sum, (term, digits)| {
                    let (j, level) = (term / shape.levels(), term % shape.levels());
                    let key = self.keys[batch][level][shape.position((e + j) % shape.phi(), o)];
                    sum + u128::from(digits[at]) * u128::from(key)
                });
                out[at] = (sum % u128::from(Q)) as u64;
            }
        }
        out
    }

    fn check(&self) {
        let (shape, modulus) = (self.shape, Modulus::new(Q).unwrap());
        let mut table = AlignedWords::zeroed(shape.table_words());
        for (term, digits) in self.digits.iter().enumerate() {
            shape.store_term(&mut table, term / shape.levels(), term % shape.levels(), digits);
        }
        let mut copy = vec![0; shape.n()];
        shape.load_term(&table, 0, shape.levels() - 1, &mut copy);
        assert_eq!(copy, self.digits[shape.levels() - 1]);

        let keys: Vec<_> = self.keys.iter().map(|polys| MacKey::new(shape, polys)).collect();
        let expected: Vec<_> = (0..keys.len()).map(|b| self.schoolbook(b)).collect();
        for isa in isas() {
            let mut outs = vec![vec![u64::MAX; shape.n()]; keys.len()];
            let mut views: Vec<&mut [u64]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
            mask_mac(isa, &table, &keys.iter().collect::<Vec<_>>(), &modulus, &mut views);
            assert_eq!(outs, expected, "{isa}, {shape:?}");

            let mut sum = MacAccumulator::new(isa, shape);
            for (key, expected) in keys.iter().zip(&expected) {
                sum.clear();
                for (term, digits) in self.digits.iter().enumerate() {
                    sum.add(digits, key, term / shape.levels(), term % shape.levels());
                }
                let mut out = vec![u64::MAX; shape.n()];
                sum.reduce(&modulus, &mut out);
                assert_eq!(&out, expected, "{isa}, accumulated, {shape:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn mask_mac_matches_schoolbook(
        tau in prop::sample::select(vec![8usize, 16, 64]),
        phi in prop::sample::select(vec![2usize, 3, 8, 16]),
        levels in 1usize..=3,
        batches in 1usize..=4,
        seed: u64,
    ) {
        let shape = MacShape::new(tau * phi, tau, levels);
        let mut stream = Stream::new(seed);
        Case::new(shape, batches, || stream.words(shape.n(), Q - 1)).check();
    }

    #[test]
    fn pointwise_matches_wide_integers(len in 0usize..70, seed: u64) {
        let mut stream = Stream::new(seed);
        let [a, b, c] = [0; 3].map(|_| stream.words(len, Q - 1));
        check_pointwise(&a, &b, &c);
    }

    #[test]
    fn transforms_agree(seed: u64, log in 5u32..=11) {
        check_transform(Q, &Stream::new(seed).words(1 << log, Q - 1));
    }

    #[test]
    fn digits_reconstruct(seed: u64, gadget in prop::sample::select(vec![(2usize, 15u32, 20u32), (1, 15, 35), (1, 23, 27), (3, 10, 20), (4, 12, 2)])) {
        let (levels, base_log, drop) = gadget;
        check_digits(&Gadget::new(levels, base_log, drop), &Stream::new(seed).words(67, Q - 1));
    }
}

#[test]
fn mask_mac_at_full_size_and_at_the_largest_values() {
    for tau in [8, 64, 256] {
        let shape = MacShape::new(2048, tau, 2);
        Case::new(shape, 1, || vec![Q - 1; 2048]).check();
    }
    // The most terms that are accepted, with the largest 50-bit operands there are.
    let shape = MacShape::new(16, 8, 4096);
    assert_eq!(shape.terms(), 4096);
    let mut table = AlignedWords::zeroed(shape.table_words());
    table.fill((1 << 50) - 1);
    let key = MacKey::new(shape, &vec![vec![(1u64 << 50) - 1; shape.n()]; 4096]);
    let modulus = Modulus::new(Q).unwrap();
    let square = u128::from((1u64 << 50) - 1).pow(2);
    let expected = (4096 * square % u128::from(Q)) as u64;
    for isa in isas() {
        let mut out = vec![0; shape.n()];
        mask_mac(isa, &table, &[&key], &modulus, &mut [&mut out]);
        assert!(out.iter().all(|&v| v == expected), "{isa}");
    }
}

/// Every instruction set's transform gives what `tfhe-ntt` gives, both ways.
fn check_transform(q: u64, poly: &[u64]) {
    let n = poly.len();
    let modulus = Modulus::new(q).unwrap();
    let plan = tfhe_ntt::prime64::Plan::try_new(n, q).unwrap();
    let (mut values, mut coefficients) = (poly.to_vec(), poly.to_vec());
    plan.fwd(&mut values);
    plan.inv(&mut coefficients);
    plan.normalize(&mut coefficients);
    for isa in isas() {
        let ntt = Ntt::new(isa, n, &modulus).unwrap();
        let mut out = poly.to_vec();
        ntt.forward(&mut out);
        assert_eq!(out, values, "{isa}, n {n}, q {q}: forward");
        ntt.inverse(&mut out);
        assert_eq!(out, poly, "{isa}, n {n}, q {q}: there and back");
        ntt.inverse(&mut out);
        assert_eq!(out, coefficients, "{isa}, n {n}, q {q}: inverse");
    }
}

#[test]
fn transforms_agree_at_every_length_and_at_the_edges() {
    // The layer's modulus, the largest with transforms this long, and a small one.
    let largest = (1..).map(|k| (1u64 << 50) - (k << 13) + 1).find(|&q| {
        // Fermat and Euler to two bases is enough for a test, which fails where `q` has no transform.
        let modulus = Modulus::new(q).unwrap();
        [2, 3].iter().all(|&base| modulus.pow(base, q - 1) == 1)
    });
    for q in [Q, largest.unwrap(), 12289] {
        for n in (5..=11).map(|log| 1 << log) {
            check_transform(q, &vec![0; n]);
            check_transform(q, &vec![q - 1; n]);
            check_transform(q, &vec![q / 2; n]);
            check_transform(q, &vec![q / 2 + 1; n]);
            for period in [1, 2, 3, n / 2] {
                let alternating = (0..n).map(|i| if i / period % 2 == 0 { q - 1 } else { 0 });
                check_transform(q, &alternating.collect::<Vec<_>>());
            }
            check_transform(q, &Stream::new(n as u64).words(n, q - 1));
        }
    }
}

/// The order of `tfhe-ntt`, found from the transform of `X`, put into orbit order: `sigma^j` is a rotation by `j`.
#[test]
fn automorphisms_rotate_orbit_order() {
    let (n, tau) = (64usize, 16usize);
    let shape = MacShape::new(n, tau, 1);
    let (modulus, gamma) = (Modulus::new(Q).unwrap(), 2 * tau + 1);
    let plan = tfhe_ntt::prime64::Plan::try_new(n, Q).unwrap();
    let transform = |mut poly: Vec<u64>| {
        plan.fwd(&mut poly);
        poly
    };
    // The transform of X is the evaluation points themselves; their exponents are relative to the first one.
    let points = transform((0..n).map(|i| u64::from(i == 1)).collect());
    let native = |exponent: usize| {
        let point = modulus.pow(points[0], exponent as u64);
        points.iter().position(|&p| p == point).unwrap()
    };
    let mut order = vec![u32::MAX; n];
    for o in 0..tau {
        let mut exponent = 2 * o + 1;
        for e in 0..shape.phi() {
            order[shape.position(e, o)] = native(exponent) as u32;
            exponent = exponent * gamma % (2 * n);
        }
    }
    let into_orbits = |poly: Vec<u64>| {
        let mut out = vec![0; n];
        pointwise::permute(&order, &transform(poly), &mut out);
        out
    };
    let poly = Stream::new(3).words(n, Q - 1);
    let orbits = into_orbits(poly.clone());
    let (mut substituted, mut power) = (poly.clone(), 1);
    for j in 0..shape.phi() {
        let rotated = into_orbits(substituted);
        for e in 0..shape.phi() {
            for o in 0..tau {
                let from = shape.position((e + j) % shape.phi(), o);
                assert_eq!(rotated[shape.position(e, o)], orbits[from], "j {j}, point ({e}, {o})");
            }
        }
        power = power * gamma % (2 * n);
        substituted = vec![0; n];
        for (i, &v) in poly.iter().enumerate() {
            let target = i * power % (2 * n);
            substituted[target % n] = if target < n { v } else { modulus.neg(v) };
        }
    }
}

#[test]
#[should_panic(expected = "terms")]
fn too_many_terms_are_refused() {
    MacShape::new(8 * 4098, 8, 1);
}

#[test]
fn pointwise_at_the_edges() {
    for (a, b, c) in
        [(0, 0, 0), (Q - 1, Q - 1, 0), (Q - 1, Q - 1, Q - 1), (1, Q - 1, Q / 2), (Q / 2 + 1, 2, Q - 1)]
    {
        check_pointwise(&[a; 19], &[b; 19], &[c; 19]);
    }
}

fn check_pointwise(a: &[u64], b: &[u64], c: &[u64]) {
    let (modulus, q) = (Modulus::new(Q).unwrap(), i128::from(Q));
    let combine = |f: &dyn Fn(i128, i128, i128) -> i128| -> Vec<u64> {
        let triples = a.iter().zip(b).zip(c);
        triples.map(|((&a, &b), &c)| f(a.into(), b.into(), c.into()).rem_euclid(q) as u64).collect()
    };
    for isa in isas() {
        let mut out = vec![u64::MAX; a.len()];
        pointwise::mul(isa, &modulus, a, b, &mut out);
        assert_eq!(out, combine(&|a, b, _| a * b), "{isa} mul");
        out.copy_from_slice(c);
        pointwise::mul_sub(isa, &modulus, a, b, &mut out);
        assert_eq!(out, combine(&|a, b, c| c - a * b), "{isa} mul_sub");
        out.copy_from_slice(c);
        pointwise::mul_add(isa, &modulus, a, b, &mut out);
        assert_eq!(out, combine(&|a, b, c| c + a * b), "{isa} mul_add");
        out.copy_from_slice(c);
        pointwise::add_assign(isa, &modulus, &mut out, a);
        assert_eq!(out, combine(&|a, _, c| c + a), "{isa} add");
        out.copy_from_slice(c);
        pointwise::sub_assign(isa, &modulus, &mut out, a);
        assert_eq!(out, combine(&|a, _, c| c - a), "{isa} sub");
        out.copy_from_slice(c);
        pointwise::neg_assign(isa, &modulus, &mut out);
        assert_eq!(out, combine(&|_, _, c| -c), "{isa} neg");
        let mut centred = vec![0; a.len()];
        pointwise::centred(isa, &modulus, a, &mut centred);
        let nearest = |&v: &u64| if v > Q / 2 { v as i64 - Q as i64 } else { v as i64 };
        assert_eq!(centred, a.iter().map(nearest).collect::<Vec<_>>(), "{isa} centred");
        let digits: Vec<i32> = a.iter().map(|&v| v as i32).chain([i32::MIN, i32::MAX, 0, -1]).collect();
        let mut residues = vec![0; digits.len()];
        pointwise::residues(isa, &modulus, &digits, &mut residues);
        let expected: Vec<_> = digits.iter().map(|&d| i128::from(d).rem_euclid(q) as u64).collect();
        assert_eq!(residues, expected, "{isa} residues");
    }
}

#[test]
fn digits_at_the_edges() {
    let edges = [
        0,
        1,
        Q - 1,
        Q / 2,
        Q / 2 + 1,
        (1 << 34) - 1,
        1 << 34,
        (1 << 34) + (1 << 19),
        (1 << 19) - 1,
        1 << 19,
    ];
    check_digits(&Gadget::new(2, 15, 20), &edges);
    check_digits(&Gadget::new(1, 15, 35), &edges);
    check_digits(&Gadget::new(1, 23, 27), &edges);
}

/// The reference's rule, `split_phase.py`: round, then take digits from below; the rest is the top digit.
fn check_digits(gadget: &Gadget, values: &[u64]) {
    let modulus = Modulus::new(Q).unwrap();
    let (drop, base_log) = (gadget.drop_bits(), gadget.base_log());
    let half = 1i64 << (base_log - 1);
    for isa in isas() {
        let mut digits = vec![0i32; gadget.levels() * values.len()];
        gadget.digits(isa, &modulus, values, &mut digits);
        for (i, &value) in values.iter().enumerate() {
            let centred = modulus.centred(value);
            let mut rest = (centred + (1 << (drop - 1))).div_euclid(1 << drop);
            let mut sum = 0i64;
            for level in 0..gadget.levels() {
                let top = level == gadget.levels() - 1;
                let expected = if top { rest } else { (rest + half).rem_euclid(2 * half) - half };
                let digit = i64::from(digits[level * values.len() + i]);
                assert_eq!(digit, expected, "{isa}, value {value}, level {level}");
                rest = (rest - digit) >> base_log;
                sum += digit << (drop + base_log * level as u32);
            }
            assert!((sum - centred).abs() <= 1 << (drop - 1), "{isa}, value {value}");
        }
    }
}
