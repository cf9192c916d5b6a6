//! `sotto selftest`: float, int8 and encrypted arithmetic side by side.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use models::chat_template::Message;
use models::generate::sampler::SamplerConfig;
use models::model::CausalModel;
use serde_json::json;

use super::args::{BackendChoice, SelftestArgs, ServerArgs};
use super::interrupt::Interrupt;
use super::open::{Opened, open};
use super::output;
use super::progress::Bars;
use super::selftest_texts::{PROMPTS, PROSE};
use crate::backend::{Backend, backend_error};
use crate::error::{Error, Result};
use crate::fetch::FetchProgress;
use crate::session::{GenerateOptions, MAX_PASS_TOKENS};

/// A prompt agrees when this much of the answers is the same, out of 64 tokens.
const AGREEING_SHARE: f64 = 60.0 / 64.0;

/// What the comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Prompts run.
    pub prompts: usize,
    /// Prompts whose encrypted and int8 answers agree.
    pub prompts_agreeing: usize,
    /// Common prefixes in tokens, per prompt.
    pub common_prefixes: Vec<usize>,
    /// Perplexity of the prose, float.
    pub float: f64,
    /// Perplexity of the prose, int8.
    pub int8: f64,
    /// Perplexity of the prose, encrypted.
    pub encrypted: f64,
    /// Largest difference of a logit between encrypted and int8 over the prose.
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

/// Runs all prompts and the prose on the three backends.
///
/// # Errors
///
/// As `sotto chat`.
pub fn compare(
    args: &SelftestArgs,
    progress: &dyn FetchProgress,
    cancelled: &Arc<AtomicBool>,
) -> Result<Outcome> {
    let with = |backend| ServerArgs {
        backend,
        check_weights: args.server.check_weights && backend == BackendChoice::Remote,
        ..args.server.clone()
    };
    let mut int8 = open(&with(BackendChoice::Int8), progress, Arc::clone(cancelled))?;
    let mut encrypted = open(&with(BackendChoice::Remote), progress, Arc::clone(cancelled))?;
    let count = args.prompts.min(PROMPTS.len());
    let mut common_prefixes = Vec::with_capacity(count);
    progress.begin("prompts", Some(count as u64), false);
    for (index, prompt) in PROMPTS[..count].iter().enumerate() {
        let expected = greedy(&mut int8, prompt, args.tokens, cancelled)?;
        let got = greedy(&mut encrypted, prompt, args.tokens, cancelled)?;
        common_prefixes.push(expected.iter().zip(&got).take_while(|(a, b)| a == b).count());
        progress.position(index as u64 + 1);
    }
    progress.end();
    let needed = (args.tokens as f64 * AGREEING_SHARE).ceil() as usize;
    let mut float = open(&with(BackendChoice::Dense), progress, Arc::clone(cancelled))?;
    progress.begin("prose", Some(3), false);
    let float_prose = prose(&mut float)?;
    progress.position(1);
    let int8_prose = prose(&mut int8)?;
    progress.position(2);
    let encrypted_prose = prose(&mut encrypted)?;
    progress.end();
    Ok(Outcome {
        prompts: count,
        prompts_agreeing: common_prefixes.iter().filter(|&&common| common >= needed).count(),
        common_prefixes,
        float: float_prose.perplexity,
        int8: int8_prose.perplexity,
        encrypted: encrypted_prose.perplexity,
        worst_logit_difference: worst_difference(&int8_prose.logits, &encrypted_prose.logits)?,
    })
}

/// The likeliest `tokens` tokens behind a prompt, end of text ignored.
fn greedy(opened: &mut Opened, prompt: &str, tokens: usize, cancelled: &AtomicBool) -> Result<Vec<u32>> {
    let options = GenerateOptions {
        max_tokens: tokens,
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        seed: 0,
        ignore_eos: true,
        stop: Vec::new(),
    };
    opened.session.clear();
    opened.session.set_messages(vec![Message::new("user", prompt)]);
    let stop = || cancelled.load(Ordering::SeqCst);
    let answer = opened.session.answer(&options, &stop, &mut |_| {})?;
    if stop() { Err(Error::Cancelled) } else { Ok(answer.token_ids) }
}

struct Prose {
    perplexity: f64,
    /// Logits of each pass, `[tokens, vocab]`.
    logits: Vec<Tensor>,
}

fn prose(opened: &mut Opened) -> Result<Prose> {
    let ids = opened.session.tokenizer().encode_plain(PROSE)?;
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
    Ok(Prose { perplexity: (loss / (ids.len() - 1) as f64).exp(), logits })
}

/// Logits behind every token of `ids`, in passes.
fn logits_of(model: &mut dyn CausalModel, backend: &mut Backend, ids: &[u32]) -> Result<Vec<Tensor>> {
    model.clear();
    let mut all = Vec::new();
    let mut rest = ids;
    while !rest.is_empty() {
        let (pass, behind) = rest.split_at(backend.pass_tokens(rest.len().min(MAX_PASS_TOKENS)));
        let logits =
            models::linear::run_pass(backend, pass.len(), |backend| model.forward_all(pass, backend));
        all.push(logits.map_err(backend_error)?);
        rest = behind;
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

fn worst_difference(a: &[Tensor], b: &[Tensor]) -> Result<f64> {
    let (a, b) = (Tensor::cat(a, 0)?, Tensor::cat(b, 0)?);
    let difference = (a - b)?.abs()?.flatten_all()?.max(0)?;
    Ok(f64::from(difference.to_scalar::<f32>()?))
}

fn print(outcome: &Outcome, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let text = if as_json {
        json!({
            "prompts": outcome.prompts,
            "prompts_agreeing": outcome.prompts_agreeing,
            "perplexity": {
                "float": outcome.float,
                "int8": outcome.int8,
                "encrypted": outcome.encrypted,
            },
            "worst_logit_difference": outcome.worst_logit_difference,
            "common_prefixes": outcome.common_prefixes,
        })
        .to_string()
    } else {
        format!(
            "{} of {} prompts answered alike by encrypted and int8 arithmetic (common tokens {:?})\n\
             perplexity of a page of prose: float {:.4}, int8 {:.4}, encrypted {:.4}\n\
             largest difference of a logit: {:.4}",
            outcome.prompts_agreeing,
            outcome.prompts,
            outcome.common_prefixes,
            outcome.float,
            outcome.int8,
            outcome.encrypted,
            outcome.worst_logit_difference
        )
    };
    output::line(out, &text)
}

/// What the encrypted path must hold: at least 8 of 10 prompts alike, perplexity within 0.5 % of int8
/// and 2 % of float.
fn verdict(outcome: &Outcome) -> Result<()> {
    let alike = outcome.prompts_agreeing * 10 >= outcome.prompts * 8;
    let near_int8 = (outcome.encrypted / outcome.int8 - 1.0).abs() <= 0.005;
    let near_float = (outcome.encrypted / outcome.float - 1.0).abs() <= 0.02;
    if alike && near_int8 && near_float {
        Ok(())
    } else {
        Err(Error::Usage("the encrypted path differs from the clear one by more than it may".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_logits_is_the_log_of_their_number() {
        assert!((cross_entropy(&[2.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(cross_entropy(&[1000.0, 0.0], 0).abs() < 1e-12);
    }

    #[test]
    fn the_verdict_has_teeth() {
        let good = Outcome {
            prompts: 10,
            prompts_agreeing: 8,
            common_prefixes: Vec::new(),
            float: 10.0,
            int8: 10.1,
            encrypted: 10.12,
            worst_logit_difference: 0.1,
        };
        verdict(&good).unwrap();
        assert!(verdict(&Outcome { prompts_agreeing: 7, ..good.clone() }).is_err());
        assert!(verdict(&Outcome { encrypted: 10.2, ..good.clone() }).is_err());
        assert!(verdict(&Outcome { encrypted: f64::NAN, ..good }).is_err());
    }
}
