//! Rounds of the Llama family.
//!
//! Plain, per block: q, k, v from the normed residual; the attention's output; gate and up; down. An untied head is a
//! round of its own. Norm gains stay on the client.
//!
//! Fused: the norm `G h / rms(h)` is linear up to a scalar that the client computes itself, so linear maps are chained
//! through it. With `(x; y)` for concatenated inputs:
//!
//! * first: `h -> W_qkv G h`
//! * per block: `(a; h) -> W_o a` and `W_gu G (h + W_o a)`, the latter as `[W_gu G W_o | W_gu G]`
//! * per block: `(m; h') -> W_down m` and the next block's `W_qkv G' (h' + W_down m)`; behind the last block an untied
//!   head takes the place of q, k and v.

use super::Config;
use crate::config::{Family, SplitFamily};
use crate::split::plan::{PlanKind, PlanMatrix, PlanRound, SplitPlan};
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;

/// Rounds per block in the plain plan.
pub(super) const PLAIN_ROUNDS: usize = 4;
/// Rounds per block in the fused plan.
pub(super) const FUSED_ROUNDS: usize = 2;

impl SplitFamily for Config {
    fn family(&self) -> Family {
        self.architecture
    }

    fn plan(&self, kind: PlanKind) -> Result<SplitPlan> {
        self.validate()?;
        let rounds = match kind {
            PlanKind::Plain => self.plain_rounds(),
            PlanKind::Fused => self.fused_rounds(),
        };
        Ok(SplitPlan { kind, rounds })
    }

    fn round_weights(
        &self,
        source: &dyn WeightSource,
        plan: &SplitPlan,
        round: usize,
    ) -> Result<Vec<Tensor>> {
        if round >= plan.rounds.len() {
            return Err(Error::RoundShape {
                round,
                expected: format!("a round below {}", plan.rounds.len()),
                got: round.to_string(),
            });
        }
        match plan.kind {
            PlanKind::Plain => plan.rounds[round]
                .matrices
                .iter()
                .map(|m| source.get_shaped(&format!("{}.weight", m.name), &[m.rows, m.columns.len()]))
                .collect(),
            PlanKind::Fused => self.fused_weights(source, round),
        }
    }

    fn local_tensors(&self, source: &dyn WeightSource, kind: PlanKind) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        let mut take = |name: String, shape: &[usize]| -> Result<()> {
            let tensor = source.get_shaped(&name, shape)?;
            tensors.push((name, tensor));
            Ok(())
        };
        let hidden = self.hidden_size;
        take("token_embd.weight".into(), &[self.vocab_size, hidden])?;
        if kind == PlanKind::Plain || self.tied_head {
            take("output_norm.weight".into(), &[hidden])?;
        }
        for i in 0..self.blocks {
            if kind == PlanKind::Plain {
                take(format!("blk.{i}.attn_norm.weight"), &[hidden])?;
                take(format!("blk.{i}.ffn_norm.weight"), &[hidden])?;
            }
            if self.qkv_bias {
                take(format!("blk.{i}.attn_q.bias"), &[self.q_width()])?;
                take(format!("blk.{i}.attn_k.bias"), &[self.kv_width()])?;
                take(format!("blk.{i}.attn_v.bias"), &[self.kv_width()])?;
            }
            if self.qk_norm {
                take(format!("blk.{i}.attn_q_norm.weight"), &[self.head_dim])?;
                take(format!("blk.{i}.attn_k_norm.weight"), &[self.head_dim])?;
            }
        }
        Ok(tensors)
    }
}

impl Config {
    /// Rounds of q, k and v of block `i`, on columns `0..width`.
    fn qkv(&self, i: usize, width: usize) -> [PlanMatrix; 3] {
        [("attn_q", self.q_width()), ("attn_k", self.kv_width()), ("attn_v", self.kv_width())]
            .map(|(name, rows)| PlanMatrix { name: format!("blk.{i}.{name}"), rows, columns: 0..width })
    }

    fn gate_up(&self, i: usize, width: usize) -> [PlanMatrix; 2] {
        ["ffn_gate", "ffn_up"].map(|name| PlanMatrix {
            name: format!("blk.{i}.{name}"),
            rows: self.intermediate_size,
            columns: 0..width,
        })
    }

    /// The attention's output or the down projection: `width` columns onto the residual.
    fn onto_residual(&self, i: usize, name: &str, width: usize) -> PlanMatrix {
        PlanMatrix { name: format!("blk.{i}.{name}"), rows: self.hidden_size, columns: 0..width }
    }

    fn head(&self, width: usize) -> PlanMatrix {
        PlanMatrix { name: "output".into(), rows: self.vocab_size, columns: 0..width }
    }

    fn plain_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner, q) = (self.hidden_size, self.intermediate_size, self.q_width());
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrices| rounds.push(PlanRound { name, d_in, matrices });
        for i in 0..self.blocks {
            push(format!("blk.{i}.qkv"), hidden, self.qkv(i, hidden).into());
            push(format!("blk.{i}.attn_out"), q, vec![self.onto_residual(i, "attn_output", q)]);
            push(format!("blk.{i}.gate_up"), hidden, self.gate_up(i, hidden).into());
            push(format!("blk.{i}.down"), inner, vec![self.onto_residual(i, "ffn_down", inner)]);
        }
        if !self.tied_head {
            push("head".into(), hidden, vec![self.head(hidden)]);
        }
        rounds
    }

    fn fused_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner, q) = (self.hidden_size, self.intermediate_size, self.q_width());
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrices| rounds.push(PlanRound { name, d_in, matrices });
        push("blk.0.qkv".into(), hidden, self.qkv(0, hidden).into());
        for i in 0..self.blocks {
            let mut matrices = vec![self.onto_residual(i, "attn_output", q)];
            matrices.extend(self.gate_up(i, q + hidden));
            push(format!("blk.{i}.attn_out_gate_up"), q + hidden, matrices);

            let mut matrices = vec![self.onto_residual(i, "ffn_down", inner)];
            let (name, d_in) = if i + 1 < self.blocks {
                matrices.extend(self.qkv(i + 1, inner + hidden));
                (format!("blk.{i}.down_qkv"), inner + hidden)
            } else if self.tied_head {
                (format!("blk.{i}.down"), inner)
            } else {
                matrices.push(self.head(inner + hidden));
                (format!("blk.{i}.down_head"), inner + hidden)
            };
            push(name, d_in, matrices);
        }
        rounds
    }

    fn fused_weights(&self, source: &dyn WeightSource, round: usize) -> Result<Vec<Tensor>> {
        let hidden = self.hidden_size;
        if round == 0 {
            return self.gained_qkv(source, 0);
        }
        let i = (round - 1) / FUSED_ROUNDS;
        let (onto_residual, behind) = if round % FUSED_ROUNDS == 1 {
            let w_o = self.linear(source, i, "attn_output", [hidden, self.q_width()])?;
            let gain = source.get_shaped(&format!("blk.{i}.ffn_norm.weight"), &[hidden])?;
            let behind = ["ffn_gate", "ffn_up"]
                .map(|name| self.linear(source, i, name, [self.intermediate_size, hidden]))
                .into_iter()
                .map(|weight| Ok(weight?.broadcast_mul(&gain)?))
                .collect::<Result<Vec<_>>>()?;
            (w_o, behind)
        } else {
            let w_down = self.linear(source, i, "ffn_down", [hidden, self.intermediate_size])?;
            let behind = if i + 1 < self.blocks {
                self.gained_qkv(source, i + 1)?
            } else if self.tied_head {
                Vec::new()
            } else {
                let gain = source.get_shaped("output_norm.weight", &[hidden])?;
                let head = source.get_shaped("output.weight", &[self.vocab_size, hidden])?;
                vec![head.broadcast_mul(&gain)?]
            };
            (w_down, behind)
        };
        let mut matrices = Vec::with_capacity(1 + behind.len());
        for gained in &behind {
            matrices.push(Tensor::cat(&[&gained.matmul(&onto_residual)?, gained], 1)?);
        }
        matrices.insert(0, onto_residual);
        Ok(matrices)
    }

    /// `W G` for q, k and v of block `i`.
    fn gained_qkv(&self, source: &dyn WeightSource, i: usize) -> Result<Vec<Tensor>> {
        let gain = source.get_shaped(&format!("blk.{i}.attn_norm.weight"), &[self.hidden_size])?;
        self.qkv(i, self.hidden_size)
            .iter()
            .map(|m| {
                let weight = source.get_shaped(&format!("{}.weight", m.name), &[m.rows, self.hidden_size])?;
                Ok(weight.broadcast_mul(&gain)?)
            })
            .collect()
    }

    fn linear(&self, source: &dyn WeightSource, i: usize, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        source.get_shaped(&format!("blk.{i}.{name}.weight"), &shape)
    }
}
