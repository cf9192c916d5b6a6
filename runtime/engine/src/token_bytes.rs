//! The bytes that each token of a vocabulary stands for.

use sotto_models::tokenizer::Tokenizer;

/// How a vocabulary writes bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// GPT-2's alphabet: each byte is one printable character.
    ByteLevel,
    /// SentencePiece: `▁` is a space, and `<0x0A>` a byte that has no other token.
    SentencePiece,
}

/// Turns token ids into bytes.
#[derive(Clone)]
pub struct TokenBytes {
    tokenizer: Tokenizer,
    writing: Writing,
    /// Ids of added tokens, such as `<|im_end|>`, sorted.
    added: Vec<u32>,
}

impl TokenBytes {
    /// For the vocabulary of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let writing = match tokenizer.token_id("Ġ") {
            Some(_) => Writing::ByteLevel,
            None => Writing::SentencePiece,
        };
        let mut added: Vec<u32> = tokenizer.text_tokenizer().get_added_tokens_decoder().into_keys().collect();
        added.sort_unstable();
        Self { tokenizer: tokenizer.clone(), writing, added }
    }

    /// Whether tokens keep every byte of a text: each byte is of one token.
    pub fn is_lossless(&self) -> bool {
        self.writing == Writing::ByteLevel
    }

    /// Whether `id` is a token such as `<|im_end|>` that text is not made of.
    pub fn is_added(&self, id: u32) -> bool {
        self.added.binary_search(&id).is_ok()
    }

    /// The bytes of `id`; empty if the vocabulary has no such token.
    pub fn of(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.tokenizer.token_text(id) else { return Vec::new() };
        if self.is_added(id) {
            return text.into_bytes();
        }
        match self.writing {
            Writing::ByteLevel => text.chars().flat_map(byte_level).collect(),
            Writing::SentencePiece => sentence_piece(&text),
        }
    }
}

/// The byte that a character of GPT-2's alphabet stands for; other characters stand for themselves.
fn byte_level(c: char) -> Vec<u8> {
    let byte = match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code),
        // The bytes without a printable character of their own, in order, follow at 256.
        code @ 0x100..=0x120 => Some(code - 0x100),
        code @ 0x121..=0x142 => Some(code - 0x121 + 0x7f),
        0x143 => Some(0xad),
        _ => None,
    };
    match byte {
        Some(byte) => vec![byte as u8],
        None => c.to_string().into_bytes(),
    }
}

fn sentence_piece(text: &str) -> Vec<u8> {
    let byte = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => text.replace('▁', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        // As GPT-2's encoder numbers them: printable ones first, the others from 256 on.
        let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let mut next = 0x100;
        for byte in 0..256_u32 {
            let code = if printable(byte) { byte } else { next };
            next += u32::from(!printable(byte));
            assert_eq!(byte_level(char::from_u32(code).unwrap()), [byte as u8], "{byte}");
        }
        assert_eq!(byte_level('ま'), "ま".as_bytes());
    }

    #[test]
    fn sentence_pieces_are_text_or_bytes() {
        assert_eq!(sentence_piece("▁the"), b" the");
        assert_eq!(sentence_piece("<0x0A>"), b"\n");
        assert_eq!(sentence_piece("<0xZZ>"), b"<0xZZ>");
    }
}
