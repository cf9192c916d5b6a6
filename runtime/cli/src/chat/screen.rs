//! Showing an answer while it comes: words wrapped at the margin, and a sign of life until there is text.

use std::io::{IsTerminal, Write};

use textwrap::core::display_width;

use sotto_engine::session::Progress;
use sotto_protocol::error::{Error, Result};

use crate::output;
use crate::progress::Waiting;

/// Columns to assume if the terminal does not tell.
const DEFAULT_COLUMNS: usize = 80;

/// Where the text of an answer goes.
pub(super) struct Screen<W: Write> {
    out: W,
    wrap: Option<Wrap>,
    waiting: Option<Waiting>,
    /// Whether anything was shown.
    written: bool,
    failed: Option<Error>,
}

impl<W: Write + IsTerminal> Screen<W> {
    /// Shows text on `out`, wrapped if that is a terminal; without `out`, nothing but the sign of life.
    pub(super) fn new(out: W, waiting: Option<Waiting>) -> Self {
        let wrap = out.is_terminal().then(|| Wrap::new(columns()));
        Self { out, wrap, waiting, written: false, failed: None }
    }

    /// Takes note of what happens in the session.
    pub(super) fn watch(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Prompt { done, total } => {
                if let Some(waiting) = &self.waiting {
                    waiting.say(&format!("reading the prompt: {done} of {total} tokens"));
                }
            }
            Progress::Text { text, .. } => self.text(text),
        }
    }

    fn text(&mut self, text: &str) {
        // Gone before the first letter, so that neither overwrites the other.
        self.waiting = None;
        let written = match &mut self.wrap {
            Some(wrap) => output::write(&mut self.out, wrap.push(&tamed(text)).as_bytes()),
            None => output::write(&mut self.out, text.as_bytes()),
        };
        self.written = true;
        if let Err(error) = written {
            // The reader has left; the turn ends at its next look.
            self.failed = Some(error);
        }
    }

    /// Whether the output failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Ends the answer: what is held back, and a line's end if there was any text.
    ///
    /// # Errors
    /// What writing failed with, now or before.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.waiting.take());
        if let Some(error) = self.failed {
            return Err(error);
        }
        let held = self.wrap.as_mut().map(Wrap::finish).unwrap_or_default();
        let end = if self.written { "\n" } else { "" };
        output::write(&mut self.out, format!("{held}{end}").as_bytes())
    }
}

/// `text` without the control characters that drive a terminal: a server that lies steers the text of an answer.
fn tamed(text: &str) -> String {
    text.chars().filter(|&c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => DEFAULT_COLUMNS,
    }
}

/// Breaks lines at spaces, for text that comes in pieces. The word that may still grow is held back.
struct Wrap {
    columns: usize,
    /// Columns of the current line that are used.
    used: usize,
    /// White space after the last word that was written.
    gap: String,
    word: String,
}

impl Wrap {
    fn new(columns: usize) -> Self {
        Self { columns: columns.max(10), used: 0, gap: String::new(), word: String::new() }
    }

    /// Takes a piece; returns what can be written.
    fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '\n' => {
                    self.end_word(&mut out);
                    self.gap.clear();
                    self.used = 0;
                    out.push('\n');
                }
                ' ' | '\t' => {
                    self.end_word(&mut out);
                    self.gap.push(c);
                }
                _ => {
                    self.word.push(c);
                    // Text without spaces, such as Chinese, is written as it comes; the terminal breaks it.
                    if !c.is_ascii() && display_width(&self.word) > 1 && unspaced(c) {
                        self.end_word(&mut out);
                    }
                }
            }
        }
        out
    }

    /// The end: what was held back.
    fn finish(&mut self) -> String {
        let mut out = String::new();
        self.end_word(&mut out);
        out
    }

    fn end_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let (gap, width) = (display_width(&self.gap), display_width(&self.word));
        if self.used > 0 && self.used + gap + width > self.columns {
            out.push('\n');
            self.used = 0;
        } else {
            out.push_str(&self.gap);
            self.used += gap;
        }
        out.push_str(&self.word);
        self.used += width;
        if self.used > self.columns {
            self.used %= self.columns;
        }
        self.gap.clear();
        self.word.clear();
    }
}

/// Whether a character belongs to a script that is written without spaces.
fn unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x3000..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff | 0xff00..=0xffef | 0x20000..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(columns: usize, pieces: &[&str]) -> String {
        let mut wrap = Wrap::new(columns);
        let mut text: String = pieces.iter().map(|piece| wrap.push(piece)).collect();
        text.push_str(&wrap.finish());
        text
    }

    #[test]
    fn words_stay_whole_however_the_text_comes() {
        let text = "one two three four five\n\n  - six";
        let expected = "one two\nthree four\nfive\n\n  - six";
        for size in [1, 2, 5, text.len()] {
            let pieces: Vec<&str> =
                text.as_bytes().chunks(size).map(|bytes| std::str::from_utf8(bytes).unwrap()).collect();
            assert_eq!(wrapped(10, &pieces), expected, "{size}");
        }
        assert_eq!(wrapped(10, &["aaaaaaaaaaaaaaa b"]), "aaaaaaaaaaaaaaa b");
        assert_eq!(wrapped(80, &["你好", "世界"]), "你好世界");
    }

    #[test]
    fn an_answer_does_not_drive_the_terminal() {
        assert_eq!(tamed("Zażółć\n\t- a"), "Zażółć\n\t- a");
        assert_eq!(tamed("\u{1b}]52;c;aGk=\u{7}a\u{9b}2Jb\rc"), "]52;c;aGk=a2Jbc");
    }
}
