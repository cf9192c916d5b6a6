//! Language models whose linear layers run elsewhere.
//!
//! A transformer block is a few small *local operations* (norms, rotary positions, attention, gates) around four large
//! linear layers. This crate computes the former and hands the latter, as *rounds* `y = W x`, to a
//! [`linear::LinearBackend`]: [`linear::dense`] in the clear, or those of the crate `runtime`, the encrypted one among
//! them.
//!
//! A model is split once ([`split::split`]) into two parts:
//!
//! | part | holds | who has it |
//! |---|---|---|
//! | [`split::ClientPart`] | embeddings, norms, biases, a tied head, tokenizer, scales of the quantized weights | the client |
//! | [`split::ServerPart`] | int8 weights of all other linear layers, without their scales | the server |
//!
//! What is protected is the user's data. The weights are not shipped to the client, but the server's answers determine
//! them; see the threat model in `docs/`.
//!
//! | where | what |
//! |---|---|
//! | [`source`] | opens GGUF files and model directories |
//! | [`split`] | plans (`plain`: four rounds per block, `fused`: two), parts, manifests, digests |
//! | [`families`] | the table of families, configurations, names of tensors, plans, forward passes |
//! | [`formats`] | GGUF, safetensors and ONNX files |
//! | [`linear`] | the backend trait, float matrices, int8 quantization |
//! | [`local_ops`] | local operations |
//! | [`tokenizer`], [`chat_template`], [`generate`] | text to tokens, logits to text |
//!
//! # Example
//! One linear layer, quantized, through the same interface as a server's:
//! ```
//! use candle_core::{Device, Tensor};
//! use sotto_models::linear::{dense::DenseBackend, quantize::quantize, run_pass};
//! use sotto_models::split::plan::{PlanKind, PlanRound, SplitPlan};
//!
//! # fn main() -> sotto_models::Result<()> {
//! let round = PlanRound::new("blk.0.mlp", 2, [("blk.0.up".to_owned(), 3, 0..2)]);
//! let weights = Tensor::new(&[[1f32, 0.], [0., -2.], [0.5, 0.5]], &Device::Cpu)?;
//! let int8 = quantize(&round, &[weights], PlanKind::Plain.column_power())?;
//! let plan = SplitPlan { kind: PlanKind::Plain, rounds: vec![round] };
//! let mut backend = DenseBackend::from_quantized(plan, &[int8])?;
//! let x = Tensor::new(&[[10f32, 20.]], &Device::Cpu)?;
//! let y = run_pass(&mut backend, 1, |backend| Ok(backend.round(0, &x)?.remove(0)))?;
//! for (got, exact) in y.squeeze(0)?.to_vec1::<f32>()?.into_iter().zip([10., -40., 15.]) {
//!     assert!((got - exact).abs() < 0.2, "{got} is not {exact}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A whole model (`examples/generate.rs` is a program that does this):
//! ```no_run
//! use sotto_models::generate::sampler::argmax;
//! use sotto_models::local_ops::head::HeadPrecision;
//! use sotto_models::linear::{dense::DenseBackend, run_pass};
//! use sotto_models::source::ModelSource;
//! use sotto_models::split::{plan::PlanKind, split};
//!
//! # fn main() -> sotto_models::Result<()> {
//! let source = ModelSource::open("SmolLM2-135M-Instruct.Q4_1.gguf")?;
//! let parts = split(&source, PlanKind::Plain, |_rounds| ())?;
//! let mut backend = DenseBackend::from_quantized(parts.plan.clone(), &parts.server)?;
//! let mut model = parts.client.causal_model(HeadPrecision::default())?;
//! let mut ids = parts.client.tokenizer.encode("The capital of France is")?;
//! for _ in 0..8 {
//!     let new = &ids[model.len()..];
//!     let logits = run_pass(&mut backend, new.len(), |backend| model.forward(new, backend))?;
//!     ids.push(argmax(&logits.to_vec1::<f32>()?));
//! }
//! println!("{}", parts.client.tokenizer.decode(&ids)?);
//! # Ok(())
//! # }
//! ```

pub mod chat_template;
pub mod classical;
pub mod error;
pub mod families;
pub mod formats;
pub mod generate;
pub mod limits;
pub mod linear;
pub mod local_ops;
pub mod model;
pub mod source;
pub mod split;
pub mod tokenizer;

pub use error::{Error, Result};
