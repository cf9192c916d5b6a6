//! Attention with grouped queries.

use super::isa::{Isa, compiled_for_each_isa, dot, exp, tanh};
use crate::{Error, Result};
use candle_core::{CpuStorage, Device, Layout, Storage, Tensor};
use rayon::prelude::*;

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

/// How scores become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// Bounds the scores smoothly: `cap * tanh(score / cap)` (Gemma 2).
    pub cap: Option<f32>,
}

impl Scores {
    /// `1 / sqrt(dim)`, no bound.
    pub fn of_width(dim: usize) -> Self {
        Self { scale: (dim as f32).sqrt().recip(), cap: None }
    }
}

/// Which positions the tokens of one pass see in a causal model.
///
/// Position `p` sees positions up to its own; with a `window` only the last `window` of them, its own included. Returns
/// `None` where every token sees everything, else `[tokens, start + tokens]` f32: 0 where token `i`, at position
/// `start + i`, sees position `j`, and minus infinity elsewhere.
///
/// # Errors
/// If a tensor operation fails.
pub fn causal_bias(start: usize, tokens: usize, window: Option<usize>) -> Result<Option<Tensor>> {
    let end = start + tokens;
    let window = window.unwrap_or(usize::MAX);
    if tokens == 1 && window >= end {
        return Ok(None);
    }
    let mut bias = vec![0f32; tokens * end];
    for (i, row) in bias.chunks_exact_mut(end).enumerate() {
        let seen = start + i + 1;
        row[seen..].fill(f32::NEG_INFINITY);
        row[..seen.saturating_sub(window)].fill(f32::NEG_INFINITY);
    }
    Ok(Some(Tensor::from_vec(bias, (tokens, end), &Device::Cpu)?))
}

/// Which tokens of a sequence see each other in an encoder whose tokens see `reach` neighbours on either side.
///
/// Returns `None` where everything is seen, else `[tokens, tokens]` as [`causal_bias`].
///
/// # Errors
/// If a tensor operation fails.
pub fn local_bias(tokens: usize, reach: usize) -> Result<Option<Tensor>> {
    if tokens <= reach + 1 {
        return Ok(None);
    }
    let mut bias = vec![0f32; tokens * tokens];
    for (i, row) in bias.chunks_exact_mut(tokens).enumerate() {
        row[..i.saturating_sub(reach)].fill(f32::NEG_INFINITY);
        row[(i + reach + 1).min(tokens)..].fill(f32::NEG_INFINITY);
    }
    Ok(Some(Tensor::from_vec(bias, (tokens, tokens), &Device::Cpu)?))
}

/// `softmax(capped(scale * q k^T) + bias) v`, each group of query heads with its own key and value head.
///
/// `q`: `[tokens, query * dim]`; `k`, `v`: `[kv, positions, dim]`, may be views of a larger cache; `bias`:
/// `[tokens, positions]`. Returns `[tokens, query * dim]`. All f32.
///
/// # Errors
/// If the shapes disagree.
pub fn attend(
    heads: Heads,
    scores: Scores,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let rule = scores;
    let (tokens, width) = q.dims2()?;
    let (kv, positions, dim) = k.dims3()?;
    if (width, kv, dim) != (heads.query * heads.dim, heads.kv, heads.dim) || v.dims() != k.dims() {
        return Err(Error::TensorShape {
            name: "q, k, v of an attention".into(),
            expected: vec![heads.query * heads.dim, heads.kv, heads.dim],
            got: vec![width, kv, dim],
        });
    }
    if tokens == 1 && bias.is_none() {
        return attend_one(heads, rule, q, k, v);
    }
    let group = heads.query / heads.kv;
    let q = (q * f64::from(rule.scale))?;
    // Rows of one kv head: its group's heads, each with all tokens, so that k and v are not repeated.
    let q = q.reshape((tokens, heads.kv, group, heads.dim))?.permute((1, 2, 0, 3))?.reshape((
        heads.kv,
        group * tokens,
        heads.dim,
    ))?;
    let scores = q.matmul(&k.t()?)?;
    let scores = match rule.cap {
        None => scores,
        Some(cap) => ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?,
    };
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

/// Multiply-adds from which on the heads of one token are worth two threads (a wake-up costs some 10 us).
const PARALLEL_FROM: usize = 2_000_000;

/// One token: reads the cache in place, each key and value once for all heads of its group.
fn attend_one(heads: Heads, scores: Scores, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let isa = Isa::active()?;
    let Scores { scale, cap } = scores;
    let q = q.flatten_all()?.to_vec1::<f32>()?;
    let (k_storage, k_layout) = k.storage_and_layout();
    let (v_storage, v_layout) = v.storage_and_layout();
    let k = head_rows(&k_storage, k_layout)?;
    let v = head_rows(&v_storage, v_layout)?;
    let group_width = q.len() / heads.kv;
    let mut out = vec![0f32; q.len()];
    let one_head = |(kv, (out, q)): (usize, (&mut [f32], &[f32]))| {
        attend_group(isa, q, k(kv), v(kv), heads.dim, scale, cap, out);
    };
    let pairs = out.chunks_exact_mut(group_width).zip(q.chunks_exact(group_width));
    if 2 * q.len() * k(0).len() / heads.dim < PARALLEL_FROM {
        pairs.enumerate().for_each(one_head);
    } else {
        out.par_chunks_exact_mut(group_width)
            .zip(q.par_chunks_exact(group_width))
            .enumerate()
            .for_each(one_head);
    }
    let width = out.len();
    Ok(Tensor::from_vec(out, (1, width), &Device::Cpu)?)
}

/// Access to the rows of each head, `[positions * dim]`, of a `[kv, positions, dim]` view.
fn head_rows<'a>(storage: &'a Storage, layout: &Layout) -> Result<impl Fn(usize) -> &'a [f32] + Sync> {
    let (&[_, positions, dim], &[head, row, 1]) = (layout.dims(), layout.stride()) else {
        return Err(layout_error(layout));
    };
    let Storage::Cpu(CpuStorage::F32(values)) = storage else { return Err(layout_error(layout)) };
    if row != dim {
        return Err(layout_error(layout));
    }
    let values = &values[layout.start_offset()..];
    Ok(move |kv: usize| &values[kv * head..kv * head + positions * dim])
}

fn layout_error(layout: &Layout) -> Error {
    Error::TensorShape {
        name: "strides of a cache, f32 on the CPU".into(),
        expected: vec![layout.dims().iter().product(), layout.dims().last().copied().unwrap_or(0), 1],
        got: layout.stride().to_vec(),
    }
}

compiled_for_each_isa! {
    /// Attention of one token for the query heads of one key head: `q`, `out`: `[group, dim]`; `k`, `v`:
    /// `[positions, dim]`.
    fn attend_group(
        q: &[f32], k: &[f32], v: &[f32], dim: usize, scale: f32, cap: Option<f32>, out: &mut [f32],
    ) = attend_group_body;
}

#[inline(always)]
fn attend_group_body(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dim: usize,
    scale: f32,
    cap: Option<f32>,
    out: &mut [f32],
) {
    let positions = k.len() / dim;
    let mut scores = vec![0f32; positions * q.len() / dim];
    for (q, scores) in q.chunks_exact(dim).zip(scores.chunks_exact_mut(positions)) {
        for (score, k) in scores.iter_mut().zip(k.chunks_exact(dim)) {
            *score = dot(q, k) * scale;
        }
        if let Some(cap) = cap {
            for score in scores.iter_mut() {
                *score = cap * tanh(*score / cap);
            }
        }
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
    }
    for (out, scores) in out.chunks_exact_mut(dim).zip(scores.chunks_exact(positions)) {
        let mut sum = 0f32;
        for (&score, v) in scores.iter().zip(v.chunks_exact(dim)) {
            sum += score;
            for (out, v) in out.iter_mut().zip(v) {
                *out += score * v;
            }
        }
        for out in out.iter_mut() {
            *out /= sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn one_token_equals_the_last_of_many() {
        for (heads, positions) in [
            (Heads { query: 6, kv: 2, dim: 16 }, 1),
            (Heads { query: 6, kv: 2, dim: 16 }, 37),
            (Heads { query: 4, kv: 4, dim: 10 }, 5),
            (Heads { query: 32, kv: 8, dim: 64 }, 600),
        ] {
            let width = heads.query * heads.dim;
            let q = random((positions, width));
            // Views of a larger cache, as in decoding.
            let k = random((heads.kv, positions + 9, heads.dim)).narrow(1, 0, positions).unwrap();
            let v = random((heads.kv, positions + 9, heads.dim)).narrow(1, 0, positions).unwrap();
            for scores in [Scores::of_width(heads.dim), Scores { scale: 0.3, cap: Some(1.5) }] {
                let bias = causal_bias(0, positions, None).unwrap();
                let all = attend(heads, scores, &q, &k, &v, bias.as_ref()).unwrap();
                let last = q.narrow(0, positions - 1, 1).unwrap();
                let one = attend(heads, scores, &last, &k, &v, None).unwrap().to_vec2::<f32>().unwrap();
                let all = all.narrow(0, positions - 1, 1).unwrap().to_vec2::<f32>().unwrap();
                for (a, b) in one[0].iter().zip(&all[0]) {
                    assert!((a - b).abs() < 1e-5, "{a}, not {b}");
                }
            }
        }
    }

    #[test]
    fn all_instruction_sets_agree() {
        let (dim, positions) = (24, 50);
        let [q, k, v] = [2, positions, positions]
            .map(|rows| random((rows, dim)).flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let run = |isa| {
            let mut out = vec![0f32; q.len()];
            attend_group(isa, &q, &k, &v, dim, 0.2, Some(4.0), &mut out);
            out
        };
        let portable = run(Isa::Portable);
        for isa in Isa::all() {
            for (a, b) in run(isa).iter().zip(&portable) {
                assert!((a - b).abs() < 1e-6, "{isa:?}: {a}, not {b}");
            }
        }
    }

    #[test]
    fn no_token_sees_the_future_or_beyond_its_window() {
        let seen = |bias: Option<Tensor>| -> Vec<Vec<usize>> {
            let rows = bias.unwrap().to_vec2::<f32>().unwrap();
            let open = |row: &Vec<f32>| (0..row.len()).filter(|&j| row[j] == 0.0).collect();
            rows.iter().map(open).collect()
        };
        assert_eq!(seen(causal_bias(2, 2, None).unwrap()), [vec![0, 1, 2], vec![0, 1, 2, 3]]);
        assert_eq!(seen(causal_bias(2, 2, Some(2)).unwrap()), [vec![1, 2], vec![2, 3]]);
        assert_eq!(seen(causal_bias(4, 1, Some(2)).unwrap()), [vec![3, 4]]);
        assert!(causal_bias(4, 1, Some(5)).unwrap().is_none());
        let four = [vec![0, 1], vec![0, 1, 2], vec![1, 2, 3], vec![2, 3]];
        assert_eq!(seen(local_bias(4, 1).unwrap()), four);
        assert!(local_bias(4, 3).unwrap().is_none());
    }
}
