//! `linear`: one encrypted layer with real parameters, every phase timed, every answer checked. See `benches/README.md`.

mod layer;
mod measure;

use anyhow::Context as _;
use benches::{
    check::Checks,
    machine::Machine,
    output::{envelope, print_json, table},
};
use clap::Parser;
use fhe_layers::{Set, TableForm, WireForm, kernels::Isa};

/// Times one encrypted linear layer and checks its answers.
#[derive(Parser)]
struct Args {
    /// Input features.
    #[arg(long = "in", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    d_in: u32,
    /// Output features.
    #[arg(long = "out", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    d_out: u32,
    /// Tokens that share one batch of keys and masks.
    #[arg(long, default_value_t = 64)]
    tokens_per_batch: usize,
    /// Worker threads (default: all cores).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// How the server keeps the prepared digits: ntt or compact.
    #[arg(long, default_value = "ntt")]
    form: TableForm,
    /// Wire form: lean, stateless or full; with widths as in lean:30/20/28 or lean:fine.
    #[arg(long, default_value = "full")]
    wire: String,
    /// Parameter set: default or light.
    #[arg(long, default_value = "default")]
    set: Set,
    /// Instruction set of our kernels: scalar, avx2, avx512vnni or avx512 (default: the fastest).
    #[arg(long)]
    isa: Option<Isa>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The wire form; `lean` alone has the default widths of the set.
    fn wire(&self) -> anyhow::Result<WireForm> {
        if self.wire == "lean" {
            return Ok(WireForm::lean(&self.set.params(self.tokens_per_batch)?));
        }
        self.wire.parse().map_err(anyhow::Error::msg)
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, |threads| threads as usize);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let machine = Machine::detect(threads);
    let mut checks = Checks::new();
    let report = measure::measure(&args, args.wire()?, threads, &mut checks)?;
    let value = envelope(&machine, &checks, &report)?;
    if args.json {
        print_json(&value)?;
    } else {
        let fields = value.as_object().context("a report is an object")?;
        let flat = fields.iter().filter(|(_, v)| v.is_number() || v.is_string() || v.is_boolean());
        let rows: Vec<Vec<String>> =
            flat.map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
        print!("{}\n{}", machine.line(), table(&["field", "value"], &rows));
    }
    checks.finish()
}
