//! One pass through all blocks, in both plans.

use super::block::{Block, Shared, Tokens, scaled_and_biased};
use crate::Result;
use crate::families::config::{ModelConfig, Positions};
use crate::formats::WeightSource;
use crate::linear::LinearBackend;
use crate::local_ops::norm::Norm;
use crate::local_ops::rope::Rope;
use crate::model::unpack;
use crate::split::plan::PlanKind;
use candle_core::Tensor;

/// All blocks of a model with what follows them.
pub(super) struct Stack {
    pub(super) config: ModelConfig,
    kind: PlanKind,
    blocks: Vec<Block>,
    ropes: Vec<Rope>,
    out_norm: Option<Norm>,
    /// Bias of a remote head.
    head_bias: Option<Vec<f32>>,
}

/// What a pass gives.
pub(super) struct Output {
    /// The residual stream after the last norm, `[rows, hidden]`.
    pub(super) hidden: Tensor,
    /// Products of a remote head with its bias, `[rows, vocab or labels]`.
    pub(super) head: Option<Tensor>,
}

/// Which tokens' rows go on after the last attention.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    All,
    /// Those of these tokens, in order; at least one.
    Rows(&'a [u32]),
}

/// The residual stream.
#[derive(Clone)]
struct Residual {
    /// What layers of the plain plan read, before a norm of theirs.
    h: Tensor,
    /// The sum whose norm is folded into layers that read it; `h` but where the residual itself is normed.
    sum: Tensor,
}

/// The rounds of one pass, in order.
struct Rounds<'a> {
    backend: &'a mut dyn LinearBackend,
    kind: PlanKind,
    next: usize,
    /// Products of what reads the residual, from the round that added to it.
    waiting: Option<Vec<Tensor>>,
}

impl Rounds<'_> {
    fn evaluate(&mut self, input: &Tensor) -> Result<Vec<Tensor>> {
        let round = self.next;
        self.next += 1;
        self.backend.round(round, &input.contiguous()?)
    }

    /// Products of the layers that read the residual.
    fn read(&mut self, residual: &Residual, norm: Option<&Norm>) -> Result<Vec<Tensor>> {
        match (self.kind, self.waiting.take()) {
            (PlanKind::Fused, Some(products)) => Ok(products),
            (PlanKind::Fused, None) => self.evaluate(&residual.h),
            (PlanKind::Plain, _) => {
                let input = match norm {
                    Some(norm) => norm.apply(&residual.h)?,
                    None => residual.h.clone(),
                };
                self.evaluate(&input)
            }
        }
    }

    /// What the layers that add to the residual make of `x`; `residual` is what they add to, `followed` whether layers
    /// that read the sum are in the same round of a fused plan.
    fn add(&mut self, x: &Tensor, residual: &Tensor, followed: bool) -> Result<Tensor> {
        let fused = self.kind == PlanKind::Fused && followed;
        let mut reply = match fused {
            true => self.evaluate(&Tensor::cat(&[x, residual], 1)?)?,
            false => self.evaluate(x)?,
        };
        if reply.is_empty() {
            unpack::<1>(self.next - 1, Vec::new())?;
        }
        let sum = reply.remove(0);
        if fused {
            self.waiting = Some(reply);
        }
        Ok(sum)
    }
}

impl Stack {
    /// The stack of a plan of this kind from its local tensors.
    pub(super) fn new(config: ModelConfig, kind: PlanKind, local: &dyn WeightSource) -> Result<Self> {
        config.validate()?;
        let settings = config.norm;
        let load = |name: &str| {
            Norm::load(local, name, config.hidden_size, settings.kind, settings.eps, settings.bias)
        };
        let out_norm = config.has_output_norm(kind).then(|| load("output_norm")).transpose()?;
        let head_bias = match config.remote_head() {
            Some(head) if config.adds_bias(&head, kind) => {
                Some(local.get_shaped(&format!("{}.bias", head.name), &[head.rows])?.to_vec1()?)
            }
            _ => None,
        };
        let ropes = match &config.positions {
            Positions::Learned => Vec::new(),
            Positions::Rotary { dim, tables } => {
                tables.iter().map(|table| Rope::new(table, *dim)).collect::<Result<_>>()?
            }
        };
        let blocks =
            (0..config.blocks).map(|i| Block::new(&config, kind, i, local)).collect::<Result<_>>()?;
        Ok(Self { config, kind, blocks, ropes, out_norm, head_bias })
    }

    /// Makes sure that positions below `end` can be rotated.
    pub(super) fn reserve(&mut self, end: usize) {
        for rope in &mut self.ropes {
            rope.reserve(end);
        }
    }

    /// Runs `h`, `[tokens, hidden]`, through all blocks.
    ///
    /// # Panics
    /// If a position was not [`reserve`](Self::reserve)d.
    pub(super) fn run(
        &self,
        h: Tensor,
        tokens: Tokens<'_>,
        backend: &mut dyn LinearBackend,
        wanted: Wanted<'_>,
    ) -> Result<Output> {
        let mut shared = Shared::new(tokens, &self.ropes);
        let mut rounds = Rounds { backend, kind: self.kind, next: 0, waiting: None };
        let mut residual = Residual { sum: h.clone(), h };
        let last = self.blocks.len() - 1;
        let head_follows = self.config.folds_head();
        for (i, block) in self.blocks.iter().enumerate() {
            let narrow = if i == last { wanted } else { Wanted::All };
            let followed = i < last || head_follows;
            residual = match self.config.form.is_parallel() {
                true => parallel(&self.config, block, &mut shared, &mut rounds, residual, narrow, followed)?,
                false => in_turn(&self.config, block, &mut shared, &mut rounds, residual, narrow, followed)?,
            };
        }
        self.finish(rounds, residual)
    }

    fn finish(&self, mut rounds: Rounds<'_>, residual: Residual) -> Result<Output> {
        let hidden = match &self.out_norm {
            Some(norm) => norm.apply(&residual.h)?,
            None => residual.h.clone(),
        };
        let head = match self.config.remote_head() {
            None => None,
            Some(head) => {
                let round = rounds.next;
                let (products, factors) = match rounds.waiting.take() {
                    Some(products) => {
                        let folded = self.config.folds(&head, self.kind);
                        (products, factors(&self.config, folded, &residual)?)
                    }
                    None => (rounds.evaluate(&hidden)?, None),
                };
                let [products] = unpack(round, products)?;
                Some(scaled_and_biased(&products, factors.as_deref(), self.head_bias.as_deref())?)
            }
        };
        Ok(Output { hidden, head })
    }
}

/// The factors of a folded norm.
fn factors(config: &ModelConfig, folded: bool, residual: &Residual) -> Result<Option<Vec<f32>>> {
    folded.then(|| config.norm.kind.factors(&residual.sum, config.norm.eps)).transpose()
}

/// Some rows of `x`.
fn select(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let (tokens, _) = x.dims2()?;
    if rows.len() == tokens {
        return Ok(x.clone());
    }
    Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
}

/// The residual after a layer added to it.
fn join(block: &Block, half: usize, mut residual: Tensor, mut branch: Tensor) -> Result<Residual> {
    if let Some(norm) = &block.of_branch[half] {
        branch = norm.apply(&branch)?;
    }
    residual = (residual + branch)?;
    let h = match &block.of_residual[half] {
        Some(norm) => norm.apply(&residual)?,
        None => residual.clone(),
    };
    Ok(Residual { h, sum: residual })
}

/// The residual with a layer's bias, or the layer's products with it where they are normed before they are added.
fn with_bias(x: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => Ok(x.broadcast_add(bias)?),
        None => Ok(x),
    }
}

/// Attention, then the feed-forward layer.
fn in_turn(
    config: &ModelConfig,
    block: &Block,
    shared: &mut Shared<'_, '_>,
    rounds: &mut Rounds<'_>,
    mut residual: Residual,
    narrow: Wanted<'_>,
    followed: bool,
) -> Result<Residual> {
    let round = rounds.next;
    let products = rounds.read(&residual, block.before[0].as_ref())?;
    let scale = factors(config, block.folded[0], &residual)?;
    let mut a = block.attention.attend(shared, unpack(round, products)?, scale.as_deref())?;
    if let Wanted::Rows(rows) = narrow {
        a = select(&a, rows)?;
        residual = Residual { h: select(&residual.h, rows)?, sum: select(&residual.sum, rows)? };
    }
    residual = add(block, rounds, 0, &a, residual, true)?;

    let products = rounds.read(&residual, block.before[1].as_ref())?;
    let scale = factors(config, block.folded[1], &residual)?;
    let m = block.feed(&products, scale.as_deref())?;
    add(block, rounds, 1, &m, residual, followed)
}

fn add(
    block: &Block,
    rounds: &mut Rounds<'_>,
    half: usize,
    x: &Tensor,
    residual: Residual,
    followed: bool,
) -> Result<Residual> {
    let bias = block.added[half].as_ref();
    if block.of_branch[half].is_some() {
        let branch = with_bias(rounds.add(x, &residual.h, followed)?, bias)?;
        return join(block, half, residual.h, branch);
    }
    let h = with_bias(residual.h, bias)?;
    let branch = rounds.add(x, &h, followed)?;
    join(block, half, h, branch)
}

/// Attention and feed-forward layer of the same residual, added together.
fn parallel(
    config: &ModelConfig,
    block: &Block,
    shared: &mut Shared<'_, '_>,
    rounds: &mut Rounds<'_>,
    mut residual: Residual,
    narrow: Wanted<'_>,
    followed: bool,
) -> Result<Residual> {
    let round = rounds.next;
    let mut products = rounds.read(&residual, block.before[0].as_ref())?;
    let scale = factors(config, block.folded[0], &residual)?;
    let mut inner = products.split_off(products.len().min(3));
    let mut a = block.attention.attend(shared, unpack(round, products)?, scale.as_deref())?;
    let mut inner_scale = scale;
    if let Wanted::Rows(rows) = narrow {
        a = select(&a, rows)?;
        inner = inner.iter().map(|x| select(x, rows)).collect::<Result<_>>()?;
        inner_scale = inner_scale.map(|scale| rows.iter().map(|&row| scale[row as usize]).collect());
        residual = Residual { h: select(&residual.h, rows)?, sum: select(&residual.sum, rows)? };
    }
    let m = block.feed(&inner, inner_scale.as_deref())?;
    let [output_bias, down_bias] = &block.added;
    let h = with_bias(with_bias(residual.h, output_bias.as_ref())?, down_bias.as_ref())?;
    let branch = rounds.add(&Tensor::cat(&[&a, &m], 1)?, &h, followed)?;
    join(block, 1, h, branch)
}
