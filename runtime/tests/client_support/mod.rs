//! What the black-box tests of the client share: the program, and the model's split in the cache.
#![allow(dead_code, reason = "each test file uses a part of this")]

#[path = "../surroundings/mod.rs"]
mod surroundings;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use models::split::plan::PlanKind;
use runtime::embedded::{LocalModel, local_model};
use runtime::fetch::{Cache, ModelRef, NoProgress};
use surroundings::shut_off;

/// The program, shut off from the surroundings.
pub(crate) fn sotto() -> Command {
    shut_off(Command::new(env!("CARGO_BIN_EXE_sotto")))
}

/// Runs the program with `input` on its standard input.
pub(crate) fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses early may close the pipe before all is written.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Standard error as text.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line of standard output, as JSON.
pub(crate) fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().last().unwrap_or_else(|| panic!("no output; errors: {}", errors(output)));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// The default model, fetched and split.
pub(crate) fn smollm2() -> LocalModel {
    let binding = runtime::split_store::binding(64).unwrap();
    let model = ModelRef::parse("smollm2-135m").unwrap();
    local_model(&model, PlanKind::Plain, &binding, &Cache::from_env().unwrap(), &NoProgress).unwrap()
}
