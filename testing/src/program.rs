//! Running a program under test and reading what it says.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs the program with `input` on its standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses early may close the pipe before all is written.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Standard error as text.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line of standard output, as JSON.
pub fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().last().unwrap_or_else(|| panic!("no output; errors: {}", errors(output)));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}
