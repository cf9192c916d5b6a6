//! From messages to tokens.

use sotto_models::chat_template::{ChatTemplate, Message, Piece, Rendered};
use sotto_models::tokenizer::Tokenizer;
use sotto_protocol::error::{Error, Result};

/// Where the tokens of a conversation end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After the header of the assistant's turn: the model answers.
    Answer,
    /// After the text of the last message, which the model continues.
    Continue,
}

/// Renders conversations with a model's template and tokenizes them.
///
/// Only the template makes control tokens: text of a message that spells one, such as `<|im_end|>`, is encoded as text.
#[derive(Clone)]
pub struct Prompter {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Prompter {
    /// For a model's tokenizer and chat template.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>) -> Self {
        Self { tokenizer, template }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The conversation as the template writes it, up to where the model takes over.
    ///
    /// # Errors
    /// [`Error::Usage`] if the model has no template; [`Error::Models`] if the template refuses the conversation.
    pub fn render(&self, messages: &[Message], ending: Ending) -> Result<Rendered> {
        let Some(template) = &self.template else {
            return Err(Error::Usage(
                "this model has no chat template, so it cannot hold a conversation; use a chat model"
                    .to_owned(),
            ));
        };
        match (ending, messages.last()) {
            // An answer of which there is nothing yet is begun.
            (Ending::Continue, Some(last)) if last.content.trim().is_empty() => {
                Ok(template.render(&messages[..messages.len() - 1], true)?)
            }
            (Ending::Continue, Some(last)) => {
                Ok(up_to_text(&template.render(messages, false)?, &last.content))
            }
            _ => Ok(template.render(messages, true)?),
        }
    }

    /// The tokens of a conversation.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn tokens(&self, messages: &[Message], ending: Ending) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_template(&self.render(messages, ending)?)?)
    }
}

/// `rendered` up to the end of the last place where `text` is written; all of it if there is none. White space at the end
/// of the text is part of it where the template kept it.
fn up_to_text(rendered: &Rendered, text: &str) -> Rendered {
    let pieces = rendered.pieces();
    let core = text.trim();
    let space = &text[text.trim_end().len()..];
    let place = pieces.iter().enumerate().rev().find_map(|(index, piece)| match piece {
        Piece::Text(written) => written.rfind(core).map(|at| {
            let end = at + core.len();
            let kept = written[end..].starts_with(space);
            (index, if kept { end + space.len() } else { end })
        }),
        Piece::Control(_) => None,
    });
    let Some((last, end)) = place else { return rendered.clone() };
    let mut cut = Rendered::default();
    for (index, piece) in pieces[..=last].iter().enumerate() {
        match piece {
            Piece::Text(written) if index == last => cut.push_text(&written[..end]),
            Piece::Text(written) => cut.push_text(written),
            Piece::Control(spelling) => cut.push_control(spelling),
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_answer_ends_with_its_text() {
        let mut rendered = Rendered::default();
        rendered.push_control("<|im_start|>");
        rendered.push_text("user\nsay it");
        rendered.push_control("<|im_end|>");
        rendered.push_text("\n");
        rendered.push_control("<|im_start|>");
        rendered.push_text("assistant\nsay it twice, say");
        let whole = rendered.clone();
        rendered.push_control("<|im_end|>");
        rendered.push_text("\n");
        assert_eq!(up_to_text(&rendered, "say it twice, say"), whole);
        assert_eq!(up_to_text(&rendered, "not there"), rendered);
        // Written with its space, without it, and not at all.
        assert_eq!(up_to_text(&rendered, " twice, say "), whole);
        let mut open = whole.clone();
        open.push_text(" \n");
        let mut closed = open.clone();
        closed.push_control("<|im_end|>");
        assert_eq!(up_to_text(&closed, "twice, say \n"), open);
    }
}
