//! Trees, linear models and networks: encrypted predictions beside those of the libraries that trained them.

use std::process::ExitCode;

use benches::check::Checks;
use benches::classical_run::{self, Options};
use benches::machine::Machine;
use benches::output::{envelope, print_json};
use clap::Parser;

/// Trains models on real data with their own libraries and predicts encrypted, over a socket
#[derive(Parser)]
struct Args {
    /// Data: spam, breast-cancer, digits
    #[arg(long, value_delimiter = ',', default_value = "spam,digits")]
    data: Vec<String>,
    /// Models: xgboost, lightgbm, forest, tree, logistic, mlp
    #[arg(long, value_delimiter = ',', default_value = "xgboost,lightgbm,forest,tree,logistic,mlp")]
    models: Vec<String>,
    /// Single predictions that are timed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    singles: u32,
    /// Rows that Concrete ML predicts under TFHE in the same run, for models that it has (xgboost, logistic); 0 for none
    #[arg(long, default_value_t = 0)]
    concrete_ml: u32,
    /// Print one JSON object as the last line (always on)
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = sotto::serve_if_asked() {
        return Ok(code);
    }
    let args = Args::parse();
    let machine = Machine::detect(std::thread::available_parallelism().map_or(1, usize::from));
    let mut checks = Checks::new();
    let options = Options {
        data: args.data,
        models: args.models,
        singles: args.singles as usize,
        concrete_ml: args.concrete_ml,
    };
    let report = classical_run::run(&options, &mut checks)?;
    print_json(&envelope(&machine, &checks, &report)?)?;
    Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
