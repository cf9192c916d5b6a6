//! `sotto estimate`: what a model would cost, from its shapes alone and the speed of this machine.

use std::io::Write;

use fhe_layers::{PreparedModel, Set, TableForm};
use serde::Serialize;
use serde_json::json;
use sotto_client::WirePreference;
use sotto_engine::fetch::{ModelRef, Shape, fetch};
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;

use super::args::EstimateArgs;
use super::output;
use super::progress::Bars;
use super::speed::Speed;
use sotto_protocol::binding::{SetPreference, spendable};
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, available_bytes};

/// Seconds per round trip that the transport takes on both sides, without any distance.
const SECONDS_PER_ROUND_TRIP: f64 = 80e-6;

/// Int8 weights per second and core that the client multiplies by in the clear: the head, bound by memory.
const CLEAR_WEIGHTS_PER_SECOND: f64 = 6e9;

/// Seconds of the client per word that it encrypts or decodes.
const CLIENT_SECONDS_PER_WORD: f64 = 20e-9;

/// A frame of many tokens takes less than the tokens one by one: sums stay in registers.
const MANY_TOKENS: f64 = 0.6;

/// Memory of a client before it holds a model.
const CLIENT_BASE_BYTES: u64 = 60_000_000;

/// What to assume besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Assumptions {
    /// Wire form.
    pub wire: WirePreference,
    /// Tokens per batch.
    pub tau: usize,
    /// The link.
    pub link: AssumedLink,
    /// Tokens of the prompt whose first answer token is estimated.
    pub prompt_tokens: usize,
    /// Memory that the server may use; `None` for enough.
    pub free_bytes: Option<u64>,
}

/// What one plan of a model costs in one parameter set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// "plain" or "fused".
    pub plan: PlanKind,
    /// "default" or "light".
    pub set: String,
    /// Whether this machine would take this set by itself.
    pub chosen_here: bool,
    /// Form of the tables that this machine has the memory for: "ntt" or "compact".
    pub form_here: &'static str,
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
    /// Memory of the client.
    pub client_ram_bytes: u64,
    /// What a client downloads before its first token: its part and the shared masks.
    pub client_download_bytes: u64,
    /// Disk of the server for weights, client part and compact tables.
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
    /// Wire form.
    pub wire: String,
    /// Bytes of shared masks, once per session.
    pub session_bytes: u64,
    /// Memory of the server per lean batch that a client has ready.
    pub batch_memory_bytes: u64,
    /// Compute of server and client per token on this machine, in seconds.
    pub compute_seconds_per_token: f64,
    /// Seconds per token over the link, masks included.
    pub seconds_per_token: f64,
    /// Tokens per second over the link.
    pub tokens_per_s: f64,
    /// Bytes per token of all kinds.
    pub bytes_per_token: u64,
    /// Tokens of the prompt that the next field is about.
    pub prompt_tokens: usize,
    /// Seconds until the first token of the answer to such a prompt, no masks made ahead.
    pub first_token_seconds: f64,
}

/// A link that is assumed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AssumedLink {
    /// Towards the server, in Mbit/s; infinite on loopback.
    pub up_mbit: f64,
    /// From the server, in Mbit/s; infinite on loopback.
    pub down_mbit: f64,
    /// Round trip, in milliseconds.
    pub rtt_ms: f64,
}

/// Bytes on the wire for each byte of a message: headers of TCP and IP and records of TLS, in packets of 1500 bytes.
const WIRE_OVERHEAD: f64 = 1.05;

/// Estimates a plan of `shape` in `set`.
///
/// # Errors
/// [`Error::FheLayers`] for a tau without parameters.
pub(crate) fn estimate(shape: &Shape, set: Set, speed: &Speed, assume: &Assumptions) -> Result<Estimate> {
    let Assumptions { wire, tau, link, prompt_tokens, free_bytes } = *assume;
    let params = set.params(tau).map_err(fhe_layers::Error::from)?;
    let form = wire.on_this_machine(&params);
    let Shape { rounds, rows, weights, features, .. } = *shape;
    let blocks = rows.div_ceil(params.phi());
    let bits = |words: usize, bits: u32| (words * bits as usize).div_ceil(8) as u64;
    let bytes_up = bits(features, form.body_bits());
    let bytes_down = bits(rows, form.reply_bits());
    let bytes_ahead = (blocks * form.batch_block_bytes(&params) / tau) as u64;
    // Key-switch bodies and public key at 50 bits per word.
    let bytes_keys = ((params.levels() + 1) * params.n() * 50 / 8 / tau) as u64;
    let session_bytes = (blocks * form.session_block_bytes(&params)) as u64;

    let tables = |form| PreparedModel::bytes_for(&params, rows, form);
    let memory = |form| weights as u64 + tables(form);
    let room = free_bytes.map_or(u64::MAX, spendable);
    let form_here = if tables(TableForm::Ntt) <= room { TableForm::Ntt } else { TableForm::Compact };
    // As the automatic choice does: the default set where its NTT tables fit.
    let default = Set::Default.params(tau).map_err(fhe_layers::Error::from)?;
    let roomy = weights as u64 + PreparedModel::bytes_for(&default, rows, TableForm::Ntt) <= room;

    let body = weights as f64 * speed.body_per_weight;
    let masks = rows as f64 * speed.mask_per_row(set, form_here);
    let clear = shape.clear_weights as f64 / CLEAR_WEIGHTS_PER_SECOND
        + (features + rows) as f64 * CLIENT_SECONDS_PER_WORD;
    let cores = speed.cores as f64;
    let trips = rounds as f64 * (SECONDS_PER_ROUND_TRIP + link.rtt_ms / 1e3);
    // A token's rounds follow each other: other cores help with the masks, and little with these.
    let compute = (body + clear).max((body + masks / tau as f64 + clear) / cores);
    let seconds = |bytes: u64, mbit: f64| bytes as f64 * WIRE_OVERHEAD * 8.0 / (mbit * 1e6);
    let per_token =
        seconds(bytes_up + bytes_keys, link.up_mbit) + seconds(bytes_down + bytes_ahead, link.down_mbit);
    let batches = prompt_tokens.div_ceil(tau) as f64;
    let passes = prompt_tokens.div_ceil(sotto_engine::session::MAX_PASS_TOKENS) as f64;
    let prompt = (batches * masks + prompt_tokens as f64 * body * MANY_TOKENS + clear) / cores;
    Ok(Estimate {
        plan: shape.plan,
        set: set.to_string(),
        chosen_here: (set == Set::Default) == roomy,
        form_here: match form_here {
            TableForm::Ntt => "ntt",
            TableForm::Compact => "compact",
        },
        wire: form.to_string(),
        session_bytes,
        batch_memory_bytes: (rows * tau * form.kept_bytes_per_row()) as u64,
        rounds,
        weights,
        rows,
        server_ram_bytes: memory(TableForm::Ntt),
        server_ram_compact_bytes: memory(TableForm::Compact),
        client_ram_bytes: CLIENT_BASE_BYTES
            + 2 * shape.client_bytes
            + session_bytes
            + (features.div_ceil(params.phi()) * params.n() * 8) as u64,
        client_download_bytes: shape.client_bytes + session_bytes,
        disk_bytes: weights as u64 + shape.client_bytes + tables(TableForm::Compact),
        prepare_core_seconds: weights as f64 * speed.prepare_per_weight,
        bytes_up,
        bytes_down,
        bytes_ahead,
        bytes_keys,
        compute_seconds_per_token: compute,
        seconds_per_token: compute + trips + per_token,
        tokens_per_s: 1.0 / (compute + trips + per_token),
        bytes_per_token: bytes_up + bytes_down + bytes_ahead + bytes_keys,
        prompt_tokens,
        first_token_seconds: prompt + passes * trips + prompt_tokens as f64 * per_token,
    })
}

/// Estimates the plan `kind` of `source` in the default set, over `link`, at the speed of this machine.
///
/// # Errors
/// [`Error::FheLayers`] when the speed cannot be measured; a family without such a plan.
pub fn estimate_here(source: &ModelSource, kind: PlanKind, link: AssumedLink) -> Result<Estimate> {
    let assume = Assumptions {
        wire: WirePreference::Auto,
        tau: 64,
        link,
        prompt_tokens: 64,
        free_bytes: available_bytes(),
    };
    estimate(&Shape::of(source, kind)?, Set::Default, &Speed::measure()?, &assume)
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
    let link = match args.link {
        Some(link) => AssumedLink { up_mbit: link.up_mbit, down_mbit: link.down_mbit, rtt_ms: link.rtt_ms },
        None => AssumedLink { up_mbit: args.link_mbit, down_mbit: args.link_mbit, rtt_ms: args.rtt_ms },
    };
    let fetched = fetch(&ModelRef::parse(&args.model)?, &Cache::from_env()?, &Bars::new(args.json))?;
    let source = ModelSource::open(&fetched.path)?;
    let speed = Speed::measure()?;
    let assume = Assumptions {
        wire: args.wire,
        tau: args.tau,
        link,
        prompt_tokens: args.prompt_tokens,
        free_bytes: available_bytes(),
    };
    let sets: Vec<Set> = match args.set {
        SetPreference::Only(set) => vec![set],
        SetPreference::Auto => Set::ALL.to_vec(),
    };
    let mut estimates = Vec::new();
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        // A family without a fused plan is described by its plain one alone.
        let Ok(shape) = Shape::of(&source, kind) else { continue };
        for &set in &sets {
            estimates.push(estimate(&shape, set, &speed, &assume)?);
        }
    }
    let text = if args.json {
        json!({
            "model": fetched.name,
            "tau": args.tau,
            "link": args.link.map(|link| link.name),
            "up_mbit": link.up_mbit,
            "down_mbit": link.down_mbit,
            "rtt_ms": link.rtt_ms,
            "cores": speed.cores,
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
    let here = if estimate.chosen_here { ", chosen on this machine" } else { "" };
    format!(
        "{name}, {} rounds, {} set{here}: {} round trips per pass, {:.0} M remote weights\n\
         \x20 server  {:.1} GB of memory ({:.1} GB with compact tables; {} fits here), {:.1} GB on disk, {:.0} s of one core to \
         prepare once\n\
         \x20 client  {:.2} GB of memory, {:.0} MB to download before the first token\n\
         \x20 traffic {:.2} MB up, {:.2} MB down, {:.2} MB ahead per token ({}); {:.0} MB once per session\n\
         \x20 speed   {:.0} ms of computing per token, {:.2} s per token over this link ({:.2} tokens/s); first token of a \
         prompt of {} after {:.1} s",
        estimate.plan,
        estimate.set,
        estimate.rounds,
        estimate.weights as f64 / 1e6,
        gb(estimate.server_ram_bytes),
        gb(estimate.server_ram_compact_bytes),
        estimate.form_here,
        gb(estimate.disk_bytes),
        estimate.prepare_core_seconds,
        gb(estimate.client_ram_bytes),
        mb(estimate.client_download_bytes),
        mb(estimate.bytes_up),
        mb(estimate.bytes_down),
        mb(estimate.bytes_ahead),
        estimate.wire,
        mb(estimate.session_bytes),
        estimate.compute_seconds_per_token * 1e3,
        estimate.seconds_per_token,
        estimate.tokens_per_s,
        estimate.prompt_tokens,
        estimate.first_token_seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Speed = Speed {
        body_per_weight: 1e-10,
        default_mask_per_row: [2e-6, 8e-6],
        light_mask_per_row: [1e-6, 4e-6],
        prepare_per_weight: 1e-7,
        cores: 2,
    };

    fn layer() -> Shape {
        Shape {
            plan: PlanKind::Plain,
            rounds: 1,
            weights: 2048 * 2048,
            rows: 2048,
            features: 2048,
            clear_weights: 0,
            client_bytes: 1000,
        }
    }

    fn assume(wire: &str, free_bytes: Option<u64>) -> Assumptions {
        let wire = wire.parse().unwrap();
        Assumptions {
            wire,
            tau: 64,
            link: AssumedLink { up_mbit: 8.0, down_mbit: 8.0, rtt_ms: 10.0 },
            prompt_tokens: 130,
            free_bytes,
        }
    }

    #[test]
    fn one_layer_by_hand() {
        let of = |wire: &str| estimate(&layer(), Set::Default, &SPEED, &assume(wire, None)).unwrap();
        let lean = of("lean");
        // 30 bits up and 20 down for each of 2048, nothing ahead; 28 bits and 3 bytes for each row and token.
        assert_eq!((lean.bytes_up, lean.bytes_down, lean.bytes_ahead), (7680, 5120, 0));
        assert_eq!((lean.session_bytes, lean.batch_memory_bytes), (64 * 7168, 2048 * 64 * 3));
        assert_eq!(lean.client_download_bytes, 64 * 7168 + 1000);
        let estimate = of("full");
        assert_eq!((estimate.session_bytes, estimate.batch_memory_bytes), (0, 0));
        assert_eq!(estimate.bytes_up, 10_240);
        assert_eq!(estimate.bytes_down, 8192);
        // 64 blocks of 16 KB for 64 tokens.
        assert_eq!(estimate.bytes_ahead, 16_384);
        assert_eq!(estimate.bytes_keys, 600);
        assert_eq!(estimate.server_ram_bytes, 2048 * 2048 + 64 * 2048 * (9 + 31 * 2 * 8));
        // 35.4 KB over one megabyte per second with the packets' headers, and one round trip.
        let link = estimate.seconds_per_token - estimate.compute_seconds_per_token;
        assert!((link - 0.0354 * WIRE_OVERHEAD - 0.01 - SECONDS_PER_ROUND_TRIP).abs() < 1e-3, "{link}");
        let words = 4096.0 * CLIENT_SECONDS_PER_WORD;
        let compute = 2048.0 * 2048.0 * 1e-10 + words;
        assert!((estimate.compute_seconds_per_token - compute).abs() < 1e-9);
        // Three batches of masks for 130 tokens.
        let prompt = (3.0 * 2048.0 * 2e-6 + 130.0 * 2048.0 * 2048.0 * 1e-10 * MANY_TOKENS + words) / 2.0;
        let bytes = 130.0 * 0.035416 * WIRE_OVERHEAD + 0.01 + SECONDS_PER_ROUND_TRIP;
        assert!(
            (estimate.first_token_seconds - prompt - bytes).abs() < 1e-3,
            "{}",
            estimate.first_token_seconds
        );
    }

    #[test]
    fn the_speed_is_that_of_the_tables_that_fit() {
        let of = |set, free| estimate(&layer(), set, &SPEED, &assume("lean", free)).unwrap();
        let needed = of(Set::Default, None).server_ram_bytes;
        let roomy = of(Set::Default, Some(needed * 2));
        assert_eq!((roomy.form_here, roomy.chosen_here), ("ntt", true));
        let short = of(Set::Default, Some(needed));
        assert_eq!((short.form_here, short.chosen_here), ("compact", false));
        assert!(short.first_token_seconds > roomy.first_token_seconds);
        let light = of(Set::Light, Some(needed));
        assert_eq!((light.form_here, light.chosen_here), ("ntt", true));
        assert!(light.first_token_seconds < short.first_token_seconds);
        assert!(light.server_ram_bytes < roomy.server_ram_bytes * 6 / 10);
    }
}
