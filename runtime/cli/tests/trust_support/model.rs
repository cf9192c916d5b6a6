//! A small Llama with random weights, split for the full parameters, and a judge of its answers.

use std::path::{Path, PathBuf};

use sotto_client::accounting::Accounting;
use sotto_engine::backend::{Backend, BackendKind, Int8Backend};
use sotto_engine::session::run_pass;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::model::CausalModel;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ServerPart, split};

/// Token positions per batch.
pub(crate) const TAU: usize = 64;

/// Positions of the small model's context.
const CONTEXT: usize = 4096;

/// Layers of the small model: enough that the masks of a batch come in several pieces.
const LAYERS: usize = 10;

/// Distance from the best logit, as a part of the spread of all, within which a token counts as the best: far above
/// the noise of the encrypted path (some 2^-17), far below the distance to a random token.
const NEAR: f32 = 0.02;

/// The split of the small model in a directory of its own.
pub(crate) struct SmallModel {
    /// Holds `client/plain` and `server/plain`.
    pub(crate) split: PathBuf,
    _directory: tempfile::TempDir,
}

impl SmallModel {
    /// Writes the model and its split; the server prepares the tables.
    pub(crate) fn new() -> Self {
        Self::with(sotto_testing::tiny::TEMPLATE, &[1])
    }

    /// As [`SmallModel::new`], with a chat template and tokens that end an answer of the server's choice.
    pub(crate) fn with(template: &str, ends: &[u32]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("tiny");
        std::fs::create_dir(&source).unwrap();
        let mut tiny = sotto_testing::tiny::Tiny::llama();
        tiny.config["max_position_embeddings"] = CONTEXT.into();
        tiny.config["eos_token_id"] = ends.into();
        deepen(&mut tiny);
        tiny.write_directory(&source);
        let config = source.join("tokenizer_config.json");
        let mut written: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        written["chat_template"] = template.into();
        std::fs::write(&config, written.to_string()).unwrap();
        let binding = sotto_protocol::binding::binding(TAU).unwrap();
        let out = directory.path().join("split");
        let source = ModelSource::open(&source).unwrap();
        split(&source, PlanKind::Plain, |_| {}).unwrap().write(&out, &binding).unwrap();
        Self { split: out, _directory: directory }
    }

    /// Directory of the client part.
    pub(crate) fn client(&self) -> PathBuf {
        self.split.join("client/plain")
    }
}

/// Stacks the layers several times over.
fn deepen(tiny: &mut sotto_testing::tiny::Tiny) {
    let written = tiny.config["num_hidden_layers"].as_u64().unwrap() as usize;
    let prefix = |layer: usize| format!("model.layers.{layer}.");
    for layer in written..LAYERS {
        let of = prefix(layer % written);
        let copies = tiny.tensors.iter().filter_map(|(name, tensor)| {
            Some((format!("{}{}", prefix(layer), name.strip_prefix(&of)?), tensor.clone()))
        });
        let copies: Vec<_> = copies.collect();
        tiny.tensors.extend(copies);
    }
    tiny.config["num_hidden_layers"] = LAYERS.into();
}

/// A prompt of `words` words for the small model; other seeds give other prompts.
pub(crate) fn prompt(seed: usize, words: usize) -> String {
    let words = (0..words).map(|i| format!("w{}", 2 + (seed * 31 + i * 7 + i * i * seed) % 48));
    words.collect::<Vec<_>>().join(" ")
}

/// The token ids of [`prompt`]: its words are numbered.
pub(crate) fn prompt_ids(prompt: &str) -> Vec<u32> {
    prompt.split(' ').map(|word| word[1..].parse().unwrap()).collect()
}

/// Runs a model in clear with the server's int8 weights, to judge answers of the encrypted path.
pub(crate) struct Judge {
    model: Box<dyn CausalModel>,
    backend: Backend,
    accounting: Accounting,
}

impl Judge {
    /// A judge for the split in `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        let part = ClientPart::load(directory.join("client/plain")).unwrap().part;
        let server = ServerPart::open(directory.join("server/plain")).unwrap();
        let backend = Int8Backend::new(&server, &part.scales).unwrap();
        Self {
            model: part.causal_model(HeadPrecision::default()).unwrap(),
            backend: Backend::new(BackendKind::Int8(Box::new(backend))),
            accounting: Accounting::default(),
        }
    }

    /// How many of `answer`'s tokens are what the model itself would say after `prompt` and the tokens before.
    pub(crate) fn right(&mut self, prompt: &[u32], answer: &[u32]) -> usize {
        self.model.clear();
        let mut pending = prompt.to_vec();
        let mut right = 0;
        for &token in answer {
            let logits = run_pass(&mut *self.model, &mut self.backend, &pending, &self.accounting).unwrap();
            let logits: Vec<f32> = logits.to_vec1().unwrap();
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            let least = logits.iter().copied().fold(f32::MAX, f32::min);
            right += usize::from(best - logits[token as usize] <= NEAR * (best - least));
            pending = vec![token];
        }
        right
    }
}
