//! What the client computes itself per decoded token, by part, with a backend that returns zeros at once.
//!
//!     cargo run --release -p sotto-models --example clear_cost -- MODEL.gguf [plain|fused] [CONTEXT]

use candle_core::{DType, Device, Tensor};
use sotto_models::linear::LinearBackend;
use sotto_models::local_ops::attention::{Heads, attend};
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::local_ops::kv_cache::KvCache;
use sotto_models::split::plan::{PlanKind, SplitPlan};
use sotto_models::split::{ClientPart, split};
use std::time::Instant;

/// Answers every round with zeros, made beforehand.
struct Zeros(Vec<Vec<Tensor>>);

impl Zeros {
    fn new(plan: &SplitPlan) -> sotto_models::Result<Self> {
        let zeros = |rows| Ok(Tensor::zeros((1, rows), DType::F32, &Device::Cpu)?);
        let round = |round: &sotto_models::split::plan::PlanRound| {
            round.matrices.iter().map(|matrix| zeros(matrix.rows)).collect::<sotto_models::Result<Vec<_>>>()
        };
        Ok(Self(plan.rounds.iter().map(round).collect::<sotto_models::Result<_>>()?))
    }
}

impl LinearBackend for Zeros {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        let tokens = input.dim(0)?;
        if tokens == 1 {
            return Ok(self.0[round].clone());
        }
        self.0[round].iter().map(|z| Ok(z.broadcast_as((tokens, z.dim(1)?))?.contiguous()?)).collect()
    }

    fn begin_pass(&mut self, _tokens: usize) -> sotto_models::Result<()> {
        Ok(())
    }

    fn end_pass(&mut self) {}
}

/// Median time of `run` in ms.
fn median_ms(repeats: usize, mut run: impl FnMut() -> sotto_models::Result<()>) -> sotto_models::Result<f64> {
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[repeats / 2])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: clear_cost MODEL.gguf [plain|fused] [CONTEXT]")?;
    let kind: PlanKind = args.next().as_deref().unwrap_or("plain").parse()?;
    let context: usize = args.next().as_deref().unwrap_or("256").parse()?;

    let start = Instant::now();
    let source = sotto_models::source::ModelSource::open(path)?;
    let parts = split(&source, kind, |_| ())?;
    println!("split in {:.2} s", start.elapsed().as_secs_f64());
    let client: &ClientPart = &parts.client;
    let mut zeros = Zeros::new(&parts.plan)?;
    for precision in [HeadPrecision::Float, HeadPrecision::Int8] {
        let mut model = client.causal_model(precision)?;
        model.forward(&vec![1; context], &mut zeros)?;
        let total = median_ms(50, || {
            model.truncate(context);
            model.forward(&[1], &mut zeros).map(drop)
        })?;
        println!("{precision:?} head, {context} tokens cached: {total:.3} ms per token");
    }
    let mut model = client.causal_model(HeadPrecision::Int8)?;
    let prompt = vec![1; 64];
    let prefill = median_ms(10, || {
        model.truncate(0);
        model.forward(&prompt, &mut zeros).map(drop)
    })?;
    println!("prompt of {} tokens: {prefill:.3} ms", prompt.len());
    let hidden = client.config.hidden_size;
    let x = Tensor::randn(0f32, 1.0, (1, hidden), &Device::Cpu)?;
    for precision in [HeadPrecision::Float, HeadPrecision::Int8] {
        let head = client.embedding.head(precision)?;
        println!("{precision:?} head alone: {:.3} ms", median_ms(50, || head.logits(&x).map(drop))?);
    }
    let config = &client.config;
    let heads: Heads = config.attention_heads();
    let mut cache = KvCache::new(heads.kv, heads.dim)?;
    let many = Tensor::randn(0f32, 1.0, (heads.kv, context, heads.dim), &Device::Cpu)?;
    let one = Tensor::randn(0f32, 1.0, (heads.kv, 1, heads.dim), &Device::Cpu)?;
    cache.write(0, &many, &many)?;
    let q = Tensor::randn(0f32, 1.0, (1, heads.query * heads.dim), &Device::Cpu)?;
    let per_block = median_ms(200, || {
        let (k, v) = cache.write(context, &one, &one)?;
        attend(heads, config.scores(), &q, &k, &v, None).map(drop)
    })?;
    println!("attention, all blocks: {:.3} ms", per_block * config.blocks as f64);
    Ok(())
}
