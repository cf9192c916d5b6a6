//! Rounds of GPT-2. Names are Hugging Face's, without the `transformer.` in front.
//!
//! Plain, per block: `attn.c_attn` (q, k and v in one), `attn.c_proj`, `mlp.c_fc`, `mlp.c_proj`, of the normed residual.
//!
//! Fused, with `V = W G - rowmean(W G)` for a linear layer behind a norm of gain `G` ([`crate::layers::layer_norm`])
//! and `(x; y)` for concatenated inputs:
//!
//! * first: `h -> V_attn h`
//! * per block: `(a; h) -> W_o a` and `V_fc (h + W_o a)`; `h` has the bias of `W_o` added
//! * per block: `(m; h) -> W_d m` and the next block's `V_attn (h + W_d m)`; `h` has the bias of `W_d` added. Behind the
//!   last block there is only `W_d m`: the tied head is the client's.

use super::Config;
use crate::config::{Family, SplitFamily};
use crate::layers::layer_norm::{fold_bias, fold_weight};
use crate::split::plan::{PlanKind, PlanMatrix, PlanRound, SplitPlan};
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;

/// Rounds per block in the plain plan.
pub(super) const PLAIN_ROUNDS: usize = 4;
/// Rounds per block in the fused plan.
pub(super) const FUSED_ROUNDS: usize = 2;

pub(super) const ATTENTION: &str = "attn.c_attn";
pub(super) const ATTENTION_OUTPUT: &str = "attn.c_proj";
pub(super) const INNER: &str = "mlp.c_fc";
pub(super) const OUTPUT: &str = "mlp.c_proj";
/// The norms in front of [`ATTENTION`] and [`INNER`].
pub(super) const NORMS: [&str; 2] = ["ln_1", "ln_2"];

/// The name of a tensor of block `i`.
pub(super) fn in_block(i: usize, name: &str) -> String {
    format!("h.{i}.{name}")
}

/// Name of the vector that is added behind a linear layer: its bias, or, where a norm is folded into the layer, the
/// bias with the norm's.
pub(super) fn bias_name(linear: &str, folded: bool) -> String {
    format!("{linear}.{}", if folded { "folded_bias" } else { "bias" })
}

/// A source under the names of this module: with `transformer.` in front, as models with a head have it, or without.
struct Named<'a> {
    source: &'a dyn WeightSource,
    prefix: &'static str,
}

impl<'a> Named<'a> {
    fn new(source: &'a dyn WeightSource) -> Self {
        let prefixed = source.contains("transformer.wte.weight");
        Self { source, prefix: if prefixed { "transformer." } else { "" } }
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.get_shaped(&format!("{}{name}", self.prefix), shape)
    }

    /// A linear layer as `[rows, columns]`; the file has it the other way round.
    fn weight(&self, matrix: &PlanMatrix, columns: usize) -> Result<Tensor> {
        let stored = self.get(&format!("{}.weight", matrix.name), &[columns, matrix.rows])?;
        Ok(stored.t()?.contiguous()?)
    }
}

impl SplitFamily for Config {
    fn family(&self) -> Family {
        Family::Gpt2
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
        let source = Named::new(source);
        let spec = plan.rounds.get(round).ok_or_else(|| Error::RoundShape {
            round,
            expected: format!("a round below {}", plan.rounds.len()),
            got: round.to_string(),
        })?;
        match plan.kind {
            PlanKind::Plain => spec.matrices.iter().map(|m| source.weight(m, m.columns.len())).collect(),
            PlanKind::Fused => self.fused_weights(&source, spec, round),
        }
    }

    fn local_tensors(&self, source: &dyn WeightSource, kind: PlanKind) -> Result<Vec<(String, Tensor)>> {
        let source = Named::new(source);
        let hidden = self.hidden_size;
        let mut names = vec![
            ("wte.weight".to_owned(), vec![self.vocab_size, hidden]),
            ("wpe.weight".to_owned(), vec![self.context_length, hidden]),
            ("ln_f.weight".to_owned(), vec![hidden]),
            ("ln_f.bias".to_owned(), vec![hidden]),
        ];
        for i in 0..self.blocks {
            for linear in [ATTENTION_OUTPUT, OUTPUT] {
                names.push((bias_name(&in_block(i, linear), false), vec![hidden]));
            }
            for (norm, linear) in NORMS.iter().zip(self.normed(i, hidden)) {
                if kind == PlanKind::Plain {
                    names.push((in_block(i, &format!("{norm}.weight")), vec![hidden]));
                    names.push((in_block(i, &format!("{norm}.bias")), vec![hidden]));
                    names.push((bias_name(&linear.name, false), vec![linear.rows]));
                }
            }
        }
        let mut tensors = names
            .into_iter()
            .map(|(name, shape)| source.get(&name, &shape).map(|tensor| (name, tensor)))
            .collect::<Result<Vec<_>>>()?;
        if kind == PlanKind::Fused {
            for i in 0..self.blocks {
                for (norm, linear) in NORMS.iter().zip(self.normed(i, hidden)) {
                    let beta = source.get(&in_block(i, &format!("{norm}.bias")), &[hidden])?;
                    let bias = source.get(&bias_name(&linear.name, false), &[linear.rows])?;
                    let folded = fold_bias(&source.weight(&linear, hidden)?, &beta, &bias)?;
                    tensors.push((bias_name(&linear.name, true), folded));
                }
            }
        }
        Ok(tensors)
    }
}

impl Config {
    /// The two linear layers of block `i` that stand behind a norm.
    fn normed(&self, i: usize, width: usize) -> [PlanMatrix; 2] {
        [
            self.matrix(i, ATTENTION, 3 * self.hidden_size, width),
            self.matrix(i, INNER, self.intermediate_size, width),
        ]
    }

    fn matrix(&self, i: usize, name: &str, rows: usize, width: usize) -> PlanMatrix {
        PlanMatrix { name: in_block(i, name), rows, columns: 0..width }
    }

    fn plain_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrix| {
            rounds.push(PlanRound { name, d_in, matrices: vec![matrix] });
        };
        for i in 0..self.blocks {
            let [attention, fc] = self.normed(i, hidden);
            push(format!("block.{i}.qkv"), hidden, attention);
            push(
                format!("block.{i}.attention_output"),
                hidden,
                self.matrix(i, ATTENTION_OUTPUT, hidden, hidden),
            );
            push(format!("block.{i}.inner"), hidden, fc);
            push(format!("block.{i}.output"), inner, self.matrix(i, OUTPUT, hidden, inner));
        }
        rounds
    }

    fn fused_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrices| rounds.push(PlanRound { name, d_in, matrices });
        let [first, _] = self.normed(0, hidden);
        push("block.0.qkv".into(), hidden, vec![first]);
        for i in 0..self.blocks {
            let [_, fc] = self.normed(i, 2 * hidden);
            push(
                format!("block.{i}.attention_output_inner"),
                2 * hidden,
                vec![self.matrix(i, ATTENTION_OUTPUT, hidden, hidden), fc],
            );
            let mut matrices = vec![self.matrix(i, OUTPUT, hidden, inner)];
            if i + 1 < self.blocks {
                let [attention, _] = self.normed(i + 1, inner + hidden);
                matrices.push(attention);
                push(format!("block.{i}.output_qkv"), inner + hidden, matrices);
            } else {
                push(format!("block.{i}.output"), inner, matrices);
            }
        }
        rounds
    }

    fn fused_weights(&self, source: &Named<'_>, spec: &PlanRound, round: usize) -> Result<Vec<Tensor>> {
        let hidden = self.hidden_size;
        // The norm in front of the round's matrices, all but the first of which are folded; in round 0 all are.
        let (norm, onto_residual, folded) = match round.checked_sub(1) {
            None => (in_block(0, NORMS[0]), None, spec.matrices.as_slice()),
            Some(behind_first) => {
                let i = behind_first / FUSED_ROUNDS;
                let norm = if behind_first % FUSED_ROUNDS == 0 {
                    in_block(i, NORMS[1])
                } else {
                    in_block(i + 1, NORMS[0])
                };
                let (first, rest) = spec
                    .matrices
                    .split_first()
                    .ok_or_else(|| Error::config("plan", format!("round {} is empty", spec.name)))?;
                (norm, Some(source.weight(first, first.columns.len())?), rest)
            }
        };
        let mut matrices: Vec<Tensor> = onto_residual.iter().cloned().collect();
        for matrix in folded {
            let gain = source.get(&format!("{norm}.weight"), &[hidden])?;
            let weight = fold_weight(&source.weight(matrix, hidden)?, &gain)?;
            matrices.push(match &onto_residual {
                None => weight,
                Some(first) => Tensor::cat(&[&weight.matmul(first)?, &weight], 1)?,
            });
        }
        Ok(matrices)
    }
}
