//! Causal attention with grouped queries.

use crate::Result;
use candle_core::{Device, Tensor};

/// Shape of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub kv: usize,
    /// Width of a head.
    pub dim: usize,
}

/// What tokens of one pass may look at.
///
/// Returns `None` for a single token (it sees everything), else `[tokens, start + tokens]` f32: 0 where position
/// `start + i` may see position `j`, i.e. `j <= start + i`, and minus infinity elsewhere.
///
/// # Errors
/// If a tensor operation fails.
pub fn causal_bias(start: usize, tokens: usize) -> Result<Option<Tensor>> {
    if tokens == 1 {
        return Ok(None);
    }
    let end = start + tokens;
    let mut bias = vec![0f32; tokens * end];
    for (i, row) in bias.chunks_exact_mut(end).enumerate() {
        row[start + i + 1..].fill(f32::NEG_INFINITY);
    }
    Ok(Some(Tensor::from_vec(bias, (tokens, end), &Device::Cpu)?))
}

/// `softmax(q k^T / sqrt(dim) + bias) v`, each group of query heads with its own key and value head.
///
/// `q`: `[tokens, query * dim]`; `k`, `v`: `[kv, positions, dim]`, may be views of a larger cache; `bias`:
/// `[tokens, positions]`. Returns `[tokens, query * dim]`. All f32.
///
/// # Errors
/// If the shapes disagree.
pub fn attend(heads: Heads, q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (tokens, width) = q.dims2()?;
    let group = heads.query / heads.kv;
    let (_, positions, _) = k.dims3()?;
    let q = (q / (heads.dim as f64).sqrt())?;
    // Rows of one kv head: its group's heads, each with all tokens, so that k and v are not repeated.
    let q = q.reshape((tokens, heads.kv, group, heads.dim))?.permute((1, 2, 0, 3))?.reshape((
        heads.kv,
        group * tokens,
        heads.dim,
    ))?;
    let scores = q.matmul(&k.t()?)?;
    let scores = match bias {
        None => scores,
        Some(bias) => scores
            .reshape((heads.kv, group, tokens, positions))?
            .broadcast_add(bias)?
            .reshape((heads.kv, group * tokens, positions))?,
    };
    let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)?;
    Ok(attended
        .reshape((heads.kv, group, tokens, heads.dim))?
        .permute((2, 0, 1, 3))?
        .reshape((tokens, width))?)
}
