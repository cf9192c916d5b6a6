//! `sotto audit integrity`: ordinary traffic with every reply checked.

use std::io::Write;

use fhe_layers::client::integrity::VECTORS;
use models::chat_template::Message;
use models::generate::sampler::SamplerConfig;
use serde_json::json;

use super::{IntegrityArgs, write_line};
use crate::audit::CheckTally;
use crate::cli::args::ServerArgs;
use crate::cli::interrupt::Interrupt;
use crate::cli::open::{Opened, open};
use crate::cli::progress::Bars;
use crate::cli::selftest_texts::PROMPTS;
use crate::error::{Error, Result};
use crate::fetch::FetchProgress;
use crate::session::{Finish, GenerateOptions};

/// Talks to the server as `sotto chat` does, to the end whatever the decoded values are, and prints the verdict.
///
/// # Errors
///
/// [`Error::WrongWeights`] or [`Error::WrongMasks`] when the server is caught; otherwise as `sotto chat`.
pub(super) fn run(args: &IntegrityArgs, out: &mut dyn Write) -> Result<()> {
    let server = ServerArgs { check_weights: true, ..args.server.clone() };
    let interrupt = Interrupt::install()?;
    let bars = Bars::new(args.quiet);
    let mut opened = open(&server, &bars, interrupt.flag())?;
    let turn = interrupt.turn();
    let (prompt_tokens, tokens) = talk(&mut opened, args.tokens, &bars)?;
    drop(turn);
    let tally = opened.check_tally().unwrap_or_default();
    let text = if args.json {
        json!({
            "model": opened.name,
            "prompt_tokens": prompt_tokens,
            "tokens": tokens,
            "replies_checked": tally.replies,
            "wrong_values": tally.wrong_values,
            "vectors": VECTORS,
            "log2_chance_to_pass": -(VECTORS as i64),
        })
        .to_string()
    } else {
        report(&opened, prompt_tokens, tokens, tally)
    };
    write_line(out, &text)?;
    tally.verdict()
}

fn report(opened: &Opened, prompt_tokens: usize, tokens: usize, tally: CheckTally) -> String {
    format!(
        "{}\n\
         {prompt_tokens} prompt tokens and {tokens} generated ones, {} replies checked, each by {VECTORS} secret vectors\n\
         ciphertext words: every reply is that of the pinned weights (a wrong one passes with probability 2^-{VECTORS})\n\
         decoded values:   {} replies do not fit{}",
        opened.description,
        tally.replies,
        tally.wrong_values,
        if tally.wrong_values == 0 { ": the masks belong to the same weights" } else { "" },
    )
}

/// Answers built-in prompts until `wanted` tokens are generated; `(prompt tokens, generated tokens)`.
fn talk(opened: &mut Opened, wanted: usize, progress: &dyn FetchProgress) -> Result<(usize, usize)> {
    let (mut prompt_tokens, mut tokens) = (0, 0);
    progress.begin("checking", Some(wanted as u64), false);
    for prompt in PROMPTS.iter().cycle() {
        if tokens >= wanted {
            break;
        }
        let options = GenerateOptions {
            max_tokens: (wanted - tokens).min(64),
            sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
            seed: 0,
            ignore_eos: true,
            stop: Vec::new(),
        };
        opened.session.clear();
        opened.session.set_messages(vec![Message::new("user", *prompt)]);
        let answer = opened.session.answer(&options, &|| false, &mut |_| {})?;
        if answer.finish == Finish::Cancelled {
            return Err(Error::Cancelled);
        }
        prompt_tokens += answer.prompt_tokens;
        tokens += answer.token_ids.len();
        progress.position(tokens as u64);
    }
    progress.end();
    Ok((prompt_tokens, tokens))
}
