//! Other libraries on the same shapes, in the same run, interleaved with ours: medians and ratios.
//!
//! Each peer is a Python driver in `benches/peers/`, installed with pinned versions into a throwaway environment under
//! the cache. A peer that cannot be installed or fails is skipped and the report says so.

mod driver;

pub use driver::{CLASSICAL, CONCRETE_ML, Driver, PEERS, Peer, install};

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    check::Checks,
    linear_run::{LinearArgs, LinearRun},
    shapes::gguf_path,
    stats::median,
};

/// Shapes of the peer table: (tokens, d_in, d_out).
pub const SHAPES: [(usize, usize, usize); 3] = [(1, 768, 768), (1, 2048, 2048), (8, 768, 3072)];

/// How much to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shapes, tokens first.
    pub shapes: Vec<(usize, usize, usize)>,
    /// Runs of each peer and of ours on each shape, at most.
    pub repeats: usize,
    /// No further run of a peer on a shape once it has taken this long there.
    pub patience: Duration,
    /// Worker threads of ours; the peers take all cores.
    pub threads: usize,
    /// Model whose GGUF llama.cpp decodes.
    pub model: String,
}

/// Ours on one shape: medians over the interleaved runs.
#[derive(Debug, Serialize)]
pub struct Ours {
    /// Milliseconds of the whole request (all its tokens), share of keys and masks included.
    pub amortised_ms: f64,
    /// Milliseconds of the whole request once its masks are there.
    pub online_ms: f64,
    /// Milliseconds of the first request ever: keys, one whole batch of masks, then the request.
    pub cold_ms: f64,
    /// Once per model, not in any of the times above: preparing the tables.
    pub prepare_ms: f64,
    /// Bytes of the client's keys.
    pub key_bytes: f64,
    /// Signal-to-noise ratio of the result.
    pub snr_bits: f64,
    /// Each run's amortised milliseconds.
    pub samples_ms: Vec<f64>,
}

/// One peer on one shape.
#[derive(Debug, Serialize)]
pub struct PeerResult {
    /// Name.
    pub peer: &'static str,
    /// Version that ran.
    pub version: String,
    /// What its numbers hold.
    pub precision: String,
    /// Milliseconds to make its keys.
    pub keygen_ms: f64,
    /// Bytes of its evaluation keys.
    pub key_bytes: Option<f64>,
    /// Milliseconds of the whole request: encrypt, server, decrypt (median).
    pub total_ms: f64,
    /// The server's part of it (median).
    pub server_ms: f64,
    /// Each run's total.
    pub samples_ms: Vec<f64>,
    /// Relative rms error of its result.
    pub error: f64,
    /// Its total over our amortised time.
    pub ratio_amortised: f64,
    /// Its total over our online time.
    pub ratio_online: f64,
    /// Its keys and first request over ours, a whole batch of masks included.
    pub ratio_cold: f64,
}

/// One shape.
#[derive(Debug, Serialize)]
pub struct ShapeResult {
    /// Tokens of the request.
    pub tokens: usize,
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Ours.
    pub ours: Ours,
    /// The peers that ran.
    pub peers: Vec<PeerResult>,
}

/// The whole comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By shape.
    pub shapes: Vec<ShapeResult>,
    /// llama.cpp's clear decode of the same GGUF: its driver's answer with `decode_ms_per_token` (null when skipped).
    pub llama_cpp: Value,
    /// Peers that did not run, and why.
    pub skipped: Vec<(String, String)>,
    /// Checks of the run.
    #[serde(skip)]
    pub checks: Checks,
}

/// Runs the comparison.
///
/// # Errors
/// If our own layer fails; a peer's failure is a line in `skipped`.
pub fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut report =
        Report { shapes: Vec::new(), llama_cpp: Value::Null, skipped: Vec::new(), checks: Checks::new() };
    let mut installed: Vec<&'static Peer> = Vec::new();
    for &peer in PEERS {
        match install(peer) {
            Ok(()) => installed.push(peer),
            Err(error) => report.skip(peer.name, &format!("{error:#}")),
        }
    }
    let matrix_peers: Vec<&'static Peer> = installed.iter().filter(|p| p.multiplies).copied().collect();
    for &(tokens, d_in, d_out) in &options.shapes {
        let shape = report.shape(options, &matrix_peers, (tokens, d_in, d_out))?;
        report.shapes.push(shape);
    }
    if let Some(peer) = installed.iter().find(|p| !p.multiplies) {
        match decode_speed(peer, options) {
            Ok(answer) => {
                let text = answer["text"].as_str().unwrap_or_default().to_owned();
                report.checks.that("llama.cpp answers the prompt", text.contains("Paris"), text);
                report.llama_cpp = answer;
            }
            Err(error) => report.skip(peer.name, &format!("{error:#}")),
        }
    }
    Ok(report)
}

impl Report {
    fn skip(&mut self, peer: &str, reason: &str) {
        eprintln!("skipping {peer}: {reason}");
        self.skipped.push((peer.to_owned(), reason.to_owned()));
    }

    fn shape(
        &mut self,
        options: &Options,
        peers: &[&'static Peer],
        (tokens, d_in, d_out): (usize, usize, usize),
    ) -> anyhow::Result<ShapeResult> {
        eprintln!("shape {tokens} x {d_in} x {d_out}");
        let mut running = Vec::new();
        for peer in peers {
            let setup = json!({"op": "setup", "tokens": tokens, "d_in": d_in, "d_out": d_out, "seed": 7});
            match Driver::start(peer).and_then(|mut driver| Ok((driver.ask(&setup)?, driver))) {
                Ok((setup, driver)) => running.push(Running::new(peer, driver, setup)),
                Err(error) => self.skip(peer.name, &format!("{tokens}x{d_in}x{d_out}: {error:#}")),
            }
        }
        let mut ours = Vec::new();
        for _ in 0..options.repeats {
            ours.push(LinearArgs::new(d_in, d_out, options.threads).run()?);
            for peer in &mut running {
                peer.run(options.patience);
            }
        }
        let name = format!("ours {d_in}x{d_out}");
        ours.iter().for_each(|run| run.check(&name, &mut self.checks));
        let ours = Ours::new(&ours, tokens);
        let mut results = Vec::new();
        for peer in running {
            let name = peer.peer.name;
            match peer.result(&ours) {
                Ok(result) => {
                    let what = format!("{name} {tokens}x{d_in}x{d_out}: its result is right");
                    self.checks.at_most(what, result.error, 0.01);
                    results.push(result);
                }
                Err(reason) => self.skip(name, &format!("{tokens}x{d_in}x{d_out}: {reason}")),
            }
        }
        Ok(ShapeResult { tokens, d_in, d_out, ours, peers: results })
    }
}

impl Ours {
    fn new(runs: &[LinearRun], tokens: usize) -> Self {
        let of = |f: &dyn Fn(&LinearRun) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
        let tokens = tokens as f64;
        Self {
            amortised_ms: tokens * of(&LinearRun::amortised_ms),
            online_ms: tokens * of(&LinearRun::online_ms),
            cold_ms: of(&LinearRun::batch_ms) + tokens * of(&LinearRun::online_ms),
            prepare_ms: of(&|r| r.number("prepare_ms")),
            key_bytes: of(&|r| r.bytes("keys")),
            snr_bits: of(&|r| r.number("snr_bits")),
            samples_ms: runs.iter().map(|r| tokens * r.amortised_ms()).collect(),
        }
    }
}

/// A peer at work on one shape.
struct Running {
    peer: &'static Peer,
    driver: Driver,
    setup: Value,
    answers: Vec<Value>,
    spent: Duration,
    failure: Option<String>,
}

impl Running {
    fn new(peer: &'static Peer, driver: Driver, setup: Value) -> Self {
        Self { peer, driver, setup, answers: Vec::new(), spent: Duration::ZERO, failure: None }
    }

    fn run(&mut self, patience: Duration) {
        if self.failure.is_some() || (self.spent > patience && !self.answers.is_empty()) {
            return;
        }
        let start = Instant::now();
        match self.driver.ask(&json!({"op": "run"})) {
            Ok(answer) => self.answers.push(answer),
            Err(error) => self.failure = Some(format!("{error:#}")),
        }
        self.spent += start.elapsed();
        eprintln!("  {}: {:.1} s", self.peer.name, start.elapsed().as_secs_f64());
    }

    fn result(self, ours: &Ours) -> Result<PeerResult, String> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let text = |key: &str| self.setup[key].as_str().unwrap_or("unknown").to_owned();
        let samples_ms: Vec<f64> = self
            .answers
            .iter()
            .map(|a| number(a, "encrypt_ms") + number(a, "server_ms") + number(a, "decrypt_ms"))
            .collect();
        let server: Vec<f64> = self.answers.iter().map(|a| number(a, "server_ms")).collect();
        if samples_ms.is_empty() || samples_ms.iter().chain(&server).any(|ms| ms.is_nan()) {
            return Err("the driver's answer lacks times".to_owned());
        }
        let (total_ms, keygen_ms) = (median(&samples_ms), number(&self.setup, "keygen_ms"));
        Ok(PeerResult {
            peer: self.peer.name,
            version: text("version"),
            precision: text("precision"),
            keygen_ms,
            key_bytes: self.setup["key_bytes"].as_f64(),
            total_ms,
            server_ms: median(&server),
            error: self.answers.iter().map(|a| number(a, "error")).fold(0.0, f64::max),
            ratio_amortised: total_ms / ours.amortised_ms,
            ratio_online: total_ms / ours.online_ms,
            ratio_cold: (keygen_ms + total_ms) / ours.cold_ms,
            samples_ms,
        })
    }
}

fn decode_speed(peer: &'static Peer, options: &Options) -> anyhow::Result<Value> {
    let model = gguf_path(&options.model)?;
    let mut driver = Driver::start(peer)?;
    let setup =
        driver.ask(&json!({"op": "setup", "model": model, "threads": options.threads, "context": 512}))?;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(driver.ask(&json!({"op": "run"}))?);
    }
    let times: Vec<f64> = answers.iter().filter_map(|a| a["decode_ms_per_token"].as_f64()).collect();
    anyhow::ensure!(times.len() == answers.len(), "the driver's answer lacks times");
    Ok(json!({
        "version": setup["version"],
        "decode_ms_per_token": median(&times),
        "samples_ms": times,
        "threads": options.threads,
        "text": answers[0]["text"],
    }))
}
