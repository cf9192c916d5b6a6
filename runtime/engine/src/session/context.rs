//! From messages to tokens: continuing the cache where possible, dropping old turns when needed.

use sotto_models::chat_template::{Message, Rendered};

use super::{GenerateOptions, Session};
use crate::prompt::Ending;
use sotto_protocol::error::{Error, Result};

/// Tokens reserved for an answer when a longer one is allowed: old turns are dropped only to make
/// this much room.
const ANSWER_ROOM: usize = 512;

impl Session {
    /// Makes `tokens` stand for the messages with room for an answer. Returns how many old messages
    /// were dropped for it.
    ///
    /// When the context is full, a quarter of it is freed at once: whatever is dropped changes the prefix, and all that
    /// follows it must be run again.
    pub(super) fn fit_context(&mut self, options: &GenerateOptions) -> Result<usize> {
        let limit = self.core.context_limit;
        let room = options.max_tokens.clamp(1, ANSWER_ROOM.min(limit / 4).max(1));
        let (rendered, tokens) = self.tokenize(&self.messages, self.ending)?;
        if tokens.len() + room <= limit {
            self.adopt(rendered, tokens)?;
            return Ok(0);
        }
        let needed = tokens.len();
        let Some((cut, rendered, tokens)) = self.shortest_cut(room)? else {
            return Err(Error::ContextExceeded { tokens: needed, limit, reserved: room });
        };
        let first = first_turn(&self.messages);
        self.messages.drain(first..cut);
        self.adopt(rendered, tokens)?;
        Ok(cut - first)
    }

    /// Where the turns that are kept begin, with the text and tokens of the conversation then; `None` if not even the last
    /// turn fits.
    fn shortest_cut(&self, room: usize) -> Result<Option<(usize, Rendered, Vec<u32>)>> {
        let limit = self.core.context_limit;
        let cuts = turn_starts(&self.messages);
        let after = |cut: usize| {
            let mut messages = self.messages[..first_turn(&self.messages)].to_vec();
            messages.extend_from_slice(&self.messages[cut..]);
            self.tokenize(&messages, self.ending)
        };
        // Fewer turns are fewer tokens, so the fewest to drop are found by halving: each step tokenizes once.
        let (mut low, mut high) = (0, cuts.len());
        let mut found = None;
        while low < high {
            let middle = low.midpoint(high);
            let (rendered, tokens) = after(cuts[middle])?;
            if tokens.len() + room.max(limit / 4) <= limit {
                found = Some((cuts[middle], rendered, tokens));
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if found.is_some() {
            return Ok(found);
        }
        // No cut frees a quarter: the last turn alone, if there is room for an answer at all.
        let Some(&cut) = cuts.last() else { return Ok(None) };
        let (rendered, tokens) = after(cut)?;
        Ok((tokens.len() + room <= limit).then_some((cut, rendered, tokens)))
    }

    /// Text and tokens of a conversation up to where the answer begins.
    fn tokenize(&self, messages: &[Message], ending: Ending) -> Result<(Rendered, Vec<u32>)> {
        let prompter = &self.core.prompter;
        let rendered = prompter.render(messages, ending)?;
        // The template usually only appends; then so do the tokens, whatever the tokenizer would make
        // of the whole text.
        let continuation =
            if self.rendered.is_empty() { None } else { rendered.continuation_of(&self.rendered) };
        let tokens = match continuation {
            Some(rest) => {
                let mut tokens = self.tokens.clone();
                tokens.extend(prompter.tokenizer().encode_template(&rest)?);
                tokens
            }
            None => prompter.tokenizer().encode_template(&rendered)?,
        };
        Ok((rendered, tokens))
    }

    /// Takes over new tokens; the cache keeps what any recent conversation has in common with them.
    pub(super) fn adopt(&mut self, rendered: Rendered, tokens: Vec<u32>) -> Result<()> {
        self.prefixes.adopt(&mut self.cache, &self.tokens, &tokens)?;
        self.tokens = tokens;
        self.rendered = rendered;
        Ok(())
    }
}

/// Index of the first message that can be dropped: after the system message.
fn first_turn(messages: &[Message]) -> usize {
    usize::from(messages.first().is_some_and(|message| message.role == "system"))
}

/// Where turns begin that may be the first to be kept: at the user's messages, without the first one.
fn turn_starts(messages: &[Message]) -> Vec<usize> {
    let first = first_turn(messages);
    let of_user = |index: &usize| messages[*index].role == "user";
    (first + 1..messages.len()).filter(of_user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(roles: &[&str]) -> Vec<Message> {
        roles.iter().map(|role| Message::new(*role, "x")).collect()
    }

    #[test]
    fn whole_turns_are_dropped_and_the_last_question_stays() {
        assert_eq!(turn_starts(&roles(&["system", "user", "assistant", "user"])), [3]);
        assert_eq!(turn_starts(&roles(&["user", "assistant", "user", "assistant", "user"])), [2, 4]);
        assert_eq!(turn_starts(&roles(&["user", "user"])), [1]);
        assert!(turn_starts(&roles(&["system", "user"])).is_empty());
        assert!(turn_starts(&roles(&["user"])).is_empty());
        assert!(turn_starts(&[]).is_empty());
    }
}
