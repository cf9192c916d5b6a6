//! The `sotto` program.

fn main() -> std::process::ExitCode {
    sotto::main()
}
