//! GPT-2 against golden logits of a small model with random weights (`golden/make_gpt2.py`).

use candle_core::Tensor;
use models::config::SplitFamily;
use models::gpt2::{Config, Gpt2};
use models::layers::head::HeadPrecision;
use models::linear::dense::DenseBackend;
use models::model::CausalModel;
use models::split::plan::PlanKind;
use models::weights::safetensors::SafetensorsFile;
use models::weights::{MemorySource, WeightSource};
use std::path::Path;

/// The configuration that `make_gpt2.py` writes into the file's metadata.
const CONFIG: &str = r#"{"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_inner": 40, "n_layer": 2,
    "n_head": 3, "n_positions": 16, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}"#;

fn golden() -> SafetensorsFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2_tiny.safetensors");
    SafetensorsFile::open(path).unwrap()
}

fn model(kind: PlanKind) -> (Gpt2, DenseBackend) {
    let (config, source) = (Config::from_json(CONFIG.as_bytes()).unwrap(), golden());
    let local = MemorySource::new(config.local_tensors(&source, kind).unwrap());
    let backend = DenseBackend::from_source(&config, &source, config.plan(kind).unwrap()).unwrap();
    (Gpt2::new(config, kind, &local, HeadPrecision::Float).unwrap(), backend)
}

fn ids() -> Vec<u32> {
    let ids = golden().get("golden.ids").unwrap().to_vec1::<f32>().unwrap();
    ids.into_iter().map(|id| id as u32).collect()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn logits_equal_the_reference() {
    let expected = golden().get("golden.logits").unwrap();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut gpt2, mut backend) = model(kind);
        let logits = gpt2.forward_all(&ids(), &mut backend).unwrap();
        let difference = worst(&logits, &expected);
        assert!(difference < 1e-4, "{kind}: {difference}");
    }
}

#[test]
fn cached_steps_equal_one_pass() {
    let expected = golden().get("golden.logits").unwrap();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        let (mut gpt2, mut backend) = model(kind);
        let ids = ids();
        gpt2.forward(&ids[..6], &mut backend).unwrap();
        gpt2.forward(&ids[..3], &mut backend).unwrap();
        gpt2.truncate(6);
        for (position, id) in ids.iter().enumerate().skip(6) {
            let logits = gpt2.forward(&[*id], &mut backend).unwrap();
            let difference = worst(&logits, &expected.get(position).unwrap());
            assert!(difference < 1e-4, "{kind} {position}: {difference}");
        }
        assert_eq!(gpt2.len(), ids.len());
        assert!(gpt2.forward(&ids[..4], &mut backend).is_err(), "16 positions");
    }
}

#[test]
fn the_fused_plan_has_two_rounds_per_block_and_one() {
    let config = Config::from_json(CONFIG.as_bytes()).unwrap();
    for (kind, rounds) in [(PlanKind::Plain, 8), (PlanKind::Fused, 5)] {
        let plan = config.plan(kind).unwrap();
        plan.validate().unwrap();
        assert_eq!(plan.rounds.len(), rounds);
    }
}
