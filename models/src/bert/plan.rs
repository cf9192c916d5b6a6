//! Rounds of BERT.
//!
//! Plain, per layer: q, k, v; the attention's output; intermediate; output. A token classifier is a round of its own.
//!
//! Fused, with `V = W G - rowmean(W G)` for a linear layer behind a norm of gain `G` ([`crate::layers::layer_norm`])
//! and `(x; y)` for concatenated inputs:
//!
//! * first: `x -> W_qkv x` (the embedding's norm is the client's)
//! * per layer: `(a; r) -> W_o a` and `V_i (r + W_o a)`, the latter as `[V_i W_o | V_i]`; `r` is the layer's input plus
//!   the bias of `W_o`
//! * per layer: `(m; r) -> W_d m` and the next layer's `V_qkv (r + W_d m)`; `r` is the *normed* sum of the round
//!   before plus the bias of `W_d`. Behind the last layer the classifier, if there is one, takes the place of q, k, v.

use super::Config;
use crate::config::{Family, SplitFamily};
use crate::layers::layer_norm::{fold_bias, fold_weight};
use crate::split::plan::{PlanKind, PlanMatrix, PlanRound, SplitPlan};
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;

/// Rounds per layer in the plain plan.
pub(super) const PLAIN_ROUNDS: usize = 4;
/// Rounds per layer in the fused plan.
pub(super) const FUSED_ROUNDS: usize = 2;

/// Names of a layer's linear layers.
pub(super) const QKV: [&str; 3] = ["attention.self.query", "attention.self.key", "attention.self.value"];
pub(super) const ATTENTION_OUTPUT: &str = "attention.output.dense";
pub(super) const ATTENTION_NORM: &str = "attention.output.LayerNorm";
pub(super) const INTERMEDIATE: &str = "intermediate.dense";
pub(super) const OUTPUT: &str = "output.dense";
pub(super) const OUTPUT_NORM: &str = "output.LayerNorm";
pub(super) const CLASSIFIER: &str = "classifier";

/// The name of a tensor of layer `i`.
pub(super) fn in_layer(i: usize, name: &str) -> String {
    format!("encoder.layer.{i}.{name}")
}

/// Name of the vector that is added behind a linear layer: its bias, or, where a norm is folded into the layer, the
/// bias with the norm's.
pub(super) fn bias_name(linear: &str, folded: bool) -> String {
    format!("{linear}.{}", if folded { "folded_bias" } else { "bias" })
}

/// A source under the names of this module: with `bert.` in front of everything but the classifier, as models with a
/// head have it, or without; and with the norms' `gamma` and `beta` of the first checkpoints.
struct Named<'a> {
    source: &'a dyn WeightSource,
    prefix: &'static str,
}

impl<'a> Named<'a> {
    fn new(source: &'a dyn WeightSource) -> Self {
        let prefixed = source.contains("bert.embeddings.word_embeddings.weight");
        Self { source, prefix: if prefixed { "bert." } else { "" } }
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if name.starts_with(CLASSIFIER) {
            return self.source.get_shaped(name, shape);
        }
        let name = format!("{}{name}", self.prefix);
        let older = match name.rsplit_once('.') {
            Some((norm, "weight")) if norm.ends_with("LayerNorm") => Some(format!("{norm}.gamma")),
            Some((norm, "bias")) if norm.ends_with("LayerNorm") => Some(format!("{norm}.beta")),
            _ => None,
        };
        let older = older.filter(|older| !self.source.contains(&name) && self.source.contains(older));
        self.source.get_shaped(&older.unwrap_or(name), shape)
    }

    fn weight(&self, matrix: &PlanMatrix, columns: usize) -> Result<Tensor> {
        self.get(&format!("{}.weight", matrix.name), &[matrix.rows, columns])
    }
}

impl SplitFamily for Config {
    fn family(&self) -> Family {
        Family::Bert
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
        let mut names = vec![("embeddings.word_embeddings.weight".to_owned(), vec![self.vocab_size, hidden])];
        names.push(("embeddings.position_embeddings.weight".to_owned(), vec![self.max_positions, hidden]));
        names.push(("embeddings.token_type_embeddings.weight".to_owned(), vec![self.token_types, hidden]));
        let mut norms = vec!["embeddings.LayerNorm".to_owned()];
        for i in 0..self.layers {
            norms.extend([ATTENTION_NORM, OUTPUT_NORM].map(|name| in_layer(i, name)));
            names.extend(
                [ATTENTION_OUTPUT, OUTPUT].map(|name| (bias_name(&in_layer(i, name), false), vec![hidden])),
            );
        }
        for norm in norms {
            names.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![hidden])));
        }
        let mut tensors = names
            .into_iter()
            .map(|(name, shape)| source.get(&name, &shape).map(|tensor| (name, tensor)))
            .collect::<Result<Vec<_>>>()?;
        for i in 0..self.layers {
            let before = i.checked_sub(1).map(|before| in_layer(before, OUTPUT_NORM));
            for name in QKV {
                tensors.push(self.added(&source, kind, &in_layer(i, name), hidden, before.as_deref())?);
            }
            let (name, norm) = (in_layer(i, INTERMEDIATE), in_layer(i, ATTENTION_NORM));
            tensors.push(self.added(&source, kind, &name, self.intermediate_size, Some(&norm))?);
        }
        if self.classifies() {
            let norm = in_layer(self.layers - 1, OUTPUT_NORM);
            tensors.push(self.added(&source, kind, CLASSIFIER, self.labels.len(), Some(&norm))?);
        }
        Ok(tensors)
    }
}

impl Config {
    /// The vector added behind `linear`; in the fused plan with the bias of the norm in front of it folded in.
    fn added(
        &self,
        source: &Named<'_>,
        kind: PlanKind,
        linear: &str,
        rows: usize,
        norm: Option<&str>,
    ) -> Result<(String, Tensor)> {
        let bias = source.get(&bias_name(linear, false), &[rows])?;
        match norm {
            Some(norm) if kind == PlanKind::Fused => {
                let weight = source.get(&format!("{linear}.weight"), &[rows, self.hidden_size])?;
                let beta = source.get(&format!("{norm}.bias"), &[self.hidden_size])?;
                Ok((bias_name(linear, true), fold_bias(&weight, &beta, &bias)?))
            }
            _ => Ok((bias_name(linear, false), bias)),
        }
    }

    fn matrix(&self, i: usize, name: &str, rows: usize, width: usize) -> PlanMatrix {
        PlanMatrix { name: in_layer(i, name), rows, columns: 0..width }
    }

    fn qkv(&self, i: usize, width: usize) -> Vec<PlanMatrix> {
        QKV.map(|name| self.matrix(i, name, self.hidden_size, width)).into()
    }

    fn classifier(&self, width: usize) -> PlanMatrix {
        PlanMatrix { name: CLASSIFIER.to_owned(), rows: self.labels.len(), columns: 0..width }
    }

    fn plain_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrices| rounds.push(PlanRound { name, d_in, matrices });
        for i in 0..self.layers {
            push(format!("layer.{i}.qkv"), hidden, self.qkv(i, hidden));
            push(
                format!("layer.{i}.attention_output"),
                hidden,
                vec![self.matrix(i, ATTENTION_OUTPUT, hidden, hidden)],
            );
            push(
                format!("layer.{i}.intermediate"),
                hidden,
                vec![self.matrix(i, INTERMEDIATE, inner, hidden)],
            );
            push(format!("layer.{i}.output"), inner, vec![self.matrix(i, OUTPUT, hidden, inner)]);
        }
        if self.classifies() {
            push("token_classifier".into(), hidden, vec![self.classifier(hidden)]);
        }
        rounds
    }

    fn fused_rounds(&self) -> Vec<PlanRound> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut rounds = Vec::new();
        let mut push = |name: String, d_in, matrices| rounds.push(PlanRound { name, d_in, matrices });
        push("layer.0.qkv".into(), hidden, self.qkv(0, hidden));
        for i in 0..self.layers {
            push(
                format!("layer.{i}.attention_output_intermediate"),
                2 * hidden,
                vec![
                    self.matrix(i, ATTENTION_OUTPUT, hidden, hidden),
                    self.matrix(i, INTERMEDIATE, inner, 2 * hidden),
                ],
            );
            let mut matrices = vec![self.matrix(i, OUTPUT, hidden, inner)];
            let (name, d_in) = if i + 1 < self.layers {
                matrices.extend(self.qkv(i + 1, inner + hidden));
                (format!("layer.{i}.output_qkv"), inner + hidden)
            } else if self.classifies() {
                matrices.push(self.classifier(inner + hidden));
                (format!("layer.{i}.output_classifier"), inner + hidden)
            } else {
                (format!("layer.{i}.output"), inner)
            };
            push(name, d_in, matrices);
        }
        rounds
    }

    fn fused_weights(&self, source: &Named<'_>, spec: &PlanRound, round: usize) -> Result<Vec<Tensor>> {
        let hidden = self.hidden_size;
        let Some(behind_first) = round.checked_sub(1) else {
            return spec.matrices.iter().map(|m| source.weight(m, hidden)).collect();
        };
        let i = behind_first / FUSED_ROUNDS;
        let norm = if behind_first % FUSED_ROUNDS == 0 { ATTENTION_NORM } else { OUTPUT_NORM };
        let (onto_residual, behind) = spec
            .matrices
            .split_first()
            .ok_or_else(|| Error::config("plan", format!("round {} is empty", spec.name)))?;
        let onto_residual = source.weight(onto_residual, onto_residual.columns.len())?;
        let gain = source.get(&format!("{}.weight", in_layer(i, norm)), &[hidden])?;
        let mut matrices = vec![onto_residual.clone()];
        for matrix in behind {
            let folded = fold_weight(&source.weight(matrix, hidden)?, &gain)?;
            matrices.push(Tensor::cat(&[&folded.matmul(&onto_residual)?, &folded], 1)?);
        }
        Ok(matrices)
    }
}
