//! `sotto chat`: a conversation, or one answer.

pub mod commands;
mod complete;
pub mod input;
mod outage;
mod preset;
mod repl;
mod screen;
mod settings;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::json;
use sotto_models::chat_template::Message;

use super::args::{ChatArgs, read_text};
use super::interrupt::Interrupt;
use super::open::open;
use super::output;
use super::progress::{Bars, Waiting};
use preset::Preset;
use screen::Screen;
use sotto_engine::open::Chat;
use sotto_engine::session::{Answer, Finish, Progress, history};
use sotto_protocol::error::{Error, Result};
use sotto_storage::Cache;

pub use settings::Settings;

/// Runs `sotto chat`.
///
/// # Errors
///
/// Anything between reading the arguments and the last token; each says what to do.
pub fn run(args: &ChatArgs) -> Result<()> {
    let preset = args.preset.as_deref().map(Preset::named).transpose()?.unwrap_or_default();
    let settings = Settings::from_args(&preset.fill(&args.sampling))?;
    let interrupt = Interrupt::install()?;
    let in_file = |file: &Option<PathBuf>| match file.as_deref() {
        Some(file) if file == Path::new("-") => Ok(Some("-".to_owned())),
        file => file.map(read_text).transpose().map_err(Error::Usage),
    };
    let prompt = args.prompt.clone().or(args.text.clone()).or(in_file(&args.prompt_file)?);
    let system_file = args.system_file.as_deref().map(read_text).transpose().map_err(Error::Usage)?;
    let system = args.system.clone().or(system_file).or(preset.system.clone());
    // An empty one is none: it stands for no system message where a preset has one.
    let system = system.filter(|text| !text.trim().is_empty());
    let message = input::one_shot_message(prompt.as_deref(), &args.file)?;
    if message.is_none() && args.json {
        let reason = "--json answers one message; give it with --prompt TEXT, or pipe it in";
        return Err(Error::Usage(reason.to_owned()));
    }
    let saved = args.load.as_deref().map(history::load).transpose()?;
    let bars = Bars::new(args.quiet);
    let mut opened = open(&args.server, &bars, interrupt.flag())?;
    let drafts = &args.drafts;
    opened.draft(&drafts.draft, drafts.draft_length, &Cache::from_env()?, &bars)?;
    if let Some(context) = args.context {
        opened.session.limit_context(context);
    }
    let mut messages = saved.unwrap_or_default();
    if let Some(system) = system {
        messages.retain(|message| message.role != "system");
        messages.insert(0, Message::new("system", system));
    }
    opened.session.set_messages(messages);
    if message.is_some() && !args.quiet && args.server.server.is_some() {
        note!("{}", opened.description);
    }
    match message {
        Some(message) => one_shot(&mut opened, args, &settings, &interrupt, &message),
        None => repl::run(&mut opened, args, settings, &interrupt),
    }
}

fn one_shot(
    opened: &mut Chat,
    args: &ChatArgs,
    settings: &Settings,
    interrupt: &Interrupt,
    message: &str,
) -> Result<()> {
    let shown = if args.json { Shown::Nothing } else { Shown::Text };
    let turn = Turn { settings, interrupt, shown, quiet: args.quiet };
    let answer = turn.run(opened, Ask::Message(message))?;
    if args.json {
        output::line(&mut std::io::stdout().lock(), &report(&answer, opened).to_string())?;
    }
    if !args.quiet && !args.json {
        if let Some(mark) = cut_mark(&answer, opened, "--max-tokens") {
            note!("{mark}");
        }
        note!("{}", stats_line(&answer));
    }
    match answer.finish {
        Finish::Cancelled => Err(Error::Cancelled),
        // Nothing more is sent in this session whatever the verdict: leaving with it tells the server nothing.
        Finish::Stop | Finish::Length => verdict(opened),
    }
}

/// What the model is asked to do.
#[derive(Clone, Copy)]
enum Ask<'a> {
    /// Answer this.
    Message(&'a str),
    /// Answer the last message.
    Again,
    /// Continue the last answer.
    Continue,
}

/// What of an answer is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Text,
    Nothing,
}

/// How turns are run.
struct Turn<'a> {
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    shown: Shown,
    quiet: bool,
}

impl Turn<'_> {
    /// Runs one turn and streams the answer to standard output.
    ///
    /// If nothing of an answer was shown, a failure leaves the conversation as it was. If something was, that is kept as the
    /// answer: it was paid for, and it can be continued.
    fn run(&self, opened: &mut Chat, ask: Ask<'_>) -> Result<Answer> {
        let session = &mut opened.session;
        let before = session.messages().to_vec();
        if let Ask::Message(text) = ask {
            session.push_user(text);
        }
        let turn = self.interrupt.turn();
        let _watch = outage::watch(session.accounting());
        let waiting = (!self.quiet).then(|| Waiting::new("waiting for the server"));
        let screen = RefCell::new(Screen::new(std::io::stdout().lock(), waiting));
        let mut partial = String::new();
        let mut watch = |progress: Progress<'_>| {
            if let Progress::Text { text, .. } = progress {
                partial.push_str(text);
                if self.shown == Shown::Nothing {
                    return;
                }
            }
            screen.borrow_mut().watch(progress);
        };
        let stop = || turn.is_cancelled() || screen.borrow().has_failed();
        let options = self.settings.generate();
        let result = match ask {
            Ask::Message(_) | Ask::Again => session.answer_watched(&options, &stop, &mut watch),
            Ask::Continue => session.continue_answer(&options, &stop, &mut watch),
        };
        let result = screen.into_inner().finish().and(result);
        match &result {
            Ok(answer) if answer.finish != Finish::Cancelled || !answer.token_ids.is_empty() => {}
            Err(_) if !partial.is_empty() => {
                let mut messages = before;
                match ask {
                    Ask::Message(text) => {
                        messages.push(Message::new("user", text));
                        messages.push(Message::new("assistant", partial));
                    }
                    Ask::Again => messages.push(Message::new("assistant", partial)),
                    Ask::Continue => {
                        if let Some(last) = messages.last_mut() {
                            last.content.push_str(&partial);
                        }
                    }
                }
                session.set_messages(messages);
            }
            _ => session.set_messages(before),
        }
        result
    }
}

/// What is said about an answer that did not come to its end.
fn cut_mark(answer: &Answer, opened: &Chat, option: &str) -> Option<String> {
    if answer.finish != Finish::Length {
        return None;
    }
    let used = answer.prompt_tokens + answer.token_ids.len();
    if used >= opened.session.context_length() {
        return Some(format!("[the context of {} tokens is full]", opened.session.context_length()));
    }
    Some(format!("[cut at {} tokens: {option} allows more]", answer.token_ids.len()))
}

/// The verdict of `--check-weights` on the decoded values: for the local user, when the traffic of a turn has ended.
fn verdict(opened: &Chat) -> Result<()> {
    opened.check_tally().map_or(Ok(()), |tally| tally.verdict())
}

/// The object that `--json` prints.
fn report(answer: &Answer, opened: &Chat) -> serde_json::Value {
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
        "decode_passes": answer.decode_passes,
        "drafted_tokens": answer.drafted_tokens,
        "accepted_tokens": answer.accepted_tokens,
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

/// The statistics shown after an answer; `/stats` has the rest.
fn stats_line(answer: &Answer) -> String {
    let count = |tokens: usize| match tokens {
        1 => "1 token".to_owned(),
        tokens => format!("{tokens} tokens"),
    };
    format!(
        "[{}, {:.1}/s; prompt {} in {:.1} s]",
        count(answer.token_ids.len()),
        answer.decode_tokens_per_s(),
        answer.prefilled_tokens,
        answer.time_to_first_token_ms / 1e3,
    )
}
