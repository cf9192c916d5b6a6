//! The local operations of one block: attention over the cache or over sequences, norms, the feed-forward function.

use crate::families::config::{Form, ModelConfig, QkNorm};
use crate::formats::WeightSource;
use crate::local_ops::activation::{Activation, activate, gate};
use crate::local_ops::attention::{Heads, Scores, attend, causal_bias, local_bias};
use crate::local_ops::kv_cache::KvCache;
use crate::local_ops::norm::{Norm, NormKind};
use crate::local_ops::rope::Rope;
use crate::split::plan::PlanKind;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Which tokens a pass runs over.
pub(super) enum Tokens<'a> {
    /// New tokens of one or several texts, laid end to end; each attends only to its own text.
    Cached(&'a mut [NewTokens<'a>]),
    /// Whole sequences laid end to end, each of which attends only to itself.
    Sequences(&'a [Range<usize>]),
}

/// New tokens of one text, after `start` that are in its caches, of which each block has one.
pub(super) struct NewTokens<'a> {
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) caches: &'a mut [KvCache],
}

/// Up to this many tokens, each attends by itself: as fast, and exactly as if it had a pass of its own.
const ONE_BY_ONE: usize = 16;

/// What the blocks of a pass share.
pub(super) struct Shared<'a, 'r> {
    pub(super) tokens: Tokens<'a>,
    pub(super) ropes: &'r [Rope],
    /// The bias of scores for each start, number of tokens and window.
    biases: Biases,
}

#[derive(Default)]
struct Biases(HashMap<(usize, usize, Option<usize>), Option<Tensor>>);

impl Biases {
    fn get(
        &mut self,
        key: (usize, usize, Option<usize>),
        make: impl FnOnce() -> Result<Option<Tensor>>,
    ) -> Result<Option<Tensor>> {
        if let Some(bias) = self.0.get(&key) {
            return Ok(bias.clone());
        }
        let bias = make()?;
        self.0.insert(key, bias.clone());
        Ok(bias)
    }
}

impl<'a, 'r> Shared<'a, 'r> {
    pub(super) fn new(tokens: Tokens<'a>, ropes: &'r [Rope]) -> Self {
        Self { tokens, ropes, biases: Biases::default() }
    }
}

/// One block. Its linear layers are elsewhere.
pub(super) struct Block {
    /// Before attention and feed-forward layer; `None` where there is none or it is folded.
    pub(super) before: [Option<Norm>; 2],
    /// Of what attention and feed-forward layer add to the residual.
    pub(super) of_branch: [Option<Norm>; 2],
    /// Of the residual, after either was added.
    pub(super) of_residual: [Option<Norm>; 2],
    /// Whether the products of q, k and v, and of gate and up, are those of layers with a folded norm.
    pub(super) folded: [bool; 2],
    /// Biases of the attention's output and of down.
    pub(super) added: [Option<Tensor>; 2],
    inner_biases: Vec<Option<Vec<f32>>>,
    activation: Activation,
    pub(super) attention: Attention,
}

/// The attention of a block.
pub(super) struct Attention {
    /// Index of the block.
    block: usize,
    biases: [Option<Vec<f32>>; 3],
    norms: Option<[Norm; 2]>,
    heads: Heads,
    scores: Scores,
    window: Option<usize>,
    rope: Option<usize>,
}

impl Block {
    pub(super) fn new(
        config: &ModelConfig,
        kind: PlanKind,
        i: usize,
        local: &dyn WeightSource,
    ) -> Result<Self> {
        let hidden = config.hidden_size;
        let norm = |name: &str| {
            let settings = config.norm;
            Norm::load(local, name, hidden, settings.kind, settings.eps, settings.bias)
        };
        let bias = |name: &str, rows: usize| -> Result<Vec<f32>> {
            Ok(local.get_shaped(&format!("{name}.bias"), &[rows])?.to_vec1()?)
        };
        let in_block = |name: &str| format!("blk.{i}.{name}");
        let pair = |holds: bool, names: [&str; 2]| -> Result<[Option<Norm>; 2]> {
            match holds {
                true => Ok([Some(norm(&in_block(names[0]))?), Some(norm(&in_block(names[1]))?)]),
                false => Ok([None, None]),
            }
        };
        let mut before = [None, None];
        if kind == PlanKind::Plain {
            for (before, name) in before.iter_mut().zip(config.norms_before(i)) {
                *before = name.map(|name| norm(&name)).transpose()?;
            }
            if config.form == Form::ParallelTwoNorms {
                // Gains are in the linear layers, so that both read the same input.
                before[0] = Some(Norm::bare(config.norm.kind, hidden, config.norm.eps)?);
            }
        }
        let (qkv, inner) = (config.qkv(i), config.inner(i));
        let read_bias = |linear: &crate::families::plan::Linear| -> Result<Option<Vec<f32>>> {
            config.adds_bias(linear, kind).then(|| bias(&linear.name, linear.rows)).transpose()
        };
        let mut added = [None, None];
        for ((added, linear), has) in
            added.iter_mut().zip(config.adding(i)).zip([config.biases.attn_out, config.biases.down])
        {
            if has {
                *added = Some(local.get_shaped(&format!("{}.bias", linear.name), &[linear.rows])?);
            }
        }
        let [q, k, v] = qkv.each_ref().map(read_bias);
        Ok(Self {
            before,
            of_branch: pair(config.form.norms_branches(), ["post_attention_norm", "post_ffw_norm"])?,
            of_residual: pair(config.form == Form::Residual, ["attn_output_norm", "layer_output_norm"])?,
            folded: [&qkv[0], &inner[0]].map(|linear| kind == PlanKind::Fused && config.folds(linear, kind)),
            added,
            inner_biases: inner.iter().map(read_bias).collect::<Result<_>>()?,
            activation: config.activation,
            attention: Attention::new(config, i, local, [q?, k?, v?])?,
        })
    }

    /// The feed-forward function of the products of gate and up, or of up alone, without biases; `factors` are those of a
    /// folded norm.
    pub(super) fn feed(&self, products: &[Tensor], factors: Option<&[f32]>) -> Result<Tensor> {
        match (products, self.inner_biases.as_slice()) {
            ([up], [bias]) => activate(self.activation, up, factors, bias.as_deref()),
            ([first, up], [first_bias, up_bias]) => {
                let first = scaled_and_biased(first, factors, first_bias.as_deref())?;
                let up = scaled_and_biased(up, factors, up_bias.as_deref())?;
                gate(self.activation, &first, &up)
            }
            (products, biases) => Err(Error::TensorShape {
                name: "products of a feed-forward layer".to_owned(),
                expected: vec![biases.len()],
                got: vec![products.len()],
            }),
        }
    }
}

impl Attention {
    fn new(
        config: &ModelConfig,
        i: usize,
        local: &dyn WeightSource,
        biases: [Option<Vec<f32>>; 3],
    ) -> Result<Self> {
        let widths = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some([config.head_dim; 2]),
            QkNorm::Whole => Some([config.q_width(), config.kv_width()]),
        };
        let norm = |name: &str, width: usize| {
            let gain = local.get_shaped(&format!("blk.{i}.{name}.weight"), &[width])?;
            Norm::new(NormKind::Rms, &gain, config.norm.eps)
        };
        let norms = match widths {
            None => None,
            Some([q, k]) => Some([norm("attn_q_norm", q)?, norm("attn_k_norm", k)?]),
        };
        let block = config.block_attention(i);
        Ok(Self {
            block: i,
            biases,
            norms,
            heads: config.attention_heads(),
            scores: config.scores(),
            window: block.window,
            rope: block.rope,
        })
    }

    /// Attention of the pass's tokens: over the cache, to which their keys and values are written, or over their own
    /// sequences.
    ///
    /// `qkv`: the three products, `[tokens, rows]`, without biases; `factors` are those of a folded norm. Returns
    /// `[tokens, heads * head_dim]`.
    pub(super) fn attend(
        &self,
        shared: &mut Shared<'_, '_>,
        qkv: [Tensor; 3],
        factors: Option<&[f32]>,
    ) -> Result<Tensor> {
        let Heads { query, kv, dim } = self.heads;
        let [q, k, v] = qkv;
        let q = self.positioned(shared, &q, factors, 0, query)?;
        let k = self.positioned(shared, &k, factors, 1, kv)?;
        let v = self.values(&v, factors, 2, kv)?;
        let rows = |values: Vec<f32>, width: usize| -> Result<Tensor> {
            let tokens = values.len() / width;
            Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
        };
        let (q, k, v) = (rows(q, query * dim)?, rows(k, kv * dim)?, rows(v, kv * dim)?);
        let per_head = |x: &Tensor| -> Result<Tensor> {
            let (tokens, _) = x.dims2()?;
            Ok(x.reshape((tokens, kv, dim))?.transpose(0, 1)?.contiguous()?)
        };
        let Shared { tokens, biases, .. } = shared;
        match tokens {
            Tokens::Cached(texts) => {
                let mut first = 0;
                let mut attended = Vec::with_capacity(texts.len());
                for text in texts.iter_mut() {
                    let own = |x: &Tensor| x.narrow(0, first, text.count);
                    let (q, k, v) = (own(&q)?, per_head(&own(&k)?)?, per_head(&own(&v)?)?);
                    let (k, v) = text.caches[self.block].write(text.start, &k, &v)?;
                    attended.extend(self.attend_text(text.start, text.count, &q, &k, &v, biases)?);
                    first += text.count;
                }
                together(attended)
            }
            Tokens::Sequences(sequences) => {
                let sequences: &[Range<usize>] = sequences;
                let attended = sequences
                    .iter()
                    .map(|sequence| {
                        let own = |x: &Tensor| x.narrow(0, sequence.start, sequence.len());
                        let (tokens, window) = (sequence.len(), self.window);
                        let bias = biases.get((0, tokens, window), || match window {
                            Some(reach) => local_bias(tokens, reach),
                            None => Ok(None),
                        })?;
                        let (k, v) = (per_head(&own(&k)?)?, per_head(&own(&v)?)?);
                        attend(self.heads, self.scores, &own(&q)?, &k, &v, bias.as_ref())
                    })
                    .collect::<Result<Vec<_>>>()?;
                together(attended)
            }
        }
    }

    /// Attention of `count` new tokens of one text over its cache, `k` and `v`: `[kv, start + count, dim]`.
    fn attend_text(
        &self,
        start: usize,
        count: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        biases: &mut Biases,
    ) -> Result<Vec<Tensor>> {
        if count > ONE_BY_ONE {
            let bias = biases.get((start, count, self.window), || causal_bias(start, count, self.window))?;
            return Ok(vec![attend(self.heads, self.scores, q, k, v, bias.as_ref())?]);
        }
        let one = |i: usize| {
            let end = start + i + 1;
            let seen = self.window.map_or(end, |window| window.min(end));
            // One token needs no bias over what it does not see.
            let view = |x: &Tensor| x.narrow(1, end - seen, seen);
            attend(self.heads, self.scores, &q.narrow(0, i, 1)?, &view(k)?, &view(v)?, None)
        };
        (0..count).map(one).collect()
    }

    /// q (`which` 0) or k (1) with bias, norm and rotation.
    fn positioned(
        &self,
        shared: &Shared<'_, '_>,
        x: &Tensor,
        factors: Option<&[f32]>,
        which: usize,
        heads: usize,
    ) -> Result<Vec<f32>> {
        let mut values = self.values(x, factors, which, heads)?;
        if let Some(norms) = &self.norms {
            norms[which].apply_slice(&mut values);
        }
        let Some(rope) = self.rope.and_then(|table| shared.ropes.get(table)) else { return Ok(values) };
        let (dim, width) = (self.heads.dim, heads * self.heads.dim);
        match &shared.tokens {
            Tokens::Cached(texts) => {
                let mut rest = &mut values[..];
                for text in texts.iter() {
                    let (own, others) = rest.split_at_mut(text.count * width);
                    rope.rotate(own, width, dim, text.start);
                    rest = others;
                }
            }
            Tokens::Sequences(sequences) => {
                for sequence in *sequences {
                    let own = &mut values[sequence.start * width..sequence.end * width];
                    rope.rotate(own, width, dim, 0);
                }
            }
        }
        Ok(values)
    }

    /// The values of one of q, k, v with its bias.
    fn values(&self, x: &Tensor, factors: Option<&[f32]>, which: usize, heads: usize) -> Result<Vec<f32>> {
        let (tokens, width) = x.dims2()?;
        if width != heads * self.heads.dim {
            return Err(Error::TensorShape {
                name: ["q", "k", "v"][which].into(),
                expected: vec![tokens, heads * self.heads.dim],
                got: vec![tokens, width],
            });
        }
        let mut values = x.flatten_all()?.to_vec1::<f32>()?;
        scale_and_bias(&mut values, width, factors, self.biases[which].as_deref());
        Ok(values)
    }
}

/// The rows of all tensors, one after another.
fn together(mut rows: Vec<Tensor>) -> Result<Tensor> {
    match rows.len() {
        1 => Ok(rows.remove(0)),
        _ => Ok(Tensor::cat(&rows, 0)?),
    }
}

/// `factor * x + bias` over each row of `x`, `[tokens, width]` f32.
pub(super) fn scaled_and_biased(x: &Tensor, factors: Option<&[f32]>, bias: Option<&[f32]>) -> Result<Tensor> {
    if factors.is_none() && bias.is_none() {
        return Ok(x.clone());
    }
    let (tokens, width) = x.dims2()?;
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    scale_and_bias(&mut values, width, factors, bias);
    Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
}

fn scale_and_bias(values: &mut [f32], width: usize, factors: Option<&[f32]>, bias: Option<&[f32]>) {
    if let Some(factors) = factors {
        for (row, factor) in values.chunks_exact_mut(width).zip(factors) {
            for value in row {
                *value *= factor;
            }
        }
    }
    if let Some(bias) = bias {
        for row in values.chunks_exact_mut(width) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    }
}
