//! Developer tasks of the workspace. `cargo xtask ci` is what continuous integration runs.
//!
//! | task | what it does |
//! |---|---|
//! | `ci` | layout, links, licences, spelling, tests, clippy, docs, features, README commands, benchmark smoke |
//! | `layout` | file sizes, crate directions, client/server separation, where `unsafe` may stand |
//! | `docs` | links, paths and anchors of every document; a page with an example for every crate |
//! | `features` | each crate compiles alone, without default features and with each feature |
//! | `readme` | runs the shell commands of README.md exactly as printed |
//! | `trust` | faults, load, hostile input and leak searches; `--full` runs the long versions |
//! | `assets` | lints the Dockerfile; writes man pages and shell completions below `packaging/` |
//!
//! ```sh
//! cargo xtask docs
//! ```

mod assets;
mod ci;
mod crate_docs;
mod features;
mod fuzz;
mod layout;
mod links;
mod readme;
mod shell;
mod trust;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of the sotto workspace")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check that continuous integration runs.
    Ci,
    /// Check file sizes, crate directions, client/server separation and the places of `unsafe`.
    Layout,
    /// Check what the documents point to, and that every crate has a page with an example.
    Docs,
    /// Check that each crate compiles alone, without default features and with each feature.
    Features,
    /// Run the README's commands exactly as printed.
    Readme,
    /// Run the trust suite and print its table.
    Trust {
        /// Long versions: 30-minute soak, full fuzz budgets.
        #[arg(long)]
        full: bool,
        /// The subset that continuous integration affords (about four minutes).
        #[arg(long, conflicts_with = "full")]
        ci: bool,
    },
    /// Fuzz every decoder with libFuzzer; needs a nightly toolchain and cargo-fuzz.
    Fuzz {
        /// Minutes for all targets together.
        #[arg(long, default_value_t = 20.0)]
        minutes: f64,
        /// Only these targets.
        targets: Vec<String>,
    },
    /// Lint the Dockerfile; write man pages and shell completions.
    Assets,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Ci => ci::run(),
        Task::Layout => layout::run(),
        Task::Docs => {
            links::run()?;
            crate_docs::run()
        }
        Task::Features => features::run(),
        Task::Readme => readme::run(),
        Task::Trust { full, ci } => trust::run(trust::Budget::from_flags(full, ci)),
        Task::Fuzz { minutes, targets } => fuzz::run(minutes, &targets),
        Task::Assets => assets::run(),
    }
}
