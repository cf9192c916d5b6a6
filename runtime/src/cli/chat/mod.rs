//! `sotto chat`: a conversation, or one answer.

pub mod commands;
pub mod input;
mod repl;
mod settings;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use serde_json::json;

use super::args::ChatArgs;
use super::interrupt::Interrupt;
use super::open::{Opened, open};
use super::output;
use super::progress::Bars;
use crate::error::{Error, Result};
use crate::session::{Answer, Finish, history};

pub use settings::Settings;

/// Runs `sotto chat`.
///
/// # Errors
///
/// Anything between reading the arguments and the last token; each says what to do.
pub fn run(args: &ChatArgs) -> Result<()> {
    let settings = Settings::from_args(&args.sampling)?;
    let interrupt = Interrupt::install()?;
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if std::io::stdin().is_terminal() => None,
        None => Some(input::read_stdin()?),
    };
    let saved = args.load.as_deref().map(history::load).transpose()?;
    let bars = Bars::new(args.quiet);
    let mut opened = open(&args.server, &bars, interrupt.flag())?;
    if let Some(context) = args.context {
        opened.session.limit_context(context);
    }
    let mut messages = saved.unwrap_or_default();
    if let Some(system) = &args.system {
        messages.retain(|message| message.role != "system");
        messages.insert(0, models::chat_template::Message::new("system", system.clone()));
    }
    opened.session.set_messages(messages);
    match prompt {
        Some(prompt) => one_shot(&mut opened, args, &settings, &interrupt, &prompt),
        None => repl::run(&mut opened, args, settings, &interrupt),
    }
}

fn one_shot(
    opened: &mut Opened,
    args: &ChatArgs,
    settings: &Settings,
    interrupt: &Interrupt,
    prompt: &str,
) -> Result<()> {
    let answer = turn(opened, settings, interrupt, prompt, !args.json)?;
    if args.json {
        output::line(&mut std::io::stdout().lock(), &report(&answer, opened).to_string())?;
    }
    if !args.quiet && !args.json {
        eprintln!("{}", stats_line(&answer));
    }
    match answer.finish {
        Finish::Cancelled => Err(Error::Cancelled),
        // Nothing more is sent in this session whatever the verdict: leaving with it tells the server nothing.
        Finish::Stop | Finish::Length => verdict(opened),
    }
}

/// Asks `prompt` and streams the answer to standard output when `show` is set. On failure the
/// question leaves the conversation again, so that earlier turns are as they were.
fn turn(
    opened: &mut Opened,
    settings: &Settings,
    interrupt: &Interrupt,
    prompt: &str,
    show: bool,
) -> Result<Answer> {
    let session = &mut opened.session;
    let before = session.messages().to_vec();
    session.push_user(prompt);
    let turn = interrupt.turn();
    let unwritten = RefCell::new(None);
    let mut out = std::io::stdout().lock();
    let terminal = out.is_terminal();
    let mut print = |text: &str| {
        let text = if terminal { tamed(text) } else { Cow::Borrowed(text) };
        // A closed pipe ends the turn; there is nobody left to read it.
        if show && let Err(error) = output::write(&mut out, text.as_bytes()) {
            unwritten.replace(Some(error));
        }
    };
    let stop = || turn.is_cancelled() || unwritten.borrow().is_some();
    let result = session.answer(&settings.generate(), &stop, &mut print);
    if show {
        let _ = writeln!(out);
    }
    let result = unwritten.into_inner().map_or(result, Err);
    if result
        .as_ref()
        .map_or(true, |answer| answer.token_ids.is_empty() && answer.finish == Finish::Cancelled)
    {
        session.set_messages(before);
    }
    result
}

/// `text` without the control characters that drive a terminal: a server that lies steers the text of an answer.
fn tamed(text: &str) -> Cow<'_, str> {
    let drives = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(drives) { Cow::Owned(text.replace(drives, "")) } else { Cow::Borrowed(text) }
}

/// The verdict of `--check-weights` on the decoded values: for the local user, behind the traffic of a turn.
fn verdict(opened: &Opened) -> Result<()> {
    opened.check_tally().map_or(Ok(()), |tally| tally.verdict())
}

/// The object that `--json` prints.
fn report(answer: &Answer, opened: &Opened) -> serde_json::Value {
    let totals = opened.session.totals();
    let tally = opened.check_tally();
    json!({
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish": match answer.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        },
        "prompt_tokens": answer.prompt_tokens,
        "decode_tokens": answer.token_ids.len(),
        "prompt_tokens_per_s": answer.prompt_tokens_per_s(),
        "decode_tokens_per_s": answer.decode_tokens_per_s(),
        "time_to_first_token_ms": answer.time_to_first_token_ms,
        "round_trips": totals.round_trips,
        "bytes": totals.bytes,
        "ms": totals.ms,
        "replies_checked": tally.map(|tally| tally.replies),
        "wrong_values": tally.map(|tally| tally.wrong_values),
    })
}

/// The statistics shown behind an answer.
fn stats_line(answer: &Answer) -> String {
    let bytes = answer.cost.bytes;
    format!(
        "[{} prompt tokens ({:.1}/s), {} tokens ({:.1}/s), first after {:.0} ms, {} round trips, {:.1} MB up, {:.1} MB down, {:.1} MB ahead]",
        answer.prompt_tokens,
        answer.prompt_tokens_per_s(),
        answer.token_ids.len(),
        answer.decode_tokens_per_s(),
        answer.time_to_first_token_ms,
        answer.cost.round_trips,
        bytes.up as f64 / 1e6,
        bytes.down as f64 / 1e6,
        bytes.ahead as f64 / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_drive_the_terminal() {
        assert_eq!(tamed("Zażółć\n\t- a"), "Zażółć\n\t- a");
        assert_eq!(tamed("\u{1b}]52;c;aGk=\u{7}a\u{9b}2Jb\rc"), "]52;c;aGk=a2Jbc");
    }
}
