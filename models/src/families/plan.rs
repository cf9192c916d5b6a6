//! The rounds of a transformer, as data.
//!
//! A model alternates between linear layers that read the residual stream (q, k, v; gate, up; the head) and linear
//! layers that add to it (the attention's output, down). [`ModelConfig::groups`] lists both for each half of a block.
//!
//! *Plain*: each list is a round; norms run on the client.
//!
//! *Fused*: a norm followed by a linear layer is linear up to a scalar that the client computes itself
//! ([`crate::local_ops::norm`]), so what adds to the residual `h` and what then reads it make one round. With `(x; h)`
//! for concatenated inputs, `W` for the layers that add, and `V` for the layers that read with their norm folded in,
//! the matrices are `W` on `x`, and `[V W | V]` on `(x; h)`. A block takes two rounds; one whose attention and
//! feed-forward layer are parallel takes one. A large head keeps a separate round: `V W` would hold
//! `vocab * intermediate` weights more to save one round trip.

use super::config::{Form, ModelConfig, QkNorm};
use crate::formats::WeightSource;
use crate::local_ops::norm::fold_bias;
use crate::split::plan::{PlanKind, PlanMatrix, PlanRound, SplitPlan};
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;

/// A linear layer of the source.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// Its name without `.weight`.
    pub(super) name: String,
    /// Outputs.
    pub(super) rows: usize,
    /// Inputs.
    columns: usize,
    /// The norm of the residual that precedes it.
    norm: Option<String>,
    /// Whether it has a bias.
    bias: bool,
}

/// Linear layers that read the residual stream, then linear layers that add to it.
struct Group {
    /// The block.
    block: usize,
    reading: Vec<Linear>,
    reading_name: &'static str,
    adding: Vec<Linear>,
    adding_name: &'static str,
}

/// A round: layers that add to the residual, on the first columns of its input, and layers that read the sum.
struct Step {
    name: String,
    adding: Vec<Linear>,
    reading: Vec<Linear>,
    /// Whether norms are folded into the layers that read.
    folded: bool,
}

impl Step {
    fn added_columns(&self) -> usize {
        self.adding.iter().map(|linear| linear.columns).sum()
    }

    fn round(&self) -> PlanRound {
        let added = self.added_columns();
        let residual = self.reading.first().map_or(0, |linear| linear.columns);
        let matrix =
            |name: &str, rows, columns: Range<usize>| PlanMatrix { name: name.to_owned(), rows, columns };
        let mut matrices = Vec::new();
        match self.adding.as_slice() {
            [] => {}
            [one] => matrices.push(matrix(&one.name, one.rows, 0..added)),
            [first, ..] => {
                let block = first.name.rsplit_once('.').map_or("", |(block, _)| block);
                matrices.push(matrix(&format!("{block}.attn_output_ffn_down"), first.rows, 0..added));
            }
        }
        matrices
            .extend(self.reading.iter().map(|linear| matrix(&linear.name, linear.rows, 0..added + residual)));
        PlanRound { name: self.name.clone(), d_in: added + residual, matrices }
    }
}

impl ModelConfig {
    /// The rounds of a plan, from shapes alone.
    ///
    /// # Errors
    /// If the configuration is inconsistent or has no such plan.
    pub fn plan(&self, kind: PlanKind) -> Result<SplitPlan> {
        self.validate()?;
        let rounds = self.steps(kind)?.iter().map(Step::round).collect();
        Ok(SplitPlan { kind, rounds })
    }

    /// Float matrices of round `round` of `plan`, in the plan's order, each `[rows, columns.len()]` f32.
    ///
    /// # Errors
    /// If the plan has no such round, or a tensor is missing or misshapen.
    pub fn round_weights(
        &self,
        source: &dyn WeightSource,
        plan: &SplitPlan,
        round: usize,
    ) -> Result<Vec<Tensor>> {
        let steps = self.steps(plan.kind)?;
        let step = steps.get(round).ok_or_else(|| Error::RoundShape {
            round,
            expected: format!("a round below {}", steps.len()),
            got: round.to_string(),
        })?;
        let weight = |linear: &Linear| {
            source.get_shaped(&format!("{}.weight", linear.name), &[linear.rows, linear.columns])
        };
        let mut matrices = Vec::new();
        if !step.adding.is_empty() {
            let adding = step.adding.iter().map(weight).collect::<Result<Vec<_>>>()?;
            let adding = match adding.as_slice() {
                [one] => one.clone(),
                several => Tensor::cat(several, 1)?,
            };
            let scale = self.scales.residual;
            matrices.push(if scale == 1.0 { adding } else { (adding * scale)? });
        }
        let adding = matrices.first().cloned();
        for linear in &step.reading {
            let mut reading = weight(linear)?;
            if let (true, Some(norm)) = (step.folded, &linear.norm) {
                let gain = source.get_shaped(&format!("{norm}.weight"), &[self.hidden_size])?;
                reading = self.norm.kind.fold_weight(&reading, &gain)?;
            }
            matrices.push(match &adding {
                None => reading,
                Some(adding) => Tensor::cat(&[&reading.matmul(adding)?, &reading], 1)?,
            });
        }
        Ok(matrices)
    }

    /// The tensors the client needs for a plan of this kind but the embedding: norms, biases and vectors folded from
    /// them, learned positions. No linear weight.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub fn local_tensors(&self, source: &dyn WeightSource, kind: PlanKind) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (name, shape) in self.local_shapes(kind) {
            let tensor = source.get_shaped(&name, &shape)?;
            tensors.push((name, tensor));
        }
        for group in self.groups() {
            for linear in &group.adding {
                if linear.bias {
                    let bias = source.get_shaped(&format!("{}.bias", linear.name), &[linear.rows])?;
                    tensors.push((format!("{}.bias", linear.name), (bias * self.scales.residual)?));
                }
            }
            for linear in &group.reading {
                if self.adds_bias(linear, kind) {
                    tensors.push((format!("{}.bias", linear.name), self.added_bias(source, linear, kind)?));
                }
            }
        }
        Ok(tensors)
    }

    /// Whether norms are folded into the layer in a plan of this kind.
    pub(super) fn folds(&self, linear: &Linear, kind: PlanKind) -> bool {
        let in_plan = match kind {
            PlanKind::Plain => self.form == Form::ParallelTwoNorms && !self.is_head(linear),
            PlanKind::Fused => !self.is_head(linear) || self.folds_head(),
        };
        in_plan && linear.norm.is_some()
    }

    /// Whether the client adds a vector after a layer that reads the residual: its bias, that of a folded norm, or both.
    pub(super) fn adds_bias(&self, linear: &Linear, kind: PlanKind) -> bool {
        linear.bias || (self.folds(linear, kind) && self.norm.bias)
    }

    fn added_bias(&self, source: &dyn WeightSource, linear: &Linear, kind: PlanKind) -> Result<Tensor> {
        let own = match linear.bias {
            true => Some(source.get_shaped(&format!("{}.bias", linear.name), &[linear.rows])?),
            false => None,
        };
        let folded = match &linear.norm {
            Some(norm) if self.folds(linear, kind) && self.norm.bias => {
                let weight = format!("{}.weight", linear.name);
                let weight = source.get_shaped(&weight, &[linear.rows, linear.columns])?;
                let beta = source.get_shaped(&format!("{norm}.bias"), &[self.hidden_size])?;
                Some(fold_bias(&weight, &beta)?)
            }
            _ => None,
        };
        match (own, folded) {
            (Some(own), Some(folded)) => Ok((own + folded)?),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (None, None) => Err(Error::MissingTensor { name: format!("{}.bias", linear.name) }),
        }
    }

    /// Names and shapes of the local tensors that are taken from the source as they are, but the embedding and biases.
    fn local_shapes(&self, kind: PlanKind) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let mut shapes = Vec::new();
        if matches!(self.positions, super::config::Positions::Learned) {
            shapes.push(("position_embd.weight".to_owned(), vec![self.context_length, hidden]));
        }
        let mut norms = Vec::new();
        if let Some(encoder) = &self.encoder {
            if encoder.token_types > 0 {
                shapes.push(("token_types.weight".to_owned(), vec![encoder.token_types, hidden]));
            }
            norms.push("token_embd_norm".to_owned());
        }
        if self.has_output_norm(kind) {
            norms.push("output_norm".to_owned());
        }
        for i in 0..self.blocks {
            norms.extend(self.local_norms(i, kind));
            let widths = match self.qk_norm {
                QkNorm::None => continue,
                QkNorm::PerHead => [self.head_dim; 2],
                QkNorm::Whole => [self.q_width(), self.kv_width()],
            };
            for (name, width) in ["attn_q_norm", "attn_k_norm"].iter().zip(widths) {
                shapes.push((format!("blk.{i}.{name}.weight"), vec![width]));
            }
        }
        for norm in norms {
            shapes.push((format!("{norm}.weight"), vec![hidden]));
            if self.norm.bias {
                shapes.push((format!("{norm}.bias"), vec![hidden]));
            }
        }
        shapes
    }

    /// Whether the client norms the residual after the last block.
    pub(super) fn has_output_norm(&self, kind: PlanKind) -> bool {
        // A folded head has the norm in it; an encoder's hidden states are asked for as well.
        let in_head = kind == PlanKind::Fused && self.folds_head() && self.encoder.is_none();
        self.form != Form::Residual && !in_head
    }

    /// Norms of block `i` that run on the client.
    fn local_norms(&self, i: usize, kind: PlanKind) -> Vec<String> {
        let mut norms: Vec<String> = Vec::new();
        if kind == PlanKind::Plain {
            norms.extend(self.norms_before(i).into_iter().flatten());
        }
        let after: &[&str] = match self.form {
            Form::Post | Form::Sandwich => &["post_attention_norm", "post_ffw_norm"],
            Form::Residual => &["attn_output_norm", "layer_output_norm"],
            Form::Pre | Form::Parallel | Form::ParallelTwoNorms => &[],
        };
        norms.extend(after.iter().map(|name| format!("blk.{i}.{name}")));
        norms
    }

    /// Norms of block `i` before attention and feed-forward layer that the client runs in the plain plan.
    pub(super) fn norms_before(&self, i: usize) -> [Option<String>; 2] {
        let unnormed = i == 0 && self.encoder.as_ref().is_some_and(|encoder| encoder.first_block_unnormed);
        let attention = (!unnormed).then(|| format!("blk.{i}.attn_norm"));
        match self.form {
            Form::Pre | Form::Sandwich => [attention, Some(format!("blk.{i}.ffn_norm"))],
            Form::Parallel => [attention, None],
            Form::Post | Form::Residual | Form::ParallelTwoNorms => [None, None],
        }
    }

    /// The norms of the residual that the linear layers of block `i` read.
    fn norms_read(&self, i: usize) -> [Option<String>; 2] {
        match self.form {
            Form::Residual => {
                let before = i.checked_sub(1).map(|before| format!("blk.{before}.layer_output_norm"));
                [before, Some(format!("blk.{i}.attn_output_norm"))]
            }
            Form::Parallel => {
                let norm = Some(format!("blk.{i}.attn_norm"));
                [norm.clone(), norm]
            }
            Form::ParallelTwoNorms => [Some(format!("blk.{i}.attn_norm")), Some(format!("blk.{i}.ffn_norm"))],
            Form::Pre | Form::Sandwich | Form::Post => self.norms_before(i),
        }
    }

    /// The attention's layers of block `i` that read the residual: q, k, v.
    pub(super) fn qkv(&self, i: usize) -> [Linear; 3] {
        let [norm, _] = self.norms_read(i);
        let (q, kv) = (self.q_width(), self.kv_width());
        [("attn_q", q), ("attn_k", kv), ("attn_v", kv)]
            .map(|(name, rows)| self.reading(i, name, rows, norm.clone(), self.biases.qkv))
    }

    /// The feed-forward layer's layers of block `i` that read the residual: gate and up, or up alone.
    pub(super) fn inner(&self, i: usize) -> Vec<Linear> {
        let [_, norm] = self.norms_read(i);
        let names: &[&str] = if self.gated { &["ffn_gate", "ffn_up"] } else { &["ffn_up"] };
        let one =
            |name: &&str| self.reading(i, name, self.intermediate_size, norm.clone(), self.biases.inner);
        names.iter().map(one).collect()
    }

    fn reading(&self, i: usize, name: &str, rows: usize, norm: Option<String>, bias: bool) -> Linear {
        Linear { name: format!("blk.{i}.{name}"), rows, columns: self.hidden_size, norm, bias }
    }

    /// The layers of block `i` that add to the residual: the attention's output, down.
    pub(super) fn adding(&self, i: usize) -> [Linear; 2] {
        [
            ("attn_output", self.q_width(), self.biases.attn_out),
            ("ffn_down", self.intermediate_size, self.biases.down),
        ]
        .map(|(name, columns, bias)| Linear {
            name: format!("blk.{i}.{name}"),
            rows: self.hidden_size,
            columns,
            norm: None,
            bias,
        })
    }

    /// The layer after the last block that is not the client's: an untied head or a token classifier.
    pub(super) fn remote_head(&self) -> Option<Linear> {
        let (name, rows) = match &self.encoder {
            None if self.tied_head => return None,
            None => ("output", self.vocab_size),
            Some(encoder) if encoder.labels.is_empty() => return None,
            Some(encoder) => ("cls", encoder.labels.len()),
        };
        let norm = match self.form {
            Form::Residual => self.blocks.checked_sub(1).map(|last| format!("blk.{last}.layer_output_norm")),
            _ => Some("output_norm".to_owned()),
        };
        let name = name.to_owned();
        Some(Linear { name, rows, columns: self.hidden_size, norm, bias: self.biases.head })
    }

    fn is_head(&self, linear: &Linear) -> bool {
        !linear.name.starts_with("blk.")
    }

    /// Whether the fused plan evaluates the head in the last block's round: it must be small against the matrix it is
    /// multiplied by.
    pub(super) fn folds_head(&self) -> bool {
        self.remote_head().is_some_and(|head| head.rows <= self.hidden_size)
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for block in 0..self.blocks {
            let (qkv, inner, [output, down]) = (self.qkv(block), self.inner(block), self.adding(block));
            if self.form.is_parallel() {
                groups.push(Group {
                    block,
                    reading: qkv.into_iter().chain(inner).collect(),
                    reading_name: if self.gated { "qkv_gate_up" } else { "qkv_up" },
                    adding: vec![output, down],
                    adding_name: "out_down",
                });
                continue;
            }
            groups.push(Group {
                block,
                reading: qkv.into(),
                reading_name: "qkv",
                adding: vec![output],
                adding_name: "attn_out",
            });
            groups.push(Group {
                block,
                reading: inner,
                reading_name: if self.gated { "gate_up" } else { "up" },
                adding: vec![down],
                adding_name: "down",
            });
        }
        if let Some(head) = self.remote_head() {
            groups.push(Group {
                block: self.blocks,
                reading: vec![head],
                reading_name: "head",
                adding: Vec::new(),
                adding_name: "",
            });
        }
        groups
    }

    fn steps(&self, kind: PlanKind) -> Result<Vec<Step>> {
        let named = |block: usize, part: &str| match block == self.blocks {
            true => part.to_owned(),
            false => format!("blk.{block}.{part}"),
        };
        let mut steps: Vec<Step> = Vec::new();
        match kind {
            PlanKind::Plain => {
                for group in self.groups() {
                    let folded = group.reading.iter().any(|linear| self.folds(linear, kind));
                    let name = named(group.block, group.reading_name);
                    steps.push(Step { name, adding: Vec::new(), reading: group.reading, folded });
                    if !group.adding.is_empty() {
                        let name = named(group.block, group.adding_name);
                        steps.push(Step { name, adding: group.adding, reading: Vec::new(), folded: false });
                    }
                }
            }
            PlanKind::Fused if self.form.norms_branches() => {
                return Err(Error::config(
                    "plan",
                    format!(
                        "{} norms what it adds to the residual stream, so its layers cannot be fused; take the plain plan",
                        self.family
                    ),
                ));
            }
            PlanKind::Fused => {
                // What the last group adds waits for the layers that read the sum.
                let mut waiting: Option<(usize, Vec<Linear>, &str)> = None;
                for group in self.groups() {
                    let own_round = group.block == self.blocks && !self.folds_head();
                    let (name, adding) = match waiting.take() {
                        None => (named(group.block, group.reading_name), Vec::new()),
                        Some((block, adding, part)) if own_round => {
                            let name = named(block, part);
                            steps.push(Step { name, adding, reading: Vec::new(), folded: false });
                            (named(group.block, group.reading_name), Vec::new())
                        }
                        Some((block, adding, part)) => {
                            (named(block, &format!("{part}_{}", group.reading_name)), adding)
                        }
                    };
                    steps.push(Step { name, adding, reading: group.reading, folded: !own_round });
                    if !group.adding.is_empty() {
                        waiting = Some((group.block, group.adding, group.adding_name));
                    }
                }
                if let Some((block, adding, part)) = waiting {
                    let name = named(block, part);
                    steps.push(Step { name, adding, reading: Vec::new(), folded: false });
                }
            }
        }
        Ok(steps)
    }
}
