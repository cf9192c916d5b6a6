//! The `anonymize` program.

fn main() -> std::process::ExitCode {
    anonymizer::commands::main()
}
