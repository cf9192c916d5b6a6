//! Where an answer ends, and what of it can already be shown.

use std::ops::Deref;

use crate::Result;
use crate::tokenizer::Tokenizer;

/// Turns tokens into text as they come.
///
/// Text is held back while it may still change: bytes of an unfinished character, and the beginning of what may become
/// a stop string. The pieces, put together, are the text of all tokens up to the stop. `T` is a reference to the
/// tokenizer, borrowed or shared.
pub struct TextStream<T> {
    tokenizer: T,
    stop_ids: Vec<u32>,
    stop_strings: Vec<String>,
    ids: Vec<u32>,
    /// Ids before this one only give context to the decoder.
    context_from: usize,
    /// Ids before this one are decoded.
    decoded_to: usize,
    /// Decoded text that may be the beginning of a stop string.
    held: String,
    stopped: Option<StopReason>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model said so.
    EndOfText,
    /// A stop string appeared; it is not part of the text.
    StopString(String),
}

impl<T: Deref<Target = Tokenizer>> TextStream<T> {
    /// A stream that ends at any of `stop_ids` and before any of `stop_strings` (empty ones are ignored).
    pub fn new(tokenizer: T, stop_ids: &[u32], stop_strings: &[String]) -> Self {
        Self {
            tokenizer,
            stop_ids: stop_ids.to_vec(),
            stop_strings: stop_strings.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            ids: Vec::new(),
            context_from: 0,
            decoded_to: 0,
            held: String::new(),
            stopped: None,
        }
    }

    /// Adds a token and returns the text that is now certain; empty once the stream has stopped.
    ///
    /// # Errors
    /// If the id is unknown to the tokenizer.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.stopped.is_some() {
            return Ok(String::new());
        }
        if self.stop_ids.contains(&id) {
            self.stopped = Some(StopReason::EndOfText);
            return self.flush();
        }
        self.ids.push(id);
        let text = self.decode_new(false)?;
        self.held.push_str(&text);
        Ok(self.release())
    }

    /// Ends the stream and returns what was held back.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(&mut self) -> Result<String> {
        if self.stopped.is_some() { Ok(String::new()) } else { self.flush() }
    }

    /// Why the stream stopped, if it did.
    pub fn stopped(&self) -> Option<&StopReason> {
        self.stopped.as_ref()
    }

    fn flush(&mut self) -> Result<String> {
        let text = self.decode_new(true)?;
        self.held.push_str(&text);
        let ready = self.release();
        Ok(ready + &std::mem::take(&mut self.held))
    }

    /// Text of the ids not decoded yet, or nothing while it ends in an unfinished character.
    fn decode_new(&mut self, last: bool) -> Result<String> {
        // Decoders treat the first token of a sequence differently (leading space), so decode with some context.
        let before = self.tokenizer.decode(&self.ids[self.context_from..self.decoded_to])?;
        let after = self.tokenizer.decode(&self.ids[self.context_from..])?;
        if after.len() <= before.len() || (after.ends_with('\u{fffd}') && !last) {
            return Ok(String::new());
        }
        let mut new = after.get(before.len()..).unwrap_or_default().to_owned();
        if last {
            // The beginning of a character that was cut off is no text.
            new.truncate(new.trim_end_matches('\u{fffd}').len());
        }
        self.context_from = self.decoded_to;
        self.decoded_to = self.ids.len();
        Ok(new)
    }

    /// Takes from the held text what cannot be part of a stop string; stops at the first one.
    fn release(&mut self) -> String {
        let found = self
            .stop_strings
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop)))
            .min_by_key(|&(at, stop)| (at, std::cmp::Reverse(stop.len())));
        if let Some((at, stop)) = found {
            self.stopped = Some(StopReason::StopString(stop.clone()));
            let ready = self.held[..at].to_owned();
            self.held.clear();
            return ready;
        }
        let keep = self.stop_strings.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }
}

/// Length of the longest end of `text` that is a proper beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(at, _)| at)
        .filter(|&at| at > 0 && at <= text.len() && text.ends_with(&stop[..at]))
        .max()
        .unwrap_or(0)
}
