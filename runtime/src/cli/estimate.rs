//! `sotto estimate`: what a model would cost, from its shapes alone.

use std::io::Write;

use models::source::ModelSource;
use models::split::plan::{PlanKind, SplitPlan};
use serde::Serialize;
use serde_json::json;

use super::args::EstimateArgs;
use super::output;
use super::progress::Bars;
use crate::error::{Error, Result};
use crate::fetch::{Cache, ModelRef, fetch};

/// Ring degree of the parameter sets.
const RING_DEGREE: usize = 2048;

/// Int8 products per second of one core's body half (five byte planes).
const BODY_WEIGHTS_PER_SECOND: f64 = 11e9;

/// Seconds per row and batch of one core's mask half, tables in NTT form.
const MASK_SECONDS_PER_ROW: f64 = 2.5e-6;

/// Seconds per ciphertext on top: fresh randomness, inverse transform, switch to 32 bits.
const MASK_SECONDS_PER_BLOCK: f64 = 20e-6;

/// Seconds per polynomial that the client transforms when it makes a batch or decrypts its masks.
const CLIENT_SECONDS_PER_POLYNOMIAL: f64 = 12e-6;

/// Int8 multiply-adds per second and core while preparing.
const PREPARE_PER_SECOND: f64 = 120e9;

/// Byte planes of a residue while preparing.
const PREPARE_PLANES: f64 = 7.0;

/// Bytes per row of tables in memory (NTT form) and on disk (compact form).
const NTT_TABLE_BYTES: u64 = 2 * 8 * RING_DEGREE as u64;
const COMPACT_TABLE_BYTES: u64 = 2 * 2 * RING_DEGREE as u64;

/// Bytes per batch of keys: key-switch bodies and public key at 50 bits per word.
const KEY_BYTES: u64 = 3 * RING_DEGREE as u64 * 50 / 8;

/// What one plan of a model costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// "plain" or "fused".
    pub plan: PlanKind,
    /// Round trips per pass.
    pub rounds: usize,
    /// Remote weights.
    pub weights: usize,
    /// Output rows.
    pub rows: usize,
    /// Memory of the server: weights and tables in NTT form.
    pub server_ram_bytes: u64,
    /// Memory of the server with compact tables.
    pub server_ram_compact_bytes: u64,
    /// Disk for weights and compact tables.
    pub disk_bytes: u64,
    /// Seconds of one core to prepare the tables, once.
    pub prepare_core_seconds: f64,
    /// Bytes per token, bodies.
    pub bytes_up: u64,
    /// Bytes per token, replies.
    pub bytes_down: u64,
    /// Bytes per token, masks ahead.
    pub bytes_ahead: u64,
    /// Bytes per token, keys.
    pub bytes_keys: u64,
    /// Compute of server and client per token on one core each, in seconds.
    pub compute_seconds_per_token: f64,
    /// Seconds per token over the link, masks included.
    pub seconds_per_token: f64,
}

/// Estimates `plan` at `tau` tokens per batch over a link of `link_mbit` and `rtt_ms`.
pub fn estimate(plan: &SplitPlan, tau: usize, link_mbit: f64, rtt_ms: f64) -> Estimate {
    let (rows, weights) = (plan.rows(), plan.weights());
    let features: usize = plan.rounds.iter().map(|round| round.d_in).sum();
    let rows_per_block = RING_DEGREE / tau;
    let blocks = rows.div_ceil(rows_per_block);
    let padded = (blocks * rows_per_block) as u64;
    let bytes_up = 5 * features as u64;
    let bytes_down = 4 * rows as u64;
    let bytes_ahead = (blocks * 8 * RING_DEGREE / tau) as u64;
    let bytes_keys = KEY_BYTES / tau as u64;
    let mask = padded as f64 * MASK_SECONDS_PER_ROW + blocks as f64 * MASK_SECONDS_PER_BLOCK;
    let polynomials = features.div_ceil(rows_per_block) + blocks;
    let client = polynomials as f64 * CLIENT_SECONDS_PER_POLYNOMIAL;
    let compute = weights as f64 / BODY_WEIGHTS_PER_SECOND + (mask + client) / tau as f64;
    let bytes = bytes_up + bytes_down + bytes_ahead + bytes_keys;
    let link = bytes as f64 * 8.0 / (link_mbit * 1e6);
    let waiting = plan.rounds.len() as f64 * rtt_ms / 1e3;
    let macs: f64 = plan.rounds.iter().map(|round| round.weights() as f64).sum::<f64>();
    Estimate {
        plan: plan.kind,
        rounds: plan.rounds.len(),
        weights,
        rows,
        server_ram_bytes: weights as u64 + padded * NTT_TABLE_BYTES,
        server_ram_compact_bytes: weights as u64 + padded * COMPACT_TABLE_BYTES,
        disk_bytes: weights as u64 + padded * COMPACT_TABLE_BYTES,
        prepare_core_seconds: macs * RING_DEGREE as f64 * PREPARE_PLANES / PREPARE_PER_SECOND
            + padded as f64 * 35e-6,
        bytes_up,
        bytes_down,
        bytes_ahead,
        bytes_keys,
        compute_seconds_per_token: compute,
        seconds_per_token: compute + link + waiting,
    }
}

/// Runs `sotto estimate`.
///
/// # Errors
///
/// An unknown model, a download that fails, or arguments out of range.
pub fn run(args: &EstimateArgs, out: &mut dyn Write) -> Result<()> {
    if !(args.link_mbit > 0.0 && args.rtt_ms >= 0.0) {
        return Err(Error::Usage("--link-mbit must be above 0 and --rtt-ms at least 0".to_owned()));
    }
    let fetched = fetch(&ModelRef::parse(&args.model)?, &Cache::from_env()?, &Bars::new(args.json))?;
    let source = ModelSource::open(&fetched.path)?;
    let family = source.config.split_family();
    let estimates: Vec<Estimate> = [PlanKind::Plain, PlanKind::Fused]
        .into_iter()
        // A family without a fused plan is described by its plain one alone.
        .filter_map(|kind| family.plan(kind).ok())
        .map(|plan| estimate(&plan, args.tau, args.link_mbit, args.rtt_ms))
        .collect();
    let text = if args.json {
        json!({
            "model": fetched.name,
            "tau": args.tau,
            "link_mbit": args.link_mbit,
            "rtt_ms": args.rtt_ms,
            "plans": estimates,
        })
        .to_string()
    } else {
        estimates.iter().map(|estimate| describe(&fetched.name, estimate)).collect::<Vec<_>>().join("\n")
    };
    output::line(out, &text)
}

fn describe(name: &str, estimate: &Estimate) -> String {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "{name}, {} rounds: {} round trips per pass, {:.0} M remote weights\n\
         \x20 server  {:.1} GB of memory ({:.1} GB with compact tables), {:.1} GB on disk, {:.0} s of one core to prepare once\n\
         \x20 traffic {:.2} MB up, {:.2} MB down, {:.2} MB ahead per token\n\
         \x20 speed   {:.0} ms of computing per token, {:.2} s per token over this link ({:.1} tokens/s)",
        estimate.plan,
        estimate.rounds,
        estimate.weights as f64 / 1e6,
        gb(estimate.server_ram_bytes),
        gb(estimate.server_ram_compact_bytes),
        gb(estimate.disk_bytes),
        estimate.prepare_core_seconds,
        mb(estimate.bytes_up),
        mb(estimate.bytes_down),
        mb(estimate.bytes_ahead),
        estimate.compute_seconds_per_token * 1e3,
        estimate.seconds_per_token,
        1.0 / estimate.seconds_per_token,
    )
}

#[cfg(test)]
mod tests {
    use models::split::plan::PlanRound;

    use super::*;

    #[test]
    fn one_layer_by_hand() {
        let round = PlanRound::new("r", 2048, [("w".to_owned(), 2048, 0..2048)]);
        let plan = SplitPlan { kind: PlanKind::Plain, rounds: vec![round] };
        let estimate = estimate(&plan, 64, 8.0, 10.0);
        assert_eq!(estimate.bytes_up, 10_240);
        assert_eq!(estimate.bytes_down, 8192);
        // 64 blocks of 16 KB for 64 tokens.
        assert_eq!(estimate.bytes_ahead, 16_384);
        assert_eq!(estimate.bytes_keys, 600);
        assert_eq!(estimate.server_ram_bytes, 2048 * 2048 + 2048 * 32_768);
        // 35.4 KB over one megabyte per second, and one round trip.
        let link = estimate.seconds_per_token - estimate.compute_seconds_per_token;
        assert!((link - 0.0454).abs() < 1e-3, "{link}");
    }
}
