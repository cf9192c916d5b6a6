//! Chat templates: a conversation to the text the model was trained on.
//!
//! A template comes with the model, perhaps from a server that would like to learn what is written: the server sees how many
//! tokens a prompt has. So a template is asked once, about conversations of made-up words, what it puts between messages;
//! where that explains all its answers ([`format`]), conversations are put together from these constants and the
//! template never sees a message. Any other template is rendered for each conversation, and its text may be longer than the
//! messages and what it adds to made-up ones by no more than a constant.
//!
//! What comes of a conversation is a [`Rendered`]: control tokens, which only the template writes, and text. Text that spells
//! a control token stays text.

mod format;

use crate::limits::{MAX_TEMPLATE_BYTES, TEMPLATE_FUEL};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use format::ChatFormat;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use serde::{Deserialize, Serialize};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Part of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A control token, by its spelling.
    Control(String),
    /// Text; control tokens spelled in it are not meant.
    Text(String),
}

/// A rendered conversation. No two texts follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pieces: Vec<Piece>,
}

impl Rendered {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets all pieces.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Appends text.
    pub fn push_text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Appends a control token.
    pub fn push_control(&mut self, spelling: &str) {
        self.pieces.push(Piece::Control(spelling.to_owned()));
    }

    /// Appends the template's own text, in which spelled control tokens are meant.
    fn push_template_text(&mut self, text: &str, controls: &[String]) {
        let mut rest = text;
        while let Some((at, control)) = first_of(rest, controls) {
            self.push_text(&rest[..at]);
            self.push_control(control);
            rest = &rest[at + control.len()..];
        }
        self.push_text(rest);
    }

    /// All pieces as one text.
    pub fn text(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Control(text) | Piece::Text(text) => text.as_str(),
            })
            .collect()
    }

    /// What follows `beginning`, if this begins with it.
    pub fn continuation_of(&self, beginning: &Self) -> Option<Self> {
        let Some((last, before)) = beginning.pieces.split_last() else { return Some(self.clone()) };
        let rest = self.pieces.strip_prefix(before)?;
        let (first, after) = rest.split_first()?;
        let mut continuation = Self::default();
        match (first, last) {
            (Piece::Text(text), Piece::Text(known)) => {
                continuation.push_text(text.strip_prefix(known.as_str())?)
            }
            (first, last) if first == last => {}
            _ => return None,
        }
        continuation.pieces.extend_from_slice(after);
        Some(continuation)
    }
}

/// The first of some spellings in a text, the longest of those at one place.
fn first_of<'a>(text: &str, spellings: &'a [String]) -> Option<(usize, &'a str)> {
    spellings
        .iter()
        .filter_map(|spelling| Some((text.find(spelling.as_str())?, spelling.as_str())))
        .min_by_key(|(at, spelling)| (*at, std::cmp::Reverse(spelling.len())))
}

/// A chat template.
#[derive(Clone)]
pub struct ChatTemplate {
    jinja: Jinja,
    /// What the template was found to be.
    format: Option<ChatFormat>,
    /// Spellings of control tokens.
    controls: Vec<String>,
}

/// What one answer to a made-up conversation may use up; there are some hundred of them. Templates in use take some
/// hundred for each message.
const PROBE_FUEL: u64 = 20_000;
/// Bytes by which an unknown template's text may be longer than its constants and the messages.
const SLACK: usize = 256;

impl ChatTemplate {
    /// Parses a template of a model with this tokenizer, and finds out whether it is of a known shape.
    ///
    /// # Errors
    /// If the template is too long or not valid Jinja.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        let special = tokenizer.special();
        let jinja = Jinja::new(source, &text(special.bos), &text(special.eos.first().copied()))?;
        let format = {
            let probe = jinja.with_fuel(PROBE_FUEL);
            ChatFormat::find(|messages, prompt| probe.render(messages, prompt))
        };
        Ok(Self { jinja, format, controls: tokenizer.control_spellings() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.jinja.source
    }

    /// What kind of template this is, where conversations are put together without it: `ChatML`, `Llama 3`, ..., or
    /// `constant` for other constants between messages; `None` if the template is rendered for every conversation.
    pub fn known_as(&self) -> Option<&'static str> {
        self.format.as_ref().map(ChatFormat::name)
    }

    /// Renders a conversation; with `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// If the template refuses the conversation (e.g. two messages of one role in a row), takes more than
    /// [`TEMPLATE_FUEL`], or makes the text longer than messages and constants explain.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered> {
        match &self.format {
            Some(format) => format.render(messages, add_generation_prompt, &self.controls),
            None => self.render_unknown(messages, add_generation_prompt),
        }
    }

    fn render_unknown(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered> {
        // A character that no message has breaks spelled control tokens, so that those of the template are told apart.
        let mut unused = ('\u{fdd0}'..='\u{fdef}').chain('\u{e000}'..='\u{f8ff}');
        let mark =
            unused.find(|mark| messages.iter().all(|message| !message.content.contains(*mark))).ok_or_else(
                || Error::ChatTemplate { reason: "the messages use every private character".to_owned() },
            )?;
        let marked: Vec<Message> = messages
            .iter()
            .map(|message| Message::new(&*message.role, broken(&message.content, &self.controls, mark)))
            .collect();
        let text = self.jinja.render(&marked, add_generation_prompt)?;
        let made_up: Vec<_> = messages.iter().map(|message| Message::new(&*message.role, "x")).collect();
        // A template may refuse the made-up conversation; then all of the text counts.
        let constant = self.jinja.render(&made_up, add_generation_prompt).map_or(0, |text| text.len());
        let given: usize = marked.iter().map(|message| message.content.len()).sum();
        let limit = constant + given + SLACK;
        if text.len() > limit {
            return Err(Error::Limit {
                what: "bytes that the chat template makes of this conversation",
                got: text.len() as u64,
                limit: limit as u64,
            });
        }
        let mut rendered = Rendered::default();
        rendered.push_template_text(&text, &self.controls);
        for piece in &mut rendered.pieces {
            if let Piece::Text(text) = piece {
                text.retain(|c| c != mark);
            }
        }
        rendered.pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(rendered)
    }
}

/// `text` with `mark` inside every control token that it spells, and inside what at its ends could become one together
/// with a template's text.
fn broken(text: &str, controls: &[String], mark: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, control)) = first_of(rest, controls) {
        let first = at + control.chars().next().map_or(0, char::len_utf8);
        out.push_str(&rest[..first]);
        out.push(mark);
        rest = &rest[first..];
    }
    out.push_str(rest);
    for control in controls {
        for (at, _) in control.char_indices().skip(1) {
            let (head, tail) = control.split_at(at);
            // Templates trim, so spaces at the ends do not count.
            let end = out.trim_end().len();
            if out[..end].ends_with(head) && head.chars().count() > 1 {
                let first = head.chars().next().map_or(0, char::len_utf8);
                out.insert(end - head.len() + first, mark);
            }
            let start = out.len() - out.trim_start().len();
            if out[start..].starts_with(tail) && tail.chars().count() > 1 {
                let first = tail.chars().next().map_or(0, char::len_utf8);
                out.insert(start + first, mark);
            }
        }
    }
    out
}

/// A parsed Jinja template, as model files carry them.
#[derive(Clone)]
struct Jinja {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

const NAME: &str = "chat";

impl Jinja {
    /// Parses a template; `bos` and `eos` are the texts of those tokens, which templates write out.
    fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(Error::Limit {
                what: "bytes of a chat template",
                got: source.len() as u64,
                limit: MAX_TEMPLATE_BYTES as u64,
            });
        }
        let mut environment = Environment::new();
        // As transformers sets up its template engine.
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)?;
        environment.set_syntax(syntax);
        // A template may come from a server that wants its client to hang.
        environment.set_fuel(Some(TEMPLATE_FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<String, _> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
        });
        // No `strftime_now`: templates that ask for the date fall back to a fixed one, and prompts stay reproducible.
        environment.add_template_owned(NAME, source.to_owned()).map_err(template_error)?;
        Ok(Self { environment, source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    fn with_fuel(&self, fuel: u64) -> Self {
        let mut limited = self.clone();
        limited.environment.set_fuel(Some(fuel));
        limited
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => &message.role, content => &message.content })
            .collect();
        template
            .render(context! {
                messages => messages,
                add_generation_prompt => add_generation_prompt,
                bos_token => &self.bos,
                eos_token => &self.eos,
                // As transformers has it: there, but none; `tools is not none` must not hold.
                tools => (),
                documents => (),
            })
            .map_err(template_error)
    }
}

/// The first line of the template engine's message: the rest may quote the conversation.
fn template_error(source: minijinja::Error) -> Error {
    let reason = match source.detail() {
        Some(detail) => format!("{}: {detail}", source.kind()),
        None => source.kind().to_string(),
    };
    let line = source.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    Error::ChatTemplate { reason: format!("{reason}{line}") }
}
