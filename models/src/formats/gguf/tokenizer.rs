//! The tokenizer of a GGUF file, rebuilt from its metadata.

use super::{GgufFile, as_uint};
use crate::tokenizer::{SpecialTokens, Tokenizer, in_order, tokenizer_error};
use crate::{Error, Result};
use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

/// Splits contractions, words with one leading character, single digits, punctuation, line breaks and spaces.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As [`QWEN2`], with up to three digits together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The names under which files have Llama 3's pre-tokenizer.
const LLAMA3_NAMES: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];

/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: usize = 2;
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

/// Tokens that end a turn or a text, by their names in the vocabularies of chat models.
const END_OF_TURN: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_text|>",
    "<|endoftext|>",
];

/// SentencePiece's visible space.
const SPACE: &str = "\u{2581}";

impl GgufFile {
    /// Rebuilds the tokenizer: byte-level BPE (`gpt2`, with the pre-tokenizers of GPT-2, SmolLM, Llama 3 and Qwen2),
    /// SentencePiece BPE (`llama`) or WordPiece (`bert`).
    ///
    /// # Errors
    /// If the file has no tokenizer, or one of another kind.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let kind = self.string("tokenizer.ggml.model")?.ok_or_else(|| Error::Tokenizer {
            reason: format!(
                "{}: the file has no tokenizer (tokenizer.ggml.model); take one that was converted with it",
                self.path().display()
            ),
        })?;
        let tokens = self.require(
            "tokenizer.ggml.tokens",
            self.array("tokenizer.ggml.tokens", |value| match value {
                Value::String(text) => Some(text.as_str()),
                _ => None,
            })?,
        )?;
        let mut inner = match kind {
            "gpt2" => self.byte_level(&tokens)?,
            "llama" => self.sentence_piece(&tokens)?,
            "bert" => self.word_piece(&tokens)?,
            other => {
                return Err(Error::Tokenizer {
                    reason: format!("{other:?} is not supported, supported are gpt2, llama and bert"),
                });
            }
        };
        self.add_special(&mut inner, &tokens)?;
        let special = self.special_tokens(kind, &tokens)?;
        Ok(Tokenizer::new(inner, special))
    }

    fn byte_level(&self, tokens: &[&str]) -> Result<tokenizers::Tokenizer> {
        let merges = self.require(
            "tokenizer.ggml.merges",
            self.array("tokenizer.ggml.merges", |value| match value {
                Value::String(text) => text.split_once(' '),
                _ => None,
            })?,
        )?;
        let merges = merges.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())).collect();
        let pre = self.string("tokenizer.ggml.pre")?.unwrap_or("default");
        let (pre_tokenizer, ignore_merges): (PreTokenizerWrapper, bool) = match pre {
            "gpt-2" | "gpt2" | "default" | "phi-2" | "olmo" | "mpt" | "jais" => {
                (ByteLevel::new(false, true, true).into(), false)
            }
            "smollm" | "starcoder" | "refact" | "command-r" => {
                let steps = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
                (PreTokenizers::new(steps).into(), false)
            }
            pre if LLAMA3_NAMES.contains(&pre) => (split_then_bytes(LLAMA3)?, true),
            "smaug-bpe" | "dbrx" => (split_then_bytes(LLAMA3)?, false),
            "qwen2" | "deepseek-r1-qwen" => (split_then_bytes(QWEN2)?, false),
            other => {
                return Err(Error::Tokenizer {
                    reason: format!(
                        "pre-tokenizer {other:?} is not supported, supported are gpt-2, smollm, llama-bpe, qwen2"
                    ),
                });
            }
        };
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary(tokens), merges)
            .ignore_merges(ignore_merges)
            .build()
            .map_err(tokenizer_error)?;
        let mut tokenizer = tokenizers::Tokenizer::new(bpe);
        if pre.ends_with("qwen2") || pre.ends_with("-qwen") {
            tokenizer.with_normalizer(Some(NFC)).map_err(tokenizer_error)?;
        }
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        Ok(tokenizer)
    }

    /// SentencePiece BPE: merges are not stored; a pair may merge if the result is a piece, best score first.
    fn sentence_piece(&self, tokens: &[&str]) -> Result<tokenizers::Tokenizer> {
        use tokenizers::decoders::byte_fallback::ByteFallback;
        use tokenizers::decoders::fuse::Fuse;
        use tokenizers::decoders::sequence::Sequence as Decoders;
        use tokenizers::decoders::strip::Strip;

        let scores = self.require(
            "tokenizer.ggml.scores",
            self.array("tokenizer.ggml.scores", |value| match value {
                Value::F32(score) => Some(*score),
                _ => None,
            })?,
        )?;
        if scores.len() != tokens.len() {
            return Err(Error::Tokenizer {
                reason: format!("{} tokens have {} scores", tokens.len(), scores.len()),
            });
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(vocabulary(tokens), merges_from_scores(tokens, &scores))
            .byte_fallback(true)
            .fuse_unk(true);
        let unknown = self.uint("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
        if let Some(token) = tokens.get(unknown) {
            builder = builder.unk_token((*token).to_owned());
        }
        let mut tokenizer = tokenizers::Tokenizer::new(builder.build().map_err(tokenizer_error)?);
        let replace = Replace::new(" ", SPACE).map_err(tokenizer_error)?;
        let add_space = self.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let mut steps = vec![replace.into()];
        if add_space {
            steps.insert(0, Prepend::new(SPACE.to_owned()).into());
        }
        tokenizer.with_normalizer(Some(Normalizers::new(steps))).map_err(tokenizer_error)?;
        let mut steps = vec![
            Replace::new(SPACE, " ").map_err(tokenizer_error)?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if add_space {
            steps.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(Decoders::new(steps)));
        Ok(tokenizer)
    }

    /// WordPiece: GGUF marks the pieces that begin a word, WordPiece those that go on. Whether text is lower-cased first
    /// is not stored; a vocabulary without a capital letter says that it is.
    fn word_piece(&self, tokens: &[&str]) -> Result<tokenizers::Tokenizer> {
        use tokenizers::decoders::wordpiece::WordPiece as Decoder;
        use tokenizers::models::wordpiece::WordPiece;
        use tokenizers::normalizers::bert::BertNormalizer;
        use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

        let is_special = |token: &str| token.starts_with('[') && token.ends_with(']');
        let piece = |token: &str| match token.strip_prefix(SPACE) {
            Some(word) => word.to_owned(),
            None if is_special(token) => token.to_owned(),
            None => format!("##{token}"),
        };
        let vocabulary: tokenizers::models::bpe::Vocab =
            tokens.iter().enumerate().map(|(id, token)| (piece(token), id as u32)).collect();
        let unknown = match self.uint("tokenizer.ggml.unknown_token_id")?.and_then(|id| tokens.get(id)) {
            Some(token) => piece(token),
            None => "[UNK]".to_owned(),
        };
        let has_capitals = |token: &&str| {
            !is_special(token.trim_start_matches(SPACE)) && token.contains(|c: char| c.is_ascii_uppercase())
        };
        let lowercase = !tokens.iter().any(has_capitals);
        let model =
            WordPiece::builder().vocab(vocabulary).unk_token(unknown).build().map_err(tokenizer_error)?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        let normalizer = BertNormalizer::new(true, true, None, lowercase);
        tokenizer.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.with_decoder(Some(Decoder::default()));
        Ok(tokenizer)
    }

    /// Marks control and user-defined tokens, so that they are never split, and control tokens are left out on decoding.
    fn add_special(&self, tokenizer: &mut tokenizers::Tokenizer, tokens: &[&str]) -> Result<()> {
        let types = self.array("tokenizer.ggml.token_type", as_uint)?.unwrap_or_default();
        let added: Vec<AddedToken> = types
            .iter()
            .zip(tokens)
            .filter_map(|(&kind, &token)| match kind {
                UNKNOWN | CONTROL => Some(AddedToken::from(token, true).normalized(false)),
                USER_DEFINED => Some(AddedToken::from(token, false).normalized(false)),
                _ => None,
            })
            .collect();
        tokenizer.add_tokens(added).map_err(tokenizer_error)?;
        Ok(())
    }

    fn special_tokens(&self, kind: &str, tokens: &[&str]) -> Result<SpecialTokens> {
        let id = |key: &str| -> Result<Option<u32>> {
            let found = self.uint(&format!("tokenizer.ggml.{key}"))?;
            Ok(found.and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < tokens.len()))
        };
        let mut eos: Vec<u32> = Vec::new();
        for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
            eos.extend(id(key)?);
        }
        // Files of chat models often name only the token that ends a text, not the one that ends a turn.
        for name in END_OF_TURN {
            eos.extend(tokens.iter().position(|token| *token == name).and_then(|i| u32::try_from(i).ok()));
        }
        // As llama.cpp has it: SentencePiece and Llama 3 begin a text with it unless the file says otherwise.
        let pre = self.string("tokenizer.ggml.pre")?;
        let by_default = kind == "llama" || pre.is_some_and(|pre| LLAMA3_NAMES.contains(&pre));
        let add_bos = self.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(by_default);
        Ok(SpecialTokens { bos: id("bos_token_id")?, eos: in_order(eos), add_bos })
    }
}

fn vocabulary(tokens: &[&str]) -> tokenizers::models::bpe::Vocab {
    tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id as u32)).collect()
}

fn split_then_bytes(pattern: &str) -> Result<PreTokenizerWrapper> {
    let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
        .map_err(tokenizer_error)?;
    Ok(PreTokenizers::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into())
}

/// Every way to put a piece together from two pieces, pieces with higher scores first.
fn merges_from_scores(tokens: &[&str], scores: &[f32]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges: Vec<(f32, usize, usize)> = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                merges.push((score, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    merges.into_iter().map(|(_, left, right)| (tokens[left].to_owned(), tokens[right].to_owned())).collect()
}
