//! The local operations of one encoder layer.

use super::Config;
use super::plan::{
    ATTENTION_NORM, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT, OUTPUT_NORM, QKV, bias_name, in_layer,
};
use crate::Result;
use crate::layers::attention::{Heads, attend};
use crate::layers::layer_norm::LayerNorm;
use crate::split::plan::PlanKind;
use crate::weights::WeightSource;
use candle_core::Tensor;
use std::ops::Range;

/// Norms and biases of one layer. Its linear layers are elsewhere.
pub(super) struct Layer {
    pub(super) qkv_biases: [Tensor; 3],
    pub(super) attention_bias: Tensor,
    pub(super) attention_norm: LayerNorm,
    pub(super) intermediate_bias: Tensor,
    pub(super) output_bias: Tensor,
    pub(super) output_norm: LayerNorm,
}

impl Layer {
    pub(super) fn new(config: &Config, kind: PlanKind, i: usize, local: &dyn WeightSource) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let fused = kind == PlanKind::Fused;
        let bias = |name: &str, width: usize, folded: bool| {
            local.get_shaped(&bias_name(&in_layer(i, name), folded), &[width])
        };
        let norm = |name| LayerNorm::load(local, &in_layer(i, name), hidden, config.layer_norm_eps);
        // The first layer's q, k and v stand behind the embedding's norm, which is never folded.
        let [q, k, v] = QKV.map(|name| bias(name, hidden, fused && i > 0));
        Ok(Self {
            qkv_biases: [q?, k?, v?],
            attention_bias: bias(ATTENTION_OUTPUT, hidden, false)?,
            attention_norm: norm(ATTENTION_NORM)?,
            intermediate_bias: bias(INTERMEDIATE, inner, fused)?,
            output_bias: bias(OUTPUT, hidden, false)?,
            output_norm: norm(OUTPUT_NORM)?,
        })
    }

    /// Attention of the tokens of each sequence over their own sequence: `qkv` `[tokens, hidden]` each, without
    /// biases; returns `[tokens, hidden]`.
    pub(super) fn attend(
        &self,
        heads: Heads,
        sequences: &[Range<usize>],
        qkv: [Tensor; 3],
    ) -> Result<Tensor> {
        let [q, k, v] = qkv;
        let [q_bias, k_bias, v_bias] = &self.qkv_biases;
        let q = q.broadcast_add(q_bias)?;
        let k = k.broadcast_add(k_bias)?;
        let v = v.broadcast_add(v_bias)?;
        let per_head = |x: &Tensor, sequence: &Range<usize>| -> Result<Tensor> {
            let tokens = sequence.len();
            let x = x.narrow(0, sequence.start, tokens)?;
            Ok(x.reshape((tokens, heads.kv, heads.dim))?.transpose(0, 1)?.contiguous()?)
        };
        let attended = sequences
            .iter()
            .map(|sequence| {
                let q = q.narrow(0, sequence.start, sequence.len())?;
                attend(heads, &q, &per_head(&k, sequence)?, &per_head(&v, sequence)?, None)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&attended, 0)?)
    }
}
