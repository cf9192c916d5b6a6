//! Matrices and counts of a Llama-style decoder, read from its GGUF: what the shares of weights and arithmetic are
//! computed from.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use candle_core::quantized::gguf_file;
use serde::Serialize;

/// One kind of weight matrix, as many times as the model has it.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`, `lm_head`.
    pub name: &'static str,
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// How many the model has.
    pub count: usize,
}

impl Matrix {
    /// Multiply-accumulates of all of them for one token.
    #[must_use]
    pub fn macs(&self) -> f64 {
        (self.d_in * self.d_out * self.count) as f64
    }
}

/// The shape of a decoder.
#[derive(Clone, Debug, Serialize)]
pub struct ModelShape {
    /// Name given on the command line.
    pub name: String,
    /// File the shape was read from.
    #[serde(skip)]
    pub path: PathBuf,
    /// Transformer blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Vocabulary.
    pub vocabulary: usize,
    /// Whether the output head is the embedding matrix again (its weights are then counted once).
    pub tied_head: bool,
    /// Number of all weights in the file.
    pub parameters: usize,
    /// The linear layers inside the blocks.
    pub linears: Vec<Matrix>,
}

/// Where the models are kept: `$SOTTO_CACHE` or `~/.cache/sotto`.
///
/// # Errors
/// If neither `SOTTO_CACHE` nor `HOME` is set.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SOTTO_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").context("neither SOTTO_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache").join("sotto"))
}

/// The GGUF of a model: a path as it is, or the one `.gguf` in `models/<name>` of the cache.
///
/// # Errors
/// If there is none; the message names the command that fetches it.
pub fn gguf_path(model: &str) -> anyhow::Result<PathBuf> {
    let given = Path::new(model);
    if given.extension().is_some_and(|e| e == "gguf") {
        return Ok(given.to_path_buf());
    }
    let dir = cache_dir()?.join("models").join(model);
    let found = std::fs::read_dir(&dir)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "gguf"));
    found.with_context(|| {
        format!("no GGUF in {}: run `cargo run --release -- models fetch {model}`", dir.display())
    })
}

impl ModelShape {
    /// Reads the shape of `model` (a name in the cache or a path to a GGUF); tensors' data is not read.
    ///
    /// # Errors
    /// If the file is missing, is no GGUF, or is not of the Llama architecture.
    pub fn load(model: &str) -> anyhow::Result<Self> {
        let path = gguf_path(model)?;
        let mut file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let content = gguf_file::Content::read(&mut file).context("reading the GGUF header")?;
        let number = |key: &str| -> anyhow::Result<usize> {
            let value = content.metadata.get(key).with_context(|| format!("no {key} in the GGUF"))?;
            Ok(value.to_u32().with_context(|| format!("{key} is not a number"))? as usize)
        };
        let (blocks, hidden) = (number("llama.block_count")?, number("llama.embedding_length")?);
        let feed_forward = number("llama.feed_forward_length")?;
        let (heads, kv_heads) =
            (number("llama.attention.head_count")?, number("llama.attention.head_count_kv")?);
        anyhow::ensure!(
            heads > 0 && hidden % heads == 0,
            "{hidden} features do not divide into {heads} heads"
        );
        let embedding = content.tensor_infos.get("token_embd.weight").context("no token_embd.weight")?;
        let (vocabulary, width) = embedding.shape.dims2().context("token_embd.weight")?;
        anyhow::ensure!(width == hidden, "embedding width {width}, expected {hidden}");
        let head_dim = hidden / heads;
        let kv = kv_heads * head_dim;
        let matrix = |name, d_in, d_out| Matrix { name, d_in, d_out, count: blocks };
        Ok(Self {
            name: model.to_owned(),
            path,
            blocks,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            tied_head: !content.tensor_infos.contains_key("output.weight"),
            parameters: content.tensor_infos.values().map(|info| info.shape.elem_count()).sum(),
            linears: vec![
                matrix("q_proj", hidden, hidden),
                matrix("k_proj", hidden, kv),
                matrix("v_proj", hidden, kv),
                matrix("o_proj", hidden, hidden),
                matrix("gate_proj", hidden, feed_forward),
                matrix("up_proj", hidden, feed_forward),
                matrix("down_proj", feed_forward, hidden),
            ],
        })
    }

    /// The output head as a matrix (the client computes it, in clear, in sotto's plans for tied heads).
    #[must_use]
    pub fn head(&self) -> Matrix {
        Matrix { name: "lm_head", d_in: self.hidden, d_out: self.vocabulary, count: 1 }
    }

    /// Norms of the model: two in each block and the last.
    #[must_use]
    pub fn norms(&self) -> usize {
        2 * self.blocks + 1
    }

    /// Multiply-accumulates of one token at `context` positions, by part.
    #[must_use]
    pub fn arithmetic(&self, context: usize) -> Arithmetic {
        let attention = (self.blocks * self.heads * self.head_dim * context) as f64;
        Arithmetic {
            linears: self.linears.iter().map(Matrix::macs).sum(),
            head: self.head().macs(),
            norm: (2 * self.norms() * self.hidden) as f64,
            activation: (2 * self.blocks * self.feed_forward) as f64,
            softmax: (3 * self.blocks * self.heads * context) as f64,
            scores: attention,
            values: attention,
        }
    }
}

/// Multiply-accumulates (or their like: an exponential counts as one) of one token, by part.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Arithmetic {
    /// All linear layers of the blocks.
    pub linears: f64,
    /// The output head.
    pub head: f64,
    /// Square and multiply of each entry of each norm.
    pub norm: f64,
    /// Activation and gate product of each feed-forward entry.
    pub activation: f64,
    /// Exponential, sum and division of each score.
    pub softmax: f64,
    /// Query times keys.
    pub scores: f64,
    /// Weights times values.
    pub values: f64,
}

impl Arithmetic {
    /// The sum of all parts.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.linears + self.head + self.norm + self.activation + self.softmax + self.scores + self.values
    }
}
