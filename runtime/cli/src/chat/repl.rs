//! The conversation loop.

use std::path::Path;

use sotto_models::chat_template::Message;

use super::commands::{self, Command};
use super::input::{Entry, LineReader};
use super::{Ask, Settings, Shown, Turn, cut_mark, stats_line, verdict};
use crate::args::ChatArgs;
use crate::interrupt::Interrupt;
use crate::output;
use sotto_engine::open::Chat;
use sotto_engine::session::{Finish, history};
use sotto_protocol::error::{Error, Result};

/// Bytes of the last body that `/wire` shows.
const WIRE_BYTES: usize = 160;

/// Talks until the user leaves.
pub(super) fn run(
    opened: &mut Chat,
    args: &ChatArgs,
    settings: Settings,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut reader = LineReader::new(args.history.as_deref())?;
    if !args.quiet {
        note!("{}\n/help lists the commands, Ctrl-D leaves.", opened.description);
    }
    let mut talk = Talk { opened, settings, interrupt, quiet: args.quiet, cut: false };
    loop {
        match reader.read_entry()? {
            Entry::End => return Ok(()),
            Entry::Interrupted => note!("Ctrl-D or /exit leaves."),
            // Enter alone continues an answer that was cut.
            Entry::Line(line) if line.trim().is_empty() && talk.cut => talk.ask(Ask::Continue)?,
            Entry::Line(text) | Entry::Block(text) if text.trim().is_empty() => {}
            Entry::Line(line) if line.trim_start().starts_with('/') => match commands::parse(&line) {
                Ok(Command::Exit) => return Ok(()),
                Ok(command) => talk.apply(command)?,
                Err(message) => note!("{message}"),
            },
            Entry::Line(text) | Entry::Block(text) => talk.ask(Ask::Message(&text))?,
        }
    }
}

/// A conversation under way.
struct Talk<'a> {
    opened: &'a mut Chat,
    settings: Settings,
    interrupt: &'a Interrupt,
    quiet: bool,
    /// Whether the last answer was cut.
    cut: bool,
}

impl Talk<'_> {
    /// One turn. Whatever goes wrong is shown and the conversation continues, unless nothing reads the answers any more.
    fn ask(&mut self, ask: Ask<'_>) -> Result<()> {
        if let Err(error) = self.opened.restart() {
            note!("error: {error}");
            return Ok(());
        }
        let messages = self.opened.session.messages().len();
        let turn = Turn {
            settings: &self.settings,
            interrupt: self.interrupt,
            shown: Shown::Text,
            quiet: self.quiet,
        };
        match turn.run(self.opened, ask) {
            Ok(answer) => {
                self.cut = answer.finish != Finish::Stop && !answer.token_ids.is_empty();
                if answer.dropped_messages > 0 {
                    note!(
                        "[the context was full: the {} oldest messages were dropped]",
                        answer.dropped_messages
                    );
                }
                if answer.finish == Finish::Cancelled {
                    note!("[cancelled]");
                }
                if let Some(mark) = cut_mark(&answer, self.opened, "/set max_tokens") {
                    note!("{mark} Enter or /continue continues.");
                }
                if !self.quiet {
                    note!("{}", stats_line(&answer));
                }
                if let Err(error) = verdict(self.opened) {
                    note!("warning: {error}. What you do next, the server can see.");
                }
            }
            Err(Error::OutputClosed) => return Err(Error::OutputClosed),
            Err(error) => {
                let after = self.opened.session.messages();
                self.cut =
                    after.len() > messages && after.last().is_some_and(|message| message.role == "assistant");
                let kept = match self.cut {
                    true => "The answer so far is kept. Enter or /continue continues it.",
                    false => "Your message was not kept. Send it again to retry.",
                };
                note!("error: {error}\n{kept}");
            }
        }
        Ok(())
    }

    fn apply(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Continue if self.last_role() == Some("assistant") => return self.ask(Ask::Continue),
            Command::Continue => note!("there is no answer to continue"),
            Command::Regenerate => {
                let before = self.opened.session.messages().to_vec();
                self.without_answer();
                if self.last_role() == Some("user") {
                    return self.ask_instead(Ask::Again, before);
                }
                self.opened.session.set_messages(before);
                note!("there is no message to answer again");
            }
            Command::Edit(text) => {
                let before = self.opened.session.messages().to_vec();
                self.without_answer();
                self.without_last("user");
                return self.ask_instead(Ask::Message(&text), before);
            }
            Command::Undo => {
                self.without_answer();
                match self.without_last("user") {
                    true => note!("the last message and its answer are taken back"),
                    false => note!("there is nothing to take back"),
                }
            }
            Command::Show => {
                let text: Vec<String> = self
                    .opened
                    .session
                    .messages()
                    .iter()
                    .map(|message| format!("{}: {}", message.role, message.content))
                    .collect();
                output::line(&mut std::io::stdout().lock(), &text.join("\n\n"))?;
                return Ok(());
            }
            other => {
                // The others leave the conversation as it is: an answer that was cut can still be continued.
                let replaced = matches!(other, Command::System(Some(_)) | Command::Clear | Command::Load(_));
                apply_setting(self.opened, &mut self.settings, other);
                self.cut &= !replaced;
                return Ok(());
            }
        }
        self.cut = false;
        Ok(())
    }

    /// A turn in place of one that was taken back: without an answer, the conversation is as it was `before`.
    fn ask_instead(&mut self, ask: Ask<'_>, before: Vec<Message>) -> Result<()> {
        self.ask(ask)?;
        if self.last_role() != Some("assistant") {
            self.opened.session.set_messages(before);
            note!("The conversation is as it was.");
        }
        Ok(())
    }

    fn last_role(&self) -> Option<&str> {
        self.opened.session.messages().last().map(|message| message.role.as_str())
    }

    /// Removes the last message if it is the model's answer.
    fn without_answer(&mut self) {
        self.without_last("assistant");
    }

    /// Removes the last message if it is of `role`. Returns whether it was.
    fn without_last(&mut self, role: &str) -> bool {
        if self.last_role() != Some(role) {
            return false;
        }
        let mut messages = self.opened.session.messages().to_vec();
        messages.pop();
        self.opened.session.set_messages(messages);
        true
    }
}

fn apply_setting(opened: &mut Chat, settings: &mut Settings, command: Command) {
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
            let kept = if system.is_some() { "; the system message stays" } else { "" };
            session.set_messages(system.into_iter().collect());
            Ok(format!("Conversation cleared{kept}."))
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
        Command::Exit
        | Command::Continue
        | Command::Regenerate
        | Command::Undo
        | Command::Edit(_)
        | Command::Show => return,
    };
    match done {
        Ok(text) => note!("{text}"),
        Err(error) => note!("error: {error}"),
    }
}

fn stats(opened: &Chat) -> String {
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
         bytes: {} up, {} down, {} ahead, {} keys, {} once for the session\n\
         ms: encrypt {:.0}, server mask {:.0}, server body {:.0}, decode {:.0}, client clear {:.0}, client ahead {:.0}, waiting {:.0}{checked}",
        session.cached_tokens(),
        session.context_length(),
        totals.round_trips,
        totals.batches,
        bytes.up,
        bytes.down,
        bytes.ahead,
        bytes.keys,
        bytes.session,
        ms.encrypt,
        ms.server_mask,
        ms.server_body,
        ms.decode,
        ms.client_clear,
        ms.client_ahead,
        ms.wait,
    )
}

/// The last body as the server saw it: packed ciphertext words.
fn wire(opened: &Chat) -> String {
    let Some(body) = opened.session.backend().last_body() else {
        return "nothing was sent yet".to_owned();
    };
    let shown = &body.bytes[..body.bytes.len().min(WIRE_BYTES)];
    let lines: Vec<String> =
        shown.chunks(40).map(|line| line.chunks(5).map(hex::encode).collect::<Vec<_>>().join(" ")).collect();
    format!(
        "round {}, {} token(s), {} bytes ({} form), of which the first {}:\n{}",
        body.round,
        body.tokens,
        body.bytes.len(),
        body.form,
        shown.len(),
        lines.join("\n")
    )
}
