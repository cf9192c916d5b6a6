//! The pictures of a run folder.

use std::path::Path;

use serde_json::Value;

use super::draw::{Bar, CLEAR, Line, OURS, PEER, TFHE, bars, lines};
use crate::run_folder::Figures;

/// Draws every picture whose figures are there; returns (file name, caption) of each.
///
/// # Errors
/// If a file cannot be written.
pub fn draw_all(folder: &Path, figures: &Figures) -> anyhow::Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    let mut keep = |name: &str, caption: &str| drawn.push((name.to_owned(), caption.to_owned()));
    let name = "time-per-token.svg";
    let contest = time_per_token(figures);
    if contest.len() > 1 {
        let title =
            format!("One token of {}: clear, encrypted by sotto, encrypted otherwise", figures.model());
        let note =
            "Logarithmic. Solid: measured. Pale, ~: measured on a part, extrapolated to the whole model.";
        bars(&folder.join(name), &title, note, &contest)?;
        keep(name, "Time per token: clear, ours, peers");
    }
    let name = "per-op.svg";
    let ops = per_op(figures);
    if !ops.is_empty() {
        let title = format!(
            "Where the time goes: each operation of one token of {}, under encryption",
            figures.model()
        );
        let note = "Logarithmic. Green: split-phase linear layers. Purple: TFHE bootstrapping, 6 bits, 2^-128. Grey: clear f32.";
        bars(&folder.join(name), &title, note, &ops)?;
        keep(name, "Each operation, clear and encrypted");
    }
    let name = "cost-against-size.svg";
    let sizes = against(figures, "in", |run| square(run) && standard(run, figures.threads()));
    if sizes.first().is_some_and(|l| l.points.len() > 1) {
        lines(
            &folder.join(name),
            "One d x d layer, 64 tokens per batch",
            ("d", "milliseconds per token"),
            &sizes,
        )?;
        keep(name, "Cost against size");
    }
    let name = "cost-against-batch.svg";
    let batches = against(figures, "tokens_per_batch", |run| batch_sweep(run, figures.threads()));
    if batches.first().is_some_and(|l| l.points.len() > 1) {
        lines(
            &folder.join(name),
            "One 2048 x 2048 layer against tokens per batch",
            ("tokens per batch of masks", "milliseconds per token"),
            &batches,
        )?;
        keep(name, "Cost against tokens per batch");
    }
    Ok(drawn)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

fn square(run: &Value) -> bool {
    run["in"] == run["out"]
}

fn standard(run: &Value, threads: f64) -> bool {
    number(run, "tokens_per_batch") == 64.0 && best(run, threads)
}

/// All threads, NTT form, the kernels' own choice of instruction set.
fn best(run: &Value, threads: f64) -> bool {
    run["form"] == "ntt" && number(run, "threads") == threads && run["sweep_isa"].is_null()
}

fn batch_sweep(run: &Value, threads: f64) -> bool {
    number(run, "in") == 2048.0 && square(run) && best(run, threads)
}

/// The phases of the linear layer over `x_key`, milliseconds per token, from the runs that `pick` takes.
fn against(figures: &Figures, x_key: &str, pick: impl Fn(&Value) -> bool) -> Vec<Line> {
    let mut runs: Vec<&Value> = figures.linear.iter().filter(|run| pick(run)).collect();
    runs.sort_by(|a, b| number(a, x_key).total_cmp(&number(b, x_key)));
    runs.dedup_by(|a, b| number(a, x_key) == number(b, x_key));
    let line = |label: &str, ms: &dyn Fn(&Value) -> f64| Line {
        label: label.to_owned(),
        points: runs.iter().map(|run| (number(run, x_key), ms(run))).collect(),
    };
    vec![
        line("server, online: body half", &|r| number(r, "body_half_us_per_token") / 1e3),
        line("server, ahead: mask half", &|r| number(r, "mask_half_ms") / number(r, "tokens_per_batch")),
        line("client, online: encrypt, decode", &|r| {
            (number(r, "client_encrypt_us_per_token") + number(r, "client_decode_us_per_token")) / 1e3
        }),
        line("client, ahead: keys, pads, masks", &|r| {
            (number(r, "client_keys_ms") + number(r, "client_pads_ms") + number(r, "client_decrypt_masks_ms"))
                / number(r, "tokens_per_batch")
        }),
        line("clear int8, same kernel", &|r| number(r, "clear_int8_us_per_token") / 1e3),
    ]
}

fn bar(label: impl Into<String>, ms: f64, colour: plotters::style::RGBColor, measured: bool) -> Bar {
    Bar { label: label.into(), ms, colour, measured }
}

/// Clear, ours, peers, all under TFHE: fastest first.
fn time_per_token(figures: &Figures) -> Vec<Bar> {
    let mut found = Vec::new();
    let clear = figures.peers["llama_cpp"]["decode_ms_per_token"].as_f64();
    if let Some(ms) = clear {
        found.push(bar("clear: llama.cpp, 4-bit weights", ms, CLEAR, true));
    }
    if let Some(rate) = figures.other("chat")["int8_decode_tokens_per_s"].as_f64() {
        found.push(bar("clear: sotto's own int8", 1e3 / rate, CLEAR, true));
    }
    if let Some(rate) = figures.other("chat")["encrypted_decode_tokens_per_s"].as_f64() {
        found.push(bar("sotto: encrypted chat, all included", 1e3 / rate, OURS, true));
    }
    let model = format!("llm-{}", figures.model());
    if let Some(seconds) = figures.other(&model)["encrypted_seconds_per_token"].as_f64() {
        found.push(bar("sotto: encrypted linear layers", seconds * 1e3, OURS, true));
    } else if let Some(ms) = figures.linear_layers_ms() {
        found.push(bar("sotto: encrypted linear layers", ms, OURS, false));
    }
    for (name, ms) in figures.peers_per_token() {
        found.push(bar(format!("{name}: linear layers"), ms, PEER, false));
    }
    if let Some(ms) = figures.all_tfhe_ms() {
        found.push(bar("activations, attention under TFHE too", ms, TFHE, false));
    }
    found.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    found
}

/// Encrypted and clear bars of each operation, the headline rows.
fn per_op(figures: &Figures) -> Vec<Bar> {
    let mut found = Vec::new();
    let rows = figures.per_op["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |op: &str, key: &str| -> f64 {
        rows.iter()
            .filter(|r| r["op"] == op && r["headline"] == true && r["name"] != "lm_head")
            .map(|r| number(r, key))
            .sum()
    };
    let names = [
        ("linear", "linear layers", OURS),
        ("activation", "activation (SiLU)", TFHE),
        ("norm", "RMS norms", TFHE),
        ("softmax", "softmax", TFHE),
        ("attention_scores", "attention scores, ct x ct", TFHE),
        ("attention_values", "attention values, ct x ct", TFHE),
    ];
    for (op, label, colour) in names {
        let encrypted = sum(op, "encrypted_ms_extrapolated");
        if encrypted > 0.0 {
            found.push(bar(format!("{label}: clear"), sum(op, "clear_ms"), CLEAR, true));
            found.push(bar(format!("{label}: encrypted"), encrypted, colour, false));
        }
    }
    found
}
