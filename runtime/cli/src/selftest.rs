//! `sotto selftest`: float, int8 and encrypted arithmetic side by side.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use serde_json::json;
use sotto_models::chat_template::Message;
use sotto_models::generate::sampler::SamplerConfig;
use sotto_models::model::CausalModel;

use super::args::{BackendChoice, SelftestArgs, ServerArgs};
use super::interrupt::Interrupt;
use super::open::open;
use super::output;
use super::progress::Bars;
use super::selftest_texts::{CODE, PROMPTS, PROSE};
use sotto_engine::backend::{Backend, backend_error};
use sotto_engine::open::Chat;
use sotto_engine::session::{GenerateOptions, MAX_PASS_TOKENS};
use sotto_protocol::error::{Error, Result};
use sotto_storage::{FetchProgress, ProcessMemory};

/// A prompt agrees when this much of the answers is the same, out of 64 tokens.
const AGREEING_SHARE: f64 = 60.0 / 64.0;

/// What the comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The model, its plan and its parameter set.
    pub description: String,
    /// Prompts run.
    pub prompts: usize,
    /// Prompts whose encrypted and int8 answers agree.
    pub prompts_agreeing: usize,
    /// Common prefixes in tokens, per prompt.
    pub common_prefixes: Vec<usize>,
    /// A page of prose.
    pub prose: Fidelity,
    /// A page of program text.
    pub code: Fidelity,
    /// Memory of the server when both pages were read.
    pub server_memory: Option<ProcessMemory>,
}

/// How near the arithmetics are on one text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fidelity {
    /// Tokens of the text.
    pub tokens: usize,
    /// Perplexity, float.
    pub float: f64,
    /// Perplexity, int8.
    pub int8: f64,
    /// Perplexity, encrypted.
    pub encrypted: f64,
    /// Kullback-Leibler divergence of the encrypted distribution from int8's, mean over the positions, in nats.
    pub kl_mean: f64,
    /// Its 99th percentile.
    pub kl_p99: f64,
    /// Largest difference of a logit between encrypted and int8.
    pub worst_logit_difference: f64,
}

/// Runs `sotto selftest`.
///
/// # Errors
///
/// [`Error::Usage`] when the encrypted path differs more than it may; otherwise as `sotto chat`.
pub fn run(args: &SelftestArgs, out: &mut dyn Write) -> Result<()> {
    if args.server.server.is_some() {
        return Err(Error::Usage(
            "selftest compares with the weights themselves and so runs its own server; leave out --server"
                .to_owned(),
        ));
    }
    let interrupt = Interrupt::install()?;
    let bars = Bars::new(args.quiet);
    let cancelled = interrupt.flag();
    let turn = interrupt.turn();
    let outcome = compare(args, &bars, &cancelled)?;
    drop(turn);
    print(&outcome, args.json, out)?;
    verdict(&outcome)
}

/// Runs all prompts and both pages on the three backends, one after the other, so that memory holds one of them at a time.
///
/// # Errors
///
/// As `sotto chat`.
pub fn compare(args: &SelftestArgs, progress: &Bars, cancelled: &Arc<AtomicBool>) -> Result<Outcome> {
    let opened = |backend| {
        let server = ServerArgs {
            backend,
            check_weights: args.server.check_weights && backend == BackendChoice::Remote,
            ..args.server.clone()
        };
        open(&server, progress, Arc::clone(cancelled))
    };
    let prompts = &PROMPTS[..args.prompts.min(PROMPTS.len())];
    let answers = |chat: &mut Chat, name: &str| {
        progress.begin(&format!("prompts, {name}"), Some(prompts.len() as u64), false);
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            answers.push(greedy(chat, prompt, args.tokens, cancelled)?);
            progress.position(answers.len() as u64);
        }
        progress.end();
        Ok::<_, Error>(answers)
    };
    let page = |chat: &mut Chat, name: &str, text: &str| {
        progress.begin(&format!("a page of text, {name}"), None, false);
        let page = read_page(chat, text);
        progress.end();
        page
    };

    let mut int8 = opened(BackendChoice::Int8)?;
    let expected = answers(&mut int8, "int8")?;
    let int8_pages = [page(&mut int8, "int8", PROSE)?, page(&mut int8, "int8", CODE)?];
    drop(int8);

    let mut encrypted = opened(BackendChoice::Remote)?;
    let got = answers(&mut encrypted, "encrypted")?;
    let mut fidelity = [Fidelity::default(); 2];
    for ((text, int8), fidelity) in [PROSE, CODE].into_iter().zip(&int8_pages).zip(&mut fidelity) {
        let encrypted = page(&mut encrypted, "encrypted", text)?;
        *fidelity = Fidelity {
            tokens: int8.tokens,
            int8: int8.perplexity,
            encrypted: encrypted.perplexity,
            ..divergence(&int8.logits, &encrypted.logits)?
        };
    }
    let server_memory = encrypted.server_process_id().and_then(ProcessMemory::of);
    let description = encrypted.description.clone();
    drop((encrypted, int8_pages));

    let mut float = opened(BackendChoice::Dense)?;
    for (text, fidelity) in [PROSE, CODE].into_iter().zip(&mut fidelity) {
        fidelity.float = page(&mut float, "float", text)?.perplexity;
    }
    let common = |(expected, got): (&Vec<u32>, &Vec<u32>)| {
        expected.iter().zip(got).take_while(|(expected, got)| expected == got).count()
    };
    let common_prefixes: Vec<usize> = expected.iter().zip(&got).map(common).collect();
    let needed = (args.tokens as f64 * AGREEING_SHARE).ceil() as usize;
    let [prose, code] = fidelity;
    Ok(Outcome {
        description,
        prompts: prompts.len(),
        prompts_agreeing: common_prefixes.iter().filter(|&&common| common >= needed).count(),
        common_prefixes,
        prose,
        code,
        server_memory,
    })
}

/// The likeliest `tokens` tokens after a prompt, end of text ignored.
fn greedy(opened: &mut Chat, prompt: &str, tokens: usize, cancelled: &AtomicBool) -> Result<Vec<u32>> {
    let options = GenerateOptions {
        max_tokens: tokens,
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        seed: 0,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    opened.session.clear();
    opened.session.set_messages(vec![Message::new("user", prompt)]);
    let stop = || cancelled.load(Ordering::SeqCst);
    let answer = opened.session.answer(&options, &stop, &mut |_| {})?;
    if stop() { Err(Error::Cancelled) } else { Ok(answer.token_ids) }
}

/// What one arithmetic makes of a text.
struct Page {
    tokens: usize,
    perplexity: f64,
    /// Logits of each pass, `[tokens, vocab]`.
    logits: Vec<Tensor>,
}

fn read_page(opened: &mut Chat, text: &str) -> Result<Page> {
    let ids = opened.session.tokenizer().encode_plain(text)?;
    let (model, backend) = opened.session.parts_mut();
    let logits = logits_of(model, backend, &ids)?;
    let mut loss = 0.0;
    let mut next = 1;
    for block in &logits {
        for row in block.to_vec2::<f32>()? {
            if let Some(&target) = ids.get(next) {
                loss += cross_entropy(&row, target as usize);
            }
            next += 1;
        }
    }
    Ok(Page { tokens: ids.len(), perplexity: (loss / (ids.len() - 1) as f64).exp(), logits })
}

/// Logits after every token of `ids`, in passes.
fn logits_of(model: &mut dyn CausalModel, backend: &mut Backend, ids: &[u32]) -> Result<Vec<Tensor>> {
    model.clear();
    let mut all = Vec::new();
    let mut rest = ids;
    while !rest.is_empty() {
        let (pass, later) = rest.split_at(backend.pass_tokens(rest.len().min(MAX_PASS_TOKENS)));
        let logits =
            sotto_models::linear::run_pass(backend, pass.len(), |backend| model.forward_all(pass, backend));
        all.push(logits.map_err(backend_error)?);
        rest = later;
    }
    model.clear();
    Ok(all)
}

/// `-log softmax(logits)[target]`, natural logarithm.
fn cross_entropy(logits: &[f32], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(logits[target] - largest)
}

/// How far `got` is from `expected`, row by row; the fields of perplexities stay zero.
fn divergence(expected: &[Tensor], got: &[Tensor]) -> Result<Fidelity> {
    let mut divergences = Vec::new();
    let mut worst = 0.0_f64;
    // The backends may cut a text into passes of different lengths.
    let (mut expected, mut got) = (rows(expected), rows(got));
    loop {
        match (expected.next().transpose()?, got.next().transpose()?) {
            (Some(expected), Some(got)) => {
                let differences = expected.iter().zip(&got).map(|(a, b)| f64::from((a - b).abs()));
                worst = differences.fold(worst, f64::max);
                divergences.push(kl(&expected, &got));
            }
            (None, None) => break,
            _ => return Err(Error::Internal("the backends read texts of different lengths".to_owned())),
        }
    }
    divergences.sort_by(f64::total_cmp);
    let count = divergences.len().max(1);
    let at = (0.99 * (count - 1) as f64).ceil() as usize;
    Ok(Fidelity {
        kl_mean: divergences.iter().sum::<f64>() / count as f64,
        kl_p99: divergences.get(at).copied().unwrap_or(0.0),
        worst_logit_difference: worst,
        ..Fidelity::default()
    })
}

fn rows(blocks: &[Tensor]) -> impl Iterator<Item = Result<Vec<f32>>> {
    let row = |block: &Tensor, index| Ok(block.get(index)?.to_vec1::<f32>()?);
    blocks.iter().flat_map(move |block| (0..block.dims()[0]).map(move |index| row(block, index)))
}

/// `KL(softmax(expected) || softmax(got))` in nats.
fn kl(expected: &[f32], got: &[f32]) -> f64 {
    let normalizer = |logits: &[f32]| {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(largest) + logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum::<f64>().ln()
    };
    let (of_expected, of_got) = (normalizer(expected), normalizer(got));
    let term = |(&expected, &got): (&f32, &f32)| {
        let expected = f64::from(expected) - of_expected;
        expected.exp() * (expected - (f64::from(got) - of_got))
    };
    expected.iter().zip(got).map(term).sum()
}

fn print(outcome: &Outcome, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let report = |fidelity: &Fidelity| {
        json!({
            "tokens": fidelity.tokens,
            "perplexity": {
                "float": fidelity.float,
                "int8": fidelity.int8,
                "encrypted": fidelity.encrypted,
            },
            "kl_from_int8": { "mean": fidelity.kl_mean, "p99": fidelity.kl_p99 },
            "worst_logit_difference": fidelity.worst_logit_difference,
        })
    };
    let sentence = |name: &str, fidelity: &Fidelity| {
        format!(
            "perplexity of a page of {name} ({} tokens): float {:.4}, int8 {:.4}, encrypted {:.4}\n\
             \x20 divergence from int8 (KL): mean {:.2e}, 99th percentile {:.2e}; largest difference of a logit {:.4}",
            fidelity.tokens,
            fidelity.float,
            fidelity.int8,
            fidelity.encrypted,
            fidelity.kl_mean,
            fidelity.kl_p99,
            fidelity.worst_logit_difference
        )
    };
    let text = if as_json {
        json!({
            "model": outcome.description,
            "prompts": outcome.prompts,
            "prompts_agreeing": outcome.prompts_agreeing,
            "common_prefixes": outcome.common_prefixes,
            "prose": report(&outcome.prose),
            "code": report(&outcome.code),
            "server_memory_bytes": outcome.server_memory.map(|memory| json!({
                "resident": memory.resident_bytes,
                "peak": memory.peak_bytes,
                "anonymous": memory.anonymous_bytes,
            })),
        })
        .to_string()
    } else {
        let memory = outcome.server_memory.map_or_else(String::new, |memory| {
            let gb = |bytes: u64| bytes as f64 / 1e9;
            format!(
                "\nmemory of the server: {:.2} GB at its peak, {:.2} GB now, of which {:.2} GB mirror no file",
                gb(memory.peak_bytes),
                gb(memory.resident_bytes),
                gb(memory.anonymous_bytes)
            )
        });
        format!(
            "{}\n{} of {} prompts answered alike by encrypted and int8 arithmetic (common tokens {:?})\n{}\n{}{memory}",
            outcome.description,
            outcome.prompts_agreeing,
            outcome.prompts,
            outcome.common_prefixes,
            sentence("prose", &outcome.prose),
            sentence("program text", &outcome.code),
        )
    };
    output::line(out, &text)
}

/// What must hold: at least 9 of 10 prompts alike, the encrypted perplexity within 0.2 % of int8's, and int8's within 1 %
/// of float's.
fn verdict(outcome: &Outcome) -> Result<()> {
    let alike = outcome.prompts_agreeing * 10 >= outcome.prompts * 9;
    let near = |fidelity: &Fidelity| {
        (fidelity.encrypted / fidelity.int8 - 1.0).abs() <= 0.002
            && (fidelity.int8 / fidelity.float - 1.0).abs() <= 0.01
    };
    if alike && near(&outcome.prose) && near(&outcome.code) {
        Ok(())
    } else {
        Err(Error::Usage("the arithmetics differ by more than they may".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn cross_entropy_of_equal_logits_is_the_log_of_their_number() {
        assert!((cross_entropy(&[2.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(cross_entropy(&[1000.0, 0.0], 0).abs() < 1e-12);
    }

    #[test]
    fn divergence_of_two_coins_by_hand() {
        let (fair, bent) = ([0.0, 0.0], [3f32.ln(), 0.0]);
        let expected = 0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln();
        assert!((kl(&fair, &bent) - expected).abs() < 1e-7);
        // A constant added to all logits changes nothing.
        assert!(kl(&fair, &[5.0, 5.0]).abs() < 1e-12);
        let tensor = |rows: &[[f32; 2]]| {
            Tensor::from_iter(rows.concat(), &Device::Cpu)
                .and_then(|all| all.reshape((rows.len(), 2)))
                .unwrap()
        };
        let found =
            divergence(&[tensor(&[fair, fair]), tensor(&[fair])], &[tensor(&[fair]), tensor(&[bent, fair])]);
        let found = found.unwrap();
        assert!((found.kl_mean - expected / 3.0).abs() < 1e-7 && (found.kl_p99 - expected).abs() < 1e-7);
        assert!((found.worst_logit_difference - 3f64.ln()).abs() < 1e-6);
        assert!(divergence(&[tensor(&[fair])], &[tensor(&[fair, fair])]).is_err());
    }

    #[test]
    fn the_verdict_has_teeth() {
        let page = Fidelity { float: 10.0, int8: 10.05, encrypted: 10.06, ..Fidelity::default() };
        let good = Outcome {
            description: String::new(),
            prompts: 10,
            prompts_agreeing: 9,
            common_prefixes: Vec::new(),
            prose: page,
            code: page,
            server_memory: None,
        };
        verdict(&good).unwrap();
        assert!(verdict(&Outcome { prompts_agreeing: 8, ..good.clone() }).is_err());
        let bad = [
            Fidelity { encrypted: 10.08, ..page },
            Fidelity { encrypted: f64::NAN, ..page },
            Fidelity { float: 9.9, ..page },
        ];
        for bad in bad {
            assert!(verdict(&Outcome { prose: bad, ..good.clone() }).is_err());
            assert!(verdict(&Outcome { code: bad, ..good.clone() }).is_err());
        }
    }
}
