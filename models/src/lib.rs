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
//! | [`llama`], [`gpt2`], [`bert`] | the families: local operations, plans |
//! | [`linear`] | the backend trait, float matrices, int8 quantization |
//! | [`layers`] | local operations |
//! | [`tokenizer`], [`chat_template`], [`generate`] | text to tokens, logits to text |
//!
//! ```no_run
//! use models::generate::sampler::argmax;
//! use models::layers::head::HeadPrecision;
//! use models::linear::{dense::DenseBackend, run_pass};
//! use models::source::ModelSource;
//! use models::split::{plan::PlanKind, split};
//!
//! # fn main() -> models::Result<()> {
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

pub mod bert;
pub mod chat_template;
pub mod config;
pub mod error;
pub mod generate;
pub mod gpt2;
pub mod layers;
pub mod limits;
pub mod linear;
pub mod llama;
pub mod model;
pub mod source;
pub mod split;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
