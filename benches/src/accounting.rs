//! Where a token's bytes and a process's memory go: by layer and by part, computed from shapes and held against what
//! was counted.

use fhe_layers::{Instance, WireForm};
use serde::Serialize;
use serde_json::{Value, json};
use sotto_client::accounting::Totals;
use sotto_models::formats::WeightSource as _;
use sotto_models::split::ClientPart;
use sotto_models::split::plan::SplitPlan;

use crate::check::Checks;

/// Bytes on the wire per token of all rounds of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerBytes {
    /// The rounds' name without the block's number, e.g. `qkv`.
    pub layer: String,
    /// How many such rounds a pass has.
    pub rounds: usize,
    /// Bodies: bytes of the form's words, packed.
    pub up: usize,
    /// Replies: the same.
    pub down: usize,
    /// Masks that travel for every batch, per token; the padding of the last block left out.
    pub ahead: usize,
}

/// The bytes of a pass of one token, by kind of round in the plan's order.
#[must_use]
pub fn bytes_by_layer(plan: &SplitPlan, form: WireForm) -> Vec<LayerBytes> {
    let ahead_bits = match form {
        WireForm::Full => 64,
        WireForm::Lean(_) => 0,
        WireForm::Stateless(_) => fhe_layers::form::SENT_BITS as usize,
    };
    let mut layers: Vec<LayerBytes> = Vec::new();
    for round in &plan.rounds {
        let numbered = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let name = match round.name.split('.').position(|part| numbered(&part)) {
            Some(at) => round.name.split('.').skip(at + 1).collect::<Vec<_>>().join("."),
            None => round.name.clone(),
        };
        let at = layers.iter().position(|layer| layer.layer == name).unwrap_or_else(|| {
            layers.push(LayerBytes { layer: name.clone(), rounds: 0, up: 0, down: 0, ahead: 0 });
            layers.len() - 1
        });
        let layer = &mut layers[at];
        layer.rounds += 1;
        layer.up += form.body_bytes(round.d_in);
        layer.down += form.reply_bytes(round.rows());
        layer.ahead += round.rows() * ahead_bits / 8;
    }
    layers
}

/// Checks that the bytes of all layers are those that a client counted for `tokens` tokens. Masks come in whole batches
/// of `tau`, so they may be off by one.
pub fn check_bytes(layers: &[LayerBytes], spent: &Totals, tokens: usize, tau: usize, checks: &mut Checks) {
    let sum = |of: fn(&LayerBytes) -> usize| layers.iter().map(of).sum::<usize>() as u64;
    let all = tokens as u64;
    for (what, got, expected) in
        [("up", spent.bytes.up, sum(|l| l.up) * all), ("down", spent.bytes.down, sum(|l| l.down) * all)]
    {
        checks.that(
            format!("bytes {what}: those of the layers are all"),
            got == expected,
            format!("counted {got}, layers {expected}"),
        );
    }
    let ahead = sum(|layer| layer.ahead);
    // The last block of a batch is padded to a whole one; nothing next to a batch.
    let slack = (ahead * tau as u64) as f64 * 1.01;
    checks.at_most(
        "bytes ahead: off from the layers' by at most one batch",
        (spent.bytes.ahead as f64 - (ahead * all) as f64).abs(),
        slack,
    );
}

/// Bytes of memory that the parts of a client take, by their shapes; what its process holds beyond them is the rest.
///
/// `batches`: how many batches of unused slots it keeps.
#[must_use]
pub fn client_memory(part: &ClientPart, instance: &Instance, batches: usize, peak: Option<u64>) -> Value {
    let names = part.local.names();
    let shapes = names.iter().filter_map(|name| part.local.shape(name));
    let local: usize = shapes.map(|shape| shape.iter().product::<usize>() * size_of::<f32>()).sum();
    let head = part.embedding.bytes();
    let (layout, params) = (instance.layout(), instance.params());
    let masks = layout.total_polys() * params.n() * size_of::<u64>();
    let pads = layout.total_polys() * params.phi() * size_of::<u64>();
    let corrections = layout.total_rows() * size_of::<u32>();
    let slots = batches * params.tau() * (pads + corrections);
    let known = local + head + masks + slots;
    json!({
        "embeddings_norms_biases": local,
        "head_int8": head,
        "public_masks": masks,
        "slots": slots,
        "rest": peak.map(|peak| peak.saturating_sub(known as u64)),
    })
}

/// The same of a server that keeps its tables in their final form.
#[must_use]
pub fn server_memory(plan: &SplitPlan, instance: &Instance, peak: Option<u64>) -> Value {
    let words = instance.ring().shape().table_words() + instance.params().n();
    let tables = instance.layout().blocks() * words * size_of::<u64>();
    let known = plan.weights() + tables;
    json!({
        "weights_int8": plan.weights(),
        "tables": tables,
        "rest": peak.map(|peak| peak.saturating_sub(known as u64)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_models::split::plan::{PlanKind, PlanRound};

    fn plan() -> SplitPlan {
        let round =
            |name: &str, d_in, rows| PlanRound::new(name, d_in, [(format!("{name}.m"), rows, 0..d_in)]);
        let rounds = vec![
            round("blk.0.qkv", 10, 6),
            round("blk.0.down", 20, 7),
            round("blk.11.qkv", 10, 6),
            round("layer.1.output", 3, 1),
            round("head", 10, 100),
        ];
        SplitPlan { kind: PlanKind::Plain, rounds }
    }

    #[test]
    fn rounds_of_a_kind_are_one_line() {
        let layers = bytes_by_layer(&plan(), WireForm::Full);
        let names: Vec<_> = layers.iter().map(|layer| (layer.layer.as_str(), layer.rounds)).collect();
        assert_eq!(names, [("qkv", 2), ("down", 1), ("output", 1), ("head", 1)]);
        assert_eq!((layers[0].up, layers[0].down, layers[0].ahead), (100, 48, 96));
        let lean = bytes_by_layer(&plan(), WireForm::Lean(fhe_layers::Widths::DEFAULT));
        // Two frames of 10 words of 30 bits and 6 of 20 bits, each rounded up to bytes.
        assert_eq!((lean[0].up, lean[0].down, lean[0].ahead), (76, 30, 0));
    }

    #[test]
    fn bytes_that_no_layer_accounts_for_fail_the_run() {
        let layers = bytes_by_layer(&plan(), WireForm::Full);
        let mut spent = Totals::default();
        (spent.bytes.up, spent.bytes.down, spent.bytes.ahead) = (53 * 5 * 3, 120 * 4 * 3, 120 * 8 * 4);
        let mut checks = Checks::new();
        check_bytes(&layers, &spent, 3, 1, &mut checks);
        assert!(checks.all_ok());
        spent.bytes.down += 1;
        check_bytes(&layers, &spent, 3, 1, &mut checks);
        assert!(!checks.all_ok());
    }
}
