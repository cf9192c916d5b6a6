//! The tables of measured figures, written between two markers of README.md (the headlines) and of docs/benchmarks.md
//! (everything), so that no number is typed by hand.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::Value;

use crate::{output::human_ms, run_folder::Figures};

const BEGIN: &str = "<!-- measured:begin -->";
const END: &str = "<!-- measured:end -->";

/// The rows that README.md shows, by the start of their first column.
const HEADLINES: &[&str] = &[
    "encrypted chat, sustained decode, masks included",
    "the same in clear int8",
    "llama.cpp, the same GGUF in clear",
    "encrypted chat, fused plan, 20 ms of round-trip time added",
    "linear layers of llama-3.2-1b, one token",
    "2048 x 2048 layer, server online",
    "8x768x3072: concrete-ml-extensions",
    "encrypted anonymizer",
];

/// Replaces the text between the markers of `document` with `text`.
///
/// # Errors
/// If the file lacks the markers or cannot be written.
pub fn refresh(document: &Path, text: &str) -> anyhow::Result<()> {
    let old = fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    fs::write(document, replace(&old, text)?)?;
    Ok(())
}

fn replace(old: &str, text: &str) -> anyhow::Result<String> {
    let start = old.find(BEGIN).with_context(|| format!("no {BEGIN} in the document"))? + BEGIN.len();
    let end = start + old[start..].find(END).with_context(|| format!("no {END} after {BEGIN}"))?;
    Ok(format!("{}\n{}\n{}", &old[..start], text.trim(), &old[end..]))
}

/// The table of a run: what, how long, and the raw file of each figure. `link` leads to the run folder.
#[must_use]
pub fn table(figures: &Figures, link: &str) -> String {
    markdown(&rows(figures), link)
}

/// The few rows of [`table`] that README.md shows.
#[must_use]
pub fn headlines(figures: &Figures, link: &str) -> String {
    let mut rows = rows(figures);
    rows.retain(|[what, ..]| HEADLINES.iter().any(|start| what.starts_with(start)));
    markdown(&rows, link)
}

fn rows(figures: &Figures) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    chat_rows(figures, &mut rows);
    layer_rows(figures, &mut rows);
    peer_rows(figures, &mut rows);
    per_op_rows(figures, &mut rows);
    classifier_rows(figures, &mut rows);
    rows
}

fn markdown(rows: &[[String; 3]], link: &str) -> String {
    let mut text = String::from("| what | measured | raw |\n|---|---|---|\n");
    for [what, value, file] in rows {
        text.push_str(&format!("| {what} | {value} | [{file}]({link}raw/{file}.json) |\n"));
    }
    text
}

/// Every run of the linear layer, one line each: what the sweep varied, and the phases.
#[must_use]
pub fn sweep(figures: &Figures) -> String {
    let mut text = String::from(
        "| in x out | tokens per batch | threads | isa | form | prepare | int8 G/s per core | mask half, µs per row | body half, µs \
         per token | clear int8, µs | client online, µs | snr, bits | table, KB per row |\n\
         |---|---:|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for run in &figures.linear {
        let of = |key: &str| number(run, key).unwrap_or(f64::NAN);
        let client = of("client_encrypt_us_per_token") + of("client_decode_us_per_token");
        text.push_str(&format!(
            "| {} x {} | {} | {} | {} | {} | {} | {:.1} | {:.2} | {:.1} | {:.1} | {client:.1} | {:.1} | {:.1} |\n",
            run["in"],
            run["out"],
            run["tokens_per_batch"],
            run["threads"],
            run["isa"].as_str().unwrap_or("?"),
            run["form"].as_str().unwrap_or("?"),
            human_ms(of("prepare_ms")),
            of("prepare_gmac_per_s_per_core"),
            of("mask_half_us_per_row"),
            of("body_half_us_per_token"),
            of("clear_int8_us_per_token"),
            of("snr_bits"),
            of("table_bytes") / of("out") / 1e3,
        ));
    }
    text
}

/// Where a token of `--bin chat` goes: bytes on the wire by phase, milliseconds and memory by part; empty without it.
#[must_use]
pub fn accounting(figures: &Figures) -> String {
    let mut text = String::new();
    for name in ["chat", "chat-fused", "chat-plain-rtt20", "chat-fused-rtt20"] {
        let report = figures.other(name);
        let parts = [
            ("bytes_per_token", "bytes per token", 1.0),
            ("ms_per_token", "ms per token", 1.0),
            ("peak_bytes", "peak memory, MB", 1e-6),
        ];
        for (key, what, scale) in parts {
            for (part, value) in report[key].as_object().into_iter().flatten() {
                if let Some(value) = value.as_f64() {
                    let value = value * scale;
                    let digits = if value >= 100.0 { 0 } else { 2 };
                    text.push_str(&format!(
                        "| {name} | {what} | {} | {value:.digits$} |\n",
                        part.replace('_', " ")
                    ));
                }
            }
        }
        for layer in report["bytes_by_layer"].as_array().into_iter().flatten() {
            let part = format!("{}, {} rounds", layer["layer"].as_str().unwrap_or("?"), layer["rounds"]);
            let value = format!("{} / {} / {}", layer["up"], layer["down"], layer["ahead"]);
            text.push_str(&format!("| {name} | bytes per token, up / down / ahead | {part} | {value} |\n"));
        }
        for (side, parts) in report["memory_bytes"].as_object().into_iter().flatten() {
            for (part, value) in parts.as_object().into_iter().flatten() {
                if let Some(value) = value.as_f64() {
                    let part = part.replace('_', " ");
                    text.push_str(&format!(
                        "| {name} | memory of the {side}, MB | {part} | {:.1} |\n",
                        value / 1e6
                    ));
                }
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("### Where a token goes\n\n| run | what | part | value |\n|---|---|---|---:|\n{text}")
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value[key].as_f64()
}

fn chat_rows(figures: &Figures, rows: &mut Vec<[String; 3]>) {
    let encrypted = "encrypted_decode_tokens_per_s";
    for (name, what, key) in [
        ("chat", "encrypted chat, sustained decode, masks included", encrypted),
        ("chat", "the same in clear int8", "int8_decode_tokens_per_s"),
        ("chat-fused", "encrypted chat, fused plan", encrypted),
        ("chat-plain-rtt20", "encrypted chat, plain plan, 20 ms of round-trip time added", encrypted),
        ("chat-fused-rtt20", "encrypted chat, fused plan, 20 ms of round-trip time added", encrypted),
    ] {
        if let Some(rate) = number(figures.other(name), key) {
            rows.push([what.into(), format!("{rate:.1} tokens/s"), name.into()]);
        }
    }
    let llama = &figures.peers["llama_cpp"];
    if let Some(ms) = number(llama, "decode_ms_per_token") {
        let what = "llama.cpp, the same GGUF in clear".to_owned();
        rows.push([what, format!("{:.0} tokens/s", 1e3 / ms), "peers".into()]);
    }
    for (name, report) in figures.others.iter().filter(|(name, _)| name.starts_with("llm-")) {
        if let Some(seconds) = number(report, "encrypted_seconds_per_token") {
            let shape = name.trim_start_matches("llm-");
            let clear = number(report, "clear_int8_seconds_per_token")
                .map_or_else(String::new, |s| format!(" (clear int8 {})", human_ms(s * 1e3)));
            let what = format!("linear layers of {shape}, one token");
            rows.push([what, format!("{}{clear}", human_ms(seconds * 1e3)), name.clone()]);
        }
    }
    if let Some(rate) = number(figures.other("anonymize"), "encrypted_tokens_per_s") {
        let what = "encrypted anonymizer".to_owned();
        rows.push([what, format!("{rate:.0} tokens/s"), "anonymize".into()]);
    }
}

fn layer_rows(figures: &Figures, rows: &mut Vec<[String; 3]>) {
    let name = format!("linear-2048x2048-tau64-t{:.0}-ntt", figures.threads());
    let Some(run) = figures.linear.iter().find(|run| {
        run["in"] == 2048
            && run["out"] == 2048
            && run["tokens_per_batch"] == 64
            && run["form"] == "ntt"
            && run["sweep_isa"].is_null()
            && number(run, "threads") == Some(figures.threads())
    }) else {
        return;
    };
    let us = |key: &str| number(run, key).map(|us| us / 1e3);
    let mut push = |what: &str, ms: Option<f64>| {
        if let Some(ms) = ms {
            rows.push([what.into(), human_ms(ms), name.clone()]);
        }
    };
    push("2048 x 2048 layer, server online (body half), per token", us("body_half_us_per_token"));
    push("the same product in clear int8, same kernel", us("clear_int8_us_per_token"));
    let ahead = number(run, "mask_half_ms").zip(number(run, "tokens_per_batch")).map(|(ms, tau)| ms / tau);
    push("server ahead (mask half), per token", ahead);
    let client = us("client_encrypt_us_per_token").zip(us("client_decode_us_per_token")).map(|(a, b)| a + b);
    push("client online, per token", client);
    if let Some(bits) = number(run, "snr_bits") {
        let security = number(run, "security_bits").unwrap_or(f64::NAN);
        let value = format!("{bits:.1} bits at {security:.0} bits of security");
        rows.push(["signal-to-noise ratio of that layer".into(), value, name]);
    }
}

fn peer_rows(figures: &Figures, rows: &mut Vec<[String; 3]>) {
    for shape in figures.peers["shapes"].as_array().into_iter().flatten() {
        for peer in shape["peers"].as_array().into_iter().flatten() {
            let (Some(name), Some(ms), Some(ratio), Some(cold)) = (
                peer["peer"].as_str(),
                number(peer, "total_ms"),
                number(peer, "ratio_amortised"),
                number(peer, "ratio_cold"),
            ) else {
                continue;
            };
            let ours = number(&shape["ours"], "amortised_ms").unwrap_or(f64::NAN);
            rows.push([
                format!("{}x{}x{}: {name}", shape["tokens"], shape["d_in"], shape["d_out"]),
                format!(
                    "{}, ours {}: {ratio:.0} times faster; cold, with keys and a whole batch of masks, {cold:.1} times",
                    human_ms(ms),
                    human_ms(ours)
                ),
                "peers".into(),
            ]);
        }
    }
}

fn per_op_rows(figures: &Figures, rows: &mut Vec<[String; 3]>) {
    let file = || "per-op".to_owned();
    let report = &figures.per_op;
    if let Some(share) = number(report, "linear_weight_share") {
        let what = format!("weights of {} in linear maps", figures.model());
        rows.push([what, format!("{:.2} %", share * 100.0), file()]);
    }
    if let Some(ms) = figures.linear_layers_ms() {
        let what = format!("all linear layers of {}, encrypted, per token", figures.model());
        rows.push([what, format!("~{} (extrapolated from one of each shape)", human_ms(ms)), file()]);
    }
    for row in report["rows"].as_array().into_iter().flatten().filter(|r| r["headline"] == true) {
        let (op, name) = (row["op"].as_str().unwrap_or(""), row["name"].as_str().unwrap_or(""));
        if matches!(op, "linear" | "embedding") {
            continue;
        }
        let (Some(ms), Some(all)) =
            (number(row, "encrypted_ms_measured"), number(row, "encrypted_ms_extrapolated"))
        else {
            continue;
        };
        let size = row["measured_size"].as_str().unwrap_or("");
        let bits = number(row, "precision_bits").unwrap_or(0.0);
        rows.push([
            format!("{name} under TFHE, {bits:.0} bits, on {size}"),
            format!("{}; whole model, extrapolated: ~{} per token", human_ms(ms), human_ms(all)),
            file(),
        ]);
    }
}

fn classifier_rows(figures: &Figures, rows: &mut Vec<[String; 3]>) {
    let report = &figures.classifier;
    let (Some(encrypted), Some(float), Some(ms)) = (
        number(report, "accuracy_encrypted"),
        number(report, "accuracy_float"),
        number(report, "ms_per_prediction"),
    ) else {
        return;
    };
    rows.push([
        "8-bit linear classifier on encrypted digits".into(),
        format!("{:.1} % (float {:.1} %), {} per prediction", encrypted * 100.0, float * 100.0, human_ms(ms)),
        "classifier".into(),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_middle_is_replaced() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replace(&old, "| new |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n| new |\n{END}\nb\n"));
        assert_eq!(replace(&new, "| new |").unwrap(), new);
        assert!(replace("no markers", "x").is_err());
    }
}
