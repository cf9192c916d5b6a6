//! What the person types: single lines, and messages of several lines between `"""`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};

use super::complete::CommandCompleter;
use crate::progress::Waiting;
use sotto_protocol::error::{Error, Result};

/// Delimiter of a message of several lines.
const FENCE: &str = "\"\"\"";

/// Longest text accepted from a file or pipe, in bytes. Far more than any context holds.
const MAX_STDIN_BYTES: u64 = 16 << 20;

/// Prompt of a new message.
const PROMPT: &str = ">>> ";

/// Prompt of the following lines of a message.
const CONTINUATION: &str = "... ";

/// One thing the person entered.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A message, or a slash command when it starts with `/`.
    Line(String),
    /// A message given between fences; never a command.
    Block(String),
    /// Ctrl-C on an empty prompt.
    Interrupted,
    /// Ctrl-D.
    End,
}

/// Reads messages from a terminal.
pub struct LineReader {
    editor: Editor<CommandCompleter, DefaultHistory>,
    history: Option<PathBuf>,
}

impl LineReader {
    /// A reader; `history` is a file to keep what was typed in, or `None` to keep nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the terminal cannot be used.
    pub fn new(history: Option<&Path>) -> Result<Self> {
        // The prompt belongs on the terminal, also when the answers go into a file.
        let behavior = if std::io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder().behavior(behavior).build();
        let mut editor = Editor::with_config(config).map_err(terminal)?;
        editor.set_helper(Some(CommandCompleter::default()));
        if let Some(path) = history
            && path.exists()
        {
            let failed = |error: ReadlineError| Error::io("reading", path, std::io::Error::other(error));
            editor.load_history(path).map_err(failed)?;
        }
        Ok(Self { editor, history: history.map(Path::to_owned) })
    }

    /// The next entry.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the terminal or the history file fails.
    pub fn read_entry(&mut self) -> Result<Entry> {
        let mut fence = Fence::default();
        loop {
            let prompt = if fence.is_open() { CONTINUATION } else { PROMPT };
            let line = match self.editor.readline(prompt) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => return Ok(Entry::Interrupted),
                Err(ReadlineError::Eof) => return Ok(Entry::End),
                Err(error) => return Err(terminal(error)),
            };
            if let Some(entry) = fence.feed(&line) {
                self.remember(&entry);
                return Ok(entry);
            }
        }
    }

    /// Keeps an entry. One that cannot be kept is no reason not to answer it.
    fn remember(&mut self, entry: &Entry) {
        if let Entry::Line(text) | Entry::Block(text) = entry
            && !text.trim().is_empty()
        {
            // In memory always, so that the arrow keys work; on disk only when asked for.
            let _ = self.editor.add_history_entry(text.as_str());
            if let Some(path) = &self.history
                && let Err(error) = self.editor.append_history(path)
            {
                note!("warning: {}: {error}; what you type is not kept", path.display());
                self.history = None;
            }
        }
    }
}

fn terminal(error: ReadlineError) -> Error {
    Error::Io { context: "terminal".to_owned(), source: std::io::Error::other(error) }
}

/// Assembles lines into entries.
#[derive(Default)]
struct Fence {
    open: Option<String>,
}

impl Fence {
    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes one line; returns the entry it completes.
    fn feed(&mut self, line: &str) -> Option<Entry> {
        if let Some(mut text) = self.open.take() {
            if let Some((last, after)) = line.split_once(FENCE) {
                text.push_str(last);
                text.push_str(after.trim_end());
                return Some(Entry::Block(text.trim_matches('\n').to_owned()));
            }
            text.push_str(line);
            text.push('\n');
            self.open = Some(text);
            return None;
        }
        let Some(rest) = line.trim_start().strip_prefix(FENCE) else {
            return Some(Entry::Line(line.to_owned()));
        };
        if let Some((text, after)) = rest.split_once(FENCE) {
            return Some(Entry::Block(format!("{text}{}", after.trim_end())));
        }
        self.open = Some(format!("{rest}\n"));
        None
    }
}

/// The message of a single answer: the prompt, then the files, then what is piped in; `None` for a conversation.
///
/// # Errors
///
/// [`Error::Usage`] if all of it is empty or not UTF-8, [`Error::TooLong`], or the I/O error.
pub fn one_shot_message(prompt: Option<&str>, files: &[PathBuf]) -> Result<Option<String>> {
    let piped = !std::io::stdin().is_terminal();
    if prompt.is_none() && files.is_empty() && !piped {
        return Ok(None);
    }
    let mut parts: Vec<String> =
        prompt.filter(|prompt| *prompt != "-").map(ToOwned::to_owned).into_iter().collect();
    let mut read_input = piped || prompt == Some("-");
    for path in files {
        if path == Path::new("-") {
            // In its place, and only once.
            read_input = false;
            parts.push(standard_input()?);
            continue;
        }
        let file = std::fs::File::open(path).map_err(|source| Error::io("reading", path, source))?;
        parts.push(read_text(file, &path.display().to_string())?);
    }
    if read_input {
        parts.push(standard_input()?);
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        return Err(Error::Usage(
            "nothing on standard input; give --prompt TEXT, or pipe a message in".to_owned(),
        ));
    }
    Ok(Some(parts.join("\n\n")))
}

/// What is piped in. Who pipes may take long; a terminal shows that this waits for it.
fn standard_input() -> Result<String> {
    let _waiting = std::io::stderr().is_terminal().then(|| Waiting::new("reading standard input"));
    read_text(std::io::stdin().lock(), "standard input")
}

/// A text without the white space, or the byte order mark, around it.
fn read_text(reader: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Io { context: format!("reading {name}"), source })?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Error::TooLong {
            field: "text of the message",
            got: bytes.len() as u64,
            limit: MAX_STDIN_BYTES,
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::Usage(format!(
            "{name} is not UTF-8 (byte {}); convert it first, for instance with iconv",
            error.utf8_error().valid_up_to()
        ))
    })?;
    Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[&str]) -> Vec<Entry> {
        let mut fence = Fence::default();
        lines.iter().filter_map(|line| fence.feed(line)).collect()
    }

    #[test]
    fn fences_join_lines() {
        assert_eq!(entries(&["hello"]), [Entry::Line("hello".into())]);
        assert_eq!(entries(&["\"\"\"a", "", "b\"\"\""]), [Entry::Block("a\n\nb".into())]);
        assert_eq!(entries(&["\"\"\"", "/exit", "\"\"\""]), [Entry::Block("/exit".into())]);
        assert_eq!(entries(&["\"\"\"one line\"\"\""]), [Entry::Block("one line".into())]);
        // What follows the second mark is not lost.
        assert_eq!(entries(&["\"\"\"a\"\"\" b"]), [Entry::Block("a b".into())]);
        assert_eq!(entries(&["\"\"\"a", "b\"\"\" c "]), [Entry::Block("a\nb c".into())]);
        assert!(entries(&["\"\"\"open", "still open"]).is_empty());
    }

    #[test]
    fn piped_text_must_be_text() {
        assert_eq!(read_text(&b" hi\n"[..], "x").unwrap(), "hi");
        assert_eq!(read_text(&b"\xef\xbb\xbfhi"[..], "x").unwrap(), "hi");
        assert!(matches!(read_text(&b"\xff\xfe"[..], "x"), Err(Error::Usage(_))));
    }
}
