//! Filling in: the text between a beginning and an end, for models with tokens for that.

use sotto_models::tokenizer::Tokenizer;
use sotto_protocol::error::Result;

/// Spellings of the tokens before the beginning, before the end and before what is to be filled in, as code models have them.
const SPELLINGS: &[[&str; 3]] = &[
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["[PREFIX]", "[SUFFIX]", "[MIDDLE]"],
];

/// Spellings of tokens after which a model goes on with something else.
const ENDS: &[&str] = &[
    "<|endoftext|>",
    "<|fim_pad|>",
    "<fim_pad>",
    "<|file_sep|>",
    "<file_sep>",
    "<|repo_name|>",
    "▁<EOT>",
    "</s>",
];

/// How a model is asked to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filling {
    prefix: u32,
    suffix: u32,
    middle: u32,
    ends: Vec<u32>,
}

impl Filling {
    /// The tokens of a vocabulary for it, if there are any.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let id = |spelling: &&str| tokenizer.token_id(spelling);
        let [prefix, suffix, middle] = SPELLINGS
            .iter()
            .find_map(|[prefix, suffix, middle]| Some([id(prefix)?, id(suffix)?, id(middle)?]))?;
        let mut ends: Vec<u32> = ENDS.iter().filter_map(id).collect();
        ends.extend([prefix, suffix, middle]);
        Some(Self { prefix, suffix, middle, ends })
    }

    /// The prompt for what comes between the texts of `beginning` and `end`.
    ///
    /// # Errors
    /// If the tokenizer refuses a text.
    pub fn prompt(&self, tokenizer: &Tokenizer, beginning: &[u32], end: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.prefix];
        ids.extend_from_slice(beginning);
        ids.push(self.suffix);
        ids.extend(tokenizer.encode(end)?);
        ids.push(self.middle);
        Ok(ids)
    }

    /// Tokens that end what is filled in.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sotto_models::tokenizer::SpecialTokens;

    fn tokenizer(words: &[&str]) -> Tokenizer {
        let vocab: serde_json::Map<String, serde_json::Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
        let file = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "?" },
        });
        Tokenizer::from_json(file.to_string().as_bytes(), SpecialTokens::default()).unwrap()
    }

    #[test]
    fn beginning_and_end_stand_before_the_middle() {
        let tokenizer = tokenizer(&[
            "?",
            "a",
            "b",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|endoftext|>",
        ]);
        let filling = Filling::of(&tokenizer).unwrap();
        assert_eq!(filling.prompt(&tokenizer, &[1], "b a").unwrap(), [3, 1, 5, 2, 1, 4]);
        assert!(filling.ends().contains(&6) && filling.ends().contains(&3));
    }

    #[test]
    fn a_vocabulary_with_only_some_of_the_tokens_has_none() {
        assert_eq!(Filling::of(&tokenizer(&["?", "<fim_prefix>", "<|fim_suffix|>", "<fim_middle>"])), None);
    }
}
