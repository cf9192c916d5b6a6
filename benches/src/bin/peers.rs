//! `peers`: other libraries on the same shapes, in the same run. See `benches/README.md`.

use std::time::Duration;

use benches::{
    machine::Machine,
    output::{envelope, human_ms, print_json, table},
    peers::{Options, Report, SHAPES, measure},
};
use clap::Parser;

/// Runs other libraries on the same encrypted vector-matrix products, interleaved with ours.
#[derive(Parser)]
struct Args {
    /// Shapes as `TOKENSxINxOUT` (default: 1x768x768 1x2048x2048 8x768x3072).
    #[arg(long, value_parser = shape, num_args = 1..)]
    shapes: Vec<(usize, usize, usize)>,
    /// Runs of each on each shape, at most.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds after which a slow peer is not run again on a shape.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Our worker threads (default: all cores; the peers take all cores).
    #[arg(long)]
    threads: Option<usize>,
    /// Model that llama.cpp decodes in clear.
    #[arg(long, default_value = "smollm2-135m")]
    model: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<(usize, usize, usize), String> {
    let numbers: Vec<usize> = text.split('x').filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [tokens @ 1..=64, d_in @ 1..=32_768, d_out @ 1..=32_768] => Ok((tokens, d_in, d_out)),
        _ => Err(format!("{text} is not TOKENSxINxOUT, for example 1x768x768")),
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let machine = Machine::detect(threads);
    let options = Options {
        shapes: if args.shapes.is_empty() { SHAPES.to_vec() } else { args.shapes },
        repeats: args.repeats.max(1),
        patience: Duration::from_secs(args.patience),
        threads,
        model: args.model,
    };
    let report = measure(&options)?;
    if args.json {
        print_json(&envelope(&machine, &report.checks, &report)?)?;
    } else {
        print!("{}\n{}", machine.line(), text(&report));
    }
    report.checks.finish()
}

fn text(report: &Report) -> String {
    let mut rows = Vec::new();
    for shape in &report.shapes {
        let name = format!("{}x{}x{}", shape.tokens, shape.d_in, shape.d_out);
        let ours = &shape.ours;
        rows.push(vec![
            name.clone(),
            "ours".into(),
            human_ms(ours.amortised_ms),
            human_ms(ours.online_ms),
            human_ms(ours.cold_ms),
            format!("{:.1} KB", ours.key_bytes / 1e3),
        ]);
        for peer in &shape.peers {
            rows.push(vec![
                name.clone(),
                format!("{} {}", peer.peer, peer.version),
                format!("{} ({:.0}x)", human_ms(peer.total_ms), peer.ratio_amortised),
                format!("({:.0}x)", peer.ratio_online),
                format!("{} ({:.1}x)", human_ms(peer.keygen_ms + peer.total_ms), peer.ratio_cold),
                peer.key_bytes.map_or_else(|| "-".into(), |b| format!("{:.1} MB", b / 1e6)),
            ]);
        }
    }
    let mut text = table(&["shape", "library", "amortised", "online", "cold", "keys"], &rows);
    if let Some(ms) = report.llama_cpp["decode_ms_per_token"].as_f64() {
        text.push_str(&format!("llama.cpp decodes the same GGUF in clear at {} per token\n", human_ms(ms)));
    }
    for (peer, reason) in &report.skipped {
        text.push_str(&format!("skipped {peer}: {reason}\n"));
    }
    text
}
