//! The `sotto` program.

fn main() -> std::process::ExitCode {
    runtime::cli::main()
}
