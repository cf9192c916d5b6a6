//! Chat templates: a conversation to the text the model was trained on.

use crate::limits::{MAX_TEMPLATE_BYTES, TEMPLATE_FUEL};
use crate::{Error, Result};
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

/// A parsed Jinja template, as model files carry them.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Parses a template; `bos` and `eos` are the texts of those tokens, which templates write out.
    ///
    /// # Errors
    /// If the template is too long or not valid Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
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
        // A template comes with the model, perhaps from a server that wants its client to hang.
        environment.set_fuel(Some(TEMPLATE_FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<String, _> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
        });
        // No `strftime_now`: templates that ask for the date fall back to a fixed one, and prompts stay reproducible.
        environment.add_template_owned(NAME, source.to_owned()).map_err(template_error)?;
        Ok(Self { environment, source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; with `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// If the template refuses the conversation (e.g. two messages of one role in a row) or takes more than
    /// [`TEMPLATE_FUEL`].
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
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
