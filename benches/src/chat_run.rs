//! `--bin chat`: encrypted, int8 and float decoding of one model, interleaved, and what starting costs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use sotto_client::WirePreference;
use sotto_client::accounting::{Accounting, Totals};
use sotto_engine::backend::{Backend, BackendKind};
use sotto_engine::embedded::{LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_engine::open::{BackendSpec, Model, OpenOptions};
use sotto_engine::session::{GenerateOptions, run_pass};
use sotto_models::generate::sampler::{SamplerConfig, argmax};
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::model::CausalModel;
use sotto_models::split::ClientPart;
use sotto_models::split::plan::PlanKind;
use sotto_storage::{Cache, NoProgress};

use crate::accounting::{bytes_by_layer, check_bytes, client_memory, server_memory};
use crate::check::Checks;
use crate::link::{Link, emulate};
use crate::memory::{forget_peak, peak_bytes};
use crate::processor::wait_idle;

/// Tokens per batch of slots.
const TAU: usize = 64;

/// Tokens per measured stretch: what a quiet client has slots for. Masks are made again while it lasts, as in a long
/// answer, and to the last one before its time is taken.
const STRETCH: usize = 2 * TAU;

/// Tokens of the prompt whose first answer is timed.
const PROMPT_TOKENS: usize = 64;

/// Longest wait for a server that expands its tables.
const SETTLE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct ChatBench {
    /// Plan.
    pub plan: PlanKind,
    /// Tokens decoded in all, per backend.
    pub tokens: usize,
    /// Emulated link, if any.
    pub link: Option<Link>,
    /// Also time a start without tables, which prepares them anew.
    pub cold: bool,
    /// Wire form.
    pub wire: WirePreference,
}

struct Running {
    model: Box<dyn CausalModel>,
    backend: Backend,
    accounting: Arc<Accounting>,
    next: u32,
}

impl Running {
    fn new(part: &ClientPart, backend: Backend, accounting: Arc<Accounting>) -> anyhow::Result<Self> {
        let model = part.causal_model(HeadPrecision::default())?;
        Ok(Self { model, backend, accounting, next: 0 })
    }

    /// Runs `ids` and remembers the likeliest next token.
    fn pass(&mut self, ids: &[u32]) -> anyhow::Result<()> {
        let logits = run_pass(&mut *self.model, &mut self.backend, ids, &self.accounting)?;
        self.next = argmax(&logits.to_vec1::<f32>()?);
        Ok(())
    }

    /// Decodes `count` tokens and returns them.
    fn decode(&mut self, count: usize) -> anyhow::Result<Vec<u32>> {
        (0..count)
            .map(|_| {
                let id = self.next;
                self.pass(&[id])?;
                Ok(id)
            })
            .collect()
    }

    /// Waits until as many masks are ready as a quiet client keeps.
    fn refill(&self) -> anyhow::Result<()> {
        if let BackendKind::Remote(remote) = self.backend.kind() {
            remote.wait_ready(2 * remote.tau())?;
        }
        Ok(())
    }
}

/// Runs the measurement.
///
/// # Errors
/// Whatever fetching, preparing or running the model fails with.
pub fn run(bench: &ChatBench, checks: &mut Checks) -> anyhow::Result<Value> {
    let cache = Cache::from_env()?;
    let binding = sotto_protocol::binding::binding(TAU)?;
    let local = local_model(&ModelRef::parse("smollm2-135m")?, bench.plan, &binding, &cache, &NoProgress)?;
    let cold_start_ms = if bench.cold { Some(cold_start(bench, &local, &cache)?) } else { None };
    prepare_and_save(bench, &local, &cache)?;
    let (cached_start_ms, _) = first_token(bench, &local, &cache)?;
    let measured = measure(bench, &local, &cache, checks)?;
    let mut report = json!({
        "model": local.name,
        "rounds": bench.plan,
        "rtt_ms": bench.link.map_or(0.0, |link| link.rtt.as_secs_f64() * 1e3),
        "link_mbit": bench.link.and_then(|link| link.bits_per_second).map(|bits| bits / 1e6),
        "cold_start_ms": cold_start_ms,
        "cached_start_ms": cached_start_ms,
    });
    if let (Value::Object(report), Value::Object(measured)) = (&mut report, measured) {
        report.extend(measured);
    }
    Ok(report)
}

fn start(bench: &ChatBench, local: &LocalModel, cache: &Cache) -> anyhow::Result<Model> {
    let mut options = OpenOptions { wire: bench.wire, ..OpenOptions::new(cache.clone()) };
    if let Some(link) = bench.link {
        options.route = Some(Arc::new(move |address: &str| {
            emulate(address, link)
                .map_err(|source| sotto_protocol::Error::Io { context: "link".to_owned(), source })
        }));
    }
    Ok(Model::open_local(local, &BackendSpec::Embedded, options, &NoProgress)?)
}

/// From nothing running to the first token of a chat prompt, in milliseconds.
fn first_token(bench: &ChatBench, local: &LocalModel, cache: &Cache) -> anyhow::Result<(f64, String)> {
    let begin = Instant::now();
    let mut chat = start(bench, local, cache)?.into_chat()?;
    let session = &mut chat.session;
    session.push_user("Explain photosynthesis in two sentences.");
    let options = GenerateOptions {
        max_tokens: 1,
        sampler: SamplerConfig::default(),
        seed: 0,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let answer = session.answer(&options, &|| false, &mut |_| {})?;
    let elapsed = begin.elapsed().as_secs_f64() * 1e3;
    Ok((elapsed, answer.text))
}

/// Makes sure that the split has its tables: the first server prepares them and saves them while it serves.
fn prepare_and_save(bench: &ChatBench, local: &LocalModel, cache: &Cache) -> anyhow::Result<()> {
    let tables = local.server_directory().join(sotto_protocol::binding::TABLES_FILE);
    if tables.exists() {
        return Ok(());
    }
    let running = start(bench, local, cache)?;
    let begin = Instant::now();
    while !tables.exists() {
        anyhow::ensure!(begin.elapsed() < SETTLE, "no {} within {} s", tables.display(), SETTLE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(running);
    Ok(())
}

/// As [`first_token`], from a copy of the split without tables.
fn cold_start(bench: &ChatBench, local: &LocalModel, cache: &Cache) -> anyhow::Result<f64> {
    let stage = cache.stage("cold-start")?;
    for side in ["client", "server"] {
        let part = Path::new(side).join(local.plan.as_str());
        copy_without_tables(&local.directory.join(&part), &stage.path().join(&part))?;
    }
    let copy = LocalModel { directory: stage.path().to_owned(), ..local.clone() };
    Ok(first_token(bench, &copy, cache)?.0)
}

fn copy_without_tables(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("tables") {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Rates, traffic and memory of the running system.
fn measure(
    bench: &ChatBench,
    local: &LocalModel,
    cache: &Cache,
    checks: &mut Checks,
) -> anyhow::Result<Value> {
    let (part, backend, accounting, server) = start(bench, local, cache)?.into_parts();
    let rounds = part.plan.rounds.len();
    let mut encrypted = Running::new(&part, backend, Arc::clone(&accounting))?;
    let client_only = peak_bytes("self");
    let prompt = prompt(&part)?;
    let process = server.process_id().context("the server is not a child of this process")?.to_string();
    let (first_expanding, _) = time_to_first_token(&mut encrypted, &prompt)?;
    checks.that(
        "the server's tables are in their final form",
        wait_idle(&process, SETTLE),
        format!("waited up to {} s", SETTLE.as_secs()),
    );
    let (first, first_parts) = time_to_first_token(&mut encrypted, &prompt)?;
    let start_server = peak_bytes(&process);
    // From here on, the tables are prepared: what follows is the memory of serving.
    forget_peak(&process);
    // What a client needs is known now; the references below hold the server's weights as well.
    let peak_client = peak_bytes("self").or(client_only);

    let reference = |spec: BackendSpec| -> anyhow::Result<Running> {
        let options = OpenOptions::new(cache.clone());
        let (part, backend, accounting, _) =
            Model::open_local(local, &spec, options, &NoProgress)?.into_parts();
        Running::new(&part, backend, accounting)
    };
    let (mut int8, mut dense) = (reference(BackendSpec::Int8)?, reference(BackendSpec::Dense)?);
    int8.pass(&prompt)?;
    dense.pass(&prompt)?;

    let stretch = bench.tokens.clamp(1, STRETCH);
    let stretches = bench.tokens.div_ceil(stretch);
    let (mut seconds, mut texts) = ([Duration::ZERO; 3], [Vec::new(), Vec::new(), Vec::new()]);
    encrypted.refill()?;
    let before = accounting.totals();
    for _ in 0..stretches {
        for (which, running) in [&mut encrypted, &mut int8, &mut dense].into_iter().enumerate() {
            let begin = Instant::now();
            texts[which].extend(running.decode(stretch)?);
            // The masks that this stretch used up are made again within its time.
            running.refill()?;
            seconds[which] += begin.elapsed();
        }
    }
    let spent = accounting.totals() - before;
    let tokens = stretches * stretch;
    let rate = |which: usize| tokens as f64 / seconds[which].as_secs_f64();
    let common = texts[0].iter().zip(&texts[1]).take_while(|(a, b)| a == b).count();
    checks.at_least(
        "tokens that encrypted and int8 decoding share",
        common as f64,
        60.0_f64.min(tokens as f64),
    );
    checks.that(
        "round trips per pass",
        spent.round_trips == (rounds * tokens) as u64,
        format!("got {}, expected {}", spent.round_trips, rounds * tokens),
    );
    let form = match encrypted.backend.kind() {
        BackendKind::Remote(remote) => remote.form(),
        _ => anyhow::bail!("the encrypted backend is not remote"),
    };
    let layers = bytes_by_layer(&part.plan, form);
    check_bytes(&layers, &spent, tokens, TAU, checks);
    // Sizes follow from the shapes alone, whatever the model's digest.
    let instance =
        sotto_protocol::binding::instance(&part.plan, &sotto_protocol::binding::binding(TAU)?, [0; 32])?;
    let peak_server = peak_bytes(&process);
    Ok(json!({
        "tokens": tokens,
        "encrypted_decode_tokens_per_s": rate(0),
        "int8_decode_tokens_per_s": rate(1),
        "dense_decode_tokens_per_s": rate(2),
        "extra_ms_per_token_over_int8": 1e3 / rate(0) - 1e3 / rate(1),
        "time_to_first_token_ms": first.as_secs_f64() * 1e3,
        "time_to_first_token_decode_steps": first.as_secs_f64() * rate(0),
        "time_to_first_token_while_expanding_ms": first_expanding.as_secs_f64() * 1e3,
        "time_to_first_token_parts_ms": per_token(&first_parts, 1),
        "round_trips_per_pass": spent.round_trips as f64 / tokens as f64,
        "bytes_per_token": bytes_per_token(&spent, tokens),
        "bytes_by_layer": layers,
        "wire": form.to_string(),
        "session_bytes": accounting.totals().bytes.session,
        "ms_per_token": per_token(&spent, tokens),
        "peak_bytes": {
            "server": peak_server,
            "server_while_starting": start_server,
            "client": peak_client,
        },
        "memory_bytes": {
            "server": server_memory(&part.plan, &instance, peak_server),
            "client": client_memory(&part, &instance, STRETCH / TAU, peak_client),
        },
        "common_prefix_with_int8": common,
    }))
}

/// Exactly [`PROMPT_TOKENS`] tokens of prose.
fn prompt(part: &ClientPart) -> anyhow::Result<Vec<u32>> {
    let text = "The harbour was quiet in the early morning. Two fishing boats came back from the night with their \
        lamps still burning, and the gulls followed them in a long white line. On the quay an old man mended a net \
        and did not look up. He had seen the boats come home for sixty years, and he knew by the sound of the \
        engines whether the night had been a good one.";
    let mut ids = part.tokenizer.encode(text)?;
    anyhow::ensure!(ids.len() >= PROMPT_TOKENS, "the prompt has only {} tokens", ids.len());
    ids.truncate(PROMPT_TOKENS);
    Ok(ids)
}

/// Time of the prompt's pass with the masks ready, and where it went; the best of three, as the first one warms caches.
fn time_to_first_token(running: &mut Running, prompt: &[u32]) -> anyhow::Result<(Duration, Totals)> {
    let mut best = (Duration::MAX, Totals::default());
    for _ in 0..3 {
        running.model.clear();
        running.refill()?;
        let (begin, before) = (Instant::now(), running.accounting.totals());
        running.pass(prompt)?;
        let elapsed = begin.elapsed();
        if elapsed < best.0 {
            best = (elapsed, running.accounting.totals() - before);
        }
    }
    Ok(best)
}

fn bytes_per_token(spent: &Totals, tokens: usize) -> Value {
    let per = |bytes: u64| bytes as f64 / tokens as f64;
    json!({
        "up": per(spent.bytes.up),
        "down": per(spent.bytes.down),
        "ahead": per(spent.bytes.ahead),
        "keys": per(spent.bytes.keys),
    })
}

fn per_token(spent: &Totals, tokens: usize) -> Value {
    let per = |ms: f64| ms / tokens as f64;
    json!({
        "encrypt": per(spent.ms.encrypt),
        "wait": per(spent.ms.wait),
        "network": per((spent.ms.wait - spent.ms.server_body).max(0.0)),
        // Of one round trip: what it costs besides the product.
        "round_trip_overhead": (spent.ms.wait - spent.ms.server_body).max(0.0) / spent.round_trips.max(1) as f64,
        "server_body": per(spent.ms.server_body),
        "server_mask": per(spent.ms.server_mask),
        "decode": per(spent.ms.decode),
        "client_clear": per(spent.ms.client_clear),
        "client_ahead": per(spent.ms.client_ahead),
    })
}

/// Parses `--rounds`.
///
/// # Errors
/// If it is neither `plain` nor `fused`.
pub fn parse_plan(text: &str) -> anyhow::Result<PlanKind> {
    text.parse().context("--rounds takes plain or fused")
}
