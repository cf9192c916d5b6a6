//! `sotto audit integrity`: ordinary traffic with every reply checked.

use std::io::Write;

use fhe_layers::client::integrity::VECTORS;
use serde_json::json;
use sotto_models::chat_template::Message;
use sotto_models::generate::sampler::SamplerConfig;

use super::IntegrityArgs;
use crate::args::ServerArgs;
use crate::interrupt::Interrupt;
use crate::open::open;
use crate::output;
use crate::progress::Bars;
use crate::selftest_texts::PROMPTS;
use sotto_client::CheckTally;
use sotto_engine::open::Chat;
use sotto_engine::session::{Finish, GenerateOptions};
use sotto_protocol::error::{Error, Result};
use sotto_storage::FetchProgress;

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
    let mut talked = Talked::default();
    let ended = talk(&mut opened, args.tokens, &mut talked, &bars);
    drop(turn);
    let caught = match &ended {
        Ok(()) => None,
        Err(Error::WrongWeights { round }) => Some(round.as_str()),
        Err(_) => return ended,
    };
    let tally = opened.check_tally().unwrap_or_default();
    let text = if args.json {
        json!({
            "model": opened.name,
            "prompt_tokens": talked.prompt_tokens,
            "tokens": talked.tokens,
            "replies_checked": tally.replies,
            "wrong_reply_in_round": caught,
            "wrong_values": tally.wrong_values,
            "vectors": VECTORS,
            "log2_chance_to_pass": -(VECTORS as i64),
        })
        .to_string()
    } else {
        report(&opened, &talked, tally, caught)
    };
    output::line(out, &text)?;
    ended.and_then(|()| tally.verdict())
}

/// Tokens of the answers that came to their end.
#[derive(Default)]
struct Talked {
    prompt_tokens: usize,
    tokens: usize,
}

fn report(opened: &Chat, talked: &Talked, tally: CheckTally, caught: Option<&str>) -> String {
    let words = match caught {
        None => format!(
            "every reply is that of the pinned weights (a wrong one passes with probability 2^-{VECTORS})"
        ),
        Some(round) => format!("the next reply, to round {round}, is not that of the pinned weights"),
    };
    format!(
        "{}\n\
         {} prompt tokens and {} generated ones, {} replies that fit, each checked by {VECTORS} secret vectors\n\
         ciphertext words: {words}\n\
         decoded values:   {} of these replies are wrong{}",
        opened.description,
        talked.prompt_tokens,
        talked.tokens,
        tally.replies,
        tally.wrong_values,
        if tally.wrong_values == 0 { ": the masks belong to the pinned weights" } else { "" },
    )
}

/// Answers built-in prompts until `wanted` tokens are generated.
fn talk(opened: &mut Chat, wanted: usize, talked: &mut Talked, progress: &dyn FetchProgress) -> Result<()> {
    progress.begin("checking", Some(wanted as u64), false);
    for prompt in PROMPTS.iter().cycle() {
        if talked.tokens >= wanted {
            break;
        }
        let options = GenerateOptions {
            max_tokens: (wanted - talked.tokens).min(64),
            sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
            seed: 0,
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        opened.session.clear();
        opened.session.set_messages(vec![Message::new("user", *prompt)]);
        let answer = opened.session.answer(&options, &|| false, &mut |_| {})?;
        if answer.finish == Finish::Cancelled {
            return Err(Error::Cancelled);
        }
        talked.prompt_tokens += answer.prompt_tokens;
        talked.tokens += answer.token_ids.len();
        progress.position(talked.tokens as u64);
    }
    progress.end();
    Ok(())
}
