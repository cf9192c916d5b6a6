//! What is measured, and the report.

use std::time::Duration;

use anyhow::Context as _;
use benches::{
    check::Checks,
    stats::{median, median_ms, relative_rms_error, time_ms},
};
use fhe_layers::{
    Body, ClientOptions, ExactMode, NoiseRng, PreparedModel, Set, TableForm, WireForm, WordBody, WordQuery,
    body_half,
    client::input_scale,
    kernels::{
        Isa,
        planes::{Planes, gemm_parallel},
    },
    noise::bounds,
    word_half,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Args;
use crate::layer::{Layer, Shape, Wire, answer, encrypt, encrypt_exact};

/// What is printed. Times are of the wall clock: preparing runs once, the server's phases and the transform are the fastest
/// of 15 runs (a neighbour on the machine only ever adds), the client's are medians.
#[derive(Serialize)]
pub(crate) struct Report {
    r#in: usize,
    out: usize,
    tokens_per_batch: usize,
    threads: usize,
    isa: String,
    form: &'static str,
    wire: String,
    set: String,
    parameters: String,
    security_bits: u32,
    quantum_security_bits: u32,
    security_source: &'static str,
    ntt_forward_us: f64,
    prepare_ms: f64,
    prepare_gmac_per_s_per_core: f64,
    /// Growth of the resident set while preparing, plus the packed weights.
    prepare_peak_bytes: u64,
    /// `1.3 table_bytes + weights + public polynomials of the input`: what the peak must not exceed.
    prepare_peak_limit_bytes: u64,
    /// Shared masks of a session, at the server; 0 in the full form.
    session_ms: f64,
    client_keys_ms: f64,
    /// Pads, and in the session forms the products of the shared masks.
    client_pads_ms: f64,
    mask_half_ms: f64,
    mask_half_us_per_row: f64,
    mask_half_us_per_row_4_batches: f64,
    /// Mask half of the two-level set on the same rows, in turns with ours; only with `--set light`.
    mask_half_us_per_row_default_set: Option<f64>,
    mask_half_ratio_to_default_set: Option<f64>,
    mask_half_ratio_to_default_set_4_batches: Option<f64>,
    body_half_us_per_token: f64,
    /// Body half in the full form (five planes), in turns with ours.
    body_half_full_us_per_token: f64,
    clear_int8_us_per_token: f64,
    client_encrypt_us_per_token: f64,
    client_decrypt_masks_ms: f64,
    client_decode_us_per_token: f64,
    bytes: Bytes,
    table_bytes: usize,
    table_bytes_per_row: f64,
    weight_bytes: usize,
    noise: Noise,
    snr_bits: f64,
    exact_mode_ok: bool,
    /// Of the tables as saved and of the replies to fixed bodies: the same for every `--isa` and `--form`.
    sha256: Digests,
}

#[derive(Serialize)]
struct Bytes {
    keys: usize,
    /// Shared masks, once per session.
    session: usize,
    mask_per_token: f64,
    body_up_per_token: usize,
    body_down_per_token: usize,
    /// Kept by the server until the slot is answered.
    kept_per_token: usize,
}

/// log2 of the rms noise over `max |w| |x|`, for the rows of the layer and the scale that the client chose.
#[derive(Serialize)]
struct Noise {
    nu_measured: f64,
    nu_formula: f64,
    /// Measured over formula, in bits.
    off_by_bits: f64,
    values: usize,
}

#[derive(Serialize)]
struct Digests {
    tables: String,
    replies: String,
}

pub(crate) fn measure(
    args: &Args,
    form: WireForm,
    threads: usize,
    checks: &mut Checks,
) -> anyhow::Result<Report> {
    let (d_in, d_out, tau) = (args.d_in as usize, args.d_out as usize, args.tokens_per_batch);
    let isa = args.isa.map_or_else(Isa::active, Ok)?;
    let shape = Shape { set: args.set, d_in, d_out, tau, isa };
    let mut rng = StdRng::seed_from_u64(2026);
    let layer = Layer::new(shape, 1, gaussian_weights(d_in * d_out, &mut rng))?;
    let params = layer.instance.params().clone();

    eprintln!("preparing {d_out} rows of {d_in} on {threads} threads, {} set", args.set);
    let memory = PeakMemory::start();
    let (tables, prepare_ms) = time_ms(|| layer.prepare(args.form));
    let grown = memory.grown();
    let tables = tables?;
    let weight_bytes = layer.weights.bytes();
    let public_bytes = layer.instance.layout().total_polys() * params.n() * size_of::<u64>();
    let table_bytes = tables.table_bytes();
    let table_bytes_per_row = table_bytes as f64 / (layer.blocks() * params.phi()) as f64;
    let gmac = (d_in * d_out) as f64 * params.n() as f64 * 7.0 / 1e9;

    eprintln!("session, mask half and body half, {form}");
    let wire = Wire::open(&layer, &tables, form)?;
    let server = server_times(args, shape, &layer, &tables, &wire)?;
    eprintln!("client");
    let client = client_times(shape, &layer, &tables, &wire, &mut rng, checks)?;
    checks.at_least("snr_bits is finite and positive", client.snr_bits, 1.0);
    checks.at_most("noise is that of the formulas, in bits", client.noise.off_by_bits.abs(), 0.1);
    eprintln!("exact mode, instruction sets, digests");
    let sha256 = digests(&layer, &tables, form)?;
    drop(tables);
    let exact_mode_ok = exact_mode(shape, form, &mut rng)?;
    checks.that(
        "exact mode returns the integers and refuses what does not fit",
        exact_mode_ok,
        "exact_mode_ok",
    );
    instruction_sets_agree(shape, form, &mut rng, checks)?;

    let ratio = |ours: f64, theirs: Option<f64>| theirs.map(|theirs| ours / theirs);
    let per_row = |ms: f64| ms * 1e3 / d_out as f64;
    Ok(Report {
        r#in: d_in,
        out: d_out,
        tokens_per_batch: tau,
        threads,
        isa: isa.to_string(),
        form: form_name(args.form),
        wire: form.to_string(),
        set: args.set.to_string(),
        parameters: params.id().to_owned(),
        security_bits: params.security_bits(),
        quantum_security_bits: params.quantum_security_bits(),
        security_source: "lattice-estimator 27a581b, dual hybrid, MATZOV, unlimited samples: docs/parameters.md",
        ntt_forward_us: server.ntt_us,
        prepare_ms,
        prepare_gmac_per_s_per_core: gmac / (prepare_ms / 1e3) / threads as f64,
        prepare_peak_bytes: grown + weight_bytes as u64,
        prepare_peak_limit_bytes: (1.3 * table_bytes as f64) as u64 + (weight_bytes + public_bytes) as u64,
        session_ms: wire.session.as_ref().map_or(0.0, |session| session.server_ms),
        client_keys_ms: client.keys_ms,
        client_pads_ms: client.pads_ms,
        mask_half_ms: server.mask_ms,
        mask_half_us_per_row: per_row(server.mask_ms),
        mask_half_us_per_row_4_batches: per_row(server.mask_4_ms / 4.0),
        mask_half_us_per_row_default_set: server.default_mask_ms.map(per_row),
        mask_half_ratio_to_default_set: ratio(server.mask_ms, server.default_mask_ms),
        mask_half_ratio_to_default_set_4_batches: ratio(server.mask_4_ms, server.default_mask_4_ms),
        body_half_us_per_token: server.body_us,
        body_half_full_us_per_token: server.full_body_us,
        clear_int8_us_per_token: server.clear_us,
        client_encrypt_us_per_token: client.encrypt_us,
        client_decrypt_masks_ms: client.decrypt_ms,
        client_decode_us_per_token: client.decode_us,
        bytes: client.bytes,
        table_bytes,
        table_bytes_per_row,
        weight_bytes,
        noise: client.noise,
        snr_bits: client.snr_bits,
        exact_mode_ok,
        sha256,
    })
}

fn form_name(form: TableForm) -> &'static str {
    match form {
        TableForm::Ntt => "ntt",
        TableForm::Compact => "compact",
    }
}

struct ServerTimes {
    ntt_us: f64,
    mask_ms: f64,
    mask_4_ms: f64,
    default_mask_ms: Option<f64>,
    default_mask_4_ms: Option<f64>,
    body_us: f64,
    full_body_us: f64,
    clear_us: f64,
}

/// The two-level set's mask half on the same rows, to compare with.
struct Comparison {
    layer: Layer,
    tables: PreparedModel,
    wire: Wire,
    keys: Vec<fhe_layers::ExpandedKeys>,
}

impl Comparison {
    fn new(args: &Args, shape: Shape, raw: &[i8], form: WireForm) -> anyhow::Result<Self> {
        eprintln!("preparing the default set to compare with");
        let layer = Layer::new(Shape { set: Set::Default, ..shape }, 9, raw.to_vec())?;
        let tables = layer.prepare(args.form)?;
        let wire = Wire::open(&layer, &tables, form)?;
        let keys = four_keys(&layer, &wire)?;
        Ok(Self { layer, tables, wire, keys })
    }

    fn pass_ms(&self, batches: usize) -> anyhow::Result<f64> {
        let (done, ms) = time_ms(|| self.wire.mask_pass(&self.layer, &self.tables, &self.keys[..batches]));
        done.map(|()| ms)
    }
}

fn four_keys(layer: &Layer, wire: &Wire) -> anyhow::Result<Vec<fhe_layers::ExpandedKeys>> {
    let client = layer.client(ClientOptions { cache_a: false });
    (0..4).map(|_| Ok(wire.expand(layer, &wire.new_batch(&client)?))).collect()
}

/// Mask half for one batch and for four, body half, its five-plane form and its one-plane yardstick. What is compared is
/// interleaved, so that a neighbour on the machine slows both sides.
fn server_times(
    args: &Args,
    shape: Shape,
    layer: &Layer,
    tables: &PreparedModel,
    wire: &Wire,
) -> anyhow::Result<ServerTimes> {
    let (instance, n) = (&layer.instance, layer.instance.params().n());
    let keys = four_keys(layer, wire)?;
    let other =
        (shape.set == Set::Light).then(|| Comparison::new(args, shape, &layer.raw, wire.form)).transpose()?;
    let pass = |batches: usize| -> anyhow::Result<f64> {
        let (done, ms) = time_ms(|| wire.mask_pass(layer, tables, &keys[..batches]));
        done.map(|()| ms)
    };
    let mut poly: Vec<u64> = (0..n as u64).map(|i| i * 0x9e37_79b9 % instance.params().q()).collect();
    let (mut ntt, mut one, mut four, mut other_one, mut other_four) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    pass(1)?;
    for _ in 0..RUNS {
        one.push(pass(1)?);
        if let Some(other) = &other {
            other_one.push(other.pass_ms(1)?);
        }
        four.push(pass(4)?);
        if let Some(other) = &other {
            other_four.push(other.pass_ms(4)?);
        }
        let transforms = 300;
        let (_, ms) = time_ms(|| (0..transforms).for_each(|_| instance.ring().forward(&mut poly)));
        ntt.push(ms * 1e3 / f64::from(transforms));
    }
    let (body_us, full_body_us, clear_us) = body_times(layer, tables, wire)?;
    let compared = |samples: &[f64]| (!samples.is_empty()).then(|| fastest(samples));
    Ok(ServerTimes {
        ntt_us: fastest(&ntt),
        mask_ms: fastest(&one),
        mask_4_ms: fastest(&four),
        default_mask_ms: compared(&other_one),
        default_mask_4_ms: compared(&other_four),
        body_us,
        full_body_us,
        clear_us,
    })
}

/// Microseconds per token of the body half in this form, in the full form, and of clear int8.
fn body_times(layer: &Layer, tables: &PreparedModel, wire: &Wire) -> anyhow::Result<(f64, f64, f64)> {
    let words: Vec<u64> =
        (0..layer.d_in as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a) & 0xff_ffff_ffff).collect();
    let full = [Body::from_words(words.clone())?];
    let raw = fhe_layers::kernels::PackedWeights::new(layer.raw.len() / layer.d_in, layer.d_in, &layer.raw);
    let low: Vec<u64> = words.iter().map(|word| word & 0xff).collect();
    let ready = wire.ready(layer, tables)?;
    let short = wire.form.widths().map(|widths| {
        let keep = u32::MAX << (32 - widths.body());
        WordBody::from_words(words.iter().map(|&word| word as u32 & keep).collect(), widths)
    });
    let short = short.transpose()?;
    let isa = layer.instance.ring().isa();
    let (mut ours, mut fulls, mut clears) = (Vec::new(), Vec::new(), Vec::new());
    let median_us = |f: &mut dyn FnMut()| median_ms(3, Duration::ZERO, f) * 1e3;
    for _ in 0..RUNS {
        fulls.push(median_us(&mut || drop(std::hint::black_box(body_half(&layer.weights, 0, &full)))));
        match (&short, wire.form.widths()) {
            (Some(body), Some(widths)) => {
                let layout = layer.instance.layout();
                let words = ready.kept.as_ref().map(|batch| batch.words.slot(layout, 0, 0)).transpose()?;
                ours.push(median_us(&mut || {
                    let query = [WordQuery { body, words: words.clone() }];
                    drop(std::hint::black_box(word_half(&layer.weights, 0, &query, widths)));
                }));
            }
            _ => ours.push(fulls[fulls.len() - 1]),
        }
        clears.push(median_us(&mut || {
            let mut sums = vec![0i64; raw.rows()];
            gemm_parallel(isa, &raw, &Planes::from_words(&low, 1), &mut sums);
            std::hint::black_box(sums);
        }));
    }
    Ok((fastest(&ours), fastest(&fulls), fastest(&clears)))
}

/// Runs of what is reported as the fastest of them.
const RUNS: usize = 15;

fn fastest(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

struct ClientTimes {
    keys_ms: f64,
    pads_ms: f64,
    encrypt_us: f64,
    decrypt_ms: f64,
    decode_us: f64,
    snr_bits: f64,
    noise: Noise,
    bytes: Bytes,
}

/// A whole batch: keys, pads, masks, then every token with Gaussian activations and 1 % outliers of 100 sigma.
fn client_times(
    shape: Shape,
    layer: &Layer,
    tables: &PreparedModel,
    wire: &Wire,
    rng: &mut StdRng,
    checks: &mut Checks,
) -> anyhow::Result<ClientTimes> {
    let (params, rows, form) = (layer.instance.params(), layer.rows(), wire.form);
    let client = layer.client(ClientOptions::default());
    // A layer of one feature has one pad and no session: what remains is the keys.
    let keys_only = Layer::new(Shape { d_in: 1, d_out: 1, ..shape }, 2, vec![1])?;
    let keys_client = keys_only.client(ClientOptions::default());
    let batch_ms =
        median_ms(9, Duration::from_millis(50), || drop(std::hint::black_box(wire.new_batch(&client))));
    let keys_ms =
        median_ms(9, Duration::from_millis(50), || drop(std::hint::black_box(keys_client.new_batch())));
    let keys_bytes = wire.new_batch(&client)?.keys().to_bytes(params).len();

    let mut decrypts = Vec::new();
    for _ in 0..4 {
        decrypts.push(wire.ready(layer, tables)?.decrypt_ms);
    }
    let mut noise_rng = NoiseRng::from_os()?;
    let (mut encrypts, mut decodes, mut got, mut want) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut y, mut up_down, mut refused, mut errors) = (vec![0.0; rows], (0, 0), 0, 0.0);
    // Small layers have few rows: several batches make the estimate of the noise as good.
    let batches = 4096usize.div_ceil(rows * params.tau());
    for _ in 0..batches.min(64) {
        let ready = wire.ready(layer, tables)?;
        for (index, mut slot) in ready.slots.into_iter().enumerate() {
            let x: Vec<f32> = (0..layer.d_in).map(|_| activation(rng)).collect();
            let (encrypted, ms) = time_ms(|| encrypt(&mut slot, &x, layer.max_row_norm, &mut noise_rng));
            encrypts.push(ms * 1e3);
            let (body, pending) = encrypted?;
            let reply = answer(layer, form, ready.kept.as_ref(), index, &body)?;
            up_down = (body.bytes().len(), reply.bytes().len());
            let (decoded, ms) = time_ms(|| reply.decode(pending, &mut y));
            decoded?;
            decodes.push(ms * 1e3);
            let exact: Vec<f64> = layer.raw.chunks(layer.d_in).map(|row| dot(row, &x)).collect();
            let scale = input_scale(params, layer.max_row_norm, &x);
            errors += y.iter().zip(&exact).map(|(&y, e)| ((f64::from(y) - e) * scale).powi(2)).sum::<f64>();
            got.extend(y.iter().map(|&v| f64::from(v)));
            want.extend(exact);
            refused += usize::from(encrypt(&mut slot, &x, layer.max_row_norm, &mut noise_rng).is_err());
        }
    }
    let spent = encrypts.len();
    checks.that("a slot encrypts once", refused == spent, format!("{refused} of {spent} refused"));
    Ok(ClientTimes {
        keys_ms,
        pads_ms: (batch_ms - keys_ms).max(0.0),
        encrypt_us: median(&encrypts),
        decrypt_ms: median(&decrypts),
        decode_us: median(&decodes),
        snr_bits: -relative_rms_error(&got, &want).log2(),
        noise: noise(layer, form, errors, got.len()),
        bytes: Bytes {
            keys: keys_bytes,
            session: wire.session_bytes(),
            mask_per_token: (layer.blocks() * form.batch_block_bytes(params)) as f64 / params.tau() as f64,
            body_up_per_token: up_down.0,
            body_down_per_token: up_down.1,
            kept_per_token: rows * form.kept_bytes_per_row(),
        },
    })
}

/// Measured and documented noise; the formula's is the mean over the layer's rows.
fn noise(layer: &Layer, form: WireForm, errors: f64, values: usize) -> Noise {
    let params = layer.instance.params();
    let variance = |row: &[i8]| {
        let norm = row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
        bounds::parts(params, form, norm).total()
    };
    let formula = layer.raw.chunks(layer.d_in).map(variance).sum::<f64>() / layer.rows() as f64;
    let nu = |variance: f64| variance.log2() / 2.0 - bounds::reach(params).log2();
    let (nu_measured, nu_formula) = (nu(errors / values as f64), nu(formula));
    Noise { nu_measured, nu_formula, off_by_bits: nu_measured - nu_formula, values }
}

/// Weights and inputs in -1..=1 give the exact integers; what does not fit is refused.
fn exact_mode(shape: Shape, form: WireForm, rng: &mut StdRng) -> anyhow::Result<bool> {
    let Shape { d_in, d_out, .. } = shape;
    let raw: Vec<i8> = (0..d_in * d_out).map(|_| rng.random_range(-1..=1)).collect();
    let layer = Layer::new(shape, 3, raw)?;
    let tables = layer.prepare(TableForm::Compact)?;
    // Random signs: ten deviations of a sum of d_in products, each at most 1 in magnitude, or all of them.
    let largest = (d_in as u64).min(10 * (d_in as f64).sqrt().ceil() as u64);
    let exact = ExactMode::for_form(&layer.instance, form, 0, layer.max_row_norm, largest)?;
    let refuses = |result| ExactMode::for_form(&layer.instance, form, 0, layer.max_row_norm, result).is_err();
    let refused = refuses(exact.limit()) && refuses(127 * 127 * d_in as u64 + (1 << 20));
    let wire = Wire::open(&layer, &tables, form)?;
    let ready = wire.ready(&layer, &tables)?;
    let (mut noise, mut equal) = (NoiseRng::from_os()?, true);
    for (index, mut slot) in ready.slots.into_iter().enumerate() {
        let x: Vec<i64> = (0..d_in).map(|_| rng.random_range(-1..=1)).collect();
        let (body, pending) = encrypt_exact(&mut slot, &x, &exact, &mut noise)?;
        let reply = answer(&layer, form, ready.kept.as_ref(), index, &body)?;
        let product = |row: &[i8]| row.iter().zip(&x).map(|(&w, &x)| i64::from(w) * x).sum::<i64>();
        equal &= reply.decode_exact(pending)?.into_iter().eq(layer.raw.chunks(d_in).map(product));
    }
    Ok(equal && refused)
}

/// Tables and replies of a small layer are the same bits under every instruction set of this processor.
fn instruction_sets_agree(
    shape: Shape,
    form: WireForm,
    rng: &mut StdRng,
    checks: &mut Checks,
) -> anyhow::Result<()> {
    let (d_in, d_out) = (shape.d_in.min(200), shape.d_out.min(70));
    let raw = gaussian_weights(d_in * d_out, rng);
    let mut seen = None;
    for isa in Isa::supported() {
        let layer = Layer::new(Shape { d_in, d_out, isa, ..shape }, 4, raw.clone())?;
        for table in [TableForm::Ntt, TableForm::Compact] {
            let digests = digests(&layer, &layer.prepare(table)?, form)?;
            let results = (digests.tables, digests.replies);
            let same = seen.as_ref().is_none_or(|first| *first == results);
            checks.that(format!("{isa}, {}: same tables and replies", form_name(table)), same, "bit for bit");
            seen.get_or_insert(results);
        }
    }
    Ok(())
}

/// Digests of what depends on the weights only.
fn digests(layer: &Layer, tables: &PreparedModel, form: WireForm) -> anyhow::Result<Digests> {
    struct Hashing(Sha256);
    impl std::io::Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let hex =
        |hash: Sha256| hash.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let mut saved = Hashing(Sha256::new());
    tables.save_compact(&mut saved)?;
    let mut words = StdRng::seed_from_u64(40);
    let body: Vec<u64> = (0..layer.d_in).map(|_| words.random_range(0..1 << 40)).collect();
    let bodies = [vec![(1 << 40) - 1; layer.d_in], body];
    let mut replies = Sha256::new();
    match form.widths() {
        None => {
            let bodies = bodies.map(Body::from_words).into_iter().collect::<Result<Vec<_>, _>>()?;
            for reply in body_half(&layer.weights, 0, &bodies)? {
                replies.update(reply.to_bytes());
            }
        }
        Some(widths) => {
            let keep = u32::MAX << (32 - widths.body());
            for body in bodies {
                let words = body.iter().map(|&word| word as u32 & keep).collect();
                let body = WordBody::from_words(words, widths)?;
                let query = [WordQuery { body: &body, words: None }];
                let reply = word_half(&layer.weights, 0, &query, widths)?.pop().context("one reply")?;
                replies.update(reply.to_bytes());
            }
        }
    }
    Ok(Digests { tables: hex(saved.0), replies: hex(replies) })
}

fn dot(row: &[i8], x: &[f32]) -> f64 {
    row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
}

/// Rounded Gaussian weights of deviation 36, as per-row quantization of a Gaussian matrix gives.
fn gaussian_weights(len: usize, rng: &mut StdRng) -> Vec<i8> {
    (0..len).map(|_| (36.0 * gaussian(rng)).round().clamp(-127.0, 127.0) as i8).collect()
}

/// A standard normal value, one time in a hundred times 100.
fn activation(rng: &mut StdRng) -> f32 {
    let outlier = if rng.random_range(0..100) == 0 { 100.0 } else { 1.0 };
    (outlier * gaussian(rng)) as f32
}

fn gaussian(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Growth of the resident set, from the kernel's high-water mark.
struct PeakMemory {
    before: u64,
}

impl PeakMemory {
    fn start() -> Self {
        // Resets the mark; where that is not allowed the mark is of the whole run so far, which is an upper bound.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { before: status_bytes("VmRSS:") }
    }

    fn grown(&self) -> u64 {
        status_bytes("VmHWM:").saturating_sub(self.before)
    }
}

fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
