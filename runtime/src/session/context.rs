//! From messages to tokens: continuing the cache where possible, dropping old turns when needed.

use models::chat_template::Message;

use super::{GenerateOptions, Session};
use crate::error::{Error, Result};

/// Tokens reserved for an answer when a longer one is allowed: old turns are dropped only to make
/// this much room.
const ANSWER_ROOM: usize = 512;

impl Session {
    /// Makes `tokens` stand for the messages with room for an answer. Returns how many old messages
    /// were dropped for it.
    pub(super) fn fit_context(&mut self, options: &GenerateOptions) -> Result<usize> {
        let limit = self.context_limit;
        let room = options.max_tokens.clamp(1, ANSWER_ROOM.min(limit / 4).max(1));
        let mut dropped = 0;
        loop {
            let (rendered, tokens) = self.tokenize()?;
            if tokens.len() + room <= limit {
                self.adopt(rendered, tokens);
                return Ok(dropped);
            }
            let count = droppable(&self.messages);
            if count == 0 {
                return Err(Error::Usage(format!(
                    "the message takes {} tokens and the model holds {limit}, {room} of them for the answer; shorten it",
                    tokens.len()
                )));
            }
            let first = usize::from(self.messages.first().is_some_and(|message| message.role == "system"));
            self.messages.drain(first..first + count);
            dropped += count;
        }
    }

    /// Text and tokens of the conversation up to where the answer begins.
    fn tokenize(&self) -> Result<(String, Vec<u32>)> {
        let rendered = self.render()?;
        // The template usually only appends; then so do the tokens, whatever the tokenizer would make
        // of the whole text.
        let continuation =
            if self.rendered.is_empty() { None } else { rendered.strip_prefix(&self.rendered) };
        let tokens = match continuation {
            Some(rest) => {
                let mut tokens = self.tokens.clone();
                tokens.extend(self.tokenizer.encode(rest)?);
                tokens
            }
            None => self.tokenizer.encode(&rendered)?,
        };
        Ok((rendered, tokens))
    }

    fn render(&self) -> Result<String> {
        match &self.template {
            Some(template) => Ok(template.render(&self.messages, true)?),
            None => Err(Error::Usage(
                "this model has no chat template, so it cannot hold a conversation; use a chat model"
                    .to_owned(),
            )),
        }
    }

    /// Takes over new tokens; the cache keeps what they have in common with the old ones.
    fn adopt(&mut self, rendered: String, tokens: Vec<u32>) {
        let cached = self.model.len().min(self.tokens.len());
        let common = common_prefix(&self.tokens[..cached], &tokens);
        // At least one token must be run to get logits.
        self.model.truncate(common.min(tokens.len().saturating_sub(1)));
        self.tokens = tokens;
        self.rendered = rendered;
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How many of the oldest messages behind the system message form a turn that can be dropped: up to
/// the next message of the user, never the last one.
fn droppable(messages: &[Message]) -> usize {
    let first = usize::from(messages.first().is_some_and(|message| message.role == "system"));
    let rest = messages.get(first..).unwrap_or_default();
    match rest.iter().skip(1).position(|message| message.role == "user") {
        Some(position) => position + 1,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(roles: &[&str]) -> Vec<Message> {
        roles.iter().map(|role| Message::new(*role, "x")).collect()
    }

    #[test]
    fn whole_turns_are_dropped_and_the_last_question_stays() {
        assert_eq!(droppable(&roles(&["system", "user", "assistant", "user"])), 2);
        assert_eq!(droppable(&roles(&["user", "assistant", "user", "assistant", "user"])), 2);
        assert_eq!(droppable(&roles(&["user", "user"])), 1);
        assert_eq!(droppable(&roles(&["system", "user"])), 0);
        assert_eq!(droppable(&roles(&["user"])), 0);
        assert_eq!(droppable(&[]), 0);
    }

    #[test]
    fn common_beginnings() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
    }
}
