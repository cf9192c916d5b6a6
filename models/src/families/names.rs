//! How files name and lay out tensors, and the one set of names that the rest of the crate uses.
//!
//! The crate's own names are those of GGUF with q, k, v, gate and up apart: `blk.3.attn_q.weight`. A family's [`Names`]
//! say what each is called in a file, which rows of a larger tensor it is, and what must be undone: other orders of rows,
//! transposed matrices, norms stored as their difference from 1. [`Canonical`] applies them.

use super::config::{ModelConfig, Positions};
use crate::formats::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;

/// How one kind of file names the tensors of a family. What follows the last dot (`weight`, `bias`) is the same in both.
pub struct Names {
    /// What may precede all names (but those that begin with `/`); the first one that fits a file is taken.
    pub roots: &'static [&'static str],
    /// What precedes a block's number.
    pub blocks: &'static str,
    /// Inside a block: the crate's name and where it is in the file. Of several rules for one name the first that the
    /// file has a tensor for holds.
    pub block: &'static [(&'static str, Rule)],
    /// Outside the blocks. A file's name that begins with `/` has no root.
    pub outer: &'static [(&'static str, Rule)],
    /// Whether names without a rule are the crate's own.
    pub identity: bool,
    /// Whether q and k have the rows of rotary pairs interleaved.
    pub interleaved: bool,
    /// Whether matrices in blocks are stored `[in, out]`.
    pub transposed: bool,
    /// What is to be added to the gain of every norm.
    pub norm_offset: f32,
}

/// Where a tensor is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A whole tensor.
    Is(&'static str),
    /// Rows of one that holds q, k and v, or gate and up, one after the other.
    Of(&'static str, Share),
    /// Rows of one that holds q (0), k (1) and v (2) of each head after each other.
    PerHead(&'static str, usize),
    /// All rows but the first ones.
    Skip(&'static str, usize),
}

/// Which part of a larger tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// First half of the feed-forward layer's first matrices.
    First,
    /// Second half.
    Second,
}

use Rule::{Is, Of, PerHead, Skip};

/// What every table of names begins from.
pub const EMPTY: Names = Names {
    roots: &[""],
    blocks: BLOCKS,
    block: &[],
    outer: &[],
    identity: false,
    interleaved: false,
    transposed: false,
    norm_offset: 0.0,
};

/// GGUF: the crate's own names, some tensors together.
pub static GGUF: Names = gguf();

/// [`GGUF`] with interleaved rotary pairs, as llama.cpp's converter stores architectures that are kin to Llama.
pub static GGUF_INTERLEAVED: Names = Names { interleaved: true, ..gguf() };

/// A copy of [`GGUF`] to vary.
pub const fn gguf() -> Names {
    Names { block: GGUF_BLOCK, identity: true, ..EMPTY }
}

const GGUF_BLOCK: &[(&str, Rule)] = &[
    ("attn_q", Is("attn_q")),
    ("attn_k", Is("attn_k")),
    ("attn_v", Is("attn_v")),
    ("attn_q", Of("attn_qkv", Share::Q)),
    ("attn_k", Of("attn_qkv", Share::K)),
    ("attn_v", Of("attn_qkv", Share::V)),
];

/// Transformers' names of the decoders whose code descends from Llama's.
pub static LLAMA: Names = llama();

/// A copy of [`LLAMA`] to vary.
pub const fn llama() -> Names {
    Names { roots: &["model."], blocks: "layers.", block: LLAMA_BLOCK, outer: LLAMA_OUTER, ..EMPTY }
}

const LLAMA_BLOCK: &[(&str, Rule)] = &[
    ("attn_norm", Is("input_layernorm")),
    ("attn_q", Is("self_attn.q_proj")),
    ("attn_k", Is("self_attn.k_proj")),
    ("attn_v", Is("self_attn.v_proj")),
    ("attn_output", Is("self_attn.o_proj")),
    ("attn_q_norm", Is("self_attn.q_norm")),
    ("attn_k_norm", Is("self_attn.k_norm")),
    ("ffn_norm", Is("post_attention_layernorm")),
    ("ffn_gate", Is("mlp.gate_proj")),
    ("ffn_up", Is("mlp.up_proj")),
    ("ffn_down", Is("mlp.down_proj")),
];

/// Names outside the blocks of [`LLAMA`].
pub const LLAMA_OUTER: &[(&str, Rule)] =
    &[("token_embd", Is("embed_tokens")), ("output_norm", Is("norm")), ("output", Is("/lm_head"))];

/// What precedes a block's number in the crate's own names.
const BLOCKS: &str = "blk.";

impl Rule {
    fn file_stem(self) -> &'static str {
        match self {
            Is(stem) | Of(stem, _) | PerHead(stem, _) | Skip(stem, _) => stem,
        }
    }
}

impl Names {
    /// The file's name of one of the crate's names, without what the file may have before it; `None` if there is none.
    /// Where a tensor is part of a larger one, that one's name.
    pub fn in_file(&self, name: &str) -> Option<String> {
        self.candidates(name, self.roots.first().copied().unwrap_or_default()).next().map(|(name, _)| name)
    }

    /// The crate's name of a whole tensor of the file.
    pub fn canonical_name(&self, name: &str) -> Option<String> {
        self.canonical_names(name, self.roots.first().copied().unwrap_or_default()).into_iter().next()
    }

    /// The crate's names of the tensors that are, or are part of, a tensor of the file.
    fn canonical_names(&self, name: &str, root: &str) -> Vec<String> {
        let Some((stem, suffix)) = name.rsplit_once('.') else { return Vec::new() };
        let under_root = stem.strip_prefix(root);
        let block =
            under_root.and_then(|stem| stem.strip_prefix(self.blocks)).and_then(|s| s.split_once('.'));
        let mut found: Vec<String> = match block {
            Some((number, part)) => {
                let fits = self.block.iter().filter(|(_, rule)| rule.file_stem() == part);
                fits.map(|(ours, _)| format!("{BLOCKS}{number}.{ours}.{suffix}")).collect()
            }
            None => {
                let fits = |rule: &Rule| match rule.file_stem().strip_prefix('/') {
                    Some(rootless) => rootless == stem,
                    None => under_root == Some(rule.file_stem()),
                };
                let fitting = self.outer.iter().filter(|(_, rule)| fits(rule));
                fitting.map(|(ours, _)| format!("{ours}.{suffix}")).collect()
            }
        };
        if found.is_empty() && self.identity {
            found.push(name.to_owned());
        }
        found
    }

    /// Where one of the crate's names may be in a file, best first.
    fn candidates<'a>(&'a self, name: &'a str, root: &'a str) -> impl Iterator<Item = (String, Rule)> + 'a {
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        let block = stem.strip_prefix(BLOCKS).and_then(|rest| rest.split_once('.'));
        let part = block.map_or(stem, |(_, part)| part);
        let table = if block.is_some() { self.block } else { self.outer };
        let rules = table.iter().filter(move |(ours, _)| *ours == part).map(|(_, rule)| *rule);
        let mut rules = rules.peekable();
        let own = (self.identity && rules.peek().is_none()).then(|| (name.to_owned(), Is("")));
        let place = move |rule: Rule| {
            let theirs = rule.file_stem();
            match (block, theirs.strip_prefix('/')) {
                (Some((number, _)), _) => format!("{root}{}{number}.{theirs}.{suffix}", self.blocks),
                (None, Some(rootless)) => format!("{rootless}.{suffix}"),
                (None, None) => format!("{root}{theirs}.{suffix}"),
            }
        };
        rules.map(move |rule| (place(rule), rule)).chain(own)
    }
}

/// A file's tensors under the crate's names.
pub struct Canonical {
    inner: Box<dyn WeightSource>,
    names: &'static Names,
    root: &'static str,
    layout: Layout,
    /// Whether the embedding is to be read from the head's tensor.
    embedding_from_head: bool,
}

/// The shapes that tell where parts of larger tensors begin.
struct Layout {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotated: usize,
    inner: usize,
}

/// A tensor of the file and what is to be done with it.
struct Place<'a> {
    name: String,
    rule: Rule,
    /// The crate's name without block and suffix.
    part: &'a str,
    suffix: &'a str,
}

/// The embedding, and a separate head.
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// Two copies of one matrix in different quantizations were seen to differ by 4.4 % (Q8_0 and Q5_0) and 7.5 % (Q6_K and
/// Q4_K) of their norm; matrices trained apart differ by more than 100 %.
const SAME_MATRIX: f64 = 0.2;
/// Rows that are compared.
const COMPARED_ROWS: usize = 64;

impl Canonical {
    /// Wraps a file of a model with this configuration.
    pub fn new(inner: Box<dyn WeightSource>, names: &'static Names, config: &ModelConfig) -> Self {
        let rotated = match &config.positions {
            Positions::Learned => 0,
            Positions::Rotary { dim, .. } => *dim,
        };
        let layout = Layout {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            rotated,
            inner: config.intermediate_size,
        };
        let holds = |root: &&&str| names.candidates(EMBEDDING, root).any(|(name, _)| inner.contains(&name));
        let root = names.roots.iter().find(holds).or(names.roots.first()).copied().unwrap_or_default();
        Self { inner, names, root, layout, embedding_from_head: false }
    }

    /// Whether the file has a head that is the embedding in another quantization, as llama.cpp's converter writes heads
    /// that are tied. From then on the head's tensor, which is the finer one, is read for both.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn unite_tied_head(&mut self) -> Result<bool> {
        let shape = self.shape(EMBEDDING);
        if shape.is_none() || self.shape(HEAD) != shape {
            return Ok(false);
        }
        let rows = shape.and_then(|shape| shape.first().copied()).unwrap_or(0);
        let step = rows.div_ceil(COMPARED_ROWS).max(1);
        let (mut difference, mut total) = (0f64, 0f64);
        for row in (0..rows).step_by(step) {
            let row = |name| -> Result<Vec<f32>> {
                Ok(self.rows(name, row..row + 1)?.flatten_all()?.to_vec1::<f32>()?)
            };
            for (a, b) in row(EMBEDDING)?.into_iter().zip(row(HEAD)?) {
                difference += f64::from(a - b).powi(2);
                total += f64::from(b).powi(2);
            }
        }
        self.embedding_from_head = difference.sqrt() < SAME_MATRIX * total.sqrt();
        Ok(self.embedding_from_head)
    }

    fn place<'a>(&self, name: &'a str) -> Option<Place<'a>> {
        let name = if self.embedding_from_head && name == EMBEDDING { HEAD } else { name };
        let (stem, suffix) = name.rsplit_once('.')?;
        let part =
            stem.strip_prefix(BLOCKS).and_then(|rest| rest.split_once('.')).map_or(stem, |(_, part)| part);
        let place = |(name, rule)| Place { name, rule, part, suffix };
        let candidates = || self.names.candidates(name, self.root);
        if let Some(found) = candidates().find(|(name, _)| self.inner.contains(name)) {
            return Some(place(found));
        }
        // The first BERT checkpoints have other names for the two vectors of a norm.
        let older = match (part.ends_with("norm"), suffix) {
            (true, "weight") => "gamma",
            (true, "bias") => "beta",
            _ => return None,
        };
        candidates().find_map(|(name, rule)| {
            let name = format!("{}.{older}", name.rsplit_once('.')?.0);
            self.inner.contains(&name).then(|| place((name, rule)))
        })
    }

    fn is_transposed(&self, place: &Place<'_>) -> bool {
        let is_matrix = |shape: Vec<usize>| shape.len() == 2;
        self.names.transposed
            && place.suffix == "weight"
            && place.name.contains(self.names.blocks)
            && self.inner.shape(&place.name).is_some_and(is_matrix)
    }

    /// Which of the file's rows a tensor is; `None` for all.
    fn taken(&self, place: &Place<'_>, rows: usize) -> Option<Range<usize>> {
        let Layout { heads, kv_heads, head_dim, inner, .. } = self.layout;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        match place.rule {
            Is(_) | PerHead(..) => None,
            Skip(_, first) => Some(first.min(rows)..rows),
            Of(_, Share::Q) => Some(0..q),
            Of(_, Share::K) => Some(q..q + kv),
            Of(_, Share::V) => Some(q + kv..q + 2 * kv),
            Of(_, Share::First) => Some(0..inner),
            Of(_, Share::Second) => Some(inner..2 * inner),
        }
    }

    /// Heads by which the rows of a tensor are to be reordered.
    fn interleaved_heads(&self, place: &Place<'_>) -> Option<usize> {
        match place.part {
            _ if !self.names.interleaved => None,
            "attn_q" => Some(self.layout.heads),
            "attn_k" => Some(self.layout.kv_heads),
            _ => None,
        }
    }

    fn offset(&self, place: &Place<'_>) -> Option<f32> {
        let is_gain = place.part.ends_with("norm") && place.suffix == "weight";
        (is_gain && self.names.norm_offset != 0.0).then_some(self.names.norm_offset)
    }
}

impl WeightSource for Canonical {
    fn names(&self) -> Vec<String> {
        let names = self.inner.names();
        let mut ours: Vec<_> =
            names.iter().flat_map(|name| self.names.canonical_names(name, self.root)).collect();
        ours.sort();
        ours.dedup();
        ours
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let place = self.place(name)?;
        let mut shape = self.inner.shape(&place.name)?;
        if self.is_transposed(&place) {
            shape.reverse();
        }
        let rows = shape.first().copied()?;
        if let Some(taken) = self.taken(&place, rows) {
            shape[0] = taken.end.min(rows).saturating_sub(taken.start);
        } else if matches!(place.rule, PerHead(..)) {
            shape[0] = rows / 3;
        }
        Some(shape)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let place = self.place(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let mut tensor = self.inner.get(&place.name)?;
        if self.is_transposed(&place) {
            tensor = tensor.t()?.contiguous()?;
        }
        let rows = tensor.dim(0)?;
        if let Some(taken) = self.taken(&place, rows) {
            if taken.end > rows || taken.is_empty() {
                return Err(Error::TensorShape {
                    name: place.name,
                    expected: vec![taken.end],
                    got: vec![rows],
                });
            }
            tensor = tensor.narrow(0, taken.start, taken.len())?.contiguous()?;
        }
        if let PerHead(_, which) = place.rule {
            tensor = part_of_heads(&tensor, self.layout.head_dim, which)?;
        }
        if let Some(heads) = self.interleaved_heads(&place) {
            tensor = half_split(&tensor, heads, self.layout.rotated)?;
        }
        match self.offset(&place) {
            Some(offset) => Ok((tensor + f64::from(offset))?),
            None => Ok(tensor),
        }
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        match self.place(name) {
            Some(place)
                if matches!(place.rule, Is(_))
                    && !self.is_transposed(&place)
                    && self.interleaved_heads(&place).is_none()
                    && self.offset(&place).is_none() =>
            {
                self.inner.rows(&place.name, rows)
            }
            _ => Ok(self.get(name)?.narrow(0, rows.start, rows.len())?.contiguous()?),
        }
    }
}

/// Of rows that are `[heads, 3, dim]` those of the part `which`.
fn part_of_heads(tensor: &Tensor, dim: usize, which: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    if dim == 0 || rows % (3 * dim) != 0 {
        return Err(Error::config("heads", format!("{rows} rows are not q, k and v of heads of {dim}")));
    }
    let rest = tensor.elem_count() / rows;
    let parts = tensor.reshape((rows / (3 * dim), 3, dim, rest))?.narrow(1, which, 1)?.contiguous()?;
    let mut shape = tensor.dims().to_vec();
    shape[0] = rows / 3;
    Ok(parts.reshape(shape)?)
}

/// Reorders the first `rotated` rows of every head from interleaved pairs (`2i`, `2i + 1`) to halves (`i`,
/// `i + rotated/2`).
fn half_split(tensor: &Tensor, heads: usize, rotated: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    if heads == 0 || rows % (2 * heads) != 0 || rotated > rows / heads {
        return Err(Error::config("heads", format!("{heads} heads do not divide {rows} rows into pairs")));
    }
    let rest = tensor.elem_count() / rows;
    let dim = rows / heads;
    let by_head = tensor.reshape((heads, dim, rest))?;
    let pairs = by_head.narrow(1, 0, rotated)?.contiguous()?.reshape((heads, rotated / 2, 2, rest))?;
    let halves = pairs.transpose(1, 2)?.contiguous()?.reshape((heads, rotated, rest))?;
    let whole = match dim - rotated {
        0 => halves,
        plain => Tensor::cat(&[&halves, &by_head.narrow(1, rotated, plain)?.contiguous()?], 1)?,
    };
    Ok(whole.reshape(tensor.shape())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn names_go_both_ways() {
        for (ours, theirs) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.11.attn_q.bias", "model.layers.11.self_attn.q_proj.bias"),
            ("output.weight", "lm_head.weight"),
        ] {
            assert_eq!(LLAMA.in_file(ours).as_deref(), Some(theirs));
            assert_eq!(LLAMA.canonical_name(theirs).as_deref(), Some(ours));
        }
        assert_eq!(LLAMA.in_file("blk.0.nothing.weight"), None);
        assert_eq!(LLAMA.canonical_name("model.layers.0.nothing.weight"), None);
        assert_eq!(GGUF.in_file("blk.0.ffn_up.weight").as_deref(), Some("blk.0.ffn_up.weight"));
    }

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap()
    }

    fn values(tensor: Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn rows_are_put_in_order() {
        let rows: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let halves = values(half_split(&column(&rows), 2, 4).unwrap());
        assert_eq!(halves, [0., 2., 1., 3., 4., 5., 6., 8., 7., 9., 10., 11.]);
        let keys = values(part_of_heads(&column(&rows), 2, 1).unwrap());
        assert_eq!(keys, [2., 3., 8., 9.]);
    }
}
