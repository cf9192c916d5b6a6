//! The conversation loop.

use std::path::Path;

use models::chat_template::Message;

use super::commands::{self, Command};
use super::input::{Entry, LineReader};
use super::{Settings, stats_line, turn, verdict};
use crate::cli::args::ChatArgs;
use crate::cli::interrupt::Interrupt;
use crate::cli::open::Opened;
use crate::error::{Error, Result};
use crate::session::{Finish, history};

/// Bytes of the last body that `/wire` shows.
const WIRE_BYTES: usize = 160;

/// Talks until the person leaves.
pub(super) fn run(
    opened: &mut Opened,
    args: &ChatArgs,
    mut settings: Settings,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut reader = LineReader::new(args.history.as_deref())?;
    if !args.quiet {
        eprintln!("{}\n/help lists the commands, Ctrl-D leaves.", opened.description);
    }
    loop {
        let message = match reader.read_entry()? {
            Entry::End => return Ok(()),
            Entry::Interrupted => {
                eprintln!("Ctrl-D or /exit leaves.");
                continue;
            }
            Entry::Line(line) if line.trim().is_empty() => continue,
            Entry::Line(line) if line.trim_start().starts_with('/') => {
                match commands::parse(&line) {
                    Ok(Command::Exit) => return Ok(()),
                    Ok(command) => obey(opened, &mut settings, command),
                    Err(message) => eprintln!("{message}"),
                }
                continue;
            }
            Entry::Line(line) => line,
            Entry::Block(text) => text,
        };
        ask(opened, args, &settings, interrupt, &message)?;
    }
}

/// One turn; whatever goes wrong is shown and the conversation goes on, unless nobody reads the answers any more.
fn ask(
    opened: &mut Opened,
    args: &ChatArgs,
    settings: &Settings,
    interrupt: &Interrupt,
    message: &str,
) -> Result<()> {
    if let Err(error) = opened.revive() {
        eprintln!("error: {error}");
        return Ok(());
    }
    match turn(opened, settings, interrupt, message, true) {
        Ok(answer) => {
            if answer.dropped_messages > 0 {
                eprintln!(
                    "[the context was full: the {} oldest messages were forgotten]",
                    answer.dropped_messages
                );
            }
            if answer.finish == Finish::Cancelled {
                eprintln!("[cancelled]");
            }
            if !args.quiet {
                eprintln!("{}", stats_line(&answer));
            }
            if let Err(error) = verdict(opened) {
                eprintln!("warning: {error}. What you do next, the server can see.");
            }
        }
        Err(Error::OutputClosed) => return Err(Error::OutputClosed),
        Err(error) => {
            eprintln!(
                "error: {error}\nThe conversation is as it was before this message; send it again to retry."
            );
        }
    }
    Ok(())
}

fn obey(opened: &mut Opened, settings: &mut Settings, command: Command) {
    let session = &mut opened.session;
    let done = match command {
        Command::Help => Ok(commands::HELP.to_owned()),
        Command::System(None) => Ok(session
            .messages()
            .first()
            .filter(|message| message.role == "system")
            .map_or_else(|| "no system message".to_owned(), |message| message.content.clone())),
        Command::System(Some(text)) => {
            session.clear();
            session.set_messages(vec![Message::new("system", text)]);
            Ok("the conversation starts over with this system message".to_owned())
        }
        Command::Clear => {
            let system = session.messages().first().filter(|message| message.role == "system").cloned();
            session.clear();
            session.set_messages(system.into_iter().collect());
            Ok("forgotten".to_owned())
        }
        Command::Save(file) => {
            history::save(Path::new(&file), session.messages()).map(|()| format!("saved to {file}"))
        }
        Command::Load(file) => history::load(Path::new(&file)).map(|messages| {
            let count = messages.len();
            session.set_messages(messages);
            format!("{count} messages loaded")
        }),
        Command::Set(None) => Ok(settings.describe()),
        Command::Set(Some((name, value))) => settings.set(&name, &value).map(|()| format!("{name} {value}")),
        Command::Stats => Ok(stats(opened)),
        Command::Wire => Ok(wire(opened)),
        Command::Exit => return,
    };
    match done {
        Ok(text) => eprintln!("{text}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

fn stats(opened: &Opened) -> String {
    let session = &opened.session;
    let totals = session.totals();
    let (bytes, ms) = (totals.bytes, totals.ms);
    let checked = opened.check_tally().map_or(String::new(), |tally| {
        format!(
            "\n{} replies checked against the pinned weights, {} with wrong values",
            tally.replies, tally.wrong_values
        )
    });
    format!(
        "{} of {} tokens in the cache, {} round trips, {} batches of masks\n\
         bytes: {} up, {} down, {} ahead, {} keys\n\
         ms: encrypt {:.0}, server mask {:.0}, server body {:.0}, decode {:.0}, client clear {:.0}, client ahead {:.0}, waiting {:.0}{checked}",
        session.cached_tokens(),
        session.context_length(),
        totals.round_trips,
        totals.batches,
        bytes.up,
        bytes.down,
        bytes.ahead,
        bytes.keys,
        ms.encrypt,
        ms.server_mask,
        ms.server_body,
        ms.decode,
        ms.client_clear,
        ms.client_ahead,
        ms.wait,
    )
}

/// The last body as the server saw it: ciphertext words of 5 bytes.
fn wire(opened: &Opened) -> String {
    let Some(body) = opened.session.backend().last_body() else {
        return "nothing was sent yet".to_owned();
    };
    let shown = &body.bytes[..body.bytes.len().min(WIRE_BYTES)];
    let lines: Vec<String> =
        shown.chunks(40).map(|line| line.chunks(5).map(hex::encode).collect::<Vec<_>>().join(" ")).collect();
    format!(
        "round {}, {} token(s), {} bytes, of which the first {}:\n{}",
        body.round,
        body.tokens,
        body.bytes.len(),
        shown.len(),
        lines.join("\n")
    )
}
