//! `linear`: one encrypted layer with real parameters, every phase timed, every answer checked. See `benches/README.md`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use benches::{
    check::Checks,
    machine::Machine,
    output::{envelope, print_json, table},
    stats::{median, median_ms, relative_rms_error, time_ms},
};
use clap::Parser;
use fhe_layers::{
    Batch, Body, Client, ClientOptions, ExactMode, ExpandedKeys, Instance, LinearServer as _, MaskBlock,
    MaskJob, MatrixSpec, ModelDigest, NoiseRng, PrepareOptions, PreparedModel, RawMatrix, RawRound,
    RoundSpec, ServerWeights, Slot, TableForm,
    kernels::{
        Isa,
        planes::{Planes, gemm_parallel},
    },
    params::sets::n2048_q50_tau,
};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Times one encrypted linear layer and checks its answers.
#[derive(Parser)]
struct Args {
    /// Input features.
    #[arg(long = "in", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    d_in: u32,
    /// Output features.
    #[arg(long = "out", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    d_out: u32,
    /// Tokens that share one batch of keys and masks.
    #[arg(long, default_value_t = 64)]
    tokens_per_batch: usize,
    /// Worker threads (default: all cores).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// How the server keeps the prepared digits: ntt or compact.
    #[arg(long, default_value = "ntt")]
    form: TableForm,
    /// Instruction set of our kernels: scalar, avx2, avx512vnni or avx512 (default: the fastest).
    #[arg(long)]
    isa: Option<Isa>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// What is printed. Times are of the wall clock: preparing runs once, the server's phases and the transform are the fastest
/// of 15 runs (a neighbour on the machine only ever adds), the client's are medians.
#[derive(Serialize)]
struct Report {
    r#in: usize,
    out: usize,
    tokens_per_batch: usize,
    threads: usize,
    isa: String,
    form: &'static str,
    parameters: String,
    security_bits: u32,
    security_source: &'static str,
    ntt_forward_us: f64,
    prepare_ms: f64,
    prepare_gmac_per_s_per_core: f64,
    /// Growth of the resident set while preparing, plus the packed weights.
    prepare_peak_bytes: u64,
    /// `1.3 table_bytes + weights + public polynomials of the input`: what the peak must not exceed.
    prepare_peak_limit_bytes: u64,
    client_keys_ms: f64,
    client_pads_ms: f64,
    mask_half_ms: f64,
    mask_half_us_per_row: f64,
    mask_half_us_per_row_4_batches: f64,
    body_half_us_per_token: f64,
    clear_int8_us_per_token: f64,
    client_encrypt_us_per_token: f64,
    client_decrypt_masks_ms: f64,
    client_decode_us_per_token: f64,
    bytes: Bytes,
    table_bytes: usize,
    weight_bytes: usize,
    snr_bits: f64,
    exact_mode_ok: bool,
    /// Of the tables as saved and of the replies to fixed bodies: the same for every `--isa` and `--form`.
    sha256: Digests,
}

#[derive(Serialize)]
struct Bytes {
    keys: usize,
    mask_per_token: f64,
    body_up_per_token: usize,
    body_down_per_token: usize,
}

#[derive(Serialize)]
struct Digests {
    tables: String,
    replies: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, |threads| threads as usize);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let machine = Machine::detect(threads);
    let mut checks = Checks::new();
    let report = measure(&args, threads, &mut checks)?;
    let value = envelope(&machine, &checks, &report)?;
    if args.json {
        print_json(&value)?;
    } else {
        let fields = value.as_object().context("a report is an object")?;
        let flat = fields.iter().filter(|(_, v)| v.is_number() || v.is_string() || v.is_boolean());
        let rows: Vec<Vec<String>> =
            flat.map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
        print!("{}\n{}", machine.line(), table(&["field", "value"], &rows));
    }
    checks.finish()
}

/// One matrix and everything both sides need for it.
struct Layer {
    instance: Arc<Instance>,
    weights: Arc<ServerWeights>,
    raw: Vec<i8>,
    d_in: usize,
    max_row_norm: f64,
}

impl Layer {
    fn new(shape: (usize, usize), tau: usize, isa: Isa, digest: u8, raw: Vec<i8>) -> anyhow::Result<Self> {
        let (d_in, d_out) = shape;
        let rounds = vec![RoundSpec { d_in, matrices: vec![MatrixSpec { rows: d_out, columns: 0..d_in }] }];
        let digest = ModelDigest([digest; 32]);
        let params = n2048_q50_tau(tau)?;
        let instance = Arc::new(Instance::with_isa(params, rounds, digest, "bench", isa)?);
        let matrices = [RawRound { matrices: vec![RawMatrix { columns: 0..d_in, weights: &raw }] }];
        let weights = Arc::new(ServerWeights::with_isa(instance.layout(), &matrices, isa)?);
        let norm = |row: &[i8]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
        let max_row_norm = raw.chunks(d_in).map(norm).fold(0.0, f64::max);
        Ok(Self { instance, weights, raw, d_in, max_row_norm })
    }

    fn prepare(&self, form: TableForm) -> anyhow::Result<PreparedModel> {
        let (instance, weights) = (Arc::clone(&self.instance), Arc::clone(&self.weights));
        Ok(PreparedModel::prepare(instance, weights, form, &PrepareOptions::default())?)
    }

    fn blocks(&self) -> usize {
        self.instance.layout().blocks()
    }

    /// A batch with all its masks, and how long the client took to decrypt them.
    fn slots(&self, tables: &PreparedModel) -> anyhow::Result<(Vec<Slot>, f64)> {
        let mut batch = Client::new(Arc::clone(&self.instance), ClientOptions::default()).new_batch()?;
        let masks = masks(tables, &batch)?;
        let (accepted, ms) = time_ms(|| batch.accept_masks(0, &masks));
        accepted?;
        Ok((batch.into_slots()?, ms))
    }
}

/// The server's mask half for one batch, blocks in order.
fn masks(tables: &PreparedModel, batch: &Batch) -> anyhow::Result<Vec<MaskBlock>> {
    let keys = ExpandedKeys::new(tables.instance(), batch.keys());
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let blocks = Mutex::new(vec![None; tables.instance().layout().blocks()]);
    let job = MaskJob { keys: &keys, seed };
    tables.mask_half(&[job], 0..tables.instance().layout().blocks(), &|| true, &|_, block, mask| {
        if let Ok(mut blocks) = blocks.lock() {
            blocks[block] = Some(mask);
        }
    })?;
    let blocks = blocks.into_inner().ok().context("a thread of the mask half panicked")?;
    blocks.into_iter().collect::<Option<Vec<_>>>().context("a mask block is missing")
}

fn measure(args: &Args, threads: usize, checks: &mut Checks) -> anyhow::Result<Report> {
    let (d_in, d_out, tau) = (args.d_in as usize, args.d_out as usize, args.tokens_per_batch);
    let isa = args.isa.map_or_else(Isa::active, Ok)?;
    let mut rng = StdRng::seed_from_u64(2026);
    let layer = Layer::new((d_in, d_out), tau, isa, 1, gaussian_weights(d_in * d_out, &mut rng))?;
    let params = layer.instance.params().clone();

    eprintln!("preparing {d_out} rows of {d_in} on {threads} threads");
    let memory = PeakMemory::start();
    let (tables, prepare_ms) = time_ms(|| layer.prepare(args.form));
    let grown = memory.grown();
    let tables = tables?;
    let weight_bytes = layer.weights.bytes();
    let public_bytes = layer.instance.layout().total_polys() * params.n() * size_of::<u64>();
    let table_bytes = tables.table_bytes();
    let gmac = (d_in * d_out) as f64 * params.n() as f64 * 7.0 / 1e9;

    eprintln!("mask half and body half");
    let server = server_times(&layer, &tables)?;
    eprintln!("client");
    let client = client_times(&layer, &tables, &mut rng, checks)?;
    checks.at_least("snr_bits is finite and positive", client.snr_bits, 1.0);
    eprintln!("exact mode, instruction sets, digests");
    let sha256 = digests(&layer, &tables)?;
    drop(tables);
    let exact_mode_ok = exact_mode(args, isa, &mut rng)?;
    checks.that(
        "exact mode returns the integers and refuses what does not fit",
        exact_mode_ok,
        "exact_mode_ok",
    );
    instruction_sets_agree(args, &mut rng, checks)?;

    Ok(Report {
        r#in: d_in,
        out: d_out,
        tokens_per_batch: tau,
        threads,
        isa: isa.to_string(),
        form: form_name(args.form),
        parameters: params.id().to_owned(),
        security_bits: params.security_bits(),
        security_source: "lattice-estimator 27a581b, dual hybrid, classical, unlimited samples: docs/parameters.md",
        ntt_forward_us: server.ntt_us,
        prepare_ms,
        prepare_gmac_per_s_per_core: gmac / (prepare_ms / 1e3) / threads as f64,
        prepare_peak_bytes: grown + weight_bytes as u64,
        prepare_peak_limit_bytes: (1.3 * table_bytes as f64) as u64 + (weight_bytes + public_bytes) as u64,
        client_keys_ms: client.keys_ms,
        client_pads_ms: client.pads_ms,
        mask_half_ms: server.mask_ms,
        mask_half_us_per_row: server.mask_ms * 1e3 / d_out as f64,
        mask_half_us_per_row_4_batches: server.mask_4_ms * 1e3 / (4 * d_out) as f64,
        body_half_us_per_token: server.body_us,
        clear_int8_us_per_token: server.clear_us,
        client_encrypt_us_per_token: client.encrypt_us,
        client_decrypt_masks_ms: client.decrypt_ms,
        client_decode_us_per_token: client.decode_us,
        bytes: client.bytes,
        table_bytes,
        weight_bytes,
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
    body_us: f64,
    clear_us: f64,
}

/// Mask half for one batch and for four, body half and its one-plane yardstick. What is compared is interleaved, so that
/// a neighbour on the machine slows both sides.
fn server_times(layer: &Layer, tables: &PreparedModel) -> anyhow::Result<ServerTimes> {
    let (instance, n) = (&layer.instance, layer.instance.params().n());
    let client = Client::new(Arc::clone(instance), ClientOptions { cache_a: false });
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(ExpandedKeys::new(instance, client.new_batch()?.keys()));
    }
    let pass = |batches: usize| -> anyhow::Result<f64> {
        let jobs: Vec<MaskJob<'_>> =
            keys[..batches].iter().map(|keys| MaskJob { keys, seed: [3; 32] }).collect();
        let sink = |_: usize, _: usize, mask: MaskBlock| {
            std::hint::black_box(mask);
        };
        let (done, ms) = time_ms(|| tables.mask_half(&jobs, 0..layer.blocks(), &|| true, &sink));
        done?;
        Ok(ms)
    };
    let mut poly: Vec<u64> = (0..n as u64).map(|i| i * 0x9e37_79b9 % instance.params().q()).collect();
    let (mut ntt, mut one, mut four) = (Vec::new(), Vec::new(), Vec::new());
    pass(1)?;
    for _ in 0..RUNS {
        one.push(pass(1)?);
        four.push(pass(4)?);
        let transforms = 300;
        let (_, ms) = time_ms(|| (0..transforms).for_each(|_| instance.ring().forward(&mut poly)));
        ntt.push(ms * 1e3 / f64::from(transforms));
    }
    let words: Vec<u64> =
        (0..layer.d_in as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a) & 0xff_ffff_ffff).collect();
    let body = [Body::from_words(words.clone())?];
    let raw = fhe_layers::kernels::PackedWeights::new(layer.raw.len() / layer.d_in, layer.d_in, &layer.raw);
    let low: Vec<u64> = words.iter().map(|word| word & 0xff).collect();
    let (mut bodies, mut clears) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bodies.push(
            median_ms(3, Duration::ZERO, || drop(std::hint::black_box(layer.weights.answer(0, &body)))) * 1e3,
        );
        clears.push(
            median_ms(3, Duration::ZERO, || {
                let mut sums = vec![0i64; raw.rows()];
                gemm_parallel(instance.ring().isa(), &raw, &Planes::from_words(&low, 1), &mut sums);
                std::hint::black_box(sums);
            }) * 1e3,
        );
    }
    Ok(ServerTimes {
        ntt_us: fastest(&ntt),
        mask_ms: fastest(&one),
        mask_4_ms: fastest(&four),
        body_us: fastest(&bodies),
        clear_us: fastest(&clears),
    })
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
    bytes: Bytes,
}

/// A whole batch: keys, pads, masks, then every token with Gaussian activations and 1 % outliers of 100 sigma.
fn client_times(
    layer: &Layer,
    tables: &PreparedModel,
    rng: &mut StdRng,
    checks: &mut Checks,
) -> anyhow::Result<ClientTimes> {
    let (params, rows) = (layer.instance.params(), layer.instance.layout().total_rows());
    let client = Client::new(Arc::clone(&layer.instance), ClientOptions::default());
    // A layer of one feature has one pad: what remains is the keys.
    let keys_only = Layer::new((1, 1), params.tau(), layer.instance.ring().isa(), 2, vec![1])?;
    let keys_client = Client::new(Arc::clone(&keys_only.instance), ClientOptions::default());
    let batch_ms = median_ms(9, Duration::from_millis(50), || drop(std::hint::black_box(client.new_batch())));
    let keys_ms =
        median_ms(9, Duration::from_millis(50), || drop(std::hint::black_box(keys_client.new_batch())));
    let keys_bytes = client.new_batch()?.keys().to_bytes(params).len();

    let mut decrypts = Vec::new();
    for _ in 0..4 {
        decrypts.push(layer.slots(tables)?.1);
    }
    let (slots, _) = layer.slots(tables)?;
    let mut noise = NoiseRng::from_os()?;
    let (mut encrypts, mut decodes, mut got, mut want) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut y = vec![0.0; rows];
    let (mut up_down, mut refused) = ((0, 0), 0);
    for mut slot in slots {
        let x: Vec<f32> = (0..layer.d_in).map(|_| activation(rng)).collect();
        let (encrypted, ms) = time_ms(|| slot.encrypt(0, &x, layer.max_row_norm, &mut noise));
        encrypts.push(ms * 1e3);
        let (body, pending) = encrypted?;
        let reply = layer.weights.answer(0, std::slice::from_ref(&body))?.remove(0);
        up_down = (body.to_bytes().len(), reply.to_bytes().len());
        let (decoded, ms) = time_ms(|| pending.decode(&reply, &mut y));
        decoded?;
        decodes.push(ms * 1e3);
        got.extend(y.iter().map(|&v| f64::from(v)));
        want.extend(layer.raw.chunks(layer.d_in).map(|row| dot(row, &x)));
        refused += usize::from(slot.encrypt(0, &x, layer.max_row_norm, &mut noise).is_err());
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
        bytes: Bytes {
            keys: keys_bytes,
            mask_per_token: (layer.blocks() * MaskBlock::byte_len(params)) as f64 / params.tau() as f64,
            body_up_per_token: up_down.0,
            body_down_per_token: up_down.1,
        },
    })
}

/// A matrix with `|w| <= 7` and inputs with `|x| <= 3` give the exact integers; what does not fit is refused.
fn exact_mode(args: &Args, isa: Isa, rng: &mut StdRng) -> anyhow::Result<bool> {
    let (d_in, d_out) = (args.d_in as usize, args.d_out as usize);
    let raw: Vec<i8> = (0..d_in * d_out).map(|_| rng.random_range(-7..=7)).collect();
    let layer = Layer::new((d_in, d_out), args.tokens_per_batch, isa, 3, raw)?;
    let tables = layer.prepare(TableForm::Compact)?;
    let bound = |row: &[i8]| row.iter().map(|&w| 3 * u64::from(w.unsigned_abs())).sum::<u64>();
    let largest = layer.raw.chunks(d_in).map(bound).max().unwrap_or(0);
    let exact = ExactMode::new(&layer.instance, 0, layer.max_row_norm, largest)?;
    let refused = ExactMode::new(&layer.instance, 0, layer.max_row_norm, exact.limit()).is_err()
        && ExactMode::new(&layer.instance, 0, layer.max_row_norm, 127 * 127 * d_in as u64 + (1 << 20))
            .is_err();
    let (mut noise, mut equal) = (NoiseRng::from_os()?, true);
    for mut slot in layer.slots(&tables)?.0 {
        let x: Vec<i64> = (0..d_in).map(|_| rng.random_range(-3..=3)).collect();
        let (body, pending) = slot.encrypt_exact(0, &x, &exact, &mut noise)?;
        let reply = layer.weights.answer(0, &[body])?.remove(0);
        let product = |row: &[i8]| row.iter().zip(&x).map(|(&w, &x)| i64::from(w) * x).sum::<i64>();
        equal &= pending.decode_exact(&reply)?.into_iter().eq(layer.raw.chunks(d_in).map(product));
    }
    Ok(equal && refused)
}

/// Masks and replies of a small layer are the same bits under every instruction set of this processor.
fn instruction_sets_agree(args: &Args, rng: &mut StdRng, checks: &mut Checks) -> anyhow::Result<()> {
    let (d_in, d_out) = ((args.d_in as usize).min(200), (args.d_out as usize).min(70));
    let raw = gaussian_weights(d_in * d_out, rng);
    let mut keys = None;
    let mut seen = None;
    for isa in Isa::supported() {
        let layer = Layer::new((d_in, d_out), args.tokens_per_batch, isa, 4, raw.clone())?;
        if keys.is_none() {
            let client = Client::new(Arc::clone(&layer.instance), ClientOptions::default());
            keys = Some(client.new_batch()?.keys().clone());
        }
        let keys = keys.as_ref().context("made above")?;
        for form in [TableForm::Ntt, TableForm::Compact] {
            let tables = layer.prepare(form)?;
            let expanded = ExpandedKeys::new(&layer.instance, keys);
            let masks = Mutex::new(Vec::new());
            let job = MaskJob { keys: &expanded, seed: [5; 32] };
            tables.mask_half(&[job], 0..layer.blocks(), &|| true, &|_, block, mask| {
                if let Ok(mut masks) = masks.lock() {
                    masks.push((block, mask));
                }
            })?;
            let mut masks = masks.into_inner().ok().context("a thread of the mask half panicked")?;
            masks.sort_by_key(|(block, _)| *block);
            let results = (masks, digests(&layer, &tables)?.replies);
            let same = seen.as_ref().is_none_or(|first| *first == results);
            checks.that(format!("{isa}, {}: same masks and replies", form_name(form)), same, "bit for bit");
            seen.get_or_insert(results);
        }
    }
    Ok(())
}

/// Digests of what depends on the weights only.
fn digests(layer: &Layer, tables: &PreparedModel) -> anyhow::Result<Digests> {
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
    let bodies = [Body::from_words(vec![(1 << 40) - 1; layer.d_in])?, Body::from_words(body)?];
    let mut replies = Sha256::new();
    for reply in layer.weights.answer(0, &bodies)? {
        replies.update(reply.to_bytes());
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
