//! Test only: the formulas of [`super::bounds`] against the noise of real ciphertexts, and the numbers that
//! `docs/parameters.md` states.

use super::{bounds, failure};
use crate::client::{Client, ClientOptions, ExactMode};
use crate::form::{Widths, WireForm};
use crate::params::{Params, Set, security};
use crate::random::noise::NoiseRng;
use crate::server::*;
use crate::testing::{full_slots, session_slots};
use crate::{Error, Instance, MatrixSpec, ModelDigest, RoundSpec};
use std::sync::Arc;

/// Weights of the measured rows are plus or minus this: the root mean square that the documented numbers assume.
const WEIGHT: i8 = 32;

/// Rows of the measured layer whose weights are all zero: noise without that of the body.
const ZERO_ROWS: usize = 4;

/// Results of zero inputs for every token, `[tokens][rows]`: noise alone. The first [`ZERO_ROWS`] rows of every 32 are zero.
fn noise_of_zeros(set: Set, form: WireForm, tau: usize, d_in: usize) -> Vec<Vec<f32>> {
    let params = set.params(tau).unwrap();
    let rows = 64.max(params.phi()).min(4096 / tau.min(64));
    let weight = |i: usize| {
        let sign = 1 - 2 * (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & 1) as i8;
        if i / d_in % 32 < ZERO_ROWS { 0 } else { sign * WEIGHT }
    };
    let weights: Vec<i8> = (0..rows * d_in).map(weight).collect();
    let spec = RoundSpec { d_in, matrices: vec![MatrixSpec { rows, columns: 0..d_in }] };
    let instance = Arc::new(Instance::new(params, vec![spec], ModelDigest([3; 32]), "plain").unwrap());
    let raw = [RawRound { matrices: vec![RawMatrix { columns: 0..d_in, weights: &weights }] }];
    let weights = Arc::new(ServerWeights::new(instance.layout(), &raw).unwrap());
    let (shared, served) = (Arc::clone(&instance), Arc::clone(&weights));
    let tables =
        PreparedModel::prepare(shared, served, TableForm::Compact, &PrepareOptions::default()).unwrap();
    let client = Client::new(Arc::clone(&instance), ClientOptions::default());
    let mut rng = NoiseRng::from_seed(12);
    let x = vec![0.0; d_in];
    let mut out = Vec::new();
    match form.widths() {
        None => {
            for mut slot in full_slots(&client, &tables, 11) {
                let (body, pending) = slot.encrypt(0, &x, 1.0, &mut rng).unwrap();
                let reply = body_half(&weights, 0, &[body]).unwrap().remove(0);
                let mut y = vec![0.0; rows];
                pending.decode(&reply, &mut y).unwrap();
                out.push(y);
            }
        }
        Some(widths) => {
            let (slots, kept) = session_slots(&client, &tables, form, 11);
            for (t, mut slot) in slots.into_iter().enumerate() {
                let (body, pending) = slot.encrypt_words(0, &x, 1.0, &mut rng).unwrap();
                let words = form.keeps_words().then(|| kept.words.slot(instance.layout(), t, 0).unwrap());
                let query = [WordQuery { body: &body, words }];
                let reply = word_half(&weights, 0, &query, widths).unwrap().remove(0);
                let mut y = vec![0.0; rows];
                pending.decode_words(&reply, &mut y).unwrap();
                out.push(y);
            }
        }
    }
    out
}

/// Mean and variance of the chosen rows over all tokens, and their number.
fn moments(results: &[Vec<f32>], rows: impl Fn(usize) -> bool) -> (f64, f64, f64) {
    let values: Vec<f64> = results
        .iter()
        .flat_map(|token| token.iter().enumerate().filter(|&(row, _)| rows(row)).map(|(_, &v)| f64::from(v)))
        .collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count, count)
}

fn check(set: Set, form: WireForm, tau: usize, d_in: usize) {
    let results = noise_of_zeros(set, form, tau, d_in);
    let params = set.params(tau).unwrap();
    let norm = f64::from(WEIGHT) * (d_in as f64).sqrt();
    let parts = bounds::parts(&params, form, norm);
    let expected = parts.total();
    let (mean, variance, count) = moments(&results, |row| row % 32 >= ZERO_ROWS);
    let bits = (variance / expected).log2() / 2.0;
    let reach = bounds::reach(&params);
    let nu = (variance.sqrt() / reach).log2();
    eprintln!(
        "{set} {form} tau {tau} d_in {d_in}: nu {nu:.2}, formula {:.2}, {count} values",
        bounds::nu(&params, form, norm)
    );
    // 3500 values and more: the estimate of a deviation is off by 0.02 bits (one deviation of its own).
    assert!(bits.abs() < 0.1, "{set} {form} tau {tau} d_in {d_in}: off by {bits:.3} bits");
    // Rounding the mask is multiplied by a secret of mean 1/2: half of its variance is common to a block's coefficients.
    let blocks = (results[0].len() / params.phi()) as f64;
    let deviation = (expected / count + parts.mask / 2.0 / blocks).sqrt();
    assert!(
        mean.abs() < 5.0 * deviation,
        "{set} {form} tau {tau} d_in {d_in}: mean {mean:.0}, {deviation:.0}"
    );
    // Rows of zeros carry no noise of the body; unless the server adds b', their reply is 0 and not rounded either.
    let parts = bounds::parts(&params, form, 0.0);
    let expected = parts.total() - if form.keeps_words() { 0.0 } else { parts.reply };
    let (_, variance, _) = moments(&results, |row| row % 32 < ZERO_ROWS);
    let bits = (variance / expected).log2() / 2.0;
    assert!(bits.abs() < 0.2, "{set} {form} tau {tau} d_in {d_in}, zero rows: off by {bits:.3} bits");
}

/// Forms that a set is documented with.
fn forms(set: Set) -> Vec<WireForm> {
    let lean = [Widths::DEFAULT, Widths::THRIFTY, Widths::FINE].map(WireForm::Lean);
    match set {
        Set::Default => [&lean[..], &[WireForm::stateless(), WireForm::Full]].concat(),
        Set::Light => vec![WireForm::Lean(Widths::THRIFTY), WireForm::stateless()],
    }
}

#[test]
fn measured_noise_matches_the_formulas() {
    for set in Set::ALL {
        for form in forms(set) {
            for d_in in [576, 2048, 8192] {
                check(set, form, 64, d_in);
            }
        }
    }
    for tau in [8, 256] {
        check(Set::Default, WireForm::Full, tau, 576);
        check(Set::Default, WireForm::Lean(Widths::FINE), tau, 576);
        check(Set::Light, WireForm::Lean(Widths::THRIFTY), tau, 576);
    }
}

/// Rows of the noise table in the document.
fn noise_table() -> Vec<String> {
    let mut rows = Vec::new();
    for set in Set::ALL {
        for form in forms(set) {
            for tau in [64, 256] {
                let params = set.params(tau).unwrap();
                let nu = [576, 2048, 8192].map(|d_in: i32| {
                    let norm = f64::from(WEIGHT) * f64::from(d_in).sqrt();
                    bounds::nu(&params, form, norm)
                });
                let key_switch = bounds::parts(&params, form, 0.0).key_switch.sqrt() / bounds::reach(&params);
                rows.push(format!(
                    "| {set} | {form} | {tau} | {:.1} | {:.1} | {:.1} | {:.1} |",
                    key_switch.log2(),
                    nu[0],
                    nu[1],
                    nu[2]
                ));
            }
        }
    }
    rows
}

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/parameters.md")).unwrap()
}

#[test]
fn the_document_has_the_noise_table() {
    let (text, rows) = (document(), noise_table());
    for row in &rows {
        assert!(text.contains(row), "docs/parameters.md lacks this row:\n{}", rows.join("\n"));
    }
}

#[test]
fn the_designed_precision_is_reached() {
    let nu = |set: Set, form, tau, d_in: f64| {
        bounds::nu(&set.params(tau).unwrap(), form, f64::from(WEIGHT) * d_in.sqrt())
    };
    // The design's figures, measured on the reference at N = 2048.
    for (set, form, tau, d_in, expected) in [
        (Set::Default, WireForm::Lean(Widths::DEFAULT), 64, 576.0, -20.4),
        (Set::Default, WireForm::Lean(Widths::DEFAULT), 64, 2048.0, -19.9),
        (Set::Default, WireForm::Lean(Widths::DEFAULT), 64, 8192.0, -19.2),
        (Set::Default, WireForm::Lean(Widths::THRIFTY), 64, 576.0, -18.4),
        (Set::Default, WireForm::Lean(Widths::THRIFTY), 64, 8192.0, -17.2),
        (Set::Default, WireForm::stateless(), 64, 576.0, -19.0),
        (Set::Light, WireForm::Lean(Widths::THRIFTY), 64, 576.0, -16.1),
        (Set::Light, WireForm::Lean(Widths::THRIFTY), 256, 576.0, -17.0),
    ] {
        let got = nu(set, form, tau, d_in);
        assert!(
            (got - expected).abs() < 0.4,
            "{set} {form} tau {tau} d_in {d_in}: {got:.2}, design {expected}"
        );
    }
    // Nothing wraps: no tau, width and weights.
    for set in Set::ALL {
        for (tau, form) in [8, 16, 32, 64, 128, 256]
            .into_iter()
            .flat_map(|tau| forms(set).into_iter().map(move |f| (tau, f)))
        {
            let params = set.params(tau).unwrap();
            let worst = failure::log2_wrap(&params, form, 127.0 * 32768f64.sqrt());
            assert!(worst < -1000.0, "{set} {form} tau {tau}: 2^{worst}");
        }
    }
}

#[test]
fn exact_mode_states_its_limit_and_failure() {
    let spec = RoundSpec { d_in: 576, matrices: vec![MatrixSpec { rows: 1, columns: 0..576 }] };
    let params = Params::n2048_q50(64).unwrap();
    let instance = Instance::new(params.clone(), vec![spec], ModelDigest([3; 32]), "plain").unwrap();
    let norm = f64::from(WEIGHT) * 24.0;
    for (form, delta, limit) in [
        (WireForm::Full, 30, 19),
        (WireForm::Lean(Widths::FINE), 31, 18),
        (WireForm::Lean(Widths::DEFAULT), 33, 16),
        (WireForm::Lean(Widths::THRIFTY), 35, 14),
        (WireForm::stateless(), 34, 15),
    ] {
        let exact = ExactMode::for_form(&instance, form, 0, norm, (1 << limit) - 1).unwrap();
        assert_eq!((exact.delta(), exact.limit()), (1 << delta, 1 << limit), "{form}");
        let failure = failure::log2_exact(&params, form, norm, exact.delta());
        assert!(failure < -34.0, "{form}: 2^{failure:.0}");
        let refused = ExactMode::for_form(&instance, form, 0, norm, 1 << limit);
        assert_eq!(
            refused.err(),
            Some(Error::ExactOverflow { got: 1 << limit, limit: 1 << limit }),
            "{form}"
        );
    }
    assert!(matches!(ExactMode::for_form(&instance, WireForm::Full, 0, f64::NAN, 1), Err(Error::NotANorm)));
    assert!(matches!(
        ExactMode::for_form(&instance, WireForm::Full, 1, 1.0, 1),
        Err(Error::OutOfRange { .. })
    ));
}

/// `set | model | attack | log2 operations | ..` of the estimator's saved output.
fn saved_estimates() -> Vec<(String, String, f64)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/params/estimate/estimates.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let runs = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split(" | ").collect();
        (fields[0].to_owned(), fields[1].to_owned(), fields[3].parse().unwrap_or(f64::INFINITY))
    });
    runs.collect()
}

#[test]
fn the_security_table_is_the_estimators_saved_output() {
    let saved = saved_estimates();
    assert!(saved.len() >= 40, "{} runs", saved.len());
    for set in Set::ALL {
        let params = set.params(64).unwrap();
        let name = params.id().strip_suffix("-tau64").unwrap();
        // Rounded down: the table promises no more than the estimate.
        let least = |model: &str| {
            let runs = saved.iter().filter(|(set, of, _)| set == name && of == model);
            runs.map(|(_, _, bits)| *bits).fold(f64::INFINITY, f64::min).floor() as u32
        };
        assert_eq!(params.security_bits(), least("MATZOV"), "{set}");
        assert_eq!(params.quantum_security_bits(), least("LaaMosPol14"), "{set}");
        let row = format!(
            "| {name} | {} | {} | {} | {} |",
            params.security_bits(),
            params.quantum_security_bits(),
            least("core-SVP classical"),
            least("core-SVP quantum")
        );
        assert!(document().contains(&row), "docs/parameters.md lacks the row {row}");
    }
    assert_eq!(security::ESTIMATES.len(), Set::ALL.len(), "every entry has its saved runs");
}

#[test]
fn unknown_combinations_are_refused() {
    for (n, q, bound) in
        [(1024, 1125899906826241, 5), (2048, 1125899906826241, 3), (2048, 1125899906629633, 5)]
    {
        let refused = Params::checked(n, q, 64, bound, "other");
        assert!(matches!(refused, Err(crate::ParamsError::Insecure { .. })), "{n} {q} {bound}");
    }
}
