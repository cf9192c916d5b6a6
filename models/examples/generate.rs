//! Generates text in the clear with the dense backend, and says where the time goes.
//!
//!     cargo run --release -p sotto-models --example generate -- MODEL.gguf [plain|fused] [PROMPT]

use sotto_models::chat_template::Message;
use sotto_models::generate::sampler::argmax;
use sotto_models::generate::stop::TextStream;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::linear::{LinearBackend, run_pass};
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use std::io::Write;
use std::time::{Duration, Instant};

/// Adds up the time spent in a backend.
struct Timed<B> {
    inner: B,
    spent: Duration,
}

impl<B: LinearBackend> LinearBackend for Timed<B> {
    fn round(
        &mut self,
        round: usize,
        input: &candle_core::Tensor,
    ) -> sotto_models::Result<Vec<candle_core::Tensor>> {
        let start = Instant::now();
        let reply = self.inner.round(round, input);
        self.spent += start.elapsed();
        reply
    }

    fn begin_pass(&mut self, tokens: usize) -> sotto_models::Result<()> {
        self.inner.begin_pass(tokens)
    }

    fn end_pass(&mut self) {
        self.inner.end_pass();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [plain|fused] [PROMPT]")?;
    let kind: PlanKind = args.next().as_deref().unwrap_or("plain").parse()?;
    let prompt = args.next().unwrap_or_else(|| "Explain photosynthesis in two sentences.".into());

    let start = Instant::now();
    let source = ModelSource::open(path)?;
    let opened = start.elapsed();
    let family = &source.config;
    let parts = split(&source, kind, |_| ())?;
    let dense = DenseBackend::from_source(family, &*source.weights, parts.plan.clone())?;
    let mut backend = Timed { inner: dense, spent: Duration::ZERO };
    let mut model = parts.client.causal_model(HeadPrecision::default())?;
    eprintln!("opened in {opened:?}, loaded in {:?}", start.elapsed());

    let conversation = source.template()?.render(&[Message::new("user", prompt)], true)?;
    let ids = source.tokenizer.encode_template(&conversation)?;
    let start = Instant::now();
    let mut logits = run_pass(&mut backend, ids.len(), |b| model.forward(&ids, b))?;
    eprintln!("prompt of {} tokens: {:?}, backend {:?}", ids.len(), start.elapsed(), backend.spent);

    let mut stream = TextStream::new(&source.tokenizer, &source.tokenizer.special().eos, &[]);
    let (start, mut tokens) = (Instant::now(), 0u32);
    backend.spent = Duration::ZERO;
    while tokens < 128 && stream.stopped().is_none() {
        let next = argmax(&logits.to_vec1::<f32>()?);
        print!("{}", stream.push(next)?);
        std::io::stdout().flush()?;
        logits = run_pass(&mut backend, 1, |b| model.forward(&[next], b))?;
        tokens += 1;
    }
    println!("{}", stream.finish()?);
    let per_token = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(tokens);
    eprintln!(
        "{tokens} tokens: {:.2} ms each, backend {:.2} ms, client {:.2} ms",
        per_token(start.elapsed()),
        per_token(backend.spent),
        per_token(start.elapsed() - backend.spent)
    );
    Ok(())
}
