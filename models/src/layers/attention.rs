//! Attention with grouped queries.

use super::simd::{Isa, compiled_for_each_isa, dot, exp};
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
    let (kv, positions, dim) = k.dims3()?;
    if (width, kv, dim) != (heads.query * heads.dim, heads.kv, heads.dim) || v.dims() != k.dims() {
        return Err(Error::TensorShape {
            name: "q, k, v of an attention".into(),
            expected: vec![heads.query * heads.dim, heads.kv, heads.dim],
            got: vec![width, kv, dim],
        });
    }
    if tokens == 1 && bias.is_none() {
        return attend_one(heads, q, k, v);
    }
    let group = heads.query / heads.kv;
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

/// Multiply-adds from which on the heads of one token are worth two threads (a wake-up costs some 10 us).
const PARALLEL_FROM: usize = 2_000_000;

/// One token: reads the cache in place, each key and value once for all heads of its group.
fn attend_one(heads: Heads, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let q = q.flatten_all()?.to_vec1::<f32>()?;
    let (k_storage, k_layout) = k.storage_and_layout();
    let (v_storage, v_layout) = v.storage_and_layout();
    let k = head_rows(&k_storage, k_layout)?;
    let v = head_rows(&v_storage, v_layout)?;
    let group_width = q.len() / heads.kv;
    let mut out = vec![0f32; q.len()];
    let one_head = |(kv, (out, q)): (usize, (&mut [f32], &[f32]))| {
        attend_group(Isa::best(), q, k(kv), v(kv), heads.dim, out);
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
    fn attend_group(q: &[f32], k: &[f32], v: &[f32], dim: usize, out: &mut [f32]) = attend_group_body;
}

#[inline(always)]
fn attend_group_body(q: &[f32], k: &[f32], v: &[f32], dim: usize, out: &mut [f32]) {
    let positions = k.len() / dim;
    let scale = (dim as f32).sqrt().recip();
    let mut scores = vec![0f32; positions * q.len() / dim];
    for (q, scores) in q.chunks_exact(dim).zip(scores.chunks_exact_mut(positions)) {
        for (score, k) in scores.iter_mut().zip(k.chunks_exact(dim)) {
            *score = dot(q, k) * scale;
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
            let bias = causal_bias(0, positions).unwrap();
            let all = attend(heads, &q, &k, &v, bias.as_ref()).unwrap();
            let last = q.narrow(0, positions - 1, 1).unwrap();
            let one = attend(heads, &last, &k, &v, None).unwrap().to_vec2::<f32>().unwrap();
            let all = all.narrow(0, positions - 1, 1).unwrap().to_vec2::<f32>().unwrap();
            for (a, b) in one[0].iter().zip(&all[0]) {
                assert!((a - b).abs() < 1e-5, "{a}, not {b}");
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
            attend_group(isa, &q, &k, &v, dim, &mut out);
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
    fn nobody_sees_the_future() {
        let bias = causal_bias(2, 3).unwrap().unwrap().to_vec2::<f32>().unwrap();
        let visible: Vec<usize> =
            bias.iter().map(|row| row.iter().filter(|value| **value == 0.0).count()).collect();
        assert_eq!(visible, [3, 4, 5]);
        assert!(
            bias.iter().all(|row| row.iter().skip_while(|value| **value == 0.0).all(|v| v.is_infinite()))
        );
    }
}
