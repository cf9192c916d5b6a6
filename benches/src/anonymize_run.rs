//! `--bin anonymize`: the encrypted anonymizer over many documents, its first answer, its traffic, and whether its labels
//! are those of the clear model.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anonymizer::config::Config;
use anonymizer::detect::DetectOptions;
use anonymizer::eval::parse_gold;
use anonymizer::model::{BackendChoice, MODEL, ModelDetector, ModelOptions, local};
use anonymizer::scan::{Rules, TextDetector};
use anyhow::Context;
use serde_json::{Value, json};
use sotto_models::linear::run_pass;
use sotto_models::split::{ClientPart, ServerPart};
use sotto_storage::{Cache, NoProgress};

use crate::check::Checks;

/// Argument with which this program calls itself to be a client that starts cold.
pub const CLIENT: &str = "--short-document";
/// Thirty-two tokens or a few less.
const SHORT: &str = "Please call Marisol Kowalski in Savannah tomorrow morning and ask her about the order that was sent last week.";
/// Documents of one sweep.
const DOCUMENTS: usize = 100;
/// Tokens of a pass in which labels are compared.
const PASS: usize = 200;
/// Longest wait for the server to be ready.
const READY: Duration = Duration::from_secs(300);

/// The detector to measure: that of the command line's environment variable, or the default.
fn detector() -> String {
    std::env::var("SOTTO_ANONYMIZE_DETECTOR").unwrap_or_else(|_| MODEL.to_owned())
}

/// Scans one short document on a server, as a program that has just started.
///
/// # Errors
/// If the server cannot be reached.
pub fn short_document(connect: &str) -> anyhow::Result<()> {
    let options =
        ModelOptions { server: Some(connect.to_owned()), detector: detector(), ..ModelOptions::default() };
    let mut detector = ModelDetector::open(&options, DetectOptions::default(), &NoProgress)?;
    let detection = detector.detect(&[SHORT], &[Vec::new()])?;
    anyhow::ensure!(!detection.spans[0].is_empty(), "nothing was found");
    Ok(())
}

/// Runs everything on the labelled documents of the repository.
///
/// # Errors
/// If a part cannot be run; wrong answers are failed checks.
pub fn measure(gold: &Path, tau: usize, checks: &mut Checks) -> anyhow::Result<Value> {
    let documents = parse_gold(&std::fs::read_to_string(gold).context("the labelled documents")?)?;
    let step = (documents.len() / DOCUMENTS).max(1);
    let texts: Vec<&str> = documents.iter().step_by(step).take(DOCUMENTS).map(|d| d.text.as_str()).collect();
    let options = |backend| ModelOptions { backend, tau, detector: detector(), ..ModelOptions::default() };
    let mut encrypted =
        ModelDetector::open(&options(BackendChoice::Encrypted), DetectOptions::default(), &NoProgress)?;
    let mut sweeps = Vec::new();
    // The second sweep starts with no more masks than the first has left.
    for _ in 0..2 {
        sweeps.push(sweep(&mut encrypted, &texts)?);
    }
    let steady = &sweeps[1];
    checks.that("all documents were scanned", texts.len() == DOCUMENTS, texts.len().to_string());
    checks.at_least("encrypted tokens per second", steady.tokens_per_s, 400.0);
    let budget = budget_bytes(tau)?;
    checks.at_most("bytes per token over the layer's budget", steady.bytes_per_token / budget, 1.05);
    let equality = label_equality(&mut encrypted, &options(BackendChoice::Dense), &texts)?;
    checks.at_least("labels equal to the clear model's", equality.share, 0.995);
    drop(encrypted);
    let first = first_document(tau)?;
    checks.at_most("seconds to the first short document", first.later_s, 3.0);
    Ok(json!({
        "documents": texts.len(), "tau": tau,
        "tokens_per_s": steady.tokens_per_s, "tokens_per_s_first_sweep": sweeps[0].tokens_per_s,
        "tokens": steady.tokens, "tokens_sent": steady.sent,
        "bytes_per_sent_token": steady.bytes_per_token, "budget_bytes_per_token": budget, "bytes": steady.bytes,
        "labels_equal": equality.share, "labels_compared": equality.tokens,
        "first_short_document_s": first.later_s, "first_visit_s": first.visit_s,
    }))
}

struct Sweep {
    tokens: usize,
    sent: usize,
    tokens_per_s: f64,
    bytes_per_token: f64,
    bytes: Value,
}

/// Recognizers and model over all documents.
fn sweep(detector: &mut ModelDetector, texts: &[&str]) -> anyhow::Result<Sweep> {
    let rules = Arc::new(Rules::new(&Config::default())?);
    let before = detector.totals();
    let start = Instant::now();
    let recognized: Vec<_> = texts.iter().map(|text| rules.recognize(text)).collect();
    let detection = detector.detect(texts, &recognized)?;
    let seconds = start.elapsed().as_secs_f64();
    let spent = detector.totals() - before;
    let total = spent.bytes.up + spent.bytes.down + spent.bytes.ahead + spent.bytes.keys;
    Ok(Sweep {
        tokens: detection.tokens,
        sent: detection.sent,
        tokens_per_s: detection.tokens as f64 / seconds,
        bytes_per_token: total as f64 / detection.sent as f64,
        bytes: serde_json::to_value(spent.bytes)?,
    })
}

/// What the layer's formats need per token: 5 bytes per input, 4 per output, and of a batch of masks 8 per row of its
/// blocks and 42 KB of keys.
fn budget_bytes(tau: usize) -> anyhow::Result<f64> {
    let local = local(&detector(), tau, &Cache::from_env()?, &NoProgress)?;
    let server = ServerPart::open(local.server_directory())?;
    let rounds = &server.plan().rounds;
    let inputs: usize = rounds.iter().map(|round| round.d_in).sum();
    let rows: usize = rounds.iter().map(|round| round.rows()).sum();
    Ok((5 * inputs + 4 * rows) as f64 + (8 * rows) as f64 + 42e3 / tau as f64)
}

struct Equality {
    share: f64,
    tokens: usize,
}

/// The likeliest label of every token, encrypted and in clear.
fn label_equality(
    encrypted: &mut ModelDetector,
    dense: &ModelOptions,
    texts: &[&str],
) -> anyhow::Result<Equality> {
    let local = local(&detector(), dense.tau, &Cache::from_env()?, &NoProgress)?;
    let part = ClientPart::load(local.client_directory())?.part;
    let encoder = part.encoder()?;
    let mut clear = ModelDetector::open(dense, DetectOptions::default(), &NoProgress)?;
    let (mut same, mut tokens) = (0, 0);
    for text in texts {
        let encoding = part
            .tokenizer
            .text_tokenizer()
            .encode(*text, true)
            .map_err(|error| anyhow::anyhow!(error.to_string()))?;
        for ids in encoding.get_ids().chunks(PASS) {
            let labels = |detector: &mut ModelDetector| -> anyhow::Result<Vec<u32>> {
                let (_, backend) = detector.parts_mut();
                let logits = run_pass(backend, ids.len(), |backend| encoder.classify(&[ids], backend))?;
                Ok(logits.argmax(1)?.to_vec1::<u32>()?)
            };
            let (a, b) = (labels(encrypted)?, labels(&mut clear)?);
            same += a.iter().zip(&b).filter(|(a, b)| a == b).count();
            tokens += ids.len();
        }
    }
    Ok(Equality { share: same as f64 / tokens.max(1) as f64, tokens })
}

struct First {
    visit_s: f64,
    later_s: f64,
}

/// A server of its own process; ends when dropped.
struct Server {
    child: Child,
    ready: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with its standard input; whatever it computes is of no use now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.ready);
    }
}

/// Time of a client from its start to the labels of a short document, the server running: with the client part to
/// download, and without.
fn first_document(tau: usize) -> anyhow::Result<First> {
    let local = local(&detector(), tau, &Cache::from_env()?, &NoProgress)?;
    let own = std::env::current_exe()?;
    let ready = std::env::temp_dir().join(format!("anonymize-bench-{}", std::process::id()));
    let child = Command::new(&own)
        .args([
            "serve",
            "--print-credential",
            "--listen",
            "127.0.0.1:0",
            "--ephemeral-credential",
            "--exit-with-parent",
            "--split",
        ])
        .arg(&local.directory)
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let server = Server { child, ready };
    let start = Instant::now();
    let connect = loop {
        match std::fs::read_to_string(&server.ready) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ if start.elapsed() > READY => {
                anyhow::bail!("the server is not ready within {} s", READY.as_secs())
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let client = || -> anyhow::Result<f64> {
        let start = Instant::now();
        let status = Command::new(&own).args([CLIENT, &connect]).stdout(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "the client failed: {status}");
        Ok(start.elapsed().as_secs_f64())
    };
    Ok(First { visit_s: client()?, later_s: client()? })
}
