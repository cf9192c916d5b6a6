//! Developer tasks of the workspace. `cargo xtask ci` is what continuous integration runs.
//!
//! | task | what it does |
//! |---|---|
//! | `ci` | layout, licences, spelling, tests, clippy, docs, README commands, benchmark smoke |
//! | `layout` | file sizes, crate directions, client/server separation, where `unsafe` may stand |
//! | `readme` | runs the shell commands of README.md exactly as printed |
//! | `trust` | faults, load, hostile input and leak searches; `--full` runs the long versions |
//! | `assets` | regenerates man pages and shell completions below `packaging/` |

mod assets;
mod ci;
mod layout;
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
    /// Regenerate man pages and shell completions.
    Assets,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Ci => ci::run(),
        Task::Layout => layout::run(),
        Task::Readme => readme::run(),
        Task::Trust { full, ci } => trust::run(trust::Budget::from_flags(full, ci)),
        Task::Assets => assets::run(),
    }
}
