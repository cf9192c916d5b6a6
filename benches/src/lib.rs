//! Measurements of sotto, each with its command, its raw JSON and a check that fails the run when an answer is wrong.
//!
//! The binaries are thin: they parse their arguments, call this library and print. What they share lives here.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | cpu, instruction sets, threads, git revision, date: the line every report carries |
//! | [`check`] | named checks; one failed check fails the run |
//! | [`stats`] | medians, ratios, relative errors, wall-clock samples |
//! | [`output`] | one JSON object as the last line of stdout, everything else to stderr |
//! | [`shapes`] | the matrices and counts of a decoder, read from its GGUF |
//! | [`clear`] | time of each operation in clear f32 (candle) |
//! | [`accounting`] | a token's bytes by layer, a process's memory by part |
//! | [`chat_run`], [`link`] | `--bin chat`: a whole chat model, and the slow link it may be measured over |
//! | [`link_run`], [`network`], [`kinds`] | `--bin chat --link`: drafts and shared passes over kernel TCP between two namespaces |
//! | [`llm_run`], [`memory`] | `--bin llm`: the block linears of a shape, client and server in one process |
//! | [`linear_run`] | one linear layer by the split-phase protocol: `--bin linear` as a process |
//! | [`tfhe_ops`] | activation, softmax, norm and encrypted products on TFHE's programmable bootstrapping |
//! | [`per_op`] | the table of `--bin per-op` |
//! | [`digits`], [`classifier`] | the quantized linear classifier of `--bin classifier` |
//! | [`classical_run`] | trees, linear models and networks beside their own libraries: `--bin classical` |
//! | [`peers`] | other libraries on the same shapes, interleaved with ours |
//! | [`run_folder`], [`plots`], [`readme`] | what `--bin report` writes |
//!
//! # Example
//! A figure is worth its check: the product is timed, and compared with the exact one.
//! ```
//! use benches::check::Checks;
//! use benches::stats::{relative_rms_error, time_ms};
//!
//! let (x, exact) = ([0.1_f32; 1000], vec![0.01; 1000]);
//! let (got, ms) = time_ms(|| x.map(|x| f64::from(x * x)).to_vec());
//! let mut checks = Checks::new();
//! checks.at_most("relative error of the squares", relative_rms_error(&got, &exact), 1e-6);
//! checks.at_least("time in ms", ms, 0.0);
//! assert!(checks.all_ok());
//! ```

pub mod accounting;
pub mod anonymize_run;
pub mod chat_run;
pub mod check;
pub mod classical_run;
pub mod classifier;
pub mod clear;
pub mod digits;
pub mod kinds;
pub mod linear_run;
pub mod link;
pub mod link_run;
pub mod llm_run;
pub mod machine;
pub mod memory;
pub mod network;
pub mod output;
pub mod peers;
pub mod per_op;
pub mod plots;
pub mod processor;
pub mod readme;
pub mod run_folder;
pub mod shapes;
pub mod stats;
pub mod tfhe_ops;
